# SPDX-License-Identifier: BSD-3-Clause
"""Killed at every message, with a wire that loses, repeats and reorders: nobody loses a unit."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from offchain.protocol import messages as m, nano_pay
from offchain.protocol.records import Table
from offchain.protocol.sessions import ClientPhase, RelayPhase, RelaySession, client_session
from offchain.protocol.wallet import Idle
from tests.protocol.world import (
    CLIENT_DEPOSIT,
    DELTA_R,
    MU,
    PAY_FEE,
    PAYEE_DEPOSIT,
    PRICE,
    Parcel,
    World,
)

PAYMENTS = 18
AMOUNT = 2_500


def life_of_a_session(world: World) -> bytes:
    """Setup, establish, payments and both closes, whatever gets lost on the way."""
    terms_hash = world.setup()
    world.retry()
    world.establish(terms_hash)
    world.retry()
    for _ in range(PAYMENTS):
        if client_session(world.c.records, terms_hash).phase is ClientPhase.ACTIVE:
            world.pay(terms_hash)
    if world.r.records.get(Table.SESSION, terms_hash) is not None:
        world.close_relay(terms_hash)
    world.retry()
    world.close_client(terms_hash)
    for _ in range(3):
        world.retry()
    return terms_hash


def check_session(world: World, terms_hash: bytes) -> None:
    sent = client_session(world.c.records, terms_hash).sent
    received = nano_pay.received(world.r.records, terms_hash)
    assert received <= sent <= PAYMENTS
    # Without the ledger: nobody had to post anything.
    assert isinstance(world.c.wallet(world.c.cids()[0]), Idle)
    assert world.c.balance(world.c.cids()[0]) == CLIENT_DEPOSIT - received * PRICE
    assert sum(world.r.balance(cid) for cid in world.r.cids()) == received * DELTA_R


def crash_at(world: World, step: int, who: str) -> Callable[[], None]:
    def hook() -> None:
        if world.steps == step:
            for name in who:
                world.crash(world.nodes[name])

    return hook


def count_steps(world: World, play: Callable[[World], Any]) -> int:
    saved = world.save()
    play(world)
    steps = world.steps
    world.load(saved)
    return steps


@pytest.mark.parametrize("who", ["C", "R", "I", "CR", "CRI"])
def test_killed_at_every_message_of_a_session(world: World, who: str) -> None:
    total = count_steps(world, life_of_a_session)
    assert total == 20 + PAYMENTS
    setup_and_close = [step for step in range(1, total + 1)
                       if step <= 12 or step > 8 + PAYMENTS]
    for step in setup_and_close:
        saved = world.save()
        world.on_step = crash_at(world, step, who)
        check_session(world, life_of_a_session(world))
        world.load(saved)


@pytest.mark.parametrize("who", ["C", "E", "I", "CEI"])
def test_killed_at_every_message_of_a_hidden_payment(world: World, who: str) -> None:
    """The invoice or the word that the token verifies may be lost: then nothing moves, and the
    payer's channel is claimed on the ledger. A secret that has left moves the amount."""
    cid, to = world.c.cids()[0], world.e.cids()[0]
    total = count_steps(world, lambda world: world.transfer(AMOUNT))
    assert total >= 10
    for step in range(1, total + 1):
        saved = world.save()
        world.on_step = crash_at(world, step, who)
        world.transfer(AMOUNT)
        if isinstance(world.c.wallet(cid), Idle) and isinstance(world.e.wallet(to), Idle):
            kept, paid = world.c.balance(cid), world.e.balance(to) - PAYEE_DEPOSIT
        else:
            world.travel(world.now + 7 * MU, tick=MU // 2)
            world.settle(cid, to)
            kept, paid = world.c.wallet(cid).amount, world.e.wallet(to).amount - PAYEE_DEPOSIT
            assert world.conserved()
        assert paid in (0, AMOUNT), f"step {step}"
        assert kept == CLIENT_DEPOSIT - paid - (PAY_FEE if paid else 0), f"step {step}"
        world.load(saved)


def wild(seed: int) -> Callable[[World], Callable[[Parcel], Iterable[Parcel]]]:
    """Loses, repeats and delays requests and replies at random; words stay in order."""

    def make(world: World) -> Callable[[Parcel], Iterable[Parcel]]:
        rng = random.Random(seed)
        budget = [25]

        def fault(parcel: Parcel) -> Iterable[Parcel]:
            if parcel.kind not in ("request", "reply") or not budget[0]:
                return (parcel,)
            dice = rng.random()
            if dice < 0.2:
                budget[0] -= 1
                return ()
            if dice < 0.4:
                budget[0] -= 1
                return (parcel, parcel)
            if dice < 0.6:
                budget[0] -= 1
                world.wire.append(parcel)
                return (parcel,)
            return (parcel,)

        return fault

    return make


@pytest.mark.parametrize("seed", range(12))
def test_a_wire_that_loses_repeats_and_reorders(world: World, seed: int) -> None:
    world.fault = wild(seed)(world)
    terms_hash = world.setup()
    for _ in range(8):
        world.retry()
    world.establish(terms_hash)
    for _ in range(8):
        world.retry()
    world.pay(terms_hash, PAYMENTS)
    world.close_relay(terms_hash)
    for _ in range(8):
        world.retry()
    world.close_client(terms_hash)
    for _ in range(8):
        world.retry()
    check_session(world, terms_hash)
    world.transfer(AMOUNT, world.c.cids()[1])
    for _ in range(8):
        world.retry()
    assert world.e.balance(world.e.cids()[0]) == PAYEE_DEPOSIT + AMOUNT
    assert world.c.balance(world.c.cids()[1]) == CLIENT_DEPOSIT - AMOUNT - PAY_FEE


@pytest.mark.parametrize("who", ["C", "I"])
def test_killed_at_every_message_of_opening_and_cash_out(world: World, who: str) -> None:
    def play(world: World) -> None:
        world.open(world.c, deposit=1_000, fund=0, count=1)
        for _ in range(3):
            world.retry()
        (new,) = set(world.c.cids()) - known
        assert isinstance(world.c.wallet(new), Idle)
        world.cash_out(world.c, new >> 8)
        for _ in range(3):
            world.retry()

    known = set(world.c.cids())
    for step in range(1, count_steps(world, play) + 1):
        saved = world.save()
        before = world.stake(world.c)
        world.on_step = crash_at(world, step, who)
        play(world)
        assert world.stake(world.c) == before
        assert world.conserved()
        world.load(saved)


def test_a_relay_forgets_no_payment_that_it_accepted(world: World) -> None:
    terms_hash = world.session(PAYMENTS)
    world.crash(world.r)
    session = world.r.records.get(Table.SESSION, terms_hash)
    assert isinstance(session, RelaySession) and session.phase is RelayPhase.ACTIVE
    assert nano_pay.received(world.r.records, terms_hash) == PAYMENTS


def test_requests_go_out_again_byte_for_byte(world: World) -> None:
    world.start_setup(world.c.cids()[0])
    world.wire.clear()
    world.restart(world.c)
    world.restart(world.c)
    world.run()
    requests = [one.payload for one in world.log if one.pcmd == m.NanoSetupRequest.PCMD]
    assert len(set(requests)) == 1
