# SPDX-License-Identifier: AGPL-3.0-only
# pragma version 0.4.3
# pragma evm-version prague
# pragma nonreentrancy on
"""
@title The moneTor token
@license GNU Affero General Public License v3.0 only
@notice An ERC-20 with permit and 9 decimals, created in one of two ways that are chosen at
        deployment: wrapped, where one unit stands for one gwei of the native coin held here, or
        issued, where the authorities (the owner) issue and burn.
"""

from snekmate.auth import ownable
from snekmate.auth import ownable_2step
from snekmate.tokens import erc20

initializes: ownable
initializes: ownable_2step[ownable := ownable]
initializes: erc20[ownable := ownable]

exports: (
    ownable_2step.owner,
    ownable_2step.pending_owner,
    ownable_2step.transfer_ownership,
    ownable_2step.accept_ownership,
    erc20.name,
    erc20.symbol,
    erc20.decimals,
    erc20.totalSupply,
    erc20.balanceOf,
    erc20.allowance,
    erc20.nonces,
    erc20.transfer,
    erc20.transferFrom,
    erc20.approve,
    erc20.permit,
    erc20.DOMAIN_SEPARATOR,
    erc20.eip712Domain,
)


event Deposit:
    account: indexed(address)
    amount: uint256


event Withdrawal:
    account: indexed(address)
    amount: uint256


UNIT: constant(uint256) = 10**9  # wei of the native coin in one unit

issued: public(immutable(bool))


@deploy
def __init__(issued_by_authorities: bool):
    """
    @param issued_by_authorities Whether the owner issues the token; otherwise it wraps the
           native coin.
    """
    ownable.__init__()
    ownable_2step.__init__()
    erc20.__init__("moneTor", "MTR", 9, "moneTor", "1")
    issued = issued_by_authorities


@external
@payable
def deposit():
    """
    @notice Wraps the native coin sent along, a whole number of gwei, for the caller.
    """
    assert not issued, "token: not wrapped"
    assert msg.value % UNIT == 0, "token: not a whole number of units"
    amount: uint256 = msg.value // UNIT
    erc20._mint(msg.sender, amount)
    log Deposit(account=msg.sender, amount=amount)


@external
def withdraw(amount: uint256):
    """
    @notice Unwraps `amount` units of the caller's.
    """
    assert not issued, "token: not wrapped"
    erc20._burn(msg.sender, amount)
    log Withdrawal(account=msg.sender, amount=amount)
    raw_call(msg.sender, b"", value=amount * UNIT)


@external
def issue(receiver: address, amount: uint256):
    """
    @notice Creates `amount` units; for the owner, and only if the token is issued.
    """
    assert issued, "token: not issued"
    ownable._check_owner()
    erc20._mint(receiver, amount)


@external
def burn(amount: uint256):
    """
    @notice Destroys `amount` units of the owner's; only if the token is issued.
    """
    assert issued, "token: not issued"
    ownable._check_owner()
    erc20._burn(msg.sender, amount)
