# SPDX-License-Identifier: BSD-3-Clause
"""Losses that the model finds with a rule left out, on real machines without that rule.

The machines are patched in one place each; the play then runs as the model says, and the real
accounts show what the intermediary loses. Without the patch the same play ends at a refusal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from offchain.protocol import messages as m
from tests.model.checker import Trace, explore, follow
from tests.model.play import Diverged, replay, scripted
from tests.model.session_model import FEE as MODEL_FEE, SessionModel
from tests.model.session_replay import K, SessionPlay
from tests.model.weakenings import Weak
from tests.protocol.weak_sessions import (
    closing_is_closed,
    closing_late,
    ignored_at,
    no_close_order,
    no_establishing,
)
from tests.protocol.world import FEE, RELAY_FUND, World

Patch = pytest.MonkeyPatch

# Rule left out → (how the machines lose it, where they would have stopped the play).
LOSSES: dict[Weak, tuple[Callable[[Patch, Any], None], type[Any]]] = {
    Weak.CLOSE_ORDER: (no_close_order, m.ClientCloseRequest),
    Weak.CLOSING_AS_CLOSED: (closing_is_closed, m.ClientCloseRequest),
    Weak.NRT_WITHOUT_STATE: (no_establishing, m.NanoEstablishRequest),
    Weak.LATE_RELAY_CLOSE: (closing_late, m.RelayCloseRequest),
    Weak.POSTED_CLOSE_R: (ignored_at(m.RelayCloseReveal), m.RelayCloseReveal),
}
BAD = frozenset("CR")


def escrow_loss(weak: Weak) -> tuple[SessionModel, Trace]:
    """A shortest play after which the two channels alone leave I with less than its deposits."""
    model = SessionModel(BAD, n=1, lag=False, cash=False, weak=frozenset([weak]))

    def goal(s: Any) -> str | None:
        less = model.ended(s) and model.escrowed_gain(s) < MODEL_FEE * model.relayed(s)
        return "I loses" if less else None

    found = explore(model, goal=goal)
    assert found.trace is not None, f"{weak.name} loses nothing"
    return model, _deadlines_first(model, found.trace)


def _deadlines_first(model: SessionModel, trace: Trace) -> Trace:
    """The same play with deadlines passing before T_exp − 2μ where they may: so the clock has it.
    """
    for at, label in enumerate(trace.labels):
        first = next(number for number, one in enumerate(trace.labels) if one[1] == "time")
        if label[1] != "deadline" or at < first:
            continue
        rest = [*trace.labels[:at], *trace.labels[at + 1:]]
        try:
            trace = follow(model, [*rest[:first], label, *rest[first:]])
        except KeyError:
            continue
    return trace


EVERY_LOSS = [pytest.param(one, id=one.name.lower()) for one in LOSSES]


@pytest.mark.long
@pytest.mark.parametrize("weak", EVERY_LOSS)
def test_the_intermediary_really_loses_without_this_rule(
        world: World, monkeypatch: Patch, weak: Weak) -> None:
    model, trace = escrow_loss(weak)
    with monkeypatch.context() as patch:
        LOSSES[weak][0](patch, world)
        play = SessionPlay(world, BAD)
        replay(play, model, scripted(trace.labels))
    relayed = K[model.relayed(trace.states[-1])]
    gained = world.wealth(world.i) - play.wealth["I"] - RELAY_FUND
    assert relayed and gained < 0 < FEE * relayed


@pytest.mark.long
@pytest.mark.parametrize("weak", EVERY_LOSS)
def test_with_the_rule_the_machines_refuse_the_play(world: World, weak: Weak) -> None:
    model, trace = escrow_loss(weak)
    with pytest.raises(Diverged) as stopped:
        replay(SessionPlay(world, BAD), model, scripted(trace.labels))
    assert stopped.value.label[1] == LOSSES[weak][1].__name__
