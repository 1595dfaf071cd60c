# SPDX-License-Identifier: BSD-3-Clause
"""The token: ERC-20 with permit (`contracts/Token.vy`); amounts are in units.

It either wraps the native coin, one gwei a unit, or is issued by the authorities.
"""

from __future__ import annotations

from typing import Any

from .. import authorisations
from ..abi import Function
from ..accounts import address_of
from ..authorisations import Permit
from ..sender import Receipt, Sender
from .contract import Contract

WEI_PER_UNIT = 10**9

FUNCTIONS = {
    function.name: function
    for function in (
        Function("balanceOf(address)", "(uint256)"),
        Function("allowance(address,address)", "(uint256)"),
        Function("totalSupply()", "(uint256)"),
        Function("nonces(address)", "(uint256)"),
        Function("DOMAIN_SEPARATOR()", "(bytes32)"),
        Function("consensus()", "(address)"),
        Function("issued()", "(bool)"),
        Function("approve(address,uint256)", "(bool)"),
        Function("transfer(address,uint256)", "(bool)"),
        Function("deposit()"),
        Function("withdraw(uint256)"),
        Function("issue(address,uint256,uint256)"),
        Function("issue_count()", "(uint256)"),
        Function("burn(uint256)"),
    )
}
"""Every function that this class calls, by name."""


class Token(Contract):
    """The token at an address."""

    async def deposit(self, sender: Sender, amount: int) -> Receipt:
        """Wrap native coin of the sender's: `amount` units for as many gwei."""
        return await self._write(
            sender, FUNCTIONS["deposit"], gas=150_000, value=amount * WEI_PER_UNIT
        )

    async def withdraw(self, sender: Sender, amount: int) -> Receipt:
        """Unwrap `amount` units of the sender's."""
        return await self._write(sender, FUNCTIONS["withdraw"], amount, gas=150_000)

    async def issued(self) -> bool:
        """Whether the authorities issue the token; otherwise it wraps the native coin."""
        (value,) = await self._read(FUNCTIONS["issued"])
        return bool(value)

    async def consensus(self) -> str | None:
        """The contract whose authorities issue the token; None if it wraps the native coin."""
        (value,) = await self._read(FUNCTIONS["consensus"])
        return None if int(value, 16) == 0 else str(value)

    async def issue(self, sender: Sender, receiver: str | bytes, amount: int) -> Receipt:
        """Approve the next issue: `amount` units for `receiver`; the quorum's last one makes it."""
        number = await self._number("issue_count")
        return await self._write(
            sender, FUNCTIONS["issue"], receiver, amount, number, gas=300_000
        )

    async def burn(self, sender: Sender, amount: int) -> Receipt:
        """Destroy `amount` of the sender's units, if the token is issued."""
        return await self._write(sender, FUNCTIONS["burn"], amount, gas=100_000)

    async def transfer(self, sender: Sender, to: str | bytes, amount: int) -> Receipt:
        """Pay `amount` units to an account."""
        return await self._write(sender, FUNCTIONS["transfer"], to, amount, gas=120_000)

    async def approve(self, sender: Sender, spender: str | bytes, amount: int) -> Receipt:
        """Let `spender` move up to `amount` of the sender's units."""
        return await self._write(sender, FUNCTIONS["approve"], spender, amount, gas=100_000)

    async def balance_of(self, account: str | bytes) -> int:
        """Units that an account holds."""
        return await self._number("balanceOf", account)

    async def allowance(self, owner: str | bytes, spender: str | bytes) -> int:
        """Units of `owner` that `spender` may move."""
        return await self._number("allowance", owner, spender)

    async def total_supply(self) -> int:
        """Units in existence."""
        return await self._number("totalSupply")

    async def sign_permit(
        self, private_key: bytes, spender: str, value: int, deadline: int
    ) -> Permit:
        """A permit by the key's owner with its present permit nonce; nothing is sent.

        Two permits signed before either is mined carry one nonce, and only the first one mined
        counts: a call that brings the other is refused for want of an allowance, as a whole, and
        has to be repeated with a new permit. A permit sets the allowance and does not add to it.
        Who opens several things at a time approves the sum once instead.
        """
        (domain,) = await self._read(FUNCTIONS["DOMAIN_SEPARATOR"])
        nonce = await self._number("nonces", address_of(private_key))
        return authorisations.sign_permit(private_key, domain, spender, value, nonce, deadline)

    async def _number(self, name: str, *arguments: Any) -> int:
        (value,) = await self._read(FUNCTIONS[name], *arguments)
        return int(value)
