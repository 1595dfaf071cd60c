# SPDX-License-Identifier: BSD-3-Clause
"""Real machines of several clients, a relay and an intermediary, quick enough for many trials.

Messages are the bytes that the transport would carry, delivered at once. The ledger is a stand-in
that confirms whatever is submitted: nothing is claimed here about the ledger itself. What its
observers see is tested on the deployed contracts (`observed.py`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from monetor_chain.parameters import DEMO, TAX_RATE_BP, NetworkParameters
from monetor_chain.statements import Role, context, domain_separator
from offchain.crypto.ecdsa import address_of, generate_private_key
from offchain.crypto.issuer import IssuerKey
from offchain.protocol import ledger as calls, messages as m, pay, wallet as wallets
from offchain.protocol.answering import Intermediary
from offchain.protocol.client import Client
from offchain.protocol.errors import ProtocolError
from offchain.protocol.intermediary import IntermediaryMachine
from offchain.protocol.moment import Moment
from offchain.protocol.outbox import Done, Outbox, Request, Submit, Tell
from offchain.protocol.records import MemoryRecords, Table
from offchain.protocol.relay import Relay
from offchain.protocol.wallet import EndUser

CLIENTS = ("A", "B")
PAYEE = "E"
START = 1_800_000_000
_LEDGER = bytes(19) + b"\x01"


@dataclass(frozen=True, slots=True)
class Heard:
    """A message, and when: seconds of the network's clock."""

    at: float
    source: str
    target: str
    pcmd: int
    payload: bytes

    @property
    def message(self) -> Any:
        return m.unpack(self.pcmd, self.payload)


@dataclass
class Side:
    """A party. `lag` is how long it takes to answer, in seconds; honest parties take equally long.
    """

    name: str
    machine: Any
    records: MemoryRecords = field(default_factory=MemoryRecords)
    requests: dict[bytes, Request] = field(default_factory=dict)
    lag: float = 0.0


class Stand:
    """The parties around one intermediary."""

    def __init__(self, issuer: IssuerKey, parameters: NetworkParameters = DEMO) -> None:
        self.issuer = issuer
        self.parameters = parameters
        self.clock = float(START)
        self.log: list[Heard] = []
        self.ledger: list[tuple[str, calls.LedgerCall]] = []
        self.trace: list[tuple[str, str, str]] = []
        """(source, target, message or call) of everything, in order."""
        self.acting = ""
        """The party whose step runs; a leak may depend on it."""
        self.silenced: Callable[[Heard], bool] = lambda heard: False
        self._wire: deque[tuple[Side, Any]] = deque()
        self._routes: dict[bytes, str] = {}
        self._receiving = 0
        self._block = 0
        key = generate_private_key()
        self.ctx = context(1337, _LEDGER, issuer.public.key_hash)
        self.domain = domain_separator(1337, _LEDGER)
        self.me = Intermediary(issuer, key, address_of(key), issuer.public.key_hash, self.ctx,
                               self.domain)
        self.i = Side("I", IntermediaryMachine(self.me))
        self.r = Side("R", Relay(self._user(Role.RELAY)))
        self.sides = {side.name: side for side in (
            self.i, self.r, *(Side(name, Client(self._user(Role.CLIENT), generate_private_key()))
                              for name in (*CLIENTS, PAYEE)))}
        self.wait(0)

    def _user(self, role: Role) -> EndUser:
        return EndUser(address_of(generate_private_key()), role, self.issuer.public,
                       self.me.address, self.me.key_hash, self.ctx, self.domain, TAX_RATE_BP)

    # --- Time and steps

    @property
    def moment(self) -> Moment:
        now = int(self.clock)
        return Moment(now, self.parameters.epoch_at(now), self.parameters)

    def wait(self, seconds: float) -> None:
        """Let time pass; a block confirms it to everybody."""
        self.clock += seconds
        self._block += 1
        self._happened(calls.Block(self._block, int(self.clock)))

    def _happened(self, event: calls.LedgerEvent) -> None:
        for side in self.sides.values():
            self._step(side, lambda side=side: side.machine.on_ledger(
                side.records, self.moment, event))

    def _step(self, side: Side, action: Callable[[], Outbox]) -> None:
        self.acting = side.name
        outbox = action()
        for item in outbox:
            if isinstance(item, Request):
                side.requests[item.conversation] = item
            if isinstance(item, Done):
                side.requests.pop(item.conversation, None)
            self._wire.append((side, item))

    def act(self, name: str, action: Callable[[Side], Outbox]) -> None:
        """A party does something, and everything that follows."""
        side = self.sides[name]
        self._step(side, lambda: action(side))
        self.run()

    def run(self) -> None:
        while self._wire:
            side, item = self._wire.popleft()
            match item:
                case Request():
                    self._ask(side, item)
                case Tell():
                    self._tell(side, item)
                case Submit():
                    self._submit(side, item.call)

    # --- Messages

    def _hear(self, source: str, target: str, pcmd: int, payload: bytes) -> bool:
        self.clock += self.sides[source].lag if source in self.sides else 0
        heard = Heard(self.clock, source, target, pcmd, payload)
        if self.silenced(heard):
            return False
        self.log.append(heard)
        self.trace.append((source, target, type(heard.message).__name__))
        return True

    def ask(self, name: str, pcmd: int, payload: bytes) -> tuple[int, bytes] | None:
        """Send a request to the intermediary; its answer, None if one of the two is lost."""
        if not self._hear(name, "I", pcmd, payload):
            return None
        answer: list[tuple[int, bytes]] = []

        def handle() -> Outbox:
            reply, outbox = self.i.machine.handle(self.i.records, self.moment, pcmd, payload)
            answer.append(reply)
            return outbox

        try:
            self._step(self.i, handle)
        except ProtocolError as error:
            answer.append(self.i.machine.refusal(error, pcmd))
        return answer[0] if self._hear("I", name, *answer[0]) else None

    def _ask(self, side: Side, request: Request) -> None:
        answer = self.ask(side.name, request.pcmd, request.payload)
        if answer is not None and side.requests.get(request.conversation) == request:
            self._step(side, lambda: side.machine.on_reply(
                side.records, self.moment, request.conversation, *answer, request.pcmd))

    def _tell(self, side: Side, item: Tell) -> None:
        other = self.sides[self._routes[item.session] if side.name in (self.r.name, PAYEE)
                           else self._other(item)]
        if not self._hear(side.name, other.name, item.pcmd, item.payload):
            return
        message = m.unpack(item.pcmd, item.payload)

        def receive() -> Outbox:
            match message:
                case m.NanoOffer():
                    return other.machine.on_offer(other.records, self.moment, message)[1]
                case m.NanoPayment():
                    other.machine.on_payment(other.records, self.moment, item.session, message)
                    return []
                case m.PayInvoice():
                    return other.machine.receive(other.records, self.moment, self._receiving,
                                                 message)
            return other.machine.on_message(other.records, self.moment, item.session, item.pcmd,
                                            item.payload)

        self._step(other, receive)

    @staticmethod
    def _other(item: Tell) -> str:
        return "R" if item.pcmd in (m.NanoOffer.PCMD, m.NanoPayment.PCMD) else PAYEE

    def _submit(self, side: Side, call: Any) -> None:
        self.ledger.append((side.name, call))
        self.trace.append((side.name, "L", type(call).__name__))
        match call:
            case calls.Open():
                self._happened(calls.Opened(call.group, call.dispute_window, call.close_notice))
            case calls.Fund():
                self._happened(calls.Funded(call.group))
            case calls.Close():
                self._happened(calls.GroupClosed(call.group, call.channels, call.total, 0))
            case calls.Refund():
                self._happened(calls.RefundPosted(
                    call.cid, calls.ClaimKind.REFUND, call.wpk, call.balance,
                    int(self.clock) + self.parameters.dispute_window, bytes(32)))

    # --- Protocols, played by honest parties

    def open(self, name: str, *, deposit: int, fund: int, count: int = 1) -> list[int]:
        """Open a group; its channels."""
        side = self.sides[name]
        before = set(self.channels(name))
        self.act(name, lambda side: side.machine.open_group(
            side.records, self.moment, deposit=deposit, fund=fund, count=count))
        assert not side.requests, "the opening does not come to its end"
        return sorted(set(self.channels(name)) - before)

    def channels(self, name: str) -> list[int]:
        return [int.from_bytes(key, "big")
                for key, _ in self.sides[name].records.scan(Table.WALLET)]

    def setup(self, name: str, cid: int) -> bytes:
        """Nano-Setup; hash(nT)."""
        found: list[bytes] = []

        def start(side: Side) -> Outbox:
            terms_hash, outbox = side.machine.nano_setup(side.records, self.moment, cid)
            found.append(terms_hash)
            self._routes[terms_hash] = name
            return outbox

        self.act(name, start)
        return found[0]

    def pay(self, name: str, terms_hash: bytes, times: int) -> None:
        """Nano-Establish and so many payments."""
        self.act(name, lambda side: side.machine.nano_offer(side.records, self.moment, terms_hash))
        for _ in range(times):
            self.act(name, lambda side: side.machine.nano_pay(
                side.records, self.moment, terms_hash))
        self.act("R", lambda side: side.machine.nano_close(side.records, terms_hash))

    def close(self, name: str, terms_hash: bytes) -> None:
        """Nano-Close of the client's leg."""
        self.act(name, lambda side: side.machine.nano_close(side.records, terms_hash))

    def session(self, name: str, cid: int, payments: int | None) -> bytes:
        """A whole session; None: no relay ever joins it."""
        terms_hash = self.setup(name, cid)
        if payments is not None:
            self.pay(name, terms_hash, payments)
        self.close(name, terms_hash)
        return terms_hash

    def transfer(self, name: str, cid: int, to: int, amount: int) -> None:
        """A hidden payment to the payee."""
        (_, reply) = self.ask(name, *m.pack(m.PayQuery())) or (0, b"")
        deadline = m.unpack(m.PayTerms.PCMD, reply).t_p
        self._receiving = to
        lock = wallets.idle(self.sides[name].records, cid).wpk
        self._routes[pay.session_key(lock)] = name
        self.act(name, lambda side: side.machine.pay(
            side.records, self.moment, cid=cid, amount=amount, t_p=deadline)[1])
        while any(side.requests for side in self.sides.values()):
            for side in self.sides.values():
                self._wire.extend((side, one) for one in list(side.requests.values()))
            self.run()

    def cash_out(self, name: str, group: int) -> None:
        """A cooperative close."""
        self.act(name, lambda side: side.machine.cash_out(side.records, group))

    def claim(self, name: str, cid: int) -> None:
        """The channel's live claim goes to the ledger."""
        self.act(name, lambda side: side.machine.post_claim(side.records, cid))

    def balance(self, name: str, cid: int) -> int:
        return wallets.idle(self.sides[name].records, cid).balance
