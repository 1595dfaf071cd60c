# SPDX-License-Identifier: BSD-3-Clause
"""Watches what a paid circuit gives for its money, and stops paying one that gives nothing."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from ..policy.tit_for_tat import Stance, TitForTat
from ..transport.priority import Priority

if TYPE_CHECKING:
    from .paid_circuit import PaidCircuit

SAMPLE_SECONDS = 1.0
"""Length of what counts as a second, on this machine's clock."""
LEAST_CELLS = 100
"""Received cells with which a sample counts: with fewer, it was not the network that was slow."""


async def watch(paid: PaidCircuit, priority: Priority, seconds: float) -> None:
    """Sample the circuit every so many seconds until it is closed or left."""
    test = TitForTat(priority.ratio, priority.windows(premium=True).circuit)
    while not paid.circuit.closed and test.stance is not Stance.LEAVE:
        owed, cells, started = paid.owed(), paid.circuit.cells_received, time.monotonic()
        await asyncio.sleep(seconds)
        received = paid.circuit.cells_received - cells
        if received < LEAST_CELLS:
            continue
        probes = test.probes
        test.second(received * seconds / (time.monotonic() - started),
                    premium=owed if owed == paid.owed() else None)
        if test.probes > probes:
            paid.found_served()
        if test.stance is not paid.stance:
            paid.take_stance(test.stance)
