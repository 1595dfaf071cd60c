# SPDX-License-Identifier: BSD-3-Clause
"""Fixed flow-control windows and authenticated SENDMEs (tor-spec, "Flow control"; proposal 289).

A window counts DATA cells. The packager takes from it with every cell that it sends and gets one
increment back with every SENDME; the deliverer counts what arrives and owes a SENDME per
increment. The sizes are arguments, so that a premium circuit can have larger windows.
"""

from __future__ import annotations

import hmac
import struct
from collections import deque

from .errors import ProtocolViolation

CIRCUIT_WINDOW, CIRCUIT_INCREMENT = 1000, 100
STREAM_WINDOW, STREAM_INCREMENT = 500, 50
_SENDME_VERSION = 1
_TAG_LEN = 20


class PackageWindow:
    """How many DATA cells may still be sent."""

    __slots__ = ("available", "increment", "size")

    def __init__(self, size: int, increment: int) -> None:
        self.size = size
        self.increment = increment
        self.available = size

    def take(self) -> None:
        """One cell is being sent. Only call it while some are available."""
        if self.available <= 0:
            raise ValueError("the package window is empty")
        self.available -= 1

    def credit(self) -> None:
        """A SENDME came. Raises ProtocolViolation when it acknowledges more than was sent."""
        if self.available + self.increment > self.size:
            raise ProtocolViolation("SENDME for cells that were never sent")
        self.available += self.increment


class DeliverWindow:
    """How many DATA cells the peer may still send."""

    __slots__ = ("available", "increment", "size")

    def __init__(self, size: int, increment: int) -> None:
        self.size = size
        self.increment = increment
        self.available = size

    def received(self) -> None:
        """One cell came. Raises ProtocolViolation when the peer overran its window."""
        if self.available <= 0:
            raise ProtocolViolation("more DATA cells than the window allows")
        self.available -= 1

    @property
    def sendme_due(self) -> bool:
        """Whether a whole increment waits to be acknowledged."""
        return self.available <= self.size - self.increment

    def acknowledge(self) -> None:
        """A SENDME is being sent."""
        self.available += self.increment


class CircuitPackageWindow(PackageWindow):
    """The circuit's window, which also remembers the digests that SENDMEs must quote."""

    __slots__ = ("_expected", "_sent")

    def __init__(self, size: int = CIRCUIT_WINDOW, increment: int = CIRCUIT_INCREMENT) -> None:
        super().__init__(size, increment)
        self._expected: deque[bytes] = deque()
        self._sent = 0

    @property
    def next_is_marked(self) -> bool:
        """Whether the cell to be sent next ends an increment, so that its digest must be kept.

        The count runs over the circuit's life, across streams.
        """
        return (self._sent + 1) % self.increment == 0

    def sent(self, tag: bytes | None) -> None:
        """A DATA cell went out; `tag` is its digest when it was the marked one."""
        self.take()
        self._sent += 1
        if tag is not None:
            self._expected.append(tag)

    def credit_tagged(self, tag: bytes) -> None:
        """A circuit SENDME came. Raises ProtocolViolation unless it quotes the right digest."""
        if not self._expected or not hmac.compare_digest(self._expected.popleft(), tag):
            raise ProtocolViolation("SENDME does not quote the digest of the acknowledged cell")
        self.credit()


def encode_circuit_sendme(tag: bytes) -> bytes:
    """Body of a circuit-level SENDME, version 1, quoting the 20-byte digest `tag`."""
    return struct.pack(">BH", _SENDME_VERSION, len(tag)) + tag


def decode_circuit_sendme(data: bytes) -> bytes:
    """The digest that a circuit-level SENDME quotes.

    Raises ProtocolViolation for version 0, which proves nothing and which the network has stopped
    accepting (sendme_accept_min_version = 1), and for malformed bodies.
    """
    if len(data) < 3:
        raise ProtocolViolation("circuit SENDME without a digest")
    version, size = struct.unpack_from(">BH", data)
    if version != _SENDME_VERSION or size != _TAG_LEN or len(data) < 3 + size:
        raise ProtocolViolation(f"circuit SENDME version {version} with {size} bytes")
    return data[3 : 3 + size]
