# SPDX-License-Identifier: BSD-3-Clause
"""`chain`, `deploy` and `fund` as separate processes, against a chain of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
MONETOR = [sys.executable, "-m", "offchain.cli"]


def monetor(*arguments, cwd):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*MONETOR, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
    )


@pytest.fixture(scope="module")
def chain():
    with subprocess.Popen(
        [*MONETOR, "chain", "--port", "0"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
    assert process.returncode == 0


@pytest.fixture(scope="module")
def place(chain, tmp_path_factory):
    """A working folder in which the contracts are deployed."""
    folder = tmp_path_factory.mktemp("work")
    done = monetor("deploy", "--network", chain["rpc"], "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_deploying_again_changes_nothing(chain, place):
    folder, first = place
    done = monetor("deploy", "--network", chain["rpc"], "--json", cwd=folder)
    assert json.loads(done.stdout) == first


def test_funding_adds_up(chain, place):
    folder, _ = place
    given = [
        "fund",
        "somebody",
        "--tokens",
        "70",
        "--wei",
        "5",
        "--network",
        chain["rpc"],
        "--json",
    ]
    once = json.loads(monetor(*given, cwd=folder).stdout)
    twice = json.loads(monetor(*given, cwd=folder).stdout)
    assert (once["somebody"]["tokens"], twice["somebody"]["tokens"]) == (70, 140)
    assert twice["somebody"]["wei"] == 10


def test_nothing_is_funded_if_one_address_is_wrong(chain, place):
    folder, _ = place
    given = ["fund", "other", "0x00", "--network", chain["rpc"]]
    assert monetor(*given, cwd=folder).returncode == 1
    funded = monetor(
        "fund", "other", "--tokens", "1", "--network", chain["rpc"], "--json", cwd=folder
    )
    assert json.loads(funded.stdout)["other"]["tokens"] == 1


def test_agents_want_a_deployment(chain, tmp_path):
    done = monetor("authority", "--network", chain["rpc"], "--port", "0", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("monetor: ")
    assert "Traceback" not in done.stderr


def test_a_relay_wants_a_directory(chain, place):
    folder, _ = place
    done = monetor(
        "relay", "somebody", "--network", chain["rpc"], "--directory", "http://127.0.0.1:1",
        cwd=folder,
    )  # fmt: skip
    assert done.returncode == 1
    assert "the directory at http://127.0.0.1:1 does not answer" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use(chain, tmp_path):
    port = chain["rpc"].rsplit(":", 1)[1]
    done = monetor("chain", "--port", port, cwd=tmp_path)
    assert done.returncode != 0
    assert done.stdout == ""
    assert port in done.stderr
    assert done.stderr.count("\n") == 1
