# SPDX-License-Identifier: BSD-3-Clause
"""How many sessions a client keeps set up ahead of its circuits.

As many as the largest number of circuits that it opened within one minute of the last hour: what it
did once it may do again, and a setup that waits for a circuit would show which circuit it is for.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

WINDOW_SECONDS = 60.0
"""Circuits opened within so long count together."""
MEMORY_SECONDS = 3600.0
"""A window that ended longer ago than this counts no more."""
FEWEST, MOST = 2, 12
"""Bounds of the number of ready sessions: one circuit's middle and exit, and an end to escrow."""


@dataclass(slots=True)
class Demand:
    """When circuits were opened, in seconds of a clock that does not go back.

    Each opening and each question costs constant time on average, however long the history: of the
    windows that ended in the last hour only those are kept that no later one equals or exceeds.
    """

    _window: deque[float] = field(default_factory=deque)
    _peaks: deque[tuple[float, int]] = field(default_factory=deque)

    def opened(self, at: float) -> None:
        """A circuit was opened at `at`, not before the one noted last."""
        window, peaks = self._window, self._peaks
        if window and at < window[-1]:
            raise ValueError(f"an opening at {at} comes before one at {window[-1]}")
        while window and window[0] <= at - WINDOW_SECONDS:
            window.popleft()
        window.append(at)
        while peaks and peaks[-1][1] <= len(window):
            peaks.pop()
        peaks.append((at, len(window)))

    def peak(self, now: float) -> int:
        """The most circuits opened within (t − 60 s, t], for any t in (now − 1 h, now]."""
        while self._peaks and self._peaks[0][0] <= now - MEMORY_SECONDS:
            self._peaks.popleft()
        return self._peaks[0][1] if self._peaks else 0


def ready_sessions(peak: int) -> int:
    """How many sessions to keep ready for a demand of `peak` circuits a minute."""
    return min(MOST, max(FEWEST, peak))


def share(target: int, intermediaries: int) -> int:
    """How many of `target` ready sessions are kept at each of so many intermediaries.

    At least a circuit's two: its relays may both accept the same one only.
    """
    return max(FEWEST, -(-target // intermediaries))
