# SPDX-License-Identifier: BSD-3-Clause
"""`monetor demo --explain`: one session step by step, told by a session that really takes place.

Machines of a client, a relay and an intermediary open channels, run a session and cash out over
memory. Names, sizes, cells, what is on whose disk, which claim stands and what the ledger has been
told are read off that run; only the sentences that say what a message is for are written here.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from enum import IntEnum
from textwrap import wrap
from typing import Any

from monetor_chain.parameters import DEMO, NetworkParameters

from ..crypto.issuer import IssuerKey
from ..protocol import ledger, messages as m, wallet as wallets
from ..protocol.codec import encode
from ..protocol.dialogue import Delivery, Dialogue, Name
from ..protocol.moment import Moment
from ..protocol.records import Records, Table, load
from ..protocol.sessions import Session
from ..transport.payment_cell import RELAY_PAYLOAD, fragment

PAYMENTS = 20
"""Payments of the session that is told: past the first checkpoint, and not at one."""
PARTIES = (Name.CLIENT, Name.RELAY, Name.INTERMEDIARY)
_SHOWN_PAYMENTS = (1, 16)
_WIDTH = 96
_LABEL = 14

PURPOSE: dict[type[Any], str] = {
    m.GroupRequest: "nothing yet: the amounts, and half of the randomness that names the group",
    m.GroupReply: "the other half: both can compute the group's id, which no two groups share",
    m.EstablishRequest:
        "that both token requests hold this channel, its opening balance and one lock; it shows "
        "neither the lock nor the wallet's nonce",
    m.EstablishReply:
        "a blind refund token, which opens to exactly what the ledger accepts: the owner can "
        "always leave, and only now escrows money",
    m.OpenedRequest: "nothing: both escrows are on the ledger, so the wallet token is due",
    m.OpenedReply: "a blind wallet token: the channel can be spent",
    m.NanoSetupRequest:
        "in zero knowledge, that a wallet token with this nonce exists, that com holds its lock "
        "and N its channel, and that n payments leave its balance non-negative; it shows neither "
        "channel nor balance",
    m.NanoRefundReply:
        "by a signature that the ledger will honour the session's state N: the new claim is there "
        "before the old one is given up",
    m.NanoSetupReveal:
        "that the old wallet is revoked: its secret opens com, and would refute its refund",
    m.Acknowledged: "that the secret is accepted and the session has moved on",
    m.NanoOffer:
        "nothing: the session's terms, which the relay compares with the network's, with the room "
        "in its channel and with the time that is left",
    m.NanoAccepted: "that the relay is bound to the session: payments count from here on",
    m.NanoEstablishRequest:
        "the same for the relay's wallet, upwards: N holds the balance that the relay has if every "
        "payment arrives, so no range is needed",
    m.NanoEstablishReveal: "that the relay's old wallet is revoked",
    m.NanoPayment:
        "one more payment: hashed, it is the preimage of the payment before; at every 16th a path "
        "to the root in the terms travels along",
    m.RelayCloseRequest:
        "the count, by preimage and path, and that the new token requests hold N's channel and N's "
        "balance less what was not paid; the answer freezes the count",
    m.RefundTokenReply:
        "a blind refund token on the new balance, which takes the place of the session's claim",
    m.RelayCloseReveal:
        "that the relay's leg is revoked: from here on the client's leg may close",
    m.WalletTokenReply: "a blind wallet token: a wallet that shares nothing with the session",
    m.ClientCloseQuery:
        "that whoever asks for the count has set the session up: no relay knows its lock",
    m.ClientCloseCount:
        "the count, by the preimage that the relay showed; a client never pays more than it sent",
    m.ClientCloseRequest:
        "that the new token requests hold N's channel and N's balance plus what was not spent",
    m.ClientCloseReveal: "that the client's leg is revoked: nothing of the session is left",
    m.CashOutRequest:
        "ownership of the idle wallets, in clear and with re-randomised tokens; the sessions that "
        "they were in stay hidden",
    m.CashOutReply: "by a signature on the total that one transaction may close all the channels",
}
"""What a message proves to whoever receives it."""

LEARNS: dict[type[Any], Callable[[Any], str]] = {
    ledger.Open: lambda call: (
        f"a {call.role.name.lower()}'s account escrows {call.count} x {call.deposit:,} units with "
        "this intermediary, and which group that is"),
    ledger.Fund: lambda call: "the intermediary puts its agreed part beside it out of its vault",
    ledger.Close: lambda call: (
        f"the group's {call.channels.bit_count()} channel(s) end at {call.total:,} units in all"),
}
"""What the ledger learns by a transaction."""

_SESSION_CALLS = (ledger.NanoRefund, ledger.Reveal, ledger.Refute, ledger.Resolve)


@dataclass(frozen=True, slots=True)
class Step:
    """One message, or one transaction (then `pcmd` is None), with the state that it left.

    `disk` lists for each party the records that changed since the step before; `claims` what each
    end user would post if all others fell silent now; `size` in bytes.
    """

    phase: str
    source: str
    target: str
    name: str
    pcmd: int | None
    size: int
    cells: int
    carries: tuple[str, ...]
    purpose: str
    disk: dict[str, list[str]]
    claims: dict[str, str]
    ledger: str


class Narrator:
    """Turns a `Dialogue` into steps."""

    def __init__(self, parameters: NetworkParameters) -> None:
        now = int(time.time())
        self.steps: list[Step] = []
        self.phase = ""
        self._seen: dict[Name, dict[tuple[Table, bytes], tuple[str, bytes]]] = {}
        self.dialogue = Dialogue(
            Moment(now, parameters.epoch_at(now), parameters), IssuerKey.generate(),
            heard=self._heard, settled=self._settled)
        for name in PARTIES:
            self._changes(name)

    def _heard(self, delivery: Delivery) -> None:
        message = delivery.message
        if isinstance(message, m.NanoPayment) and message.k not in _SHOWN_PAYMENTS:
            return
        cells = len(fragment(delivery.pcmd, delivery.payload, RELAY_PAYLOAD))
        self._add(delivery.source, delivery.target, message, delivery.pcmd, cells,
                  PURPOSE[type(message)], self._silent_ledger())

    def _settled(self, name: Name, call: ledger.LedgerCall) -> None:
        self._add(name, "ledger", call, None, 0, "", f"learns that {LEARNS[type(call)](call)}")

    def _silent_ledger(self) -> str:
        calls = [call for _, call in self.dialogue.ledger]
        about = sum(isinstance(call, _SESSION_CALLS) for call in calls)
        return (f"hears nothing ({len(calls)} transactions so far, {about or 'none'} of them about "
                "a session)")

    def _add(self, source: str, target: str, what: Any, pcmd: int | None, cells: int,
             purpose: str, told: str) -> None:
        changed = {name.value: self._changes(name) for name in PARTIES}
        self.steps.append(Step(
            self.phase, str(source), target, type(what).__name__, pcmd, len(encode(what)), cells,
            tuple(one.name for one in fields(what)), purpose,
            {name: found for name, found in changed.items() if found},
            {name.value: self._claim(name) for name in (Name.CLIENT, Name.RELAY)}, told))

    def _changes(self, name: Name) -> list[str]:
        """Descriptions of the records that changed since the last call."""
        old = self._seen.get(name, {})
        new = dict(_rows(self.dialogue.sides[name].records))
        self._seen[name] = new
        found: Counter[str] = Counter()
        for key in sorted(old.keys() | new.keys()):
            if key[0] is not Table.DEADLINE and old.get(key) != new.get(key):
                found[_describe(key[0], new[key]) if key in new
                      else f"{old[key][0]} deleted"] += 1
        return [text if times == 1 else f"{text} (x{times})" for text, times in found.items()]

    def _claim(self, name: Name) -> str:
        records = self.dialogue.sides[name].records
        found = [wallets.claim(records, one) for one in wallets.all_wallets(records)]
        return ", ".join(_claimed(name, call) for call in found if call is not None) or "none"


def _rows(records: Records) -> Iterator[tuple[tuple[Table, bytes], tuple[str, bytes]]]:
    for table in Table:
        for key, value in records.scan(table):
            yield (table, key), (type(value).__name__, encode(value))


def _describe(table: Table, row: tuple[str, bytes]) -> str:
    """A record by its type and, if it has one, its state."""
    value = load(*row)
    details = [_words(state) for state in (getattr(value, "phase", None),) if state is not None]
    if isinstance(value, Session):
        details.append(f"client leg {_words(value.client_leg)}")
    details += [f"{name} {getattr(value, name)}" for name in ("k", "sent", "balance")
                if getattr(value, name, 0)]
    return f"{table} {row[0]}" + (f" ({', '.join(details)})" if details else "")


def _words(state: IntEnum) -> str:
    return state.name.lower().replace("_", " ")


def _claimed(name: Name, call: ledger.LedgerCall) -> str:
    match call:
        case ledger.NanoRefund() if name is Name.CLIENT:
            return "NanoRefund less the payments that the relay proves"
        case ledger.NanoRefund():
            return f"NanoRefund with {call.k} payments proved"
        case ledger.Refund():
            return f"Refund of {call.balance:,} units"
        case _:
            return type(call).__name__


def explain_session(parameters: NetworkParameters = DEMO) -> list[Step]:
    """Run a session of `PAYMENTS` payments and tell it."""
    narrator = Narrator(parameters)
    dialogue = narrator.dialogue
    stake = parameters.n * parameters.price
    narrator.phase = "Establish, Init-E, Init-I: the client's channel"
    (cid,) = dialogue.open(Name.CLIENT, deposit=stake, fund=0)
    narrator.phase = "Establish, Init-E, Init-I: the relay's channel"
    (relay_cid,) = dialogue.open(Name.RELAY, deposit=0, fund=stake)
    narrator.phase = "Nano-Setup: a wallet becomes a session"
    terms_hash = dialogue.setup(cid)
    narrator.phase = "Nano-Establish: a relay joins the session"
    dialogue.establish(terms_hash)
    narrator.phase = f"Nano-Pay: {PAYMENTS} payments, of which the 1st and the 16th are shown"
    dialogue.pay(terms_hash, PAYMENTS)
    narrator.phase = "Nano-Close: the relay's leg"
    dialogue.close_relay(terms_hash)
    narrator.phase = "Nano-Close: the client's leg"
    dialogue.close_client(terms_hash)
    narrator.phase = "Cash-out"
    dialogue.cash_out(Name.RELAY, relay_cid >> 8)
    dialogue.cash_out(Name.CLIENT, cid >> 8)
    return narrator.steps


def told(steps: list[Step]) -> list[str]:
    """The steps as lines for a terminal."""
    lines = [
        "One session, step by step. Claims are what an end user would post on the ledger if",
        "everybody else fell silent right after the step. Cells are counted once, end to end.",
    ]
    phase, claims = "", {name.value: "none" for name in (Name.CLIENT, Name.RELAY)}
    for number, step in enumerate(steps, 1):
        if step.phase != phase:
            phase = step.phase
            lines += ["", phase, "=" * len(phase)]
        lines += ["", f"{number:>3}. {step.source} -> {step.target}: {step.name}{_measure(step)}"]
        lines += _paragraph("carries", ", ".join(step.carries) or "nothing")
        if step.purpose:
            lines += _paragraph("proves", step.purpose)
        for party, records in step.disk.items():
            lines += _paragraph(f"disk: {_short(party)}", "; ".join(records))
        for party, claim in step.claims.items():
            if claims[party] != claim:
                lines += _paragraph("claim", f"{party}: {claim} (before: {claims[party]})")
        claims = step.claims
        lines += _paragraph("ledger", step.ledger)
    total = sum(step.cells for step in steps if step.phase.startswith("Nano-")
                and step.name != m.NanoPayment.__name__)
    return [*lines, "", f"From setup to close, both legs, payments aside: {total} cells."]


def explain(parameters: NetworkParameters = DEMO) -> list[str]:
    """One session, told: what `monetor demo --explain` prints."""
    return told(explain_session(parameters))


def _measure(step: Step) -> str:
    if step.pcmd is None:
        return " (a transaction)"
    cells = "1 cell" if step.cells == 1 else f"{step.cells} cells"
    return f" (PCMD {step.pcmd:#04x}, {step.size} bytes, {cells})"


def _short(party: str) -> str:
    return "interm." if party == Name.INTERMEDIARY else party


def _paragraph(label: str, text: str) -> list[str]:
    first, rest = f"     {label:<{_LABEL}}", " " * (_LABEL + 5)
    return wrap(text, _WIDTH, initial_indent=first, subsequent_indent=rest,
                break_on_hyphens=False)
