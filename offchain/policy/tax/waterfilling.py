# SPDX-License-Identifier: BSD-3-Clause
"""Policy `waterfilling`: tax pays for the ends of paths, up to a level, so that the ends are many.

    weight of relay i = min(b_i, level of its flags), 0 without the flag Guard or Exit

After Rochet and Pereira, "Waterfilling: Balancing the Tor network with maximum diversity",
PoPETs 2017(2). Who holds both ends of a path can correlate them, so the paper spreads end positions
as evenly over relays as their bandwidth allows. Relays below a *water level* serve the ends with
all they have; larger ones serve them up to the level and give the rest to the middle. The level is
such that the sum in each position remains what the consensus's bandwidth weights make it. That much
is the paper's, for choosing paths. Paying by it is ours, and so are the following rules.

*Needs.* G, E, D and M are the sums of bandwidth of relays with Guard only, Exit only, both and
neither, T = G + E + D + M. Positions get equal parts as far as flags allow, as in dir-spec,
"Computing bandwidth weights": t = min(T/3, (G + E + D)/2) for guards and for exits. If exits are
scarce, E + D < t, they need x = E + D and guards g = min(G, (T − x)/2); if guards are, the same the
other way round. (Where both are scarce, and middle relays have more than T/3, dir-spec leaves
guards and exits unequal; here they are equal.)

*Levels.* One level λ for all relays with either flag, Σ min(b, λ) = g + x, if guards alone then
carry at most g and exits alone at most x: relays with both flags serve either end. Otherwise the
class that would carry too much gets its own, lower level, and relays with both flags serve the
other end: for guards, Σ over G of min(b, λ_G) = g and Σ over E and D of min(b, λ_X) = x. No other
assignment with the same needs is more even. (The paper has a level for each of the three classes.)

The levels are those of the whole list, with relays that have no account.

- Splitting a relay above its level gains, at most up to the sum of its parts' bandwidth. That is
  inherent: more relays at the ends is what is paid for, and many small relays of one operator look
  alike to this policy. Splitting never loses, merging never gains (rounding aside).
- Bandwidth claimed falsely gains in proportion below the level, nearly nothing above it: the level
  itself rises by less than the claim divided by the number of relays above it.
- A flag held without serving it gains all: flags are the authorities' judgement.
- A relay in the middle gets nothing of the tax, whatever its bandwidth; it has its payments.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm

from .facts import Relay

NAME = "waterfilling"


@dataclass(frozen=True, slots=True)
class Levels:
    """Water levels in KB/s: bandwidth up to which a relay with one of the flags is counted."""

    guard: Fraction
    exit: Fraction

    def of(self, relay: Relay) -> Fraction:
        """The level for this relay; with both flags the higher one, with none 0."""
        return max(
            self.guard if relay.is_guard else Fraction(0),
            self.exit if relay.is_exit else Fraction(0),
        )


def needs(guards: int, exits: int, both: int, middles: int) -> tuple[Fraction, Fraction]:
    """Bandwidth that the guard position and the exit position need, from the sums by flags."""
    total = guards + exits + both + middles
    even = min(Fraction(total, 3), Fraction(guards + exits + both, 2))
    if exits + both < even:
        scarce = Fraction(exits + both)
        return min(Fraction(guards), (total - scarce) / 2), scarce
    if guards + both < even:
        scarce = Fraction(guards + both)
        return scarce, min(Fraction(exits), (total - scarce) / 2)
    return even, even


def water_level(bandwidths: Iterable[int], need: Fraction) -> Fraction:
    """The level λ with Σ min(b, λ) = need, for a need of at most Σ b; 0 without bandwidths."""
    ascending = sorted(bandwidths)
    for position, bandwidth in enumerate(ascending):
        above = len(ascending) - position
        if bandwidth * above >= need:
            return need / above
        need -= bandwidth
    return Fraction(0)


def carried(bandwidths: Iterable[int], level: Fraction) -> Fraction:
    """Bandwidth that relays carry at the ends of paths under this level."""
    return sum((min(level, Fraction(bandwidth)) for bandwidth in bandwidths), Fraction(0))


def levels(relays: Sequence[Relay]) -> Levels:
    """Water levels of the network that these relays are."""
    guards = [relay.bandwidth for relay in relays if relay.is_guard and not relay.is_exit]
    exits = [relay.bandwidth for relay in relays if relay.is_exit and not relay.is_guard]
    both = [relay.bandwidth for relay in relays if relay.is_guard and relay.is_exit]
    middles = sum(relay.bandwidth for relay in relays if not (relay.is_guard or relay.is_exit))
    guard_need, exit_need = needs(sum(guards), sum(exits), sum(both), middles)
    common = water_level([*guards, *exits, *both], guard_need + exit_need)
    if carried(guards, common) > guard_need:
        return Levels(water_level(guards, guard_need), water_level(exits + both, exit_need))
    if carried(exits, common) > exit_need:
        return Levels(water_level(guards + both, guard_need), water_level(exits, exit_need))
    return Levels(common, common)


def weights(relays: Sequence[Relay]) -> dict[str, int]:
    """Weight by fingerprint, of every relay: bandwidth at the ends of paths, scaled to integers."""
    found = levels(relays)
    scale = lcm(found.guard.denominator, found.exit.denominator)
    return {
        relay.fingerprint: int(carried([relay.bandwidth], found.of(relay)) * scale)
        for relay in relays
    }
