# SPDX-License-Identifier: BSD-3-Clause
"""Plays of the game's moves that are written down: what must be refused and why, what must be seen.
"""

from __future__ import annotations

from typing import Any

from monetor_chain.parameters import DEMO
from tests.protocol.world import MU

Move = tuple[str, dict[str, Any]]
"""A move of `balance_rules.Game` and its arguments."""

N = DEMO.n
OFF_CHAIN = "preimages: not on the chain"


def move(name: str, /, **chosen: Any) -> Move:
    return name, chosen


def session(upto: int, times: int, at: int = 0) -> Move:
    """A session up to 1 its establishment, 2 its payments, 3 R's close, 4 C's."""
    return move("session", at=at, upto=upto, times=times)


REFUSALS: tuple[tuple[str, tuple[Move, ...], set[str]], ...] = (
    ("CRE", (
        session(4, 20), session(1, 1, at=1),
        move("reuse_nonce", at=0),
        *(move("reuse", at=0, which=0, how=how) for how in ("nT", "hc0", "nwpk")),
        *(move("foreign_part", at=0, which=0, what=what)
          for what in ("commitment", "com", "k", "sigma")),
        move("foreign_cid", at=0), move("join", at=1, which=0), move("negative_payment", at=0),
        move("client_close_at", at=0, k=0), move("client_close_at", at=1, k=0),
        move("relay_close_at", at=0, k=1), move("relay_close_at", at=1, k=1),
        *(move("reveal_wrong", at=1, how=how)
          for how in ("n + 1", "another position", "other terms")),
        *(move("wrong_cash_out", at=0, how=how)
          for how in ("balance", "repeated", "foreign", "spent"))),
     {"reuse_nonce: REUSED", "reuse nT: REUSED", "reuse hc0: REUSED", "reuse nwpk: REUSED",
      "foreign commitment: PROOF", "foreign com: PROOF", "foreign k: PROOF",
      "foreign sigma: PROOF", "foreign_cid: PROOF", "join: STATE", "negative_payment: PROOF",
      "client_close_at: NOT_YET", "client_close_at: REUSED", "relay_close_at: REUSED",
      f"reveal_wrong n + 1: {OFF_CHAIN}", f"reveal_wrong another position: {OFF_CHAIN}",
      f"reveal_wrong other terms: {OFF_CHAIN}", "wrong_cash_out balance: PROOF",
      "wrong_cash_out repeated: STATE", "wrong_cash_out foreign: PROOF",
      "wrong_cash_out spent: REUSED"}),
    ("CRE", (
        move("nano_setup", at=0, few=0), move("join", at=0, which=0),
        move("mutate_proof", at=0, byte=3, bit=1), move("deliver", at=0), move("deliver", at=0),
        move("client_close_at", at=0, k=0), move("retry"),
        move("join_as_client", at=0, which=0), move("client_close_at", at=0, k=0),
        move("wait_until", at=0, offset=1), move("join", at=0, which=0)),
     {"join: UNKNOWN", "mutate_proof NanoSetupRequest: PROOF", "client_close_at: STATE",
      "join_as_client: PROOF", "join: TOO_LATE"}),
    ("CRE", (
        move("pay", at=0, to=0, amount=700, few=1), move("pay_oneself", at=0),
        *(move("other_payment", at=0, how=how)
          for how in ("another V", "the same V", "another T_p", "another payer")),
        move("mutate_proof", at=0, byte=3, bit=1)),
     {"pay_oneself: REUSED", "other_payment another V: NOT_YET",
      "other_payment the same V: PROOF", "other_payment another T_p: TERMS",
      "other_payment another payer: TERMS", "mutate_proof PayerRequest: PROOF"}),
    ("E", (
        move("pay", at=0, to=0, amount=700, few=4),
        *(move("wrong_claim", at=0, how=how)
          for how in ("wrong secret", "own secret", "no payment", "too early"))),
     {"wrong_claim wrong secret: PROOF", "wrong_claim own secret: PROOF",
      "wrong_claim no payment: STATE", "wrong_claim too early: NOT_YET"}),
    ("R", (session(2, 3), move("relay_close_at", at=0, k=20),
           move("relay_close_at", at=0, k=N + 1)),
     {"relay_close_at: CLAIM"}),
    ("R", (move("nano_setup", at=0, few=99), move("nano_offer", at=0, few=3),
           move("relay_close_at", at=0, k=0)),
     {"relay_close_at: STATE"}),
    ("CR", (session(2, 3), move("post_nano_refund", at=1, k=0),
            move("relay_close_at", at=0, k=0)),
     {"relay_close_at: LOCK"}),
    ("CR", (session(2, 3), move("be_silent", who="R"), move("wait_until", at=0, offset=-MU),
            move("relay_close_at", at=0, k=1), move("wait_until", at=0, offset=1),
            move("relay_close_at", at=0, k=1)),
     {"relay_close_at: NOT_YET", "relay_close_at: TOO_LATE"}),
    ("C", (session(3, 3), move("client_close_at", at=0, k=20), session(2, 1),
           move("wrong_payment", at=0, k=0, hashed=True),
           move("wrong_payment", at=0, k=0, hashed=False),
           move("wrong_payment", at=0, k=N + 1, hashed=False),
           move("post_nano_refund", at=0, k=0), move("client_close_at", at=0, k=0),
           move("client_close_at", at=1, k=0)),
     {"client_close_at: CLAIM", "client_close_at: NOT_YET", "client_close_at: LOCK",
      "wrong_payment: preimage does not fit", "wrong_payment: does not follow"}),
    ("C", (move("pay", at=0, to=0, amount=700, few=2), move("tell_secret", at=0)),
     {"tell_secret: the payment's conditional refund token is not verified"}),
    ("I", (
        move("own_claim", at=0, how="refund"), move("own_claim", at=0, how="close"),
        move("nano_setup", at=0, few=0), move("mutate_reply", at=0, bit=0), move("retry"),
        session(3, 3), move("own_claim", at=0, how="nano_refund"), session(2, 3),
        move("nano_close_r", at=0, few=0), move("wrong_token", at=0, what="balance"),
        move("wrong_token", at=0, what="kind"), move("mutate_reply", at=0, bit=0),
        move("give_up", who="E", at=0, few=99), move("refute", at=0)),
     {"own_claim refund: authorisation: expired", "own_claim close: authorisation: expired",
      "own_claim nano_refund: authorisation: expired", "mutate_reply NanoRefundReply: nrt",
      "mutate_reply RefundTokenReply: reply", "wrong_token: reply",
      "refute: ledger: wrong secret"}),
    ("I", (session(3, 3), move("nano_close_c", at=0, few=0),
           move("wrong_count", at=0, k=1, more=True), move("wrong_count", at=0, k=1, more=False)),
     {"wrong_count: were sent", "wrong_count: preimage is not"}),
)
"""Coalition, moves, and exactly what is refused in them and why."""

NOTICED: tuple[tuple[str, str, tuple[Move, ...]], ...] = (
    ("close order", "C", (
        session(2, 20), move("nano_close_c", at=0, few=99), move("nano_close_r", at=0, few=99))),
    ("posted lock ignored: Close C", "CE", (
        session(3, 20), move("post_amid", at=0, what="close C", few=3, which=0),
        move("move_away", at=0, to=0))),
    ("late relay close", "R", (
        session(2, N), move("be_silent", who="R"), move("wait_until", at=0, offset=1),
        move("nano_close_c", at=0, few=99), move("be_silent", who="R"),
        move("nano_close_r", at=0, few=99))),
    ("posted lock ignored: Setup", "CR", (
        move("post_amid", at=0, what="setup", few=2, which=0), move("nano_offer", at=0, few=99),
        move("nano_pay", at=0, times=N), move("nano_close_r", at=0, few=99))),
)
"""Weakenings of `weak_sessions`, coalition, and moves by which I loses without the rule."""
