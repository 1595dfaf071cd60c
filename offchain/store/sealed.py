# SPDX-License-Identifier: BSD-3-Clause
"""A file under a passphrase: written and read as a stream, and refused if one bit of it differs.

The key is scrypt(passphrase, salt) (RFC 7914); the content is cut into pieces that AES-256-GCM
encrypts one by one. A piece's nonce is its number and whether it is the last, so that none can be
left out, moved, or cut off at the end: the STREAM construction of Hoang, Reyhanitabar, Rogaway and
Vizár, Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance (2015), section 7. The
head of the file is authenticated with every piece.
"""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

MAGIC = b"moneTor backup\0\0"
VERSION = 1
COST = 2**16
"""scrypt's N: 64 MiB and a fraction of a second for every guess of a passphrase, with r = 8."""
MAX_COST = 2**20
"""A file that asks for more is not worked on: it could be made to take all memory."""
BLOCK_SIZE, PARALLEL = 8, 1
PIECE = 1 << 20
"""Bytes of content in one piece."""

_HEAD = struct.Struct(">16sHI16s")
_TAG = 16


class SealedError(Exception):
    """The file is no backup, or not whole, or the passphrase is another."""


class SealedWriter:
    """Takes the content of a sealed file in order; `close` writes the last piece."""

    def __init__(self, file: BinaryIO, passphrase: str) -> None:
        salt = os.urandom(16)
        self._file = file
        self._head = _HEAD.pack(MAGIC, VERSION, COST, salt)
        self._cipher = AESGCM(_key(passphrase, salt, COST))
        self._number = 0
        self._rest = bytearray()
        file.write(self._head)

    def write(self, data: bytes) -> int:
        """Append to the content."""
        self._rest += data
        # The last piece is told apart from the others, so that one is always kept back.
        while len(self._rest) > PIECE:
            self._put(bytes(self._rest[:PIECE]), last=False)
            del self._rest[:PIECE]
        return len(data)

    def close(self) -> None:
        """Write what is left; without it the file is not whole."""
        self._put(bytes(self._rest), last=True)

    def _put(self, piece: bytes, *, last: bool) -> None:
        self._file.write(self._cipher.encrypt(_nonce(self._number, last), piece, self._head))
        self._number += 1


class SealedReader:
    """Gives the content of a sealed file in order; nothing that was not verified leaves it."""

    def __init__(self, file: BinaryIO, passphrase: str) -> None:
        """`SealedError` if it is no backup that this version reads."""
        self._file = file
        self._head = file.read(_HEAD.size)
        if len(self._head) < _HEAD.size or not self._head.startswith(MAGIC):
            raise SealedError("it is no backup of moneTor")
        _, version, cost, salt = _HEAD.unpack(self._head)
        if version != VERSION:
            raise SealedError(f"the backup has format {version}, this version of moneTor reads "
                              f"format {VERSION}")
        if not 2 <= cost <= MAX_COST or cost & (cost - 1):
            raise SealedError(f"the backup asks for scrypt with N = {cost}")
        self._cipher = AESGCM(_key(passphrase, salt, cost))
        self._number = 0
        self._ready = bytearray()
        self._next = file.read(PIECE + _TAG)
        self._ended = False

    def read(self, size: int) -> bytes:
        """The next bytes, fewer than `size` only at the end; `SealedError` if they are not as they
        were written."""
        while len(self._ready) < size and not self._ended:
            self._open_piece()
        taken = bytes(self._ready[:size])
        del self._ready[:size]
        return taken

    def finish(self) -> None:
        """Verify what was not read; `SealedError` if the file is not whole."""
        while not self._ended:
            self._ready.clear()
            self._open_piece()

    def _open_piece(self) -> None:
        piece, self._next = self._next, self._file.read(PIECE + _TAG)
        self._ended = not self._next
        try:
            self._ready += self._cipher.decrypt(
                _nonce(self._number, self._ended), piece, self._head)
        except (InvalidTag, ValueError):
            raise SealedError(
                "the passphrase is another, or the file was changed" if self._number == 0
                else "the backup is not whole: it was changed or cut off") from None
        self._number += 1


def _key(passphrase: str, salt: bytes, cost: int) -> bytes:
    return Scrypt(salt=salt, length=32, n=cost, r=BLOCK_SIZE, p=PARALLEL).derive(
        passphrase.encode())


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])
