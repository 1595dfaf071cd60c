# SPDX-License-Identifier: BSD-3-Clause
"""The clock of a development network: real time with an offset and a speed."""

from __future__ import annotations

import time
from collections.abc import Callable


class ChainClock:
    """Chain seconds since the Unix epoch, advancing `speed` times as fast as real time.

    At speed 0 the clock stands still and moves only when it is advanced. It never runs backwards
    by itself; `restore` alone turns it back, with the chain, to a snapshot.
    """

    def __init__(
        self, start: float, speed: float = 1.0, real: Callable[[], float] = time.monotonic
    ) -> None:
        self._real = real
        self._base = start
        self._since = real()
        self._speed = _checked(speed)

    @property
    def speed(self) -> float:
        """Chain seconds per real second."""
        return self._speed

    def now(self) -> float:
        """The present in chain seconds since the Unix epoch."""
        return self._base + (self._real() - self._since) * self._speed

    def set_speed(self, speed: float) -> None:
        """Go on from the present at another speed; `ValueError` if it is negative or not finite."""
        checked = _checked(speed)
        self._rebase(self.now())
        self._speed = checked

    def advance(self, seconds: float) -> float:
        """Jump ahead; `ValueError` for a negative jump. The new present."""
        if not 0 <= seconds < float("inf"):
            raise ValueError("the clock can only be advanced")
        self._rebase(self.now() + seconds)
        return self._base

    def at_least(self, moment: float) -> None:
        """Jump to `moment` unless the clock is there already."""
        if self.now() < moment:
            self._rebase(moment)

    def restore(self, moment: float) -> None:
        """Turn the clock to `moment`, which may lie in the past."""
        self._rebase(moment)

    def real_seconds_until(self, moment: float) -> float:
        """How long to wait until the clock shows `moment`; infinite if it stands still."""
        missing = moment - self.now()
        if missing <= 0:
            return 0.0
        return missing / self._speed if self._speed else float("inf")

    def _rebase(self, moment: float) -> None:
        self._base, self._since = moment, self._real()


def _checked(speed: float) -> float:
    if not 0 <= speed < float("inf"):
        raise ValueError("a clock's speed is a number of at least 0")
    return float(speed)
