# SPDX-License-Identifier: BSD-3-Clause
"""Policy `bandwidth-proportional`: every KB/s is worth the same.

    weight of relay i = b_i

The baseline: tax goes where the traffic goes, as Tor's path selection weights relays of one
position by their bandwidth (dir-spec, "Computing bandwidth weights"; Dingledine, Mathewson and
Syverson, "Tor: The Second-Generation Onion Router", USENIX Security 2004).

Splitting a relay or merging several changes nothing: the weights add up. Bandwidth claimed and
not given gains in full proportion; only the measurement of bandwidth stands against it.
"""

from __future__ import annotations

from collections.abc import Sequence

from .facts import Relay

NAME = "bandwidth-proportional"


def weights(relays: Sequence[Relay]) -> dict[str, int]:
    """Weight by fingerprint, of every relay."""
    return {relay.fingerprint: relay.bandwidth for relay in relays}
