# SPDX-License-Identifier: BSD-3-Clause
"""Locks that came out of a backup: they may have been revoked after it was made.

Whoever posts a claim on a revoked lock forfeits the channel. A lock that is not here was made by
this very store's life and is as good as ever. `restored` decides what becomes of the channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from monetor_chain.statements import lock_of

from .codec import U64, U248
from .ledger import NanoRefund, Refund, RefundConditional
from .records import Records, Table, key248, record

_RESTORED = b"restored"


@record
@dataclass(frozen=True, slots=True)
class Restored:
    """The store was put back from a backup of this time (Unix seconds)."""

    made_at: U64


class Fate(IntEnum):
    """What is known of an old lock.

    `UNKNOWN`: nothing yet. `ASKED`: the intermediary is being asked whether its wallet is spent.
    `UNSPENT`: it says no. The wallet may then be spent, which ends in a claim on a fresh lock; the
    old claim is posted all the same only when nothing can be lost by it.
    """

    UNKNOWN = 1
    ASKED = 2
    UNSPENT = 3


@record
@dataclass(frozen=True, slots=True)
class OldLock:
    """A lock of channel `cid` as it was in the backup."""

    cid: U248
    fate: Fate


def restored(records: Records) -> Restored | None:
    """Whether, and from when, this store was put back from a backup."""
    found = records.get(Table.META, _RESTORED)
    return found if isinstance(found, Restored) else None


def set_restored(records: Records, made_at: int) -> None:
    """Say that the store comes out of a backup."""
    records.put(Table.META, _RESTORED, Restored(made_at))


def fate(records: Records, lock: int) -> Fate | None:
    """What is known of a lock that came out of a backup; None for any other lock."""
    found = records.get(Table.LOCK, key248(lock))
    return found.fate if isinstance(found, OldLock) else None


def set_fate(records: Records, lock: int, cid: int, known: Fate) -> None:
    """Remember what is known of an old lock."""
    records.put(Table.LOCK, key248(lock), OldLock(cid, known))


def is_old(records: Records, call: Refund | RefundConditional | NanoRefund) -> bool:
    """Whether a claim stands on a lock that came out of a backup."""
    return fate(records, call.nwpk if isinstance(call, NanoRefund) else call.wpk) is not None


def is_old_secret(records: Records, secret: bytes) -> bool:
    """Whether the lock of this secret came out of a backup."""
    return fate(records, lock_of(secret)) is not None
