# SPDX-License-Identifier: BSD-3-Clause
"""Separate processes: a relay is backed up while it runs, its disk is lost, and it comes back."""

from __future__ import annotations

import shutil
import time

import pytest

from tests.end_to_end.file_server import FileServer
from tests.end_to_end.parties import Parties, Process

SIZE = 400 * 1024
PASSPHRASE = {"MONETOR_PASSWORD": "correct horse battery staple"}


class Lost(Parties):
    """Parties whose folders can be lost and put back."""

    def monetor(self, *arguments):
        log = self.folder / f"{arguments[0]}-{len(self.started)}"
        process = Process(["-m", "offchain.cli", *map(str, arguments), "--json"], log, PASSPHRASE)
        self.started.append(process)
        assert process.end(90) == 0, process.said()
        return process.facts()[0]

    def wait_until_said(self, name, words, seconds=60):
        deadline = time.monotonic() + seconds
        while words not in self.processes[name].complaints():
            assert time.monotonic() < deadline, self.processes[name].said()
            time.sleep(0.2)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_relay_comes_back_from_a_backup(tmp_path):
    with FileServer(SIZE) as server, Lost(tmp_path) as parties:
        first = parties.start_client(server.url)
        assert first.end(180) == 0, first.said()
        home, file = tmp_path / "parties" / "exit", tmp_path / "exit.backup"
        assert parties.monetor("backup", home, file)["role"] == "relay"
        assert parties.processes["exit"].popen.poll() is None, "it has gone on"
        parties.processes["exit"].kill()
        shutil.rmtree(home)
        parties.monetor("restore", file, home)
        parties.start_relay("exit")
        parties.wait_until_said("exit", "back from a backup")
        second = parties.start_client(server.url)
        assert second.end(180) == 0, second.said()
        facts = parties.settle()
        assert facts["exit"]["channels_not_paid_out"] == 0
        parties.check_accounts(facts)
