# SPDX-License-Identifier: BSD-3-Clause
"""Losses that a model finds with a rule left out: which, and in an order that the clock has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from offchain.protocol.errors import ProtocolError
from tests.model.checker import Label, Trace, explore, follow
from tests.model.play import Diverged, OutOfOrder, Play, replay, scripted

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Loss:
    """How the machines lose a rule, and the move at which they stop the play while they have it.

    `bad` gains; `ledger` is the switch of `weak_ledger`, 0 for none; `options` are the play's.
    """

    patch: Callable[[Patch, Any], None]
    stop: str
    bad: str
    ledger: int = 0
    options: dict[str, bool] = field(default_factory=dict)


def shortest_loss(model: Any, lost: Callable[[Any], bool]) -> Trace:
    """A shortest play of the model at whose end something is lost."""
    found = explore(model, goal=lambda s: "lost" if model.ended(s) and lost(s) else None)
    assert found.trace is not None, f"{sorted(model.weak)} loses nothing"
    return _deadlines_first(model, found.trace)


def _deadlines_first(model: Any, trace: Trace) -> Trace:
    """The same play with claims of old wallets posted as early as they may be, and deadlines
    passing in the first stage if they may: so the clock has it."""
    for at, label in enumerate(trace.labels):
        if label[1] == "refund":
            trace = next(filter(None, (_moved(model, trace, at, to) for to in range(at))), trace)
    for at, label in enumerate(trace.labels):
        first = next(number for number, one in enumerate(trace.labels) if one[1] == "time")
        if label[1] == "deadline" and at > first:
            trace = _moved(model, trace, at, first) or trace
    return trace


def _moved(model: Any, trace: Trace, at: int, to: int) -> Trace | None:
    """The play with its move number `at` made before number `to`; None if that cannot be."""
    rest = [*trace.labels[:at], *trace.labels[at + 1:]]
    try:
        return follow(model, [*rest[:to], trace.labels[at], *rest[to:]])
    except KeyError:
        return None


def by_the_clock(labels: tuple[Label, ...]) -> Callable[[list[tuple[Label, Any]]], Any]:
    """Choose these moves in turn; of deadlines that pass, first the one that the clock has first.
    """
    rest = list(labels)

    def choose(options: list[tuple[Label, Any]]) -> tuple[Label, Any]:
        found = dict(options)
        label = next((one for one in rest if one in found and (
            one == rest[0] or one[1] in ("deadline", "resolve"))), None)
        if label is None:
            raise OutOfOrder(f"{rest[0]} is not possible here: {sorted(map(str, found))}")
        rest.remove(label)
        return label, found[label]

    return choose


def stopped_at(play: Play, model: Any, trace: Trace) -> str:
    """The name of the move at which the machines do not go along."""
    labels = iter(trace.labels)
    last: list[Any] = []

    def choose(options: list[Any]) -> Any:
        last.append(next(labels))
        return scripted([last[-1]])(options)

    try:
        replay(play, model, choose)
    except (Diverged, OutOfOrder, ProtocolError):
        return str(last[-1][1])
    return ""
