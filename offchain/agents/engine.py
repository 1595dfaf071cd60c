# SPDX-License-Identifier: BSD-3-Clause
"""The one driver of all machines: commit first, then deliver, and deliver again after a crash."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypeVar

import structlog

from monetor_chain.bindings.consensus import Consensus
from monetor_chain.bindings.ledger_events import LedgerEvents
from monetor_chain.chain import Block as ChainBlock, Chain
from monetor_chain.errors import ChainError, Reorganised, TransactionReverted
from monetor_chain.parameters import NetworkParameters

from ..protocol.claims import Unverified
from ..protocol.errors import ProtocolError
from ..protocol.history import Change, Entry
from ..protocol.ledger import Block, LedgerCall, LedgerEvent
from ..protocol.moment import Moment, tip
from ..protocol.outbox import Note, Outbox, Request, Submit, Tell
from ..protocol.records import Records
from ..store import Store, StoreError, Transaction
from ..transport.errors import TransportError
from .clock import NetworkClock
from .intermediary_port import IntermediaryPort
from .ledger_port import LedgerPort, translate
from .tasks import Tasks
from .watch_folder import Hander, HandOverFailed, Parcel

T = TypeVar("T")

Member: TypeAlias = tuple[Callable[[Transaction, Moment, Outbox], Any], asyncio.Future[Any]]
"""A step of a group, and what becomes of it."""

TICK_SECONDS = 0.2
"""How often deadlines are looked at, in seconds of this machine's clock."""

CLOCK_SECONDS = 1.0
"""How often the network's clock is read, in seconds of this machine's clock."""

PATIENCE_MARGINS = 2
"""After this many safety margins without an answer, the intermediary counts as silent."""

ASK_AGAIN = (0.05, 60.0)
"""Shortest and longest pause before a request is sent again, in seconds of this machine's clock;
in between, an eighth of the safety margin is the longest."""

REMEMBERED = 4096
"""How many timings of a protocol, and how many notes, an agent keeps in memory."""


Chronicle = Callable[[Records, Sequence[Change]], Sequence[Entry]]
"""Makes entries of the party's history out of the changes of one step; see `protocol.history`."""


class Machine(Protocol):
    """What the engine needs of a party's machine."""

    def on_ledger(self, records: Any, moment: Moment, event: LedgerEvent) -> Outbox:
        """Follow the ledger."""

    def tick(self, records: Any, moment: Moment) -> Outbox:
        """Do what is due."""


@dataclass(slots=True)
class Measurements:
    """What an agent has seen happen: protocol → (milliseconds, cells), units of gas, notes."""

    timings: dict[str, deque[tuple[float, int]]] = field(default_factory=dict)
    gas: int = 0
    journal: deque[tuple[float, Note]] = field(
        default_factory=lambda: deque(maxlen=REMEMBERED))
    latest: dict[str, Note] = field(default_factory=dict)
    """The last note of every kind."""

    def add(self, protocol: str, milliseconds: float, cells: int) -> None:
        """One run of a protocol."""
        self.timings.setdefault(protocol, deque(maxlen=REMEMBERED)).append((milliseconds, cells))

    def note(self, note: Note) -> None:
        """Something has happened."""
        self.journal.append((time.time(), note))
        self.latest[note.what] = note


class Engine:
    """Runs one machine over one store, one chain and, for end users, one intermediary."""

    def __init__(self, name: str, store: Store, machine: Any, *, chain: Chain,
                 consensus: Consensus, events: LedgerEvents, port: LedgerPort,
                 first_block: int, tell: Callable[[Tell], None] | None = None,
                 intermediary: IntermediaryPort | None = None,
                 look_again: Callable[[], Awaitable[None]] | None = None,
                 hander: Hander | None = None, first: Callable[[], None] | None = None,
                 wanted: Callable[[Any, Moment, LedgerCall], bool] | None = None,
                 chronicle: Chronicle | None = None) -> None:
        """`tell` delivers to peers; `look_again` is called when the intermediary was not reached,
        which may be because it listens elsewhere now. `hander` tells a watcher of every step before
        anything of it leaves. `first` runs at start, before anything is delivered; what is not
        `wanted` any more is not submitted. `chronicle` makes of a step's changes what the party
        will want to know later."""
        self.name = name
        self.store = store
        self.machine = machine
        self.clock = NetworkClock(chain)
        self.measured = Measurements()
        self.tasks = Tasks(name)
        self._consensus = consensus
        self._events = events
        self._port = port
        self._first_block = first_block
        self._tell = tell
        self._intermediary = intermediary
        self._look_again = look_again
        self._hander = hander
        self._first = first
        self._wanted = wanted
        self._chronicle = chronicle
        self._parameters: dict[int, NetworkParameters] = {}
        self._epoch = 0
        self._group: list[Member] = []
        self._changed = asyncio.Event()
        self._halted = False
        self._log = structlog.get_logger(name)

    # --- Life

    async def start(self) -> None:
        """Read clock and parameters, then deliver again whatever the store says is not done."""
        await self.clock.synchronise()
        await self._read_parameters()
        if self._first is not None:
            self._first()
        if self._hander is not None:
            self.step(lambda records, moment, outbox: None)
        self.tasks.start("clock", self._keep_time())
        self.tasks.start("ledger", self._follow())
        self.tasks.start("tick", self._tick())
        reading = self.store.read()
        for request in reading.requests():
            self._deliver(request)
        for submission in reading.submissions():
            self._deliver(submission)

    async def stop(self) -> None:
        """Stop all work; what is not done is on disk."""
        await self.tasks.stop()
        self.store.close()

    async def halt(self) -> None:
        """Do nothing more, as if the machine had burnt; the store can still be read."""
        self._halted = True
        await self.tasks.stop()

    def check(self) -> None:
        """Raise the failure of a background task, if there was one."""
        if self.tasks.failure is not None:
            raise self.tasks.failure

    async def until(self, condition: Callable[[Transaction], bool], timeout: float, what: str
                    ) -> None:
        """Wait until the store satisfies `condition`; `TimeoutError` names `what` did not come."""
        async with asyncio.timeout(timeout) as limit:
            try:
                while not condition(self.store.read()):
                    self.check()
                    self._changed.clear()
                    try:
                        await asyncio.wait_for(self._changed.wait(), 0.5)
                    except TimeoutError:
                        if limit.expired():
                            raise
            except (TimeoutError, asyncio.CancelledError) as error:
                if limit.expired():
                    raise TimeoutError(f"{self.name}: no {what} within {timeout:.0f} s") from error
                raise

    # --- Steps

    def moment(self) -> Moment:
        """Now, with the parameters in force."""
        return Moment(self.clock.now(), self._epoch, self._parameters[self._epoch],
                      self._parameters)

    def step(self, action: Callable[[Transaction, Moment, Outbox], T]) -> T:
        """Run one step in one transaction with its outbox; deliver after the commit.

        `action` reads and writes the records and appends to the outbox. If it raises, nothing of
        it remains.
        """
        outbox: Outbox = []
        with self._transaction() as (records, parcels):
            result = action(records, self.moment(), outbox)
            records.keep(outbox)
        self._deliver_all(outbox, parcels)
        return result

    @contextmanager
    def _transaction(self) -> Iterator[tuple[Transaction, list[Parcel]]]:
        """A transaction at whose end the history is written, and what a watcher is to get is put
        into the list."""
        chronicle, parcels = self._chronicle, list[Parcel]()
        with self.store.transaction(compares=chronicle is not None) as records:
            yield records, parcels
            if chronicle is not None:
                records.remember(self.clock.now(), chronicle(records, records.changes()))
            if self._hander is not None:
                parcels += self._hander.prepare(records, self.moment())

    def _deliver_all(self, outbox: Outbox, parcels: list[Parcel]) -> None:
        if self._hander is not None and parcels:
            self._hand_over(self._hander, parcels)
        if not self._halted:
            for item in outbox:
                self._deliver(item)
        self._changed.set()

    async def grouped(self, action: Callable[[Transaction, Moment, Outbox], T]) -> T:
        """`step` for a party that many ask at once: steps that are there together share a commit.

        Each still happens whole or not at all, also if others are refused (`ProtocolError` and
        other `ValueError`s, `Unverified`), and nothing of any leaves before all are on disk. If
        that fails, or a step fails otherwise, none has happened and each of them raises.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._group.append((action, done))
        if len(self._group) == 1:
            # Behind everything that is ready now, which may have more steps to add.
            loop.call_soon(self._take_group)
        return await done

    def _take_group(self) -> None:
        members, self._group = self._group, []
        try:
            finished = self._commit_group(members)
        except BaseException as error:
            # It is everybody's failure, and each of those who wait raises it.
            for _, done in members:
                if not done.done():
                    done.set_exception(error)
            if not isinstance(error, StoreError | HandOverFailed):
                raise
            return
        for done, result in finished:
            if not done.done():
                done.set_result(result)

    def _commit_group(self, members: list[Member]) -> list[tuple[asyncio.Future[Any], Any]]:
        outbox: Outbox = []
        finished = []
        with self._transaction() as (records, parcels):
            for action, done in members:
                items: Outbox = []
                try:
                    with records.part():
                        result = action(records, self.moment(), items)
                        records.keep(items)
                except (ValueError, Unverified) as error:
                    if not done.done():
                        done.set_exception(error)
                else:
                    outbox += items
                    finished.append((done, result))
        self._deliver_all(outbox, parcels)
        return finished

    def _hand_over(self, hander: Hander, parcels: list[Parcel]) -> None:
        try:
            hander.hand_over(parcels)
        except HandOverFailed as error:
            # The step is on disk, and at the next start the watcher hears of it first.
            self._halted = True
            self.tasks.failure = self.tasks.failure or error
            raise

    def do(self, action: Callable[[Transaction, Moment], Outbox]) -> None:
        """`step` for an action that returns its outbox."""
        self.step(lambda records, moment, outbox: outbox.extend(action(records, moment)))

    def _deliver(self, item: Any) -> None:
        match item:
            case Request():
                self.tasks.start(f"ask:{item.conversation.hex()}",
                                 self._converse(item.conversation))
            case Submit():
                self.tasks.start(f"submit:{item.key.hex()}", self._submit(item))
            case Tell() if self._tell is not None:
                self._tell(item)
            case Note():
                self.measured.note(item)
                self._log.info(item.what, detail=item.detail)

    # --- Deliveries

    async def _converse(self, conversation: bytes) -> None:
        """Ask until the conversation has no request any more.

        The intermediary counts as silent when it has given no valid reply for some time: an
        invalid one is as good as none.
        """
        assert self._intermediary is not None, "only end users ask an intermediary"
        delay, failures = ASK_AGAIN[0], 0
        heard = self.clock.now()
        while (request := self._outstanding(conversation)) is not None:
            try:
                started, cells = time.monotonic(), 0
                first = request.pcmd
                async with self._intermediary.circuit(conversation, failures) as link:
                    while request is not None:
                        pcmd, payload, used = await link.ask(request.pcmd, request.payload)
                        cells += used
                        asked = request
                        if self._take_reply(conversation, pcmd, payload):
                            heard, failures = self.clock.now(), 0
                        request = self._outstanding(conversation)
                        if request == asked:
                            break
                        delay = ASK_AGAIN[0]
                if request is None:
                    self.measured.add(protocol_of(first), (time.monotonic() - started) * 1e3, cells)
                    return
            except (TransportError, TimeoutError, OSError) as error:
                failures += 1
                self._log.log(logging.WARNING if failures == 1 else logging.INFO,
                              "the intermediary does not answer",
                              error=str(error) or "no answer in time")
                if self._look_again is not None:
                    await self._look_again()
            margin = self.moment().parameters.safety_margin
            if self.clock.now() - heard > PATIENCE_MARGINS * margin:
                heard = self.clock.now()
                self._give_up(conversation)
            await asyncio.sleep(delay)
            delay = min(delay * 1.6, max(1.0, min(ASK_AGAIN[1], self.clock.real(margin / 8))))

    def _outstanding(self, conversation: bytes) -> Request | None:
        return None if self._halted else self.store.read().request(conversation)

    def _give_up(self, conversation: bytes) -> None:
        kind = conversation.partition(b":")[0].decode(errors="replace")
        self._log.warning("the intermediary counts as silent", conversation=kind)
        try:
            self.do(lambda records, moment: self.machine.give_up(records, moment, conversation))
        except ProtocolError as error:
            self._log.warning("a silent conversation goes on", conversation=kind,
                              reason=str(error))

    def _take_reply(self, conversation: bytes, pcmd: int, payload: bytes) -> bool:
        """Handle a reply; False if it is invalid, and then nothing has changed."""
        outstanding = self.store.read().request(conversation)
        asked = None if outstanding is None else outstanding.pcmd
        try:
            self.do(lambda records, moment: self.machine.on_reply(
                records, moment, conversation, pcmd, payload, asked))
        except ValueError as error:  # `ProtocolError` is one, and so is what a curve refuses
            self._log.warning("the intermediary's reply is refused", error=str(error))
            return False
        return True

    async def _submit(self, item: Submit) -> None:
        delay = 0.2
        while self._wanted is None or self._wanted(self.store.read(), self.moment(), item.call):
            try:
                receipt = await self._port.submit(item.call, self.clock.now())
            except TransactionReverted as error:
                self._log.warning("the ledger refuses a transaction",
                                  call=type(item.call).__name__, reason=error.reason)
                self.measured.note(Note(
                    "transaction-reverted", f"{type(item.call).__name__}: {error.reason}"))
                break
            except ChainError as error:
                self._log.warning("a transaction is tried again", call=type(item.call).__name__,
                                  error=str(error))
                await asyncio.sleep(delay)
                delay = min(delay * 2, 5.0)
                continue
            self.measured.gas += receipt.gas_used
            self.measured.note(Note(
                "transaction", f"{type(item.call).__name__}, {receipt.gas_used} gas"))
            break
        self.step(lambda records, moment, outbox: records.forget_submission(item.key))

    # --- Chain

    async def _keep_time(self) -> None:
        while True:
            await asyncio.sleep(min(CLOCK_SECONDS, self._until_next_epoch()))
            try:
                await self.clock.synchronise()
                await self._read_parameters()
            except ChainError as error:
                self._log.warning("the chain does not answer", error=str(error))

    def _until_next_epoch(self) -> float:
        length = self._parameters[self._epoch].epoch
        return self.clock.real(max(0, (self._epoch + 1) * length - self.clock.now())) + 0.05

    async def _read_parameters(self, block_time: int = 0) -> None:
        """Know the sets of all epochs whose sessions can still be alive, and of the epoch that has
        just begun, by the clock or by the time of a block, whichever comes first.

        A set is read again until a block of its epoch has been seen: before that a vote may still
        change it.
        """
        latest = (self._parameters[self._epoch] if self._parameters
                  else await self._consensus.parameters())
        block_time = max(block_time, tip(self.store.read()).timestamp)
        certain = latest.epoch_at(block_time)
        epoch = max(latest.epoch_at(self.clock.now()), certain)
        alive = -(-latest.lifetime // latest.epoch) + 1
        known = {}
        for wanted in range(epoch - alive, epoch + 1):
            found = self._parameters.get(wanted) if wanted <= certain else None
            known[wanted] = found or await self._consensus.parameters(wanted)
        self._parameters, self._epoch = known, epoch

    async def _follow(self) -> None:
        known = tip(self.store.read())
        # With its hash, so that a block that was replaced while this agent was down is noticed.
        position: int | ChainBlock = known.number or self._first_block
        if known.hash != bytes(32):  # of a store that did not keep it yet
            position = ChainBlock(known.number, known.timestamp, known.hash)
        while True:
            try:
                async for batch in self._events.follow(position):
                    if self._parameters[self._epoch].epoch_at(
                            batch.block.timestamp) not in self._parameters:
                        await self._read_parameters(batch.block.timestamp)
                    self._take_batch(batch.events, batch.block)
                    position = batch.block
            except Reorganised:
                # The records tell of events that are not on the chain: nothing here can mend that.
                raise
            except ChainError as error:
                self._log.warning("the chain does not answer", error=str(error))
                await asyncio.sleep(1.0)

    def _take_batch(self, events: Any, block: Any) -> None:
        def action(records: Transaction, moment: Moment, outbox: Outbox) -> None:
            for event in events:
                known = translate(event)
                if known is not None:
                    outbox.extend(self.machine.on_ledger(records, moment, known))
            outbox.extend(self.machine.on_ledger(
                records, moment, Block(block.number, block.timestamp, block.hash)))

        self.step(action)

    async def _tick(self) -> None:
        while True:
            self.do(self.machine.tick)
            await asyncio.sleep(TICK_SECONDS)


_PROTOCOLS = ((0x10, "establish"), (0x20, "nano_setup"), (0x28, "nano_establish"),
              (0x30, "nano_pay"), (0x38, "nano_close_relay"), (0x40, "nano_close_client"),
              (0x4E, "micropayment"), (0x60, "guard"), (0x70, "cash_out"))


def protocol_of(pcmd: int) -> str:
    """The protocol that a PCMD belongs to."""
    return next(name for first, name in reversed(_PROTOCOLS) if pcmd >= first)
