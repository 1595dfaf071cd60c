# SPDX-License-Identifier: BSD-3-Clause
"""Coins for accounts of a development network."""

from __future__ import annotations

import asyncio

from .accounts import DEV_BALANCE_WEI, dev_address, dev_key
from .bindings.token import Token
from .chain import Chain
from .deployment import Deployment
from .errors import NotADevelopmentChain
from .sender import Sender

ROLE = "faucet"
_STOCK = 10**14
"""Tokens wrapped at a time, so that later requests need no wrapping: a tenth of the coins."""
_TRANSFER_GAS = 30_000
_ONE_COIN = 10**18


class Faucet:
    """Gives away native coin and tokens of the public faucet account; one may serve many tasks."""

    def __init__(self, chain: Chain, deployment: Deployment) -> None:
        self._chain = chain
        self._sender = Sender(chain, dev_key(ROLE))
        self._token = Token(chain, deployment.token)
        self._stocking = asyncio.Lock()

    async def fund(
        self, address: str | bytes, wei: int = _ONE_COIN, tokens: int = 0
    ) -> None:
        """Give an account `wei` of native coin and `tokens` units; returns when both arrived.

        Raises `NotADevelopmentChain` if the faucet account has nothing here.
        """
        await self._prepare(tokens)
        gifts = []
        if wei:
            gifts.append(self._sender.send(address, b"", gas=_TRANSFER_GAS, value=wei))
        if tokens:
            gifts.append(self._token.transfer(self._sender, address, tokens))
        await asyncio.gather(*gifts)

    async def _prepare(self, tokens: int) -> None:
        async with self._stocking:
            if await self._chain.wei(self._sender.address) == 0:
                await self._fill()
            if tokens and await self._token.balance_of(self._sender.address) < tokens:
                await self._token.deposit(self._sender, max(tokens, _STOCK))

    async def _fill(self) -> None:
        if not self._chain.client.lower().startswith("anvil"):
            raise NotADevelopmentChain(
                f"the faucet has no coins on chain {self._chain.chain_id} at {self._chain.url}"
            )
        await self._chain.rpc("anvil_setBalance", dev_address(ROLE), hex(DEV_BALANCE_WEI))


async def fund(
    chain: Chain,
    deployment: Deployment,
    address: str | bytes,
    wei: int = _ONE_COIN,
    tokens: int = 0,
) -> None:
    """`Faucet.fund` once; keep a `Faucet` to fund many accounts."""
    await Faucet(chain, deployment).fund(address, wei, tokens)
