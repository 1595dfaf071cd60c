# SPDX-License-Identifier: BSD-3-Clause
"""Whether to go on paying a circuit: only while that makes it faster (the paper's section IV-C).

A client cannot see what a relay does for its money, but it can stop paying and see what happens.
So it compares a circuit with itself: the logarithm of its speed in seconds that were paid for with
that in seconds that were not. What else slows the circuit down does so in both. The comparison is
Wald's sequential test, in the form that does not depend on the speed itself: with means P and U of
n_p and n_u seconds, the difference D = P − U has the variance V = σ²(1/n_p + 1/n_u), and the
logarithm of the likelihood ratio between "paying gains a factor g" and "paying gains nothing" is
(m·D − m²/2)/V with m = ln g. It stops as soon as one of the two is likely enough.

The factor g is the square root of the ratio that the network's windows give: the client is content
with half of what it is promised, in logarithms, since not every bottleneck follows the windows.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from enum import Enum

SPREAD = 0.5
"""σ: how far the logarithm of the speed differs between seconds of one circuit."""
FALSE_LEAVE = 0.01
"""How often, at most, a circuit is left that gains g."""
MISSED_CHEAT = 0.05
"""How often, at most, a circuit that gains nothing passes one probe."""
PAID_FIRST = 10
"""Paid seconds before a probe; without them there is nothing to compare with."""
PAID_KEPT = 30
"""Paid seconds that count: the last ones before a probe."""
MOST_UNPAID = 15
"""Unpaid seconds after which a probe ends, whatever it has found."""
SKIPPED = 2
"""Seconds after a change that count for neither, and as many more as it takes until a premium
window of cells has arrived: what was sent before the change comes first."""
FAILURES = 2
"""Probes in a row that found nothing, after which a circuit is left. One may be bad luck, as speeds
come and go; the second follows at once."""
FIRST_PAUSE, LONGEST_PAUSE = 20, 1280
"""Paid seconds from one probe to the next. Each probe that finds service doubles them, so that a
relay that is honest costs its clients ever fewer unpaid seconds."""
LEAST_GAIN = 1.2
"""A network that promises less than this ratio is not put to the test."""

PATIENCE = 3
"""Circuits in a row that gained nothing, after which a client pays nobody for a while: then it is
not the relays, there is enough bandwidth for all."""
REST_SECONDS = 600.0


class Stance(Enum):
    """What a client does about one circuit."""

    PAY = "pay"
    WITHHOLD = "withhold"
    """Pay nothing, and see."""
    LEAVE = "leave"
    """Pay no more, and use another circuit."""


def log_likelihood(gain: float, paid: tuple[int, float], unpaid: tuple[int, float],
                   spread: float = SPREAD) -> float:
    """ln of the likelihood that paying gains a factor `gain`, over that it gains nothing.

    `paid` and `unpaid`: how many samples, and the mean of their logarithms.
    """
    (n_p, mean_p), (n_u, mean_u) = paid, unpaid
    if not n_p or not n_u:
        return 0.0
    expected = math.log(gain)
    variance = spread**2 * (1 / n_p + 1 / n_u)
    return (expected * (mean_p - mean_u) - expected**2 / 2) / variance


class TitForTat:
    """One circuit. Feed it with `second`, and do what `stance` says."""

    def __init__(self, promised: float, window: int) -> None:
        """`window`: a premium circuit's, in cells; `promised`: that divided by another's."""
        self._gain = math.sqrt(promised) if promised >= LEAST_GAIN else 0.0
        self._paid: deque[float] = deque(maxlen=PAID_KEPT)
        self._unpaid: list[float] = []
        self._pause = FIRST_PAUSE
        self._until_probe = PAID_FIRST
        self._window = window
        self._skip, self._under_way = SKIPPED, float(window)
        self.stance = Stance.PAY
        self.probes = 0
        """Probes that have found service."""
        self._failures = 0

    def second(self, cells: float, *, premium: bool | None) -> Stance:
        """The circuit has carried so many cells in a second in which more was wanted.

        `premium`: all hops owed premium service for the whole of it, or none of them (False);
        None when it was neither.
        """
        if self.stance is Stance.LEAVE or not self._gain or cells <= 0:
            return self.stance
        if premium is not (self.stance is Stance.PAY):
            # The credit is not used up yet, or not there again yet.
            self._wait()
        elif self._skip > 0 or self._under_way > 0:
            self._skip -= 1
            self._under_way -= cells
        elif premium:
            self._paid_second(math.log(cells))
        else:
            self._unpaid_second(math.log(cells))
        return self.stance

    def _wait(self) -> None:
        self._skip, self._under_way = SKIPPED, float(self._window)

    def _paid_second(self, level: float) -> None:
        self._paid.append(level)
        self._until_probe -= 1
        if self._until_probe <= 0:
            self.stance = Stance.WITHHOLD
            self._wait()
            self._unpaid.clear()

    def _unpaid_second(self, level: float) -> None:
        self._unpaid.append(level)
        found = log_likelihood(self._gain, _moments(self._paid), _moments(self._unpaid))
        if found >= math.log((1 - FALSE_LEAVE) / MISSED_CHEAT):
            self._end_probe(served=True)
        elif found <= math.log(FALSE_LEAVE / (1 - MISSED_CHEAT)):
            self._end_probe(served=False)
        elif len(self._unpaid) >= MOST_UNPAID:
            self._end_probe(served=found > 0)

    def _end_probe(self, *, served: bool) -> None:
        self._failures = 0 if served else self._failures + 1
        if self._failures >= FAILURES:
            self.stance = Stance.LEAVE
            return
        self.stance = Stance.PAY
        self._wait()
        self._paid.clear()
        if served:
            self.probes += 1
            self._until_probe = self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        else:
            self._until_probe = PAID_FIRST


def _moments(levels: deque[float] | list[float]) -> tuple[int, float]:
    return len(levels), sum(levels) / len(levels) if levels else 0.0


@dataclass(slots=True)
class Patience:
    """Whether a client still pays at all, over all its circuits."""

    in_a_row: int = 0
    rests_until: float = -math.inf

    def left(self, now: float) -> None:
        """A circuit was left at second `now`, because paying it gained nothing."""
        self.in_a_row += 1
        if self.in_a_row >= PATIENCE:
            self.in_a_row = 0
            self.rests_until = now + REST_SECONDS

    def served(self) -> None:
        """A probe has found that paying helps."""
        self.in_a_row = 0

    def pays(self, now: float) -> bool:
        """Whether circuits are paid at second `now`."""
        return now >= self.rests_until
