# SPDX-License-Identifier: BSD-3-Clause
"""A circuit that pays every hop as the cells flow.

Middle and exit are paid in nanopayment sessions, the guard on its direct channel. When a session
is nearly used up the next one is established on the same hop, so that premium service has no gap.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from ..policy.credit import Credit
from ..protocol import guard
from ..protocol.errors import ProtocolError
from ..protocol.messages import (
    GuardAccepted,
    GuardPayout,
    NanoAccepted,
    Refusal,
    unpack,
)
from ..protocol.nano_pay import left
from ..protocol.outbox import Tell
from ..protocol.records import Table
from ..transport.errors import DestroyReason, TransportError
from ..transport.proxy import ClientCircuit

if TYPE_CHECKING:
    from .client import ClientAgent

SUCCEED_AT = 0.5
"""A hop's next session is established when this share of the current one is left."""
ACCEPT_TIMEOUT = 20.0
"""Seconds to wait for a relay to accept a session or a voucher."""
VOUCHER_TRIES = 10
VOUCHER_PAUSE = 0.5
"""Seconds between two attempts to hand the guard its voucher."""
HOPS = ("guard", "middle", "exit")
PAYING = "paying:"
"""Prefix of the names of tasks that keep a circuit paid."""


@dataclass(slots=True)
class Hop:
    """One hop: its credit, the session that pays it, and the one that will."""

    index: int
    name: str
    credit: Credit
    session: bytes = b""
    next: bytes = b""
    refused: bool = False


class PaidCircuit:
    """Pays along one circuit. Made by `ClientAgent.build_circuit`."""

    def __init__(self, agent: ClientAgent, circuit: ClientCircuit) -> None:
        self.circuit = circuit
        self._agent = agent
        self._log = structlog.get_logger(agent.nickname)
        consensus = agent.consensus
        self.hops = [Hop(index, name, Credit(consensus.cells_per_payment,
                                             consensus.initial_credit))
                     for index, name in enumerate(HOPS)]
        self._accepted: dict[bytes, asyncio.Future[bool]] = {}
        self._payout: asyncio.Future[bytes] | None = None
        circuit.on_payment = self._received
        circuit.on_cells = self._cells
        circuit.on_closed = self._closed

    # --- Setting up

    async def start_paying(self) -> None:
        """Bind all three hops: channel and voucher for the guard, a session for the others."""
        await asyncio.gather(self._start_guard(), *(self._start_hop(hop) for hop in self.hops[1:]))
        self._cells(0)

    async def _start_hop(self, hop: Hop) -> None:
        hop.session = await self._establish(hop)

    async def _establish(self, hop: Hop) -> bytes:
        terms_hash = await self._agent.take_session()
        if self.circuit.closed:
            raise TransportError("the circuit is closed")
        started = time.monotonic()
        accepted = self._expect(terms_hash)
        self._agent.routes[terms_hash] = (self, hop.index, False)
        self._agent.engine.do(lambda records, moment: self._agent.machine.nano_offer(
            records, moment, terms_hash))
        if not await self._await(accepted):
            raise TransportError(f"the {hop.name} does not take up a session")
        self._agent.engine.measured.add("nano_offer", (time.monotonic() - started) * 1e3, 2)
        return terms_hash

    async def _start_guard(self) -> None:
        agent = self._agent
        hop = self.hops[0]
        channel = agent.guard_channel(self.circuit.hops[0])
        if channel is None:
            session = agent.new_route(self, 0, link=True)
            self._payout = asyncio.get_running_loop().create_future()
            agent.engine.do(lambda records, moment: guard.query(session))
            payout = await asyncio.wait_for(self._payout, ACCEPT_TIMEOUT)
            channel = await agent.open_guard(payout, self.circuit.hops[0])
        agent.routes[channel] = (self, 0, True)
        for _ in range(VOUCHER_TRIES):
            accepted = self._expect(channel)
            agent.engine.do(lambda records, moment: agent.machine.guard_voucher(records, channel))
            if await self._await(accepted):
                hop.session, hop.refused = channel, False
                return
            # The guard may not have seen the channel on the ledger yet.
            await asyncio.sleep(VOUCHER_PAUSE)
        raise TransportError("the guard does not take the voucher")

    def _expect(self, session: bytes) -> asyncio.Future[bool]:
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._accepted[session] = future
        return future

    async def _await(self, accepted: asyncio.Future[bool]) -> bool:
        try:
            return await asyncio.wait_for(accepted, ACCEPT_TIMEOUT)
        except TimeoutError:
            return False

    # --- From the circuit

    def _received(self, hop: int, pcmd: int, payload: bytes) -> None:
        try:
            self._handle(hop, pcmd, payload)
        except ProtocolError as error:
            self._log.info("a relay's message is refused", hop=hop, reason=str(error))

    def _handle(self, hop: int, pcmd: int, payload: bytes) -> None:
        message = unpack(pcmd, payload)
        match message:
            case GuardPayout() if hop == 0 and self._payout and not self._payout.done():
                self._payout.set_result(message.payout)
            case NanoAccepted() | GuardAccepted():
                session = (message.terms_hash if isinstance(message, NanoAccepted)
                           else message.channel)
                route = self._agent.routes.get(session)
                if route is None or route[0] is not self or route[1] != hop:
                    raise ProtocolError("the accepted session is not this hop's")
                self._agent.take_message(session, pcmd, payload)
                waiting = self._accepted.pop(session, None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(True)
            case Refusal():
                self._log.warning("a relay refuses", hop=HOPS[hop], about=message.about,
                                  code=message.code.name.lower())
                self.hops[hop].refused = True
                for session, waiting in list(self._accepted.items()):
                    route = self._agent.routes.get(session)
                    if route is not None and route[1] == hop and not waiting.done():
                        waiting.set_result(False)
            case _:
                raise ProtocolError(f"a {type(message).__name__} is not expected here")

    def _cells(self, count: int) -> None:
        for hop in self.hops:
            hop.credit.passed(count)
            if hop.credit.payments_due:
                self._pay(hop)

    def _closed(self, reason: DestroyReason) -> None:
        self._log.info("the circuit is closed", reason=reason.name.lower())
        for waiting in self._accepted.values():
            if not waiting.done():
                waiting.set_result(False)

    # --- Paying

    def _pay(self, hop: Hop) -> None:
        while hop.credit.payments_due and not hop.refused and not self.circuit.closed:
            if not self._affordable(hop):
                if hop.next:
                    hop.session, hop.next = hop.next, b""
                    continue
                break
            # Counted first: the payment's own cell comes back to `_cells` before this returns.
            hop.credit.paid()
            self._agent.pay_once(hop.name, hop.session)
        self._look_ahead(hop)

    def _affordable(self, hop: Hop) -> int:
        if not hop.session:
            return 0
        records, moment = self._agent.records(), self._agent.engine.moment()
        if hop.index == 0:
            return guard.guard_left(records, moment, hop.session)
        return left(records, moment, hop.session)

    def _look_ahead(self, hop: Hop) -> None:
        if not hop.session or hop.next or hop.refused or self.circuit.closed:
            return
        remaining = self._affordable(hop)
        if hop.index == 0:
            if remaining == 0:
                self._agent.engine.tasks.start(f"{PAYING}guard", self._roll_over(hop))
        elif remaining <= SUCCEED_AT * self._agent.engine.moment().parameters.n:
            self._agent.engine.tasks.start(f"{PAYING}{hop.name}", self._succeed(hop))

    async def _succeed(self, hop: Hop) -> None:
        try:
            hop.next = await self._establish(hop)
        except (TransportError, ProtocolError, TimeoutError) as error:
            self._log.warning("no further session", hop=hop.name, reason=str(error))
            hop.refused = True
            return
        self._pay(hop)

    async def _roll_over(self, hop: Hop) -> None:
        agent = self._agent
        current = agent.records().get(Table.GUARD, hop.session)
        if not isinstance(current, guard.PaidGuard) or (
                current.base + (current.sent + 1) * current.price > current.deposit):
            self._log.warning("the guard channel's deposit is used up")
            hop.refused = True
            return
        accepted = self._expect(hop.session)
        agent.engine.do(lambda records, moment: agent.machine.guard_roll_over(
            records, moment, hop.session))
        if await self._await(accepted):
            self._pay(hop)
        else:
            hop.refused = True

    def deliver(self, hop: int, link: bool, item: Tell) -> None:
        """Send what the machine tells a hop."""
        try:
            self.circuit.send_payment(hop, item.pcmd, item.payload, link)
        except TransportError as error:
            self._log.info("a message found no circuit", error=str(error))
