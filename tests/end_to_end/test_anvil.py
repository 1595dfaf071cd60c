# SPDX-License-Identifier: BSD-3-Clause
"""The same processes on anvil, a chain that is not ours and has its own clock."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time

import pytest

from tests.end_to_end.conftest import monetor
from tests.end_to_end.file_server import FileServer
from tests.end_to_end.parties import PRICE, TOKENS, Parties

ANVIL = shutil.which("anvil")
pytestmark = pytest.mark.skipif(ANVIL is None, reason="anvil is not on the PATH")
SIZE = 2 << 20


class Anvil:
    """A node with a block every second; `hardfork` decides what it can compute."""

    def __init__(self, hardfork):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.command = [ANVIL, "--port", str(self.port), "--block-time", "1", "--silent",
                        "--hardfork", hardfork]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                time.sleep(0.1)
        raise AssertionError("anvil does not listen")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(10)


@pytest.mark.long
def test_a_download_is_bought_and_settled_on_anvil(tmp_path):
    with Anvil("prague") as anvil, FileServer(SIZE) as server, Parties(
            tmp_path, endpoint=anvil.url) as parties:
        client = parties.start_client(server.url)
        assert client.end(180) == 0, client.said()
        assert client.facts()[-1]["sha256"] == server.sha256
        settled = parties.settle(400)
        after, sent = parties.check_accounts(settled)
        assert after["client"] + after["client-guard"] == (
            TOKENS["client"] + TOKENS["client-guard"] - PRICE * sent)


def test_a_chain_without_the_precompiles_is_refused_before_anything_is_deployed(tmp_path):
    with Anvil("cancun") as anvil:
        status, out, err = monetor("deploy", "--network", anvil.url, "--deployments", tmp_path)
    assert (status, out) == (1, "") and "EIP-2537" in err and len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())
