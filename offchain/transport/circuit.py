# SPDX-License-Identifier: BSD-3-Clause
"""A circuit as its client sees it, without sockets: built hop by hop, then used.

The client can speak to every hop (leaky pipe): payment messages go to the hop that they are for,
streams end at the last one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from .cell import Command
from .channel import Channel
from .edge import Edge, EdgeStream, StreamSink
from .errors import (
    CircuitClosed,
    DestroyReason,
    EndReason,
    ImpossiblePath,
    ProtocolViolation,
    StreamClosed,
)
from .extend import encode_extend2
from .identity import RouterInfo
from .ntor import NtorClient, decode_created2, encode_create2
from .onion import ClientOnion, OnionLayer
from .payment_cell import LINK_PAYLOAD, RELAY_PAYLOAD, Assembler, fragment
from .priority import EVEN, Priority
from .relay_cell import RelayCommand, RelayMessage, decode_body, encode_body
from .stream_cell import Begin, decode_end, encode_begin

_MAX_STREAM_ID = 0xFFFF


def _ignore_payment(hop: int, pcmd: int, payload: bytes) -> None:
    pass


def _ignore_count(count: int) -> None:
    pass


def _ignore() -> None:
    pass


def _ignore_reason(reason: DestroyReason) -> None:
    pass


class CircuitCore:
    """One circuit at its client."""

    def __init__(self, path: Sequence[RouterInfo], priority: Priority = EVEN) -> None:
        """`path`: the routers, guard first. Raises ImpossiblePath for an empty path or one that
        visits a router twice in a row, which routers refuse."""
        if not path:
            raise ImpossiblePath("a circuit has at least one hop")
        for one, other in pairwise(path):
            if one.rsa_fingerprint == other.rsa_fingerprint:
                raise ImpossiblePath("a circuit cannot extend from a router to itself")
        self.path = tuple(path)
        self.built = False
        self.closed = False
        self.close_reason = DestroyReason.NONE
        self.cells_sent = 0
        self.cells_received = 0
        self.on_built: Callable[[], None] = _ignore
        self.on_closed: Callable[[DestroyReason], None] = _ignore_reason
        self.on_payment: Callable[[int, int, bytes], None] = _ignore_payment
        self.on_cells: Callable[[int], None] = _ignore_count
        self._channel: Channel | None = None
        self._circ_id = 0
        self._onion = ClientOnion()
        self._handshake = NtorClient.begin(path[0].rsa_fingerprint, path[0].ntor_key)
        self._payments = [Assembler(RELAY_PAYLOAD) for _ in path]
        self._link_payments = Assembler(LINK_PAYLOAD)
        self._next_stream = 1
        self.edge = Edge(self, priority)

    # --- building

    def begin(self, channel: Channel) -> None:
        """Send CREATE2 over an open channel to the first hop."""
        self._circ_id = channel.attach(self)
        self._channel = channel
        channel.send_control(self._circ_id, Command.CREATE2,
                             encode_create2(self._handshake.onionskin))

    def _hop_added(self, reply: bytes) -> None:
        self._onion.layers.append(OnionLayer(self._handshake.finish(reply)))
        built = len(self._onion.layers)
        if built == len(self.path):
            self.built = True
            self.on_built()
            return
        router = self.path[built]
        self._handshake = NtorClient.begin(router.rsa_fingerprint, router.ntor_key)
        body = encode_body(RelayCommand.EXTEND2, 0,
                           encode_extend2(router.target,
                                          encode_create2(self._handshake.onionskin)))
        self._ship(built - 1, Command.RELAY_EARLY, [self._onion.seal(built - 1, body)])

    # --- use

    @property
    def _last(self) -> int:
        return len(self.path) - 1

    def send_payment(self, hop: int, pcmd: int, payload: bytes, link: bool = False) -> int:
        """Send a payment message to a hop (0 is the guard); returns how many cells it takes.

        `link`: by link cells, to hop 0 only. Raises CircuitClosed, MessageTooLong, ValueError for
        a hop that is not there, or another TransportError when the link's queue is full.
        """
        channel = self._usable()
        if not 0 <= hop < len(self.path) or (link and hop):
            raise ValueError(f"no payment to hop {hop}, link={link}")
        if link:
            parts = fragment(pcmd, payload, LINK_PAYLOAD)
            for part in parts:
                channel.send_control(self._circ_id, Command.PAYMENT, part)
        else:
            parts = fragment(pcmd, payload, RELAY_PAYLOAD)
            self._ship(hop, Command.RELAY, [
                self._onion.seal(hop, encode_body(RelayCommand.MT, 0, part)) for part in parts])
        return len(parts)

    def open_stream(self, host: str, port: int, sink: StreamSink) -> EdgeStream:
        """Ask the last hop to connect to `host` and `port`; `sink` hears what becomes of it.

        Raises CircuitClosed, StreamClosed when the circuit has no stream id left, or ValueError.
        """
        self._usable()
        body = encode_begin(Begin(host, port))
        if self._next_stream > _MAX_STREAM_ID:
            raise StreamClosed("the circuit has used up its stream ids", EndReason.RESOURCELIMIT)
        stream = self.edge.open(self._next_stream, sink)
        self._next_stream += 1
        self.edge.send(RelayCommand.BEGIN, stream.stream_id, body)
        return stream

    def truncate(self, hop: int) -> None:
        """Ask `hop` to cut off everything behind it. The circuit ends when it answers."""
        self._usable()
        self._ship(hop, Command.RELAY,
                   [self._onion.seal(hop, encode_body(RelayCommand.TRUNCATE, 0, b""))])

    def destroy(self, reason: DestroyReason = DestroyReason.NONE) -> None:
        """End the circuit. What is queued goes out first.

        Clients send NONE, as tor does, so that nothing tells them apart.
        """
        self._close(reason, tell=True)

    def _usable(self) -> Channel:
        if self.closed or self._channel is None or not self.built:
            raise CircuitClosed("the circuit is not open", self.close_reason)
        return self._channel

    # --- EdgeHost: the edge speaks with the last hop

    def seal(self, body: bytes) -> bytes:
        """Set the digest for the last hop."""
        return self._onion.seal(self._last, body)

    def sealed_tag(self) -> bytes:
        """The digest of what was sealed last for the last hop."""
        return self._onion.layers[self._last].forward_digest.tag

    def ship(self, bodies: list[bytes]) -> None:
        """Send sealed bodies to the last hop."""
        self._ship(self._last, Command.RELAY, bodies)

    def ship_blocked(self) -> bool:
        """Whether the queue to the guard is full."""
        return self._channel is None or self._channel.queue_full(self._circ_id)

    def _ship(self, hop: int, command: Command, bodies: list[bytes]) -> None:
        if self.closed or self._channel is None:
            return
        self._channel.send_relay(self._circ_id, command,
                                 self._onion.encrypt(hop, b"".join(bodies)))
        self.cells_sent += len(bodies)
        self.on_cells(len(bodies))

    # --- CircuitEnd

    def relay_cells(self, command: int, count: int, bodies: bytes) -> None:
        """Cells from the circuit's hops."""
        if self.closed:
            return
        if command != Command.RELAY:
            raise ProtocolViolation("RELAY_EARLY towards the client")
        self.cells_received += count
        for hop, body, tag in self._onion.open(bodies):
            self._handle(hop, decode_body(body), tag)
            if self.closed:
                return
        self.on_cells(count)

    def _handle(self, hop: int, message: RelayMessage, tag: bytes) -> None:
        kind, stream_id, data = message.command, message.stream_id, message.data
        if kind == RelayCommand.MT:
            done = self._payments[hop].feed(data)
            if done is not None:
                self.on_payment(hop, *done)
        elif kind == RelayCommand.TRUNCATED:
            reason = DestroyReason.of(data[0]) if data else DestroyReason.NONE
            self._close(reason, tell=True)
        elif kind == RelayCommand.EXTENDED2:
            if self.built or hop != len(self._onion.layers) - 1:
                raise ProtocolViolation("EXTENDED2 that nobody asked for")
            self._hop_added(decode_created2(data))
        elif kind == RelayCommand.DROP:
            pass
        elif hop != self._last or not self.built:
            raise ProtocolViolation(f"relay command {kind} from hop {hop}")
        elif kind == RelayCommand.DATA:
            self.edge.data_received(stream_id, data, tag)
        elif kind == RelayCommand.SENDME:
            self.edge.sendme_received(stream_id, data)
        elif kind == RelayCommand.CONNECTED:
            stream = self.edge.get(stream_id)
            if stream is not None:
                if stream.connected:
                    raise ProtocolViolation("CONNECTED twice")
                stream.connected = True
                stream.sink.connected()
        elif kind == RelayCommand.END:
            self.edge.end_received(stream_id, decode_end(data))
        else:
            raise ProtocolViolation(f"relay command {kind} from hop {hop}")

    def control_cell(self, command: int, body: bytes) -> None:
        """CREATED2, DESTROY or PAYMENT from the guard."""
        if self.closed:
            return
        if command == Command.DESTROY:
            self._close(DestroyReason.of(body[0]), tell=False)
        elif command == Command.CREATED2:
            if self._onion.layers:
                raise ProtocolViolation("CREATED2 twice")
            self._hop_added(decode_created2(body))
        else:
            if not self.built:
                raise ProtocolViolation("PAYMENT before the circuit is built")
            done = self._link_payments.feed(body)
            if done is not None:
                self.on_payment(0, *done)

    def violated(self, error: ProtocolViolation) -> None:
        """A hop broke a rule: leave the circuit."""
        self._close(error.reason, tell=True, at_once=True)

    def channel_lost(self) -> None:
        """The link to the guard is gone."""
        self._close(DestroyReason.CHANNEL_CLOSED, tell=False)

    def queue_low(self) -> None:
        """The link to the guard has room again."""
        if not self.closed:
            self.edge.pump()

    def _close(self, reason: DestroyReason, *, tell: bool, at_once: bool = False) -> None:
        if self.closed:
            return
        self.closed = True
        self.close_reason = reason
        if self._channel is not None:
            self._channel.detach(self._circ_id)
            if tell:
                # What went wrong here is nobody else's business.
                self._channel.send_destroy(self._circ_id, DestroyReason.NONE, at_once=at_once)
        self.edge.close()
        self.on_closed(reason)
