# SPDX-License-Identifier: BSD-3-Clause
"""What the policies are for, on real relays of 2019 (see README.md beside this file)."""

from __future__ import annotations

import random
from collections import Counter
from fractions import Fraction
from functools import cache
from pathlib import Path

import pytest

from offchain.policy.tax import waterfilling
from offchain.policy.tax.distribution import POLICIES, plan
from tests.policy.networks import real_relays

TOTAL = 10**12
PROPORTIONAL, WATERFILLING, DIVERSE = "bandwidth-proportional", "waterfilling", "location-diverse"
RELAYS = real_relays()
PAGE = Path(__file__).parents[2] / "docs" / "tax.md"


@cache
def amounts(policy):
    """Units by relay."""
    entries = dict(plan(RELAYS, policy, 1, TOTAL).entries)
    return {relay: entries.get(relay.account, 0) for relay in RELAYS}


def share(policy, chosen):
    return sum(units for relay, units in amounts(policy).items() if chosen(relay)) / TOTAL


def relays_for_half(policy):
    """How few relays get half of the tax."""
    half, count = TOTAL / 2, 0
    for units in sorted(amounts(policy).values(), reverse=True):
        if half <= 0:
            break
        half, count = half - units, count + 1
    return count


def gini(values):
    ranked = sorted(values)
    count = len(ranked)
    weighted = sum((2 * i - count + 1) * value for i, value in enumerate(ranked))
    return Fraction(weighted, count * sum(ranked))


def by_location(policy):
    places = Counter()
    for relay, units in amounts(policy).items():
        places[relay.location] += units
    return places


def at_an_end(relay):
    return relay.is_guard or relay.is_exit


def guard_only(relay):
    return relay.is_guard and not relay.is_exit


@pytest.mark.parametrize("policy", POLICIES)
def test_exact_and_independent_of_order(policy):
    found = plan(RELAYS, policy, 1, TOTAL)
    assert sum(units for _, units in found.entries) == TOTAL
    shuffled = RELAYS[:]
    random.Random(1).shuffle(shuffled)
    assert plan(shuffled, policy, 1, TOTAL) == found
    assert found.tree().root == plan(shuffled, policy, 1, TOTAL).tree().root
    for other in set(POLICIES) - {policy}:
        assert plan(RELAYS, other, 1, TOTAL).tree().root != found.tree().root


def test_proportional_is_the_share_of_bandwidth():
    whole = sum(relay.bandwidth for relay in RELAYS)
    for relay, units in amounts(PROPORTIONAL).items():
        assert abs(units - Fraction(TOTAL * relay.bandwidth, whole)) < 1


def test_exits_are_scarce_and_counted_in_full():
    """As in the consensus itself: Wee = Wed = 10000."""
    found = waterfilling.levels(RELAYS)
    assert found.exit == max(relay.bandwidth for relay in RELAYS if relay.is_exit)
    assert 0 < found.guard < max(relay.bandwidth for relay in RELAYS if guard_only(relay))
    assert share(WATERFILLING, lambda relay: relay.is_exit) > 1.5 * share(
        PROPORTIONAL, lambda relay: relay.is_exit
    )


def small_and_at_an_end():
    """Which relays are in the lower half, by bandwidth, of those with Guard or Exit."""
    ends = sorted(relay.bandwidth for relay in RELAYS if at_an_end(relay))
    median = ends[len(ends) // 2]
    return lambda relay: at_an_end(relay) and relay.bandwidth <= median


def outside_the_largest_places():
    bandwidth = Counter()
    for relay in RELAYS:
        bandwidth[relay.location] += relay.bandwidth
    top = {place for place, _ in bandwidth.most_common(10)}
    return lambda relay: relay.location not in top


def test_waterfilling_raises_small_relays_at_the_ends():
    small = small_and_at_an_end()
    assert share(WATERFILLING, small) > 1.5 * share(PROPORTIONAL, small)
    assert share(WATERFILLING, at_an_end) == 1


def test_waterfilling_makes_guards_more_equal():
    """Every guard above the level gets the same, and half of the tax reaches more relays."""
    level = waterfilling.levels(RELAYS).guard
    large = [r for r in RELAYS if guard_only(r) and r.bandwidth >= level]
    assert len(large) > 50
    paid = [amounts(WATERFILLING)[relay] for relay in large]
    assert max(paid) - min(paid) <= 1
    assert relays_for_half(WATERFILLING) > 1.3 * relays_for_half(PROPORTIONAL)
    filled, proportional = (
        [units for relay, units in amounts(policy).items() if guard_only(relay)]
        for policy in (WATERFILLING, PROPORTIONAL)
    )
    assert gini(filled) < gini(proportional) - Fraction(1, 10)
    assert max(filled) < max(proportional) / 2


def test_location_diverse_raises_rare_places():
    rare = outside_the_largest_places()
    assert share(DIVERSE, rare) > 1.25 * share(PROPORTIONAL, rare)


def test_location_diverse_makes_places_more_equal():
    diverse, proportional = by_location(DIVERSE), by_location(PROPORTIONAL)
    assert gini(diverse.values()) < gini(proportional.values()) - Fraction(1, 10)
    assert max(diverse.values()) < max(proportional.values()) / 2
    assert relays_for_half(DIVERSE) > 2 * relays_for_half(PROPORTIONAL)
    # A place with more bandwidth still earns more.
    assert max(diverse, key=diverse.__getitem__) == max(proportional, key=proportional.__getitem__)


def test_the_figures_of_the_page():
    """The table in docs/tax.md is computed from this sample."""

    def row(figure, cells):
        return f"| {figure} | " + " | ".join(cells) + " |"

    def percent(figure, value):
        return row(figure, [f"{100 * value(policy):.1f} %" for policy in POLICIES])

    page = PAGE.read_text()
    for line in (
        percent(
            "slower half of the relays with Guard or Exit",
            lambda policy: share(policy, small_and_at_an_end()),
        ),
        percent("exits", lambda policy: share(policy, lambda relay: relay.is_exit)),
        percent(
            "places outside the ten largest",
            lambda policy: share(policy, outside_the_largest_places()),
        ),
        percent("the best-paid place", lambda policy: max(by_location(policy).values()) / TOTAL),
        row("relays that get half", [str(relays_for_half(policy)) for policy in POLICIES]),
    ):
        assert line in page, line
