# SPDX-License-Identifier: BSD-3-Clause
"""The authorities' votes on the network parameters (`contracts/Consensus.vy`)."""

from __future__ import annotations

from collections.abc import Sequence

from ..abi import Function
from ..errors import TransactionReverted
from ..parameters import NetworkParameters
from ..sender import Receipt, Sender
from .contract import Contract

PARAMETERS = "(" + ",".join(["uint256"] * len(NetworkParameters.__dataclass_fields__)) + ")"
"""ABI type of a parameter set: a word per field of `NetworkParameters`, in the same order."""

FUNCTIONS = {
    function.name: function
    for function in (
        Function("current_epoch()", "(uint256)"),
        Function("parameters(uint256)", f"({PARAMETERS})"),
        Function(f"vote(uint256,{PARAMETERS})"),
        Function("tax_rate_bp()", "(uint256)"),
        Function("quorum()", "(uint256)"),
        Function("epoch_length()", "(uint256)"),
        Function("authorities()", "(address[])"),
        Function("change_authorities(address[],uint256)"),
        Function("set_paused(bool)"),
        Function("paused()", "(bool)"),
    )
}
"""Every function that this class calls, by name."""

_BEFORE_THE_FIRST = "before the first epoch"


class Consensus(Contract):
    """The consensus contract at an address."""

    async def current_epoch(self) -> int:
        """Index of the epoch of the newest block."""
        return await self._number("current_epoch")

    async def parameters(self, epoch: int | None = None) -> NetworkParameters:
        """The set in force in `epoch`, default the present one.

        A future epoch's set can still change. For epochs before the contract existed this is the
        present set: nothing can have been set up under another one.
        """
        wanted = await self.current_epoch() if epoch is None else epoch
        try:
            (words,) = await self._read(FUNCTIONS["parameters"], wanted)
        except TransactionReverted as error:
            if _BEFORE_THE_FIRST not in error.reason or epoch is None:
                raise
            return await self.parameters()
        return NetworkParameters.from_words(words)

    async def vote(
        self, sender: Sender, parameters: NetworkParameters, epoch: int | None = None
    ) -> Receipt:
        """Cast or replace the sender's vote on the next epoch's set.

        Raises `InvalidParameters` before anything is sent if the contract would refuse the set.
        """
        parameters.check(await self.tax_rate_bp())
        target = await self.current_epoch() + 1 if epoch is None else epoch
        return await self._write(
            sender, FUNCTIONS["vote"], target, parameters.words(), gas=3_000_000
        )

    async def tax_rate_bp(self) -> int:
        """The tax rate against which sets are checked, in basis points."""
        return await self._number("tax_rate_bp")

    async def quorum(self) -> int:
        """Votes needed for a new set."""
        return await self._number("quorum")

    async def epoch_length(self) -> int:
        """Seconds in an epoch, fixed for ever."""
        return await self._number("epoch_length")

    async def authorities(self) -> tuple[str, ...]:
        """Accounts that may vote."""
        (found,) = await self._read(FUNCTIONS["authorities"])
        return tuple(found)

    async def change_authorities(
        self, sender: Sender, authorities: Sequence[str], quorum: int
    ) -> Receipt:
        """Approve another set of authorities; the quorum's last approval puts it into office."""
        return await self._write(
            sender, FUNCTIONS["change_authorities"], list(authorities), quorum, gas=3_000_000
        )

    async def set_paused(self, sender: Sender, paused: bool) -> Receipt:
        """Approve that openings of channels stop or go on; the quorum's last approval decides."""
        return await self._write(sender, FUNCTIONS["set_paused"], paused, gas=200_000)

    async def paused(self) -> bool:
        """Whether openings of channels are paused."""
        (value,) = await self._read(FUNCTIONS["paused"])
        return bool(value)

    async def _number(self, name: str) -> int:
        (value,) = await self._read(FUNCTIONS[name])
        return int(value)
