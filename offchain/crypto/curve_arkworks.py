# SPDX-License-Identifier: BSD-3-Clause
# ruff: noqa: D102  (methods are documented in curve.Backend)
"""BLS12-381 by arkworks, through py_arkworks_bls12381: the second backend.

Its multi-scalar multiplication silently cuts the longer of two unequal lists, and its `Scalar`
accepts neither negative nor large integers, so lengths and ranges are settled here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from py_arkworks_bls12381 import GT, G1Point, G2Point, Scalar

from monetor_chain.statements import GROUP_ORDER
from offchain.crypto.curve import G1, G2

_FEW = 4
"""Below this many points, single multiplications are faster than the library's Pippenger."""


def _scalar(k: int) -> Scalar:
    return Scalar.from_le_bytes((k % GROUP_ORDER).to_bytes(32, "little"))


class Arkworks:
    """`curve.Backend` over arkworks."""

    name = "arkworks"

    def __init__(self) -> None:
        self.g1: G1 = G1(G1Point())
        self.g2: G2 = G2(G2Point())

    def expect_g1(self, point: G1) -> None:
        return

    def expect_g2(self, point: G2) -> None:
        return

    def add_g1(self, a: G1, b: G1) -> G1:
        return G1(cast(G1Point, a) + cast(G1Point, b))

    def add_g2(self, a: G2, b: G2) -> G2:
        return G2(cast(G2Point, a) + cast(G2Point, b))

    def neg_g1(self, a: G1) -> G1:
        return G1(-cast(G1Point, a))

    def neg_g2(self, a: G2) -> G2:
        return G2(-cast(G2Point, a))

    def mul_g1(self, a: G1, k: int) -> G1:
        return G1(cast(G1Point, a) * _scalar(k))

    def mul_g2(self, a: G2, k: int) -> G2:
        return G2(cast(G2Point, a) * _scalar(k))

    def msm_g1(self, points: Sequence[G1], scalars: Sequence[int]) -> G1:
        native = [cast(G1Point, point) for point in points]
        _check_lengths(len(native), len(scalars))
        if len(native) < _FEW:
            total = native[0] * _scalar(scalars[0])
            for point, scalar in zip(native[1:], scalars[1:], strict=True):
                total = total + point * _scalar(scalar)
            return G1(total)
        return G1(G1Point.multiexp_unchecked(native, [_scalar(k) for k in scalars]))

    def msm_g2(self, points: Sequence[G2], scalars: Sequence[int]) -> G2:
        native = [cast(G2Point, point) for point in points]
        _check_lengths(len(native), len(scalars))
        if len(native) == 1:
            return G2(native[0] * _scalar(scalars[0]))
        return G2(G2Point.multiexp_unchecked(native, [_scalar(k) for k in scalars]))

    def encode_g1(self, a: G1) -> bytes:
        return bytes(cast(G1Point, a).to_compressed_bytes())

    def encode_g2(self, a: G2) -> bytes:
        return bytes(cast(G2Point, a).to_compressed_bytes())

    def uncompress_g1(self, data: bytes) -> G1:
        return G1(G1Point.from_compressed_bytes(data))

    def uncompress_g2(self, data: bytes) -> G2:
        return G2(G2Point.from_compressed_bytes(data))

    def pairing_equal(self, a: G1, b: G2, c: G1, d: G2) -> bool:
        left = [cast(G1Point, a), -cast(G1Point, c)]
        return GT.pairing_check(left, [cast(G2Point, b), cast(G2Point, d)])


def _check_lengths(points: int, scalars: int) -> None:
    if points != scalars or not points:
        raise ValueError(f"{points} points and {scalars} scalars do not make a sum")
