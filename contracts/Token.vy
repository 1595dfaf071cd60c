# SPDX-License-Identifier: AGPL-3.0-only
# pragma version 0.4.3
# pragma evm-version prague
# pragma nonreentrancy on
"""
@title The moneTor token
@license GNU Affero General Public License v3.0 only
@notice An ERC-20 with permit and 9 decimals, created in one of the paper's two ways (section
        IV-A), which is chosen at deployment: wrapped, where one unit stands for one gwei of the
        native coin held here, or issued, where a quorum of the authorities issues units to whom
        it will and holders destroy theirs.
@custom:security Nobody owns the token: what snekmate offers to an owner or a minter is not
        exported.
"""

from snekmate.auth import ownable
from snekmate.tokens import erc20
from .interfaces import IConsensus
from .modules import approvals

initializes: approvals
initializes: ownable
initializes: erc20[ownable := ownable]

exports: (
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


event IssueApproved:
    receiver: indexed(address)
    authority: indexed(address)
    amount: uint256
    number: uint256


UNIT: constant(uint256) = 10**9  # wei of the native coin in one unit

consensus: public(immutable(address))

# Issues carried out so far: the number of the next one.
issue_count: public(uint256)


@deploy
def __init__(consensus_: address):
    """
    @param consensus_ The contract whose authorities issue the token; the zero address for a token
           that wraps the native coin.
    """
    ownable.__init__()
    erc20.__init__("moneTor", "MTR", 9, "moneTor", "1")
    assert consensus_ == empty(address) or consensus_.is_contract, "token: consensus has no code"
    consensus = consensus_


@external
@payable
def deposit():
    """
    @notice Wraps the native coin sent along, a whole number of gwei, for the caller.
    """
    assert consensus == empty(address), "token: not wrapped"
    assert msg.value % UNIT == 0, "token: not a whole number of units"
    amount: uint256 = msg.value // UNIT
    erc20._mint(msg.sender, amount)
    log Deposit(account=msg.sender, amount=amount)


@external
def withdraw(amount: uint256):
    """
    @notice Unwraps `amount` units of the caller's.
    """
    assert consensus == empty(address), "token: not wrapped"
    erc20._burn(msg.sender, amount)
    log Withdrawal(account=msg.sender, amount=amount)
    raw_call(msg.sender, b"", value=amount * UNIT)


@external
def issue(receiver: address, amount: uint256, number: uint256):
    """
    @notice Approves that `amount` units are created for `receiver`; the quorum's last approval
            creates them. Only if the token is issued.
    @param number The issue's number, `issue_count`: each is carried out once.
    """
    assert consensus != empty(address), "token: not issued"
    assert number == self.issue_count, "token: not the next issue"
    standing: IConsensus.Standing = staticcall IConsensus(consensus).standing(msg.sender)
    complete: bool = approvals._approve(
        standing, keccak256(abi_encode("issue", receiver, amount, number))
    )
    log IssueApproved(
        receiver=receiver, authority=msg.sender, amount=amount, number=number
    )
    if complete:
        self.issue_count = number + 1
        erc20._mint(receiver, amount)


@external
def burn(amount: uint256):
    """
    @notice Destroys `amount` of the caller's units. Only if the token is issued: a wrapped unit is
            withdrawn instead.
    """
    assert consensus != empty(address), "token: not issued"
    erc20._burn(msg.sender, amount)


@external
@view
def issued() -> bool:
    """
    @return Whether the authorities issue the token; otherwise it wraps the native coin.
    """
    return consensus != empty(address)
