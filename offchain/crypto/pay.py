# SPDX-License-Identifier: BSD-3-Clause
"""Pay: a hidden amount moves between two client wallets, one proof per leg.

Statement of a leg: sigma', K = g1^t Y1^cid Y4^B, V = P1^epsilon P2^s, D_rt, D_pt. The lock wpk is
public here, as are tag and nonce, so all three are folded into the possession check. Witness: t,
cid, B, epsilon, s, t_rt, t_pt, wpk', nonce'. Relation: the requests hold the same cid, and

    payer:  B' = B - epsilon - pay_fee,  0 <= B' < 2^32,  0 <= epsilon < 2^32
    payee:  B' = B + epsilon

Both legs show the same V, which the payer made and opened to the payee, so the payer's ranges hold
for the payee too: a negative epsilon would draw money out of it. The payee's proof also binds the
payer's lock; both bind the deadline T_p. (Paper section IV-B and its algorithms for Pay.)
"""

from __future__ import annotations

from dataclasses import dataclass, field

from monetor_chain.statements import Role
from offchain.crypto import possession, range_proof, sigma
from offchain.crypto.bases import BALANCE, CID, NONCE, TAG, WPK, Bases, bases_of
from offchain.crypto.curve import G1, G2, decode_g1
from offchain.crypto.errors import CryptoError
from offchain.crypto.generators import commit_point
from offchain.crypto.issuer import IssuerKey, IssuerPublicKey
from offchain.crypto.proofs import (
    PreparedRequest,
    TokenRequest,
    absorb_request,
    decode_request,
    prepare_request,
    request_equations,
)
from offchain.crypto.range_proof import RANGE_BYTES
from offchain.crypto.scalars import (
    check_amount,
    check_identifier,
    check_nonce,
    random_scalar,
)
from offchain.crypto.sigma import Affine, Base, Equation, secret
from offchain.crypto.transcript import Transcript

_CID = "cid"
_BALANCE = "balance"
_NEW_BALANCE = "new balance"
_AMOUNT = "amount"
_AMOUNT_BLINDING = "amount blinding"


@dataclass(frozen=True)
class PayStatement:
    """One leg: sigma' (192 bytes), K (48), V (48), D_rt and D_pt (96 each)."""

    sigma: bytes
    k: bytes
    v: bytes
    d_rt: bytes
    d_pt: bytes

    @property
    def request(self) -> TokenRequest:
        """The leg's two signature requests."""
        return TokenRequest(self.d_rt, self.d_pt)


@dataclass(frozen=True)
class PaySecrets:
    """Blindings of the requests, and of K for a later `reissue`."""

    t_rt: int = field(repr=False)
    t_pt: int = field(repr=False)
    t: int = field(repr=False)


@dataclass(frozen=True)
class _Publics:
    """What both sides know besides the statement."""

    tag: int
    nonce: int
    wpk: int
    wpk_payer: int
    pay_fee: int
    payment_deadline: int

    def check(self) -> None:
        check_identifier(self.tag, "tag")
        check_nonce(self.nonce, "nonce")
        check_identifier(self.wpk, "wpk")
        check_identifier(self.wpk_payer, "payer's wpk")
        check_amount(self.pay_fee, "pay_fee")
        check_identifier(self.payment_deadline, "T_p")

    def token_messages(self) -> dict[int, int]:
        return {TAG: self.tag, NONCE: self.nonce, WPK: self.wpk}


@dataclass(frozen=True, eq=False)
class _Points:
    """Decoded statement; `quotient` is D_pt / D_rt."""

    k: G1
    v: G1
    d_rt: G2
    quotient: G2


@dataclass(frozen=True, repr=False)
class _PreparedLeg:
    """The prover's side of a leg, without the balance and the amount among the witness."""

    statement: PayStatement
    points: _Points
    secrets: PaySecrets
    witness: dict[str, int]


def _transcript(
    ctx: bytes, step: str, statement: PayStatement, publics: _Publics, ranges: bytes
) -> Transcript:
    publics.check()
    transcript = Transcript("Pay", step, Role.CLIENT, ctx)
    transcript.public("tag", publics.tag)
    transcript.public("nonce", publics.nonce)
    transcript.public("wpk", publics.wpk)
    transcript.public("payer's wpk", publics.wpk_payer)
    transcript.public("pay_fee", publics.pay_fee)
    transcript.public("T_p", publics.payment_deadline)
    transcript.element("sigma", statement.sigma)
    transcript.element("K", statement.k)
    transcript.element("V", statement.v)
    absorb_request(transcript, statement.request)
    transcript.element("range digits", ranges)
    return transcript


def _leg_equations(
    bases: Bases, points: _Points, *, balance: Affine, amount: Affine, new_balance: Affine
) -> list[sigma.AnyEquation]:
    p1, p2, _ = bases.p
    hidden = {CID: secret(_CID), BALANCE: balance}
    requested = {CID: secret(_CID), BALANCE: new_balance}
    amount_terms = ((p1, amount), (p2, secret(_AMOUNT_BLINDING)))
    return [
        possession.equation(bases, points.k, hidden),
        Equation(bases.group1, Base(points.v), amount_terms),
        *request_equations(bases, points.d_rt, points.quotient, requested),
    ]


def _payer_relation(
    bases: Bases,
    points: _Points,
    rest_digits: tuple[G1, ...],
    amount_digits: tuple[G1, ...],
    pay_fee: int,
    digit_secret: int = 0,
) -> list[sigma.AnyEquation]:
    rest, amount = range_proof.value(_NEW_BALANCE), range_proof.value(_AMOUNT)
    return [
        *_leg_equations(
            bases, points, balance=rest + amount + pay_fee, amount=amount, new_balance=rest
        ),
        *range_proof.equations(bases, _NEW_BALANCE, rest_digits, digit_secret),
        *range_proof.equations(bases, _AMOUNT, amount_digits, digit_secret),
    ]


def _payee_relation(bases: Bases, points: _Points) -> list[sigma.AnyEquation]:
    balance, amount = secret(_BALANCE), secret(_AMOUNT)
    return _leg_equations(
        bases, points, balance=balance, amount=amount, new_balance=balance + amount
    )


def _prepare_leg(
    pk: IssuerPublicKey,
    *,
    token: bytes,
    cid: int,
    balance: int,
    new_balance: int,
    amount: int,
    s: int,
    wpk_new: int,
    nonce_new: int,
) -> _PreparedLeg:
    check_identifier(cid, "cid")
    for name, number in (
        ("balance", balance),
        ("amount", amount),
        ("new balance", new_balance),
    ):
        check_amount(number, name)
    curve = pk.curve
    t = random_scalar()
    k = possession.commit_hidden(pk, t, {CID: cid, BALANCE: balance})
    v = commit_point(curve, amount, s)
    prepared: PreparedRequest = prepare_request(
        pk, wpk=wpk_new, nonce=nonce_new, others={CID: cid, BALANCE: new_balance}
    )
    statement = PayStatement(
        sigma=possession.show(pk, token, t),
        k=curve.encode_g1(k),
        v=curve.encode_g1(v),
        d_rt=prepared.request.d_rt,
        d_pt=prepared.request.d_pt,
    )
    witness = {**prepared.witness, possession.BLINDING: t, _CID: cid, _AMOUNT_BLINDING: s}
    secrets = PaySecrets(prepared.secrets.t_rt, prepared.secrets.t_pt, t)
    points = _Points(k, v, prepared.d_rt, prepared.quotient)
    return _PreparedLeg(statement, points, secrets, witness)


def _decode_leg(bases: Bases, statement: PayStatement) -> _Points:
    k = decode_g1(bases.curve, statement.k, "K")
    v = decode_g1(bases.curve, statement.v, "V")
    d_rt, quotient = decode_request(bases, statement.request)
    return _Points(k, v, d_rt, quotient)


def prove_pay_payer(
    pk: IssuerPublicKey,
    ctx: bytes,
    *,
    token: bytes,
    tag: int,
    cid: int,
    nonce: int,
    wpk: int,
    balance: int,
    amount: int,
    s: int,
    pay_fee: int,
    wpk_new: int,
    nonce_new: int,
    payment_deadline: int,
) -> tuple[PayStatement, bytes, PaySecrets]:
    """The payer's leg of `amount` base units; `s` is the random scalar that blinds V.

    `payment_deadline` is T_p in Unix seconds. CryptoError if the balance does not cover amount and
    fee or a value is out of range.
    """
    rest = balance - amount - pay_fee
    if rest < 0:
        raise CryptoError("balance: does not cover the amount and the fee")
    publics = _Publics(tag, nonce, wpk, wpk, pay_fee, payment_deadline)
    leg = _prepare_leg(
        pk,
        token=token,
        cid=cid,
        balance=balance,
        new_balance=rest,
        amount=amount,
        s=s,
        wpk_new=wpk_new,
        nonce_new=nonce_new,
    )
    rest_digits = range_proof.blind_digits(pk, _NEW_BALANCE, rest)
    amount_digits = range_proof.blind_digits(pk, _AMOUNT, amount)
    ranges = rest_digits.encoded + amount_digits.encoded
    transcript = _transcript(ctx, "payer", leg.statement, publics, ranges)
    equations = _payer_relation(
        bases_of(pk), leg.points, rest_digits.points, amount_digits.points, pay_fee
    )
    witness = {**leg.witness, **rest_digits.witness, **amount_digits.witness}
    return leg.statement, ranges + sigma.prove(transcript, equations, witness), leg.secrets


def verify_pay_payer(
    issuer: IssuerKey,
    ctx: bytes,
    statement: PayStatement,
    proof: bytes,
    *,
    tag: int,
    nonce: int,
    wpk: int,
    pay_fee: int,
    payment_deadline: int,
) -> None:
    """CryptoError unless the payer's relation is proved for a token of tag, nonce and wpk."""
    publics = _Publics(tag, nonce, wpk, wpk, pay_fee, payment_deadline)
    bases = bases_of(issuer)
    points = _decode_leg(bases, statement)
    ranges, rest = proof[: 2 * RANGE_BYTES], proof[2 * RANGE_BYTES :]
    rest_digits = range_proof.decode_digits(bases, _NEW_BALANCE, ranges[:RANGE_BYTES])
    amount_digits = range_proof.decode_digits(bases, _AMOUNT, ranges[RANGE_BYTES:])
    transcript = _transcript(ctx, "payer", statement, publics, ranges)
    equations = _payer_relation(
        bases, points, rest_digits, amount_digits, pay_fee, issuer.digit_secret
    )
    sigma.verify(transcript, equations, rest)
    possession.check(issuer, statement.sigma, points.k, publics.token_messages())


def prove_pay_payee(
    pk: IssuerPublicKey,
    ctx: bytes,
    *,
    token: bytes,
    tag: int,
    cid: int,
    nonce: int,
    wpk: int,
    balance: int,
    amount: int,
    s: int,
    wpk_new: int,
    nonce_new: int,
    payment_deadline: int,
    wpk_payer: int,
) -> tuple[PayStatement, bytes, PaySecrets]:
    """The payee's leg, for the (amount, s) of the payer's V and the payer's lock.

    CryptoError if the new balance reaches 2**32 or a value is out of range.
    """
    publics = _Publics(tag, nonce, wpk, wpk_payer, 0, payment_deadline)
    leg = _prepare_leg(
        pk,
        token=token,
        cid=cid,
        balance=balance,
        new_balance=balance + amount,
        amount=amount,
        s=s,
        wpk_new=wpk_new,
        nonce_new=nonce_new,
    )
    transcript = _transcript(ctx, "payee", leg.statement, publics, b"")
    witness = {**leg.witness, _BALANCE: balance, _AMOUNT: amount}
    proof = sigma.prove(transcript, _payee_relation(bases_of(pk), leg.points), witness)
    return leg.statement, proof, leg.secrets


def verify_pay_payee(
    issuer: IssuerKey,
    ctx: bytes,
    statement: PayStatement,
    proof: bytes,
    *,
    tag: int,
    nonce: int,
    wpk: int,
    payment_deadline: int,
    wpk_payer: int,
) -> None:
    """CryptoError unless the payee's relation is proved for a token of tag, nonce and wpk.

    That V is the payer's, and the two wallets differ, is for the caller to compare.
    """
    publics = _Publics(tag, nonce, wpk, wpk_payer, 0, payment_deadline)
    bases = bases_of(issuer)
    points = _decode_leg(bases, statement)
    transcript = _transcript(ctx, "payee", statement, publics, b"")
    sigma.verify(transcript, _payee_relation(bases, points), proof)
    possession.check(issuer, statement.sigma, points.k, publics.token_messages())
