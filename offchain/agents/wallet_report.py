# SPDX-License-Identifier: BSD-3-Clause
"""What a party owns and what has become of it, read from its store while it may be running.

Nothing here is secret: ids that the ledger shows anyway, the beginnings of sessions' names, amounts
in base units.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..protocol import guard
from ..protocol.balances import Worth, worth
from ..protocol.establish import Group, GroupPhase, is_at
from ..protocol.history import Entry
from ..protocol.moment import tip
from ..protocol.records import Records, Table, key248
from ..protocol.sessions import ClientSession, RelaySession, Session
from ..protocol.wallet import (
    Closing,
    InSession,
    Posted,
    Settled,
    Spending,
    Wallet,
    all_wallets,
    channel_of,
    known_intermediaries,
    proved,
)
from ..store import reading

SHORT = 8
"""Hexadecimal digits that tell one group or session from another for a person."""


@dataclass(frozen=True, slots=True)
class GroupLine:
    """A channel group; `deposit` and `fund` are per channel."""

    group: str
    intermediary: str
    phase: str
    channels: int
    deposit: int
    fund: int


@dataclass(frozen=True, slots=True)
class ChannelLine:
    """A channel that is not paid out, its state, and its value to its owner."""

    group: str
    index: int
    state: str
    available: int
    locked: int
    pending: int


@dataclass(frozen=True, slots=True)
class SessionLine:
    """A session that holds a channel: `k` of `n` payments, worth `amount`; `expires` is T_exp."""

    session: str
    group: str
    index: int
    state: str
    k: int
    n: int
    amount: int
    expires: int


@dataclass(frozen=True, slots=True)
class DirectLine:
    """A direct channel: a client's with what it has `paid` and what is `left`, or a guard's with
    what it has been `paid` and what of that is `left` to claim."""

    channel: str
    deposit: int
    paid: int
    left: int
    closing: bool


@dataclass(frozen=True, slots=True)
class HistoryLine:
    """One thing that happened, at Unix second `at` of the network's clock."""

    at: int
    what: str
    subject: str
    count: int
    amount: int


@dataclass(frozen=True, slots=True)
class Report:
    """A party's wallet. `network` is what its store is bound to, `block` and `time` the confirmed
    block that it stands at; `accounts` own the groups. Amounts are in base units.

    For an intermediary, which owns no channels, `groups` and `sessions_by_phase` say what it
    serves.
    """

    role: str
    network: bytes
    block: int
    time: int
    accounts: tuple[bytes, ...]
    worth: Worth
    unsettled: int
    """What is paid (client) or earned (relay) in sessions that are not closed."""
    groups: list[GroupLine]
    channels: list[ChannelLine] = field(default_factory=list)
    sessions: list[SessionLine] = field(default_factory=list)
    direct: list[DirectLine] = field(default_factory=list)
    history: list[HistoryLine] = field(default_factory=list)
    sessions_by_phase: Mapping[str, int] = field(default_factory=dict)


def read_report(store: Path) -> Report:
    """The report of the party whose store this is; `StoreError` if it cannot be read."""
    with reading(store) as (records, identity):
        role, at = identity.role, tip(records)
        own_groups = [one for _, one in records.scan(Table.GROUP) if isinstance(one, Group)]
        if role == "intermediary":
            phases = Counter(one.phase.name.lower().replace("_", "-")
                             for _, one in records.scan(Table.SESSION) if isinstance(one, Session))
            return Report(role, identity.network, at.number, at.timestamp, (), Worth(), 0,
                          _groups(records, own_groups), sessions_by_phase=dict(sorted(
                              phases.items())))
        history = records.history()
        claims = {one.subject: one.amount for _, one in history if one.what == "claimed"}
        wallets = all_wallets(records)
        values = [_value(records, one, claims) for one in wallets]
        sessions = _sessions(records, wallets)
        return Report(
            role, identity.network, at.number, at.timestamp,
            tuple(sorted({one.account for one in own_groups})), sum(values, Worth()),
            sum(one.amount for one in sessions), _groups(records, own_groups),
            [_channel(one, value) for one, value in zip(wallets, values, strict=True)
             if not isinstance(one, Settled)],
            sessions, _direct(records), [_history(at, one) for at, one in history])


def _value(records: Records, wallet: Wallet, claims: Mapping[bytes, int]) -> Worth:
    if isinstance(wallet, Posted):
        return Worth(pending=claims.get(key248(wallet.cid), 0))
    return worth(records, wallet)


def _groups(records: Records, groups: Sequence[Group]) -> list[GroupLine]:
    known = known_intermediaries(records)
    return [GroupLine(_short(key248(one.group)),
                      next((at.name.decode(errors="replace") for at in known
                            if is_at(one, at.ctx, at.account)), ""),
                      one.phase.name.lower().replace("_", "-"), one.count, one.deposit, one.fund)
            for one in groups if one.phase is not GroupPhase.GONE]


def _channel(wallet: Wallet, value: Worth) -> ChannelLine:
    cid = channel_of(wallet)
    return ChannelLine(_short(key248(cid >> 8)), cid & 0xFF, _words(type(wallet).__name__),
                       value.available, value.locked, value.pending)


def _sessions(records: Records, wallets: Sequence[Wallet]) -> list[SessionLine]:
    lines = []
    for wallet in wallets:
        if not isinstance(wallet, Spending | InSession | Closing):
            continue
        found = records.get(Table.SESSION, wallet.session)
        if isinstance(found, ClientSession):
            k, each = found.sent, -found.session.terms.delta_c
        elif isinstance(found, RelaySession):
            k, each = proved(records, wallet.session).k, found.session.terms.delta_r
        else:
            continue
        cid = channel_of(wallet)
        lines.append(SessionLine(
            wallet.session.hex()[:SHORT], _short(key248(cid >> 8)), cid & 0xFF,
            found.phase.name.lower().replace("_", "-"), k, found.session.terms.n, k * each,
            found.session.terms.t_exp))
    return lines


def _direct(records: Records) -> list[DirectLine]:
    lines = []
    for key, one in records.scan(Table.GUARD):
        if key.startswith((b"closed:", b"pending:")):
            continue
        if isinstance(one, guard.PaidGuard):
            paid = one.base + one.sent * one.price
            lines.append(DirectLine(one.channel.hex()[:SHORT], one.deposit, paid,
                                    one.deposit - paid, bool(one.closing_at)))
        elif isinstance(one, guard.EarningGuard):
            owed = guard.owed(one)
            lines.append(DirectLine(one.channel.hex()[:SHORT], one.deposit, owed,
                                    owed - one.claimed, bool(one.closing_at)))
    return lines


def _history(at: int, entry: Entry) -> HistoryLine:
    match entry.what:
        case "withdrawn":
            subject = "0x" + entry.subject.hex()
        case "hidden-payment" | "claimed" | "paid-out":
            subject = f"{entry.subject.hex()[:SHORT]}/{entry.subject[-1]}"
        case "escrowed" | "opened" | "reclaimed" | "cashed-out":
            subject = _short(entry.subject)
        case _:
            subject = entry.subject.hex()[:SHORT]
    return HistoryLine(at, entry.what, subject, entry.count, entry.amount)


def _short(name: bytes) -> str:
    """The first digits of a group's name, whose 240 bits stand at the end of 31 bytes."""
    return name[1:].hex()[:SHORT]


def _words(name: str) -> str:
    return "".join(f"-{one.lower()}" if one.isupper() else one for one in name).lstrip("-")
