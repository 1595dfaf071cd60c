# SPDX-License-Identifier: AGPL-3.0-only
# pragma version 0.4.3
# pragma evm-version prague
"""
@title The pure modules, callable by tests
@license GNU Affero General Public License v3.0 only
"""

from modules import hash_chain
from modules import ps_verifier
from modules import settlement

struct Case:
    role: uint256
    deposit: uint256
    fund: uint256
    claim: uint256
    rate: uint256


struct Outcome:
    role: uint256
    saturated: uint256
    n: uint256
    k: uint256
    price: uint256
    delta_r: uint256


@external
@pure
def divide(cases: DynArray[Case, 256]) -> DynArray[uint256[3], 256]:
    shares: DynArray[uint256[3], 256] = []
    for c: Case in cases:
        account: uint256 = 0
        intermediary: uint256 = 0
        tax: uint256 = 0
        account, intermediary, tax = settlement._divide(
            c.role, c.deposit, c.fund, c.claim, c.rate
        )
        shares.append([account, intermediary, tax])
    return shares


@external
@pure
def session_claims(cases: DynArray[Outcome, 256]) -> DynArray[uint256, 256]:
    results: DynArray[uint256, 256] = []
    for c: Outcome in cases:
        results.append(
            settlement._session_claim(c.role, c.saturated, c.n, c.k, c.price, c.delta_r)
        )
    return results


@external
@pure
def guard_share(amount: uint256, rate: uint256) -> uint256:
    return settlement._guard_share(amount, rate)


@external
@pure
def proves(
    n: uint256,
    hc0: bytes32,
    root: bytes32,
    k: uint256,
    hc: bytes32,
    path: DynArray[bytes32, 14],
) -> bool:
    return hash_chain._proves(n, hc0, root, k, hc, path)


@external
@view
def is_token(
    public_key: Bytes[768],
    tag: uint256,
    cid: uint256,
    wpk: uint256,
    balance: uint256,
    token: Bytes[512],
) -> bool:
    return ps_verifier._is_token(public_key, tag, cid, wpk, balance, token)


@external
@view
def commitment(cid: uint256, balance: uint256, rho: uint256) -> bytes32:
    return ps_verifier._commitment(cid, balance, rho)


# The same for many cases at once, in static arrays: no copies, so that a million fit into minutes.
# Longer lists of arguments than these take more memory than they save calls.
MANY: constant(uint256) = 500


@external
@pure
def divide_many(cases: uint256[5][MANY]) -> uint256[3][MANY]:
    """
    @param cases role, deposit, fund, claim, rate
    """
    shares: uint256[3][MANY] = empty(uint256[3][MANY])
    for i: uint256 in range(MANY):
        c: uint256[5] = cases[i]
        account: uint256 = 0
        intermediary: uint256 = 0
        tax: uint256 = 0
        account, intermediary, tax = settlement._divide(c[0], c[1], c[2], c[3], c[4])
        shares[i] = [account, intermediary, tax]
    return shares


@external
@pure
def session_claims_many(cases: uint256[6][MANY]) -> uint256[MANY]:
    """
    @param cases role, saturated, n, k, price, delta_r
    """
    results: uint256[MANY] = empty(uint256[MANY])
    for i: uint256 in range(MANY):
        c: uint256[6] = cases[i]
        results[i] = settlement._session_claim(c[0], c[1], c[2], c[3], c[4], c[5])
    return results


@external
@pure
def guard_shares_many(cases: uint256[2][MANY]) -> uint256[MANY]:
    """
    @param cases amount, rate
    """
    results: uint256[MANY] = empty(uint256[MANY])
    for i: uint256 in range(MANY):
        c: uint256[2] = cases[i]
        results[i] = settlement._guard_share(c[0], c[1])
    return results
