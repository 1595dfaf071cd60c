# SPDX-License-Identifier: BSD-3-Clause
"""Direct channels: a guard takes nothing that the ledger would not pay, a client pays once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from monetor_chain.parameters import DEMO
from offchain.crypto.ecdsa import sign
from offchain.crypto.hash_chain import HashChain
from offchain.protocol import guard, ledger as calls, messages as m
from offchain.protocol.errors import ProtocolError
from tests.protocol.test_happy_path import guard_received, open_guard, pay_guard
from tests.protocol.world import MU, PRICE, World


def voucher(world: World, channel: bytes, seed: bytes = b"\x01" * 32, key: bytes | None = None,
            **changes: Any) -> tuple[m.GuardVoucher, HashChain]:
    """A voucher that the client signs, whatever it says."""
    current = guard.paid_guard(world.c.records, channel)
    chain = HashChain(DEMO.n, seed)
    unsigned = replace(m.GuardVoucher(
        channel, current.seq + 1, current.base + current.sent * PRICE, DEMO.n, chain.hc0,
        chain.root, guard.guard_expiry(world.moment()), bytes(65)), **changes)
    digest = guard.voucher_digest(world.domain, unsigned)
    return replace(unsigned, signature=sign(digest, key or world.c.party.private_key)), chain


def take(world: World, message: m.GuardVoucher) -> Any:
    return world.r.machine.on_voucher(world.r.records.copy(), world.moment(), message)


def test_a_voucher_continues_the_one_before(world: World) -> None:
    channel = open_guard(world)
    pay_guard(world, channel, 20)
    take(world, voucher(world, channel)[0])
    for wrong in ({"seq": 1}, {"seq": 0}, {"base": 20 * PRICE - 1}, {"base": 0}):
        with pytest.raises(ProtocolError, match="continue"):
            take(world, voucher(world, channel, **wrong)[0])


@pytest.mark.parametrize("n", [0, 16, 48, 1 << 19, 1 << 20])
def test_a_voucher_has_a_length_that_the_ledger_takes(world: World, n: int) -> None:
    """The first payments of a longer chain prove themselves to the guard, and to no ledger."""
    channel = open_guard(world)
    with pytest.raises(ProtocolError, match="range"):
        take(world, voucher(world, channel, n=n)[0])


def test_a_voucher_is_the_clients(world: World) -> None:
    channel = open_guard(world)
    with pytest.raises(ProtocolError, match="client"):
        take(world, voucher(world, channel, key=world.e.party.private_key)[0])
    good, _ = voucher(world, channel)
    with pytest.raises(ProtocolError, match="voucher"):
        take(world, replace(good, signature=bytes(65)))
    with pytest.raises(ProtocolError):
        take(world, replace(good, expiry=good.expiry + 1))
    with pytest.raises(ProtocolError, match="no such"):
        take(world, replace(good, channel=b"\x01" * 32))


def test_a_voucher_covers_no_more_than_the_deposit(world: World) -> None:
    channel = open_guard(world, deposit=2_000)
    with pytest.raises(ProtocolError, match="range"):
        take(world, voucher(world, channel, base=2_001)[0])
    message, chain = voucher(world, channel, base=1_950)
    world.act(world.r, lambda records, moment: world.r.machine.on_voucher(
        records, moment, message))
    with pytest.raises(ProtocolError, match="used up"):
        world.r.machine.on_guard_payment(world.r.records, world.moment(), channel,
                                         m.GuardPayment(1, chain.value(1), ()))


@pytest.mark.parametrize(("before", "accepted"), [(2 * MU + 1, True), (2 * MU, False)])
def test_vouchers_and_payments_end_two_margins_before_expiry(
        world: World, before: int, accepted: bool) -> None:
    channel = open_guard(world)
    pay_guard(world, channel, 2)
    current = guard.paid_guard(world.c.records, channel)
    chain = HashChain(current.n, current.seed)
    message, _ = voucher(world, channel, expiry=current.expiry)
    world.jump(current.expiry - before)
    payment = m.GuardPayment(3, chain.value(3), ())
    if accepted:
        take(world, message)
        world.r.machine.on_guard_payment(world.r.records, world.moment(), channel, payment)
    else:
        for call in (lambda: take(world, message),
                     lambda: world.r.machine.on_guard_payment(
                         world.r.records, world.moment(), channel, payment)):
            with pytest.raises(ProtocolError, match="near"):
                call()
        assert guard.guard_left(world.c.records, world.moment(), channel) == 0


def test_a_guard_counts_only_payments_that_follow(world: World) -> None:
    channel = open_guard(world)
    pay_guard(world, channel, 15)
    current = guard.paid_guard(world.c.records, channel)
    chain = HashChain(current.n, current.seed)
    for k, hc, path in ((15, chain.value(15), ()), (17, chain.value(17), ()),
                        (16, chain.value(16), ()), (16, chain.value(17), chain.path(16))):
        with pytest.raises(ProtocolError):
            world.r.machine.on_guard_payment(world.r.records, world.moment(), channel,
                                             m.GuardPayment(k, hc, path))


def test_a_closing_channel_takes_no_payment_and_is_claimed(world: World) -> None:
    channel = open_guard(world)
    pay_guard(world, channel, 18)
    current = guard.paid_guard(world.c.records, channel)
    chain = HashChain(current.n, current.seed)
    world.act(world.c, lambda records, moment: world.c.machine.close_guard(records, channel))
    world.run()
    assert guard_received(world) == 18 * PRICE * 10_000 // 11_000
    with pytest.raises(ProtocolError, match="closing"):
        world.r.machine.on_guard_payment(world.r.records, world.moment(), channel,
                                         m.GuardPayment(19, chain.value(19), ()))
    assert guard.guard_left(world.c.records, world.moment(), channel) == 0


def test_claims_of_different_counts_are_different_purposes(world: World) -> None:
    """A claim that waits in the outbox must not swallow a later one for more."""
    channel = open_guard(world)
    pay_guard(world, channel, 5)
    world.fault = lambda parcel: () if parcel.kind == "submit" else (parcel,)
    world.act(world.r, lambda records, moment: world.r.machine.claim_guard(records, channel))
    world.run()
    pay_guard(world, channel, 5)
    world.act(world.r, lambda records, moment: world.r.machine.claim_guard(records, channel))
    world.run()
    world.fault = lambda parcel: (parcel,)
    world.crash(world.r)
    world.run()
    assert guard_received(world) == 10 * PRICE * 10_000 // 11_000


def test_the_client_takes_the_rest_after_the_guards_window(world: World) -> None:
    before = world.wealth(world.c)
    channel = open_guard(world)
    pay_guard(world, channel, 3)
    world.r.alive = False
    world.act(world.c, lambda records, moment: world.c.machine.close_guard(records, channel))
    world.run()
    world.travel(world.now + DEMO.dispute_window - MU, tick=MU)
    assert world.wealth(world.c) == before - 30_000
    world.travel(world.now + 3 * MU)
    assert world.wealth(world.c) == before
    assert world.conserved()


def test_an_opening_that_is_mined_twice_costs_no_second_deposit(world: World) -> None:
    """Sent again by a client that died before it noted that the first had been mined."""
    before = world.wealth(world.c)
    world.fault = lambda parcel: (parcel, parcel) if parcel.kind == "submit" and isinstance(
        parcel.item.call, calls.OpenGuard) else (parcel,)
    channel = open_guard(world)
    assert guard.paid_guard(world.c.records, channel).seq == 1
    assert world.wealth(world.c) == before - 2 * 30_000
    pay_guard(world, channel, 3)
    assert guard.owed(guard.earning_guard(world.r.records, channel)) == 3 * PRICE
    world.travel(world.now + DEMO.dispute_window + 3 * MU, tick=MU)
    assert world.wealth(world.c) == before - 30_000
    assert guard.guard_left(world.c.records, world.moment(), channel)
    assert world.conserved(guards=30_000)
