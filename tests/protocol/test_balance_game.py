# SPDX-License-Identifier: BSD-3-Clause
"""Nobody honest loses, whatever the others do: the game of `balance_rules` at random.

The short test plays every coalition. The long one,

    python -m pytest -m long -s tests/protocol/test_balance_game.py

plays until every kind of move was made and every reason to refuse one was heard, and prints how
often. A failure is shrunk by hypothesis and ends with the moves that led to it.
"""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.protocol.balance_machine import COALITIONS, Tally
from tests.protocol.balance_rules import Game
from tests.protocol.board import Board, open_board

MOVES = {name for name in dir(Game) if hasattr(getattr(Game, name), "hypothesis_stateful_rule")
         and not name[-1].isdigit()}
"""Every move of the game."""

REASONS = frozenset((
    "reuse_nonce: REUSED", "reuse nT: REUSED", "reuse hc0: REUSED", "reuse nwpk: REUSED",
    "foreign commitment: PROOF", "foreign com: PROOF", "foreign_cid: PROOF",
    "join_as_client: PROOF", "join: UNKNOWN", "join: STATE", "join: TOO_LATE",
    "relay_close_at: CLAIM", "relay_close_at: REUSED", "relay_close_at: STATE",
    "relay_close_at: LOCK", "client_close_at: NOT_YET", "client_close_at: STATE",
    "client_close_at: REUSED", "client_close_at: LOCK", "client_close_at: CLAIM",
    "wrong_payment: preimage", "wrong_payment: does not follow",
    "wrong_cash_out balance: PROOF", "wrong_cash_out repeated: STATE",
    "wrong_cash_out foreign: PROOF", "wrong_cash_out spent: REUSED",
    "negative_payment: PROOF", "pay_oneself: REUSED", "other_payment the same V: PROOF",
    "other_payment another V: NOT_YET", "other_payment another T_p: TERMS",
    "other_payment another payer: TERMS", "wrong_claim wrong secret: PROOF",
    "wrong_claim own secret: PROOF", "wrong_claim no payment: STATE",
    "wrong_claim too early: NOT_YET", "mutate_proof NanoSetupRequest: PROOF",
    "mutate_proof PayerRequest: PROOF", "mutate_reply NanoRefundReply: nrt",
    "mutate_reply RefundTokenReply:", "wrong_count: were sent", "wrong_count: preimage",
    "wrong_token: reply", "refute: ledger: wrong secret", "own_claim refund: authorisation",
    "own_claim close: authorisation", "own_claim nano_refund: authorisation",
    "reveal_wrong n + 1: preimages", "reveal_wrong another position: preimages",
    "reveal_wrong other terms: preimages", "tell_secret: ",
))
"""Moves that honest parties or the ledger must refuse, each with the rule that refuses it."""


@pytest.fixture(scope="module")
def board() -> Board:
    return open_board()


def play(board: Board, bad: str, number: int, runs: int, steps: int, tally: Tally) -> None:
    """`runs` plays of one coalition of at most `steps` moves each."""
    saved = board.save()
    game = type("Game", (Game,), {"world": board, "opened": saved, "tally": tally, "bad": bad})
    run_state_machine_as_test(seed(number)(game), settings=settings(
        max_examples=runs, stateful_step_count=steps, deadline=None, database=None,
        phases=(Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck)))


def test_nobody_honest_loses_in_a_few_plays(board: Board) -> None:
    tally = Tally()
    for number, bad in enumerate(COALITIONS):
        play(board, bad, number, 2, 30, tally)
    assert set(tally.coalitions) == {one or "nobody" for one in COALITIONS}
    assert tally.steps > 50 and len(tally.moves) > 15


LONG_STEPS = 4_000


@pytest.mark.long
@pytest.mark.timeout(3_600)
def test_nobody_honest_loses_in_four_thousand_steps(board: Board) -> None:
    """And by then each move was made, and each reason to refuse one was given."""
    tally = Tally()
    for number in count(3_000):
        play(board, COALITIONS[number % len(COALITIONS)], number, 4, 80, tally)
        if tally.steps >= LONG_STEPS and not missing(tally):
            break
        assert tally.steps < 4 * LONG_STEPS, f"never happened: {missing(tally)}\n{tally.report()}"
    print(tally.report())
    assert set(tally.coalitions) == {one or "nobody" for one in COALITIONS}


def missing(tally: Tally) -> set[str]:
    """Moves that were not made, and reasons that were not given."""
    reasons = {f"{name}: {why}" for name, why in tally.refused}
    return (MOVES - set(tally.moves)) | {
        one for one in REASONS if not any(reason.startswith(one) for reason in reasons)}
