# SPDX-License-Identifier: BSD-3-Clause
"""Relay cells: what travels end to end inside a circuit (tor-spec, "Relay cells").

A body of 509 bytes is a command, two zero bytes that say "recognized", a stream id, four bytes of
running digest, a length, and up to 498 bytes of data; the rest is padding.
"""

from __future__ import annotations

import secrets
import struct
from dataclasses import dataclass
from enum import IntEnum

from .cell import BODY_LEN
from .errors import MessageTooLong, ProtocolViolation

RELAY_HEADER_LEN = 11
MAX_DATA = BODY_LEN - RELAY_HEADER_LEN
"""Most bytes of data in one relay cell (498)."""
_ZERO_PADDING = 4
"""tor-spec: four zero bytes of padding first, so that future fields have a known value."""
_HEADER = struct.Struct(">BHHIH")


class RelayCommand(IntEnum):
    """Relay commands of tor-spec that are spoken here, and MT.

    MT carries payment messages. tor-spec and its proposals assign nothing above 44; the number
    of the 2018 prototype (41) has become PADDING_NEGOTIATE.
    """

    BEGIN = 1
    DATA = 2
    END = 3
    CONNECTED = 4
    SENDME = 5
    TRUNCATE = 8
    TRUNCATED = 9
    DROP = 10
    RESOLVE = 11
    RESOLVED = 12
    BEGIN_DIR = 13
    EXTEND2 = 14
    EXTENDED2 = 15
    MT = 200


@dataclass(frozen=True, slots=True)
class RelayMessage:
    """A decrypted relay cell. `data` is without padding."""

    command: int
    stream_id: int
    data: bytes


def encode_body(command: int, stream_id: int, data: bytes) -> bytes:
    """The plain body of a relay cell with a zero digest, which the onion layer fills in.

    The padding is four zero bytes and then random ones, so that nobody who relays a row of cells
    can foresee its digest and acknowledge cells that have not arrived (tor-spec, SENDME).
    """
    size = len(data)
    if size > MAX_DATA:
        raise MessageTooLong(f"{size} bytes do not fit into a relay cell")
    head = _HEADER.pack(command, 0, stream_id, 0, size)
    room = MAX_DATA - size
    if not room:
        return head + data
    if room <= _ZERO_PADDING:
        return head + data + bytes(room)
    return head + data + bytes(_ZERO_PADDING) + secrets.token_bytes(room - _ZERO_PADDING)


def decode_body(body: bytes) -> RelayMessage:
    """Read a recognized body of 509 bytes.

    Raises ProtocolViolation when the length points behind the cell.
    """
    if len(body) != BODY_LEN:
        raise ProtocolViolation(f"a relay body has {BODY_LEN} bytes, not {len(body)}")
    command, _, stream_id, _, size = _HEADER.unpack_from(body)
    if size > MAX_DATA:
        raise ProtocolViolation(f"relay cell announces {size} bytes")
    return RelayMessage(command, stream_id, body[RELAY_HEADER_LEN : RELAY_HEADER_LEN + size])
