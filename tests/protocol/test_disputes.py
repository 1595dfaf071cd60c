# SPDX-License-Identifier: BSD-3-Clause
"""Somebody vanishes, posts what it revoked, comes late or claims too little: the real ledger
decides, and everybody honest has at least its floor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from monetor_chain.parameters import DEMO
from offchain.protocol import ledger as calls, messages as m, nano_pay, pay, wallet as wallets
from offchain.protocol.errors import ProtocolError
from offchain.protocol.establish import GroupPhase
from offchain.protocol.records import Table
from offchain.protocol.sessions import RelayPhase, client_session, relay_session
from offchain.protocol.wallet import Claiming, Idle, InSession, Settled
from tests.protocol.test_pay_rules import crt_held, take_secret
from tests.protocol.world import (
    CLIENT_DEPOSIT,
    DELTA_R,
    FEE,
    MU,
    PAY_FEE,
    PAYEE_DEPOSIT,
    PRICE,
    Node,
    World,
)

PAYMENTS = 20


def relay_cid(world: World, terms_hash: bytes) -> int:
    return relay_session(world.r.records, terms_hash).session.cid


def expiry(world: World, terms_hash: bytes) -> int:
    return client_session(world.c.records, terms_hash).session.terms.t_exp


def status(world: World, cid: int) -> int:
    return int(world.stage.ledger.functions.channel(cid).call()[0])


RESOLVED = 6


# --- Somebody vanishes


def test_the_client_vanishes(world: World) -> None:
    """The relay closes off chain; the intermediary asks for the client's channels."""
    before = world.stake(world.i)
    terms_hash = world.session(PAYMENTS)
    world.c.alive = False
    world.close_relay(terms_hash)
    for cid in world.c.cids():
        world.act(world.i, lambda records, moment, cid=cid: world.i.machine.request_close(
            records, cid))
    world.run()
    world.travel(world.now + DEMO.close_notice + 3 * MU, tick=MU)
    assert [status(world, cid) for cid in world.c.cids()] == [RESOLVED] * 2
    cid = relay_cid(world, terms_hash)
    assert world.r.balance(cid) == PAYMENTS * DELTA_R
    world.settle(cid)
    assert world.r.wallet(cid).amount == PAYMENTS * DELTA_R
    assert world.stake(world.i) >= before + PAYMENTS * FEE
    assert world.conserved()


def test_the_relay_vanishes(world: World) -> None:
    """What it never claimed stays with the client, which waits no longer than T_exp."""
    before = world.stake(world.i)
    terms_hash = world.session(PAYMENTS)
    world.r.alive = False
    world.travel(expiry(world, terms_hash) + 2 * MU, tick=MU)
    cid = world.c.cids()[0]
    assert world.c.balance(cid) == CLIENT_DEPOSIT
    assert not any(one.what == "claim-posted" for one in world.c.notes)
    for one in world.r.cids():
        world.act(world.i, lambda records, moment, one=one: world.i.machine.request_close(
            records, one))
    world.run()
    world.travel(world.now + DEMO.close_notice + 3 * MU, tick=MU)
    world.settle(cid)
    assert world.stake(world.i) >= before
    assert world.conserved()


def test_the_intermediary_vanishes(world: World) -> None:
    """Relay and client claim on the ledger; the registry binds one leg to the other."""
    terms_hash = world.session(PAYMENTS)
    cid, other = world.c.cids()[0], relay_cid(world, terms_hash)
    world.i.alive = False
    world.travel(expiry(world, terms_hash) + DEMO.dispute_window + 10 * MU, tick=MU // 2)
    assert world.r.wallet(other).amount == PAYMENTS * DELTA_R
    assert world.c.wallet(cid).amount == CLIENT_DEPOSIT - PAYMENTS * PRICE
    assert world.conserved()
    assert not [one for one in world.c.reverted + world.r.reverted if one[0] != "Resolve"]


@pytest.mark.parametrize("kind", [
    m.NanoSetupRequest, m.NanoSetupReveal, m.NanoEstablishRequest, m.NanoEstablishReveal,
    m.RelayCloseRequest, m.RelayCloseReveal, m.ClientCloseQuery, m.ClientCloseRequest,
    m.ClientCloseReveal])
@pytest.mark.parametrize("answers", [False, True])
def test_the_intermediary_vanishes_at_every_request(
        world: World, kind: type[Any], answers: bool) -> None:
    """Before it has taken the request, or after it, without answering."""
    cid = world.c.cids()[0]
    stakes = world.stake(world.c), world.stake(world.r)

    def fault(parcel: Any) -> tuple[Any, ...]:
        if parcel.kind == "request" and parcel.item.pcmd == kind.PCMD:
            if answers:
                world.request(parcel.item.pcmd, parcel.item.payload)
            world.i.alive = False
        return (parcel,) if world.i.alive or parcel.kind != "request" else ()

    world.fault = fault
    terms_hash = world.setup(cid)
    sent = 0
    if world.i.alive:
        world.establish(terms_hash)
    if world.i.alive:
        world.pay(terms_hash, PAYMENTS)
        sent = PAYMENTS
        world.close_relay(terms_hash)
    if world.i.alive:
        world.close_client(terms_hash)
    assert not world.i.alive
    world.travel(world.now + 4 * MU, tick=MU // 2)
    end = max(world.now, expiry(world, terms_hash)) if world.c.records.get(
        Table.SESSION, terms_hash) else world.now
    world.travel(end + DEMO.dispute_window + 8 * MU, tick=MU)
    world.settle()
    assert world.stake(world.r) >= stakes[1] + sent * DELTA_R
    assert world.stake(world.c) >= stakes[0] - sent * PRICE
    assert world.conserved()


def test_a_group_that_is_not_funded_is_taken_back(world: World) -> None:
    before = world.wealth(world.c)
    world.fault = lambda parcel: () if parcel.kind == "submit" and isinstance(
        parcel.item.call, calls.Fund) else (parcel,)
    (cid,) = world.open(world.c, deposit=5_000, fund=0, count=1)
    assert world.wealth(world.c) == before - 5_000
    world.travel(world.now + 5 * MU)
    assert world.wealth(world.c) == before
    assert world.c.wallet(cid) is None
    assert world.c.records.get(Table.GROUP, (cid >> 8).to_bytes(31, "big")).phase is GroupPhase.GONE


def test_a_channel_without_a_wallet_token_is_closed(world: World) -> None:
    """Funded, and then the intermediary says nothing: the first refund token stands."""
    world.fault = lambda parcel: () if parcel.kind == "request" and (
        parcel.item.pcmd == m.OpenedRequest.PCMD) else (parcel,)
    before = world.wealth(world.c)
    (cid,) = world.open(world.c, deposit=5_000, fund=0, count=1)
    world.travel(world.now + 5 * MU + DEMO.dispute_window + 2 * MU)
    assert world.wealth(world.c) == before
    assert isinstance(world.c.wallet(cid), Settled)


# --- Claims that do not get through


def test_a_claim_that_reverts_or_is_lost_is_posted_again(world: World) -> None:
    cid = world.c.cids()[0]
    lost = [0]

    def lose(parcel: Any) -> tuple[Any, ...]:
        if parcel.kind == "submit" and isinstance(parcel.item.call, calls.Refund) and lost[0] < 2:
            lost[0] += 1
            world.c.submissions.pop(parcel.item.key, None)
            return ()
        return (parcel,)

    world.fault = lose
    world.act(world.c, lambda records, moment: world.c.machine.post_claim(records, cid))
    world.run()
    assert isinstance(world.c.wallet(cid), Claiming)
    world.travel(world.now + 8 * MU + DEMO.dispute_window)
    assert world.c.wallet(cid).amount == CLIENT_DEPOSIT
    assert lost[0] == 2


def test_a_wallet_whose_claim_is_under_way_does_nothing_else(world: World) -> None:
    """A reply that comes after the claim must not make the session revoke what is posted."""
    terms_hash = world.session(PAYMENTS)
    cid = relay_cid(world, terms_hash)
    world.act(world.r, lambda records, moment: world.r.machine.nano_close(records, terms_hash))
    request = world.stop_before(m.RelayCloseRequest, world.r)
    reply = world.ask(request)
    world.act(world.r, lambda records, moment: world.r.machine.post_claim(records, cid))
    assert relay_session(world.r.records, terms_hash).phase is RelayPhase.ON_LEDGER
    assert not world.r.requests
    after = world.r.records.copy()
    try:
        outbox = world.r.machine.on_reply(after, world.moment(), b"session:" + terms_hash,
                                          *m.pack(reply))
    except ValueError:
        outbox = []
    assert not outbox, "the relay reveals its session's secret with its claim on the way"


def test_a_claimed_session_takes_no_payment(world: World) -> None:
    """The claim covers what was paid until then."""
    terms_hash = world.session(PAYMENTS)
    cid = relay_cid(world, terms_hash)
    world.act(world.i, lambda records, moment: world.i.machine.request_close(records, cid))
    world.run()
    assert status(world, cid) == 3
    world.pay(terms_hash)
    assert nano_pay.received(world.r.records, terms_hash) == PAYMENTS
    world.settle(cid)
    assert world.r.wallet(cid).amount == PAYMENTS * DELTA_R


def test_an_answered_request_to_close_keeps_everything(world: World) -> None:
    before = world.stake(world.c)
    terms_hash = world.session(PAYMENTS)
    for cid in world.c.cids():
        world.act(world.i, lambda records, moment, cid=cid: world.i.machine.request_close(
            records, cid))
    world.run()
    world.close_relay(terms_hash)
    world.settle(*world.c.cids())
    assert world.stake(world.c) == before - PAYMENTS * PRICE + 2 * DEMO.close_bond
    assert world.conserved()


def test_the_conditional_claim_gives_way_to_the_old_one_after_its_deadline(world: World) -> None:
    """The payee's machine slept over T_p: what it can still enforce is its balance before."""
    lock, secret, t_p = crt_held(world)
    cid = world.e.cids()[0]
    world.i.alive = False
    take_secret(world, lock, secret)
    world.e.alive = False
    world.jump(t_p + MU)
    world.e.alive = True
    world.follow(world.e)
    world.travel(t_p + DEMO.dispute_window + 6 * MU)
    assert world.e.wallet(cid).amount == PAYEE_DEPOSIT


# --- Counts


def test_the_client_refunds_low_after_the_relay_has_closed(world: World) -> None:
    before = world.stake(world.i)
    terms_hash = world.session(PAYMENTS)
    world.close_relay(terms_hash)
    cid = world.c.cids()[0]
    world.act(world.c, lambda records, moment: world.c.machine.claim_session(records, terms_hash))
    world.run()
    world.settle(cid, relay_cid(world, terms_hash))
    assert world.c.wallet(cid).amount == CLIENT_DEPOSIT - PAYMENTS * PRICE
    assert world.stake(world.i) >= before + PAYMENTS * FEE


def test_the_client_refunds_low_before_the_relay_closes(world: World) -> None:
    before = world.stake(world.i)
    terms_hash = world.session(PAYMENTS)
    cid = world.c.cids()[0]
    world.act(world.c, lambda records, moment: world.c.machine.claim_session(records, terms_hash))
    world.run()
    world.close_relay(terms_hash)
    world.settle(cid, relay_cid(world, terms_hash))
    assert world.c.wallet(cid).amount == CLIENT_DEPOSIT - PAYMENTS * PRICE
    assert world.stake(world.i) >= before + PAYMENTS * FEE


def test_the_client_refunds_low_and_the_relay_claims(world: World) -> None:
    before = world.stake(world.i)
    terms_hash = world.session(PAYMENTS)
    cid, other = world.c.cids()[0], relay_cid(world, terms_hash)
    world.act(world.c, lambda records, moment: world.c.machine.claim_session(records, terms_hash))
    world.act(world.r, lambda records, moment: world.r.machine.claim_session(records, terms_hash))
    world.run()
    world.settle(cid, other)
    assert world.c.wallet(cid).amount == CLIENT_DEPOSIT - PAYMENTS * PRICE
    assert world.r.wallet(other).amount == PAYMENTS * DELTA_R
    assert world.stake(world.i) >= before + PAYMENTS * FEE


def test_a_relay_that_claims_late_is_paid_by_nobody(world: World) -> None:
    """The client may have closed meanwhile: the relay's leg counts what came before T_exp."""
    before = world.stake(world.i)
    terms_hash = world.session(PAYMENTS)
    cid, other = world.c.cids()[0], relay_cid(world, terms_hash)
    world.r.alive = False
    world.travel(expiry(world, terms_hash) + 2 * MU, tick=MU)
    assert world.c.balance(cid) == CLIENT_DEPOSIT
    world.r.alive = True
    world.follow(world.r)
    world.tick()
    world.run()
    world.settle(cid, other)
    assert world.r.wallet(other).amount == 0
    assert world.c.wallet(cid).amount == CLIENT_DEPOSIT
    assert world.stake(world.i) >= before
    assert world.conserved()


def test_a_relay_without_answer_reveals_and_its_channel_survives(world: World) -> None:
    """The intermediary is away from T_exp − 2μ until after T_exp − μ."""
    terms_hash = world.session(PAYMENTS)
    t_exp, cid = expiry(world, terms_hash), relay_cid(world, terms_hash)
    world.travel(t_exp - 2 * MU - MU // 2, tick=MU)
    world.i.alive = False
    world.travel(t_exp - MU + 2)
    assert world.stage.ledger.functions.claims(terms_hash).call() == [PAYMENTS, PAYMENTS]
    world.i.alive = True
    world.follow(world.i)
    world.travel(t_exp + 2 * MU)
    assert world.r.balance(cid) == PAYMENTS * DELTA_R
    assert world.c.balance(world.c.cids()[0]) == CLIENT_DEPOSIT - PAYMENTS * PRICE
    assert not any(one.what == "claim-posted" for one in world.r.notes)


@pytest.mark.parametrize("after_a_look", [0, 1])
def test_a_reveal_that_takes_a_whole_margin_is_in_time(world: World, after_a_look: int) -> None:
    """Deadlines are looked at every quarter of the margin, in the worst case just too early."""
    terms_hash = world.session(PAYMENTS)
    t_exp = expiry(world, terms_hash)
    world.i.alive = False
    sent: list[int] = []

    def fault(parcel: Any) -> tuple[Any, ...]:
        if parcel.kind == "submit" and isinstance(parcel.item.call, calls.Reveal):
            sent.append(world.now)
            return ()
        return (parcel,)

    world.fault = fault
    world.jump(t_exp - 2 * MU)
    world.tick()
    for quarter in range(5):
        world.jump(t_exp - 2 * MU + quarter * MU // 4 - 1 + after_a_look)
        world.tick()
        world.run()
    assert sent and sent[0] <= t_exp - MU


def test_a_payees_claim_that_takes_a_whole_margin_is_in_time(world: World) -> None:
    lock, secret, t_p = crt_held(world)
    world.i.alive = False
    sent: list[int] = []

    def fault(parcel: Any) -> tuple[Any, ...]:
        if parcel.kind == "submit" and isinstance(parcel.item.call, calls.RefundConditional):
            sent.append(world.now)
        return ()

    world.fault = fault
    world.jump(t_p - MU - MU // 4 - 1)
    take_secret(world, lock, secret)
    for quarter in range(2):
        world.jump(t_p - MU - 1 + quarter * MU // 4)
        world.look(world.e)
        world.run()
    assert sent and sent[0] <= t_p - MU


# --- Every claim ever held


def play_session(world: World) -> bytes:
    terms_hash = world.session(PAYMENTS, world.c.cids()[0])
    world.close(terms_hash)
    return terms_hash


def hoarding(world: World, node: Node, play: Callable[[World], Any]) -> list[Any]:
    node.hoard = {}
    world._collect(node)
    play(world)
    found = list(node.hoard.values())
    node.hoard = None
    return found


def channel(call: Any) -> int:
    return int(call.cid)


@pytest.mark.parametrize("who", ["C", "R"])
@pytest.mark.parametrize("when", ["at once", "before expiry", "after expiry"])
def test_nothing_that_was_revoked_is_worth_anything(world: World, who: str, when: str) -> None:
    """After a session, its user posts every claim that it ever held on that channel."""
    node = world.nodes[who]
    floor = world.stake(world.i) + PAYMENTS * FEE
    held: dict[str, bytes] = {}
    claims = hoarding(world, node, lambda world: held.update(th=play_session(world)))
    cid = world.c.cids()[0] if who == "C" else relay_cid(world, held["th"])
    t_exp = expiry(world, held["th"])
    live = wallets.claim(node.records, node.wallet(cid))
    old = [one for one in claims if channel(one) == cid]
    assert len({type(one) for one in old}) == 2 and len(old) >= 4
    if when == "before expiry":
        world.travel(t_exp - 1, tick=2 * MU)
    elif when == "after expiry":
        world.travel(t_exp + 1, tick=2 * MU)
    for call in old:
        saved = world.save()
        assert world.transact(node, call), node.reverted
        world.run()
        mine = (getattr(call, "wpk", getattr(call, "nwpk", None)), getattr(call, "balance", 0))
        if mine == (live.wpk, live.balance):
            world.settle(cid)
            assert node.wallet(cid).amount == live.balance
        else:
            assert status(world, cid) == RESOLVED, f"{type(call).__name__} stands"
            assert node.wallet(cid).amount == 0
        others = world.c.cids()[0] if who == "R" else relay_cid(world, held["th"])
        world.settle(others)
        assert world.stake(world.i) >= floor
        assert world.conserved()
        world.load(saved)


@pytest.mark.parametrize("who", ["C", "E"])
def test_nothing_that_a_payment_revoked_is_worth_anything(world: World, who: str) -> None:
    node, other = world.nodes[who], world.nodes["E" if who == "C" else "C"]
    cid, amount = node.cids()[0], 7_000
    floor = world.stake(world.i) + PAY_FEE
    claims = hoarding(world, node, lambda world: world.transfer(amount))
    live = wallets.claim(node.records, node.wallet(cid))
    for call in [one for one in claims if channel(one) == cid]:
        saved = world.save()
        assert world.transact(node, call), node.reverted
        world.run()
        if call.wpk == live.wpk:
            world.settle(cid)
            assert node.wallet(cid).amount == live.balance
        else:
            assert status(world, cid) == RESOLVED
        world.settle(other.cids()[0])
        assert world.stake(world.i) >= floor
        assert world.conserved()
        world.load(saved)


@pytest.mark.parametrize("who", ["C", "R"])
def test_claims_posted_in_the_middle_of_a_session(world: World, who: str) -> None:
    """At every second step its user posts a claim that it holds or held, and plays on."""
    node = world.nodes[who]
    tried = 0
    payments = 3
    for step in range(1, 20 + payments, 2):
        for pick in ((0,) if step % 4 == 1 else (-1,)):
            saved = world.save()
            floor = world.stake(world.i)
            sent_floor = world.stake(world.c), world.stake(world.r)
            posted: list[Any] = []

            def hook(step: int = step, pick: int = pick, posted: list[Any] = posted) -> None:
                if world.steps == step and node.hoard:
                    mine = [one for one in node.hoard.values() if channel(one) in cids()]
                    if mine:
                        posted.append(mine[pick])
                        world.transact(node, mine[pick])

            def cids() -> list[int]:
                return [world.c.cids()[0], *world.r.cids()]

            node.hoard = {}
            world._collect(node)
            world.on_step = hook
            terms_hash = world.setup()
            sent = received = 0
            try:
                world.establish(terms_hash)
                for _ in range(payments):
                    world.pay(terms_hash)
                    sent += 1
            except ProtocolError:
                pass
            received = nano_pay.received(world.r.records, terms_hash)
            for close in (world.close_relay, world.close_client):
                try:
                    close(terms_hash)
                except ProtocolError:
                    continue
            world.on_step = lambda: None
            node.hoard = None
            world.settle(world.c.cids()[0], *world.r.cids())
            tried += bool(posted)
            label = f"step {step}, {type(posted[0]).__name__ if posted else None}"
            assert world.stake(world.i) >= floor, label
            if who == "C":
                assert world.stake(world.r) >= sent_floor[1] + received * DELTA_R, label
            else:
                assert world.stake(world.c) >= sent_floor[0] - sent * PRICE, label
            assert world.conserved(), label
            world.load(saved)
    assert tried > 7


def test_late_and_early_combinations_of_both_legs(world: World) -> None:
    """Client and relay together, around T_exp: every order of claims, reveals and closes."""
    floor = world.stake(world.i)
    terms_hash = world.session(PAYMENTS)
    cid, other = world.c.cids()[0], relay_cid(world, terms_hash)
    t_exp = expiry(world, terms_hash)
    best = wallets.proved(world.r.records, terms_hash)
    terms = relay_session(world.r.records, terms_hash).session.terms
    c_claim = wallets.claim(world.c.records, InSession(cid, terms_hash))
    r_full = wallets.claim(world.r.records, InSession(other, terms_hash))
    assert isinstance(r_full, calls.NanoRefund)
    r_low = replace(r_full, k=0, hc=bytes(32), path=())
    reveal = calls.Reveal(terms, best.k, best.hc, best.path)
    for early in (t_exp - MU - 1, t_exp):
        for late in (t_exp + 1, t_exp + MU):
            for first, second in (((world.c, c_claim), (world.r, r_full)),
                                  ((world.r, r_low), (world.c, reveal)),
                                  ((world.c, c_claim), (world.r, r_low)),
                                  ((world.r, reveal), (world.c, c_claim))):
                saved = world.save()
                world.jump(early - 1)
                world.transact(*first)
                world.run()
                world.jump(late)
                world.run()
                world.transact(*second)
                world.run()
                for close in (world.close_relay, world.close_client):
                    try:
                        close(terms_hash)
                    except ProtocolError:
                        continue
                world.settle(cid, other)
                assert world.stake(world.i) >= floor, (early - t_exp, late - t_exp, first, second)
                assert world.conserved()
                world.load(saved)


def test_a_wallet_idle_again_after_a_refusal_is_whole(world: World) -> None:
    world.parameters = {DEMO.epoch_at(world.now): replace(DEMO, price=101)}
    cid = world.c.cids()[0]
    terms_hash = world.start_setup(cid)
    world.parameters.clear()
    world.run()
    assert isinstance(world.c.wallet(cid), Idle)
    assert world.c.records.get(Table.SESSION, terms_hash) is None
    world.close(world.session(2, cid))
    assert world.c.balance(cid) == CLIENT_DEPOSIT - 2 * PRICE
    assert pay.smallest_window(world.i.records) == DEMO.dispute_window
