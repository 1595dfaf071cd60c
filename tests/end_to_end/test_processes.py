# SPDX-License-Identifier: BSD-3-Clause
"""Separate processes from scripts/: a paid download, settled to the unit, whoever is killed."""

from __future__ import annotations

import random
import re
import time

import pytest

from tests.end_to_end.file_server import FileServer
from tests.end_to_end.parties import DELTA_R, PRICE, RELAYS, TOKENS, Parties
from tests.end_to_end.sockets import peers

SIZE = 2 * 1024 * 1024
CELLS = -(-SIZE // 498)
SLOW = 300 * 1024
"""Bytes per second, so that there is a middle to be killed in."""


def test_processes_of_their_own_buy_a_download_and_settle(tmp_path):
    with FileServer(SIZE, per_second=4 * SLOW) as server, Parties(tmp_path) as parties:
        client = parties.start_client(server.url)
        reached = who_reaches_the_intermediary(parties, client)
        assert client.end(120) == 0, client.said()
        facts = client.facts()[-1]
        assert (facts["bytes"], facts["sha256"]) == (SIZE, server.sha256)
        settled = parties.settle()
        after, sent = parties.check_accounts(settled)
        # Nothing was lost on the way: what was sent was received, and paid for exactly.
        payments = {hop: facts["sent"][hop] for hop in RELAYS}
        assert payments["exit"] == settled["exit"]["received"]
        assert payments["middle"] == settled["middle"]["received"]
        assert payments["guard"] == settled["guard"]["guard_received"]
        assert all(CELLS // 100 <= count <= CELLS // 100 * 1.2 + 2 for count in payments.values())
        assert after["client"] + after["client-guard"] == (
            TOKENS["client"] + TOKENS["client-guard"] - PRICE * sent)
        assert after["exit"] == DELTA_R * payments["exit"]
        relays = {parties.processes[name].pid for name in RELAYS}
        assert reached and reached <= relays, "the intermediary sees relays only"


def who_reaches_the_intermediary(parties, client):
    """Processes that had a connection to the intermediary while the client ran."""
    found = set()
    known = [one.pid for one in parties.started if one.popen.poll() is None]
    while client.popen.poll() is None and len(found) < 6:
        found |= peers(parties.processes["intermediary"].pid, known)
        if parties.read_counter("client", "sent:exit") > 20:
            break
        time.sleep(0.05)
    return found


def test_whoever_is_killed_comes_back_and_no_unit_is_lost(tmp_path):
    """kill -9 of a relay, of the intermediary and of the client, each in the middle of sessions."""
    with FileServer(2 * SIZE, per_second=SLOW) as server, Parties(tmp_path) as parties:
        # The exit: the download breaks, and the client ends in order.
        client = parties.start_client(server.url)
        parties.wait_for_payments("exit", "received", 8)
        parties.processes["exit"].kill()
        on_disk = parties.counter("exit", "received")
        parties.start_relay("exit")
        assert client.end(120) == 1, client.said()
        assert "the download stopped after" in client.complaints()
        assert "Traceback" not in client.complaints()
        assert on_disk >= 8

        # The intermediary: the download does not even notice.
        client = parties.start_client(server.url)
        parties.wait_for_payments("exit", "received", on_disk + 8)
        parties.processes["intermediary"].kill()
        parties.start_intermediary()
        assert client.end(120) == 0, client.said()
        assert client.facts()[-1]["sha256"] == server.sha256

        # The client: whoever starts it again settles what it left.
        before = parties.counter("client", "sent:exit")
        client = parties.start_client(server.url)
        parties.wait_for_payments("client", "sent:exit", before + 8)
        client.kill()
        settled = parties.settle()
        parties.check_accounts(settled)
        assert_no_secret_in_logs(parties)
        assert settled["exit"]["received"] >= on_disk + 2 * CELLS // 100 + 7
        # Nobody had to go to the ledger: whoever came back was in time.
        for process in parties.started:
            assert "claim-posted" not in process.complaints(), process.said()


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2))
def test_a_client_killed_while_it_opens_channels_or_circuits_loses_nothing(tmp_path, seed):
    chance = random.Random(seed)
    with FileServer(SIZE, per_second=SLOW) as server, Parties(tmp_path) as parties:
        for _ in range(6):
            client = parties.start_client(server.url)
            # It takes two seconds to come up, and as long to open, set up and build.
            time.sleep(chance.uniform(1.5, 5))
            client.kill()
        client = parties.start_client(server.url)
        assert client.end(150) == 0, client.said()
        assert client.facts()[-1]["sha256"] == server.sha256
        parties.check_accounts(parties.settle())


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_everybody_is_killed_again_and_again(tmp_path, seed):
    chance = random.Random(seed)
    with FileServer(2 * SIZE, per_second=SLOW) as server, Parties(tmp_path) as parties:
        for _ in range(3):
            client = parties.start_client(server.url)
            parties.wait_for_payments("client", "sent:exit", 1)
            time.sleep(chance.uniform(0, 3))
            for name in chance.sample(["intermediary", *RELAYS], 2):
                parties.processes[name].kill()
                time.sleep(chance.uniform(0, 1))
                if name == "intermediary":
                    parties.start_intermediary()
                else:
                    parties.start_relay(name)
            client.kill()
        parties.check_accounts(parties.settle())


def assert_no_secret_in_logs(parties):
    """Nothing in a log is as long as a key, a lock, a preimage or a token; addresses are public."""
    for process in parties.started:
        found = re.findall(r"[0-9a-f]{41,}", process.complaints())
        assert not found, (process.command, found)
