# SPDX-License-Identifier: AGPL-3.0-only
# pragma version 0.4.3
# pragma evm-version prague
"""
@title Who gets what when a channel ends
@license GNU Affero General Public License v3.0 only
@notice Pure functions from amounts to amounts. For arbitrary inputs of a channel (deposits and
        funds below 2^40, rates up to 100 %) the shares add up to the escrow exactly.
"""

CLIENT: constant(uint256) = 1
RELAY: constant(uint256) = 2
BASIS: constant(uint256) = 10_000


@internal
@pure
def _cap(role: uint256, deposit: uint256, fund: uint256, rate: uint256) -> uint256:
    """
    @notice The most that the end user can get. A relay leaves room in the intermediary's fund
            for the tax on what it earned.
    @param rate Tax rate in basis points.
    """
    if role == RELAY:
        return deposit + fund * BASIS // (BASIS + rate)
    return deposit + fund


@internal
@pure
def _divide(
    role: uint256, deposit: uint256, fund: uint256, claim: uint256, rate: uint256
) -> (uint256, uint256, uint256):
    """
    @notice Shares (end user, intermediary, tax) of the escrow deposit + fund when the end user
            is owed `claim`. Tax falls on a relay's earnings beyond its own deposit and is
            rounded down; the intermediary keeps what rounding leaves.
    """
    to_account: uint256 = min(claim, self._cap(role, deposit, fund, rate))
    tax: uint256 = 0
    if role == RELAY and to_account > deposit:
        tax = (to_account - deposit) * rate // BASIS
    return to_account, deposit + fund - to_account - tax, tax


@internal
@pure
def _session_claim(
    role: uint256, saturated: uint256, n: uint256, k: uint256, price: uint256, delta_r: uint256
) -> uint256:
    """
    @notice What the end user is owed after `k` of `n` payments, k <= n, when its balance would be
            `saturated` after all n. The client gets the unpaid ones back; the relay loses them.
    @dev saturated < 2^64, n <= 2^18, price and delta_r < 2^32: nothing overflows.
    """
    if role == RELAY:
        unpaid: uint256 = delta_r * (n - k)
        return saturated - unpaid if saturated > unpaid else 0
    return saturated + price * (n - k)


@internal
@pure
def _guard_share(amount: uint256, rate: uint256) -> uint256:
    """
    @notice The part of `amount`, which includes the tax, that a guard receives.
    """
    return amount * BASIS // (BASIS + rate)
