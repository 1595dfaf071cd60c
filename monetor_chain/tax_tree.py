# SPDX-License-Identifier: BSD-3-Clause
"""The Merkle tree of one distribution of tax, as the tax pool checks it.

A leaf is keccak256(keccak256(abi_encode(epoch, index, account, amount))): hashed twice, so that
neither an inner node (the hash of 64 bytes) nor its preimage passes for a leaf. A node is
keccak256 of its two children, the smaller one first, as `merkle_proof_verification` of snekmate
computes it. A sorted pair says nothing of left and right, so the leaf itself holds its index.

Levels are paired from the left. A node without a partner moves up as it is, so its proof is one
hash shorter; no entry is ever counted twice, as it would be if the last node were paired with
itself. A proof has at most ⌈log2 n⌉ hashes.
"""

from __future__ import annotations

from collections.abc import Sequence

from .statements import address_word, hash_words

_WORDS = 2**256


def leaf(epoch: int, index: int, account: str | bytes, amount: int) -> bytes:
    """Leaf of `amount` units for `account`, entry number `index` of the distribution of `epoch`.

    Raises `ValueError` for a number outside uint256 and for an account that has not 20 bytes.
    """
    for name, value in (("epoch", epoch), ("index", index), ("amount", amount)):
        if not 0 <= value < _WORDS:
            raise ValueError(f"{name} {value} is no uint256")
    return hash_words(hash_words(epoch, index, address_word(account), amount))


def node(one: bytes, other: bytes) -> bytes:
    """Parent of two nodes, in whichever order they are given."""
    return hash_words(min(one, other), max(one, other))


def verify(
    root: bytes,
    proof: Sequence[bytes],
    epoch: int,
    index: int,
    account: str | bytes,
    amount: int,
) -> bool:
    """Whether `proof`, siblings from the leaf upwards, shows that the tree holds this entry."""
    computed = leaf(epoch, index, account, amount)
    for sibling in proof:
        computed = node(computed, sibling)
    return computed == root


class TaxTree:
    """Tree over the entries (account, amount in units) of one epoch, numbered from 0.

    Building takes n − 1 hashes of nodes, a proof none. Raises `ValueError` without entries.
    """

    def __init__(self, epoch: int, entries: Sequence[tuple[str | bytes, int]]) -> None:
        if not entries:
            raise ValueError("a distribution has at least one entry")
        level = [leaf(epoch, index, *entry) for index, entry in enumerate(entries)]
        self._levels = [level]
        while len(level) > 1:
            level = [
                node(*level[i : i + 2]) if i + 1 < len(level) else level[i]
                for i in range(0, len(level), 2)
            ]
            self._levels.append(level)

    def __len__(self) -> int:
        return len(self._levels[0])

    @property
    def root(self) -> bytes:
        """What the authorities approve; the leaf itself when there is one entry."""
        return self._levels[-1][0]

    def proof(self, index: int) -> tuple[bytes, ...]:
        """Siblings of entry `index` from the leaf upwards, empty when there is one entry.

        Raises `IndexError` for an index that the distribution has not.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"entry {index} of a distribution with {len(self)} entries")
        siblings = []
        for level in self._levels[:-1]:
            sibling = index ^ 1
            if sibling < len(level):
                siblings.append(level[sibling])
            index >>= 1
        return tuple(siblings)
