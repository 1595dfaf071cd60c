# SPDX-License-Identifier: BSD-3-Clause
"""Plays of the session model on the real machines: after every move both say the same."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.model.checker import Label, coalitions
from tests.model.play import replay, scripted
from tests.model.session_model import NRT, RT0, RT1, SessionModel
from tests.model.session_replay import SessionPlay
from tests.model.walks import cover, longest
from tests.protocol.world import World

COALITIONS = [pytest.param(one, id="".join(sorted(one)) or "nobody") for one in coalitions("CRI")]

SETUP = [("C", "NanoSetupRequest"), ("I", "NanoSetupRequest"), ("C", "NanoRefundReply"),
         ("I", "NanoSetupReveal"), ("C", "Acknowledged")]
ESTABLISH = [("C", "NanoOffer"), ("R", "NanoEstablishRequest"), ("I", "NanoEstablishRequest"),
             ("R", "NanoRefundReply"), ("I", "NanoEstablishReveal"), ("R", "Acknowledged"),
             ("C", "NanoAccepted")]
PAY = [("C", "NanoPayment"), ("R", "NanoPayment")]
CLOSE_R = [("R", "RelayCloseRequest"), ("I", "RelayCloseRequest"), ("R", "RefundTokenReply"),
           ("I", "RelayCloseReveal"), ("R", "WalletTokenReply")]
CLOSE_C = [("C", "ClientCloseQuery"), ("I", "ClientCloseQuery"), ("I", "ClientCloseRequest"),
           ("C", "RefundTokenReply"), ("I", "ClientCloseReveal"), ("C", "WalletTokenReply")]
BAD_SETUP = [("C", "NanoSetupRequest"), ("C", "NanoSetupReveal")]
JOIN = [("R", "NanoEstablishRequest"), ("I", "NanoEstablishRequest"), ("R", "NanoRefundReply"),
        ("I", "NanoEstablishReveal"), ("R", "Acknowledged")]
TO_EXPIRY = [("L", "time", 1), ("L", "time", 2), ("L", "time", 3)]


def cash_out(who: str) -> list[Label]:
    return [(who, "CashOutRequest"), ("I", "CashOutRequest", who), (who, "CashOutReply"),
            (who, "close")]


def claim(who: str, name: str, lock: int) -> list[Label]:
    return [(who, "give up"), (who, name, lock)]


def end(who: str) -> list[Label]:
    return [("L", "deadline", who), ("L", "resolve", who)]


PLAYS: dict[str, tuple[str, list[Label]]] = {
    "a whole session, cashed out": (
        "", [*SETUP, *ESTABLISH, *PAY, *PAY, *CLOSE_R, *CLOSE_C, *cash_out("C"), *cash_out("R"),
             *TO_EXPIRY, ("L", "end")]),
    "both claim a session that the intermediary does not close": (
        "", [*SETUP, *ESTABLISH, *PAY, *PAY, ("R", "RelayCloseRequest"), ("L", "time", 1),
             ("L", "time", 2), ("R", "reveal", 2), ("L", "time", 3),
             *claim("R", "nano_refund", NRT), *claim("C", "nano_refund", NRT), *end("R"),
             *end("C"), ("L", "end")]),
    "the client claims early and the relay closes with the intermediary": (
        "", [*SETUP, *ESTABLISH, *PAY, *claim("C", "nano_refund", NRT), *CLOSE_R,
             ("I", "reveal", 1), *TO_EXPIRY, *claim("R", "refund", RT1), *end("C"), *end("R"),
             ("L", "end")]),
    "the client posts its old wallet in the middle of set-up": (
        "C", [("C", "NanoSetupRequest"), ("C", "refund", RT0), ("C", "NanoSetupReveal"),
              ("I", "refute", "C"), *TO_EXPIRY, ("L", "end")]),
    "the relay posts its session after closing it": (
        "R", [*SETUP, ("C", "NanoOffer"), ("R", "NanoEstablishRequest"),
              ("R", "NanoEstablishReveal"), ("C", "NanoAccepted"), ("C", "NanoPayment"),
              ("R", "RelayCloseRequest", 0), ("R", "RelayCloseReveal"), ("L", "reveal", 1),
              ("R", "nano_refund", 0), ("I", "refute", "R"), *CLOSE_C, *cash_out("C"),
              *TO_EXPIRY, ("L", "end")]),
    "the relay takes over a count that the client reveals": (
        "C", [*BAD_SETUP, *JOIN, ("L", "reveal", 1), *CLOSE_R, *cash_out("R"),
              ("C", "nano_refund", 0), *TO_EXPIRY, *end("C"), ("L", "end")]),
    "the client reveals more than the relay closes at": (
        "C", [*BAD_SETUP, *JOIN, ("C", "nano_refund", 0), CLOSE_R[0], ("L", "reveal", 2),
              *CLOSE_R[1:], *cash_out("R"), *TO_EXPIRY, *end("C"), ("L", "end")]),
    "the intermediary tells a count that is too low, refuses, tells another and is silent": (
        "I", [("C", "NanoSetupRequest"), ("C", "Refusal"), ("C", "NanoSetupRequest"),
              ("C", "NanoRefundReply"), ("C", "Acknowledged"), ("C", "NanoOffer"),
              ("R", "NanoEstablishRequest"), ("R", "NanoRefundReply"), ("R", "Acknowledged"),
              ("C", "NanoAccepted"), *PAY, ("R", "RelayCloseRequest"), ("C", "ClientCloseQuery"),
              ("C", "ClientCloseCount", 0), ("C", "Refusal"), ("C", "ClientCloseCount", 1),
              ("C", "RefundTokenReply"), *claim("R", "nano_refund", NRT),
              *end("R"), *TO_EXPIRY, *claim("C", "refund", RT1), *end("C"), ("L", "end")]),
    "the intermediary asks both to close in the middle of the session": (
        "I", [("C", "NanoSetupRequest"), ("C", "NanoRefundReply"), ("C", "Acknowledged"),
              ("C", "NanoOffer"), ("R", "NanoEstablishRequest"), ("R", "NanoRefundReply"),
              ("R", "Acknowledged"), ("C", "NanoAccepted"), *PAY, ("I", "request_close", "C"),
              ("I", "request_close", "R"), ("R", "nano_refund", NRT), ("C", "nano_refund", NRT),
              *end("R"), *TO_EXPIRY, *end("C"), ("L", "end")]),
}


WRITTEN = [pytest.param(one, id=one.replace(" ", "-")) for one in PLAYS]


@pytest.mark.parametrize("name", WRITTEN)
def test_a_written_play(world: World, name: str) -> None:
    bad, labels = PLAYS[name]
    play = SessionPlay(world, frozenset(bad))
    made = replay(play, SessionModel(frozenset(bad), lag=False), scripted(labels))
    assert made == labels


def weight(label: Label) -> float:
    """Plays shall get somewhere before somebody ends them."""
    match label:
        case ("L", "time", _):
            return 0.1
        case (_, "give up"):
            return 0.04
        case (_, "refund" | "nano_refund", _) | ("L", "reveal", _):
            return 0.15
        case (_, "CashOutRequest" | "ClientCloseQuery" | "Refusal", *_):
            return 0.2
    return 1.0


@pytest.mark.long
@pytest.mark.parametrize("bad", COALITIONS)
def test_every_kind_of_move(opened_stage: World, bad: frozenset[str]) -> None:
    cover(opened_stage, SessionModel(bad, lag=False), [
        lambda: SessionPlay(opened_stage, bad), lambda: SessionPlay(opened_stage, bad, late=True),
    ], weight)


def late_start(labels: Iterable[Label]) -> bool | None:
    """Whether a play needs a late start, so that its deadlines come in the order of the clock;
    None if neither start gives it that order."""
    stage, set_up = 0, False
    due: dict[str, tuple[int, int]] = {}
    early: dict[str, bool] = {}
    passed: list[tuple[int, int]] = []
    late: set[bool] = set()
    for at, label in enumerate(labels):
        match label:
            case ("L", "time", after):
                stage = after
            case (_, "NanoSetupRequest"):
                set_up = True
            case (who, "refund" | "nano_refund", _):
                waits = who == "C" and label[1] == "nano_refund" and stage < 3
                due[who] = (1, 0) if waits else (0 if stage < 3 else 2, at)
                early[who] = stage == 0 and not waits
                if early[who] and not set_up:
                    late.add(False)
            case ("L", "deadline", who):
                passed.append(due[who])
                if early[who] and stage in (1, 2):
                    return None
                if early[who]:
                    late.add(stage == 3)
    if passed != sorted(passed) or len(late) > 1:
        return None
    return late.pop() if late else False


@pytest.mark.long
@pytest.mark.parametrize("bad", COALITIONS)
def test_the_longest_of_the_shortest_plays(opened_stage: World, bad: frozenset[str]) -> None:
    def begin(labels: tuple[Label, ...]) -> SessionPlay | None:
        late = late_start(labels)
        return None if late is None else SessionPlay(opened_stage, bad, late=late)

    longest(opened_stage, SessionModel(bad, lag=False), begin)
