# SPDX-License-Identifier: BSD-3-Clause
"""Payment messages in cells: fragments and their reassembly (the paper's figure 3).

A cell carries PCMD (1 byte), a length (2 bytes) and as much of the payload as fits: 495 bytes
inside a relay cell, 506 in a link cell. A longer message takes several cells of the same PCMD.
The length says how much of the message is still to come, this cell included, so that a receiver
knows where it ends and can refuse an oversized one at its first cell.
"""

from __future__ import annotations

import struct

from .cell import BODY_LEN
from .errors import MessageTooLong, ProtocolViolation
from .relay_cell import MAX_DATA

PAYMENT_HEADER_LEN = 3
RELAY_PAYLOAD = MAX_DATA - PAYMENT_HEADER_LEN
"""Bytes of a message in one RELAY_COMMAND_MT cell (495)."""
LINK_PAYLOAD = BODY_LEN - PAYMENT_HEADER_LEN
"""Bytes of a message in one PAYMENT link cell (506)."""
MAX_MESSAGE = 32_768
"""Longest message accepted, well above any of the payment protocol and small enough that a peer
gains nothing by leaving many of them unfinished."""

_HEADER = struct.Struct(">BH")


def fragment(pcmd: int, payload: bytes, room: int) -> list[bytes]:
    """Cut a message into cell contents of at most `room` payload bytes each.

    An empty message is one cell. Raises MessageTooLong above MAX_MESSAGE.
    """
    size = len(payload)
    if size > MAX_MESSAGE:
        raise MessageTooLong(f"a payment message has at most {MAX_MESSAGE} bytes, not {size}")
    if not 0 <= pcmd <= 0xFF:
        raise ValueError("PCMD is one byte")
    return [_HEADER.pack(pcmd, size - at) + payload[at : at + room]
            for at in range(0, max(size, 1), room)]


class Assembler:
    """Puts together the messages of one peer on one carrier. Holds at most MAX_MESSAGE bytes."""

    __slots__ = ("_limit", "_missing", "_parts", "_pcmd", "_room")

    def __init__(self, room: int, limit: int = MAX_MESSAGE) -> None:
        """`room`: RELAY_PAYLOAD or LINK_PAYLOAD; `limit`: longest message in bytes."""
        self._room = room
        self._limit = limit
        self._pcmd = 0
        self._missing = 0
        self._parts: list[bytes] = []

    def feed(self, content: bytes) -> tuple[int, bytes] | None:
        """Take in one cell; returns (pcmd, payload) when it completes a message.

        Raises ProtocolViolation for a message that is too long, a fragment of another message in
        between, or a length that does not continue the one before.
        """
        if len(content) < PAYMENT_HEADER_LEN:
            raise ProtocolViolation("payment cell without a header")
        pcmd, remaining = _HEADER.unpack_from(content)
        if self._parts:
            if pcmd != self._pcmd or remaining != self._missing:
                raise ProtocolViolation("payment cell does not continue the message before it")
        elif remaining > self._limit:
            raise ProtocolViolation(f"payment message of {remaining} bytes")
        size = min(remaining, self._room)
        part = content[PAYMENT_HEADER_LEN : PAYMENT_HEADER_LEN + size]
        if len(part) != size:
            raise ProtocolViolation("payment cell is cut short")
        if remaining == size:
            payload = b"".join([*self._parts, part])
            self._parts = []
            return pcmd, payload
        self._pcmd, self._missing = pcmd, remaining - size
        self._parts.append(part)
        return None
