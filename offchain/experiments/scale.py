# SPDX-License-Identifier: BSD-3-Clause
"""What a Nano-Setup costs an intermediary that has served many sessions, in time and on disk.

Nothing of a step depends on how many sessions there were, but for the depth of one tree, which
grows by a page for every hundredfold. The measurement shows whether that is so.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..crypto.curve import backend
from .stopwatch import stopwatch
from .stored import StoredIntermediary

SIZES = (10**3, 10**4, 10**5, 10**6)
_WARMING = 12
_STEPS = ("NanoSetupRequest", "NanoSetupReveal")


@dataclass(frozen=True, slots=True)
class Size:
    """An intermediary after so many `sessions`.

    `bytes_per_session` and `rows_per_session` are on disk, `depth` is that of the tree of records.
    Of one Nano-Setup at the intermediary: processor time `setup_ms`, the same in pairing checks
    of the same moment, and the `pages` that it writes.
    """

    sessions: int
    rows_per_session: int
    bytes_per_session: float
    depth: int
    setup_ms: float
    setup_ratio: float
    pages: float


def sizes_up_to(sessions: int) -> tuple[int, ...]:
    """The sizes that are measured on the way to so many sessions."""
    return (*(size for size in SIZES if size < sessions), sessions)


def measure_scale(sizes: Sequence[int] = SIZES, runs: int = 40, folder: Path | None = None,
                  progress: Callable[[Size], None] = lambda size: None) -> list[Size]:
    """Fill a database to each of the ascending `sizes` and set sessions up on top of it.

    A million sessions take 4 GB of disk in `folder` and some minutes.
    """
    found = []
    with tempfile.TemporaryDirectory(dir=folder, prefix="monetor-scale-") as place:
        one = StoredIntermediary(Path(place) / "store.sqlite")
        try:
            for _ in range(min(_WARMING, runs)):
                one.session()
            empty, filled = one.store.disk().bytes, 0
            for sessions in sizes:
                one.fill(sessions - filled)
                filled = sessions
                found.append(_measure(one, sessions, empty, runs))
                progress(found[-1])
        finally:
            one.close()
    return found


def _measure(one: StoredIntermediary, sessions: int, empty: int, runs: int) -> Size:
    disk = one.store.disk()
    curve = backend()
    setups, ratios, pages = [], [], []
    for number in range(2 * runs):
        one.counting = number < runs
        one.touched.clear()
        terms_hash = one.setup()
        steps = [step for step in one.touched if step.step in _STEPS]
        if one.counting:
            pages.append(sum(step.pages for step in steps))
        else:
            setups.append(sum(step.ms for step in steps))
            # At once, since the clock of a shared machine does not stay the same for long.
            with stopwatch() as span:
                curve.pairing_equal(curve.g1, curve.g2, curve.g1, curve.g2)
            ratios.append(setups[-1] / span.ms)
        one.finish(terms_hash)
    return Size(sessions, one.rows_per_session, (disk.bytes - empty) / sessions, disk.depth,
                statistics.median(setups), statistics.median(ratios), statistics.fmean(pages))
