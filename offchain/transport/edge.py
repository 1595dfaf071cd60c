# SPDX-License-Identifier: BSD-3-Clause
"""The two edges of a circuit, client and exit: streams, their data, and both flow-control windows.

The edges are alike: each packages what its side of a stream has to say into DATA cells while the
circuit's and the stream's windows and the link's queue allow, and acknowledges what it delivers.
A stream's SENDME waits while the stream's reader is behind; the circuit's never does, so that one
slow reader does not stop the others.

A circuit becomes premium in three steps, so that nobody sends more than the other end expects: the
exit allows the larger windows (`allow_premium`) before it tells the client that it is premium; the
client allows them too and packages by them (`use_premium`) before it answers; with that answer the
exit packages by them. Either end goes back to the smaller ones at any time, without a word.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import Protocol

from .cell import MAX_RUN
from .errors import EndReason, ProtocolViolation
from .flow_control import (
    CIRCUIT_INCREMENT,
    STREAM_INCREMENT,
    CircuitPackageWindow,
    DeliverWindow,
    PackageWindow,
    decode_circuit_sendme,
    encode_circuit_sendme,
)
from .priority import EVEN, Priority
from .relay_cell import MAX_DATA, RelayCommand, encode_body
from .stream_cell import encode_end

_DATA = int(RelayCommand.DATA)
_HEADER = struct.Struct(">BHHIH")


class EdgeHost(Protocol):
    """The circuit below an edge. What is sealed must be shipped in the same order, and nothing
    else may be sealed for that hop in between."""

    def seal(self, body: bytes) -> bytes:
        """Set the digest into a plain body."""

    def sealed_tag(self) -> bytes:
        """The digest of the body sealed last."""

    def ship(self, bodies: list[bytes]) -> None:
        """Encrypt sealed bodies and send them."""

    def ship_blocked(self) -> bool:
        """Whether the link's queue is full; the edge is pumped again when it no longer is."""


class StreamSink(Protocol):
    """The driver's side of a stream."""

    def connected(self) -> None:
        """The exit has connected (client only)."""

    def data(self, data: bytes) -> None:
        """Bytes arrived."""

    def ended(self, reason: EndReason) -> None:
        """The peer or the circuit closed the stream."""

    def writable(self) -> None:
        """All that was given to `send` has been packaged."""


class EdgeStream:
    """One stream at one edge. Create it with `Edge.open`."""

    def __init__(self, edge: Edge, stream_id: int, sink: StreamSink, window: int,
                 limit: int) -> None:
        self._edge = edge
        self.stream_id = stream_id
        self.sink = sink
        self.package = PackageWindow(window, STREAM_INCREMENT)
        self.deliver = DeliverWindow(limit, STREAM_INCREMENT)
        self.connected = False
        self._pending = b""
        self._at = 0
        self._end: EndReason | None = None
        self._paused = False
        self.closed = False

    @property
    def pending(self) -> int:
        """Bytes given to `send` and not packaged yet."""
        return len(self._pending) - self._at

    def send(self, data: bytes) -> None:
        """Queue bytes for the peer. Callers stop while `pending` is large (see `writable`)."""
        if self.closed or self._end is not None or not data:
            return
        self._pending = self._pending[self._at :] + data if self.pending else data
        self._at = 0
        self._edge.pump_stream(self)

    def finish(self, reason: EndReason = EndReason.DONE) -> None:
        """Send END once all pending bytes are packaged."""
        if self.closed or self._end is not None:
            return
        self._end = reason
        self._edge.pump_stream(self)

    def abort(self, reason: EndReason) -> None:
        """Send END now and forget pending bytes."""
        if not self.closed:
            self._edge.remove(self)
            self._edge.send(RelayCommand.END, self.stream_id, encode_end(reason))

    def pause(self) -> None:
        """The reader is behind: hold back SENDMEs."""
        self._paused = True

    def resume(self) -> None:
        """The reader has caught up."""
        self._paused = False
        self.acknowledge()

    def acknowledge(self) -> None:
        """Send the stream SENDMEs that are due, unless paused."""
        while not self.closed and not self._paused and self.deliver.sendme_due:
            self.deliver.acknowledge()
            self._edge.send(RelayCommand.SENDME, self.stream_id, b"")

    def next_body(self) -> bytes | None:
        """The next DATA body to seal, None while there is nothing to say or no window."""
        size = min(len(self._pending) - self._at, MAX_DATA)
        if size <= 0 or self.package.available <= 0:
            return None
        data = self._pending[self._at : self._at + size]
        self._at += size
        if size == MAX_DATA:
            return _HEADER.pack(_DATA, 0, self.stream_id, 0, size) + data
        return encode_body(_DATA, self.stream_id, data)

    @property
    def end_due(self) -> EndReason | None:
        """The reason of the END to be sent now, None if not yet."""
        return self._end if not self.pending else None


class Edge:
    """All streams of a circuit at one of its edges."""

    def __init__(self, host: EdgeHost, priority: Priority = EVEN) -> None:
        self._host = host
        self._priority = priority
        self._premium = False
        self._windows = priority.windows(premium=False)
        self._limits = priority.limits(premium=False)
        self.package = CircuitPackageWindow(self._windows.circuit, CIRCUIT_INCREMENT)
        self.deliver = DeliverWindow(self._limits.circuit, CIRCUIT_INCREMENT)
        self._streams: dict[int, EdgeStream] = {}
        self._ended: set[int] = set()
        self._waiting: deque[EdgeStream] = deque()
        self._closed = False

    def __len__(self) -> int:
        return len(self._streams)

    def get(self, stream_id: int) -> EdgeStream | None:
        """The open stream of that number."""
        return self._streams.get(stream_id)

    def open(self, stream_id: int, sink: StreamSink) -> EdgeStream:
        """Start a stream; the caller sends BEGIN or CONNECTED."""
        if stream_id in self._streams or not 0 < stream_id <= 0xFFFF:
            raise ProtocolViolation("stream id is in use or zero")
        stream = EdgeStream(self, stream_id, sink, self._windows.stream, self._limits.stream)
        self._streams[stream_id] = stream
        self._ended.discard(stream_id)
        return stream

    def refuse(self, stream_id: int, reason: EndReason) -> None:
        """Answer a BEGIN with END."""
        self._ended.add(stream_id)
        self.send(RelayCommand.END, stream_id, encode_end(reason))

    def send(self, command: RelayCommand, stream_id: int, data: bytes) -> None:
        """Send a message other than DATA at once."""
        if not self._closed:
            self._host.ship([self._host.seal(encode_body(command, stream_id, data))])

    def remove(self, stream: EdgeStream) -> None:
        """Forget a stream; late cells for it are still tolerated."""
        stream.closed = True
        if self._streams.get(stream.stream_id) is stream:
            del self._streams[stream.stream_id]
            self._ended.add(stream.stream_id)

    def close(self, reason: EndReason = EndReason.DESTROY) -> None:
        """The circuit is gone: end every stream without a word to the peer."""
        self._closed = True
        streams, self._streams = self._streams, {}
        self._waiting.clear()
        for stream in streams.values():
            stream.closed = True
            stream.sink.ended(reason)

    # --- priority

    def allow_premium(self) -> None:
        """Let the peer use a premium circuit's windows from now on."""
        self._limits = self._priority.limits(premium=True)
        self.deliver.allow(self._limits.circuit)
        for stream in self._streams.values():
            stream.deliver.allow(self._limits.stream)

    def use_premium(self, premium: bool) -> None:
        """Package by the windows of this class. For premium, the peer must have allowed it."""
        if premium is self._premium:
            return
        self._premium = premium
        self._windows = windows = self._priority.windows(premium=premium)
        self.package.resize(windows.circuit)
        for stream in self._streams.values():
            stream.package.resize(windows.stream)
        if premium:
            self.pump()

    # --- packaging

    def pump_stream(self, stream: EdgeStream) -> None:
        """A stream has something to say."""
        if stream not in self._waiting:
            self._waiting.append(stream)
        self.pump()

    def pump(self) -> None:
        """Package what the windows and the queue allow, streams in turn."""
        host, package = self._host, self.package
        drained: list[EdgeStream] = []
        for _ in range(len(self._waiting)):
            # A callback of `ship` may come back in here or close the circuit.
            if self._closed or not self._waiting or host.ship_blocked():
                break
            stream = self._waiting.popleft()
            if stream.closed:
                continue
            while not stream.closed and not host.ship_blocked():
                bodies = self._package_run(stream, package)
                if bodies:
                    host.ship(bodies)
                if len(bodies) < MAX_RUN:
                    break
            reason = stream.end_due
            if stream.closed:
                continue
            if reason is not None:
                self.remove(stream)
                self.send(RelayCommand.END, stream.stream_id, encode_end(reason))
            elif stream.pending:
                self._waiting.append(stream)
            else:
                drained.append(stream)
        for stream in drained:
            if not stream.closed:
                stream.sink.writable()

    def _package_run(self, stream: EdgeStream, package: CircuitPackageWindow) -> list[bytes]:
        seal = self._host.seal
        bodies: list[bytes] = []
        while len(bodies) < MAX_RUN and package.available > 0:
            body = stream.next_body()
            if body is None:
                break
            marked = package.next_is_marked
            bodies.append(seal(body))
            package.sent(self._host.sealed_tag() if marked else None)
            stream.package.take()
        return bodies

    # --- delivering

    def data_received(self, stream_id: int, data: bytes, tag: bytes) -> None:
        """A DATA cell arrived, whose digest is `tag`. Raises ProtocolViolation on an overrun."""
        self.deliver.received()
        if self.deliver.sendme_due:
            self.deliver.acknowledge()
            self.send(RelayCommand.SENDME, 0, encode_circuit_sendme(tag))
        stream = self._streams.get(stream_id)
        if stream is None:
            if stream_id not in self._ended:
                raise ProtocolViolation("DATA for a stream that never was")
            return
        stream.deliver.received()
        stream.sink.data(data)
        stream.acknowledge()

    def sendme_received(self, stream_id: int, data: bytes) -> None:
        """A SENDME arrived. Raises ProtocolViolation when it acknowledges what was not sent."""
        if not stream_id:
            self.package.credit_tagged(decode_circuit_sendme(data))
        else:
            stream = self._streams.get(stream_id)
            if stream is None:
                return
            stream.package.credit()
        self.pump()

    def end_received(self, stream_id: int, reason: EndReason) -> None:
        """The peer closed a stream."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            self.remove(stream)
            stream.sink.ended(reason)
