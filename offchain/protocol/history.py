# SPDX-License-Identifier: BSD-3-Clause
"""What an end user will want to know later: entries made of the changes that each step commits.

They follow from the records alone, so that no protocol step has to think of them and none can
forget. `Entry.what` is a stable word; an entry tells of no secret, lock or preimage.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .balances import worth
from .establish import Group, GroupPhase
from .guard import EarningGuard, PaidGuard
from .records import Records, Table, key248
from .sessions import ClientPhase, ClientSession, RelayPhase, RelaySession
from .wallet import CashingOut, Paying, Posted, Renewing, Settled, channel_of, proved


@dataclass(frozen=True, slots=True)
class Change:
    """A record before and after a step; None where there is none."""

    table: Table
    key: bytes
    before: Any | None
    after: Any | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the history.

    `subject` names the group or channel (31 bytes), session (hash of its terms) or direct channel
    (its id). `count` counts channels or payments, `amount` is in base units.
    """

    what: str
    subject: bytes
    count: int
    amount: int


def withdrawn(account: bytes, amount: int) -> Entry:
    """The account's credit at the ledger has become tokens."""
    return Entry("withdrawn", account, 1, amount)


def entries(records: Records, changes: Sequence[Change]) -> list[Entry]:
    """What one step's changes are worth remembering."""
    found: list[Entry] = []
    for change in changes:
        match change.table:
            case Table.GROUP if isinstance(change.after, Group):
                found += _of_group(change.before, change.after)
            case Table.SESSION:
                found += _of_session(records, change)
            case Table.WALLET:
                found += _of_wallet(records, change)
            case Table.GUARD:
                found += _of_guard(change)
    return found + _cashed_out(changes)


def _of_group(before: Any, after: Group) -> Iterable[Entry]:
    escrowed = (GroupPhase.HALF_OPEN, GroupPhase.OPEN)
    was = before.phase if isinstance(before, Group) else GroupPhase.AGREED
    amount = after.count * after.deposit
    subject = key248(after.group)
    if after.phase in escrowed and was not in escrowed:
        yield Entry("escrowed", subject, after.count, amount)
    if after.phase is GroupPhase.OPEN and was is not GroupPhase.OPEN:
        yield Entry("opened", subject, after.count, after.count * after.fund)
    if after.phase is GroupPhase.GONE and was in escrowed:
        yield Entry("reclaimed", subject, after.count, amount)


def _of_session(records: Records, change: Change) -> Iterable[Entry]:
    """A session is paid, or earned, when the refund token of its balance is there, or when it goes
    to the ledger; there it may be settled at fewer payments than were sent, which `paid-out` tells.
    """
    before, after = change.before, change.after
    if isinstance(after, ClientSession):
        was = before.phase if isinstance(before, ClientSession) else ClientPhase.REQUESTED
        terms = after.session.terms
        price = -terms.delta_c
        if after.phase is ClientPhase.READY is not was:
            yield Entry("set-up", change.key, terms.n, terms.n * price)
        if after.phase is ClientPhase.ACTIVE is not was:
            yield Entry("established", change.key, terms.n, terms.n * price)
        if after.phase is ClientPhase.REVOKED is not was:
            paid = after.session.saturated + terms.n * price - _renewed(records, after.session.cid)
            yield Entry("paid" if paid else "unused", change.key, paid // price, paid)
        if after.phase is ClientPhase.ON_LEDGER and after.sent and was < ClientPhase.REVOKED:
            yield Entry("paid", change.key, after.sent, after.sent * price)
    elif isinstance(after, RelaySession):
        was_relay = before.phase if isinstance(before, RelaySession) else RelayPhase.REQUESTED
        terms = after.session.terms
        if after.phase is RelayPhase.ACTIVE is not was_relay:
            yield Entry("established", change.key, terms.n, terms.n * terms.delta_r)
        if after.phase is RelayPhase.REVOKED is not was_relay:
            opening = after.session.saturated - terms.n * terms.delta_r
            earned = _renewed(records, after.session.cid) - opening
            yield Entry("earned" if earned else "unused", change.key, earned // terms.delta_r,
                        earned)
        k = proved(records, change.key).k
        if after.phase is RelayPhase.ON_LEDGER and k and was_relay < RelayPhase.REVOKED:
            yield Entry("earned", change.key, k, k * terms.delta_r)


def _renewed(records: Records, cid: int) -> int:
    wallet = records.get(Table.WALLET, key248(cid))
    assert isinstance(wallet, Renewing), "the step that revokes a session renews its wallet"
    return wallet.next.balance


def _of_wallet(records: Records, change: Change) -> Iterable[Entry]:
    before, after = change.before, change.after
    if isinstance(before, Paying) and isinstance(after, Renewing):
        yield Entry("hidden-payment", change.key, 1, after.next.balance - before.idle.balance)
    if isinstance(after, Posted) and before is not None and not isinstance(before, Posted):
        yield Entry("claimed", change.key, 1, worth(records, before).total)
    if isinstance(after, Settled) and not isinstance(before, CashingOut | Settled):
        yield Entry("paid-out", change.key, 1, after.amount)


def _cashed_out(changes: Sequence[Change]) -> list[Entry]:
    """Channels that were closed together are one entry."""
    groups: dict[int, list[int]] = {}
    for change in changes:
        if isinstance(change.before, CashingOut) and isinstance(change.after, Settled):
            groups.setdefault(channel_of(change.after) >> 8, []).append(change.after.amount)
    return [Entry("cashed-out", key248(group), len(amounts), sum(amounts))
            for group, amounts in sorted(groups.items())]


def _of_guard(change: Change) -> Iterable[Entry]:
    before, after = change.before, change.after
    closed = change.key.startswith(b"closed:")
    if isinstance(after, PaidGuard) and closed and before is None:
        paid = after.base + after.sent * after.price
        yield Entry("guard-closed", after.channel, paid // after.price, paid)
    elif isinstance(after, PaidGuard) and before is None:
        yield Entry("guard-opened", after.channel, 1, after.deposit)
    elif isinstance(after, EarningGuard) and isinstance(before, EarningGuard) and (
            after.claimed > before.claimed):
        amount = after.claimed - before.claimed
        yield Entry("guard-claimed", after.channel, amount // after.price, amount)


