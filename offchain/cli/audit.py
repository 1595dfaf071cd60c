# SPDX-License-Identifier: BSD-3-Clause
"""`monetor audit`."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from .networks import DEFAULT_NETWORK, connected
from .options import DEPLOYMENTS, AsJson, Deployments, NetworkName
from .report import say, say_json, say_table

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from monetor_chain.audit import Audit


def run(
    network: NetworkName = DEFAULT_NETWORK,
    deployments: Deployments = DEPLOYMENTS,
    confirmations: Annotated[
        int, typer.Option(min=0, help="Leave out this many of the newest blocks.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Rebuild the ledger's books from its log and compare them with what it says and holds.

    Anybody can: it needs no key. The exit status is 1 if anything differs. Tokens that were sent
    to the ledger by mistake are shown as a surplus and are no difference.
    """
    books = asyncio.run(_audit(network, deployments, confirmations))
    facts = _facts(books)
    if as_json:
        say_json(facts | {"disagreements": list(books.disagreements)})
    else:
        _show(facts)
        for sentence in books.disagreements:
            say(sentence)
        say(
            f"{len(books.disagreements)} differences"
            if books.disagreements
            else f"block {books.block}: {books.events} events, and everything agrees"
        )
    if books.disagreements:
        raise typer.Exit(1)


async def _audit(network: str, deployments: Path, confirmations: int) -> Audit:
    from monetor_chain.audit import audit
    from monetor_chain.deployment import attach, bind

    async with connected(network) as chain:
        deployment = await attach(chain, deployments)
        contracts = bind(chain, deployment)
        with _Bars() as bars:
            return await audit(
                contracts.ledger,
                contracts.token,
                deployment.block,
                confirmations=confirmations,
                progress=bars.advance,
            )


def _facts(books: Audit) -> dict[str, Any]:
    """The books as plain numbers, zeros included, so that every run has the same names."""
    from monetor_chain.bindings.ledger import ChannelStatus, GroupState, GuardState

    statuses = [status for status in ChannelStatus if status is not ChannelStatus.NONE]
    return {
        "block": books.block,
        "events": books.events,
        "groups": {_word(state): books.groups.get(state, 0) for state in GroupState},
        "channels": {_word(status): books.channels.get(status, 0) for status in statuses},
        "direct_channels": {_word(state): books.guards.get(state, 0) for state in GuardState},
        "held": asdict(books.totals) | {"tax_pool": books.tax},
        "owed": books.totals.held,
        "balance": books.balance,
        "surplus": books.surplus,
    }


def _word(state: Any) -> str:
    return str(state.name).lower()


_LABELS = {
    "groups": "groups",
    "channels": "channels",
    "direct_channels": "direct channels",
}
_HELD = {
    "escrow": "escrow of channels",
    "bonds": "bonds of requests to close",
    "guards": "deposits of direct channels",
    "vaults": "vaults",
    "credits": "withdrawable credits",
    "tax_pool": "  of these, the tax pool's",
}


def _show(facts: dict[str, Any]) -> None:
    rows = [
        (f"{label} {state.replace('_', ' ')}", f"{number:,}", "")
        for kind, label in _LABELS.items()
        for state, number in facts[kind].items()
    ]
    rows += [(label, "", f"{facts['held'][name]:,}") for name, label in _HELD.items()]
    rows += [
        ("owed in all", "", f"{facts['owed']:,}"),
        ("balance of the ledger", "", f"{facts['balance']:,}"),
        ("surplus, sent by mistake", "", f"{facts['surplus']:,}"),
    ]
    say_table(("what", "number", "units"), rows)


class _Bars:
    """A bar for each part of the work, on standard error and only where a person watches."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress

            self._progress = Progress(console=Console(stderr=True), transient=True)
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def advance(self, what: str, done: int, total: int) -> None:
        """`done` of `total` of one part are done."""
        if self._progress is None:
            return
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total)
        self._progress.update(self._tasks[what], completed=done, total=total)
