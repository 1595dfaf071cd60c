# SPDX-License-Identifier: BSD-3-Clause
"""Breadth-first exploration of an explicit-state model, with traces.

A model is a start state, the moves out of a state, and what is wrong with a state. States are
immutable and hashable. Moves come in a fixed order and the search is breadth-first, so a run is
the same every time and the trace to a violation is a shortest one.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

Label = tuple[Any, ...]
"""Who does what: ("I", "NanoSetupRequest") is I answering it, ("R", "reveal", 2) a ledger call."""


class Model(Protocol):
    """What the checker needs of a model."""

    def start(self) -> Hashable:
        """The one initial state."""

    def moves(self, state: Any) -> Iterable[tuple[Label, Hashable]]:
        """Every move that somebody can make in `state`, and where it leads."""

    def wrong(self, state: Any) -> str | None:
        """Which rule `state` breaks, or None."""

    def ended(self, state: Any) -> bool:
        """Whether the play is over in `state`: a state without moves must be such a one."""


@dataclass(frozen=True)
class Trace:
    """How to come from the start to a state: the moves, and the states after each."""

    labels: tuple[Label, ...]
    states: tuple[Any, ...]
    """One more than labels: the start comes first."""

    def __str__(self) -> str:
        return "\n".join(" ".join(str(part) for part in label) for label in self.labels)


@dataclass
class Result:
    """What an exploration found. With a violation it stopped at the first, a nearest one."""

    states: int = 0
    transitions: int = 0
    ends: int = 0
    seconds: float = 0.0
    wrong: str | None = None
    trace: Trace | None = None
    _before: dict[Any, tuple[Any, Label] | None] = field(default_factory=dict, repr=False)
    deepest: list[Any] = field(default_factory=list, repr=False)
    """Ends in the order in which they were found, so the last takes the most moves."""

    def trace_to(self, state: Any) -> Trace:
        """A shortest way to a state that was reached."""
        labels: list[Label] = []
        states = [state]
        while (step := self._before[state]) is not None:
            state, label = step
            labels.append(label)
            states.append(state)
        return Trace(tuple(reversed(labels)), tuple(reversed(states)))


class TooLarge(Exception):
    """The exploration met more states than it was allowed."""


def explore(model: Model, *, limit: int = 20_000_000,
            goal: Callable[[Any], str | None] | None = None) -> Result:
    """Visit every state; stop at the first that is wrong, or that `goal` names.

    A state without moves that is not an end is wrong too: a party that can never finish would
    hide what it loses.
    """
    began = time.monotonic()
    start = model.start()
    result = Result()
    before = result._before
    before[start] = None
    queue = deque([start])
    judge = model.wrong if goal is None else goal
    while queue:
        state = queue.popleft()
        result.states += 1
        wrong = judge(state)
        ended = model.ended(state)
        stuck = not ended
        if wrong is None and not ended:
            for label, after in model.moves(state):
                stuck = False
                result.transitions += 1
                if after not in before:
                    if len(before) >= limit:
                        raise TooLarge(f"more than {limit} states")
                    before[after] = (state, label)
                    queue.append(after)
            if stuck:
                wrong = "nobody can move, and the play is not over"
        if ended:
            result.ends += 1
            result.deepest.append(state)
        if wrong is not None:
            result.wrong, result.trace = wrong, result.trace_to(state)
            break
    result.seconds = time.monotonic() - began
    return result


def unfinished(model: Model) -> list[Any]:
    """States from which no end can be reached. For models that are small: it keeps every edge."""
    start = model.start()
    back: dict[Any, list[Any]] = {start: []}
    ends: list[Any] = []
    queue = deque([start])
    while queue:
        state = queue.popleft()
        if model.ended(state):
            ends.append(state)
            continue
        for _, after in model.moves(state):
            if after not in back:
                back[after] = []
                queue.append(after)
            back[after].append(state)
    good = set(ends)
    queue = deque(ends)
    while queue:
        for one in back[queue.popleft()]:
            if one not in good:
                good.add(one)
                queue.append(one)
    return [one for one in back if one not in good]


def walk(model: Model, choose: Callable[[list[tuple[Label, Any]]], tuple[Label, Any]],
         most: int = 400) -> Trace:
    """One play, its moves picked by `choose`, until it ends."""
    state: Any = model.start()
    labels: list[Label] = []
    states = [state]
    while not model.ended(state) and len(labels) < most:
        label, state = choose(list(model.moves(state)))
        labels.append(label)
        states.append(state)
    return Trace(tuple(labels), tuple(states))


def follow(model: Model, labels: Iterable[Label]) -> Trace:
    """The play that these moves make; `KeyError` names a move that is not possible."""
    state: Any = model.start()
    states = [state]
    taken: list[Label] = []
    for label in labels:
        state = dict(model.moves(state))[label]
        taken.append(label)
        states.append(state)
    return Trace(tuple(taken), tuple(states))


def coalitions(names: str) -> Iterator[frozenset[str]]:
    """Every set of parties that leaves at least one of them honest, the empty one first."""
    for bits in range((1 << len(names)) - 1):
        yield frozenset(name for at, name in enumerate(names) if bits >> at & 1)
