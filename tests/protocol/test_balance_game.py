# SPDX-License-Identifier: BSD-3-Clause
"""Nobody honest loses, whatever the others do: the game of `balance_rules` at random.

The short test plays every coalition. The long one,

    python -m pytest -m long -s tests/protocol/test_balance_game.py

plays on until every kind of move was made, and prints how often and what was refused. A failure is
shrunk by hypothesis and ends with the moves that led to it.
"""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.protocol.balance_machine import COALITIONS, Tally
from tests.protocol.balance_rules import Game
from tests.protocol.balance_scripts import NOTICED, REFUSALS, Move, move, session
from tests.protocol.board import Board, open_board
from tests.protocol.weak_sessions import SESSIONS

MOVES = {name for name in dir(Game) if hasattr(getattr(Game, name), "hypothesis_stateful_rule")
         and not name[-1].isdigit()}
"""Every move of the game."""

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


SHORT = ("", "R", "I", "CE", "RI", "CRE", "CIE", "CRI")
"""Every coalition of client, relay and intermediary; the payee belongs to the client where it can.
"""


def test_nobody_honest_loses_in_a_few_plays(board: Board) -> None:
    tally = Tally()
    for number, bad in enumerate(SHORT):
        play(board, bad, number, 2, 22, tally)
    assert set(tally.coalitions) == {one or "nobody" for one in SHORT}
    assert tally.steps > 50 and len(tally.moves) > 15


LONG_STEPS = 3_000


@pytest.mark.long
@pytest.mark.timeout(3_600)
def test_nobody_honest_loses_in_three_thousand_steps(board: Board) -> None:
    """And until each move was made."""
    tally = Tally()
    for number in count(3_000):
        play(board, COALITIONS[number % len(COALITIONS)], number, 4, 80, tally)
        if tally.steps >= LONG_STEPS and not MOVES - set(tally.moves):
            break
        assert tally.steps < 5 * LONG_STEPS, f"never made: {MOVES - set(tally.moves)}"
    print(tally.report())
    assert set(tally.coalitions) == {one or "nobody" for one in COALITIONS}


# --- Written plays of the game's moves ------------------------------------------------------------


def scripted(board: Board, bad: str, moves: tuple[Move, ...], *, end: bool = False) -> Tally:
    """Make these moves; with `end`, those that can be made, settle and look at the floors."""
    saved, tally = board.save(), Tally()
    game = type("Game", (Game,), {
        "world": board, "opened": saved, "tally": tally, "bad": bad})()
    game.begin(salt=0)
    for name, chosen in moves:
        made = len(game.trace)
        getattr(game, name)(**chosen)
        assert end or len(game.trace) > made, f"{name} could not be made after {game.trace}"
    game.sound = end
    game.teardown()
    return tally


@pytest.mark.parametrize(("bad", "moves", "reasons"), REFUSALS)
def test_a_forbidden_move_reaches_the_rule_that_forbids_it(
        board: Board, bad: str, moves: tuple[Move, ...], reasons: set[str]) -> None:
    """Not some other one that comes before: else the game would say nothing about the rule."""
    heard = {f"{name}: {why}" for name, why in scripted(board, bad, moves).refused}
    assert heard == reasons


@pytest.mark.parametrize(("name", "bad", "moves"), [
    pytest.param(*one, id=one[0], marks=[pytest.mark.long] if number > 1 else [])
    for number, one in enumerate(NOTICED)])
def test_the_game_notices_a_rule_that_is_left_out(
        board: Board, monkeypatch: pytest.MonkeyPatch, name: str, bad: str,
        moves: tuple[Move, ...]) -> None:
    """The same moves lose nobody anything while the rule stands."""
    scripted(board, bad, moves, end=True)
    weakening = next(one for one in SESSIONS if one.name == name)
    with monkeypatch.context() as patch:
        weakening.patch(patch, board)
        with pytest.raises(AssertionError, match="short of the floor by {'I'"):
            scripted(board, bad, moves, end=True)


def test_a_count_on_the_ledger_is_no_payment_to_a_relay_that_is_closing(board: Board) -> None:
    """It is owed what it asked to close at, for that is what it was paid."""
    scripted(board, "C", (
        session(2, 3), move("nano_close_r", at=0, few=0), move("reveal", at=0, k=16),
        move("retry")), end=True)
