# SPDX-License-Identifier: BSD-3-Clause
"""What a review of the machines found: each test is one way to lose money or a channel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from monetor_chain.parameters import DEMO
from offchain.crypto.curve import backend
from offchain.crypto.errors import CryptoError
from offchain.crypto.fixed_base import KEPT_BASES, FixedBases
from offchain.protocol import (
    establish,
    ledger as calls,
    messages as m,
    nano_establish,
    nano_setup,
    pay,
    wallet as wallets,
)
from offchain.protocol.end_user import Duty
from offchain.protocol.errors import ProtocolError, RefusalCode, Refused
from offchain.protocol.outbox import Submit
from offchain.protocol.records import Table
from offchain.protocol.sessions import set_deadline, subject_of
from tests.crypto.cases import make
from tests.protocol.test_pay_rules import AMOUNT, legs, lose
from tests.protocol.test_session_rules import answered, refused
from tests.protocol.world import CLIENT_DEPOSIT, MU, PAY_FEE, PAYEE_DEPOSIT, PRICE, World

# --- A close that is asked for in the middle of a hidden payment


def paying_when_asked_to_close(world: World) -> int:
    """The payee's channel: it has joined a payment, and its close is asked for on the ledger."""
    cid = world.e.cids()[0]
    world.invoice(AMOUNT, world.c.cids()[0], cid)
    world.run()
    assert world.transact(world.i, calls.RequestClose(cid))
    world.run()
    assert isinstance(world.e.wallet(cid), wallets.Paying)
    return cid


def test_a_deferred_answer_is_given_when_the_payment_ends(world: World) -> None:
    cid = paying_when_asked_to_close(world)
    for _ in range(3):
        world.retry()
    assert isinstance(world.e.wallet(cid), wallets.Posted)
    world.settle(cid)
    assert world.e.wallet(cid).amount == PAYEE_DEPOSIT + AMOUNT
    assert world.conserved()


def test_a_deferred_answer_is_given_when_the_payment_is_void(world: World) -> None:
    lose(world, m.PayVerified)
    cid = paying_when_asked_to_close(world)
    for _ in range(3):
        world.retry()
    t_p = pay.transfer(world.e.records, world.e.wallet(cid).wpk_c).t_p
    world.travel(t_p + 2 * MU)
    assert isinstance(world.e.wallet(cid), wallets.Posted)
    world.settle(cid)
    assert world.e.wallet(cid).amount == PAYEE_DEPOSIT


def test_a_channel_that_is_to_be_closed_starts_nothing(world: World) -> None:
    """A session or payment begun now would be cut off by the answer that is due."""
    c, e, r = (node.cids()[0] for node in (world.c, world.e, world.r))
    t_p = world.deadline()
    offer = m.NanoOffer(_terms(world, world.setup(world.c.cids()[1])), world.key_hash)
    for node, cid in ((world.c, c), (world.e, e), (world.r, r)):
        wallets.put_notice(node.records, cid, wallets.CloseNotice(world.now + 100))
    invoice = m.PayInvoice(AMOUNT, 1, t_p, 1)
    moment = world.moment()
    with pytest.raises(ProtocolError, match="close"):
        world.c.machine.nano_setup(world.c.records.copy(), moment, c)
    with pytest.raises(ProtocolError, match="close"):
        world.c.machine.pay(world.c.records.copy(), moment, cid=c, amount=AMOUNT, t_p=t_p)
    with pytest.raises(ProtocolError, match="close"):
        world.e.machine.receive(world.e.records.copy(), moment, e, invoice)
    with pytest.raises(ProtocolError, match="close"):
        nano_establish.on_offer(world.r.records.copy(), world.r.machine.user, moment, r, offer)


def _terms(world: World, terms_hash: bytes) -> Any:
    return world.c.records.get(Table.SESSION, terms_hash).session.terms


# --- Words between payer and payee


def lose_first(world: World, kind: type[Any]) -> list[Any]:
    """The first word of this kind gets lost, as with a circuit; returns what was lost."""
    lost: list[Any] = []

    def fault(parcel: Any) -> tuple[Any, ...]:
        if parcel.kind == "tell" and parcel.item.pcmd == kind.PCMD and not lost:
            lost.append(parcel)
            return ()
        return (parcel,)

    world.fault = fault
    return lost


@pytest.mark.parametrize("kind", [m.PayInvoice, m.PayVerified, m.PaySecret])
def test_a_word_that_is_lost_is_said_again(world: World, kind: type[Any]) -> None:
    c, e = world.c.cids()[0], world.e.cids()[0]
    lost = lose_first(world, kind)
    world.transfer(AMOUNT)
    world.travel(world.now + MU)
    assert len(lost) == 1
    assert world.c.balance(c) == CLIENT_DEPOSIT - AMOUNT - PAY_FEE
    assert world.e.balance(e) == PAYEE_DEPOSIT + AMOUNT


def test_words_end_with_the_time_in_which_they_help(world: World) -> None:
    lose(world, m.PayVerified, m.PaySecret)
    tried: list[tuple[int, int]] = []
    swallow = world.fault

    def fault(parcel: Any) -> Any:
        if parcel.kind == "tell":
            tried.append((parcel.item.pcmd, world.now))
        return swallow(parcel)

    world.fault = fault
    world.transfer(AMOUNT)
    t_p = pay.transfer(world.e.records, world.e.wallet(world.e.cids()[0]).wpk_c).t_p
    world.travel(t_p + MU)
    said = [at for pcmd, at in tried if pcmd == m.PayVerified.PCMD]
    assert len(said) > 2 and max(said) < t_p - 2 * MU


def test_an_invoice_said_again_changes_nothing(world: World) -> None:
    c, e = world.c.cids()[0], world.e.cids()[0]
    lock = world.invoice(AMOUNT, c, e)
    invoice = next(m.unpack(one.item.pcmd, one.item.payload)
                   for one in world.wire if one.kind == "tell")
    world.run()
    before = world.e.wallet(e)
    for cid in world.e.cids():
        world.act(world.e, lambda records, moment, cid=cid: world.e.machine.receive(
            records, moment, cid, invoice))
    assert world.e.wallet(e) == before
    assert isinstance(world.e.wallet(world.e.cids()[1]), wallets.Idle)
    other = replace(invoice, amount=AMOUNT + 1)
    with pytest.raises(ProtocolError, match="known"):
        world.e.machine.receive(world.e.records.copy(), world.moment(), world.e.cids()[1], other)
    assert invoice.wpk_c == lock


# --- A payer that holds no new token yet


def test_a_payer_whose_payee_never_comes_keeps_its_channel(world: World) -> None:
    """Nothing was marked and nothing revealed: the wallet is idle again, not on the ledger."""
    cid = world.c.cids()[0]
    t_p = world.deadline()
    world.e.alive = False
    world.invoice(AMOUNT, cid, world.e.cids()[0])
    world.run()
    world.travel(t_p + 4 * MU)
    assert RefusalCode.TOO_LATE in world.c.refusals
    assert world.c.balance(cid) == CLIENT_DEPOSIT
    world.setup(cid)
    assert isinstance(world.c.wallet(cid), wallets.InSession)


def test_a_payer_waits_for_a_silent_intermediary_until_the_deadline(world: World) -> None:
    cid = world.c.cids()[0]
    t_p = world.deadline()
    world.invoice(AMOUNT, cid, world.e.cids()[0])
    world.i.alive = False
    world.run()
    world.travel(t_p)
    assert isinstance(world.c.wallet(cid), wallets.Paying)
    world.travel(t_p + MU)
    assert isinstance(world.c.wallet(cid), wallets.Posted)
    world.i.alive = True
    world.settle(cid)
    assert world.c.wallet(cid).amount == CLIENT_DEPOSIT


def refuse(world: World, code: RefusalCode, *kinds: type[Any]) -> None:
    """From now on the intermediary refuses these requests with `code`."""
    pcmds = {kind.PCMD for kind in kinds}
    machine = world.i.machine
    handle = type(machine).handle

    def refusing(records: Any, moment: Any, pcmd: int, payload: bytes) -> Any:
        if pcmd in pcmds:
            raise Refused(code, "no")
        return handle(machine, records, moment, pcmd, payload)

    machine.handle = refusing


@pytest.fixture(autouse=True)
def honest_again(world: World) -> Iterator[None]:
    yield
    world.i.machine.__dict__.pop("handle", None)


@pytest.mark.parametrize("what", ["setup", "establish", "pay", "receive"])
def test_a_wallet_that_is_called_spent_is_claimed(world: World, what: str) -> None:
    """Nobody will take it again: its refund token is all that it is worth."""
    refuse(world, RefusalCode.REUSED, {
        "setup": m.NanoSetupRequest, "establish": m.NanoEstablishRequest,
        "pay": m.PayerRequest, "receive": m.PayeeRequest}[what])
    if what in ("setup", "establish"):
        world.establish(world.setup()) if what == "establish" else world.setup()
    else:
        world.invoice(AMOUNT, world.c.cids()[0], world.e.cids()[0])
        world.run()
    node = {"setup": world.c, "establish": world.r, "pay": world.c, "receive": world.e}[what]
    (cid,) = (one for one in node.cids() if not isinstance(node.wallet(one), wallets.Idle))
    assert isinstance(node.wallet(cid), wallets.Posted)


def test_a_spent_wallet_of_the_other_side_is_not_held_against_the_payer(world: World) -> None:
    """A payee that joins with a spent wallet must not force the payer's channel to the ledger."""
    payer, payee = legs(world)
    assert refused(world.ask(payee)) is RefusalCode.NOT_YET
    world.i.records.put(Table.NONCE, payee.nonce.to_bytes(31, "big"),
                        nano_setup.NonceUse(bytes(32)))
    assert refused(world.ask(payer)) is RefusalCode.STATE
    assert refused(world.ask(payee)) is RefusalCode.REUSED


# --- Who may say what


def test_words_of_a_payment_count_only_in_its_own_session(world: World) -> None:
    """Else whoever can talk to the client at all could make it reveal its secret."""
    lose(world, m.PayVerified)
    lock = world.transfer(AMOUNT)
    secret = world.c.wallet(world.c.cids()[0]).idle.wsk
    for node, word in ((world.c, m.PayVerified(lock)), (world.e, m.PaySecret(secret))):
        for session in (b"\x99" * 32, pay.session_key(lock + 1)):
            with pytest.raises(ProtocolError, match="not expected"):
                node.machine.on_message(node.records.copy(), world.moment(), session,
                                        *m.pack(word))
        assert node.machine.on_message(node.records.copy(), world.moment(),
                                       pay.session_key(lock), *m.pack(word))


def test_a_joined_leg_is_answered_whatever_the_fee_is_by_then(world: World) -> None:
    """The payer that waited would else be refused, idle, with a wallet that is spent."""
    payer, payee = legs(world)
    assert refused(world.ask(payer)) is RefusalCode.NOT_YET
    answered(world.ask(payee))
    epoch = DEMO.epoch_at(world.now)
    world.parameters[epoch] = replace(DEMO, pay_fee=DEMO.pay_fee + 1)
    answered(world.ask(payer))
    assert refused(world.ask(replace(payer, d_rt=payer.d_pt))) is RefusalCode.REUSED


def test_a_late_refusal_of_an_earlier_request_ends_nothing(world: World) -> None:
    """A duplicate of the query comes after the reveal: its refusal must not post a claim."""
    terms_hash = world.session(3)
    world.close_relay(terms_hash)
    cid = world.c.records.get(Table.SESSION, terms_hash).session.cid
    queries: list[Any] = []

    def fault(parcel: Any) -> tuple[Any, ...]:
        if parcel.kind == "request" and parcel.item.pcmd == m.ClientCloseQuery.PCMD:
            queries.append(parcel)
        elif (parcel.kind == "reply" and parcel.item[1] == m.WalletTokenReply.PCMD
                and len(queries) == 1):
            world.wire.extend((queries[0], parcel))
            # Behind them the refusal would be the last: let it overtake the reply.
            world.deliver()
            world.wire.rotate(1)
            return ()
        return (parcel,)

    world.fault = fault
    world.close_client(terms_hash)
    assert world.c.refusals
    assert world.c.balance(cid) == CLIENT_DEPOSIT - 3 * PRICE


# --- An intermediary that puts off


def test_a_payee_that_is_put_off_claims_its_old_wallet(world: World) -> None:
    lose(world, m.PayVerified)
    e = world.e.cids()[0]
    world.transfer(AMOUNT)
    t_p = pay.transfer(world.e.records, world.e.wallet(e).wpk_c).t_p
    refuse(world, RefusalCode.NOT_YET, m.PayeeVoid)
    world.travel(t_p + 3 * MU)
    assert isinstance(world.e.wallet(e), wallets.Voiding)
    world.travel(t_p + 5 * MU)
    assert isinstance(world.e.wallet(e), wallets.Posted)
    world.settle(e)
    assert world.e.wallet(e).amount == PAYEE_DEPOSIT


def test_a_reveal_cannot_be_put_off(world: World) -> None:
    """The secret is out: what waits for nothing is answered, or the claim is posted."""
    cid = world.c.cids()[0]
    refuse(world, RefusalCode.NOT_YET, m.NanoSetupReveal)
    world.setup(cid)
    assert isinstance(world.c.wallet(cid), wallets.Posted)


# --- Cash-out and opening


def test_a_second_close_of_a_group_is_another_transaction(world: World) -> None:
    group = world.c.cids()[0] >> 8
    keys: list[bytes] = []

    def fault(parcel: Any) -> tuple[Any, ...]:
        if parcel.kind == "submit":
            keys.append(parcel.item.key)
            return ()
        return (parcel,)

    world.fault = fault
    first, second = (world.c.wallet(cid) for cid in world.c.cids())
    wallets.put(world.c.records, second.cid, wallets.Spending(second, bytes(32)))
    world.cash_out(world.c, group)
    wallets.put(world.c.records, second.cid, second)
    world.cash_out(world.c, group)
    assert len(set(keys)) == len(keys) == 2 == len(world.c.submissions)
    world.fault = lambda parcel: (parcel,)
    world.restart(world.c)
    world.run()
    assert [world.c.wallet(cid).amount for cid in world.c.cids()] == [CLIENT_DEPOSIT] * 2


@pytest.mark.parametrize("shorter", [(0, 0), (1, 0), (0, 1)])
def test_a_group_with_other_windows_is_not_funded(
        world: World, shorter: tuple[int, int]) -> None:
    group = replace(world.i.records.get(Table.GROUP, (world.c.cids()[0] >> 8).to_bytes(31, "big")),
                    phase=establish.GroupPhase.AGREED)
    records = world.i.records.copy()
    records.put(Table.GROUP, group.group.to_bytes(31, "big"), group)
    outbox = world.i.machine.on_ledger(records, world.moment(), calls.Opened(
        group.group, DEMO.dispute_window - shorter[0], DEMO.close_notice - shorter[1]))
    assert any(isinstance(one, Submit) for one in outbox) is (shorter == (0, 0))


def test_a_nonce_that_was_refused_is_never_shown_beside_its_channel(world: World) -> None:
    """A cooperative close names channel and nonce: it would tell whose request was refused."""
    refused_one, other = world.c.cids()
    nonce = world.c.wallet(refused_one).nonce
    refuse(world, RefusalCode.TERMS, m.NanoSetupRequest)
    world.setup(refused_one)
    assert isinstance(world.c.wallet(refused_one), wallets.Idle)
    world.cash_out(world.c, refused_one >> 8)
    shown = [one for one in world.log if one.pcmd == m.CashOutRequest.PCMD]
    assert len(shown) == 1 and nonce.to_bytes(31, "big") not in shown[0].payload
    assert isinstance(world.c.wallet(refused_one), wallets.Posted)
    assert world.c.wallet(other).amount == CLIENT_DEPOSIT
    world.settle(refused_one)
    assert world.c.wallet(refused_one).amount == CLIENT_DEPOSIT


def test_only_shown_wallets_are_cashed_out_by_refund(world: World) -> None:
    cid = world.r.cids()[0]
    for one in world.r.cids():
        wallets.put(world.r.records, one, replace(world.r.wallet(one), shown=True))
    world.cash_out(world.r, cid >> 8)
    assert not any(one.pcmd == m.CashOutRequest.PCMD for one in world.log)
    assert isinstance(world.r.wallet(cid), wallets.Posted)


# --- Time


@pytest.mark.parametrize("who", ["C", "E"])
def test_no_payment_is_bound_for_longer_than_the_own_window(world: World, who: str) -> None:
    node = world.nodes[who]
    cid = node.cids()[0]
    limit = world.now + DEMO.dispute_window - MU

    def begin(t_p: int) -> None:
        if who == "C":
            node.machine.pay(node.records.copy(), world.moment(), cid=cid, amount=AMOUNT, t_p=t_p)
        else:
            node.machine.receive(node.records.copy(), world.moment(), cid,
                                 m.PayInvoice(AMOUNT, 7, t_p, 9))

    begin(limit)
    with pytest.raises(ProtocolError, match="window"):
        begin(limit + 1)


def test_a_duty_that_fails_leaves_the_others(world: World) -> None:
    """A deadline without its session must not keep the claim of another channel back."""
    terms_hash = world.session(1)
    t_exp = world.c.records.get(Table.SESSION, terms_hash).session.terms.t_exp
    cid = world.c.records.get(Table.SESSION, terms_hash).session.cid
    failing = next(one for one in world.c.cids() if one != cid)
    wallets.put(world.c.records, failing, wallets.InSession(failing, b"\x07" * 32))
    set_deadline(world.c.records, t_exp, Duty.ANSWER, subject_of(failing))
    wallets.put_notice(world.c.records, failing, wallets.CloseNotice(t_exp))
    world.i.alive = world.r.alive = False
    world.travel(t_exp + 5 * MU)
    assert isinstance(world.c.wallet(cid), wallets.Posted)
    assert any(note.what == "duty-failed" for note in world.c.notes)
    assert any(one.subject == subject_of(failing)
               for _, one in world.c.records.scan(Table.DEADLINE))


def test_an_intermediary_without_recent_blocks_judges_nothing(world: World) -> None:
    payer, payee = legs(world)
    assert refused(world.ask(payer)) is RefusalCode.NOT_YET
    world.now += MU + 1
    assert refused(world.ask(payee)) is RefusalCode.NOT_YET
    world.block()
    answered(world.ask(payee))


# --- Cryptography beneath


@pytest.mark.parametrize("field", ["tag", "nonce", "payment_deadline", "wpk_payer"])
def test_a_reissue_names_the_payment_that_is_void(world: World, field: str) -> None:
    case = make("reissue", world.issuer)
    case.verify(world.issuer)
    void = case.public["void"]
    other = replace(void, **{field: getattr(void, field) + 1})
    with pytest.raises(CryptoError):
        replace(case, public={**case.public, "void": other}).verify(world.issuer)


def test_tables_of_points_are_not_kept_for_ever() -> None:
    """Every decoding of a key expects its bases to be used; a long life sees many."""
    curve = backend("blst")
    bases = FixedBases(lambda point, scalar: curve.mul_g1(point, scalar))
    points = [curve.mul_g1(curve.g1, number) for number in range(2, 2 * KEPT_BASES)]
    for point in points:
        bases.expect(point)
        bases.multiply(points[0], 3)
    assert len(bases._bases) == KEPT_BASES
    assert id(points[0]) in bases._bases and id(points[1]) not in bases._bases
    for point in (points[0], points[1], points[-1]):
        assert curve.encode_g1(bases.multiply(point, 5)) == curve.encode_g1(curve.mul_g1(point, 5))
