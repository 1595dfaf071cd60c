# SPDX-License-Identifier: BSD-3-Clause
"""Hash chains with position-bound checkpoints: what a nanopayment reveals and a claim proves.

HC[n] is random and HC[i] = keccak256(HC[i+1]). Payment i reveals HC[i]; HC[0] and the root of a
Merkle tree over HC[16], HC[32], ..., HC[n] are public. The tree's directions come from the index
and its depth from n, so no value can be claimed at another position than its own. A claim of k
costs at most 15 hashes and log2(n / 16) siblings. (Paper section V-C; checkpoints are ours.)
"""

from __future__ import annotations

import secrets

from monetor_chain.statements import (
    CHECKPOINT_STRIDE,
    MAX_PAYMENTS,
    MIN_PAYMENTS,
    checkpoint_leaf,
    checkpoint_node,
    keccak256,
)
from offchain.crypto.errors import CryptoError

VALUE_BYTES = 32


def check_length(n: int) -> None:
    """CryptoError unless `n` payments make a valid chain: a power of two, 32 to 2**18."""
    if not MIN_PAYMENTS <= n <= MAX_PAYMENTS or n & (n - 1):
        raise CryptoError(f"n: {n} is not a power of two from {MIN_PAYMENTS} to {MAX_PAYMENTS}")


def path_length(n: int) -> int:
    """Number of siblings in a checkpoint's path: log2(n / 16)."""
    return (n // CHECKPOINT_STRIDE).bit_length() - 1


class HashChain:
    """The payer's side of a chain. Only `seed` = HC[n] needs storing: the rest is recomputed."""

    def __init__(self, n: int, seed: bytes) -> None:
        check_length(n)
        if len(seed) != VALUE_BYTES:
            raise CryptoError(f"seed: has {VALUE_BYTES} bytes, this one has {len(seed)}")
        self.n = n
        values = [seed]
        for _ in range(n):
            values.append(keccak256(values[-1]))
        values.reverse()
        self._values = values
        level = [
            checkpoint_leaf(i, values[i])
            for i in range(CHECKPOINT_STRIDE, n + 1, CHECKPOINT_STRIDE)
        ]
        self._levels = [level]
        while len(level) > 1:
            pairs = zip(level[::2], level[1::2], strict=True)
            level = [checkpoint_node(left, right) for left, right in pairs]
            self._levels.append(level)

    @classmethod
    def generate(cls, n: int) -> HashChain:
        """A fresh chain for `n` payments."""
        return cls(n, secrets.token_bytes(VALUE_BYTES))

    def __repr__(self) -> str:
        return f"HashChain(n={self.n}, hc0={self.hc0.hex()})"

    @property
    def seed(self) -> bytes:
        """HC[n], the secret that determines the chain."""
        return self._values[-1]

    @property
    def hc0(self) -> bytes:
        """HC[0], the public end."""
        return self._values[0]

    @property
    def root(self) -> bytes:
        """Root of the checkpoint tree."""
        return self._levels[-1][0]

    def value(self, k: int) -> bytes:
        """HC[k] for k in [0, n]."""
        if not 0 <= k <= self.n:
            raise CryptoError(f"k: {k} is outside [0, {self.n}]")
        return self._values[k]

    def path(self, k: int) -> tuple[bytes, ...]:
        """Siblings, leaf first, of the last checkpoint at or below payment `k`; () for k < 16."""
        if not 0 <= k <= self.n:
            raise CryptoError(f"k: {k} is outside [0, {self.n}]")
        if k < CHECKPOINT_STRIDE:
            return ()
        position = k // CHECKPOINT_STRIDE - 1
        siblings = []
        for level in self._levels[:-1]:
            siblings.append(level[position ^ 1])
            position >>= 1
        return tuple(siblings)


def verify_checkpoint(
    *, n: int, root: bytes, index: int, value: bytes, path: tuple[bytes, ...]
) -> bool:
    """Whether `value` is HC[index] of the chain of `n` payments with checkpoint root `root`."""
    if index < CHECKPOINT_STRIDE or index > n or index % CHECKPOINT_STRIDE:
        return False
    if len(value) != VALUE_BYTES or len(path) != path_length(n):
        return False
    position = index // CHECKPOINT_STRIDE - 1
    node = checkpoint_leaf(index, value)
    for sibling in path:
        if len(sibling) != VALUE_BYTES:
            return False
        node = checkpoint_node(sibling, node) if position & 1 else checkpoint_node(node, sibling)
        position >>= 1
    return node == root


def verify_claim(
    *, n: int, hc0: bytes, root: bytes, k: int, hc: bytes, path: tuple[bytes, ...]
) -> bool:
    """Whether (k, hc, path) proves `k` payments on the chain (n, hc0, root).

    The one predicate of relay, intermediary and ledger. k = 0 claims nothing and needs no
    preimage, so `hc` and `path` are not looked at; for 0 < k < 16 the path must be empty.
    """
    if not 0 <= k <= n:
        return False
    if k == 0:
        return True
    if len(hc) != VALUE_BYTES:
        return False
    value = hc
    for _ in range(k % CHECKPOINT_STRIDE):
        value = keccak256(value)
    if k < CHECKPOINT_STRIDE:
        return not path and value == hc0
    return verify_checkpoint(
        n=n, root=root, index=k - k % CHECKPOINT_STRIDE, value=value, path=path
    )
