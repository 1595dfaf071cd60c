# SPDX-License-Identifier: BSD-3-Clause
"""What an adversary reads out of one act of an unknown user: a session, a payment, a cash-out.

Of a message it sees the bytes, the moment and the direction, never the sender. An intermediary
also remembers the randomness of its own blind signatures (`Memory`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pytest

from monetor_chain.statements import lock_of
from offchain.crypto import issuer as issuers, nano_close, nano_setup, opening, pay, sigma
from offchain.crypto.bases import bases_of
from offchain.crypto.curve import G1_BYTES, decode_g1
from offchain.crypto.issuer import IssuerKey
from offchain.crypto.nano_setup import SetupStatement
from offchain.crypto.pay import PayStatement
from offchain.crypto.proofs import TokenRequest, decode_request
from offchain.crypto.range_proof import DIGITS, RANGE_BYTES
from offchain.crypto.spending import decode_spend
from offchain.protocol import ledger as calls, messages as m
from tests.anonymity.fields import TABLE, Tells
from tests.anonymity.observed import Seen, pieces
from tests.anonymity.stand import Heard

OF_RELAY = (m.NanoEstablishRequest, m.NanoEstablishReveal, m.RelayCloseRequest,
            m.RelayCloseReveal)
OF_PAYEE = (m.PayeeRequest, m.PayeeClaim, m.PayeeReveal, m.PayeeVoid)


class Memory:
    """The blinding u of every blind signature, by the reply that it is in."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.u: dict[bytes, int] = {}
        real = IssuerKey.blind_sign

        def blind_sign(key: IssuerKey, d: bytes, **messages: int) -> bytes:
            drawn: list[int] = []
            draw = issuers.random_scalar
            issuers.random_scalar = lambda: drawn.append(draw()) or drawn[-1]
            try:
                reply = real(key, d, **messages)
            finally:
                issuers.random_scalar = draw
            self.u[reply] = drawn[-1]
            return reply

        patch.setattr(IssuerKey, "blind_sign", blind_sign)


@dataclass(frozen=True)
class Answers:
    """A proof: its challenge, and the response for each secret by name."""

    challenge: int
    responses: dict[str, int]


@dataclass
class Act:
    """Messages and calls of one act, in order. `cid` where it is in clear; `amount`: the units of
    a hidden payment, fee included, for an adversary who knows them."""

    heard: Sequence[Heard]
    called: Sequence[calls.LedgerCall] = ()
    cid: int | None = None
    amount: int = 0

    @cached_property
    def messages(self) -> list[Any]:
        return [one.message for one in self.heard]

    def first(self, *kinds: type[Any]) -> Any | None:
        """The first message or call of one of these types."""
        return next((one for one in (*self.messages, *self.called) if isinstance(one, kinds)),
                    None)

    def of(self, *kinds: type[Any]) -> Iterator[Any]:
        return (one for one in self.messages if isinstance(one, kinds))

    # --- A wallet is shown

    @cached_property
    def shown(self) -> Any | None:
        """The message or call that spends a wallet."""
        return self.first(m.NanoSetupRequest, m.PayerRequest, m.CashOutRequest, calls.Refund)

    @cached_property
    def nonce(self) -> int | None:
        if isinstance(self.shown, m.CashOutRequest):
            return self.shown.wallets[0].nonce
        found: int | None = getattr(self.shown, "nonce", None)
        return found

    @cached_property
    def wpk(self) -> int | None:
        """The spent wallet's lock: in clear, or by its secret."""
        if isinstance(self.shown, m.CashOutRequest):
            return self.shown.wallets[0].wpk
        if isinstance(self.shown, m.PayerRequest | calls.Refund):
            return self.shown.wpk
        reveal = self.first(m.NanoSetupReveal)
        return lock_of(reveal.wsk) if reveal else None

    @cached_property
    def token(self) -> bytes | None:
        if isinstance(self.shown, m.CashOutRequest):
            return self.shown.wallets[0].pt
        if isinstance(self.shown, calls.Refund):
            return self.shown.token
        found: bytes | None = getattr(self.shown, "sigma", None)
        return found

    # --- A wallet is asked for

    @cached_property
    def asked(self) -> Any | None:
        """The message with D_rt and D_pt."""
        return self.first(m.EstablishRequest, m.ClientCloseRequest, m.PayerRequest)

    @cached_property
    def rt(self) -> bytes | None:
        """The blind refund token."""
        reply = self.first(m.EstablishReply, m.RefundTokenReply)
        return reply.rt if reply else None

    @cached_property
    def pt(self) -> bytes | None:
        """The blind wallet token."""
        reply = self.first(m.OpenedReply, m.WalletTokenReply)
        return reply.pt if reply else None

    # --- Session

    @cached_property
    def terms(self) -> m.Terms | None:
        one = self.first(m.NanoSetupRequest, m.NanoOffer)
        return one.terms if one else None

    @cached_property
    def count(self) -> int:
        """k: payments that the session closed at, or that were received."""
        close = self.first(m.ClientCloseRequest)
        if close:
            return int(close.k)
        return sum(1 for _ in self.of(m.NanoPayment))

    @cached_property
    def digits(self) -> tuple[bytes, ...]:
        """V_0..V_3 of the setup's range proof."""
        one = self.first(m.NanoSetupRequest)
        return () if one is None else tuple(
            one.proof[at:at + G1_BYTES] for at in range(0, RANGE_BYTES, G1_BYTES))

    # --- Everything

    @cached_property
    def pieces(self) -> frozenset[bytes]:
        """Every value of 16 bytes or more, in pieces, that not everybody shares; and locks."""
        contents = (*self.messages, *self.called)
        found = set()
        for one in contents:
            seen = Seen((type(one).__name__,), (one,), frozenset())
            found |= {piece for piece, _ in pieces(seen)}
        return frozenset(found)

    @cached_property
    def numbers(self) -> dict[tuple[str, str], list[int]]:
        """Wide values by (message, field), and the scalars of proofs, as integers."""
        found: dict[tuple[str, str], list[int]] = {}
        for one in (*self.messages, *self.called):
            kind = type(one).__name__
            for seen_kind, name, value in Seen((kind,), (one,), frozenset()).fields():
                if TABLE[seen_kind][name] in (Tells.NETWORK, Tells.AMOUNT, Tells.TIME):
                    continue
                if isinstance(value, int):
                    found.setdefault((kind, name), []).append(value)
                elif isinstance(value, bytes):
                    found.setdefault((kind, name), []).extend(
                        int.from_bytes(value[at:at + 32], "big")
                        for at in range(0, len(value) - 31, 32))
        return found

    @cached_property
    def shape(self) -> tuple[tuple[str, int], ...]:
        """Kinds and lengths, in order; the count in clear says how long a path is."""
        return tuple((type(message).__name__, len(one.payload)
                      - 32 * len(getattr(message, "path", ())))
                     for one, message in zip(self.heard, self.messages, strict=True)
                     if not isinstance(message, m.NanoPayment))

    @cached_property
    def gaps(self) -> tuple[float, ...]:
        """Seconds from each message to the next."""
        return tuple(round(later.at - one.at, 3)
                     for one, later in zip(self.heard, self.heard[1:], strict=False))


@dataclass
class Reader:
    """Reads proofs; `key` is the intermediary's secret key, with all it knows."""

    key: IssuerKey
    _names: dict[type[Any], tuple[str, ...]] = field(default_factory=dict)

    def proof_of(self, message: Any) -> Answers | None:
        """Challenge and responses of a message of a client's."""
        kind = type(message)
        skip = {m.NanoSetupRequest: RANGE_BYTES, m.PayerRequest: 2 * RANGE_BYTES}.get(kind, 0)
        if kind not in self._names:
            equations = self._equations(message)
            if equations is None:
                return None
            self._names[kind] = sigma._secret_names(equations)
        scalars = [int.from_bytes(message.proof[at:at + 32], "big")
                   for at in range(skip, len(message.proof) - 31, 32)]
        return Answers(scalars[0], dict(zip(self._names[kind], scalars[1:], strict=False)))

    def _equations(self, message: Any) -> Any | None:
        bases = bases_of(self.key)
        curve = bases.curve

        def digits(number: int) -> tuple[Any, ...]:
            return tuple(decode_g1(curve, message.proof[at:at + G1_BYTES], "V")
                         for at in range(0, number * RANGE_BYTES, G1_BYTES))

        match message:
            case m.EstablishRequest():
                return opening._relation(bases, *decode_request(
                    bases, TokenRequest(message.d_rt, message.d_pt)))
            case m.NanoSetupRequest():
                statement = SetupStatement(message.com, message.commitment, message.sigma,
                                           message.k)
                return nano_setup._relation(bases, decode_spend(bases, statement), digits(1), 0)
            case m.ClientCloseRequest():
                # The names do not depend on which commitment it is.
                return nano_close._relation(bases, bases.g1.point, *decode_request(
                    bases, TokenRequest(message.d_rt, message.d_pt)), 0)
            case m.PayerRequest():
                points = pay._decode_leg(bases, PayStatement(
                    message.sigma, message.k, message.v, message.d_rt, message.d_pt))
                ranges = digits(2)
                return pay._payer_relation(bases, points, ranges[:DIGITS], ranges[DIGITS:], 0)
        return None


