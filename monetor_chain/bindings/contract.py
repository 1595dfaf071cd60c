# SPDX-License-Identifier: BSD-3-Clause
"""What all bindings share: an address on a chain, reading and writing through `abi.Function`."""

from __future__ import annotations

from typing import Any, Self

from ..abi import Function
from ..accounts import checksum
from ..chain import Chain
from ..errors import RpcError, TransactionReverted
from ..sender import Receipt, Sender, revert_reason


class Contract:
    """A contract at an address."""

    def __init__(self, chain: Chain, address: str | bytes) -> None:
        self._chain = chain
        self.address = checksum(address)
        self._block: int | str = "latest"

    @property
    def chain(self) -> Chain:
        """The chain that the contract is on."""
        return self._chain

    def at(self, block: int) -> Self:
        """The same contract for reading what it was after a block, if the node still knows."""
        earlier = type(self)(self._chain, self.address)
        earlier._block = block
        return earlier

    async def _read(self, function: Function, *arguments: Any) -> tuple[Any, ...]:
        try:
            output = await self._chain.call(
                self.address, function.encode(*arguments), block=self._block
            )
        except RpcError as error:
            if error.data or "revert" in str(error):
                reason = revert_reason(error.data)
                raise TransactionReverted(f"{function.name}: {reason}") from error
            raise
        return function.decode(output)

    async def _write(
        self, sender: Sender, function: Function, *arguments: Any, gas: int, value: int = 0
    ) -> Receipt:
        data = function.encode(*arguments)
        return await sender.send(self.address, data, gas=gas, value=value)
