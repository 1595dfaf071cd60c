# SPDX-License-Identifier: BSD-3-Clause
"""Needs and levels against what defines them."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, assume, given, settings, strategies as st

from offchain.policy.tax.waterfilling import NAME, levels, needs, water_level, weights
from tests.policy.networks import UNHURRIED, networks, relay, shares, splits

small = st.integers(0, 4)


def by_flags(relays):
    sums = {(g, e): 0 for g in (False, True) for e in (False, True)}
    for one in relays:
        sums[one.is_guard, one.is_exit] += one.bandwidth
    return sums[True, False], sums[False, True], sums[True, True], sums[False, False]


def endpoint_use(relays):
    found = levels(relays)
    return {one: min(Fraction(one.bandwidth), found.of(one)) for one in relays}


@settings(UNHURRIED, max_examples=300)
@given(small, small, small, small)
def test_needs_are_the_most_even_that_flags_allow(guards, exits, both, middles):
    """All divisions of the bandwidth over the three positions, in sixths, compared."""
    g, e, d, m = (6 * bandwidth for bandwidth in (guards, exits, both, middles))
    best = max(
        sorted([guard, out, g + e + d + m - guard - out]) + [guard, out]
        for guard in range(g + d + 1)
        for out in range(min(e + d, g + e + d - guard) + 1)
    )
    assert needs(guards, exits, both, middles) == (Fraction(best[3], 6), Fraction(best[4], 6))


def test_needs_of_the_real_network():
    """Sums of the consensus of 2019-07-20 21:00, whose own line says Wgg=5656 Wgd=0 Wee=10000
    Wed=10000: exits are scarce."""
    guards, exits, both, middles = 44_910_490, 1_916_133, 13_954_602, 5_886_625
    guard_need, exit_need = needs(guards, exits, both, middles)
    assert abs(guard_need / guards - Fraction(5656, 10_000)) < Fraction(1, 10_000)
    assert exit_need == exits + both


def test_a_level():
    assert water_level([1, 10, 4], Fraction(9)) == 4
    assert water_level([10, 10, 10], Fraction(10)) == Fraction(10, 3)
    assert water_level([1, 2], Fraction(3)) == 2
    assert water_level([], Fraction(0)) == 0


@UNHURRIED
@given(networks())
def test_the_ends_carry_what_the_positions_need(relays):
    guard_need, exit_need = needs(*by_flags(relays))
    use = endpoint_use(relays)
    assert sum(use.values()) == guard_need + exit_need
    assert sum(u for one, u in use.items() if one.is_guard and not one.is_exit) <= guard_need
    assert sum(u for one, u in use.items() if one.is_exit and not one.is_guard) <= exit_need
    assert all(u == 0 for one, u in use.items() if not (one.is_guard or one.is_exit))


@settings(UNHURRIED, max_examples=300)
@given(networks())
def test_no_assignment_is_more_even(relays):
    """Nothing can be moved from a relay to one that carries less and has bandwidth left, unless
    the other's only position is full of relays that can serve no other."""
    guard_need, exit_need = needs(*by_flags(relays))
    use = endpoint_use(relays)
    groups = {
        flags: [one for one in relays if (one.is_guard, one.is_exit) == flags]
        for flags in ((True, False), (False, True))
    }
    full = {
        (True, False): sum(use[one] for one in groups[True, False]) == guard_need,
        (False, True): sum(use[one] for one in groups[False, True]) == exit_need,
    }
    for giver in relays:
        for taker in relays:
            if use[giver] <= use[taker] or use[taker] == taker.bandwidth:
                continue
            flags = (taker.is_guard, taker.is_exit)
            if flags != (False, False):
                assert full.get(flags) and (giver.is_guard, giver.is_exit) != flags


@UNHURRIED
@given(networks())
def test_weights_are_the_use_in_one_unit(relays):
    use, found = endpoint_use(relays), weights(relays)
    assert all(isinstance(weight, int) for weight in found.values())
    for one in relays:
        for other in relays:
            assert use[one] * found[other.fingerprint] == use[other] * found[one.fingerprint]
    assert any(found.values()) == any(use.values())


def test_relays_above_the_level_get_the_same():
    network = [relay("a", 100, "G"), relay("b", 5_000, "G"), relay("c", 9_000, "G")]
    network += [relay("d", 3_000, "E"), relay("e", 100)]
    found = shares(network, NAME)
    # t = 17200/3 > 3000: exits are scarce. Guards need (17200 - 3000)/2 = 7100 = 100 + 2 * 3500.
    assert levels(network).guard == 3_500
    assert list(found.values()) == [Fraction(n, 10_100) for n in (100, 3_500, 3_500, 3_000, 0)]


def test_both_flags_serve_the_scarcer_end():
    network = [relay("a", 90, "G"), relay("b", 60, "GE"), relay("c", 3, "E"), relay("d", 90, "G")]
    # T = 243, t = 81 > 63: exits need all of 63, guards (243 - 63)/2 = 90 of 180.
    assert levels(network).guard == 45
    assert list(shares(network, NAME).values()) == [Fraction(n, 153) for n in (45, 60, 3, 45)]


@UNHURRIED
@given(networks())
def test_a_second_flag_never_weighs_less(relays):
    use = endpoint_use(relays)
    for one in relays:
        for other in relays:
            more_flags = one.is_guard >= other.is_guard and one.is_exit >= other.is_exit
            if one.bandwidth == other.bandwidth and more_flags:
                assert use[one] >= use[other]


@settings(UNHURRIED, max_examples=300)
@given(splits())
def test_splitting_never_loses_and_merging_never_gains(case):
    """One relay against the same bandwidth in parts with its flags."""
    relays, one, parts = case
    assume(any(weights(relays).values()))
    rest = [other for other in relays if other is not one]
    whole, apart = shares(relays, NAME), shares(rest + parts, NAME)
    together = sum(apart[part.fingerprint] for part in parts)
    assert together >= whole[one.fingerprint]
    if one.bandwidth <= levels(relays).of(one):
        assert together == whole[one.fingerprint]
    assert all(apart[other.fingerprint] <= whole[other.fingerprint] for other in rest)


@pytest.mark.parametrize("parts", [2, 3])
def test_splitting_above_the_level_gains(parts):
    """What the policy says of itself: it cannot tell many relays from many operators."""
    network = [relay("big", 6_000, "G"), *(relay(i, 1_000, "G") for i in range(6))]
    network += [relay("exit", 4_000, "E"), relay("middle", 1_000)]
    split = [relay(f"part {i}", 6_000 // parts, "G") for i in range(parts)] + network[1:]
    alone = shares(network, NAME)[network[0].fingerprint]
    together = sum(shares(split, NAME)[one.fingerprint] for one in split[:parts])
    assert together > alone


@settings(UNHURRIED, max_examples=200, suppress_health_check=[HealthCheck.filter_too_much])
@given(networks(min_size=4), st.integers(1, 2**31), st.data())
def test_a_claim_above_the_level_lifts_it_little(relays, claim, data):
    """By less than the claim, shared among all relays that the new level still caps."""
    found = levels(relays)
    capped = [one for one in relays if 0 < found.of(one) < one.bandwidth < 2**32 - claim]
    assume(capped)
    one = data.draw(st.sampled_from(capped))
    raised = replace(one, bandwidth=one.bandwidth + claim)
    network = [raised if other is one else other for other in relays]
    new = levels(network)
    alike = sum(
        found.of(other) == found.of(one) and new.of(other) == new.of(raised) <= other.bandwidth
        for other in network
    )
    assert new.of(raised) - found.of(one) < Fraction(claim, alike)
