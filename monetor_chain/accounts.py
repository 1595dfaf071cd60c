# SPDX-License-Identifier: BSD-3-Clause
"""Accounts of development networks, named after the roles that use them.

Their private keys follow from their names, so everybody knows them: they are for chains whose
coins are worth nothing. `address_of` serves real accounts too.
"""

from __future__ import annotations

import coincurve

from .statements import keccak256

DEV_ROLES = (
    "faucet",
    "deployer",
    *(f"authority{i}" for i in ("", 2, 3, 4, 5)),
    *(f"intermediary{i}" for i in ("", 2)),
    *(f"client{i}" for i in ("", 2, 3, 4)),
    *(f"guard{i}" for i in ("", 2)),
    *(f"middle{i}" for i in ("", 2)),
    *(f"exit{i}" for i in ("", 2)),
    "watcher",
)
"""Roles whose accounts the embedded chain's first block funds."""

DEV_BALANCE_WEI = 10**24
"""Native coin of each of these accounts: a million coins."""


def dev_key(role: str) -> bytes:
    """The 32-byte private key of a development account. Any name will do; it is public."""
    return keccak256(b"moneTor development account " + role.encode())


def dev_address(role: str) -> str:
    """Checksummed address of a development account."""
    return address_of(dev_key(role))


def address_of(private_key: bytes) -> str:
    """Checksummed address (ERC-55) of a 32-byte secp256k1 private key.

    Raises `ValueError` if the key is not a valid scalar.
    """
    if len(private_key) != 32:
        # coincurve would pad it in silence.
        raise ValueError(f"a private key has 32 bytes, this one has {len(private_key)}")
    point = coincurve.PrivateKey(private_key).public_key.format(compressed=False)
    return checksum(keccak256(point[1:])[12:])


def checksum(address: str | bytes) -> str:
    """An address, given as 0x-hex or 20 bytes, in the mixed-case form of ERC-55."""
    raw = bytes.fromhex(address.removeprefix("0x")) if isinstance(address, str) else address
    if len(raw) != 20:
        raise ValueError(f"an account address has 20 bytes, this one has {len(raw)}")
    digits = raw.hex()
    digest = keccak256(digits.encode()).hex()
    return "0x" + "".join(
        digit.upper() if int(nibble, 16) > 7 else digit
        for digit, nibble in zip(digits, digest, strict=False)
    )
