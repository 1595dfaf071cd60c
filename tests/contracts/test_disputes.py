# SPDX-License-Identifier: BSD-3-Clause
"""The states of a channel and their deadlines: refund, refute, resolve, request_close."""

from __future__ import annotations

import pytest

from monetor_chain.rehearsal import NO_AUTHORISATION, Rehearsal
from monetor_chain.statements import Role

from .actions import (
    CLOSING_MICRO,
    DEPOSIT,
    ESCROW,
    FUND,
    RESOLVED,
    account_of,
    deadline,
    gains,
    open_channel,
    post_refund,
    post_session,
    refused,
    resolve,
    reveal,
    status,
    wealth,
)

CLIENT, RELAY = Role.CLIENT, Role.RELAY


def test_refund_of_a_client(stage: Rehearsal) -> None:
    cid = open_channel(stage, CLIENT)
    before = wealth(stage, account_of(stage, CLIENT))
    post_refund(stage, CLIENT, cid, 30_000, stage.secret())
    event = stage.events(resolve(stage, cid), "Resolved")[0]
    assert gains(before, wealth(stage, account_of(stage, CLIENT))) == (
        30_000,
        ESCROW - 30_000,
        0,
    )
    assert (event["to_account"], event["to_intermediary"], event["tax"]) == (
        30_000,
        ESCROW - 30_000,
        0,
    )


@pytest.mark.parametrize("role", [CLIENT, RELAY])
@pytest.mark.parametrize("nano", [False, True])
def test_refute_and_resolve_never_overlap(stage: Rehearsal, role: Role, nano: bool) -> None:
    """Invariant L10: refute until the deadline, resolve after it, not one second otherwise."""
    cid, secret = open_channel(stage, role), stage.secret()
    if nano:
        post_session(stage, role, cid, stage.terms(), DEPOSIT, 0, secret)
    else:
        post_refund(stage, role, cid, DEPOSIT, secret)
    ledger, watcher = stage.ledger.functions, stage.party("watcher")
    last = deadline(stage, cid)
    stage.travel(last)
    with refused("ledger: too early"):
        stage.send(ledger.resolve(cid), watcher)
    stage.travel(last + 1)
    with refused("ledger: too late"):
        stage.send(ledger.refute(cid, secret), watcher)
    stage.send(ledger.resolve(cid), watcher)


@pytest.mark.parametrize("nano", [False, True])
def test_refute_at_the_deadline(stage: Rehearsal, nano: bool) -> None:
    """Invariant L14: the posted lock's secret gives everything to the intermediary."""
    cid, secret = open_channel(stage, CLIENT), stage.secret()
    if nano:
        post_session(stage, CLIENT, cid, stage.terms(), 1_000, 0, secret)
    else:
        post_refund(stage, CLIENT, cid, DEPOSIT, secret)
    before = wealth(stage, account_of(stage, CLIENT))
    stage.travel(deadline(stage, cid))
    receipt = stage.send(stage.ledger.functions.refute(cid, secret), stage.party("watcher"))
    assert stage.events(receipt, "Refuted")[0] == {"cid": cid, "secret": secret}
    assert gains(before, wealth(stage, account_of(stage, CLIENT))) == (0, ESCROW, 0)
    assert status(stage, cid) == RESOLVED


def test_a_wrong_secret_refutes_nothing(stage: Rehearsal) -> None:
    """Invariant L14: the paper's algorithm fell through here."""
    cid, secret = open_channel(stage, CLIENT), stage.secret()
    ledger, watcher = stage.ledger.functions, stage.party("watcher")
    with refused("ledger: not closing"):
        stage.send(ledger.refute(cid, secret), watcher)
    post_refund(stage, CLIENT, cid, DEPOSIT, secret)
    for wrong in (stage.secret(), bytes(32)):
        with refused("ledger: wrong secret"):
            stage.send(ledger.refute(cid, wrong), watcher)
    assert status(stage, cid) == CLOSING_MICRO


def test_a_requested_channel_cannot_be_refuted(stage: Rehearsal) -> None:
    """Invariant L14: a request posts no lock; the empty one in its record is not a lock."""
    cid = open_channel(stage, CLIENT)
    stage.send(stage.ledger.functions.request_close(cid), stage.party("intermediary"))
    with refused("ledger: not closing"):
        stage.send(stage.ledger.functions.refute(cid, bytes(32)), stage.party("intermediary"))


@pytest.mark.parametrize("ending", ["resolve", "refute", "close"])
def test_a_channel_ends_once(stage: Rehearsal, ending: str) -> None:
    """Invariant L8: after any ending every further call on the channel is refused."""
    ledger, client = stage.ledger.functions, stage.party("client")
    cid, secret = open_channel(stage, CLIENT, 2), stage.secret()
    group = cid >> 8
    post_refund(stage, CLIENT, cid, DEPOSIT, secret)
    if ending == "resolve":
        resolve(stage, cid)
    elif ending == "refute":
        stage.send(ledger.refute(cid, secret), stage.party("watcher"))
    else:
        signature = stage.close_signature(group, 1, DEPOSIT)
        stage.send(ledger.close(group, 1, DEPOSIT, signature, NO_AUTHORISATION), client)
    assert status(stage, cid) == RESOLVED
    with refused("channel_groups: resolved"):
        post_refund(stage, CLIENT, cid, DEPOSIT, secret)
    with refused("channel_groups: resolved"):
        post_session(stage, CLIENT, cid, stage.terms(), DEPOSIT, 0)
    with refused("channel_groups: resolved"):
        stage.send(ledger.request_close(cid), stage.party("intermediary"))
    with refused("channel_groups: resolved"):
        stage.send(ledger.refute(cid, secret), stage.party("watcher"))
    stage.travel(stage.now() + 10_000)
    with refused("channel_groups: resolved"):
        stage.send(ledger.resolve(cid), stage.party("watcher"))
    for channels in (1, 3):
        signature = stage.close_signature(group, channels, 0)
        with refused("ledger: channels"):
            stage.send(ledger.close(group, channels, 0, signature, NO_AUTHORISATION), client)


def test_no_second_claim_while_closing(stage: Rehearsal) -> None:
    """Invariant L9: a second posting would move the deadline and replace the lock."""
    cid = open_channel(stage, RELAY)
    post_refund(stage, RELAY, cid, DEPOSIT, stage.secret())
    first = deadline(stage, cid)
    stage.travel(first)
    with refused("ledger: not open"):
        post_refund(stage, RELAY, cid, DEPOSIT, stage.secret())
    with refused("ledger: not open"):
        post_session(stage, RELAY, cid, stage.terms(), DEPOSIT, 0)
    with refused("ledger: not open"):
        stage.send(stage.ledger.functions.request_close(cid), stage.party("intermediary"))
    assert deadline(stage, cid) == first


def test_reveal_does_not_move_a_deadline(stage: Rehearsal) -> None:
    """Invariant L9."""
    cid, terms = open_channel(stage, CLIENT), stage.terms()
    post_session(stage, CLIENT, cid, terms, 1_000, 3)
    first = deadline(stage, cid)
    reveal(stage, terms, 20)
    assert deadline(stage, cid) == first


def test_silence_is_acceptance_only_after_the_deadline(stage: Rehearsal) -> None:
    cid = open_channel(stage, CLIENT)
    with refused("ledger: not closing"):
        stage.send(stage.ledger.functions.resolve(cid), stage.party("watcher"))


# --- request_close -----------------------------------------------------------------------------


def _request(stage: Rehearsal, cid: int):
    return stage.send(stage.ledger.functions.request_close(cid), stage.party("intermediary"))


def test_only_the_intermediary_requests_and_stakes(stage: Rehearsal) -> None:
    """Invariant L16: the bond leaves the vault with the request."""
    cid = open_channel(stage, CLIENT)
    before = wealth(stage, account_of(stage, CLIENT))
    with refused("ledger: intermediary only"):
        stage.send(stage.ledger.functions.request_close(cid), stage.party("client"))
    event = stage.events(_request(stage, cid), "CloseRequested")[0]
    assert event["bond"] == stage.parameters.close_bond
    assert event["deadline"] == stage.now() + stage.parameters.close_notice
    assert gains(before, wealth(stage, account_of(stage, CLIENT))) == (
        0,
        -stage.parameters.close_bond,
        0,
    )
    with refused("ledger: not open"):
        _request(stage, cid)


@pytest.mark.parametrize("nano", [False, True])
def test_an_answer_in_time_earns_the_bond(stage: Rehearsal, nano: bool) -> None:
    """Invariant L16, and L9: the answer gets a dispute window of its own after the notice."""
    cid, account = open_channel(stage, RELAY), account_of(stage, RELAY)
    _request(stage, cid)
    notice, before = deadline(stage, cid), wealth(stage, account)
    stage.travel(notice)
    if nano:
        post_session(stage, RELAY, cid, stage.terms(), DEPOSIT, 0)
    else:
        post_refund(stage, RELAY, cid, DEPOSIT, stage.secret())
    bond = stage.parameters.close_bond
    assert gains(before, wealth(stage, account)) == (bond, 0, 0)
    assert deadline(stage, cid) == notice + stage.parameters.dispute_window
    stage.travel(notice + 1)
    with refused("ledger: too early"):
        stage.send(stage.ledger.functions.resolve(cid), stage.party("intermediary"))
    resolve(stage, cid)
    paid = DEPOSIT - (128 * 86 if nano else 0)
    assert gains(before, wealth(stage, account)) == (bond + paid, ESCROW - paid, 0)


@pytest.mark.parametrize("nano", [False, True])
def test_no_answer_in_time_forfeits(stage: Rehearsal, nano: bool) -> None:
    """Invariants L10, L16: after the notice E is too late and I gets escrow and bond."""
    cid, account = open_channel(stage, CLIENT), account_of(stage, CLIENT)
    before = wealth(stage, account)
    _request(stage, cid)
    notice = deadline(stage, cid)
    stage.travel(notice)
    with refused("ledger: too early"):
        stage.send(stage.ledger.functions.resolve(cid), stage.party("intermediary"))
    stage.travel(notice + 1)
    with refused("ledger: not open"):
        if nano:
            post_session(stage, CLIENT, cid, stage.terms(), 1_000, 0)
        else:
            post_refund(stage, CLIENT, cid, DEPOSIT, stage.secret())
    stage.send(stage.ledger.functions.resolve(cid), stage.party("watcher"))
    assert gains(before, wealth(stage, account)) == (0, ESCROW, 0)


def test_bond_without_means(stage: Rehearsal) -> None:
    cid = open_channel(stage, CLIENT)
    intermediary = stage.party("intermediary")
    vault = stage.ledger.functions.vault(intermediary.address).call()
    stage.send(
        stage.ledger.functions.withdraw_vault(vault - stage.parameters.close_bond + 1),
        intermediary,
    )
    with refused("vaults: vault too small"):
        _request(stage, cid)


def test_tax_on_a_relays_refund(stage: Rehearsal) -> None:
    """Invariant L3: tax on what lies above the deposit, out of the intermediary's part."""
    cid, account = open_channel(stage, RELAY), account_of(stage, RELAY)
    before = wealth(stage, account)
    post_refund(stage, RELAY, cid, DEPOSIT + 1_019, stage.secret())
    resolve(stage, cid)
    assert gains(before, wealth(stage, account)) == (
        DEPOSIT + 1_019,
        FUND - 1_019 - 101,
        101,
    )


def test_a_relay_leaves_room_for_the_tax(stage: Rehearsal) -> None:
    """Invariant L3: the cap is deposit + floor(fund / (1 + rate)), so I can always pay it."""
    cid, account = open_channel(stage, RELAY), account_of(stage, RELAY)
    before = wealth(stage, account)
    post_refund(stage, RELAY, cid, ESCROW, stage.secret())
    resolve(stage, cid)
    room = FUND * 10_000 // 11_000
    tax = room // 10
    assert gains(before, wealth(stage, account)) == (DEPOSIT + room, FUND - room - tax, tax)


def test_a_client_pays_no_tax(stage: Rehearsal) -> None:
    """Invariant L3: a client may get all of the escrow."""
    cid, account = open_channel(stage, CLIENT), account_of(stage, CLIENT)
    before = wealth(stage, account)
    post_refund(stage, CLIENT, cid, ESCROW + 5, stage.secret())
    resolve(stage, cid)
    assert gains(before, wealth(stage, account)) == (ESCROW, 0, 0)
