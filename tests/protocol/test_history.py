# SPDX-License-Identifier: BSD-3-Clause
"""The history and the balances add up to what was escrowed, after every step of every life."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from monetor_chain.parameters import DEMO
from offchain.protocol import messages as m
from offchain.protocol.balances import Worth, worth
from offchain.protocol.history import Change, Entry, entries
from offchain.protocol.records import Records, Table, key248
from offchain.protocol.resting import rests_until
from offchain.protocol.sessions import ClientPhase, ClientSession, RelayPhase, RelaySession
from offchain.protocol.wallet import Idle, Posted, Settled, all_wallets, proved
from tests.protocol.world import (
    CLIENT_DEPOSIT,
    DELTA_R,
    MU,
    PAY_FEE,
    PRICE,
    Node,
    Parcel,
    World,
)


class Chronicle:
    """The history of one node, written as the engine writes it: from what each step has changed."""

    def __init__(self, world: World, *nodes: Node) -> None:
        self.found: dict[str, list[Entry]] = {node.name: [] for node in nodes}
        self.start = {node.name: self.now(node) for node in nodes}
        act = world.act

        def recorded(node: Node, action: Callable[[Records, Any], Any]) -> Any:
            before = self.now(node)
            result = act(node, action)
            if node.name in self.found:
                self._record(node, before)
            return result

        world.act = recorded  # type: ignore[method-assign]

    @staticmethod
    def now(node: Node) -> dict[tuple[Table, bytes], Any]:
        return {(table, key): one for table in Table for key, one in node.records.scan(table)}

    def _record(self, node: Node, before: dict[tuple[Table, bytes], Any]) -> None:
        after = self.now(node)
        changes = [Change(table, key, before.get((table, key)), after.get((table, key)))
                   for table, key in sorted({*before, *after})
                   if before.get((table, key)) != after.get((table, key))]
        self.found[node.name] += entries(node.records, changes)

    def total(self, node: Node, what: str) -> int:
        return sum(one.amount for one in self.found[node.name] if one.what == what)

    def count(self, node: Node, what: str) -> int:
        return sum(one.count for one in self.found[node.name] if one.what == what)


@pytest.fixture
def watched(world: World) -> Any:
    act = world.act
    yield world
    world.act = act  # type: ignore[method-assign]


def holdings(node: Node, claims: dict[bytes, int]) -> int:
    """What the records say that the node's channels are worth, paid out or not."""
    total = Worth()
    for wallet in all_wallets(node.records):
        total += (Worth(pending=claims[key248(wallet.cid)]) if isinstance(wallet, Posted)
                  else worth(node.records, wallet))
    return total.total


def unsettled(node: Node) -> int:
    """Paid or earned in sessions that hold a channel still."""
    total = 0
    for key, one in node.records.scan(Table.SESSION):
        if isinstance(one, ClientSession) and one.phase in range(
                ClientPhase.ACTIVE, ClientPhase.REVOKED):
            total += one.sent * PRICE
        if isinstance(one, RelaySession) and one.phase in range(
                RelayPhase.ACTIVE, RelayPhase.REVOKED):
            total += proved(node.records, key).k * DELTA_R
    return total


def test_what_was_escrowed_is_held_paid_or_paid_out(watched: World) -> None:
    """After every single step of a life with sessions, a hidden payment and a cash-out."""
    world = watched
    book = Chronicle(world, world.c, world.r, world.e)
    first, second = world.c.cids()
    checked = 0

    def check() -> None:
        nonlocal checked
        for node, sign in ((world.c, -1), (world.r, 1), (world.e, 1)):
            assert not any(isinstance(one, Posted) for one in all_wallets(node.records))
            moved = (book.total(node, "paid") + book.total(node, "earned")) * sign
            assert holdings(node, {}) == (escrowed[node.name] + moved
                                          + book.total(node, "hidden-payment")
                                          + unsettled(node) * sign)
            checked += 1

    escrowed = {node.name: holdings(node, {}) for node in (world.c, world.r, world.e)}
    world.on_step = check
    terms_hash = world.session(DEMO.n, first)
    other = world.session(9, second)
    world.close(terms_hash)
    world.close(other)
    unused = world.setup(second)
    world.close_client(unused)
    world.transfer(1_234, first)
    for node in (world.c, world.e, world.r):
        world.cash_out(node, node.cids()[0] >> 8)
    check()
    assert checked > 100
    assert [(one.what, one.count, one.amount) for one in book.found["C"]] == [
        ("set-up", DEMO.n, DEMO.n * PRICE), ("established", DEMO.n, DEMO.n * PRICE),
        ("set-up", DEMO.n, DEMO.n * PRICE), ("established", DEMO.n, DEMO.n * PRICE),
        ("paid", DEMO.n, DEMO.n * PRICE), ("paid", 9, 9 * PRICE),
        ("set-up", DEMO.n, DEMO.n * PRICE), ("unused", 0, 0),
        ("hidden-payment", 1, -1_234 - PAY_FEE),
        ("cashed-out", 2, 2 * CLIENT_DEPOSIT - (DEMO.n + 9) * PRICE - 1_234 - PAY_FEE)]
    assert [(one.what, one.count, one.amount) for one in book.found["R"]] == [
        ("established", DEMO.n, DEMO.n * DELTA_R), ("established", DEMO.n, DEMO.n * DELTA_R),
        ("earned", DEMO.n, DEMO.n * DELTA_R), ("earned", 9, 9 * DELTA_R),
        ("cashed-out", 2, (DEMO.n + 9) * DELTA_R)]
    assert [(one.what, one.amount) for one in book.found["E"]][0] == ("hidden-payment", 1_234)


def test_opening_escrows_and_a_dispute_pays_out(watched: World) -> None:
    world = watched
    book = Chronicle(world, world.c)
    cid = world.c.cids()[0]
    world.open(world.c, deposit=777, fund=5, count=3)
    assert [(one.what, one.count, one.amount) for one in book.found["C"]] == [
        ("escrowed", 3, 2_331), ("opened", 3, 15)]
    world.session(5, cid)
    world.i.alive = False
    world.settle(cid)
    paid, claimed, paid_out = book.found["C"][-3:]
    assert (paid.what, paid.count, paid.amount) == ("paid", 5, 5 * PRICE)
    assert (claimed.what, paid_out.what) == ("claimed", "paid-out")
    assert claimed.subject == paid_out.subject == key248(cid)
    balance = world.c.wallet(cid)
    assert isinstance(balance, Settled)
    assert claimed.amount == paid_out.amount == balance.amount == CLIENT_DEPOSIT - 5 * PRICE


def test_what_is_never_funded_is_reclaimed(watched: World) -> None:
    world = watched
    book = Chronicle(world, world.c)
    world.fault = lambda parcel: () if parcel.kind == "submit" and parcel.source == "I" else (
        parcel,)
    world.open(world.c, deposit=100, fund=0, count=2)
    world.travel(world.now + 6 * MU)
    assert [(one.what, one.amount) for one in book.found["C"]] == [
        ("escrowed", 200), ("reclaimed", 200)]


def test_an_entry_tells_no_secret(watched: World) -> None:
    """Subjects are names that the ledger or the intermediary know anyway."""
    world = watched
    book = Chronicle(world, world.c)
    terms_hash = world.session(3)
    world.close(terms_hash)
    cids = {key248(cid) for cid in world.c.cids()} | {
        key248(cid >> 8) for cid in world.c.cids()}
    assert {one.subject for one in book.found["C"]} <= cids | {terms_hash}


# --- The pause


def test_a_new_wallet_rests_for_a_random_time_whatever_it_comes_from(world: World) -> None:
    """Out of a session, of a hidden payment at either end, and of the opening of its channel, which
    the intermediary knows by name."""
    cid, payee = world.c.cids()[0], world.e.cids()[0]
    opened = [rests_until(world.c.records, one) for one in world.c.cids()]
    assert len(set(opened)) > 1, "each channel's own"
    limit = 30
    world.parameters[DEMO.epoch_at(world.now)] = _resting(limit)
    received = rests_until(world.e.records, payee)
    world.transfer(7, cid, payee)
    assert rests_until(world.c.records, cid) != opened[0]
    assert rests_until(world.e.records, payee) != received
    drawn = []
    for _ in range(8):
        terms_hash = world.session(0, cid)
        world.close(terms_hash)
        wallet = world.c.wallet(cid)
        assert isinstance(wallet, Idle)
        drawn.append(rests_until(world.c.records, cid) - 1000 * (world.now + 1))
    assert all(0 <= one <= 1000 * limit for one in drawn)
    assert len(set(drawn)) == len(drawn), "each pause is drawn anew, in milliseconds"


def test_a_pause_is_on_disk_with_the_close_and_not_drawn_again(world: World) -> None:
    """A restart finds the deadline as it was; a repeated reply does not move it."""
    cid = world.c.cids()[0]
    world.parameters[DEMO.epoch_at(world.now)] = _resting(30)
    replies: list[Any] = []

    def keep(parcel: Parcel) -> tuple[Parcel, ...]:
        if parcel.kind == "reply" and parcel.target == "C":
            replies.append(parcel.item)
        return (parcel,)

    world.fault = keep
    opened = rests_until(world.c.records, cid)
    terms_hash = world.session(0, cid)
    world.close_relay(terms_hash)
    seen = []
    world.on_step = lambda: seen.append((isinstance(world.c.wallet(cid), Idle),
                                         rests_until(world.c.records, cid)))
    world.close_client(terms_hash)
    world.crash(world.c)
    world.run()
    world.on_step()
    conversation, pcmd, payload = replies[-1]
    assert pcmd == m.WalletTokenReply.PCMD
    world.act(world.c, lambda records, moment: world.c.machine.on_reply(
        records, moment, conversation, pcmd, payload))
    world.on_step()
    assert all((until != opened) == idle for idle, until in seen)
    assert len({until for idle, until in seen if idle}) == 1


def _resting(seconds: int) -> Any:
    return replace(DEMO, setup_pause=seconds)
