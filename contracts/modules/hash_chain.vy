# SPDX-License-Identifier: AGPL-3.0-only
# pragma version 0.4.3
# pragma evm-version prague
"""
@title Payment hash chains with checkpoints
@license GNU Affero General Public License v3.0 only
@notice Payment i reveals HC[i], with HC[i] = keccak256(HC[i + 1]) and HC[0] agreed beforehand.
        A Merkle tree over HC[16], HC[32], ..., HC[n] bounds a proof to 15 hashes and 14
        siblings, whatever the number of payments.
@custom:security Siblings are ordered by the bits of the position and the leaf names its index;
        in a tree with sorted pairs HC[16] would prove n payments.
"""

STRIDE: constant(uint256) = 16
MAX_PATH: constant(uint256) = 14
MIN_PAYMENTS: constant(uint256) = 32
MAX_PAYMENTS: constant(uint256) = 2**18


@internal
@pure
def _is_length(n: uint256) -> bool:
    """
    @notice Whether a chain may have `n` payments: a power of two from 32 to 2^18.
    """
    return n >= MIN_PAYMENTS and n <= MAX_PAYMENTS and n & (n - 1) == 0


@internal
@pure
def _proves(
    n: uint256,
    hc0: bytes32,
    root: bytes32,
    k: uint256,
    hc: bytes32,
    path: DynArray[bytes32, MAX_PATH],
) -> bool:
    """
    @notice Whether (hc, path) proves `k` payments on the chain (n, hc0, root).
    @dev `n` must be a permitted length. k = 0 needs no proof; for k < 16 the path is empty,
         otherwise it has exactly log2(n / 16) elements.
    """
    if k == 0:
        return True
    if k > n:
        return False
    checkpoint: uint256 = k & ~(STRIDE - 1)
    node: bytes32 = hc
    for i: uint256 in range(k & (STRIDE - 1), bound=STRIDE):
        node = keccak256(node)
    if checkpoint == 0:
        return len(path) == 0 and node == hc0
    if n // STRIDE != 1 << len(path):
        return False
    node = keccak256(concat(b"leaf", convert(convert(checkpoint, uint32), bytes4), node))
    position: uint256 = checkpoint // STRIDE - 1
    for sibling: bytes32 in path:
        if position & 1 == 0:
            node = keccak256(concat(node, sibling))
        else:
            node = keccak256(concat(sibling, node))
        position >>= 1
    return node == root
