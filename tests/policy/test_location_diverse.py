# SPDX-License-Identifier: BSD-3-Clause
"""Bandwidth is worth more where there is little of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from decimal import Decimal, localcontext
from fractions import Fraction

from hypothesis import given, settings, strategies as st

from offchain.policy.tax.location_diverse import NAME, weights
from tests.policy.networks import PLACES, UNHURRIED, networks, relay, shares, splits


@UNHURRIED
@given(networks())
def test_the_formula(relays):
    """b/√B in decimals of seventy digits."""
    crowd = Counter()
    for one in relays:
        crowd[one.location] += one.bandwidth
    found = weights(relays)
    with localcontext(prec=70):
        for one in relays:
            if not one.bandwidth:
                assert found[one.fingerprint] == 0
                continue
            exact = Decimal(one.bandwidth) / Decimal(crowd[one.location]).sqrt() * 2**96
            assert exact * (1 - Decimal(2) ** -60) <= found[one.fingerprint] <= exact


@settings(UNHURRIED, max_examples=300)
@given(splits())
def test_splitting_at_one_place_changes_nothing(case):
    """Nor merging: to the last digit of the weight, for the relay and for everybody else."""
    relays, one, parts = case
    rest = [other for other in relays if other is not one]
    whole, apart = weights(relays), weights(rest + parts)
    assert sum(apart[part.fingerprint] for part in parts) == whole[one.fingerprint]
    assert all(apart[other.fingerprint] == whole[other.fingerprint] for other in rest)


def test_four_times_the_bandwidth_at_one_place_earns_twice():
    found = shares([relay("a", 400), relay("b", 100, location="10.2")], NAME)
    assert [round(float(share), 9) for share in found.values()] == [0.666666667, 0.333333333]


def test_spreading_over_four_empty_places_doubles_the_weight():
    one = weights([relay("a", 4_096)])
    four = weights([relay(place, 1_024, location=place) for place in PLACES])
    assert sum(four.values()) == 2 * sum(one.values())


def test_slow_relays_at_many_places_do_not_take_nearly_everything():
    """A hundred rented addresses with 1 KB/s each against one honest place: with an equal share
    for every place the place would keep 1 %."""
    honest = relay("honest", 10_000)
    rented = [relay(i, 1, location=f"20.{i}") for i in range(100)]
    share = shares([honest, *rented], NAME)[honest.fingerprint]
    assert abs(share - Fraction(1, 2)) < Fraction(1, 10**9)


def test_a_newcomer_lowers_the_rate_of_neighbours_alone():
    neighbour, distant = relay("a", 1_024), relay("b", 1_024, location="10.2")
    before = weights([neighbour, distant])
    after = weights([neighbour, distant, relay("c", 3_072)])
    assert 2 * after[neighbour.fingerprint] == before[neighbour.fingerprint]
    assert after[distant.fingerprint] == before[distant.fingerprint]


@settings(UNHURRIED, max_examples=300)
@given(networks(), st.one_of(st.just(1), st.integers(1, 2**32)), st.data())
def test_more_bandwidth_always_weighs_more(relays, more, data):
    one = data.draw(st.sampled_from(relays))
    raised = replace(one, bandwidth=min(one.bandwidth + more, 2**32 - 1))
    network = [raised if other is one else other for other in relays]
    before, after = weights(relays), weights(network)
    if raised != one:
        assert after[one.fingerprint] > before[one.fingerprint]
    assert all(after[key] <= before[key] for key in before if key != one.fingerprint)
