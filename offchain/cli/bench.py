# SPDX-License-Identifier: BSD-3-Clause
"""`monetor bench`."""

from __future__ import annotations

from .options import AsJson
from .report import say_json, say_pairs


def run(as_json: AsJson = False) -> None:
    """Measure the cryptography and the protocols on one core of this machine."""
    from offchain.experiments.bench import measure

    figures = measure()
    if as_json:
        say_json(figures)
    else:
        say_pairs(
            {name: f"{figure:,.3f}".rstrip("0").rstrip(".") for name, figure in figures.items()}
        )
