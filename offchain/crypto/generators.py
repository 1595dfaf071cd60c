# SPDX-License-Identifier: BSD-3-Clause
"""Pedersen commitments in G1 over generators that nobody knows a relation between.

P1, P2, P3 are hashes of distinct labels (RFC 9380, values in `statements.GENERATORS`). They are
never an intermediary's bases, whose discrete logarithms it knows.
"""

from __future__ import annotations

from functools import cache

from monetor_chain.statements import GENERATORS
from offchain.crypto.curve import G1, Backend, backend
from offchain.crypto.encoding import FIELD_MODULUS


def _compress(x: int, y: int) -> bytes:
    flags = 0x80 | (0x20 if y > (FIELD_MODULUS - 1) // 2 else 0)
    encoded = x.to_bytes(48, "big")
    return bytes([encoded[0] | flags]) + encoded[1:]


ENCODED = tuple(_compress(x, y) for x, y in GENERATORS)
"""P1, P2, P3, compressed."""


def generators(curve: Backend) -> tuple[G1, G1, G1]:
    """P1, P2, P3 as points of `curve`."""
    return _generators(curve.name)


@cache
def _generators(name: str) -> tuple[G1, G1, G1]:
    curve = backend(name)
    p1, p2, p3 = (curve.uncompress_g1(data) for data in ENCODED)
    for point in (p1, p2, p3):
        curve.expect_g1(point)
    return p1, p2, p3


def commit_point(curve: Backend, m1: int = 0, m2: int = 0, m3: int = 0) -> G1:
    """P1^m1 P2^m2 P3^m3. It hides the other values if one is a random scalar."""
    used = [(p, m) for p, m in zip(generators(curve), (m1, m2, m3), strict=True) if m]
    if not used:
        return curve.mul_g1(curve.g1, 0)
    points, scalars = zip(*used, strict=True)
    return curve.msm_g1(points, scalars)


def commit(m1: int = 0, m2: int = 0, m3: int = 0, *, curve: Backend | None = None) -> bytes:
    """P1^m1 P2^m2 P3^m3, compressed: what `commit_point` computes."""
    curve = curve or backend()
    return curve.encode_g1(commit_point(curve, m1, m2, m3))
