# SPDX-License-Identifier: BSD-3-Clause
"""No coalition makes money in a session: every play of the model, to its end."""

from __future__ import annotations

import pytest

from tests.model.checker import coalitions, explore, unfinished
from tests.model.session_model import EXPIRED_T, RELAY_CLOSED, RESOLVED, VOID, SessionModel, State

COALITIONS = [pytest.param(one, id="".join(sorted(one)) or "nobody") for one in coalitions("CRI")]


@pytest.mark.parametrize("bad", COALITIONS)
def test_no_coalition_breaks_a_floor_with_one_payment(bad: frozenset[str]) -> None:
    result = explore(SessionModel(bad, n=1, lag=False, cash=False))
    assert result.wrong is None, f"{result.wrong}:\n{result.trace}"
    assert result.ends


@pytest.mark.long
@pytest.mark.parametrize("bad", COALITIONS)
def test_no_coalition_breaks_a_floor(bad: frozenset[str]) -> None:
    """Two payments, I late by up to a margin, and cooperative closes."""
    result = explore(SessionModel(bad))
    print(f"{sorted(bad)}: {result.states} states, {result.transitions} transitions, "
          f"{result.ends} ends, {result.seconds:.0f} s")
    assert result.wrong is None, f"{result.wrong}:\n{result.trace}"
    assert result.ends


@pytest.mark.parametrize("bad", [
    "", "I", pytest.param("C", marks=pytest.mark.long), pytest.param("R", marks=pytest.mark.long)])
def test_everybody_can_always_finish(bad: str) -> None:
    """Else the ends would say nothing about who is stuck."""
    model = SessionModel(frozenset(bad), n=1, lag=False, cash=False)
    assert unfinished(model) == []


def reached(bad: str, n: int, goal: object) -> bool:
    return explore(SessionModel(frozenset(bad), n=n, lag=False), goal=goal).wrong is not None


@pytest.mark.parametrize(("bad", "goal"), [
    ("", lambda s: s.sent == 2 == s.received and s.phase == RELAY_CLOSED and s.leg == 3),
    ("", lambda s: s.phase == VOID and s.leg == 3),
    ("", lambda s: s.k_r == 1 and s.t == EXPIRED_T),
    ("R", lambda s: s.r_status == RESOLVED and s.r_paid == 2),
    ("C", lambda s: s.k_c == 2 and s.k_r == 1 and s.r_paid == 1 and s.c_status == RESOLVED),
], ids=["closed", "void", "revealed", "relay-paid", "split"])
def test_the_model_gets_somewhere(bad: str, goal: object) -> None:
    """A model in which nothing happens has no violation either."""
    assert reached(bad, 2, lambda s: "there" if goal(s) else None)


def test_payments_settle_at_the_same_count_when_everybody_is_honest() -> None:
    """C pays for what R is paid for, and for no more than it sent."""
    model = SessionModel(n=1, lag=False)
    ends: list[State] = []
    explore(model, goal=lambda s: ends.append(s) if model.ended(s) else None)
    assert {(s.c_paid, s.r_paid) for s in ends if s.sent == s.received == 1} == {(1, 1)}
