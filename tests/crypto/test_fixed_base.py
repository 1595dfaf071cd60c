# SPDX-License-Identifier: BSD-3-Clause
"""A table gives the products that the curve library gives, whatever the scalar."""

from __future__ import annotations

import secrets

import pytest

from monetor_chain.statements import GROUP_ORDER
from offchain.crypto.curve import G1_GENERATOR, backend, decode_g1
from offchain.crypto.curve_blst import Blst
from offchain.crypto.fixed_base import USES_BEFORE_TABLE, FixedBase
from tests.crypto.test_curve import EDGE_SCALARS

SCALARS = (*EDGE_SCALARS, 255, 256, 257, 2**248, GROUP_ORDER - 256, 3 * GROUP_ORDER + 7)


def used_often() -> Blst:
    curve = Blst()
    for _ in range(USES_BEFORE_TABLE + 1):
        curve.mul_g1(curve.g1, 3)
        curve.mul_g2(curve.g2, 3)
    return curve


@pytest.mark.parametrize("scalar", SCALARS)
def test_products_are_those_of_another_library(scalar: int) -> None:
    curve, other = used_often(), backend("arkworks")
    assert curve.encode_g1(curve.mul_g1(curve.g1, scalar)) == other.encode_g1(
        other.mul_g1(other.g1, scalar))  # fmt: skip
    assert curve.encode_g2(curve.mul_g2(curve.g2, scalar)) == other.encode_g2(
        other.mul_g2(other.g2, scalar))  # fmt: skip


def test_sums_mix_tabled_and_other_points() -> None:
    curve = used_often()
    point, k = curve.mul_g1(curve.g1, 11), secrets.randbelow(GROUP_ORDER)
    total = curve.msm_g1([curve.g1, point], [k, k + 1])
    assert curve.encode_g1(total) == curve.encode_g1(curve.mul_g1(curve.g1, 12 * k + 11))


class Counted(int):
    """A group in which one sees what is added."""

    additions = 0

    def __add__(self, other: int) -> Counted:
        Counted.additions += 1
        return Counted(int(self) + other)


def test_a_table_comes_only_after_use_and_saves_additions() -> None:
    base = FixedBase(Counted(5))
    assert all(base.multiply(9) is None for _ in range(USES_BEFORE_TABLE))
    assert not base.tabled
    assert base.multiply(9) == 45
    assert base.tabled
    before = Counted.additions
    assert base.multiply(GROUP_ORDER - 1) == 5 * (GROUP_ORDER - 1)
    assert Counted.additions - before < 32


def test_only_the_expected_object_is_tabled() -> None:
    curve = used_often()
    equal = decode_g1(curve, G1_GENERATOR, "g1")
    assert equal is not curve.g1
    assert curve.encode_g1(curve.mul_g1(equal, 12345)) == curve.encode_g1(
        curve.mul_g1(curve.g1, 12345))  # fmt: skip
