# SPDX-License-Identifier: BSD-3-Clause
"""Nano-Close, both roles: the session's state becomes a wallet again.

Statement: N, from the intermediary's store, and D_rt, D_pt (see `proofs`). Witness: cid, B_full,
rho, t_rt, t_pt, wpk', nonce'. Relation: N = P1^cid P2^B_full P3^rho, and the requests hold the
same cid and B' = B_full + adjustment. The adjustment is public and signed: price (n - k) for the
client, -delta_R (n - k) for the relay. k <= n keeps B' non-negative, so there is no range.
(Paper section V-B and its algorithm for Nano-Close.)
"""

from __future__ import annotations

from monetor_chain.statements import BALANCE_LIMIT, Role
from offchain.crypto import sigma
from offchain.crypto.bases import BALANCE, CID, Bases, bases_of
from offchain.crypto.curve import G1, G2, decode_g1
from offchain.crypto.errors import CryptoError
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
from offchain.crypto.sigma import Equation, secret
from offchain.crypto.transcript import Transcript

_CID = "cid"
_SATURATED = "saturated balance"
_RHO = "session commitment blinding"


def _relation(
    bases: Bases, commitment: G1, d_rt: G2, quotient: G2, adjustment: int
) -> list[sigma.AnyEquation]:
    p1, p2, p3 = bases.p
    session = ((p1, secret(_CID)), (p2, secret(_SATURATED)), (p3, secret(_RHO)))
    hidden = {CID: secret(_CID), BALANCE: secret(_SATURATED) + adjustment}
    return [
        Equation(bases.group1, sigma.Base(commitment), session),
        *request_equations(bases, d_rt, quotient, hidden),
    ]


def _transcript(
    ctx: bytes,
    request: TokenRequest,
    role: Role,
    commitment: bytes,
    adjustment: int,
    terms_hash: bytes,
    k: int,
) -> Transcript:
    if abs(adjustment) >= BALANCE_LIMIT:
        raise CryptoError("adjustment: outside (-2**32, 2**32)")
    check_amount(k, "k")
    transcript = Transcript("Nano-Close", "request", role, ctx)
    transcript.public("terms", terms_hash)
    transcript.public("k", k)
    transcript.public("adjustment", adjustment)
    transcript.element("N", commitment)
    absorb_request(transcript, request)
    return transcript


def prove_nano_close(
    pk: IssuerPublicKey,
    ctx: bytes,
    *,
    role: Role,
    cid: int,
    saturated: int,
    rho: int,
    commitment: bytes,
    adjustment: int,
    wpk_new: int,
    nonce_new: int,
    terms_hash: bytes,
    k: int,
) -> tuple[TokenRequest, bytes, RequestSecrets]:
    """Requests for tokens on B_full + `adjustment` (base units) after `k` payments.

    CryptoError if the new balance is outside [0, 2**32) or a value is out of range.
    """
    check_identifier(cid, "cid")
    check_amount(saturated + adjustment, "new balance")
    bases = bases_of(pk)
    prepared = prepare_request(
        pk,
        wpk=wpk_new,
        nonce=nonce_new,
        others={CID: cid, BALANCE: saturated + adjustment},
    )
    transcript = _transcript(ctx, prepared.request, role, commitment, adjustment, terms_hash, k)
    point = decode_g1(pk.curve, commitment, "N")
    equations = _relation(bases, point, prepared.d_rt, prepared.quotient, adjustment)
    witness = {**prepared.witness, _CID: cid, _SATURATED: saturated, _RHO: rho}
    return prepared.request, sigma.prove(transcript, equations, witness), prepared.secrets


def verify_nano_close(
    key: IssuerPublicKey | IssuerKey,
    ctx: bytes,
    request: TokenRequest,
    proof: bytes,
    *,
    role: Role,
    commitment: bytes,
    adjustment: int,
    terms_hash: bytes,
    k: int,
) -> None:
    """CryptoError unless the relation is proved; give the secret key, it is faster."""
    bases = bases_of(key)
    d_rt, quotient = decode_request(bases, request)
    point = decode_g1(bases.curve, commitment, "N")
    transcript = _transcript(ctx, request, role, commitment, adjustment, terms_hash, k)
    sigma.verify(transcript, _relation(bases, point, d_rt, quotient, adjustment), proof)
