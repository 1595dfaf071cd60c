# SPDX-License-Identifier: BSD-3-Clause
"""The client as a running agent: circuits, downloads, and the payments for them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

from monetor_chain.statements import Role

from ..crypto.ecdsa import address_of
from ..protocol import guard, wallet as wallets
from ..protocol.client import Client
from ..protocol.errors import ProtocolError
from ..protocol.messages import GuardPayout, PayInvoice, unpack
from ..protocol.moment import Moment
from ..protocol.outbox import Outbox, Tell
from ..protocol.records import Records, Table
from ..protocol.sessions import ClientPhase, ClientSession
from ..protocol.wallet import EndUser, Idle
from ..store import Transaction
from ..transport.identity import RouterInfo
from .directory import Consensus, DirectoryError
from .download import Download, Progress, Target, fetch
from .end_user import EndUserAgent, random_amount
from .paid_circuit import PAYING, PaidCircuit
from .place import AgentPlace

Deliver = Callable[[bytes, int, bytes], None]
"""Takes (session, PCMD, payload) to the other side of a hidden payment."""


class ClientAgent(EndUserAgent):
    """One client. `guard_key` owns its direct channels and nothing else.

    `guard_deposit` (base units) is escrowed for a guard's direct channel.
    """

    role = Role.CLIENT

    def __init__(self, place: AgentPlace, account_key: bytes, *, guard_key: bytes,
                 nickname: str = "client", guard_deposit: int = 50_000) -> None:
        super().__init__(place, account_key, nickname)
        self._guard_key = guard_key
        self._guard_deposit = guard_deposit
        self.guard_account = address_of(guard_key)
        self.routes: dict[bytes, tuple[PaidCircuit, int, bool]] = {}
        self.circuits: list[PaidCircuit] = []
        self._taking = asyncio.Lock()
        self._taken: set[bytes] = set()
        self._peer: Deliver | None = None

    def _machine(self, user: EndUser) -> Client:
        return Client(user, self._guard_key)

    @property
    def machine(self) -> Client:
        """The client's protocol machine."""
        found: Client = self.engine.machine
        return found

    async def start(self) -> None:
        """Come up; sessions that a crash left without a circuit can be closed afterwards."""
        await self._come_up(self._guard_key)
        await self.engine.start()

    # --- Sessions

    async def prepare_sessions(self, count: int, timeout: float = 120) -> None:
        """Have `count` sessions set up ahead of circuits."""
        async with asyncio.timeout(timeout):
            while len(self._ready()) < count:
                self.engine.check()
                # One that is refused, as around a change of epoch, is set up again.
                for _ in range(count - len(self._ready()) - self._setting_up()):
                    self._set_up_one()
                await asyncio.sleep(0.02)

    def _setting_up(self) -> int:
        return sum(isinstance(one, ClientSession)
                   and one.phase in (ClientPhase.REQUESTED, ClientPhase.REVEALING)
                   for _, one in self.records().scan(Table.SESSION))

    def _ready(self) -> list[bytes]:
        return [one for one in self.machine.ready_sessions(self.records(), self.engine.moment())
                if one not in self._taken]

    def _set_up_one(self) -> None:
        parameters = self.engine.moment().parameters
        cost = parameters.n * parameters.price
        for one in self.wallets():
            if isinstance(one, Idle) and one.balance >= cost:
                self._start_setup(one.cid)
                return
        raise ProtocolError(f"no idle wallet holds the {cost} units that a session can cost")

    def _start_setup(self, cid: int) -> None:
        self.engine.do(lambda records, moment: self.machine.nano_setup(records, moment, cid)[1])

    async def take_session(self) -> bytes:
        """A session that is set up, for one hop; another is set up in its place."""
        async with self._taking:
            await self.prepare_sessions(1)
            ready = self._ready()
            self._taken.add(ready[0])
            return ready[0]

    # --- Circuits

    async def build_circuit(self) -> PaidCircuit:
        """Build a circuit over guard, middle and exit, and start paying them."""
        consensus = await self.wait_for_relays(_covers_a_circuit, "guard, middle and exit")
        circuit = await self.proxy.build_circuit(choose_path(consensus))
        paid = PaidCircuit(self, circuit)
        self.circuits.append(paid)
        await paid.start_paying()
        return paid

    async def download(self, url: str, progress: Progress = lambda size, total: None) -> Download:
        """Fetch a URL over a paid circuit; `DownloadError` if it does not arrive whole."""
        target = Target.of(url)
        paid = next((one for one in self.circuits if not one.circuit.closed), None)
        if paid is None:
            paid = await self.build_circuit()
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

    async def close_sessions(self, timeout: float = 120) -> None:
        """Leave all circuits, then close every session; relays close theirs first."""
        await self.engine.tasks.stop(PAYING)
        for paid in self.circuits:
            await paid.circuit.close()
        self.circuits.clear()
        async with asyncio.timeout(timeout):
            # A setup that was under way becomes a session that is closed in its turn.
            while unfinished_sessions(self.records()):
                self.engine.check()
                for terms_hash in self.machine.open_sessions(self.records()):
                    self._close_session(terms_hash)
                await asyncio.sleep(0.02)

    def _close_session(self, terms_hash: bytes) -> None:
        self.engine.do(lambda records, moment: self.machine.nano_close(records, terms_hash))

    # --- Guard channel

    def guard_channel(self, info: RouterInfo) -> bytes | None:
        """The open direct channel to this guard."""
        name = b"guard-of:" + info.ed25519_identity
        found = self.records().get(Table.ADDRESS, name)
        channel = found.key if isinstance(found, guard.PayoutKey) else None
        if channel is None or not isinstance(
                self.records().get(Table.GUARD, channel), guard.PaidGuard):
            return None
        return channel

    async def open_guard(self, payout: bytes, info: RouterInfo, timeout: float = 60) -> bytes:
        """Open the direct channel and wait for the ledger; returns its id."""
        self.engine.do(lambda records, moment: self.machine.open_guard(
            records, self._guard_deposit, GuardPayout(payout)))

        def opened(records: Records) -> list[bytes]:
            return [one.channel for _, one in records.scan(Table.GUARD)
                    if isinstance(one, guard.PaidGuard) and one.payout == payout]

        await self.engine.until(lambda records: bool(opened(records)), timeout, "guard channel")
        channel = opened(self.records())[0]
        self.engine.step(lambda records, moment, outbox: records.put(
            Table.ADDRESS, b"guard-of:" + info.ed25519_identity, guard.PayoutKey(channel)))
        return channel

    def guards(self) -> list[bytes]:
        """Direct channels that are not closed."""
        return [key for key, one in self.records().scan(Table.GUARD)
                if isinstance(one, guard.PaidGuard) and not key.startswith(b"closed:")]

    def request_close_guards(self) -> None:
        """Ask the ledger for the rest of every direct channel."""
        for channel in self.guards():
            self._request_close_guard(channel)

    def _request_close_guard(self, channel: bytes) -> None:
        self.engine.do(lambda records, moment: self.machine.close_guard(records, channel))

    async def guards_closed(self, timeout: float) -> None:
        """Wait until the ledger has paid the rest of every direct channel back."""
        await self.engine.until(lambda records: not self.guards(), timeout,
                                "close of the guard channel")

    # --- Hidden payments

    async def hidden_payment(self, payee: ClientAgent, cid: int, timeout: float = 60) -> int:
        """Pay a random amount from the idle channel `cid` to a wallet of `payee`.

        Breaks the link between a channel's sessions and its cash-out (the paper's footnote 7).
        The two agents exchange bytes only. Returns the amount in base units.
        """
        self._peer, payee._peer = payee.take_payment_message, self.take_payment_message
        t_p = await self._payment_deadline(timeout)
        idle = wallets.idle(self.records(), cid)
        room = payee.room()
        fee = self.engine.moment().parameters.pay_fee
        amount = random_amount(max(0, min(idle.balance - fee, room)))
        self.engine.do(lambda records, moment: self.machine.pay(
            records, moment, cid=cid, amount=amount, t_p=t_p)[1])
        await self.engine.until(
            lambda records: isinstance(wallets.get(records, cid), Idle | wallets.Settled),
            timeout, "end of the hidden payment")
        await payee.engine.until(
            lambda records: not any(isinstance(one, wallets.Paying | wallets.Renewing)
                                    for one in wallets.all_wallets(records)),
            timeout, "receipt of the hidden payment")
        return amount

    async def _payment_deadline(self, timeout: float) -> int:
        before = len(self.engine.measured.journal)
        self.engine.do(lambda records, moment: self.machine.pay_query())

        def answers() -> list[int]:
            return [int(note.detail) for _, note in self.engine.measured.journal[before:]
                    if note.what == "pay-terms"]

        await self.engine.until(lambda records: bool(answers()), timeout, "payment deadline")
        return answers()[-1]

    def room(self) -> int:
        """The most that one of this client's wallets can still receive."""
        return max((group.deposit + group.fund - one.balance
                    for group in self.groups() for one in self.wallets()
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
        idle = [one for one in self.wallets() if isinstance(one, Idle)]
        if not idle:
            raise ProtocolError("no idle wallet can receive the payment")
        return min(idle, key=lambda one: one.balance).cid


def unfinished_sessions(records: Records) -> list[bytes]:
    """Sessions that are neither closed nor on the ledger."""
    return [key for key, one in records.scan(Table.SESSION)
            if isinstance(one, ClientSession)
            and one.phase not in (ClientPhase.CLOSED, ClientPhase.ON_LEDGER)]


def _covers_a_circuit(consensus: Consensus) -> bool:
    relays = consensus.relays()
    return len(relays) >= 3 and any(one.guard for one in relays) and any(
        one.exit for one in relays)


def choose_path(consensus: Consensus) -> list[RouterInfo]:
    """Guard, middle and exit: three different relays, each fit for its place."""
    chance = secrets.SystemRandom()
    relays = consensus.relays()
    exit_ = chance.choice([one for one in relays if one.exit])
    guards = [one for one in relays if one.guard and one is not exit_]
    if not guards:
        raise DirectoryError("the only guard is the only exit")
    guard_ = chance.choice(guards)
    # An exit is left to be an exit while there is any other middle.
    rest = [one for one in relays if one is not guard_ and one is not exit_]
    middle = chance.choice([one for one in rest if not one.exit and not one.guard] or rest)
    return [guard_.info, middle.info, exit_.info]
