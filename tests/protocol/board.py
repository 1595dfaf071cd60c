# SPDX-License-Identifier: BSD-3-Clause
"""The world of `world.py` as a board to play on: quick time, floors, and an end to every play.

Time passes in the same small steps, but a step at which nobody has anything due is left out. What
each honest party must have in the end is kept by `Floors` from what is on the honest disks, so
that a play need not say what it expects.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from monetor_chain.parameters import DEMO
from monetor_chain.rehearsal import Rehearsal
from offchain.crypto.issuer import IssuerKey
from offchain.protocol import (
    answering,
    establish,
    ledger as calls,
    nano_pay,
    pay,
    wallet as wallets,
)
from offchain.protocol.errors import ProtocolError, RefusalCode, Refused
from offchain.protocol.records import Table
from offchain.protocol.sessions import ClientSession, Phase, RelayPhase, RelaySession, Session
from offchain.protocol.wallet import Idle, Paying
from tests.contracts.mocks import compiled
from tests.protocol.world import (
    CLIENT_DEPOSIT,
    DELTA_R,
    FEE,
    MU,
    PAY_FEE,
    PAYEE_DEPOSIT,
    PAYEE_FUND,
    PRICE,
    RELAY_FUND,
    TICK,
    Node,
    Parcel,
    World,
)

REQUESTED, CLOSING, CLOSING_SESSION, HALF_OPEN, OPEN, RESOLVED = 1, 2, 3, 4, 5, 6
"""The ledger's numbers for a channel's status."""

NOTHING = bytes(32)


class Board(World):
    """A world whose empty time passes at once, and in which somebody watches every step."""

    def __init__(self, stage: Rehearsal, issuer: IssuerKey) -> None:
        super().__init__(stage, issuer)
        self._books = stage.deploy_code(*compiled("Books"))
        self._version = 0
        self._seen: dict[str, tuple[int, Any]] = {}
        self.watch: Callable[[Node], None] = lambda node: None
        self.slowed: list[tuple[int, Parcel]] = []
        self.late: dict[str, int] = {}

    def _collect(self, node: Node) -> None:
        super()._collect(node)
        self.watch(node)

    def save(self) -> Any:
        for node in self.nodes.values():
            self.stake(node)
        return super().save(), {name: found for name, (_, found) in self._seen.items()}

    def load(self, saved: Any) -> None:
        state, seen = saved
        super().load(state)
        self.watch = lambda node: None
        self.slowed.clear()
        self.late.clear()
        self._version += 1
        self._seen = {name: (self._version, found) for name, found in seen.items()}

    def transact(self, node: Node, call: Any) -> bool:
        self._version += 1
        if not isinstance(call, calls.Open):
            # Only an opening moves tokens; all else moves what the ledger owes.
            for one in self.nodes.values():
                version, found = self._seen.get(one.name, (-1, None))
                if version == self._version - 1:
                    self._seen[one.name] = self._version, found
        return super().transact(node, call)

    def forget(self) -> None:
        """Somebody has made a transaction by other means."""
        self._version += 1

    # --- Time

    def travel(self, until: int, *, tick: int = TICK) -> None:
        """As `World.travel`, but straight on to the next step at which something is due."""
        while self.now < until:
            step = self.now + tick
            if not self.wire and not any(one.requests for one in self.nodes.values() if one.alive):
                due = self._next_due(until)
                step = max(step, self.now + -(-(due - self.now) // tick) * tick)
            self.now = min(step, until)
            self._catch_up()
            self.block()
            self.tick()
            self.run()

    def _next_due(self, until: int) -> int:
        first = [int.from_bytes(next(node.records.scan(Table.DEADLINE), (b"\xff" * 8,))[0][:8],
                                "big") for node in self.nodes.values() if node.alive]
        return min([until, *first, *(at for at, _ in self.slowed), *self.late.values()])

    def hold(self, parcel: Parcel, until: int) -> None:
        """A transaction that no block takes before `until`."""
        self.wire.remove(parcel)
        self.slowed.append((until, parcel))

    def lag(self, node: Node, until: int) -> None:
        """A party that hears of no block before `until`."""
        node.follows = False
        self.late[node.name] = until

    def _catch_up(self) -> None:
        for one in [one for one in self.slowed if one[0] <= self.now]:
            self.slowed.remove(one)
            self.wire.appendleft(one[1])
        for name in [name for name, at in self.late.items() if at <= self.now]:
            del self.late[name]
            self.nodes[name].follows = True
            self.follow(self.nodes[name])

    # --- What is

    def _view(self, name: str, read: Callable[[], Any]) -> Any:
        """What the ledger says, asked once after each transaction: a call takes ten times as long
        as most moves."""
        version, found = self._seen.get(name, (-1, None))
        if version != self._version:
            found = read()
            self._seen[name] = self._version, found
        return found

    def channels(self) -> dict[int, tuple[int, int]]:
        """(status, deadline) of every channel that I or its owner knows of, by cid."""
        def read() -> dict[int, tuple[int, int]]:
            known = {group.group << 8 | index for _, group in self.i.records.scan(Table.GROUP)
                     for index in range(group.count)}
            cids = sorted(known.union(*(node.cids() for node in (self.c, self.r, self.e))))
            found = self._books.functions.channels(self.stage.ledger.address, cids).call()
            return {cid: (int(one[0]), int(one[1])) for cid, one in zip(cids, found, strict=True)}

        return dict(self._view("channels", read))

    def status(self, cid: int) -> int:
        """How the ledger sees a channel."""
        return self.channels()[cid][0]

    def deadline_of(self, cid: int) -> int:
        """When what is posted on a channel, or asked of its owner, comes to its end."""
        return self.channels()[cid][1]

    def _balances(self) -> list[int]:
        """The ledger's tokens, I's vault, and the credit of C, R, E, I and the pool."""
        accounts = [one.party.address for one in (self.c, self.r, self.e, self.i)]
        return list(self._view("balances", self._books.functions.balances(
            self.stage.ledger.address, self.i.party.address,
            [*accounts, self.stage.pool.address]).call))

    def wealth(self, node: Node) -> int:
        balances = self._balances()
        tokens = self._view(node.name, self.stage.token.functions.balanceOf(
            node.party.address).call)
        credit = balances[2 + (self.c, self.r, self.e, self.i).index(node)]
        return int(tokens + credit + (balances[1] if node is self.i else 0))

    def tax(self) -> int:
        return self._balances()[6]

    def escrowed(self) -> int:
        total = 0
        channels = self.channels()
        for _, group in self.i.records.scan(Table.GROUP):
            parts = {HALF_OPEN: group.deposit, OPEN: group.deposit + group.fund,
                     REQUESTED: group.deposit + group.fund + DEMO.close_bond,
                     CLOSING: group.deposit + group.fund,
                     CLOSING_SESSION: group.deposit + group.fund}
            total += sum(parts.get(channels[group.group << 8 | index][0], 0)
                         for index in range(group.count))
        return total

    def conserved(self, guards: int = 0) -> bool:
        held, *owed = self._balances()
        return held == sum(owed) + self.escrowed() + guards

    def stake(self, node: Node) -> int:
        total, channels = self.wealth(node), self.channels()
        for _, group in self.i.records.scan(Table.GROUP):
            mine = group.fund if node is self.i else group.deposit
            if node is self.i or group.account == bytes.fromhex(node.party.address[2:]):
                total += mine * sum(channels[group.group << 8 | index][0] in (REQUESTED, OPEN)
                                    for index in range(group.count))
        return total

    def latest(self) -> int:
        """The number of the latest block."""
        return int(self.stage.w3.eth.get_block("latest")["number"])

    def would(self, pcmd: int, payload: bytes) -> RefusalCode | None:
        """How I would refuse this request now; None if it would answer. Nothing is changed."""
        try:
            (reply, data), _ = self.i.machine.handle(
                self.i.records.copy(), self.moment(), pcmd, payload)
        except ProtocolError as error:
            return error.code if isinstance(error, Refused) else RefusalCode.MALFORMED
        return RefusalCode(data[0]) if reply == 0x01 else None


def open_board(channels: int = 3) -> Board:
    """A fresh ledger on which C, R and E have this many open channels each."""
    return furnish(Board(Rehearsal(), IssuerKey.generate()), channels)


def furnish(board: Board, channels: int) -> Board:
    """Open everybody's channels."""
    board.stage.enrich(board.stage.party("stranger"), 10**9)
    board.open(board.c, deposit=CLIENT_DEPOSIT, fund=0, count=channels)
    board.open(board.r, deposit=0, fund=RELAY_FUND, count=channels)
    board.open(board.e, deposit=PAYEE_DEPOSIT, fund=PAYEE_FUND, count=channels)
    board.steps = 0
    return board


class Floors:
    """What everybody honest must have when a play is over, gas aside.

    C: what it had less the price of each payment that it sent, and of each hidden payment whose
    secret it told the amount and the fee. R: δ_R for each payment on its disk. E, who is paid by
    Pay: each amount whose secret it has taken. C and E together lose no more than prices and fees
    while both are honest. I: its deposits, a fee for each payment that it owes a relay for, and a
    pay_fee for each hidden payment, less the bonds that it staked and owners earned.
    """

    def __init__(self, world: Board, bad: str = "") -> None:
        self.world, self.bad = world, frozenset(bad)
        self.start = {name: world.stake(node) for name, node in world.nodes.items()}
        self.block = world.latest()
        self.sent: dict[bytes, int] = {}
        self.received: dict[bytes, int] = {}
        self.told: dict[int, int] = {}
        self.earned: dict[int, int] = {}
        self.chains: dict[bytes, tuple[Any, bytes]] = {}
        """hash(nT) → (nT, HC[n]) of every session that C has begun."""
        world.watch = self.observe

    def observe(self, node: Node) -> None:
        """Read a disk after a step was committed to it."""
        records = node.records
        if node.name == "C":
            for key, one in records.scan(Table.SESSION):
                if isinstance(one, ClientSession):
                    self.chains.setdefault(key, (one.session.terms, one.seed))
                    self.sent[key] = max(self.sent.get(key, 0), one.sent)
            for _, one in records.scan(Table.PAYMENT):
                if isinstance(one, pay.Transfer) and one.payer and one.secret != NOTHING:
                    self.told[one.wpk_c] = one.amount
        elif node.name == "R":
            for key, one in records.scan(Table.SESSION):
                # A count that the ledger proves while a close is under way is no payment to R.
                if isinstance(one, RelaySession) and one.phase is RelayPhase.ACTIVE:
                    self.received[key] = max(self.received.get(key, 0),
                                             nano_pay.received(records, key))
        elif node.name == "E":
            for wallet in wallets.all_wallets(records):
                if isinstance(wallet, Paying) and wallet.wsk_c != NOTHING:
                    current = pay.transfer(records, wallet.wpk_c)
                    if not current.payer:
                        self.earned[wallet.wpk_c] = current.amount

    def relayed(self) -> int:
        """Payments that I owes, or has paid, a relay for."""
        total = 0
        for _, one in self.world.i.records.scan(Table.SESSION):
            if isinstance(one, Session):
                if one.phase in (Phase.RELAY_CLOSING, Phase.RELAY_CLOSED):
                    total += one.best.k
                elif one.relay_resolved:
                    total += one.ledger_k_r
        return total

    def transfers(self) -> int:
        """Hidden payments whose secret I knows, so that they cannot be void."""
        return sum(
            1 for _, one in self.world.i.records.scan(Table.NONCE)
            if isinstance(one, pay.JoinedLeg) and one.payer
            and answering.lock_state(self.world.i.records, one.leg.wpk).revoked)

    def bonds(self) -> int:
        """What owners have earned by answering requests to close."""
        logs = self.world.stage.ledger.events.BondSettled().get_logs(from_block=self.block + 1)
        return sum(int(one["args"]["amount"]) for one in logs if one["args"]["answered"])

    def least(self) -> dict[str, int]:
        """The floor of each honest party, and of C and E together."""
        floors = {
            "C": self.start["C"] - PRICE * sum(self.sent.values())
                 - sum(self.told.values()) - PAY_FEE * len(self.told),
            "R": self.start["R"] + DELTA_R * sum(self.received.values()),
            "E": self.start["E"] + sum(self.earned.values()),
            "C+E": self.start["C"] + self.start["E"] - PRICE * sum(self.sent.values())
                   - PAY_FEE * len(self.told),
            "I": self.start["I"] + FEE * self.relayed() + PAY_FEE * self.transfers()
                 - self.bonds(),
        }
        return {name: floor for name, floor in floors.items()
                if not self.bad & set(name.split("+"))}

    def broken(self) -> dict[str, int]:
        """Who has less than its floor, and by how much; L if the ledger made or lost a unit."""
        has = {name: self.world.stake(node) for name, node in self.world.nodes.items()}
        has["C+E"] = has["C"] + has["E"]
        short = {name: floor - has[name] for name, floor in self.least().items()
                 if has[name] < floor}
        return short if self.world.conserved() else {**short, "L": 0}

    def stuck(self) -> list[str]:
        """Channels of honest parties that are not over."""
        return [f"{node.name} {type(node.wallet(cid)).__name__} {node.reverted}"
                for node in (self.world.c, self.world.r, self.world.e)
                if node.name not in self.bad for cid in node.cids()
                if self.world.status(cid) != RESOLVED]

    def untouched(self, node: Node, cid: int) -> bool:
        """Whether a channel is open at what it was opened with, and nothing is under way."""
        wallet = node.wallet(cid)
        return (isinstance(wallet, Idle) and self.world.status(cid) == OPEN
                and wallet.balance == establish.group_of(node.records, cid).deposit)

    def settle(self, *, everything: bool = True) -> None:
        """Everybody honest comes back and ends what it has; the rest is time.

        What the coalition wants on the ledger, it has posted before. `everything`: untouched
        channels as well.
        """
        world = self.world
        honest = [node for node in world.nodes.values() if node.name not in self.bad]
        world.fault = lambda parcel: (parcel,)
        world.wire.extend(parcel for _, parcel in world.slowed)
        world.slowed.clear()
        world.late.clear()
        for node in honest:
            node.alive = node.follows = True
            world.follow(node)
        world.run()
        ends = [terms.t_exp for terms, _ in self.chains.values()]
        world.travel(max([world.now, *ends]) + 6 * MU)
        for node in honest:
            for cid in node.cids() if node is not world.i else ():
                if not everything and self.untouched(node, cid):
                    continue
                world.act(node, lambda records, moment, node=node, cid=cid:
                          node.machine.post_claim(records, cid))
        world.run()
        self._wait_out()
        if "I" in self.bad:
            return
        left = [cid for node in (world.c, world.r, world.e) for cid in node.cids()
                if world.status(cid) == OPEN and (everything or not self.untouched(node, cid))]
        for cid in left:
            world.act(world.i, lambda records, moment, cid=cid:
                      world.i.machine.request_close(records, cid))
        world.run()
        self._wait_out()

    def _wait_out(self) -> None:
        """Let pass what runs on the ledger. With a corrupt I nobody need end the coalition's."""
        for _ in range(4):
            ends = [end for status, end in self.world.channels().values()
                    if status in (REQUESTED, CLOSING, CLOSING_SESSION)]
            if not ends:
                return
            self.world.travel(max(self.world.now, *ends) + 2 * MU)

