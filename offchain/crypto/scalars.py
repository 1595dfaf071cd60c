# SPDX-License-Identifier: BSD-3-Clause
"""Random scalars, their encoding, and the ranges of what tokens sign."""

from __future__ import annotations

import secrets

from monetor_chain.statements import BALANCE_LIMIT, GROUP_ORDER, TAG_BITS
from offchain.crypto.errors import CryptoError

SCALAR_BYTES = 32
_IDENTIFIER_LIMIT = 1 << TAG_BITS


def random_scalar() -> int:
    """Uniform in [1, r), from the operating system."""
    return secrets.randbelow(GROUP_ORDER - 1) + 1


def encode_scalar(value: int) -> bytes:
    """32 big-endian bytes of a value in [0, r)."""
    return value.to_bytes(SCALAR_BYTES, "big")


def decode_scalar(data: bytes, field: str) -> int:
    """The scalar in 32 bytes; CryptoError, naming `field`, for a wrong length or a value >= r."""
    if len(data) != SCALAR_BYTES:
        raise CryptoError(f"{field}: a scalar has {SCALAR_BYTES} bytes, this one has {len(data)}")
    value = int.from_bytes(data, "big")
    if value >= GROUP_ORDER:
        raise CryptoError(f"{field}: not a canonical scalar")
    return value


def check_identifier(value: int, field: str) -> None:
    """CryptoError unless 0 <= value < 2**248, as for tags, channel ids, nonces and locks."""
    if not 0 <= value < _IDENTIFIER_LIMIT:
        raise CryptoError(f"{field}: outside [0, 2**{TAG_BITS})")


def check_nonce(value: int, field: str) -> None:
    """CryptoError unless 0 < value < 2**248: nonce 0 is a refund token's."""
    if value == 0:
        raise CryptoError(f"{field}: 0 is no wallet's nonce")
    check_identifier(value, field)


def check_amount(value: int, field: str) -> None:
    """CryptoError unless 0 <= value < 2**32 base units."""
    if not 0 <= value < BALANCE_LIMIT:
        raise CryptoError(f"{field}: outside [0, 2**32)")
