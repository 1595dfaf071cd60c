# SPDX-License-Identifier: BSD-3-Clause
"""Which circuit's cells leave a link next: first in, first out per circuit, circuits in turn.

Every queue is bounded, because the edges stop packaging at the high mark and a hop destroys a
circuit whose queue outgrows what its windows can explain.
"""

from __future__ import annotations

from collections import OrderedDict, deque

HIGH_MARK = 256
"""Cells of one circuit at which its edge stops packaging (C tor's CELL_QUEUE_HIGHWATER_SIZE)."""
LOW_MARK = 64
"""Cells of one circuit below which its edge goes on."""
MAX_QUEUED = 6000
"""Cells of one circuit at which it is destroyed. Above the largest circuit window (2500, premium)
in DATA and as much again in everything else."""
MAX_QUEUED_TOTAL = 500_000
"""Cells on all links of a router (256 MB) at which circuits that want more are destroyed."""


class QueueBudget:
    """Cells that wait on all links of one router together.

    The bound per circuit alone would let a peer with many circuits, who reads none of them, take
    gigabytes.
    """

    def __init__(self, limit: int = MAX_QUEUED_TOTAL) -> None:
        self.limit = limit
        self.used = 0

    def allows(self, cells: int) -> bool:
        """Whether so many more cells may wait."""
        return self.used + cells <= self.limit


class RoundRobin:
    """Queues of one link, by circuit id. An item is one or more cells as they go onto the wire."""

    def __init__(self, budget: QueueBudget | None = None) -> None:
        self._budget = budget or QueueBudget()
        self._queues: OrderedDict[int, deque[tuple[bytes, int]]] = OrderedDict()
        self._counts: dict[int, int] = {}

    def __bool__(self) -> bool:
        return bool(self._queues)

    def queued(self, circ_id: int) -> int:
        """Cells that wait for this circuit."""
        return self._counts.get(circ_id, 0)

    def room_for(self, circ_id: int, cells: int) -> bool:
        """Whether both bounds allow so many more cells of this circuit."""
        return self.queued(circ_id) + cells <= MAX_QUEUED and self._budget.allows(cells)

    def push(self, circ_id: int, wire: bytes, cells: int) -> None:
        """Append an item of `cells` cells to the circuit's queue."""
        queue = self._queues.get(circ_id)
        if queue is None:
            queue = self._queues[circ_id] = deque()
            self._counts[circ_id] = 0
        queue.append((wire, cells))
        self._counts[circ_id] += cells
        self._budget.used += cells

    def pop(self) -> tuple[int, bytes]:
        """The next circuit's oldest item. Raises KeyError when nothing waits."""
        circ_id, queue = self._queues.popitem(last=False)
        wire, cells = queue.popleft()
        self._budget.used -= cells
        if queue:
            self._queues[circ_id] = queue
            self._counts[circ_id] -= cells
        else:
            del self._counts[circ_id]
        return circ_id, wire

    def discard(self, circ_id: int) -> None:
        """Forget what waits for a circuit."""
        if self._queues.pop(circ_id, None) is not None:
            self._budget.used -= self._counts.pop(circ_id)

    def clear(self) -> None:
        """Forget everything."""
        self._budget.used -= sum(self._counts.values())
        self._queues.clear()
        self._counts.clear()
