# SPDX-License-Identifier: BSD-3-Clause
"""Establish: the requests for a new channel's first tokens hold nothing but a lock and a nonce.

Statement: D_rt, D_pt; public cid and balance are in neither. Witness: t_rt, t_pt, wpk', nonce'.
Relation: D_rt = g2^t_rt Y~3^wpk' and D_pt = g2^t_pt Y~2^nonce' Y~3^wpk', the same wpk' in both.
(Paper section V-A and its algorithms for Establish; see `proofs` and `sigma` for the technique.)
"""

from __future__ import annotations

from monetor_chain.statements import Role
from offchain.crypto import sigma
from offchain.crypto.bases import Bases, bases_of
from offchain.crypto.curve import G2
from offchain.crypto.issuer import IssuerKey, IssuerPublicKey
from offchain.crypto.proofs import (
    RequestSecrets,
    TokenRequest,
    absorb_request,
    decode_request,
    prepare_request,
    request_equations,
)
from offchain.crypto.scalars import check_amount, check_identifier
from offchain.crypto.transcript import Transcript


def _relation(bases: Bases, d_rt: G2, quotient: G2) -> list[sigma.AnyEquation]:
    return [*request_equations(bases, d_rt, quotient, {})]


def _transcript(
    ctx: bytes, request: TokenRequest, role: Role, cid: int, balance: int
) -> Transcript:
    check_identifier(cid, "cid")
    check_amount(balance, "balance")
    transcript = Transcript("Establish", "opening", role, ctx)
    transcript.public("cid", cid)
    transcript.public("balance", balance)
    absorb_request(transcript, request)
    return transcript


def prove_opening(
    pk: IssuerPublicKey, ctx: bytes, *, role: Role, cid: int, balance: int, nonce: int, wpk: int
) -> tuple[TokenRequest, bytes, RequestSecrets]:
    """Requests for channel `cid` with its opening balance (base units), proof and blindings."""
    prepared = prepare_request(pk, wpk=wpk, nonce=nonce, others={})
    transcript = _transcript(ctx, prepared.request, role, cid, balance)
    equations = _relation(bases_of(pk), prepared.d_rt, prepared.quotient)
    proof = sigma.prove(transcript, equations, prepared.witness)
    return prepared.request, proof, prepared.secrets


def verify_opening(
    key: IssuerPublicKey | IssuerKey,
    ctx: bytes,
    request: TokenRequest,
    proof: bytes,
    *,
    role: Role,
    cid: int,
    balance: int,
) -> None:
    """CryptoError unless the relation is proved; signing then folds in cid and balance."""
    bases = bases_of(key)
    d_rt, quotient = decode_request(bases, request)
    transcript = _transcript(ctx, request, role, cid, balance)
    sigma.verify(transcript, _relation(bases, d_rt, quotient), proof)
