# SPDX-License-Identifier: BSD-3-Clause
"""Which coin is used, and when more are opened."""

from __future__ import annotations

from hypothesis import given, strategies as st

from offchain.policy.coins import (
    Coin,
    Load,
    Supply,
    choose_coin,
    choose_intermediary,
    group_size,
    runs_out,
)

KEYS = [bytes([one]) * 32 for one in range(5)]
LOADS = st.dictionaries(st.sampled_from(KEYS), st.builds(
    Load, st.integers(0, 3), st.integers(0, 3)))
COINS = st.lists(
    st.builds(Coin, st.integers(0, 4 * 256), st.integers(0, 5), st.booleans()),
    unique_by=lambda one: one.cid, max_size=20)


def any_of(data):
    return lambda among: data.draw(st.sampled_from(list(among)))


@given(st.data(), st.sets(st.sampled_from(KEYS)), LOADS)
def test_the_intermediary_is_one_that_both_have(data, accepted, loads):
    chosen = choose_intermediary(accepted, loads, any_of(data))
    shared = accepted & set(loads)
    if not shared:
        assert chosen is None
        return
    assert chosen in shared
    with_ready = {one for one in shared if loads[one].ready}
    assert chosen in (with_ready or shared)
    assert loads[chosen].in_use == min(loads[one].in_use for one in (with_ready or shared))


@given(st.data(), COINS, st.dictionaries(st.integers(0, 4), st.integers(0, 3)), st.integers(0, 6))
def test_the_coin_can_pay_has_rested_and_spreads_the_load(data, coins, busy, cost):
    chosen = choose_coin(coins, busy, cost, any_of(data))
    able = [one for one in coins if one.rested and one.balance >= cost]
    if not able:
        assert chosen is None
        return
    assert chosen in able
    for other in able:
        assert busy.get(chosen.group, 0) <= busy.get(other.group, 0)
        if other.group == chosen.group:
            assert chosen.balance >= other.balance


@given(COINS, st.integers(0, 6))
def test_all_that_are_equally_good_are_offered(coins, cost):
    """Nothing but chance decides among equals, else a client could be told by its habit."""
    seen = []
    choose_coin(coins, {}, cost, lambda among: seen.extend(among) or among[0])
    able = [one for one in coins if one.rested and one.balance >= cost]
    best = max((one.balance for one in able), default=0)
    assert sorted(one.cid for one in seen) == sorted(
        one.cid for one in able if one.balance == best)


@given(st.builds(Supply, *[st.integers(0, 5)] * 4), st.integers(2, 12))
def test_another_group_is_due_when_what_there_is_falls_short(supply, target):
    assert runs_out(supply, target) == (
        supply.ready + supply.setting_up + supply.able + supply.returning < target)


@given(st.integers(2, 12), st.integers(-3, 400))
def test_a_group_is_large_enough_for_the_prediction_and_affordable(target, affordable):
    size = group_size(target, affordable)
    assert 0 <= size <= 256
    assert size <= max(0, affordable)
    assert size == min(3 * target, max(0, affordable))
