# SPDX-License-Identifier: BSD-3-Clause
"""Plays of the payment model on the real machines: after every move both say the same."""

from __future__ import annotations

import pytest

from tests.model.checker import Label, coalitions
from tests.model.pay_model import CRT, RT0, RT1, RTV, PayModel
from tests.model.pay_replay import PayPlay
from tests.model.play import replay, scripted
from tests.model.walks import cover, longest
from tests.protocol.world import World

COALITIONS = [pytest.param(one, id="".join(sorted(one)) or "nobody") for one in coalitions("CEI")]

LEGS = [("C", "PayerRequest"), ("I", "PayerRequest"), ("E", "PayeeRequest"),
        ("I", "PayeeRequest")]
AGREED = [*LEGS, ("E", "RefundTokenReply"), ("C", "RefundTokenReply"), ("C", "PayVerified")]
PAYER_DONE = [("I", "PayerReveal"), ("C", "WalletTokenReply")]
PAYEE_DONE = [("I", "PayeeClaim"), ("E", "RefundTokenReply"), ("I", "PayeeReveal"),
              ("E", "WalletTokenReply")]
VOIDED = [("E", "PayeeVoid"), ("I", "PayeeVoid"), ("E", "RefundTokenReply"), ("I", "PayeeReveal"),
          ("E", "WalletTokenReply")]
TO_MARGIN = [("L", "time", 1), ("L", "time", 2)]
TO_EXPIRY = [*TO_MARGIN, ("L", "time", 3)]
BAD_LEGS = [("C", "PayerRequest"), ("E", "PayeeRequest")]
END = [("L", "end")]


def cash_out(who: str) -> list[Label]:
    return [(who, "CashOutRequest"), ("I", "CashOutRequest", who), (who, "CashOutReply"),
            (who, "close")]


def claim(who: str, lock: int) -> list[Label]:
    return [(who, "give up"), (who, "refund_conditional" if lock == CRT else "refund", lock)]


def end(who: str) -> list[Label]:
    return [("L", "deadline", who), ("L", "resolve", who)]


PLAYS: dict[str, tuple[str, list[Label]]] = {
    "a whole payment, cashed out": (
        "", [*AGREED, ("E", "PaySecret"), *PAYER_DONE, *PAYEE_DONE, *cash_out("C"),
             *cash_out("E"), *TO_EXPIRY, *END]),
    "the payer is silent after the conditional token, the payment void, the wallet renewed": (
        "", [*AGREED[:-2], ("C", "give up"), *TO_MARGIN, ("C", "refund", RT0), ("L", "time", 3),
             *VOIDED, *cash_out("E"), *end("C"), *END]),
    "the payee is silent, and the payer goes to the ledger": (
        "", [*LEGS[:2], *TO_MARGIN, *claim("C", RT0), ("L", "time", 3), *end("C"), *END]),
    "the intermediary does not answer the payee, which posts its conditional token": (
        "", [*AGREED, ("E", "PaySecret"), *TO_MARGIN, *claim("E", CRT), ("L", "time", 3),
             *PAYER_DONE, *cash_out("C"), *end("E"), *END]),
    "the payer posts what it paid away, and the payee's conditional token refutes it": (
        "C", [("C", "PayerRequest"), ("E", "PayeeRequest"), ("I", "PayeeRequest"),
              ("E", "RefundTokenReply"), ("C", "refund", RT0), ("E", "PaySecret"),
              ("L", "time", 1), ("E", "give up"), ("E", "refund_conditional", CRT),
              ("I", "refute", "C"), ("L", "time", 2), ("L", "time", 3), *end("E"), *END]),
    "the payer posts its new token": (
        "C", [("C", "PayerRequest"), ("E", "PayeeRequest"), ("I", "PayeeRequest"),
              ("E", "RefundTokenReply"), ("C", "refund", RT1), ("E", "PaySecret"), *PAYEE_DONE,
              *cash_out("E"), *TO_EXPIRY, *end("C"), *END]),
    "the payee claims late": (
        "E", [("C", "PayerRequest"), ("E", "PayeeRequest"), ("I", "PayerRequest"),
              ("C", "RefundTokenReply"), ("C", "PayVerified"), *PAYER_DONE, *cash_out("C"),
              *TO_EXPIRY, ("E", "PayeeClaim"), ("E", "refund", RT1), *end("E"), *END]),
    "the payee posts the wallet that it has traded for a void payment's": (
        "E", [("C", "PayerRequest"), ("E", "PayeeRequest"), ("I", "PayerRequest"),
              ("C", "RefundTokenReply"), *claim("C", RT0), *TO_EXPIRY, ("E", "PayeeVoid"),
              ("E", "PayeeReveal"), ("E", "refund", RT0), ("I", "refute", "E"), *end("C"), *END]),
    "the payee answers a request to close with its void wallet": (
        "CE", [*BAD_LEGS, ("C", "refund", RT0), *TO_EXPIRY, ("I", "request_close", "E"),
               ("E", "PayeeVoid"), ("E", "refund", RTV), *end("C"), *end("E"), *END]),
    "an old claim is paid out before the payment": (
        "E", [("C", "PayerRequest"), ("I", "PayerRequest"), ("E", "refund", RT0), *TO_EXPIRY,
              ("C", "give up"), ("C", "refund", RT0), *end("E"), *end("C"), *END]),
    "the intermediary takes the secrets and falls silent": (
        "I", [("C", "PayerRequest"), ("E", "PayeeRequest"), ("C", "RefundTokenReply"),
              ("E", "RefundTokenReply"), ("C", "PayVerified"), ("E", "PaySecret"),
              *claim("E", CRT), *claim("C", RT1), *TO_EXPIRY, *end("E"), *end("C"), *END]),
}

WRITTEN = [pytest.param(one, id=one.replace(" ", "-")) for one in PLAYS]


@pytest.mark.parametrize("name", WRITTEN)
def test_a_written_play(pay_world: World, name: str) -> None:
    bad, labels = PLAYS[name]
    play = PayPlay(pay_world, frozenset(bad))
    made = replay(play, PayModel(frozenset(bad), lag=False), scripted(labels))
    assert made == labels


@pytest.mark.long
@pytest.mark.parametrize("name", WRITTEN)
def test_a_written_play_in_which_everybody_crashes_all_the_time(
        pay_world: World, name: str) -> None:
    bad, labels = PLAYS[name]
    play = PayPlay(pay_world, frozenset(bad), crashing=True)
    assert replay(play, PayModel(frozenset(bad), lag=False), scripted(labels)) == labels


def weight(label: Label) -> float:
    """Plays shall get somewhere before somebody ends them."""
    match label:
        case ("L", "time", _):
            return 0.1
        case (_, "give up"):
            return 0.04
        case (_, "refund" | "refund_conditional", _):
            return 0.15
        case (_, "CashOutRequest" | "Refusal", *_):
            return 0.2
    return 1.0


@pytest.mark.long
@pytest.mark.parametrize("bad", COALITIONS)
def test_every_kind_of_move(pay_stage: World, bad: frozenset[str]) -> None:
    cover(pay_stage, PayModel(bad, lag=False), [
        lambda: PayPlay(pay_stage, bad), lambda: PayPlay(pay_stage, bad, crashing=True)], weight)


@pytest.mark.long
@pytest.mark.parametrize("bad", COALITIONS)
def test_the_longest_of_the_shortest_plays(pay_stage: World, bad: frozenset[str]) -> None:
    longest(pay_stage, PayModel(bad, lag=False), lambda labels: PayPlay(pay_stage, bad))
