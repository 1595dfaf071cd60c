# SPDX-License-Identifier: BSD-3-Clause
"""Provers that prove something weaker, against the real verifier.

Each has a control: with the relation weakened to what the prover can prove, the same message is
answered. So it is the rule that refuses it, and not a mistake in the attack.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from monetor_chain.parameters import DEMO
from monetor_chain.statements import GROUP_ORDER, lock_of
from offchain.crypto import (
    nano_close as close_proof,
    nano_setup as setup_proof,
    pay as pay_proof,
    proofs,
    range_proof,
    sigma,
    spending,
)
from offchain.crypto.bases import NONCE, WPK
from offchain.crypto.errors import CryptoError
from offchain.crypto.proofs import NEW_NONCE, T_PT, T_RT
from offchain.protocol import messages as m, nano_close, nano_setup, pay, wallet as wallets
from offchain.protocol.errors import RefusalCode
from offchain.protocol.records import Table
from tests.protocol.test_session_rules import answered, refused
from tests.protocol.world import DELTA_R, World


def check(world: World, monkeypatch: pytest.MonkeyPatch, request: Any,
          weaken: Callable[[pytest.MonkeyPatch], None],
          strengthen: Callable[[pytest.MonkeyPatch], None]) -> None:
    """Refused under the real relation, answered under the weak one."""
    strengthen(monkeypatch)
    assert refused(world.ask(request)) is RefusalCode.PROOF
    weaken(monkeypatch)
    answered(world.ask(request))


def no_check(*_: Any) -> None:
    return None


def test_range_on_the_balance_instead_of_what_is_left(
        world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wallet of 5,000 would buy payments of 12,800 and close with more than it ever had."""
    (cid,) = world.open(world.c, deposit=5_000, fund=0, count=1)
    real_relation, real_digits = setup_proof._relation, range_proof.blind_digits
    real_check = spending.check_amount

    def weak_relation(bases: Any, points: Any, digits: Any, cost: int, secret: int = 0) -> Any:
        held = range_proof.value(setup_proof._REMAINDER)
        spend = spending.spend_equations(bases, points, balance=held, saturated=held - cost)
        return [*spend, *range_proof.equations(bases, setup_proof._REMAINDER, digits, secret)]

    def weaken(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(setup_proof, "_relation", weak_relation)

    def strengthen(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(setup_proof, "_relation", real_relation)
        patch.setattr(range_proof, "blind_digits", real_digits)
        patch.setattr(spending, "check_amount", real_check)

    weaken(monkeypatch)
    monkeypatch.setattr(range_proof, "blind_digits",
                        lambda pk, name, amount: real_digits(pk, name, 5_000))
    monkeypatch.setattr(spending, "check_amount", no_check)
    idle = world.c.wallet(cid)
    user, moment = world.c.machine.user, world.moment()
    chain = nano_setup.HashChain.generate(DEMO.n)
    epoch = DEMO.epoch_at(world.now)
    terms = nano_setup.NanoTerms(-DEMO.price, DELTA_R, DEMO.n, chain.hc0,
                                 nano_setup.expiry(epoch, moment.parameters), chain.root, epoch)
    nwpk = lock_of(b"\x03" * 32)
    # `prove_nano_setup` without its own look at the balance.
    prepared = spending.prepare_spend(
        user.issuer, token=idle.pt, cid=cid, wpk=idle.wpk, balance=idle.balance,
        saturated=(idle.balance - DEMO.n * DEMO.price) % GROUP_ORDER)
    digits = range_proof.blind_digits(user.issuer, setup_proof._REMAINDER, 0)
    tag = nano_setup.tag(nano_setup.TokenKind.PAYMENT, nano_setup.Role.CLIENT, user.ctx)
    transcript = setup_proof._transcript(user.ctx, prepared.statement, digits.encoded, tag,
                                         idle.nonce, terms, nwpk)
    equations = setup_proof._relation(setup_proof.bases_of(user.issuer), prepared.points,
                                      digits.points, DEMO.n * DEMO.price)
    proof = digits.encoded + sigma.prove(transcript, equations,
                                         {**prepared.witness, **digits.witness})
    shown = prepared.statement
    request = m.NanoSetupRequest(idle.nonce, m.Terms.of(terms), nwpk, shown.com, shown.commitment,
                                 shown.sigma, shown.k, proof)
    check(world, monkeypatch, request, weaken, strengthen)


def test_two_locks_in_the_two_requests(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spending the wallet token would reveal one secret, and the refund token keep another."""
    terms_hash = world.session(5)
    real_equations, real_prepare = proofs.request_equations, proofs.prepare_request

    def weak_equations(bases: Any, d_rt: Any, quotient: Any, others: Any) -> Any:
        first, _ = real_equations(bases, d_rt, quotient, others)
        terms = ((bases.g2, sigma.secret(T_PT) - sigma.secret(T_RT)),
                 (bases.request(NONCE), sigma.secret(NEW_NONCE)),
                 (bases.request(WPK), sigma.secret("difference of the locks")))
        return [first, sigma.Equation(bases.group2, sigma.Base(quotient), terms)]

    def two_locks(pk: Any, *, wpk: int, nonce: int, others: Any) -> Any:
        made = real_prepare(pk, wpk=wpk, nonce=nonce, others=others)
        curve, other = pk.curve, lock_of(b"\x04" * 32)
        difference = (other - wpk) % GROUP_ORDER
        quotient = curve.add_g2(made.quotient, curve.mul_g2(pk.request_base(WPK), difference))
        d_pt = curve.add_g2(made.d_rt, quotient)
        return replace(made, quotient=quotient, request=proofs.TokenRequest(
            made.request.d_rt, curve.encode_g2(d_pt)),
            witness={**made.witness, "difference of the locks": difference})

    def weaken(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(close_proof, "request_equations", weak_equations)

    def strengthen(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(close_proof, "request_equations", real_equations)
        patch.setattr(close_proof, "prepare_request", real_prepare)

    weaken(monkeypatch)
    monkeypatch.setattr(close_proof, "prepare_request", two_locks)
    world.act(world.r, lambda records, moment: nano_close.start_relay(
        records, world.r.machine.user, terms_hash))
    check(world, monkeypatch, world.held(world.r), weaken, strengthen)


def test_a_negative_amount(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The payer would gain what the payee's balance, modulo the group's order, loses."""
    cid = world.c.cids()[0]
    real_digits = range_proof.blind_digits
    amount = -1_000

    def weak_relation(bases: Any, points: Any, rest_digits: Any, amount_digits: Any,
                      pay_fee: int, digit_secret: int = 0) -> Any:
        rest, moved = range_proof.value(pay_proof._NEW_BALANCE), sigma.secret("moved")
        return [*pay_proof._leg_equations(bases, points, balance=rest + moved + pay_fee,
                                          amount=moved, new_balance=rest),
                *range_proof.equations(bases, pay_proof._NEW_BALANCE, rest_digits, digit_secret)]

    def digits(pk: Any, name: str, number: int) -> Any:
        made = real_digits(pk, name, max(number, 0))
        return made if number >= 0 else replace(
            made, witness={**made.witness, "moved": number % GROUP_ORDER})

    def weaken(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(pay_proof, "_payer_relation", weak_relation)

    weaken(monkeypatch)
    monkeypatch.setattr(range_proof, "blind_digits", digits)
    monkeypatch.setattr(pay_proof, "check_amount", no_check)
    idle, user, t_p = world.c.wallet(cid), world.c.machine.user, world.deadline()
    statement, proof, _ = pay_proof.prove_pay_payer(
        user.issuer, user.ctx, token=idle.pt,
        tag=pay.tag(pay.TokenKind.PAYMENT, user.role, user.ctx), cid=cid, nonce=idle.nonce,
        wpk=idle.wpk, balance=idle.balance, amount=amount, s=7, pay_fee=DEMO.pay_fee,
        wpk_new=lock_of(b"\x05" * 32), nonce_new=9, payment_deadline=t_p)
    request = m.PayerRequest(idle.nonce, idle.wpk, t_p, statement.sigma, statement.k, statement.v,
                             statement.d_rt, statement.d_pt, proof)
    monkeypatch.undo()
    assert refused(world.ask(request)) is RefusalCode.PROOF
    weaken(monkeypatch)
    assert refused(world.ask(request)) is RefusalCode.NOT_YET, "taken, and waiting for its payee"


def test_another_session_balance_than_the_proof_says(world: World) -> None:
    """N, k and the price are in the transcript: none can be exchanged afterwards."""
    terms_hash = world.start_setup(world.c.cids()[0])
    request = world.held(world.c)
    other = world.c.cids()[1]
    world.c.requests.clear()
    world.start_setup(other)
    second = world.held(world.c)
    for wrong in (replace(request, commitment=second.commitment), replace(request, com=second.com),
                  replace(request, k=second.k), replace(request, sigma=second.sigma),
                  replace(request, nwpk=second.nwpk), replace(request, nonce=second.nonce),
                  replace(request, terms=second.terms), replace(request, proof=second.proof)):
        assert refused(world.ask(wrong)) is RefusalCode.PROOF
    answered(world.ask(request))
    assert world.i.records.get(Table.SESSION, terms_hash).commitment_c == request.commitment


def test_a_close_is_bound_to_its_session_and_count(world: World) -> None:
    first = world.session(20, world.c.cids()[0])
    second = world.session(20, world.c.cids()[1])
    requests = []
    for terms_hash in (first, second):
        world.act(world.r, lambda records, moment, th=terms_hash: nano_close.start_relay(
            records, world.r.machine.user, th))
        requests.append(world.held(world.r))
        world.r.requests.clear()
    one, two = requests
    for wrong in (replace(one, d_rt=two.d_rt), replace(one, d_pt=two.d_pt),
                  replace(one, d_rt=two.d_rt, d_pt=two.d_pt, proof=two.proof),
                  replace(one, d_rt=one.d_pt, d_pt=one.d_rt)):
        assert refused(world.ask(wrong)) is RefusalCode.PROOF
    answered(world.ask(one))
    assert wallets.proved(world.r.records, first).k == 20


def test_nobody_can_put_a_tag_into_a_request(world: World) -> None:
    """With a base for it a client would ask for a relay's token, or for a wallet of any kind."""
    public = world.issuer.public
    assert len(public.y_tilde) == 4
    for attribute in (0, 5, -1):
        with pytest.raises(CryptoError):
            public.request_base(attribute)
