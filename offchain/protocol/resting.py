# SPDX-License-Identifier: BSD-3-Clause
"""The pause between a new wallet and its session.

Without it the intermediary could tell by the time whose the session is: it has just handed out the
wallet's token, after a session (protocol 2's random delay t_r), a hidden payment, or the opening of
a channel that it knows by name.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from .codec import U64
from .moment import Moment
from .records import Records, Table, key248, record


@record
@dataclass(frozen=True, slots=True)
class Rest:
    """A channel's wallet rests until then, in milliseconds of Unix time by the network's clock."""

    until: U64


def _key(cid: int) -> bytes:
    return b"rest:" + key248(cid)


def begin_rest(records: Records, moment: Moment, cid: int) -> None:
    """A channel has a new wallet: it rests for U[0, t_r], drawn from the operating system.

    It is drawn once and committed with the wallet, so that a restart neither shortens nor repeats
    it. The moment counts whole seconds: what is left of this one comes on top.
    """
    limit = 1000 * moment.parameters.setup_pause
    records.put(Table.CHANNEL, _key(cid), Rest(
        1000 * (moment.now + 1) + secrets.randbelow(limit + 1)))


def rests_until(records: Records, cid: int) -> int:
    """When the channel may be set up again, in milliseconds of Unix time; 0 if it never rested."""
    found = records.get(Table.CHANNEL, _key(cid))
    return found.until if isinstance(found, Rest) else 0
