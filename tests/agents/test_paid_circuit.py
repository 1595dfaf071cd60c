# SPDX-License-Identifier: BSD-3-Clause
"""What a paid circuit does when it ends while it is being set up."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from offchain.agents import paid_circuit
from offchain.agents.paid_circuit import PaidCircuit
from offchain.transport.errors import DestroyReason, TransportError


class Agent:
    """A client whose direct channel to the guard is there; the guard says nothing."""

    nickname = "client"

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.routes: dict[bytes, Any] = {}
        self.vouchers = 0
        self.consensus = SimpleNamespace(
            cells_per_payment=100, initial_credit=300, accepted_by=lambda hop: ())
        self.engine = SimpleNamespace(do=self.hand_over)

    def hand_over(self, action: Any) -> None:
        self.vouchers += 1

    def guard_lock(self, info: Any) -> asyncio.Lock:
        return self.lock

    async def guard_channel(self, info: Any) -> bytes:
        return bytes(32)

    def is_paying(self, channel: bytes) -> bool:
        return True

    def circuit_ended(self, paid: Any) -> None:
        pass


def test_a_circuit_that_is_closed_keeps_nobody_from_the_guard(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paid_circuit, "VOUCHER_PAUSE", 0.01)

    async def main() -> None:
        agent: Any = Agent()
        circuit: Any = SimpleNamespace(hops=[None] * 3, closed=False)
        paid = PaidCircuit(agent, circuit)
        starting = asyncio.create_task(paid._start_guard())
        await asyncio.sleep(0)
        assert agent.vouchers == 1 and agent.lock.locked()
        circuit.closed = True
        paid._closed(DestroyReason.FINISHED)
        async with asyncio.timeout(5):
            with pytest.raises(TransportError, match="closed"):
                await starting
        assert agent.vouchers == 1 and not agent.lock.locked()

    asyncio.run(main())
