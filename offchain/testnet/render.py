# SPDX-License-Identifier: BSD-3-Clause
"""The account statement as a person reads and checks it, made of nothing but its JSON form.

Columns add up to the line that proves conservation; sums that the statement states apart are
broken into their parts. Without a terminal there is no colour and no line is folded.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import IO, Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

_PLAIN_WIDTH = 140
"""Columns of output that is no terminal: wide enough that nothing is folded."""
_LABEL = 15
_COLUMNS = ("before", "after", "change", "floor", "sent", "received", "gas")


def show(statement: Mapping[str, Any], file: IO[str] | None = None) -> None:
    """Print a statement (as `Statement.to_json` gives it) to `file`, by default standard output."""
    out = file or sys.stdout
    console = Console(file=out, highlight=False)
    if console.is_terminal:
        console.print(render(statement))
        return
    console.width = _PLAIN_WIDTH
    with console.capture() as shown:
        console.print(render(statement))
    # Columns are filled up with blanks, which nobody wants in a file.
    out.writelines(f"{line.rstrip()}\n" for line in shown.get().splitlines())
    out.flush()


def render(statement: Mapping[str, Any]) -> RenderableType:
    """The whole statement."""
    return Group(*_parts(statement))


def _parts(statement: Mapping[str, Any]) -> Iterator[RenderableType]:
    if statement.get("dispute"):
        yield _line("Dispute", statement["dispute"])
    yield from _download(statement["download"])
    yield Text()
    yield Text("Accounts in base units, gas in gas units; sent and received count payments;")
    yield Text("`floor` is what the protocol guarantees a party that keeps to it")
    yield _accounts(statement)
    yield Text()
    yield from _earnings(statement)
    yield _conservation(statement)
    yield _honest(statement["parties"])
    if statement["protocols"]:
        yield Text()
        yield _protocols(statement["protocols"])
    for note in statement.get("notes", ()):
        yield Text(f"Note: {note}")


def _line(label: str, text: str, style: str = "") -> Text:
    return Text.assemble(f"{label:<{_LABEL}}", (text, style))


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _download(download: Mapping[str, Any]) -> Iterator[Text]:
    if not download:
        yield _line("Download", "did not arrive", "bold red")
        return
    speed = download["bytes"] / max(download["seconds"], 1e-3) / 1024
    yield _line("Download", f"{download['bytes']:,} bytes in {download['seconds']:.1f} s "
                            f"({speed:,.0f} KiB/s)")
    yield _line("SHA-256", download["sha256"])


def _accounts(statement: Mapping[str, Any]) -> Table:
    """A row for each party, then whatever else holds units, then the sums."""
    table = _table("party", *_COLUMNS)
    for name, party in statement["parties"].items():
        label = name if party["honest"] else f"{name} (dishonest)"
        lost = party["honest"] and party["after"] < party["floor"]
        table.add_row(
            label, f"{party['before']:,}", f"{party['after']:,}",
            f"{party['after'] - party['before']:+,}", f"{party['floor']:,}", f"{party['sent']:,}",
            f"{party['received']:,}", f"{party['gas']:,}", style="bold red" if lost else "")
    before, after, pool, left = _sums(statement)
    table.add_row("tax pool", "0", f"{pool:,}", f"{pool:+,}")
    if left:
        table.add_row("still in escrow", "0", f"{left:,}", f"{left:+,}")
    total = after + pool + left
    table.add_row("sum", f"{before:,}", f"{total:,}", f"{total - before:+,}", style="bold")
    return table


def _sums(statement: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """What the parties had and have, what the pool has, and what the ledger still holds."""
    parties = statement["parties"].values()
    return (sum(party["before"] for party in parties), sum(party["after"] for party in parties),
            statement["tax_pool"], statement.get("left_in_ledger", 0))


def _earnings(statement: Mapping[str, Any]) -> Iterator[Text]:
    """The intermediary's margin and the tax, each broken into what it is made of."""
    earned, pool = statement["intermediary"], statement["tax_pool"]
    margin, fee = earned["margin"], earned["fee"]
    yield _line("Intermediary", f"margin over all sessions {margin:,} = {margin - fee:,} tax + "
                                f"{fee:,} fee")
    if earned.get("pay_fees"):
        yield _line("", f"and {earned['pay_fees']:,} for hidden micropayments")
    tax = earned.get("session_tax", margin - fee)
    parts = f" = {tax:,} of sessions + {pool - tax:,} of the direct channel" if pool > tax else ""
    yield _line("Tax pool", f"{pool:,}{parts}")


def _conservation(statement: Mapping[str, Any]) -> Text:
    """Everybody's sum on both sides, so that a reader can add it up."""
    before, after, pool, left = _sums(statement)
    holds = statement["conservation"]
    sign = "=" if before == after + pool + left else "and not"
    escrow = f" + {left:,} still in escrow" if left else ""
    return Text.assemble(
        _line("Conservation", f"{before:,} before {sign} {after:,} after + {pool:,} tax{escrow}: "),
        ("holds", "bold green") if holds else ("DOES NOT HOLD", "bold red"))


def _honest(parties: Mapping[str, Mapping[str, Any]]) -> Text:
    short = [name for name, party in parties.items()
             if party["honest"] and party["after"] < party["floor"]]
    if short:
        return _line("Honest parties", f"below their floor: {', '.join(short)}", "bold red")
    return _line("Honest parties", "lost no unit", "bold green")


def _protocols(protocols: Mapping[str, Mapping[str, Any]]) -> Table:
    table = _table("protocol", "count", "median ms", "cells")
    for name, one in protocols.items():
        table.add_row(name, f"{one['count']:,}", f"{one['median_ms']:,.1f}", f"{one['cells']:,}")
    return table
