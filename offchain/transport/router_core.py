# SPDX-License-Identifier: BSD-3-Clause
"""A router without sockets: which circuits it carries, and what it refuses."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Protocol

from . import create_fast, ntor
from .cell import Command
from .channel import Channel
from .channel_pool import ChannelPool, Dialler
from .errors import DestroyReason, LinkFailed, ProtocolViolation, TransportError
from .extend import LinkTarget
from .identity import RouterIdentity
from .priority import Priority
from .relay_circuit import RouterCircuit
from .router_hooks import RouterHooks
from .stream_cell import Begin

_log = logging.getLogger(__name__)

CREATE_RATE, CREATE_BURST = 100.0, 400.0
"""Circuits a link may create per second, and at once: an ntor answer costs about 0.2 ms."""
MAX_CIRCUITS_PER_LINK = 4096
MAX_WAITING_PER_LINK = 50
"""Circuits of a link that wait for links to be opened; the pool bounds those of all links."""
FOR_MANY = 10
"""So many times that is what a link to a relay may, which carries the circuits of many clients: no
single one of them can use up what all have there."""
MAX_CIRCUITS = 50_000
"""Circuits of a router, over all links; each takes about 7 KB."""


class RouterEnvironment(Dialler, Protocol):
    """What the router's driver does for it."""

    def now(self) -> float:
        """Monotonic time in seconds."""

    def priority(self) -> Priority:
        """The network's constants, for a new circuit."""

    def connect_stream(self, circuit: RouterCircuit, stream_id: int, begin: Begin) -> None:
        """Apply the exit policy and connect, or refuse."""

    def connect_directory(self, circuit: RouterCircuit, stream_id: int) -> None:
        """Connect to the directory, or refuse."""

    def resolve(self, circuit: RouterCircuit, stream_id: int, name: str) -> None:
        """Look a name up; call `RouterCircuit.resolved` once, later."""


def _times(channel: Channel) -> int:
    return 1 if channel.peer is None else FOR_MANY


class _Rate:
    """A token bucket, `times` the ordinary one."""

    def __init__(self, now: float, times: int) -> None:
        self._rate, self._burst = times * CREATE_RATE, times * CREATE_BURST
        self._tokens = self._burst
        self._at = now

    def take(self, now: float) -> bool:
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class RouterCore:
    """Owner of the router's channels and circuits."""

    def __init__(self, identity: RouterIdentity, hooks: RouterHooks,
                 environment: RouterEnvironment) -> None:
        self.identity = identity
        self.hooks = hooks
        self._environment = environment
        self._pool = ChannelPool(environment)
        self._rates: dict[Channel, _Rate] = {}
        self._waiting: Counter[Channel] = Counter()
        self.circuits: set[RouterCircuit] = set()

    # --- ChannelOwner

    def channel_open(self, channel: Channel) -> None:
        """A link is ready."""
        self._rates[channel] = _Rate(self._environment.now(), _times(channel))

    def channel_closed(self, channel: Channel, error: TransportError) -> None:
        """A link is gone."""
        self._rates.pop(channel, None)
        self._pool.forget(channel)

    def create_received(self, channel: Channel, circ_id: int, command: int, body: bytes) -> None:
        """Answer CREATE2 or CREATE_FAST, or refuse by ProtocolViolation."""
        if (channel.circuit_count >= _times(channel) * MAX_CIRCUITS_PER_LINK
                or len(self.circuits) >= MAX_CIRCUITS
                or not self._rates[channel].take(self._environment.now())):
            raise ProtocolViolation("too many circuits", DestroyReason.RESOURCELIMIT)
        if command == Command.CREATE_FAST:
            answer, (reply, material) = Command.CREATED_FAST, create_fast.answer(body)
        else:
            reply, material = ntor.answer(self.identity.rsa_fingerprint, self.identity.onion,
                                          ntor.decode_create2(body))
            answer, reply = Command.CREATED2, ntor.encode_created2(reply)
        circuit = RouterCircuit(self, channel, circ_id, material, self._environment.priority())
        channel.register(circ_id, circuit)
        channel.send_control(circ_id, answer, reply)
        self.circuits.add(circuit)
        self.hooks.circuit_opened(circuit)

    # --- CircuitRouter

    def extend(self, circuit: RouterCircuit, target: LinkTarget, create2: bytes) -> None:
        """Find or open the link to the next hop."""
        if target.rsa_fingerprint == self.identity.rsa_fingerprint:
            raise ProtocolViolation("EXTEND2 to ourselves")

        before = circuit.previous
        if self._waiting[before] >= _times(before) * MAX_WAITING_PER_LINK:
            circuit.extension_failed(LinkFailed("too many circuits of one link wait for others"))
            return
        self._waiting[before] += 1

        def ready(result: Channel | TransportError) -> None:
            self._waiting[before] -= 1
            if not self._waiting[before]:
                del self._waiting[before]
            if isinstance(result, Channel):
                circuit.extension_ready(result, create2)
            else:
                circuit.extension_failed(result)

        self._pool.request(target, ready)

    def begin_stream(self, circuit: RouterCircuit, stream_id: int, begin: Begin) -> None:
        """Leave it to the driver."""
        self._environment.connect_stream(circuit, stream_id, begin)

    def begin_directory(self, circuit: RouterCircuit, stream_id: int) -> None:
        """Leave it to the driver."""
        self._environment.connect_directory(circuit, stream_id)

    def resolve(self, circuit: RouterCircuit, stream_id: int, name: str) -> None:
        """Leave it to the driver."""
        self._environment.resolve(circuit, stream_id, name)

    def circuit_gone(self, circuit: RouterCircuit) -> None:
        """Forget the circuit."""
        self.circuits.discard(circuit)

    def stop(self) -> None:
        """End every circuit; the driver then closes the links."""
        for circuit in list(self.circuits):
            circuit.destroy(DestroyReason.HIBERNATING)
