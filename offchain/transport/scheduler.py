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


class RoundRobin:
    """Queues of one link, by circuit id. An item is one or more cells as they go onto the wire."""

    def __init__(self) -> None:
        self._queues: OrderedDict[int, deque[tuple[bytes, int]]] = OrderedDict()
        self._counts: dict[int, int] = {}

    def __bool__(self) -> bool:
        return bool(self._queues)

    def queued(self, circ_id: int) -> int:
        """Cells that wait for this circuit."""
        return self._counts.get(circ_id, 0)

    def push(self, circ_id: int, wire: bytes, cells: int) -> None:
        """Append an item of `cells` cells to the circuit's queue."""
        queue = self._queues.get(circ_id)
        if queue is None:
            queue = self._queues[circ_id] = deque()
            self._counts[circ_id] = 0
        queue.append((wire, cells))
        self._counts[circ_id] += cells

    def pop(self) -> tuple[int, bytes]:
        """The next circuit's oldest item. Raises KeyError when nothing waits."""
        circ_id, queue = self._queues.popitem(last=False)
        wire, cells = queue.popleft()
        if queue:
            self._queues[circ_id] = queue
            self._counts[circ_id] -= cells
        else:
            del self._counts[circ_id]
        return circ_id, wire

    def discard(self, circ_id: int) -> None:
        """Forget what waits for a circuit."""
        self._queues.pop(circ_id, None)
        self._counts.pop(circ_id, None)

    def clear(self) -> None:
        """Forget everything."""
        self._queues.clear()
        self._counts.clear()
