# SPDX-License-Identifier: BSD-3-Clause
"""The account statement as a person reads it, made of nothing but its JSON form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .report import say, say_table


def show(statement: Mapping[str, Any]) -> None:
    """Print a statement; the keys are those of `monetor demo --json`."""
    _download(statement["download"])
    _parties(statement["parties"])
    earned = statement["intermediary"]
    say("")
    say(
        f"Intermediary   margin over all sessions {earned['margin']:,}, "
        f"of which {earned['fee']:,} is its fee after tax"
    )
    say(f"Tax pool       {statement['tax_pool']:,}")
    _conservation(statement)
    _protocols(statement["protocols"])
    for note in statement.get("notes", ()):
        say(f"Note: {note}")


def _download(download: Mapping[str, Any]) -> None:
    if not download:
        say("Download       did not arrive")
        return
    speed = download["bytes"] / max(download["seconds"], 1e-3) / 1024
    say(
        f"Download       {download['bytes']:,} bytes in {download['seconds']:.1f} s "
        f"({speed:,.0f} KiB/s)"
    )
    say(f"SHA-256        {download['sha256']}")


def _parties(parties: Mapping[str, Mapping[str, Any]]) -> None:
    say("")
    say("Accounts in base units; gas in gas units; `floor` is what the protocol guarantees")
    header = ("party", "before", "after", "change", "floor", "sent", "received", "gas")
    rows = []
    for name, party in parties.items():
        label = name if party["honest"] else f"{name} (dishonest)"
        change = party["after"] - party["before"]
        rows.append(
            (
                label,
                f"{party['before']:,}",
                f"{party['after']:,}",
                f"{change:+,}",
                f"{party['floor']:,}",
                f"{party['sent']:,}",
                f"{party['received']:,}",
                f"{party['gas']:,}",
            )
        )
    say_table(header, rows)


def _conservation(statement: Mapping[str, Any]) -> None:
    """Everybody's sum on both sides, so that a reader can add it up."""
    parties = statement["parties"].values()
    before = sum(party["before"] for party in parties)
    after = sum(party["after"] for party in parties)
    pool, left = statement["tax_pool"], statement.get("left_in_ledger", 0)
    verdict = "holds" if statement["conservation"] else "DOES NOT HOLD"
    sign = "=" if before == after + pool + left else "and not"
    escrow = f" + {left:,} still in escrow" if left else ""
    say(
        f"Conservation   {before:,} before {sign} {after:,} after + {pool:,} tax{escrow}: {verdict}"
    )
    short = [
        name
        for name, party in statement["parties"].items()
        if party["honest"] and party["after"] < party["floor"]
    ]
    say("Honest parties " + (f"below their floor: {', '.join(short)}" if short else "lost no unit"))


def _protocols(protocols: Mapping[str, Mapping[str, Any]]) -> None:
    if not protocols:
        return
    say("")
    rows = [
        (name, f"{one['count']:,}", f"{one['median_ms']:,.1f}", f"{one['cells']:,}")
        for name, one in protocols.items()
    ]
    say_table(("protocol", "count", "median ms", "cells"), rows)
