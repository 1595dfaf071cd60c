# SPDX-License-Identifier: BSD-3-Clause
"""`monetor wallet`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .accounts import DEVELOPMENT_CHAINS, address_named
from .failures import UsageProblem
from .networks import connected
from .options import DEPLOYMENTS, AsJson, Deployments, Folder
from .report import say, say_json
from .service import folder_of

if TYPE_CHECKING:
    from offchain.agents.wallet_report import Report

TOKEN = 10**9
"""Base units of one token."""
ENTRIES = 20
"""Lines of the history that are shown."""


def run(
    name: Annotated[str, typer.Argument(help="The party's name on this machine.")] = "client",
    network: Annotated[
        str | None,
        typer.Option(
            envvar="MONETOR_NETWORK",
            help="Ask the ledger, too, what can be withdrawn: a network of brownie-config.yaml, "
            "or the URL of a JSON-RPC endpoint.",
        ),
    ] = None,
    account: Annotated[
        list[str] | None,
        typer.Option(
            help="Ask for this account as well: the one that pays guards, an intermediary's. An "
            "address, or the name of a development account; may be repeated."
        ),
    ] = None,
    entries: Annotated[
        int, typer.Option("--history", min=0, help="Show so many entries of the history; 0: all.")
    ] = ENTRIES,
    deployments: Deployments = DEPLOYMENTS,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Show a party's channel groups, channels, sessions, balances and history.

    Read from its folder, whether or not it is running; nothing is changed and no key is needed.
    """
    from offchain.agents.wallet_report import read_report

    report = read_report(folder_of(folder, name) / "store.sqlite")
    on_ledger = None
    if network is not None:
        on_ledger = asyncio.run(_on_ledger(report, network, deployments, account or []))
    facts = _facts(name, report, on_ledger, entries)
    if as_json:
        say_json(facts)
    else:
        _show(facts)


async def _on_ledger(
    report: Report, network: str, deployments: Path, named: Sequence[str]
) -> list[dict[str, Any]]:
    from monetor_chain.deployment import attach, bind
    from offchain.agents.place import ChainAccess

    async with connected(network) as chain:
        deployment = await attach(chain, deployments)
        contracts = bind(chain, deployment)
        if ChainAccess(chain, deployment, contracts).network != report.network:
            raise UsageProblem(
                "the store is of another network than the ledger that was asked; "
                "give another --network or --folder"
            )
        if chain.chain_id not in DEVELOPMENT_CHAINS and not all(
            one.startswith("0x") for one in named
        ):
            raise UsageProblem("a development account's name means nothing on this chain")
        owned = ["0x" + one.hex() for one in report.accounts]
        addresses = dict.fromkeys([*owned, *map(address_named, named)])
        return [
            {
                "account": one,
                "tokens": int(await contracts.token.balance_of(one)),
                "withdrawable": int(await contracts.ledger.credit(one)),
                "vault": int(await contracts.ledger.vault(one)),
            }
            for one in addresses
        ]


def _facts(
    name: str, report: Report, on_ledger: list[dict[str, Any]] | None, entries: int
) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "name": name,
        "role": report.role,
        "block": report.block,
        "time": report.time,
        "groups": [asdict(one) for one in report.groups],
    }
    if report.role == "intermediary":
        facts["sessions_by_phase"] = dict(report.sessions_by_phase)
    else:
        facts |= {
            "channels": [asdict(one) for one in report.channels],
            "sessions": [asdict(one) for one in report.sessions],
            "direct": [asdict(one) for one in report.direct],
            "balances": {
                "available": report.worth.available,
                "locked": report.worth.locked,
                "pending": report.worth.pending,
                "unsettled": report.unsettled,
                "direct": sum(one.left for one in report.direct),
                "paid_out": report.worth.settled,
            },
            "history": [asdict(one) for one in report.history[-entries:]],
        }
    if on_ledger is not None:
        facts["accounts"] = on_ledger
    return facts


_MEANING = {
    "available": "in idle channels",
    "locked": "in sessions and payments under way",
    "pending": "waiting for the ledger",
    "unsettled": "{paid} in sessions that are not closed; {how} the above",
    "direct": "{left} direct channels",
    "paid_out": "credited by the ledger so far",
}


def _show(facts: dict[str, Any]) -> None:
    say(f"{facts['role']} {facts['name']}, at block {facts['block']:,} of {_when(facts['time'])}")
    _table("Groups", facts["groups"], {"group", "intermediary", "phase"})
    if "balances" in facts:
        _table("Channels", facts["channels"], {"group", "state"})
        sessions = [one | {"expires": _when(one["expires"])} for one in facts["sessions"]]
        _table("Sessions", sessions, {"session", "group", "state", "expires"})
        _table("Direct channels", facts["direct"], {"channel"})
        client = facts["role"] == "client"
        words = {
            "paid": "paid" if client else "earned",
            "how": "no more in" if client else "part of",
            "left": "left in" if client else "to be claimed on",
        }
        balances = [
            {
                "balance": what.replace("_", " "),
                "units": units,
                "tokens": f"{units / TOKEN:,.9f}",
                "what it is": _MEANING[what].format(**words),
            }
            for what, units in facts["balances"].items()
        ]
        _table("Balances", balances, {"balance", "what it is"})
    else:
        phases = [
            {"phase": phase, "number": number}
            for phase, number in facts["sessions_by_phase"].items()
        ]
        _table("Sessions", phases, {"phase"})
    _table("On the ledger", facts.get("accounts", []), {"account"})
    history = [one | {"at": _when(one["at"])} for one in facts.get("history", [])]
    _table("History", history, {"at", "what", "subject"})


def _table(title: str, rows: Sequence[dict[str, Any]], words: set[str]) -> None:
    """A table of equal rows, whose columns are numbers but for `words`; none without rows."""
    if not rows:
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in rows[0]:
        table.add_column(column, justify="left" if column in words else "right")
    for row in rows:
        table.add_row(*(_cell(row[column]) for column in rows[0]))
    Console().print(table)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    return f"{value:,}" if isinstance(value, int) else str(value)


def _when(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%d %H:%M:%S")
