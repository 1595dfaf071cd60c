# SPDX-License-Identifier: BSD-3-Clause
"""The pool of collected tax (`contracts/TaxPool.vy`). Amounts are in token base units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..abi import Function
from ..sender import Receipt, Sender
from .contract import Contract

_CLAIM = "(uint256,uint256,uint256,bytes32[])"
_DISTRIBUTION = "(bytes32,uint256,uint256,uint256,string,bytes32)"

FUNCTIONS = {
    function.name: function
    for function in (
        Function("collect()", "(uint256)"),
        Function("holdings()", "(uint256)"),
        Function("available()", "(uint256)"),
        Function("reserved()", "(uint256)"),
        Function("claim_epochs()", "(uint256)"),
        Function("ledger()", "(address)"),
        Function("token()", "(address)"),
        Function("consensus()", "(address)"),
        Function("set_ledger(address)"),
        Function("distribute(uint256,bytes32,uint256,string,bytes32)"),
        Function("distribution(uint256)", f"({_DISTRIBUTION})"),
        Function(f"claim(address,{_CLAIM}[])", "(uint256)"),
        Function("is_paid(uint256,uint256)", "(bool)"),
        Function("roll_over(uint256)", "(uint256)"),
    )
}
"""Every function that this class calls, by name."""

MAX_CLAIMS = 64
"""Shares that one call to `claim` takes."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """What the authorities published for an epoch.

    `last_epoch` is the last one in which shares can be claimed; `claimed` contains what was rolled
    over after it.
    """

    root: bytes
    total: int
    claimed: int
    last_epoch: int
    policy: str
    inputs_hash: bytes


@dataclass(frozen=True, slots=True)
class TaxShare:
    """One account's share of one distribution, with the proof that it is in the tree."""

    epoch: int
    index: int
    amount: int
    proof: tuple[bytes, ...]


class TaxPool(Contract):
    """The tax pool at an address."""

    async def collect(self, sender: Sender) -> Receipt:
        """Pull the tax that the ledger has credited."""
        return await self._write(sender, FUNCTIONS["collect"], gas=200_000)

    async def set_ledger(self, sender: Sender, ledger: str) -> Receipt:
        """Name the ledger, once; for the deployer."""
        return await self._write(sender, FUNCTIONS["set_ledger"], ledger, gas=100_000)

    async def distribute(
        self,
        sender: Sender,
        epoch: int,
        root: bytes,
        total: int,
        policy: str,
        inputs_hash: bytes,
    ) -> Receipt:
        """Approve a past epoch's distribution; the quorum's last approval publishes it."""
        return await self._write(
            sender, FUNCTIONS["distribute"], epoch, root, total, policy, inputs_hash, gas=500_000
        )

    async def claim(
        self, sender: Sender, account: str | bytes, shares: Sequence[TaxShare]
    ) -> Receipt:
        """Have `account` paid its shares, at most `MAX_CLAIMS`; those paid before are passed over.
        """
        words = [(s.epoch, s.index, s.amount, list(s.proof)) for s in shares]
        gas = 150_000 + 80_000 * len(words)
        return await self._write(sender, FUNCTIONS["claim"], account, words, gas=gas)

    async def roll_over(self, sender: Sender, epoch: int) -> Receipt:
        """Return what nobody claimed of a distribution in time to the pool."""
        return await self._write(sender, FUNCTIONS["roll_over"], epoch, gas=150_000)

    async def distribution(self, epoch: int) -> Distribution | None:
        """The distribution of an epoch; None if none was published."""
        (words,) = await self._read(FUNCTIONS["distribution"], epoch)
        return Distribution(*words) if words[1] else None

    async def is_paid(self, epoch: int, index: int) -> bool:
        """Whether a share was paid."""
        (value,) = await self._read(FUNCTIONS["is_paid"], epoch, index)
        return bool(value)

    async def holdings(self) -> int:
        """Tax that the pool holds, owed or not."""
        return await self._number("holdings")

    async def available(self) -> int:
        """Tax that the pool holds and no distribution has set aside."""
        return await self._number("available")

    async def reserved(self) -> int:
        """What published distributions still owe."""
        return await self._number("reserved")

    async def claim_epochs(self) -> int:
        """For how many epochs after its publication a distribution can be claimed."""
        return await self._number("claim_epochs")

    async def ledger(self) -> str:
        """Address of the ledger; the zero address before it is set."""
        return await self._address("ledger")

    async def token(self) -> str:
        """Address of the token."""
        return await self._address("token")

    async def consensus(self) -> str:
        """Address of the contract whose authorities publish distributions."""
        return await self._address("consensus")

    async def _address(self, name: str) -> str:
        (value,) = await self._read(FUNCTIONS[name])
        return str(value)

    async def _number(self, name: str) -> int:
        (value,) = await self._read(FUNCTIONS[name])
        return int(value)
