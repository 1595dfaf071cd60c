# SPDX-License-Identifier: BSD-3-Clause
"""Leave one rule out, and somebody loses: the checker finds who, and how.

Three rules lose nobody anything in these models, whoever breaks them; they are named at the end,
so that a model which makes one of them matter is noticed.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.model.checker import Trace, coalitions, explore, follow
from tests.model.pay_model import PayModel
from tests.model.session_model import SessionModel
from tests.model.weakenings import Weak

I_LOSES, C_LOSES, R_LOSES, E_LOSES = "I loses", "C loses", "R loses", "E loses"

# Rule left out → (a coalition that gains, who loses, what else the model needs).
SESSION: dict[Weak, tuple[str, str, dict[str, Any]]] = {
    Weak.CLOSE_ORDER: ("C", I_LOSES, {}),
    Weak.K_UNCHECKED: ("R", I_LOSES, {}),
    Weak.SECOND_CLOSE: ("C", I_LOSES, {}),
    Weak.K_IN_KEY: ("R", I_LOSES, {}),
    Weak.POSTED_SETUP: ("C", I_LOSES, {}),
    Weak.POSTED_CLOSE_R: ("R", I_LOSES, {}),
    Weak.POSTED_CLOSE_C: ("C", I_LOSES, {}),
    Weak.NRT_WITHOUT_STATE: ("C", I_LOSES, {}),
    Weak.CLOSING_AS_CLOSED: ("C", I_LOSES, {}),
    Weak.LATE_RELAY_CLOSE: ("R", I_LOSES, {}),
    Weak.CLOSE_FROM_SETTING_UP: ("C", I_LOSES, {}),
    Weak.WALL_CLOCK: ("C", I_LOSES, {"lag": True}),
    Weak.REVEALED_BEFORE_SETUP: ("C", I_LOSES, {}),
    Weak.DIFFERENT_WPK: ("C", I_LOSES, {}),
    Weak.NWPK_UNBOUND: ("C", I_LOSES, {}),
    Weak.NO_RANGE: ("C", I_LOSES, {"funds": 0}),
    Weak.NO_T_EXP: ("C", I_LOSES, {}),
    Weak.NO_CLIENT_DELAY: ("C", I_LOSES, {}),
    Weak.OWN_CLOSE: ("I", C_LOSES, {}),
    Weak.GROUP_CLOSE_RESOLVED: ("C", "L pays a channel twice", {"cash": True}),
    Weak.ONE_DEADLINE: ("C", I_LOSES, {}),
    Weak.POSITION: ("R", C_LOSES, {"n": 2}),
    Weak.ANY_COUNT: ("I", C_LOSES, {}),
    Weak.NO_REVEAL: ("CI", R_LOSES, {}),
    Weak.LATE_PAYMENT: ("CI", R_LOSES, {}),
    Weak.EARLY_SECRET: ("I", C_LOSES, {}),
}
PAY: dict[Weak, tuple[str, str]] = {
    Weak.POSTED_PAY_JOIN: ("CE", I_LOSES),
    Weak.POSTED_PAY_CLAIM: ("CE", I_LOSES),
    Weak.POSTED_PAYER_REVEAL: ("C", I_LOSES),
    Weak.POSTED_PAYEE_REVEAL: ("E", I_LOSES),
    Weak.T_P_TOO_LATE: ("CE", I_LOSES),
    Weak.UNCONDITIONAL_CRT: ("E", I_LOSES),
    Weak.SAME_WALLET: ("CE", I_LOSES),
    Weak.NO_CRT_VERIFIED: ("I", "C and E lose together"),
    Weak.NEGATIVE_AMOUNT: ("CE", I_LOSES),
    Weak.VOID_BY_CLOCK: ("E", I_LOSES),
    Weak.VOID_AFTER_SECRET: ("E", I_LOSES),
    Weak.LATE_SECRET: ("C", E_LOSES),
    Weak.NO_CRT_CLAIM: ("C", E_LOSES),
}
HARMLESS = (Weak.POSTED_ESTABLISH, Weak.RELAY_NOT_REVOKED, Weak.LATE_ESTABLISH)
HARMLESS_PAY = (Weak.POSTED_PAYEE_JOIN,)

QUICK = {Weak.OWN_CLOSE, Weak.GROUP_CLOSE_RESOLVED, Weak.ANY_COUNT, Weak.EARLY_SECRET,
         Weak.NO_REVEAL, Weak.LATE_PAYMENT, Weak.POSTED_SETUP, Weak.POSTED_CLOSE_C,
         Weak.CLOSE_FROM_SETTING_UP}

SESSION_COALITIONS = [pytest.param(one, id="".join(sorted(one)) or "nobody")
                      for one in coalitions("CRI")]
PAY_COALITIONS = [pytest.param(one, id="".join(sorted(one)) or "nobody")
                  for one in coalitions("CEI")]


def named(weak: Weak) -> Any:
    marks = [] if weak in QUICK or weak in PAY else [pytest.mark.long]
    return pytest.param(weak, id=weak.name.lower(), marks=marks)


def session_model(weak: Weak, *, left_out: bool = True) -> SessionModel:
    bad, _, options = SESSION[weak]
    options = {"n": 1, "lag": False, "cash": False} | options
    return SessionModel(frozenset(bad), weak=frozenset([weak] if left_out else []), **options)


def loss_in_session(weak: Weak) -> Trace:
    """A shortest way to a loss with this rule left out."""
    result = explore(session_model(weak))
    assert result.wrong == SESSION[weak][1], f"{weak.name}: {result.wrong}"
    assert result.trace is not None
    return result.trace


@pytest.mark.parametrize("weak", [named(one) for one in SESSION])
def test_a_session_without_this_rule_loses_money(weak: Weak) -> None:
    trace = loss_in_session(weak)
    # The rule stops it: with the rule the play is impossible, or it ends well.
    strict = session_model(weak, left_out=False)
    try:
        end = follow(strict, trace.labels).states[-1]
    except KeyError:
        return
    assert strict.wrong(end) is None


@pytest.mark.parametrize("weak", [named(one) for one in PAY])
def test_a_payment_without_this_rule_loses_money(weak: Weak) -> None:
    bad, loser = PAY[weak]
    result = explore(PayModel(frozenset(bad), cash=False, weak=frozenset([weak])))
    assert result.wrong == loser, f"{weak.name}: {result.wrong}"


def test_every_rule_is_tried() -> None:
    assert {*SESSION, *PAY, *HARMLESS, *HARMLESS_PAY} == set(Weak)


@pytest.mark.long
@pytest.mark.parametrize("bad", SESSION_COALITIONS)
@pytest.mark.parametrize("weak", HARMLESS, ids=lambda one: one.name.lower())
def test_a_session_without_this_rule_loses_nothing_here(weak: Weak, bad: frozenset[str]) -> None:
    """A relay's older claims are never worth more than its newer ones, and a relay that joins
    late can close at what the ledger knows only."""
    assert explore(SessionModel(bad, n=2, lag=False, weak=frozenset([weak]))).wrong is None


@pytest.mark.parametrize("bad", PAY_COALITIONS)
@pytest.mark.parametrize("weak", HARMLESS_PAY, ids=lambda one: one.name.lower())
def test_a_payment_without_this_rule_loses_nothing_here(weak: Weak, bad: frozenset[str]) -> None:
    """The payee's secret is refused later, and its conditional token needs an open channel."""
    assert explore(PayModel(bad, weak=frozenset([weak]))).wrong is None
