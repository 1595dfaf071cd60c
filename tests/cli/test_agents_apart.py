# SPDX-License-Identifier: BSD-3-Clause
"""Every party as a process of its own: deploy, fund, run, download, settle, end."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
CONTENT = random.Random(1).randbytes(1_000_000)
RELAYS = {"guard": ["--guard"], "middle": [], "exit": ["--exit"]}
PRICE, EARNED = 100, 86
GUARD_DEPOSIT = 50_000

pytestmark = pytest.mark.slow


class Parties:
    """The processes of one network, and the folder in which they run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.running: dict[str, subprocess.Popen[str]] = {}

    def start(self, *arguments: str) -> dict:
        """Start a program that runs on; what it says first."""
        name = arguments[1] if arguments[0] == "relay" else arguments[0]
        with open(self.folder / f"{name}.log", "w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "offchain.cli", *arguments],
                cwd=self.folder, env=self.environment, text=True, stdout=subprocess.PIPE,
                stderr=log,
            )  # fmt: skip
        self.running[name] = process
        return self.said(name)

    def said(self, name: str) -> dict:
        line = self.running[name].stdout.readline()
        assert line, (self.folder / f"{name}.log").read_text()
        return json.loads(line)

    def script(self, name: str, *arguments: str) -> dict:
        """Run a script to its end; its report."""
        done = subprocess.run(
            [sys.executable, str(ROOT / "scripts" / f"{name}.py"), *arguments, "--json"],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=200,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def end(self) -> dict[str, int]:
        """End everybody, the chain last; their exit statuses."""
        for process in reversed(self.running.values()):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
        return {name: process.returncode for name, process in self.running.items()}


@pytest.fixture
def url():
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/file"
        server.shutdown()
        thread.join()


def test_a_download_between_separate_processes(tmp_path, url):
    parties = Parties(tmp_path)
    try:
        rpc = parties.start("chain", "--port", "0", "--speed", "4")["rpc"]
        on_chain = ["--network", rpc]
        parties.script("deploy", *on_chain)
        accounts = ["intermediary", "client", "client-guard", *RELAYS]
        funding = [sys.executable, "-m", "offchain.cli", "fund", *accounts, *on_chain]
        subprocess.run(funding, cwd=tmp_path, env=parties.environment, check=True, timeout=100,
                       capture_output=True)  # fmt: skip
        directory = parties.start("authority", "--port", "0", "--json", *on_chain)["url"]
        network = [*on_chain, "--directory", directory]
        parties.start("intermediary", "--json", *network)
        for name, flags in RELAYS.items():
            parties.start("relay", name, *flags, "--json", *network)

        bought = parties.script("run_client", url, *network)
        assert bought["bytes"] == len(CONTENT)
        assert bought["sha256"] == hashlib.sha256(CONTENT).hexdigest()
        sent = bought["sent"]
        # A cell carries at most 498 bytes, and a payment buys 100 cells.
        assert min(sent.values()) >= len(CONTENT) / 498 / 100

        # Another process must not touch the folder of a relay that runs, but may ask it to settle.
        for name in RELAYS:
            told = parties.script("run_relay", name, "--settle", *network)
            assert told["told_process"] == parties.running[name].pid
        reports = {name: parties.said(name) for name in RELAYS}
        assert reports["guard"]["guard_received"] == sent["guard"]
        for name in ("middle", "exit"):
            assert reports[name]["received"] == sent[name]
            assert reports[name]["withdrawn"] == EARNED * sent[name]
            assert reports[name]["channels_not_paid_out"] == 0

        settled = parties.script("run_client", "--settle", *network)
        # The channels at the intermediary and the direct one with the guard.
        escrowed = 6 * 4 * 128 * PRICE + GUARD_DEPOSIT
        assert settled["withdrawn"] == escrowed - PRICE * sum(sent.values())
    finally:
        statuses = parties.end()
    assert set(statuses.values()) == {0}, statuses
