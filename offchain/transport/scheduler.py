# SPDX-License-Identifier: BSD-3-Clause
"""Which circuit's cells leave a link next, and how many may wait.

Three orders can be chosen. `ewma`: the circuit that has sent least of late, as in Tor (Tang and
Goldberg 2010, with the paper's β for premium circuits). `fifo`: in the order of arrival, whoever
they belong to. `strict`: premium circuits before all others, `ewma` among equals.

Every queue is bounded, because the edges stop packaging at the high mark and a hop destroys a
circuit whose queue outgrows what its windows can explain.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from operator import itemgetter
from weakref import WeakSet

from .priority import EVEN, ONE, Priority

HALF_LIFE = 30.0
"""Seconds in which what a circuit has sent counts half as much (Tor's CircuitPriorityHalflife)."""
HIGH_MARK = 256
"""Cells of one circuit at which its edge stops packaging (C tor's CELL_QUEUE_HIGHWATER_SIZE)."""
LOW_MARK = 64
"""Cells of one circuit below which its edge goes on."""
MAX_QUEUED = 6000
"""Cells of one circuit at which it is destroyed, if no window is larger than `EXPLAINED`."""
EXPLAINED = 2500
"""Largest circuit window (α = 0.5, p = 0.25) that `MAX_QUEUED` is made for: so much in DATA, and as
much again in everything else. With a larger one the bound grows by twice the difference."""
MAX_QUEUED_TOTAL = 500_000
"""Cells on all links of a router (256 MB) at which the circuits whose cells have waited longest are
destroyed: not those that want more, who may be anybody."""
_RELIEF = 0.1
"""Share of them that is then made free."""

Turn = tuple[int, float, int]
"""Who is next: the smallest. Comparable between all links of one router."""


class Discipline(StrEnum):
    """The order in which circuits are served."""

    EWMA = "ewma"
    FIFO = "fifo"
    STRICT = "strict"


def _no_time() -> float:
    return 0.0


class Scheduling:
    """What the links of one router have in common: the order, the clock, and the room.

    The bound per circuit alone would let a peer with many circuits, who reads none of them, take
    gigabytes; `limit` bounds the cells that wait on all links together.
    """

    def __init__(self, discipline: Discipline = Discipline.EWMA, *, priority: Priority = EVEN,
                 now: Callable[[], float] = _no_time, limit: int = MAX_QUEUED_TOTAL) -> None:
        """`now`: seconds of a clock that never goes back."""
        self.discipline = discipline
        self.now = now
        self.limit = limit
        self.beta = 1.0
        self.most_per_circuit = MAX_QUEUED
        """Cells of one circuit that its windows can explain."""
        self.use(priority)
        self.used = 0
        """Cells that wait now."""
        self.links: WeakSet[LinkQueues] = WeakSet()
        self._arrivals = itertools.count()

    def use(self, priority: Priority) -> None:
        """These are the network's constants now."""
        self.beta = priority.beta / ONE
        window = priority.windows(premium=True).circuit
        self.most_per_circuit = MAX_QUEUED + 2 * max(0, window - EXPLAINED)

    def allows(self, cells: int) -> bool:
        """Whether so many more cells may wait."""
        return self.used + cells <= self.limit

    def relieve(self) -> None:
        """Make room, at the expense of the circuits whose oldest cell has waited longest: those
        that nobody reads (C tor's `circuits_handle_oom`)."""
        enough = self.limit * (1 - _RELIEF)
        waiting = sorted(((arrival, circ_id, queues) for queues in self.links
                          for arrival, circ_id in queues.waiting()), key=itemgetter(0))
        for _, circ_id, queues in waiting:
            if self.used <= enough:
                return
            queues.overdue(circ_id)

    def arrival(self) -> int:
        """A number larger than all before."""
        return next(self._arrivals)


class Activity:
    """How much a circuit has sent of late: A ← A · 0.5^(Δt/H) + C/β at every C cells.

    The paper prints A/β + C for it, which gives no ratio of β: there β divides the past only. This
    keeps log2 A + t/H, which stays as it is while nothing is sent. So circuits are compared without
    being brought up to date, and no number grows large.
    """

    __slots__ = ("level",)

    def __init__(self) -> None:
        self.level = -math.inf

    def sent(self, cells: int, beta: float, now: float) -> None:
        """`cells` leave at second `now`; `beta` of them count as one."""
        new = math.log2(cells / beta) + now / HALF_LIFE
        low, high = (self.level, new) if self.level < new else (new, self.level)
        self.level = high + math.log2(1.0 + 2.0 ** (low - high))

    def value(self, now: float) -> float:
        """A at second `now`."""
        return float(2.0 ** (self.level - now / HALF_LIFE))


class _Circuit:
    """One circuit's queue on one link. `entry` is its place in the heap while it has one."""

    __slots__ = ("activity", "cells", "entry", "items", "known", "premium")

    def __init__(self) -> None:
        self.items: deque[tuple[bytes, int, int]] = deque()
        self.cells = 0
        self.premium = False
        self.known = False
        self.activity = Activity()
        self.entry: _Entry | None = None


class _Entry:
    """A place in the heap; void when the circuit has taken another one."""

    __slots__ = ("circ_id", "circuit", "turn")

    def __init__(self, turn: Turn, circ_id: int, circuit: _Circuit) -> None:
        self.turn = turn
        self.circ_id = circ_id
        self.circuit = circuit

    def __lt__(self, other: _Entry) -> bool:
        return self.turn < other.turn


class LinkQueues:
    """Queues of one link, by circuit id. An item is one or more cells as they go onto the wire.

    Every operation takes at most the logarithm of the number of circuits that have cells waiting.
    """

    def __init__(self, scheduling: Scheduling | None = None) -> None:
        self._shared = scheduling or Scheduling()
        self._circuits: dict[int, _Circuit] = {}
        self._known = 0
        self._heap: list[_Entry] = []
        self.overdue: Callable[[int], None] = self.discard
        """Called with the circuit whose cells must not wait any longer."""
        self._shared.links.add(self)

    def __bool__(self) -> bool:
        return self._head() is not None

    def _head(self) -> _Entry | None:
        heap = self._heap
        while heap:
            entry = heap[0]
            if entry.circuit.entry is entry:
                return entry
            heapq.heappop(heap)
        return None

    @property
    def turn(self) -> Turn | None:
        """The place of the circuit that is next; None when nothing waits."""
        head = self._head()
        return head.turn if head is not None else None

    # --- circuits

    def register(self, circ_id: int) -> None:
        """A circuit uses this link: what it sends is remembered until `forget`."""
        circuit = self._circuit(circ_id)
        if not circuit.known:
            circuit.known = True
            self._known += 1

    def forget(self, circ_id: int) -> None:
        """The circuit is gone; what is queued for it still goes out."""
        circuit = self._circuits.get(circ_id)
        if circuit is not None and circuit.known:
            circuit.known = False
            self._known -= 1
            if not circuit.items:
                del self._circuits[circ_id]

    def set_premium(self, circ_id: int, premium: bool) -> None:
        """Serve the circuit as one of this class from now on."""
        circuit = self._circuits.get(circ_id)
        if circuit is not None and circuit.premium != premium:
            circuit.premium = premium
            if circuit.items:
                self._enqueue(circ_id, circuit)

    @property
    def forgotten(self) -> int:
        """How many circuits are gone and still have cells that wait."""
        return len(self._circuits) - self._known

    def waiting(self) -> list[tuple[int, int]]:
        """The oldest arrival and the id of every circuit that has more than one cell waiting. A
        single one may be its DESTROY, which makes no room."""
        return [(circuit.items[0][2], circ_id) for circ_id, circuit in self._circuits.items()
                if circuit.cells > 1]

    def _circuit(self, circ_id: int) -> _Circuit:
        circuit = self._circuits.get(circ_id)
        if circuit is None:
            circuit = self._circuits[circ_id] = _Circuit()
        return circuit

    # --- cells

    def queued(self, circ_id: int) -> int:
        """Cells that wait for this circuit."""
        circuit = self._circuits.get(circ_id)
        return circuit.cells if circuit is not None else 0

    def room_for(self, circ_id: int, cells: int) -> bool:
        """Whether both bounds allow so many more cells of this circuit."""
        return (self.queued(circ_id) + cells <= self._shared.most_per_circuit
                and self._shared.allows(cells))

    def make_room(self, circ_id: int, cells: int) -> bool:
        """The same, if others have to make room for them. They may be of the same circuit."""
        if self.room_for(circ_id, cells):
            return True
        if self._shared.allows(cells):
            return False
        self._shared.relieve()
        return self.room_for(circ_id, cells)

    def push(self, circ_id: int, wire: bytes, cells: int) -> bool:
        """Append an item of `cells` cells to the circuit's queue; whether the circuit is next on
        this link now and was not before."""
        circuit = self._circuit(circ_id)
        circuit.items.append((wire, cells, self._shared.arrival()))
        circuit.cells += cells
        self._shared.used += cells
        if circuit.entry is not None:
            return False
        self._enqueue(circ_id, circuit)
        return self._heap[0].circuit is circuit

    def _enqueue(self, circ_id: int, circuit: _Circuit) -> None:
        arrival = circuit.items[0][2]
        match self._shared.discipline:
            case Discipline.FIFO:
                turn = 0, 0.0, arrival
            case Discipline.STRICT:
                turn = int(not circuit.premium), circuit.activity.level, arrival
            case _:
                turn = 0, circuit.activity.level, arrival
        circuit.entry = _Entry(turn, circ_id, circuit)
        heapq.heappush(self._heap, circuit.entry)

    def pop(self) -> tuple[int, bytes]:
        """The next circuit's oldest item. Raises KeyError when nothing waits."""
        head = self._head()
        if head is None:
            raise KeyError("nothing waits")
        heapq.heappop(self._heap)
        shared, circ_id, circuit = self._shared, head.circ_id, head.circuit
        wire, cells, _ = circuit.items.popleft()
        circuit.cells -= cells
        shared.used -= cells
        circuit.entry = None
        if shared.discipline is not Discipline.FIFO:
            weighted = circuit.premium and shared.discipline is Discipline.EWMA
            circuit.activity.sent(cells, shared.beta if weighted else 1.0, shared.now())
        if circuit.items:
            self._enqueue(circ_id, circuit)
        elif not circuit.known:
            del self._circuits[circ_id]
        return circ_id, wire

    def discard(self, circ_id: int) -> None:
        """Forget what waits for a circuit."""
        circuit = self._circuits.get(circ_id)
        if circuit is None:
            return
        self._shared.used -= circuit.cells
        circuit.items.clear()
        circuit.cells = 0
        circuit.entry = None
        if not circuit.known:
            del self._circuits[circ_id]

    def clear(self) -> None:
        """Forget everything."""
        self._shared.used -= sum(circuit.cells for circuit in self._circuits.values())
        self._circuits.clear()
        self._heap.clear()
        self._known = 0
