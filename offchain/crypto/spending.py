# SPDX-License-Identifier: BSD-3-Clause
"""Turning a wallet into a session, the part common to Nano-Setup and Nano-Establish.

Statement: sigma', K (see `possession`; tag and nonce are public), com = P1^wpk P3^r, and
N = P1^cid P2^B_full P3^rho. Witness: t, cid, wpk, B, r, rho. Relation: K = g1^t Y1^cid Y3^wpk Y4^B
with the wpk of com and the cid of N, and B_full the balance that the session saturates at.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from monetor_chain.statements import NanoTerms
from offchain.crypto import possession
from offchain.crypto.bases import BALANCE, CID, NONCE, TAG, WPK, Bases
from offchain.crypto.curve import G1, decode_g1
from offchain.crypto.errors import CryptoError
from offchain.crypto.generators import commit_point
from offchain.crypto.issuer import IssuerKey, IssuerPublicKey
from offchain.crypto.scalars import check_amount, check_identifier, check_nonce, random_scalar
from offchain.crypto.sigma import Affine, Base, Equation, secret
from offchain.crypto.transcript import Transcript

_CID = "cid"
_WPK = "wpk"
_LOCK_BLINDING = "lock commitment blinding"
_SESSION_BLINDING = "session commitment blinding"


@dataclass(frozen=True)
class SpendStatement:
    """com (48 bytes), N (48), sigma' (192) and K (48)."""

    com: bytes
    commitment: bytes
    sigma: bytes
    k: bytes


@dataclass(frozen=True)
class SpendSecrets:
    """What opens com (wpk, r) and N (cid, B_full, rho) later."""

    r: int = field(repr=False)
    rho: int = field(repr=False)


@dataclass(frozen=True, eq=False)
class SpendPoints:
    """The decoded K, com and N."""

    k: G1
    com: G1
    commitment: G1


@dataclass(frozen=True, repr=False)
class PreparedSpend:
    """The prover's side: statement, points, what to keep, the witness without the balance."""

    statement: SpendStatement
    points: SpendPoints
    secrets: SpendSecrets
    witness: dict[str, int]


def prepare_spend(
    pk: IssuerPublicKey, *, token: bytes, cid: int, wpk: int, balance: int, saturated: int
) -> PreparedSpend:
    """A fresh statement for a wallet and the session balance `saturated` (base units)."""
    for name, number in (("cid", cid), ("wpk", wpk)):
        check_identifier(number, name)
    for name, number in (("balance", balance), ("saturated balance", saturated)):
        check_amount(number, name)
    t, r, rho = random_scalar(), random_scalar(), random_scalar()
    curve = pk.curve
    points = SpendPoints(
        k=possession.commit_hidden(pk, t, {CID: cid, WPK: wpk, BALANCE: balance}),
        com=commit_point(curve, wpk, 0, r),
        commitment=commit_point(curve, cid, saturated, rho),
    )
    statement = SpendStatement(
        com=curve.encode_g1(points.com),
        commitment=curve.encode_g1(points.commitment),
        sigma=possession.show(pk, token, t),
        k=curve.encode_g1(points.k),
    )
    witness = {
        possession.BLINDING: t,
        _CID: cid,
        _WPK: wpk,
        _LOCK_BLINDING: r,
        _SESSION_BLINDING: rho,
    }
    return PreparedSpend(statement, points, SpendSecrets(r, rho), witness)


def decode_spend(bases: Bases, statement: SpendStatement) -> SpendPoints:
    """K, com and N; CryptoError for a bad point or the identity."""
    return SpendPoints(
        k=decode_g1(bases.curve, statement.k, "K"),
        com=decode_g1(bases.curve, statement.com, "com"),
        commitment=decode_g1(bases.curve, statement.commitment, "N"),
    )


def spend_equations(
    bases: Bases, points: SpendPoints, *, balance: Affine, saturated: Affine
) -> list[Equation[G1]]:
    """The equations of K, com and N, for given exponents of B and B_full."""
    p1, p2, p3 = bases.p
    hidden = {CID: secret(_CID), WPK: secret(_WPK), BALANCE: balance}
    com_terms = ((p1, secret(_WPK)), (p3, secret(_LOCK_BLINDING)))
    session_terms = ((p1, secret(_CID)), (p2, saturated), (p3, secret(_SESSION_BLINDING)))
    return [
        possession.equation(bases, points.k, hidden),
        Equation(bases.group1, Base(points.com), com_terms),
        Equation(bases.group1, Base(points.commitment), session_terms),
    ]


def absorb_spend(
    transcript: Transcript,
    statement: SpendStatement,
    *,
    tag: int,
    nonce: int,
    terms: NanoTerms,
    nwpk: int,
) -> None:
    """Checks the public values' ranges and adds them and the statement to a transcript.

    hash(nT) stands for every field of the terms, price and n among them.
    """
    check_identifier(tag, "tag")
    check_nonce(nonce, "nonce")
    check_identifier(nwpk, "nwpk")
    check_amount(terms.price, "price")
    check_amount(terms.delta_r, "delta_r")
    transcript.public("tag", tag)
    transcript.public("nonce", nonce)
    transcript.public("terms", terms.hash())
    transcript.public("nwpk", nwpk)
    transcript.element("com", statement.com)
    transcript.element("N", statement.commitment)
    transcript.element("sigma", statement.sigma)
    transcript.element("K", statement.k)


def check_token(
    issuer: IssuerKey, statement: SpendStatement, points: SpendPoints, tag: int, nonce: int
) -> None:
    """CryptoError unless sigma' signs (tag, nonce) and what K holds."""
    possession.check(issuer, statement.sigma, points.k, {TAG: tag, NONCE: nonce})


def session_total(terms: NanoTerms, amount: int, field_name: str) -> int:
    """n times a non-negative `amount` per payment; CryptoError if that is no balance."""
    if amount < 0 or terms.n < 1:
        raise CryptoError(f"{field_name}: negative, or no payments")
    total = terms.n * amount
    check_amount(total, f"n * {field_name}")
    return total
