# SPDX-License-Identifier: BSD-3-Clause
"""Real machines in conversation over memory: every message delivered at once, every party honest.

For measuring and explaining the protocol. A message crosses as the bytes that the transport would
carry, in the order in which the parties send; only network, disk and ledger are left out. The
ledger that stands in for the real one confirms an opening and a cooperative close at once and
knows no other transaction.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any

from monetor_chain.statements import Role, context, domain_separator

from ..crypto.ecdsa import address_of, generate_private_key
from ..crypto.issuer import IssuerKey
from . import wallet as wallets
from .answering import Intermediary
from .client import Client
from .errors import ProtocolError, RefusalCode
from .intermediary import IntermediaryMachine
from .ledger import Block, Close, Fund, Funded, GroupClosed, LedgerCall, LedgerEvent, Open, Opened
from .messages import (
    NanoOffer,
    NanoPayment,
    PayInvoice,
    PayTerms,
    Refusal,
    unpack,
)
from .moment import Moment
from .nano_setup import NanoSetupDraft
from .outbox import Done, Item, Outbox, Request, Submit, Tell
from .records import MemoryRecords, Records, Table
from .relay import Relay
from .wallet import EndUser

_CHAIN_ID = 1337
_LEDGER = bytes(19) + b"\x01"
DRAFT = "draft_setup"
"""The step that a client does ahead of the demand for a session."""
_PAY_MESSAGES = range(0x50, 0x60)
"""PCMDs of Pay: what a client tells another client, and not a relay."""


class Name(StrEnum):
    """The parties. The second client receives hidden payments."""

    CLIENT = "client"
    RELAY = "relay"
    PAYEE = "client2"
    INTERMEDIARY = "intermediary"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message, after its receiver has handled it."""

    source: Name
    target: Name
    pcmd: int
    payload: bytes

    @property
    def message(self) -> Any:
        """The message, decoded."""
        return unpack(self.pcmd, self.payload)

    @property
    def kind(self) -> str:
        """The message's type name."""
        return type(self.message).__name__


@dataclass(slots=True)
class Side:
    """A party: its machine, its records, and its requests that are not answered for good."""

    name: Name
    machine: Any
    records: Records = field(default_factory=MemoryRecords)
    outstanding: dict[bytes, Request] = field(default_factory=dict)


Watch = Callable[[Name, str], AbstractContextManager[object]]
"""Entered around each step of a machine, with the party and the message or command it handles."""


def unwatched(name: Name, step: str) -> AbstractContextManager[object]:
    """Nobody watches."""
    return nullcontext()


class Dialogue:
    """Client, relay, second client and intermediary at one moment of the network's clock.

    `heard` is told of every message and `settled` of every transaction once it is handled, `watch`
    surrounds every step. Raises `ProtocolError` whenever a party refuses what another did: all of
    them are honest.
    """

    def __init__(self, moment: Moment, issuer: IssuerKey, *,
                 heard: Callable[[Delivery], None] = lambda delivery: None,
                 settled: Callable[[Name, LedgerCall], None] = lambda name, call: None,
                 watch: Watch = unwatched) -> None:
        self.moment = moment
        self.heard = heard
        self.settled = settled
        self.watch = watch
        self.ledger: list[tuple[Name, LedgerCall]] = []
        self._queue: deque[tuple[Side, Item]] = deque()
        self._receiving = 0
        self._t_p = 0
        key = generate_private_key()
        ctx = context(_CHAIN_ID, _LEDGER, issuer.public.key_hash)
        domain = domain_separator(_CHAIN_ID, _LEDGER)
        me = Intermediary(issuer, key, address_of(key), issuer.public.key_hash, ctx, domain)

        def user(role: Role) -> EndUser:
            return EndUser(address_of(generate_private_key()), role, issuer.public, me.address,
                           me.key_hash, ctx, domain, tax_rate_bp=1_000)

        self.sides = {side.name: side for side in (
            Side(Name.CLIENT, Client(user(Role.CLIENT), generate_private_key())),
            Side(Name.RELAY, Relay(user(Role.RELAY))),
            Side(Name.PAYEE, Client(user(Role.CLIENT), generate_private_key())),
            Side(Name.INTERMEDIARY, IntermediaryMachine(me)))}
        self._happened(Block(1, moment.now))

    def channels(self, name: Name) -> list[int]:
        """Ids of a party's channels."""
        return [int.from_bytes(key, "big")
                for key, _ in self.sides[name].records.scan(Table.WALLET)]

    def balance(self, name: Name, cid: int) -> int:
        """Base units in an idle wallet."""
        return wallets.idle(self.sides[name].records, cid).balance

    # --- Protocols

    def open(self, name: Name, *, deposit: int, fund: int, count: int = 1) -> list[int]:
        """Establish, Init-E and Init-I; returns the new channels' ids. Amounts for each."""
        before = self.channels(name)
        side = self.sides[name]
        self._act(side, "open_group", lambda: side.machine.open_group(
            side.records, self.moment, deposit=deposit, fund=fund, count=count))
        return [cid for cid in self.channels(name) if cid not in before]

    def setup(self, cid: int) -> bytes:
        """Nano-Setup out of the client's channel `cid`, drafted before; returns hash(nT)."""
        client = self.sides[Name.CLIENT]
        ready: list[NanoSetupDraft] = []
        found: list[bytes] = []

        def draft() -> Outbox:
            ready.append(client.machine.draft_setup(client.records, self.moment, cid))
            return []

        def start() -> Outbox:
            terms_hash, outbox = client.machine.nano_setup(
                client.records, self.moment, cid, ready[0])
            found.append(terms_hash)
            return list(outbox)

        self._act(client, DRAFT, draft)
        self._act(client, "nano_setup", start)
        return found[0]

    def establish(self, terms_hash: bytes) -> None:
        """Nano-Establish."""
        client = self.sides[Name.CLIENT]
        self._act(client, "nano_offer", lambda: client.machine.nano_offer(
            client.records, self.moment, terms_hash))

    def pay(self, terms_hash: bytes, times: int = 1) -> None:
        """Nano-Pay."""
        client = self.sides[Name.CLIENT]
        for _ in range(times):
            self._act(client, "nano_pay", lambda: client.machine.nano_pay(
                client.records, self.moment, terms_hash))

    def close_relay(self, terms_hash: bytes) -> None:
        """Nano-Close of the relay's leg."""
        self._close(Name.RELAY, terms_hash)

    def close_client(self, terms_hash: bytes) -> None:
        """Nano-Close of the client's leg."""
        self._close(Name.CLIENT, terms_hash)

    def _close(self, name: Name, terms_hash: bytes) -> None:
        side = self.sides[name]
        self._act(side, "nano_close", lambda: side.machine.nano_close(side.records, terms_hash))

    def transfer(self, cid: int, to: int, amount: int) -> None:
        """Pay: a hidden micropayment to channel `to` of the second client; base units."""
        client = self.sides[Name.CLIENT]
        self._receiving = to
        self._act(client, "pay_query", client.machine.pay_query)
        self._act(client, "pay", lambda: client.machine.pay(
            client.records, self.moment, cid=cid, amount=amount, t_p=self._t_p)[1])
        # The leg that came first was told to wait for the other.
        while any(side.outstanding for side in self.sides.values()):
            for side in self.sides.values():
                for request in list(side.outstanding.values()):
                    self._queue.append((side, request))
            self._run()

    def cash_out(self, name: Name, group: int) -> None:
        """Cash out the idle channels of a group."""
        side = self.sides[name]
        self._act(side, "cash_out", lambda: side.machine.cash_out(side.records, group))

    # --- Delivery

    def _act(self, side: Side, command: str, action: Callable[[], Outbox]) -> None:
        self._step(side, command, action)
        self._run()

    def _step(self, side: Side, what: str, action: Callable[[], Outbox]) -> None:
        with self.watch(side.name, what):
            outbox = action()
        self._queue.extend((side, item) for item in outbox)

    def _run(self) -> None:
        while self._queue:
            side, item = self._queue.popleft()
            match item:
                case Request():
                    self._ask(side, item)
                case Done():
                    side.outstanding.pop(item.conversation, None)
                case Tell():
                    self._tell(side, item)
                case Submit():
                    self._submit(side, item.call)

    def _ask(self, side: Side, request: Request) -> None:
        side.outstanding[request.conversation] = request
        intermediary = self.sides[Name.INTERMEDIARY]
        answer: list[tuple[int, bytes]] = []

        def handle() -> Outbox:
            reply, outbox = intermediary.machine.handle(
                intermediary.records, self.moment, request.pcmd, request.payload)
            answer.append(reply)
            return list(outbox)

        asked = Delivery(side.name, Name.INTERMEDIARY, request.pcmd, request.payload)
        self._step(intermediary, asked.kind, handle)
        self.heard(asked)
        reply = Delivery(Name.INTERMEDIARY, side.name, *answer[0])
        message = reply.message
        if isinstance(message, Refusal) and message.code is not RefusalCode.NOT_YET:
            raise ProtocolError(f"{asked.kind} is refused: {message.code.name}")
        if isinstance(message, PayTerms):
            self._t_p = message.t_p
        self._step(side, reply.kind, lambda: side.machine.on_reply(
            side.records, self.moment, request.conversation, reply.pcmd, reply.payload))
        self.heard(reply)

    def _tell(self, side: Side, item: Tell) -> None:
        if item.pcmd in _PAY_MESSAGES:
            other = Name.PAYEE if side.name is Name.CLIENT else Name.CLIENT
        else:
            other = Name.RELAY if side.name is Name.CLIENT else Name.CLIENT
        told = Delivery(side.name, other, item.pcmd, item.payload)
        self._step(self.sides[other], told.kind, lambda: self._hear(self.sides[other], item))
        self.heard(told)

    def _hear(self, side: Side, item: Tell) -> Outbox:
        message = unpack(item.pcmd, item.payload)
        found: Outbox
        match message:
            case NanoOffer():
                found = side.machine.on_offer(side.records, self.moment, message)[1]
            case NanoPayment():
                side.machine.on_payment(side.records, self.moment, item.session, message)
                found = []
            case PayInvoice():
                found = side.machine.receive(side.records, self.moment, self._receiving, message)
            case _:
                found = side.machine.on_message(side.records, self.moment, item.session, item.pcmd,
                                                item.payload)
        return found

    def _submit(self, side: Side, call: LedgerCall) -> None:
        self.ledger.append((side.name, call))
        match call:
            case Open():
                self._happened(Opened(call.group, call.dispute_window, call.close_notice))
            case Fund():
                self._happened(Funded(call.group))
            case Close():
                self._happened(GroupClosed(call.group, call.channels, call.total, 0))
            case _:
                raise ProtocolError(f"honest parties need no {type(call).__name__}")
        self.settled(side.name, call)

    def _happened(self, event: LedgerEvent) -> None:
        for side in self.sides.values():
            self._step(side, type(event).__name__, partial(
                side.machine.on_ledger, side.records, self.moment, event))
