# SPDX-License-Identifier: BSD-3-Clause
"""SOCKS5 for applications on this machine: their connections go through paid circuits.

Connections with equal credentials share a circuit, others never do. A circuit takes new
connections for `DIRTY_SECONDS` after its first one (tor's MaxCircuitDirtiness), and is closed when
the last of them has ended.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import structlog

from ..protocol.errors import ProtocolError
from ..transport.client_stream import ClientStream
from ..transport.errors import CircuitClosed, EndReason, StreamClosed, TransportError
from ..transport.proxy import ClientCircuit
from ..transport.socks import (
    Isolation,
    SocksConversation,
    SocksError,
    SocksReply,
    SocksRequest,
    encode_reply,
)
from .directory import DirectoryError
from .tasks import Tasks

DIRTY_SECONDS = 600.0
CONVERSATION_SECONDS = 30.0
"""An application that has not said by then where it wants to go is hung up on."""
MAX_CONNECTIONS = 512
CIRCUIT_TRIES = 2
"""A connection whose circuit dies before it stands is tried on another one."""
LOOK_SECONDS = 1.0
_READ_SIZE = 32 * 1024


class OpenCircuit(Protocol):
    """A circuit that somebody keeps paid."""

    circuit: ClientCircuit

    @property
    def usable(self) -> bool:
        """Whether more streams should go over it."""


@dataclass(slots=True, eq=False)
class _Shared:
    """One circuit, being built or open, and how many connections it carries."""

    isolation: Isolation
    opening: asyncio.Future[OpenCircuit]
    dirty_at: float
    users: int = 0
    retired: bool = False


class SocksProxy:
    """Listens on loopback. `build` makes a paid circuit; its errors are told to the application.

    Nothing that an application says, and nowhere that it goes, is logged.
    """

    def __init__(self, build: Callable[[], Awaitable[OpenCircuit]], tasks: Tasks,
                 nickname: str = "client") -> None:
        self._build = build
        self._tasks = tasks
        self._log = structlog.get_logger(nickname)
        self._server: asyncio.Server | None = None
        self._shared: dict[Isolation, _Shared] = {}
        self._open: set[_Shared] = set()
        self._connections = 0
        self._named = 0
        self.served = 0
        """Connections that were carried, since the start."""

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def circuits(self) -> int:
        """Circuits that are open or being built."""
        return len(self._open)

    async def start(self, host: str, port: int) -> None:
        """Listen. `ValueError` for an address that others could reach, or `OSError`."""
        if not ipaddress.ip_address(host).is_loopback:
            raise ValueError(f"{host} can be reached from elsewhere, and whoever reaches a SOCKS "
                             "proxy spends this client's money: use 127.0.0.1 or ::1")
        self._server = await asyncio.start_server(self._accepted, host, port)
        self._tasks.start("socks:circuits", self._retire_old_circuits())

    async def stop(self) -> None:
        """Hang up on everybody and close the circuits."""
        if self._server is not None:
            self._server.close()
        await self._tasks.stop("socks:")
        for shared in list(self._open):
            await self._drop(shared)

    # --- Connections

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._connections >= MAX_CONNECTIONS:
            self._log.warning("too many connections at once", limit=MAX_CONNECTIONS)
            writer.close()
            return
        # As a task of the agent's, it is ended with it and does not fail unseen.
        self._named += 1
        self._tasks.start(f"socks:{self._named}", self._serve(reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            conversation = SocksConversation()
            try:
                request = await self._converse(conversation, reader, writer)
                if request is not None:
                    await self._carry(request, conversation.early, reader, writer)
            except SocksError as error:
                self._log.info("a connection is refused", reason=str(error))
                writer.write(error.answer)
                await writer.drain()
            except (TimeoutError, OSError, TransportError) as error:
                # Application or destination went away in the middle; both ends know it.
                self._log.debug("a connection broke", reason=type(error).__name__)
        finally:
            self._connections -= 1
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _converse(self, conversation: SocksConversation, reader: asyncio.StreamReader,
                        writer: asyncio.StreamWriter) -> SocksRequest | None:
        async with asyncio.timeout(CONVERSATION_SECONDS):
            while conversation.request is None:
                data = await reader.read(_READ_SIZE)
                if not data:
                    return None
                writer.write(conversation.receive(data))
                await writer.drain()
        return conversation.request

    async def _carry(self, request: SocksRequest, early: bytes, reader: asyncio.StreamReader,
                     writer: asyncio.StreamWriter) -> None:
        shared, stream = await self._connect(request)
        try:
            try:
                writer.write(encode_reply(SocksReply.SUCCEEDED))
                await writer.drain()
                self.served += 1
                if early:
                    await stream.write(early)
                # Tor's streams have no half-closed state: when one side is done, both are.
                directions = (asyncio.create_task(_up(reader, stream)),
                              asyncio.create_task(_down(stream, writer)))
                try:
                    done, _ = await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
                    for one in done:
                        one.result()
                finally:
                    for one in directions:
                        one.cancel()
                    await asyncio.gather(*directions, return_exceptions=True)
            finally:
                await stream.close()
        finally:
            await self._leave(shared)

    async def _connect(self, request: SocksRequest) -> tuple[_Shared, ClientStream]:
        for left in reversed(range(CIRCUIT_TRIES)):
            shared = self._circuit_for(request.isolation)
            shared.users += 1
            connected = False
            try:
                # Others may be waiting for the same circuit: it is built on when this one leaves.
                opened = await asyncio.shield(shared.opening)
                stream = await opened.circuit.open_stream(request.host, request.port)
                connected = True
                return shared, stream
            except StreamClosed as error:
                if error.reason is EndReason.RESOURCELIMIT:
                    self._retire(shared)
                    if left:
                        continue
                raise _failure("the exit refuses the connection", SocksReply.of(error.reason)) \
                    from error
            except CircuitClosed as error:
                self._retire(shared)
                if not left:
                    raise _failure(f"the circuit is gone: {error}",
                                   SocksReply.GENERAL_FAILURE) from error
            except (TransportError, ProtocolError, DirectoryError, TimeoutError) as error:
                self._retire(shared)
                self._log.warning("no paid circuit", reason=str(error))
                raise _failure("no paid circuit can be had",
                               SocksReply.NETWORK_UNREACHABLE) from error
            finally:
                if not connected:
                    await self._leave(shared)
        raise AssertionError("the last try returns or raises")

    # --- Circuits

    def _circuit_for(self, isolation: Isolation) -> _Shared:
        now = time.monotonic()
        shared = self._shared.get(isolation)
        if shared is not None and (now >= shared.dirty_at or _is_dead(shared)):
            self._retire(shared)
            shared = None
        if shared is None:
            opening: asyncio.Future[OpenCircuit] = asyncio.get_running_loop().create_future()
            shared = _Shared(isolation, opening, now + DIRTY_SECONDS)
            self._shared[isolation] = shared
            self._open.add(shared)
            self._named += 1
            self._tasks.start(f"socks:build:{self._named}", self._open_circuit(shared))
        return shared

    async def _open_circuit(self, shared: _Shared) -> None:
        try:
            opened = await self._build()
        except (TransportError, ProtocolError, DirectoryError, TimeoutError) as error:
            shared.opening.set_exception(error)
            shared.opening.exception()  # nobody may be waiting any more
        except BaseException:
            shared.opening.cancel()
            raise
        else:
            shared.opening.set_result(opened)
            if shared.retired and not shared.users:
                await self._drop(shared)

    def _retire(self, shared: _Shared) -> None:
        """Give the circuit no new connections."""
        shared.retired = True
        if self._shared.get(shared.isolation) is shared:
            del self._shared[shared.isolation]

    async def _leave(self, shared: _Shared) -> None:
        shared.users -= 1
        if shared.retired and not shared.users:
            await self._drop(shared)

    async def _drop(self, shared: _Shared) -> None:
        self._retire(shared)
        if _is_open(shared):
            await shared.opening.result().circuit.close()
        if shared.opening.done():
            self._open.discard(shared)

    async def _retire_old_circuits(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = time.monotonic()
            for shared in list(self._open):
                if now >= shared.dirty_at or _is_dead(shared):
                    self._retire(shared)
                    if not shared.users:
                        await self._drop(shared)


def _is_open(shared: _Shared) -> bool:
    opening = shared.opening
    return opening.done() and not opening.cancelled() and opening.exception() is None


def _is_dead(shared: _Shared) -> bool:
    return shared.opening.done() and (
        not _is_open(shared) or not shared.opening.result().usable)


async def _up(reader: asyncio.StreamReader, stream: ClientStream) -> None:
    while data := await reader.read(_READ_SIZE):
        await stream.write(data)


async def _down(stream: ClientStream, writer: asyncio.StreamWriter) -> None:
    while data := await stream.read(_READ_SIZE):
        writer.write(data)
        await writer.drain()


def _failure(text: str, reply: SocksReply) -> SocksError:
    return SocksError(text, encode_reply(reply))
