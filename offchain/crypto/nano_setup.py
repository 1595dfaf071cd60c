# SPDX-License-Identifier: BSD-3-Clause
"""Nano-Setup: a client's wallet pays for a session, without showing which wallet.

Statement: sigma', K, com, N (see `spending`) and the range's V_j. Witness: t, cid, wpk, B, r, rho
and the digits. Relation: B_full = B - n price in N, for the B of the token; 0 <= B_full < 2^32.
The range is on what is left, not on B: n payments must not take the balance below zero.
(Paper section V-B and its algorithm for Nano-Setup; range proof: `range_proof`.)
"""

from __future__ import annotations

from dataclasses import dataclass

from monetor_chain.statements import NanoTerms, Role
from offchain.crypto import range_proof, sigma
from offchain.crypto.bases import Bases, bases_of
from offchain.crypto.curve import G1
from offchain.crypto.errors import CryptoError
from offchain.crypto.issuer import IssuerKey, IssuerPublicKey
from offchain.crypto.range_proof import RANGE_BYTES
from offchain.crypto.spending import (
    SpendPoints,
    SpendSecrets,
    SpendStatement,
    absorb_spend,
    check_token,
    decode_spend,
    prepare_spend,
    session_total,
    spend_equations,
)
from offchain.crypto.transcript import Transcript

_REMAINDER = "balance after the session"


@dataclass(frozen=True)
class SetupStatement(SpendStatement):
    """Public elements of a Nano-Setup: com, commitment (N), sigma, k."""


@dataclass(frozen=True)
class SetupSecrets(SpendSecrets):
    """r opens com, rho opens N."""


def _relation(
    bases: Bases, points: SpendPoints, digits: tuple[G1, ...], cost: int, digit_secret: int = 0
) -> list[sigma.AnyEquation]:
    remainder = range_proof.value(_REMAINDER)
    spend = spend_equations(bases, points, balance=remainder + cost, saturated=remainder)
    return [*spend, *range_proof.equations(bases, _REMAINDER, digits, digit_secret)]


def _transcript(
    ctx: bytes,
    statement: SpendStatement,
    digits: bytes,
    tag: int,
    nonce: int,
    terms: NanoTerms,
    nwpk: int,
) -> Transcript:
    transcript = Transcript("Nano-Setup", "request", Role.CLIENT, ctx)
    absorb_spend(transcript, statement, tag=tag, nonce=nonce, terms=terms, nwpk=nwpk)
    transcript.element("V", digits)
    return transcript


@dataclass(frozen=True, eq=False, repr=False)
class SetupDraft:
    """A Nano-Setup as far as it goes without its terms: everything on the curve.

    It stands for one wallet token and a session that costs `cost` base units. It is finished once,
    see `sigma.Announced`.
    """

    statement: SetupStatement
    secrets: SetupSecrets
    cost: int
    _digits: bytes
    _witness: dict[str, int]
    _announced: sigma.Announced

    @property
    def finished(self) -> bool:
        """Whether it has become a proof, and is of no use any more."""
        return self._announced.answered

    def finish(self, ctx: bytes, *, tag: int, nonce: int, terms: NanoTerms, nwpk: int) -> bytes:
        """The proof for these terms; CryptoError for a session of another cost, and if the draft
        was finished before."""
        if session_total(terms, terms.price, "price") != self.cost:
            raise CryptoError("terms: the draft is of a session of another cost")
        transcript = _transcript(ctx, self.statement, self._digits, tag, nonce, terms, nwpk)
        return self._digits + self._announced.answer(transcript, self._witness)


def draft_nano_setup(
    pk: IssuerPublicKey, *, token: bytes, cid: int, wpk: int, balance: int, cost: int
) -> SetupDraft:
    """Prepares to spend the wallet token `token` of `balance` base units into some session of
    `cost` base units.

    CryptoError if the balance does not cover it or a value is out of range.
    """
    if balance < cost:
        raise CryptoError(f"balance: does not cover a session of {cost}")
    prepared = prepare_spend(
        pk, token=token, cid=cid, wpk=wpk, balance=balance, saturated=balance - cost
    )
    spent = prepared.statement
    digits = range_proof.blind_digits(pk, _REMAINDER, balance - cost)
    return SetupDraft(
        SetupStatement(spent.com, spent.commitment, spent.sigma, spent.k),
        SetupSecrets(prepared.secrets.r, prepared.secrets.rho),
        cost,
        digits.encoded,
        {**prepared.witness, **digits.witness},
        sigma.Announced(_relation(bases_of(pk), prepared.points, digits.points, cost)),
    )


def prove_nano_setup(
    pk: IssuerPublicKey,
    ctx: bytes,
    *,
    token: bytes,
    tag: int,
    cid: int,
    nonce: int,
    wpk: int,
    balance: int,
    terms: NanoTerms,
    nwpk: int,
) -> tuple[SetupStatement, bytes, SetupSecrets]:
    """Spends the wallet token `token` of `balance` base units into a session of `terms`.

    CryptoError if the balance does not cover n payments or a value is out of range.
    """
    cost = session_total(terms, terms.price, "price")
    draft = draft_nano_setup(pk, token=token, cid=cid, wpk=wpk, balance=balance, cost=cost)
    proof = draft.finish(ctx, tag=tag, nonce=nonce, terms=terms, nwpk=nwpk)
    return draft.statement, proof, draft.secrets


def verify_nano_setup(
    issuer: IssuerKey,
    ctx: bytes,
    statement: SetupStatement,
    proof: bytes,
    *,
    tag: int,
    nonce: int,
    terms: NanoTerms,
    nwpk: int,
) -> None:
    """CryptoError unless the relation is proved for a token of `tag` and `nonce`."""
    cost = session_total(terms, terms.price, "price")
    bases = bases_of(issuer)
    points = decode_spend(bases, statement)
    encoded = proof[:RANGE_BYTES]
    digits = range_proof.decode_digits(bases, _REMAINDER, encoded)
    transcript = _transcript(ctx, statement, encoded, tag, nonce, terms, nwpk)
    equations = _relation(bases, points, digits, cost, issuer.digit_secret)
    sigma.verify(transcript, equations, proof[RANGE_BYTES:])
    check_token(issuer, statement, points, tag, nonce)
