# SPDX-License-Identifier: BSD-3-Clause
"""A client with two intermediaries, and relays that accept one each, as processes of their own."""

from __future__ import annotations

import json

import pytest

from tests.end_to_end.conftest import monetor
from tests.end_to_end.file_server import FileServer
from tests.end_to_end.parties import DELTA_R, PRICE, RELAYS, TOKENS, Parties

SIZE = 2 * 1024 * 1024
SLOW = 300 * 1024
SECOND = "intermediary2"
BOTH = ("intermediary", SECOND)
ONE_EACH = {"guard": BOTH, "middle": ("intermediary",), "exit": (SECOND,)}


class TwoIntermediaries(Parties):
    """`accepted` names the intermediaries of each relay; by default those of middle and exit are
    not the same."""

    def __init__(self, folder, accepted=None):
        super().__init__(folder, tokens=TOKENS | {SECOND: TOKENS["intermediary"]})
        self.accepted = accepted or ONE_EACH

    def start_intermediary(self, dies=()):
        process = super().start_intermediary(dies)
        if SECOND not in self.processes:
            self.run(SECOND, "run_intermediary", SECOND).wait_for_facts()
        return process

    def start_relay(self, name, wait=True, dies=()):
        named = [word for one in self.accepted[name] for word in ("--intermediary", one)]
        process = self.run(name, "run_relay", name, *RELAYS[name], *named, dies=dies)
        if wait:
            process.wait_for_facts()
        return process

    def wallet(self, name, *arguments):
        """What `monetor wallet` says of a party."""
        status, out, err = monetor(
            "wallet", name, "--folder", self.folder / "parties" / name, "--network", self.endpoint,
            "--deployments", self.folder / "deployments", "--history", "0", "--json", *arguments)
        assert status == 0, err
        assert "Traceback" not in err
        return json.loads(out)


def adds_up(wallet):
    """Escrowed = held + paid − earned ∓ what is not settled yet, to the unit."""
    total = {}
    for one in wallet["history"]:
        total[one["what"]] = total.get(one["what"], 0) + one["amount"]
    balances = wallet["balances"]
    held = sum(balances[name] for name in ("available", "locked", "pending", "paid_out"))
    unsettled = balances["unsettled"] * (1 if wallet["role"] == "relay" else -1)
    return held == (total["escrowed"] - total.get("paid", 0) + total.get("earned", 0) + unsettled)


@pytest.mark.long
def test_each_hop_is_paid_through_an_intermediary_that_both_have(tmp_path):
    with FileServer(SIZE, per_second=SLOW) as server, TwoIntermediaries(tmp_path) as parties:
        client = parties.start_client(server.url, "--sessions", "2", "--channels", "4")
        parties.wait_for_payments("exit", "received", 8)
        during = {name: parties.wallet(name) for name in ("client", "middle", "exit")}
        assert client.end(120) == 0, client.said()
        facts = client.facts()[-1]
        assert facts["sha256"] == server.sha256
        for name, wallet in during.items():
            assert adds_up(wallet), (name, wallet)
        assert {one["intermediary"] for one in during["client"]["groups"]} == {
            "intermediary", SECOND}
        assert {one["intermediary"] for one in during["middle"]["groups"]} == {"intermediary"}
        assert {one["intermediary"] for one in during["exit"]["groups"]} == {SECOND}
        assert during["client"]["balances"]["unsettled"] > 0
        served = {name: parties.wallet(name)["sessions_by_phase"].get("relay-closed", 0)
                  for name in ("intermediary", SECOND)}
        assert all(served.values()), served

        settled = parties.settle()
        after, sent = parties.check_accounts(settled)
        assert after["exit"] == DELTA_R * facts["sent"]["exit"]
        assert after["client"] + after["client-guard"] == (
            TOKENS["client"] + TOKENS["client-guard"] - PRICE * sent)
        # The wallet knows of every unit that the ledger has given back.
        wallet = parties.wallet("client", "--account", "client-guard")
        assert adds_up(wallet)
        sums = {one["account"].lower(): one for one in wallet["accounts"]}
        assert sum(one["tokens"] + one["withdrawable"] for one in sums.values()) == (
            after["client"] + after["client-guard"])
        withdrawn = sum(one["amount"] for one in wallet["history"] if one["what"] == "withdrawn")
        guards = sum(one["amount"] for one in wallet["history"] if one["what"] == "guard-opened")
        assert withdrawn == (wallet["balances"]["paid_out"] + guards
                             - PRICE * facts["sent"]["guard"])
        status, out, err = monetor("audit", "--network", parties.endpoint, "--deployments",
                                   tmp_path / "deployments", "--json")
        assert status == 0, err
        assert json.loads(out)["held"]["escrow"] == 0


@pytest.mark.long
def test_a_killed_client_keeps_its_pool(tmp_path):
    with FileServer(2 * SIZE, per_second=SLOW) as server, TwoIntermediaries(tmp_path) as parties:
        client = parties.start_client(server.url, "--sessions", "2", "--channels", "4")
        parties.wait_for_payments("exit", "received", 8)
        client.kill()
        ready = ready_sessions(parties.wallet("client"))
        assert ready, "sessions are set up ahead of demand, and on disk"
        client = parties.start_client(server.url, "--sessions", "2", "--channels", "4")
        assert client.end(150) == 0, client.said()
        assert client.facts()[-1]["sha256"] == server.sha256
        wallet = parties.wallet("client")
        assert not wallet["sessions"] and adds_up(wallet)
        known = {one["subject"] for one in wallet["history"] if one["what"] == "established"}
        assert ready & known, "what was ready before the kill was used after it"
        assert len(wallet["groups"]) == 2, "nothing was lost, so nothing more was opened"
        parties.check_accounts(parties.settle())


@pytest.mark.long
def test_an_intermediary_that_dies_stops_nobody_who_has_another(tmp_path):
    with FileServer(SIZE, per_second=SLOW) as server, TwoIntermediaries(
            tmp_path, dict.fromkeys(RELAYS, BOTH)) as parties:
        client = parties.start_client(server.url, "--sessions", "2", "--channels", "4")
        assert client.end(150) == 0, client.said()
        parties.processes[SECOND].kill()
        client = parties.start_client(server.url, "--sessions", "2", "--channels", "4")
        assert client.end(250) == 0, client.said()
        assert client.facts()[-1]["sha256"] == server.sha256
        wallet = parties.wallet("client")
        assert adds_up(wallet)
        # What the pool began at the dead one was claimed, or will be; nothing of it is lost.
        assert not wallet["sessions"]


def ready_sessions(wallet):
    return {one["session"] for one in wallet["sessions"] if one["state"] == "ready"}
