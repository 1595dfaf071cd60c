# SPDX-License-Identifier: BSD-3-Clause
"""A router's bandwidth limit under asyncio, for all of its links together."""

from __future__ import annotations

import asyncio
from typing import Protocol

from .bandwidth import MOST_READ, LinkTurns, Sender, TokenBucket
from .cell import CELL_LEN

TICK = 0.01
"""Seconds between two looks at an empty bucket."""
QUANTUM = 8 * CELL_LEN
"""Bytes after which it is seen anew which link sends; a row of cells is not cut, though."""


class LimitedLink(Sender, Protocol):
    """A link that waits for its turn."""

    def send_some(self, size: int) -> None:
        """Send about `size` bytes."""

    def pause_reading(self) -> None:
        """Nothing may be read."""

    def resume_reading(self) -> None:
        """Reading is allowed again."""


class BandwidthLimit:
    """`rate` bytes a second, and `burst` at once, in each direction (Tor's BandwidthRate and
    BandwidthBurst). What counts is what the sockets of links carry, TLS included; an exit's
    connections to destinations do not count. Create it inside the event loop.
    """

    def __init__(self, rate: float, burst: float | None = None, *, reading: bool = True) -> None:
        """Without `burst`, a second's worth; without `reading`, for what is sent only. Raises
        ValueError unless rate and burst are positive."""
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        burst = rate if burst is None else burst
        self._reading = TokenBucket(rate, burst, now) if reading else None
        self._writing = TokenBucket(rate, burst, now)
        self._turns: LinkTurns[LimitedLink] = LinkTurns()
        self._paused: list[LimitedLink] = []
        self._write_timer: asyncio.Handle | None = None
        self._read_timer: asyncio.Handle | None = None

    # --- writing

    def announce(self, link: LimitedLink) -> None:
        """The link has something to send: it is called when it is its turn."""
        self._turns.announce(link)
        if self._write_timer is None:
            self._write_timer = self._loop.call_soon(self._send)

    def _send(self) -> None:
        self._write_timer = None
        while self._writing.left(self._loop.time()) > 0:
            link = self._turns.next()
            if link is None:
                return
            link.send_some(QUANTUM)
            self._turns.announce(link)
        if self._turns:
            self._write_timer = self._loop.call_later(TICK, self._send)

    def written(self, size: int) -> None:
        """A link has written so many bytes, its turn or not."""
        self._writing.take(size)

    # --- reading

    def read_size(self) -> int:
        """How many bytes a link may read now, at least one."""
        if self._reading is None:
            return MOST_READ
        return self._reading.read_size(self._loop.time()) or 1

    def was_read(self, link: LimitedLink, size: int) -> None:
        """A link has read so many bytes."""
        if self._reading is None:
            return
        self._reading.take(size)
        if self._reading.left(self._loop.time()) <= 0:
            link.pause_reading()
            self._paused.append(link)
            if self._read_timer is None:
                self._read_timer = self._loop.call_later(TICK, self._resume)

    def _resume(self) -> None:
        self._read_timer = None
        if self._reading is not None and self._reading.left(self._loop.time()) <= 0:
            self._read_timer = self._loop.call_later(TICK, self._resume)
            return
        paused, self._paused = self._paused, []
        for link in paused:
            link.resume_reading()

    # --- end

    def forget(self, link: LimitedLink) -> None:
        """The link is gone."""
        self._turns.withdraw(link)
        if link in self._paused:
            self._paused.remove(link)

    def close(self) -> None:
        """Serve nobody any more."""
        for timer in (self._write_timer, self._read_timer):
            if timer is not None:
                timer.cancel()
