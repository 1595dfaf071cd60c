# SPDX-License-Identifier: BSD-3-Clause
"""From compressed points to what the ledger's precompiles read (EIP-2537).

A coordinate takes 64 big-endian bytes, a G1 point 128, a G2 point 256 (x.c0, x.c1, y.c0, y.c1);
the identity is all zeros. Neither conversion tests the subgroup: what is encoded has been decoded
with that test before, and the precompiles repeat it. In G2, y is found in plain integer arithmetic.
In G1, where every session needs it, arkworks proposes y in a seventh of the time; what it says
counts only if y^2 = x^3 + 4, so that nothing depends on it.
"""

from __future__ import annotations

from py_arkworks_bls12381 import G1Point

from offchain.crypto.curve import G1_BYTES, G2_BYTES
from offchain.crypto.errors import CryptoError

TOKEN_BYTES = 2 * G2_BYTES
"""A signature is sigma1 || sigma2, both compressed."""

FIELD_MODULUS = int(
    "1a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab",
    16,
)
_INFINITY = 0x40
_LARGER_Y = 0x20
_COMPRESSED = 0x80
_P = FIELD_MODULUS
_HALF = (_P - 1) // 2

_Fp2 = tuple[int, int]


def _coordinates(data: bytes, length: int, field: str) -> bytes | None:
    if len(data) != length:
        raise CryptoError(f"{field}: a point has {length} bytes, this one has {len(data)}")
    if not data[0] & _COMPRESSED:
        raise CryptoError(f"{field}: not a compressed point")
    stripped = bytes([data[0] & 0x1F]) + data[1:]
    if data[0] & _INFINITY:
        if data[0] & _LARGER_Y or any(stripped):
            raise CryptoError(f"{field}: malformed identity")
        return None
    return stripped


def _element(data: bytes, field: str) -> int:
    value = int.from_bytes(data, "big")
    if value >= _P:
        raise CryptoError(f"{field}: not a field element")
    return value


def _sqrt(value: int) -> int | None:
    root = pow(value, (_P + 1) // 4, _P)
    return root if root * root % _P == value % _P else None


def _square(a: _Fp2) -> _Fp2:
    return ((a[0] + a[1]) * (a[0] - a[1]) % _P, 2 * a[0] * a[1] % _P)


def _sqrt_fp2(a: _Fp2) -> _Fp2 | None:
    # The complex method: with a = (u + v i)^2, the norm's root gives u^2 = (a0 +- |a|) / 2.
    norm = _sqrt(a[0] * a[0] + a[1] * a[1])
    if norm is None:
        return None
    half = pow(2, -1, _P)
    for sign in (1, -1):
        u = _sqrt((a[0] + sign * norm) * half % _P)
        if u is None:
            continue
        if u == 0:
            v = _sqrt(-a[0] % _P)
            root = (0, v) if v is not None else None
        else:
            root = (u, a[1] * pow(2 * u, -1, _P) % _P)
        if root is not None and _square(root) == (a[0] % _P, a[1] % _P):
            return root
    return None


def _is_larger(y: int) -> bool:
    return y > _HALF


def _pad(value: int) -> bytes:
    return value.to_bytes(64, "big")


def _proposed_y(point: bytes) -> int | None:
    try:
        proposed = G1Point.from_compressed_bytes_unchecked(point).to_xy_bytes_be()
    except ValueError:
        return None
    return int.from_bytes(proposed[G1_BYTES:], "big")


def evm_g1(point: bytes) -> bytes:
    """128-byte EIP-2537 encoding of a compressed G1 point; CryptoError if it is on no curve."""
    body = _coordinates(point, G1_BYTES, "G1 point")
    if body is None:
        return bytes(128)
    x = _element(body, "G1 point")
    y = _proposed_y(point)
    if y is None or (y * y - x * x * x - 4) % _P:
        raise CryptoError("G1 point: not on the curve")
    if _is_larger(y) != bool(point[0] & _LARGER_Y):
        y = _P - y
    return _pad(x) + _pad(y)


def evm_g2(point: bytes) -> bytes:
    """256-byte EIP-2537 encoding of a compressed G2 point; CryptoError if it is on no curve."""
    body = _coordinates(point, G2_BYTES, "G2 point")
    if body is None:
        return bytes(256)
    x1 = _element(body[:G1_BYTES], "G2 point")
    x0 = _element(body[G1_BYTES:], "G2 point")
    s0, s1 = _square((x0, x1))
    cube = ((s0 * x0 - s1 * x1 + 4) % _P, (s0 * x1 + s1 * x0 + 4) % _P)
    y = _sqrt_fp2(cube)
    if y is None:
        raise CryptoError("G2 point: not on the curve")
    y0, y1 = y
    larger = _is_larger(y1) if y1 else _is_larger(y0)
    if larger != bool(point[0] & _LARGER_Y):
        y0, y1 = -y0 % _P, -y1 % _P
    return _pad(x0) + _pad(x1) + _pad(y0) + _pad(y1)


def evm_signature(token: bytes) -> bytes:
    """512-byte EIP-2537 encoding of a 192-byte token."""
    if len(token) != TOKEN_BYTES:
        raise CryptoError(f"token: has {TOKEN_BYTES} bytes, this one has {len(token)}")
    return evm_g2(token[:G2_BYTES]) + evm_g2(token[G2_BYTES:])
