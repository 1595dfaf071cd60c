# SPDX-License-Identifier: BSD-3-Clause
"""Nobody loses a unit, whoever dies and whatever happens to a message, at every single one.

The points come out of the protocol's tables (`crash_points`), so that a message that is added to
the protocol and forgotten here fails. Some of them run always, all of them in the long suite.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, get_args

import pytest

from monetor_chain.rehearsal import Rehearsal
from offchain.crypto.issuer import IssuerKey
from offchain.protocol import ledger as calls, messages as m
from tests.protocol.crash_lives import LIVES, Life, occurrences, play, run
from tests.protocol.crash_points import (
    SUBJECT,
    SUBJECTS,
    WATCHERS_CALLS,
    Death,
    Fate,
    Point,
    Spot,
    Way,
    When,
    ends_of,
    points,
)
from tests.protocol.crash_rig import Rig
from tests.protocol.world import Node, open_world

SAMPLE_EACH = 2
"""Points of every message class that run always."""

Found = dict[str, list[tuple[Spot, bool]]]


class Stand:
    """The rig, the state from which every life starts, and where messages occur in each."""

    def __init__(self, make: type[Rig] = Rig, lives: tuple[Life, ...] = LIVES) -> None:
        self.rig = open_world(Rehearsal(), IssuerKey.generate(), make)
        self.rig.remember()
        self.rig.counts.clear()
        self.base = [self.rig.save()]
        self.found = occurrences(self.rig, self.base, lives)

    def points(self, life: Life) -> list[Point]:
        return [point for spot, arrives in self.found[life.name]
                for point in points(spot, life.parties, arrives=arrives)]

    def all_points(self) -> Iterator[tuple[Life, Point]]:
        for life in LIVES:
            for point in self.points(life):
                yield life, point

    def failures(self, life: Life, wanted: list[Point]) -> list[str]:
        self.rig.load(self.base[0])
        self.base[0] = self.rig.save()
        done = list(run(self.rig, life, wanted))
        self.rig.load(self.base[0])
        self.base[0] = self.rig.save()
        assert {point for point, _ in done} == set(wanted)
        return [f"{point}: {why}" for point, why in done if why]


@pytest.fixture(scope="module")
def stand() -> Stand:
    return Stand()


# --- The enumeration is whole


def test_every_message_and_every_call_is_enumerated() -> None:
    declared = {one for _, one in inspect.getmembers(m, inspect.isclass)
                if one.__module__ == m.__name__ and "PCMD" in vars(one)}
    sent = set(get_args(calls.LedgerCall)) - set(WATCHERS_CALLS)
    assert declared | sent == {one.kind for one in SUBJECTS}
    assert len(SUBJECT) == len(SUBJECTS), "two of them have one name"


def test_the_documentation_agrees_on_what_is_a_request() -> None:
    for one in SUBJECTS:
        way = ends_of(one.kind)
        if one.way is Way.SUBMISSION or one.kind is m.Refusal:
            continue
        assert way is not None, f"{one.name} does not say between whom it passes"
        assert (way[1] == "I") == (one.way is Way.REQUEST), one.name
        assert one.protocol


def test_everything_enumerated_occurs_in_the_lives(stand: Stand) -> None:
    seen = {spot.kind for spots in stand.found.values() for spot, _ in spots}
    assert seen == set(SUBJECT)
    arriving = {spot.kind for spots in stand.found.values() for spot, there in spots if there}
    assert arriving == seen


def test_messages_pass_between_those_that_they_are_for(stand: Stand) -> None:
    names = {"C": {"C"}, "I": {"I"}, "R": {"R", "E"}, "guard": {"R"}, "Guard": {"R"},
             "E": {"C", "R", "E"}}
    for spots in stand.found.values():
        for spot, _ in spots:
            way = ends_of(SUBJECT[spot.kind].kind)
            if way is not None:
                assert spot.source in names[way[0]] and spot.target in names[way[1]], spot


def test_every_subject_meets_everything_that_can_happen(stand: Stand) -> None:
    met: dict[str, set[Any]] = defaultdict(set)
    for _, point in stand.all_points():
        what = point.what
        met[point.spot.kind].add((what.when, what.fate) if isinstance(what, Death) else what)
    everything = {(when, fate) for when in When for fate in Fate}
    for kind, found in met.items():
        assert everything <= found and len(found) == len(everything) + 5, kind


# --- Nobody loses a unit


@pytest.mark.parametrize("life", LIVES, ids=lambda life: life.name.replace(" ", "-"))
def test_without_trouble(stand: Stand, life: Life) -> None:
    stand.rig.load(stand.base[0])
    stand.base[0] = stand.rig.save()
    play(stand.rig, life)
    stand.rig.finish()
    stand.rig.check()
    stand.rig.load(stand.base[0])
    stand.base[0] = stand.rig.save()


def sample(stand: Stand, life: Life) -> list[Point]:
    """A few points of every class, at different moments in its life and by turns."""
    by_kind: dict[str, list[tuple[Life, Point]]] = defaultdict(list)
    for one in stand.all_points():
        by_kind[one[1].spot.kind].append(one)
    chosen = []
    for number, kind in enumerate(sorted(by_kind)):
        found = by_kind[kind]
        for turn in range(SAMPLE_EACH):
            chosen.append(found[(number * 37 + turn * len(found) // SAMPLE_EACH) % len(found)])
    return [point for owner, point in chosen if owner is life]


@pytest.mark.parametrize("life", LIVES, ids=lambda life: life.name.replace(" ", "-"))
def test_a_sample_of_points(stand: Stand, life: Life) -> None:
    failures = stand.failures(life, sample(stand, life))
    assert not failures, "\n".join(failures)


@pytest.mark.long
@pytest.mark.parametrize("life", LIVES, ids=lambda life: life.name.replace(" ", "-"))
def test_every_point(stand: Stand, life: Life) -> None:
    failures = stand.failures(life, stand.points(life))
    assert not failures, f"{len(failures)}:\n" + "\n".join(failures)


# --- The rig would notice


class Hasty(Rig):
    """Its parties send first and commit afterwards."""

    def strike(self, acting: Node | None = None) -> None:
        if acting is not None and self._marked is not None and self._marked[0] == "request":
            _, name, item = self._marked
            self.request(item.pcmd, item.payload, name)
        super().strike(acting)


def test_a_secret_that_leaves_before_the_commit_loses_money() -> None:
    """The claim that is on the disk is then one that has been revoked."""
    (life,) = [one for one in LIVES if one.name == "session"]
    stand = Stand(Hasty, (life,))
    kinds = [one.__name__ for one in (m.NanoSetupReveal, m.RelayCloseReveal, m.ClientCloseReveal)]
    wanted = [Point(spot, Death(spot.source, When.BEFORE_COMMIT, Fate.WATCHED))
              for spot, _ in stand.found[life.name] if spot.kind in kinds]
    failures = stand.failures(life, wanted)
    assert len(failures) == len(wanted) == 3
    for point, failure in zip(wanted, failures, strict=True):
        assert failure.startswith(f"{point}: AssertionError: {point.spot.source}: ")
