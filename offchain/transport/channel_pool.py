# SPDX-License-Identifier: BSD-3-Clause
"""Links that a router or proxy has opened, one per target, shared by its circuits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from .channel import Channel
from .errors import LinkFailed, TransportError
from .extend import LinkTarget

Waiter = Callable[[Channel | TransportError], None]


class Dialler(Protocol):
    """The driver's way to open a link."""

    def dial(self, target: LinkTarget, done: Waiter) -> None:
        """Open a link and shake hands; call `done` once, later, with the channel or the error."""


class ChannelPool:
    """Finds or opens the link to a target."""

    def __init__(self, dialler: Dialler, max_waiting: int = 1000) -> None:
        """`max_waiting`: how many circuits may wait for links that are being opened."""
        self._dialler = dialler
        self._open: dict[LinkTarget, Channel] = {}
        self._waiting: dict[LinkTarget, list[Waiter]] = {}
        self._max_waiting = max_waiting

    def request(self, target: LinkTarget, waiter: Waiter) -> None:
        """Call `waiter`, now or later, with an open channel to `target` or an error."""
        channel = self._open.get(target)
        if channel is not None and channel.is_open:
            waiter(channel)
            return
        waiting = self._waiting.get(target)
        if sum(map(len, self._waiting.values())) >= self._max_waiting:
            waiter(LinkFailed("too many circuits wait for links"))
        elif waiting is not None:
            waiting.append(waiter)
        else:
            self._waiting[target] = [waiter]
            self._dialler.dial(target, lambda result: self._dialled(target, result))

    def _dialled(self, target: LinkTarget, result: Channel | TransportError) -> None:
        if isinstance(result, Channel):
            self._open[target] = result
        for waiter in self._waiting.pop(target, []):
            waiter(result)

    def forget(self, channel: Channel) -> None:
        """A channel was closed."""
        for target in [t for t, known in self._open.items() if known is channel]:
            del self._open[target]
