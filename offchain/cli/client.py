# SPDX-License-Identifier: BSD-3-Clause
"""`monetor client`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .accounts import signing_key
from .failures import UsageProblem
from .meter import Meter
from .networks import DEFAULT_NETWORK, connected, find
from .options import (
    DEPLOYMENTS,
    DIRECTORY,
    Account,
    AsJson,
    Confirmations,
    Deployments,
    Directory,
    Folder,
    Keystore,
    NetworkName,
    WatcherFolders,
)
from .presence import present
from .report import pairs_or_json
from .service import folder_of, running

if TYPE_CHECKING:
    from offchain.agents.client import ClientAgent

GUARD_PRIVATE_KEY = "MONETOR_GUARD_PRIVATE_KEY"

PAID_BY_SESSION = 2
"""Hops of a circuit that sessions pay: middle and exit."""


def run(
    url: Annotated[str | None, typer.Argument(help="What to download.")] = None,
    name: Annotated[str, typer.Option(help="The client's name on this machine.")] = "client",
    sessions: Annotated[
        int, typer.Option(min=1, help="Sessions that each of the client's channels can pay.")
    ] = 4,
    channels: Annotated[int, typer.Option(min=2, max=256, help="Channels to open.")] = 4,
    settle: Annotated[
        bool, typer.Option("--settle", help="Afterwards cash out, withdraw and close the guards.")
    ] = False,
    tit_for_tat: Annotated[
        bool,
        typer.Option(
            "--tit-for-tat",
            help="Stop paying now and then to see whether it helps, and leave circuits that are no "
            "faster for it.",
        ),
    ] = False,
    network: NetworkName = DEFAULT_NETWORK,
    deployments: Deployments = DEPLOYMENTS,
    directory: Directory = DIRECTORY,
    confirmations: Confirmations = 0,
    folder: Folder = None,
    account: Account = None,
    keystore: Keystore = None,
    guard_keystore: Annotated[
        Path | None,
        typer.Option(
            help="Keystore of the account that pays guards and must not be tied to the other. "
            "Without it, MONETOR_GUARD_PRIVATE_KEY or the development account NAME-guard."
        ),
    ] = None,
    watcher_folder: WatcherFolders = None,
    verbose: Annotated[bool, typer.Option(help="Log what happens.")] = False,
    as_json: AsJson = False,
) -> None:
    """Download through three relays, paying each; then close the sessions.

    The channels stay open for the next download unless --settle is given, which also works
    without a URL; so does --watcher-folder, which then renews what the watcher holds.
    """
    if url is None and not settle and not watcher_folder:
        raise UsageProblem("nothing to do: give a URL, or --settle")
    from offchain.agents.client import ClientAgent
    from offchain.agents.download import Target
    from offchain.agents.place import AgentPlace

    if url is not None:
        Target.of(url)
    from .logs import to_standard_error

    to_standard_error(verbose=verbose)
    place = AgentPlace(
        folder_of(folder, name),
        find(network).host,
        deployments,
        directory,
        confirmations=confirmations,
        watcher_folders=tuple(watcher_folder or ()),
    )

    async def work(meter: Meter) -> dict[str, object]:
        async with connected(network) as chain:
            key = signing_key(chain.chain_id, account or name, keystore)
            guard_key = signing_key(
                chain.chain_id, f"{account or name}-guard", guard_keystore, GUARD_PRIVATE_KEY
            )
        agent = ClientAgent(
            place, key, guard_key=guard_key, nickname=name, tit_for_tat=tit_for_tat
        )
        facts: dict[str, object] = {}
        async with running(agent):
            if url is not None:
                meter.step("opening channels")
                terms = agent.engine.moment().parameters
                await agent.have_channels(
                    deposit=sessions * terms.n * terms.price, fund=0, count=channels
                )
                facts |= await _download(agent, url, meter)
            if settle:
                meter.step("cashing out")
                facts["withdrawn"] = await agent.settle()
                facts["channels_not_paid_out"] = agent.unsettled()
        return facts

    with present(place.folder), Meter(quiet=as_json) as meter:
        facts = asyncio.run(work(meter))
    pairs_or_json(facts, as_json=as_json)


async def _download(agent: ClientAgent, url: str, meter: Meter) -> dict[str, object]:
    """Download, and close the sessions however that ends: a lost download is no lost money."""
    try:
        meter.step("setting up sessions and building a paid circuit")
        await agent.prepare_sessions(PAID_BY_SESSION)
        meter.step(f"downloading {url}")
        found = await agent.download(url, meter.progress)
    finally:
        meter.step("closing the sessions")
        await agent.close_sessions()
    return {
        "url": url,
        "bytes": found.size,
        "sha256": found.sha256,
        "seconds": round(found.seconds, 3),
        "sent": {hop: agent.sent(hop) for hop in ("guard", "middle", "exit")},
    }
