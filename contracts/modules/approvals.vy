# SPDX-License-Identifier: AGPL-3.0-only
# pragma version 0.4.3
# pragma evm-version prague
"""
@title Decisions by a quorum of the authorities
@license GNU Affero General Public License v3.0 only
@notice An authority approves a decision by making the very call that carries it out; the call
        that completes the quorum does. Approvals of one decision count only together: within one
        epoch and one set of authorities, so that neither a forgotten approval nor one by a member
        who has left can complete anything.
"""

from ..interfaces import IConsensus
from . import refusal

# keccak256(set number, epoch, decision) -> bit i for the authority with seat i + 1.
_ballots: HashMap[bytes32, uint256]


@internal
def _approve(standing: IConsensus.Standing, decision: bytes32) -> bool:
    """
    @notice Counts the caller's approval, whose standing is given.
    @param decision keccak256 of what is decided, with something that tells repetitions apart.
    @return Whether this approval, and no other, completes the quorum.
    """
    refusal._unless(standing.seat != 0, "approvals: authorities only")
    ballot: bytes32 = keccak256(abi_encode(standing.set_number, standing.epoch, decision))
    approved: uint256 = self._ballots[ballot]
    mine: uint256 = 1 << (standing.seat - 1)
    refusal._unless(approved & mine == 0, "approvals: approved before")
    approved |= mine
    self._ballots[ballot] = approved
    count: uint256 = 0
    for i: uint256 in range(256):
        if approved == 0:
            break
        approved &= approved - 1
        count += 1
    return count == standing.quorum
