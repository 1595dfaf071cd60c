# SPDX-License-Identifier: BSD-3-Clause
"""Flow-control windows and authenticated SENDMEs (tor-spec, "Flow control"; proposal 289).

A window counts DATA cells. The packager takes from it with every cell that it sends and gets one
increment back with every SENDME; the deliverer counts what arrives and owes a SENDME per
increment, whatever the size of the window. So a window may change its size at any time, and as
long as it holds one increment it can never be full without a SENDME being due.
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

    __slots__ = ("in_flight", "increment", "size")

    def __init__(self, size: int, increment: int) -> None:
        self.size = size
        self.increment = increment
        self.in_flight = 0
        """Cells that were sent and that no SENDME has acknowledged."""

    @property
    def available(self) -> int:
        """Cells that may be sent now; not positive when there are none, which is negative when
        the window became smaller than what is in flight."""
        return self.size - self.in_flight

    def take(self) -> None:
        """One cell is being sent. Only call it while some are available."""
        if self.available <= 0:
            raise ValueError("the package window is empty")
        self.in_flight += 1

    def credit(self) -> None:
        """A SENDME came. Raises ProtocolViolation when it acknowledges more than was sent."""
        if self.in_flight < self.increment:
            raise ProtocolViolation("SENDME for cells that were never sent")
        self.in_flight -= self.increment

    def resize(self, size: int) -> None:
        """Let so many cells be in flight from now on. What is in flight stays there: after a
        smaller size nothing is sent until enough of it has been acknowledged."""
        if size < self.increment:
            raise ValueError(f"a window of {size} is smaller than its increment")
        self.size = size


class DeliverWindow:
    """How many DATA cells the peer may have sent that we have not acknowledged."""

    __slots__ = ("increment", "limit", "unacknowledged")

    def __init__(self, limit: int, increment: int) -> None:
        self.limit = limit
        self.increment = increment
        self.unacknowledged = 0

    def received(self) -> None:
        """One cell came. Raises ProtocolViolation when the peer overran its window."""
        if self.unacknowledged >= self.limit:
            raise ProtocolViolation("more DATA cells than the window allows")
        self.unacknowledged += 1

    @property
    def sendme_due(self) -> bool:
        """Whether a whole increment waits to be acknowledged."""
        return self.unacknowledged >= self.increment

    def acknowledge(self) -> None:
        """A SENDME is being sent."""
        self.unacknowledged -= self.increment

    def allow(self, limit: int) -> None:
        """Let the peer use a window of this size from now on. A limit is never lowered: no cell
        says when the peer has learnt that its window is smaller again, so one window of the old
        size stays tolerated."""
        self.limit = max(self.limit, limit)


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
