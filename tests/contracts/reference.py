# SPDX-License-Identifier: BSD-3-Clause
"""The ledger's rules in plain Python, written from the protocol and not from the contract.

`Model` answers for every call whether the ledger takes it, and keeps the books. It knows nothing
of storage layouts, signatures or tokens: who signed what is the caller's business.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction
from math import floor

from monetor_chain.parameters import NetworkParameters
from monetor_chain.statements import NanoTerms, Role


class State(Enum):
    OPEN = "open"
    REQUESTED = "requested"
    CLOSING = "closing"
    RESOLVED = "resolved"


@dataclass
class Channel:
    state: State = State.OPEN
    deadline: int = 0
    secret: bytes | None = None
    balance: int = 0
    terms: NanoTerms | None = None
    bond: int = 0


@dataclass
class Group:
    role: Role
    deposit: int
    fund: int
    channels: list[Channel]
    funded: bool = False
    reclaimed: bool = False

    @property
    def escrow(self) -> int:
        return self.deposit + self.fund


@dataclass
class Model:
    """Books of one intermediary, a client and a relay (both known by their role)."""

    parameters: NetworkParameters
    rate: Fraction
    vault: int
    credit: dict[Role, int] = field(default_factory=lambda: dict.fromkeys(Role, 0))
    pool: int = 0
    groups: list[Group] = field(default_factory=list)
    proofs: dict[NanoTerms, tuple[int, int]] = field(default_factory=dict)

    def held(self) -> int:
        """What the ledger must hold: every unit is exactly one of these."""
        total = self.vault + self.pool + sum(self.credit.values())
        for group in self.groups:
            if group.reclaimed:
                continue
            for channel in group.channels:
                if channel.state is not State.RESOLVED:
                    total += group.escrow if group.funded else group.deposit
                if channel.state is State.REQUESTED:
                    total += channel.bond
        return total

    def open(self, role: Role, deposit: int, fund: int, count: int) -> bool:
        if not 1 <= count <= 256 or deposit + fund == 0:
            return False
        self.groups.append(Group(role, deposit, fund, [Channel() for _ in range(count)]))
        return True

    def fund(self, group: Group) -> bool:
        total = group.fund * len(group.channels)
        if group.funded or group.reclaimed or total > self.vault:
            return False
        self.vault -= total
        group.funded = True
        return True

    def reclaim(self, group: Group) -> bool:
        if group.funded or group.reclaimed:
            return False
        group.reclaimed = True
        self.credit[group.role] += group.deposit * len(group.channels)
        return True

    def _claimable(self, group: Group, channel: Channel, now: int) -> bool:
        in_time = channel.state is State.REQUESTED and now <= channel.deadline
        return group.funded and (channel.state is State.OPEN or in_time)

    def _post(self, group: Group, channel: Channel, deadline: int, secret: bytes) -> None:
        if channel.state is State.REQUESTED:
            self.credit[group.role] += channel.bond
        channel.state, channel.deadline, channel.secret = State.CLOSING, deadline, secret

    def refund(self, group: Group, channel: Channel, balance: int, secret: bytes, now: int) -> bool:
        if not self._claimable(group, channel, now):
            return False
        self._post(group, channel, now + self.parameters.dispute_window, secret)
        channel.balance = balance
        return True

    def nano_refund(
        self,
        group: Group,
        channel: Channel,
        terms: NanoTerms,
        b_full: int,
        k: int,
        secret: bytes,
        now: int,
    ) -> bool:
        if channel.state is State.CLOSING and channel.terms == terms:
            # The same session again: only the proof counts.
            return self.reveal(terms, k, now)
        if not self._claimable(group, channel, now):
            return False
        self.reveal(terms, k, now)
        start = max(now, terms.t_exp) if group.role is Role.CLIENT else now
        self._post(group, channel, start + self.parameters.dispute_window, secret)
        channel.balance, channel.terms = b_full, terms
        return True

    def reveal(self, terms: NanoTerms, k: int, now: int) -> bool:
        k_c, k_r = self.proofs.get(terms, (0, 0))
        self.proofs[terms] = (max(k_c, k), max(k_r, k) if now <= terms.t_exp else k_r)
        return True

    def request_close(self, group: Group, channel: Channel, now: int) -> bool:
        bond = self.parameters.close_bond
        if not group.funded or channel.state is not State.OPEN or bond > self.vault:
            return False
        self.vault -= bond
        channel.state, channel.bond = State.REQUESTED, bond
        channel.deadline = now + self.parameters.close_notice
        return True

    def refute(self, group: Group, channel: Channel, secret: bytes, now: int) -> bool:
        if channel.state is not State.CLOSING or now > channel.deadline:
            return False
        if secret != channel.secret:
            return False
        channel.state = State.RESOLVED
        self.vault += group.escrow
        return True

    def resolve(self, group: Group, channel: Channel, now: int) -> bool:
        if channel.state not in (State.CLOSING, State.REQUESTED) or now <= channel.deadline:
            return False
        if channel.state is State.REQUESTED:
            self.vault += group.escrow + channel.bond
        else:
            self._divide(group, 1, self._owed(group, channel))
        channel.state = State.RESOLVED
        return True

    def _owed(self, group: Group, channel: Channel) -> int:
        if channel.terms is None:
            return channel.balance
        k_c, k_r = self.proofs[channel.terms]
        terms = channel.terms
        if group.role is Role.CLIENT:
            return channel.balance + terms.price * (terms.n - k_c)
        return max(0, channel.balance - terms.delta_r * (terms.n - k_r))

    def _cap(self, group: Group, count: int) -> int:
        room = count * group.fund
        if group.role is Role.RELAY:
            room = floor(room / (1 + self.rate))
        return count * group.deposit + room

    def _divide(self, group: Group, count: int, owed: int) -> None:
        paid = min(owed, self._cap(group, count))
        tax = 0
        if group.role is Role.RELAY:
            tax = floor(max(0, paid - count * group.deposit) * self.rate)
        self.credit[group.role] += paid
        self.pool += tax
        self.vault += count * group.escrow - paid - tax

    def close(self, group: Group, channels: int, total: int) -> bool:
        if not group.funded or channels == 0 or channels >> len(group.channels):
            return False
        covered = [c for i, c in enumerate(group.channels) if channels >> i & 1]
        if any(channel.state is State.RESOLVED for channel in covered):
            return False
        if total > self._cap(group, len(covered)):
            return False
        for channel in covered:
            if channel.state is State.REQUESTED:
                self.vault += channel.bond
            channel.state = State.RESOLVED
        self._divide(group, len(covered), total)
        return True
