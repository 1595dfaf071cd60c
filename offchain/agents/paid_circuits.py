# SPDX-License-Identifier: BSD-3-Clause
"""Circuits that are ready for streams: built, and paid on every hop, before anybody asks.

Whoever carries streams, a download or a proxy, calls `PaidCircuits.open` and writes to what it
gets. A circuit that is handed out is never handed out again: streams of different purposes do not
meet on one.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog

from ..protocol.errors import ProtocolError
from ..transport.errors import TransportError
from .directory import DirectoryError
from .paid_circuit import PaidCircuit

if TYPE_CHECKING:
    from .client import ClientAgent

KEEP_SECONDS = 0.5
"""How often the circuits are looked after, in seconds of this machine's clock."""
CLEAN_SECONDS = 300.0
"""A circuit that nobody has used for so long is given up: relays end sessions that are not paid."""
AGAIN_SECONDS = 5.0
"""Pause after a circuit that could not be built ahead."""


class PaidCircuits:
    """The circuits of one client. `clean` is how many are kept ready."""

    def __init__(self, agent: ClientAgent, clean: int = 0) -> None:
        self.clean = clean
        self._agent = agent
        self._log = structlog.get_logger(agent.nickname)
        self._ready: list[tuple[float, PaidCircuit]] = []

    async def open(self) -> PaidCircuit:
        """A circuit for streams that has carried none yet; built now if none is ready.

        Raises `DirectoryError`, `TransportError`, `ProtocolError` or `TimeoutError` when none can
        be built or paid.
        """
        self._agent.pool.circuit_opened()
        while self._ready:
            _, paid = self._ready.pop(0)
            if not paid.circuit.closed:
                return paid
        return await self._agent.build_circuit()

    def is_clean(self, paid: PaidCircuit) -> bool:
        """Whether a circuit still waits to be handed out."""
        return any(one is paid for _, one in self._ready)

    async def keep(self) -> None:
        """Keep `clean` circuits ready, and every circuit's next sessions, while this runs.

        A circuit that cannot be built ahead is tried again; `open` tells whoever waits for one.
        """
        while True:
            await self._give_up_old()
            for paid in list(self._agent.circuits):
                paid.look_ahead()
            if len(self._ready) < self.clean:
                self._agent.engine.tasks.start("pool:clean", self._build())
            await asyncio.sleep(KEEP_SECONDS)

    async def _build(self) -> None:
        try:
            paid = await self._agent.build_circuit()
        except (DirectoryError, TransportError, ProtocolError, TimeoutError) as error:
            self._log.warning("no circuit is ready", reason=str(error))
            await asyncio.sleep(AGAIN_SECONDS)
        else:
            self._ready.append((time.monotonic(), paid))

    async def _give_up_old(self) -> None:
        old = time.monotonic() - CLEAN_SECONDS
        for since, paid in list(self._ready):
            if since < old or paid.circuit.closed:
                self._ready.remove((since, paid))
                await paid.circuit.close()
