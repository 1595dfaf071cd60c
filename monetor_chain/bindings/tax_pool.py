# SPDX-License-Identifier: BSD-3-Clause
"""The pool of collected tax (`contracts/TaxPool.vy`). Amounts are in token base units."""

from __future__ import annotations

from ..abi import Function
from ..sender import Receipt, Sender
from .contract import Contract

FUNCTIONS = {
    function.name: function
    for function in (
        Function("collect()", "(uint256)"),
        Function("holdings()", "(uint256)"),
        Function("ledger()", "(address)"),
        Function("set_ledger(address)"),
    )
}
"""Every function that this class calls, by name."""


class TaxPool(Contract):
    """The tax pool at an address."""

    async def collect(self, sender: Sender) -> Receipt:
        """Pull the tax that the ledger has credited; reverts if there is none."""
        return await self._write(sender, FUNCTIONS["collect"], gas=200_000)

    async def set_ledger(self, sender: Sender, ledger: str) -> Receipt:
        """Name the ledger, once; for the deployer."""
        return await self._write(sender, FUNCTIONS["set_ledger"], ledger, gas=100_000)

    async def holdings(self) -> int:
        """Tax that the pool holds."""
        (value,) = await self._read(FUNCTIONS["holdings"])
        return int(value)

    async def ledger(self) -> str:
        """Address of the ledger; the zero address before it is set."""
        (value,) = await self._read(FUNCTIONS["ledger"])
        return str(value)
