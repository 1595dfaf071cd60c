# SPDX-License-Identifier: BSD-3-Clause
"""A client's stream under asyncio: read, write, close."""

from __future__ import annotations

import asyncio
from collections import deque

from .circuit import CircuitCore
from .edge import EdgeStream
from .errors import CircuitClosed, EndReason, StreamClosed

_BLOCK = 32 * 1024
_HIGH_WATER, _LOW_WATER = 256 * 1024, 64 * 1024
"""Unread bytes at which SENDMEs are held back, and below which they are sent again."""


class ClientStream:
    """One TCP connection through a circuit. Get it from `ClientCircuit.open_stream`."""

    def __init__(self, circuit: CircuitCore, host: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        self._connected: asyncio.Future[None] = loop.create_future()
        self._changed = asyncio.Event()
        self._chunks: deque[bytes] = deque()
        self._unread = 0
        self._end: EndReason | None = None
        self._closed = False
        self._circuit = circuit
        self._stream: EdgeStream = circuit.open_stream(host, port, self)

    @property
    def is_connected(self) -> bool:
        """Whether the exit has connected."""
        return self._stream.connected

    async def wait_connected(self) -> None:
        """Wait until the exit has connected. Raises StreamClosed when it refuses."""
        await asyncio.shield(self._connected)

    async def read(self, n: int = 65536) -> bytes:
        """Up to `n` bytes, at least one; b"" at the end.

        Raises StreamClosed when the stream broke instead of ending.
        """
        while not self._chunks:
            if self._end is not None and self._end is not EndReason.DONE:
                raise self._failure(self._end)
            if self._end is not None or self._closed:
                return b""
            self._changed.clear()
            await self._changed.wait()
        data = self._gather(n)
        self._unread -= len(data)
        if self._unread < _LOW_WATER and not self._stream.closed:
            self._stream.resume()
        return data

    def _gather(self, n: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        while self._chunks and size < n:
            chunk = self._chunks.popleft()
            if size + len(chunk) > n:
                self._chunks.appendleft(chunk[n - size :])
                chunk = chunk[: n - size]
            parts.append(chunk)
            size += len(chunk)
        return b"".join(parts)

    async def write(self, data: bytes) -> None:
        """Send `data`; returns when all of it is in cells, that is, when windows allowed it.

        Raises StreamClosed when the stream has ended.
        """
        for at in range(0, len(data), _BLOCK):
            self._check_writable()
            self._stream.send(data[at : at + _BLOCK])
            while self._stream.pending and not self._stream.closed:
                self._changed.clear()
                await self._changed.wait()
        self._check_writable()

    def _check_writable(self) -> None:
        if self._closed or self._stream.closed:
            raise self._failure(self._end or EndReason.DONE)

    def _failure(self, reason: EndReason) -> StreamClosed:
        return StreamClosed(f"the stream has ended: {reason.name}", reason)

    async def close(self) -> None:
        """Tell the exit that we are done. Does nothing on a closed stream."""
        if not self._closed:
            self._closed = True
            self._stream.finish(EndReason.DONE)
            self._changed.set()

    # --- StreamSink

    def connected(self) -> None:
        """The exit has connected."""
        if not self._connected.done():
            self._connected.set_result(None)

    def data(self, data: bytes) -> None:
        """Bytes arrived."""
        if self._closed:
            return
        self._chunks.append(data)
        self._unread += len(data)
        if self._unread >= _HIGH_WATER:
            self._stream.pause()
        self._changed.set()

    def ended(self, reason: EndReason) -> None:
        """The exit or the circuit has closed the stream."""
        self._end = reason
        if not self._connected.done():
            failure: Exception = self._failure(reason)
            if self._circuit.closed:
                failure = CircuitClosed("the circuit was closed", self._circuit.close_reason)
            self._connected.set_exception(failure)
            self._connected.exception()  # nobody may be waiting for it
        self._changed.set()

    def writable(self) -> None:
        """All that was given has been packaged."""
        self._changed.set()
