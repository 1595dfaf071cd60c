# SPDX-License-Identifier: BSD-3-Clause
"""Requests to the intermediary over onion circuits: it never learns who asks.

Every conversation gets a circuit of its own, so that the intermediary cannot tie two sessions of
one client together by the circuit they came on.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from ..transport.errors import DestroyReason, TransportError
from ..transport.identity import RouterInfo
from ..transport.payment_cell import RELAY_PAYLOAD
from ..transport.proxy import ClientCircuit, OnionProxy

ANSWER_TIMEOUT = 10.0
"""Seconds of this machine's clock to wait for one reply."""
MAX_REPLIES = 8
"""Replies that wait to be read; a peer that sends more than it was asked for loses them."""


def cells_of(size: int) -> int:
    """How many relay cells a payment message of `size` bytes takes."""
    return max(1, -(-size // RELAY_PAYLOAD))


class Link:
    """One circuit to the intermediary; requests on it are answered in order."""

    def __init__(self, circuit: ClientCircuit) -> None:
        self._circuit = circuit
        self._replies: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue(
            MAX_REPLIES)
        self._hop = len(circuit.hops) - 1
        circuit.on_payment = self._received
        circuit.on_closed = self._closed

    def _received(self, hop: int, pcmd: int, payload: bytes) -> None:
        if hop == self._hop and not self._replies.full():
            self._replies.put_nowait((pcmd, payload))

    def _closed(self, reason: DestroyReason) -> None:
        if not self._replies.full():
            self._replies.put_nowait(None)

    async def ask(self, pcmd: int, payload: bytes) -> tuple[int, bytes, int]:
        """Send a request; returns the reply's PCMD and payload, and the cells that both took."""
        cells = self._circuit.send_payment(self._hop, pcmd, payload)
        try:
            reply = await asyncio.wait_for(self._replies.get(), ANSWER_TIMEOUT)
        except TimeoutError:
            raise TransportError(
                f"the intermediary has not answered within {ANSWER_TIMEOUT:.0f} s") from None
        if reply is None:
            raise TransportError("the circuit to the intermediary closed before the answer")
        return reply[0], reply[1], cells + cells_of(len(reply[1]))


class IntermediaryPort:
    """Builds circuits that end at the intermediary of a conversation.

    `intermediary` tells where that listens now, or raises `TransportError`; `relays` gives the
    routers that may stand in between, never the asking relay itself.
    """

    def __init__(self, proxy: OnionProxy, intermediary: Callable[[bytes], RouterInfo],
                 relays: Callable[[], Sequence[RouterInfo]], hops_between: int = 2) -> None:
        self._proxy = proxy
        self._intermediary = intermediary
        self._relays = relays
        self._hops_between = hops_between

    @asynccontextmanager
    async def circuit(self, conversation: bytes, attempt: int = 0) -> AsyncIterator[Link]:
        """A fresh circuit over random relays, for one conversation.

        After a failed `attempt` fewer relays may stand in between, but always one, so that a dead
        relay in a small network does not cut anybody off from its money.
        """
        relays = list(self._relays())
        if not relays:
            raise TransportError("the directory lists no other relay")
        chance = secrets.SystemRandom()
        hops = self._hops_between if attempt == 0 else chance.randint(1, self._hops_between)
        chosen = chance.sample(relays, min(hops, len(relays)))
        circuit = await self._proxy.build_circuit([*chosen, self._intermediary(conversation)])
        try:
            yield Link(circuit)
        finally:
            await circuit.close()
