# SPDX-License-Identifier: BSD-3-Clause
"""Provers that follow every equation except one.

Each cheat uses the package's own machinery with a false witness or a false element, and where it
says so a positive control shows that the one rule under test is what stops it.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Any

import pytest

from monetor_chain.statements import GROUP_ORDER, Role, TokenKind, lock_of, tag
from offchain.crypto import (
    curve as curve_module,
    nano_close,
    nano_establish,
    nano_setup,
    opening,
    pay,
    possession,
    proofs,
    range_proof,
    reissue,
    sigma,
    spending,
)
from offchain.crypto.bases import BALANCE, CID, NONCE, TAG, WPK, bases_of
from offchain.crypto.curve import G1, G2, decode_g1, decode_g2
from offchain.crypto.errors import CryptoError
from offchain.crypto.generators import commit, commit_point
from offchain.crypto.issuer import IssuerKey, unblind, verify_token
from offchain.crypto.nano_close import prove_nano_close, verify_nano_close
from offchain.crypto.nano_establish import prove_nano_establish, verify_nano_establish
from offchain.crypto.nano_setup import SetupStatement, prove_nano_setup, verify_nano_setup
from offchain.crypto.opening import prove_opening, verify_opening
from offchain.crypto.pay import prove_pay_payee, prove_pay_payer, verify_pay_payee, verify_pay_payer
from offchain.crypto.proofs import TokenRequest
from offchain.crypto.range_proof import BlindedDigits
from offchain.crypto.reissue import VoidPayment, prove_reissue, verify_reissue
from offchain.crypto.scalars import random_scalar
from tests.crypto.cases import (
    AMOUNT,
    BALANCE as FUNDS,
    COST,
    CTX,
    DEADLINE,
    EARNED,
    PAY_FEE,
    TERMS,
    Wallet,
    identifier,
    payment_tag,
    wallet,
)
from tests.crypto.points import G1_IDENTITY, G2_IDENTITY, G2_OFF_SUBGROUP

NWPK = identifier()


def _new() -> dict[str, int]:
    return {"wpk_new": identifier(), "nonce_new": identifier()}


def _lenient_amounts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removes the prover's own refusals: a cheat would not have them."""
    for module in (range_proof, spending, pay, nano_close, reissue):
        monkeypatch.setattr(module, "check_amount", lambda value, field: None)


def _allow_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removes the rule that rejects the identity where randomness is expected."""

    def lenient(curve: Any, data: bytes, field: str, *, identity: bool = False) -> G1:
        return curve_module.decode_g1(curve, data, field, identity=True)

    monkeypatch.setattr(range_proof, "decode_g1", lenient)


# --- the range -----------------------------------------------------------------------------------


def _digits(issuer: IssuerKey, name: str, digits: list[int], tokens: list[int]) -> BlindedDigits:
    """Digits as claimed in the witness, over the tokens with the given indices."""
    curve, points, witness = issuer.curve, [], {}
    for j, (digit, token) in enumerate(zip(digits, tokens, strict=True)):
        v = random_scalar()
        witness[f"{name} digit {j}"] = digit
        witness[f"{name} digit blinding {j}"] = v
        points.append(curve.mul_g1(issuer.public.digit_tokens[token], v))
    encoded = b"".join(map(curve.encode_g1, points))
    return BlindedDigits(encoded, tuple(points), witness)


def _setup(issuer: IssuerKey, w: Wallet) -> tuple[SetupStatement, bytes]:
    statement, proof, _ = prove_nano_setup(issuer.public, CTX, **w.spend(), terms=TERMS, nwpk=NWPK)
    return statement, proof


def _accepts_setup(issuer: IssuerKey, statement: SetupStatement, proof: bytes, w: Wallet) -> bool:
    try:
        verify_nano_setup(
            issuer, CTX, statement, proof, tag=w.tag, nonce=w.nonce, terms=TERMS, nwpk=NWPK
        )
    except CryptoError:
        return False
    return True


def _cheat_setup(
    issuer: IssuerKey,
    w: Wallet,
    *,
    remainder: int,
    digits: BlindedDigits | None = None,
    **changes: int,
) -> bool:
    """Runs Nano-Setup with B_full = `remainder` in N, whatever the token says.

    `digits`: instead of honest ones; `changes`: witness values to exchange.
    """
    pk = issuer.public
    cheat = spending.prepare_spend(
        pk,
        token=w.token,
        cid=w.cid,
        wpk=w.wpk,
        balance=w.balance,
        saturated=remainder,
    )
    spent = cheat.statement
    statement = SetupStatement(spent.com, spent.commitment, spent.sigma, spent.k)
    digits = digits or range_proof.blind_digits(pk, "balance after the session", remainder)
    transcript = nano_setup._transcript(CTX, statement, digits.encoded, w.tag, w.nonce, TERMS, NWPK)
    equations = nano_setup._relation(bases_of(pk), cheat.points, digits.points, COST)
    witness = {**cheat.witness, **digits.witness, **changes}
    proof = digits.encoded + sigma.prove(transcript, equations, witness)
    return _accepts_setup(issuer, statement, proof, w)


def test_the_harness_accepts_an_honest_run(issuer: IssuerKey) -> None:
    w = wallet(issuer)
    assert _accepts_setup(issuer, *_setup(issuer, w), w)
    assert _cheat_setup(issuer, w, remainder=w.balance - COST)


@pytest.mark.parametrize("balance", [0, 1, COST - 1])
def test_an_empty_wallet_sets_nothing_up(
    issuer: IssuerKey, balance: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    w = wallet(issuer, balance=balance)
    with pytest.raises(CryptoError, match="does not cover"):
        _setup(issuer, w)
    # The digits of a number congruent to B - n price, or of any other.
    _lenient_amounts(monkeypatch)
    for remainder in (balance - COST, (balance - COST) % 2**32, 0, balance):
        assert not _cheat_setup(issuer, w, remainder=remainder)


def test_a_wallet_with_exactly_the_cost_sets_up(issuer: IssuerKey) -> None:
    w = wallet(issuer, balance=COST)
    assert _accepts_setup(issuer, *_setup(issuer, w), w)


def test_a_range_on_the_balance_instead_of_the_remainder(
    issuer: IssuerKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The prover shows 0 <= B < 2**32 and commits to B - n price < 0.
    _lenient_amounts(monkeypatch)
    w = wallet(issuer, balance=COST - 1)
    pk, bases = issuer.public, bases_of(issuer.public)
    cheat = spending.prepare_spend(
        pk, token=w.token, cid=w.cid, wpk=w.wpk, balance=w.balance, saturated=w.balance - COST
    )
    statement = SetupStatement(
        cheat.statement.com, cheat.statement.commitment, cheat.statement.sigma, cheat.statement.k
    )
    digits = range_proof.blind_digits(pk, "balance after the session", w.balance)
    value = range_proof.value("balance after the session")
    transcript = nano_setup._transcript(CTX, statement, digits.encoded, w.tag, w.nonce, TERMS, NWPK)
    equations: list[sigma.AnyEquation] = [
        *spending.spend_equations(bases, cheat.points, balance=value, saturated=value - COST),
        *range_proof.equations(bases, "balance after the session", digits.points),
    ]
    proof = sigma.prove(transcript, equations, {**cheat.witness, **digits.witness})
    assert not _accepts_setup(issuer, statement, digits.encoded + proof, w)

    # Control: a verifier that put the range on B would take it.
    def on_the_balance(
        bases: Any, points: Any, tokens: Any, cost: int, digit_secret: int = 0
    ) -> list[sigma.AnyEquation]:
        return [
            *spending.spend_equations(bases, points, balance=value, saturated=value - cost),
            *range_proof.equations(bases, "balance after the session", tokens, digit_secret),
        ]

    monkeypatch.setattr(nano_setup, "_relation", on_the_balance)
    assert _accepts_setup(issuer, statement, digits.encoded + proof, w)


def test_forged_digits(issuer: IssuerKey, monkeypatch: pytest.MonkeyPatch) -> None:
    _lenient_amounts(monkeypatch)
    w = wallet(issuer, balance=COST - 1)
    name = "balance after the session"
    # -1 = 255 + 255*256 + 255*256^2 - 256^3: right sum, but no token for the top digit.
    minus_one = [255, 255, 255, -1]
    for tokens in ([255] * 4, [255, 255, 255, 0]):
        forged = _digits(issuer, name, minus_one, tokens)
        assert not _cheat_setup(issuer, w, remainder=-1, digits=forged)
    # A digit of 256 and more.
    rich = wallet(issuer, balance=COST + 2**20)
    forged = _digits(issuer, name, [2**20, 0, 0, 0], [0, 0, 0, 0])
    assert not _cheat_setup(issuer, rich, remainder=2**20, digits=forged)


def test_digits_of_identity(issuer: IssuerKey, monkeypatch: pytest.MonkeyPatch) -> None:
    # V_j = 1 with v_j = 0 satisfies the digit's equation for every d_j, so a negative balance
    # passes. Control: with the rule switched off, it does.
    _lenient_amounts(monkeypatch)
    w = wallet(issuer, balance=COST - 1)
    name, curve = "balance after the session", issuer.curve
    one = curve.mul_g1(curve.g1, 0)
    witness = {f"{name} digit {j}": d for j, d in enumerate((255, 255, 255, -1))}
    witness |= {f"{name} digit blinding {j}": 0 for j in range(4)}
    forged = BlindedDigits(G1_IDENTITY * 4, (one,) * 4, witness)
    assert not _cheat_setup(issuer, w, remainder=-1, digits=forged)
    _allow_identity(monkeypatch)
    assert _cheat_setup(issuer, w, remainder=-1, digits=forged)


# --- Nano-Setup and Nano-Establish ---------------------------------------------------------------


def test_the_session_gets_the_tokens_remainder(issuer: IssuerKey) -> None:
    w = wallet(issuer)
    for wrong in (w.balance - COST + 1, w.balance, w.balance - COST - 1):
        assert not _cheat_setup(issuer, w, remainder=wrong)


@pytest.mark.parametrize("name", ["cid", "wpk", "token blinding"])
def test_hidden_values_are_the_tokens(issuer: IssuerKey, name: str) -> None:
    w = wallet(issuer)
    assert not _cheat_setup(issuer, w, remainder=w.balance - COST, **{name: identifier()})


def test_another_lock_in_com_or_channel_in_n(issuer: IssuerKey) -> None:
    # The elements hold other values, honestly known to the prover.
    w, other = wallet(issuer), identifier()
    pk = issuer.public
    for field in ("com", "commitment"):
        cheat = spending.prepare_spend(
            pk,
            token=w.token,
            cid=w.cid,
            wpk=w.wpk,
            balance=w.balance,
            saturated=w.balance - COST,
        )
        if field == "com":
            point = commit_point(pk.curve, other, 0, cheat.secrets.r)
        else:
            point = commit_point(pk.curve, other, w.balance - COST, cheat.secrets.rho)
        points = replace(cheat.points, **{field: point})
        spent = replace(cheat.statement, **{field: pk.curve.encode_g1(point)})
        statement = SetupStatement(spent.com, spent.commitment, spent.sigma, spent.k)
        digits = range_proof.blind_digits(pk, "balance after the session", w.balance - COST)
        transcript = nano_setup._transcript(
            CTX, statement, digits.encoded, w.tag, w.nonce, TERMS, NWPK
        )
        equations = nano_setup._relation(bases_of(pk), points, digits.points, COST)
        proof = sigma.prove(transcript, equations, {**cheat.witness, **digits.witness})
        assert not _accepts_setup(issuer, statement, digits.encoded + proof, w)


def _false_wallets(issuer: IssuerKey, w: Wallet) -> list[Wallet]:
    """Another balance, lock, channel, nonce or tag than signed; another issuer."""
    stranger = IssuerKey.generate(issuer.curve)
    return [
        replace(w, balance=w.balance + 1000),
        replace(w, wpk=identifier()),
        replace(w, cid=identifier()),
        replace(w, token=issuer.sign(**{**w.messages(), "nonce": identifier()})),
        replace(w, token=issuer.sign(**{**w.messages(), "tag": identifier()})),
        replace(w, token=stranger.sign(**w.messages())),
    ]


def test_no_token_no_session(issuer: IssuerKey) -> None:
    w = wallet(issuer)
    refund = {**w.messages(), "tag": tag(TokenKind.REFUND, Role.CLIENT, CTX)}
    relays = {**w.messages(), "tag": payment_tag(Role.RELAY)}
    for false in (
        *_false_wallets(issuer, w),
        replace(w, token=issuer.sign(**refund)),
        replace(w, token=issuer.sign(**relays)),
    ):
        assert not _accepts_setup(issuer, *_setup(issuer, false), false)


def test_no_token_no_relay_leg(issuer: IssuerKey) -> None:
    w = wallet(issuer, Role.RELAY)
    for false in _false_wallets(issuer, w):
        statement, proof, _ = prove_nano_establish(
            issuer.public, CTX, **false.spend(), terms=TERMS, nwpk=NWPK
        )
        with pytest.raises(CryptoError, match="sigma"):
            verify_nano_establish(
                issuer,
                CTX,
                statement,
                proof,
                tag=false.tag,
                nonce=false.nonce,
                terms=TERMS,
                nwpk=NWPK,
            )


def test_no_token_no_payment(issuer: IssuerKey) -> None:
    w = wallet(issuer)
    for false in _false_wallets(issuer, w):
        assert not _payer(issuer, false, AMOUNT, random_scalar())
        statement, proof, _ = prove_pay_payee(
            issuer.public,
            CTX,
            **false.spend(),
            amount=AMOUNT,
            s=random_scalar(),
            payment_deadline=DEADLINE,
            wpk_payer=1,
            **_new(),
        )
        with pytest.raises(CryptoError, match="sigma"):
            verify_pay_payee(
                issuer,
                CTX,
                statement,
                proof,
                tag=false.tag,
                nonce=false.nonce,
                wpk=false.wpk,
                payment_deadline=DEADLINE,
                wpk_payer=1,
            )


def test_an_identity_signature_spends_nothing(
    issuer: IssuerKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    # sigma' = (1, 1) satisfies the pairing equation for every K.
    w = wallet(issuer, balance=2**31)
    monkeypatch.setattr(possession, "show", lambda pk, token, t: G2_IDENTITY * 2)
    assert not _accepts_setup(issuer, *_setup(issuer, w), w)


@pytest.mark.parametrize("half", [0, 1])
def test_a_signature_outside_the_subgroup_spends_nothing(
    issuer: IssuerKey, half: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    w, show = wallet(issuer), possession.show

    def false_show(pk: Any, token: bytes, t: int) -> bytes:
        shown = show(pk, token, t)
        return G2_OFF_SUBGROUP + shown[96:] if half == 0 else shown[:96] + G2_OFF_SUBGROUP

    monkeypatch.setattr(possession, "show", false_show)
    statement, proof = _setup(issuer, w)
    with pytest.raises(CryptoError, match="not in G2"):
        verify_nano_setup(
            issuer, CTX, statement, proof, tag=w.tag, nonce=w.nonce, terms=TERMS, nwpk=NWPK
        )


def test_public_messages_cannot_move_into_k(issuer: IssuerKey) -> None:
    # K Y2^(nonce - claimed) makes the pairing hold for a nonce that was never signed, which would
    # spend one token many times. The equation of K has no Y2, so it cannot be proved.
    w = wallet(issuer)
    claimed = identifier()
    pk, curve = issuer.public, issuer.curve
    cheat = spending.prepare_spend(
        pk, token=w.token, cid=w.cid, wpk=w.wpk, balance=w.balance, saturated=w.balance - COST
    )
    for attribute, shift in ((NONCE, w.nonce - claimed), (TAG, 1)):
        k = curve.add_g1(cheat.points.k, curve.mul_g1(pk.y[attribute], shift))
        points = replace(cheat.points, k=k)
        spent = replace(cheat.statement, k=curve.encode_g1(k))
        statement = SetupStatement(spent.com, spent.commitment, spent.sigma, spent.k)
        shown = w if attribute is TAG else replace(w, nonce=claimed)
        if attribute is NONCE:
            # Control: the pairing alone is satisfied.
            possession.check(issuer, spent.sigma, k, {TAG: w.tag, NONCE: claimed})
        digits = range_proof.blind_digits(pk, "balance after the session", w.balance - COST)
        transcript = nano_setup._transcript(
            CTX, statement, digits.encoded, shown.tag, shown.nonce, TERMS, NWPK
        )
        equations = nano_setup._relation(bases_of(pk), points, digits.points, COST)
        proof = sigma.prove(transcript, equations, {**cheat.witness, **digits.witness})
        assert not _accepts_setup(issuer, statement, digits.encoded + proof, shown)


def test_nonce_zero_is_no_wallet(issuer: IssuerKey) -> None:
    w = wallet(issuer)
    token = issuer.sign(**{**w.messages(), "nonce": 0})
    with pytest.raises(CryptoError, match="nonce"):
        _setup(issuer, replace(w, nonce=0, token=token))
    statement, proof = _setup(issuer, w)
    with pytest.raises(CryptoError, match="nonce"):
        verify_nano_setup(issuer, CTX, statement, proof, tag=w.tag, nonce=0, terms=TERMS, nwpk=NWPK)


def test_a_relay_saturates_at_its_balance_plus_the_earnings(issuer: IssuerKey) -> None:
    w = wallet(issuer, Role.RELAY)
    pk = issuer.public
    public: dict[str, Any] = {"tag": w.tag, "nonce": w.nonce, "terms": TERMS, "nwpk": NWPK}
    statement, proof, _ = prove_nano_establish(pk, CTX, **w.spend(), terms=TERMS, nwpk=NWPK)
    verify_nano_establish(issuer, CTX, statement, proof, **public)
    for saturated in (w.balance + EARNED + 1, w.balance + EARNED - 1, w.balance):
        cheat = spending.prepare_spend(
            pk, token=w.token, cid=w.cid, wpk=w.wpk, balance=w.balance, saturated=saturated
        )
        spent = cheat.statement
        false = replace(statement, com=spent.com, commitment=spent.commitment)
        false = replace(false, sigma=spent.sigma, k=spent.k)
        transcript = nano_establish._transcript(CTX, false, w.tag, w.nonce, TERMS, NWPK)
        equations = nano_establish._relation(bases_of(pk), cheat.points, EARNED)
        proof = sigma.prove(transcript, equations, {**cheat.witness, "balance": w.balance})
        with pytest.raises(CryptoError):
            verify_nano_establish(issuer, CTX, false, proof, **public)


def test_a_relay_does_not_exceed_what_a_balance_can_hold(issuer: IssuerKey) -> None:
    w = wallet(issuer, Role.RELAY, balance=2**32 - EARNED)
    with pytest.raises(CryptoError, match="saturated"):
        prove_nano_establish(issuer.public, CTX, **w.spend(), terms=TERMS, nwpk=NWPK)


def test_terms_that_overflow_a_balance_are_refused(issuer: IssuerKey) -> None:
    w = wallet(issuer)
    statement, proof = _setup(issuer, w)
    for change in ({"delta_c": -(2**31)}, {"delta_c": 1}, {"n": 0}, {"n": -5}, {"delta_r": -1}):
        terms = replace(TERMS, **change)
        with pytest.raises(CryptoError):
            verify_nano_setup(
                issuer, CTX, statement, proof, tag=w.tag, nonce=w.nonce, terms=terms, nwpk=NWPK
            )


# --- requests ------------------------------------------------------------------------------------


def _opening_accepts(issuer: IssuerKey, request: TokenRequest, proof: bytes, cid: int) -> bool:
    try:
        verify_opening(issuer, CTX, request, proof, role=Role.CLIENT, cid=cid, balance=FUNDS)
    except CryptoError:
        return False
    return True


def _cheat_opening(issuer: IssuerKey, shift_rt: G2 | None, shift_pt: G2 | None) -> bool:
    """Opening, with D_rt and D_pt multiplied by the given points."""
    pk, curve, cid = issuer.public, issuer.curve, identifier()
    honest = proofs.prepare_request(pk, wpk=identifier(), nonce=identifier(), others={})
    d_pt = curve.add_g2(honest.d_rt, honest.quotient)
    d_rt = curve.add_g2(honest.d_rt, shift_rt) if shift_rt is not None else honest.d_rt
    d_pt = curve.add_g2(d_pt, shift_pt) if shift_pt is not None else d_pt
    quotient = curve.add_g2(d_pt, curve.neg_g2(d_rt))
    request = TokenRequest(curve.encode_g2(d_rt), curve.encode_g2(d_pt))
    transcript = opening._transcript(CTX, request, Role.CLIENT, cid, FUNDS)
    equations = opening._relation(bases_of(pk), d_rt, quotient)
    proof = sigma.prove(transcript, equations, honest.witness)
    return _opening_accepts(issuer, request, proof, cid)


def test_different_locks_in_the_two_requests(issuer: IssuerKey) -> None:
    # With different locks, revoking the wallet token would leave the refund token alive.
    curve = issuer.curve
    shift = curve.mul_g2(issuer.public.request_base(WPK), identifier())
    assert _cheat_opening(issuer, None, None)
    assert not _cheat_opening(issuer, shift, None)
    assert not _cheat_opening(issuer, None, shift)


@pytest.mark.parametrize("attribute", [CID, NONCE, WPK, BALANCE])
def test_no_other_base_in_an_opening(issuer: IssuerKey, attribute: int) -> None:
    curve = issuer.curve
    shift = curve.mul_g2(issuer.public.request_base(attribute), 12_345)
    assert not _cheat_opening(issuer, shift, shift)


def test_the_tags_base_is_refused(issuer: IssuerKey) -> None:
    # Y~0 is secret; a prover who had it would turn one kind of token into another.
    curve = issuer.curve
    shift = curve.mul_g2(curve.g2, issuer.y[0] * 99)
    assert not _cheat_opening(issuer, shift, shift)
    assert not _cheat_opening(issuer, None, shift)


def test_requests_are_never_the_identity(issuer: IssuerKey) -> None:
    # t = wpk' = nonce' = 0 opens the identity honestly, so only the decoder refuses it.
    pk, curve = issuer.public, issuer.curve
    one, t = curve.mul_g2(curve.g2, 0), random_scalar()
    other = curve.mul_g2(curve.g2, t)
    for d_rt, d_pt, t_rt, t_pt in ((one, other, 0, t), (other, one, t, 0)):
        quotient = curve.add_g2(d_pt, curve.neg_g2(d_rt))
        request = TokenRequest(curve.encode_g2(d_rt), curve.encode_g2(d_pt))
        transcript = opening._transcript(CTX, request, Role.CLIENT, 1, FUNDS)
        witness = {proofs.T_RT: t_rt, proofs.T_PT: t_pt, proofs.NEW_WPK: 0, proofs.NEW_NONCE: 0}
        proof = sigma.prove(transcript, opening._relation(bases_of(pk), d_rt, quotient), witness)
        with pytest.raises(CryptoError, match="identity"):
            verify_opening(issuer, CTX, request, proof, role=Role.CLIENT, cid=1, balance=FUNDS)


def test_equal_blindings_are_not_made(issuer: IssuerKey) -> None:
    pairs = [
        prove_opening(issuer.public, CTX, role=Role.CLIENT, cid=1, balance=0, nonce=2, wpk=3)[2]
        for _ in range(5)
    ]
    assert len({t for pair in pairs for t in (pair.t_rt, pair.t_pt)}) == 10


def test_both_tokens_come_out_of_an_opening(issuer: IssuerKey) -> None:
    cid, nonce, wpk = identifier(), identifier(), lock_of(secrets.token_bytes(32))
    pk = issuer.public
    request, proof, hidden = prove_opening(
        pk, CTX, role=Role.RELAY, cid=cid, balance=FUNDS, nonce=nonce, wpk=wpk
    )
    verify_opening(issuer, CTX, request, proof, role=Role.RELAY, cid=cid, balance=FUNDS)
    refund, payment = tag(TokenKind.REFUND, Role.RELAY, CTX), payment_tag(Role.RELAY)
    rt = unblind(
        pk,
        issuer.blind_sign(request.d_rt, tag=refund, cid=cid, balance=FUNDS),
        hidden.t_rt,
        tag=refund,
        cid=cid,
        nonce=0,
        wpk=wpk,
        balance=FUNDS,
    )
    pt = unblind(
        pk,
        issuer.blind_sign(request.d_pt, tag=payment, cid=cid, balance=FUNDS),
        hidden.t_pt,
        tag=payment,
        cid=cid,
        nonce=nonce,
        wpk=wpk,
        balance=FUNDS,
    )
    assert verify_token(pk, rt, tag=refund, cid=cid, nonce=0, wpk=wpk, balance=FUNDS)
    assert verify_token(pk, pt, tag=payment, cid=cid, nonce=nonce, wpk=wpk, balance=FUNDS)
    assert not verify_token(pk, rt, tag=payment, cid=cid, nonce=nonce, wpk=wpk, balance=FUNDS)


# --- Nano-Close ----------------------------------------------------------------------------------


def _cheat_close(issuer: IssuerKey, *, cid: int = 0, gain: int = 0, **witness: int) -> bool:
    """A close whose requests hold cid + `cid` and the balance + `gain`."""
    pk = issuer.public
    real, rho, adjustment = identifier() >> 8, random_scalar(), -86 * 5
    commitment = commit(real, FUNDS, rho, curve=pk.curve)
    others = {CID: real + cid, BALANCE: FUNDS + adjustment + gain}
    prepared = proofs.prepare_request(pk, wpk=identifier(), nonce=identifier(), others=others)
    public: dict[str, Any] = {
        "role": Role.RELAY,
        "commitment": commitment,
        "adjustment": adjustment,
        "terms_hash": TERMS.hash(),
        "k": 5,
    }
    transcript = nano_close._transcript(CTX, prepared.request, **public)
    equations = nano_close._relation(
        bases_of(pk),
        decode_g1(pk.curve, commitment, "N"),
        prepared.d_rt,
        prepared.quotient,
        adjustment,
    )
    values = {
        **prepared.witness,
        "cid": real,
        "saturated balance": FUNDS,
        "session commitment blinding": rho,
        **witness,
    }
    proof = sigma.prove(transcript, equations, values)
    try:
        verify_nano_close(issuer, CTX, prepared.request, proof, **public)
    except CryptoError:
        return False
    return True


def test_a_close_returns_the_sessions_state(issuer: IssuerKey) -> None:
    assert _cheat_close(issuer)
    for gain in (1, -1, 430, 2**32):
        assert not _cheat_close(issuer, gain=gain)
        assert not _cheat_close(issuer, gain=gain, **{"saturated balance": FUNDS + gain})
    assert not _cheat_close(issuer, cid=1)
    assert not _cheat_close(issuer, cid=256)


def test_a_close_needs_the_opening_of_n(issuer: IssuerKey) -> None:
    assert not _cheat_close(issuer, **{"session commitment blinding": 5})


def test_a_negative_balance_is_not_requested(issuer: IssuerKey) -> None:
    pk, rho = issuer.public, random_scalar()
    for saturated, adjustment in ((100, -101), (2**32 - 1, 1)):
        with pytest.raises(CryptoError, match="new balance"):
            prove_nano_close(
                pk,
                CTX,
                role=Role.RELAY,
                cid=1,
                saturated=saturated,
                rho=rho,
                commitment=commit(1, saturated, rho, curve=pk.curve),
                adjustment=adjustment,
                terms_hash=TERMS.hash(),
                k=0,
                **_new(),
            )


def test_a_close_with_a_false_commitment(issuer: IssuerKey) -> None:
    pk, rho = issuer.public, random_scalar()
    real = commit(1, 500, rho, curve=pk.curve)
    false = commit(1, 900, rho, curve=pk.curve)
    public: dict[str, Any] = {
        "role": Role.CLIENT,
        "adjustment": 100,
        "terms_hash": TERMS.hash(),
        "k": 1023,
    }
    request, proof, _ = prove_nano_close(
        pk, CTX, cid=1, saturated=900, rho=rho, commitment=false, **_new(), **public
    )
    verify_nano_close(issuer, CTX, request, proof, commitment=false, **public)
    with pytest.raises(CryptoError):
        # The intermediary takes N from its own store, so this is what it verifies.
        verify_nano_close(issuer, CTX, request, proof, commitment=real, **public)


# --- Pay -----------------------------------------------------------------------------------------


def _payer(issuer: IssuerKey, w: Wallet, amount: int, s: int) -> bool:
    statement, proof, _ = prove_pay_payer(
        issuer.public,
        CTX,
        **w.spend(),
        amount=amount,
        s=s,
        pay_fee=PAY_FEE,
        payment_deadline=DEADLINE,
        **_new(),
    )
    try:
        verify_pay_payer(
            issuer,
            CTX,
            statement,
            proof,
            tag=w.tag,
            nonce=w.nonce,
            wpk=w.wpk,
            pay_fee=PAY_FEE,
            payment_deadline=DEADLINE,
        )
    except CryptoError:
        return False
    return True


@pytest.mark.parametrize("amount", [0, 1, AMOUNT, FUNDS - PAY_FEE])
def test_amounts_that_the_balance_covers(issuer: IssuerKey, amount: int) -> None:
    assert _payer(issuer, wallet(issuer), amount, random_scalar())


@pytest.mark.parametrize("amount", [FUNDS - PAY_FEE + 1, FUNDS, 2**32 - 1, -1, -FUNDS])
def test_amounts_that_no_payer_can_prove(
    issuer: IssuerKey, amount: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    w = wallet(issuer)
    with pytest.raises(CryptoError):
        _payer(issuer, w, amount, random_scalar())
    # Without the prover's own refusals: digits modulo 256^4, so of another number.
    _lenient_amounts(monkeypatch)
    if amount < 0:
        assert not _payer(issuer, w, amount, random_scalar())
    elif amount <= w.balance:
        poor = replace(w, balance=amount + PAY_FEE)
        assert not _payer(issuer, poor, amount, random_scalar())


def _cheat_pay(
    issuer: IssuerKey,
    *,
    payer: bool,
    gain: int = 0,
    cid: int = 0,
    shown_amount: int | None = None,
) -> bool:
    """A leg whose requests hold `gain` too much, or cid + `cid`, or whose V is another's."""
    pk, w, s = issuer.public, wallet(issuer), random_scalar()
    w = replace(w, cid=w.cid >> 8)
    w = replace(w, token=issuer.sign(**w.messages()))
    new_balance = w.balance - AMOUNT - PAY_FEE if payer else w.balance + AMOUNT
    leg = pay._prepare_leg(
        pk,
        token=w.token,
        cid=w.cid,
        balance=w.balance,
        new_balance=new_balance,
        amount=AMOUNT if shown_amount is None else shown_amount,
        s=s,
        **_new(),
    )
    request = proofs.prepare_request(
        pk,
        wpk=identifier(),
        nonce=identifier(),
        others={CID: w.cid + cid, BALANCE: new_balance + gain},
    )
    statement = replace(leg.statement, d_rt=request.request.d_rt, d_pt=request.request.d_pt)
    points = replace(leg.points, d_rt=request.d_rt, quotient=request.quotient)
    witness = {**leg.witness, **request.witness}
    common: dict[str, Any] = {
        "tag": w.tag,
        "nonce": w.nonce,
        "wpk": w.wpk,
        "payment_deadline": DEADLINE,
    }
    bases = bases_of(pk)
    try:
        if payer:
            publics = pay._Publics(w.tag, w.nonce, w.wpk, w.wpk, PAY_FEE, DEADLINE)
            rest = range_proof.blind_digits(pk, "new balance", new_balance)
            paid = range_proof.blind_digits(pk, "amount", AMOUNT)
            ranges = rest.encoded + paid.encoded
            transcript = pay._transcript(CTX, "payer", statement, publics, ranges)
            relation = pay._payer_relation(bases, points, rest.points, paid.points, PAY_FEE)
            proof = sigma.prove(transcript, relation, {**witness, **rest.witness, **paid.witness})
            verify_pay_payer(issuer, CTX, statement, ranges + proof, pay_fee=PAY_FEE, **common)
        else:
            publics = pay._Publics(w.tag, w.nonce, w.wpk, 77, 0, DEADLINE)
            transcript = pay._transcript(CTX, "payee", statement, publics, b"")
            values = {**witness, "balance": w.balance, "amount": AMOUNT}
            proof = sigma.prove(transcript, pay._payee_relation(bases, points), values)
            verify_pay_payee(issuer, CTX, statement, proof, wpk_payer=77, **common)
    except CryptoError:
        return False
    return True


@pytest.mark.parametrize("payer", [True, False])
def test_a_leg_changes_its_wallet_by_the_amount(issuer: IssuerKey, payer: bool) -> None:
    assert _cheat_pay(issuer, payer=payer)
    for gain in (1, -1, PAY_FEE, AMOUNT, 2**32):
        assert not _cheat_pay(issuer, payer=payer, gain=gain)
    assert not _cheat_pay(issuer, payer=payer, cid=1)
    for amount in (AMOUNT - 1, AMOUNT + 1, 0, -AMOUNT):
        if amount >= 0:
            assert not _cheat_pay(issuer, payer=payer, shown_amount=amount)


def test_the_legs_cancel(issuer: IssuerKey) -> None:
    # V V^-1 P1^-fee: what the payee gains and the payer loses differ by the fee alone.
    payer, payee, s = wallet(issuer), wallet(issuer), random_scalar()
    pk = issuer.public
    out, proof_out, _ = prove_pay_payer(
        pk,
        CTX,
        **payer.spend(),
        amount=AMOUNT,
        s=s,
        pay_fee=PAY_FEE,
        payment_deadline=DEADLINE,
        **_new(),
    )
    into, proof_in, _ = prove_pay_payee(
        pk,
        CTX,
        **payee.spend(),
        amount=AMOUNT,
        s=s,
        payment_deadline=DEADLINE,
        wpk_payer=payer.wpk,
        **_new(),
    )
    assert out.v == into.v == commit(AMOUNT, s, curve=pk.curve)
    shared: dict[str, Any] = {"tag": payer.tag, "payment_deadline": DEADLINE}
    verify_pay_payer(
        issuer,
        CTX,
        out,
        proof_out,
        nonce=payer.nonce,
        wpk=payer.wpk,
        pay_fee=PAY_FEE,
        **shared,
    )
    verify_pay_payee(
        issuer,
        CTX,
        into,
        proof_in,
        nonce=payee.nonce,
        wpk=payee.wpk,
        wpk_payer=payer.wpk,
        **shared,
    )


def test_the_payees_lock_is_the_tokens(issuer: IssuerKey) -> None:
    w = wallet(issuer)
    false = replace(w, wpk=identifier())
    statement, proof, _ = prove_pay_payee(
        issuer.public,
        CTX,
        **false.spend(),
        amount=AMOUNT,
        s=random_scalar(),
        payment_deadline=DEADLINE,
        wpk_payer=1,
        **_new(),
    )
    with pytest.raises(CryptoError, match="sigma"):
        verify_pay_payee(
            issuer,
            CTX,
            statement,
            proof,
            tag=w.tag,
            nonce=w.nonce,
            wpk=false.wpk,
            payment_deadline=DEADLINE,
            wpk_payer=1,
        )


def test_a_reissue_keeps_channel_and_balance(issuer: IssuerKey) -> None:
    pk, w = issuer.public, wallet(issuer)
    _, _, hidden = prove_pay_payee(
        pk,
        CTX,
        **w.spend(),
        amount=AMOUNT,
        s=random_scalar(),
        payment_deadline=DEADLINE,
        wpk_payer=1,
        **_new(),
    )
    void = VoidPayment(w.tag, w.nonce, DEADLINE, 1)
    k_point = possession.commit_hidden(pk, hidden.t, {CID: w.cid, BALANCE: w.balance})
    k = pk.curve.encode_g1(k_point)

    def accepts(cid: int, balance: int, t: int) -> bool:
        others = {CID: cid, BALANCE: balance}
        prepared = proofs.prepare_request(pk, wpk=identifier(), nonce=identifier(), others=others)
        transcript = reissue._transcript(CTX, prepared.request, k, Role.CLIENT, void)
        relation = reissue._relation(bases_of(pk), k_point, prepared.d_rt, prepared.quotient)
        witness = {**prepared.witness, "cid": cid, "balance": balance, possession.BLINDING: t}
        proof = sigma.prove(transcript, relation, witness)
        try:
            verify_reissue(
                issuer, CTX, prepared.request, proof, k=k, role=Role.CLIENT, void=void
            )
        except CryptoError:
            return False
        return True

    assert accepts(w.cid, w.balance, hidden.t)
    assert not accepts(w.cid, w.balance + 1, hidden.t)
    assert not accepts(w.cid, w.balance + AMOUNT, hidden.t)
    assert not accepts(w.cid - 1, w.balance, hidden.t)
    assert not accepts(w.cid, w.balance, hidden.t + 1)
    with pytest.raises(CryptoError, match="balance"):
        prove_reissue(
            pk, CTX, t=hidden.t, cid=w.cid, balance=-1, role=Role.CLIENT, void=void, **_new()
        )


# --- what the proofs show ------------------------------------------------------------------------


def test_two_showings_of_one_wallet_share_nothing(issuer: IssuerKey) -> None:
    w = wallet(issuer)
    first, second = _setup(issuer, w), _setup(issuer, w)
    strings: list[set[bytes]] = []
    for statement, proof in (first, second):
        pieces = [statement.com, statement.commitment, statement.k]
        pieces += [statement.sigma[:96], statement.sigma[96:]]
        pieces += [proof[i : i + 48] for i in range(0, 192, 48)]
        pieces += [proof[i : i + 32] for i in range(192, len(proof), 32)]
        strings.append(set(pieces))
    assert len(strings[0]) == 5 + 4 + 14
    assert not strings[0] & strings[1]
    assert w.token[:96] not in strings[0]


def test_a_setup_can_be_simulated_without_secrets(
    issuer: IssuerKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whoever chooses the challenge needs no wallet: so a transcript tells nothing of one.
    curve = issuer.curve
    tag_, nonce = payment_tag(Role.CLIENT), identifier()
    a, b = random_scalar(), random_scalar()
    fixed = issuer.x + issuer.y[TAG] * tag_ + issuer.y[NONCE] * nonce

    def g1(exponent: int) -> bytes:
        return curve.encode_g1(curve.mul_g1(curve.g1, exponent))

    def g2(exponent: int) -> bytes:
        return curve.encode_g2(curve.mul_g2(curve.g2, exponent))

    statement = SetupStatement(
        com=g1(random_scalar()),
        commitment=g1(random_scalar()),
        # Public values only: K = g1^a / (X Y0^tag Y2^nonce).
        k=g1(a - fixed),
        sigma=g2(b) + g2(a * b),
    )
    proof = b"".join(g1(random_scalar()) for _ in range(4))
    challenge = random_scalar()
    scalars = [challenge, *(random_scalar() for _ in range(13))]
    proof += b"".join(value.to_bytes(32, "big") for value in scalars)
    public: dict[str, Any] = {"tag": tag_, "nonce": nonce, "terms": TERMS, "nwpk": NWPK}
    with pytest.raises(CryptoError):
        verify_nano_setup(issuer, CTX, statement, proof, **public)
    monkeypatch.setattr(sigma.Transcript, "challenge", lambda self, announcements: challenge)
    verify_nano_setup(issuer, CTX, statement, proof, **public)


def test_two_answers_to_one_announcement_give_the_secrets(
    blst_issuer: IssuerKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Special soundness, so proofs prove knowledge; and why masks must never repeat.
    pk, cid, wpk = blst_issuer.public, identifier(), identifier()
    prepared = proofs.prepare_request(pk, wpk=wpk, nonce=identifier(), others={})
    equations = opening._relation(bases_of(pk), prepared.d_rt, prepared.quotient)
    masks = [random_scalar() for _ in range(4)]
    answers = []
    for challenge in (3, 10):
        stream = iter(masks)
        monkeypatch.setattr(sigma.secrets, "randbelow", lambda bound: next(stream))  # noqa: B023
        monkeypatch.setattr(
            sigma.Transcript,
            "challenge",
            lambda self, announcements, challenge=challenge: challenge,
        )
        transcript = opening._transcript(CTX, prepared.request, Role.CLIENT, cid, 0)
        proof = sigma.prove(transcript, equations, prepared.witness)
        answers.append([int.from_bytes(proof[i : i + 32], "big") for i in range(32, 160, 32)])
    extracted = {
        (second - first) * pow(7, -1, GROUP_ORDER) % GROUP_ORDER
        for first, second in zip(*answers, strict=True)
    }
    assert wpk in extracted
    assert extracted == {value % GROUP_ORDER for value in prepared.witness.values()}


def test_secrets_of_a_proof_are_not_shown(issuer: IssuerKey) -> None:
    w = wallet(issuer)
    _, _, spent = prove_nano_setup(issuer.public, CTX, **w.spend(), terms=TERMS, nwpk=NWPK)
    assert str(spent.r) not in repr(spent)
    assert str(spent.rho) not in repr(spent)
    _, _, paid = prove_pay_payee(
        issuer.public,
        CTX,
        **w.spend(),
        amount=1,
        s=1,
        payment_deadline=DEADLINE,
        wpk_payer=1,
        **_new(),
    )
    for value in (paid.t_rt, paid.t_pt, paid.t):
        assert str(value) not in repr(paid)


def test_sigma_decodes_before_it_is_used(issuer: IssuerKey) -> None:
    w = wallet(issuer)
    with pytest.raises(CryptoError, match="token"):
        _setup(issuer, replace(w, token=w.token[:-1]))
    assert decode_g2(issuer.curve, w.token[:96], "sigma1") is not None
