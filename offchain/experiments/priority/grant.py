# SPDX-License-Identifier: BSD-3-Clause
"""Premium without payment: a client asks each hop for it, in the three steps that the windows need.

The client sends ASK, the hop allows premium and answers ACCEPTED, the client uses it and answers
USED. What session and payment stand for elsewhere is here one message each.
"""

from __future__ import annotations

import asyncio

from ...transport.proxy import ClientCircuit
from ...transport.relay_circuit import RouterCircuit
from ...transport.router_hooks import NoHooks

ASK, ACCEPTED, USED = 1, 2, 3


class GrantingHooks(NoHooks):
    """A router that gives premium to whoever asks."""

    def payment_received(self, circuit: RouterCircuit, pcmd: int, payload: bytes, *,
                         link: bool) -> None:
        """ASK or USED."""
        if pcmd == ASK:
            circuit.premium = True
            circuit.edge.allow_premium()
            circuit.send_payment(ACCEPTED, b"")
        elif pcmd == USED:
            circuit.edge.use_premium(True)


async def ask_all(circuit: ClientCircuit) -> None:
    """Make the circuit premium at every hop."""
    waiting = set(range(len(circuit.hops)))
    done = asyncio.Event()

    def answered(hop: int, pcmd: int, payload: bytes) -> None:
        waiting.discard(hop)
        if not waiting:
            done.set()

    circuit.on_payment = answered
    for hop in sorted(waiting):
        circuit.send_payment(hop, ASK, b"")
    await done.wait()
    circuit.use_premium(True)
    circuit.send_payment(len(circuit.hops) - 1, USED, b"")
