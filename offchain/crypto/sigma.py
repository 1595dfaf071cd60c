# SPDX-License-Identifier: BSD-3-Clause
"""Sigma protocols for conjunctions of linear equations between group elements.

A relation is a list of `Equation`s  image = prod base_i^exponent_i , in G1 or G2, whose exponents
are affine expressions in named secrets. One name is one secret: however many equations mention it,
there is one response for it, which is what proves that they speak of the same value. An affine
expression costs nothing: N = P1^cid P2^(B - 500) P3^rho is an equation in cid, B and rho.

For every secret w the prover draws a mask k, announces prod base_i^exponent_i(masks) without the
constants, obtains the challenge c and answers z = k + c w. The verifier recomputes every
announcement as  prod base_i^(exponent_i(z) + c constant_i) image^-c  and compares the challenge.
Special soundness: two answers to one announcement give every secret. A proof is c and the
responses in the order in which the equations first mention their secrets: fixed length.

References: Schnorr, Efficient Signature Generation by Smart Cards (J. Cryptology 1991); Camenisch
and Stadler, Proof Systems for General Statements about Discrete Logarithms (1997), sections 3-5.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, NoReturn, TypeVar

from monetor_chain.statements import GROUP_ORDER
from offchain.crypto.curve import G1, G2, Backend
from offchain.crypto.errors import CryptoError
from offchain.crypto.scalars import SCALAR_BYTES, decode_scalar, encode_scalar
from offchain.crypto.transcript import Transcript

P = TypeVar("P", G1, G2)


@dataclass(frozen=True, eq=False)
class Group(Generic[P]):
    """G1 or G2 of a backend, so that equations need not know which."""

    generator: P
    msm: Callable[[Sequence[P], Sequence[int]], P]
    encode: Callable[[P], bytes]


def group_g1(curve: Backend) -> Group[G1]:
    """G1 of `curve`."""
    return Group(curve.g1, curve.msm_g1, curve.encode_g1)


def group_g2(curve: Backend) -> Group[G2]:
    """G2 of `curve`."""
    return Group(curve.g2, curve.msm_g2, curve.encode_g2)


@dataclass(frozen=True, eq=False)
class Base(Generic[P]):
    """A group element that exponents stand on.

    `log` is its discrete logarithm to the group's generator, if whoever computes knows it: all
    such bases of an equation cost one multiplication together.
    """

    point: P
    log: int | None = None


@dataclass(frozen=True)
class Affine:
    """constant + sum of coefficient * secret."""

    coefficients: tuple[tuple[str, int], ...]
    constant: int = 0

    def __add__(self, other: Affine | int) -> Affine:
        if isinstance(other, int):
            return Affine(self.coefficients, self.constant + other)
        merged = dict(self.coefficients)
        for name, coefficient in other.coefficients:
            merged[name] = merged.get(name, 0) + coefficient
        return Affine(tuple(merged.items()), self.constant + other.constant)

    def __neg__(self) -> Affine:
        return Affine(tuple((name, -k) for name, k in self.coefficients), -self.constant)

    def __sub__(self, other: Affine | int) -> Affine:
        return self + -other

    def evaluate(self, values: Mapping[str, int], unit: int) -> int:
        """Sum of coefficient * values[secret], plus `unit` times the constant."""
        return sum(k * values[name] for name, k in self.coefficients) + unit * self.constant


def secret(name: str) -> Affine:
    """The secret `name` as an exponent."""
    return Affine(((name, 1),))


@dataclass(frozen=True, eq=False)
class Equation(Generic[P]):
    """image^image_power = prod base^exponent over `terms`.

    `image_power` lets the range proof's verifier state an image that only it can compute.
    """

    group: Group[P]
    image: Base[P]
    terms: tuple[tuple[Base[P], Affine], ...]
    image_power: int = 1

    def announce(self, masks: Mapping[str, int]) -> bytes:
        """prod base^exponent(masks), without the constants, encoded."""
        return self._product((base, exponent.evaluate(masks, 0)) for base, exponent in self.terms)

    def reconstruct(self, responses: Mapping[str, int], challenge: int) -> bytes:
        """The announcement that `responses` answer, encoded."""
        factors = [(base, exponent.evaluate(responses, challenge)) for base, exponent in self.terms]
        factors.append((self.image, -challenge * self.image_power))
        return self._product(factors)

    def _product(self, factors: Iterable[tuple[Base[P], int]]) -> bytes:
        known = 0
        scalars: dict[int, int] = {}
        points: dict[int, P] = {}
        for base, scalar in factors:
            if base.log is not None:
                known += base.log * scalar
            else:
                key = id(base)
                points[key] = base.point
                scalars[key] = scalars.get(key, 0) + scalar
        bases, exponents = list(points.values()), list(scalars.values())
        if known:
            bases.append(self.group.generator)
            exponents.append(known)
        return self.group.encode(self.group.msm(bases, exponents))


AnyEquation = Equation[G1] | Equation[G2]


def _secret_names(equations: Sequence[AnyEquation]) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for equation in equations:
        for _, exponent in equation.terms:
            names.update((name, None) for name, _ in exponent.coefficients)
    return tuple(names)


class Announced:
    """A prover's first move: masks for all secrets, and the announcements made of them.

    None of it depends on the challenge, so it can be computed before anybody asks for a proof. It
    answers one challenge: a second answer with the same masks would give away every secret
    (z - z' = (c - c') w), so it forgets them, and can neither be copied nor stored.
    """

    def __init__(self, equations: Sequence[AnyEquation]) -> None:
        masks = {name: secrets.randbelow(GROUP_ORDER) for name in _secret_names(equations)}
        self._announcements = [equation.announce(masks) for equation in equations]
        self._masks: dict[str, int] | None = masks

    def __reduce__(self) -> NoReturn:
        raise TypeError("the first move of a proof is in memory only, and there once")

    @property
    def answered(self) -> bool:
        """Whether it has answered its challenge."""
        return self._masks is None

    def answer(self, transcript: Transcript, witness: Mapping[str, int]) -> bytes:
        """The proof that follows, bound to `transcript`; CryptoError the second time.

        The transcript must already hold every public value and every element of the statement.
        """
        masks, self._masks = self._masks, None
        if masks is None:
            raise CryptoError("proof: its announcements have answered a challenge before")
        challenge = transcript.challenge(self._announcements)
        responses = [(mask + challenge * witness[name]) % GROUP_ORDER
                     for name, mask in masks.items()]  # fmt: skip
        return b"".join(encode_scalar(value) for value in (challenge, *responses))


def prove(
    transcript: Transcript, equations: Sequence[AnyEquation], witness: Mapping[str, int]
) -> bytes:
    """Proof of knowledge of `witness`, the values of all secrets, bound to `transcript`.

    The transcript must already hold every public value and every element of the statement.
    """
    return Announced(equations).answer(transcript, witness)


def verify(transcript: Transcript, equations: Sequence[AnyEquation], proof: bytes) -> None:
    """CryptoError unless `proof` is one of these equations under `transcript`."""
    names = _secret_names(equations)
    expected = SCALAR_BYTES * (1 + len(names))
    if len(proof) != expected:
        raise CryptoError(f"proof: has {expected} bytes, this one has {len(proof)}")
    challenge, *values = (
        decode_scalar(proof[i : i + SCALAR_BYTES], "proof")
        for i in range(0, expected, SCALAR_BYTES)
    )
    responses = dict(zip(names, values, strict=True))
    announcements = [equation.reconstruct(responses, challenge) for equation in equations]
    if transcript.challenge(announcements) != challenge:
        raise CryptoError("proof: does not verify")
