# SPDX-License-Identifier: BSD-3-Clause
"""How often a client leaves an honest circuit, and how often it stays with one that cheats.

    python -m offchain.experiments.tit_for_tat

The speed of a circuit is lognormal around a level of its own; neighbouring seconds resemble each
other (an autoregressive process), which the test does not know.
"""

from __future__ import annotations

import math
import random
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from ..policy.tit_for_tat import Stance, TitForTat

PROMISED, WINDOW = 5.0, 2500
"""The ratio of windows at p = 0.25, α = 0.5, and the premium one in cells."""
CELLS = 200
"""Cells a second of a circuit that is not paid, about 100 kB/s."""
GAINS = (1.0, 1.5, 2.24, 3.0, 5.0)
"""What paying gains in truth; 1 is a relay that cheats."""
SPREADS = (0.2, 0.4, 0.6)
LIKENESSES = (0.0, 0.5)
"""Correlation of neighbouring seconds."""
LAG = 3
"""Seconds from a change of payment until the credit, and with it the service, follows."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Shares of circuits that were left, at once (before any probe found service) and within an
    hour, and of the seconds in which nothing was paid."""

    gain: float
    spread: float
    likeness: float
    left_at_once: float
    left_within_hour: float
    unpaid_share: float


def play(gain: float, spread: float, likeness: float, chance: random.Random, seconds: int = 3600
         ) -> tuple[int, int, int]:
    """One circuit: (probes passed, second in which it was left or 0, unpaid seconds)."""
    client = TitForTat(PROMISED, WINDOW)
    owed = LAG
    noise = chance.gauss(0, spread)
    unpaid = 0
    for second in range(1, seconds + 1):
        noise = likeness * noise + math.sqrt(1 - likeness**2) * chance.gauss(0, spread)
        owed = min(LAG, owed + 1) if client.stance is Stance.PAY else max(0, owed - 1)
        premium = owed > 0  # as long as credit is left
        unpaid += not premium
        if client.second(CELLS * (gain if premium else 1) * math.exp(noise), premium=premium) \
                is Stance.LEAVE:
            return client.probes, second, unpaid
    return client.probes, 0, unpaid


def simulate(gain: float, spread: float, likeness: float, circuits: int = 400) -> Outcome:
    """Many circuits of one kind; the same every time."""
    chance = random.Random(f"{gain} {spread} {likeness}")
    played = [play(gain, spread, likeness, chance) for _ in range(circuits)]
    return Outcome(
        gain, spread, likeness,
        sum(bool(left) and not probes for probes, left, _ in played) / circuits,
        sum(bool(left) for _, left, _ in played) / circuits,
        statistics.fmean(unpaid / (left or 3600) for _, left, unpaid in played))


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """The outcomes in Markdown."""
    head = ("gain", "σ", "likeness", "left at once", "left within an hour",
            "unpaid seconds")
    rows = [(f"{one.gain:g}", f"{one.spread:g}", f"{one.likeness:g}",
             f"{one.left_at_once:.1%}", f"{one.left_within_hour:.1%}",
             f"{one.unpaid_share:.1%}") for one in outcomes]
    return ["| " + " | ".join(line) + " |" for line in (head, ("---",) * len(head), *rows)]


def all_outcomes(circuits: int = 400) -> list[Outcome]:
    """Every gain with every kind of noise."""
    return [simulate(gain, spread, likeness, circuits)
            for gain in GAINS for spread in SPREADS for likeness in LIKENESSES]


if __name__ == "__main__":
    sys.stdout.write("\n".join(table(all_outcomes())) + "\n")
