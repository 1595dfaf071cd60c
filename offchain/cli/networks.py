# SPDX-License-Identifier: BSD-3-Clause
"""Which chain a command speaks to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from monetor_chain.settings import DEFAULT_NETWORK, Network, Settings

if TYPE_CHECKING:
    from pathlib import Path

    from monetor_chain.chain import Chain
    from monetor_chain.deployment import Contracts

__all__ = ["DEFAULT_NETWORK", "attached", "connected", "find"]


def find(name: str) -> Network:
    """The network called `name`, or the endpoint that a URL names. Raises `SettingsError`."""
    if "://" in name:
        return Network(name, name)
    return Settings.load().network(name)


@asynccontextmanager
async def connected(name: str) -> AsyncIterator[Chain]:
    """An open connection to a network, closed afterwards. Raises `ChainError`."""
    from monetor_chain.chain import Chain

    network = find(name)
    async with await Chain.connect(network.host, network.chain_id) as chain:
        yield chain


@asynccontextmanager
async def attached(name: str, deployments: Path) -> AsyncIterator[tuple[Chain, Contracts]]:
    """A connection, and the contracts that are recorded for its chain. Raises `ChainError`."""
    from monetor_chain.deployment import attach, bind

    async with connected(name) as chain:
        yield chain, bind(chain, await attach(chain, deployments))
