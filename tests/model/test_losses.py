# SPDX-License-Identifier: BSD-3-Clause
"""Losses that the model finds with a rule left out, on real machines without that rule.

The machines are patched in one place each; the play then runs as the model says, and the real
accounts show what the intermediary loses. Without the patch the same play ends at a refusal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from offchain.protocol import intermediary, messages as m, nano_close, nano_establish
from offchain.protocol.moment import Tip
from offchain.protocol.records import Table, key248
from offchain.protocol.sessions import Phase, Session, session
from tests.model.checker import Trace, explore, follow
from tests.model.session_model import FEE as MODEL_FEE, SessionModel
from tests.model.session_replay import Diverged, K, SessionPlay, replay
from tests.model.test_replay import scripted
from tests.model.weakenings import Weak
from tests.protocol.world import FEE, RELAY_FUND, World

Patch = pytest.MonkeyPatch


def _step(patch: Patch, kind: type[Any], handler: Callable[..., Any]) -> None:
    name, key_of, _ = intermediary._STEPS[kind]
    patch.setitem(intermediary._STEPS, kind, (name, key_of, handler))


def no_close_order(patch: Patch) -> None:
    """The client's leg closes whatever the relay's does."""
    closing_count = nano_close.closing_count

    def any_time(records: Any, current: Session) -> Any:
        return closing_count(records, replace(current, relay_resolved=True))

    patch.setattr(nano_close, "closing_count", any_time)


def closing_is_closed(patch: Patch) -> None:
    """A relay that was given its refund token counts as closed."""
    closing_count = nano_close.closing_count

    def early(records: Any, current: Session) -> Any:
        return closing_count(records, replace(
            current, relay_resolved=current.phase is Phase.RELAY_CLOSING))

    patch.setattr(nano_close, "closing_count", early)


def no_establishing(patch: Patch) -> None:
    """nrt_R leaves, and the session stays as it was."""

    def answer(records: Any, me: Any, moment: Any, message: Any) -> Any:
        found = nano_establish.answer_establish(records, me, moment, message)
        records.put(Table.SESSION, message.terms_hash, replace(
            session(records, message.terms_hash), phase=Phase.SETUP))
        return found

    _step(patch, m.NanoEstablishRequest, answer)


def no_late_check(patch: Patch) -> None:
    """A relay closes at any count at any time."""

    def answer(records: Any, me: Any, moment: Any, message: Any) -> Any:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(nano_close, "tip", lambda records: Tip(0, 0))
            return nano_close.answer_relay_close(records, me, moment, message)

    _step(patch, m.RelayCloseRequest, answer)


def posted_is_ignored(patch: Patch) -> None:
    """The relay's secret is taken although its leg is on the ledger."""

    def answer(records: Any, me: Any, moment: Any, message: Any) -> Any:
        key = key248(session(records, message.terms_hash).nwpk_r)
        records.put(Table.LOCK, key, replace(records.get(Table.LOCK, key), posted=False))
        found = nano_close.answer_relay_reveal(records, me, moment, message)
        records.put(Table.LOCK, key, replace(records.get(Table.LOCK, key), posted=True))
        return found

    _step(patch, m.RelayCloseReveal, answer)


# Rule left out → (how the machines lose it, where they would have stopped the play).
LOSSES: dict[Weak, tuple[Callable[[Patch], None], type[Any]]] = {
    Weak.CLOSE_ORDER: (no_close_order, m.ClientCloseRequest),
    Weak.CLOSING_AS_CLOSED: (closing_is_closed, m.ClientCloseRequest),
    Weak.NRT_WITHOUT_STATE: (no_establishing, m.NanoEstablishRequest),
    Weak.LATE_RELAY_CLOSE: (no_late_check, m.RelayCloseRequest),
    Weak.POSTED_CLOSE_R: (posted_is_ignored, m.RelayCloseReveal),
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
        LOSSES[weak][0](patch)
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

