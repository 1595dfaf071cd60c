# SPDX-License-Identifier: BSD-3-Clause
"""Whole units for whole weights."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given, strategies as st

from offchain.policy.tax.apportion import apportion
from tests.policy.networks import UNHURRIED

weights = st.dictionaries(
    st.text("abc", min_size=1, max_size=4),
    st.one_of(st.integers(0, 5), st.integers(0, 2**140)),
    max_size=20,
)
totals = st.one_of(st.integers(0, 50), st.integers(0, 2**90))


@UNHURRIED
@given(totals, weights)
def test_not_one_unit_is_lost_or_made(total, given_weights):
    amounts = apportion(total, given_weights)
    assert amounts.keys() == given_weights.keys()
    whole = sum(given_weights.values())
    assert sum(amounts.values()) == (total if whole else 0)
    for key, weight in given_weights.items():
        share = Fraction(total * weight, whole) if whole else 0
        assert abs(amounts[key] - share) < 1
        assert weight or not amounts[key]


@UNHURRIED
@given(totals, weights)
def test_a_greater_weight_never_gets_less(total, given_weights):
    amounts = apportion(total, given_weights)
    ranked = sorted(given_weights, key=lambda key: given_weights[key])
    for less, more in zip(ranked, ranked[1:], strict=False):
        if given_weights[less] < given_weights[more]:
            assert amounts[less] <= amounts[more]


@UNHURRIED
@given(totals, weights, st.randoms())
def test_order_does_not_matter(total, given_weights, order):
    keys = list(given_weights)
    order.shuffle(keys)
    assert apportion(total, {key: given_weights[key] for key in keys}) == apportion(
        total, given_weights
    )


@UNHURRIED
@given(totals, weights, st.integers(1, 2**40))
def test_a_greater_own_weight_never_lowers_the_own_amount(total, given_weights, more):
    before = apportion(total, given_weights)
    for key in given_weights:
        raised = {**given_weights, key: given_weights[key] + more}
        assert apportion(total, raised)[key] >= before[key]


def test_equal_remainders_go_by_key():
    assert apportion(100, {"c": 1, "a": 1, "b": 1}) == {"a": 34, "b": 33, "c": 33}


def test_the_largest_remainder_comes_first():
    """Shares 1.4, 1.5 and 7.1: the one unit left belongs to 1.5."""
    assert apportion(10, {"a": 14, "b": 15, "c": 71}) == {"a": 1, "b": 2, "c": 7}
