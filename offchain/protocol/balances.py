# SPDX-License-Identifier: BSD-3-Clause
"""What an end user's channels are worth to it, state by state, in base units."""

from __future__ import annotations

from dataclasses import dataclass

from .establish import GroupPhase, find_group
from .nano_close import client_balance, relay_balance
from .records import Records, Table, load
from .sessions import ClientSession, RelaySession
from .wallet import (
    CashingOut,
    Claiming,
    Closing,
    Establishing,
    Idle,
    InSession,
    Paying,
    Posted,
    Recalled,
    Renewing,
    Settled,
    Spending,
    Stale,
    Voiding,
    Wallet,
    proved,
)


@dataclass(frozen=True, slots=True)
class Worth:
    """A channel's value to its owner.

    `available` can be spent now. `locked` comes back, less what is paid further or plus what is
    earned, when the session or payment that holds it ends. `pending` waits for the ledger, and
    `settled` is what that has credited to the account.
    """

    available: int = 0
    locked: int = 0
    pending: int = 0
    settled: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return self.available + self.locked + self.pending + self.settled

    def __add__(self, other: Worth) -> Worth:
        return Worth(self.available + other.available, self.locked + other.locked,
                     self.pending + other.pending, self.settled + other.settled)


def worth(records: Records, wallet: Wallet) -> Worth:
    """The value of a channel by its owner's records, without the amount of a claim that is posted:
    the ledger keeps it, and so does the history."""
    match wallet:
        case Establishing():
            group = find_group(records, wallet.next.cid >> 8)
            escrowed = group is not None and group.phase in (GroupPhase.HALF_OPEN, GroupPhase.OPEN)
            return Worth(pending=wallet.next.balance if escrowed else 0)
        case Idle():
            return Worth(available=wallet.balance)
        case Spending() | Paying() | Voiding() | Recalled():
            return Worth(locked=wallet.idle.balance)
        case InSession() | Closing():
            return Worth(locked=held_in_session(records, wallet.session))
        case Renewing():
            return Worth(locked=wallet.next.balance)
        case CashingOut():
            return Worth(pending=wallet.idle.balance)
        case Claiming():
            return Worth(pending=worth(records, load(wallet.kind.decode(), wallet.state)).total)
        case Posted() | Stale():
            return Worth()
        case Settled():
            return Worth(settled=wallet.amount)


def held_in_session(records: Records, terms_hash: bytes) -> int:
    """What the channel of a session holds for its owner, by the payments that this party knows of:
    a client those it has sent, a relay those it can prove."""
    session = records.get(Table.SESSION, terms_hash)
    if isinstance(session, ClientSession):
        return client_balance(session.session.saturated, session.session.terms, session.sent)
    if isinstance(session, RelaySession):
        return relay_balance(session.session.saturated, session.session.terms,
                             proved(records, terms_hash).k)
    return 0
