# SPDX-License-Identifier: BSD-3-Clause
"""Moves of the game that need no forgery: the protocol's own, the network's, time, and what a
coalition does with its disks and with every claim that it ever held."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from monetor_chain.parameters import DEMO
from offchain.protocol import (
    ledger as calls,
    messages as m,
    pay,
    wallet as wallets,
)
from offchain.protocol.records import Table
from offchain.protocol.sessions import (
    ClientPhase,
    RelayPhase,
)
from offchain.protocol.wallet import Paying
from tests.protocol.balance_machine import Balance, move
from tests.protocol.board import CLOSING, CLOSING_SESSION, OPEN, REQUESTED
from tests.protocol.world import MU, PAY_FEE, TICK, Node

AT = st.integers(0, 11)
FEW = st.sampled_from((99, 99, 0, 1, 2, 3, 5))
"""How many messages are delivered right after a move; 99 for all."""
TIMES = st.sampled_from((1, 3, 15, 16, 20, DEMO.n))
USER = st.sampled_from("CRE")
OFFSETS = (-2 * MU - 1, -2 * MU, -MU - 1, -MU, -1, 0, 1, 2, MU, MU + 1, 2 * MU + 1, 4 * MU + 1)
"""Times around T_exp, T_p and deadlines, in seconds."""


class Moves(Balance):
    """Everybody's moves, and those of a coalition that tells no lies."""

    def deliver_some(self, few: int) -> None:
        if few == 99:
            self.world.run()
        for _ in range(few if few != 99 else 0):
            if self.world.wire:
                self.world.deliver()

    # --- The protocol's, by everybody's machines

    @move(at=AT, few=FEW)
    def nano_setup(self, at: int, few: int) -> None:
        c = self.world.c
        cid = self.pick(self.idle(c) if c.alive else (), at)
        self.world.start_setup(cid)
        self.deliver_some(few)

    @move(at=AT, few=FEW)
    def nano_offer(self, at: int, few: int) -> None:
        c = self.world.c
        self.need(c.alive)
        self.world.offer(self.pick(self.sessions(c, ClientPhase.READY), at))
        self.deliver_some(few)

    @move(at=AT, times=TIMES)
    def nano_pay(self, at: int, times: int) -> None:
        c = self.world.c
        self.need(c.alive)
        self.world.pay(self.pick(self.sessions(c, ClientPhase.ACTIVE), at), times)

    @move(at=AT, few=FEW)
    def nano_close_r(self, at: int, few: int) -> None:
        r = self.world.r
        key = self.pick(self.sessions(r, RelayPhase.ACTIVE) if r.alive else (), at)
        self.world.act(r, lambda records, moment: r.machine.nano_close(records, key))
        self.deliver_some(few)

    @move(at=AT, few=FEW)
    def nano_close_c(self, at: int, few: int) -> None:
        c = self.world.c
        key = self.pick(self.sessions(c, ClientPhase.READY, ClientPhase.OFFERED,
                                      ClientPhase.ACTIVE) if c.alive else (), at)
        self.world.act(c, lambda records, moment: c.machine.nano_close(records, key))
        self.deliver_some(few)

    @move(at=AT, upto=st.integers(1, 4), times=TIMES)
    def session(self, at: int, upto: int, times: int) -> None:
        """A session up to the offer, the payments, the relay's or the client's close."""
        world = self.world
        self.need(world.c.alive and world.r.alive and world.i.alive)
        cid = self.pick(self.idle(world.c), at)
        key = world.setup(cid)
        self.need(key in self.sessions(world.c, ClientPhase.READY))
        world.establish(key)
        if upto > 1 and key in self.sessions(world.c, ClientPhase.ACTIVE):
            world.pay(key, times)
        if upto > 2 and key in self.sessions(world.r, RelayPhase.ACTIVE):
            world.close_relay(key)
        if upto > 3 and key in self.sessions(world.c, ClientPhase.ACTIVE):
            world.close_client(key)

    @move(at=AT, to=AT, amount=st.sampled_from((0, 700, 9_000, 40_000)), few=FEW)
    def pay(self, at: int, to: int, amount: int, few: int) -> None:
        world = self.world
        cid = self.pick([one for one in self.idle(world.c)
                         if world.c.balance(one) >= amount + PAY_FEE], at)
        self.need(world.c.alive and world.e.alive)
        target = self.pick(self.idle(world.e), to)
        asked = m.pack(m.PayQuery())
        self.need(world.would(*asked) is None)
        world.invoice(amount, cid, target)
        self.deliver_some(few)
        if few == 99:
            for _ in range(3):
                world.retry()

    @move(who=USER)
    def cash_out(self, who: str) -> None:
        node = self.node(who)
        self.need(node.alive and self.idle(node))
        self.world.cash_out(node, self.idle(node)[0] >> 8)

    @move(who=USER, at=AT, few=FEW)
    def give_up(self, who: str, at: int, few: int) -> None:
        """Post a channel's live claim, whatever is under way: but an honest payee does not let a
        payer reveal for nothing."""
        node = self.node(who)
        self.need(node.alive)
        cid = self.pick([one for one in node.cids() if self.world.status(one) == OPEN and not (
            who == "E" and not self.is_bad("E") and isinstance(node.wallet(one), Paying))], at)
        self.world.act(node, lambda records, moment: node.machine.post_claim(records, cid))
        self.deliver_some(few)

    @move(at=AT)
    def request_close(self, at: int) -> None:
        """I asks somebody to close."""
        world = self.world
        self.need(world.i.alive)
        cid = self.pick([one for node in self.users() for one in node.cids()
                         if world.status(one) == OPEN], at)
        world.act(world.i, lambda records, moment: world.i.machine.request_close(records, cid))
        world.run()

    @move()
    def retry(self) -> None:
        """Every outstanding request goes out again."""
        self.need(any(node.requests for node in self.users() if node.alive))
        self.world.retry()

    # --- The network

    @move(at=AT)
    def deliver(self, at: int) -> None:
        """Any parcel first."""
        wire = self.world.wire
        parcel = self.pick(wire, at)
        wire.remove(parcel)
        wire.appendleft(parcel)
        self.world.deliver()

    @move(at=AT)
    def drop(self, at: int) -> None:
        """Transactions are not lost, only late: a node has them."""
        wire = self.world.wire
        wire.remove(self.pick([one for one in wire if one.kind != "submit"], at))

    @move(at=AT)
    def duplicate(self, at: int) -> None:
        wire = self.world.wire
        wire.append(self.pick(wire, at))

    @move(at=st.integers(0, 200))
    def replay(self, at: int) -> None:
        """Anything but a transaction that was ever on the wire, once more."""
        self.world.wire.append(self.pick([one for one in self.seen if one.kind != "submit"], at))
        self.world.run()

    @move(at=AT)
    def slow(self, at: int) -> None:
        """A transaction takes its time, half a margin."""
        wire = self.world.wire
        parcel = self.pick([one for one in wire if one.kind == "submit"], at)
        self.world.hold(parcel, self.world.now + MU // 2)

    @move(who=st.sampled_from("CREI"))
    def lag(self, who: str) -> None:
        """Blocks come late, by a quarter of a margin."""
        node = self.node(who)
        self.need(node.follows and node.alive)
        self.world.lag(node, self.world.now + MU // 4)

    @move(who=st.sampled_from("CREI"))
    def crash(self, who: str) -> None:
        self.need(self.node(who).alive)
        self.world.crash(self.node(who))

    # --- Time

    def instants(self) -> list[int]:
        """T_exp, T_p and deadlines that there are."""
        world = self.world
        found = [terms.t_exp for terms, _ in self.floors.chains.values()]
        for node in (world.c, world.e):
            found += [one.t_p for _, one in node.records.scan(Table.PAYMENT)
                      if isinstance(one, pay.Transfer)]
        found += [world.deadline_of(cid) for node in self.users() for cid in node.cids()
                  if world.status(cid) in (REQUESTED, CLOSING, CLOSING_SESSION)]
        return sorted(set(found))

    @move(at=AT, offset=st.sampled_from(OFFSETS))
    def wait_until(self, at: int, offset: int) -> None:
        """Be some seconds before or after T_exp, T_p or a deadline."""
        until = self.pick(self.instants(), at) + offset
        self.need(until > self.world.now)
        self.world.travel(until)

    @move(seconds=st.sampled_from((1, TICK, MU, 2 * MU + 1, DEMO.epoch)))
    def wait(self, seconds: int) -> None:
        self.world.travel(self.world.now + seconds)

    # --- The coalition: silence, old disks, every claim ever held

    @move(who=st.sampled_from("CREI"))
    def be_silent(self, who: str) -> None:
        """Or speak again."""
        self.need(self.is_bad(who))
        node = self.node(who)
        node.alive = not node.alive
        if node.alive and node.follows:
            self.world.follow(node)

    @move(who=USER, at=AT)
    def go_back(self, who: str, at: int) -> None:
        """Restore an old disk."""
        self.need(self.is_bad(who))
        node = self.node(who)
        node.records = self.pick(self.disks[who], at).copy()
        node.requests.clear()
        node.submissions.clear()

    @move(who=USER, at=st.integers(0, 60), forget=st.booleans())
    def post(self, who: str, at: int, forget: bool) -> None:
        """Any claim that it ever held; perhaps its machine plays on as if nothing had happened."""
        self.need(self.is_bad(who))
        node = self.node(who)
        call = self.pick([one for one in self.held(node)
                          if self.world.status(one.cid) in (OPEN, REQUESTED)], at)
        before = node.records.copy(), node.follows
        if forget:
            node.follows = False
        self.posted(node, call)
        if forget:
            node.backlog.clear()
            node.records, node.follows = before

    @move(at=AT, what=st.sampled_from(("setup", "establish", "close R", "close C", "pay", "paid")),
          few=st.integers(0, 9), which=st.sampled_from((0, 0, 1, -1)))
    def post_amid(self, at: int, what: str, few: int, which: int) -> None:
        """In the middle of a step a claim of its channel goes to the ledger, the newest first, and
        the party plays on as if it had not."""
        world = self.world
        c, r, e = world.c, world.r, world.e
        who = {"setup": "C", "close C": "C", "pay": "C", "paid": "E"}.get(what, "R")
        self.need(self.is_bad(who), c.alive, r.alive, e.alive, world.i.alive)
        node = self.node(who)
        if what in ("pay", "paid"):
            source, target = self.pick(self.idle(c), at), self.pick(self.idle(e), at)
            amount = min(c.balance(source) - PAY_FEE, 40_000)
            self.need(amount >= 0, world.would(*m.pack(m.PayQuery())) is None)
            cid = source if what == "pay" else target
            world.invoice(amount, source, target)
        elif what == "setup":
            cid = self.pick(self.idle(c), at)
            world.start_setup(cid)
        elif what == "establish":
            known = set(self.sessions(r))
            world.offer(self.pick(self.sessions(c, ClientPhase.READY), at))
            self.deliver_some(1)
            cid = wallets.session_of(r.records, self.pick(
                set(self.sessions(r)) - known, 0)).cid
        else:
            phases = ((RelayPhase.ACTIVE,) if who == "R"
                      else (ClientPhase.READY, ClientPhase.OFFERED, ClientPhase.ACTIVE))
            key = self.pick(self.sessions(node, *phases), at)
            cid = wallets.session_of(node.records, key).cid
            if who == "R":
                world.act(r, lambda records, moment: r.machine.nano_close(records, key))
            else:
                world.act(c, lambda records, moment: c.machine.nano_close(records, key))
        mine = [one for one in self.held(node) if one.cid == cid]
        self.deliver_some(few)
        if mine and world.status(cid) in (OPEN, REQUESTED):
            node.follows = False
            self.posted(node, mine[(len(mine) - 1 - which) % len(mine)])
            node.backlog.clear()
            node.follows = True
        for _ in range(3):
            world.run()
            world.retry()

    @move(bad="C", at=AT, to=AT)
    def move_away(self, at: int, to: int) -> None:
        """All of a wallet to E, so that what its channel was is worth more than what it is."""
        world = self.world
        self.need(world.c.alive, world.e.alive, world.i.alive)
        cid, target = self.pick(self.idle(world.c), at), self.pick(self.idle(world.e), to)
        amount = min(world.c.balance(cid) - PAY_FEE, 80_000 - world.e.balance(target))
        self.need(amount > 0, world.would(*m.pack(m.PayQuery())) is None)
        world.invoice(amount, cid, target)
        for _ in range(3):
            world.run()
            world.retry()

    def posted(self, node: Node, call: Any) -> None:
        if not self.world.transact(node, call):
            self.tally.refused["post", node.reverted[-1][1]] += 1

    @move(bad="C", at=AT, k=st.sampled_from((0, 1, 16, DEMO.n)))
    def post_nano_refund(self, at: int, k: int) -> None:
        """A session of the coalition's at a count of its choice."""
        options = [(node, one) for node in self.users() if node.name in self.bad
                   for one in self.held(node) if isinstance(one, calls.NanoRefund)
                   and self.world.status(one.cid) in (OPEN, REQUESTED)]
        node, call = self.pick(options, at)
        chain = self.chain(call.terms.nano_terms().hash())
        self.need(chain)
        assert chain is not None
        self.posted(node, replace(call, k=k, hc=chain.value(k), path=chain.path(k)))

    @move(bad="C", at=AT, k=st.sampled_from((1, 15, 16, 17, DEMO.n)))
    def reveal(self, at: int, k: int) -> None:
        """Payments on the ledger, perhaps before their session exists."""
        key = self.pick(self.floors.chains, at)
        chain = self.chain(key)
        assert chain is not None
        self.posted(self.world.c, calls.Reveal(
            self.floors.chains[key][0], k, chain.value(k), chain.path(k)))

    @move(bad="C", at=AT, how=st.sampled_from(("n + 1", "another position", "other terms")))
    def reveal_wrong(self, at: int, how: str) -> None:
        """The ledger takes no count that is not proved."""
        key = self.pick(self.floors.chains, at)
        chain, terms = self.chain(key), self.floors.chains[key][0]
        assert chain is not None
        n = terms.n
        call = {
            "n + 1": calls.Reveal(terms, n + 1, chain.value(n), chain.path(n)),
            "another position": calls.Reveal(terms, n, chain.value(16), chain.path(16)),
            "other terms": calls.Reveal(
                replace(terms, n=n // 2), 17, chain.value(17), chain.path(17)),
        }[how]
        known = self.world.stage.ledger.functions.claims(key).call()[0]
        self.need(known < call.k or how == "other terms")
        self.reverts(f"reveal_wrong {how}", self.world.c, call, "preimages: not on the chain")

    # Hypothesis chooses among all moves alike; what carries a play on shall be made more often.
    session_2, session_3, pay_2, pay_3 = session, session, pay, pay
    nano_setup_2, nano_offer_2, nano_pay_2 = nano_setup, nano_offer, nano_pay
    nano_close_r_2, nano_close_c_2, deliver_2, retry_2 = nano_close_r, nano_close_c, deliver, retry
    post_2, wait_until_2, move_away_2 = post, wait_until, move_away
    post_amid_2, post_amid_3, post_amid_4 = post_amid, post_amid, post_amid
