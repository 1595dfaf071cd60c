# SPDX-License-Identifier: BSD-3-Clause
"""Which intermediary's key an end user's channels are under.

A wallet lives and dies under the key that signed it. So an end user stays with that key while it
has a channel under it, also when the intermediary opens new channels under another one, and goes
to another key with its next group only.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from monetor_chain.statements import channel_id

from . import establish, wallet as wallets
from .codec import B32
from .establish import GroupPhase
from .records import Records, Table, record
from .wallet import Establishing, Settled, Wallet

_KEY = b"intermediary"


@record
@dataclass(frozen=True, slots=True)
class Bound:
    """The hash of the key."""

    key_hash: B32


def bind_to(records: Records, key_hash: bytes) -> None:
    """The next group is opened under this key."""
    records.put(Table.META, _KEY, Bound(key_hash))


def bound_to(records: Records, asking: Collection[bytes]) -> bytes | None:
    """The hash of the key that the channels are under; None if none is left under any.

    `asking` holds the conversations that are not at their end.
    """
    bound = records.get(Table.META, _KEY)
    if not isinstance(bound, Bound) or all(
            _is_done(records, one, asking) for one in wallets.all_wallets(records)):
        return None
    return bound.key_hash


def _is_done(records: Records, wallet: Wallet, asking: Collection[bytes]) -> bool:
    if isinstance(wallet, Establishing):
        # An opening that the intermediary has refused: nothing is escrowed for it, nor will be.
        cid = wallet.next.cid
        group = establish.find_group(records, cid >> 8)
        return (group is not None and group.phase is GroupPhase.AGREED
                and not any(establish.opening_conversation(channel_id(cid >> 8, index)) in asking
                            for index in range(group.count)))
    return isinstance(wallet, Settled)
