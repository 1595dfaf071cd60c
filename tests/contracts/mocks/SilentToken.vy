# SPDX-License-Identifier: AGPL-3.0-only
# pragma version 0.4.3
# pragma evm-version prague
"""
@title A token whose transfers return nothing
@license GNU Affero General Public License v3.0 only
"""

balanceOf: public(HashMap[address, uint256])
nonces: public(HashMap[address, uint256])


@external
@payable
def deposit():
    self.balanceOf[msg.sender] += msg.value // 10**9


@external
def approve(spender: address, amount: uint256):
    pass


@external
def transfer(to: address, amount: uint256):
    self.balanceOf[msg.sender] -= amount
    self.balanceOf[to] += amount


@external
def transferFrom(owner: address, to: address, amount: uint256):
    self.balanceOf[owner] -= amount
    self.balanceOf[to] += amount
