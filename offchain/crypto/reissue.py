# SPDX-License-Identifier: BSD-3-Clause
"""Reissue: new tokens on the unchanged balance of a wallet whose payment became void.

Statement: K, stored by the intermediary when the wallet was shown in Pay, and D_rt, D_pt. Witness:
t, cid, B, t_rt, t_pt, wpk', nonce'. Relation: K = g1^t Y1^cid Y4^B, and the requests hold the same
cid and B. No signature is shown again: the intermediary has checked K against one. Public, and
hashed, is everything that names the payment that is void: tag, nonce, T_p and wpk_C.
"""

from __future__ import annotations

from dataclasses import dataclass

from monetor_chain.statements import Role
from offchain.crypto import possession, sigma
from offchain.crypto.bases import BALANCE, CID, Bases, bases_of
from offchain.crypto.curve import G1, G2, decode_g1
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
from offchain.crypto.sigma import secret
from offchain.crypto.transcript import Transcript

_CID = "cid"
_BALANCE = "balance"


def _relation(bases: Bases, k: G1, d_rt: G2, quotient: G2) -> list[sigma.AnyEquation]:
    hidden = {CID: secret(_CID), BALANCE: secret(_BALANCE)}
    return [
        possession.equation(bases, k, hidden),
        *request_equations(bases, d_rt, quotient, hidden),
    ]


@dataclass(frozen=True, slots=True)
class VoidPayment:
    """The payment that came to nothing: the payee's wallet tag and nonce, T_p (Unix seconds) and
    the payer's lock."""

    tag: int
    nonce: int
    payment_deadline: int
    wpk_payer: int


def _transcript(
    ctx: bytes, request: TokenRequest, k: bytes, role: Role, void: VoidPayment
) -> Transcript:
    transcript = Transcript("Pay", "reissue", role, ctx)
    transcript.public("tag", void.tag)
    transcript.public("nonce", void.nonce)
    transcript.public("T_p", void.payment_deadline)
    transcript.public("wpk_C", void.wpk_payer)
    transcript.element("K", k)
    absorb_request(transcript, request)
    return transcript


def prove_reissue(
    pk: IssuerPublicKey,
    ctx: bytes,
    *,
    t: int,
    cid: int,
    balance: int,
    wpk_new: int,
    nonce_new: int,
    role: Role,
    void: VoidPayment,
) -> tuple[TokenRequest, bytes, RequestSecrets]:
    """Requests for tokens on the cid and balance of the K that was blinded with `t`."""
    check_identifier(cid, "cid")
    check_amount(balance, "balance")
    messages = {CID: cid, BALANCE: balance}
    k = possession.commit_hidden(pk, t, messages)
    prepared = prepare_request(pk, wpk=wpk_new, nonce=nonce_new, others=messages)
    transcript = _transcript(ctx, prepared.request, pk.curve.encode_g1(k), role, void)
    equations = _relation(bases_of(pk), k, prepared.d_rt, prepared.quotient)
    witness = {**prepared.witness, possession.BLINDING: t, _CID: cid, _BALANCE: balance}
    return prepared.request, sigma.prove(transcript, equations, witness), prepared.secrets


def verify_reissue(
    key: IssuerPublicKey | IssuerKey,
    ctx: bytes,
    request: TokenRequest,
    proof: bytes,
    *,
    k: bytes,
    role: Role,
    void: VoidPayment,
) -> None:
    """CryptoError unless the relation is proved for the stored `k` (K, 48 bytes)."""
    bases = bases_of(key)
    point = decode_g1(bases.curve, k, "K")
    d_rt, quotient = decode_request(bases, request)
    transcript = _transcript(ctx, request, k, role, void)
    sigma.verify(transcript, _relation(bases, point, d_rt, quotient), proof)
