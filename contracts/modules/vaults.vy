# SPDX-License-Identifier: AGPL-3.0-only
# pragma version 0.4.3
# pragma evm-version prague
# pragma nonreentrancy on
"""
@title Intermediaries' vaults and withdrawable balances
@license GNU Affero General Public License v3.0 only
@notice The only module that moves tokens. Payouts are credited and pulled, so no receiver can
        stand in the way of anybody else. The tax pool is one of the credited accounts.
"""

from ..interfaces import ILedgerEvents
from ..interfaces import IToken
from . import refusal

struct Permit:
    value: uint256
    deadline: uint256
    signature: Bytes[65]


token: public(immutable(address))
tax_pool: public(immutable(address))
tax_rate_bp: public(immutable(uint256))

vault: public(HashMap[address, uint256])
credit: public(HashMap[address, uint256])


@deploy
def __init__(token_: address, tax_pool_: address, tax_rate_bp_: uint256):
    refusal._unless(token_.is_contract, "vaults: token has no code")
    refusal._unless(tax_pool_ != empty(address), "vaults: no tax pool")
    token = token_
    tax_pool = tax_pool_
    tax_rate_bp = tax_rate_bp_


@external
def deposit_vault(amount: uint256):
    """
    @notice Adds `amount` of the caller's tokens to the caller's vault.
    """
    self._pull(msg.sender, amount)
    balance: uint256 = self.vault[msg.sender] + amount
    self.vault[msg.sender] = balance
    log ILedgerEvents.VaultChanged(intermediary=msg.sender, balance=balance)


@external
def withdraw_vault(amount: uint256):
    """
    @notice Pays `amount` out of the caller's vault to the caller.
    """
    self._take(msg.sender, amount)
    log ILedgerEvents.VaultChanged(intermediary=msg.sender, balance=self.vault[msg.sender])
    self._push(msg.sender, amount)


@external
def withdraw() -> uint256:
    """
    @notice Pays the caller's whole withdrawable balance out to the caller.
    @return The amount paid.
    """
    amount: uint256 = self.credit[msg.sender]
    self.credit[msg.sender] = 0
    log ILedgerEvents.Withdrawn(account=msg.sender, amount=amount)
    self._push(msg.sender, amount)
    return amount


@internal
def _take(intermediary: address, amount: uint256):
    """
    @notice Removes `amount` from a vault.
    """
    balance: uint256 = self.vault[intermediary]
    refusal._unless(balance >= amount, "vaults: vault too small")
    self.vault[intermediary] = unsafe_sub(balance, amount)


@internal
def _put(intermediary: address, amount: uint256):
    """
    @notice Adds `amount` to a vault.
    """
    if amount > 0:
        self.vault[intermediary] += amount


@internal
def _credit(account: address, amount: uint256):
    """
    @notice Adds `amount` to what `account` may withdraw.
    """
    if amount > 0:
        self.credit[account] += amount


@internal
def _permit(owner: address, permit: Permit):
    """
    @notice Passes an ERC-2612 permit on. Its failure is ignored: somebody may have submitted it
            first, and the transfer decides anyway.
    """
    if len(permit.signature) != 65:
        return
    success: bool = raw_call(
        token,
        abi_encode(
            owner,
            self,
            permit.value,
            permit.deadline,
            convert(slice(permit.signature, 64, 1), uint256),
            extract32(permit.signature, 0),
            extract32(permit.signature, 32),
            method_id=method_id("permit(address,address,uint256,uint256,uint8,bytes32,bytes32)"),
        ),
        revert_on_failure=False,
    )


@internal
def _pull(owner: address, amount: uint256):
    """
    @notice Moves `amount` of `owner`'s tokens to the ledger. A token that delivers less, because
            it keeps a fee, is refused.
    """
    if amount == 0:
        return
    before: uint256 = staticcall IToken(token).balanceOf(self)
    refusal._unless(
        extcall IToken(token).transferFrom(owner, self, amount, default_return_value=True),
        "vaults: transfer failed",
    )
    after: uint256 = staticcall IToken(token).balanceOf(self)
    refusal._unless(after >= before + amount, "vaults: token kept a fee")


@internal
def _push(receiver: address, amount: uint256):
    """
    @notice Moves `amount` tokens out; state must be final before.
    """
    refusal._unless(
        extcall IToken(token).transfer(receiver, amount, default_return_value=True),
        "vaults: transfer failed",
    )
