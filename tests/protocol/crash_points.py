# SPDX-License-Identifier: BSD-3-Clause
"""Every point at which a party can die or a message can go wrong, out of the protocol's own tables.

What passes between the parties is every message class with a PCMD and every call of the ledger;
the intermediary's table says which are requests, and a class's own words ("C→R") between whom it
passes. A life that is played once without trouble says where in it each of them occurs; the points
are those occurrences times everything that can happen at one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, get_args

from offchain.agents.engine import protocol_of
from offchain.protocol import ledger as calls, messages as m
from offchain.protocol.intermediary import _STEPS

LEDGER = "L"


class Way(StrEnum):
    """How something leaves a party."""

    REQUEST = "request"
    REPLY = "reply"
    WORD = "word"
    SUBMISSION = "submission"


class When(StrEnum):
    """A moment in a message's life at which somebody dies."""

    BEFORE_COMMIT = "before commit"
    AFTER_COMMIT = "after commit, before send"
    LOST = "after send, message lost"
    DELIVERED = "after delivery"


class Fate(StrEnum):
    """What becomes of the one that dies."""

    AT_ONCE = "restarts at once"
    LATE = "restarts after the deadlines"
    NEVER = "never comes back"
    WATCHED = "only the ledger hears of it again"


class Trouble(StrEnum):
    """What can happen to a message while everybody lives."""

    LOST = "lost"
    TWICE = "delivered twice"
    AGAIN = "delivered again after the deadlines"
    REORDERED = "overtaken by the next"
    DELAYED = "delayed until after the deadlines"


_ARROW = re.compile(r"^(\w+)→(\w+):")


@dataclass(frozen=True, slots=True)
class Subject:
    """Something that passes: a message class, or a call of the ledger."""

    kind: type[Any]
    way: Way

    @property
    def name(self) -> str:
        """The class's name."""
        return self.kind.__name__

    @property
    def protocol(self) -> str:
        """The protocol that a message belongs to; "ledger" for a call, "any" for a refusal."""
        if self.way is Way.SUBMISSION:
            return "ledger"
        return "any" if self.kind is m.Refusal else protocol_of(self.kind.PCMD)


def way_of(kind: type[Any]) -> Way:
    """How a message travels: what the intermediary answers is a request, what it says a reply."""
    if kind in _STEPS:
        return Way.REQUEST
    arrow = _ARROW.match(kind.__doc__ or "")
    return Way.REPLY if kind is m.Refusal or (arrow and arrow[1] == "I") else Way.WORD


def ends_of(kind: type[Any]) -> tuple[str, str] | None:
    """Between whom a message passes, by its documentation; None if that does not say."""
    arrow = _ARROW.match(kind.__doc__ or "")
    return (arrow[1], arrow[2]) if arrow else None


WATCHERS_CALLS = (calls.Authorised,)
"""Calls that only a watcher makes, which is no party to a life: it decides anew from its packages
and the ledger whenever it comes up, as test_watching.py shows."""

SUBJECTS = (*(Subject(kind, way_of(kind)) for kind in m.MESSAGES.values()),
            *(Subject(kind, Way.SUBMISSION) for kind in get_args(calls.LedgerCall)
              if kind not in WATCHERS_CALLS))
"""Everything that passes between two parties, or between a party and the ledger."""

SUBJECT = {one.name: one for one in SUBJECTS}


@dataclass(frozen=True, slots=True, order=True)
class Spot:
    """One occurrence in a life: the `nth` of its kind between these two that answers `about`.

    `cue` is the part of the life in which it leaves its source.
    """

    life: str
    cue: int
    source: str
    target: str
    kind: str
    about: str
    nth: int

    def __str__(self) -> str:
        answers = f" to {self.about}" if self.about else ""
        return f"{self.life}: {self.kind}{answers} {self.source}→{self.target} #{self.nth}"

    @property
    def place(self) -> tuple[str, str, str, str, str]:
        """The same for every repetition within a life."""
        return self.life, self.source, self.target, self.kind, self.about


@dataclass(frozen=True, slots=True)
class Death:
    """`victim` dies at `when`, and then `fate`."""

    victim: str
    when: When
    fate: Fate

    def __str__(self) -> str:
        return f"{self.victim} dies {self.when}, {self.fate}"


@dataclass(frozen=True, slots=True)
class Point:
    """Something that happens at one occurrence."""

    spot: Spot
    what: Death | Trouble

    def __str__(self) -> str:
        return f"{self.spot}: {self.what}"


def ends(spots: Iterable[Spot]) -> list[Spot]:
    """The first and the last occurrence of everything that a life repeats."""
    found: dict[tuple[str, str, str, str, str], list[Spot]] = {}
    for spot in spots:
        found.setdefault(spot.place, []).append(spot)
    return sorted({one for places in found.values() for one in (places[0], places[-1])})


def points(spot: Spot, parties: str, *, arrives: bool) -> Iterator[Point]:
    """Everything that can happen at `spot` in a life of `parties`.

    The source can die at all four moments. For the other end and for everybody else the commit
    that they do not make is no moment: the end dies as the message arrives, or after it has
    handled it and before what it answers leaves; the others while it passes. Of a message that
    never arrives in this life, only the first two moments are left.
    """
    for victim in parties:
        if victim == spot.source:
            moments = tuple(When)
        elif victim == spot.target:
            moments = (When.LOST, When.DELIVERED)
        else:
            moments = (When.DELIVERED,)
        for when in moments:
            if arrives or when in (When.BEFORE_COMMIT, When.AFTER_COMMIT):
                for fate in Fate:
                    yield Point(spot, Death(victim, when, fate))
    if arrives:
        for trouble in Trouble:
            yield Point(spot, trouble)
