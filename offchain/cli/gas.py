# SPDX-License-Identifier: BSD-3-Clause
"""`monetor gas`."""

from __future__ import annotations

import typer

from .options import AsJson
from .report import say_json, say_table


def run(as_json: AsJson = False) -> None:
    """Measure the gas of every operation of the ledger, beside its budget.

    Runs on a chain in this process. The exit status is 1 if an operation exceeds its budget.
    """
    from monetor_chain.gas import BUDGETS, measure

    figures = measure()
    if as_json:
        say_json(figures)
    else:
        rows = [
            (name, f"{gas:,}", f"{BUDGETS[name]:,}", f"{gas / BUDGETS[name]:.0%}")
            for name, gas in figures.items()
        ]
        say_table(("operation", "gas", "budget", "used"), rows)
    if any(gas > BUDGETS[name] for name, gas in figures.items()):
        raise typer.Exit(1)
