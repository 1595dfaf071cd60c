# SPDX-License-Identifier: BSD-3-Clause
"""What everybody has, read from the ledger, and what everybody must have at the least."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from eth_utils import decode_hex

from monetor_chain.parameters import TAX_RATE_BP
from monetor_chain.rehearsal import Rehearsal
from offchain.crypto.issuer import IssuerKey
from offchain.protocol import guard, nano_pay, pay
from offchain.protocol.records import Table, dump
from offchain.protocol.sessions import ClientSession, RelaySession
from tests.protocol.world import DELTA_R, FEE, PAY_FEE, PRICE, Node, World

REQUESTED, VIEW_OPEN = 1, 5
"""States of a channel in the ledger's view in which nobody has claimed it."""
HALF_OPEN, LIVE = 1, (2, 3)
"""States of a group."""
GUARD_CLOSED = 3


@dataclass(frozen=True, slots=True)
class Accounts:
    """What everybody has: `stakes` with their part of channels that nobody claims, `guarded` at
    the guard's payout address, `tax` owed to the pool; `total` of all purses and of the ledger's,
    and what of the ledger's is nobody's."""

    stakes: dict[str, int]
    guarded: int
    tax: int
    total: int
    astray: int


class Due(Enum):
    """What a party is owed: everything; what it had, without what it earned; nothing."""

    WHOLE = 1
    PRINCIPAL = 2
    NOTHING = 3


class AccountedWorld(World):
    """A world that knows what everybody had at the beginning. `facts` are a life's own."""

    def __init__(self, stage: Rehearsal, issuer: IssuerKey) -> None:
        super().__init__(stage, issuer)
        self.facts: dict[str, Any] = {}
        self.baseline = Accounts({}, 0, 0, 0, 0)
        self.known: dict[tuple[str, int], Any] = {}
        self.direct: list[int] = []
        """Direct channels, in order of opening."""
        self._backend = stage.w3.provider.ethereum_tester.backend  # type: ignore[attr-defined]

    def remember(self) -> None:
        """Everything is measured from here."""
        self.baseline = self.read()
        self.known = {(node.name, cid): dump(node.wallet(cid))
                      for node in self.users() for cid in node.cids()}

    def users(self) -> list[Node]:
        """Who has channels."""
        return [self.c, self.e, self.r]

    def touched(self, node: Node) -> list[int]:
        """Channels that are not as they were at the beginning."""
        return [cid for cid in node.cids()
                if dump(node.wallet(cid)) != self.known.get((node.name, cid))]

    # --- The ledger's books

    def view(self, call: Any, contract: Any = None) -> list[int]:
        """The words that a view returns, without the detours of a client library."""
        raw = self._backend.call({
            "from": decode_hex(self.c.party.address),
            "to": decode_hex((contract or self.stage.ledger).address),
            "data": decode_hex(call._encode_transaction_data()),
            "gas": 5_000_000, "gas_price": 2 * 10**9, "value": 0}, "latest")
        return [int.from_bytes(raw[at:at + 32], "big") for at in range(0, len(raw), 32)]

    def channel(self, cid: int) -> int:
        """A channel's state on the ledger."""
        return self.view(self.stage.ledger.functions.channel(cid))[0]

    def group(self, group: int) -> list[int]:
        """A group's record on the ledger."""
        return self.view(self.stage.ledger.functions.group(group))

    def read(self) -> Accounts:
        """Read the accounts from the ledger."""
        on, token = self.stage.ledger.functions, self.stage.token
        purses, credits_ = {}, {}
        for name, node in self.nodes.items():
            address = node.party.address
            purses[name] = self.view(token.functions.balanceOf(address), token)[0]
            credits_[name] = self.view(on.credit(address))[0]
        vault = self.view(on.vault(self.i.party.address))[0]
        guarded = self.view(on.credit(self.stage.party("guard").address))[0]
        tax = self.view(on.credit(self.stage.pool.address))[0]
        held = self.view(token.functions.balanceOf(self.stage.ledger.address), token)[0]
        stakes = {name: purses[name] + credits_[name] for name in purses}
        stakes["I"] += vault
        escrow = self._channels(stakes) + self._direct_channels()
        return Accounts(
            stakes, guarded, tax, sum(purses.values()) + held,
            held - sum(credits_.values()) - vault - guarded - tax - escrow)

    def _channels(self, stakes: dict[str, int]) -> int:
        """What the ledger holds for channels; each side's part of those that nobody claims is
        added to its stake."""
        escrow = 0
        touched = {cid for node in self.users() for cid in self.touched(node)}
        accounts = {decode_hex(node.party.address): name for name, node in self.nodes.items()}
        for _, one in self.i.records.scan(Table.GROUP):
            view, owner = self.group(one.group), accounts[one.account]
            state, resolved = view[0], view[10]
            if state == HALF_OPEN:
                stakes[owner] += one.deposit * one.count
                escrow += one.deposit * one.count
            if state not in LIVE:
                continue
            for index in range(one.count):
                cid = one.group << 8 | index
                if resolved >> index & 1:
                    continue
                escrow += one.deposit + one.fund
                channel = self.view(self.stage.ledger.functions.channel(cid)) if (
                    cid in touched) else [VIEW_OPEN]
                if channel[0] == REQUESTED:
                    escrow += channel[2]
                if channel[0] in (REQUESTED, VIEW_OPEN):
                    stakes[owner] += one.deposit
                    stakes["I"] += one.fund
        return escrow

    def _direct_channels(self) -> int:
        on, escrow = self.stage.ledger.functions, 0
        for channel in self.direct:
            view = self.view(on.guard(channel))
            if view[0] != GUARD_CLOSED:
                escrow += view[3] - view[4]
        return escrow

    # --- What must hold

    def due(self, name: str) -> Due:
        """What this party is owed."""
        return Due.NOTHING if name == self.facts.get("dishonest") else Due.WHOLE

    def check(self) -> None:
        """Every honest party's floor, and that the ledger has lost and made nothing."""
        end = self.read()
        gain = {name: one - self.baseline.stakes[name] for name, one in end.stakes.items()}
        assert end.astray == 0, "the ledger conserves"
        assert end.total == self.baseline.total, "nothing has left the parties"
        story = f"{gain}, tax {end.tax}, " + ", ".join(
            f"{name}: {node.reverted} {node.complaints}" for name, node in self.nodes.items()
            if node.reverted or node.complaints)
        due = {name: self.due(name) for name in gain}
        if due["C"] is not Due.NOTHING:
            assert gain["C"] >= -self._spent(), f"C: {-self._spent()} {story}"
        if due["R"] is Due.WHOLE:
            assert gain["R"] >= self._received() * DELTA_R, f"R: {self._received()} {story}"
            assert end.guarded >= self._guard_floor(), f"guard: {story}"
        if due["E"] is Due.WHOLE:
            paid = any(one.what == "payment-received" for one in self.e.notes)
            assert gain["E"] >= (self.facts["amount"] if paid else 0), f"E: {paid} {story}"
        for name in "RE":
            assert due[name] is Due.NOTHING or gain[name] >= 0, f"{name}: {story}"
        if due["I"] is Due.WHOLE:
            settled = min(self._received(), gain["R"] // DELTA_R)
            fees = settled * FEE + (PAY_FEE if gain["E"] > 0 else 0)
            assert gain["I"] >= fees - self.facts.get("bonds", 0), f"I: {fees} {story}"

    def _spent(self) -> int:
        spent = sum(one.sent * PRICE for _, one in self.c.records.scan(Table.SESSION)
                    if isinstance(one, ClientSession))
        for _, one in self.c.records.scan(Table.PAYMENT):
            if isinstance(one, pay.Transfer) and one.payer and one.secret != bytes(32):
                spent += one.amount + PAY_FEE
        for _, one in self.c.records.scan(Table.GUARD):
            if isinstance(one, guard.PaidGuard):
                spent += one.base + one.sent * one.price
        return spent

    def _received(self) -> int:
        return sum(nano_pay.received(self.r.records, key)
                   for key, one in self.r.records.scan(Table.SESSION)
                   if isinstance(one, RelaySession))

    def _guard_floor(self) -> int:
        return sum(one.received * one.price * 10_000 // (10_000 + TAX_RATE_BP)
                   for _, one in self.r.records.scan(Table.GUARD)
                   if isinstance(one, guard.EarningGuard))
