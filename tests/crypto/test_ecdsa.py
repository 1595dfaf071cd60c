# SPDX-License-Identifier: BSD-3-Clause
"""Nobody keeps a signature that the ledger would refuse."""

from __future__ import annotations

import secrets

import pytest
from eth_keys import keys

from offchain.crypto.ecdsa import ORDER, address_of, generate_private_key, recover, sign
from offchain.crypto.errors import CryptoError

KEY = generate_private_key()
DIGEST = secrets.token_bytes(32)


def test_the_signer_is_recovered() -> None:
    for _ in range(20):
        key, digest = generate_private_key(), secrets.token_bytes(32)
        signature = sign(digest, key)
        assert len(signature) == 65
        assert signature[64] in (27, 28)
        assert int.from_bytes(signature[32:64], "big") <= ORDER // 2
        assert recover(digest, signature) == address_of(key)


def test_addresses_and_signatures_as_ethereum_makes_them() -> None:
    theirs = keys.PrivateKey(KEY)
    assert address_of(KEY) == theirs.public_key.to_canonical_address()
    signature = theirs.sign_msg_hash(DIGEST).to_bytes()
    assert recover(DIGEST, signature[:64] + bytes([signature[64] + 27])) == address_of(KEY)


def test_another_digest_gives_another_signer() -> None:
    assert recover(secrets.token_bytes(32), sign(DIGEST, KEY)) != address_of(KEY)


def test_the_mirrored_signature_is_refused() -> None:
    signature = sign(DIGEST, KEY)
    s = ORDER - int.from_bytes(signature[32:64], "big")
    mirrored = signature[:32] + s.to_bytes(32, "big") + bytes([55 - signature[64]])
    with pytest.raises(CryptoError, match="lower half"):
        recover(DIGEST, mirrored)


@pytest.mark.parametrize("v", [0, 1, 2, 26, 29, 255])
def test_only_27_and_28_are_recovery_ids(v: int) -> None:
    with pytest.raises(CryptoError, match="v is"):
        recover(DIGEST, sign(DIGEST, KEY)[:64] + bytes([v]))


def test_wrong_lengths_and_impossible_values_are_refused() -> None:
    signature = sign(DIGEST, KEY)
    for bad in (
        b"",
        signature[:64],
        signature + b"\x00",
        bytes(64) + b"\x1b",
        bytes(32) + signature[32:],
        signature[:32] + bytes(32) + signature[64:],
        ORDER.to_bytes(32, "big") + signature[32:],
    ):
        with pytest.raises(CryptoError, match="signature"):
            recover(DIGEST, bad)
    with pytest.raises(CryptoError, match="digest"):
        recover(DIGEST[:-1], signature)
    with pytest.raises(CryptoError, match="digest"):
        sign(DIGEST + b"\x00", KEY)


@pytest.mark.parametrize("key", [b"", bytes(32), ORDER.to_bytes(32, "big"), b"\x01" * 31])
def test_invalid_private_keys_are_refused(key: bytes) -> None:
    with pytest.raises(CryptoError, match="private key"):
        sign(DIGEST, key)
    with pytest.raises(CryptoError, match="private key"):
        address_of(key)
