# SPDX-License-Identifier: BSD-3-Clause
"""A circuit as one of its routers sees it: one onion layer between two links.

Forward cells lose this hop's layer; those then recognized are for us, the others go on with their
command unchanged. Backward cells gain the layer.
"""

from __future__ import annotations

import itertools
import logging
from typing import Protocol

from .cell import BODY_LEN, Command
from .channel import Channel
from .edge import Edge, EdgeStream
from .errors import CircuitClosed, DestroyReason, EndReason, ProtocolViolation, TransportError
from .extend import LinkTarget, decode_extend2, encode_extended2
from .onion import OnionLayer, seemingly_recognized
from .payment_cell import LINK_PAYLOAD, RELAY_PAYLOAD, Assembler, fragment
from .priority import EVEN, Priority
from .relay_cell import RelayCommand, RelayMessage, decode_body, encode_body
from .router_hooks import RouterHooks
from .stream_cell import Begin, decode_begin, decode_end, decode_resolve, encode_resolved

_log = logging.getLogger(__name__)

MAX_RELAY_EARLY = 8
"""RELAY_EARLY cells a circuit may carry, which bounds its length (tor-spec, RELAY_EARLY)."""
MAX_STREAMS = 256
MAX_LOOKUPS = 64
"""Names that a circuit may have looked up at a time."""
_ids = itertools.count(1)


class CircuitRouter(Protocol):
    """What a circuit needs of the router that it belongs to."""

    hooks: RouterHooks

    def extend(self, circuit: RouterCircuit, target: LinkTarget, create2: bytes) -> None:
        """Find or open the link to `target` and call `extension_ready` or `extension_failed`."""

    def begin_stream(self, circuit: RouterCircuit, stream_id: int, begin: Begin) -> None:
        """Connect a stream, or refuse it."""

    def begin_directory(self, circuit: RouterCircuit, stream_id: int) -> None:
        """Connect a stream to the directory, or refuse it."""

    def resolve(self, circuit: RouterCircuit, stream_id: int, name: str) -> None:
        """Look a name up and call `resolved`."""

    def circuit_gone(self, circuit: RouterCircuit) -> None:
        """Forget the circuit."""


class _NextEnd:
    """The circuit's end towards the next hop."""

    def __init__(self, circuit: RouterCircuit) -> None:
        self._circuit = circuit

    def relay_cells(self, command: int, count: int, bodies: bytes) -> None:
        self._circuit.backward_cells(command, count, bodies)

    def control_cell(self, command: int, body: bytes) -> None:
        self._circuit.from_next(command, body)

    def violated(self, error: ProtocolViolation) -> None:
        self._circuit.violated(error)

    def channel_lost(self) -> None:
        self._circuit.next_lost()

    def queue_low(self) -> None:
        pass  # what is forwarded is not held back; its windows bound it


class RouterCircuit:
    """One circuit at one router. Its client is somewhere behind the previous link."""

    def __init__(self, router: CircuitRouter, previous: Channel, circ_id: int,
                 key_material: bytes, priority: Priority = EVEN) -> None:
        """Made by the router for a CREATE2; `circ_id` is the one on the previous link."""
        self.id = next(_ids)
        """Unique in this process, and meaningless outside it."""
        self._premium = False
        self.closed = False
        self._router = router
        self._hooks = router.hooks
        self._previous = previous
        self._previous_id = circ_id
        self._next: Channel | None = None
        self._next_id = 0
        self._extending = False
        self._created = False
        self._layer = OnionLayer(key_material)
        self._early = 0
        self._lookups = 0
        self._relay_payments = Assembler(RELAY_PAYLOAD)
        self._link_payments = Assembler(LINK_PAYLOAD)
        self.edge = Edge(self, priority)

    @property
    def previous(self) -> Channel:
        """The link that the circuit came by."""
        return self._previous

    # --- for the agent

    @property
    def premium(self) -> bool:
        """Whether the circuit's cells are scheduled as premium here. The windows of the circuit's
        edge change apart from that, since the peer must be ready for them (`edge`)."""
        return self._premium

    @premium.setter
    def premium(self, premium: bool) -> None:
        if premium == self._premium or self.closed:
            return
        self._premium = premium
        self._previous.set_premium(self._previous_id, premium)
        if self._next is not None:
            self._next.set_premium(self._next_id, premium)

    def send_payment(self, pcmd: int, payload: bytes, link: bool = False) -> int:
        """Send a payment message to the circuit's client; returns how many cells it takes.

        `link`: by link cells, which only reach a client whose guard we are. Raises CircuitClosed,
        MessageTooLong, or another TransportError when the link's queue is full.
        """
        if self.closed:
            raise CircuitClosed("the circuit is closed")
        if link:
            parts = fragment(pcmd, payload, LINK_PAYLOAD)
            for part in parts:
                self._previous.send_control(self._previous_id, Command.PAYMENT, part)
        else:
            parts = fragment(pcmd, payload, RELAY_PAYLOAD)
            self.ship([self.seal(encode_body(RelayCommand.MT, 0, part)) for part in parts])
        return len(parts)

    def destroy(self, reason: DestroyReason = DestroyReason.FINISHED) -> None:
        """End the circuit in both directions."""
        self._close(reason, to_previous=True, to_next=True)

    # --- EdgeHost

    def seal(self, body: bytes) -> bytes:
        """Set the backward digest."""
        return self._layer.backward_digest.seal(body)

    def sealed_tag(self) -> bytes:
        """The backward digest after the last sealed body."""
        return self._layer.backward_digest.tag

    def ship(self, bodies: list[bytes]) -> None:
        """Send sealed bodies to the client."""
        if self.closed:
            return
        self._previous.send_relay(self._previous_id, Command.RELAY,
                                  self._layer.backward.apply(b"".join(bodies)))
        self._hooks.cells_passed(self, len(bodies))

    def ship_blocked(self) -> bool:
        """Whether the queue to the previous hop is full."""
        return self._previous.queue_full(self._previous_id)

    # --- CircuitEnd towards the previous hop

    def relay_cells(self, command: int, count: int, bodies: bytes) -> None:
        """Forward cells."""
        if self.closed:
            return
        if command == Command.RELAY_EARLY:
            self._early += count
            if self._early > MAX_RELAY_EARLY:
                raise ProtocolViolation("too many RELAY_EARLY cells")
        plain = self._layer.forward.apply(bodies)
        self._hooks.cells_passed(self, count)
        passed = 0
        for at in seemingly_recognized(plain):
            if self.closed:
                return
            body = plain[at : at + BODY_LEN]
            if self._layer.forward_digest.accept(body):
                self._pass_on(command, plain[passed:at])
                passed = at + BODY_LEN
                self._recognized(command, decode_body(body))
        if not self.closed:
            self._pass_on(command, plain[passed:] if passed else plain)

    def _pass_on(self, command: int, bodies: bytes) -> None:
        if not bodies:
            return
        if self._next is None or not self._created:
            raise ProtocolViolation("a relay cell for a hop that does not exist")
        self._next.send_relay(self._next_id, command, bodies)

    def control_cell(self, command: int, body: bytes) -> None:
        """DESTROY or PAYMENT from the previous hop."""
        if command == Command.DESTROY:
            self._close(DestroyReason.of(body[0]), to_previous=False, to_next=True)
        elif command == Command.PAYMENT:
            done = self._link_payments.feed(body)
            if done is not None:
                self._hooks.payment_received(self, *done, link=True)
        else:
            raise ProtocolViolation(f"cell {command} from the circuit's origin")

    def violated(self, error: ProtocolViolation) -> None:
        """A rule was broken on this circuit: destroy it, dropping what is queued."""
        self._close(error.reason, to_previous=True, to_next=True, at_once=True)

    def channel_lost(self) -> None:
        """The previous link is gone."""
        self._close(DestroyReason.CHANNEL_CLOSED, to_previous=False, to_next=True)

    def queue_low(self) -> None:
        """The previous link has room again."""
        if not self.closed:
            self.edge.pump()

    # --- messages for this hop

    def _recognized(self, command: int, message: RelayMessage) -> None:
        kind, stream_id, data = message.command, message.stream_id, message.data
        if kind == RelayCommand.DATA:
            self.edge.data_received(stream_id, data, self._layer.forward_digest.tag)
        elif kind == RelayCommand.SENDME:
            self.edge.sendme_received(stream_id, data)
        elif kind == RelayCommand.MT:
            done = self._relay_payments.feed(data)
            if done is not None:
                self._hooks.payment_received(self, *done, link=False)
        elif kind == RelayCommand.BEGIN:
            begin = decode_begin(data)
            if self._may_begin(stream_id):
                self._router.begin_stream(self, stream_id, begin)
        elif kind == RelayCommand.END:
            self.edge.end_received(stream_id, decode_end(data))
        elif kind == RelayCommand.EXTEND2:
            self._extend(command, data)
        elif kind == RelayCommand.TRUNCATE:
            self._truncate()
        elif kind == RelayCommand.BEGIN_DIR:
            if self._may_begin(stream_id):
                self._router.begin_directory(self, stream_id)
        elif kind == RelayCommand.RESOLVE:
            self._resolve(stream_id, decode_resolve(data))
        else:
            # C tor drops what it does not know, DROP among it.
            _log.debug("relay command %d dropped", kind)

    def _may_begin(self, stream_id: int) -> bool:
        if not stream_id or self.edge.get(stream_id) is not None:
            raise ProtocolViolation("BEGIN with a stream id of zero or in use")
        if len(self.edge) >= MAX_STREAMS:
            self.edge.refuse(stream_id, EndReason.RESOURCELIMIT)
            return False
        return True

    def _resolve(self, stream_id: int, name: str) -> None:
        if not stream_id:
            raise ProtocolViolation("RESOLVE without a stream id")
        if self._lookups >= MAX_LOOKUPS:
            raise ProtocolViolation("too many RESOLVE at once", DestroyReason.RESOURCELIMIT)
        self._lookups += 1
        self._router.resolve(self, stream_id, name)

    def resolved(self, stream_id: int, addresses: list[str]) -> None:
        """Answer a RESOLVE, once; without addresses, that there is none."""
        self._lookups -= 1
        self.edge.send(RelayCommand.RESOLVED, stream_id, encode_resolved(addresses))

    def stream_connected(self, stream: EdgeStream, connected_body: bytes) -> None:
        """The driver has connected a stream: tell the client."""
        if not stream.closed:
            stream.connected = True
            self.edge.send(RelayCommand.CONNECTED, stream.stream_id, connected_body)

    # --- the next hop

    def _extend(self, command: int, data: bytes) -> None:
        if command != Command.RELAY_EARLY:
            raise ProtocolViolation("EXTEND2 outside RELAY_EARLY")
        if self._next is not None or self._extending:
            raise ProtocolViolation("EXTEND2 on a circuit that goes on already")
        target, create2 = decode_extend2(data)
        before = self._previous.peer
        if before is not None and before.rsa_fingerprint == target.rsa_fingerprint:
            raise ProtocolViolation("EXTEND2 back to the router that the circuit comes from")
        self._extending = True
        self._router.extend(self, target, create2)

    def extension_ready(self, channel: Channel, create2: bytes) -> None:
        """The link to the next hop is open."""
        if self.closed or not self._extending:
            return
        self._extending = False
        try:
            self._next_id = channel.attach(_NextEnd(self))
            self._next = channel
            channel.set_premium(self._next_id, self._premium)
            channel.send_control(self._next_id, Command.CREATE2, create2)
        except TransportError as error:
            # Others wait for the same link, and are told next.
            self.extension_failed(error)

    def extension_failed(self, error: TransportError) -> None:
        """The link to the next hop could not be opened."""
        reason = DestroyReason.CONNECTFAILED
        if isinstance(error, ProtocolViolation) and error.reason == DestroyReason.OR_IDENTITY:
            reason = DestroyReason.OR_IDENTITY
        self._close(reason, to_previous=True, to_next=False)

    def backward_cells(self, command: int, count: int, bodies: bytes) -> None:
        """Cells from the next hop towards the client."""
        if self.closed:
            return
        if command != Command.RELAY or not self._created:
            raise ProtocolViolation("RELAY_EARLY, or too early, from the next hop")
        self._previous.send_relay(self._previous_id, command, self._layer.backward.apply(bodies))
        self._hooks.cells_passed(self, count)

    def from_next(self, command: int, body: bytes) -> None:
        """CREATED2 or DESTROY from the next hop."""
        if self.closed:
            return
        if command == Command.CREATED2:
            if self._created:
                raise ProtocolViolation("CREATED2 twice")
            self._created = True
            self.edge.send(RelayCommand.EXTENDED2, 0, encode_extended2(body))
        elif command == Command.DESTROY:
            self._drop_next()
            self.edge.send(RelayCommand.TRUNCATED, 0, body[:1])
        else:
            raise ProtocolViolation(f"cell {command} from the next hop")

    def _truncate(self) -> None:
        if self._next is not None:
            self._next.send_destroy(self._next_id, DestroyReason.REQUESTED)
        self._drop_next()
        self._extending = False
        self.edge.send(RelayCommand.TRUNCATED, 0, bytes([DestroyReason.REQUESTED]))

    def _drop_next(self) -> None:
        if self._next is not None:
            self._next.detach(self._next_id)
        self._next, self._created = None, False

    def next_lost(self) -> None:
        """The next link is gone."""
        self._next = None
        self._close(DestroyReason.CHANNEL_CLOSED, to_previous=True, to_next=False)

    # --- end

    def _close(self, reason: DestroyReason, *, to_previous: bool, to_next: bool,
               at_once: bool = False) -> None:
        if self.closed:
            return
        self.closed = True
        self._previous.detach(self._previous_id)
        if to_previous:
            self._previous.send_destroy(self._previous_id, reason, at_once=at_once)
        if self._next is not None:
            self._next.detach(self._next_id)
            if to_next:
                # The reason is not passed on: it would tell where the circuit broke.
                self._next.send_destroy(self._next_id, DestroyReason.DESTROYED, at_once=at_once)
            self._next = None
        self.edge.close()
        self._router.circuit_gone(self)
        self._hooks.circuit_closed(self)
