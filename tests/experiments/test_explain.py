# SPDX-License-Identifier: BSD-3-Clause
"""The told session is the one that the machines run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from monetor_chain.parameters import DEMO
from offchain.protocol import messages as m
from offchain.testnet.explain import PAYMENTS, PURPOSE, Step, explain_session, told

PRICE, DELTA_R = DEMO.price, DEMO.delta_r
SESSION = [
    (m.NanoSetupRequest, 0x20), (m.NanoRefundReply, 0x21), (m.NanoSetupReveal, 0x22),
    (m.Acknowledged, 0x23), (m.NanoOffer, 0x28), (m.NanoEstablishRequest, 0x2A),
    (m.NanoRefundReply, 0x21), (m.NanoEstablishReveal, 0x2C), (m.Acknowledged, 0x23),
    (m.NanoAccepted, 0x29), (m.NanoPayment, 0x30), (m.NanoPayment, 0x30),
    (m.RelayCloseRequest, 0x38), (m.RefundTokenReply, 0x39), (m.RelayCloseReveal, 0x3A),
    (m.WalletTokenReply, 0x3B), (m.ClientCloseQuery, 0x40), (m.ClientCloseCount, 0x41),
    (m.ClientCloseRequest, 0x42), (m.RefundTokenReply, 0x39), (m.ClientCloseReveal, 0x44),
    (m.WalletTokenReply, 0x3B),
]  # fmt: skip


@pytest.fixture(scope="module")
def steps() -> list[Step]:
    return explain_session()


def test_every_message_of_the_session_is_told_in_order(steps):
    nano = [(one.name, one.pcmd) for one in steps if one.phase.startswith("Nano-")]
    assert nano == [(kind.__name__, pcmd) for kind, pcmd in SESSION]


def test_every_message_says_what_it_proves(steps):
    assert all(bool(one.purpose) == (one.pcmd is not None) for one in steps)
    assert {kind.__name__ for kind in PURPOSE} == {one.name for one in steps if one.pcmd}


def test_a_session_takes_at_most_25_cells(steps):
    cells = sum(one.cells for one in steps
                if one.phase.startswith(("Nano-Setup", "Nano-Establish", "Nano-Close")))
    assert 20 < cells <= 25
    assert told(steps)[-1].endswith(f"{cells} cells.")


def test_the_new_claim_is_on_disk_before_the_old_secret_leaves(steps):
    names = [one.name for one in steps]
    reply = steps[names.index("NanoRefundReply")]
    assert names.index("NanoRefundReply") < names.index("NanoSetupReveal")
    assert reply.claims["client"].startswith("NanoRefund")
    assert any("InSession" in record for record in reply.disk["client"])


def test_the_ledger_learns_of_channels_and_never_of_sessions(steps):
    transactions = [one for one in steps if one.pcmd is None]
    assert [one.name for one in transactions] == ["Open", "Fund", "Open", "Fund", "Close", "Close"]
    assert all("none of them about a session" in one.ledger for one in steps if one.pcmd)
    relay, client = transactions[-2:]
    assert f"{PAYMENTS * DELTA_R:,} units" in relay.ledger
    assert f"{(DEMO.n - PAYMENTS) * PRICE:,} units" in client.ledger


def test_sizes_follow_the_parameters():
    longer = explain_session(replace(DEMO, n=256))

    def path_bytes(steps: list[Step]) -> int:
        return max(one.size for one in steps if one.name == "NanoPayment")

    assert path_bytes(longer) == path_bytes(explain_session()) + 32


def test_the_text_names_each_step(steps):
    text = "\n".join(told(steps))
    for one in steps:
        assert f"{one.source} -> {one.target}: {one.name}" in text
    assert "PCMD 0x20" in text
    assert "RelaySession (closed)" in text
