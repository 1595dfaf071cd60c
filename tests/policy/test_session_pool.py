# SPDX-License-Identifier: BSD-3-Clause
"""The number of sessions that are kept ready, against its definition."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, strategies as st

from offchain.policy.session_pool import (
    FEWEST,
    MEMORY_SECONDS,
    MOST,
    WINDOW_SECONDS,
    Demand,
    ready_sessions,
    share,
)

# Gaps of all the sizes that matter: within a window, across its end, across the hour's.
GAPS = st.one_of(st.integers(0, 3), st.integers(0, 130), st.sampled_from([60, 3540, 3600, 3601]))


def by_definition(openings: list[int], now: int) -> int:
    ends = [one for one in openings if now - MEMORY_SECONDS < one <= now]
    return max((sum(end - WINDOW_SECONDS < one <= end for one in openings) for end in ends),
               default=0)


@given(st.lists(GAPS, max_size=60), st.lists(st.booleans(), min_size=60, max_size=60), GAPS)
def test_the_peak_is_that_of_the_definition(gaps, asked, rest):
    openings = list(itertools.accumulate(gaps, initial=1000))
    demand = Demand()
    for count, (at, ask) in enumerate(zip(openings, [*asked, True], strict=False), 1):
        demand.opened(at)
        if ask:
            assert demand.peak(at) == by_definition(openings[:count], at)
    now = openings[-1] + rest
    assert demand.peak(now) == by_definition(openings, now)


def test_a_window_is_open_at_its_beginning():
    demand = Demand()
    demand.opened(0)
    demand.opened(60)
    assert demand.peak(60) == 1
    demand.opened(119)
    assert demand.peak(119) == 2
    assert demand.peak(119 + 3599) == 2 and demand.peak(119 + 3600) == 0


def test_time_does_not_go_back():
    demand = Demand()
    demand.opened(10)
    with pytest.raises(ValueError, match="before"):
        demand.opened(9)


def test_what_is_kept_does_not_grow_with_the_history():
    demand = Demand()
    for number in range(200_000):
        demand.opened(number * 1.5)
    assert demand.peak(200_000 * 1.5) == 40
    assert len(demand._window) <= 40 and len(demand._peaks) <= 41


@given(st.integers(0, 10_000))
def test_ready_sessions_are_bounded(peak):
    found = ready_sessions(peak)
    assert FEWEST <= found <= MOST
    assert found == peak or found in (FEWEST, MOST)


@given(st.integers(FEWEST, MOST), st.integers(1, 20))
def test_shares_cover_the_target_and_each_pays_a_circuit(target, intermediaries):
    found = share(target, intermediaries)
    assert found * intermediaries >= target and found >= 2
    assert found <= max(2, target)
