# SPDX-License-Identifier: BSD-3-Clause
"""Points that must not be accepted, and valid points other than a given one."""

from __future__ import annotations

from offchain.crypto.curve import Backend, decode_g1, decode_g2
from offchain.crypto.encoding import FIELD_MODULUS, evm_g1, evm_g2
from offchain.crypto.errors import CryptoError

G1_IDENTITY = bytes([0xC0]) + bytes(47)
G2_IDENTITY = bytes([0xC0]) + bytes(95)

G1_OF_ORDER_3 = bytes([0x80]) + bytes(47)
"""(0, 2): on the curve, of order 3."""


def _first(on_curve: bool, length: int) -> bytes:
    encode = evm_g1 if length == 48 else evm_g2
    for x in range(3, 100):
        data = bytes([0x80]) + x.to_bytes(length - 1, "big")
        try:
            encode(data)
        except CryptoError:
            if not on_curve:
                return data
        else:
            # A random point of the curve is in the subgroup with probability 2**-125 or less.
            if on_curve:
                return data
    raise AssertionError("no such point")


G1_OFF_SUBGROUP = _first(True, 48)
G2_OFF_SUBGROUP = _first(True, 96)
G1_OFF_CURVE = _first(False, 48)
G2_OFF_CURVE = _first(False, 96)


def bad_encodings(good: bytes) -> dict[str, bytes]:
    """Encodings derived from a good point's length, each of which a decoder must refuse."""
    length = len(good)
    g1 = length == 48
    x = int.from_bytes(bytes([good[0] & 0x1F]) + good[1:48], "big")
    bad = {
        "empty": b"",
        "short": good[:-1],
        "long": good + b"\x00",
        "identity": G1_IDENTITY if g1 else G2_IDENTITY,
        "identity with sign": bytes([0xE0]) + bytes(length - 1),
        "identity with rest": bytes([0xC0]) + good[1:],
        "uncompressed flag": bytes([good[0] & 0x7F]) + good[1:],
        "off curve": G1_OFF_CURVE if g1 else G2_OFF_CURVE,
        "off subgroup": G1_OFF_SUBGROUP if g1 else G2_OFF_SUBGROUP,
        "x not reduced": (FIELD_MODULUS | 0x80 << 376).to_bytes(48, "big") + good[48:],
    }
    if x + FIELD_MODULUS < 1 << 381:
        flags = good[0] & 0xE0
        shifted = bytearray((x + FIELD_MODULUS).to_bytes(48, "big"))
        shifted[0] |= flags
        bad["x plus modulus"] = bytes(shifted) + good[48:]
    if g1:
        bad["order 3"] = G1_OF_ORDER_3
    return bad


def another(curve: Backend, good: bytes) -> bytes:
    """`good` plus the generator."""
    if len(good) == 48:
        point = curve.add_g1(decode_g1(curve, good, "point", identity=True), curve.g1)
        return curve.encode_g1(point)
    return curve.encode_g2(curve.add_g2(decode_g2(curve, good, "point", identity=True), curve.g2))
