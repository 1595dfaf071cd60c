# SPDX-License-Identifier: BSD-3-Clause
"""Random plays on the real machines, and after them every move that they left out."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tests.model.checker import Label, explore
from tests.model.play import OutOfOrder, Play, replay, scripted
from tests.protocol.world import World


def cover(stage: World, model: Any, begin: Sequence[Callable[[], Play]],
          weight: Callable[[Label], float], *, walks: int = 8) -> None:
    """Plays of the model until each of its moves was made; `begin` are ways to start one.

    The first are random ones; then comes a shortest way to each move that is missing, and on at
    random.
    """
    rng = random.Random(len(model.bad))
    first: dict[Label, Any] = {}

    def note(s: Any) -> None:
        for label, _ in model.moves(s):
            first.setdefault(label, s)

    every = explore(model, goal=note)
    made: set[Label] = set()
    lengths: list[int] = []
    saved = stage.save()

    def play(moves: Iterable[Label], make: Callable[[], Play]) -> None:
        rest = iter(moves)

        def choose(options: list[tuple[Label, Any]]) -> tuple[Label, Any]:
            label = next(rest, None)
            if label is not None:
                return scripted([label])(options)
            weights = [weight(label) * (1 if label in made else 4) for label, _ in options]
            return rng.choices(options, weights)[0]

        try:
            found = replay(make(), model, choose)
        finally:
            stage.load(saved)
        made.update(found)
        lengths.append(len(found))

    for number in range(walks):
        play([], begin[number % len(begin)])
    for label, state in first.items():
        if label not in made:
            play([*every.trace_to(state).labels, label], begin[0])
    print(f"{sorted(model.bad)}: {len(lengths)} plays of {min(lengths)} to {max(lengths)} moves, "
          f"all {len(made)} moves")
    assert made == set(first)


def longest(stage: World, model: Any, begin: Callable[[tuple[Label, ...]], Play | None], *,
            plays: int = 4) -> None:
    """The ends that take the most moves to reach, of those whose deadlines the clock allows.

    `begin` starts a play for these moves, or none if the clock cannot have them.
    """
    result = explore(model)
    saved = stage.save()
    lengths: list[int] = []
    for state in reversed(result.deepest):
        labels = result.trace_to(state).labels
        try:
            play = begin(labels)
            if play is None:
                continue
            replay(play, model, scripted(labels))
            lengths.append(len(labels))
        except OutOfOrder as error:
            print(error)
        finally:
            stage.load(saved)
        if len(lengths) == plays:
            break
    print(f"{sorted(model.bad)}: plays of {lengths} moves")
    assert len(lengths) == plays
