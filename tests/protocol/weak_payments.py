# SPDX-License-Identifier: BSD-3-Clause
"""Hidden payments without one of their rules, and how payer, payee or I uses that."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from monetor_chain.parameters import DEMO
from monetor_chain.statements import GROUP_ORDER, Role, TokenKind, lock_of, tag
from offchain.crypto import pay as pay_proof, proofs, sigma
from offchain.crypto.errors import CryptoError
from offchain.crypto.issuer import unblind
from offchain.protocol import answering, ledger as calls, messages as m, pay, wallet as wallets
from offchain.protocol.establish import refund_token
from offchain.protocol.moment import tip
from offchain.protocol.outbox import Request
from offchain.protocol.records import Table, key248
from tests.protocol import forgeries
from tests.protocol.board import Board
from tests.protocol.forgeries import bent
from tests.protocol.test_pay_rules import legs
from tests.protocol.weak_sessions import ignored_at
from tests.protocol.weakening import (
    MOVED,
    Patch,
    Stopped,
    Weakening,
    claim_of,
    must,
    posts,
    posts_quietly,
    request_of,
    stands,
    told,
)
from tests.protocol.world import MU

WINDOW = DEMO.dispute_window


def first_leg(world: Board, request: Any) -> None:
    """I takes a leg, and waits for the other."""
    reply = world.ask(request)
    assert isinstance(reply, m.Refusal)
    if reply.code.name != "NOT_YET":
        raise Stopped(reply.code.name)


def join(world: Board, payer: Any, payee: Any) -> Any:
    """Both legs; I's answer to the payee."""
    first_leg(world, payer)
    return must(world.ask(payee))


def take_crt(world: Board, payer: Any, reply: Any) -> None:
    """The payee stores its conditional token."""
    told(world.e, world, pay.conversation(payer.wpk), reply)
    world.wire.clear()


def secret_of(world: Board) -> bytes:
    """wsk_C of the payment out of C's first channel."""
    found: bytes = world.c.wallet(world.c.cids()[0]).idle.wsk
    return found


def crt_claim(world: Board, secret: bytes) -> calls.RefundConditional:
    """The payee's conditional token with the payer's secret."""
    wallet = world.e.wallet(world.e.cids()[0])
    return calls.RefundConditional(
        wallet.next.cid, lock_of(wallet.next.wsk), wallet.next.balance, wallet.conditional,
        wallet.wpk_c, wallet.t_p, secret)


def enforce_after(world: Board, secret: bytes, old: calls.Refund) -> None:
    """C's old token is paid out; then E makes C's secret public with its conditional token."""
    world.jump(world.deadline_of(old.cid) + 1)
    posts(world, world.e, calls.Resolve(old.cid))
    posts(world, world.e, crt_claim(world, secret))


# --- Locks and time


def posted_at_pay_1(world: Board) -> None:
    """C's old token was on the ledger before I chose T_p, so it resolves before T_p."""
    cid = world.c.cids()[0]
    old = claim_of(world, world.c, cid)
    posts_quietly(world, world.c, old)
    world.jump(world.now + 2 * MU)
    payer, payee = legs(world, MOVED)
    secret = secret_of(world)
    take_crt(world, payer, join(world, payer, payee))
    enforce_after(world, secret, old)


def payee_posted_at_pay_1(world: Board) -> None:
    """E's old token is on the ledger; its channel takes no conditional one besides."""
    cid = world.e.cids()[0]
    old = claim_of(world, world.e, cid)
    posts_quietly(world, world.e, old)
    payer, payee = legs(world, MOVED)
    secret = secret_of(world)
    take_crt(world, payer, join(world, payer, payee))
    assert not world.transact(world.e, crt_claim(world, secret))
    wallet = world.e.wallet(cid)
    rt = refund_token(world.e.machine.user, wallet.next, must(world.ask(
        m.PayeeClaim(payee.nonce, secret))).rt)
    new = calls.Refund(cid, lock_of(wallet.next.wsk), wallet.next.balance, rt)
    assert not world.transact(world.e, new)
    # The payer has told its secret, so what it had is revoked.
    reply = must(world.ask(payer))
    told(world.c, world, pay.conversation(payer.wpk), reply)
    world.act(world.c, lambda records, moment: world.c.machine.on_message(
        records, moment, pay.session_key(payer.wpk), *m.pack(m.PayVerified(payer.wpk))))
    world.run()
    posts(world, world.c, claim_of(world, world.c, world.c.cids()[0]))


def posted_at_pay_4(world: Board) -> None:
    """C's old token comes on the ledger after the joining; E trades C's secret for a token."""
    cid, to = world.c.cids()[0], world.e.cids()[0]
    old = claim_of(world, world.c, cid)
    payer, payee = legs(world, MOVED)
    secret = secret_of(world)
    take_crt(world, payer, join(world, payer, payee))
    posts_quietly(world, world.c, old)
    reply = must(world.ask(m.PayeeClaim(payee.nonce, secret)))
    wallets.put(world.e.records, to, replace(world.e.wallet(to), wsk_c=secret))
    told(world.e, world, pay.conversation(payer.wpk), reply)
    world.wire.clear()
    posts(world, world.e, claim_of(world, world.e, to))
    stands(world, cid)


def late_deadlines(patch: Patch, world: Board) -> None:
    patch.setattr(pay, "latest_deadline", lambda records, moment: (
        tip(records).timestamp + pay.smallest_window(records) + 2 * MU))


def t_p_too_late(world: Board) -> None:
    """C posts right after the joining, and is paid out before T_p."""
    cid = world.c.cids()[0]
    old = claim_of(world, world.c, cid)
    with bent(pay, "_require_near", lambda *_: None):
        payer, payee = legs(world, MOVED, t_p=world.now + WINDOW + 2 * MU)
    secret = secret_of(world)
    take_crt(world, payer, join(world, payer, payee))
    posts_quietly(world, world.c, old)
    enforce_after(world, secret, old)


# --- The conditional token


def ordinary_token(patch: Patch, world: Board) -> None:
    def answer(me: Any, leg: Any, *, payer: bool) -> Any:
        return answering.Answer(m.RefundTokenReply(me.issuer.blind_sign(
            leg.d_rt, tag=tag(TokenKind.REFUND, Role.CLIENT, me.ctx))))

    patch.setattr(pay, "_answer_leg", answer)


def unconditional_crt(world: Board) -> None:
    """E posts what it is given, and C, which has revealed nothing, what it had."""
    cid = world.e.cids()[0]
    payer, payee = legs(world, MOVED)
    reply = join(world, payer, payee)
    wallet = world.e.wallet(cid)
    try:
        rt = refund_token(world.e.machine.user, wallet.next, reply.rt)
    except CryptoError as error:
        raise Stopped(str(error)) from error
    posts(world, world.e, calls.Refund(cid, lock_of(wallet.next.wsk), wallet.next.balance, rt))


SHIFT = "shift of the tag"
PREPARE_REQUEST, PAYEE_RELATION = proofs.prepare_request, pay_proof._payee_relation


def weak_payee_relation(y0: Any) -> Any:
    """The payee's relation with Ỹ0, the point `y0`, among the bases of its request."""

    def relation(bases: Any, points: Any) -> Any:
        equations = PAYEE_RELATION(bases, points)
        rt = equations[2]
        shift = (sigma.Base(y0), sigma.secret(SHIFT))
        return [*equations[:2], replace(rt, terms=(*rt.terms, shift)), *equations[3:]]

    return relation


def tag_base(world: Board) -> Any:
    """Ỹ0 = g2^y0, as if it had been published."""
    curve = world.issuer.curve
    return curve.mul_g2(curve.g2, world.issuer.y[0])


def tags_in_requests(patch: Patch, world: Board) -> None:
    patch.setattr(pay_proof, "_payee_relation", weak_payee_relation(tag_base(world)))


def tag_of_choice(world: Board) -> None:
    """E asks for its conditional token under the tag of an unconditional one."""
    e, cid = world.e, world.e.cids()[0]
    lock = world.invoice(MOVED, world.c.cids()[0], cid)
    payer = request_of([one for one in world.c.requests.values() if isinstance(one, Request)])
    world.wire.clear()
    current, user = pay.transfer(world.c.records, lock), e.machine.user
    wanted = tag(TokenKind.REFUND, Role.CLIENT, user.ctx)
    given = tag(TokenKind.CONDITIONAL_REFUND, Role.CLIENT, user.ctx, lock, current.t_p)
    y0, shift = tag_base(world), (wanted - given) % GROUP_ORDER

    def shifted(pk: Any, **wanted_of: Any) -> Any:
        made = PREPARE_REQUEST(pk, **wanted_of)
        d_rt = pk.curve.add_g2(made.d_rt, pk.curve.mul_g2(y0, shift))
        d_pt = pk.curve.add_g2(d_rt, made.quotient)
        return replace(made, d_rt=d_rt, witness={**made.witness, SHIFT: shift},
                       request=proofs.TokenRequest(pk.curve.encode_g2(d_rt),
                                                   pk.curve.encode_g2(d_pt)))

    with bent(pay_proof, "prepare_request", shifted), bent(
            pay_proof, "_payee_relation", weak_payee_relation(y0)):
        world.act(e, lambda records, moment: e.machine.receive(records, moment, cid, m.PayInvoice(
            MOVED, current.s, current.t_p, lock)))
    payee = world.held(e)
    reply = join(world, payer, payee)
    new = e.wallet(cid).next
    posts(world, e, calls.Refund(cid, lock_of(new.wsk), new.balance,
                                 refund_token(user, new, reply.rt)))


# --- Amounts and wallets


def no_range_on_amounts(patch: Patch, world: Board) -> None:
    patch.setattr(pay_proof, "_payer_relation", forgeries.weak_payer_relation)


def negative_amount(world: Board) -> None:
    """E pays −59,000 to a channel of C's that is worth one unit."""
    (empty,) = world.open(world.c, deposit=1, fund=0, count=1)
    e, t_p, amount = world.e, world.deadline(), -59_000
    idle = e.wallet(e.cids()[0])
    payer, secrets = forgeries.negative_payer(world, e, idle, amount, t_p)
    payee = forgeries.negative_payee(world.c, world.c.wallet(empty), amount, t_p, idle.wpk)
    first_leg(world, payer)
    must(world.ask(payee))
    balance = idle.balance - amount - DEMO.pay_fee
    rt = unblind(world.issuer.public, must(world.ask(payer)).rt, secrets.t_rt,
                 tag=tag(TokenKind.REFUND, Role.CLIENT, world.ctx), cid=idle.cid, nonce=0,
                 wpk=lock_of(forgeries.NEW_SECRET), balance=balance)
    posts(world, e, calls.Refund(idle.cid, lock_of(forgeries.NEW_SECRET), balance, rt))


def any_two_wallets(patch: Patch, world: Board) -> None:
    def mark(records: Any, payer: Any, payee: Any) -> None:
        for leg, is_payer in ((payer, True), (payee, False)):
            answering.require_live(records, leg.wpk, "wpk")
            answering.take(records, leg.wpk)
            records.put(Table.NONCE, key248(leg.nonce), pay.JoinedLeg(leg, is_payer, pay.JOINED))

    patch.setattr(pay, "_mark_both", mark)


def same_wallet_twice(world: Board) -> None:
    """E pays itself out of the wallet that is paid: it loses the amount once and gains it twice."""
    e, cid, amount = world.e, world.e.cids()[0], 10_000
    secret = e.wallet(cid).wsk
    t_p = world.deadline()
    world.act(e, lambda records, moment: e.machine.pay(
        records, moment, cid=cid, amount=amount, t_p=t_p))
    payer = world.held(e)
    e.requests.clear()
    draft = e.records.copy()
    payee = request_of(forgeries.pay_oneself(draft, world.moment(), e, payer))
    first_leg(world, payer)
    must(world.ask(payee))
    reply = must(world.ask(m.PayeeClaim(payee.nonce, secret)))
    new = wallets.get(draft, cid).next
    posts(world, e, calls.Refund(cid, lock_of(new.wsk), new.balance,
                                 refund_token(e.machine.user, new, reply.rt)))


# --- "crt verified"


def no_waiting(patch: Patch, world: Board) -> None:
    reveal = pay._reveal_when_agreed

    def at_once(records: Any, moment: Any, wpk_c: int) -> Any:
        records.put(Table.PAYMENT, key248(wpk_c), replace(
            pay.transfer(records, wpk_c), verified=True))
        return reveal(records, moment, wpk_c)

    patch.setattr(pay, "_reveal_when_agreed", at_once)


def no_crt_verified(world: Board) -> None:
    """I gives the payee nothing, hears the payer's secret, and answers nobody any more."""
    world.fault = lambda parcel: (
        () if parcel.kind == "reply" and parcel.target == "E" else (parcel,))
    world.invoice(MOVED, world.c.cids()[0], world.e.cids()[0])
    for _ in range(3):
        world.run()
        world.retry()
    world.i.alive = False
    if not any(one.pcmd == m.PayerReveal.PCMD for one in world.log):
        raise Stopped("the payer waits")


PAYMENTS = (
    Weakening("posted lock ignored: Pay 1", ignored_at(m.PayerRequest, m.PayeeRequest),
              posted_at_pay_1, "CE", "LOCK"),
    Weakening("posted lock ignored: Pay 1, payee", ignored_at(m.PayerRequest, m.PayeeRequest),
              payee_posted_at_pay_1, "E", "LOCK", ""),
    Weakening("posted lock ignored: Pay 4", ignored_at(m.PayeeClaim), posted_at_pay_4, "CE",
              "LOCK"),
    Weakening("Ỹ0 in a request", tags_in_requests, tag_of_choice, "E", "PROOF"),
    Weakening("T_p too late", late_deadlines, t_p_too_late, "CE", "TERMS"),
    Weakening("unconditional crt", ordinary_token, unconditional_crt, "E", "reply"),
    Weakening("negative ε", no_range_on_amounts, negative_amount, "CE", "PROOF"),
    Weakening("same wallet twice", any_two_wallets, same_wallet_twice, "E", "REUSED"),
    Weakening('no "crt verified"', no_waiting, no_crt_verified, "I", "the payer waits", "C+E"),
)
