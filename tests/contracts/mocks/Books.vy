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

struct Guard:
    state: uint256
    client: address
    payout: address
    deposit: uint256
    claimed: uint256
    price: uint256
    dispute_window: uint256
    deadline: uint256


interface Records:
    def channel(cid: uint256) -> Channel: view
    def claims(terms_hash: bytes32) -> (uint256, uint256): view
    def guard(gid: uint256) -> Guard: view


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
        c: Channel = staticcall Records(ledger).channel(cid)
        found.append([c.status, c.deadline])
    return found


@external
@view
def claims(ledger: address, hashes: DynArray[bytes32, 256]) -> DynArray[uint256[2], 256]:
    """
    @return k_C and k_R of each session.
    """
    found: DynArray[uint256[2], 256] = []
    for terms_hash: bytes32 in hashes:
        k_c: uint256 = 0
        k_r: uint256 = 0
        k_c, k_r = staticcall Records(ledger).claims(terms_hash)
        found.append([k_c, k_r])
    return found


@external
@view
def guards(ledger: address, gids: DynArray[uint256, 64]) -> DynArray[uint256[5], 64]:
    """
    @return State, claimed sum, price, dispute window and deadline of each guard channel.
    """
    found: DynArray[uint256[5], 64] = []
    for gid: uint256 in gids:
        g: Guard = staticcall Records(ledger).guard(gid)
        found.append([g.state, g.claimed, g.price, g.dispute_window, g.deadline])
    return found
