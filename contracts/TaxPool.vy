# SPDX-License-Identifier: AGPL-3.0-only
# pragma version 0.4.3
# pragma evm-version prague
# pragma nonreentrancy on
"""
@title The pool of collected tax
@license GNU Affero General Public License v3.0 only
@notice The ledger credits tax to this contract; `collect` pulls it. Nothing leaves the pool
        here: what it holds waits for the distributions that the authorities vote on.
"""

from .interfaces import ILedger
from .interfaces import IToken

event LedgerSet:
    ledger: indexed(address)


event TaxCollected:
    amount: uint256


token: public(immutable(address))
_deployer: immutable(address)

ledger: public(address)


@deploy
def __init__(token_: address):
    assert token_.is_contract, "tax_pool: token has no code"
    token = token_
    _deployer = msg.sender


@external
def set_ledger(ledger_: address):
    """
    @notice Names the ledger, once and for ever. The ledger is deployed after its pool, so the
            constructor cannot know it.
    """
    assert msg.sender == _deployer, "tax_pool: deployer only"
    assert self.ledger == empty(address), "tax_pool: ledger is set"
    assert ledger_.is_contract, "tax_pool: ledger has no code"
    self.ledger = ledger_
    log LedgerSet(ledger=ledger_)


@external
def collect() -> uint256:
    """
    @notice Pulls the tax that the ledger has credited. Anybody may call it.
    @return The amount.
    """
    amount: uint256 = extcall ILedger(self.ledger).withdraw()
    log TaxCollected(amount=amount)
    return amount


@external
@view
def holdings() -> uint256:
    """
    @return Tax held, in units.
    """
    return staticcall IToken(token).balanceOf(self)
