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
