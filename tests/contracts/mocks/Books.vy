# SPDX-License-Identifier: AGPL-3.0-only
# pragma version 0.4.3
# pragma evm-version prague
"""
@title All balances of the ledger in one call
@license GNU Affero General Public License v3.0 only
"""

interface Held:
    def balanceOf(account: address) -> uint256: view

interface Owed:
    def token() -> address: view
    def vault(account: address) -> uint256: view
    def credit(account: address) -> uint256: view

struct Channel:
    status: uint256
    deadline: uint256
    balance: uint256
    lock: uint256
    terms_hash: bytes32

interface Channels:
    def channel(cid: uint256) -> Channel: view


@external
@view
def balances(
    ledger: address, intermediary: address, accounts: DynArray[address, 16]
) -> DynArray[uint256, 18]:
    """
    @return The ledger's tokens, the intermediary's vault, the credit of each account.
    """
    token: address = staticcall Owed(ledger).token()
    found: DynArray[uint256, 18] = [
        staticcall Held(token).balanceOf(ledger), staticcall Owed(ledger).vault(intermediary)
    ]
    for account: address in accounts:
        found.append(staticcall Owed(ledger).credit(account))
    return found


@external
@view
def channels(ledger: address, cids: DynArray[uint256, 64]) -> DynArray[uint256[2], 64]:
    """
    @return Status and deadline of each channel.
    """
    found: DynArray[uint256[2], 64] = []
    for cid: uint256 in cids:
        c: Channel = staticcall Channels(ledger).channel(cid)
        found.append([c.status, c.deadline])
    return found
