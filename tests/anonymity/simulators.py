# SPDX-License-Identifier: BSD-3-Clause
"""What an intermediary sees of a user's proofs, made without a user.

Each function takes the intermediary's public key, the public values of the message, and an oracle
to program. It has no wallet, no token and no secret key of anybody. Each returns what the honest
prover would send, with the same distribution:

* A request D is blinded by g2^t, a commitment by P3^r or g1^t: any such element is uniform in its
  group, whatever it commits to. So are the pair D_rt, D_pt, for their blindings are independent.
* sigma' and K. The honest sigma1' and K are uniform, and sigma2' is the one element for which
  e(X Y0^tag Y2^nonce K, sigma1') = e(g1, sigma2'). Draw a and b, let K = g1^a / (X Y0^tag ...),
  sigma1' = g2^b and sigma2' = g2^(a b): the same distribution, and no signature was needed.
* A blinded digit A_d^v is uniform for every d: it is made of A_0, and its power by the digit key,
  which the verifier computes itself, is g1^v.
* Challenge and responses: see `Oracle.simulate`.

An intermediary that knows its own secret key can do all this too, of course. That the public key is
enough says that the messages would tell nothing even to somebody who had to be told that key.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from monetor_chain.statements import NanoTerms, Role
from offchain.crypto import nano_close, nano_establish, nano_setup, opening, pay, reissue
from offchain.crypto.bases import BALANCE, CID, NONCE, TAG, WPK, Bases, bases_of
from offchain.crypto.curve import G1, decode_g1
from offchain.crypto.generators import commit_point
from offchain.crypto.issuer import IssuerPublicKey
from offchain.crypto.nano_establish import EstablishStatement
from offchain.crypto.nano_setup import SetupStatement
from offchain.crypto.pay import PayStatement
from offchain.crypto.proofs import TokenRequest, decode_request
from offchain.crypto.range_proof import DIGITS
from offchain.crypto.reissue import VoidPayment
from offchain.crypto.scalars import random_scalar
from offchain.crypto.sigma import Base
from offchain.crypto.spending import decode_spend, session_total
from tests.anonymity.oracle import Oracle

_MESSAGES = {TAG: "tag", CID: "cid", NONCE: "nonce", WPK: "wpk", BALANCE: "balance"}


def shown_token(pk: IssuerPublicKey, public: dict[int, int]) -> tuple[bytes, bytes]:
    """(sigma', K) that verify for the public messages of a token that nobody has signed."""
    curve = pk.curve
    a, b = random_scalar(), random_scalar()
    messages = {name: public.get(at, 0) for at, name in _MESSAGES.items()}
    k = curve.add_g1(curve.mul_g1(curve.g1, a), curve.neg_g1(pk.signed_key(**messages)))
    sigma = curve.encode_g2(curve.mul_g2(curve.g2, b)) + curve.encode_g2(
        curve.mul_g2(curve.g2, a * b))
    return sigma, curve.encode_g1(k)


def element_g1(pk: IssuerPublicKey) -> bytes:
    """A uniform element of G1, such as a commitment."""
    return pk.curve.encode_g1(pk.curve.mul_g1(pk.curve.g1, random_scalar()))


def request(pk: IssuerPublicKey) -> TokenRequest:
    """D_rt and D_pt of nothing."""
    curve = pk.curve
    d_rt, d_pt = (curve.encode_g2(curve.mul_g2(curve.g2, random_scalar())) for _ in range(2))
    return TokenRequest(d_rt, d_pt)


@dataclass(frozen=True)
class Digits:
    """Blinded digits of no value; `powers` are their powers by the digit key."""

    encoded: bytes
    points: tuple[G1, ...]
    powers: tuple[G1, ...]

    @classmethod
    def of(cls, pk: IssuerPublicKey, bases: Bases, numbers: int) -> Digits:
        """Digits for so many values."""
        curve = pk.curve
        blindings = [random_scalar() for _ in range(numbers * DIGITS)]
        points = [curve.mul_g1(pk.digit_tokens[0], one) for one in blindings]
        powers = [curve.mul_g1(curve.g1, one) for one in blindings]
        return cls(b"".join(map(curve.encode_g1, points)), tuple(points), tuple(powers))

    def known(self, equations: list[Any]) -> list[Any]:
        """The relation's equations, whose last ones are the digits', with known images."""
        rest = len(equations) - len(self.points)
        return equations[:rest] + [
            replace(one, image=Base(power), image_power=1)
            for one, power in zip(equations[rest:], self.powers, strict=True)]


def _spend(pk: IssuerPublicKey, tag: int, nonce: int, wpk: int) -> tuple[bytes, ...]:
    # The lock behind com is told in the next message, so the simulator makes one up.
    r = random_scalar()
    sigma, k = shown_token(pk, {TAG: tag, NONCE: nonce})
    com = pk.curve.encode_g1(commit_point(pk.curve, wpk, 0, r))
    return r.to_bytes(32, "big"), com, element_g1(pk), sigma, k


def simulate_setup(oracle: Oracle, pk: IssuerPublicKey, ctx: bytes, *, tag: int, nonce: int,
                   wpk: int, terms: NanoTerms, nwpk: int) -> tuple[SetupStatement, bytes, int]:
    """Statement and proof of a Nano-Setup, and the opening of its com to `wpk`."""
    bases = bases_of(pk)
    r, *elements = _spend(pk, tag, nonce, wpk)
    statement = SetupStatement(*elements)
    digits = Digits.of(pk, bases, 1)
    transcript = nano_setup._transcript(ctx, statement, digits.encoded, tag, nonce, terms, nwpk)
    equations = nano_setup._relation(bases, decode_spend(bases, statement), digits.points,
                                     session_total(terms, terms.price, "price"))
    proof = digits.encoded + oracle.simulate(transcript, digits.known(equations))
    return statement, proof, int.from_bytes(r, "big")


def simulate_establish(oracle: Oracle, pk: IssuerPublicKey, ctx: bytes, *, tag: int, nonce: int,
                       wpk: int, terms: NanoTerms, nwpk: int
                       ) -> tuple[EstablishStatement, bytes, int]:
    """Statement and proof of a Nano-Establish, and the opening of its com to `wpk`."""
    bases = bases_of(pk)
    r, *elements = _spend(pk, tag, nonce, wpk)
    statement = EstablishStatement(*elements)
    transcript = nano_establish._transcript(ctx, statement, tag, nonce, terms, nwpk)
    equations = nano_establish._relation(bases, decode_spend(bases, statement),
                                         session_total(terms, terms.delta_r, "delta_r"))
    return statement, oracle.simulate(transcript, equations), int.from_bytes(r, "big")


def simulate_opening(oracle: Oracle, pk: IssuerPublicKey, ctx: bytes, *, role: Role, cid: int,
                     balance: int) -> tuple[TokenRequest, bytes]:
    """Requests and proof of an Establish."""
    bases, made = bases_of(pk), request(pk)
    transcript = opening._transcript(ctx, made, role, cid, balance)
    equations = opening._relation(bases, *decode_request(bases, made))
    return made, oracle.simulate(transcript, equations)


def simulate_close(oracle: Oracle, pk: IssuerPublicKey, ctx: bytes, *, role: Role,
                   commitment: bytes, adjustment: int, terms_hash: bytes, k: int
                   ) -> tuple[TokenRequest, bytes]:
    """Requests and proof of a Nano-Close over an N that nobody can open."""
    bases, made = bases_of(pk), request(pk)
    transcript = nano_close._transcript(ctx, made, role, commitment, adjustment, terms_hash, k)
    equations = nano_close._relation(bases, decode_g1(pk.curve, commitment, "N"),
                                     *decode_request(bases, made), adjustment)
    return made, oracle.simulate(transcript, equations)


def _leg(pk: IssuerPublicKey, publics: pay._Publics, v: bytes) -> PayStatement:
    sigma, k = shown_token(pk, publics.token_messages())
    made = request(pk)
    return PayStatement(sigma, k, v, made.d_rt, made.d_pt)


def simulate_payer(oracle: Oracle, pk: IssuerPublicKey, ctx: bytes, *, tag: int, nonce: int,
                   wpk: int, pay_fee: int, payment_deadline: int, v: bytes | None = None
                   ) -> tuple[PayStatement, bytes]:
    """Statement and proof of a payer's leg; without `v` over an amount that nobody knows."""
    bases = bases_of(pk)
    publics = pay._Publics(tag, nonce, wpk, wpk, pay_fee, payment_deadline)
    statement = _leg(pk, publics, v or element_g1(pk))
    digits = Digits.of(pk, bases, 2)
    transcript = pay._transcript(ctx, "payer", statement, publics, digits.encoded)
    equations = pay._payer_relation(bases, pay._decode_leg(bases, statement),
                                    digits.points[:DIGITS], digits.points[DIGITS:], pay_fee)
    return statement, digits.encoded + oracle.simulate(transcript, digits.known(equations))


def simulate_payee(oracle: Oracle, pk: IssuerPublicKey, ctx: bytes, *, tag: int, nonce: int,
                   wpk: int, payment_deadline: int, wpk_payer: int, v: bytes | None = None
                   ) -> tuple[PayStatement, bytes]:
    """Statement and proof of a payee's leg."""
    bases = bases_of(pk)
    publics = pay._Publics(tag, nonce, wpk, wpk_payer, 0, payment_deadline)
    statement = _leg(pk, publics, v or element_g1(pk))
    transcript = pay._transcript(ctx, "payee", statement, publics, b"")
    equations = pay._payee_relation(bases, pay._decode_leg(bases, statement))
    return statement, oracle.simulate(transcript, equations)


def simulate_reissue(oracle: Oracle, pk: IssuerPublicKey, ctx: bytes, *, k: bytes, role: Role,
                     void: VoidPayment) -> tuple[TokenRequest, bytes]:
    """Requests and proof of a reissue over the K of a simulated leg."""
    bases, made = bases_of(pk), request(pk)
    transcript = reissue._transcript(ctx, made, k, role, void)
    equations = reissue._relation(bases, decode_g1(pk.curve, k, "K"),
                                  *decode_request(bases, made))
    return made, oracle.simulate(transcript, equations)


def simulate(name: str, oracle: Oracle, pk: IssuerPublicKey, ctx: bytes, public: dict[str, Any]
             ) -> tuple[Any, bytes]:
    """Statement and proof of the case `name` of tests/crypto/cases.py, under its public values."""
    match name:
        case "opening":
            return simulate_opening(oracle, pk, ctx, **public)
        case "nano_setup":
            return simulate_setup(oracle, pk, ctx, wpk=random_scalar() >> 8, **public)[:2]
        case "nano_establish":
            return simulate_establish(oracle, pk, ctx, wpk=random_scalar() >> 8, **public)[:2]
        case "nano_close_client" | "nano_close_relay":
            return simulate_close(oracle, pk, ctx, **public)
        case "pay_payer":
            return simulate_payer(oracle, pk, ctx, **public)
        case "pay_payee":
            return simulate_payee(oracle, pk, ctx, **public)
        case "reissue":
            return simulate_reissue(oracle, pk, ctx, **public)
    raise AssertionError(name)
