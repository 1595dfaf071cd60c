# SPDX-License-Identifier: AGPL-3.0-only
# pragma version 0.4.3
# pragma evm-version prague
"""
@title A token that misbehaves on request
@license GNU Affero General Public License v3.0 only
@notice Modes: 0 honest, 1 keeps a fee, 2 returns false, 3 reverts, 4 calls the ledger back while
        a transfer is under way, 5 delivers nothing but claims success.
"""

interface Ledger:
    def deposit_vault(amount: uint256): nonpayable


mode: public(uint256)
balanceOf: public(HashMap[address, uint256])
nonces: public(HashMap[address, uint256])


@external
def set_mode(mode: uint256):
    self.mode = mode


@external
@payable
def deposit():
    self.balanceOf[msg.sender] += msg.value // 10**9


@external
def approve(spender: address, amount: uint256) -> bool:
    return True


@external
def transfer(to: address, amount: uint256) -> bool:
    return self._move(msg.sender, to, amount)


@external
def transferFrom(owner: address, to: address, amount: uint256) -> bool:
    return self._move(owner, to, amount)


@internal
def _move(owner: address, to: address, amount: uint256) -> bool:
    mode: uint256 = self.mode
    assert mode != 3, "odd"
    if mode == 2:
        return False
    if mode == 4:
        # Without a lock this call would succeed: nothing is to be moved.
        extcall Ledger(msg.sender).deposit_vault(0)
    if mode == 5:
        return True
    self.balanceOf[owner] -= amount
    self.balanceOf[to] += amount - (amount // 100 if mode == 1 else 0)
    return True
