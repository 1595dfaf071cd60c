# SPDX-License-Identifier: BSD-3-Clause
"""`monetor fund`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from .accounts import DEVELOPMENT_CHAINS, address_named
from .failures import UsageProblem
from .networks import DEFAULT_NETWORK, connected
from .options import DEPLOYMENTS, AsJson, Deployments, NetworkName
from .report import say_json, say_table


def run(
    accounts: Annotated[
        list[str], typer.Argument(help="Addresses, or names of development accounts.")
    ],
    wei: Annotated[int, typer.Option(min=0, help="Native coin for gas, in wei.")] = 10**18,
    tokens: Annotated[int, typer.Option(min=0, help="Tokens, in base units.")] = 5_000_000,
    network: NetworkName = DEFAULT_NETWORK,
    deployments: Deployments = DEPLOYMENTS,
    as_json: AsJson = False,
) -> None:
    """Give accounts coin and tokens, on development chains."""
    funded = asyncio.run(_fund(accounts, wei, tokens, network, deployments))
    if as_json:
        say_json(funded)
        return
    rows = [
        (name, str(one["address"]), f"{one['wei']:,}", f"{one['tokens']:,}")
        for name, one in funded.items()
    ]
    say_table(("account", "address", "wei", "tokens"), rows)


async def _fund(
    names: list[str], wei: int, tokens: int, network: str, deployments: Path
) -> dict[str, dict[str, int | str]]:
    from monetor_chain.deployment import attach, bind
    from monetor_chain.faucet import fund

    addresses = {name: address_named(name) for name in names}
    async with connected(network) as chain:
        if chain.chain_id not in DEVELOPMENT_CHAINS:
            raise UsageProblem(f"chain {chain.chain_id} is no development chain: nothing is free")
        deployment = await attach(chain, deployments)
        token = bind(chain, deployment).token
        funded: dict[str, dict[str, int | str]] = {}
        for name, address in addresses.items():
            await fund(chain, deployment, address, wei=wei, tokens=tokens)
            funded[name] = {
                "address": address,
                "wei": await chain.wei(address),
                "tokens": await token.balance_of(address),
            }
        return funded
