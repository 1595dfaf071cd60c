# SPDX-License-Identifier: BSD-3-Clause
"""`monetor experiment`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import AsJson
from .report import say, say_json, say_table

if TYPE_CHECKING:
    from offchain.experiments.priority.run import Progress


def priority(
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Only p = 0.25 with α 0 and 0.5, FIFO and EWMA, and briefly."),
    ] = False,
    repetitions: Annotated[int, typer.Option(min=1, help="Runs of every setting.")] = 2,
    seconds: Annotated[
        float, typer.Option(min=0.1, help="How long bytes are counted in a run. [--quick: a third]")
    ] = 15.0,
    clients: Annotated[int, typer.Option(min=2, help="Clients that download at once.")] = 8,
    rate: Annotated[
        int, typer.Option(min=10_000, help="Bytes a second that the limited relay carries.")
    ] = 1_500_000,
    limited: Annotated[
        str, typer.Option(help="The limited relay: guard, middle or exit.")
    ] = "guard",
    out: Annotated[
        Path | None, typer.Option(help="Write all results as JSON into this file too.")
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option(help="Draw a figure into this SVG file; needs the extra 'experiments'."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure how much faster premium circuits are, over real relays as processes.

    Three relays, one of them with a bandwidth limit, and clients that download at the same time.
    Premium is given without payment here. The whole takes about half an hour.
    """
    from offchain.experiments.priority import plan
    from offchain.experiments.priority.run import measure

    from .failures import UsageProblem

    if limited not in plan.HOPS:
        raise UsageProblem(f"there is no relay {limited!r}: choose guard, middle or exit")
    if figure is not None:
        from offchain.experiments.figures import pyplot

        pyplot()
    shortened = seconds / 3 if quick else seconds
    template = plan.Setting(
        plan.SHARES[0],
        0.0,
        plan.ORDERS[0],
        clients=clients,
        rate=rate,
        limited=limited,
        seconds=shortened,
        # Until queues and windows are full; with these windows and this rate that takes 2 s.
        warm=min(8.0, 0.6 * seconds),
    )
    settings = plan.quick(template) if quick else plan.grid(template) + plan.elsewhere(template)
    with _shown(quiet=as_json) as progress:
        results = measure(settings, 1 if quick else repetitions, progress)
    plain = [one.to_json() for one in results]
    if out is not None:
        out.write_text("[\n" + ",\n".join(map(json.dumps, plain)) + "\n]\n", encoding="utf-8")
    if figure is not None:
        from offchain.experiments.priority.report import draw

        draw(results, figure)
    if as_json:
        say_json(plain)
        return
    from offchain.experiments.priority.report import HEADER, row

    say_table(HEADER, [row(one) for one in results])
    cores = max(run.core for one in results for run in one.runs)
    say(f"The busiest relay has used {cores:.0%} of a core.")


@contextmanager
def _shown(*, quiet: bool) -> Iterator[Progress]:
    """A bar on standard error; a machine that reads JSON gets none."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
        console=Console(stderr=True),
        transient=True,
        disable=quiet,
    )
    with bar:
        task = bar.add_task("starting", total=None)

        def progress(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total, description=what)

        yield progress


def cells(
    size: Annotated[int, typer.Option(min=1, help="MiB to download over the circuit.")] = 64,
    as_json: AsJson = False,
) -> None:
    """Measure how many cells a second one core of a relay forwards.

    Guard, middle and exit are processes; what counts is the processor time of each per cell.
    """
    from offchain.experiments.relay_speed import MIB, measure

    from .meter import Meter

    with Meter(quiet=as_json) as meter:
        speeds = measure(size * MIB, meter.progress)
    if as_json:
        say_json([one.as_dict() for one in speeds])
        return
    say_table(
        ("process", "cells", "µs per cell", "cells per second of a core", "in AES of a cell"),
        [
            (
                one.name,
                f"{one.cells:,}",
                f"{one.microseconds_per_cell:.2f}",
                f"{one.cells_per_second:,}",
                f"{one.aes_per_cell:.1f}",
            )
            for one in speeds
        ],
    )
