# SPDX-License-Identifier: BSD-3-Clause
"""What sets premium circuits apart: the sizes of their windows, and their weight when circuits
compete for a link (the paper's section VI-D and appendix A).

These are constants of the whole network, never local counts, so that nobody stands out by them.
Who is premium, and why, is decided elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from .flow_control import CIRCUIT_INCREMENT, CIRCUIT_WINDOW, STREAM_INCREMENT, STREAM_WINDOW

ONE = 10_000
"""Shares and ratios are integers in ten-thousandths, so that everybody computes the same sizes."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Sizes of a circuit's window and of the windows of its streams, in DATA cells."""

    circuit: int
    stream: int


def scaled(window: int, increment: int, *, premium: bool, share: int, alpha: int) -> int:
    """window · (1 + α(premium/p − 1)), in whole cells, never below one increment (equation 2).

    `share` p and `alpha` α are in ten-thousandths. With a share p of premium circuits the windows
    of all circuits together stay what they were.
    """
    if premium:
        size = window * (ONE * share + alpha * (ONE - share)) // (ONE * share)
    else:
        size = window * (ONE - alpha) // ONE
    return max(size, increment)


@dataclass(frozen=True, slots=True)
class Priority:
    """The network's constants. By default premium circuits are like all others.

    `share`: the share p of circuits that are premium, in (0, 1]; `alpha`: how much of the others'
    window goes to them, in [0, 1); `beta`: how many cells of a premium circuit count as one, at
    least 1. All three in ten-thousandths. The windows are in cells.
    """

    circuit_window: int = CIRCUIT_WINDOW
    stream_window: int = STREAM_WINDOW
    share: int = 2_500
    alpha: int = 0
    beta: int = ONE

    def __post_init__(self) -> None:
        if not (0 < self.share <= ONE and 0 <= self.alpha < ONE and self.beta >= ONE
                and self.circuit_window >= CIRCUIT_INCREMENT
                and self.stream_window >= STREAM_INCREMENT):
            raise ValueError(f"priority out of range: {self}")

    def windows(self, *, premium: bool) -> Windows:
        """What may be in flight on a circuit of this class."""
        return Windows(
            scaled(self.circuit_window, CIRCUIT_INCREMENT, premium=premium, share=self.share,
                   alpha=self.alpha),
            scaled(self.stream_window, STREAM_INCREMENT, premium=premium, share=self.share,
                   alpha=self.alpha))

    def limits(self, *, premium: bool) -> Windows:
        """What a receiver tolerates: Tor's own sizes at least, so that a peer which knows nothing
        of premium circuits is no offender."""
        own = self.windows(premium=premium)
        return Windows(max(own.circuit, self.circuit_window, CIRCUIT_WINDOW),
                       max(own.stream, self.stream_window, STREAM_WINDOW))

    @property
    def ratio(self) -> float:
        """A premium circuit's window divided by another's."""
        return self.windows(premium=True).circuit / self.windows(premium=False).circuit


EVEN = Priority()
"""Tor's windows for everybody."""
