# SPDX-License-Identifier: BSD-3-Clause
"""What the stateful machine of `floors_rules` consists of: chain, books, time and honest duties.

A run chooses who is honest. Messages off the ledger go by `offchain_model`, calls go to the real
contracts, and `ledger_book` says of each call whether it must be taken and what it moves. Time is
the machine's: before it passes a second at which an honest party must have acted, that party's
call is mined, by default in the last block that the protocol allows for.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize

from monetor_chain import statements
from monetor_chain.errors import TransactionReverted
from monetor_chain.parameters import DEMO, TAX_RATE_BP
from monetor_chain.rehearsal import (
    NO_AUTHORISATION,
    Party,
    PaymentChain,
    Rehearsal,
    words,
)
from monetor_chain.rehearsal_chain import RehearsalChain
from monetor_chain.statements import GROUP_ORDER, NanoTerms, Role, TokenKind, keccak256, lock_of

from .ledger_book import Book, Channel, CloseStatement, Kind, Right, State
from .mocks import compiled
from .offchain_model import OffChain
from .offchain_records import INTERMEDIARY, GuardLink, Session, Wallet, Weakness

SMALL = replace(DEMO, n=32, lifetime=100, close_notice=150)
"""Short sessions and notices, so that a run of a hundred steps sees many of them end."""
MARGIN = SMALL.safety_margin
VAULT = 2_000_000
WEALTH = 10_000_000

CLIENTS = ("client", "stranger")
RELAYS = ("relay", "deployer")
GUARD = "guard"
SIDES = {
    "clients": frozenset({"client"}),
    "relays": frozenset({"relay", GUARD}),
    "intermediary": frozenset({INTERMEDIARY}),
}
"""Who may belong to the coalition; one client and one relay are honest in every run."""
OUTSIDER = "authority_3"
"""Sends what anybody may send, for the coalition."""
ACCOUNTS = (*CLIENTS, *RELAYS, GUARD, INTERMEDIARY)

STATUS = {State.REQUESTED: 1, State.HALF_OPEN: 4, State.OPEN: 5, State.RESOLVED: 6}
"""The ledger's numbers for a channel's state; a closing one has 2 or 3."""
GUARD_STATUS = {State.OPEN: 1, State.CLOSING: 2, State.RESOLVED: 3}

ENTRY_OF = {
    Kind.REFUND: "refund", Kind.CONDITIONAL: "refund_conditional", Kind.NANO: "nano_refund"
}  # fmt: skip
ENTRY_POINTS = frozenset(
    {
        "open", "fund", "reclaim", "refund", "refund_conditional", "nano_refund",
        "batch_nano_refund", "request_close", "refute", "resolve", "reveal", "close",
        "open_guard", "claim_guard", "request_close_guard", "close_guard", "deposit_vault",
        "withdraw_vault", "withdraw", "register_key", "vote",
    }
)  # fmt: skip
NEVER_REFUSED = frozenset({"withdraw"})
"""It pays out whatever there is, nothing included."""

VOTES = (
    SMALL,
    replace(SMALL, price=150, delta_r=100, pay_fee=9),
    replace(SMALL, price=90, delta_r=70, dispute_window=80, close_notice=80, pay_fee=0),
    replace(SMALL, dispute_window=200, lifetime=150, close_bond=300),
    replace(SMALL, n=64, price=60, delta_r=50, lifetime=90, deposit_max=50_000),
)
"""Sets on which the authorities may agree in the middle of a run."""


@dataclass(frozen=True)
class Duty:
    """Something that an honest party must have on the ledger by `latest`.

    `copy` is what an attacker that sees the call may have mined before it.
    """

    latest: int
    name: str
    act: Callable[[int], None]
    copy: Callable[[int], None] | None = None


@dataclass
class Base:
    """A chain on which the first groups and guard channels are open, and what it has cost."""

    stage: Rehearsal
    books: Any
    started: int = 0
    groups: list[tuple[int, str, Role, int, int, int]] = field(default_factory=list)
    guards: list[tuple[int, str, int]] = field(default_factory=list)
    steps: int = 0
    calls: int = 0
    runs: int = 0
    taken: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    moves: Counter[str] = field(default_factory=Counter)
    coalitions: Counter[str] = field(default_factory=Counter)


def _short(cid: int) -> str:
    """A channel's name in a trace."""
    return f"{(cid >> 8) % 1_000}/{cid & 255}"


def make_base(chain: RehearsalChain) -> Base:
    """Every user with money and channels, before anything went off the ledger."""
    stage = Rehearsal(SMALL, chain=chain)
    ledger = stage.ledger.functions
    base = Base(stage, stage.deploy_code(*compiled("Books")))
    for name in (*CLIENTS, *RELAYS):
        stage.enrich(stage.party(name), WEALTH)
    for name, role, deposit, fund, count in (
        ("client", Role.CLIENT, 14_000, 9_000, 3),
        ("stranger", Role.CLIENT, 14_000, 9_000, 2),
        ("relay", Role.RELAY, 500, 9_000, 2),
        ("deployer", Role.RELAY, 500, 9_000, 1),
    ):
        group = stage.open_group(stage.party(name), role, deposit, fund, count)
        base.groups.append((group, name, role, deposit, fund, count))
    for name in CLIENTS:
        client = stage.party(name)
        permit = stage.permit(client, 6_000)
        receipt = stage.send(ledger.open_guard(stage.party(GUARD).address, 6_000, permit), client)
        gid = int(stage.events(receipt, "GuardOpened")[0]["gid"])
        base.guards.append((gid, name, 6_000))
    intermediary = stage.party(INTERMEDIARY)
    have = ledger.vault(intermediary.address).call()
    stage.send(ledger.withdraw_vault(have - VAULT), intermediary)
    base.started = stage.now()
    return base


class FloorsBase(RuleBasedStateMachine):
    """One run. A subclass sets `base`, `weak`, the sides of the `coalition`, and `number`, another
    seed: hypothesis begins every test with zeros."""

    base: Base
    weak: Weakness | None = None
    coalition: frozenset[str] = frozenset()
    number: int = 0
    live: bool = True
    """Without a chain a run only keeps the book, a hundred times as fast."""

    # --- A run's beginning and end -----------------------------------------------------------

    def __init__(self) -> None:
        super().__init__()
        self.stage = self.base.stage
        self.ledger = self.stage.ledger.functions
        self._snapshot = self.stage.snapshot() if self.live else None
        self._failed = False
        self.trace: list[str] = []
        self.world: OffChain | None = None

    @initialize(salt=st.integers(0, 2**32 - 1))
    def begin(self, salt: int) -> None:
        """Chooses who is honest."""
        self.salt, self.seen = f"{self.number} {salt} {sorted(self.coalition)}", Counter[int]()
        self.greedy = random.Random(self.salt).choice((0, 1, 2, 2, 2, 3, 3, 3))
        corrupt = frozenset().union(*(SIDES[side] for side in self.coalition))
        stage = self.stage
        book = Book(SMALL, TAX_RATE_BP, VAULT, "pool")
        self.book, self.world = book, OffChain(book, corrupt, MARGIN, self.weak)
        now = self.base.started
        self._clock = now
        self._set_clock(now)
        self.gids: dict[int, int] = {}
        for group_id, name, role, deposit, fund, count in self.base.groups:
            group = book.open(group_id, name, role, deposit, fund, count, now)
            for channel in group.channels:
                channel.state = State.OPEN
            self.world.add_group(group_id)
            self.world.on_funded(group_id)
        for gid, name, deposit in self.base.guards:
            self.gids[gid] = gid
            book.open_guard(gid, name, GUARD, deposit, now)
            self._new_voucher(gid)
        self.signed: dict[Right, bytes] = {}
        self.registered = {stage.issuer.rest_hash}
        self._hands = self._tokens()
        self.start = {name: self._wealth(name) for name in ACCOUNTS}
        self.trace.append(f"coalition: {sorted(corrupt)}")
        self.base.coalitions[",".join(sorted(self.coalition)) or "nobody"] += 1
        self.base.runs += 1
        self._compare()

    def teardown(self) -> None:
        try:
            if self.world is not None and not self._failed:
                self._finish()
        finally:
            if self.live:
                self.stage.revert(self._snapshot)

    def _set_clock(self, now: int) -> None:
        self.clock = now
        assert self.world is not None
        self.world.clock = now

    @property
    def w(self) -> OffChain:
        assert self.world is not None
        return self.world

    def party(self, name: str) -> Party:
        return self.stage.party(name)

    def _tokens(self) -> dict[str, int]:
        """What everybody has outside the ledger."""
        balance = self.stage.token.functions.balanceOf
        if not self.live:
            return {}
        return {name: int(balance(self.party(name).address).call()) for name in ACCOUNTS}

    def _compare_hands(self) -> None:
        for name, now in self._tokens().items():
            if now - self._hands[name] != self.book.hand[name]:
                self._fail(f"{name} was not paid what the book says")

    def _wealth(self, name: str) -> int:
        """Tokens in hand (but for those of the beginning), withdrawable, or in an escrow that is
        this account's stake."""
        total = self.book.hand[name] + self.book.credit[name]
        for channel in self.book.channels.values():
            if channel.state is State.RESOLVED:
                continue
            if channel.group.account == name:
                total += channel.group.deposit
            elif name == INTERMEDIARY and channel.state is not State.HALF_OPEN:
                total += channel.group.fund
        for guard in self.book.guards.values():
            if guard.client == name and guard.state is not State.RESOLVED:
                total += guard.deposit - guard.claimed
        return total + (self.book.vault if name == INTERMEDIARY else 0)

    # --- Calls ---------------------------------------------------------------------------------

    def _note(self, name: str) -> None:
        self.trace.append(f"{self.clock - self._clock:>5} {name}")
        self.base.moves[name.split(":")[0]] += 1

    def _step(self, name: str) -> None:
        """A rule that did something."""
        self.base.steps += 1
        self._note(name)

    def _send(
        self, entry: str, call: Callable[[], Any], sender: str, expected: bool, name: str = ""
    ) -> Any:
        """Mines a call at the second the machine has travelled to, and compares the books."""
        self._note(f"{entry}: {sender} {'taken' if expected else 'refused'} {name}")
        if not self.live:
            return None
        self.base.calls += 1
        try:
            receipt = self.stage.send(call(), self.party(sender))
        except TransactionReverted as error:
            if expected:
                self._fail(f"refused {entry} ({error.reason}) that the rules allow")
            self.base.refused[entry] += 1
            receipt = None
        else:
            if not expected:
                self._fail(f"the ledger took a call of {entry} that the rules forbid")
            self.base.taken[entry] += 1
        if self.stage.now() != self.clock:
            self._fail("a block came at another second")
        self._compare()
        return receipt

    def _compare(self) -> None:
        """Conservation, and the ledger's view of every balance."""
        if not self.live:
            return
        names = [*CLIENTS, *RELAYS, GUARD]
        addresses = [self.party(name).address for name in names]
        found = self.base.books.functions.balances(
            self.stage.ledger.address,
            self.party(INTERMEDIARY).address,
            [*addresses, self.stage.pool.address],
        ).call()
        book = self.book
        expected = [book.held(), book.vault, *(book.credit[name] for name in [*names, "pool"])]
        if found != expected:
            self._fail(f"books differ: ledger {found}, book {expected}")

    def _compare_views(self) -> None:
        """What the ledger says of every channel, session and guard channel."""
        if not self.live:
            return
        views, ledger, book = self.base.books.functions, self.stage.ledger.address, self.book
        channels = list(book.channels.values())
        found = views.channels(ledger, [channel.cid for channel in channels]).call()
        for channel, (status, deadline) in zip(channels, found, strict=True):
            if status != self._status(channel):
                self._fail(f"channel {_short(channel.cid)} is {status}, not {channel.state}")
            if channel.state in (State.REQUESTED, State.CLOSING) and deadline != channel.deadline:
                self._fail("a deadline moved")
        hashes = list(book.proofs)
        if views.claims(ledger, hashes).call() != [list(book.proofs[h]) for h in hashes]:
            self._fail("the registry differs from the book")
        gids = list(book.guards)
        expected = [
            [GUARD_STATUS[g.state], g.claimed, g.price, g.window, g.deadline]
            for g in book.guards.values()
        ]
        if views.guards(ledger, [self.gids[gid] for gid in gids]).call() != expected:
            self._fail("guard channels differ from the book")

    def _status(self, channel: Channel) -> int:
        if channel.state is State.CLOSING:
            assert channel.posted is not None
            return 2 if channel.posted.terms is None else 3
        return STATUS[channel.state]

    def _fail(self, message: str) -> None:
        self._failed = True
        raise AssertionError("\n".join([message, "moves:", *self.trace]))

    # --- Time ------------------------------------------------------------------------------------

    def _next_duty(self) -> tuple[int, Duty] | None:
        """The honest call that must be mined first, and its last second: every block has one
        call, so that duties of the same second come in the seconds before it."""
        slot, first = 2**62, None
        for duty in sorted(self.duties(), key=lambda duty: -duty.latest):
            slot = min(slot - 1, duty.latest)
            first = duty
        return None if first is None else (slot, first)

    def _serve(self, until: int) -> None:
        """Mines every duty whose last second is `until` or earlier."""
        while (found := self._next_duty()) is not None and found[0] <= until:
            self._perform(found[1], max(found[0], self.clock + 1))

    def _perform(self, duty: Duty, now: int) -> None:
        self._note(f"duty: {duty.name}")
        self._at(now)
        duty.act(now)

    def _at(self, now: int) -> int:
        self._set_clock(now)
        if self.live:
            self.stage.travel(now)
        return now

    def _tick(self) -> int:
        """The second of the next block, after all duties that may not wait for it."""
        while (found := self._next_duty()) is not None and found[0] <= self.clock + 1:
            self._perform(found[1], max(found[0], self.clock + 1))
        return self._at(self.clock + 1)

    def _pass(self, until: int) -> None:
        self._serve(until)
        self._set_clock(max(self.clock, until))

    def duties(self) -> list[Duty]:
        """What honest parties must do on the ledger, each with its last second."""
        found: list[Duty] = []
        if self.w.strict:
            found += self._duties_of_intermediary()
        for wallet in self.w.wallets.values():
            found += self._duties_of_user(wallet)
        for session in self.w.sessions:
            found += self._duties_of_relay(session)
        for payment in self.w.payments:
            if self.w.honest(payment.payee.owner) and self.w.payee_in_danger(payment):
                found.append(Duty(
                    payment.t_p, "payee posts its conditional token",
                    lambda now, p=payment: self._exit(p.payee, now),
                ))  # fmt: skip
        if self.w.honest(GUARD):
            found += self._duties_of_guard()
        return found

    def _duties_of_intermediary(self) -> list[Duty]:
        found: list[Duty] = []
        for channel in self.book.channels.values():
            right = channel.posted
            if channel.state is not State.CLOSING or right is None:
                continue
            known = self.w.revoked.get(right.lock)
            if known is not None and self.weak is not Weakness.NO_REFUTATION:
                latest = max(channel.posted_at, known[1]) + MARGIN
                if latest <= channel.deadline or self.clock < channel.deadline:
                    found.append(Duty(
                        min(latest, channel.deadline), "I refutes",
                        lambda now, c=channel, s=known[0]: self._refute(c, s, now, "watcher"),
                        lambda now, c=channel, s=known[0]: self._refute(c, s, now, OUTSIDER),
                    ))  # fmt: skip
            if right.terms is None or right.role is not Role.CLIENT:
                continue
            session = self._session(right.terms)
            if session is None or self.weak is Weakness.NO_REVEAL_FOR_POSTED_CLIENTS:
                continue
            if session.stored > self.book.claims(right.terms)[0]:
                latest = max(channel.posted_at, session.stored_at) + MARGIN
                if self.clock <= channel.deadline:
                    found.append(Duty(
                        min(latest, channel.deadline), "I reveals for a posted client leg",
                        lambda now, s=session: self._reveal(s.terms, s.stored, now, "watcher"),
                        lambda now, s=session: self._reveal(s.terms, s.stored - 1, now, OUTSIDER),
                    ))  # fmt: skip
        return found

    def _duties_of_user(self, wallet: Wallet) -> list[Duty]:
        channel = self.book.channels[wallet.cid]
        if channel.state is not State.REQUESTED or self.weak is Weakness.SILENT_ON_REQUEST:
            return []
        if self.clock >= channel.deadline:
            return []
        if not self.w.honest(wallet.owner):
            # What the coalition leaves to the intermediary would hide what it takes.
            right = self._best_claim(wallet)
            if self.greedy < 2 or right is None:
                return []
            return [
                Duty(channel.deadline, "coalition answers a request to close",
                     lambda now: self._post(right, now, wallet.owner, self._best_k(right)))
            ]  # fmt: skip
        return [
            Duty(channel.deadline, "E answers a request to close",
                 lambda now: self._exit(wallet, now),
                 lambda now: self._copy_exit(wallet, now))
        ]  # fmt: skip

    def _duties_of_relay(self, s: Session) -> list[Duty]:
        if s.relay is None or not self.w.honest(s.relay.owner) or s.relay_refund is not None:
            return []
        channel = self.book.channels[s.relay.cid]
        if s.received <= self.book.claims(s.terms)[1] or channel.state is State.RESOLVED:
            return []
        latest = s.terms.t_exp
        if self.weak is Weakness.LATE_REVEAL:
            latest += MARGIN
        if channel.state is State.CLOSING:
            latest = min(latest, channel.deadline)
        if self.clock >= latest:
            return []
        return [
            Duty(latest, "R reveals",
                 lambda now: self._reveal(s.terms, s.received, now, "watcher"),
                 lambda now: self._reveal(s.terms, s.received - 1, now, OUTSIDER))
        ]  # fmt: skip

    def _duties_of_guard(self) -> list[Duty]:
        found: list[Duty] = []
        for link in self.w.links.values():
            guard = self.book.guards[link.gid]
            if link.accepted_total <= guard.claimed or guard.state is State.RESOLVED:
                continue
            latest = guard.deadline if guard.state is State.CLOSING else link.expiry
            if self.clock < latest:
                found.append(Duty(
                    latest, "guard claims",
                    lambda now, x=link: self._claim_guard(x, x.accepted, now, "watcher"),
                ))  # fmt: skip
        return found

    # --- What the coalition has ------------------------------------------------------------------

    def _rights(self) -> list[Right]:
        """Whatever the coalition was ever given, and whatever it can sign itself."""
        found = [
            right
            for wallet in self.w.wallets.values()
            if not self.w.honest(wallet.owner)
            for right in wallet.rights
            if right.kind is not Kind.CONDITIONAL or lock_of(right.payer_secret) in self.w.leaked
        ]
        return [r for r in found if self.book.channels[r.cid].state is not State.RESOLVED]

    def _unrevoked(self, rights: list[Right]) -> list[Right]:
        """Those that an honest intermediary cannot refute."""
        if not self.w.strict:
            return rights
        return [right for right in rights if right.lock not in self.w.revoked]

    def _k_choices(self, right: Right) -> list[int]:
        if right.terms is None:
            return [0, 0, 0, 0]
        session = self._session(right.terms)
        known = self.book.claims(right.terms)[0]
        if session is not None:
            known = max(known, self.w.known_to_coalition(session))
        return [0, known, known // 2, max(0, known - 1)]

    def _best_claim(self, wallet: Wallet) -> Right | None:
        rights = [right for right in self._rights() if right.cid == wallet.cid]
        if self.greedy > 1:
            rights = self._unrevoked(rights)
        return max(rights, key=self._worth, default=None)

    def _best_k(self, right: Right) -> int:
        return self._k_choices(right)[1] if right.role is Role.RELAY else 0

    def _worth(self, right: Right) -> int:
        if right.kind is Kind.CONDITIONAL and self.clock >= right.t_p:
            return -1
        if right.terms is None:
            return right.balance
        t, (k_c, k_r) = right.terms, self.book.claims(right.terms)
        if right.role is Role.CLIENT:
            return right.balance + t.price * (t.n - k_c)
        k = self._best_k(right) if self.clock < t.t_exp else k_r
        return right.balance - t.delta_r * (t.n - k)

    # --- Pieces of calls -----------------------------------------------------------------------

    def _session(self, terms: NanoTerms) -> Session | None:
        for session in self.w.sessions:
            if session.terms == terms:
                return session
        return None

    def _chain(self, terms: NanoTerms) -> PaymentChain:
        session = self._session(terms)
        assert session is not None
        return session.chain

    def _signature(self, right: Right) -> bytes:
        """The intermediary's token, made when it is first needed."""
        if right not in self.signed:
            if right.kind is Kind.REFUND:
                token = self.stage.refund_token(right.role, right.cid, right.lock, right.balance)
            else:
                tag = statements.tag(
                    TokenKind.CONDITIONAL_REFUND, right.role, self.stage.ctx,
                    lock_of(right.payer_secret), right.t_p,
                )  # fmt: skip
                token = self.stage.issuer.sign(tag, right.cid, right.lock, right.balance)
            self.signed[right] = token
        return self.signed[right]

    def _claim(
        self, right: Right, k: int, auth: tuple[int, bytes] | bool, proven: bool = True
    ) -> tuple[str, tuple[Any, ...]]:
        """Name and arguments of the call that posts a right; `auth` True makes a signature of the
        owner's, False leaves it out."""
        owner = self.party(self.book.channels[right.cid].group.account)
        lock = right.lock
        if right.terms is not None:
            chain = self._chain(right.terms)
            proof = chain.proof(k)
            if not proven:
                proof = (k, chain.values[k - 1], proof[2])
            arguments = self.stage.nano_claim(
                right.role, right.cid, right.terms, right.secret, right.balance, k, proof=proof
            )[:-1]
            rho = int.from_bytes(keccak256(right.secret), "big") % GROUP_ORDER
            signed: tuple[Any, ...] = (
                right.cid, right.terms.hash(), lock, right.balance, rho, keccak256(arguments[5])
            )  # fmt: skip
            name = "nano_refund"
        else:
            token = self._signature(right)
            arguments = (right.cid, self.stage.issuer.public_key, lock, right.balance, token)
            signed = (right.cid, lock, right.balance, keccak256(token))
            name = "refund"
            if right.kind is Kind.CONDITIONAL:
                condition = (lock_of(right.payer_secret), right.t_p, right.payer_secret)
                arguments += condition
                signed += condition
                name = "refund_conditional"
        if auth is True:
            auth = self.stage.authorise(owner, name, right.cid, *signed)
        return name, (*arguments, NO_AUTHORISATION if auth is False else auth)

    def _post(
        self, right: Right, now: int, sender: str, k: int = 0, *, relayed: bool = False,
        proven: bool = True, name: str = "",
    ) -> bool:  # fmt: skip
        owner = self.book.channels[right.cid].group.account
        expected = self.book.post(right, now, relayed or sender == owner, k, proven)

        def call() -> Any:
            return getattr(self.ledger, entry)(*self._claim(right, k, relayed, proven)[1])

        entry = ENTRY_OF[Kind.NANO if right.terms is not None else right.kind]
        detail = f"{right.balance} of {_short(right.cid)}, lock {right.lock % 10_000}"
        self._send(entry, call, sender, expected, f"{name or owner}: {detail}")
        if expected and right.kind is Kind.CONDITIONAL:
            self.w.learn(right.payer_secret)
            self.w.leaked[lock_of(right.payer_secret)] = right.payer_secret
        return expected

    def _k_of(self, wallet: Wallet) -> int:
        """Payments that an honest owner proves when it posts its newest right."""
        if wallet.role is Role.CLIENT or wallet.safe.terms is None:
            return 0
        session = self._session(wallet.safe.terms)
        assert session is not None
        return session.received

    def _exit(self, wallet: Wallet, now: int, sender: str = "") -> None:
        """An honest owner posts its newest right, itself or through somebody."""
        wallet.ended = True
        right = wallet.safe
        if self.weak is Weakness.OLD_TOKEN_ON_REQUEST and len(wallet.rights) > 1:
            right = wallet.rights[wallet.rights.index(right) - 1]
        self._post(
            right, now, sender or wallet.owner, self._k_of(wallet) if right is wallet.safe else 0,
            relayed=bool(sender), name=f"{wallet.owner}, honest",
        )  # fmt: skip

    def _copy_exit(self, wallet: Wallet, now: int) -> None:
        """The owner's watcher has sent a signed claim; somebody else's copy of it, with no
        payments proven, comes first."""
        wallet.ended = True
        self._post(wallet.safe, now, OUTSIDER, 0, relayed=True, name=f"{wallet.owner}, copied")

    def _refute(self, channel: Channel, secret: bytes, now: int, sender: str) -> None:
        expected = self.book.refute(channel.cid, secret, now)
        name = f"{channel.group.account}: {_short(channel.cid)}"
        self._send(
            "refute", lambda: self.ledger.refute(channel.cid, secret), sender, expected, name
        )
        if expected:
            self.w.leaked[lock_of(secret)] = secret

    def _reveal(
        self, terms: NanoTerms, k: int, now: int, sender: str, proven: bool = True
    ) -> None:
        expected = self.book.reveal(terms, k, now, proven)
        chain = self._chain(terms)
        proof = chain.proof(k)
        if not proven:
            proof = (k, chain.values[k - 1], proof[2])
        self._send(
            "reveal", lambda: self.ledger.reveal(words(terms), *proof), sender, expected, f"k = {k}"
        )

    def _resolve(self, cid: int, now: int, sender: str = "watcher") -> None:
        expected = self.book.resolve(cid, now)
        name = self.book.channels[cid].group.account
        name = f"{name}: {_short(cid)}"
        self._send("resolve", lambda: self.ledger.resolve(cid), sender, expected, name)

    def _request(self, cid: int, now: int, sender: str) -> None:
        expected = self.book.request_close(cid, now, sender == INTERMEDIARY)
        name = self.book.channels[cid].group.account
        self._send("request_close", lambda: self.ledger.request_close(cid), sender, expected, name)

    def _close(
        self, statement: CloseStatement, now: int, sender: str, *, relayed: bool, signed: bool
    ) -> None:
        group = self.book.groups[statement.group]
        numbers = (statement.group, statement.channels, statement.total)

        def call() -> Any:
            signature = self.stage.close_signature(*numbers)
            if not signed:
                signature = self.party("stranger").sign(keccak256(b"no such statement"))
            auth = NO_AUTHORISATION
            if relayed:
                auth = self.stage.authorise(
                    self.party(group.account), "close", statement.group, *numbers,
                    keccak256(signature),
                )  # fmt: skip
            return self.ledger.close(*numbers, signature, auth)

        consent = relayed or sender == group.account
        if consent:
            for wallet in self.w.wallets.values():
                if wallet.group == group.id and statement.channels >> (wallet.cid & 255) & 1:
                    wallet.ended = True
        expected = self.book.close(statement, consent, signed)
        self._send("close", call, sender, expected, group.account)

    def _new_voucher(self, gid: int) -> None:
        """The client signs a voucher on a new chain; what it sent before is its base."""
        guard, old = self.book.guards[gid], self.w.links.get(gid)
        base = 0 if old is None else old.base + old.sent * guard.price
        total = 0 if old is None else old.accepted_total
        self.w.links[gid] = GuardLink(
            gid, guard.client, PaymentChain(32, self.w.secret()),
            1 if old is None else old.seq + 1, base, self.clock + 200,
            accepted_total=total,
        )  # fmt: skip

    def _claim_guard(
        self, link: GuardLink, k: int, now: int, sender: str, *, signed: bool = True
    ) -> None:
        def call() -> Any:
            fields = (
                self.gids[link.gid], link.seq, link.base, 32, link.chain.hc0, link.chain.root,
                link.expiry,
            )  # fmt: skip
            signer = self.party(link.client if signed else "watcher")
            signature = signer.sign(self.stage.digest(statements.voucher_struct(*fields)))
            return self.ledger.claim_guard(*fields, *link.chain.proof(k), signature)

        expected = self.book.claim_guard(link.gid, link.base, k, link.expiry, now, signed)
        self._send("claim_guard", call, sender, expected, f"k = {k}")
