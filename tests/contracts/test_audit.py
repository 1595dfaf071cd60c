# SPDX-License-Identifier: BSD-3-Clause
"""Attacks by fewer than a quorum, on packed sums, and on the gas that others pay."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import pytest

from monetor_chain.parameters import DEMO, TAX_RATE_BP, NetworkParameters
from monetor_chain.rehearsal import CLAIM_EPOCHS, NO_AUTHORISATION, Rehearsal
from monetor_chain.statements import Role

from .actions import refused


def _align(stage: Rehearsal) -> int:
    """Go to the start of an epoch, so that a test's votes fall into one; the next is returned."""
    stage.travel((stage.now() // DEMO.epoch + 1) * DEMO.epoch)
    stage.send(stage.token.functions.approve(stage.ledger.address, 0), stage.party("stranger"))
    return stage.now() // DEMO.epoch + 1


def _consensus(stage: Rehearsal, quorum: int, *names: str) -> Any:
    members = [stage.party(name).address for name in names]
    return stage.deploy("Consensus", members, quorum, TAX_RATE_BP, DEMO.words())


def _vote(stage: Rehearsal, consensus: Any, name: str, epoch: int, **changes: int) -> Any:
    call = consensus.functions.vote(epoch, replace(DEMO, **changes).words())
    return stage.send(call, stage.party(name))


def _agreed(consensus: Any, epoch: int) -> NetworkParameters:
    return NetworkParameters.from_words(consensus.functions.parameters(epoch).call())


def test_one_of_two_authorities_moves_nothing_alone(stage: Rehearsal) -> None:
    """Invariant L23: of an even number the lower middle vote would let half decide downwards."""
    epoch = _align(stage)
    consensus = _consensus(stage, 2, "authority_1", "authority_2")
    _vote(stage, consensus, "authority_1", epoch, price=97, pay_fee=0)
    _vote(stage, consensus, "authority_2", epoch)
    assert _agreed(consensus, epoch) == DEMO
    _vote(stage, consensus, "authority_2", epoch, price=98, pay_fee=9)
    assert _agreed(consensus, epoch) == replace(DEMO, price=98)


@pytest.mark.parametrize("price", [97, 120])
def test_half_of_four_authorities_decide_in_neither_direction(stage: Rehearsal, price: int) -> None:
    """Invariant L23."""
    epoch = _align(stage)
    names = ("authority_1", "authority_2", "authority_3", "deployer")
    consensus = _consensus(stage, 3, *names)
    for name in names[:2]:
        _vote(stage, consensus, name, epoch, price=price)
    for name in names[2:]:
        _vote(stage, consensus, name, epoch)
    assert _agreed(consensus, epoch) == DEMO
    _vote(stage, consensus, names[2], epoch, price=price)
    assert _agreed(consensus, epoch) == replace(DEMO, price=price)


@pytest.mark.parametrize("price", [97, 120])
def test_a_vote_against_does_not_complete_the_quorum(stage: Rehearsal, price: int) -> None:
    """Invariant L23: where all three must agree, two and one that opposes change nothing."""
    epoch = _align(stage)
    consensus = _consensus(stage, 3, "authority_1", "authority_2", "authority_3")
    for name in ("authority_1", "authority_2"):
        _vote(stage, consensus, name, epoch, price=price)
    _vote(stage, consensus, "authority_3", epoch)
    assert _agreed(consensus, epoch) == DEMO
    _vote(stage, consensus, "authority_3", epoch, price=110 if price > 100 else 99)
    assert _agreed(consensus, epoch).price == (110 if price > 100 else 99)


def test_fewer_votes_than_the_quorum_agree_on_nothing(stage: Rehearsal) -> None:
    """Invariant L23: not even, for everybody who reads the log, on the set in force."""
    epoch = _align(stage)
    receipt = _vote(stage, stage.consensus, "authority_1", epoch, price=110)
    assert len(receipt["logs"]) == 1
    receipt = _vote(stage, stage.consensus, "authority_2", epoch, price=110)
    assert len(receipt["logs"]) == 2


def test_a_set_agreed_by_members_who_left_is_withdrawn(stage: Rehearsal) -> None:
    """Invariant L27: members who left count for nothing, in what was agreed already as well."""
    epoch = _align(stage)
    consensus = stage.consensus
    for name in ("authority_2", "authority_3"):
        _vote(stage, consensus, name, epoch, price=110)
    assert _agreed(consensus, epoch).price == 110
    seats = [stage.party(name).address for name in ("authority_1", "authority_2", "stranger")]
    change = consensus.functions.change_authorities(seats, 2)
    stage.send(change, stage.party("authority_1"))
    receipt = stage.send(change, stage.party("authority_2"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (rejected,) = consensus.events.ParametersRejected().process_receipt(receipt)
    assert rejected["args"] == {"epoch": epoch, "reason": "consensus: too few votes"}
    assert _agreed(consensus, epoch) == DEMO
    _vote(stage, consensus, "stranger", epoch, price=105)
    assert _agreed(consensus, epoch).price == 105


def test_a_set_that_those_who_stay_agree_on_stays(stage: Rehearsal) -> None:
    """Invariant L27: also under a pause, which shares a word with the number of sets."""
    epoch = _align(stage)
    consensus = stage.consensus
    for name in ("authority_1", "authority_2"):
        stage.send(consensus.functions.set_paused(True), stage.party(name))
        _vote(stage, consensus, name, epoch, price=110)
    seats = [stage.party(name).address for name in ("authority_1", "authority_2", "stranger")]
    for name in ("authority_1", "authority_3"):
        stage.send(consensus.functions.change_authorities(seats, 2), stage.party(name))
    assert _agreed(consensus, epoch).price == 110
    assert consensus.functions.paused().call()


def test_a_larger_quorum_holds_for_what_was_agreed_before(stage: Rehearsal) -> None:
    """Invariant L27: the same members, but now all three must agree."""
    epoch = _align(stage)
    consensus = stage.consensus
    for name in ("authority_1", "authority_2"):
        _vote(stage, consensus, name, epoch, price=110)
    seats = [stage.party(f"authority_{i}").address for i in (1, 2, 3)]
    for name in ("authority_2", "authority_3"):
        stage.send(consensus.functions.change_authorities(seats, 3), stage.party(name))
    assert _agreed(consensus, epoch) == DEMO
    _vote(stage, consensus, "authority_3", epoch, price=110)
    assert _agreed(consensus, epoch).price == 110


def test_a_total_must_fit_into_its_place(stage: Rehearsal) -> None:
    """Invariant L30: 2^96 units and more would spill into what was claimed, and stay reserved
    for ever. Only an issued token can have so many."""
    epoch = _align(stage)
    token = stage.deploy("Token", stage.consensus.address)
    pool = stage.deploy("TaxPool", token.address, stage.consensus.address, CLAIM_EPOCHS)
    first, second = (stage.party(f"authority_{i}") for i in (1, 2))
    for authority in (first, second):
        stage.send(token.functions.issue(pool.address, 2**97, 0), authority)
    plan = (epoch - 2, b"r" * 32, 2**96 + 5, "policy", b"i" * 32)
    with refused("tax_pool: too much for one distribution"):
        stage.send(pool.functions.distribute(*plan), first)
    plan = (epoch - 2, b"r" * 32, 2**96 - 1, "policy", b"i" * 32)
    for authority in (first, second):
        stage.send(pool.functions.distribute(*plan), authority)
    assert pool.functions.distribution(epoch - 2).call()[1:3] == (2**96 - 1, 0)


def test_a_request_makes_no_close_dear(stage: Rehearsal) -> None:
    """Invariant L26: bonds are looked for where they are. In all 256 channels, one request, whose
    bond comes back, would have cost whoever closes the group ten times what it cost I."""
    client, every = stage.party("client"), 2**256 - 1
    costs = []
    for requested in (False, True):
        group = stage.open_group(client, Role.CLIENT, 100, 50, 256)
        if requested:
            call = stage.ledger.functions.request_close(group << 8 | 255)
            receipt = stage.send(call, stage.party("intermediary"))
        signature = stage.close_signature(group, every, 5)
        call = stage.ledger.functions.close(group, every, 5, signature, NO_AUTHORISATION)
        costs.append(stage.send(call, client)["gasUsed"])
    assert costs[1] - costs[0] < receipt["gasUsed"]
