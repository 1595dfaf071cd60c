# SPDX-License-Identifier: BSD-3-Clause
"""What a paid circuit does when it ends while it is being set up, or its guard's channel ends."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from offchain.agents import paid_circuit
from offchain.agents.paid_circuit import PaidCircuit
from offchain.protocol.guard import PaidGuard
from offchain.protocol.records import MemoryRecords, Table
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


CHANNEL = bytes(31) + b"\x01"
OPEN = PaidGuard(CHANNEL, bytes(20), deposit=1_000, price=100, seq=1, base=0, n=128, seed=bytes(32),
                 expiry=10_000, sent=0, accepted=True, closing_at=0)


@pytest.mark.parametrize(("channel", "left"), [
    (OPEN, 10), (replace(OPEN, closing_at=5_000), 0), (replace(OPEN, sent=10), 0), (None, 0)],
    ids=["open", "closing", "used up", "closed by the ledger"])
def test_a_direct_channel_that_ends_pays_no_more_and_is_not_rolled_over(
        channel: PaidGuard | None, left: int) -> None:
    """Another circuit over the same guard may have asked for its close."""
    async def main() -> None:
        agent: Any = Agent()
        records = MemoryRecords()
        if channel is not None:
            records.put(Table.GUARD, CHANNEL, channel)
        agent.records = lambda: records
        agent.engine.moment = lambda: SimpleNamespace(
            now=0, parameters=SimpleNamespace(safety_margin=20))
        paid = PaidCircuit(agent, SimpleNamespace(hops=[None] * 3, closed=False))  # type: ignore[arg-type]
        hop = paid.hops[0]
        hop.session = CHANNEL
        assert paid._affordable(hop) == left
        if not left:
            await paid._roll_over(hop)
            assert hop.refused and agent.vouchers == 0

    asyncio.run(main())
