# SPDX-License-Identifier: BSD-3-Clause
"""Hidden payments and cash-out: what the intermediary, payer and payee insist on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from monetor_chain.parameters import DEMO
from monetor_chain.statements import Role
from offchain.protocol import ledger as calls, messages as m, pay, wallet as wallets
from offchain.protocol.errors import ProtocolError, RefusalCode
from offchain.protocol.outbox import Request
from offchain.protocol.records import Table
from offchain.protocol.wallet import CashingOut, Paying
from tests.protocol import forgeries
from tests.protocol.test_session_rules import answered, refused
from tests.protocol.world import (
    CLIENT_DEPOSIT,
    MU,
    PAY_FEE,
    PAYEE_DEPOSIT,
    PAYEE_FUND,
    TICK,
    World,
)

AMOUNT = 3_000


def legs(world: World, amount: int = AMOUNT, **options: Any) -> tuple[Any, Any]:
    """Valid requests of both sides of one payment, held back."""
    lock = world.invoice(amount, world.c.cids()[0], world.e.cids()[0], **options)
    request = next(one for one in world.c.requests.values())
    payer = m.unpack(request.pcmd, request.payload)
    tell = next(one for one in world.wire if one.kind == "tell")
    world.wire.clear()
    world.act(world.e, lambda records, moment: world.e.machine.receive(
        records, moment, world.e.receiving, m.unpack(tell.item.pcmd, tell.item.payload)))
    payee = world.held(world.e)
    assert payer.wpk == lock
    return payer, payee


def joined(world: World, amount: int = AMOUNT) -> tuple[Any, Any]:
    """Both legs are at the intermediary; neither reply has been delivered."""
    payer, payee = legs(world, amount)
    assert refused(world.ask(payer)) is RefusalCode.NOT_YET
    answered(world.ask(payee))
    return payer, payee


def lose(world: World, *kinds: type[Any]) -> None:
    """Words of these kinds between payer and payee get lost."""
    pcmds = {kind.PCMD for kind in kinds}
    world.fault = lambda parcel: (
        () if parcel.kind == "tell" and parcel.item.pcmd in pcmds else (parcel,))


# --- Joining the legs


def test_waiting_marks_nothing(world: World) -> None:
    payer, payee = legs(world)
    assert refused(world.ask(payer)) is RefusalCode.NOT_YET
    assert refused(world.ask(payer)) is RefusalCode.NOT_YET
    answered(world.ask(payee))
    assert answered(world.ask(payer)) == answered(world.ask(payer))


def test_both_orders_join(world: World) -> None:
    payer, payee = legs(world)
    assert refused(world.ask(payee)) is RefusalCode.NOT_YET
    answered(world.ask(payer))
    answered(world.ask(payee))


def test_a_joined_wallet_is_spent(world: World) -> None:
    payer, payee = joined(world)
    for request in (payer, payee):
        changed = replace(request, d_rt=request.d_pt)
        assert refused(world.ask(changed)) is RefusalCode.REUSED
    for node in (world.c, world.e):
        cid = node.cids()[0]
        wallets.put(node.records, cid, node.wallet(cid).idle)
        node.requests.clear()
    world.start_setup(world.c.cids()[0])
    assert refused(world.ask(world.held(world.c))) is RefusalCode.REUSED
    world.act(world.e, lambda records, moment: world.e.machine.cash_out(
        records, world.e.cids()[0] >> 8))
    assert refused(world.ask(world.held(world.e))) is RefusalCode.REUSED


def test_one_wallet_does_not_pay_itself(world: World) -> None:
    """One wallet on both legs would keep its balance and gain the amount."""
    payer, _ = legs(world)
    (request,) = (one for one in forgeries.pay_oneself(
        world.c.records.copy(), world.moment(), world.c, payer) if isinstance(one, Request))
    payee = m.unpack(request.pcmd, request.payload)
    assert payee.nonce == payer.nonce and payee.v == payer.v
    assert refused(world.ask(payer)) is RefusalCode.NOT_YET
    assert refused(world.ask(payee)) is RefusalCode.REUSED


def test_the_payee_names_the_payer_and_the_deadline(world: World) -> None:
    payer, payee = legs(world)
    assert refused(world.ask(payer)) is RefusalCode.NOT_YET
    # Both are in the proof, so they cannot be changed afterwards.
    assert refused(world.ask(replace(payee, wpk_c=payer.wpk + 1))) is RefusalCode.PROOF
    assert refused(world.ask(replace(payee, t_p=payer.t_p - 1))) is RefusalCode.PROOF


@pytest.mark.parametrize("what", ["wpk_c", "t_p"])
def test_legs_that_disagree_do_not_join(world: World, what: str) -> None:
    payer, _ = legs(world)
    transfer = pay.transfer(world.e.records, payer.wpk)
    cid = world.e.cids()[1]
    invoice = m.PayInvoice(AMOUNT, transfer.s, transfer.t_p, payer.wpk)
    wrong = replace(invoice, wpk_c=payer.wpk ^ 1) if what == "wpk_c" else replace(
        invoice, t_p=invoice.t_p - 1)
    world.e.records.delete(Table.PAYMENT, payer.wpk.to_bytes(31, "big"))
    world.e.requests.clear()
    world.act(world.e, lambda records, moment: world.e.machine.receive(
        records, moment, cid, wrong))
    other = world.held(world.e)
    assert refused(world.ask(payer)) is RefusalCode.NOT_YET
    assert refused(world.ask(other)) is RefusalCode.TERMS


def test_the_amount_is_the_payers(world: World) -> None:
    """A payee that asks for more shows another V and finds no partner."""
    payer, _ = legs(world)
    transfer = pay.transfer(world.e.records, payer.wpk)
    world.e.records.delete(Table.PAYMENT, payer.wpk.to_bytes(31, "big"))
    world.e.requests.clear()
    world.act(world.e, lambda records, moment: world.e.machine.receive(
        records, moment, world.e.cids()[1],
        m.PayInvoice(AMOUNT + 1, transfer.s, transfer.t_p, payer.wpk)))
    greedy = world.held(world.e)
    assert refused(world.ask(payer)) is RefusalCode.NOT_YET
    assert refused(world.ask(greedy)) is RefusalCode.NOT_YET
    assert refused(world.ask(replace(greedy, v=payer.v))) is RefusalCode.PROOF


@pytest.mark.parametrize("late", [0, 1])
def test_the_deadline_is_bound_by_the_shortest_dispute_window(world: World, late: int) -> None:
    """A token posted after the locks were read must not be resolved before T_p."""
    deadline = world.deadline()
    assert deadline == world.now + DEMO.dispute_window - MU
    payer, payee = (replace(one, t_p=deadline + late) if late else one for one in legs(world))
    if late:
        assert refused(world.ask(payer)) is RefusalCode.TERMS
        assert refused(world.ask(payee)) is RefusalCode.TERMS
    else:
        assert refused(world.ask(payer)) is RefusalCode.NOT_YET
        answered(world.ask(payee))


def test_too_short_windows_allow_no_hidden_payment(world: World) -> None:
    world.i.records.put(Table.META, b"window:" + (4 * MU - 1).to_bytes(8, "big"),
                        pay.WindowCount(1))
    assert refused(world.ask(m.PayQuery())) is RefusalCode.STATE
    world.i.records.put(Table.META, b"window:" + (4 * MU - 1).to_bytes(8, "big"),
                        pay.WindowCount(0))
    world.i.records.delete(Table.META, b"window:" + (4 * MU - 1).to_bytes(8, "big"))
    world.i.records.put(Table.META, b"window:" + (4 * MU).to_bytes(8, "big"), pay.WindowCount(1))
    assert answered(world.ask(m.PayQuery())).t_p == world.now + 3 * MU


def test_windows_of_resolved_channels_do_not_count(world: World) -> None:
    cid = world.c.cids()[0]
    before = world.i.records.get(Table.META, b"window:" + DEMO.dispute_window.to_bytes(8, "big"))
    world.act(world.c, lambda records, moment: world.c.machine.post_claim(records, cid))
    world.run()
    world.travel(world.now + DEMO.dispute_window + 2 * MU)
    world.cash_out(world.e, world.e.cids()[0] >> 8)
    after = world.i.records.get(Table.META, b"window:" + DEMO.dispute_window.to_bytes(8, "big"))
    assert before.channels - after.channels == 3


@pytest.mark.parametrize(("before", "accepted"), [(2 * MU + 1, True), (2 * MU, False)])
def test_legs_come_two_margins_before_the_deadline(
        world: World, before: int, accepted: bool) -> None:
    payer, _ = legs(world)
    world.jump(payer.t_p - before)
    assert refused(world.ask(payer)) is (
        RefusalCode.NOT_YET if accepted else RefusalCode.TOO_LATE)


@pytest.mark.parametrize("who", ["C", "E"])
def test_a_wallet_that_is_on_the_ledger_does_not_pay(world: World, who: str) -> None:
    node = world.nodes[who]
    claim = wallets.claim(node.records, node.wallet(node.cids()[0]))
    payer, payee = legs(world)
    own, other = (payer, payee) if who == "C" else (payee, payer)
    assert world.transact(node, claim)
    assert refused(world.ask(own)) is RefusalCode.LOCK
    assert refused(world.ask(other)) is RefusalCode.NOT_YET


@pytest.mark.parametrize("who", ["C", "E"])
def test_locks_are_read_again_when_the_second_leg_comes(world: World, who: str) -> None:
    node = world.nodes[who]
    claim = wallets.claim(node.records, node.wallet(node.cids()[0]))
    payer, payee = legs(world)
    own, other = (payer, payee) if who == "C" else (payee, payer)
    assert refused(world.ask(own)) is RefusalCode.NOT_YET
    assert world.transact(node, claim)
    assert refused(world.ask(other)) is RefusalCode.LOCK


def test_relay_wallets_neither_pay_nor_are_paid(world: World) -> None:
    """Their earnings carry the tax."""
    cid = world.r.cids()[0]
    wallets.put(world.e.records, cid, world.r.wallet(cid))
    group = world.r.records.get(Table.GROUP, (cid >> 8).to_bytes(31, "big"))
    world.e.records.put(Table.GROUP, (cid >> 8).to_bytes(31, "big"), group)
    user, world.e.machine.user = world.e.machine.user, replace(
        world.e.machine.user, role=Role.RELAY)
    try:
        world.invoice(AMOUNT, world.c.cids()[0], cid)
        tell = next(one for one in world.wire if one.kind == "tell")
        world.act(world.e, lambda records, moment: world.e.machine.receive(
            records, moment, cid, m.unpack(tell.item.pcmd, tell.item.payload)))
        payee = m.unpack(*next((one.pcmd, one.payload) for one in world.e.requests.values()))
    finally:
        world.e.machine.user = user
        world.wire.clear()
    assert refused(world.ask(payee)) is RefusalCode.PROOF


def test_the_payee_takes_no_more_than_its_channel_pays_out(world: World) -> None:
    world.transfer(CLIENT_DEPOSIT - PAY_FEE)
    room = PAYEE_DEPOSIT + PAYEE_FUND - world.e.balance(world.e.cids()[0])
    invoice = m.PayInvoice(room + 1, 5, world.deadline(), 7)
    with pytest.raises(ProtocolError, match="room"):
        world.e.machine.receive(world.e.records.copy(), world.moment(), world.e.cids()[0], invoice)
    world.e.machine.receive(world.e.records.copy(), world.moment(), world.e.cids()[0],
                            replace(invoice, amount=room))


def test_an_invoice_does_not_overwrite_a_payment_that_is_under_way(world: World) -> None:
    payer, _ = legs(world)
    transfer = pay.transfer(world.e.records, payer.wpk)
    with pytest.raises(ProtocolError, match="known"):
        world.e.machine.receive(
            world.e.records.copy(), world.moment(), world.e.cids()[1],
            m.PayInvoice(AMOUNT + 1, transfer.s, transfer.t_p, payer.wpk))


# --- Conditional token, secrets, void


def test_the_payee_is_first_given_a_conditional_token(world: World) -> None:
    """An unconditional one would pay it although the payer never reveals."""
    payer, payee = joined(world)
    reply = answered(world.ask(payee))
    user, wallet = world.e.machine.user, world.e.wallet(world.e.cids()[0])
    with pytest.raises(ValueError, match="reply"):
        wallets_refund(user, wallet, reply)
    world.act(world.e, lambda records, moment: world.e.machine.on_reply(
        records, moment, pay.conversation(payer.wpk), *m.pack(reply)))
    stored = world.e.wallet(world.e.cids()[0]).conditional
    refund = calls.Refund(wallet.next.cid, wallets.lock_of(wallet.next.wsk), wallet.next.balance,
                          stored)
    assert not world.transact(world.e, refund)
    assert world.e.reverted[-1] == ("Refund", "ledger: token")


def wallets_refund(user: Any, wallet: Paying, reply: m.RefundTokenReply) -> bytes:
    from offchain.protocol.establish import refund_token

    return refund_token(user, wallet.next, reply.rt)


def test_the_payer_waits_for_crt_verified(world: World) -> None:
    lose(world, m.PayVerified)
    lock = world.invoice(AMOUNT, world.c.cids()[0], world.e.cids()[0])
    world.run()
    world.retry()
    wallet = world.c.wallet(world.c.cids()[0])
    assert isinstance(wallet, Paying) and wallet.conditional != bytes(192)
    assert not any(one.pcmd in (m.PaySecret.PCMD, m.PayerReveal.PCMD) for one in world.log)
    assert lock == wallet.wpk_c


def test_the_payer_reveals_nothing_late_but_claims_its_old_token(world: World) -> None:
    lose(world, m.PayVerified)
    cid = world.c.cids()[0]
    lock = world.invoice(AMOUNT, cid, world.e.cids()[0])
    world.run()
    world.retry()
    t_p = pay.transfer(world.c.records, lock).t_p
    world.c.alive = False
    world.jump(t_p - 2 * MU)
    world.c.alive = True
    world.act(world.c, lambda records, moment: world.c.machine.on_message(
        records, moment, pay.session_key(lock), *m.pack(m.PayVerified(lock))))
    assert not any(one.pcmd in (m.PaySecret.PCMD, m.PayerReveal.PCMD) for one in world.log)
    world.travel(world.now + TICK)
    assert world.stage.ledger.functions.channel(cid).call()[0] == 2
    world.travel(t_p + DEMO.dispute_window + 4 * MU)
    assert world.c.wallet(cid).amount == CLIENT_DEPOSIT
    assert world.e.balance(world.e.cids()[0]) == PAYEE_DEPOSIT


def test_a_payee_without_conditional_token_takes_no_secret(world: World) -> None:
    payer, payee = legs(world)
    secret = world.c.wallet(world.c.cids()[0]).idle.wsk
    with pytest.raises(ProtocolError, match="conditional"):
        world.e.machine.on_message(world.e.records.copy(), world.moment(),
                                   pay.session_key(payer.wpk), *m.pack(m.PaySecret(secret)))


def crt_held(world: World) -> tuple[int, bytes, int]:
    """(payer's lock, payer's secret, T_p) of a payment whose payee holds crt'; C says nothing."""
    lose(world, m.PayVerified)
    cid = world.c.cids()[0]
    secret = world.c.wallet(cid).wsk
    lock = world.invoice(AMOUNT, cid, world.e.cids()[0])
    world.run()
    world.retry()
    return lock, secret, pay.transfer(world.e.records, lock).t_p


def take_secret(world: World, lock: int, secret: bytes) -> None:
    world.act(world.e, lambda records, moment: world.e.machine.on_message(
        records, moment, pay.session_key(lock), *m.pack(m.PaySecret(secret))))


@pytest.mark.parametrize(("before", "received"), [(MU + 1, True), (MU, False)])
def test_a_secret_comes_a_margin_before_the_deadline(
        world: World, before: int, received: bool) -> None:
    lock, secret, t_p = crt_held(world)
    world.jump(t_p - before)
    if received:
        take_secret(world, lock, secret)
        world.run()
        assert world.e.balance(world.e.cids()[0]) == PAYEE_DEPOSIT + AMOUNT
    else:
        with pytest.raises(ProtocolError, match="late"):
            take_secret(world, lock, secret)


def test_a_payee_that_is_not_answered_enforces_the_payment(world: World) -> None:
    lock, secret, t_p = crt_held(world)
    cid = world.e.cids()[0]
    world.i.alive = False
    take_secret(world, lock, secret)
    world.travel(t_p)
    assert not world.e.reverted
    world.i.alive = True
    world.follow(world.i)
    world.run()
    world.travel(t_p + DEMO.dispute_window + 2 * MU)
    assert world.e.wallet(cid).amount == PAYEE_DEPOSIT + AMOUNT


def test_a_payer_that_revealed_to_the_payee_only_cannot_keep_its_money(world: World) -> None:
    """It posts its old refund token; the conditional token makes its secret public."""
    lock, secret, t_p = crt_held(world)
    cid = world.c.cids()[0]
    world.c.alive = False
    old = wallets.claim(world.c.records, world.c.wallet(cid))
    assert world.transact(world.c, old)
    take_secret(world, lock, secret)
    world.run()
    assert RefusalCode.LOCK in world.e.refusals, "I answers nothing for a lock on the ledger"
    world.travel(t_p)
    assert world.stage.ledger.functions.channel(cid).call()[0] == 6
    world.travel(t_p + DEMO.dispute_window + 2 * MU)
    assert world.e.wallet(world.e.cids()[0]).amount == PAYEE_DEPOSIT + AMOUNT


def test_after_the_deadline_the_payment_is_void_for_the_payee(world: World) -> None:
    lock, secret, t_p = crt_held(world)
    world.travel(t_p + 2 * TICK)
    assert world.e.balance(world.e.cids()[0]) == PAYEE_DEPOSIT
    # The new wallet can be spent, and the payer's secret comes too late.
    assert refused(world.ask(m.PayeeClaim(nonce_of(world, lock), secret))) is RefusalCode.STATE
    before = world.wealth(world.e)
    world.cash_out(world.e, world.e.cids()[0] >> 8)
    assert world.wealth(world.e) == before + 2 * PAYEE_DEPOSIT
    assert world.conserved()


def nonce_of(world: World, lock: int) -> int:
    for key, one in world.i.records.scan(Table.NONCE):
        if isinstance(one, pay.JoinedLeg) and not one.payer and one.leg.wpk_c == lock:
            return int.from_bytes(key, "big")
    raise AssertionError("no payee's leg")


def test_nothing_is_void_before_a_block_after_the_deadline(world: World) -> None:
    lock, secret, t_p = crt_held(world)
    world.i.follows = False
    world.jump(t_p + 1)
    world.act(world.e, lambda records, moment: pay.void_payee(
        records, world.e.machine.user, lock))
    request = world.held(world.e)
    assert refused(world.ask(request)) is RefusalCode.NOT_YET
    world.i.follows = True
    world.follow(world.i)
    answered(world.ask(request))


def test_a_payment_whose_secret_is_known_is_not_void(world: World) -> None:
    lock, secret, t_p = crt_held(world)
    world.ask(m.PayerReveal(world.c.wallet(world.c.cids()[0]).idle.nonce, secret))
    world.jump(t_p + 1)
    world.act(world.e, lambda records, moment: pay.void_payee(
        records, world.e.machine.user, lock))
    assert refused(world.ask(world.held(world.e))) is RefusalCode.STATE


def test_a_payee_whose_wallet_is_on_the_ledger_gets_no_other(world: World) -> None:
    lock, secret, t_p = crt_held(world)
    cid = world.e.cids()[0]
    old = wallets.claim(world.e.records, world.e.wallet(cid))
    world.jump(t_p + 1)
    world.act(world.e, lambda records, moment: pay.void_payee(
        records, world.e.machine.user, lock))
    request = world.held(world.e)
    assert world.transact(world.e, old)
    assert refused(world.ask(request)) is RefusalCode.LOCK


def test_a_payee_secret_whose_wallet_is_on_the_ledger_is_refuted(world: World) -> None:
    lock, secret, t_p = crt_held(world)
    cid = world.e.cids()[0]
    old = wallets.claim(world.e.records, world.e.wallet(cid))
    take_secret(world, lock, secret)
    reveal = world.stop_before(m.PayeeReveal, world.e)
    assert world.transact(world.e, old)
    assert refused(world.ask(reveal)) is RefusalCode.LOCK
    world.run()
    assert world.stage.ledger.functions.channel(cid).call()[0] == 6


def test_a_voided_payee_reveals_before_its_wallet_and_not_twice(world: World) -> None:
    lock, secret, t_p = crt_held(world)
    world.jump(t_p + 1)
    world.tick()
    reveal = world.stop_before(m.PayeeReveal, world.e)
    assert refused(world.ask(replace(reveal, wsk=b"\x02" * 32))) is RefusalCode.PROOF
    answered(world.ask(reveal))
    assert refused(world.ask(m.PayeeClaim(reveal.nonce, secret))) is RefusalCode.STATE


def test_only_the_payers_secret_claims(world: World) -> None:
    payer, payee = joined(world)
    for wrong in (b"\x01" * 32, world.e.wallet(world.e.cids()[0]).idle.wsk):
        assert refused(world.ask(m.PayeeClaim(payee.nonce, wrong))) is RefusalCode.PROOF
        assert refused(world.ask(m.PayerReveal(payer.nonce, wrong))) is RefusalCode.PROOF
    secret = world.c.wallet(world.c.cids()[0]).idle.wsk
    assert refused(world.ask(m.PayeeClaim(payer.nonce, secret))) is RefusalCode.UNKNOWN
    assert refused(world.ask(m.PayerReveal(payee.nonce, secret))) is RefusalCode.UNKNOWN
    own = world.e.wallet(world.e.cids()[0]).idle.wsk
    assert refused(world.ask(m.PayeeReveal(payee.nonce, own))) is RefusalCode.STATE
    answered(world.ask(m.PayeeClaim(payee.nonce, secret)))
    assert refused(world.ask(m.PayeeReveal(payee.nonce, secret))) is RefusalCode.PROOF
    answered(world.ask(m.PayeeReveal(payee.nonce, own)))


def test_a_payee_whose_payer_never_came_keeps_its_channel(world: World) -> None:
    """Its request was joined to nothing: the wallet is idle again and nothing is posted."""
    payer, payee = legs(world)
    world.c.alive = False
    world.travel(payer.t_p + 2 * MU)
    assert world.e.balance(world.e.cids()[0]) == PAYEE_DEPOSIT
    assert world.stage.ledger.functions.channel(world.e.cids()[0]).call()[0] == 5


def test_a_refused_payer_keeps_its_channel(world: World) -> None:
    cid = world.c.cids()[0]
    shorter = b"window:" + (DEMO.dispute_window - 20).to_bytes(8, "big")
    t_p = world.deadline()
    world.i.records.put(Table.META, shorter, pay.WindowCount(1))
    world.invoice(AMOUNT, cid, world.e.cids()[0], t_p=t_p)
    world.run()
    world.i.records.delete(Table.META, shorter)
    assert RefusalCode.TERMS in world.c.refusals
    assert world.c.balance(cid) == CLIENT_DEPOSIT
    world.transfer(AMOUNT)
    world.travel(world.now + DEMO.dispute_window + 4 * MU)
    assert world.c.balance(cid) == CLIENT_DEPOSIT - AMOUNT - PAY_FEE


def test_a_payee_answers_a_request_to_close_after_the_payment(world: World) -> None:
    """Closing at once would leave the payer's secret revealed for nothing."""
    lock, secret, t_p = crt_held(world)
    cid = world.e.cids()[0]
    world.act(world.i, lambda records, moment: world.i.machine.request_close(records, cid))
    world.run()
    assert isinstance(world.e.wallet(cid), Paying)
    take_secret(world, lock, secret)
    world.run()
    world.travel(world.now + DEMO.close_notice + DEMO.dispute_window)
    assert world.e.wallet(cid).amount == PAYEE_DEPOSIT + AMOUNT


# --- Cash-out


def cash_out_request(world: World, node: Any = None) -> m.CashOutRequest:
    node = node or world.c
    world.act(node, lambda records, moment: node.machine.cash_out(records, node.cids()[0] >> 8))
    found = world.held(node)
    node.requests.clear()
    assert isinstance(found, m.CashOutRequest)
    return found


@pytest.mark.parametrize("how", [
    "balance", "repeated", "foreign index", "foreign group", "other group", "nonce", "token",
    "empty", "swapped"])
def test_a_wrong_wallet_refuses_the_whole_cash_out(world: World, how: str) -> None:
    request = cash_out_request(world)
    first, second = request.wallets
    other = world.e.cids()[0] >> 8
    wrong = {
        "balance": replace(request, wallets=(first, replace(second, balance=second.balance + 1))),
        "repeated": replace(request, wallets=(first, second, second)),
        "foreign index": replace(request, wallets=(first, replace(second, index=2))),
        "foreign group": replace(request, group=request.group ^ 1),
        "other group": replace(request, group=other),
        "nonce": replace(request, wallets=(first, replace(second, nonce=second.nonce + 1))),
        "token": replace(request, wallets=(first, replace(second, pt=first.pt))),
        "empty": replace(request, wallets=()),
        "swapped": replace(request, wallets=(replace(first, index=1), replace(second, index=0))),
    }[how]
    refused(world.ask(wrong))
    # Nothing is marked: both wallets can still be cashed out.
    answered(world.ask(request))


def test_a_spent_wallet_is_not_cashed_out(world: World) -> None:
    saved = world.c.records.copy()
    world.setup(world.c.cids()[1])
    world.c.records = saved
    assert refused(world.ask(cash_out_request(world))) is RefusalCode.REUSED


def test_a_wallet_is_cashed_out_once_and_spent_no_more(world: World) -> None:
    saved = world.c.records.copy()
    request = cash_out_request(world)
    answered(world.ask(request))
    world.c.records = saved.copy()
    assert refused(world.ask(cash_out_request(world))) is RefusalCode.REUSED
    world.c.records = saved.copy()
    world.start_setup(world.c.cids()[0])
    assert refused(world.ask(world.held(world.c))) is RefusalCode.REUSED
    world.c.records, world.c.requests = saved.copy(), {}
    payer, _ = legs(world)
    assert refused(world.ask(payer)) is RefusalCode.REUSED


def test_a_closing_channel_is_not_cashed_out(world: World) -> None:
    """The ledger would refuse the close of all once that channel is resolved."""
    saved = world.c.records.copy()
    cid = world.c.cids()[0]
    world.act(world.c, lambda records, moment: world.c.machine.post_claim(records, cid))
    world.run()
    world.c.records = saved
    assert refused(world.ask(cash_out_request(world))) is RefusalCode.STATE


def test_a_lock_on_the_ledger_is_not_cashed_out(world: World) -> None:
    saved = world.c.records.copy()
    cid = world.c.cids()[0]
    world.act(world.c, lambda records, moment: world.c.machine.post_claim(records, cid))
    world.run()
    world.c.records = saved
    group = world.c.cids()[0] >> 8
    world.i.records.delete(Table.CHANNEL, b"gone:" + group.to_bytes(31, "big"))
    assert refused(world.ask(cash_out_request(world))) is RefusalCode.LOCK


def test_a_group_is_not_cashed_out_twice_at_once(world: World) -> None:
    group = world.c.cids()[0] >> 8
    world.act(world.c, lambda records, moment: world.c.machine.cash_out(records, group))
    with pytest.raises(ProtocolError, match="already"):
        world.c.machine.cash_out(world.c.records.copy(), group)


def test_a_cash_out_that_does_not_come_about_is_claimed(world: World) -> None:
    """The close reverts, since one of its channels has been resolved meanwhile."""
    first, second = world.c.cids()
    claim = wallets.claim(world.c.records, world.c.wallet(first))
    group = first >> 8
    world.act(world.c, lambda records, moment: world.c.machine.cash_out(records, group))
    world.fault = lambda parcel: () if parcel.kind == "submit" and isinstance(
        parcel.item.call, calls.Close) else (parcel,)
    world.run()
    assert isinstance(world.c.wallet(second), CashingOut)
    world.c.submissions.clear()
    assert world.transact(world.c, claim)
    before = world.wealth(world.c)
    world.fault = lambda parcel: (parcel,)
    world.travel(world.now + DEMO.dispute_window + 12 * MU)
    assert world.wealth(world.c) == before + 2 * CLIENT_DEPOSIT


def test_a_group_can_be_cashed_out_after_an_attempt_without_answer(world: World) -> None:
    """One channel was in a session when the intermediary fell silent over the others."""
    first, second = world.c.cids()
    terms_hash = world.session(2, second)
    group = first >> 8
    world.act(world.c, lambda records, moment: world.c.machine.cash_out(records, group))
    world.wire.clear()
    world.act(world.c, lambda records, moment: world.c.machine.give_up(
        records, moment, b"cash-out:" + group.to_bytes(31, "big")))
    world.run()
    world.close(terms_hash)
    world.cash_out(world.c, group)
    world.travel(world.now + DEMO.dispute_window + 4 * MU, tick=MU)
    assert world.c.wallet(first).amount == CLIENT_DEPOSIT
    assert world.c.wallet(second).amount == CLIENT_DEPOSIT - 200


def test_a_claim_that_a_close_overtakes_is_not_resolved_again(world: World) -> None:
    first, _ = world.c.cids()
    claim = wallets.claim(world.c.records, world.c.wallet(first))
    group = first >> 8
    world.act(world.c, lambda records, moment: world.c.machine.cash_out(records, group))
    world.fault = lambda parcel: () if parcel.kind == "submit" else (parcel,)
    world.run()
    close = next(iter(world.c.submissions.values()))
    world.c.submissions.clear()
    assert world.transact(world.c, claim)
    assert world.transact(world.c, close.call)
    world.fault = lambda parcel: (parcel,)
    world.travel(world.now + DEMO.dispute_window + 4 * MU, tick=MU)
    assert not world.i.reverted and world.conserved()
