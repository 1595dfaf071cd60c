# SPDX-License-Identifier: BSD-3-Clause
"""Relay cryptography "tor1" (tor-spec, "Routing relay cells").

Each hop shares with the client two AES-128-CTR streams and two running SHA-1 digests. All four
live as long as the circuit, so every cell must pass through them exactly once and in order. A run
of cells goes through AES in one call; a digest is looked at only where "recognized" is zero.
"""

from __future__ import annotations

import hashlib
import hmac

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from .cell import BODY_LEN
from .errors import ProtocolViolation
from .ntor import KEY_MATERIAL_LEN

_HASH_LEN, _KEY_LEN = 20, 16
_DIGEST_AT, _DIGEST_END = 5, 9
_NO_DIGEST = bytes(4)


class _Keystream:
    """AES-128-CTR from a zero counter; encrypting and decrypting are the same."""

    __slots__ = ("apply",)

    def __init__(self, key: bytes) -> None:
        self.apply = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update


class _RunningDigest:
    """SHA-1 over everything that one side has said in one direction."""

    __slots__ = ("_hash", "tag")

    def __init__(self, seed: bytes) -> None:
        self._hash = hashlib.sha1(seed, usedforsecurity=False)
        self.tag = b""
        """All 20 bytes after the last body: what an authenticated SENDME quotes."""

    def seal(self, body: bytes) -> bytes:
        """Take in a plain body with zero digest; return it with its digest."""
        self._hash.update(body)
        self.tag = self._hash.digest()
        return body[:_DIGEST_AT] + self.tag[:4] + body[_DIGEST_END:]

    def accept(self, body: bytes) -> bool:
        """Whether `body` is the next in line; only then is it taken in."""
        trial = self._hash.copy()
        trial.update(body[:_DIGEST_AT] + _NO_DIGEST + body[_DIGEST_END:])
        tag = trial.digest()
        if not hmac.compare_digest(tag[:4], body[_DIGEST_AT:_DIGEST_END]):
            return False
        self._hash = trial
        self.tag = tag
        return True


class OnionLayer:
    """What client and one hop share. Forward is away from the client.

    The same object serves both sides: a client sends forward and accepts backward, a relay the
    other way round.
    """

    __slots__ = ("backward", "backward_digest", "forward", "forward_digest")

    def __init__(self, key_material: bytes) -> None:
        """`key_material`: Df | Db | Kf | Kb (and KH, unused here), from the handshake."""
        if len(key_material) not in (KEY_MATERIAL_LEN, KEY_MATERIAL_LEN - _HASH_LEN):
            raise ValueError("key material has 92 bytes, or 72 without KH")
        keys = 2 * _HASH_LEN
        self.forward_digest = _RunningDigest(key_material[:_HASH_LEN])
        self.backward_digest = _RunningDigest(key_material[_HASH_LEN:keys])
        self.forward = _Keystream(key_material[keys : keys + _KEY_LEN])
        self.backward = _Keystream(key_material[keys + _KEY_LEN : keys + 2 * _KEY_LEN])


def seemingly_recognized(bodies: bytes) -> list[int]:
    """Offsets of the bodies whose "recognized" field is zero.

    That is one in 65,536 among cells for somebody else, so the digest decides.
    """
    return [at for at in range(0, len(bodies), BODY_LEN)
            if not bodies[at + 1] and not bodies[at + 2]]


class ClientOnion:
    """The client's layers, guard first."""

    def __init__(self) -> None:
        self.layers: list[OnionLayer] = []

    def seal(self, hop: int, body: bytes) -> bytes:
        """Set the digest for `hop` into a plain body (leaky pipe: any hop can be addressed)."""
        return self.layers[hop].forward_digest.seal(body)

    def encrypt(self, hop: int, bodies: bytes) -> bytes:
        """Wrap sealed bodies for `hop` into its layer and those of the hops before it."""
        for layer in reversed(self.layers[: hop + 1]):
            bodies = layer.forward.apply(bodies)
        return bodies

    def open(self, bodies: bytes) -> list[tuple[int, bytes, bytes]]:
        """Unwrap a run: for every cell the hop that said it, its plain body and its digest tag.

        Raises ProtocolViolation when a cell is recognized at no layer (tor-spec: the circuit must
        be torn down).
        """
        count = len(bodies) // BODY_LEN
        found: list[tuple[int, bytes, bytes] | None] = [None] * count
        places = list(range(count))
        for hop, layer in enumerate(self.layers):
            bodies = layer.backward.apply(bodies)
            digest = layer.backward_digest
            before = len(places)
            for at in seemingly_recognized(bodies):
                body = bodies[at : at + BODY_LEN]
                if digest.accept(body):
                    found[places[at // BODY_LEN]] = (hop, body, digest.tag)
                    before -= 1
            if not before:
                break
            if before < len(places):
                # A cell that this hop said has no layer of the hops behind it.
                rest = [i for i, place in enumerate(places) if found[place] is None]
                bodies = b"".join([bodies[i * BODY_LEN : (i + 1) * BODY_LEN] for i in rest])
                places = [places[i] for i in rest]
        opened = [item for item in found if item is not None]
        if len(opened) != count:
            raise ProtocolViolation("a relay cell is recognized by no layer")
        return opened
