# SPDX-License-Identifier: BSD-3-Clause
"""The client as a running agent: circuits, downloads, and the payments for them."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

from monetor_chain.statements import Role

from ..crypto.ecdsa import address_of
from ..policy.tit_for_tat import Patience
from ..protocol import guard, restored, wallet as wallets
from ..protocol.client import Client
from ..protocol.errors import ProtocolError
from ..protocol.history import withdrawn
from ..protocol.messages import GuardPayout, PayInvoice, unpack
from ..protocol.moment import Moment
from ..protocol.nano_setup import NanoSetupDraft
from ..protocol.outbox import Outbox, Tell
from ..protocol.records import Records, Table
from ..protocol.sessions import ClientPhase, ClientSession
from ..protocol.wallet import EndUser, Idle
from ..store import Transaction
from ..transport.errors import TransportError
from ..transport.identity import RouterInfo
from .directory import Consensus, DirectoryError, Router
from .download import Download, Progress, Target, fetch
from .end_user import EndUserAgent, random_amount
from .paid_circuit import PAYING, PaidCircuit
from .paid_circuits import PaidCircuits
from .place import AgentPlace
from .service_watch import SAMPLE_SECONDS, watch
from .session_pool import SessionPool

Deliver = Callable[[bytes, int, bytes], None]
"""Takes (session, PCMD, payload) to the other side of a hidden payment."""

BUILD_TRIES = 3
"""How often a circuit is built over, when a relay of its path cannot be reached or paid."""
BUILD_PAUSE = 1.0
"""Seconds between two attempts."""
IDLE_PAUSE = 0.5
"""Seconds between two looks at whether a circuit that was left still has streams."""
NO_DOUBTS: Mapping[bytes, int] = {}
POOL = "pool"
"""Beginning of the names of tasks that set up sessions and build circuits ahead."""


class ClientAgent(EndUserAgent):
    """One client. `guard_key` owns its direct channels and nothing else.

    `guard_deposit` (base units) is escrowed for a guard's direct channel. `tit_for_tat`: put
    circuits to the test, and pay only those that are faster for it. On a network that has bandwidth
    for everybody no circuit is, and then nobody is paid.
    """

    role = Role.CLIENT
    sample_seconds = SAMPLE_SECONDS
    """How long the speed of a circuit is measured at a time."""

    def __init__(self, place: AgentPlace, account_key: bytes, *, guard_key: bytes,
                 nickname: str = "client", guard_deposit: int = 50_000,
                 intermediaries: Sequence[str] = (), tit_for_tat: bool = False) -> None:
        super().__init__(place, account_key, nickname, intermediaries)
        self._guard_key = guard_key
        self._guard_deposit = guard_deposit
        self._tit_for_tat = tit_for_tat
        self.guard_account = address_of(guard_key)
        self.routes: dict[bytes, tuple[PaidCircuit, int, bool]] = {}
        self.circuits: list[PaidCircuit] = []
        self.patience = Patience()
        self.doubts: Counter[bytes] = Counter()
        """Relays' identities → circuits through them that gained nothing, since one that did."""
        self._guard_locks: dict[bytes, asyncio.Lock] = {}
        self.pool = SessionPool(self)
        self.paid = PaidCircuits(self)
        self._drafts: dict[int, NanoSetupDraft] = {}
        self._peer: Deliver | None = None
        self._payee_at: EndUser | None = None

    def _machine(self, users: Sequence[EndUser]) -> Client:
        return Client(users[0], self._guard_key, users[1:])

    @property
    def machine(self) -> Client:
        """The client's protocol machine."""
        found: Client = self.engine.machine
        return found

    async def start(self) -> None:
        """Come up. Sessions whose circuits a crash has ended are closed, and all of a backup; so
        the same store can be used again after the process was killed at any time."""
        try:
            await self._come_up(self._guard_key)
            await self.engine.start()
            for terms_hash, one in self._sessions():
                if one.phase in (ClientPhase.OFFERED, ClientPhase.ACTIVE) or (
                        one.phase is ClientPhase.READY
                        and restored.is_old_session(self.records(), terms_hash)):
                    self.close_session(terms_hash)
        except BaseException:
            await self.stop()
            raise

    # --- Sessions

    def _sessions(self) -> list[tuple[bytes, ClientSession]]:
        return [(key, one) for key, one in self.records().scan(Table.SESSION)
                if isinstance(one, ClientSession)]

    async def prepare_sessions(self, count: int, timeout: float = 120) -> None:
        """Have `count` sessions set up ahead of circuits; `TimeoutError`, or `ProtocolError` when
        no wallet can pay for one."""
        await self.pool.prepare(count, timeout)

    def keep_ready(self, *, deposit: int, clean: int = 0) -> None:
        """From now on keep sessions set up ahead of demand, and `clean` circuits paid and ready for
        streams. When channels run out others are opened, with `deposit` base units each.

        What fails in this is tried again, or ends up in `engine.check`.
        """
        self.pool.deposit, self.paid.clean = deposit, clean
        self.engine.tasks.start(f"{POOL}:sessions", self.pool.keep())
        self.engine.tasks.start(f"{POOL}:circuits", self.paid.keep())

    def clock_seconds(self, network_seconds: float) -> float:
        """How many seconds of this machine's clock so many of the network's take."""
        return self.engine.clock.real(network_seconds)

    def draft_one(self, waiting: Sequence[Idle]) -> None:
        """Use a wallet's pause to do most of its next setup."""
        for one in waiting:
            known = self._drafts.get(one.cid)
            if known is None or known.nonce != one.nonce:
                self._drafts[one.cid] = self.machine.draft_setup(
                    self.records(), self.engine.moment(), one.cid)
                return

    def start_setup(self, cid: int) -> None:
        """Set up a session from an idle channel."""
        prepared = self._drafts.pop(cid, None)
        self.engine.do(lambda records, moment: self.machine.nano_setup(
            records, moment, cid, prepared)[1])

    def end_session(self, terms_hash: bytes) -> None:
        """Close a session that was offered: its relay closes it too, or is gone."""
        self.routes.pop(terms_hash, None)
        one = self.records().get(Table.SESSION, terms_hash)
        if isinstance(one, ClientSession) and one.phase in (
                ClientPhase.OFFERED, ClientPhase.ACTIVE):
            self.close_session(terms_hash)

    # --- Circuits

    async def build_circuit(self) -> PaidCircuit:
        """Build a circuit over guard, middle and exit, and start paying them.

        Raises `DirectoryError`, `TransportError` or `ProtocolError` after `BUILD_TRIES` attempts.
        """
        for attempt in range(1, BUILD_TRIES + 1):
            try:
                return await self._build_paid()
            except TransportError as error:
                if attempt == BUILD_TRIES:
                    raise
                self._log.warning("a circuit is built over", reason=str(error))
            await asyncio.sleep(BUILD_PAUSE)
        raise AssertionError("the last attempt returns or raises")

    async def _build_paid(self) -> PaidCircuit:
        consensus = await self.wait_for_relays(_covers_a_circuit, "guard, middle and exit")
        circuit = await self.proxy.build_circuit(choose_path(
            consensus, [one.key_hash for one in self.users], self.doubts))
        paid = PaidCircuit(self, circuit)
        self.circuits.append(paid)
        if not self.patience.pays(time.monotonic()):
            return paid
        try:
            await paid.start_paying()
        except BaseException:
            await circuit.close()
            raise
        if self._tit_for_tat:
            self.engine.tasks.start(f"{PAYING}{id(paid)}:watch",
                                    watch(paid, self.priority(), self.sample_seconds))
        return paid

    def served_well(self, paid: PaidCircuit) -> None:
        """Paying makes this circuit faster."""
        self.patience.served()
        for hop in paid.circuit.hops:
            del self.doubts[hop.ed25519_identity]

    def leave(self, paid: PaidCircuit) -> None:
        """Paying this circuit gains nothing: have no more streams on it, and rather other relays.

        Streams that it carries go on, unpaid, to their end.
        """
        self._log.warning("a circuit that is no better for being paid is left")
        self.patience.left(time.monotonic())
        self.doubts.update(hop.ed25519_identity for hop in paid.circuit.hops)
        self.engine.tasks.start(f"{PAYING}{id(paid)}:leave", self._close_when_idle(paid))

    async def _close_when_idle(self, paid: PaidCircuit) -> None:
        while paid.circuit.open_streams:
            await asyncio.sleep(IDLE_PAUSE)
        await paid.circuit.close()

    def circuit_ended(self, paid: PaidCircuit) -> None:
        """Close the sessions of a circuit that is gone; nothing can be paid in them any more."""
        if paid in self.circuits:
            self.circuits.remove(paid)
        for session in [key for key, route in self.routes.items() if route[0] is paid]:
            self.end_session(session)

    async def download(self, url: str, progress: Progress = lambda size, total: None) -> Download:
        """Fetch a URL over a paid circuit; `DownloadError` if it does not arrive whole."""
        target = Target.of(url)
        paid = next((one for one in self.circuits if not self.paid.is_clean(one)
                     and one.usable), None)
        if paid is None:
            paid = await self.paid.open()
        return await fetch(paid.circuit, target, progress)

    def pay_once(self, hop: str, session: bytes) -> None:
        """Make one payment and count it, in one transaction."""
        make = guard.pay_guard if hop == "guard" else self.machine.nano_pay

        def pay(records: Transaction, moment: Moment) -> Outbox:
            records.count(f"sent:{hop}")
            return make(records, moment, session)

        self.engine.do(pay)

    def sent(self, hop: str) -> int:
        """Payments made to a hop ("guard", "middle" or "exit"), over all circuits."""
        return self.engine.store.read().counter(f"sent:{hop}")

    def take_message(self, session: bytes, pcmd: int, payload: bytes) -> None:
        """A message for the machine from a relay or the other side of a hidden payment."""
        self.engine.do(lambda records, moment: self.machine.on_message(
            records, moment, session, pcmd, payload))

    def new_route(self, circuit: PaidCircuit, hop: int, *, link: bool) -> bytes:
        """A fresh name for a hop, for messages before a session exists."""
        session = secrets.token_bytes(32)
        self.routes[session] = (circuit, hop, link)
        return session

    def _tell(self, item: Tell) -> None:
        route = self.routes.get(item.session)
        if route is not None:
            route[0].deliver(route[1], route[2], item)
        elif self._peer is not None:
            self._peer(item.session, item.pcmd, item.payload)

    async def leave_circuits(self) -> None:
        """Set up nothing more, pay nobody any more, and close every circuit."""
        await self.engine.tasks.stop(POOL)
        await self.engine.tasks.stop(PAYING)
        for paid in list(self.circuits):
            await paid.circuit.close()

    async def close_sessions(self, timeout: float = 120) -> None:
        """Leave all circuits, then close every session; relays close theirs first.

        `TimeoutError` says how many are left: they are closed after their expiry, by this process
        or the next one.
        """
        await self.leave_circuits()
        try:
            async with asyncio.timeout(timeout):
                # A setup that was under way becomes a session that is closed in its turn.
                while unfinished_sessions(self.records()):
                    self.engine.check()
                    for terms_hash in self.machine.open_sessions(self.records()):
                        self.close_session(terms_hash)
                    await asyncio.sleep(0.02)
        except TimeoutError:
            open_ = [one for _, one in self._sessions() if one.phase not in (
                ClientPhase.CLOSED, ClientPhase.ON_LEDGER)]
            wait = max(one.session.terms.t_exp for one in open_) - self.engine.clock.now()
            raise TimeoutError(
                f"{self.nickname}: {len(open_)} sessions are not closed after {timeout:.0f} s, "
                "because their relays have not closed them or the intermediary does not answer; "
                f"they can be closed when they have expired, in {max(0, wait)} s of the network's "
                "clock at the latest, with nothing lost") from None

    def close_session(self, terms_hash: bytes) -> None:
        """Start closing a session."""
        self.engine.do(lambda records, moment: self.machine.nano_close(records, terms_hash))

    # --- Guard channel

    def guard_lock(self, info: RouterInfo) -> asyncio.Lock:
        """Held by the circuit that opens the direct channel to this guard, or changes its chain."""
        return self._guard_locks.setdefault(info.ed25519_identity, asyncio.Lock())

    def is_paying(self, channel: bytes) -> bool:
        """Whether an open circuit's guard is paid from this direct channel."""
        return any(one.hops[0].session == channel and not one.circuit.closed
                   for one in self.circuits)

    async def guard_channel(self, info: RouterInfo, timeout: float = 60) -> bytes | None:
        """The direct channel to this guard that can still pay; None if there is none.

        One whose opening a crash has interrupted is waited for; one that is used up is closed.
        """
        named = self.records().get(Table.ADDRESS, _guard_name(info))
        if not isinstance(named, guard.PayoutKey):
            return None
        payout = named.key[-20:]
        if any(one.key == _opening_key(payout) for one in self.engine.store.read().submissions()):
            await self._guard_opened(payout, timeout)
        channel = self._channel_to(payout)
        if channel is None:
            return None
        current = guard.paid_guard(self.records(), channel)
        if current.closing_at:
            return None
        if current.deposit - current.base < (current.sent + 1) * current.price:
            self._request_close_guard(channel)
            return None
        return channel

    def _channel_to(self, payout: bytes) -> bytes | None:
        return next((one.channel for key, one in self.records().scan(Table.GUARD)
                     if isinstance(one, guard.PaidGuard) and one.payout == payout
                     and key == one.channel and one.seq != guard.NO_VOUCHERS), None)

    async def open_guard(self, payout: bytes, info: RouterInfo, timeout: float = 60) -> bytes:
        """Open the direct channel and wait for the ledger; returns its id."""
        def start(records: Transaction, moment: Moment) -> Outbox:
            records.put(Table.ADDRESS, _guard_name(info), guard.PayoutKey(payout.rjust(32, b"\0")))
            return self.machine.open_guard(records, self._guard_deposit, GuardPayout(payout))

        self.engine.measured.latest.pop("transaction-reverted", None)
        self.engine.do(start)
        return await self._guard_opened(payout, timeout)

    async def _guard_opened(self, payout: bytes, timeout: float) -> bytes:
        def opened(records: Records) -> bool:
            reverted = self.engine.measured.latest.get("transaction-reverted")
            if reverted and reverted.detail.startswith("OpenGuard:"):
                raise ProtocolError("the ledger does not open the guard's channel with a deposit "
                                    f"of {self._guard_deposit} units: {reverted.detail[11:]}")
            return self._channel_to(payout) is not None

        await self.engine.until(opened, timeout, "guard channel")
        found = self._channel_to(payout)
        assert found is not None, "it was there a moment ago"
        return found

    def guards(self) -> list[bytes]:
        """Direct channels that are not closed."""
        return [key for key, one in self.records().scan(Table.GUARD)
                if isinstance(one, guard.PaidGuard) and not key.startswith(b"closed:")]

    def request_close_guards(self) -> None:
        """Ask the ledger for the rest of every direct channel; once is enough."""
        for channel in self.guards():
            if not guard.paid_guard(self.records(), channel).closing_at:
                self._request_close_guard(channel)

    def _request_close_guard(self, channel: bytes) -> None:
        self.engine.do(lambda records, moment: self.machine.close_guard(records, channel))

    async def settle(self, patience: float = 30) -> int:
        """Close every session, cash out, ask for the rest of direct channels, and withdraw.

        Direct channels whose guards have longer than `patience` seconds to claim are left for
        another time. Returns the units withdrawn.
        """
        if unfinished_sessions(self.records()):
            await self.close_sessions()
        await self.cash_out()
        self.request_close_guards()

        def asked(records: Records) -> bool:
            return all(guard.paid_guard(records, one).closing_at for one in self.guards())

        await self.engine.until(asked, 60, "request to close the guard channel")
        now = self.engine.clock.now()
        wait = max((self.clock_seconds(guard.paid_guard(self.records(), one).closing_at - now)
                    for one in self.guards()), default=0)
        if self.guards() and wait <= patience:
            await self.guards_closed(patience + 60)
        return await self.withdraw()

    def unsettled(self) -> int:
        """Channels, direct ones included, that the ledger has not paid out yet."""
        return len(self.guards()) + sum(
            not isinstance(one, wallets.Settled) and not self._will_not_open(one)
            for one in self.wallets())

    async def guards_closed(self, timeout: float) -> None:
        """Wait until the ledger has paid the rest of every direct channel back."""
        await self.engine.until(lambda records: not self.guards(), timeout,
                                "close of the guard channel")

    async def withdraw(self) -> int:
        """Withdraw the account's credit, and that of the account which pays guards."""
        total = await super().withdraw()
        ledger = self.access.contracts.ledger
        amount = int(await ledger.credit(self.guard_account))
        if amount and await self.access.chain.wei(self.guard_account):
            receipt = await ledger.withdraw(self.access.sender(self._guard_key))
            self.engine.measured.gas += receipt.gas_used
            self.remember(withdrawn(self.guard_account, amount))
            total += amount
        return total

    # --- Hidden payments

    async def hidden_payment(self, payee: ClientAgent, cid: int, timeout: float = 60) -> int:
        """Pay a random amount from the idle channel `cid` to a wallet of `payee`.

        Breaks the link between a channel's sessions and its cash-out (the paper's footnote 7).
        The two agents exchange bytes only. Returns the amount in base units.
        """
        self._peer, payee._peer = payee.take_payment_message, self.take_payment_message
        user = self.machine.user_of(self.records(), cid >> 8)
        payee._payee_at = payee.machine.user_at(user.key_hash)
        t_p = await self._payment_deadline(user, timeout)
        idle = wallets.idle(self.records(), cid)
        room = payee.room(payee._payee_at)
        fee = self.engine.moment().parameters.pay_fee
        amount = random_amount(max(0, min(idle.balance - fee, room)))
        self.engine.do(lambda records, moment: self.machine.pay(
            records, moment, cid=cid, amount=amount, t_p=t_p)[1])
        await self.engine.until(
            lambda records: isinstance(wallets.get(records, cid), Idle | wallets.Settled),
            timeout, "end of the hidden payment")
        await payee.engine.until(
            lambda records: not any(
                isinstance(one, wallets.Paying | wallets.Voiding | wallets.Renewing)
                for one in wallets.all_wallets(records)),
            timeout, "receipt of the hidden payment")
        return amount

    async def _payment_deadline(self, user: EndUser, timeout: float) -> int:
        latest = self.engine.measured.latest
        latest.pop("pay-terms", None)
        self.engine.do(lambda records, moment: self.machine.pay_query(user))
        await self.engine.until(lambda records: "pay-terms" in latest, timeout, "payment deadline")
        return int(latest["pay-terms"].detail)

    def room(self, user: EndUser) -> int:
        """The most that one of this client's wallets at an intermediary can still receive."""
        return max((group.deposit + group.fund - one.balance
                    for group in self.groups() for one in self.wallets_at(user)
                    if isinstance(one, Idle) and one.cid >> 8 == group.group), default=0)

    def take_payment_message(self, session: bytes, pcmd: int, payload: bytes) -> None:
        """A message of the other side of a hidden payment."""
        try:
            message = unpack(pcmd, payload)
            if isinstance(message, PayInvoice):
                cid = self._roomiest()
                self.engine.do(lambda records, moment: self.machine.receive(
                    records, moment, cid, message))
            else:
                self.take_message(session, pcmd, payload)
        except ProtocolError as error:
            self._log.warning("a hidden payment's message is refused", reason=str(error))

    def _roomiest(self) -> int:
        idle = [one for one in self.wallets_at(self._payee_at or self.machine.user)
                if isinstance(one, Idle)]
        if not idle:
            raise ProtocolError("no idle wallet can receive the payment")
        return min(idle, key=lambda one: one.balance).cid


def _guard_name(info: RouterInfo) -> bytes:
    return b"guard-of:" + info.ed25519_identity


def _opening_key(payout: bytes) -> bytes:
    return b"open-guard:" + payout


def unfinished_sessions(records: Records) -> list[bytes]:
    """Sessions that are neither closed nor on the ledger."""
    return [key for key, one in records.scan(Table.SESSION)
            if isinstance(one, ClientSession)
            and one.phase not in (ClientPhase.CLOSED, ClientPhase.ON_LEDGER)]


def _covers_a_circuit(consensus: Consensus) -> bool:
    relays = consensus.relays()
    return len(relays) >= 3 and any(one.guard for one in relays) and any(
        one.exit for one in relays)


def choose_path(consensus: Consensus, intermediaries: Collection[bytes],
                doubts: Mapping[bytes, int] = NO_DOUBTS) -> list[RouterInfo]:
    """Guard, middle and exit: three different relays, each fit for its place, the last two paid
    through one of the `intermediaries`. Of those the ones of which there are least doubts, at
    random by the bandwidth that they claim.

    Entries with one RSA identity are one relay, whatever else they say. `DirectoryError` if there
    are none such.
    """
    wanted = set(intermediaries)

    def can_be_paid(one: Router) -> bool:
        return not wanted.isdisjoint(one.accepts)

    relays = _each_once(consensus.relays())
    payable = [one for one in relays if can_be_paid(one)]
    # One that can be paid is the exit, and besides it and the guard a middle has to be left.
    guards = [one for one in relays if one.guard and len(payable) - 1 - can_be_paid(one) > 0]
    exits = [one for one in payable if one.exit]
    if not exits:
        raise DirectoryError("no exit accepts an intermediary that this client has channels at; "
                             "name one with --intermediary")
    exits = [one for one in exits if any(guard_ is not one for guard_ in guards)]
    if not exits:
        raise DirectoryError("no guard and middle are left beside an exit that accepts an "
                             "intermediary that this client has channels at; name one with "
                             "--intermediary")
    exit_ = _one_of(exits, doubts)
    guard_ = _one_of([one for one in guards if one is not exit_], doubts)
    # An exit is left to be an exit, and a guard a guard, while there is any other middle.
    rest = [one for one in payable if one is not guard_ and one is not exit_]
    middle = _one_of([one for one in rest if not one.exit and not one.guard] or rest, doubts)
    return [guard_.info, middle.info, exit_.info]


def _each_once(relays: Sequence[Router]) -> list[Router]:
    """One entry of each RSA identity, whichever: a circuit through two of them is impossible."""
    mixed = secrets.SystemRandom().sample(relays, len(relays))
    return list({one.info.rsa_fingerprint: one for one in mixed}.values())


def _one_of(relays: Sequence[Router], doubts: Mapping[bytes, int]) -> Router:
    def doubt(one: Router) -> int:
        return doubts.get(one.info.ed25519_identity, 0)

    least = min(map(doubt, relays))
    best = [one for one in relays if doubt(one) == least]
    return secrets.SystemRandom().choices(best, [one.bandwidth for one in best])[0]
