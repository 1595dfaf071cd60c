# SPDX-License-Identifier: BSD-3-Clause
"""The commitment generators are what they claim to be."""

from __future__ import annotations

import hashlib

from py_arkworks_bls12381 import G1Point
from py_ecc.bls.hash_to_curve import hash_to_G1
from py_ecc.optimized_bls12_381 import normalize

from monetor_chain.statements import GENERATOR_DST, GENERATOR_LABELS, GENERATORS, GROUP_ORDER
from offchain.crypto.curve import Backend, backend
from offchain.crypto.generators import ENCODED, commit, generators
from tests.crypto.points import G1_IDENTITY


def test_generators_are_hashes_of_their_labels() -> None:
    for label, (x, y), encoded in zip(GENERATOR_LABELS, GENERATORS, ENCODED, strict=True):
        point = normalize(hash_to_G1(label, GENERATOR_DST, hashlib.sha256))
        assert (int(point[0]), int(point[1])) == (x, y)
        assert bytes(G1Point.hash_to_curve(label, GENERATOR_DST).to_compressed_bytes()) == encoded


def test_generators_are_distinct_and_not_the_standard_one(curve: Backend) -> None:
    encoded = {curve.encode_g1(p) for p in (*generators(curve), curve.g1)}
    assert len(encoded) == 4


def test_commitments_are_products_of_powers(curve: Backend) -> None:
    p1, p2, p3 = generators(curve)
    expected = curve.add_g1(
        curve.add_g1(curve.mul_g1(p1, 5), curve.mul_g1(p2, -7)), curve.mul_g1(p3, 2**200)
    )
    assert commit(5, -7, 2**200, curve=curve) == curve.encode_g1(expected)
    assert commit(5, curve=curve) == curve.encode_g1(curve.mul_g1(p1, 5))
    assert commit(curve=curve) == G1_IDENTITY
    assert commit(GROUP_ORDER + 1, curve=curve) == ENCODED[0]


def test_commitments_do_not_depend_on_the_backend() -> None:
    assert commit(1, 2, 3, curve=backend("blst")) == commit(1, 2, 3, curve=backend("arkworks"))
