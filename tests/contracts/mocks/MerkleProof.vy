# SPDX-License-Identifier: AGPL-3.0-only
# pragma version 0.4.3
# pragma evm-version prague
"""
@title Snekmate's verification of Merkle proofs over the leaves of a distribution of tax
@license GNU Affero General Public License v3.0 only
"""

from snekmate.utils import merkle_proof_verification


@external
@pure
def leaf(epoch: uint256, index: uint256, account: address, amount: uint256) -> bytes32:
    return self._leaf(epoch, index, account, amount)


@external
@pure
def verify(
    root: bytes32,
    proof: DynArray[bytes32, 255],
    epoch: uint256,
    index: uint256,
    account: address,
    amount: uint256,
) -> bool:
    return merkle_proof_verification._verify(
        proof, root, self._leaf(epoch, index, account, amount)
    )


@internal
@pure
def _leaf(epoch: uint256, index: uint256, account: address, amount: uint256) -> bytes32:
    return keccak256(
        abi_encode(keccak256(abi_encode(epoch, index, account, amount)))
    )
