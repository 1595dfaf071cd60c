# SPDX-License-Identifier: BSD-3-Clause
"""What an intermediary, a relay and an observer of the ledger see, and what that lets them join.

The network is that of tests/protocol/world.py: real machines on the deployed contracts. Everything
that passes is kept with whoever saw it. Two things that share a value belong together, and so on
from one to the next: `knots` are the heaps that remain. What may lie in one heap is what
docs/protocol.md says: see `ties`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from monetor_chain.statements import lock_of
from offchain.crypto.generators import commit
from offchain.protocol import ledger as calls, messages as m
from tests.anonymity.fields import BY_DESIGN, EVENTS, TABLE, Tells, values
from tests.protocol.world import Node, World

PIECE = 16
"""Values are compared in pieces of so many bytes. Points, scalars, hashes and locks begin at
multiples of it in what holds several."""


@dataclass(frozen=True)
class Seen:
    """One thing that is seen at once: a request with its reply, a word, a call, an event.

    `by` are those who saw it; of a call also `account`, which sent it.
    """

    kinds: tuple[str, ...]
    contents: tuple[Any, ...]
    by: frozenset[str]
    account: bytes = b""
    done: bool = True
    """Whether a call had its effect; what it says can be read in any case."""

    def fields(self) -> Iterator[tuple[str, str, Any]]:
        """(kind, field, value) of everything in it."""
        for kind, content in zip(self.kinds, self.contents, strict=True):
            for name, value in values(content):
                yield kind, name, value


def piece_of(value: Any, kind: str, name: str) -> Iterator[bytes]:
    """The pieces of a value that could be recognised elsewhere."""
    if isinstance(value, str):
        value = bytes.fromhex(value.removeprefix("0x")) if value.startswith("0x") else b""
    if name == "cid":
        # A channel is known by its group, which names one owner.
        value = value >> 8
    if name in ("cid", "group"):
        value = value.to_bytes(30, "big")
    if name in ("channel", "gid") and isinstance(value, int):
        value = value.to_bytes(32, "big")
    if isinstance(value, int) and not isinstance(value, bool):
        # r, s and rho are scalars of 32 bytes; nonces and locks have 31.
        value = value.to_bytes(32, "big")[0 if value >> 248 else 1:] if value >> 128 else b""
    if isinstance(value, bytes):
        for at in range(0, len(value) - PIECE + 1, PIECE):
            if any(value[at:at + PIECE]):
                yield value[at:at + PIECE]


def pieces(seen: Seen) -> Iterator[tuple[bytes, Tells]]:
    """Everything in a thing that could join it to another, with what its field tells."""
    for kind, name, value in seen.fields():
        tells = TABLE[kind][name]
        if tells in (Tells.NETWORK, Tells.AMOUNT, Tells.TIME):
            continue
        for one in piece_of(value, kind, name):
            yield one, tells
        if name in ("wsk", "nwsk", "wsk_c", "secret"):
            # Whoever sees a secret knows its lock.
            for one in piece_of(lock_of(value), kind, "lock"):
                yield one, tells
    for content in seen.contents:
        if hasattr(content, "terms"):
            for one in piece_of(content.terms.nano_terms().hash(), "", "terms_hash"):
                yield one, Tells.SESSION
        if isinstance(content, calls.NanoRefund):
            # N is not posted, but all that it commits to.
            for one in piece_of(commit(content.cid, content.saturated, content.rho), "", "N"):
                yield one, Tells.SESSION
    for one in piece_of(seen.account, "", "account"):
        yield one, Tells.CHANNEL


class ObservedWorld(World):
    """The network, with a record of what everybody saw."""

    def __init__(self, *arguments: Any) -> None:
        self.posted: list[Seen] = []
        self._logged: list[tuple[str, dict[str, Any]]] = []
        super().__init__(*arguments)

    def load(self, saved: Any) -> None:
        super().load(saved)
        self.posted.clear()

    def transact(self, node: Node, call: Any) -> bool:
        self._logged.clear()
        done = super().transact(node, call)
        account = b"" if node is self.i else bytes.fromhex(node.party.address[2:])
        everybody = frozenset("ICRE") | {"L"}
        self.posted.append(Seen((type(call).__name__,), (call,), everybody, account, done))
        for name, fields in self._logged:
            self.posted.append(Seen((f"event {name}",), (fields,), everybody))
        return done

    def _event(self, entry: Any) -> Any | None:
        name = self._topics.get(bytes(entry["topics"][0]))
        if name in EVENTS and entry["address"] == self.stage.ledger.address:
            args = self.stage.ledger.events[name]().process_log(entry)["args"]
            self._logged.append((name, dict(args)))
        return super()._event(entry)

    # --- Any client with any relay, not C alone

    def pay_from(self, node: Node, terms_hash: bytes, payments: int) -> None:
        """Nano-Establish with the relay, and so many payments."""
        self.routes[terms_hash] = {node.name: "R", "R": node.name}
        self.act(node, lambda records, moment: node.machine.nano_offer(
            records, moment, terms_hash))
        self.run()
        for _ in range(payments):
            self.act(node, lambda records, moment: node.machine.nano_pay(
                records, moment, terms_hash))
            self.run()

    def run_session(self, node: Node, cid: int, payments: int) -> bytes:
        """A whole session of any client's."""
        terms_hash = self.setup(cid, node)
        self.pay_from(node, terms_hash, payments)
        self.close_relay(terms_hash)
        self.act(node, lambda records, moment: node.machine.nano_close(records, terms_hash))
        self.run()
        return terms_hash

    # --- What was seen

    def seen(self, by: str) -> list[Seen]:
        """What one of I, R, C, E or L (who sees the ledger alone) has seen, in no order.

        What was said or sent again, byte for byte, was seen once, with every answer to it.
        """
        found: dict[Any, Seen] = {}
        log = iter(self.log)
        for sent in log:
            contents = [sent]
            if sent.target == "I":
                # The reply follows its request on the same circuit.
                contents.append(next(log))
                assert contents[1].source == "I"
            key = sent.source, sent.target, sent.pcmd, sent.payload
            known = found.get(key, Seen((), (), frozenset((sent.source, sent.target))))
            fresh = tuple(one for one in (m.unpack(one.pcmd, one.payload) for one in contents)
                          if one not in known.contents)
            found[key] = Seen((*known.kinds, *(type(one).__name__ for one in fresh)),
                              (*known.contents, *fresh), known.by)
        for at, one in enumerate(self.posted):
            key = (one.contents, one.account) if one.account else at
            found.setdefault(key, one)
        return [one for one in found.values() if by in one.by]


# --- Joining


@dataclass(frozen=True, order=True)
class Thing:
    """What an observer would like to join: a session, a hidden payment, an account."""

    kind: str
    name: str


@dataclass
class Knot:
    """Things seen that share values, directly or over others."""

    seen: list[Seen]
    things: frozenset[Thing]


def named(seen: Seen) -> Iterator[Thing]:
    """The things that a seen thing names."""
    replies = seen.contents[1:]
    refused = bool(replies) and all(isinstance(one, m.Refusal) for one in replies)
    for content in seen.contents:
        if hasattr(content, "terms") and not refused:
            yield Thing("session", content.terms.nano_terms().hash().hex())
        if isinstance(content, m.PayerRequest | m.PayeeRequest):
            yield Thing("payment", content.v.hex())
    for kind, name, value in seen.fields():
        if name == "account" and not kind.startswith("event"):
            yield Thing("account", value.hex())
        if name == "terms_hash" and any(value) and not refused:
            yield Thing("session", value.hex())
        if name in ("cid", "group"):
            yield Thing("group", f"{value >> 8 if name == 'cid' else value:060x}")
    if seen.account:
        yield Thing("account", seen.account.hex())


def knots(everything: Iterable[Seen]) -> list[Knot]:
    """The heaps into which shared values join what was seen."""
    items = list(everything)
    parent = list(range(len(items)))

    def root(at: int) -> int:
        while parent[at] != at:
            parent[at] = parent[parent[at]]
            at = parent[at]
        return at

    first: dict[bytes, int] = {}
    for at, item in enumerate(items):
        for piece, _ in pieces(item):
            parent[root(at)] = root(first.setdefault(piece, at))
    heaps: dict[int, list[Seen]] = defaultdict(list)
    for at, item in enumerate(items):
        heaps[root(at)].append(item)
    return [Knot(heap, frozenset(thing for one in heap for thing in named(one)))
            for heap in heaps.values()]


def ties(everything: Iterable[Seen]) -> set[frozenset[Thing]]:
    """Pairs that the documentation says are joined, each with its reason.

    Nothing else may join two sessions, two accounts, or one of each.
    """
    items = list(everything)
    found = set()
    payments: dict[int, Thing] = {}
    attempts: dict[int, Thing] = {}
    for item in items:
        request = item.contents[0]
        if isinstance(request, m.PayerRequest | m.PayeeRequest):
            this = Thing("payment", request.v.hex())
            payments[request.wpk] = this
            # A wallet that was shown and not taken is shown again with the same nonce and lock.
            if (before := attempts.setdefault(request.nonce, this)) != this:
                found.add(frozenset((this, before)))
    for item in items:
        names = list(named(item))
        call = item.contents[0]
        if item.account:
            # An account is told by every transaction that it sends, about whatever it is.
            found |= {frozenset((one, Thing("account", item.account.hex()))) for one in names}
        # A group is its owner's from the opening on, and an unfinished session is posted with the
        # channel that it is in.
        if {one.kind for one in names} >= {"group", "account"} or isinstance(
                call, calls.NanoRefund | dict):
            found |= {frozenset((one, other)) for one in names for other in names}
        # A hidden payment shows its wallets' locks: posting one of these wallets joins the two.
        if isinstance(call, calls.Refund | calls.RefundConditional):
            for lock in (call.wpk, getattr(call, "wpk_c", 0)):
                if lock in payments:
                    found |= {frozenset((one, payments[lock])) for one in names}
        if isinstance(call, m.NanoSetupRequest | m.NanoEstablishRequest) and (
                call.nonce in attempts):
            found |= {frozenset((one, attempts[call.nonce])) for one in names}
    return {pair for pair in found if len(pair) == 2}


def unexplained(everything: Iterable[Seen]) -> list[str]:
    """Joins that the documentation does not speak of."""
    items = list(everything)
    documented = ties(items)
    found = []
    for knot in knots(items):
        things = sorted(knot.things)
        reached, edge = set(things[:1]), set(things[:1])
        while edge:
            edge = {other for other in things if other not in reached
                    and any(frozenset((one, other)) in documented for one in reached)}
            reached |= edge
        if len(reached) < len(things):
            kinds = sorted({kind for one in knot.seen for kind in one.kinds})
            rest = [f"{one.kind} {one.name[:10]}" for one in things]
            found.append(f"{', '.join(rest)} are joined by {', '.join(kinds)}")
    return found


def repeated(everything: Iterable[Seen]) -> list[str]:
    """Values that occur in two things seen although a field of one of them tells nothing."""
    places: dict[bytes, list[tuple[int, Tells, str]]] = defaultdict(list)
    for at, item in enumerate(everything):
        for piece, tells in pieces(item):
            places[piece].append((at, tells, "/".join(item.kinds)))
    return [f"{piece.hex()}: {sorted({kind for _, _, kind in where})}"
            for piece, where in places.items()
            if len({at for at, _, _ in where}) > 1
            and not {tells for _, tells, _ in where} <= BY_DESIGN]

