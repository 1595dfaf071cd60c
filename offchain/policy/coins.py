# SPDX-License-Identifier: BSD-3-Clause
"""Which of its coins a party uses: intermediary and channel for a session, and when to open more.

A session needs a channel of its own at an intermediary that both its client and its relay have
channels at.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from monetor_chain.statements import MAX_GROUP_SIZE

T = TypeVar("T")

Choose = Callable[[Sequence[T]], T]
"""Takes one of several that are equally good; at random, or a habit would be a fingerprint."""

CHANNELS_PER_READY = 3
"""A session that is ready stands for one more in use and one that succeeds it, each on a channel of
its own."""


@dataclass(frozen=True, slots=True)
class Coin:
    """An idle channel: its id, its balance in base units, and whether its pause is over."""

    cid: int
    balance: int
    rested: bool = True

    @property
    def group(self) -> int:
        """The group that the channel belongs to."""
        return self.cid >> 8


@dataclass(frozen=True, slots=True)
class Load:
    """Sessions at one intermediary: `ready` for a hop, and `in_use` on one."""

    ready: int
    in_use: int


def choose_intermediary(accepted: Collection[bytes], loads: Mapping[bytes, Load],
                        choose: Choose[bytes]) -> bytes | None:
    """The intermediary (by the hash of its key) through which a hop is paid, None if there is none.

    One that the hop's relay accepts and this client has channels at; with a session ready if
    there is any such; of these the one with the fewest sessions in use.
    """
    shared = [key for key in loads if key in accepted]
    able = [key for key in shared if loads[key].ready] or shared
    if not able:
        return None
    fewest = min(loads[key].in_use for key in able)
    return choose([key for key in able if loads[key].in_use == fewest])


def choose_coin(coins: Sequence[Coin], busy: Mapping[int, int], cost: int,
                choose: Choose[Coin]) -> Coin | None:
    """The idle channel to set a session of at most `cost` units up from, None if none can now.

    Of the group with the fewest channels at work (`busy`), the one with the highest balance: so
    channels wear evenly, and none tells by being used first that it is the oldest.
    """
    able = [coin for coin in coins if coin.rested and coin.balance >= cost]
    if not able:
        return None
    calmest = min(busy.get(coin.group, 0) for coin in able)
    able = [coin for coin in able if busy.get(coin.group, 0) == calmest]
    highest = max(coin.balance for coin in able)
    return choose([coin for coin in able if coin.balance == highest])


@dataclass(frozen=True, slots=True)
class Supply:
    """What there is for the next sessions at one intermediary.

    `ready` and `setting_up` count sessions; `able` counts idle channels, resting ones too, whose
    balance covers another one, `returning` those that will be such when they have closed.
    """

    ready: int
    setting_up: int
    able: int
    returning: int

    @property
    def total(self) -> int:
        """Sessions that can be had without another channel."""
        return self.ready + self.setting_up + self.able + self.returning


def runs_out(supply: Supply, target: int) -> bool:
    """Whether another group is due: what there is does not come to `target` sessions."""
    return supply.total < target


def group_size(target: int, affordable: int = MAX_GROUP_SIZE) -> int:
    """How many channels the next group has for `target` ready sessions, `affordable` at most."""
    return max(0, min(CHANNELS_PER_READY * target, affordable, MAX_GROUP_SIZE))
