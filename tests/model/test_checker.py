# SPDX-License-Identifier: BSD-3-Clause
"""The checker itself, on plays whose answer is known."""

from __future__ import annotations

import random

import pytest

from tests.model import checker
from tests.model.checker import Label


class Counter:
    """Adds 1 or 2 up to `last`; `wrong_at` is a loss, and from `hole` nobody can move."""

    def __init__(self, last: int, wrong_at: int = -1, hole: int = -1, loop: int = -1) -> None:
        self.last, self.wrong_at, self.hole, self.loop = last, wrong_at, hole, loop

    def start(self) -> int:
        return 0

    def moves(self, state: int) -> list[tuple[Label, int]]:
        if state == self.hole:
            return []
        if state == self.loop:
            return [(("stay",), state)]
        return [(("add", one), state + one) for one in (1, 2) if state + one <= self.last]

    def wrong(self, state: int) -> str | None:
        return "lost" if state == self.wrong_at else None

    def ended(self, state: int) -> bool:
        return state == self.last


def test_every_state_is_visited_once() -> None:
    result = checker.explore(Counter(10))
    assert (result.states, result.transitions, result.ends) == (11, 19, 1)
    assert result.wrong is None


def test_a_shortest_trace_leads_to_what_is_wrong() -> None:
    result = checker.explore(Counter(10, wrong_at=7))
    assert result.wrong == "lost" and result.trace is not None
    assert len(result.trace.labels) == 4 and result.trace.states[-1] == 7
    assert checker.follow(Counter(10), result.trace.labels) == result.trace


def test_a_state_without_moves_is_wrong_unless_it_is_an_end() -> None:
    assert checker.explore(Counter(10, hole=4)).wrong == (
        "nobody can move, and the play is not over")


def test_a_state_that_leads_nowhere_is_found() -> None:
    assert checker.unfinished(Counter(10)) == []
    assert checker.unfinished(Counter(10, loop=9)) == [9]


def test_an_exploration_is_the_same_every_time() -> None:
    one, other = (checker.explore(Counter(30, wrong_at=21)) for _ in range(2))
    assert one.trace == other.trace


def test_an_exploration_is_bounded() -> None:
    with pytest.raises(checker.TooLarge):
        checker.explore(Counter(100), limit=20)


def test_a_walk_ends() -> None:
    trace = checker.walk(Counter(20), random.Random(1).choice)
    assert trace.states[-1] == 20


def test_coalitions_leave_somebody_honest() -> None:
    assert [sorted(one) for one in checker.coalitions("CR")] == [[], ["C"], ["R"]]
    assert len(list(checker.coalitions("CRI"))) == 7
