# SPDX-License-Identifier: BSD-3-Clause
"""No coalition makes money in a hidden payment: every play of the model, to its end."""

from __future__ import annotations

import pytest

from tests.model.checker import coalitions, explore, unfinished
from tests.model.pay_model import C_RENEWED, E_RENEWED, E_VOIDED, PayModel

COALITIONS = [pytest.param(one, id="".join(sorted(one)) or "nobody") for one in coalitions("CEI")]


@pytest.mark.parametrize("bad", COALITIONS)
def test_no_coalition_breaks_a_floor(bad: frozenset[str]) -> None:
    """I late by up to a margin, and cooperative closes."""
    result = explore(PayModel(bad))
    assert result.wrong is None, f"{result.wrong}:\n{result.trace}"
    assert result.ends


@pytest.mark.parametrize("bad", COALITIONS)
def test_everybody_can_always_finish(bad: frozenset[str]) -> None:
    assert unfinished(PayModel(bad, lag=False)) == []


@pytest.mark.parametrize("goal", [
    lambda s: s.c == C_RENEWED and s.e == E_RENEWED,
    lambda s: s.e == E_VOIDED,
], ids=["paid", "void"])
def test_the_model_gets_somewhere(goal: object) -> None:
    found = explore(PayModel(lag=False), goal=lambda s: "there" if goal(s) else None)
    assert found.wrong
