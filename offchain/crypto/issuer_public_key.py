# SPDX-License-Identifier: BSD-3-Clause
"""An intermediary's public key: Pointcheval-Sanders with the key in G1 and signatures in G2.

Secret: x, y0..y4 and the digit key s. Public: X = g1^x, Y_i = g1^y_i; Y~_i = g2^y_i for i = 1..4,
in which users commit to what they want signed; and the range proof's digit tokens (Boneh and
Boyen's weak signatures) A_d = g1^(1/(s+d)) for d = 0..255 with their key W = g2^s. g2^x is no part
of it and must never be published: with it anybody signs.

References: Pointcheval and Sanders, Short Randomizable Signatures (CT-RSA 2016), section 6.1, with
the two groups exchanged so that the ledger computes in G1; Camenisch, Chaabouni and shelat,
Efficient Protocols for Set Membership and Range Proofs (ASIACRYPT 2008).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from monetor_chain.statements import keccak256, key_hash as registered_key_hash
from offchain.crypto.curve import (
    G1,
    G1_BYTES,
    G2,
    G2_BYTES,
    Backend,
    backend,
    decode_g1,
    decode_g2,
)
from offchain.crypto.encoding import evm_g1
from offchain.crypto.errors import CryptoError

ATTRIBUTES = 5
"""A token signs (tag, cid, nonce, wpk, balance)."""
DIGIT_BASE = 256
"""Base of the range proof's digits."""
PUBLIC_KEY_BYTES = (1 + ATTRIBUTES + DIGIT_BASE) * G1_BYTES + ATTRIBUTES * G2_BYTES
_REMEMBERED_TAGS = 16
_REMEMBERED_STATES = 8


@dataclass(frozen=True, eq=False)
class IssuerPublicKey:
    """What everybody knows of an intermediary's key. Decoding checks curve and subgroup only;
    a user calls `check` once before it trusts the key."""

    curve: Backend
    x: G1
    y: tuple[G1, ...]
    """Y0..Y4."""
    y_tilde: tuple[G2, ...]
    """Y~1..Y~4; see `request_base`."""
    digit_key: G2
    """W."""
    digit_tokens: tuple[G1, ...]
    """A_0..A_255."""

    def __post_init__(self) -> None:
        for base in self.y:
            self.curve.expect_g1(base)
        for request_base in self.y_tilde:
            self.curve.expect_g2(request_base)

    def request_base(self, attribute: int) -> G2:
        """Y~_attribute for attribute = 1..4 (cid, nonce, wpk, balance). There is no Y~_0: with it
        a user would choose the kind of his token."""
        if not 1 <= attribute < ATTRIBUTES:
            raise CryptoError(f"attribute: no request base {attribute}")
        return self.y_tilde[attribute - 1]

    def signed_key(self, tag: int, cid: int, nonce: int, wpk: int, balance: int) -> G1:
        """X Y0^tag Y1^cid Y2^nonce Y3^wpk Y4^balance, what a token on these messages pairs with.

        A wallet verifies a refund token and a wallet token on the same cid, wpk and balance one
        after the other, under tags that hardly ever change: both parts are remembered for a while.
        """
        key = self.curve.add_g1(self._tagged(tag), self._state(cid, wpk, balance))
        return self.curve.add_g1(key, self.curve.mul_g1(self.y[2], nonce)) if nonce else key

    @cached_property
    def _tagged(self) -> Callable[[int], G1]:
        def tagged(tag: int) -> G1:
            return self.curve.add_g1(self.x, self.curve.mul_g1(self.y[0], tag))

        return lru_cache(maxsize=_REMEMBERED_TAGS)(tagged)

    @cached_property
    def _state(self) -> Callable[[int, int, int], G1]:
        def state(cid: int, wpk: int, balance: int) -> G1:
            return self.curve.msm_g1((self.y[1], self.y[3], self.y[4]), (cid, wpk, balance))

        return lru_cache(maxsize=_REMEMBERED_STATES)(state)

    @cached_property
    def _first_part(self) -> tuple[bytes, ...]:
        return tuple(self.curve.encode_g1(point) for point in (self.x, *self.y))

    @cached_property
    def _rest(self) -> bytes:
        curve = self.curve
        second = b"".join(curve.encode_g2(point) for point in (*self.y_tilde, self.digit_key))
        return second + b"".join(curve.encode_g1(point) for point in self.digit_tokens)

    def encode(self) -> bytes:
        """X, Y0..Y4, Y~1..Y~4, W, A_0..A_255, compressed."""
        return b"".join(self._first_part) + self._rest

    @classmethod
    def decode(cls, data: bytes, curve: Backend | None = None) -> IssuerPublicKey:
        """Inverse of `encode`; CryptoError for a wrong length, a bad point or the identity."""
        if len(data) != PUBLIC_KEY_BYTES:
            raise CryptoError(f"key: has {PUBLIC_KEY_BYTES} bytes, this one has {len(data)}")
        curve = curve or backend()
        rest = memoryview(data)

        def take(length: int) -> bytes:
            nonlocal rest
            piece, rest = rest[:length], rest[length:]
            return bytes(piece)

        x = decode_g1(curve, take(G1_BYTES), "X")
        y = tuple(decode_g1(curve, take(G1_BYTES), f"Y{i}") for i in range(ATTRIBUTES))
        y_tilde = tuple(
            decode_g2(curve, take(G2_BYTES), f"request base {i}") for i in range(1, ATTRIBUTES)
        )
        digit_key = decode_g2(curve, take(G2_BYTES), "digit key")
        digit_tokens = tuple(
            decode_g1(curve, take(G1_BYTES), f"digit token {i}") for i in range(DIGIT_BASE)
        )
        return cls(curve, x, y, y_tilde, digit_key, digit_tokens)

    def evm_encoding(self) -> bytes:
        """X, Y0..Y4 as the ledger registers them: 768 bytes, EIP-2537."""
        return b"".join(evm_g1(point) for point in self._first_part)

    def rest_hash(self) -> bytes:
        """keccak256 of the compressed second part: Y~1..Y~4, W, A_0..A_255."""
        return keccak256(self._rest)

    @cached_property
    def key_hash(self) -> bytes:
        """The identity under which the ledger knows this key."""
        return registered_key_hash(self.evm_encoding(), self.rest_hash())

    def check(self) -> None:
        """CryptoError unless the key is well formed: what a user verifies once per intermediary.

        Mismatched request bases would give him tokens that the ledger refuses; a missing or wrong
        digit token would let the intermediary learn digits of balances from failing proofs.
        """
        curve = self.curve
        if (
            len(self.y) != ATTRIBUTES
            or len(self.y_tilde) != ATTRIBUTES - 1
            or len(self.digit_tokens) != DIGIT_BASE
        ):
            raise CryptoError("key: wrong number of elements")
        identity_g1 = curve.encode_g1(curve.mul_g1(curve.g1, 0))
        names = ("X", *(f"Y{i}" for i in range(ATTRIBUTES)))
        for name, encoded in zip(names, self._first_part, strict=True):
            if encoded == identity_g1:
                raise CryptoError(f"{name}: the identity is not allowed here")
        for i in range(1, ATTRIBUTES):
            if not curve.pairing_equal(self.y[i], curve.g2, curve.g1, self.request_base(i)):
                raise CryptoError(f"request base {i}: does not match Y{i}")
        if not self._digit_tokens_hold(range(DIGIT_BASE)):
            for digit in range(DIGIT_BASE):
                if not self._digit_tokens_hold((digit,)):
                    raise CryptoError(f"digit token {digit}: not a signature of its digit")
            raise CryptoError("digit tokens: do not verify together")

    def _digit_tokens_hold(self, digits: Sequence[int]) -> bool:
        # e(A_d, W g2^d) = e(g1, g2) for every d, as one random linear combination:
        # e(prod A_d^r_d, W) = e(prod g1^r_d A_d^(-d r_d), g2). A bad token survives with
        # probability 2**-128.
        curve = self.curve
        weights = [secrets.randbits(128) for _ in digits]
        tokens = [self.digit_tokens[digit] for digit in digits]
        left = curve.msm_g1(tokens, weights)
        right = curve.msm_g1(
            [curve.g1, *tokens],
            [sum(weights), *(-digit * w for digit, w in zip(digits, weights, strict=True))],
        )
        return curve.pairing_equal(left, self.digit_key, right, curve.g2)
