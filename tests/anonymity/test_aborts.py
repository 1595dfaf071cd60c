# SPDX-License-Identifier: BSD-3-Clause
"""Every protocol is cut off at every message, and nothing more is joined than is documented.

From one message on one of the parties, or each of them, hears nobody and is not heard: a request, a
reply or a word to a peer is the first to be lost. Then either the silence lasts and everybody takes
what is theirs from the ledger, or it ends and everything goes on. In both cases another wallet of
the same client carries on as well, and what is left is cashed out. Intermediary, relay and an
observer of the ledger each try to join what they saw; the documented joins are those of
`observed.ties`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice, product
from typing import Any

import pytest

from monetor_chain.parameters import DEMO
from offchain.protocol import messages as m, wallet as wallets
from offchain.protocol.records import Table
from offchain.protocol.sessions import ClientPhase, ClientSession
from offchain.protocol.wallet import Idle
from tests.anonymity.observed import ObservedWorld, knots, repeated, unexplained
from tests.protocol.world import CLIENT_DEPOSIT, MU, PAYEE_DEPOSIT, Parcel

Action = Callable[[ObservedWorld], Any]


@dataclass(frozen=True)
class Protocol:
    """What happens before, and what is cut off."""

    name: str
    before: Action
    cut: Action


def _open_session(world: ObservedWorld) -> bytes:
    world.run_session(world.c, world.c.cids()[0], 3)
    return world.setup(world.c.cids()[0])


def _running(world: ObservedWorld) -> bytes:
    terms_hash = _open_session(world)
    world.pay_from(world.c, terms_hash, 17)
    return terms_hash


def _relay_is_closed(world: ObservedWorld) -> None:
    world.close_relay(_running(world))


def _only_session(world: ObservedWorld) -> bytes:
    """The session that is not over."""
    (found,) = (key for key, one in world.c.records.scan(Table.SESSION)
                if isinstance(one, ClientSession) and one.phase is not ClientPhase.CLOSED)
    return found


def _some_history(world: ObservedWorld) -> None:
    world.run_session(world.c, world.c.cids()[0], 3)
    world.run_session(world.e, world.open(world.e, deposit=CLIENT_DEPOSIT, fund=0, count=1)[0], 3)


def _pay(world: ObservedWorld) -> None:
    # The stranger's other channels have no room for it.
    to = next(cid for cid in world.e.cids() if world.e.balance(cid) == PAYEE_DEPOSIT)
    world.transfer(900, world.c.cids()[0], to)


PROTOCOLS = (
    Protocol("opening", _some_history,
             lambda world: world.open(world.c, deposit=20_000, fund=0, count=1)),
    Protocol("setup", _some_history, lambda world: world.setup(world.c.cids()[0])),
    Protocol("establish", _open_session,
             lambda world: world.pay_from(world.c, _only_session(world), 0)),
    Protocol("relay-close", _running, lambda world: world.close_relay(_only_session(world))),
    Protocol("client-close", _relay_is_closed,
             lambda world: world.close_client(_only_session(world))),
    Protocol("pay", _some_history, _pay),
    Protocol("cash-out", _some_history,
             lambda world: world.cash_out(world.c, world.c.cids()[0] >> 8)),
)


@dataclass
class Silence:
    """From the message number `start` on, `who` hears nobody and nobody hears it; I means all."""

    start: int
    who: str = "I"
    passed: int = 0
    parties: set[str] = field(default_factory=set)

    def __call__(self, parcel: Parcel) -> Iterable[Parcel]:
        if parcel.kind == "submit":
            # The ledger hears everybody.
            return (parcel,)
        ends = {parcel.source, parcel.target}
        self.parties |= ends
        if self.passed >= self.start and (self.who == "I" or self.who in ends):
            return ()
        self.passed += 1
        return (parcel,)


def carry_on(world: ObservedWorld) -> None:
    """The client's other wallet has a session, and whatever is idle is cashed out."""
    world.fault = lambda parcel: (parcel,)
    world.retry()
    for _ in range(4):
        world.travel(world.now + MU // 2, tick=MU // 4)
        world.retry()
    idle = [cid for cid in world.c.cids() if isinstance(world.c.wallet(cid), Idle)]
    if idle and world.c.balance(idle[-1]) >= DEMO.n * DEMO.price:
        world.run_session(world.c, idle[-1], 2)
    for node in (world.c, world.e, world.r):
        for group in {cid >> 8 for cid in node.cids()
                      if isinstance(node.wallet(cid), Idle)}:
            world.cash_out(node, group)


def give_up(world: ObservedWorld) -> None:
    """The silence lasts until everything that has a deadline is over."""
    world.travel(world.now + DEMO.epoch + DEMO.lifetime + 6 * MU, tick=MU)
    carry_on(world)


OUTCOMES: dict[str, Action] = {"for good": give_up, "for a while": carry_on}


def points(world: ObservedWorld, protocol: Protocol, every: int
           ) -> Iterator[tuple[str, str, int]]:
    """(outcome, who falls silent, first message that is lost), all of them or a sample."""
    world.fault = silence = Silence(1 << 30)
    protocol.cut(world)
    assert silence.passed, "nothing passes in this protocol"
    every_one = product(OUTCOMES, sorted(silence.parties), range(silence.passed))
    return islice(every_one, 0, None, every)


def examine(world: ObservedWorld, protocol: Protocol, every: int) -> Counter[str]:
    """Cut the protocol off at its points; how often each kind of claim was posted."""
    protocol.before(world)
    before, seen = world.save(), (list(world.log), list(world.posted))
    posted: Counter[str] = Counter()

    def rewind() -> None:
        world.load(before)
        world.log[:], world.posted[:] = seen

    cases = list(points(world, protocol, every))
    for outcome, who, first in cases:
        rewind()
        world.fault = Silence(first, who)
        protocol.cut(world)
        OUTCOMES[outcome](world)
        for by in ("I", "R", "L"):
            everything = world.seen(by)
            where = f"{protocol.name}, {who} silent from {first} on {outcome}, seen by {by}"
            assert not repeated(everything), where
            assert not unexplained(everything), where
        posted.update(kind for one in world.posted[len(seen[1]):] for kind in one.kinds)
    return posted


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda one: one.name)
def test_a_sample_of_aborts(world: ObservedWorld, protocol: Protocol) -> None:
    examine(world, protocol, 60)


CLAIMS = {"opening": {"Refund"}, "setup": {"Refund", "NanoRefund"}, "establish": {"NanoRefund"},
          "relay-close": {"Reveal", "NanoRefund", "Refund"},
          "client-close": {"NanoRefund", "Refund"},
          "pay": {"Refund", "RefundConditional"}, "cash-out": {"Refund", "Close"}}
"""What the ledger is told somewhere in these cases: else the cases would not be what they say."""


@pytest.mark.long
@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda one: one.name)
def test_every_abort(world: ObservedWorld, protocol: Protocol) -> None:
    posted = examine(world, protocol, 1)
    assert CLAIMS[protocol.name] <= set(posted), posted


def test_a_leak_in_a_claim_is_seen(
        world: ObservedWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: claims with tokens as they were issued."""
    monkeypatch.setattr(wallets, "rerandomised", lambda call: call)
    with pytest.raises(AssertionError, match="setup, C silent from 0 on for good, seen by I"):
        examine(world, PROTOCOLS[1], 1)


def test_documented_joins_are_real(world: ObservedWorld) -> None:
    """An unfinished session and an interrupted hidden payment do name their channels."""
    terms_hash = _running(world)
    world.fault = Silence(0)
    world.travel(world.now + DEMO.epoch + DEMO.lifetime + 6 * MU, tick=MU)
    joined = [heap.things for heap in knots(world.seen("L"))
              if terms_hash.hex() in {one.name for one in heap.things}]
    assert len(joined) == 1
    assert Counter(one.kind for one in joined[0]) == {"session": 1, "group": 2, "account": 2}


def test_an_interrupted_payment_names_its_channels(world: ObservedWorld) -> None:
    world.fault = lambda parcel: () if (
        parcel.kind == "tell" and parcel.item.pcmd == m.PayVerified.PCMD) else (parcel,)
    world.transfer(500)
    world.travel(world.now + DEMO.dispute_window, tick=MU // 4)
    joined = [heap.things for heap in knots(world.seen("I"))
              if "payment" in {one.kind for one in heap.things}]
    assert len(joined) == 1 and "group" in {one.kind for one in joined[0]}
