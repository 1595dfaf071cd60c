# SPDX-License-Identifier: BSD-3-Clause
"""A client under asyncio: it builds circuits and uses them.

Relays have one too, for their circuits to the intermediary.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from .channel import Channel
from .channel_pool import ChannelPool
from .circuit import CircuitCore
from .client_stream import ClientStream
from .errors import (
    CircuitClosed,
    DestroyReason,
    EndReason,
    ProtocolViolation,
    StreamClosed,
    TransportError,
)
from .identity import RouterInfo
from .link_driver import HANDSHAKE_TIMEOUT, LinkSet
from .priority import EVEN, Priority
from .tls import client_context

BUILD_TIMEOUT = 30.0
STREAM_TIMEOUT = 30.0


class ClientCircuit:
    """An open circuit. Get it from `OnionProxy.build_circuit`.

    Set `on_payment(hop, pcmd, payload)`, `on_closed(reason)` and `on_cells(count)` as needed; they
    are called in the event loop, must be quick, and may call any method here. `on_cells` counts
    relay cells in both directions, as they are queued or opened.
    """

    def __init__(self, core: CircuitCore) -> None:
        self._core = core
        self.on_closed: Callable[[DestroyReason], None] = lambda reason: None
        """Called once when the circuit ends, whoever ended it."""

    @property
    def hops(self) -> tuple[RouterInfo, ...]:
        """The routers of the circuit, guard first."""
        return self._core.path

    @property
    def closed(self) -> bool:
        """Whether the circuit has ended."""
        return self._core.closed

    @property
    def close_reason(self) -> DestroyReason:
        """Why it has ended."""
        return self._core.close_reason

    @property
    def open_streams(self) -> int:
        """How many streams the circuit has."""
        return len(self._core.edge)

    @property
    def cells_sent(self) -> int:
        """Relay cells sent, to any hop."""
        return self._core.cells_sent

    @property
    def cells_received(self) -> int:
        """Relay cells received, from any hop."""
        return self._core.cells_received

    @property
    def on_payment(self) -> Callable[[int, int, bytes], None]:
        """Called with (hop, pcmd, payload) for every whole payment message from a hop."""
        return self._core.on_payment

    @on_payment.setter
    def on_payment(self, callback: Callable[[int, int, bytes], None]) -> None:
        self._core.on_payment = callback

    @property
    def on_cells(self) -> Callable[[int], None]:
        """Called with how many more relay cells were sent or received."""
        return self._core.on_cells

    @on_cells.setter
    def on_cells(self, callback: Callable[[int], None]) -> None:
        self._core.on_cells = callback

    def use_premium(self, premium: bool) -> None:
        """Have the windows of a premium circuit, or of any other, from now on. The last hop must
        have said that it allows them; what we allow it in turn is told by what we send next."""
        if premium:
            self._core.edge.allow_premium()
        self._core.edge.use_premium(premium)

    def send_payment(self, hop: int, pcmd: int, payload: bytes, link: bool = False) -> int:
        """Send a payment message to a hop (0 is the guard); returns how many cells it takes.

        `link`: by link cells, to the guard only. Raises TransportError: CircuitClosed,
        MessageTooLong, or ProtocolViolation when the link's queue is full; ValueError for a hop
        that is not there.
        """
        return self._core.send_payment(hop, pcmd, payload, link)

    async def open_stream(self, host: str, port: int,
                          timeout: float = STREAM_TIMEOUT) -> ClientStream:
        """Connect to `host` and `port` from the last hop.

        Raises StreamClosed when the exit refuses or takes too long, CircuitClosed.
        """
        stream = ClientStream(self._core, host, port)
        try:
            async with asyncio.timeout(timeout):
                await stream.wait_connected()
        except TimeoutError:
            raise StreamClosed("the exit did not connect in time", EndReason.TIMEOUT) from None
        finally:
            if not stream.is_connected:
                await stream.close()
        return stream

    async def close(self) -> None:
        """End the circuit; what is queued goes out first."""
        self._core.destroy()


class OnionProxy:
    """Builds circuits. Create it inside the event loop that it is to run in."""

    def __init__(self, *, priority: Callable[[], Priority] = lambda: EVEN,
                 handshake_timeout: float = HANDSHAKE_TIMEOUT) -> None:
        """`priority`: the network's constants, asked for at every new circuit."""
        self._priority = priority
        self._links = LinkSet(self, client_context(), timeout=handshake_timeout)
        self._pool = ChannelPool(self._links)
        self._circuits: set[CircuitCore] = set()

    async def build_circuit(self, path: Sequence[RouterInfo],
                            timeout: float = BUILD_TIMEOUT) -> ClientCircuit:
        """Build a circuit through `path`, guard first.

        Raises CircuitClosed (reason TIMEOUT after `timeout` seconds), LinkFailed when the guard
        cannot be reached, ProtocolViolation when it is not who it should be, or ImpossiblePath.
        """
        core = CircuitCore(path, self._priority())
        circuit = ClientCircuit(core)
        built: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def ready(result: Channel | TransportError) -> None:
            if built.done():
                return
            if isinstance(result, Channel):
                try:
                    core.begin(result)
                except TransportError as error:
                    built.set_exception(error)
            else:
                built.set_exception(result)

        def succeeded() -> None:
            if not built.done():
                built.set_result(None)

        def ended(reason: DestroyReason) -> None:
            self._circuits.discard(core)
            if core.built:
                circuit.on_closed(reason)
            elif not built.done():
                built.set_exception(CircuitClosed(
                    f"the circuit could not be built: {reason.name}", reason))

        core.on_built, core.on_closed = succeeded, ended
        self._circuits.add(core)
        self._pool.request(core.path[0].target, ready)
        try:
            async with asyncio.timeout(timeout):
                await built
        except TimeoutError:
            raise CircuitClosed("the circuit was not built in time",
                                DestroyReason.TIMEOUT) from None
        finally:
            if not core.built:
                core.destroy()
        return circuit

    async def close(self) -> None:
        """End all circuits and close all links."""
        for core in list(self._circuits):
            core.destroy()
        await self._links.close()

    # --- ChannelOwner

    def channel_open(self, channel: Channel) -> None:
        """Whoever asked for it is told by the pool."""

    def channel_closed(self, channel: Channel, error: TransportError) -> None:
        """A link is gone."""
        self._pool.forget(channel)

    def create_received(self, channel: Channel, circ_id: int, command: int, body: bytes) -> None:
        """A client carries no circuits for others."""
        raise ProtocolViolation("CREATE2 or CREATE_FAST to a client")
