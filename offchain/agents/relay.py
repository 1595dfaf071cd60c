# SPDX-License-Identifier: BSD-3-Clause
"""A relay as a running agent: it forwards cells, keeps credit, and is paid."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from monetor_chain.statements import Role

from ..crypto.ecdsa import address_of, generate_private_key
from ..policy.coins import Supply, runs_out
from ..policy.credit import Credit
from ..protocol import guard, restored
from ..protocol.errors import ProtocolError, RefusalCode
from ..protocol.history import withdrawn
from ..protocol.messages import (
    GuardAccepted,
    GuardPayment,
    GuardQuery,
    GuardVoucher,
    NanoAccepted,
    NanoOffer,
    NanoPayment,
    Refusal,
    pack,
    unpack,
)
from ..protocol.moment import Moment
from ..protocol.outbox import Outbox, Tell
from ..protocol.records import Records, Table
from ..protocol.relay import Relay
from ..protocol.sessions import RelayPhase, RelaySession, relay_session
from ..protocol.wallet import (
    Claiming,
    Closing,
    EndUser,
    Idle,
    Next,
    Posted,
    Proved,
    Renewing,
    Settled,
    Stale,
    channel_of,
    proved,
)
from ..store import Transaction
from ..transport.bandwidth_driver import BandwidthLimit
from ..transport.errors import TransportError
from ..transport.exit_policy import ExitPolicy
from ..transport.identity import RouterIdentity, RouterInfo
from ..transport.relay_circuit import RouterCircuit
from ..transport.router import OnionRouter
from ..transport.scheduler import Discipline
from ..transport.server_descriptor import PaidTerms, write_server_descriptor
from .directory import DirectoryError, Router, keep_published, publish
from .end_user import HOPS_BETWEEN, EndUserAgent
from .place import AgentPlace, raw_address
from .premium import ServedPremium
from .tor_directory import keep_listed

MAX_SESSIONS = 4
"""Sessions that one circuit may have at a time; a client needs two while one succeeds another."""
UNPAID_SECONDS = 30.0
"""A session whose turn it is and that is not paid at all within this time is closed; clients pay
first thing. Each session holds one of the relay's channels."""
IDLE_SECONDS = 600.0
"""A session without a payment for this long is closed at what it has paid; the client sets up
another when it goes on."""
PREPARE_PAUSE = (5.0, 300.0)
"""Shortest and longest pause between two attempts to open channels, in seconds of this machine's
clock."""
BANDWIDTH = 1_000_000
"""Bytes per second that a relay claims unless it is told otherwise."""
SWEEP_SECONDS = 1.0
"""How often such sessions are looked for, in seconds of this machine's clock."""
PAYOUTS, PAYOUT_SECONDS = 60, 60.0
"""A guard names at most so many payout addresses within so many seconds: each is a key that it has
to keep, and whoever asks need not have paid for anything."""
FREE_CHANNELS = 1
"""Another group is opened at an intermediary when fewer channels than this can take a session."""
MOST_GROUPS = 8
"""Groups at one intermediary; clients that take up more channels than these are turned away."""
OPEN_AGAIN_SECONDS = 30.0
"""After a group that could not be opened, another attempt is made no sooner than this."""


@dataclass(slots=True)
class ServedCircuit:
    """A circuit with its credit and what pays for it: sessions, oldest first, or a channel.

    `turn` is the session that is to be paid now, and since when nothing came.
    """

    circuit: RouterCircuit
    credit: Credit
    premium: ServedPremium
    sessions: list[bytes] = field(default_factory=list)
    channel: bytes = b""
    asked_payout: bool = False
    turn: tuple[bytes, float] = (b"", 0.0)

    def paid(self) -> None:
        """A payment has been accepted."""
        self.credit.paid()
        self.premium.update()


class RelayAgent(EndUserAgent):
    """One relay. `deposit`, `fund` (base units) and `channels` describe its channel group.

    `unpaid_seconds` and `idle_seconds`: how long a session may hold a channel without a payment.
    `tor_authority`: host and directory port of the authority of a Tor network that the relay
    joins as well. `bandwidth`: the bytes per second that it claims; clients choose by them.
    `discipline`: the order in which circuits are served. `rate` and `burst` limit its links: bytes
    a second on average and at once, in each direction; 0 for no limit, and a burst of one second.
    """

    role = Role.RELAY

    def __init__(self, place: AgentPlace, account_key: bytes, *, nickname: str,
                 is_guard: bool = False, is_exit: bool = False, deposit: int = 0,
                 fund: int = 100_000, channels: int = 4,
                 exit_policy: ExitPolicy | None = None, unpaid_seconds: float = UNPAID_SECONDS,
                 idle_seconds: float = IDLE_SECONDS, intermediaries: Sequence[str] = (),
                 tor_authority: tuple[str, int] | None = None, bandwidth: int = BANDWIDTH,
                 discipline: Discipline = Discipline.EWMA, rate: int = 0, burst: int = 0) -> None:
        super().__init__(place, account_key, nickname, intermediaries)
        self._tor_authority, self._bandwidth = tor_authority, bandwidth
        self._is_guard = is_guard
        self._is_exit = is_exit
        self._deposit, self._fund, self._channels = deposit, fund, channels
        self._exit_policy = exit_policy or ExitPolicy.loopback_only()
        self._unpaid_seconds, self._idle_seconds = unpaid_seconds, idle_seconds
        self._discipline = discipline
        self._rate, self._burst = rate, burst
        self._served: dict[int, ServedCircuit] = {}
        self._circuit_of: dict[bytes, tuple[RouterCircuit, bool]] = {}
        self._named: deque[float] = deque(maxlen=PAYOUTS)
        self._router: OnionRouter

    def _machine(self, users: Sequence[EndUser]) -> Relay:
        return Relay(users[0], users[1:])

    @property
    def machine(self) -> Relay:
        """The relay's protocol machine."""
        found: Relay = self.engine.machine
        return found

    # --- Life

    async def start(self) -> None:
        """Come up: listen and publish. Sessions whose circuits a crash has ended are closed."""
        try:
            await self._come_up()
            await self.engine.start()
            for terms_hash in self.machine.active_sessions(self.records()):
                self._close(terms_hash)
            await self._serve()
        except BaseException:
            await self.stop()
            raise

    async def _serve(self) -> None:
        identity = self.place.router_identity()
        policy = self._exit_policy if self._is_exit else ExitPolicy.reject_all()
        self._router = OnionRouter(
            identity, hooks=self, exit_policy=policy, directory=self._tor_authority,
            priority=self.priority, discipline=self._discipline,
            limit=BandwidthLimit(self._rate, self._burst or None) if self._rate else None)
        self._open.push_async_callback(self._router.stop)
        port = await self._router.start(self.place.host, self.place.port)
        info = identity.info(self.nickname, self.place.host, port)
        self._own = info.ed25519_identity
        self._up_since = time.monotonic()
        listed = Router(info, guard=self._is_guard, exit=self._is_exit, intermediary=False,
                        account=self.account,
                        accepts=tuple(one.key_hash for one in self.users
                                      if one in self.chosen or self._has_channels(one)))
        await publish(self.place.directory_url, listed)
        self.engine.tasks.start("publish", keep_published(
            self.place.directory_url, listed,
            lambda why: self._log.warning("not published", reason=why)))
        if self._tor_authority is not None:
            self.engine.tasks.start("describe", keep_listed(
                self._tor_authority, lambda: self._describe(identity, info, policy),
                lambda why: self._log.warning("not described", reason=why)))
        self.engine.tasks.start("sweep", self._sweep())

    def _describe(self, identity: RouterIdentity, info: RouterInfo, policy: ExitPolicy) -> str:
        deployment = self.access.deployment
        paid = PaidTerms(deployment.chain_id, raw_address(deployment.ledger), self.account,
                         tuple(one.key_hash for one in self.chosen))
        return write_server_descriptor(
            identity, info, now=time.time(), uptime=int(time.monotonic() - self._up_since),
            exit_policy=policy, bandwidth=self._bandwidth, is_directory=True, paid=paid)

    async def prepare(self) -> None:
        """Have channels at every intermediary: wait for other relays, then open a group at each
        where there is none."""
        await self.wait_for_relays(
            lambda consensus: len(consensus.relays()) > HOPS_BETWEEN, "two other relays")
        await self.have_channels(deposit=self._deposit, fund=self._fund, count=self._channels)

    async def keep_preparing(self) -> None:
        """`prepare`, again and again while the intermediary or the directory is silent: until then
        the relay serves without sessions. What they refuse is raised."""
        pause = PREPARE_PAUSE[0]
        while True:
            try:
                return await self.prepare()
            except (TimeoutError, DirectoryError) as error:
                self._log.warning("no channels yet; the relay serves, unpaid, and tries again",
                                  reason=str(error), seconds=round(pause))
            await asyncio.sleep(pause)
            pause = min(2 * pause, PREPARE_PAUSE[1])
    async def keep_channels(self) -> None:
        """Open another group wherever the channels run out, for as long as this runs."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            for user in self.chosen:
                if not self._runs_out(user):
                    continue
                try:
                    await self.open_channels(deposit=self._deposit, fund=self._fund,
                                             count=self._channels, user=user)
                except (ProtocolError, TimeoutError) as error:
                    self._log.warning("no further channels", reason=str(error))
                    await asyncio.sleep(OPEN_AGAIN_SECONDS)

    def _has_channels(self, user: EndUser) -> bool:
        """Whether sessions can be taken up at an intermediary, also one that opens no more."""
        return any(not isinstance(one, Claiming | Stale | Posted | Settled)
                   for one in self.wallets_at(user))

    def _runs_out(self, user: EndUser) -> bool:
        """Whether no channel at an intermediary can take up a session, now or in a moment."""
        parameters, records = self.engine.moment().parameters, self.records()
        need = parameters.n * parameters.delta_r
        mine = [one for one in self.wallets_at(user)
                if not isinstance(one, Posted | Settled | Stale)]
        groups = {channel_of(one) >> 8 for one in mine}
        if (not groups or len(groups) >= MOST_GROUPS or self._group_is_asked_for(user)
                or self.is_opening(user)):
            return False

        def able(wallet: Idle | Next) -> bool:
            return self.machine.room(records, wallet) >= need

        return runs_out(Supply(
            ready=0, setting_up=0, able=sum(isinstance(one, Idle) and able(one) for one in mine),
            returning=sum(isinstance(one, Closing | Renewing) and able(one.next) for one in mine)),
            FREE_CHANNELS)

    async def stop_serving(self) -> None:
        """End all circuits and stop listening."""
        await self._router.stop()

    # --- RouterHooks

    def circuit_opened(self, circuit: RouterCircuit) -> None:
        """A circuit starts with the initial credit."""
        credit = Credit(self.consensus.cells_per_payment, self.consensus.initial_credit)
        self._served[circuit.id] = ServedCircuit(circuit, credit, ServedPremium(circuit, credit))

    def circuit_closed(self, circuit: RouterCircuit) -> None:
        """Sessions end with their circuit."""
        served = self._served.pop(circuit.id, None)
        for terms_hash in served.sessions if served else ():
            self._circuit_of.pop(terms_hash, None)
            self._close(terms_hash)
        if served and served.channel:
            self._circuit_of.pop(served.channel, None)

    def cells_passed(self, circuit: RouterCircuit, count: int) -> None:
        """Every relay cell costs one of credit."""
        served = self._served.get(circuit.id)
        if served is not None:
            served.credit.passed(count)
            served.premium.update()

    def payment_received(self, circuit: RouterCircuit, pcmd: int, payload: bytes, *,
                         link: bool) -> None:
        """A message of the circuit's client; a bad one is refused and changes nothing."""
        served = self._served.get(circuit.id)
        if served is None:
            return
        try:
            self._handle(served, unpack(pcmd, payload), link)
        except ValueError as error:  # `ProtocolError` is one, and so is what a curve refuses
            self._log.info("refused", pcmd=pcmd, reason=str(error))
            self._send(circuit, *pack(Refusal(RefusalCode.STATE, pcmd & 0xFF)), link)

    def _handle(self, served: ServedCircuit, message: object, link: bool) -> None:
        match message:
            case NanoPayment():
                self._on_payment(served, message)
            case NanoOffer():
                self._on_offer(served, message, link)
            case GuardPayment() if served.channel:
                self._on_guard_payment(served.channel, message)
                served.paid()
            case GuardQuery() if self._is_guard:
                self._on_guard_query(served, link)
            case GuardVoucher() if self._is_guard:
                self._on_voucher(served, message, link)
            case _:
                raise ProtocolError(f"a {type(message).__name__} is not expected here")

    def _on_offer(self, served: ServedCircuit, message: NanoOffer, link: bool) -> None:
        if len(served.sessions) >= MAX_SESSIONS:
            raise ProtocolError("the circuit has too many sessions")
        terms_hash = message.terms.nano_terms().hash()
        if terms_hash in self._circuit_of:
            raise ProtocolError("the session is on another circuit")
        self._circuit_of[terms_hash] = (served.circuit, link)
        try:
            self.engine.do(lambda records, moment: self.machine.on_offer(
                records, moment, message)[1])
        except ValueError:
            del self._circuit_of[terms_hash]
            raise
        served.sessions.append(terms_hash)

    def _on_voucher(self, served: ServedCircuit, message: GuardVoucher, link: bool) -> None:
        before = self._circuit_of.get(message.channel)
        self._circuit_of[message.channel] = (served.circuit, link)
        try:
            self.engine.do(lambda records, moment: self.machine.on_voucher(
                records, moment, message))
        except ValueError:
            del self._circuit_of[message.channel]
            if before is not None:
                self._circuit_of[message.channel] = before
            raise
        served.channel = message.channel

    def _on_guard_payment(self, channel: bytes, message: GuardPayment) -> None:
        def receive(records: Transaction, moment: Moment, outbox: Outbox) -> None:
            self.machine.on_guard_payment(records, moment, channel, message)
            records.count("guard-received")

        self.engine.step(receive)

    def _receive(self, terms_hash: bytes, message: NanoPayment) -> Proved:
        def receive(records: Transaction, moment: Moment, outbox: Outbox) -> Proved:
            records.count("received")
            return self.machine.on_payment(records, moment, terms_hash, message)

        return self.engine.step(receive)

    def _on_payment(self, served: ServedCircuit, message: NanoPayment) -> None:
        problem: ProtocolError = ProtocolError("no session of the circuit takes payments")
        for terms_hash in served.sessions:
            try:
                best = self._receive(terms_hash, message)
            except ProtocolError as error:
                problem = error
                continue
            served.turn = terms_hash, time.monotonic()
            served.paid()
            if best.k == relay_session(self.records(), terms_hash).session.terms.n:
                self._end(served, terms_hash)
            return
        raise problem

    def _on_guard_query(self, served: ServedCircuit, link: bool) -> None:
        if served.asked_payout:
            raise ProtocolError("the circuit has been named a payout address")
        now = time.monotonic()
        if len(self._named) == PAYOUTS and now - self._named[0] < PAYOUT_SECONDS:
            raise ProtocolError("too many payout addresses were asked for within a minute")
        self._named.append(now)
        served.asked_payout = True
        key = generate_private_key()
        session = secrets.token_bytes(32)
        self._circuit_of[session] = (served.circuit, link)
        self.engine.do(lambda records, moment: self.machine.name_payout(
            records, session, address_of(key), key))
        del self._circuit_of[session]

    def _tell(self, item: Tell) -> None:
        found = self._circuit_of.get(item.session)
        if found is not None:
            served = self._served.get(found[0].id)
            if served is not None and item.pcmd in (NanoAccepted.PCMD, GuardAccepted.PCMD):
                served.premium.established(item.session)
            self._send(found[0], item.pcmd, item.payload, found[1])
        elif item.pcmd == NanoAccepted.PCMD:
            self._close(item.session)  # the circuit ended while the session was established

    def _send(self, circuit: RouterCircuit, pcmd: int, payload: bytes, link: bool) -> None:
        try:
            circuit.send_payment(pcmd, payload, link)
        except TransportError as error:
            self._log.info("a message found no circuit", error=str(error))

    # --- Closing

    async def _sweep(self) -> None:
        """Close sessions that nobody pays, and forget those that came to nothing."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            for served in list(self._served.values()):
                for terms_hash in list(served.sessions):
                    self._look_after(served, terms_hash)

    def _look_after(self, served: ServedCircuit, terms_hash: bytes) -> None:
        session = self.records().get(Table.SESSION, terms_hash)
        if not isinstance(session, RelaySession):
            link = self._circuit_of[terms_hash][1]
            self._end(served, terms_hash)
            self._send(served.circuit, *pack(Refusal(RefusalCode.STATE, NanoOffer.PCMD)), link)
            return
        if session.phase > RelayPhase.ACTIVE:
            # The machine has closed it, as it does before its expiry: the next one's turn.
            self._end(served, terms_hash)
            return
        if session.phase is not RelayPhase.ACTIVE or served.sessions[0] != terms_hash:
            return
        now = time.monotonic()
        if served.turn[0] != terms_hash:
            served.turn = terms_hash, now
        received = proved(self.records(), terms_hash).k
        if now - served.turn[1] > (self._idle_seconds if received else self._unpaid_seconds):
            self._log.info("a session that is not paid is closed", received=received)
            self._end(served, terms_hash)

    def _end(self, served: ServedCircuit, terms_hash: bytes) -> None:
        served.sessions.remove(terms_hash)
        self._circuit_of.pop(terms_hash, None)
        served.premium.ended(terms_hash)
        self._close(terms_hash)

    def _close(self, terms_hash: bytes) -> None:
        if isinstance(self.records().get(Table.SESSION, terms_hash), RelaySession):
            self.engine.do(lambda records, moment: self.machine.nano_close(records, terms_hash))

    async def close_sessions(self, timeout: float = 120) -> None:
        """Close every session and wait until all are closed, off chain or on it."""
        for terms_hash in self.machine.active_sessions(self.records()):
            self._close(terms_hash)
        await self.engine.until(lambda records: not open_sessions(records), timeout,
                                "close of every session")

    async def claim_guards(self, timeout: float = 120) -> None:
        """Claim on every direct channel, and wait for the ledger."""
        def earning(records: Records) -> list[guard.EarningGuard]:
            return [one for key, one in records.scan(Table.GUARD)
                    if isinstance(one, guard.EarningGuard) and not key.startswith(b"closed:")]

        for one in earning(self.records()):
            self._claim_guard(one.channel)
        await self.engine.until(
            lambda records: all(guard.owed(one) <= one.claimed for one in earning(records)),
            timeout, "guard claims")

    def _claim_guard(self, channel: bytes) -> None:
        self.engine.do(lambda records, moment: self.machine.claim_guard(records, channel))

    def payouts(self) -> list[tuple[bytes, bytes]]:
        """(address, key) of every payout address that has a direct channel."""
        return [(one.payout, key) for _, one in self.records().scan(Table.GUARD)
                if isinstance(one, guard.EarningGuard)
                and (key := guard.payout_key(self.records(), one.payout)) is not None]

    async def withdraw(self) -> int:
        """Withdraw this account's credit, and that of every payout address that has gas."""
        total = await super().withdraw()
        ledger = self.access.contracts.ledger
        for payout, key in self.payouts():
            amount = await ledger.credit(payout)
            if amount and await self.access.chain.wei(payout):
                receipt = await ledger.withdraw(self.access.sender(key))
                self.engine.measured.gas += receipt.gas_used
                self.remember(withdrawn(payout, int(amount)))
                total += amount
        return total

    @property
    def received(self) -> int:
        """Payments on disk, over all sessions."""
        return self.engine.store.read().counter("received")

    @property
    def guard_received(self) -> int:
        """Payments on disk, over all direct channels."""
        return self.engine.store.read().counter("guard-received")


def open_sessions(records: Records) -> list[bytes]:
    """Sessions that are neither closed nor on the ledger; those of a backup, which close after
    T_exp, are not waited for."""
    return [key for key, one in records.scan(Table.SESSION)
            if isinstance(one, RelaySession)
            and one.phase not in (RelayPhase.CLOSED, RelayPhase.ON_LEDGER)
            and not restored.is_old_session(records, key)]


