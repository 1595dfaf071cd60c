# SPDX-License-Identifier: BSD-3-Clause
"""The network's clock as an agent reads it: the chain's on a dev network, wall time elsewhere."""

from __future__ import annotations

import time

from monetor_chain.chain import Chain


class NetworkClock:
    """Seconds of network time, read from the chain now and then and carried on in between."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._base = 0.0
        self._read_at = 0.0
        self._speed = 1.0

    async def synchronise(self) -> None:
        """Read the chain's clock; `ChainUnavailable` if it does not answer."""
        before = time.monotonic()
        base, speed = await self._chain.clock()
        self._read_at = (before + time.monotonic()) / 2
        self._base, self._speed = base, speed

    def now(self) -> int:
        """Unix seconds of the network's clock."""
        return int(self.exact())

    def exact(self) -> float:
        """`now` with its fraction of a second."""
        return self._base + (time.monotonic() - self._read_at) * self._speed

    def real(self, network_seconds: float) -> float:
        """How long `network_seconds` take on this machine's clock."""
        return network_seconds / self._speed
