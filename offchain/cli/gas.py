# SPDX-License-Identifier: BSD-3-Clause
"""`monetor gas`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from .options import AsJson
from .report import say, say_json, say_table


def run(
    everything: Annotated[
        bool,
        typer.Option(
            "--all", help="Also every other call, and opening and closing per channel of a group."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure the gas of the ledger's operations, beside their budgets.

    Runs on a chain in this process. The exit status is 1 if an operation exceeds its budget.
    """
    from monetor_chain.gas import BUDGETS, measure

    figures = measure()
    if everything:
        _all(figures, BUDGETS, as_json=as_json)
    elif as_json:
        say_json(figures)
    else:
        _operations(figures, BUDGETS)
    if any(gas > BUDGETS[name] for name, gas in figures.items()):
        raise typer.Exit(1)


def _operations(figures: dict[str, int], budgets: dict[str, int]) -> None:
    rows = [
        (name, f"{gas:,}", f"{budgets[name]:,}", f"{gas / budgets[name]:.0%}")
        for name, gas in figures.items()
    ]
    say_table(("operation", "gas", "budget", "used"), rows)


def _all(figures: dict[str, int], budgets: dict[str, int], *, as_json: bool) -> None:
    from monetor_chain.gas import measure_groups
    from monetor_chain.gas_survey import survey

    calls, groups = survey(), measure_groups()
    if as_json:
        say_json(
            {
                "operations": figures,
                "calls": calls,
                "groups": [
                    asdict(one)
                    | {
                        "opening_per_channel": round(one.opening, 1),
                        "closing_per_channel": round(one.closing, 1),
                    }
                    for one in groups
                ],
            }
        )
        return
    _operations(figures, budgets)
    say("")
    say_table(("call", "gas"), [(name, f"{gas:,}") for name, gas in calls.items()])
    say("")
    say_table(
        ("channels of a group", "open", "fund", "close", "opening each", "closing each"),
        [
            (
                str(one.channels), f"{one.open:,}", f"{one.fund:,}", f"{one.close:,}",
                f"{one.opening:,.0f}", f"{one.closing:,.0f}",
            )
            for one in groups
        ],
    )  # fmt: skip
