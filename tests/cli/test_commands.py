# SPDX-License-Identifier: BSD-3-Clause
"""The command line's face: help, examples, JSON, and how quickly it is there."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from monetor_chain import gas as ledger_gas
from offchain.cli import client, main
from offchain.cli.failures import UsageProblem

ROOT = Path(__file__).resolve().parent.parent.parent
SLOW = {"web3", "eth", "vyper", "aiohttp", "structlog", "offchain.crypto", "offchain.agents"}
NAMES = [name for name, _, _ in main.COMMANDS]


def monetor(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "offchain.cli", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_help_lists_every_command():
    shown = CliRunner().invoke(main.app, ["--help"]).output
    assert all(name.split()[0] in shown for name in NAMES)


@pytest.mark.parametrize("group", main.GROUPS)
def test_help_of_a_group_lists_its_commands(group):
    shown = CliRunner().invoke(main.app, [group, "--help"]).output
    assert all(name.split()[1] in shown for name in NAMES if name.startswith(f"{group} "))


@pytest.mark.parametrize("name", NAMES)
def test_every_command_shows_an_example_of_itself(name):
    result = CliRunner().invoke(main.app, [*name.split(), "--help"])
    assert result.exit_code == 0
    assert f"Example: monetor {name}" in result.output


@pytest.mark.parametrize("name", [name for name in NAMES if name != "chain"])
def test_every_report_is_there_for_machines(name):
    # `chain` reports nothing but the line with its endpoint, which is JSON already.
    assert "--json" in CliRunner().invoke(main.app, [*name.split(), "--help"]).output


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"], ["version", "--json"]])
def test_help_loads_no_chain_and_no_agent(arguments):
    code = (
        "import sys\n"
        "from offchain.cli.main import main\n"
        "try:\n"
        f"    main({arguments!r})\n"
        "finally:\n"
        f"    sys.stderr.write(' '.join(sorted({SLOW!r} & set(sys.modules))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert done.stderr == ""


def test_version_names_what_a_failure_depends_on():
    facts = json.loads(monetor("version", "--json").stdout)
    assert facts["vyper"] == "0.4.3"
    assert facts["py-evm"] == "0.12.1b1"
    assert facts["python"].startswith("3.")


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["relay"], ["chain", "--precompiles", "quick"], ["gas", "--no"]]
)
def test_wrong_usage_is_told_apart_from_failure(arguments):
    done = monetor(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["deploy", "--network", "nowhere"], "no network 'nowhere'"),
        (["deploy", "--network", "http://127.0.0.1:1"], "http://127.0.0.1:1"),
        (["fund", "0x12"], "0x12 is no address"),
        (["client"], "give a URL, --socks or --settle"),
        (["client", "--socks", "9050:here"], "for example 127.0.0.1:9050"),
        (["client", "--socks", "0.0.0.0:9050"], "spends this client's money"),
        (["client", "--socks", "127.0.0.1:70000"], "for example 127.0.0.1:9050"),
        (["client", "http://127.0.0.1/", "--socks", ":0"], "not both"),
        (["relay", "one", "--exit", "--exit-policy", "public"], "not network:port"),
        (["relay", "one", "--exit-policy", "public:443"], "relays with --exit"),
        (["demo", "--dispute", "nobody-vanishes"], "nobody-vanishes"),
        (["demo", "--cells-per-payment", "4294967296"], "cells_per_payment"),
    ],
)
def test_an_expected_failure_is_one_sentence_and_exit_status_one(arguments, sentence):
    done = monetor(*arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("monetor: ")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


def test_gas_tells_of_a_budget_that_is_exceeded(monkeypatch):
    within = {name: budget - 1 for name, budget in ledger_gas.BUDGETS.items()}
    monkeypatch.setattr(ledger_gas, "measure", lambda: within)
    kept = CliRunner().invoke(main.app, ["gas", "--json"])
    assert (kept.exit_code, json.loads(kept.output)) == (0, within)
    beyond = within | {"refund": ledger_gas.BUDGETS["refund"] + 1}
    monkeypatch.setattr(ledger_gas, "measure", lambda: beyond)
    broken = CliRunner().invoke(main.app, ["gas"])
    assert broken.exit_code == 1
    assert f"{beyond['refund']:,}" in broken.output


def test_client_without_a_task_does_not_start():
    with pytest.raises(UsageProblem):
        client.run(url=None, settle=False)


@pytest.mark.parametrize(
    ("script", "command"),
    [
        ("deploy", "deploy"),
        ("run_authority", "authority"),
        ("run_intermediary", "intermediary"),
        ("run_relay", "relay"),
        ("run_client", "client"),
        ("run_watcher", "watcher"),
        ("run_testnet", "testnet"),
    ],
)
def test_a_script_is_the_command_of_its_name(script, command, monkeypatch):
    module = importlib.import_module(f"scripts.{script}")
    called = []
    monkeypatch.setattr(module, "monetor", called.append)
    module.main("--network", "local")
    assert called == [[command, "--network", "local"]]
    assert command in NAMES
