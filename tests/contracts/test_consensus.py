# SPDX-License-Identifier: BSD-3-Clause
"""The authorities' votes on the parameters, and what of them a channel pins."""

from __future__ import annotations

from dataclasses import replace

import pytest

from monetor_chain.parameters import DEFAULT, DEMO, TAX_RATE_BP, NetworkParameters
from monetor_chain.rehearsal import NO_PERMIT, Rehearsal
from monetor_chain.rehearsal_chain import CALL_REVERTED
from monetor_chain.statements import Role

from .actions import deadline, open_channel, post_refund, refused


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
    assert stage.consensus.functions.channel_terms().call() == (200, 600, 1_000, 120, 2**31 - 1)
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
    assert len(stage.consensus.events.ParametersRejected().process_receipt(receipt)) == 1
    assert _in_force(stage, 1) == DEMO
    _vote(stage, 2, long)
    assert _in_force(stage, 1) == long
    _vote(stage, 2, dear)
    _next_epoch(stage)
    assert _in_force(stage) == DEMO


@pytest.mark.parametrize(
    "changes",
    [
        {"price": 95},
        {"delta_r": 0},
        {"dispute_window": 79},
        {"lifetime": 80},
        {"close_notice": 79},
        {"n": 16},
        {"n": 100},
        {"n": 2**19},
        {"deposit_max": 2**31},
        {"deposit_max": 12_799},
        {"epoch": 61},
        {"safety_margin": 0},
        {"cells_per_payment": 0},
        {"premium_share": 10_001},
        {"beta": 0},
        {"circuit_window": 0},
        {"stream_window": 0},
        {"pay_fee": 2**32},
        {"alpha": 2**255},
    ],
    ids=str,
)
def test_an_invalid_vote_is_refused(stage: Rehearsal, changes: dict[str, int]) -> None:
    """Invariant L23, and the contract's check is the one that Python makes."""
    bad = replace(DEMO, **changes)
    _align(stage)
    with refused("consensus: invalid parameters"):
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
