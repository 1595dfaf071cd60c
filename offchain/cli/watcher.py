# SPDX-License-Identifier: BSD-3-Clause
"""`monetor watcher`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from .accounts import signing_key
from .networks import DEFAULT_NETWORK, connected, find
from .options import (
    DEPLOYMENTS,
    Account,
    AsJson,
    Confirmations,
    Deployments,
    Folder,
    Keystore,
    NetworkName,
)
from .presence import present
from .service import folder_of, running, say_ready, until_told


def run(
    name: Annotated[str, typer.Argument(help="The watcher's name on this machine.")] = "watcher",
    given: Annotated[
        list[Path] | None,
        typer.Option(
            "--for",
            exists=True,
            dir_okay=False,
            help="A package to take over at once; may be repeated.",
        ),
    ] = None,
    packages: Annotated[
        Path | None,
        typer.Option(
            help="Folder from which packages are taken; the --watcher-folder of whoever is "
            "watched for. [default: packages in the watcher's own folder]"
        ),
    ] = None,
    at_any_price: Annotated[
        bool,
        typer.Option(
            "--at-any-price", help="Reveal a relay's payments even if the gas costs more."
        ),
    ] = False,
    network: NetworkName = DEFAULT_NETWORK,
    deployments: Deployments = DEPLOYMENTS,
    folder: Folder = None,
    account: Account = None,
    keystore: Keystore = None,
    confirmations: Confirmations = 0,
    verbose: Annotated[bool, typer.Option(help="Log what happens.")] = False,
    as_json: AsJson = False,
) -> None:
    """Act on the ledger for parties that are down, with what they have handed over.

    Its account pays the gas and owns nothing else. It takes packages out of its folder as they
    come; a party that runs with --watcher-folder keeps it up to date.
    """
    from offchain.agents.place import AgentPlace
    from offchain.agents.watcher import WatcherAgent

    from .logs import to_standard_error

    to_standard_error(verbose=verbose)
    home = folder_of(folder, name)
    place = AgentPlace(home, find(network).host, deployments, confirmations=confirmations)

    async def serve() -> None:
        async with connected(network) as chain:
            key = signing_key(chain.chain_id, account or name, keystore)
        agent = WatcherAgent(
            place,
            key,
            nickname=name,
            packages=packages or home / "packages",
            given=given or (),
            thrifty=not at_any_price,
        )
        async with running(agent):
            facts: dict[str, object] = {
                "account": "0x" + agent.account.hex(),
                "packages": str(agent.packages),
                **agent.holdings(),
            }
            say_ready("watcher", name, facts, as_json=as_json)
            await until_told(agent.engine.check)

    with present(home):
        asyncio.run(serve())
