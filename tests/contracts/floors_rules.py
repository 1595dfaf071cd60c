# SPDX-License-Identifier: BSD-3-Clause
"""Moves of the stateful machine: what anybody may do next, and how a run ends.

The machine has one rule, which takes a number: that seeds the choice of a move, by weight, and of
its details. Uniform rules would seldom get a session beyond its setup; and since a step's number
says all about it, hypothesis can still leave other steps out when it shrinks a failure.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from monetor_chain.errors import TransactionReverted
from monetor_chain.rehearsal import NO_AUTHORISATION
from monetor_chain.statements import Role, keccak256

from .floors_machine import (
    ACCOUNTS,
    CLIENTS,
    GUARD,
    MARGIN,
    OUTSIDER,
    RELAYS,
    VOTES,
    FloorsBase,
)
from .ledger_book import Channel, CloseStatement, Group, GuardChannel, Kind, Right, State
from .offchain_model import Move
from .offchain_records import INTERMEDIARY, Wallet, Weakness

MOST_GROUPS = 8


class FloorsMachine(FloorsBase):
    """All moves. A pick chooses among what is possible, so that most moves do something."""

    @rule(number=st.integers(0, 2**16 - 1))
    def step(self, number: int) -> None:
        """The move that `number` stands for."""
        # Hypothesis likes to repeat itself; the same number again is another move.
        self.seen[number] += 1
        draw = random.Random(f"{self.salt} {number} {self.seen[number]}")
        moves, weights = zip(*MOVES, strict=True)
        draw.choices(moves, weights)[0](self, draw)

    # --- Off the ledger ------------------------------------------------------------------------

    def _do(self, moves: list[Move], pick: int) -> None:
        if moves:
            name, act = moves[pick % len(moves)]
            self._step(f"message: {name}")
            act()

    def message(self, pick: int) -> None:
        """A message is sent and answered; any exchange can stop at any of them."""
        self._do(self.w.moves() or self.w.setups(False), pick)

    def setup(self, pick: int, previous: bool) -> None:
        self._do(self.w.setups(previous), pick)

    def pay(self, pick: int, count: int) -> None:
        """Nano-Pay, several at once."""
        sessions = self.w.payable()
        if not sessions:
            self.message(pick)
            return
        self._step("message: nano-pay")
        self.w.pay(sessions[pick % len(sessions)], count)

    def hidden_pay(self, pick: int, amount: int) -> None:
        self._do(self.w.payments_to_start(amount), pick)

    def cash_out(self, pick: int) -> None:
        self._do(self.w.cash_outs(), pick)

    # --- Time ----------------------------------------------------------------------------------

    def wait(self, seconds: int) -> None:
        self._step("time: wait")
        self._pass(self.clock + seconds)

    def jump(self, pick: int, side: int) -> None:
        """To a deadline, so that the next block comes on it, just before or just after it; or to
        where honest parties begin to act for it."""
        times = {s.terms.t_exp for s in self.w.sessions} | {p.t_p for p in self.w.payments}
        times |= {c.deadline for c in self.book.channels.values() if c.state is not State.RESOLVED}
        times |= {g.deadline for g in self.book.guards.values() if g.state is not State.RESOLVED}
        times |= {link.expiry for link in self.w.links.values()}
        ahead = sorted(t + side - 1 for t in times if t + side - 1 > self.clock)
        if ahead:
            self._step("time: jump")
            self._pass(ahead[min(pick, len(ahead) - 1)])

    # --- Honest parties of their own accord ------------------------------------------------------

    def duty(self, pick: int, copied: bool) -> None:
        """An honest party acts before the last second, with or without somebody's copy of its
        call in the block before."""
        duties = self.duties()
        if not duties:
            return
        duty = duties[pick % len(duties)]
        self._step("early duty")
        if copied and duty.copy is not None:
            now = self._tick()
            self._note(f"copied: {duty.name}")
            duty.copy(now)
        duty.act(self._tick())

    def honest_exit(self, pick: int, way: str) -> None:
        """An honest user has had enough of a silent counterparty and closes."""
        wallets = self._unposted(True)
        if not wallets:
            return
        wallet = wallets[pick % len(wallets)]
        self._step("honest exit")
        now = self._tick()
        if way == "copied":
            self._copy_exit(wallet, now)
            now = self._tick()
        self._exit(wallet, now, "" if way == "itself" else "watcher")

    def _unposted(self, honest: bool) -> list[Wallet]:
        return [
            w
            for w in self.w.wallets.values()
            if self.w.honest(w.owner) is honest
            and not (honest and w.ended)
            and self.book.channels[w.cid].state in (State.OPEN, State.REQUESTED)
        ]

    # --- Claims of the coalition -----------------------------------------------------------------

    def post(self, pick: int, k: int, relayed: bool) -> None:
        """Anything ever held is posted, at any time."""
        rights = self._rights()
        if pick & 3:
            rights = self._unrevoked(rights)
        if not rights:
            return
        right = rights[pick // 4 % len(rights)]
        self._step("coalition posts")
        sender = OUTSIDER if relayed else self.book.channels[right.cid].group.account
        self._post(right, self._tick(), sender, self._k_choices(right)[k], relayed=relayed)

    def post_without_leave(self, pick: int) -> None:
        """Somebody posts an honest user's right without its signature, or without a proof."""
        rights = [r for w in self.w.wallets.values() for r in w.rights[-2:]]
        right = rights[pick % len(rights)]
        owner = self.book.channels[right.cid].group.account
        self._step("claim without leave")
        if right.terms is not None and pick & 1 and not self.w.honest(owner):
            k = self.book.claims(right.terms)[0] + 1
            if k <= right.terms.n:
                self._post(right, self._tick(), owner, k, proven=False)
                return
        if right.kind is not Kind.CONDITIONAL:
            self._post(right, self._tick(), OUTSIDER)

    def batch(self, pick: int, size: int, k: int, stray: bool) -> None:
        """Several sessions in one call, all or none."""
        rights = [r for r in self._rights() if r.terms is not None]
        if not rights:
            return
        chosen = [rights[(pick + i) % len(rights)] for i in range(min(size, len(rights)))]
        self._step("batch")
        now = self._tick()
        items = [(r, self._k_choices(r)[k]) for r in chosen]
        self._batch(items, now, OUTSIDER, [not stray or i > 0 for i in range(len(items))])

    def _batch(
        self, items: list[tuple[Right, int]], now: int, sender: str, relayed: list[bool]
    ) -> None:
        consents = [
            r or sender == self.book.channels[right.cid].group.account
            for (right, _), r in zip(items, relayed, strict=True)
        ]
        trial = copy.deepcopy(self.book)
        expected = True
        for (right, k), consent in zip(items, consents, strict=True):
            expected = expected and trial.post(right, now, consent, k)
        if expected:
            for (right, k), consent in zip(items, consents, strict=True):
                self.book.post(right, now, consent, k)
        name = f"{len(items)} claims"

        def call() -> Any:
            claims = [
                self._claim(right, k, auth)[1]
                for (right, k), auth in zip(items, relayed, strict=True)
            ]
            return self.stage.ledger.functions.batch_nano_refund(claims)

        self._send("batch_nano_refund", call, sender, expected, name)

    def honest_batch(self, pick: int) -> None:
        """An honest user leaves all its sessions in one call."""
        owners = [o for o in (*CLIENTS, *RELAYS) if self.w.honest(o)]
        owner = owners[pick % len(owners)]
        wallets = [w for w in self._unposted(True) if w.owner == owner and w.safe.terms is not None]
        if not wallets:
            return
        self._step("honest batch")
        now = self._tick()
        wallets = [w for w in wallets if not w.ended]
        for wallet in wallets:
            wallet.ended = True
        items = [(w.safe, self._k_of(w)) for w in wallets]
        self._batch(items, now, owner, [False] * len(items))

    def mint(self, pick: int, balance: int) -> None:
        """A corrupt intermediary signs what it likes for a member of the coalition."""
        wallets = [w for w in self.w.wallets.values() if not self.w.honest(w.owner)]
        if wallets and not self.w.strict:
            self._step("message: mint")
            wallet = wallets[pick % len(wallets)]
            right = self.w.right(wallet, Kind.REFUND, balance)
            if pick & 1 and self.w.sessions:
                session = self.w.sessions[pick % len(self.w.sessions)]
                right.kind, right.terms = Kind.NANO, session.terms

    def reveal(self, pick: int, k: int, proven: bool) -> None:
        """The coalition shows payments that it knows, or pretends."""
        if not self.w.sessions:
            return
        session = self.w.sessions[pick % len(self.w.sessions)]
        known = self.w.known_to_coalition(session)
        count = [known, known // 2, 1 if known else 0, min(16, known)][k]
        if not proven:
            count = min(session.terms.n, self.book.claims(session.terms)[0] + 1)
        self._step("coalition reveals")
        self._reveal(session.terms, count, self._tick(), OUTSIDER, proven)

    def refute(self, pick: int, right: bool) -> None:
        """The coalition uses a secret that it knows, or a wrong one."""
        closing = self._closing()
        if not closing:
            return
        channel = closing[pick % len(closing)]
        assert channel.posted is not None
        secret = self.w.leaked.get(channel.posted.lock) if right else None
        self._step("coalition refutes")
        self._refute(channel, secret or self.w.secret(), self._tick(), OUTSIDER)

    def _closing(self) -> list[Channel]:
        return [c for c in self.book.channels.values() if c.state is State.CLOSING]

    def resolve(self, pick: int, edge: int | None, twice: bool) -> None:
        channels = [
            c for c in self.book.channels.values() if c.deadline and c.state is not State.RESOLVED
        ]
        if not channels:
            return
        channel = channels[pick % len(channels)]
        self._step("resolve")
        if edge is not None:
            self._pass(channel.deadline + edge)
        self._resolve(channel.cid, self._tick(), OUTSIDER)
        if twice:
            self._resolve(channel.cid, self._tick())

    def request_close(self, pick: int, stranger: bool) -> None:
        channels = list(self.book.channels.values())
        channel = channels[pick % len(channels)]
        self._step("request to close")
        self._request(channel.cid, self._tick(), OUTSIDER if stranger else INTERMEDIARY)

    def close(self, pick: int, relayed: bool, signed: bool) -> None:
        """Somebody uses a signature from a cash-out."""
        if not self.w.closes:
            return
        statement = self.w.closes[pick % len(self.w.closes)]
        owner = self.book.groups[statement.group].account
        self._step("close")
        now = self._tick()
        if self.w.honest(owner) and (not signed or self._covers_posted(statement)):
            # Without the owner's leave.
            self._close(statement, now, OUTSIDER, relayed=False, signed=signed)
            return
        sender = OUTSIDER if relayed else owner
        self._close(statement, now, sender, relayed=relayed, signed=signed)

    def _covers_posted(self, statement: CloseStatement) -> bool:
        group = self.book.groups[statement.group]
        return any(
            statement.channels >> i & 1 and c.state not in (State.OPEN, State.REQUESTED)
            for i, c in enumerate(group.channels)
        )

    # --- Groups, vault, withdrawals, votes -----------------------------------------------------

    def open(self, owner: str, fund: int, count: int) -> None:
        if len(self.book.groups) >= MOST_GROUPS:
            return
        self._step("open")
        now = self._tick()
        role = Role.CLIENT if owner in CLIENTS else Role.RELAY
        deposit = 9_000 if role is Role.CLIENT else 500
        allowed = max(deposit, fund) <= self.book.parameters_at(now).deposit_max
        group_id = self._open_group(owner, role, deposit, fund, count, allowed)
        if allowed:
            self.book.open(group_id, owner, role, deposit, fund, count, now)
            self.book.hand[owner] -= count * deposit
            self.w.add_group(group_id)
        self._compare()

    def _open_group(
        self, owner: str, role: Role, deposit: int, fund: int, count: int, allowed: bool
    ) -> int:
        self._note(f"open: {owner} {'taken' if allowed else 'refused'}")
        if not self.live:
            return 1_000 + len(self.book.groups)
        self.base.calls += 1
        try:
            group = self.stage.open_group(
                self.party(owner), role, deposit, fund, count, funded=False
            )
        except TransactionReverted:
            if allowed:
                self._fail("an allowed opening was refused")
            self.base.refused["open"] += 1
            return 0
        if not allowed:
            self._fail("a forbidden opening was taken")
        self.base.taken["open"] += 1
        return group

    def fund(self, pick: int, stranger: bool) -> None:
        group = self._pick_group(pick)
        self._step("fund")
        self._tick()
        expected = self.book.fund(group, not stranger)
        if expected:
            self.w.on_funded(group.id)
        sender = OUTSIDER if stranger else INTERMEDIARY
        self._send("fund", lambda: self.ledger.fund(group.id), sender, expected)

    def _pick_group(self, pick: int) -> Group:
        """More often than not one that waits for its funds."""
        groups = list(self.book.groups.values())
        waiting = [group for group in groups if group.half_open]
        if waiting and pick & 3:
            groups = waiting
        return groups[pick % len(groups)]

    def reclaim(self, pick: int, way: str) -> None:
        group = self._pick_group(pick)
        self._step("reclaim")
        self._tick()
        self._reclaim(group, way)

    def _reclaim(self, group: Group, way: str) -> None:
        expected = self.book.reclaim(group, way != "stranger")

        def call() -> Any:
            auth = NO_AUTHORISATION
            if way == "relayed":
                auth = self.stage.authorise(self.party(group.account), "reclaim", group.id)
            return self.ledger.reclaim(group.id, auth)

        self._send("reclaim", call, group.account if way == "itself" else OUTSIDER, expected)

    def withdraw(self, name: str) -> None:
        self._step("withdraw")
        self._withdraw(name)

    def _withdraw(self, name: str) -> None:
        self._tick()
        self.book.hand[name] += self.book.credit[name]
        self.book.credit[name] = 0
        self._send("withdraw", self.ledger.withdraw, name, True)

    def vault(self, amount: int, into: bool) -> None:
        self._step("vault")
        self._tick()
        if into:
            expected, change = amount < 10**12, amount
            entry, call = "deposit_vault", lambda: self.ledger.deposit_vault(amount)
        else:
            expected, change = amount <= self.book.vault, -amount
            entry, call = "withdraw_vault", lambda: self.ledger.withdraw_vault(amount)
        if expected:
            self.book.vault += change
            self.book.hand[INTERMEDIARY] -= change
        self._send(entry, call, INTERMEDIARY, expected)

    def vote(self, choice: int, late: bool) -> None:
        """Two of three authorities agree on the next epoch's set."""
        self._step("vote")
        length = VOTES[0].epoch
        self._tick()
        for i, name in enumerate(("authority_1", "authority_2")):
            if i:
                self._tick()
            epoch = self.clock // length + (0 if late else 1)

            def call(epoch: int = epoch) -> Any:
                return self.stage.consensus.functions.vote(epoch, VOTES[choice].words())

            if i == 0:
                first = epoch
            if not late and i and epoch == first:
                self.book.agree(epoch, VOTES[choice])
            self._send("vote", call, name, not late)

    def register_key(self, pick: int) -> None:
        """The intermediary's key again, or a key of somebody else's."""
        self._step("register a key")
        self._tick()
        issuer = self.stage.issuer
        rest = issuer.rest_hash if pick & 1 else keccak256(pick.to_bytes(4, "big"))
        fresh = rest not in self.registered
        self.registered.add(rest)

        def call() -> Any:
            return self.ledger.register_key(issuer.public_key, rest)

        self._send("register_key", call, OUTSIDER, fresh)

    # --- Guard channels ------------------------------------------------------------------------

    def guard_pay(self, pick: int, count: int) -> None:
        """The client sends preimages to its guard; on a used-up chain a new voucher first."""
        links = [x for x in self.w.links.values() if self._guard(x.gid).state is State.OPEN]
        if not links:
            return
        link = links[pick % len(links)]
        guard = self._guard(link.gid)
        self._step("message: guard payment")
        if link.sent == 32 or self.clock >= link.expiry - 2 * MARGIN:
            claims = self.w.honest(GUARD) and link.accepted_total > guard.claimed
            if claims and self.clock >= link.expiry - MARGIN:
                # Too late to roll over: the guard claims on the old chain.
                return
            self._new_voucher(link.gid)
            link = self.w.links[link.gid]
        room = (guard.deposit - link.base) // guard.price
        link.sent = min(32, room, link.sent + count)
        if self.clock < link.expiry - 2 * MARGIN:
            link.accepted = link.sent
            link.accepted_total = link.base + link.accepted * guard.price

    def _guard(self, gid: int) -> GuardChannel:
        return self.book.guards[gid]

    def claim_guard(self, pick: int, k: int, signed: bool) -> None:
        links = list(self.w.links.values())
        link = links[pick % len(links)]
        self._step("claim of a guard")
        # Whoever knows neither the chain nor its payments can prove nothing.
        known = 32 if not self.w.honest(link.client) else link.sent
        self._claim_guard(link, min(k, known), self._tick(), OUTSIDER, signed=signed)

    def end_guard(self, pick: int, stranger: bool) -> None:
        guards = list(self.book.guards.values())
        guard = guards[pick % len(guards)]
        self._step("end of a guard channel")
        self._tick()
        if guard.state is State.CLOSING:
            self._close_guard(guard)
        else:
            self._request_guard(guard, OUTSIDER if stranger else guard.client)

    def _request_guard(self, guard: GuardChannel, sender: str) -> None:
        expected = self.book.request_close_guard(guard.id, sender, self.clock)
        gid = self.gids[guard.id]
        self._send(
            "request_close_guard", lambda: self.ledger.request_close_guard(gid), sender, expected
        )

    def _close_guard(self, guard: GuardChannel) -> None:
        expected = self.book.close_guard(guard.id, self.clock)
        gid = self.gids[guard.id]
        self._send("close_guard", lambda: self.ledger.close_guard(gid), OUTSIDER, expected)

    def open_guard(self, client: str, deposit: int) -> None:
        if sum(g.state is not State.RESOLVED for g in self.book.guards.values()) >= 3:
            return
        self._step("open a guard channel")
        now = self._tick()
        gid = 2_000 + len(self.book.guards)

        def call() -> Any:
            permit = self.stage.permit(self.party(client), deposit)
            return self.ledger.open_guard(self.party(GUARD).address, deposit, permit)

        if deposit:
            self.book.open_guard(gid, client, GUARD, deposit, now)
            self.book.hand[client] -= deposit
        receipt = self._send("open_guard", call, client, deposit > 0)
        if deposit:
            self.gids[gid] = gid
            if self.live:
                self.gids[gid] = int(self.stage.events(receipt, "GuardOpened")[0]["gid"])
            self._new_voucher(gid)

    # --- The end -------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Everybody takes what is his; then nobody honest may have less than his floor."""
        self._compare_views()
        self._note("end: the coalition's last claims")
        if self.greedy:
            self._last_claims()
        ends = [s.terms.t_exp for s in self.w.sessions] + [p.t_p for p in self.w.payments]
        self._pass(max([self.clock, *ends]) + 1)
        if self.greedy == 3:
            self._last_claims()
        self._note("end: the honest leave")
        self._leave()
        for channel in self.book.channels.values():
            if channel.state is State.OPEN and self.w.strict:
                self._request(channel.cid, self._tick(), INTERMEDIARY)
        for guard in self.book.guards.values():
            if guard.state is State.OPEN:
                self._tick()
                self._request_guard(guard, guard.client)
        self._pass(max(
            [self.clock]
            + [c.deadline for c in self.book.channels.values()]
            + [g.deadline for g in self.book.guards.values()]
        ))  # fmt: skip
        for guard in self.book.guards.values():
            if guard.state is State.CLOSING:
                self._tick()
                self._close_guard(guard)
        for channel in self.book.channels.values():
            if channel.state in (State.CLOSING, State.REQUESTED):
                self._resolve(channel.cid, self._tick())
        self._compare_views()
        for name in ACCOUNTS:
            if self.book.credit[name]:
                self._withdraw(name)
        self._compare_hands()
        self._check_floors()

    def _leave(self) -> None:
        for group in self.book.groups.values():
            if group.half_open and self.w.honest(group.account):
                self._tick()
                self._reclaim(group, "itself")
        for statement in self.w.closes:
            owner = self.book.groups[statement.group].account
            if self.w.honest(owner) and not self._covers_posted(statement) and self.greedy & 1:
                self._close(statement, self._tick(), owner, relayed=False, signed=True)
        for wallet in self._unposted(True):
            now = self._tick()
            if not wallet.ended:
                self._exit(wallet, now)

    def _last_claims(self) -> None:
        """For each channel of the coalition the right that promises most."""
        for wallet in self._unposted(False):
            right = self._best_claim(wallet)
            if right is not None:
                self._post(right, self._tick(), wallet.owner, self._best_k(right))

    def _check_floors(self) -> None:
        assert self.weak is None or isinstance(self.weak, Weakness)
        for name in ACCOUNTS:
            if not self.w.honest(name):
                continue
            change = self._wealth(name) - self.start[name]
            floor = self._floor(name)
            if change < floor:
                self._fail(f"floor of {name}: change {change}, at least {floor} due")

    def _floor(self, name: str) -> int:
        if name == INTERMEDIARY:
            return self.w.floor_of_intermediary()
        if name == GUARD:
            return self.w.floor_of_guard(GUARD)
        return self.w.floor_of(name)


def _pick(draw: random.Random) -> int:
    return draw.randrange(4096)


def _often(draw: random.Random) -> bool:
    return draw.randrange(4) > 0


MOVES: tuple[tuple[Callable[[FloorsMachine, random.Random], None], float], ...] = (
    (lambda m, d: m.message(_pick(d)), 60),
    (lambda m, d: m.setup(_pick(d), d.random() < 0.5), 6),
    (lambda m, d: m.pay(_pick(d), d.choice((1, 3, 15, 16, 40))), 7),
    (lambda m, d: m.hidden_pay(_pick(d), d.choice((0, 1, 700, 5_000, 50_000))), 4),
    (lambda m, d: m.cash_out(_pick(d)), 0.5),
    (lambda m, d: m.wait(d.choice((1, 2, 5, 20, 40))), 2),
    (lambda m, d: m.jump(d.randrange(4), d.choice((-2 * MARGIN, -MARGIN, -1, 0, 1))), 3),
    (lambda m, d: m.duty(_pick(d), d.random() < 0.5), 4),
    (lambda m, d: m.honest_exit(_pick(d), d.choice(("itself", "watcher", "copied"))), 0.4),
    (lambda m, d: m.honest_batch(_pick(d)), 0.5),
    (lambda m, d: m.post(_pick(d), d.randrange(4), d.random() < 0.3), 5),
    (lambda m, d: m.post_without_leave(_pick(d)), 1),
    (lambda m, d: m.batch(_pick(d), d.randint(1, 4), d.randrange(4), d.random() < 0.2), 1.5),
    (lambda m, d: m.mint(_pick(d), d.choice((0, 1, 20_000, 2**32))), 1),
    (lambda m, d: m.reveal(_pick(d), d.randrange(4), _often(d)), 2),
    (lambda m, d: m.refute(_pick(d), _often(d)), 3),
    (lambda m, d: m.resolve(_pick(d), d.choice((None, -1, 0)), d.random() < 0.2), 4),
    (lambda m, d: m.request_close(_pick(d), not _often(d)), 0.8),
    (lambda m, d: m.close(_pick(d), d.random() < 0.5, _often(d)), 1.5),
    (lambda m, d: m.open(
        d.choice((*CLIENTS, *RELAYS)), d.choice((0, 9_000, 60_000)), d.randint(1, 3)
    ), 0.7),
    (lambda m, d: m.fund(_pick(d), not _often(d)), 1),
    (lambda m, d: m.reclaim(_pick(d), d.choice(("itself", "relayed", "stranger"))), 0.7),
    (lambda m, d: m.withdraw(d.choice(ACCOUNTS)), 0.7),
    (lambda m, d: m.vault(d.choice((1, 50_000, 10**13)), d.random() < 0.5), 0.7),
    (lambda m, d: m.vote(d.randrange(len(VOTES)), not _often(d)), 0.7),
    (lambda m, d: m.register_key(_pick(d)), 0.3),
    (lambda m, d: m.guard_pay(_pick(d), d.choice((1, 7, 20))), 2),
    (lambda m, d: m.claim_guard(_pick(d), d.randrange(33), _often(d)), 1),
    (lambda m, d: m.end_guard(_pick(d), not _often(d)), 0.7),
    (lambda m, d: m.open_guard(d.choice(CLIENTS), d.choice((0, 5_000))), 0.5),
)  # fmt: skip
"""Moves with their weights."""


def machine(**attributes: Any) -> type[FloorsMachine]:
    """A machine class of its own, since hypothesis makes the instances."""
    return type("BoundFloorsMachine", (FloorsMachine,), attributes)
