# SPDX-License-Identifier: BSD-3-Clause
"""A channel on a TCP connection with TLS, under asyncio.

Everything that one read brings is processed before anything is written, and each socket is then
written once: calls and system calls, not ciphers, are what costs. With a bandwidth limit, links
write a little at a time, in the order of their most urgent cells.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable

from OpenSSL import SSL

from .bandwidth_driver import BandwidthLimit
from .channel import TAKE_BYTES, Channel, ChannelOwner
from .channel_pool import Waiter
from .errors import LinkFailed, TransportError
from .extend import LinkTarget
from .identity import RouterIdentity
from .link import Initiating, Responding
from .scheduler import Scheduling, Turn
from .tls import TlsSession

_log = logging.getLogger(__name__)

HANDSHAKE_TIMEOUT = 10.0
"""Seconds from the TCP connection to an open channel."""
_HIGH_WATER, _LOW_WATER = 128 * 1024, 32 * 1024
_READ_BYTES = 128 * 1024
_UNSENT = 64 * 1024
"""Bytes that the kernel may hold without having sent them. What waits there has its order for
good; the rest stays in the queues, where the order is still to be decided (so does tor's KIST)."""


class LinkConnection(asyncio.BufferedProtocol):
    """TLS and one channel over one TCP connection."""

    def __init__(self, owner: ChannelOwner, context: SSL.Context,
                 role: LinkTarget | RouterIdentity, *, scheduling: Scheduling,
                 buffer: bytearray, limit: BandwidthLimit | None = None,
                 caller: RouterIdentity | None = None, timeout: float = HANDSHAKE_TIMEOUT,
                 done: Callable[[LinkConnection, Channel | TransportError], None]) -> None:
        """`role`: whom we called, or who we are when we were called. `caller`: who we are when we
        call as a router. `done` is called once with the open channel or with the error that came
        before it. `buffer` is only used between `get_buffer` and `buffer_updated`, so all links of
        a loop can share one."""
        self._owner = owner
        self._role = role
        self._caller = caller
        self._done = done
        self._scheduling = scheduling
        self._buffer = memoryview(buffer)
        self._limit = limit
        self._timeout = timeout
        self._tls = TlsSession(context, server=isinstance(role, RouterIdentity))
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._flushing = False
        self._paused = False
        self._error: TransportError = LinkFailed("the link was closed")
        self.channel: Channel | None = None
        self.gone = self._loop.create_future()
        """Done when the connection is closed."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """TCP is up: start TLS."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(_HIGH_WATER, _LOW_WATER)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            transport.get_extra_info("socket").setsockopt(
                socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)
        self._timer = self._loop.call_later(self._timeout, self._too_slow)
        if isinstance(self._role, LinkTarget):
            self._tls.start()
            self._write_tls()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Room for as much as may be read now."""
        return self._buffer if self._limit is None else self._buffer[: self._limit.read_size()]

    def buffer_updated(self, nbytes: int) -> None:
        """Decrypt and process."""
        if self._limit is not None:
            self._limit.was_read(self, nbytes)
        try:
            plain = self._tls.feed(bytes(self._buffer[:nbytes]))
            if self.channel is None:
                self._write_tls()
                if self._tls.established:
                    self._open_channel()
            if plain and self.channel is not None:
                opening = not self.channel.is_open
                self.channel.receive(plain)
                if opening and self.channel.is_open:
                    self._opened(self.channel)
            if self._tls.peer_finished and self._transport is not None:
                self._transport.close()
        except TransportError as error:
            self._fail(error)

    def _open_channel(self) -> None:
        binding = self._tls.binding
        role = (Responding(self._role, binding) if isinstance(self._role, RouterIdentity)
                else Initiating(self._role, self._tls.peer_certificate(), self._caller, binding))
        self.channel = Channel(self._owner, role, now=time.time(),
                               peer_host=self._peer_host(), own_host=self._own_host(),
                               scheduling=self._scheduling)
        self.channel.wake = self._wake
        self.channel.start()

    def _peer_host(self) -> str:
        assert self._transport is not None
        return str(self._transport.get_extra_info("peername")[0]).partition("%")[0]

    def _own_host(self) -> str:
        """Only a router tells its address."""
        if not isinstance(self._role, RouterIdentity) and self._caller is None:
            return ""
        assert self._transport is not None
        return str(self._transport.get_extra_info("sockname")[0]).partition("%")[0]

    def _opened(self, channel: Channel) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._done(self, channel)

    def _too_slow(self) -> None:
        self._timer = None
        self._fail(LinkFailed("the handshake took too long"))

    # --- output

    def _wake(self) -> None:
        if self._limit is not None:
            self._limit.announce(self)
        elif not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        while self._send(TAKE_BYTES):
            pass

    def _send(self, size: int) -> bool:
        """Send about so many bytes; False when there is nothing more to send, or no room."""
        if self.channel is None or self._paused:
            return False
        try:
            out = self.channel.take_output(size)
            if out:
                self._tls.write(out)
                self._write_tls()
        except TransportError as error:
            self._fail(error)
            return False
        return bool(out)

    def _write_tls(self) -> None:
        data = self._tls.output()
        if data and self._transport is not None and not self._transport.is_closing():
            if self._limit is not None:
                self._limit.written(len(data))
            self._transport.write(data)

    # --- LimitedLink

    @property
    def turn(self) -> Turn | None:
        """How urgent the link's next cell is; None when it has none, or no room for it."""
        return None if self.channel is None or self._paused else self.channel.turn

    def send_some(self, size: int) -> None:
        """It is this link's turn."""
        self._send(size)

    def pause_reading(self) -> None:
        """The router has read enough for now."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """The router may read again."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        """The socket's buffer is full."""
        self._paused = True

    def resume_writing(self) -> None:
        """The socket has room again."""
        self._paused = False
        self._wake()

    # --- end

    def close(self) -> None:
        """Send what is queued and close."""
        self._paused = False
        self._flush()
        if self._transport is not None and not self._transport.is_closing():
            self._tls.finish()
            self._write_tls()
            self._transport.close()

    def abort(self) -> None:
        """Drop the connection."""
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, error: TransportError) -> None:
        _log.info("link closed: %s", error)
        self._error = error
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """TCP is gone: tell everybody who relied on it."""
        if exc is not None:
            self._error = LinkFailed(f"the connection was lost: {exc}")
        if self._limit is not None:
            self._limit.forget(self)
        never_opened = self.channel is None or not self.channel.is_open
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.channel is not None:
            self.channel.lost(self._error)
        if never_opened:
            self._done(self, self._error)
        if not self.gone.done():
            self.gone.set_result(None)


class LinkSet:
    """All connections of one router or proxy, so that they can be dialled and closed."""

    def __init__(self, owner: ChannelOwner, context: SSL.Context, *,
                 identity: RouterIdentity | None = None, scheduling: Scheduling | None = None,
                 limit: BandwidthLimit | None = None, timeout: float = HANDSHAKE_TIMEOUT) -> None:
        """`context`: for links that are dialled; `identity`: of a router, which tells on them who
        it is. `limit` bounds all links together."""
        self._owner = owner
        self._identity = identity
        self._context = context
        self._timeout = timeout
        self._links: set[LinkConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._scheduling = scheduling or Scheduling(now=time.monotonic)
        self._limit = limit
        self._buffer = bytearray(_READ_BYTES)
        self._closed = False

    def __len__(self) -> int:
        return len(self._links)

    def accept(self, context: SSL.Context, identity: RouterIdentity) -> LinkConnection:
        """A protocol for a connection that came in."""
        return self._link(context, identity, lambda link, result: None)

    def _link(self, context: SSL.Context, role: LinkTarget | RouterIdentity,
              done: Callable[[LinkConnection, Channel | TransportError], None]) -> LinkConnection:
        link = LinkConnection(self._owner, context, role, scheduling=self._scheduling,
                              buffer=self._buffer, limit=self._limit, caller=self._identity,
                              timeout=self._timeout, done=done)
        self._track(link)
        return link

    def dial(self, target: LinkTarget, done: Waiter) -> None:
        """Open a link; `done` gets the open channel or the error."""
        task = asyncio.get_running_loop().create_task(self._dial(target, done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _dial(self, target: LinkTarget, done: Waiter) -> None:
        if self._closed:
            done(LinkFailed("closed"))
            return
        loop = asyncio.get_running_loop()

        def protocol() -> LinkConnection:
            return self._link(self._context, target, lambda _, result: done(result))

        try:
            async with asyncio.timeout(self._timeout):
                await loop.create_connection(protocol, target.host, target.port)
        except asyncio.CancelledError:
            done(LinkFailed("closed"))
            raise
        except (OSError, TimeoutError) as error:
            done(LinkFailed(f"no connection to {target.host}:{target.port}: {error}"))

    def _track(self, link: LinkConnection) -> None:
        self._links.add(link)
        link.gone.add_done_callback(lambda _: self._links.discard(link))

    async def close(self, patience: float = 1.0) -> None:
        """Send what is queued, close all links, and wait for that, `patience` seconds at most."""
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        links = list(self._links)
        for link in links:
            link.close()
        if links:
            await asyncio.wait([link.gone for link in links], timeout=patience)
        for link in list(self._links):
            link.abort()
        if self._limit is not None:
            self._limit.close()
