# SPDX-License-Identifier: BSD-3-Clause
"""Encodings of BLS12-381 points that a verifier must refuse."""

from __future__ import annotations

from py_ecc.bls.point_compression import modular_squareroot_in_FQ2
from py_ecc.optimized_bls12_381 import (
    FQ2,
    b2,
    curve_order as order,
    field_modulus,
    is_on_curve,
    multiply,
)


def _coordinate(value: int) -> bytes:
    return value.to_bytes(64, "big")


def g1_outside_subgroup() -> bytes:
    """On the curve, outside the subgroup of prime order."""
    x = 1
    while True:
        square = (x**3 + 4) % field_modulus
        y = pow(square, (field_modulus + 1) // 4, field_modulus)
        if y * y % field_modulus == square:
            return _coordinate(x) + _coordinate(y)
        x += 1


def g1_off_curve() -> bytes:
    return _coordinate(1) + _coordinate(1)


def g1_not_canonical(point: bytes) -> bytes:
    """The same point with p added to its abscissa."""
    x = int.from_bytes(point[:64], "big") + field_modulus
    return _coordinate(x) + point[64:]


def g2_outside_subgroup() -> bytes:
    """On the twist, outside the subgroup of prime order."""
    x = 1
    while True:
        abscissa = FQ2([x, 0])
        root = modular_squareroot_in_FQ2(abscissa**3 + b2)
        if root is not None:
            point = (abscissa, root, FQ2.one())
            assert is_on_curve(point, b2)
            assert multiply(point, order)[2] != FQ2.zero()
            return b"".join(_coordinate(int(c)) for c in (*abscissa.coeffs, *root.coeffs))
        x += 1


def g2_off_curve() -> bytes:
    return b"".join(_coordinate(1) for _ in range(4))


def g2_not_canonical(point: bytes) -> bytes:
    """The same point with p added to the first coordinate."""
    x = int.from_bytes(point[:64], "big") + field_modulus
    return _coordinate(x) + point[64:]


def g2_padded(point: bytes) -> bytes:
    """The same point with a bit set in what EIP-2537 wants to be zero."""
    return b"\x01" + point[1:]


def g2_negated(point: bytes) -> bytes:
    """The point's inverse."""
    ordinates = (int.from_bytes(point[i : i + 64], "big") for i in (128, 192))
    return point[:128] + b"".join(_coordinate(-y % field_modulus) for y in ordinates)
