# SPDX-License-Identifier: BSD-3-Clause
"""The machines over real databases, killed around a commit, and started again from the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from monetor_chain.rehearsal import Rehearsal
from offchain.crypto.issuer import IssuerKey
from tests.protocol.crash_lives import LIVES, Life, occurrences, play
from tests.protocol.crash_points import Death, Fate, Point, When, points
from tests.protocol.crash_store import StoreRig
from tests.protocol.world import open_world

FATES = (Fate.AT_ONCE, Fate.LATE, Fate.WATCHED)
"""Those that come back."""


class Stand:
    """The rig, and every point at which the sender dies around its commit and comes back."""

    def __init__(self) -> None:
        self.rig = open_world(Rehearsal(), IssuerKey.generate(), StoreRig)
        self.rig.remember()
        self.rig.counts.clear()
        self.base = [self.rig.save()]
        found = occurrences(self.rig, self.base)
        self.points = [(life, point) for life in LIVES for spot, arrives in found[life.name]
                       for point in points(spot, life.parties, arrives=arrives)
                       if isinstance(point.what, Death) and point.what.fate in FATES
                       and point.what.victim == spot.source]

    def kill(self, life: Life, point: Point, folder: Path) -> None:
        rig = self.rig
        folder.mkdir(parents=True)
        rig.use(folder)
        try:
            rig.point = point
            play(rig, life)
            rig.finish()
            rig.check()
            assert rig.struck and rig.reopened == 1, point
        finally:
            rig.put_away()
            rig.load(self.base[0])
            self.base[0] = rig.save()


@pytest.fixture(scope="module")
def stand() -> Stand:
    return Stand()


def test_a_sample_killed_after_the_commit(stand: Stand, tmp_path: Path) -> None:
    """In every second life: committed, and nothing of it delivered."""
    for number, life in enumerate(LIVES[::2]):
        mine = [point for owner, point in stand.points if owner is life and (
            point.what.when is When.AFTER_COMMIT) and point.what.fate is Fate.AT_ONCE]
        stand.kill(life, mine[number * 7 % len(mine)], tmp_path / str(number))


@pytest.mark.long
@pytest.mark.parametrize("when", list(When))
def test_killed_at_every_message_and_opened_again(
        stand: Stand, tmp_path: Path, when: When) -> None:
    for number, (life, point) in enumerate(stand.points):
        if point.what.when is when and (
                point.what.fate is Fate.AT_ONCE or number % 4 == 0):
            stand.kill(life, point, tmp_path / str(number))
