# SPDX-License-Identifier: BSD-3-Clause
"""Showing a token without showing it: possession of a Pointcheval-Sanders signature.

Statement: sigma' = (sigma1^rho, (sigma2 sigma1^t)^rho) and K, a Pedersen commitment to the hidden
messages, K = g1^t prod Y_i^m_i, with the public messages in neither. Witness: t and the hidden
messages. Check: sigma1' is not the identity, the equation of K (proved with the rest of the
relation), and e(X K prod Y_i^public_i, sigma1') = e(g1, sigma2'). Nothing is computed in GT.

Public messages must be folded in by the verifier and never by the prover: a K that held them would
let the prover claim other public messages than those that were signed.

Reference: Pointcheval and Sanders (CT-RSA 2016), section 6.2, with t moved into K.
"""

from __future__ import annotations

from collections.abc import Mapping

from monetor_chain.statements import GROUP_ORDER
from offchain.crypto.bases import Bases
from offchain.crypto.curve import G1
from offchain.crypto.errors import CryptoError
from offchain.crypto.issuer import IssuerKey, IssuerPublicKey, decode_token
from offchain.crypto.scalars import random_scalar
from offchain.crypto.sigma import Affine, Base, Equation, secret

BLINDING = "token blinding"
"""Name of t in witnesses."""


def show(pk: IssuerPublicKey, token: bytes, t: int) -> bytes:
    """sigma', 192 bytes, for a token and the blinding t of its K."""
    curve = pk.curve
    sigma1, sigma2 = decode_token(curve, token)
    rho = random_scalar()
    shown1 = curve.mul_g2(sigma1, rho)
    shown2 = curve.msm_g2([sigma2, sigma1], [rho, rho * t % GROUP_ORDER])
    return curve.encode_g2(shown1) + curve.encode_g2(shown2)


def commit_hidden(pk: IssuerPublicKey, t: int, hidden: Mapping[int, int]) -> G1:
    """K = g1^t prod Y_i^hidden[i]."""
    curve = pk.curve
    points = [curve.g1, *(pk.y[i] for i in hidden)]
    return curve.msm_g1(points, [t, *hidden.values()])


def equation(bases: Bases, k: G1, hidden: Mapping[int, Affine]) -> Equation[G1]:
    """K = g1^t prod Y_i^hidden[i]."""
    terms = ((bases.g1, secret(BLINDING)), *((bases.y[i], m) for i, m in hidden.items()))
    return Equation(bases.group1, Base(k), terms)


def check(issuer: IssuerKey, sigma: bytes, k: G1, public: Mapping[int, int]) -> None:
    """CryptoError unless sigma' is a signature on `public` and whatever K holds."""
    curve = issuer.curve
    sigma1, sigma2 = decode_token(curve, sigma, "sigma")
    exponent = issuer.x + sum(issuer.y[i] * m for i, m in public.items())
    key = curve.add_g1(curve.mul_g1(curve.g1, exponent), k)
    if not curve.pairing_equal(key, sigma1, curve.g1, sigma2):
        raise CryptoError("sigma: no token on these messages")
