# SPDX-License-Identifier: BSD-3-Clause
"""EIP-2537 encodings against an independent decompression."""

from __future__ import annotations

import secrets

import pytest
from py_arkworks_bls12381 import G1Point, G2Point

from monetor_chain.statements import GROUP_ORDER
from offchain.crypto.curve import G1_GENERATOR, G2_GENERATOR, backend
from offchain.crypto.encoding import evm_g1, evm_g2, evm_signature
from offchain.crypto.errors import CryptoError
from tests.crypto.points import (
    G1_IDENTITY,
    G1_OFF_CURVE,
    G2_IDENTITY,
    G2_OFF_CURVE,
    bad_encodings,
)


def _pad(coordinates: bytes) -> bytes:
    pieces = (coordinates[i : i + 48] for i in range(0, len(coordinates), 48))
    return b"".join(bytes(16) + piece for piece in pieces)


def _arkworks_g1(point: bytes) -> bytes:
    return _pad(bytes(G1Point.from_compressed_bytes(point).to_xy_bytes_be()))


def _arkworks_g2(point: bytes) -> bytes:
    return _pad(bytes(G2Point.from_compressed_bytes(point).to_xy_bytes_be()))


@pytest.mark.parametrize("sign", [1, -1])
def test_random_points(sign: int) -> None:
    curve = backend("blst")
    for _ in range(10):
        k = sign * secrets.randbelow(GROUP_ORDER)
        g1 = curve.encode_g1(curve.mul_g1(curve.g1, k))
        g2 = curve.encode_g2(curve.mul_g2(curve.g2, k))
        assert evm_g1(g1) == _arkworks_g1(g1)
        assert evm_g2(g2) == _arkworks_g2(g2)


def test_the_generator_has_the_coordinates_that_eip_2537_lists() -> None:
    encoded = evm_g1(G1_GENERATOR)
    assert encoded[:16] == bytes(16)
    assert encoded[16:32].hex() == "17f1d3a73197d7942695638c4fa9ac0f"
    assert encoded[80:96].hex() == "08b3f481e3aaa0f1a09e30ed741d8ae4"
    assert evm_g2(G2_GENERATOR)[16:32].hex() == "024aa2b2f08f0a91260805272dc51051"


def test_the_identity_is_all_zeros() -> None:
    assert evm_g1(G1_IDENTITY) == bytes(128)
    assert evm_g2(G2_IDENTITY) == bytes(256)


def test_a_signature_is_two_g2_points() -> None:
    token = G2_GENERATOR + G2_IDENTITY
    assert evm_signature(token) == evm_g2(G2_GENERATOR) + bytes(256)
    for bad in (b"", token[:-1], token + b"\x00"):
        with pytest.raises(CryptoError):
            evm_signature(bad)


def test_malformed_points_are_refused() -> None:
    # The subgroup is tested where points are decoded; here the identity is fine.
    allowed = {"identity", "off subgroup", "order 3"}
    for kind, data in bad_encodings(G1_GENERATOR).items():
        if kind not in allowed:
            with pytest.raises(CryptoError):
                evm_g1(data)
    for kind, data in bad_encodings(G2_GENERATOR).items():
        if kind not in allowed:
            with pytest.raises(CryptoError):
                evm_g2(data)
    for encode, off in ((evm_g1, G1_OFF_CURVE), (evm_g2, G2_OFF_CURVE)):
        with pytest.raises(CryptoError, match="curve"):
            encode(off)
