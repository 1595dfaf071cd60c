# SPDX-License-Identifier: BSD-3-Clause
"""`monetor testnet`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from .chain import Precompiles
from .meter import Meter
from .options import AsJson
from .report import pairs_or_json
from .service import until_told


def run(
    folder: Annotated[Path, typer.Option(help="Where the parties' folders are.")] = Path(
        ".monetor/testnet"
    ),
    speed: Annotated[float, typer.Option(help="Chain seconds per real second.")] = 1.0,
    precompiles: Annotated[
        Precompiles, typer.Option(help="EIP-2537 natively, or by py-evm itself and slowly.")
    ] = Precompiles.NATIVE,
    verbose: Annotated[bool, typer.Option(help="Log what the parties do.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a whole network on this machine until it is told to end.

    The chain is new each time, so each run makes a folder of its own below the given one.
    """
    from monetor_chain.parameters import DEMO
    from offchain.testnet.network import Network, Options

    from .logs import to_standard_error

    to_standard_error(verbose=verbose)

    async def serve(meter: Meter) -> None:
        place = _fresh(folder)
        network = Network(
            Options(place, DEMO, speed=speed, precompiles=precompiles.value), say=meter.step
        )
        try:
            meter.step("starting the embedded chain and deploying the contracts")
            await network.start_chain()
            meter.step("starting authority, intermediary, three relays and two clients")
            await network.start_agents()
            meter.step("opening channels")
            await network.open_channels()
            facts: dict[str, object] = {
                "rpc": network.chain_process.url,
                "directory": network.authority.url,
                "ledger": network.deployment.ledger,
                "deployments": str(place / "deployments"),
                "folder": str(place),
            }
            pairs_or_json(facts, as_json=as_json, as_line=True)
            await until_told()
        finally:
            await network.stop()

    with Meter(quiet=as_json) as meter:
        asyncio.run(serve(meter))


def _fresh(folder: Path) -> Path:
    """The first folder `folder/1`, `folder/2`, ... that does not exist yet."""
    number = 1
    while True:
        place = folder / str(number)
        try:
            place.mkdir(parents=True, mode=0o700)
        except FileExistsError:
            number += 1
        else:
            return place
