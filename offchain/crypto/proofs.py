# SPDX-License-Identifier: BSD-3-Clause
"""Requests for a wallet's two new tokens, the part that most proofs share.

    D_rt = g2^t_rt Y~1^cid            Y~3^wpk' Y~4^B'      for the refund token (nonce 0)
    D_pt = g2^t_pt Y~1^cid Y~2^nonce' Y~3^wpk' Y~4^B'      for the wallet token

Public messages are left out; the issuer multiplies them in. t_rt and t_pt are independent: were
they equal, the quotient of the requests would link a session to the next. There is no Y~0.

What is proved is the opening of D_rt and that of D_pt / D_rt = g2^(t_pt - t_rt) Y~2^nonce'. That is
the same as opening both with the same cid, wpk' and B', for half the price.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from offchain.crypto.bases import NONCE, WPK, Bases
from offchain.crypto.curve import G2, decode_g2
from offchain.crypto.issuer import IssuerPublicKey
from offchain.crypto.scalars import check_identifier, check_nonce, random_scalar
from offchain.crypto.sigma import Affine, Base, Equation, secret
from offchain.crypto.transcript import Transcript

T_RT = "refund request blinding"
T_PT = "wallet request blinding"
NEW_WPK = "new wpk"
NEW_NONCE = "new nonce"


@dataclass(frozen=True)
class TokenRequest:
    """D_rt and D_pt, 96 bytes each."""

    d_rt: bytes
    d_pt: bytes


@dataclass(frozen=True)
class RequestSecrets:
    """Blindings of a request, needed to unblind the replies."""

    t_rt: int = field(repr=False)
    t_pt: int = field(repr=False)


@dataclass(frozen=True, repr=False)
class PreparedRequest:
    """The prover's side of a request: encoding, points and witness."""

    request: TokenRequest
    secrets: RequestSecrets
    d_rt: G2
    quotient: G2
    witness: dict[str, int]


def prepare_request(
    pk: IssuerPublicKey, *, wpk: int, nonce: int, others: Mapping[int, int]
) -> PreparedRequest:
    """Fresh D_rt and D_pt for lock `wpk`, `nonce` and the `others` (hidden cid and balance)."""
    check_identifier(wpk, "new wpk")
    check_nonce(nonce, "new nonce")
    curve = pk.curve
    t_rt, t_pt = random_scalar(), random_scalar()
    messages = {WPK: wpk, **others}
    points = [curve.g2, *(pk.request_base(i) for i in messages)]
    d_rt = curve.msm_g2(points, [t_rt, *messages.values()])
    quotient = curve.msm_g2([curve.g2, pk.request_base(NONCE)], [t_pt - t_rt, nonce])
    d_pt = curve.add_g2(d_rt, quotient)
    return PreparedRequest(
        TokenRequest(curve.encode_g2(d_rt), curve.encode_g2(d_pt)),
        RequestSecrets(t_rt, t_pt),
        d_rt,
        quotient,
        {T_RT: t_rt, T_PT: t_pt, NEW_WPK: wpk, NEW_NONCE: nonce},
    )


def decode_request(bases: Bases, request: TokenRequest) -> tuple[G2, G2]:
    """(D_rt, D_pt / D_rt); CryptoError for a bad point or the identity."""
    curve = bases.curve
    d_rt = decode_g2(curve, request.d_rt, "D_rt")
    d_pt = decode_g2(curve, request.d_pt, "D_pt")
    return d_rt, curve.add_g2(d_pt, curve.neg_g2(d_rt))


def request_equations(
    bases: Bases, d_rt: G2, quotient: G2, others: Mapping[int, Affine]
) -> list[Equation[G2]]:
    """The equations of D_rt and D_pt / D_rt, with the exponents of the hidden cid and balance."""
    rt_terms = (
        (bases.g2, secret(T_RT)),
        (bases.request(WPK), secret(NEW_WPK)),
        *((bases.request(i), exponent) for i, exponent in others.items()),
    )
    pt_terms = (
        (bases.g2, secret(T_PT) - secret(T_RT)),
        (bases.request(NONCE), secret(NEW_NONCE)),
    )
    return [
        Equation(bases.group2, Base(d_rt), rt_terms),
        Equation(bases.group2, Base(quotient), pt_terms),
    ]


def absorb_request(transcript: Transcript, request: TokenRequest) -> None:
    """Adds both requests to a transcript."""
    transcript.element("D_rt", request.d_rt)
    transcript.element("D_pt", request.d_pt)
