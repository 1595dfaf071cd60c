# SPDX-License-Identifier: BSD-3-Clause
"""`monetor deploy`."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .accounts import signing_key
from .networks import DEFAULT_NETWORK, connected
from .options import DEPLOYMENTS, AsJson, Deployments, Keystore, NetworkName
from .report import pairs_or_json


class ParameterSet(StrEnum):
    """The sets of network parameters that come with the program."""

    DEMO = "demo"
    DEFAULT = "default"


def run(
    network: NetworkName = DEFAULT_NETWORK,
    deployments: Deployments = DEPLOYMENTS,
    parameters: Annotated[
        ParameterSet,
        typer.Option(help="`demo` for networks that live for minutes, `default` for days."),
    ] = ParameterSet.DEMO,
    authority: Annotated[
        list[str] | None,
        typer.Option(help="Account that votes on parameters; repeat it. [default: the deployer]"),
    ] = None,
    account: Annotated[
        str, typer.Option(help="Development account that pays, on development chains only.")
    ] = "deployer",
    keystore: Keystore = None,
    as_json: AsJson = False,
) -> None:
    """Deploy the contracts and record where they are.

    What is already there is kept: a second run changes nothing, an interrupted one is continued.
    """
    record = asyncio.run(
        _deploy(network, deployments, parameters, tuple(authority or ()), account, keystore)
    )
    pairs_or_json(record, as_json=as_json)


async def _deploy(
    network: str,
    deployments: Path,
    parameters: ParameterSet,
    authorities: tuple[str, ...],
    account: str,
    keystore: Path | None,
) -> dict[str, object]:
    from monetor_chain.accounts import address_of
    from monetor_chain.deployment import deploy
    from monetor_chain.parameters import DEFAULT, DEMO

    async with connected(network) as chain:
        key = signing_key(chain.chain_id, account, keystore)
        found = await deploy(
            chain,
            key,
            parameters=DEMO if parameters is ParameterSet.DEMO else DEFAULT,
            authorities=authorities or (address_of(key),),
            directory=deployments,
        )
    return {
        "chain_id": found.chain_id,
        "ledger": found.ledger,
        "token": found.token,
        "consensus": found.consensus,
        "tax_pool": found.tax_pool,
        "block": found.block,
        "deployments": str(deployments),
    }
