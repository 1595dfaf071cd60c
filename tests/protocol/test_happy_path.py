# SPDX-License-Identifier: BSD-3-Clause
"""Everybody is honest: exact balances, counted cells, equal lengths."""

from __future__ import annotations

from collections import defaultdict

import pytest

from monetor_chain.parameters import DEMO
from offchain.protocol import guard, messages as m
from offchain.protocol.errors import ProtocolError
from offchain.protocol.records import Table
from offchain.protocol.wallet import Idle, Settled
from tests.protocol.world import (
    CLIENT_DEPOSIT,
    DELTA_R,
    FEE,
    MU,
    PAY_FEE,
    PAYEE_DEPOSIT,
    PRICE,
    RELAY_FUND,
    Sent,
    World,
)

NANO_PAYMENTS = {m.NanoPayment.PCMD}
SESSION_CELLS = 25


def test_session_moves_exactly_what_was_paid(world: World) -> None:
    cid = world.c.cids()[0]
    terms_hash = world.session(40)
    world.close(terms_hash)
    assert world.c.balance(cid) == CLIENT_DEPOSIT - 40 * PRICE
    assert sorted(world.r.balance(one) for one in world.r.cids()) == [0, 40 * DELTA_R]
    assert not world.c.complaints + world.r.complaints


def test_whole_life_of_all_channels(world: World) -> None:
    before = {node.name: world.wealth(node) for node in world.nodes.values()}
    first, second = world.c.cids()
    terms_hash = world.session(DEMO.n, first)
    world.close(terms_hash)
    terms_hash = world.session(17, second)
    world.close(terms_hash)
    world.transfer(1_234, first)
    for node in (world.c, world.e, world.r):
        world.cash_out(node, node.cids()[0] >> 8)
    settled = DEMO.n + 17
    after = {name: world.wealth(node) for name, node in world.nodes.items()}
    gain = {name: after[name] - before[name] for name in after}
    earned = settled * DELTA_R
    tax = earned // 10
    assert gain["C"] == 2 * CLIENT_DEPOSIT - settled * PRICE - 1_234 - PAY_FEE
    assert gain["E"] == 2 * PAYEE_DEPOSIT + 1_234
    assert gain["R"] == earned
    assert world.tax() == tax
    payee_fund = world.i.records.get(Table.GROUP, (world.e.cids()[0] >> 8).to_bytes(31, "big")).fund
    assert gain["I"] == (2 * RELAY_FUND + 2 * payee_fund
                         + settled * (PRICE - DELTA_R) - tax + PAY_FEE)
    assert gain["I"] >= 2 * RELAY_FUND + 2 * payee_fund + settled * FEE + PAY_FEE
    assert world.conserved() and world.escrowed() == 0
    assert all(isinstance(node.wallet(cid), Settled)
               for node in (world.c, world.e, world.r) for cid in node.cids())
    assert not any(node.reverted or node.complaints for node in world.nodes.values())


def test_hidden_payment_moves_the_amount_and_the_fee(world: World) -> None:
    cid, to = world.c.cids()[0], world.e.cids()[0]
    world.transfer(20_000, cid, to)
    assert world.c.balance(cid) == CLIENT_DEPOSIT - 20_000 - PAY_FEE
    assert world.e.balance(to) == PAYEE_DEPOSIT + 20_000
    world.transfer(0, cid, to)
    assert world.c.balance(cid) == CLIENT_DEPOSIT - 20_000 - 2 * PAY_FEE
    # What was received can be spent.
    world.session(3)


def test_a_session_without_payments_costs_nothing(world: World) -> None:
    terms_hash = world.session(0)
    world.close(terms_hash)
    assert world.c.balance(world.c.cids()[0]) == CLIENT_DEPOSIT


def test_a_session_that_was_never_offered_closes_at_zero(world: World) -> None:
    terms_hash = world.setup()
    world.close_client(terms_hash)
    assert world.c.balance(world.c.cids()[0]) == CLIENT_DEPOSIT


def test_wallets_live_on_through_many_sessions(world: World) -> None:
    cid = world.c.cids()[0]
    for payments in (1, 16, 31):
        world.close(world.session(payments, cid))
    assert world.c.balance(cid) == CLIENT_DEPOSIT - 48 * PRICE
    assert sum(world.r.balance(one) for one in world.r.cids()) == 48 * DELTA_R


def payment_cells(log: list[Sent]) -> int:
    return sum(one.cells for one in log if one.pcmd not in NANO_PAYMENTS)


def test_a_session_takes_at_most_25_cells_besides_its_payments(world: World) -> None:
    world.close(world.session(20))
    assert payment_cells(world.log) <= SESSION_CELLS
    paid = [one for one in world.log if one.pcmd in NANO_PAYMENTS]
    assert [one.cells for one in paid] == [1] * 20


def test_messages_have_one_length_whatever_they_say(world: World) -> None:
    first, second = world.c.cids()
    lengths: dict[int, set[int]] = defaultdict(set)
    counts = []
    for cid, payments in ((first, 20), (second, 3), (first, 33), (second, 97)):
        world.log.clear()
        world.close(world.session(payments, cid))
        without = [one for one in world.log if one.pcmd not in NANO_PAYMENTS]
        counts.append([one.pcmd for one in without])
        for one in without:
            # The claim's path tells only whether k reached the first checkpoint.
            if one.pcmd not in (m.RelayCloseRequest.PCMD, m.ClientCloseCount.PCMD):
                lengths[one.pcmd].add(len(one.payload))
    assert all(len(found) == 1 for found in lengths.values())
    assert all(one == counts[0] for one in counts)


def test_hidden_payments_look_alike(world: World) -> None:
    seen = []
    for amount in (0, 1, 30_000):
        world.log.clear()
        world.transfer(amount)
        seen.append([(one.pcmd, len(one.payload)) for one in world.log
                     if one.source != "I" and one.pcmd != m.PayQuery.PCMD])
    assert seen[0] == seen[1] == seen[2]


# --- Guard channel


def open_guard(world: World, deposit: int = 30_000) -> bytes:
    payout = world.stage.party("guard").address
    link = b"\x09" * 32
    world.routes[link] = {"R": "C"}
    world.act(world.r, lambda records, moment: world.r.machine.name_payout(
        records, link, bytes.fromhex(payout[2:]), world.stage.party("guard").private_key)[:0])
    world.act(world.c, lambda records, moment: world.c.machine.open_guard(
        records, deposit, m.GuardPayout(bytes.fromhex(payout[2:]))))
    # The voucher goes out as soon as the channel is known, which is before a route can be.
    world.run()
    channel = next(key for key, one in world.c.records.scan(Table.GUARD)
                   if isinstance(one, guard.PaidGuard) and one.seq != guard.NO_VOUCHERS)
    world.routes[channel] = {"C": "R", "R": "C"}
    world.act(world.c, lambda records, moment: world.c.machine.guard_voucher(records, channel))
    world.run()
    return channel


def pay_guard(world: World, channel: bytes, times: int) -> None:
    for _ in range(times):
        world.act(world.c, lambda records, moment: guard.pay_guard(records, moment, channel))
        world.run()


def guard_received(world: World) -> int:
    return int(world.stage.ledger.functions.credit(world.stage.party("guard").address).call())


def test_guard_channel_with_roll_over(world: World) -> None:
    before = world.wealth(world.c)
    channel = open_guard(world)
    pay_guard(world, channel, 20)
    world.act(world.c, lambda records, moment: world.c.machine.guard_roll_over(
        records, moment, channel))
    world.run()
    pay_guard(world, channel, 37)
    assert guard.owed(guard.earning_guard(world.r.records, channel)) == 57 * PRICE
    assert world.conserved(guards=30_000)
    world.act(world.c, lambda records, moment: world.c.machine.close_guard(records, channel))
    world.run()
    world.travel(world.now + DEMO.dispute_window + 2 * MU)
    share = 57 * PRICE * 10_000 // 11_000
    assert guard_received(world) == share
    assert world.tax() == 57 * PRICE - share
    assert world.wealth(world.c) == before - 57 * PRICE
    assert world.conserved()
    assert not world.r.reverted and not world.c.reverted


def test_guard_claims_before_its_voucher_expires(world: World) -> None:
    channel = open_guard(world)
    pay_guard(world, channel, 18)
    expiry = guard.paid_guard(world.c.records, channel).expiry
    world.travel(expiry - MU, tick=MU)
    assert guard_received(world) == 18 * PRICE * 10_000 // 11_000
    assert isinstance(world.c.wallet(world.c.cids()[0]), Idle)


def test_guard_channel_pays_at_most_its_deposit(world: World) -> None:
    channel = open_guard(world, deposit=1_050)
    pay_guard(world, channel, 10)
    with pytest.raises(ProtocolError):
        pay_guard(world, channel, 1)
    assert guard.owed(guard.earning_guard(world.r.records, channel)) == 1_000
