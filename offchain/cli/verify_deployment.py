# SPDX-License-Identifier: BSD-3-Clause
"""`monetor verify-deployment`."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from .networks import DEFAULT_NETWORK, connected
from .options import DEPLOYMENTS, AsJson, Deployments, NetworkName
from .report import say, say_json

if TYPE_CHECKING:
    from monetor_chain.verification import Check


def run(
    network: NetworkName = DEFAULT_NETWORK,
    deployments: Deployments = DEPLOYMENTS,
    as_json: AsJson = False,
) -> None:
    """Check that the contracts on the chain are the recorded ones and come from these sources.

    Exit status 1 if one check fails.
    """
    checks = asyncio.run(_verify(network, deployments))
    if as_json:
        say_json([asdict(check) for check in checks])
    else:
        width = max(len(check.what) for check in checks)
        for check in checks:
            verdict = "holds " if check.holds else "FAILS "
            say(f"{verdict} {check.what:<{width}}  {check.found}".rstrip())
    if not all(check.holds for check in checks):
        raise typer.Exit(1)


async def _verify(network: str, deployments: Path) -> tuple[Check, ...]:
    from monetor_chain.verification import verify_deployment

    async with connected(network) as chain:
        return await verify_deployment(chain, deployments)
