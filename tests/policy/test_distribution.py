# SPDX-License-Identifier: BSD-3-Clause
"""From public inputs to the root: nothing lost, nothing depends on order, all recomputable."""

from __future__ import annotations

from dataclasses import replace

import pytest
from eth_utils import keccak
from hypothesis import assume, given, strategies as st

from monetor_chain.tax_tree import verify
from offchain.policy.tax.distribution import POLICIES, inputs, plan
from offchain.policy.tax.errors import PolicyError
from tests.policy.networks import UNHURRIED, account, fingerprint, networks, relay, shares, splits

NAMES = ("bandwidth-proportional", "waterfilling", "location-diverse")
names = st.sampled_from(NAMES)
totals = st.one_of(st.integers(1, 60), st.integers(1, 10**15))


def paid(relays, policy):
    """Relays that the policy's own description says it pays."""
    return [
        one
        for one in relays
        if one.account and one.bandwidth
        and (policy != "waterfilling" or one.is_guard or one.is_exit)
    ]  # fmt: skip


def test_the_published_names():
    assert tuple(POLICIES) == NAMES


@UNHURRIED
@given(networks(), names, st.integers(0, 2**64), totals)
def test_every_unit_reaches_somebody_who_is_paid(relays, policy, epoch, total):
    payees = {one.account for one in paid(relays, policy)}
    assume(payees)
    found = plan(relays, policy, epoch, total)
    assert (found.epoch, found.policy, found.total) == (epoch, policy, total)
    assert sum(units for _, units in found.entries) == total
    assert all(units > 0 for _, units in found.entries)
    accounts = [payee for payee, _ in found.entries]
    assert accounts == sorted(set(accounts))
    assert set(accounts) <= payees


@UNHURRIED
@given(networks(), names, totals, st.randoms())
def test_order_does_not_matter(relays, policy, total, order):
    assume(paid(relays, policy))
    shuffled = list(relays)
    order.shuffle(shuffled)
    assert plan(shuffled, policy, 3, total) == plan(relays, policy, 3, total)


@UNHURRIED
@given(networks(), names, totals)
def test_relays_of_one_account_make_one_entry(relays, policy, total):
    """The sum of what they get with an account each."""
    assume(paid(relays, policy))
    apart = [
        replace(one, account=account(one.fingerprint) if one.account else None) for one in relays
    ]
    each = dict(plan(apart, policy, 3, total).entries)
    expected: dict[str, int] = {}
    for one, own in zip(relays, apart, strict=True):
        if units := each.get(own.account, 0):
            expected[one.account] = expected.get(one.account, 0) + units
    assert dict(plan(relays, policy, 3, total).entries) == expected


@UNHURRIED
@given(networks(), names, totals)
def test_amounts_are_the_shares_among_those_who_are_paid(relays, policy, total):
    relays = [replace(one, account=account(one.fingerprint)) for one in relays]
    assume(paid(relays, policy))
    amounts = dict(plan(relays, policy, 3, total).entries)
    for key, share in shares(relays, policy).items():
        assert abs(amounts.get(account(key), 0) - share * total) < 1


@UNHURRIED
@given(networks(), names, st.integers(1, 10**9))
def test_the_better_of_two_alike_never_gets_less(relays, policy, total):
    relays = [replace(one, account=account(one.fingerprint)) for one in relays]
    assume(paid(relays, policy))
    amounts = dict(plan(relays, policy, 3, total).entries)
    for one in relays:
        for other in relays:
            alike = (one.is_guard, one.is_exit, one.location) == (
                other.is_guard, other.is_exit, other.location,
            )  # fmt: skip
            if alike and one.bandwidth > other.bandwidth:
                assert amounts.get(one.account, 0) >= amounts.get(other.account, 0)


@UNHURRIED
@given(splits(), st.sampled_from(["bandwidth-proportional", "location-diverse"]), totals)
def test_splitting_at_one_place_gains_rounding_at_most(case, policy, total):
    """Less than one unit for every part, and one for the whole."""
    relays, one, parts = case
    paid_apart = [replace(r, account=account(r.fingerprint)) for r in relays if r is not one]
    alone = replace(one, account=account("alone"))
    assume(paid([*paid_apart, alone], policy))
    whole = dict(plan([*paid_apart, alone], policy, 3, total).entries).get(alone.account, 0)
    apart = dict(plan(paid_apart + parts, policy, 3, total).entries)
    together = sum(apart.get(part.account, 0) for part in parts)
    assert abs(together - whole) < len(parts) + 1


@pytest.mark.parametrize(
    ("policy", "without", "beside"),
    [
        ("bandwidth-proportional", 50, 50),
        ("location-diverse", 33, 67),  # 1/√400 : 1/√100
        ("waterfilling", 50, 50),
    ],
)
def test_relays_without_account_are_part_of_the_network(policy, without, beside):
    unpaid = replace(relay("x", 300, "GE"), account=None)
    network = [relay("a", 100, "GE"), relay("b", 100, "GE", location="10.2"), unpaid]
    amounts = dict(plan(network, policy, 1, 100).entries)
    assert amounts == {account("a"): without, account("b"): beside}


def test_rounding_by_hand():
    """Three equal relays and 100 units: the odd one goes to the lowest fingerprint."""
    network = [relay(name, 7) for name in "abc"]
    first = min("abc", key=fingerprint)
    amounts = dict(plan(network, "bandwidth-proportional", 1, 100).entries)
    assert amounts == {account(name): 34 if name == first else 33 for name in "abc"}


def test_amounts_that_round_to_nothing_are_no_entries():
    network = [relay("a", 2**32 - 1), relay("b", 1)]
    assert plan(network, "bandwidth-proportional", 1, 10).entries == ((account("a"), 10),)


# --- Recomputing ----------------------------------------------------------------------------------


def test_the_inputs_written_out():
    network = [
        replace(relay("b", 20, "G", "10.2"), fingerprint="B" * 40, account=None),
        replace(relay("a", 100, "E"), fingerprint="a" * 40, account="0x" + "AB" * 20),
    ]
    text = (
        "moneTor tax inputs 1\n"
        "policy waterfilling\n"
        "epoch 12\n"
        "total 1000\n"
        "fingerprint,account,bandwidth,guard,exit,location\n"
        f"{'A' * 40},0x{'ab' * 20},100,0,1,10.1\n"
        f"{'B' * 40},,20,1,0,10.2\n"
    )
    assert inputs(network, "waterfilling", 12, 1000) == text.encode()
    assert plan(network, "waterfilling", 12, 1000).inputs_hash == keccak(text=text)


def test_every_input_counts():
    network = [relay("a", 100, "GE"), relay("b", 100, "G", "10.2")]
    changed = [
        (network, "waterfilling", 1, 1_000),
        (network, "location-diverse", 1, 1_000),
        (network, "waterfilling", 2, 1_000),
        (network, "waterfilling", 1, 1_001),
        (network[:1], "waterfilling", 1, 1_000),
        ([network[0], replace(network[1], bandwidth=101)], "waterfilling", 1, 1_000),
        ([network[0], replace(network[1], account=account("c"))], "waterfilling", 1, 1_000),
        ([network[0], replace(network[1], account=None)], "waterfilling", 1, 1_000),
        ([network[0], replace(network[1], is_exit=True)], "waterfilling", 1, 1_000),
        ([network[0], replace(network[1], is_guard=False)], "waterfilling", 1, 1_000),
        ([network[0], replace(network[1], location="10.3")], "waterfilling", 1, 1_000),
        ([network[0], replace(network[1], fingerprint=fingerprint(9))], "waterfilling", 1, 1_000),
    ]
    assert len({plan(*case).inputs_hash for case in changed}) == len(changed)


@UNHURRIED
@given(networks(), names, totals)
def test_every_entry_can_be_claimed(relays, policy, total):
    assume(paid(relays, policy))
    found = plan(relays, policy, 5, total)
    tree = found.tree()
    assert len(tree) == len(found.entries)
    for index, (payee, units) in enumerate(found.entries):
        assert verify(tree.root, tree.proof(index), 5, index, payee, units)
        assert not verify(tree.root, tree.proof(index), 5, index, payee, units + 1)
        assert not verify(tree.root, tree.proof(index), 6, index, payee, units)


# --- Refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "epoch", "total", "message"),
    [
        ("taps", 1, 10, "no policy 'taps'; there are bandwidth-proportional, waterfilling, loc"),
        ("waterfilling", -1, 10, "epoch -1"),
        ("waterfilling", 2**256, 10, "no uint256"),
        ("waterfilling", 1, 0, "total of 0"),
        ("waterfilling", 1, -5, "total of -5"),
        ("waterfilling", 1, 2**256, "cannot be distributed"),
        ("waterfilling", 1, 10, "waterfilling pays none of the 2 relays"),
    ],
)
def test_what_cannot_be_planned(policy, epoch, total, message):
    network = [relay("a", 5), replace(relay("b", 5, "G"), account=None)]
    with pytest.raises(PolicyError, match=message):
        plan(network, policy, epoch, total)


@pytest.mark.parametrize("policy", NAMES)
def test_nobody_is_paid_for_nothing(policy):
    with pytest.raises(PolicyError, match="pays none of the 0 relays"):
        plan([], policy, 1, 10)
    with pytest.raises(PolicyError, match="pays none of the 1 relays"):
        plan([relay("a", 0, "GE")], policy, 1, 10)


@pytest.mark.parametrize("policy", NAMES)
def test_a_relay_counts_once(policy):
    with pytest.raises(PolicyError, match="listed twice"):
        plan([relay("a", 5, "G"), relay("a", 6, "G")], policy, 1, 10)
