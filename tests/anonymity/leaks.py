# SPDX-License-Identifier: BSD-3-Clause
"""Clients that leak on purpose, one leak each, and the detector that has to see it.

A leak depends on the party that acts, or on its wallet, in a way that a plausible mistake would.
Where an honest intermediary would refuse the message, it is made to take it: the adversary is an
intermediary that listens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest

from monetor_chain.statements import GROUP_ORDER, keccak256
from offchain.crypto import (
    hash_chain,
    nano_close as close_proof,
    nano_setup as setup_proof,
    opening,
    possession,
    proofs,
    range_proof,
    sigma,
    spending,
)
from offchain.protocol import (
    answering,
    cash_out,
    nano_close,
    nano_establish,
    nano_setup,
    wallet as wallets,
)
from tests.anonymity.stand import Stand

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Leak:
    """What leaks, who sees it, and in what kind of round."""

    name: str
    detector: str
    install: Callable[[Patch, Stand], None]
    kind: str = "lonely session"
    end: str = ""
    warm_up: int = 1
    """Rounds before the first that counts: there must be something to compare with."""


def number(*what: Any) -> int:
    """A scalar that is always the same for the same `what`."""
    return int.from_bytes(keccak256(repr(what).encode()), "big") % (GROUP_ORDER - 1) + 1


LEAKS: list[Leak] = []


def leak(name: str, detector: str, **options: Any) -> Callable[[Any], Any]:
    def add(install: Callable[[Patch, Stand], None]) -> Callable[[Patch, Stand], None]:
        LEAKS.append(Leak(name, detector, install, **options))
        return install

    return add


def takes_anything(patch: Patch) -> None:
    """The intermediary takes nonces, locks and terms as they come."""
    for name in ("require_unspent", "require_fresh", "require_live", "stored_answer",
                 "accept_secret"):
        patch.setattr(answering, name, lambda *_: None)
    patch.setattr(nano_setup, "require_fresh_terms", lambda *_: None)


def calls_in_turn(*drawn: Callable[[], int]) -> Callable[[], int]:
    """A source whose draws come from these, in turn."""
    turn = count()
    return lambda: drawn[next(turn) % len(drawn)]()


# --- Signatures


@leak("the signature is shown as it was issued", "equal values")
def shown_as_issued(patch: Patch, stand: Stand) -> None:
    patch.setattr(possession, "random_scalar", lambda: 1)


@leak("the signature is shown as it was issued, in a payment", "equal values", kind="payment")
def shown_as_issued_in_payment(patch: Patch, stand: Stand) -> None:
    patch.setattr(possession, "random_scalar", lambda: 1)


@leak("the signature is shown as it was issued, at cash-out", "equal values", end="cash-out")
def cashed_out_as_issued(patch: Patch, stand: Stand) -> None:
    patch.setattr(cash_out, "rerandomise", lambda token: token)


@leak("the refund token is posted as it was issued", "equal values", end="refund")
def posted_as_issued(patch: Patch, stand: Stand) -> None:
    patch.setattr(wallets, "rerandomised", lambda call: call)


@leak("signatures are re-randomised alike", "re-randomisers")
def one_re_randomiser(patch: Patch, stand: Stand) -> None:
    patch.setattr(possession, "random_scalar", lambda: number("rho", stand.acting))


# --- Nonces and locks


@leak("a nonce is used again", "equal values")
def one_nonce(patch: Patch, stand: Stand) -> None:
    takes_anything(patch)
    patch.setattr(wallets, "fresh_nonce", lambda: number("nonce", stand.acting) >> 8)


@leak("nonces count up", "near values")
def counted_nonces(patch: Patch, stand: Stand) -> None:
    turn = count()
    patch.setattr(wallets, "fresh_nonce",
                  lambda: (number("nonce", stand.acting) >> 8) + next(turn))


@leak("nonces have a client's bit", "learned bits", warm_up=14)
def marked_nonces(patch: Patch, stand: Stand) -> None:
    draw = wallets.fresh_nonce
    patch.setattr(wallets, "fresh_nonce", lambda: draw() & ~1 | (stand.acting == "A"))


@leak("the session's lock is the next wallet's", "equal values")
def lock_is_shown(patch: Patch, stand: Stand) -> None:
    takes_anything(patch)
    real = nano_close._request

    def request(user: Any, current: Any, *arguments: Any) -> Any:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(wallets, "fresh_secret", lambda: current.nwsk)
            return real(user, current, *arguments)

    patch.setattr(nano_close, "_request", request)


@leak("com is opened alike", "equal values")
def one_opening(patch: Patch, stand: Stand) -> None:
    draw = spending.random_scalar
    patch.setattr(spending, "random_scalar",
                  calls_in_turn(draw, lambda: number("r", stand.acting), draw))


# --- Requests


@leak("t_rt = t_pt", "request quotients")
def blinded_alike(patch: Patch, stand: Stand) -> None:
    draw, drawn = proofs.random_scalar, []

    def fresh() -> int:
        drawn.append(draw())
        return drawn[-1]

    patch.setattr(proofs, "random_scalar", calls_in_turn(fresh, lambda: drawn[-1]))


@leak("t_rt = t_pt, in a payment", "request quotients", kind="payment")
def blinded_alike_in_payment(patch: Patch, stand: Stand) -> None:
    blinded_alike(patch, stand)


@leak("the commitment in rt' is visible", "opened requests")
def visible_commitment(patch: Patch, stand: Stand) -> None:
    draw = proofs.random_scalar
    patch.setattr(proofs, "random_scalar", calls_in_turn(lambda: 0, draw))


@leak("the commitment in rt' is visible, in a refund", "opened requests", end="refund")
def visible_commitment_in_refund(patch: Patch, stand: Stand) -> None:
    visible_commitment(patch, stand)


@leak("requests are always blinded alike", "opened requests")
def one_blinding(patch: Patch, stand: Stand) -> None:
    draw = proofs.random_scalar
    patch.setattr(proofs, "random_scalar",
                  calls_in_turn(lambda: number("t_rt", stand.acting), draw))


@leak("a token is blinded as it was asked for", "pairings")
def blinding_of_the_request(patch: Patch, stand: Stand) -> None:
    hint = [0]
    prepare, real_draft = proofs.prepare_request, nano_setup.draft
    draw, draw_spending = proofs.random_scalar, spending.random_scalar

    def prepare_request(*arguments: Any, **named: Any) -> Any:
        hint[0] = named["nonce"]
        return prepare(*arguments, **named)

    def draft(records: Any, user: Any, moment: Any, cid: int) -> Any:
        hint[0] = wallets.spendable(records, cid).nonce
        return real_draft(records, user, moment, cid)

    for place in (close_proof, opening):
        patch.setattr(place, "prepare_request", prepare_request)
    patch.setattr(nano_setup, "draft", draft)
    patch.setattr(proofs, "random_scalar",
                  calls_in_turn(draw, lambda: number("t", hint[0])))
    patch.setattr(spending, "random_scalar", calls_in_turn(
        lambda: number("t", hint[0]), draw_spending, draw_spending))


# --- Commitments and proofs


@leak("K is blinded alike", "token commitments")
def one_t(patch: Patch, stand: Stand) -> None:
    draw = spending.random_scalar
    patch.setattr(spending, "random_scalar",
                  calls_in_turn(lambda: number("t", stand.acting), draw, draw))


@leak("N is blinded alike", "session commitments")
def one_rho(patch: Patch, stand: Stand) -> None:
    draw = spending.random_scalar
    patch.setattr(spending, "random_scalar",
                  calls_in_turn(draw, draw, lambda: number("rho", stand.acting)))


@leak("digits are not blinded", "digits")
def bare_digits(patch: Patch, stand: Stand) -> None:
    patch.setattr(range_proof, "random_scalar", lambda: 1)


@leak("digits are blinded alike", "digits")
def one_digit_blinding(patch: Patch, stand: Stand) -> None:
    patch.setattr(range_proof, "random_scalar", lambda: number("v", stand.acting))


@leak("proofs are masked alike", "masks")
def one_mask(patch: Patch, stand: Stand) -> None:
    class Repeating:
        """Masks depend on the party and on the place in the proof."""

        def __init__(self) -> None:
            self.turn = 0

        def randbelow(self, limit: int) -> int:
            self.turn += 1
            return number("mask", stand.acting, self.turn) % limit

    real = sigma.Announced.__init__

    def announce(self: Any, equations: Any) -> None:
        patch.setattr(sigma, "secrets", Repeating())
        real(self, equations)

    patch.setattr(sigma.Announced, "__init__", announce)


# --- Terms, lengths, time


@leak("T_exp is a client's own", "expiry")
def own_expiry(patch: Patch, stand: Stand) -> None:
    takes_anything(patch)
    real = nano_setup.expiry
    patch.setattr(nano_setup, "expiry", lambda epoch, parameters: (
        real(epoch, parameters) + (7 if stand.acting == "A" else 0)))


@leak("a hash chain grows out of the last one", "hash chains")
def chained_chains(patch: Patch, stand: Stand) -> None:
    last: dict[str, bytes] = {}
    real = hash_chain.HashChain

    def generate(n: int) -> Any:
        seed = keccak256(last.get(stand.acting, stand.acting.encode()))
        chain = real(n, seed)
        last[stand.acting] = chain.root
        return chain

    patch.setattr(nano_setup.HashChain, "generate", generate)


@leak("a message is longer", "lengths")
def longer_message(patch: Patch, stand: Stand) -> None:
    finish, verify = setup_proof.SetupDraft.finish, nano_setup.verify_nano_setup

    def longer(*arguments: Any, **named: Any) -> bytes:
        return finish(*arguments, **named) + bytes(stand.acting == "A")

    def shorter(issuer: Any, ctx: bytes, statement: Any, proof: bytes, **named: Any) -> None:
        verify(issuer, ctx, statement, proof[:len(proof) // 2 * 2], **named)

    patch.setattr(setup_proof.SetupDraft, "finish", longer)
    patch.setattr(nano_setup, "verify_nano_setup", shorter)


@leak("a client is slower", "moments")
def slower_client(patch: Patch, stand: Stand) -> None:
    stand.sides["A"].lag = 0.25


# --- Towards the relay


def own_expiry_offered(patch: Patch, stand: Stand) -> None:
    own_expiry(patch, stand)
    real = nano_establish.on_offer

    def on_offer(records: Any, user: Any, moment: Any, cid: int, message: Any) -> Any:
        # A relay that listens takes any terms.
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(nano_establish, "expiry", lambda *_: message.terms.t_exp)
            return real(records, user, moment, cid, message)

    patch.setattr(nano_establish, "on_offer", on_offer)


def marked_chains(patch: Patch, stand: Stand) -> None:
    real = nano_setup.HashChain.generate

    def generate(n: int) -> Any:
        while (chain := real(n)).hc0[-1] & 1 != (stand.acting == "A"):
            pass
        return chain

    patch.setattr(nano_setup.HashChain, "generate", generate)


TO_RELAY = tuple(Leak(*one, kind="session") for one in (
    ("T_exp is a client's own", "expiry", own_expiry_offered),
    ("a hash chain grows out of the last one", "hash chains", chained_chains),
    ("a client is slower", "moments", slower_client),
)) + (Leak("hash chains have a client's bit", "learned bits", marked_chains, kind="session",
           warm_up=14),)
