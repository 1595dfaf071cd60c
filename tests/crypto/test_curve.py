# SPDX-License-Identifier: BSD-3-Clause
"""Every backend is the same group, and decodes the same strings."""

from __future__ import annotations

import secrets

import pytest
from hypothesis import given, settings, strategies as st

from monetor_chain.statements import GROUP_ORDER
from offchain.crypto.curve import (
    G1_GENERATOR,
    G2_GENERATOR,
    Backend,
    backend,
    decode_g1,
    decode_g2,
)
from offchain.crypto.errors import CryptoError
from tests.crypto.conftest import ALL, NATIVE
from tests.crypto.points import G1_IDENTITY, G2_IDENTITY, bad_encodings

EDGE_SCALARS = (0, 1, 2, -1, -2, GROUP_ORDER - 1, GROUP_ORDER, GROUP_ORDER + 1, 2**255, 2**300)


def test_generators_are_the_standard_ones(curve: Backend) -> None:
    assert curve.encode_g1(curve.g1) == G1_GENERATOR
    assert curve.encode_g2(curve.g2) == G2_GENERATOR


@pytest.mark.parametrize("scalar", EDGE_SCALARS)
def test_backends_agree_on_edge_scalars(scalar: int) -> None:
    g1 = {b.encode_g1(b.mul_g1(b.g1, scalar)) for b in map(backend, ALL)}
    g2 = {b.encode_g2(b.mul_g2(b.g2, scalar)) for b in map(backend, ALL)}
    assert len(g1) == 1
    assert len(g2) == 1


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(-(2**260), 2**260), min_size=1, max_size=9))
def test_sums_of_products_are_the_sum_of_exponents(scalars: list[int]) -> None:
    for b in map(backend, NATIVE):
        logs = [3 * i + 1 for i in range(len(scalars))]
        total = sum(log * k for log, k in zip(logs, scalars, strict=True))
        points1 = [b.mul_g1(b.g1, log) for log in logs]
        points2 = [b.mul_g2(b.g2, log) for log in logs]
        assert b.encode_g1(b.msm_g1(points1, scalars)) == b.encode_g1(b.mul_g1(b.g1, total))
        assert b.encode_g2(b.msm_g2(points2, scalars)) == b.encode_g2(b.mul_g2(b.g2, total))


def test_addition_handles_equal_opposite_and_neutral_points(curve: Backend) -> None:
    e1, e2 = curve.encode_g1, curve.encode_g2
    a1, a2 = curve.mul_g1(curve.g1, 5), curve.mul_g2(curve.g2, 5)
    zero1, zero2 = curve.mul_g1(a1, 0), curve.mul_g2(a2, 0)
    assert e1(curve.add_g1(a1, a1)) == e1(curve.mul_g1(a1, 2))
    assert e2(curve.add_g2(a2, a2)) == e2(curve.mul_g2(a2, 2))
    assert e1(curve.add_g1(a1, curve.neg_g1(a1))) == e1(zero1) == G1_IDENTITY
    assert e2(curve.add_g2(a2, curve.neg_g2(a2))) == e2(zero2) == G2_IDENTITY
    assert e1(curve.add_g1(a1, zero1)) == e1(a1)
    assert e2(curve.add_g2(zero2, a2)) == e2(a2)


def test_unequal_and_empty_sums_are_refused(curve: Backend) -> None:
    # arkworks' own function silently cuts the longer list.
    for count in (1, 2, 5):
        with pytest.raises(ValueError):
            curve.msm_g1([curve.g1] * count, [1] * (count + 1))
        with pytest.raises(ValueError):
            curve.msm_g2([curve.g2] * (count + 1), [1] * count)
    with pytest.raises(ValueError):
        curve.msm_g1([], [])


def test_pairing_is_bilinear_and_not_degenerate(curve: Backend) -> None:
    a, b = 7, 11
    left = curve.mul_g1(curve.g1, a), curve.mul_g2(curve.g2, b)
    assert curve.pairing_equal(*left, curve.mul_g1(curve.g1, a * b), curve.g2)
    assert not curve.pairing_equal(*left, curve.mul_g1(curve.g1, a * b + 1), curve.g2)
    zero1, zero2 = curve.mul_g1(curve.g1, 0), curve.mul_g2(curve.g2, 0)
    assert curve.pairing_equal(zero1, curve.g2, curve.g1, zero2)
    assert not curve.pairing_equal(zero1, curve.g2, curve.g1, curve.g2)


def test_decoding_inverts_encoding(curve: Backend) -> None:
    k = secrets.randbelow(GROUP_ORDER)
    g1, g2 = curve.encode_g1(curve.mul_g1(curve.g1, k)), curve.encode_g2(curve.mul_g2(curve.g2, k))
    assert curve.encode_g1(decode_g1(curve, g1, "point")) == g1
    assert curve.encode_g2(decode_g2(curve, g2, "point")) == g2


def _point_with_a_small_x() -> bytes:
    # An x below 2**381 - p has a second, unreduced encoding of the same length.
    curve = backend("blst")
    point = curve.g1
    while "x plus modulus" not in bad_encodings(curve.encode_g1(point)):
        point = curve.add_g1(point, curve.g1)
    return curve.encode_g1(point)


BAD_G1 = bad_encodings(_point_with_a_small_x())


@pytest.mark.parametrize("kind", sorted(BAD_G1))
def test_bad_g1_encodings_are_refused(curve: Backend, kind: str) -> None:
    with pytest.raises(CryptoError, match="thing"):
        decode_g1(curve, BAD_G1[kind], "thing")


@pytest.mark.parametrize("kind", sorted(bad_encodings(G2_GENERATOR)))
def test_bad_g2_encodings_are_refused(curve: Backend, kind: str) -> None:
    with pytest.raises(CryptoError, match="thing"):
        decode_g2(curve, bad_encodings(G2_GENERATOR)[kind], "thing")


def test_identity_passes_only_where_allowed(curve: Backend) -> None:
    assert curve.encode_g1(decode_g1(curve, G1_IDENTITY, "x", identity=True)) == G1_IDENTITY
    assert curve.encode_g2(decode_g2(curve, G2_IDENTITY, "x", identity=True)) == G2_IDENTITY
    for bad in ("identity with sign", "identity with rest"):
        with pytest.raises(CryptoError):
            decode_g1(curve, bad_encodings(G1_GENERATOR)[bad], "x", identity=True)


def test_the_environment_chooses_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MONETOR_CURVE", raising=False)
    assert backend().name == "blst"
    monkeypatch.setenv("MONETOR_CURVE", "arkworks")
    assert backend().name == "arkworks"
    assert backend("blst").name == "blst"
    with pytest.raises(CryptoError):
        backend("nothing")
