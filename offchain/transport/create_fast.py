# SPDX-License-Identifier: BSD-3-Clause
"""CREATE_FAST, the first hop's handshake for a client that does not know the onion key yet
(tor-spec, "CREATE_FAST/CREATED_FAST cells" and "KDF-TOR").

Each side names 20 random bytes; TLS alone keeps them secret. Stock clients fetch their first
directory documents over such circuits. Ours never ask for one.
"""

from __future__ import annotations

import hashlib
import secrets

from .cell import BODY_LEN
from .errors import ProtocolViolation
from .ntor import KEY_MATERIAL_LEN

_HASH_LEN = 20


def kdf_tor(secret: bytes, length: int) -> bytes:
    """`length` bytes out of SHA-1(secret | 0) | SHA-1(secret | 1) | …"""
    blocks = range(-(-length // _HASH_LEN))
    return b"".join(hashlib.sha1(secret + bytes([i]), usedforsecurity=False).digest()
                    for i in blocks)[:length]


def answer(body: bytes, own: bytes | None = None) -> tuple[bytes, bytes]:
    """The CREATED_FAST body for a CREATE_FAST body, and 72 bytes of key material.

    `own` (20 bytes) is given only to reproduce vectors. Raises ProtocolViolation.
    """
    if len(body) < _HASH_LEN or len(body) > BODY_LEN:
        raise ProtocolViolation("CREATE_FAST is cut short")
    own = own or secrets.token_bytes(_HASH_LEN)
    # KH comes first here, unlike in ntor's key material.
    derived = kdf_tor(body[:_HASH_LEN] + own, KEY_MATERIAL_LEN)
    return own + derived[:_HASH_LEN], derived[_HASH_LEN:]
