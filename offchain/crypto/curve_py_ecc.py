# SPDX-License-Identifier: BSD-3-Clause
# ruff: noqa: D102  (methods are documented in curve.Backend)
"""BLS12-381 by py_ecc: slow, pure Python, the reference that the native backends are tested with.

py_ecc's decompression checks the curve equation but not the subgroup; that test is added here.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from monetor_chain.statements import GROUP_ORDER
from offchain.crypto.curve import G1, G2

_curve: Any = import_module("py_ecc.optimized_bls12_381")  # It exports nothing explicitly.
_compression: Any = import_module("py_ecc.bls.point_compression")

_HALF = 48


class PyEcc:
    """`curve.Backend` over py_ecc."""

    name = "py_ecc"

    def __init__(self) -> None:
        self.g1: G1 = G1(_curve.G1)
        self.g2: G2 = G2(_curve.G2)

    def expect_g1(self, point: G1) -> None:
        return

    def expect_g2(self, point: G2) -> None:
        return

    def add_g1(self, a: G1, b: G1) -> G1:
        return G1(_curve.add(a, b))

    def add_g2(self, a: G2, b: G2) -> G2:
        return G2(_curve.add(a, b))

    def neg_g1(self, a: G1) -> G1:
        return G1(_curve.neg(a))

    def neg_g2(self, a: G2) -> G2:
        return G2(_curve.neg(a))

    def mul_g1(self, a: G1, k: int) -> G1:
        return G1(_curve.multiply(a, k % GROUP_ORDER))

    def mul_g2(self, a: G2, k: int) -> G2:
        return G2(_curve.multiply(a, k % GROUP_ORDER))

    def msm_g1(self, points: Sequence[G1], scalars: Sequence[int]) -> G1:
        return G1(_sum_of_products(points, scalars))

    def msm_g2(self, points: Sequence[G2], scalars: Sequence[int]) -> G2:
        return G2(_sum_of_products(points, scalars))

    def encode_g1(self, a: G1) -> bytes:
        return int(_compression.compress_G1(a)).to_bytes(_HALF, "big")

    def encode_g2(self, a: G2) -> bytes:
        high, low = _compression.compress_G2(a)
        return int(high).to_bytes(_HALF, "big") + int(low).to_bytes(_HALF, "big")

    def uncompress_g1(self, data: bytes) -> G1:
        point = _compression.decompress_G1(int.from_bytes(data, "big"))
        _check_subgroup(point)
        return G1(point)

    def uncompress_g2(self, data: bytes) -> G2:
        halves = (int.from_bytes(data[:_HALF], "big"), int.from_bytes(data[_HALF:], "big"))
        point = _compression.decompress_G2(halves)
        _check_subgroup(point)
        return G2(point)

    def pairing_equal(self, a: G1, b: G2, c: G1, d: G2) -> bool:
        left = _curve.pairing(b, a, False)
        right = _curve.pairing(d, _curve.neg(c), False)
        return bool(_curve.final_exponentiate(left * right) == _curve.FQ12.one())


def _check_subgroup(point: Any) -> None:
    if not _curve.is_inf(_curve.multiply(point, GROUP_ORDER)):
        raise ValueError("not in the subgroup of order r")


def _sum_of_products(points: Sequence[object], scalars: Sequence[int]) -> object:
    total: Any = None
    for point, scalar in zip(points, scalars, strict=True):
        product = _curve.multiply(point, scalar % GROUP_ORDER)
        total = product if total is None else _curve.add(total, product)
    if total is None:
        raise ValueError("an empty sum has no group")
    return total
