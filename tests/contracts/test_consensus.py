# SPDX-License-Identifier: BSD-3-Clause
"""The authorities' votes on the parameters, and what of them a channel pins."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from monetor_chain.parameters import DEFAULT, DEMO, TAX_RATE_BP, NetworkParameters
from monetor_chain.rehearsal import NO_AUTHORISATION, NO_PERMIT, Rehearsal
from monetor_chain.rehearsal_chain import CALL_REVERTED
from monetor_chain.statements import Role

from .actions import (
    deadline,
    open_channel,
    post_refund,
    post_session,
    refused,
    resolve,
    reveal,
)


def _vote(stage: Rehearsal, index: int, parameters: NetworkParameters, ahead: int = 1):
    epoch = stage.now() // DEMO.epoch + ahead
    call = stage.consensus.functions.vote(epoch, parameters.words())
    return stage.send(call, stage.party(f"authority_{index}"))


def _in_force(stage: Rehearsal, ahead: int = 0) -> NetworkParameters:
    epoch = stage.now() // DEMO.epoch + ahead
    return NetworkParameters.from_words(stage.consensus.functions.parameters(epoch).call())


def _align(stage: Rehearsal) -> None:
    """Go to the start of an epoch, so that a test's votes fall into one."""
    stage.travel((stage.now() // DEMO.epoch + 1) * DEMO.epoch)
    stage.send(stage.token.functions.approve(stage.ledger.address, 0), stage.party("stranger"))


def _next_epoch(stage: Rehearsal) -> None:
    _align(stage)


def test_initial_set(stage: Rehearsal) -> None:
    assert _in_force(stage) == DEMO
    assert stage.consensus.functions.current_epoch().call() == stage.now() // DEMO.epoch


def test_quorum_and_next_epoch(stage: Rehearsal) -> None:
    """Invariant L23: one of three changes nothing, two do, and only from the next epoch on."""
    _align(stage)
    new = replace(DEMO, price=120, dispute_window=200)
    _vote(stage, 1, new)
    assert _in_force(stage, 1) == DEMO
    _vote(stage, 2, new)
    assert _in_force(stage) == DEMO
    assert stage.consensus.functions.channel_terms().call()[0] == 120
    assert _in_force(stage, 1) == new
    _next_epoch(stage)
    assert _in_force(stage) == new
    assert stage.consensus.functions.channel_terms().call() == (
        200, 600, 1_000, 120, 2**31 - 1, False
    )  # fmt: skip
    assert _in_force(stage, -1) == DEMO


def test_median_per_parameter(stage: Rehearsal) -> None:
    _align(stage)
    votes = [
        replace(DEMO, price=110, pay_fee=9),
        replace(DEMO, price=150, pay_fee=1),
        replace(DEMO, price=130, pay_fee=2),
    ]
    for index, vote in enumerate(votes, 1):
        _vote(stage, index, vote)
    assert _in_force(stage, 1) == replace(DEMO, price=130, pay_fee=2)


def test_a_set_of_medians_is_checked_as_a_whole(stage: Rehearsal) -> None:
    """Invariant L23: every vote is valid, but a session at the medians of n and price would not
    fit into a channel at the median of deposit_max. The old set stays, and the set that two
    votes agreed on before is withdrawn."""
    _align(stage)
    long = replace(DEMO, n=2**14, deposit_max=1_700_000)
    dear = replace(DEMO, n=32, price=50_000, deposit_max=1_700_000)
    both = replace(DEMO, n=2**14, price=50_000)
    assert not any(vote.problems(TAX_RATE_BP) for vote in (long, dear, both))
    _vote(stage, 1, long)
    _vote(stage, 2, long)
    assert _in_force(stage, 1) == long
    receipt = _vote(stage, 3, both)
    assert _in_force(stage, 1) == long
    receipt = _vote(stage, 2, dear)
    (rejected,) = stage.consensus.events.ParametersRejected().process_receipt(receipt)
    assert rejected["args"]["reason"] == "consensus: deposit_max"
    assert _in_force(stage, 1) == DEMO
    _vote(stage, 2, long)
    assert _in_force(stage, 1) == long
    _vote(stage, 2, dear)
    _next_epoch(stage)
    assert _in_force(stage) == DEMO


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"price": 95}, "no fee is left of the price"),
        ({"delta_r": 0}, "delta_r"),
        ({"dispute_window": 79}, "dispute_window"),
        ({"dispute_window": 90 * 86_400 + 1}, "dispute_window"),
        ({"lifetime": 80}, "lifetime"),
        ({"lifetime": 90 * 86_400 + 1}, "lifetime"),
        ({"close_notice": 119}, "close_notice"),
        ({"close_notice": 366 * 86_400 + 1}, "close_notice"),
        ({"n": 16}, "n"),
        ({"n": 100}, "n"),
        ({"n": 2**19}, "n"),
        ({"deposit_max": 2**31}, "deposit_max"),
        ({"deposit_max": 12_799}, "deposit_max"),
        ({"epoch": 61}, "epoch"),
        ({"safety_margin": 0}, "safety_margin"),
        ({"cells_per_payment": 0}, "cells_per_payment"),
        ({"premium_share": 0}, "premium_share"),
        ({"premium_share": 10_001}, "premium_share"),
        ({"alpha": 9_001}, "alpha"),
        ({"beta": 9_999}, "beta"),
        ({"circuit_window": 99}, "circuit_window"),
        ({"stream_window": 49}, "stream_window"),
        ({"pay_fee": 2**32}, "a value reaches 2^32"),
        ({"alpha": 2**255}, "a value reaches 2^32"),
    ],
    ids=str,
)
def test_an_invalid_vote_is_refused(
    stage: Rehearsal, changes: dict[str, int], reason: str
) -> None:
    """Invariant L23: with the reason, and the contract's check is the one that Python makes."""
    bad = replace(DEMO, **changes)
    _align(stage)
    with refused(f"consensus: {reason}"):
        _vote(stage, 1, bad)
    if "epoch" not in changes:
        assert bad.problems(TAX_RATE_BP)


def test_both_named_sets_are_valid() -> None:
    assert not DEMO.problems(TAX_RATE_BP) and not DEFAULT.problems(TAX_RATE_BP)


def test_only_authorities_and_only_the_next_epoch(stage: Rehearsal) -> None:
    """Invariant L23."""
    _align(stage)
    epoch = stage.now() // DEMO.epoch + 1
    with refused("consensus: authorities only"):
        stage.send(stage.consensus.functions.vote(epoch, DEMO.words()), stage.party("deployer"))
    for ahead in (0, 2):
        with refused("consensus: not the next epoch"):
            _vote(stage, 1, DEMO, ahead)


def test_an_authority_counts_once(stage: Rehearsal) -> None:
    """Invariant L23: a second vote replaces the first."""
    _align(stage)
    for price in (110, 120, 130):
        _vote(stage, 1, replace(DEMO, price=price))
    assert _in_force(stage, 1) == DEMO


def test_votes_of_a_past_epoch_do_not_count(stage: Rehearsal) -> None:
    _align(stage)
    _vote(stage, 1, replace(DEMO, price=110))
    _next_epoch(stage)
    _vote(stage, 2, replace(DEMO, price=110))
    assert _in_force(stage, 1) == DEMO


def test_history(stage: Rehearsal) -> None:
    """Old sets can be read for ever: sessions already set up follow theirs."""
    _align(stage)
    first = stage.now() // DEMO.epoch
    for i in range(5):
        for authority in (1, 2):
            _vote(stage, authority, replace(DEMO, price=110 + i))
        _next_epoch(stage)
        _next_epoch(stage)
    for i in range(5):
        for offset in (1, 2):
            words = stage.consensus.functions.parameters(first + 2 * i + offset).call()
            assert NetworkParameters.from_words(words).price == 110 + i
    with pytest.raises(CALL_REVERTED, match="consensus: before the first epoch"):
        stage.consensus.functions.parameters(1).call()


def test_pinned_for_life(stage: Rehearsal) -> None:
    """Invariant L17: a vote after the opening changes nothing for a channel."""
    cid = open_channel(stage, Role.CLIENT, 2)
    client = stage.party("client")
    stage.approve(client)
    receipt = stage.send(
        stage.ledger.functions.open_guard(stage.party("guard").address, 5_000, NO_PERMIT), client
    )
    gid = stage.events(receipt, "GuardOpened")[0]["gid"]
    _align(stage)
    for authority in (1, 2):
        _vote(
            stage,
            authority,
            replace(DEMO, dispute_window=3_000, close_notice=9_000, price=150, close_bond=5),
        )
    _next_epoch(stage)
    post_refund(stage, Role.CLIENT, cid, 5, stage.secret())
    assert deadline(stage, cid) == stage.now() + 120
    receipt = stage.send(stage.ledger.functions.request_close(cid + 1), stage.party("intermediary"))
    event = stage.events(receipt, "CloseRequested")[0]
    assert event["deadline"] == stage.now() + 600 and event["bond"] == 5
    record = stage.ledger.functions.guard(gid).call()
    assert record[5:7] == (100, 120)
    fresh = open_channel(stage, Role.CLIENT)
    post_refund(stage, Role.CLIENT, fresh, 5, stage.secret())
    assert deadline(stage, fresh) == stage.now() + 3_000


def _decide(stage: Rehearsal, call: Any, *seats: int) -> list[Any]:
    return [stage.send(call, stage.party(f"authority_{seat}")) for seat in seats]


def test_one_authority_of_a_bare_quorum_decides_nothing(stage: Rehearsal) -> None:
    """Invariant L23: whoever is silent counts as voting for the set in force. Otherwise the lower
    of two votes would be the median, and one authority could move every parameter down."""
    _align(stage)
    _vote(stage, 1, replace(DEMO, price=97, pay_fee=0))
    _vote(stage, 2, DEMO)
    assert _in_force(stage, 1) == DEMO
    _vote(stage, 2, replace(DEMO, price=98))
    assert _in_force(stage, 1) == replace(DEMO, price=98)


def test_a_quorum_above_half(stage: Rehearsal) -> None:
    """Invariant L23: where three of three decide, two votes make a median and no decision."""
    authorities = [stage.party(f"authority_{i}").address for i in (1, 2, 3)]
    consensus = stage.deploy("Consensus", authorities, 3, TAX_RATE_BP, DEMO.words()).functions
    _align(stage)
    epoch = stage.now() // DEMO.epoch + 1
    new = replace(DEMO, price=120).words()
    for seat, price in ((1, DEMO.price), (2, DEMO.price), (3, 120)):
        stage.send(consensus.vote(epoch, new), stage.party(f"authority_{seat}"))
        assert consensus.parameters(epoch).call()[3] == price


def test_a_dead_authority_stops_nothing_and_is_replaced(stage: Rehearsal) -> None:
    """Invariant L27: two of three vote, and put another in the dead one's place."""
    _align(stage)
    consensus, stranger = stage.consensus.functions, stage.party("stranger")
    new = [*(stage.party(f"authority_{i}").address for i in (1, 2)), stranger.address]
    change = consensus.change_authorities(new, 2)
    _decide(stage, change, 1)
    assert stranger.address not in consensus.authorities().call()
    (receipt,) = _decide(stage, change, 2)
    (event,) = stage.consensus.events.AuthoritiesChanged().process_receipt(receipt)
    assert event["args"]["authorities"] == new and event["args"]["set_number"] == 2
    assert consensus.authorities().call() == new
    with refused("consensus: authorities only"):
        _vote(stage, 3, replace(DEMO, price=110))
    epoch = stage.now() // DEMO.epoch + 1
    words = replace(DEMO, price=110).words()
    stage.send(consensus.vote(epoch, words), stranger)
    _vote(stage, 1, replace(DEMO, price=110))
    assert _in_force(stage, 1).price == 110


def test_votes_of_members_who_left_do_not_count(stage: Rehearsal) -> None:
    """Invariant L27."""
    _align(stage)
    _vote(stage, 3, replace(DEMO, price=110))
    seats = [stage.party(name).address for name in ("authority_1", "authority_2", "stranger")]
    _decide(stage, stage.consensus.functions.change_authorities(seats, 2), 1, 2)
    _vote(stage, 1, replace(DEMO, price=110))
    assert _in_force(stage, 1) == DEMO


def test_approvals_belong_to_one_epoch_and_one_set(stage: Rehearsal) -> None:
    """Invariant L27: neither a forgotten approval nor one of another set completes a quorum."""
    _align(stage)
    pause = stage.consensus.functions.set_paused(True)
    _decide(stage, pause, 1)
    with refused("approvals: approved before"):
        _decide(stage, pause, 1)
    _next_epoch(stage)
    _decide(stage, pause, 2)
    assert not stage.consensus.functions.paused().call()
    same = [stage.party(f"authority_{i}").address for i in (2, 1, 3)]
    _decide(stage, stage.consensus.functions.change_authorities(same, 2), 1, 3)
    _decide(stage, pause, 3)
    assert not stage.consensus.functions.paused().call()
    _decide(stage, pause, 1)
    assert stage.consensus.functions.paused().call()


@pytest.mark.parametrize("call", ["change_authorities", "set_paused"])
def test_only_authorities_approve(stage: Rehearsal, call: str) -> None:
    """Invariant L27."""
    functions = stage.consensus.functions
    calls = {
        "change_authorities": functions.change_authorities([stage.party("stranger").address], 1),
        "set_paused": functions.set_paused(True),
    }
    with refused("approvals: authorities only"):
        stage.send(calls[call], stage.party("stranger"))


@pytest.mark.parametrize(
    ("seats", "quorum", "reason"),
    [
        ((1, 2, 3), 1, "quorum"),
        ((1, 2), 1, "quorum"),
        ((1, 2, 3), 4, "quorum"),
        ((), 0, "quorum"),
        ((1, 2, 2), 2, "authority"),
    ],
    ids=str,
)
def test_sets_that_cannot_be(
    stage: Rehearsal, seats: tuple[int, ...], quorum: int, reason: str
) -> None:
    """Invariant L27: a majority of distinct accounts, so that two halves never both decide."""
    _align(stage)
    members = [stage.party(f"authority_{i}").address for i in seats]
    change = stage.consensus.functions.change_authorities(members, quorum)
    _decide(stage, change, 1)
    with refused(f"consensus: {reason}"):
        _decide(stage, change, 2)


def test_a_pause_stops_openings_and_nothing_else(stage: Rehearsal) -> None:
    """Invariant L28: whoever is in gets out, and groups half-open can be funded or reclaimed."""
    _align(stage)
    client, relay = stage.party("client"), stage.party("relay")
    intermediary = stage.party("intermediary")
    ledger = stage.ledger.functions
    stage.approve(client)
    gid = stage.events(
        stage.send(ledger.open_guard(stage.party("guard").address, 500, NO_PERMIT), client),
        "GuardOpened",
    )[0]["gid"]
    cid = open_channel(stage, Role.CLIENT, 4)
    halves = [stage.open_group(relay, Role.RELAY, 50, 50, funded=False) for _ in range(2)]
    post_refund(stage, Role.CLIENT, cid + 3, 5, stage.secret())

    pause = stage.consensus.functions.set_paused(True)
    _decide(stage, pause, 1)
    post_refund(stage, Role.CLIENT, cid, 5, stage.secret())
    _decide(stage, pause, 2)
    with refused("ledger: openings are paused"):
        stage.open_group(client, Role.CLIENT, 50, 50)
    with refused("guard_channels: openings are paused"):
        stage.send(ledger.open_guard(stage.party("guard").address, 500, NO_PERMIT), client)

    stage.send(ledger.fund(halves[0]), intermediary)
    stage.send(ledger.reclaim(halves[1], NO_AUTHORISATION), relay)
    stage.send(ledger.request_close(cid + 1), intermediary)
    post_refund(stage, Role.CLIENT, cid + 1, 5, stage.secret())
    post_session(stage, Role.CLIENT, cid + 2, stage.terms(), 5, 3)
    reveal(stage, stage.terms(), 4)
    total, signature = 70, stage.close_signature(halves[0], 1, 70)
    stage.send(ledger.close(halves[0], 1, total, signature, NO_AUTHORISATION), relay)
    for index in (3, 1, 2):
        resolve(stage, cid + index)
    stage.send(ledger.request_close_guard(gid), client)
    stage.travel(stage.now() + DEMO.dispute_window + 1)
    stage.send(ledger.close_guard(gid), client)
    for party in (client, relay):
        stage.send(ledger.withdraw(), party)
    stage.send(ledger.withdraw_vault(1), intermediary)

    _align(stage)
    _decide(stage, stage.consensus.functions.set_paused(False), 1, 3)
    assert stage.open_group(client, Role.CLIENT, 50, 50)


def test_pausing_again_needs_a_quorum_again(stage: Rehearsal) -> None:
    """Invariant L28: also within one epoch."""
    _align(stage)
    functions = stage.consensus.functions
    for paused in (True, False, True):
        _decide(stage, functions.set_paused(paused), 1)
        assert functions.paused().call() is not paused
        _decide(stage, functions.set_paused(paused), 2)
        assert functions.paused().call() is paused
        with refused("consensus: no change"):
            _decide(stage, functions.set_paused(paused), 3)


@pytest.mark.parametrize("quorum", [1, 4])
def test_quorum_is_a_majority(stage: Rehearsal, quorum: int) -> None:
    """Invariant L23."""
    authorities = [stage.party(f"authority_{i}").address for i in (1, 2, 3)]
    contract = stage.deploy("Consensus", authorities, quorum, TAX_RATE_BP, DEMO.words())
    assert contract.address is None


def test_tax_rate_is_the_voters(stage: Rehearsal) -> None:
    """Invariant L24: a ledger with another rate than the votes are checked against is refused."""
    addresses = (stage.token.address, stage.consensus.address, stage.pool.address)
    assert stage.deploy("Ledger", *addresses, TAX_RATE_BP + 1).address is None
    assert stage.deploy("Ledger", *addresses, TAX_RATE_BP).address is not None
    assert stage.ledger.functions.tax_rate_bp().call() == TAX_RATE_BP
