# SPDX-License-Identifier: BSD-3-Clause
"""Losses that the session model finds with a rule left out, on real machines without that rule.

The machines, or the ledger, are changed in one place each; the play then runs as the model says,
and the real accounts show what the intermediary loses. With the rule the same play is stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from offchain.protocol import messages as m, nano_setup
from offchain.protocol.records import Table
from tests.model.checker import Trace
from tests.model.losses import Loss, Patch, by_the_clock, shortest_loss, stopped_at
from tests.model.play import replay
from tests.model.session_model import FEE as MODEL_FEE, SessionModel
from tests.model.session_replay import K, SessionPlay, open_stage
from tests.model.weakenings import Weak
from tests.protocol import weak_ledger
from tests.protocol.weak_ledger import WeakRehearsal, weaken, write_sources
from tests.protocol.weak_sessions import (
    closing_is_closed,
    closing_late,
    ignored_at,
    k_in_key,
    lock_not_signed,
    no_close_order,
    no_establishing,
    no_proof_of_k,
)
from tests.protocol.weakening import handler_of, step, unpatched
from tests.protocol.world import FEE, RELAY_FUND, World


def revealed_is_forgotten(patch: Patch, world: Any) -> None:
    """I does not look whether payments of the terms are on the ledger."""
    handler = handler_of(m.NanoSetupRequest)

    def answer(records: Any, me: Any, moment: Any, message: Any) -> Any:
        records.delete(Table.CHAIN_HEAD, nano_setup.revealed_key(
            message.terms.nano_terms().hash()))
        return handler(records, me, moment, message)

    step(patch, m.NanoSetupRequest, answer)


LOSSES: dict[Weak, Loss] = {
    Weak.CLOSE_ORDER: Loss(no_close_order, "ClientCloseRequest", "CR"),
    Weak.CLOSING_AS_CLOSED: Loss(closing_is_closed, "ClientCloseRequest", "CR"),
    Weak.NRT_WITHOUT_STATE: Loss(no_establishing, "NanoEstablishRequest", "CR"),
    Weak.LATE_RELAY_CLOSE: Loss(closing_late, "RelayCloseRequest", "CR"),
    Weak.POSTED_CLOSE_R: Loss(ignored_at(m.RelayCloseReveal), "RelayCloseReveal", "CR"),
    Weak.POSTED_SETUP: Loss(ignored_at(m.NanoSetupReveal), "NanoSetupReveal", "CR"),
    Weak.K_UNCHECKED: Loss(no_proof_of_k, "RelayCloseRequest", "R"),
    Weak.K_IN_KEY: Loss(k_in_key, "RelayCloseRequest", "CR"),
    Weak.REVEALED_BEFORE_SETUP: Loss(revealed_is_forgotten, "NanoSetupRequest", "CR"),
    Weak.NO_T_EXP: Loss(unpatched, "reveal", "CR", weak_ledger.NO_T_EXP),
    Weak.NO_CLIENT_DELAY: Loss(unpatched, "deadline", "CR", weak_ledger.NO_CLIENT_DELAY),
    Weak.ONE_DEADLINE: Loss(unpatched, "refund", "CR", weak_ledger.ONE_DEADLINE,
                            {"last_second": True}),
    Weak.NWPK_UNBOUND: Loss(lock_not_signed, "nano_refund", "CR", weak_ledger.NWPK_UNBOUND,
                            {"free_lock": True}),
}

EVERY_LOSS = [pytest.param(one, id=one.name.lower()) for one in LOSSES]


def escrow_loss(weak: Weak) -> tuple[SessionModel, Trace]:
    """A shortest play after which the two channels alone leave I with less than its deposits."""
    model = SessionModel(frozenset(LOSSES[weak].bad), n=1, lag=False, cash=False,
                         weak=frozenset([weak]))
    return model, shortest_loss(
        model, lambda s: model.escrowed_gain(s) < MODEL_FEE * model.relayed(s))


@pytest.fixture(scope="module")
def weak_stage(tmp_path_factory: pytest.TempPathFactory) -> World:
    sources = write_sources(tmp_path_factory.mktemp("weak"))
    return open_stage(type("Stage", (WeakRehearsal,), {"sources": sources})())


@pytest.fixture
def board(world: World, request: pytest.FixtureRequest) -> Callable[[Loss], World]:
    """The world that a loss is played in: it has the switch of the rule, if that is the ledger's.
    """
    def find(loss: Loss) -> World:
        if not loss.ledger:
            return world
        stage: World = request.getfixturevalue("weak_stage")
        saved = stage.save()
        request.addfinalizer(lambda: stage.load(saved))
        return stage

    return find


@pytest.mark.long
@pytest.mark.parametrize("weak", EVERY_LOSS)
def test_the_intermediary_really_loses_without_this_rule(
        board: Callable[[Loss], World], monkeypatch: Patch, weak: Weak) -> None:
    loss = LOSSES[weak]
    world = board(loss)
    model, trace = escrow_loss(weak)
    with monkeypatch.context() as patch:
        loss.patch(patch, world)
        if loss.ledger:
            weaken(world, loss.ledger)
        play = SessionPlay(world, frozenset(loss.bad), **loss.options)
        replay(play, model, by_the_clock(trace.labels))
    end = trace.states[-1]
    relayed = K[model.relayed(end)]
    gained = world.wealth(world.i) - play.wealth["I"] - RELAY_FUND
    assert relayed and gained < 0 < FEE * relayed


@pytest.mark.long
@pytest.mark.parametrize("weak", EVERY_LOSS)
def test_with_the_rule_the_play_is_stopped(world: World, weak: Weak) -> None:
    model, trace = escrow_loss(weak)
    loss = LOSSES[weak]
    play = SessionPlay(world, frozenset(loss.bad), **loss.options)
    assert stopped_at(play, model, trace) == loss.stop
