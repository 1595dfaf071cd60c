# SPDX-License-Identifier: BSD-3-Clause
"""`monetor bench`."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import AsJson
from .report import say_json, say_pairs


def run(
    full: Annotated[
        bool,
        typer.Option(
            "--full", help="Also the second curve library, every step and message, and the gas."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure the cryptography and the protocols on one core of this machine."""
    from offchain.experiments.bench import BenchOptions, measure, run_bench

    if full:
        report = run_bench(BenchOptions(gas=True))
        figures = report.figures
        if as_json:
            say_json(report.to_json())
            return
    else:
        figures = measure()
    if as_json:
        say_json(figures)
    else:
        say_pairs(
            {name: f"{figure:,.3f}".rstrip("0").rstrip(".") for name, figure in figures.items()}
        )
        if full:
            say_pairs({f"gas {name}": f"{gas:,}" for name, gas in report.gas.items()})
