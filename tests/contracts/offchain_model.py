# SPDX-License-Identifier: BSD-3-Clause
"""Who holds which token, secret, statement and preimage: the payments off the ledger, in clear.

The messages of the payment protocol with the checks of their receivers, but without its
cryptography: blind signatures, commitments and proofs are taken to do what they are for, so a
right that somebody holds is simply an entry in a list. What is modelled is order, time and the
ledger's part in both. A party of the coalition keeps no rule; it can stop anywhere, and whatever
it was ever given it may post.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from monetor_chain.rehearsal import PaymentChain
from monetor_chain.statements import NanoTerms, Role, lock_of

from .ledger_book import Book, CloseStatement, Kind, Right, State, fee_of, guard_share
from .offchain_records import (
    INTERMEDIARY,
    GuardLink,
    Leg,
    Payment,
    Session,
    Stage,
    Wallet,
    Weakness,
)

Move = tuple[str, Callable[[], None]]
"""A message with its answer, and its name."""


class OffChain:
    """All wallets, sessions and payments of a run, and the messages that may come next."""

    def __init__(self, book: Book, corrupt: frozenset[str], margin: int, weak: Weakness | None):
        self.book, self.corrupt, self.margin, self.weak = book, corrupt, margin, weak
        self.clock = 0
        self.wallets: dict[int, Wallet] = {}
        self.sessions: list[Session] = []
        self.payments: list[Payment] = []
        self.links: dict[int, GuardLink] = {}
        self.closes: list[CloseStatement] = []
        self.revoked: dict[int, tuple[bytes, int]] = {}
        """What an honest intermediary knows: lock to secret and when it learnt it."""
        self.leaked: dict[int, bytes] = {}
        """The same for the coalition."""
        self.spent: dict[str, int] = {}
        self._random = random.Random(11)

    def secret(self) -> bytes:
        return self._random.randbytes(32)

    def honest(self, name: str) -> bool:
        return name not in self.corrupt

    @property
    def strict(self) -> bool:
        """Whether the intermediary keeps the rules."""
        return INTERMEDIARY not in self.corrupt

    def is_weak(self, weakness: Weakness) -> bool:
        return self.weak is weakness

    # --- Wallets -------------------------------------------------------------------------------

    def right(self, wallet: Wallet, kind: Kind, balance: int, fees: int = 0) -> Right:
        """Something newly given to the wallet's owner."""
        right = Right(kind, wallet.role, wallet.cid, self.secret(), balance, fees=fees)
        wallet.rights.append(right)
        if not self.honest(wallet.owner):
            self.leaked[right.lock] = right.secret
        return right

    def add_group(self, group_id: int) -> None:
        """Establish: every channel of a new group has a wallet with its first refund token."""
        group = self.book.groups[group_id]
        for channel in group.channels:
            first = Right(Kind.REFUND, group.role, channel.cid, self.secret(), group.deposit)
            wallet = Wallet(
                channel.cid, group_id, group.account, group.role, group.deposit,
                self.book._cap(group, 1), first, [first],
            )  # fmt: skip
            if not self.honest(wallet.owner):
                self.leaked[first.lock] = first.secret
            wallet.spendable = self.is_weak(Weakness.TOKEN_BEFORE_FUNDS)
            self.wallets[channel.cid] = wallet

    def on_funded(self, group_id: int) -> None:
        """The intermediary gives the payment tokens of a group that it has funded."""
        for channel in self.book.groups[group_id].channels:
            self.wallets[channel.cid].spendable = True

    def is_open(self, wallet: Wallet) -> bool:
        return self.book.channels[wallet.cid].state is State.OPEN

    def _willing(self, wallet: Wallet, *, begins: bool = False) -> bool:
        """Whether the owner says anything (more) about this channel."""
        if not self.honest(wallet.owner):
            return True
        return not wallet.ended and (self.is_open(wallet) if begins else True)

    def _idle(self, role: Role) -> Iterator[Wallet]:
        for wallet in self.wallets.values():
            if wallet.role is role and wallet.spendable and self._willing(wallet, begins=True):
                yield wallet

    # --- What the intermediary learns --------------------------------------------------------

    def learn(self, secret: bytes) -> None:
        """The intermediary gets a secret."""
        lock = lock_of(secret)
        self.revoked.setdefault(lock, (secret, self.clock))
        if not self.strict:
            self.leaked[lock] = secret

    def _take(self, secret: bytes, *, blind: bool = False) -> bool:
        """The intermediary is given a wallet's secret; whether it goes on.

        A lock that is posted is refuted by its watcher and answered by silence.
        """
        if not self.strict:
            self.learn(secret)
            return True
        posted = lock_of(secret) in self.book.locks
        if posted and blind:
            return True
        if lock_of(secret) in self.revoked and not posted:
            return False
        self.learn(secret)
        return not posted

    def _free(self, right: Right) -> bool:
        """Neither revoked nor posted, as far as an honest intermediary knows."""
        return right.lock not in self.book.locks and right.lock not in self.revoked

    # --- Nano-Setup ------------------------------------------------------------------------------

    def current_terms(self, previous: bool = False) -> tuple[NanoTerms, PaymentChain]:
        """The network's terms now, or the last epoch's while that is allowed, on a new chain."""
        length = self.book.parameters_at(self.clock).epoch
        epoch = self.clock // length
        if previous and self.clock % length < self.margin:
            epoch -= 1
        values = self.book.parameters(epoch)
        chain = PaymentChain(values.n, self.secret())
        expiry = values.t_exp(epoch * length)
        return (
            NanoTerms(
                -values.price, values.delta_r, values.n, chain.hc0, expiry, chain.root, epoch
            ),
            chain,
        )

    def setups(self, previous: bool) -> list[Move]:
        """C asks for a session with an idle wallet (Nano-Setup)."""

        def begin(wallet: Wallet) -> None:
            terms, chain = self.current_terms(previous)
            if wallet.balance < terms.n * terms.price:
                return
            right = self.right(wallet, Kind.NANO, wallet.balance - terms.n * terms.price)
            right.terms = terms
            session = Session(terms, chain, wallet, right, old_secret_c=wallet.safe.secret)
            wallet.spendable = False
            self.sessions.append(session)

        return [
            (f"setup by {wallet}", lambda wallet=wallet: begin(wallet))
            for wallet in self._idle(Role.CLIENT)
        ]

    def _bind_client(self, s: Session) -> None:
        s.client_bound = True
        s.client.safe = s.client_right
        blind = self.is_weak(Weakness.POSTED_LOCK_AT_SETUP)
        if self._take(s.old_secret_c, blind=blind) and s.stage is Stage.SETTING_UP:
            s.stage = Stage.SETUP

    # --- Nano-Establish --------------------------------------------------------------------------

    def _may_establish(self, s: Session, wallet: Wallet) -> bool:
        if s.relay is not None:
            return False
        t, now = s.terms, self.clock
        if self.honest(wallet.owner) and (
            now >= t.t_exp - 2 * self.margin or wallet.balance + t.n * t.delta_r > wallet.room
        ):
            return False
        if not self.strict:
            return True
        states = {Stage.SETUP}
        if self.is_weak(Weakness.ESTABLISH_AFTER_CLOSE):
            states.add(Stage.VOID)
        return s.stage in states and now < t.t_exp - self.margin

    def _establish(self, s: Session, wallet: Wallet) -> None:
        right = self.right(
            wallet, Kind.NANO, wallet.balance + s.terms.n * s.terms.delta_r, wallet.safe.fees
        )
        right.terms = s.terms
        s.relay, s.relay_right, s.old_secret_r = wallet, right, wallet.safe.secret
        wallet.spendable = False
        if not self.is_weak(Weakness.NOT_ESTABLISHING):
            s.stage = Stage.ESTABLISHING

    def _bind_relay(self, s: Session) -> None:
        assert s.relay is not None and s.relay_right is not None
        s.relay_bound = True
        s.relay.safe = s.relay_right
        if self._take(s.old_secret_r):
            s.established = s.acked = True
            if s.stage in (Stage.SETUP, Stage.ESTABLISHING):
                s.stage = Stage.ESTABLISHED

    # --- Nano-Pay --------------------------------------------------------------------------------

    def payable(self) -> list[Session]:
        """Sessions in which the client would send a payment."""
        return [
            s
            for s in self.sessions
            if s.sent < s.terms.n
            and s.acked
            and (
                not self.honest(s.client.owner)
                or (not s.client.ended and s.client_bound and s.client_refund is None
                    and self.clock < s.terms.t_exp - 2 * self.margin)
            )
        ]  # fmt: skip

    def pay(self, s: Session, count: int) -> None:
        """C reveals the next preimages to R."""
        s.sent = min(s.terms.n, s.sent + count)
        assert s.relay is not None or s.acked
        relay = s.relay
        if relay is None or not self.honest(relay.owner):
            return
        in_time = self.clock < s.terms.t_exp - 2 * self.margin
        if s.established and in_time and not relay.ended and not s.relay_asked:
            s.received = s.sent

    def known_to_coalition(self, s: Session) -> int:
        """The most payments that the coalition can prove."""
        known = self.book.claims(s.terms)[0]
        if not self.honest(s.client.owner):
            return s.terms.n
        if s.relay is None or not self.honest(s.relay.owner):
            return max(known, s.sent)
        return max(known, s.stored) if not self.strict else known

    # --- Nano-Close ------------------------------------------------------------------------------

    def _may_close_relay(self, s: Session, k: int) -> bool:
        if s.relay is None or s.relay_refund is not None:
            return False
        if not self.strict:
            return True
        if s.stage is not Stage.ESTABLISHED:
            return False
        if self.clock < s.terms.t_exp - self.margin or self.is_weak(Weakness.LATE_RELAY_CLOSE):
            return True
        return k == max(s.stored, self.book.claims(s.terms)[1])

    def _close_relay(self, s: Session, k: int) -> None:
        assert s.relay is not None and s.relay_right is not None
        unpaid = s.terms.delta_r * (s.terms.n - k)
        fees = s.relay_right.fees + k * fee_of(s.terms, self.book.rate)
        s.relay_asked = True
        if k > s.stored:
            s.stored, s.stored_at = k, self.clock
        s.relay_refund = self.right(s.relay, Kind.REFUND, s.relay_right.balance - unpaid, fees)
        if s.relay_bound and not s.relay.ended:
            s.relay.safe = s.relay_refund
        if s.stage is Stage.ESTABLISHED:
            s.stage = Stage.RELAY_CLOSING

    def _finish_relay(self, s: Session) -> None:
        assert s.relay is not None and s.relay_right is not None and s.relay_refund is not None
        s.relay.safe = s.relay_refund
        if self._take(s.relay_right.secret):
            s.stage = Stage.RELAY_CLOSED
            s.relay.spendable = True

    def _may_close_client(self, s: Session) -> bool:
        if s.leg is not Leg.OPEN:
            return False
        if not self.strict:
            return True
        if s.stage is Stage.SETTING_UP and not self.is_weak(Weakness.CLOSE_FROM_SETTING_UP):
            return False
        if s.client_right.lock in self.book.locks:
            return False
        relay_done = s.stage is Stage.RELAY_CLOSED or (
            s.stage is Stage.RELAY_CLOSING and self.is_weak(Weakness.CLOSING_IS_CLOSED)
        )
        if s.relay is not None and s.relay_right is not None:
            channel = self.book.channels[s.relay.cid]
            relay_done |= channel.state is State.RESOLVED and channel.posted is s.relay_right
        unused = s.stage in (Stage.SETTING_UP, Stage.SETUP)
        return relay_done or unused or self.clock > s.terms.t_exp

    def _close_client(self, s: Session) -> None:
        k = max(s.stored, self.book.claims(s.terms)[0])
        if not self.strict:
            k = s.sent
        if self.honest(s.client.owner) and k > s.sent:
            return
        if s.stage in (Stage.SETTING_UP, Stage.SETUP):
            s.stage = Stage.VOID
        s.leg = Leg.CLOSING
        balance = s.client_right.balance + s.terms.price * (s.terms.n - k)
        s.client_refund = self.right(s.client, Kind.REFUND, balance)
        if s.client_bound and not s.client.ended:
            s.client.safe = s.client_refund

    def _double(self, s: Session) -> None:
        assert s.client_refund is not None
        s.doubled = True
        self.right(s.client, Kind.REFUND, s.client_refund.balance)

    def _finish_client(self, s: Session) -> None:
        assert s.client_refund is not None
        s.client.safe = s.client_refund
        if self._take(s.client_right.secret):
            s.leg = Leg.CLOSED
            s.client.spendable = True

    def _session_moves(self, s: Session) -> Iterator[Move]:
        c, r = s.client, s.relay
        if not s.client_bound and self._willing(c) and not c.ended:
            yield "client binds", lambda: self._bind_client(s)
        if r is None and (s.client_bound or not self.honest(c.owner)):
            if not self.honest(c.owner) or not c.ended:
                for wallet in self._idle(Role.RELAY):
                    if self._may_establish(s, wallet):
                        yield "establish", lambda wallet=wallet: self._establish(s, wallet)
            if not s.acked and self.corrupt & {"relay"}:
                yield "false ack", lambda: setattr(s, "acked", True)
        if r is not None and not s.relay_bound and self._willing(r):
            yield "relay binds", lambda: self._bind_relay(s)
        if r is not None and s.relay_bound and self._willing(r):
            for k in {s.received} if self.honest(r.owner) else {0, s.sent, s.terms.n}:
                known = self.honest(r.owner) or k <= self.known_to_coalition(s)
                if known and self._may_close_relay(s, k):
                    yield f"relay closes at {k}", lambda k=k: self._close_relay(s, k)
            unfinished = s.relay_refund is not None and not r.spendable
            if unfinished and r.safe is s.relay_refund and s.stage is not Stage.RELAY_CLOSED:
                yield "relay finishes", lambda: self._finish_relay(s)
        if self._willing(c) and (s.client_bound or not self.honest(c.owner)):
            if self._may_close_client(s):
                yield "client closes", lambda: self._close_client(s)
            if s.leg is Leg.CLOSING:
                yield "client finishes", lambda: self._finish_client(s)
                if self.is_weak(Weakness.TWO_LIVE_LOCKS) and not s.doubled:
                    yield "client asks twice", lambda: self._double(s)

    # --- Pay -------------------------------------------------------------------------------------

    def payments_to_start(self, amount: int) -> list[Move]:
        """Pay 1 and 2 towards the payer, for every pair of idle wallets."""
        idle = list(self._idle(Role.CLIENT))
        fee = self.book.parameters_at(self.clock).pay_fee
        window = self.book.shortest_window()
        if window < 4 * self.margin:
            return []
        t_p = self.clock + window - self.margin
        if self.is_weak(Weakness.LATE_T_P):
            t_p += 4 * self.margin

        def begin(payer: Wallet, payee: Wallet) -> None:
            value = min(amount, payer.balance - fee, payee.room - payee.balance)
            if value < 0:
                return
            old_payer, old_payee = payer.safe, payee.safe
            refund = self.right(payer, Kind.REFUND, payer.balance - fee - value)
            conditional = Right(
                Kind.CONDITIONAL, Role.CLIENT, payee.cid, self.secret(), payee.balance + value,
                payer_secret=old_payer.secret, t_p=t_p,
            )  # fmt: skip
            payer.spendable = payee.spendable = False
            self.payments.append(
                Payment(payer, payee, value, fee, t_p, old_payer, old_payee, refund, conditional)
            )

        blind = self.is_weak(Weakness.POSTED_LOCK_AT_PAY)
        return [
            (f"pay {payer} to {payee}", lambda a=payer, b=payee: begin(a, b))
            for payer in idle
            for payee in idle
            if payer is not payee
            and (not self.strict or blind or (self._free(payer.safe) and self._free(payee.safe)))
        ]

    def _deliver(self, p: Payment) -> None:
        p.delivered = p.verified = True
        p.payee.rights.append(p.conditional)
        if not self.honest(p.payee.owner):
            self.leaked[p.conditional.lock] = p.conditional.secret
        if self.is_weak(Weakness.UNCONDITIONAL):
            p.conditional.kind = Kind.REFUND

    def _tell_payee(self, p: Payment) -> None:
        """Pay 3: the payer's secret goes to the payee."""
        p.revealed = p.told_payee = True
        p.payer.safe = p.payer_refund
        if self.corrupt & {p.payee.owner}:
            self.leaked[p.old_payer.lock] = p.old_payer.secret
        elif p.delivered and self.clock < p.t_p - self.margin and not p.payee.ended:
            p.counted = True
            if p.payee_refund is None:
                p.payee.safe = p.conditional

    def _tell_intermediary(self, p: Payment) -> None:
        """Pay 3 and 5: the payer's secret goes to the intermediary, which gives pt'_C."""
        p.revealed = True
        p.payer.safe = p.payer_refund
        p.finished = True
        if self._accept(p):
            p.payer.spendable = True

    def _accept(self, p: Payment) -> bool:
        if p.accepted:
            return True
        blind = self.is_weak(Weakness.POSTED_LOCK_AT_PAY)
        if self._take(p.old_payer.secret, blind=blind):
            p.accepted = True
        return p.accepted

    def _claim(self, p: Payment) -> None:
        """Pay 4: the payee passes the payer's secret on and gets an unconditional token."""
        if self._accept(p):
            p.payee_refund = self.right(p.payee, Kind.REFUND, p.conditional.balance)
            if not self.is_weak(Weakness.OTHER_LOCK):
                # Both are answers to one request: whoever posts the conditional token posts the
                # new wallet's lock.
                p.payee_refund.secret = p.conditional.secret
            p.payee.safe = p.payee_refund

    def _finish_payee(self, p: Payment) -> None:
        assert p.payee_refund is not None
        p.payee.safe = p.payee_refund
        if self._take(p.old_payee.secret):
            p.payee.spendable = True

    def _cancel(self, p: Payment) -> None:
        """T_p has passed: the payee revokes and gets its old balance back."""
        p.void = True
        p.payee_refund = self.right(p.payee, Kind.REFUND, p.old_payee.balance)
        p.payee.safe = p.payee_refund

    def _payment_moves(self, p: Payment) -> Iterator[Move]:
        c, r, now = p.payer, p.payee, self.clock
        own = c.owner == r.owner
        if not p.delivered and self._willing(r):
            yield "conditional token", lambda: self._deliver(p)
        if not p.verified and not self.honest(r.owner):
            yield "false verification", lambda: setattr(p, "verified", True)
        ready = p.verified or self.is_weak(Weakness.NOT_VERIFIED)
        careful = ready and now < p.t_p - 2 * self.margin and self.is_open(r)
        may_reveal = not self.honest(c.owner) or (
            not c.ended and (p.revealed or (careful and (not r.ended or not own)))
        )
        if may_reveal and not p.told_payee and c.safe in (p.old_payer, p.payer_refund):
            yield "payer reveals to payee", lambda: self._tell_payee(p)
        if may_reveal and not p.finished and (p.told_payee or not self.honest(c.owner)):
            yield "payer reveals to intermediary", lambda: self._tell_intermediary(p)
        if not self._willing(r):
            return
        claims = p.counted or not self.honest(r.owner)
        if claims and p.told_payee and p.delivered and p.payee_refund is None:
            yield "payee claims", lambda: self._claim(p)
        unfinished = p.payee_refund is not None and p.old_payee.lock not in self.revoked
        if unfinished and not r.spendable and r.safe is p.payee_refund:
            yield "payee finishes", lambda: self._finish_payee(p)
        silent = p.old_payer.lock not in self.revoked and p.conditional.lock not in self.book.locks
        if now > p.t_p and p.payee_refund is None and silent and not p.counted:
            yield "void", lambda: self._cancel(p)

    def payee_in_danger(self, p: Payment) -> bool:
        """The payee counted a payment and has no more than the conditional token for it."""
        return p.counted and p.payee_refund is None and not p.payee.ended

    # --- Cash-out --------------------------------------------------------------------------------

    def cash_outs(self) -> list[Move]:
        """The idle wallets of a group are shown in clear for one signature."""

        def sign(group_id: int, wallets: list[Wallet]) -> None:
            for wallet in wallets:
                wallet.spendable = False
            self.closes.append(
                CloseStatement(
                    group_id,
                    sum(1 << (w.cid & 255) for w in wallets),
                    sum(w.balance for w in wallets),
                    sum(w.safe.fees for w in wallets),
                )
            )

        found: list[Move] = []
        for group_id in self.book.groups:
            wallets = [
                w
                for role in Role
                for w in self._idle(role)
                if w.group == group_id and (not self.strict or self._free(w.safe))
            ]
            if wallets:
                found.append(("cash out", lambda g=group_id, ws=wallets: sign(g, ws)))
        return found

    # --- All of it -------------------------------------------------------------------------------

    def moves(self) -> list[Move]:
        """Every message that somebody may send and have answered now, but for beginnings."""
        found: list[Move] = []
        for session in self.sessions:
            found.extend(self._session_moves(session))
        for payment in self.payments:
            found.extend(self._payment_moves(payment))
        return found

    # --- What everybody must have at the end ---------------------------------------------------

    def floor_of(self, owner: str) -> int:
        """The least change of an honest end user's wealth."""
        change = 0
        for s in self.sessions:
            if s.client.owner == owner:
                change -= s.terms.price * s.sent
            if s.relay is not None and s.relay.owner == owner:
                change += s.terms.delta_r * s.received
        for p in self.payments:
            if p.payer.owner == owner and p.revealed:
                change -= p.fee
                if p.payee.owner != owner:
                    change -= p.amount
            elif p.payee.owner == owner and p.counted and p.payer.owner != owner:
                change += p.amount
        for link in self.links.values():
            if link.client == owner:
                change -= link.base + link.sent * self.book.guards[link.gid].price
        return change

    def floor_of_guard(self, payout: str) -> int:
        return sum(
            guard_share(link.accepted_total, self.book.rate)
            for link in self.links.values()
            if self.book.guards[link.gid].payout == payout
        )

    def floor_of_intermediary(self) -> int:
        """Fees of settled payments and of hidden ones, less the bonds of answered requests, which
        pay for the answers' gas."""
        paid = sum(p.fee for p in self.payments if p.accepted)
        return self.book.fees + paid - self.book.bonds_lost
