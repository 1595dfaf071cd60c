# SPDX-License-Identifier: BSD-3-Clause
"""Routers and clients in one process without sockets, TLS or time, for tests and simulations.

Bytes move only when `MemoryNetwork.run` says so, in pieces of a chosen size, and any link can be
held back or cut.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable, Sequence

from .channel import Channel, ChannelOwner
from .channel_pool import ChannelPool, Waiter
from .circuit import CircuitCore
from .errors import EndReason, LinkFailed, ProtocolViolation, TransportError
from .extend import LinkTarget
from .identity import RouterIdentity, RouterInfo
from .link import Initiating, Responding
from .priority import EVEN, Priority
from .relay_circuit import RouterCircuit
from .router_core import RouterCore
from .router_hooks import NoHooks, RouterHooks
from .scheduler import Discipline, Scheduling
from .stream_cell import Begin, encode_connected

Service = Callable[[bytes], bytes]
"""What a destination answers to a piece of data."""


class MemoryLink:
    """Two channels, back to back."""

    def __init__(self, initiator: Channel, responder: Channel) -> None:
        self.initiator = initiator
        self.responder = responder
        self.held = False
        """While set, nothing moves."""
        self.cut_off = False

    def move(self, piece: int) -> bool:
        """Carry what waits in both directions, in pieces of at most `piece` bytes; False if
        nothing did. A violation of the link's rules cuts it."""
        if self.held or self.cut_off:
            return False
        moved = False
        for source, sink in ((self.initiator, self.responder), (self.responder, self.initiator)):
            data = source.take_output()
            moved = moved or bool(data)
            for at in range(0, len(data), piece):
                try:
                    sink.receive(data[at : at + piece])
                except ProtocolViolation as error:
                    self.cut(error)
                    return True
        return moved

    def cut(self, error: TransportError | None = None) -> None:
        """Lose the link at both ends."""
        self.cut_off = True
        error = error or LinkFailed("the link was cut")
        self.initiator.lost(error)
        self.responder.lost(error)


class _MemoryStream:
    """The exit's end of a stream to a service in memory."""

    def __init__(self, circuit: RouterCircuit, stream_id: int, service: Service) -> None:
        self._service = service
        self._stream = circuit.edge.open(stream_id, self)
        circuit.stream_connected(self._stream, encode_connected("127.0.0.1"))

    def connected(self) -> None:
        """Only clients are told so."""

    def data(self, data: bytes) -> None:
        """Answer at once."""
        self._stream.send(self._service(data))

    def writable(self) -> None:
        """The service does not wait."""

    def ended(self, reason: EndReason) -> None:
        """Nothing is left to do."""


class MemoryRouter:
    """A router of a memory network, and the environment of its core."""

    def __init__(self, network: MemoryNetwork, info: RouterInfo, identity: RouterIdentity,
                 hooks: RouterHooks) -> None:
        self._network = network
        self.info = info
        self.identity = identity
        self.services: dict[int, Service] = {}
        """By port; every other port refuses."""
        self.core = RouterCore(identity, hooks, self)
        self.scheduling = Scheduling(network.discipline, now=self.now)

    def now(self) -> float:
        """The network's clock."""
        return self._network.clock

    def priority(self) -> Priority:
        """The network's constants."""
        self.scheduling.use(self._network.priority)
        return self._network.priority

    def dial(self, target: LinkTarget, done: Waiter) -> None:
        """Link to another router of the network."""
        self._network.link(self.core, target, done, self.identity, self.scheduling)

    def connect_stream(self, circuit: RouterCircuit, stream_id: int, begin: Begin) -> None:
        """Connect to a service."""
        service = self.services.get(begin.port)
        if service is None:
            circuit.edge.refuse(stream_id, EndReason.CONNECTREFUSED)
        else:
            _MemoryStream(circuit, stream_id, service)

    def connect_directory(self, circuit: RouterCircuit, stream_id: int) -> None:
        """There is no directory in memory."""
        circuit.edge.refuse(stream_id, EndReason.NOTDIRECTORY)

    def resolve(self, circuit: RouterCircuit, stream_id: int, name: str) -> None:
        """Every name is this machine's."""
        circuit.resolved(stream_id, ["127.0.0.1"])


class MemoryClient:
    """A client of a memory network."""

    def __init__(self, network: MemoryNetwork) -> None:
        self._network = network
        self._pool = ChannelPool(self)
        self.errors: list[TransportError] = []
        """Links that could not be opened."""

    def start_circuit(self, path: Sequence[RouterInfo]) -> CircuitCore:
        """Begin to build a circuit; `MemoryNetwork.run` lets it proceed."""
        core = CircuitCore(path, self._network.priority)

        def ready(result: Channel | TransportError) -> None:
            if isinstance(result, Channel):
                core.begin(result)
            else:
                self.errors.append(result)

        self._pool.request(path[0].target, ready)
        return core

    def dial(self, target: LinkTarget, done: Waiter) -> None:
        """Link to a router of the network."""
        self._network.link(self, target, done)

    def channel_open(self, channel: Channel) -> None:
        """Told by the network to whoever dialled."""

    def channel_closed(self, channel: Channel, error: TransportError) -> None:
        """A link is gone."""
        self._pool.forget(channel)

    def create_received(self, channel: Channel, circ_id: int, command: int, body: bytes) -> None:
        """A client carries no circuits for others."""
        raise ProtocolViolation("CREATE2 or CREATE_FAST to a client")


class MemoryNetwork:
    """All routers, clients and links, and a clock that moves by hand (seconds)."""

    def __init__(self, priority: Priority = EVEN,
                 discipline: Discipline = Discipline.EWMA) -> None:
        self.priority = priority
        self.discipline = discipline
        self.clock = 0.0
        self.links: list[MemoryLink] = []
        self._routers: dict[int, MemoryRouter] = {}
        self._calls: list[Callable[[], None]] = []
        self._opening: list[tuple[MemoryLink, Waiter]] = []

    def add_router(self, identity: RouterIdentity, hooks: RouterHooks | None = None
                   ) -> MemoryRouter:
        """A router with a port number of its own."""
        port = 1 + len(self._routers)
        info = identity.info(f"router{port}", "127.0.0.1", port)
        router = MemoryRouter(self, info, identity, hooks or NoHooks())
        self._routers[port] = router
        return router

    def add_client(self) -> MemoryClient:
        """A client."""
        return MemoryClient(self)

    def link(self, owner: ChannelOwner, target: LinkTarget, done: Waiter,
             identity: RouterIdentity | None = None,
             scheduling: Scheduling | None = None) -> None:
        """Connect `owner`, a router with this identity or a client, with the router that listens
        at the target's port. `scheduling` is what the owner's links share."""
        router = self._routers.get(target.port)
        if router is None:
            self._calls.append(lambda: done(LinkFailed("nobody listens there")))
            return
        now = time.time()
        secret = secrets.token_bytes(32)

        def binding(context: bytes) -> bytes:
            return hmac.digest(secret, context, "sha256")

        link = MemoryLink(
            Channel(owner, Initiating(target, router.identity.link_cert, identity, binding),
                    now=now, scheduling=scheduling),
            Channel(router.core, Responding(router.identity, binding), now=now,
                    scheduling=router.scheduling),
        )
        link.initiator.start()
        self.links.append(link)
        self._opening.append((link, done))

    def run(self, piece: int = 1 << 20, max_rounds: int = 100_000) -> None:
        """Move bytes until nothing moves any more. Raises RuntimeError if that never happens."""
        for _ in range(max_rounds):
            calls, self._calls = self._calls, []
            for call in calls:
                call()
            moved = [link.move(piece) for link in list(self.links)]
            settled = self._settle()
            if not calls and not settled and not any(moved):
                return
        raise RuntimeError("the network does not come to rest")

    def _settle(self) -> bool:
        """Tell those who dialled what has become of it."""
        opening, self._opening = self._opening, []
        settled = False
        for link, done in opening:
            if link.cut_off:
                done(LinkFailed("the handshake failed"))
            elif link.initiator.is_open:
                done(link.initiator)
            else:
                self._opening.append((link, done))
                continue
            settled = True
        return settled
