# SPDX-License-Identifier: BSD-3-Clause
"""A router under asyncio: it listens, extends circuits, and connects exit streams."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import time
from collections.abc import Callable, Coroutine

from .bandwidth_driver import BandwidthLimit
from .channel_pool import Waiter
from .errors import EndReason, ProtocolViolation, TransportError
from .exit_policy import ExitPolicy
from .exit_stream import ExitStream
from .extend import LinkTarget
from .identity import RouterIdentity
from .link_driver import HANDSHAKE_TIMEOUT, LinkConnection, LinkSet
from .priority import EVEN, Priority
from .relay_circuit import RouterCircuit
from .router_core import RouterCore
from .router_hooks import NoHooks, RouterHooks
from .scheduler import Discipline, Scheduling
from .stream_cell import Begin
from .tls import client_context, server_context

_log = logging.getLogger(__name__)

MAX_LINKS = 4096
CONNECT_TIMEOUT = 15.0
"""Seconds an exit tries to connect a stream."""
MAX_LOOKUPS_TOTAL = 512
"""Names that are looked up at a time, for all circuits. One whose stream has ended still counts:
the system's resolver cannot be told to stop."""


class OnionRouter:
    """A relay, an intermediary, or anything else that circuits pass through or end at."""

    def __init__(self, identity: RouterIdentity, *, exit_policy: ExitPolicy | None = None,
                 directory: tuple[str, int] | None = None, hooks: RouterHooks | None = None,
                 priority: Callable[[], Priority] = lambda: EVEN,
                 discipline: Discipline = Discipline.EWMA, limit: BandwidthLimit | None = None,
                 max_links: int = MAX_LINKS, handshake_timeout: float = HANDSHAKE_TIMEOUT) -> None:
        """Without an exit policy no streams are connected, without a limit links carry what they
        can. `directory`: the host and port where directory documents are served by HTTP, to which
        BEGIN_DIR is connected. `priority`: the network's constants, asked for at every new
        circuit. Create it inside the event loop that it is to run in."""
        self._identity = identity
        self._policy = exit_policy or ExitPolicy.reject_all()
        self._directory = directory
        self._max_links = max_links
        self._priority = priority
        self._scheduling = Scheduling(discipline, now=time.monotonic)
        self.core = RouterCore(identity, hooks or NoHooks(), self)
        self._links = LinkSet(self.core, client_context(), identity=identity,
                              timeout=handshake_timeout, limit=limit, scheduling=self._scheduling)
        self._context = server_context(identity)
        self._server: asyncio.Server | None = None
        self._streams: set[asyncio.Task[None]] = set()
        self._lookups: set[asyncio.Task[list[str]]] = set()

    @property
    def circuits(self) -> frozenset[RouterCircuit]:
        """The circuits that pass through or end here."""
        return frozenset(self.core.circuits)

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listen; returns the port (chosen by the system for 0). Raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accepted, host, port)
        address = self._server.sockets[0].getsockname()
        return int(address[1])

    async def stop(self) -> None:
        """End all circuits, close all links, stop listening."""
        if self._server is not None:
            self._server.close()
        self.core.stop()
        for task in (*self._streams, *self._lookups):
            task.cancel()
        await self._links.close()
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None

    def _accepted(self) -> asyncio.BaseProtocol:
        if len(self._links) >= self._max_links:
            return _Refusal()
        link: LinkConnection = self._links.accept(self._context, self._identity)
        return link

    # --- RouterEnvironment

    def now(self) -> float:
        """Monotonic time in seconds."""
        return time.monotonic()

    def priority(self) -> Priority:
        """The network's constants."""
        priority = self._priority()
        self._scheduling.use(priority)
        return priority

    def dial(self, target: LinkTarget, done: Waiter) -> None:
        """Open a link."""
        self._links.dial(target, done)

    def connect_stream(self, circuit: RouterCircuit, stream_id: int, begin: Begin) -> None:
        """Connect a stream if the policy allows."""
        if not self._policy.is_exit:
            circuit.edge.refuse(stream_id, EndReason.EXITPOLICY)
            return
        self._begin(ExitStream(circuit, stream_id), begin, self._policy)

    def connect_directory(self, circuit: RouterCircuit, stream_id: int) -> None:
        """Connect a stream to the directory, if there is one."""
        if self._directory is None:
            circuit.edge.refuse(stream_id, EndReason.NOTDIRECTORY)
            return
        host, port = self._directory
        self._begin(ExitStream(circuit, stream_id), Begin(host, port), None)

    def resolve(self, circuit: RouterCircuit, stream_id: int, name: str) -> None:
        """Look a name up; a router that is no exit finds nothing."""
        if not self._policy.is_exit:
            circuit.resolved(stream_id, [])
            return
        self._start(self._resolve(circuit, stream_id, name))

    def _begin(self, stream: ExitStream, begin: Begin, policy: ExitPolicy | None) -> None:
        stream.give_up = self._start(self._connect(stream, begin, policy)).cancel

    def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._streams.add(task)
        task.add_done_callback(self._streams.discard)
        return task

    async def _connect(self, stream: ExitStream, begin: Begin, policy: ExitPolicy | None) -> None:
        loop = asyncio.get_running_loop()
        reason = EndReason.RESOLVEFAILED
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                wanted = begin.wanted(await self._lookup(begin.host))
                accepted = [one for one in wanted
                            if policy is None or policy.accepts(one, begin.port)]
                if not accepted:
                    stream.refuse(EndReason.EXITPOLICY)
                    return
                reason = EndReason.CONNECTREFUSED
                await loop.create_connection(lambda: stream, accepted[0], begin.port)
        except TimeoutError:
            stream.refuse(EndReason.TIMEOUT)
        except (OSError, UnicodeError):
            stream.refuse(reason)
        except TransportError as error:
            _log.info("stream not connected: %s", error)

    async def _resolve(self, circuit: RouterCircuit, stream_id: int, name: str) -> None:
        found: list[str] = []
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                found = await self._lookup(name)
        except (OSError, UnicodeError):  # TimeoutError is an OSError
            _log.debug("a name is not found")
        try:
            circuit.resolved(stream_id, found)
        except ProtocolViolation as error:
            circuit.violated(error)

    async def _lookup(self, host: str) -> list[str]:
        """The addresses of a host, each once. Raises OSError or UnicodeError."""
        try:
            return [str(ipaddress.ip_address(host))]
        except ValueError:
            pass  # a name
        if len(self._lookups) >= MAX_LOOKUPS_TOTAL:
            raise OSError("too many names are being looked up")
        task = asyncio.get_running_loop().create_task(_addresses(host))
        self._lookups.add(task)
        task.add_done_callback(self._looked_up)
        return await asyncio.shield(task)

    def _looked_up(self, task: asyncio.Task[list[str]]) -> None:
        self._lookups.discard(task)
        if not task.cancelled():
            task.exception()  # nobody may be waiting any more


async def _addresses(host: str) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class _Refusal(asyncio.Protocol):
    """Closes a connection that came when there were too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()
