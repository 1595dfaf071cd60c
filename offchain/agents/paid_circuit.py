# SPDX-License-Identifier: BSD-3-Clause
"""A circuit that pays every hop as the cells flow.

Middle and exit are paid in nanopayment sessions, the guard on its direct channel. When a session
is nearly used up, or near its expiry, the next one is established on the same hop, so that premium
service has no gap. A hop that refuses payments gets another session, and after that no more money.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from ..policy.credit import Credit
from ..policy.tit_for_tat import Stance
from ..protocol import guard
from ..protocol.errors import ProtocolError
from ..protocol.messages import (
    GuardAccepted,
    GuardPayment,
    GuardPayout,
    GuardVoucher,
    NanoAccepted,
    NanoPayment,
    Refusal,
    unpack,
)
from ..protocol.nano_pay import left
from ..protocol.outbox import Tell
from ..protocol.records import Table
from ..protocol.sessions import client_session
from ..transport.errors import DestroyReason, TransportError
from ..transport.proxy import ClientCircuit
from .premium import BoughtPremium

if TYPE_CHECKING:
    from .client import ClientAgent

SUCCEED_AT = 0.5
"""A hop's next session is established when this share of the current one is left."""
SUCCEED_BEFORE = 3
"""So many safety margins before a session's expiry, too; from two on it takes no payments."""
ACCEPT_TIMEOUT = 20.0
"""Seconds to wait for a relay to accept a session or a voucher."""
VOUCHER_TRIES = 10
VOUCHER_PAUSE = 0.5
"""Seconds between two attempts to hand the guard its voucher."""
REPLACEMENTS = 2
"""How often a hop that refuses payments gets another session; then it is paid no more."""
FORGIVEN = 8
"""Refused payments of one hop that are made again in another session, on one circuit."""
MANY_PAYMENTS = 8
"""A hop that took more than this many and then refuses is not one that refuses all."""
SETTLE_PAUSE = 1.0
"""Seconds in which the refusals of payments that are under way still come."""
HOPS = ("guard", "middle", "exit")
PAYING = "paying:"
"""Prefix of the names of tasks that keep a circuit paid."""
_PAYMENTS = (NanoPayment.PCMD, GuardPayment.PCMD)


@dataclass(slots=True)
class Hop:
    """One hop: its credit, the session that pays it, and the one that will.

    `session` is empty while nothing can pay; `refused`: the hop is paid no more.
    """

    index: int
    name: str
    credit: Credit
    accepted: tuple[bytes, ...] = ()
    """The intermediaries that the relay is paid through, by the hashes of their keys."""
    session: bytes = b""
    next: bytes = b""
    refused: bool = False
    replaced: int = 0
    forgiven: int = 0


class PaidCircuit:
    """Pays along one circuit. Made by `ClientAgent.build_circuit`."""

    def __init__(self, agent: ClientAgent, circuit: ClientCircuit) -> None:
        self.circuit = circuit
        self._agent = agent
        self._log = structlog.get_logger(agent.nickname)
        consensus = agent.consensus
        self.hops = [Hop(index, name, Credit(consensus.cells_per_payment,
                                             consensus.initial_credit),
                         consensus.accepted_by(circuit.hops[index]))
                     for index, name in enumerate(HOPS)]
        self.stance = Stance.PAY
        """What is done about the circuit; see `service_watch`."""
        self._premium = BoughtPremium(circuit, self.hops[-1].credit)
        self._accepted: dict[bytes, asyncio.Future[bool]] = {}
        self._payout: asyncio.Future[bytes] | None = None
        circuit.on_payment = self._received
        circuit.on_cells = self._cells
        circuit.on_closed = self._closed

    @property
    def usable(self) -> bool:
        """Whether more streams should go over it: it is there, and not being left."""
        return not self.circuit.closed and self.stance is not Stance.LEAVE

    # --- Setting up

    async def start_paying(self) -> None:
        """Bind all three hops: channel and voucher for the guard, a session for the others.

        Raises `TransportError`, `ProtocolError` or `TimeoutError` when a hop cannot be bound.
        """
        results = await asyncio.gather(
            self._start_guard(), *(self._start_hop(hop) for hop in self.hops[1:]),
            return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        self._cells(0)

    async def _start_hop(self, hop: Hop) -> None:
        hop.session = await self._establish(hop)

    async def _establish(self, hop: Hop) -> bytes:
        agent = self._agent
        terms_hash = await agent.pool.take(hop.accepted)
        try:
            if self.circuit.closed:
                raise TransportError("the circuit is closed")
            started = time.monotonic()
            accepted = self._expect(terms_hash)
            agent.routes[terms_hash] = (self, hop.index, False)
            agent.engine.do(lambda records, moment: agent.machine.nano_offer(
                records, moment, terms_hash))
            if not await self._await(terms_hash, accepted):
                raise TransportError(f"the {hop.name} does not take up a session")
        except BaseException:
            agent.end_session(terms_hash)
            raise
        finally:
            agent.pool.release(terms_hash)
        agent.engine.measured.add("nano_offer", (time.monotonic() - started) * 1e3, 2)
        return terms_hash

    async def _start_guard(self) -> None:
        agent, info = self._agent, self.circuit.hops[0]
        async with agent.guard_lock(info):
            channel = await agent.guard_channel(info)
            roll_over = channel is not None and not agent.is_paying(channel)
            # Where no circuit is paid from it now, what is left of its chain may be behind by
            # payments that an earlier one took with it.
            if channel is None:
                channel = await agent.open_guard(await self._ask_payout(), info)
            for attempt in range(VOUCHER_TRIES):
                if self.circuit.closed:
                    # Others over this guard wait for the lock.
                    raise TransportError("the circuit is closed")
                if await self._hand_over_voucher(channel, roll_over=roll_over and attempt == 0):
                    self.hops[0].session = channel
                    return
                # The guard may not have seen the channel on the ledger yet.
                await asyncio.sleep(VOUCHER_PAUSE)
        raise TransportError("the guard does not take the voucher")

    async def _ask_payout(self) -> bytes:
        agent = self._agent
        session = agent.new_route(self, 0, link=True)
        self._payout = asyncio.get_running_loop().create_future()
        try:
            agent.engine.do(lambda records, moment: guard.query(session))
            return await asyncio.wait_for(self._payout, ACCEPT_TIMEOUT)
        except TimeoutError:
            raise TransportError("the guard names no payout address") from None
        finally:
            agent.routes.pop(session, None)

    async def _hand_over_voucher(self, channel: bytes, *, roll_over: bool) -> bool:
        agent = self._agent
        agent.routes[channel] = (self, 0, True)
        accepted = self._expect(channel)
        if roll_over:
            agent.engine.do(lambda records, moment: agent.machine.guard_roll_over(
                records, moment, channel))
        else:
            agent.engine.do(lambda records, moment: agent.machine.guard_voucher(records, channel))
        return await self._await(channel, accepted)

    def _expect(self, session: bytes) -> asyncio.Future[bool]:
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._accepted[session] = future
        return future

    async def _await(self, session: bytes, accepted: asyncio.Future[bool]) -> bool:
        try:
            return await asyncio.wait_for(accepted, ACCEPT_TIMEOUT)
        except TimeoutError:
            return False
        finally:
            self._accepted.pop(session, None)

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
                if not self._is_for(session, hop):
                    raise ProtocolError("the accepted session is not this hop's")
                self._agent.take_message(session, pcmd, payload)
                if hop == self.hops[-1].index:
                    self._premium.accepted()
                waiting = self._accepted.get(session)
                if waiting is not None and not waiting.done():
                    waiting.set_result(True)
            case Refusal():
                # A guard that has not seen its channel on the ledger yet refuses the voucher.
                expected = message.about == GuardVoucher.PCMD
                self._log.log(logging.INFO if expected else logging.WARNING, "a relay refuses",
                              hop=HOPS[hop], about=message.about, code=message.code.name.lower())
                if message.about in _PAYMENTS:
                    self._payment_refused(self.hops[hop])
                    return
                for session, waiting in self._accepted.items():
                    if self._is_for(session, hop) and not waiting.done():
                        waiting.set_result(False)
            case _:
                raise ProtocolError(f"a {type(message).__name__} is not expected here")

    def _is_for(self, session: bytes, hop: int) -> bool:
        if hop == 0:
            # The channel's route is whichever circuit has paid its guard last.
            return session in self._accepted or session == self.hops[0].session
        route = self._agent.routes.get(session)
        return route is not None and route[0] is self and route[1] == hop

    def _cells(self, count: int) -> None:
        for hop in self.hops:
            hop.credit.passed(count)
            if hop.credit.payments_due:
                self._pay(hop)
        self._premium.update()

    def _closed(self, reason: DestroyReason) -> None:
        self._log.info("the circuit is closed", reason=reason.name.lower())
        for waiting in self._accepted.values():
            if not waiting.done():
                waiting.set_result(False)
        self._agent.circuit_ended(self)

    # --- Paying

    def owed(self) -> bool | None:
        """Whether all hops owe premium service, or none of them (False); None in between."""
        owing = [bool(hop.session) and hop.credit.premium for hop in self.hops]
        return all(owing) if all(owing) or not any(owing) else None

    def take_stance(self, stance: Stance) -> None:
        """Go on paying, or stop, or leave the circuit."""
        self._log.info("a circuit is put to the test", stance=stance.value)
        self.stance = stance
        if stance is Stance.PAY:
            self._cells(0)
        elif stance is Stance.LEAVE:
            self._agent.leave(self)

    def found_served(self) -> None:
        """A probe has found that paying makes the circuit faster."""
        self._agent.served_well(self)

    def _pay(self, hop: Hop) -> None:
        if self.stance is not Stance.PAY:
            return
        while hop.credit.payments_due and not hop.refused and not self.circuit.closed:
            if not self._affordable(hop):
                if not hop.next:
                    break
                self._agent.end_session(hop.session)
                hop.session, hop.next = hop.next, b""
                continue
            # Counted first: the payment's own cell comes back to `_cells` before this returns.
            hop.credit.paid()
            if hop.index == 0:
                # All circuits over a guard are paid from one channel, each on its own link cells.
                self._agent.routes[hop.session] = (self, 0, True)
            try:
                self._agent.pay_once(hop.name, hop.session)
            except ProtocolError as error:
                # The clock has moved on since the session was found to be good.
                self._log.info("a payment is not made", hop=hop.name, reason=str(error))
                break
        self._look_ahead(hop)

    def look_ahead(self) -> None:
        """Have the next session of every hop that needs one, also while no cell passes."""
        for hop in self.hops:
            self._look_ahead(hop)

    def _affordable(self, hop: Hop) -> int:
        if not hop.session:
            return 0
        records, moment = self._agent.records(), self._agent.engine.moment()
        if hop.index == 0:
            # The ledger may have closed the channel since another circuit over it asked for that.
            return 0 if self._is_used_up(hop) else guard.guard_left(records, moment, hop.session)
        return left(records, moment, hop.session)

    def _look_ahead(self, hop: Hop) -> None:
        if (not hop.session or hop.next or hop.refused or self.circuit.closed
                or self.stance is not Stance.PAY):
            return
        tasks = self._agent.engine.tasks
        if hop.index == 0:
            if not self._affordable(hop):
                tasks.start(self._task(hop), self._roll_over(hop))
        elif self._runs_out(hop):
            tasks.start(self._task(hop), self._succeed(hop))

    def _runs_out(self, hop: Hop) -> bool:
        moment = self._agent.engine.moment()
        terms = client_session(self._agent.records(), hop.session).session.terms
        latest = terms.t_exp - SUCCEED_BEFORE * moment.parameters.safety_margin
        return moment.now >= latest or self._affordable(hop) <= SUCCEED_AT * terms.n

    def _task(self, hop: Hop) -> str:
        return f"{PAYING}{id(self)}:{hop.name}"

    async def _succeed(self, hop: Hop) -> None:
        try:
            hop.next = await self._establish(hop)
        except (TransportError, ProtocolError, TimeoutError) as error:
            # What is left of the current session is still paid.
            self._log.warning("no further session", hop=hop.name, reason=str(error))
            await asyncio.sleep(ACCEPT_TIMEOUT)
            return
        self._pay(hop)

    async def _roll_over(self, hop: Hop) -> None:
        async with self._agent.guard_lock(self.circuit.hops[0]):
            if self._affordable(hop):
                pass  # another circuit over this guard has done it
            elif self._is_used_up(hop):
                self._log.warning("the guard channel's deposit is used up")
                hop.refused = True
            else:
                hop.refused = not await self._hand_over_voucher(hop.session, roll_over=True)
        if not hop.refused:
            self._pay(hop)

    def _is_used_up(self, hop: Hop) -> bool:
        current = self._agent.records().get(Table.GUARD, hop.session)
        return (not isinstance(current, guard.PaidGuard) or bool(current.closing_at)
                or current.base + (current.sent + 1) * current.price > current.deposit)

    def _payment_refused(self, hop: Hop) -> None:
        if hop.forgiven < FORGIVEN:
            # It is still due. A hop that takes payments and denies it gets few of them.
            hop.forgiven += 1
            hop.credit.payment_refused()
        if hop.session:  # else it is being replaced, and these are payments that were under way
            dead, hop.session = hop.session, b""
            self._agent.engine.tasks.start(f"{self._task(hop)}:again", self._replace(hop, dead))

    def _paid_well(self, hop: Hop, session: bytes) -> bool:
        """Whether the hop took a good number of payments before it refused one."""
        return bool(hop.index) and client_session(
            self._agent.records(), session).sent > MANY_PAYMENTS

    async def _replace(self, hop: Hop, dead: bytes) -> None:
        """Pay a hop by another session, or the guard on another chain, after a refusal."""
        hop.replaced = 1 if self._paid_well(hop, dead) else hop.replaced + 1
        if hop.index:
            self._agent.end_session(dead)
        if hop.replaced > REPLACEMENTS:
            self._log.warning("a hop that refuses payments is paid no more", hop=hop.name)
            hop.refused = True
            return
        await asyncio.sleep(SETTLE_PAUSE)
        try:
            if hop.index == 0:
                async with self._agent.guard_lock(self.circuit.hops[0]):
                    accepted = await self._hand_over_voucher(dead, roll_over=True)
                hop.session, hop.refused = (dead, False) if accepted else (b"", True)
            elif hop.next:
                hop.session, hop.next = hop.next, b""
            else:
                hop.session = await self._establish(hop)
        except (TransportError, ProtocolError, TimeoutError) as error:
            self._log.warning("no further session", hop=hop.name, reason=str(error))
            hop.refused = True
            return
        self._pay(hop)

    def deliver(self, hop: int, link: bool, item: Tell) -> None:
        """Send what the machine tells a hop."""
        try:
            self.circuit.send_payment(hop, item.pcmd, item.payload, link)
        except TransportError as error:
            self._log.info("a message found no circuit", error=str(error))
