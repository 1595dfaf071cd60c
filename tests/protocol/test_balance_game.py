# SPDX-License-Identifier: BSD-3-Clause
"""Nobody honest loses, whatever the others do: the game of `balance_rules` at random.

The short test plays every coalition. The long one,

    python -m pytest -m long -s tests/protocol/test_balance_game.py

plays until every kind of move was made and every reason to refuse one was heard, and prints how
often. A failure is shrunk by hypothesis and ends with the moves that led to it.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.protocol.balance_machine import COALITIONS, Tally
from tests.protocol.balance_rules import Game
from tests.protocol.board import Board, open_board


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
        play(board, bad, number, 2, 25, tally)
    print(tally.report())
    assert set(tally.coalitions) == {one or "nobody" for one in COALITIONS}
    assert tally.steps > 150
