# SPDX-License-Identifier: BSD-3-Clause
"""`monetor demo`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .chain import Precompiles
from .meter import Meter
from .options import AsJson
from .report import say, say_json

if TYPE_CHECKING:
    from offchain.testnet.statement import Statement

DISPUTES = (
    "client-vanishes",
    "relay-vanishes",
    "intermediary-vanishes",
    "client-posts-revoked-state",
    "relay-posts-late",
    "client-refunds-low",
)
"""Names for the help text; the testnet decides which there are."""


def run(
    url: Annotated[
        str | None,
        typer.Option(help="What to download. [default: 8 MiB served on loopback]"),
    ] = None,
    cells_per_payment: Annotated[
        int | None,
        typer.Option(min=1, help="Cells that one payment buys. [default: as voted, 100]"),
    ] = None,
    dispute: Annotated[
        str | None,
        typer.Option(help="One party misbehaves: " + ", ".join(DISPUTES) + "."),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print one session step by step.")
    ] = False,
    speed: Annotated[
        float | None, typer.Option(help="Seconds of the network's clock per real second.")
    ] = None,
    precompiles: Annotated[
        Precompiles, typer.Option(help="EIP-2537 natively, or by py-evm itself and slowly.")
    ] = Precompiles.NATIVE,
    folder: Annotated[
        Path | None,
        typer.Option(help="Keep the parties' stores in this folder. [default: a passing one]"),
    ] = None,
    verbose: Annotated[bool, typer.Option(help="Log what the parties do.")] = False,
    as_json: AsJson = False,
) -> None:
    """Buy a download over three relays, settle all accounts and prove that they balance.

    Starts a chain, an authority, an intermediary, three relays and a client on this machine. The
    exit status is 0 only if the file arrived whole and no honest party lost a unit.
    """
    from offchain.testnet.demo import DemoFailed, DemoOptions, run_demo

    from .logs import to_standard_error

    to_standard_error(verbose=verbose)
    with Meter(quiet=as_json) as meter:
        options = DemoOptions(
            url=url,
            dispute=dispute,
            precompiles=precompiles.value,
            folder=folder,
            say=meter.step,
            progress=meter.progress,
        )
        if cells_per_payment is not None:
            options.cells_per_payment = cells_per_payment
        if speed is not None:
            options.speed = speed
        try:
            statement = asyncio.run(run_demo(options))
        except DemoFailed as error:
            # What went wrong is told after the account of it.
            if error.statement is not None:
                _tell(error.statement, explained=explain, as_json=as_json)
            raise
    _tell(statement, explained=explain, as_json=as_json)


def _tell(statement: Statement, *, explained: bool, as_json: bool) -> None:
    if as_json:
        say_json(statement.to_json())
        return
    from offchain.testnet.render import show

    if explained:
        from offchain.testnet.explain import explain

        for line in explain():
            say(line)
        say("")
    show(statement.to_json())
