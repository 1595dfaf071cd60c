# SPDX-License-Identifier: BSD-3-Clause
"""`monetor deploy`."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from .accounts import address_named, signing_key
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
    quorum: Annotated[
        int | None,
        typer.Option(min=1, help="Authorities that decide. [default: more than half of them]"),
    ] = None,
    issued: Annotated[
        bool,
        typer.Option(
            "--issued", help="A token that the authorities issue; else it wraps the native coin."
        ),
    ] = False,
    claim_epochs: Annotated[
        int, typer.Option(min=1, help="For how many epochs shares of the tax can be claimed.")
    ] = 90,
    confirmations: Annotated[
        int, typer.Option(min=0, help="Blocks to wait for after each step.")
    ] = 0,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Deploy anew, whatever the record says.")
    ] = False,
    account: Annotated[
        str, typer.Option(help="Development account that pays, on development chains only.")
    ] = "deployer",
    keystore: Keystore = None,
    as_json: AsJson = False,
) -> None:
    """Deploy the contracts and record where they are.

    What is already there is kept: a second run changes nothing, an interrupted one is continued,
    by another account too if the authorities were named.
    """
    choices = {
        "quorum": quorum,
        "issued": issued,
        "claim_epochs": claim_epochs,
        "confirmations": confirmations,
        "fresh": fresh,
    }
    voters = [address_named(one) for one in authority or ()]
    record = asyncio.run(
        _deploy(network, deployments, parameters, account, keystore, authorities=voters, **choices)
    )
    pairs_or_json(record, as_json=as_json)


async def _deploy(
    network: str,
    deployments: Path,
    parameters: ParameterSet,
    account: str,
    keystore: Path | None,
    **choices: Any,
) -> dict[str, object]:
    from monetor_chain.deployment import deploy
    from monetor_chain.parameters import DEFAULT, DEMO

    async with connected(network) as chain:
        found = await deploy(
            chain,
            signing_key(chain.chain_id, account, keystore),
            parameters=DEMO if parameters is ParameterSet.DEMO else DEFAULT,
            directory=deployments,
            **choices,
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
