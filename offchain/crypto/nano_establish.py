# SPDX-License-Identifier: BSD-3-Clause
"""Nano-Establish: a relay's wallet joins a session, without showing which wallet.

Statement and witness as in `spending`. Relation: B_full = B + n delta_R in N, for the B of the
token. There is no range: the balance only grows here, and the close takes back at most as much.
(Paper section V-B and its algorithm for Nano-Establish.)
"""

from __future__ import annotations

from dataclasses import dataclass

from monetor_chain.statements import NanoTerms, Role
from offchain.crypto import sigma
from offchain.crypto.bases import Bases, bases_of
from offchain.crypto.issuer import IssuerKey, IssuerPublicKey
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

_BALANCE = "balance"


@dataclass(frozen=True)
class EstablishStatement(SpendStatement):
    """Public elements of a Nano-Establish: com, commitment (N), sigma, k."""


@dataclass(frozen=True)
class EstablishSecrets(SpendSecrets):
    """r opens com, rho opens N."""


def _relation(bases: Bases, points: SpendPoints, earned: int) -> list[sigma.AnyEquation]:
    balance = sigma.secret(_BALANCE)
    return [*spend_equations(bases, points, balance=balance, saturated=balance + earned)]


def _transcript(
    ctx: bytes, statement: SpendStatement, tag: int, nonce: int, terms: NanoTerms, nwpk: int
) -> Transcript:
    transcript = Transcript("Nano-Establish", "request", Role.RELAY, ctx)
    absorb_spend(transcript, statement, tag=tag, nonce=nonce, terms=terms, nwpk=nwpk)
    return transcript


def prove_nano_establish(
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
) -> tuple[EstablishStatement, bytes, EstablishSecrets]:
    """Spends the wallet token `token` of `balance` base units into a session of `terms`.

    CryptoError if the saturated balance reaches 2**32 or a value is out of range.
    """
    earned = session_total(terms, terms.delta_r, "delta_r")
    prepared = prepare_spend(
        pk, token=token, cid=cid, wpk=wpk, balance=balance, saturated=balance + earned
    )
    spent = prepared.statement
    statement = EstablishStatement(spent.com, spent.commitment, spent.sigma, spent.k)
    transcript = _transcript(ctx, statement, tag, nonce, terms, nwpk)
    equations = _relation(bases_of(pk), prepared.points, earned)
    proof = sigma.prove(transcript, equations, {**prepared.witness, _BALANCE: balance})
    return statement, proof, EstablishSecrets(prepared.secrets.r, prepared.secrets.rho)


def verify_nano_establish(
    issuer: IssuerKey,
    ctx: bytes,
    statement: EstablishStatement,
    proof: bytes,
    *,
    tag: int,
    nonce: int,
    terms: NanoTerms,
    nwpk: int,
) -> None:
    """CryptoError unless the relation is proved for a token of `tag` and `nonce`."""
    earned = session_total(terms, terms.delta_r, "delta_r")
    bases = bases_of(issuer)
    points = decode_spend(bases, statement)
    transcript = _transcript(ctx, statement, tag, nonce, terms, nwpk)
    sigma.verify(transcript, _relation(bases, points, earned), proof)
    check_token(issuer, statement, points, tag, nonce)
