# SPDX-License-Identifier: BSD-3-Clause
"""Range proof by digit tokens: 0 <= value < 256^4, verified by the key's owner without pairings.

Statement: V_j, j = 0..3. Witness: digits d_j and blindings v_j. Relation: V_j = A_{d_j}^{v_j},
that is V_j^s = g1^{v_j} V_j^{-d_j}, where s is the digit key; whoever knows s computes the left
side itself. A_d exists for d = 0..255 only, and making another is forging a Boneh-Boyen signature.
V_j = 1 would satisfy the relation for every d and is rejected.

The value is not a secret of its own: `value` gives it as the affine expression sum 256^j d_j, and
the relation that needs the range writes its exponent that way. There is nothing left to compare.

Reference: Camenisch, Chaabouni and shelat, Efficient Protocols for Set Membership and Range Proofs
(ASIACRYPT 2008), section 4.4, with keyed verification.
"""

from __future__ import annotations

from dataclasses import dataclass

from offchain.crypto.bases import Bases
from offchain.crypto.curve import G1, G1_BYTES, decode_g1
from offchain.crypto.errors import CryptoError
from offchain.crypto.issuer import IssuerPublicKey
from offchain.crypto.issuer_public_key import DIGIT_BASE
from offchain.crypto.scalars import check_amount, random_scalar
from offchain.crypto.sigma import Affine, Base, Equation, secret

DIGITS = 4
RANGE_BYTES = DIGITS * G1_BYTES
"""Length of V_0 || .. || V_3."""


@dataclass(frozen=True, repr=False)
class BlindedDigits:
    """The prover's side: V_j, encoded and as points, and the witness under its names."""

    encoded: bytes
    points: tuple[G1, ...]
    witness: dict[str, int]


def value(name: str) -> Affine:
    """The value whose digits are called after `name`."""
    return Affine(tuple((_digit(name, j), DIGIT_BASE**j) for j in range(DIGITS)))


def blind_digits(pk: IssuerPublicKey, name: str, amount: int) -> BlindedDigits:
    """Digit tokens of `amount`, blinded. CryptoError unless 0 <= amount < 2**32."""
    check_amount(amount, name)
    curve = pk.curve
    witness = {}
    points = []
    for j in range(DIGITS):
        digit = amount // DIGIT_BASE**j % DIGIT_BASE
        blinding = random_scalar()
        witness[_digit(name, j)] = digit
        witness[_blinding(name, j)] = blinding
        points.append(curve.mul_g1(pk.digit_tokens[digit], blinding))
    encoded = b"".join(curve.encode_g1(point) for point in points)
    return BlindedDigits(encoded, tuple(points), witness)


def decode_digits(bases: Bases, name: str, encoded: bytes) -> tuple[G1, ...]:
    """V_0..V_3; CryptoError for a wrong length, a bad point or the identity."""
    if len(encoded) != RANGE_BYTES:
        raise CryptoError(f"range of {name}: has {RANGE_BYTES} bytes, not {len(encoded)}")
    pieces = (encoded[i : i + G1_BYTES] for i in range(0, RANGE_BYTES, G1_BYTES))
    return tuple(
        decode_g1(bases.curve, piece, f"digit {j} of {name}") for j, piece in enumerate(pieces)
    )


def equations(
    bases: Bases, name: str, points: tuple[G1, ...], digit_secret: int = 0
) -> list[Equation[G1]]:
    """One equation per digit. The verifier gives s; the prover never looks at the images."""
    result = []
    for j, point in enumerate(points):
        base = Base(point)
        terms = ((bases.g1, secret(_blinding(name, j))), (base, -secret(_digit(name, j))))
        result.append(Equation(bases.group1, base, terms, image_power=digit_secret))
    return result


def _digit(name: str, j: int) -> str:
    return f"{name} digit {j}"


def _blinding(name: str, j: int) -> str:
    return f"{name} digit blinding {j}"
