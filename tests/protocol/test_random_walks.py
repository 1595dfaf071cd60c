# SPDX-License-Identifier: BSD-3-Clause
"""Coalitions at random: they post what they ever held, go back to old disks, stop and go on.

Whatever they do, at the end of all disputes every honest party has at least its floor, and the
ledger has lost and made nothing. A seed that fails is a sequence of moves that makes money.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from monetor_chain.parameters import DEMO
from monetor_chain.statements import lock_of
from offchain.protocol import messages as m, nano_pay, pay, wallet as wallets
from offchain.protocol.errors import ProtocolError
from offchain.protocol.records import MemoryRecords, Table
from offchain.protocol.sessions import ClientPhase, ClientSession, RelayPhase, RelaySession
from offchain.protocol.wallet import Idle
from tests.protocol.world import DELTA_R, MU, PAY_FEE, PRICE, Node, World

STEPS = 24


class Walk:
    """One random play; `bad` names the parties that do not keep to the protocol."""

    def __init__(self, world: World, seed: int, bad: str) -> None:
        self.world = world
        self.rng = random.Random(seed)
        self.bad = [world.nodes[name] for name in bad]
        self.start = {name: world.stake(node) for name, node in world.nodes.items()}
        self.paid_hidden = 0
        self.disks: dict[str, list[MemoryRecords]] = {node.name: [] for node in self.bad}
        self.sent: dict[bytes, int] = {}
        self.received: dict[bytes, int] = {}
        self.moves: list[str] = []
        for node in self.bad:
            node.hoard = {}
            world._collect(node)

    def sessions(self, node: Node, kind: type[Any], *phases: Any) -> list[bytes]:
        return [key for key, one in node.records.scan(Table.SESSION)
                if isinstance(one, kind) and (not phases or one.phase in phases)]

    def idle(self, node: Node) -> list[int]:
        return [cid for cid in node.cids() if isinstance(node.wallet(cid), Idle)]

    def play(self) -> None:
        moves = [self.setup, self.offer, self.pay, self.pay, self.close_relay, self.close_client,
                 self.wait, self.crash, self.cash_out, *[self.life] * 4, *[self.transfer] * 3]
        if self.bad:
            moves += [self.post, self.post_and_forget, self.post_and_forget, self.go_back,
                      self.be_silent]
        for _ in range(STEPS):
            move = self.rng.choice(moves)
            self.moves.append(move.__name__)
            try:
                move()
            except ProtocolError as error:
                self.moves[-1] += f" ({error})"
            self.world.run()
            self.world.retry()
            self.count()
            for node in self.bad:
                self.disks[node.name].append(node.records.copy())

    def count(self) -> None:
        for key in self.sessions(self.world.c, ClientSession):
            current = self.world.c.records.get(Table.SESSION, key)
            self.sent[key] = max(self.sent.get(key, 0), current.sent)
        for key in self.sessions(self.world.r, RelaySession):
            self.received[key] = max(self.received.get(key, 0), nano_pay.received(
                self.world.r.records, key))

    # --- Moves of everybody

    def life(self) -> None:
        """A session up to a random point."""
        stages = [self.setup, self.offer, self.pay, self.close_relay, self.close_client]
        for stage in stages[:self.rng.randint(2, len(stages))]:
            stage()

    def setup(self) -> None:
        cids = self.idle(self.world.c)
        if cids:
            self.world.setup(self.rng.choice(cids))

    def offer(self) -> None:
        ready = self.sessions(self.world.c, ClientSession, ClientPhase.READY)
        if ready and self.world.r.alive:
            self.world.establish(self.rng.choice(ready))

    def pay(self) -> None:
        active = self.sessions(self.world.c, ClientSession, ClientPhase.ACTIVE)
        if active and self.world.c.alive:
            self.world.pay(self.rng.choice(active), self.rng.choice([1, 3, 17]))

    def close_relay(self) -> None:
        active = self.sessions(self.world.r, RelaySession, RelayPhase.ACTIVE)
        if active and self.world.r.alive:
            self.world.close_relay(self.rng.choice(active))

    def close_client(self) -> None:
        mine = self.sessions(self.world.c, ClientSession, ClientPhase.READY, ClientPhase.OFFERED,
                             ClientPhase.ACTIVE)
        if mine and self.world.c.alive:
            self.world.close_client(self.rng.choice(mine))

    def transfer(self) -> None:
        payers, payees = self.idle(self.world.c), self.idle(self.world.e)
        if not payers or not payees or not self.world.e.alive or not self.world.c.alive:
            return
        cid, to = self.rng.choice(payers), self.rng.choice(payees)
        amount = self.rng.choice([0, 500, 9_000])
        if self.world.c.balance(cid) >= amount + PAY_FEE:
            self.paid_hidden += amount + PAY_FEE
            if self.bad and self.rng.random() < 0.5:
                # A word gets lost between the two.
                pcmd = self.rng.choice([m.PayInvoice, m.PayVerified, m.PaySecret]).PCMD
                self.world.fault = lambda parcel: () if parcel.kind == "tell" and (
                    parcel.item.pcmd == pcmd) else (parcel,)
            try:
                self.world.transfer(amount, cid, to)
            finally:
                self.world.fault = lambda parcel: (parcel,)

    def wait(self) -> None:
        seconds = self.rng.choice([1, 3, MU, MU, 4 * MU, DEMO.dispute_window, DEMO.lifetime])
        self.world.travel(self.world.now + seconds, tick=MU // 2)

    def crash(self) -> None:
        self.world.crash(self.rng.choice(list(self.world.nodes.values())))

    def cash_out(self) -> None:
        node = self.rng.choice([self.world.c, self.world.e, self.world.r])
        if self.idle(node) and self.rng.random() < 0.4:
            self.world.cash_out(node, node.cids()[0] >> 8)

    # --- Moves of the coalition

    def post(self) -> None:
        node = self.rng.choice(self.bad)
        claims = list((node.hoard or {}).values())
        if claims:
            self.world.transact(node, self.rng.choice(claims))

    def post_and_forget(self) -> None:
        """Post an old claim and play on as if nothing were on the ledger."""
        node = self.rng.choice(self.bad)
        disk = node.records.copy()
        self.post()
        node.records = disk

    def go_back(self) -> None:
        """Restore an old disk."""
        node = self.rng.choice(self.bad)
        if self.disks[node.name]:
            node.records = self.rng.choice(self.disks[node.name]).copy()
            node.requests.clear()
            node.submissions.clear()

    def be_silent(self) -> None:
        node = self.rng.choice(self.bad)
        node.alive = not node.alive
        if node.alive:
            self.world.follow(node)
        else:
            self.world.travel(self.world.now + self.rng.choice([1, MU, 5 * MU]), tick=MU // 2)
            if self.rng.random() < 0.8:
                node.alive = True
                self.world.follow(node)

    # --- The end

    def finish(self) -> None:
        """Honest parties close what they have; the coalition posts what it can; time passes."""
        world = self.world
        for node in world.nodes.values():
            node.alive = True
            world.follow(node)
        world.run()
        # Sessions end by themselves first, so that honest parties need no ledger for them.
        for close in (self.close_relay, self.close_client):
            try:
                close()
            except ProtocolError:
                continue
        for node in (world.c, world.e, world.r):
            for cid in node.cids():
                if node in self.bad:
                    options = [one for one in (node.hoard or {}).values() if one.cid == cid]
                    self.rng.shuffle(options)
                    for call in options[:6]:
                        if world.stage.ledger.functions.channel(cid).call()[0] in (1, 5):
                            world.transact(node, call)
                else:
                    world.act(node, lambda records, moment, node=node, cid=cid:
                              node.machine.post_claim(records, cid))
        world.run()
        for node in self.bad:
            node.hoard = None
        end = world.now + DEMO.lifetime + DEMO.epoch + 2 * DEMO.dispute_window
        world.travel(end, tick=2 * MU)

    def check(self) -> None:
        world = self.world
        on = world.stage.ledger.functions
        self.count()
        label = f"{self.moves}"
        assert world.conserved(), label
        for node in (world.c, world.e, world.r):
            for cid in node.cids():
                status = on.channel(cid).call()[0]
                assert status in ((6,) if node not in self.bad else (5, 6)), (
                    f"{node.name}: status {status}, {type(node.wallet(cid)).__name__}, "
                    f"{node.reverted}, {label}")
        end = {name: world.stake(node) for name, node in world.nodes.items()}
        assert end["I"] >= self.start["I"], label
        if world.r not in self.bad:
            assert end["R"] >= self.start["R"] + sum(self.received.values()) * DELTA_R, label
        if world.c not in self.bad:
            floor = self.start["C"] - sum(self.sent.values()) * PRICE - self.paid_hidden
            assert end["C"] >= floor, label
        if world.e not in self.bad:
            claimed = {lock_of(m.unpack(one.pcmd, one.payload).wsk_c) for one in world.log
                       if one.source == "E" and one.pcmd == m.PayeeClaim.PCMD}
            got = sum(one.amount for _, one in world.e.records.scan(Table.PAYMENT)
                      if isinstance(one, pay.Transfer) and one.wpk_c in claimed)
            assert end["E"] >= self.start["E"] + got, label


@pytest.mark.parametrize("bad", ["", "C", "R", "E", "CR", "CE", "CRE"])
@pytest.mark.parametrize("seed", range(2))
def test_no_coalition_makes_money(world: World, bad: str, seed: int) -> None:
    walk = Walk(world, seed, bad)
    walk.play()
    walk.finish()
    walk.check()
    assert wallets.all_wallets(world.c.records)
