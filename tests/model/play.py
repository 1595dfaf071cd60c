# SPDX-License-Identifier: BSD-3-Clause
"""What the replays of both models share: one play of a model on the real machines, in step.

A play makes one move of the model happen in a `World` (`perform`), compares what the model says of
the state afterwards with what the machines and the ledger hold (`check`), and the outcome with the
accounts (`check_money`). Model time jumps: nobody looks at its clock, so nothing happens that is
no move.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from monetor_chain.parameters import DEMO
from monetor_chain.statements import lock_of
from offchain.protocol import ledger as calls, messages as m
from offchain.protocol.outbox import Tell
from tests.model import session_model as sm
from tests.model.checker import Label
from tests.model.lawless import Lawless
from tests.protocol.world import MU, World

REQUESTED, UNTOUCHED, SETTLED = 1, 5, 6
"""The ledger's numbers for a channel's status."""
LOCK_BITS = 144
"""How much of a posted lock the ledger shows."""


class Play:
    """One play between `users` and I; `expiry` is T_exp or T_p, `name` the session or payment.

    `crashing`: everybody honest is killed and starts again after every move. What was on the wire
    is lost, and only what is on the disks goes out once more.
    """

    users: str
    expiry: int
    name: bytes = b""

    def __init__(self, world: World, bad: frozenset[str], *, crashing: bool = False) -> None:
        self.world, self.bad, self.crashing = world, bad, crashing
        self.i_bad = "I" in bad
        self.nodes = {who: world.nodes[who] for who in (*self.users, "I")}
        self.cids = {who: self.nodes[who].cids()[0] for who in self.users}
        self.asked: set[str] = set()
        self.wealth = {who: world.wealth(node) for who, node in self.nodes.items()}
        self.lawless = Lawless(world.me)
        self._views: dict[str, tuple[int, Any]] = {}
        self.heard: dict[int, bytes] = {}
        """Lock → secret of everything that an honest party has let out."""

    def _deafen(self) -> None:
        """From here on the machines of dishonest parties do not hear of the ledger."""
        for who in self.bad:
            self.nodes[who].follows = False

    def possible(self, label: Label, s: Any) -> bool:
        """Whether the move fits the real clock, on which deadlines have an order."""
        late = [who for who in self.users if self.status_of(who, s) in (sm.SOON, sm.LATER)
                and self._real_status(who) == sm.OVERDUE]
        if late:
            # Every transaction takes a second: the model follows a deadline that has passed.
            return label[1] == "deadline" and label[2] in late
        match label:
            case ("L", "time", stage):
                return all(self._deadline(who) > self._stage_at(stage) for who in self.users
                           if self._real_status(who) in (sm.SOON, sm.ASKED))
            case ("L", "deadline" | "forfeit", who):
                mine, other = self._deadline(who), self.users.replace(who, "")
                if self._real_status(other) in (sm.SOON, sm.ASKED) and (
                        self._deadline(other) < mine):
                    return False
                return s.t == sm.EXPIRED_T or mine + 2 < self._stage_at(s.t + 1)
        return True

    def perform(self, label: Label, before: Any) -> None:
        """Make the move happen."""
        raise NotImplementedError

    def moved(self, label: Label) -> None:
        """A move was made."""
        self._listen()
        if self.crashing:
            for who, node in self.nodes.items():
                if who not in self.bad:
                    self.world.crash(node)

    def check(self, s: Any) -> None:
        """The model's state and the real one agree."""
        raise NotImplementedError

    def check_money(self, s: Any) -> None:
        """The accounts at the end are what the model's outcome says, to the unit."""
        raise NotImplementedError

    def status_of(self, who: str, s: Any) -> int:
        """A channel's status in the model."""
        found: int = getattr(s, f"{who.lower()}_status")
        return found

    # --- The ledger

    def _on_ledger(self, label: Label) -> None:
        world = self.world
        match label:
            case (_, "time", stage):
                world.jump(self._stage_at(stage))
            case (_, "deadline", who):
                if world.now <= self._deadline(who):
                    world.jump(self._deadline(who) + 1)
            case (_, "resolve", who):
                assert world.transact(world.e, calls.Resolve(self.cids[who]))
            case (_, "forfeit", who):
                world.jump(self._deadline(who) + 1)
                assert world.transact(world.e, calls.Resolve(self.cids[who]))

    def _stage_at(self, stage: int) -> int:
        return self.expiry + {sm.MARGIN_2: -2 * MU, sm.MARGIN_1: -MU, sm.EXPIRED_T: 1}[stage]

    def _view(self, what: str, read: Callable[[], Any]) -> Any:
        """What the ledger says. Every block has a time of its own, so it is asked once in each."""
        at, found = self._views.get(what, (-1, None))
        if at != self.world.now:
            found = read()
            self._views[what] = self.world.now, found
        return found

    def _channel(self, who: str) -> Any:
        return self._view(who, self.world.stage.ledger.functions.channel(self.cids[who]).call)

    def _deadline(self, who: str) -> int:
        return int(self._channel(who)[1])

    def _real_status(self, who: str) -> int:
        """SOON stands for every claim whose deadline runs, RESOLVED for every way to be over."""
        status = self._channel(who)[0]
        if status in (UNTOUCHED, REQUESTED, SETTLED):
            return {UNTOUCHED: sm.OPEN, REQUESTED: sm.ASKED, SETTLED: sm.RESOLVED}[status]
        return sm.OVERDUE if self.world.now > self._deadline(who) else sm.SOON

    def _coarse(self, who: str, status: int) -> int:
        if status in (sm.SOON, sm.LATER):
            return sm.OVERDUE if self._real_status(who) == sm.OVERDUE else sm.SOON
        return sm.RESOLVED if status in (sm.REFUTED, sm.FORFEIT) else status

    def _refute(self, who: str) -> None:
        """I refutes; a dishonest one with any secret that it was told."""
        if not self.i_bad:
            self._submit("I", calls.Refute, self.cids[who])
            return
        posted = self._channel(who)[3]
        secret = next((one for lock, one in self.heard.items()
                       if lock % (1 << LOCK_BITS) == posted), None)
        assert secret is not None, "I knows no secret that refutes"
        assert self.world.transact(self.world.i, calls.Refute(self.cids[who], secret))

    def _request_close(self, who: str) -> None:
        """I asks the owner of a channel to close it."""
        world = self.world
        world.act(world.i, lambda records, moment: world.i.machine.request_close(
            records, self.cids[who]))
        self._submit("I", calls.RequestClose, self.cids[who])
        self.asked.add(who)

    # --- The wire

    def _listen(self) -> None:
        """Remember every secret in what honest parties have on the wire."""
        for one in self.world.wire:
            if one.kind in ("request", "tell") and one.source not in self.bad:
                message = m.unpack(one.item.pcmd, one.item.payload)
                for field in ("wsk", "nwsk", "wsk_c"):
                    secret = getattr(message, field, None)
                    if secret is not None:
                        self.heard[lock_of(secret)] = secret

    def _drop(self, match: Callable[[Any], bool]) -> None:
        for one in [one for one in self.world.wire if match(one)]:
            self.world.wire.remove(one)

    def _deliver(self, what: str, match: Callable[[Any], bool]) -> None:
        found = next((one for one in self.world.wire if match(one)), None)
        assert found is not None, f"nobody has sent {what}"
        self.world.wire.remove(found)
        self.world._deliver(found)

    def _request(self, who: str, kind: type[Any]) -> None:
        node = self.nodes[who]
        for conversation, request in node.requests.items():
            if request.pcmd == kind.PCMD:
                self.world._ask(node, conversation)
        self._deliver(kind.__name__, lambda one: one.kind == "request"
                      and one.source == node.name and one.item.pcmd == kind.PCMD)

    def _reply(self, who: str, kind: type[Any]) -> None:
        self._deliver(kind.__name__, lambda one: one.kind == "reply"
                      and one.target == self.nodes[who].name and one.item[1] == kind.PCMD)
        assert not self.nodes[who].complaints, self.nodes[who].complaints

    def _told(self, who: str, reply: Any) -> None:
        """A dishonest I answers, with whatever it likes, the one request that `who` has open."""
        node = self.nodes[who]
        (conversation,) = node.requests
        self._drop(lambda one: one.kind == "request" and one.source == node.name)
        self.world._take_reply(node, conversation, *m.pack(reply))
        assert not node.complaints, node.complaints

    def _open_request(self, who: str) -> Any:
        (request,) = self.nodes[who].requests.values()
        return m.unpack(request.pcmd, request.payload)

    def _tell(self, source: str, kind: type[Any]) -> None:
        self._deliver(kind.__name__, lambda one: one.kind == "tell"
                      and one.source == source and one.item.pcmd == kind.PCMD)

    def _word(self, source: str, target: str, message: Any) -> None:
        """Something that a dishonest party says without its machine."""
        self.world._take_word(self.nodes[source], self.nodes[target],
                              Tell(self.name, *m.pack(message)))
        assert not self.nodes[target].complaints, self.nodes[target].complaints

    def _submit(self, who: str, kind: type[Any], cid: int | None = None) -> None:
        node = self.nodes[who]
        reverted = len(node.reverted)
        self._deliver(kind.__name__, lambda one: one.kind == "submit"
                      and one.source == node.name and isinstance(one.item.call, kind)
                      and (cid is None or one.item.call.cid == cid))
        assert len(node.reverted) == reverted, node.reverted

    # --- Money

    def _bonds(self, s: Any) -> dict[str, int]:
        """Bonds that owners earned. A cooperative close gives the bond back to I."""
        return {who: DEMO.close_bond if who in self.asked
                and self.status_of(who, s) != sm.FORFEIT and self.claimed(who, s) else 0
                for who in self.users}

    def claimed(self, who: str, s: Any) -> bool:
        """Whether a channel was claimed by a token, in the model."""
        raise NotImplementedError


class OutOfOrder(Exception):
    """The play needs deadlines in an order that the real clock does not have."""


def scripted(labels: Iterable[Label]) -> Callable[[list[tuple[Label, Any]]], tuple[Label, Any]]:
    """Choose these moves in turn."""
    rest = iter(labels)

    def choose(options: list[tuple[Label, Any]]) -> tuple[Label, Any]:
        label = next(rest)
        found = dict(options)
        if label not in found:
            raise OutOfOrder(f"{label} is not possible here: {sorted(map(str, found))}")
        return label, found[label]

    return choose


class Diverged(AssertionError):
    """The machines do not follow the model in `label`."""

    def __init__(self, label: Label, made: list[Label], error: AssertionError) -> None:
        super().__init__(f"in {label} after {made}: {error}")
        self.label = label


def replay(play: Play, model: Any, choose: Callable[[list[tuple[Label, Any]]],
                                                    tuple[Label, Any]]) -> list[Label]:
    """Play the model and the machines in step; the moves that were made."""
    state = model.start()
    made: list[Label] = []
    while not model.ended(state):
        options = [one for one in model.moves(state) if play.possible(one[0], state)]
        if not options:
            raise OutOfOrder(f"no move fits the clock after {made}")
        label, after = choose(options)
        try:
            play.perform(label, state)
            play.moved(label)
            play.check(after)
        except AssertionError as error:
            raise Diverged(label, made, error) from error
        made.append(label)
        state = after
    play.check_money(state)
    return made
