# SPDX-License-Identifier: BSD-3-Clause
"""Recoverable ECDSA over secp256k1, exactly as the ledger accepts it.

A signature is r || s || v, 65 bytes, v 27 or 28, s in the lower half of the group order (EIP-2).
Recovery refuses everything else, so nobody keeps a signature that the ledger would refuse.
"""

from __future__ import annotations

import secrets

from coincurve import PrivateKey, PublicKey

from monetor_chain.statements import keccak256
from offchain.crypto.errors import CryptoError

SIGNATURE_BYTES = 65
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
"""Order of secp256k1 (SEC 2, section 2.4.1)."""
_V_OFFSET = 27


def _check_digest(digest: bytes) -> None:
    if len(digest) != 32:
        raise CryptoError(f"digest: has 32 bytes, this one has {len(digest)}")


def _private_key(private_key: bytes) -> PrivateKey:
    if len(private_key) != 32 or not 0 < int.from_bytes(private_key, "big") < ORDER:
        raise CryptoError("private key: not a scalar of secp256k1")
    return PrivateKey(private_key)


def generate_private_key() -> bytes:
    """32 bytes, uniform among the valid keys."""
    return (secrets.randbelow(ORDER - 1) + 1).to_bytes(32, "big")


def sign(digest: bytes, private_key: bytes) -> bytes:
    """65-byte signature of a 32-byte digest (deterministic nonce, RFC 6979)."""
    _check_digest(digest)
    raw = _private_key(private_key).sign_recoverable(digest, hasher=None)
    if raw[64] > 1:
        # r overflowed the group order: a chance of 2**-127, and not expressible as 27 or 28.
        raise CryptoError("signature: recovery id out of range")
    return raw[:64] + bytes([raw[64] + _V_OFFSET])


def recover(digest: bytes, signature: bytes) -> bytes:
    """The 20-byte address of whoever signed `digest`; CryptoError for what the ledger refuses."""
    _check_digest(digest)
    if len(signature) != SIGNATURE_BYTES:
        raise CryptoError(f"signature: has {SIGNATURE_BYTES} bytes, this one {len(signature)}")
    if signature[64] not in (_V_OFFSET, _V_OFFSET + 1):
        raise CryptoError(f"signature: v is 27 or 28, this one is {signature[64]}")
    if int.from_bytes(signature[32:64], "big") > ORDER // 2:
        raise CryptoError("signature: s is not in the lower half")
    raw = signature[:64] + bytes([signature[64] - _V_OFFSET])
    try:
        key = PublicKey.from_signature_and_message(raw, digest, hasher=None)
    except ValueError as error:
        raise CryptoError("signature: nobody can have made it") from error
    return _address(key)


def address_of(private_key: bytes) -> bytes:
    """The 20-byte account address of a private key."""
    return _address(_private_key(private_key).public_key)


def _address(key: PublicKey) -> bytes:
    return keccak256(key.format(compressed=False)[1:])[-20:]
