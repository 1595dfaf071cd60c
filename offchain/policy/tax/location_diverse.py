# SPDX-License-Identifier: BSD-3-Clause
"""Policy `location-diverse`: bandwidth is worth more where there is little of it.

    weight of relay i at location l = b_i / √B_l,   B_l = sum of b over all relays at l

So a location counts √B_l: four times the bandwidth at one place earns twice as much, and within
the place it is divided by bandwidth. A place that holds much of the network can watch or lose much
of it at once; Tor keeps relays of one /16 out of one circuit for that reason (path-spec, "Path
selection and constraints"). Paying by place is ours, and so is the square root. It stands midway,
in exponents, between two rules that fail: with B_l itself nothing is gained by moving to a rare
place, and with an equal share for every place one slow relay at each of many rented addresses
would take nearly everything.

- Splitting at one place, with the same bandwidth in sum, changes no share: B_l stays, and weights
  at a place add up. The same holds for merging.
- Spreading the bandwidth evenly over k places where nobody else is multiplies the weight by √k.
  That is what the policy buys. It costs addresses in k networks, and is worth nothing without
  bandwidth: at a place of its own a relay weighs √b.
- A newcomer lowers what neighbours get for a KB/s, and bandwidth claimed falsely takes it from
  neighbours first. More bandwidth, other things equal, always weighs more.
- A false location gains as much as the true one is crowded: it must come from the address that
  the authorities reach, not from the relay.

The rate 1/√B_l is taken as the integer ⌊√(2^192 / B_l)⌋, at most 2^-63 of its value too low.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import isqrt

from .facts import Relay

NAME = "location-diverse"

_SCALE = 2**192
"""Large enough that rounding the rate never outweighs one KB/s, B_l being far below 2^64."""


def weights(relays: Sequence[Relay]) -> dict[str, int]:
    """Weight by fingerprint, of every relay, in 2^-96 of √(KB/s)."""
    crowd: Counter[str] = Counter()
    for relay in relays:
        crowd[relay.location] += relay.bandwidth
    rates = {place: isqrt(_SCALE // total) for place, total in crowd.items() if total}
    return {relay.fingerprint: relay.bandwidth * rates.get(relay.location, 0) for relay in relays}
