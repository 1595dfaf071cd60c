# SPDX-License-Identifier: BSD-3-Clause
"""`monetor demo --json` in a process of its own; its arithmetic is done again here."""

from __future__ import annotations

import hashlib
import json
import random

import pytest

from tests.end_to_end.conftest import monetor
from tests.end_to_end.file_server import FileServer

PRICE, DELTA_R, TAX, PAY_FEE = 100, 86, 9, 5
FEE = PRICE - DELTA_R - TAX
RELAYS = ("guard", "middle", "exit")
DATA_IN_CELL = 498
DEMO_FILE = 8 * 1024 * 1024
CHANNELS = 6
"""Channels of the demo's client; one hidden payment leaves each."""


def demo(*arguments):
    status, out, err = monetor("demo", "--json", *arguments)
    assert "Traceback" not in err, err
    return status, json.loads(out), err


def check_accounts(statement):
    """What section 9 of docs/protocol.md promises, from nothing but the statement's figures."""
    parties = statement["parties"]
    assert set(parties) == {"client", "intermediary", *RELAYS}
    for one in parties.values():
        assert set(one) >= {"role", "honest", "before", "after", "floor", "sent", "received",
                            "gas"}
    for name, one in parties.items():
        if one["honest"]:
            assert one["after"] >= one["floor"], name
    before = sum(one["before"] for one in parties.values())
    after = sum(one["after"] for one in parties.values()) + statement["tax_pool"]
    assert statement["conservation"] is True
    assert before == after + statement["left_in_ledger"]
    for name in ("middle", "exit"):
        assert parties[name]["floor"] == DELTA_R * parties[name]["received"]
    assert parties["guard"]["floor"] == parties["guard"]["received"] * PRICE * 10 // 11


def check_honest_run(statement, cells_per_payment, size):
    """With everybody honest nothing is lost on the way either: the floors are met exactly."""
    check_accounts(statement)
    parties = statement["parties"]
    received = {name: parties[name]["received"] for name in RELAYS}
    assert parties["client"]["sent"] == sum(received.values())
    data = -(-size // DATA_IN_CELL)
    for name in RELAYS:
        # One at once, then one for every so many cells; the cells that go back (and those that
        # carry payments) are a few per cent.
        assert 1 + data // cells_per_payment <= received[name]
        assert received[name] <= 2 + 1.15 * data / cells_per_payment + 100 / cells_per_payment
        assert parties[name]["after"] == parties[name]["floor"]
    assert parties["client"]["after"] == parties["client"]["floor"] == (
        parties["client"]["before"] - PRICE * sum(received.values()) - PAY_FEE * CHANNELS)
    settled = received["middle"] + received["exit"]
    found = statement["intermediary"]
    assert found["margin"] == (PRICE - DELTA_R) * settled
    assert FEE * settled <= found["fee"] <= (FEE + 1) * settled
    change = parties["intermediary"]["after"] - parties["intermediary"]["before"]
    assert change == found["fee"] + PAY_FEE * CHANNELS
    direct = received["guard"] * PRICE
    assert statement["tax_pool"] == found["margin"] - found["fee"] + direct - direct * 10 // 11
    for protocol in ("establish", "nano_setup", "nano_establish", "nano_close_relay",
                     "nano_close_client", "micropayment", "cash_out"):
        one = statement["protocols"][protocol]
        assert one["count"] >= 1 and one["median_ms"] > 0 and one["cells"] >= 2
    session = sum(statement["protocols"][one]["cells"] for one in (
        "nano_setup", "nano_offer", "nano_establish", "nano_close_relay", "nano_close_client"))
    assert session <= 25


def test_the_demo_buys_a_file_and_every_figure_adds_up():
    status, statement, _ = demo()
    assert status == 0
    body = random.Random(DEMO_FILE).randbytes(DEMO_FILE)
    assert statement["download"]["bytes"] == DEMO_FILE
    assert statement["download"]["sha256"] == hashlib.sha256(body).hexdigest()
    assert statement["download"]["seconds"] > 0
    check_honest_run(statement, 100, DEMO_FILE)


def test_a_payment_can_buy_a_thousand_cells():
    size = 1 << 20
    with FileServer(size) as server:
        status, statement, _ = demo("--url", server.url, "--cells-per-payment", 1000)
    assert status == 0
    assert statement["download"]["sha256"] == server.sha256
    check_honest_run(statement, 1000, size)


def test_a_download_that_breaks_off_is_accounted_for_all_the_same():
    """And a payment can buy 50 cells."""
    half = 1 << 19
    with FileServer(2 * half, stop_after=half) as server:
        status, statement, err = demo("--url", server.url, "--cells-per-payment", 50)
    assert status == 1
    assert f"the download stopped after {half} of {2 * half} bytes" in err
    assert statement["download"] == {}
    check_honest_run(statement, 50, half)


DISHONEST = {
    "client-posts-revoked-state": "client",
    "client-refunds-low": "client",
    "client-vanishes": "client",
    "relay-vanishes": "exit",
    "relay-posts-late": "exit",
    "intermediary-vanishes": "intermediary",
}


@pytest.mark.parametrize("dispute", [
    "client-posts-revoked-state",
    "intermediary-vanishes",
    *(pytest.param(name, marks=pytest.mark.long) for name in (
        "client-refunds-low", "client-vanishes", "relay-vanishes", "relay-posts-late")),
])
def test_no_honest_party_loses_a_unit_in_a_dispute(dispute):
    size = 3 << 20
    with FileServer(size) as server:
        status, statement, err = demo("--url", server.url, "--dispute", dispute)
    assert status == 0, err
    check_accounts(statement)
    parties, culprit = statement["parties"], DISHONEST[dispute]
    assert {name for name, one in parties.items() if not one["honest"]} == {culprit}
    assert statement["dispute"] == dispute and statement["notes"]
    assert parties["exit"]["received"] > 30
    culprit_got = parties[culprit]["after"] - parties[culprit]["floor"]
    match dispute:
        case "client-posts-revoked-state" | "client-vanishes":
            assert culprit_got < -10_000, "a channel is forfeited"
        case "client-refunds-low":
            assert culprit_got == 0, "it pays what it has paid"
        case "relay-vanishes" | "relay-posts-late":
            assert parties["exit"]["after"] == 0, "nothing was claimed in time"
        case "intermediary-vanishes":
            assert parties["exit"]["after"] == DELTA_R * parties["exit"]["received"]
