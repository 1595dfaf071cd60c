# SPDX-License-Identifier: BSD-3-Clause
"""Applications download through the paid circuits of a client that serves them as a SOCKS proxy."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.end_to_end.file_server import FileServer
from tests.end_to_end.parties import RELAYS, Parties

SIZE = 1024 * 1024
CELLS = -(-SIZE // 498)

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def curl(address, user, url, output):
    """Start a download that lets the proxy resolve names."""
    return subprocess.Popen(
        ["curl", "--silent", "--show-error", "--max-time", "100", "--socks5-hostname", address,
         "--proxy-user", f"{user}:x", "--output", str(output), url],
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def test_curl_downloads_over_paid_circuits_that_are_apart_by_credentials(tmp_path):
    with FileServer(SIZE) as server, Parties(tmp_path) as parties:
        client = parties.start_client("--socks", "127.0.0.1:0", "--sessions", "1",
                                      "--channels", "6")
        address = client.wait_for_facts()["socks"]
        url = server.url.replace("127.0.0.1", "localhost")
        downloads = [(curl(address, user, url, tmp_path / f"{user}{number}"),
                      tmp_path / f"{user}{number}")
                     for number, user in enumerate(["alice", "bob", "alice"])]
        for process, output in downloads:
            _, said = process.communicate(timeout=120)
            assert process.returncode == 0, said + client.complaints()
            assert output.read_bytes() == server.body
        client.terminate()
        facts = client.facts()[-1]
        assert facts["connections"] == len(downloads)
        for hop in RELAYS:
            # Every hop of both circuits was paid for what it carried.
            assert facts["sent"][hop] >= len(downloads) * (CELLS // 100), facts
        parties.check_accounts(parties.settle())
