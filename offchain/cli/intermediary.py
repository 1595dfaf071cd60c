# SPDX-License-Identifier: BSD-3-Clause
"""`monetor intermediary`."""

from __future__ import annotations

import asyncio
import os
from dataclasses import asdict
from typing import Annotated

import typer

from .accounts import signing_key
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
    Host,
    Keystore,
    NetworkName,
    WatcherFolders,
)
from .presence import present
from .report import pairs_or_json
from .service import folder_of, running_with_store, say_ready, until_told


def run(
    name: Annotated[str, typer.Argument(help="The intermediary's nickname.")] = "intermediary",
    vault: Annotated[
        int, typer.Option(min=0, help="Fill the vault up to this many base units.")
    ] = 4_000_000,
    retire: Annotated[
        bool,
        typer.Option(
            "--retire",
            help="Open no more channels under this key, for good; serve those there are, and end "
            "when the last is paid out. A new intermediary, with an account of its own, opens "
            "the others.",
        ),
    ] = False,
    network: NetworkName = DEFAULT_NETWORK,
    deployments: Deployments = DEPLOYMENTS,
    directory: Directory = DIRECTORY,
    folder: Folder = None,
    account: Account = None,
    keystore: Keystore = None,
    confirmations: Confirmations = 0,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes any free port.")] = 0,
    watcher_folder: WatcherFolders = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Processes that verify proofs; 0 verifies in this one. "
            "One less than there are cores, if not given.",
        ),
    ] = None,
    verbose: Annotated[bool, typer.Option(help="Log what happens.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run an intermediary: register its key once, keep its vault filled, answer requests."""
    from offchain.agents.intermediary import IntermediaryAgent
    from offchain.agents.place import AgentPlace
    from offchain.verification.workers import default_workers

    from .logs import to_standard_error

    to_standard_error(verbose=verbose)
    place = AgentPlace(
        folder_of(folder, name),
        find(network).host,
        deployments,
        directory,
        host=host,
        port=port,
        confirmations=confirmations,
        watcher_folders=tuple(watcher_folder or ()),
    )

    async def serve() -> None:
        async with connected(network) as chain:
            key = signing_key(chain.chain_id, account or name, keystore)
        count = default_workers(os.cpu_count()) if workers is None else workers
        agent = IntermediaryAgent(
            place, key, vault=vault, nickname=name, workers=count, retire=retire
        )
        async with running_with_store(agent):
            facts: dict[str, object] = {"account": "0x" + agent.account.hex()}
            say_ready("intermediary", name, facts, as_json=as_json)
            await until_told(agent.engine.check, ended=agent.finished)
            if agent.finished():
                pairs_or_json(asdict(await agent.wind_up()), as_json=as_json, as_line=True)

    with present(place.folder):
        asyncio.run(serve())
