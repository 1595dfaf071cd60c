# SPDX-License-Identifier: BSD-3-Clause
"""The one Fiat-Shamir transcript of all proofs.

It hashes where the proof belongs (protocol, step, role, ctx), every public value, every element of
the statement and every announcement, each under its name and with its length, so that no two
different sequences hash alike. Leaving out a public value would let the prover choose it after the
challenge (the weak Fiat-Shamir transform: Bernhard, Pereira and Warinschi, ASIACRYPT 2012).
"""

from __future__ import annotations

from collections.abc import Sequence

from monetor_chain.statements import GROUP_ORDER, Role, keccak256
from offchain.crypto.errors import CryptoError

_LABEL = b"moneTor sigma protocol, version 1"
CTX_BYTES = 32


def _item(name: str, data: bytes) -> bytes:
    label = name.encode()
    return len(label).to_bytes(4, "big") + label + len(data).to_bytes(4, "big") + data


class Transcript:
    """Grows by `public` and `element`; `challenge` then closes it over the announcements."""

    def __init__(self, protocol: str, step: str, role: Role, ctx: bytes) -> None:
        if len(ctx) != CTX_BYTES:
            raise CryptoError(f"ctx: has {CTX_BYTES} bytes, this one has {len(ctx)}")
        self._items = [
            _item("label", _LABEL),
            _item("protocol", protocol.encode()),
            _item("step", step.encode()),
            _item("role", bytes([int(role)])),
            _item("ctx", ctx),
        ]

    def public(self, name: str, value: int | bytes) -> None:
        """Adds a public value; integers as 32 bytes, negative ones in two's complement.

        No relation has a public value of 2**255 or more, so the two never meet.
        """
        if isinstance(value, int):
            value = value.to_bytes(32, "big", signed=value < 0)
        self._items.append(_item(name, value))

    def element(self, name: str, encoded: bytes) -> None:
        """Adds a group element, or several, in their encoding."""
        self._items.append(_item(name, encoded))

    def challenge(self, announcements: Sequence[bytes]) -> int:
        """Scalar in [0, r); 512 hashed bits, so that reducing them leaves no bias."""
        items = [*self._items, *(_item("announcement", data) for data in announcements)]
        seed = keccak256(b"".join(items))
        wide = keccak256(seed + b"\x00") + keccak256(seed + b"\x01")
        return int.from_bytes(wide, "big") % GROUP_ORDER
