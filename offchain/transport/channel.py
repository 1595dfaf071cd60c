# SPDX-License-Identifier: BSD-3-Clause
"""One link between two routers, without its socket: handshake, circuit ids, cells in and out.

A driver feeds it with what TLS has decrypted and fetches what TLS is to encrypt. Output is pulled,
not pushed: cells stay in the scheduler until the socket has room, so that the order among circuits
is decided as late as possible.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from typing import Protocol

from .cell import (
    BODY_LEN,
    MAX_RUN,
    CellParser,
    Cells,
    Command,
    encode_fixed,
    encode_run,
)
from .certificates import ProvenIdentity
from .errors import DestroyReason, LinkFailed, ProtocolViolation, TransportError
from .link import Initiating, LinkHandshake, Responding
from .scheduler import HIGH_MARK, LOW_MARK, LinkQueues, Scheduling, Turn

_log = logging.getLogger(__name__)

_INITIATOR_BIT = 0x80000000
"""Set in circuit ids that the link's initiator chooses (tor-spec, "Choosing circuit IDs")."""
_ID_TRIES = 64
_LINK_ONLY = frozenset({
    Command.VERSIONS, Command.NETINFO, Command.CERTS, Command.AUTH_CHALLENGE,
    Command.AUTHENTICATE,
})
_RELAY, _RELAY_EARLY = int(Command.RELAY), int(Command.RELAY_EARLY)
MAX_FORGOTTEN = 8192
"""Circuits of a link that are gone while cells of theirs still wait, at which a peer that asks for
more circuits loses the link: it reads nothing."""
MAX_LINK_PAYMENTS = 256
"""Payment cells of a link that wait to be written; a message of the protocol is a few."""
TAKE_BYTES = 64 * 1024
"""How much output a driver fetches at once."""


_AT_ONCE: Turn = (-1, 0.0, 0)


class CircuitEnd(Protocol):
    """What a channel tells the circuit behind one of its circuit ids."""

    def relay_cells(self, command: int, count: int, bodies: bytes) -> None:
        """A run of RELAY or RELAY_EARLY cells arrived. May raise ProtocolViolation."""

    def control_cell(self, command: int, body: bytes) -> None:
        """CREATED2, DESTROY or PAYMENT arrived. May raise ProtocolViolation."""

    def violated(self, error: ProtocolViolation) -> None:
        """One of the two above raised: end the circuit."""

    def channel_lost(self) -> None:
        """The link is gone."""

    def queue_low(self) -> None:
        """The circuit's queue, which was full, has room again."""


class ChannelOwner(Protocol):
    """The router or proxy that a channel belongs to."""

    def channel_open(self, channel: Channel) -> None:
        """The handshake is done."""

    def channel_closed(self, channel: Channel, error: TransportError) -> None:
        """The link is gone; its circuits have been told."""

    def create_received(self, channel: Channel, circ_id: int, command: int, body: bytes) -> None:
        """The peer asks, by CREATE2 or CREATE_FAST, for a circuit with an id that is free. May
        raise ProtocolViolation."""


def _nobody() -> None:
    pass


class Channel:
    """One link. Every method is synchronous and does no input or output."""

    def __init__(self, owner: ChannelOwner, role: Initiating | Responding, *, now: float,
                 peer_host: str = "127.0.0.1", own_host: str = "",
                 scheduling: Scheduling | None = None) -> None:
        """`now`: seconds since the epoch, against which the peer's certificates are checked.
        `scheduling` is shared by all channels of one owner."""
        self._owner = owner
        self._handshake = LinkHandshake(role, now=now, peer_host=peer_host, own_host=own_host)
        self._own_bit = _INITIATOR_BIT if isinstance(role, Initiating) else 0
        self._parser = CellParser()
        self._first = b""
        self._payments = 0
        """Link payment cells in `_first`."""
        self._queues = LinkQueues(scheduling)
        self._queues.overdue = self._overdue
        self._full: set[int] = set()
        self._circuits: dict[int, CircuitEnd] = {}
        self._closed = False
        self.wake: Callable[[], None] = _nobody
        """Called when there is output after there was none to fetch, and when what is next has come
        just now."""
        self.stray_cells = 0
        """Cells for circuits that do not exist (any more)."""

    @property
    def peer(self) -> ProvenIdentity | None:
        """Who the peer has proven to be; None before that and for a client that called us."""
        return self._handshake.peer

    @property
    def is_open(self) -> bool:
        """Whether circuits can use it."""
        return self._handshake.done and not self._closed

    @property
    def circuit_count(self) -> int:
        """Circuits on this link."""
        return len(self._circuits)

    def start(self) -> None:
        """TLS is up: say the first words, if it is on us."""
        self._first += self._handshake.start()
        if self._first:
            self.wake()

    # --- input

    def receive(self, data: bytes) -> None:
        """Take in decrypted bytes.

        Raises ProtocolViolation when the peer broke a rule of the link, which is then to be
        closed; a broken rule of one circuit only ends that circuit.
        """
        if self._closed:
            return
        self._parser.feed(data)
        if not self._handshake.done:
            self._first += self._handshake.step(self._parser)
            if self._first:
                self.wake()
            if not self._handshake.done:
                return
            self._owner.channel_open(self)
        for cells in self._parser.drain():
            if self._closed:
                return
            self._dispatch(cells)

    def _dispatch(self, cells: Cells) -> None:
        command = cells.command
        end = self._circuits.get(cells.circ_id)
        try:
            if command in (_RELAY, _RELAY_EARLY):
                if end is None:
                    self.stray_cells += cells.count
                else:
                    end.relay_cells(command, cells.count, cells.body)
            elif command in (Command.CREATED2, Command.DESTROY, Command.PAYMENT):
                if end is None:
                    self.stray_cells += 1
                else:
                    end.control_cell(command, cells.body)
            elif command in (Command.CREATE2, Command.CREATE_FAST):
                self._create(cells)
            elif command in _LINK_ONLY:
                raise _LinkViolation(f"cell {command} after the handshake")
        except _LinkViolation:
            raise
        except ProtocolViolation as error:
            _log.info("circuit ended: %s", error)
            if end is not None:
                end.violated(error)
            elif not self._queues.queued(cells.circ_id):  # else it is told already
                self.send_destroy(cells.circ_id, error.reason)

    def _create(self, cells: Cells) -> None:
        circ_id = cells.circ_id
        if not circ_id or circ_id & _INITIATOR_BIT == self._own_bit:
            raise _LinkViolation("a circuit is created with a circuit id of our own half")
        if self._queues.forgotten > MAX_FORGOTTEN:
            raise _LinkViolation("the peer reads nothing of the circuits that it creates")
        if circ_id in self._circuits:
            raise ProtocolViolation("a circuit is created with a circuit id in use")
        self._owner.create_received(self, circ_id, cells.command, cells.body)

    # --- circuits

    def attach(self, end: CircuitEnd) -> int:
        """Give a circuit that we extend over this link an unpredictable, unused id.

        Raises LinkFailed when the link is closed or its ids are used up.
        """
        if not self.is_open:
            raise LinkFailed("the link is closed")
        for _ in range(_ID_TRIES):
            circ_id = self._own_bit | secrets.randbits(31)
            if circ_id & ~_INITIATOR_BIT and circ_id not in self._circuits:
                self.register(circ_id, end)
                return circ_id
        raise LinkFailed("the link has no free circuit id")

    def register(self, circ_id: int, end: CircuitEnd) -> None:
        """Take a circuit that the peer created."""
        self._circuits[circ_id] = end
        self._queues.register(circ_id)

    def detach(self, circ_id: int) -> None:
        """Forget a circuit; what is queued for it still goes out."""
        self._circuits.pop(circ_id, None)
        self._full.discard(circ_id)
        self._queues.forget(circ_id)

    def set_premium(self, circ_id: int, premium: bool) -> None:
        """Send the circuit's cells as those of this class from now on."""
        self._queues.set_premium(circ_id, premium)

    # --- output

    def send_control(self, circ_id: int, command: int, body: bytes) -> None:
        """Queue one fixed cell of a circuit, behind what waits for that circuit.

        Payment cells of the link come before all others: those of several circuits may be of one
        direct channel, and have to arrive in the order in which they were made.
        """
        if self._closed:
            return
        if command == Command.PAYMENT:
            if self._payments >= MAX_LINK_PAYMENTS:
                raise ProtocolViolation("too many payments wait", DestroyReason.RESOURCELIMIT)
            self._payments += 1
            self._first += encode_fixed(circ_id, command, body)
            self.wake()
            return
        if command != Command.DESTROY:
            self._require_room(circ_id, 1)
        self._push(circ_id, encode_fixed(circ_id, command, body), 1)

    def send_relay(self, circ_id: int, command: int, bodies: bytes) -> None:
        """Queue relay cells with the given encrypted bodies.

        Raises ProtocolViolation (RESOURCELIMIT) when the circuit's queue has outgrown its windows.
        """
        if self._closed:
            return
        count = len(bodies) // BODY_LEN
        self._require_room(circ_id, count)
        if count <= MAX_RUN:
            self._push(circ_id, encode_run(circ_id, command, bodies), count)
            return
        step = MAX_RUN * BODY_LEN
        for at in range(0, len(bodies), step):
            part = bodies[at : at + step]
            self._push(circ_id, encode_run(circ_id, command, part), len(part) // BODY_LEN)

    def send_destroy(self, circ_id: int, reason: DestroyReason, *, at_once: bool = False) -> None:
        """Tell the peer that a circuit is gone.

        Behind what is queued for it (a last payment must arrive), unless `at_once`.
        """
        if at_once:
            self._queues.discard(circ_id)
        self.send_control(circ_id, Command.DESTROY, bytes([reason]))

    def _require_room(self, circ_id: int, cells: int) -> None:
        if self._queues.room_for(circ_id, cells):
            return
        if not self._queues.make_room(circ_id, cells):
            raise ProtocolViolation("the circuit's queue is full", DestroyReason.RESOURCELIMIT)
        if circ_id not in self._circuits:
            raise ProtocolViolation("the circuit has made room for others",
                                    DestroyReason.RESOURCELIMIT)

    def _overdue(self, circ_id: int) -> None:
        end = self._circuits.get(circ_id)
        if end is None:
            self._queues.discard(circ_id)
        else:
            end.violated(ProtocolViolation("cells have waited too long",
                                           DestroyReason.RESOURCELIMIT))

    def _push(self, circ_id: int, wire: bytes, cells: int) -> None:
        if self._queues.push(circ_id, wire, cells):
            self.wake()

    def queue_full(self, circ_id: int) -> bool:
        """Whether an edge should stop packaging; if so, `queue_low` will be called later."""
        if self._queues.queued(circ_id) < HIGH_MARK:
            return False
        self._full.add(circ_id)
        return True

    @property
    def turn(self) -> Turn | None:
        """How this link's next cell compares with those of other links of the same owner; None
        when nothing waits. The handshake comes before everything."""
        if self._first:
            return _AT_ONCE
        return self._queues.turn if self._handshake.done else None

    def take_output(self, limit: int = TAKE_BYTES) -> bytes:
        """What is to be sent now: about `limit` bytes (up to one run of cells more), b"" if
        nothing waits."""
        parts = [self._first] if self._first else []
        size = len(self._first)
        self._first, self._payments = b"", 0
        queues = self._queues
        while queues and size < limit and self._handshake.done:
            circ_id, wire = queues.pop()
            parts.append(wire)
            size += len(wire)
            if circ_id in self._full and queues.queued(circ_id) < LOW_MARK:
                self._full.discard(circ_id)
                end = self._circuits[circ_id]
                try:
                    end.queue_low()
                except ProtocolViolation as error:
                    end.violated(error)
        return b"".join(parts)

    # --- end

    def lost(self, error: TransportError) -> None:
        """The link is gone: tell every circuit and the owner, once."""
        if self._closed:
            return
        self._closed = True
        self._queues.clear()
        self._full.clear()
        circuits, self._circuits = self._circuits, {}
        for end in circuits.values():
            end.channel_lost()
        self._owner.channel_closed(self, error)


class _LinkViolation(ProtocolViolation):
    """The peer broke a rule of the link itself."""
