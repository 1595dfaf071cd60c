# SPDX-License-Identifier: BSD-3-Clause
"""Cells on a link (tor-spec, "Cells (messages on channels)").

A fixed cell is a four-byte circuit id, a command and 509 bytes; a variable cell has a two-byte
length before its body. Relay cells come in long rows for the same circuit, so the parser hands out
such a row as one piece: everything above it then costs one call for the row.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from .errors import MessageTooLong

BODY_LEN = 509
"""CELL_BODY_LEN of tor-spec: bytes in a fixed cell after its command."""
HEADER_LEN = 5
CELL_LEN = HEADER_LEN + BODY_LEN
MAX_VARIABLE_BODY = 0xFFFF
MAX_RUN = 32
"""Most relay cells in one run. Longer AES calls are no faster, and less fair."""


class Command(IntEnum):
    """Cell commands of tor-spec, and PAYMENT, a number that it leaves unassigned."""

    PADDING = 0
    RELAY = 3
    DESTROY = 4
    CREATE_FAST = 5
    CREATED_FAST = 6
    VERSIONS = 7
    NETINFO = 8
    RELAY_EARLY = 9
    CREATE2 = 10
    CREATED2 = 11
    PADDING_NEGOTIATE = 12
    PAYMENT = 13
    VPADDING = 128
    CERTS = 129
    AUTH_CHALLENGE = 130
    AUTHENTICATE = 131
    AUTHORIZE = 132


_RELAY, _RELAY_EARLY = int(Command.RELAY), int(Command.RELAY_EARLY)
_VERSIONS = int(Command.VERSIONS)
_FIRST_VARIABLE = 128
_HEADER = struct.Struct(">IB")


class RunningHash(Protocol):
    """What the parser needs of a hashlib object."""

    def update(self, data: bytes, /) -> None:
        """Append to what is hashed."""


@dataclass(frozen=True, slots=True)
class Cells:
    """One cell, or a run of relay cells with equal circuit and command.

    `body` has `count` times 509 bytes for fixed cells; a variable cell has count 1.
    """

    circ_id: int
    command: int
    count: int
    body: bytes


def is_variable(command: int) -> bool:
    """Whether cells of this command carry their length."""
    return command >= _FIRST_VARIABLE or command == _VERSIONS


def encode_fixed(circ_id: int, command: int, body: bytes) -> bytes:
    """One fixed cell; `body` (at most 509 bytes) is padded with zeros."""
    if len(body) > BODY_LEN:
        raise MessageTooLong(f"{len(body)} bytes do not fit into a cell")
    return _HEADER.pack(circ_id, command) + body.ljust(BODY_LEN, b"\0")


def encode_variable(circ_id: int, command: int, body: bytes, *, id_len: int = 4) -> bytes:
    """One variable cell. The first VERSIONS cell of a link has circuit ids of two bytes."""
    if len(body) > MAX_VARIABLE_BODY:
        raise MessageTooLong(f"{len(body)} bytes do not fit into a variable cell")
    return circ_id.to_bytes(id_len, "big") + struct.pack(">BH", command, len(body)) + body


def encode_run(circ_id: int, command: int, bodies: bytes) -> bytes:
    """A row of fixed cells; `bodies` are whole cell bodies, 509 bytes each, one after another."""
    header = _HEADER.pack(circ_id, command)
    if len(bodies) == BODY_LEN:
        return header + bodies
    return header + header.join(
        [bodies[i : i + BODY_LEN] for i in range(0, len(bodies), BODY_LEN)]
    )


class CellParser:
    """Cuts a byte stream into cells. Never holds more than one incomplete cell once drained."""

    def __init__(self) -> None:
        self._buffer = b""
        self._at = 0
        self.id_len = 2
        """Length of a circuit id: 2 until VERSIONS is settled, 4 from then on."""
        self.transcript: RunningHash | None = None
        """While set, takes in every byte of every cell that `next_cell` hands out."""

    def feed(self, data: bytes) -> None:
        """Append bytes from the link."""
        if self._at < len(self._buffer):
            self._buffer = self._buffer[self._at :] + data
        else:
            self._buffer = data
        self._at = 0

    def next_cell(self) -> Cells | None:
        """The next single cell, None when it is not complete yet. For the link handshake."""
        buffer, at, id_len = self._buffer, self._at, self.id_len
        start = at + id_len + 1
        if len(buffer) < start:
            return None
        command = buffer[start - 1]
        if is_variable(command):
            if len(buffer) < start + 2:
                return None
            end = start + 2 + int.from_bytes(buffer[start : start + 2], "big")
            start += 2
        else:
            end = start + BODY_LEN
        if len(buffer) < end:
            return None
        if self.transcript is not None:
            self.transcript.update(buffer[at:end])
        self._at = end
        circ_id = int.from_bytes(buffer[at : at + id_len], "big")
        return Cells(circ_id, command, 1, buffer[start:end])

    def drain(self) -> list[Cells]:
        """Every complete cell, relay cells in runs. Only once circuit ids have four bytes."""
        out: list[Cells] = []
        buffer = self._buffer
        total = len(buffer)
        while True:
            at = self._at
            if total - at < CELL_LEN or buffer[at + 4] not in (_RELAY, _RELAY_EARLY):
                cell = self.next_cell()
                if cell is None:
                    return out
                out.append(cell)
                continue
            header = buffer[at : at + HEADER_LEN]
            bodies = [buffer[at + HEADER_LEN : at + CELL_LEN]]
            at += CELL_LEN
            last = min(total - CELL_LEN, at + (MAX_RUN - 2) * CELL_LEN)
            while at <= last and buffer.startswith(header, at):
                bodies.append(buffer[at + HEADER_LEN : at + CELL_LEN])
                at += CELL_LEN
            self._at = at
            circ_id, command = _HEADER.unpack(header)
            out.append(Cells(circ_id, command, len(bodies), b"".join(bodies)))
