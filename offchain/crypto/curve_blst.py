# SPDX-License-Identifier: BSD-3-Clause
# ruff: noqa: D102  (methods are documented in curve.Backend)
"""BLS12-381 by supranational's blst, through pyblst: the fast backend.

pyblst takes integers of any size and sign as scalars and reduces them; its `uncompress` checks
the subgroup. It has no multi-scalar multiplication; bases that are used often get tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Protocol, Self, cast

from offchain.crypto.curve import G1, G1_GENERATOR, G2, G2_GENERATOR
from offchain.crypto.fixed_base import FixedBases

_pyblst: Any = import_module("pyblst")  # It has no type information.


class _Point(Protocol):
    """What pyblst's two point classes have in common."""

    def __add__(self, other: Self, /) -> Self: ...
    def __neg__(self) -> Self: ...
    def scalar_mul(self, k: int) -> Self: ...
    def compress(self) -> bytes: ...


class Blst:
    """`curve.Backend` over pyblst."""

    name = "blst"

    def __init__(self) -> None:
        self._fixed1: FixedBases[_Point] = FixedBases(_scalar_mul)
        self._fixed2: FixedBases[_Point] = FixedBases(_scalar_mul)
        self.g1: G1 = self.uncompress_g1(G1_GENERATOR)
        self.g2: G2 = self.uncompress_g2(G2_GENERATOR)
        self.expect_g1(self.g1)
        self.expect_g2(self.g2)

    def expect_g1(self, point: G1) -> None:
        self._fixed1.expect(cast(_Point, point))

    def expect_g2(self, point: G2) -> None:
        self._fixed2.expect(cast(_Point, point))

    def add_g1(self, a: G1, b: G1) -> G1:
        return cast(G1, cast(_Point, a) + cast(_Point, b))

    def add_g2(self, a: G2, b: G2) -> G2:
        return cast(G2, cast(_Point, a) + cast(_Point, b))

    def neg_g1(self, a: G1) -> G1:
        return cast(G1, -cast(_Point, a))

    def neg_g2(self, a: G2) -> G2:
        return cast(G2, -cast(_Point, a))

    def mul_g1(self, a: G1, k: int) -> G1:
        return cast(G1, self._fixed1.multiply(cast(_Point, a), k))

    def mul_g2(self, a: G2, k: int) -> G2:
        return cast(G2, self._fixed2.multiply(cast(_Point, a), k))

    def msm_g1(self, points: Sequence[G1], scalars: Sequence[int]) -> G1:
        return cast(G1, _sum_of_products(self._fixed1, cast(Sequence[_Point], points), scalars))

    def msm_g2(self, points: Sequence[G2], scalars: Sequence[int]) -> G2:
        return cast(G2, _sum_of_products(self._fixed2, cast(Sequence[_Point], points), scalars))

    def encode_g1(self, a: G1) -> bytes:
        return cast(_Point, a).compress()

    def encode_g2(self, a: G2) -> bytes:
        return cast(_Point, a).compress()

    def uncompress_g1(self, data: bytes) -> G1:
        return G1(_pyblst.BlstP1Element.uncompress(data))

    def uncompress_g2(self, data: bytes) -> G2:
        return G2(_pyblst.BlstP2Element.uncompress(data))

    def pairing_equal(self, a: G1, b: G2, c: G1, d: G2) -> bool:
        return bool(_pyblst.final_verify(_pyblst.miller_loop(a, b), _pyblst.miller_loop(c, d)))


def _scalar_mul(point: _Point, k: int) -> _Point:
    return point.scalar_mul(k)


def _sum_of_products(
    fixed: FixedBases[_Point], points: Sequence[_Point], scalars: Sequence[int]
) -> _Point:
    total: _Point | None = None
    for point, scalar in zip(points, scalars, strict=True):
        product = fixed.multiply(point, scalar)
        total = product if total is None else total + product
    if total is None:
        raise ValueError("an empty sum has no group")
    return total
