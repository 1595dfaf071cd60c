# SPDX-License-Identifier: BSD-3-Clause
"""The exit's end of a stream: a TCP connection on one side, DATA cells on the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .errors import EndReason, ProtocolViolation
from .relay_circuit import RouterCircuit
from .stream_cell import encode_connected

_HIGH_WATER, _LOW_WATER = 64 * 1024, 16 * 1024
LINGER_SECONDS = 30.0
"""How long a destination may take nothing of what it was sent before its stream ended."""


def _nothing() -> object:
    return None


class ExitStream(asyncio.Protocol):
    """The TCP connection of one stream, and the stream's sink.

    What the client says before the connection stands is kept, at most one stream window; its
    SENDMEs wait until the destination has taken the bytes.
    """

    def __init__(self, circuit: RouterCircuit, stream_id: int) -> None:
        self._circuit = circuit
        self._stream = circuit.edge.open(stream_id, self)
        self._stream.pause()
        self._early: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self.give_up: Callable[[], object] = _nothing
        """Ends the attempt to connect; called when the stream ends before it is connected."""

    def refuse(self, reason: EndReason) -> None:
        """The connection could not be made."""
        self._guard(lambda: self._stream.abort(reason))

    def _guard(self, action: Callable[[], None]) -> None:
        """Run something that sends cells; a queue that overflows ends the circuit."""
        try:
            action()
        except ProtocolViolation as error:
            self._circuit.violated(error)

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        assert isinstance(transport, asyncio.Transport)
        if self._stream.closed:
            transport.abort()
            return
        self._transport = transport
        transport.set_write_buffer_limits(_HIGH_WATER, _LOW_WATER)
        address = str(transport.get_extra_info("peername")[0]).partition("%")[0]
        self._guard(lambda: self._circuit.stream_connected(
            self._stream, encode_connected(address)))
        if self._early:
            transport.write(b"".join(self._early))
            self._early.clear()
        self._guard(self._stream.resume)

    def data_received(self, data: bytes) -> None:
        """The destination said something."""
        self._guard(lambda: self._stream.send(data))
        if self._stream.pending and self._transport is not None:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """The destination has said everything. Tor streams have no half-closed state."""
        self._guard(self._stream.finish)
        return False

    def pause_writing(self) -> None:
        """The destination is slow."""
        self._stream.pause()

    def resume_writing(self) -> None:
        """The destination has caught up."""
        self._guard(self._stream.resume)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        reason = EndReason.DONE if exc is None else EndReason.CONNRESET
        self._guard(lambda: self._stream.finish(reason))
        self._transport = None

    # --- StreamSink

    def connected(self) -> None:
        """Only clients are told so."""

    def data(self, data: bytes) -> None:
        """The client said something."""
        if self._transport is not None:
            self._transport.write(data)
        else:
            self._early.append(data)

    def writable(self) -> None:
        """All has been packaged: read on."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def ended(self, reason: EndReason) -> None:
        """The client or the circuit has closed the stream."""
        if self._transport is None:
            self.give_up()
            return
        self._transport.close()
        _linger(self._transport)


def _linger(transport: asyncio.Transport, before: int | None = None) -> None:
    """Abort a transport that is being closed once its destination takes nothing any more, which
    would keep the connection, and the bytes, for ever."""
    waiting = transport.get_write_buffer_size()
    if waiting and waiting == before:
        transport.abort()
    elif waiting:
        asyncio.get_running_loop().call_later(LINGER_SECONDS, _linger, transport, waiting)
