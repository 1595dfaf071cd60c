# SPDX-License-Identifier: BSD-3-Clause
"""Relays for these tests: made up, arbitrary, and real ones of 2019."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from hashlib import sha1
from pathlib import Path

from eth_utils import keccak
from hypothesis import settings, strategies as st

from offchain.policy.tax import relay_list
from offchain.policy.tax.distribution import POLICIES
from offchain.policy.tax.facts import Relay

UNHURRIED = settings(deadline=None)
"""For every property here: how long an example takes depends on what else the machine does."""

REAL = Path(__file__).parent / "relays-2019-07-20.csv"
PLACES = ("10.1", "10.2", "10.3", "10.4")


def fingerprint(name: object) -> str:
    return sha1(str(name).encode()).hexdigest().upper()


def account(name: object) -> str:
    return "0x" + keccak(text=str(name))[-20:].hex()


def relay(name: object, bandwidth: int, flags: str = "", location: str = "10.1") -> Relay:
    """A relay with an account; `flags` holds G for guard, E for exit."""
    return Relay(fingerprint(name), account(name), bandwidth, "G" in flags, "E" in flags, location)


def real_relays() -> list[Relay]:
    """The sample of 2019, each relay with an account of its own."""
    listed = relay_list.read(REAL.read_text())
    return [replace(one, account=account(one.fingerprint)) for one in listed]


def shares(relays: Sequence[Relay], policy: str) -> dict[str, Fraction]:
    """Exact share by fingerprint, before any rounding, were all relays paid."""
    weights = POLICIES[policy](relays)
    whole = sum(weights.values())
    return {key: Fraction(weight, whole) for key, weight in weights.items()}


bandwidths = st.one_of(st.integers(0, 40), st.integers(0, 2**32 - 1))
flags = st.sampled_from(["", "G", "E", "GE"])


@st.composite
def networks(draw, min_size=1, max_size=14):
    """Relays with any flags, some without account or bandwidth, several with one account."""
    size = draw(st.integers(min_size, max_size))
    found = []
    for number in range(size):
        one = relay(number, draw(bandwidths), draw(flags), draw(st.sampled_from(PLACES)))
        payee = draw(st.sampled_from([None, *map(account, range(size))]))
        found.append(replace(one, account=payee))
    return found


def in_parts(one: Relay, cuts: Sequence[int]) -> list[Relay]:
    """The relay as several of the same bandwidth in sum, cut at these points below its own."""
    edges = [0, *sorted(cuts), one.bandwidth]
    return [
        replace(
            one,
            fingerprint=fingerprint(f"part {number}"),
            account=account(f"part {number}"),
            bandwidth=upper - lower,
        )
        for number, (lower, upper) in enumerate(zip(edges, edges[1:], strict=False))
    ]


@st.composite
def splits(draw, max_parts=6):
    """A network, one of its relays, and that relay in two or more parts."""
    relays = draw(networks())
    one = draw(st.sampled_from(relays))
    cut = st.integers(0, one.bandwidth)
    return relays, one, in_parts(one, draw(st.lists(cut, min_size=1, max_size=max_parts - 1)))
