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
            "--full",
            help="Also the second curve library, every step and message, what it is made of, "
            "workers, and the gas.",
        ),
    ] = False,
    sessions: Annotated[
        int | None,
        typer.Option(
            min=100,
            help="Instead, what a setup costs an intermediary after so many sessions; a million "
            "take 4 GB in the folder of temporary files, and some minutes.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure the cryptography and the protocols on one core of this machine."""
    from offchain.experiments.bench import BenchOptions, measure, run_bench

    if sessions is not None:
        _say_scale(sessions, as_json=as_json)
        return
    if full:
        report = run_bench(BenchOptions(gas=True, parts=True))
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
            say_pairs(
                {
                    f"{one.party}, {one.step}": ", ".join(
                        f"{kind} {ratio:.2f}" for kind, ratio in one.ratios.items()
                    )
                    for one in report.breakdown
                }
            )
            say_pairs(
                {
                    f"setups a second, {one.workers} workers, groups of {one.group}": (
                        f"{one.per_core:.0f} per core, {one.per_second:.0f} by the clock"
                    )
                    for one in report.rates
                }
            )
            say_pairs({f"gas {name}": f"{gas:,}" for name, gas in report.gas.items()})


def _say_scale(sessions: int, *, as_json: bool) -> None:
    from dataclasses import asdict

    from offchain.experiments.scale import measure_scale, sizes_up_to

    found = measure_scale(sizes_up_to(sessions))
    if as_json:
        say_json({"scale": [asdict(one) for one in found]})
        return
    say_pairs(
        {
            f"after {one.sessions:,} sessions": (
                f"a setup costs {one.setup_ms:.2f} ms ({one.setup_ratio:.1f} pairing checks) and "
                f"writes {one.pages:.1f} pages; a session takes {one.bytes_per_session:,.0f} bytes"
            )
            for one in found
        }
    )
