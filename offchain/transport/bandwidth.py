# SPDX-License-Identifier: BSD-3-Clause
"""How much a router sends and receives in a second, and which link sends when that is little.

The clock is an argument; `bandwidth_driver` has one.
"""

from __future__ import annotations

import heapq
import itertools
from typing import Generic, Protocol, TypeVar

from .cell import CELL_LEN
from .scheduler import Turn

LEAST_READ, MOST_READ = 4 * CELL_LEN, 32 * CELL_LEN
_READ_SHARE = 8
"""One read takes at most an eighth of what is left, within the bounds above, so that one link does
not take it all (C tor does likewise: `connection_bucket_get_share`)."""


class TokenBucket:
    """`rate` bytes a second on average, `burst` at once (Tor's BandwidthRate, BandwidthBurst)."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        if rate <= 0 or burst <= 0:
            raise ValueError("rate and burst must be positive")
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = now

    def left(self, now: float) -> float:
        """Bytes that may pass now; not positive when it is time to wait."""
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at) * self._rate)
        self._at = now
        return self._tokens

    def take(self, size: int) -> None:
        """`size` bytes pass. What is taken too much is missing later."""
        self._tokens -= size

    def read_size(self, now: float) -> int:
        """How many bytes one link may read now, 0 when it is time to wait."""
        left = self.left(now)
        if left <= 0:
            return 0
        return int(min(max(left / _READ_SHARE, LEAST_READ), MOST_READ))


class Sender(Protocol):
    """A link that may want to send."""

    @property
    def turn(self) -> Turn | None:
        """How urgent its next cell is; None when it has nothing to send or cannot."""


L = TypeVar("L", bound=Sender)


class _Place(Generic[L]):
    __slots__ = ("link", "number", "turn")

    def __init__(self, turn: Turn, number: int, link: L) -> None:
        self.turn = turn
        self.number = number
        self.link = link

    def __lt__(self, other: _Place[L]) -> bool:
        return (self.turn, self.number) < (other.turn, other.number)


class LinkTurns(Generic[L]):
    """The links that want to send, the one with the most urgent cell first.

    So circuits compete with one another even when each has a link of its own, as clients' circuits
    have at their guard. A link announces itself again when something more urgent has come; one
    whose cells have become less urgent is put back when its turn comes.
    """

    def __init__(self) -> None:
        self._heap: list[_Place[L]] = []
        self._places: dict[L, _Place[L]] = {}
        self._numbers = itertools.count()

    def __bool__(self) -> bool:
        return bool(self._places)

    def announce(self, link: L) -> None:
        """The link has something to send."""
        turn = link.turn
        place = self._places.get(link)
        if turn is None or (place is not None and place.turn <= turn):
            return
        place = self._places[link] = _Place(turn, next(self._numbers), link)
        heapq.heappush(self._heap, place)

    def next(self) -> L | None:
        """Take out the link that sends next; None when none wants to."""
        while self._heap:
            place = heapq.heappop(self._heap)
            link = place.link
            if self._places.get(link) is not place:
                continue
            del self._places[link]
            turn = link.turn
            if turn is None:
                continue
            if turn <= place.turn:
                return link
            self.announce(link)
        return None

    def withdraw(self, link: L) -> None:
        """The link is gone."""
        self._places.pop(link, None)
