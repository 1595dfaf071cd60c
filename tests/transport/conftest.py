# SPDX-License-Identifier: BSD-3-Clause
"""Identities (slow to make, so made once), vectors, and a small network without sockets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from offchain.transport.identity import RouterIdentity
from offchain.transport.memory_driver import MemoryNetwork

_VECTORS = Path(__file__).parent / "vectors"


@pytest.fixture(scope="session")
def vectors() -> Any:
    return lambda name: json.loads((_VECTORS / f"{name}.json").read_text())


@pytest.fixture(scope="session")
def identities() -> list[RouterIdentity]:
    return [RouterIdentity.generate() for _ in range(3)]


class Recorder:
    """Hooks that write everything down."""

    def __init__(self) -> None:
        self.opened, self.closed, self.payments, self.cells = [], [], [], 0
        self.on_payment = lambda circuit, pcmd, payload, link: None

    def circuit_opened(self, circuit):
        self.opened.append(circuit)

    def circuit_closed(self, circuit):
        self.closed.append(circuit)

    def payment_received(self, circuit, pcmd, payload, *, link):
        self.payments.append((pcmd, payload, link))
        self.on_payment(circuit, pcmd, payload, link)

    def cells_passed(self, circuit, count):
        self.cells += count


class Rig:
    """A memory network with three routers, a client, and what they were told."""

    def __init__(self, identities) -> None:
        self.network = MemoryNetwork()
        self.hooks = [Recorder() for _ in identities]
        self.routers = [self.network.add_router(i, h)
                        for i, h in zip(identities, self.hooks, strict=True)]
        self.path = [router.info for router in self.routers]
        self.client = self.network.add_client()
        self.run = self.network.run

    def circuit(self, hops=3):
        core = self.client.start_circuit(self.path[:hops])
        core.reasons = []
        core.on_closed = core.reasons.append
        self.run()
        assert core.built
        return core

    def at(self, hop):
        """The only circuit at a router."""
        (circuit,) = self.routers[hop].core.circuits
        return circuit

    def circuit_at(self, hop, core):
        """One client's circuit at a router."""
        number = core._circ_id
        for router in self.routers[:hop + 1]:
            (found,) = [one for one in router.core.circuits if one._previous_id == number]
            number = found._next_id
        return found

    def circuits(self):
        return [len(router.core.circuits) for router in self.routers]


class Sink:
    """A client's end of a stream that keeps everything."""

    def __init__(self) -> None:
        self.got, self.is_connected, self.reason = bytearray(), False, None

    def connected(self):
        self.is_connected = True

    def data(self, data):
        self.got += data

    def ended(self, reason):
        self.reason = reason

    def writable(self):
        pass


@pytest.fixture
def rig(identities) -> Rig:
    return Rig(identities)


@pytest.fixture
def recorder():
    return Recorder


@pytest.fixture
def sink():
    return Sink
