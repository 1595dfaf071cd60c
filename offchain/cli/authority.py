# SPDX-License-Identifier: BSD-3-Clause
"""`monetor authority`."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from .networks import DEFAULT_NETWORK, find
from .options import (
    DEPLOYMENTS,
    DIRECTORY_PORT,
    AsJson,
    Deployments,
    Folder,
    Host,
    NetworkName,
)
from .presence import present
from .service import folder_of, running, say_ready, until_told


def run(
    name: Annotated[str, typer.Argument(help="The authority's name.")] = "authority",
    network: NetworkName = DEFAULT_NETWORK,
    deployments: Deployments = DEPLOYMENTS,
    folder: Folder = None,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes any free port.")] = DIRECTORY_PORT,
    verbose: Annotated[bool, typer.Option(help="Log what happens.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run the authority that routers publish themselves to and clients ask for routers."""
    from offchain.agents.directory import Authority
    from offchain.agents.place import AgentPlace

    from .logs import to_standard_error

    to_standard_error(verbose=verbose)
    place = AgentPlace(
        folder_of(folder, name), find(network).host, deployments, "", host=host, port=port
    )

    async def serve() -> None:
        authority = Authority(place)
        async with running(authority):
            facts: dict[str, object] = {
                "url": authority.url,
                "identity": authority.identity.hex(),
            }
            say_ready("authority", name, facts, as_json=as_json)
            await until_told()

    with present(place.folder):
        asyncio.run(serve())
