# SPDX-License-Identifier: BSD-3-Clause
"""A world in which one chosen thing goes wrong at one chosen message, and what everybody has then.

Killing is exact: what is not committed is gone, what was on the wire from or to the victim is
gone, and what the durable outbox holds goes out again when the victim comes back. Afterwards time
passes as far as the case needs, channels are settled on the ledger, and the accounts are read
from it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from eth_utils import decode_hex

from monetor_chain.parameters import DEMO
from monetor_chain.rehearsal import Rehearsal
from offchain.crypto.issuer import IssuerKey
from offchain.protocol import guard, ledger as calls, messages as m, pay
from offchain.protocol.errors import ProtocolError
from offchain.protocol.establish import GroupPhase, find_group
from offchain.protocol.moment import Moment, tip
from offchain.protocol.outbox import Outbox, Request, Submit, Tell
from offchain.protocol.records import Records, Table
from offchain.protocol.wallet import Idle, Paying, Settled, Voiding
from tests.protocol.crash_accounts import VIEW_OPEN, AccountedWorld, Due
from tests.protocol.crash_points import LEDGER, Death, Fate, Point, Spot, Trouble, When
from tests.protocol.world import (
    MU,
    TICK,
    Node,
    Parcel,
)

LINK = b"\x09" * 32
"""Names the link on which the guard is asked for a payout address."""
GUARD_DEPOSIT = 30_000


class Killed(Exception):
    """The party that is acting has just died."""


class Rig(AccountedWorld):
    """A world with a point at which something happens."""

    def __init__(self, stage: Rehearsal, issuer: IssuerKey) -> None:
        super().__init__(stage, issuer)
        self.life, self.cue = "", 0
        self.counts: Counter[tuple[str, str, str, str]] = Counter()
        self.trace: list[Spot] = []
        self.arrived: set[Spot] = set()
        self._sent: list[tuple[tuple[str, str, Any], Spot]] = []
        self._number = int(stage.w3.eth.block_number)
        self._clear()

    def _clear(self) -> None:
        self.point: Point | None = None
        self.struck = False
        self.cut: set[str] = set()
        self._marked: tuple[str, str, Any] | None = None
        self._reply: tuple[str, str, tuple[int, bytes]] | None = None
        self._held: Parcel | None = None
        self._again: list[Parcel] = []
        self._blocked: Parcel | None = None
        self._delayed: list[tuple[int, Parcel]] = []

    # --- Steps

    @contextmanager
    def transaction(self, node: Node) -> Iterator[Any]:
        """A draft of the records that is kept only if nothing is raised inside."""
        draft = node.records.copy()
        yield draft
        node.records = draft

    def keep_durably(self, records: Any, outbox: Outbox) -> None:
        """What a disk keeps of the outbox together with the records."""

    def act(self, node: Node, action: Callable[[Records, Moment], Any]) -> Any:
        """See `World.act`; the chosen party may die before the commit, or right after it."""
        if not node.alive:
            return None
        self._reply = None
        with self.transaction(node) as records:
            result = action(records, self.moment())
            outbox: Outbox = result[1] if isinstance(result, tuple) else result
            self.keep_durably(records, outbox)
            what = self._leaving(node, outbox, self._reply)
            if what is When.BEFORE_COMMIT:
                self.strike(node)
        for item in outbox:
            self._keep(node, item)
        if what is When.AFTER_COMMIT:
            self.strike(node)
        for item in outbox:
            self._send(node, item)
        self._collect(node)
        return result[0] if isinstance(result, tuple) else None

    def request(self, pcmd: int, payload: bytes, source: str = "?") -> tuple[int, bytes]:
        """See `World.request`."""
        asked = m.MESSAGES[pcmd].__name__
        answer: list[tuple[int, bytes]] = []

        def handle(records: Records, moment: Moment) -> Outbox:
            reply, outbox = self.i.machine.handle(records, moment, pcmd, payload)
            answer.append(reply)
            self._reply = (source, asked, reply)
            return list(outbox)

        try:
            self.act(self.i, handle)
        except ProtocolError as error:
            answer = [self.i.machine.refusal(error, pcmd)]
            if self._leaving(self.i, [], (source, asked, answer[0])) in (
                    When.BEFORE_COMMIT, When.AFTER_COMMIT):
                self.strike(self.i)
        return answer[0]

    def _leaving(self, node: Node, outbox: Outbox,
                 reply: tuple[str, str, tuple[int, bytes]] | None) -> When | None:
        """Count what a step sends; the moment if the chosen message is among it."""
        found = None
        for item in outbox:
            match item:
                case Request():
                    kind, target, way = m.MESSAGES[item.pcmd].__name__, "I", "request"
                case Tell():
                    kind, way = m.MESSAGES[item.pcmd].__name__, "tell"
                    target = self.routes.get(item.session, {}).get(node.name, "")
                    if not target:
                        continue
                case Submit():
                    kind, target, way = type(item.call).__name__, LEDGER, "submit"
                case _:
                    continue
            found = self._count(node.name, target, kind, "", (way, node.name, item)) or found
        if reply is not None:
            target, asked, answer = reply
            found = self._count("I", target, m.MESSAGES[answer[0]].__name__, asked,
                                ("reply", target, answer)) or found
        return found

    def _count(self, source: str, target: str, kind: str, about: str,
               mark: tuple[str, str, Any]) -> When | None:
        key = source, target, kind, about
        self.counts[key] += 1
        spot = Spot(self.life, self.cue, source, target, kind, about, self.counts[key])
        self.trace.append(spot)
        self._sent.append((mark, spot))
        if self.point is None or self.struck or spot != self.point.spot:
            return None
        self._marked = mark
        what = self.point.what
        return what.when if isinstance(what, Death) else None

    def command(self, name: str, action: Callable[[Records, Moment], Any]) -> Any:
        """What the person behind a party wants; wanted again by one that died before the commit."""
        node = self.nodes[name]
        for _ in range(2):
            if not node.alive or name in self.cut:
                break
            try:
                return self.act(node, action)
            except Killed:
                self.revive()
                if self.point and self.point.what.when is not When.BEFORE_COMMIT:
                    break
            except ProtocolError:
                if not self.struck and self._marked is None:
                    raise
                break
        return None

    # --- Death

    def strike(self, acting: Node | None = None) -> None:
        """The victim dies, and comes back at once if that is its fate."""
        assert self.point is not None and isinstance(self.point.what, Death)
        self.struck, self._marked = True, None
        node = self.nodes[self.point.what.victim]
        self.wire = type(self.wire)(one for one in self.wire
                                    if node.name not in (one.source, one.target))
        self.power_off(node)
        match self.point.what.fate:
            case Fate.AT_ONCE:
                if node is not acting:
                    self.power_on(node)
            case Fate.WATCHED:
                self.cut.add(node.name)
                if node is not acting:
                    self.power_on(node)
            case _:
                node.alive = False
        if node is acting:
            raise Killed

    def power_off(self, node: Node) -> None:
        """What is on the victim's disk now is all that it will know."""

    def power_on(self, node: Node) -> None:
        """Come up with what is on the disk, deliver it again, and read the ledger on."""
        self.restart(node)
        if node.follows:
            self.follow(node)

    def revive(self) -> None:
        """The victim died in a step of its own, which has been unwound."""
        assert self.point is not None and isinstance(self.point.what, Death)
        if self.point.what.fate in (Fate.AT_ONCE, Fate.WATCHED):
            self.power_on(self.nodes[self.point.what.victim])

    # --- Wire

    def deliver(self) -> None:
        """See `World.deliver`."""
        parcel = self.wire.popleft()
        held, self._held = self._held, None
        for one in self.fault(parcel):
            self._pass(one)
        if held is not None:
            self._pass(held)
        self.steps += 1

    def _pass(self, parcel: Parcel) -> None:
        for mark, spot in self._sent:
            if self._is(parcel, mark):
                self.arrived.add(spot)
                break
        try:
            if self._same(parcel, self._blocked):
                return
            if self._marked is not None and self._is(parcel, self._marked):
                self._meet(parcel)
            else:
                self._deliver(parcel)
        except Killed:
            self.revive()

    @staticmethod
    def _same(parcel: Parcel, other: Parcel | None) -> bool:
        return other is not None and (parcel.kind, parcel.source, parcel.target, parcel.item) == (
            other.kind, other.source, other.target, other.item)

    @staticmethod
    def _is(parcel: Parcel, mark: tuple[str, str, Any]) -> bool:
        way, name, item = mark
        if parcel.kind != way:
            return False
        if way == "reply":
            return parcel.target == name and parcel.item[1:] == item
        return parcel.source == name and bool(parcel.item == item)

    def _meet(self, parcel: Parcel) -> None:
        """The chosen message is on its way."""
        assert self.point is not None
        what, self._marked = self.point.what, None
        if isinstance(what, Death):
            if what.when is When.DELIVERED:
                self._deliver(parcel)
                if parcel.kind == "submit" and parcel.source == what.victim:
                    # Mined, and its sender dies before it can note that.
                    self._forget_receipt(self.nodes[parcel.source], parcel.item)
            self.strike()
            return
        self.struck = True
        match what:
            case Trouble.LOST:
                pass
            case Trouble.TWICE:
                self._deliver(parcel)
                self._deliver(parcel)
            case Trouble.AGAIN:
                self._deliver(parcel)
                self._again.append(parcel)
            case Trouble.REORDERED:
                self._held = parcel
            case Trouble.DELAYED if parcel.kind == "submit":
                # The ledger includes a transaction within the margin: that is its whole delay.
                self._delayed.append((self.now + MU - 1, parcel))
            case Trouble.DELAYED:
                self._blocked = parcel

    def _forget_receipt(self, node: Node, item: Submit) -> None:
        node.submissions[item.key] = item

    def _deliver(self, parcel: Parcel) -> None:
        if parcel.kind != "submit" and self.cut & {parcel.source, parcel.target}:
            return
        super()._deliver(parcel)

    def _take_word(self, source: Node, node: Node, item: Tell) -> None:
        message = m.unpack(item.pcmd, item.payload)
        match message:
            case m.GuardQuery():
                party = self.stage.party("guard")
                action = lambda records, moment: node.machine.name_payout(  # noqa: E731
                    records, item.session, decode_hex(party.address), party.private_key)
            case m.GuardPayout() if self.facts.get("payout"):
                return  # only the first answer to the question opens a channel
            case m.GuardPayout():
                self.facts["payout"] = message.payout
                action = lambda records, moment: node.machine.open_guard(  # noqa: E731
                    records, GUARD_DEPOSIT, message)
            case _:
                super()._take_word(source, node, item)
                return
        self.act(node, action)

    def hear(self, node: Node, events: list[Any], block: calls.Block) -> None:
        """See `World.hear`; a block that was not committed is heard again."""
        try:
            super().hear(node, events, block)
        except Killed:
            node.backlog.appendleft((events, block))
            while node.backlog and node.backlog[0][1].number <= tip(node.records).number:
                node.backlog.popleft()
            self.revive()

    def follow(self, node: Node) -> None:
        """See `World.follow`."""
        while node.alive and node.backlog:
            self.hear(node, *node.backlog.popleft())

    # --- Time

    def block(self) -> None:
        """See `World.block`; nothing is mined for it, since an empty block changes nothing but the
        time, and that is set for the next transaction."""
        self._mined([])

    def _next_block(self) -> None:
        self.now = max(self.now, self._backend.chain.get_canonical_head().timestamp + 1)
        self.stage.travel(self.now)

    def _mined(self, events: list[Any]) -> None:
        self._number += 1
        self.direct += [int.from_bytes(one.channel, "big") for one in events
                         if isinstance(one, calls.GuardOpened)]
        for node in self.nodes.values():
            node.backlog.append((events, calls.Block(self._number, self.now)))
            if node.follows:
                self.follow(node)

    def look(self, node: Node) -> None:
        """See `World.look`; transactions are submitted until they are confirmed or revert."""
        try:
            super().look(node)
        except Killed:
            self.revive()
            return
        waiting = [one.item for one in self.wire if one.kind == "submit"]
        waiting += [one.item for _, one in self._delayed]
        for item in list(node.submissions.values()):
            if item not in waiting:
                self.wire.append(Parcel("submit", node.name, LEDGER, item))

    def wait(self, until: int) -> None:
        """Let time pass; everybody looks at its deadlines as they fall due, and now and then."""
        while self.now < until:
            step = min([until, self.now + 4 * MU, *(
                max(one, self.now + 1) for one in self._due())])
            self.now = max(step, min(self.now + TICK, until))
            self.block()
            self.wire.extend(one for at, one in self._delayed if at <= self.now)
            self._delayed = [one for one in self._delayed if one[0] > self.now]
            self.tick()
            self.run()

    def _due(self) -> Iterator[int]:
        for node in self.nodes.values():
            if not node.alive:
                continue
            for key, _ in node.records.scan(Table.DEADLINE):
                yield int.from_bytes(key[:8], "big")
                break
            for conversation in node.requests:
                yield node.heard.get(conversation, self.now) + 2 * MU + 1
            if node.submissions:
                yield self.now + TICK
        for at, _ in self._delayed:
            yield at

    def deadlines(self) -> int:
        """After this, no deadline of anything that was begun is still to come."""
        latest = self.now
        for node in self.users():
            for _, one in node.records.scan(Table.SESSION):
                latest = max(latest, one.session.terms.t_exp)
            for _, one in node.records.scan(Table.PAYMENT):
                latest = max(latest, one.t_p if isinstance(one, pay.Transfer) else 0)
            for _, one in node.records.scan(Table.GUARD):
                latest = max(latest, one.expiry if isinstance(one, guard.PaidGuard) else 0)
        return latest + DEMO.dispute_window + 5 * MU

    # --- The end

    def finish(self) -> None:
        """Time passes as far as it must, everybody that is left settles."""
        if self._held is not None:
            held, self._held = self._held, None
            self._pass(held)
            self.run()
        if any(node.alive and (node.submissions or node.requests) for node in self.nodes.values()):
            self.wait(self.now + MU)
        dead = [node for node in self.nodes.values() if not node.alive]
        if dead or self.cut or self._again or self._blocked or self._delayed or (
                self._payments_under_way()):
            self.wait(self.deadlines())
        self._come_late()
        for parcel in self._again + ([self._blocked] if self._blocked else []):
            self._blocked = None
            self._pass(parcel)
        self.run()
        self.retry()
        if self._payments_under_way():
            self.wait(self.deadlines())
        self._settle()

    def _payments_under_way(self) -> bool:
        return any(isinstance(node.wallet(cid), Paying | Voiding)
                   for node in self.users() if node.alive for cid in node.cids())

    def _come_late(self) -> None:
        if self.point is None or not isinstance(self.point.what, Death):
            return
        node = self.nodes[self.point.what.victim]
        if self.struck and self.point.what.fate is Fate.LATE:
            node.alive = True
            self.power_on(node)
            self.tick()
            self.run()

    def _settle(self) -> None:
        open_ = [(node, cid) for node in self.users() for cid in self.touched(node)]
        for node, cid in open_:
            if node.alive:
                self.act(node, lambda records, moment, node=node, cid=cid:
                         node.machine.post_claim(records, cid))
            elif self.i.alive and self.channel(cid) == VIEW_OPEN:
                self.act(self.i, lambda records, moment, cid=cid:
                         self.i.machine.request_close(records, cid))
        if self.c.alive:
            for key, one in list(self.c.records.scan(Table.GUARD)):
                if isinstance(one, guard.PaidGuard) and key == one.channel and not one.closing_at:
                    self.act(self.c, lambda records, moment, key=key:
                             self.c.machine.close_guard(records, key))
        self.run()
        end = self.now + DEMO.lifetime + DEMO.epoch + DEMO.dispute_window + 8 * MU
        while self.now < end and self.left(open_):
            self.wait(self.now + 4 * MU)
        assert not self.left(open_), self.left(open_)

    def left(self, open_: list[tuple[Node, int]]) -> list[str]:
        """What the ledger has not paid out yet."""
        found = [f"{node.name}: {type(node.wallet(cid)).__name__} {node.reverted}"
                 for node, cid in open_ if node.alive and not self._over(node, cid)]
        found += [f"{node.name}: not taken" for node, cid in open_ if not node.alive
                  and self.i.alive and self.channel(cid) not in (0, 4, 6)]
        if self.c.alive:
            found += ["guard channel" for key, one in self.c.records.scan(Table.GUARD)
                      if isinstance(one, guard.PaidGuard) and key == one.channel]
        return found

    def _over(self, node: Node, cid: int) -> bool:
        wallet = node.wallet(cid)
        if wallet is None or isinstance(wallet, Settled):
            return True
        group = find_group(node.records, cid >> 8)
        # Agreed on, and never escrowed.
        return group is not None and group.phase in (GroupPhase.AGREED, GroupPhase.SUBMITTED) and (
            self.group(cid >> 8)[0] == 0)

    # --- What must hold

    def due(self, name: str) -> Due:
        """See `AccountedWorld.due`; who was away when it mattered has no claim on what it earned,
        and who has not answered the ledger's questions has none at all."""
        what = self.point.what if self.point and self.struck else None
        if isinstance(what, Death) and what.victim == name and super().due(name) is Due.WHOLE:
            if what.fate is Fate.NEVER:
                return Due.NOTHING
            if what.fate is Fate.LATE:
                return Due.NOTHING if name == "I" or self.facts.get("bonds") else Due.PRINCIPAL
        return super().due(name)

    # --- Snapshots

    def save(self) -> Any:
        """See `World.save`."""
        return (super().save(), {key: dict(one) for key, one in self.routes.items()},
                Counter(self.counts), dict(self.facts), self.fault, self._number,
                list(self.direct))

    def load(self, saved: Any) -> None:
        """See `World.load`; the point is forgotten."""
        world, routes, counts, facts, fault, self._number, direct = saved
        self.direct = list(direct)
        self.counts, self.facts = Counter(counts), dict(facts)
        super().load(world)
        self.routes.update({key: dict(one) for key, one in routes.items()})
        self.fault = fault
        self.trace, self.arrived, self._sent = [], set(), []
        self._clear()

    def idle(self, node: Node) -> list[int]:
        """Channels that can be used."""
        return [cid for cid in node.cids() if isinstance(node.wallet(cid), Idle)]
