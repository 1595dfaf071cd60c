# SPDX-License-Identifier: BSD-3-Clause
"""A book of everything that the ledger holds, kept by the rules of the ledger's documentation.

Each method says whether the ledger must take a call in a block of time `now`, and books it. Many
accounts, one intermediary; `reference.py` is its smaller relative, with one account per role.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum

from monetor_chain.parameters import NetworkParameters
from monetor_chain.statements import NanoTerms, Role, lock_of

BASIS = 10_000


class Kind(Enum):
    """What closes a channel."""

    REFUND = 2
    CONDITIONAL = 3
    NANO = 4


@dataclass(eq=False)
class Right:
    """Something that its holder can close a channel with.

    `balance` is B, or B_full of a session; `fees` what the intermediary has earned with the
    relay by then, before the session at hand.
    """

    kind: Kind
    role: Role
    cid: int
    secret: bytes
    balance: int
    terms: NanoTerms | None = None
    payer_secret: bytes = b""
    t_p: int = 0
    fees: int = 0

    @property
    def lock(self) -> int:
        return lock_of(self.secret)


@dataclass(eq=False)
class CloseStatement:
    """The intermediary's part of a cooperative close."""

    group: int
    channels: int
    total: int
    fees: int


class State(Enum):
    HALF_OPEN = "half-open"
    OPEN = "open"
    REQUESTED = "requested"
    CLOSING = "closing"
    RESOLVED = "resolved"


@dataclass(eq=False)
class Channel:
    cid: int
    group: Group
    state: State = State.HALF_OPEN
    deadline: int = 0
    bond: int = 0
    posted: Right | None = None
    posted_at: int = 0


@dataclass(eq=False)
class Group:
    id: int
    account: str
    role: Role
    deposit: int
    fund: int
    window: int
    notice: int
    channels: list[Channel] = field(default_factory=list)

    @property
    def escrow(self) -> int:
        return self.deposit + self.fund

    @property
    def half_open(self) -> bool:
        return all(channel.state is State.HALF_OPEN for channel in self.channels)


@dataclass(eq=False)
class GuardChannel:
    id: int
    client: str
    payout: str
    deposit: int
    price: int
    window: int
    claimed: int = 0
    state: State = State.OPEN
    deadline: int = 0


class Book:
    """The ledger's and the consensus contract's books; accounts go by their names."""

    def __init__(self, initial: NetworkParameters, rate: int, vault: int, tax_pool: str) -> None:
        self.rate, self.vault, self.tax_pool = rate, vault, tax_pool
        self.credit: Counter[str] = Counter()
        self.hand: Counter[str] = Counter()
        """Tokens outside the ledger, less those of the beginning."""
        self.groups: dict[int, Group] = {}
        self.channels: dict[int, Channel] = {}
        self.guards: dict[int, GuardChannel] = {}
        self.proofs: dict[bytes, tuple[int, int]] = {}
        self.locks: set[int] = set()
        self.fees = 0
        self.bonds_lost = 0
        self._sets: dict[int, NetworkParameters] = {0: initial}

    # --- What holds when -----------------------------------------------------------------------

    def parameters(self, epoch: int) -> NetworkParameters:
        """The set in force in an epoch."""
        return self._sets[max(since for since in self._sets if since <= epoch)]

    def parameters_at(self, now: int) -> NetworkParameters:
        return self.parameters(now // self._sets[0].epoch)

    def agree(self, epoch: int, parameters: NetworkParameters) -> None:
        self._sets[epoch] = parameters

    def claims(self, terms: NanoTerms) -> tuple[int, int]:
        """(k_C, k_R)"""
        return self.proofs.get(terms.hash(), (0, 0))

    def shortest_window(self) -> int:
        """Of all channels that hold money."""
        return min(
            (c.group.window for c in self.channels.values() if c.state is not State.RESOLVED),
            default=0,
        )

    def held(self) -> int:
        """What the ledger must hold: every unit is exactly one of these."""
        total = self.vault + sum(self.credit.values())
        for channel in self.channels.values():
            if channel.state is State.HALF_OPEN:
                total += channel.group.deposit
            elif channel.state is not State.RESOLVED:
                total += channel.group.escrow
            if channel.state is State.REQUESTED:
                total += channel.bond
        for guard in self.guards.values():
            if guard.state is not State.RESOLVED:
                total += guard.deposit - guard.claimed
        return total

    # --- Groups --------------------------------------------------------------------------------

    def open(
        self, group_id: int, account: str, role: Role, deposit: int, fund: int, count: int, now: int
    ) -> Group:
        terms = self.parameters_at(now)
        group = Group(
            group_id, account, role, deposit, fund, terms.dispute_window, terms.close_notice
        )
        group.channels = [Channel(group_id << 8 | i, group) for i in range(count)]
        self.groups[group_id] = group
        self.channels.update({channel.cid: channel for channel in group.channels})
        return group

    def fund(self, group: Group, by_intermediary: bool) -> bool:
        total = group.fund * len(group.channels)
        if not by_intermediary or not group.half_open or total > self.vault:
            return False
        self.vault -= total
        for channel in group.channels:
            channel.state = State.OPEN
        return True

    def reclaim(self, group: Group, consent: bool) -> bool:
        if not consent or not group.half_open:
            return False
        for channel in group.channels:
            channel.state = State.RESOLVED
        self.credit[group.account] += group.deposit * len(group.channels)
        return True

    # --- Claims --------------------------------------------------------------------------------

    def post(self, right: Right, now: int, consent: bool, k: int = 0, proven: bool = True) -> bool:
        channel = self.channels[right.cid]
        posted = channel.posted
        if right.terms is not None and posted is not None and posted.terms == right.terms:
            # The same session again: only the proof counts.
            return channel.state is State.CLOSING and self._record(right.terms, k, now, proven)
        in_time = channel.state is State.REQUESTED and now <= channel.deadline
        if not consent or not (channel.state is State.OPEN or in_time):
            return False
        start = now
        if right.kind is Kind.CONDITIONAL and now > right.t_p:
            return False
        if right.terms is not None:
            if not self._record(right.terms, k, now, proven):
                return False
            if right.role is Role.CLIENT:
                start = max(now, right.terms.t_exp)
        if channel.state is State.REQUESTED:
            self.credit[channel.group.account] += channel.bond
            self.bonds_lost += channel.bond
        channel.state, channel.posted, channel.posted_at = State.CLOSING, right, now
        channel.deadline = start + channel.group.window
        self.locks.add(right.lock)
        return True

    def reveal(self, terms: NanoTerms, k: int, now: int, proven: bool = True) -> bool:
        return k == 0 or self._record(terms, k, now, proven)

    def _record(self, terms: NanoTerms, k: int, now: int, proven: bool) -> bool:
        k_c, k_r = self.claims(terms)
        if k > k_c:
            if not proven:
                return False
            self.proofs[terms.hash()] = (k, k if now <= terms.t_exp else k_r)
        return True

    def request_close(self, cid: int, now: int, by_intermediary: bool) -> bool:
        channel, bond = self.channels[cid], self.parameters_at(now).close_bond
        if not by_intermediary or channel.state is not State.OPEN or bond > self.vault:
            return False
        self.vault -= bond
        channel.state, channel.bond = State.REQUESTED, bond
        channel.deadline = now + channel.group.notice
        return True

    def refute(self, cid: int, secret: bytes, now: int) -> bool:
        channel = self.channels[cid]
        if channel.state is not State.CLOSING or now > channel.deadline:
            return False
        assert channel.posted is not None
        if lock_of(secret) != channel.posted.lock:
            return False
        channel.state = State.RESOLVED
        self.vault += channel.group.escrow
        return True

    def resolve(self, cid: int, now: int) -> bool:
        channel = self.channels[cid]
        if channel.state not in (State.CLOSING, State.REQUESTED) or now <= channel.deadline:
            return False
        if channel.state is State.REQUESTED:
            self.vault += channel.group.escrow + channel.bond
        else:
            assert channel.posted is not None
            self._divide(channel.group, 1, self._owed(channel.posted))
            self.fees += self._earned(channel.posted)
        channel.state = State.RESOLVED
        return True

    def _owed(self, right: Right) -> int:
        if right.terms is None:
            return right.balance
        k_c, k_r = self.claims(right.terms)
        if right.role is Role.CLIENT:
            return right.balance + right.terms.price * (right.terms.n - k_c)
        return max(0, right.balance - right.terms.delta_r * (right.terms.n - k_r))

    def _earned(self, right: Right) -> int:
        """The intermediary's fees for the payments that the relay is paid with this right."""
        if right.terms is None or right.role is Role.CLIENT:
            return right.fees
        return right.fees + self.claims(right.terms)[1] * fee_of(right.terms, self.rate)

    def close(self, statement: CloseStatement, consent: bool, signed: bool) -> bool:
        group = self.groups[statement.group]
        if not consent or not signed or group.half_open or statement.channels == 0:
            return False
        if statement.channels >> len(group.channels):
            return False
        covered = [c for i, c in enumerate(group.channels) if statement.channels >> i & 1]
        if any(channel.state is State.RESOLVED for channel in covered):
            return False
        if statement.total > self._cap(group, len(covered)):
            return False
        for channel in covered:
            if channel.state is State.REQUESTED:
                self.vault += channel.bond
            channel.state = State.RESOLVED
        self._divide(group, len(covered), statement.total)
        self.fees += statement.fees
        return True

    def _cap(self, group: Group, count: int) -> int:
        room = count * group.fund
        if group.role is Role.RELAY:
            room = room * BASIS // (BASIS + self.rate)
        return count * group.deposit + room

    def _divide(self, group: Group, count: int, owed: int) -> None:
        paid = min(owed, self._cap(group, count))
        tax = 0
        if group.role is Role.RELAY:
            tax = max(0, paid - count * group.deposit) * self.rate // BASIS
        self.credit[group.account] += paid
        self.credit[self.tax_pool] += tax
        self.vault += count * group.escrow - paid - tax

    # --- Guard channels ------------------------------------------------------------------------

    def open_guard(self, gid: int, client: str, payout: str, deposit: int, now: int) -> None:
        terms = self.parameters_at(now)
        self.guards[gid] = GuardChannel(
            gid, client, payout, deposit, terms.price, terms.dispute_window
        )

    def claim_guard(
        self, gid: int, base: int, k: int, expiry: int, now: int, valid: bool
    ) -> bool:
        guard = self.guards[gid]
        last = {State.OPEN: expiry, State.CLOSING: guard.deadline}.get(guard.state, 0)
        claimed = base + k * guard.price
        if now > last or not valid or claimed > guard.deposit:
            return False
        if claimed > guard.claimed:
            share = guard_share(claimed, self.rate) - guard_share(guard.claimed, self.rate)
            self.credit[guard.payout] += share
            self.credit[self.tax_pool] += claimed - guard.claimed - share
            guard.claimed = claimed
        return True

    def request_close_guard(self, gid: int, sender: str, now: int) -> bool:
        guard = self.guards[gid]
        if sender != guard.client or guard.state is not State.OPEN:
            return False
        guard.state, guard.deadline = State.CLOSING, now + guard.window
        return True

    def close_guard(self, gid: int, now: int) -> bool:
        guard = self.guards[gid]
        if guard.state is not State.CLOSING or now <= guard.deadline:
            return False
        guard.state = State.RESOLVED
        self.credit[guard.client] += guard.deposit - guard.claimed
        return True


def fee_of(terms: NanoTerms, rate: int) -> int:
    """The intermediary's fee per payment: what the relay and its tax, rounded up, leave."""
    return terms.price - terms.delta_r - -(-terms.delta_r * rate // BASIS)


def guard_share(amount: int, rate: int) -> int:
    """What a guard keeps of `amount`."""
    return amount * BASIS // (BASIS + rate)
