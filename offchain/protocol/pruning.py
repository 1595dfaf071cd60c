# SPDX-License-Identifier: BSD-3-Clause
"""What an intermediary may forget while its key lives, and when.

Kept for the life of the key: every nonce and hash chain that was spent, for a wallet token never
grows too old to be shown again, and every lock that was posted, for the wallet behind it may be
unspent. Forgotten:

- a session and its replies, when both legs are over, a close notice after T_exp. Its terms are of
  an epoch that takes no setups; a leg that is closed has a revoked lock.
- a hidden payment's legs and replies, when the leg is done, a close notice after T_p; a leg that
  waits for its partner, when T_p has passed.
- a group that was agreed on and is not opened within a close notice, or was taken back.
- the replies of a group's opening, when all of its channels are paid out. The group is remembered
  as resolved: to answer a second opening would sign a token for a channel that is no more.
- a revoked lock, when every channel that was open at its revocation is paid out: nobody can post
  it.

When the last channel of a key that takes no new ones is paid out, all of it may go (`forget_all`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from monetor_chain.statements import channel_id

from . import answering, establish
from .answering import SPEND, forget_answer
from .codec import B32, U64, U248, U256
from .establish import Group, GroupPhase
from .moment import Moment, tip
from .outbox import Note, Outbox
from .pay import DONE, JoinedLeg, PendingLeg
from .records import Records, Table, key248, record
from .sessions import Deadline, Leg, Phase, Session, set_deadline

_ROLES = (0, 1)


@record
@dataclass(frozen=True, slots=True)
class SpentInto:
    """A nonce that was spent into a session, to be found by the session."""

    nonce: U248


@record
@dataclass(frozen=True, slots=True)
class PaidOut:
    """The channels of a group (bitmap) that are paid out on the ledger."""

    channels: U256


@record
@dataclass(frozen=True, slots=True)
class OpenSince:
    """A group is open since this time (Unix seconds); its channels are not all paid out."""

    at: U64


@record
@dataclass(frozen=True, slots=True)
class CashedOut:
    """The reply to a cash-out of a group is stored under this hash."""

    request: B32


@record
@dataclass(frozen=True, slots=True)
class Horizon:
    """Every channel that was open before this time (Unix seconds) is paid out."""

    at: U64


@record
@dataclass(frozen=True, slots=True)
class Retiring:
    """The key takes no new channels."""


@record
@dataclass(frozen=True, slots=True)
class HorizonMoves:
    """A group was paid out since the horizon was looked at."""


HORIZON = b"horizon"
_HORIZON_MOVES = b"horizon-moves"
_RETIRING = b"retiring"


# --- Sessions ------------------------------------------------------------------------------------


def _spent(terms_hash: bytes, nonce: int | None = None) -> bytes:
    return b"spent:" + terms_hash + (b"" if nonce is None else key248(nonce))


def note_spent(records: Records, terms_hash: bytes, nonce: int) -> None:
    """Remember which nonces went into a session."""
    records.put(Table.CHANNEL, _spent(terms_hash, nonce), SpentInto(nonce))


def keep_session_until(records: Records, moment: Moment, session: Session, duty: int) -> None:
    """Look at a session again when it may be forgotten."""
    parameters = moment.parameters
    set_deadline(records, session.terms.t_exp + parameters.close_notice + parameters.safety_margin,
                 duty, session.terms.nano_terms().hash())


def session_due(records: Records, moment: Moment, deadline: Deadline) -> Outbox:
    """Forget a session that is over; look again later at one that is not."""
    terms_hash = deadline.subject
    session = records.get(Table.SESSION, terms_hash)
    if not isinstance(session, Session):
        return []
    if not _is_over(records, session):
        set_deadline(records, moment.now + moment.parameters.close_notice, deadline.what,
                     terms_hash)
        return []
    records.delete(Table.SESSION, terms_hash)
    for role in _ROLES:
        records.delete(Table.CHANNEL, b"close:" + bytes([role]) + terms_hash)
    for step in ("relay-close", "relay-reveal", "client-close", "client-reveal"):
        forget_answer(records, step, terms_hash)
    for key, one in list(records.scan(Table.CHANNEL, _spent(terms_hash),
                                      _spent(terms_hash) + b"\xff" * 32)):
        # The nonce itself stays marked: `NonceUse` under it.
        for step in (SPEND, "setup-reveal", "establish-reveal"):
            forget_answer(records, step, key248(one.nonce))
        records.delete(Table.CHANNEL, key)
    return []


def _is_over(records: Records, session: Session) -> bool:
    # After T_exp no relay can join a session that has none.
    relay = (session.phase in (Phase.SETTING_UP, Phase.SETUP, Phase.RELAY_CLOSED, Phase.VOID)
             or session.relay_resolved
             or _was_claimed(records, session.nwpk_r))
    return relay and (session.client_leg is Leg.CLOSED or _was_claimed(records, session.nwpk_c))


def _was_claimed(records: Records, lock: int) -> bool:
    """Whether a leg has ended on the ledger: its lock was posted, and the channel is paid out."""
    return answering.lock_state(records, lock).posted and not any(
        answering.posted_channels(records, lock))


# --- Hidden payments -----------------------------------------------------------------------------


def keep_leg_until(records: Records, moment: Moment, leg: PendingLeg, duty: int) -> None:
    """Look at a joined leg again when it may be forgotten."""
    set_deadline(records, leg.t_p + moment.parameters.close_notice, duty,
                 b"\0" + key248(leg.nonce))


def leg_due(records: Records, moment: Moment, deadline: Deadline) -> Outbox:
    """Forget a leg that is done; its nonce stays marked."""
    key = deadline.subject[1:]
    joined = records.get(Table.NONCE, key)
    if not isinstance(joined, JoinedLeg):
        return []
    if joined.state != DONE:
        set_deadline(records, moment.now + moment.parameters.close_notice, deadline.what,
                     deadline.subject)
        return []
    records.put(Table.NONCE, key, SpentInto(joined.leg.nonce))
    for step in (SPEND, "payer-reveal", "payee-claim", "payee-reveal", "payee-void"):
        forget_answer(records, step, key)
    return []


def waiting_due(records: Records, moment: Moment) -> None:
    """Forget legs whose partner can come no more."""
    for key, leg in list(records.scan(Table.CHANNEL, b"pay:", b"pay;")):
        if isinstance(leg, PendingLeg) and tip(records).timestamp > leg.t_p:
            records.delete(Table.CHANNEL, key)


# --- Groups --------------------------------------------------------------------------------------


def _paid_out(group: int) -> bytes:
    return b"paid-out:" + key248(group)


def _open_since(group: int) -> bytes:
    return b"open-since:" + key248(group)


def note_open(records: Records, group: int) -> None:
    """A group is funded: what is revoked from now on may be one of its wallets."""
    records.put(Table.CHANNEL, _open_since(group), OpenSince(tip(records).timestamp))


def note_cashed_out(records: Records, group: int, request: bytes) -> None:
    """Remember where the reply to a cash-out is stored."""
    records.put(Table.CHANNEL, b"cashed:" + key248(group) + request, CashedOut(request))


def group_due(records: Records, moment: Moment, deadline: Deadline) -> Outbox:
    """Forget a group that was agreed on and never opened, or was taken back."""
    group = establish.find_group(records, int.from_bytes(deadline.subject[1:], "big"))
    if group is not None and group.phase in (GroupPhase.AGREED, GroupPhase.GONE):
        _forget_opening(records, group)
        records.delete(Table.GROUP, establish.group_key(group.group))
    return []


def _forget_opening(records: Records, group: Group) -> None:
    forget_answer(records, "group", group.rho_e)
    for index in range(group.count):
        cid = key248(channel_id(group.group, index))
        forget_answer(records, "establish", cid)
        forget_answer(records, "opened", cid)
        records.delete(Table.CHANNEL, b"request:" + cid)


def on_paid_out(records: Records, group: Group, channels: int) -> Outbox:
    """Channels of the bitmap are paid out; with the last one the group's opening is forgotten."""
    found = records.get(Table.CHANNEL, _paid_out(group.group))
    done = channels | (found.channels if isinstance(found, PaidOut) else 0)
    if done.bit_count() < group.count:
        records.put(Table.CHANNEL, _paid_out(group.group), PaidOut(done))
        return []
    records.delete(Table.CHANNEL, _paid_out(group.group))
    records.delete(Table.CHANNEL, _open_since(group.group))
    records.put(Table.GROUP, establish.group_key(group.group),
                replace(group, phase=GroupPhase.RESOLVED))
    _forget_opening(records, group)
    start = b"cashed:" + key248(group.group)
    for key, one in list(records.scan(Table.CHANNEL, start, start + b"\xff" * 33)):
        forget_answer(records, "cash-out", one.request)
        records.delete(Table.CHANNEL, key)
    records.put(Table.META, _HORIZON_MOVES, HorizonMoves())
    if is_finished(records):
        return [Note("key-finished", "the last channel of a key that takes no new ones is paid "
                                     "out")]
    return []


def move_horizon(records: Records) -> None:
    """Forget the locks that were revoked before the oldest group was opened that is left.

    A lock that is revoked at a time belongs to a channel that was open then. To be called after
    each block: all groups are looked at once, however many of them the block has paid out.
    """
    if records.get(Table.META, _HORIZON_MOVES) is None:
        return
    records.delete(Table.META, _HORIZON_MOVES)
    at = min((one.at for _, one in records.scan(Table.CHANNEL, b"open-since:", b"open-since;")),
             default=tip(records).timestamp)
    known = records.get(Table.META, HORIZON)
    if isinstance(known, Horizon) and known.at >= at:
        return
    records.put(Table.META, HORIZON, Horizon(at))
    answering.forget_revoked(records, at)


# --- The end of a key ----------------------------------------------------------------------------


def retire(records: Records) -> None:
    """Take no new channels under this key, for good."""
    records.put(Table.META, _RETIRING, Retiring())


def is_retiring(records: Records) -> bool:
    """Whether the key takes no new channels."""
    return records.get(Table.META, _RETIRING) is not None


def is_finished(records: Records) -> bool:
    """Whether the key takes no new channels and its last one is paid out."""
    return is_retiring(records) and not any(
        isinstance(one, Group) and one.phase in (GroupPhase.HALF_OPEN, GroupPhase.OPEN)
        for _, one in records.scan(Table.GROUP))


_OF_THE_KEY = (Table.GROUP, Table.SESSION, Table.DEADLINE, Table.ANSWER, Table.LOCK, Table.CHANNEL,
               Table.NONCE, Table.CHAIN_HEAD)


def forget_all(records: Records) -> int:
    """Forget everything about a key that is finished; returns the number of records.

    Nothing can be opened under it any more, for it funds no group, so that no token is worth
    anything. That it is retired is remembered: it must never answer again.
    """
    assert is_finished(records), "a key with a channel is needed still"
    number = 0
    for table in _OF_THE_KEY:
        for key, _ in list(records.scan(table)):
            records.delete(table, key)
            number += 1
    return number
