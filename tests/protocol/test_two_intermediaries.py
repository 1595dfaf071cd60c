# SPDX-License-Identifier: BSD-3-Clause
"""Parties with channels at two intermediaries: every step is with that of its own channel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from monetor_chain import statements
from monetor_chain.rehearsal import Rehearsal
from offchain.crypto.issuer import IssuerKey
from offchain.protocol import messages as m
from offchain.protocol.answering import Intermediary
from offchain.protocol.errors import ProtocolError
from offchain.protocol.intermediary import IntermediaryMachine
from offchain.protocol.outbox import Request
from offchain.protocol.records import Table
from offchain.protocol.wallet import EndUser, Idle, Settled
from offchain.protocol.watch_packages import export_answers
from tests.protocol.world import (
    CLIENT_DEPOSIT,
    DELTA_R,
    PAY_FEE,
    PAYEE_DEPOSIT,
    PAYEE_FUND,
    PRICE,
    RELAY_FUND,
    Node,
    Parcel,
    World,
    open_world,
)

VAULT = 10**7


class TwoIntermediaries(World):
    """A world with a second intermediary J, at which everybody can have channels as well."""

    def __init__(self, stage: Rehearsal, issuer: IssuerKey) -> None:
        super().__init__(stage, issuer)
        self.other_issuer = IssuerKey.generate()
        public, party = self.other_issuer.public, stage.party("authority_3")
        stage.enrich(party, VAULT)
        stage.approve(party)
        stage.send(stage.ledger.functions.deposit_vault(VAULT), party)
        stage.send(stage.ledger.functions.register_key(
            public.evm_encoding(), public.rest_hash()), party)
        ctx = statements.context(stage.chain_id, stage.ledger.address, public.key_hash)
        address = bytes.fromhex(party.address[2:])
        self.j = self._add("J", IntermediaryMachine(Intermediary(
            self.other_issuer, party.private_key, address, public.key_hash, ctx, self.domain)),
            party)
        for node in (self.c, self.e, self.r):
            node.machine.others = (replace(
                node.machine.user, issuer=public, intermediary=address, key_hash=public.key_hash,
                ctx=ctx),)

    def at_j(self, node: Node) -> EndUser:
        (found,) = node.machine.others
        assert isinstance(found, EndUser)
        return found

    def open_at_j(self, node: Node, **amounts: int) -> list[int]:
        before = set(node.cids())
        self.act(node, lambda records, moment: node.machine.open_group(
            records, moment, user=self.at_j(node), **amounts))
        self.run()
        return sorted(set(node.cids()) - before)

    def _answer(self, source: Node, request: Request) -> None:
        try:
            user = source.machine.user_for(source.records, request.conversation)
        except ProtocolError:
            return
        first, self.i = self.i, self.j if user.key_hash != self.key_hash else self.i
        try:
            pcmd, payload = self.request(request.pcmd, request.payload, source.name)
        finally:
            self.i = first
        self.wire.append(Parcel("reply", "I", source.name, (request.conversation, pcmd, payload)))

    def _function(self, node: Node, call: Any, *rest: Any) -> Any:
        first = self.issuer
        if hasattr(call, "cid") and self.j.records.get(
                Table.GROUP, (call.cid >> 8).to_bytes(31, "big")) is not None:
            self.issuer = self.other_issuer
        try:
            return super()._function(node, call, *rest)
        finally:
            self.issuer = first


@pytest.fixture(scope="module")
def opened() -> Any:
    world = open_world(Rehearsal(), IssuerKey.generate(), TwoIntermediaries)
    world.open_at_j(world.c, deposit=CLIENT_DEPOSIT, fund=0, count=2)
    world.open_at_j(world.r, deposit=0, fund=RELAY_FUND, count=2)
    world.open_at_j(world.e, deposit=PAYEE_DEPOSIT, fund=PAYEE_FUND, count=2)
    return world


@pytest.fixture
def world(opened: TwoIntermediaries) -> Iterator[TwoIntermediaries]:
    saved = opened.save()
    yield opened
    opened.load(saved)


def cids_at(world: TwoIntermediaries, node: Node) -> tuple[list[int], list[int]]:
    """Channels at I and at J."""
    found: tuple[list[int], list[int]] = ([], [])
    for cid in node.cids():
        at_j = node.machine.user_of(node.records, cid >> 8) is world.at_j(node)
        found[at_j].append(cid)
    return found


def test_sessions_at_both_at_once_end_with_exact_balances(world: TwoIntermediaries) -> None:
    at_i, at_j = (cids[0] for cids in cids_at(world, world.c))
    first, second = world.session(20, at_i), world.session(33, at_j)
    assert [len(list(one.records.scan(Table.SESSION))) for one in (world.i, world.j)] == [1, 1]
    world.close(second)
    world.close(first)
    assert world.c.balance(at_i) == CLIENT_DEPOSIT - 20 * PRICE
    assert world.c.balance(at_j) == CLIENT_DEPOSIT - 33 * PRICE
    relay_i, relay_j = cids_at(world, world.r)
    assert sorted(map(world.r.balance, relay_i)) == [0, 20 * DELTA_R]
    assert sorted(map(world.r.balance, relay_j)) == [0, 33 * DELTA_R]
    assert not world.c.complaints + world.r.complaints
    for node in (world.c, world.r, world.e):
        for group in {cid >> 8 for cid in node.cids()}:
            world.cash_out(node, group)
        assert all(isinstance(node.wallet(cid), Settled) for cid in node.cids())
    assert world.conserved()


def test_claims_at_both_are_taken_by_the_ledger(world: TwoIntermediaries) -> None:
    """Nobody cooperates: each claim is made under the key that its own channel is pinned to."""
    at_i, at_j = (cids[0] for cids in cids_at(world, world.c))
    world.session(5, at_i)
    world.session(7, at_j)
    world.i.alive = world.j.alive = False
    world.settle()
    assert not any(node.reverted for node in (world.c, world.r, world.e))
    amounts = {cid: world.c.wallet(cid).amount for cid in world.c.cids()}
    assert amounts[at_i] == CLIENT_DEPOSIT - 5 * PRICE
    assert amounts[at_j] == CLIENT_DEPOSIT - 7 * PRICE


def test_a_hidden_payment_stays_within_its_intermediary(world: TwoIntermediaries) -> None:
    payer, payee = cids_at(world, world.c)[1][0], cids_at(world, world.e)[1][0]
    first, world.i = world.i, world.j
    try:
        t_p = world.deadline()
    finally:
        world.i = first
    world.invoice(1_000, payer, payee, t_p=t_p)
    for _ in range(4):
        world.run()
        world.retry()
    assert world.c.balance(payer) == CLIENT_DEPOSIT - 1_000 - PAY_FEE
    assert world.e.balance(payee) == PAYEE_DEPOSIT + 1_000


def test_an_offer_is_taken_up_with_a_channel_at_the_sessions_own_intermediary(
        world: TwoIntermediaries) -> None:
    """And refused without one there, even if channels elsewhere are idle."""
    at_j = cids_at(world, world.c)[1]
    for cid in at_j:
        world.session(1, cid)
    relay_i, relay_j = cids_at(world, world.r)
    assert all(isinstance(world.r.wallet(cid), Idle) for cid in relay_i)
    assert not any(isinstance(world.r.wallet(cid), Idle) for cid in relay_j)
    more = world.open_at_j(world.c, deposit=CLIENT_DEPOSIT, fund=0, count=1)
    world.establish(world.setup(more[0]))
    assert "every channel of this relay is in a session" in world.r.complaints[-1]
    assert all(isinstance(world.r.wallet(cid), Idle) for cid in relay_i)


def test_an_offer_through_a_stranger_is_refused(world: TwoIntermediaries) -> None:
    terms_hash = world.setup(cids_at(world, world.c)[1][0])
    world.r.machine.others, saved = (), world.r.machine.others
    try:
        world.establish(terms_hash)
    finally:
        world.r.machine.others = saved
    assert "no channel at that intermediary" in world.r.complaints[-1]


def test_a_watcher_is_given_each_answer_under_its_own_key(world: TwoIntermediaries) -> None:
    answers = export_answers(world.c.records, world.c.machine.user_of, world.moment(),
                             lambda claim, not_after: bytes(65), {})
    keys = {one.cid: one.public_key for one in answers.values()}
    at_i, at_j = cids_at(world, world.c)
    assert {keys[cid] for cid in at_i} == {world.issuer.public.evm_encoding()}
    assert {keys[cid] for cid in at_j} == {world.other_issuer.public.evm_encoding()}


def test_conversations_name_their_intermediary_until_they_end(world: TwoIntermediaries) -> None:
    """All that is on the way when a party dies finds the right intermediary afterwards."""
    world.fault = lambda parcel: ()
    at_i, at_j = (cids[0] for cids in cids_at(world, world.c))
    wanted = {}
    for cid, key in ((at_i, world.key_hash), (at_j, world.at_j(world.c).key_hash)):
        wanted[b"session:" + world.start_setup(cid)] = key
    for user in (world.c.machine.user, world.at_j(world.c)):
        known = set(world.c.requests)
        world.act(world.c, lambda records, moment, user=user: world.c.machine.open_group(
            records, moment, deposit=1, fund=0, count=1, user=user))
        (fresh,) = set(world.c.requests) - known
        wanted[fresh] = user.key_hash
        world.act(world.c, lambda records, moment, user=user: world.c.machine.pay_query(user))
        wanted[b"pay-terms:" + user.key_hash] = user.key_hash
    group = at_j >> 8
    world.act(world.c, lambda records, moment: world.c.machine.cash_out(records, group))
    wanted[b"cash-out:" + group.to_bytes(31, "big")] = world.at_j(world.c).key_hash
    found = {name: world.c.machine.user_for(world.c.records, name).key_hash
             for name in world.c.requests}
    assert found == wanted
    assert {m.unpack(one.pcmd, one.payload).__class__ for one in world.c.requests.values()} == {
        m.NanoSetupRequest, m.GroupRequest, m.PayQuery, m.CashOutRequest}
