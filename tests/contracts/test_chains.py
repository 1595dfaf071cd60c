# SPDX-License-Identifier: BSD-3-Clause
"""What the tests of the contracts take for granted of the chain they run on, whichever it is."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from monetor_chain.errors import ChainUnavailable
from monetor_chain.rehearsal import Rehearsal
from monetor_chain.rehearsal_chain import (
    CHAIN_ID,
    GENESIS_TIME,
    KEYS,
    AnvilChain,
    RehearsalChain,
)
from monetor_chain.statements import Role

from .actions import deadline, open_channel, post_refund, refused


def _act(stage: Rehearsal, amount: int = 5) -> int:
    """Any transaction; its block's number."""
    call = stage.token.functions.approve(stage.ledger.address, amount)
    return int(stage.send(call, stage.party("stranger"))["blockNumber"])


def _allowance(stage: Rehearsal) -> int:
    owner, spender = stage.party("stranger").address, stage.ledger.address
    return int(stage.token.functions.allowance(owner, spender).call())


def test_a_fresh_chain_is_the_same_everywhere(new_chain: Callable[[], RehearsalChain]) -> None:
    """What signatures, addresses and gas depend on."""
    chain = new_chain()
    assert chain.w3.eth.chain_id == CHAIN_ID
    first = chain.w3.eth.get_block("latest")
    assert (first["number"], first["timestamp"]) == (0, GENESIS_TIME)
    for key in KEYS:
        address = chain.w3.eth.account.from_key(key).address
        assert chain.w3.eth.get_balance(address) == 10**24
        assert chain.w3.eth.get_transaction_count(address) == 0
    chain.close()


def test_every_transaction_has_a_block_of_its_own_a_second_later(stage: Rehearsal) -> None:
    number, now = stage.w3.eth.block_number, stage.now()
    for i in range(1, 4):
        assert _act(stage) == number + i
        assert stage.now() == now + i
        assert len(stage.w3.eth.get_block("latest")["transactions"]) == 1


def test_the_clock_moves_with_the_next_block_only(stage: Rehearsal) -> None:
    now = stage.now()
    stage.travel(now + 9_000)
    stage.travel(now + 500)
    assert stage.now() == now
    _act(stage)
    assert stage.now() == now + 500
    _act(stage)
    assert stage.now() == now + 501


def test_going_back_undoes_state_and_time(stage: Rehearsal) -> None:
    """Also a timestamp that was chosen and not used yet."""
    _act(stage, 1)
    now, number = stage.now(), stage.w3.eth.block_number
    outer = stage.snapshot()
    _act(stage, 2)
    inner = stage.snapshot()
    stage.travel(now + 1_000)
    _act(stage, 3)
    stage.travel(now + 2_000)
    stage.revert(inner)
    assert (_allowance(stage), stage.now()) == (2, now + 1)
    _act(stage, 4)
    stage.revert(outer)
    assert (_allowance(stage), stage.now(), stage.w3.eth.block_number) == (1, now, number)
    _act(stage)
    assert stage.now() == now + 1


def test_an_empty_block_takes_the_time_that_was_set(stage: Rehearsal) -> None:
    number, now = stage.w3.eth.block_number, stage.now()
    stage.mine()
    assert (stage.w3.eth.block_number, stage.now()) == (number + 1, now + 1)
    stage.travel(now + 50)
    stage.mine()
    assert (stage.w3.eth.block_number, stage.now()) == (number + 2, now + 50)


def test_a_refusal_is_mined_and_gives_the_reason_alone(stage: Rehearsal) -> None:
    """The reason is that of the block's own time: one second later there would be none."""
    cid = open_channel(stage, Role.CLIENT)
    post_refund(stage, Role.CLIENT, cid, 1_000, stage.secret())
    last, number = deadline(stage, cid), stage.w3.eth.block_number
    stage.travel(last)
    with refused("ledger: too early"):
        stage.send(stage.ledger.functions.resolve(cid), stage.party("watcher"))
    assert (stage.w3.eth.block_number, stage.now()) == (number + 1, last)
    stage.send(stage.ledger.functions.resolve(cid), stage.party("watcher"))


def test_a_refusal_without_a_reason(stage: Rehearsal) -> None:
    """Vyper says nothing about an argument that is too long."""
    call = stage.ledger.functions.register_key(stage.issuer.public_key + bytes(1), bytes(32))
    with refused("no reason given"):
        stage.send(call, stage.party("stranger"))


def test_a_node_that_does_not_come_up_is_reported() -> None:
    ends_at_once = shutil.which("false")
    assert ends_at_once is not None
    for binary in (ends_at_once, "no-such-anvil"):
        with pytest.raises(ChainUnavailable, match="anvil"):
            AnvilChain(binary)
