# SPDX-License-Identifier: BSD-3-Clause
"""The ntor handshake, version 1 (tor-spec, "The ntor handshake"; proposal 216).

The client knows the relay's identity digest and onion key; both sides end up with the same key
material, and the client knows that the relay holds the onion key.
"""

from __future__ import annotations

import hmac
import struct
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from .errors import DestroyReason, ProtocolViolation

HANDSHAKE_TYPE = 0x0002
"""HTYPE of ntor in CREATE2 and EXTEND2."""
ONIONSKIN_LEN = 84
REPLY_LEN = 64
KEY_MATERIAL_LEN = 92
"""Df, Db (20 each), Kf, Kb (16 each) and KH (20)."""

_PROTOID = b"ntor-curve25519-sha256-1"
_T_MAC = _PROTOID + b":mac"
_T_KEY = _PROTOID + b":key_extract"
_T_VERIFY = _PROTOID + b":verify"
_M_EXPAND = _PROTOID + b":key_expand"
_SERVER = b"Server"
_ID_LEN, _POINT_LEN = 20, 32


def _tweaked(message: bytes, tweak: bytes) -> bytes:
    return hmac.digest(tweak, message, "sha256")


def _expand(secret_input: bytes, length: int) -> bytes:
    """HKDF-SHA256 as tor-spec's KDF-RFC5869 parametrizes it for ntor."""
    prk = _tweaked(secret_input, _T_KEY)
    out, block, index = b"", b"", 1
    while len(out) < length:
        block = hmac.digest(prk, block + _M_EXPAND + bytes([index]), "sha256")
        out += block
        index += 1
    return out[:length]


def _exchange(private: X25519PrivateKey, public: bytes) -> bytes:
    """X25519; raises ProtocolViolation for a point of small order (the all-zero output)."""
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise ProtocolViolation("ntor: degenerate public key") from error


def _conclude(shared: bytes, identity: bytes, onion_key: bytes, client: bytes,
              server: bytes) -> tuple[bytes, bytes]:
    """AUTH and the secret input's key material from EXP(..) | EXP(..) and the public values."""
    secret_input = shared + identity + onion_key + client + server + _PROTOID
    verify = _tweaked(secret_input, _T_VERIFY)
    auth = _tweaked(verify + identity + onion_key + server + client + _PROTOID + _SERVER, _T_MAC)
    return auth, _expand(secret_input, KEY_MATERIAL_LEN)


@dataclass(frozen=True, slots=True)
class NtorClient:
    """A client's half-done handshake with one relay."""

    identity: bytes
    onion_key: bytes
    ephemeral: X25519PrivateKey

    @classmethod
    def begin(cls, identity: bytes, onion_key: bytes) -> NtorClient:
        """Start with a fresh key; `identity` is the 20-byte RSA digest, `onion_key` 32 bytes."""
        return cls(identity, onion_key, X25519PrivateKey.generate())

    @property
    def onionskin(self) -> bytes:
        """The 84 bytes for the relay."""
        return self.identity + self.onion_key + self.ephemeral.public_key().public_bytes_raw()

    def finish(self, reply: bytes) -> bytes:
        """Check the relay's 64-byte answer and return 92 bytes of key material.

        Raises ProtocolViolation when the answer does not come from the holder of the onion key.
        """
        if len(reply) != REPLY_LEN:
            raise ProtocolViolation(f"ntor: an answer has {REPLY_LEN} bytes, not {len(reply)}")
        server, auth = reply[:_POINT_LEN], reply[_POINT_LEN:]
        shared = _exchange(self.ephemeral, server) + _exchange(self.ephemeral, self.onion_key)
        expected, material = _conclude(shared, self.identity, self.onion_key,
                                       self.onionskin[-_POINT_LEN:], server)
        if not hmac.compare_digest(expected, auth):
            raise ProtocolViolation("ntor: the relay did not prove its onion key")
        return material


def answer(identity: bytes, onion_key: X25519PrivateKey, onionskin: bytes, *,
           ephemeral: X25519PrivateKey | None = None) -> tuple[bytes, bytes]:
    """The relay's side: the 64-byte answer and 92 bytes of key material.

    `ephemeral` is given only to reproduce published vectors. Raises ProtocolViolation when the
    onionskin is malformed or meant for another relay or key.
    """
    if len(onionskin) != ONIONSKIN_LEN:
        raise ProtocolViolation(f"ntor: an onionskin has {ONIONSKIN_LEN} bytes")
    public = onion_key.public_key().public_bytes_raw()
    if not hmac.compare_digest(onionskin[: _ID_LEN + _POINT_LEN], identity + public):
        raise ProtocolViolation("ntor: the onionskin is for another relay",
                                DestroyReason.OR_IDENTITY)
    client = onionskin[_ID_LEN + _POINT_LEN :]
    if ephemeral is None:
        ephemeral = X25519PrivateKey.generate()
    server = ephemeral.public_key().public_bytes_raw()
    shared = _exchange(ephemeral, client) + _exchange(onion_key, client)
    auth, material = _conclude(shared, identity, public, client, server)
    return server + auth, material


def encode_create2(onionskin: bytes) -> bytes:
    """The body of CREATE2 (and the end of EXTEND2): type, length, data."""
    return struct.pack(">HH", HANDSHAKE_TYPE, len(onionskin)) + onionskin


def decode_create2(body: bytes) -> bytes:
    """The onionskin in a CREATE2 body. Raises ProtocolViolation for another handshake."""
    if len(body) < 4:
        raise ProtocolViolation("CREATE2 is cut short")
    kind, size = struct.unpack_from(">HH", body)
    if kind != HANDSHAKE_TYPE or size != ONIONSKIN_LEN or len(body) < 4 + size:
        raise ProtocolViolation(f"CREATE2 with handshake {kind} of {size} bytes")
    return body[4 : 4 + size]


def encode_created2(reply: bytes) -> bytes:
    """The body of CREATED2 and EXTENDED2: length and data."""
    return struct.pack(">H", len(reply)) + reply


def decode_created2(body: bytes) -> bytes:
    """The handshake answer in a CREATED2 or EXTENDED2 body, or a ProtocolViolation."""
    if len(body) < 2:
        raise ProtocolViolation("CREATED2 is cut short")
    (size,) = struct.unpack_from(">H", body)
    if size != REPLY_LEN or len(body) < 2 + size:
        raise ProtocolViolation(f"CREATED2 with {size} bytes")
    return body[2 : 2 + size]
