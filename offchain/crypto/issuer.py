# SPDX-License-Identifier: BSD-3-Clause
"""Tokens: Pointcheval-Sanders signatures on (tag, cid, nonce, wpk, balance), and their issuer.

sigma = (g2^u, sigma1^(x + sum y_i m_i)); valid iff sigma1 is not the identity and
e(X prod Y_i^m_i, sigma1) = e(g1, sigma2). All tokens of an intermediary come from one key and are
told apart by their tag. Reference: Pointcheval and Sanders (CT-RSA 2016), sections 4.2 and 6.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from monetor_chain.statements import GROUP_ORDER
from offchain.crypto.curve import G2, G2_BYTES, Backend, backend, decode_g2
from offchain.crypto.encoding import TOKEN_BYTES
from offchain.crypto.errors import CryptoError
from offchain.crypto.issuer_public_key import ATTRIBUTES, DIGIT_BASE, IssuerPublicKey
from offchain.crypto.scalars import (
    SCALAR_BYTES,
    check_amount,
    check_identifier,
    decode_scalar,
    encode_scalar,
    random_scalar,
)

__all__ = [
    "SECRET_KEY_BYTES",
    "IssuerKey",
    "IssuerPublicKey",
    "decode_token",
    "rerandomise",
    "unblind",
    "verify_token",
]

SECRET_KEY_BYTES = (1 + ATTRIBUTES + 1) * SCALAR_BYTES

_Messages = tuple[int, int, int, int, int]
"""tag, cid, nonce, wpk, balance"""


def _check_messages(tag: int, cid: int, nonce: int, wpk: int, balance: int) -> None:
    for name, value in (("tag", tag), ("cid", cid), ("nonce", nonce), ("wpk", wpk)):
        check_identifier(value, name)
    check_amount(balance, "balance")


@dataclass(frozen=True, eq=False, repr=False)
class IssuerKey:
    """An intermediary's secret key with its public part. Its repr shows the public part only."""

    x: int
    y: tuple[int, ...]
    digit_secret: int
    public: IssuerPublicKey

    def __repr__(self) -> str:
        return f"IssuerKey(public={self.public.key_hash.hex()})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret key is stored through encode() only")

    @property
    def curve(self) -> Backend:
        """The backend that the public part's points belong to."""
        return self.public.curve

    @classmethod
    def generate(cls, curve: Backend | None = None) -> IssuerKey:
        """A fresh key (the paper's KeyGen for I)."""
        y = tuple(random_scalar() for _ in range(ATTRIBUTES))
        return cls._derive(random_scalar(), y, _random_digit_secret(), curve or backend())

    @classmethod
    def _derive(cls, x: int, y: tuple[int, ...], digit_secret: int, curve: Backend) -> IssuerKey:
        public = IssuerPublicKey(
            curve=curve,
            x=curve.mul_g1(curve.g1, x),
            y=tuple(curve.mul_g1(curve.g1, scalar) for scalar in y),
            y_tilde=tuple(curve.mul_g2(curve.g2, scalar) for scalar in y[1:]),
            digit_key=curve.mul_g2(curve.g2, digit_secret),
            digit_tokens=tuple(
                curve.mul_g1(curve.g1, pow(digit_secret + digit, -1, GROUP_ORDER))
                for digit in range(DIGIT_BASE)
            ),
        )
        return cls(x, y, digit_secret, public)

    def encode(self) -> bytes:
        """x, y0..y4, s: 224 secret bytes."""
        return b"".join(encode_scalar(value) for value in (self.x, *self.y, self.digit_secret))

    @classmethod
    def decode(cls, data: bytes, curve: Backend | None = None) -> IssuerKey:
        """Inverse of `encode`; recomputes the public part. CryptoError if malformed."""
        if len(data) != SECRET_KEY_BYTES:
            raise CryptoError(f"secret key: has {SECRET_KEY_BYTES} bytes, not {len(data)}")
        x, *y, digit_secret = (
            decode_scalar(data[i : i + SCALAR_BYTES], "secret key")
            for i in range(0, SECRET_KEY_BYTES, SCALAR_BYTES)
        )
        if not x or not all(y) or _makes_a_digit_token_fail(digit_secret):
            raise CryptoError("secret key: has a forbidden value")
        return cls._derive(x, tuple(y), digit_secret, curve or backend())

    def sign(self, *, tag: int, cid: int, nonce: int, wpk: int, balance: int) -> bytes:
        """A 192-byte token on messages in clear."""
        _check_messages(tag, cid, nonce, wpk, balance)
        curve = self.curve
        u = random_scalar()
        exponent = u * self._exponent(tag, cid, nonce, wpk, balance)
        return curve.encode_g2(curve.mul_g2(curve.g2, u)) + curve.encode_g2(
            curve.mul_g2(curve.g2, exponent)
        )

    def blind_sign(
        self,
        d: bytes,
        *,
        tag: int,
        cid: int = 0,
        nonce: int = 0,
        wpk: int = 0,
        balance: int = 0,
    ) -> bytes:
        """Reply (g2^u, (g2^x Y~^public D)^u), 192 bytes, to a signature request D.

        The messages given here are the public ones; D must have been proved to hold only the
        others. Call it for a request whose proof has been verified, and once: the reply is stored
        and repeated. CryptoError if D is no point, the identity, or a message is out of range.
        """
        _check_messages(tag, cid, nonce, wpk, balance)
        curve = self.curve
        request = decode_g2(curve, d, "signature request")
        u = random_scalar()
        exponent = u * self._exponent(tag, cid, nonce, wpk, balance)
        return curve.encode_g2(curve.mul_g2(curve.g2, u)) + curve.encode_g2(
            curve.msm_g2([curve.g2, request], [exponent, u])
        )

    def _exponent(self, *messages: int) -> int:
        products = (y * m for y, m in zip(self.y, messages, strict=True))
        return (self.x + sum(products)) % GROUP_ORDER


def decode_token(curve: Backend, token: bytes, field: str = "token") -> tuple[G2, G2]:
    """(sigma1, sigma2); CryptoError for a wrong length, a bad point or sigma1 the identity."""
    if len(token) != TOKEN_BYTES:
        raise CryptoError(f"{field}: has {TOKEN_BYTES} bytes, this one has {len(token)}")
    sigma1 = decode_g2(curve, token[:G2_BYTES], f"{field}, sigma1")
    sigma2 = decode_g2(curve, token[G2_BYTES:], f"{field}, sigma2", identity=True)
    return sigma1, sigma2


def verify_token(
    pk: IssuerPublicKey, token: bytes, *, tag: int, cid: int, nonce: int, wpk: int, balance: int
) -> bool:
    """Whether the ledger would take `token` for these messages; never raises.

    False too for malformed points, sigma1 the identity, and messages out of range.
    """
    try:
        sigma1, sigma2 = decode_token(pk.curve, token)
        _check_messages(tag, cid, nonce, wpk, balance)
    except CryptoError:
        return False
    return _holds(pk, sigma1, sigma2, (tag, cid, nonce, wpk, balance))


def _holds(pk: IssuerPublicKey, sigma1: G2, sigma2: G2, messages: _Messages) -> bool:
    return pk.curve.pairing_equal(pk.signed_key(*messages), sigma1, pk.curve.g1, sigma2)


def rerandomise(token: bytes, *, curve: Backend | None = None) -> bytes:
    """(sigma1^rho, sigma2^rho): the same messages, unlinkable to the token as it was issued."""
    curve = curve or backend()
    sigma1, sigma2 = decode_token(curve, token)
    rho = random_scalar()
    return curve.encode_g2(curve.mul_g2(sigma1, rho)) + curve.encode_g2(curve.mul_g2(sigma2, rho))


def unblind(
    pk: IssuerPublicKey,
    reply: bytes,
    t: int,
    *,
    tag: int,
    cid: int,
    nonce: int,
    wpk: int,
    balance: int,
) -> bytes:
    """The token in a reply to a request blinded with g2^t: (sigma1, sigma2 / sigma1^t).

    CryptoError if the reply is malformed or the token does not verify for these messages.
    """
    curve = pk.curve
    _check_messages(tag, cid, nonce, wpk, balance)
    sigma1, blinded = decode_token(curve, reply, "reply")
    sigma2 = curve.add_g2(blinded, curve.mul_g2(sigma1, -t))
    if not _holds(pk, sigma1, sigma2, (tag, cid, nonce, wpk, balance)):
        raise CryptoError("reply: does not give a token on the messages asked for")
    return reply[:G2_BYTES] + curve.encode_g2(sigma2)


def _makes_a_digit_token_fail(digit_secret: int) -> bool:
    return digit_secret == 0 or digit_secret > GROUP_ORDER - DIGIT_BASE


def _random_digit_secret() -> int:
    while True:
        digit_secret = random_scalar()
        if not _makes_a_digit_token_fail(digit_secret):
            return digit_secret
