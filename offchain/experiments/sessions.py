# SPDX-License-Identifier: BSD-3-Clause
"""What sessions and hidden payments cost, measured on the machines that the agents run.

A `Bench` lets honest parties talk over memory and takes the processor time of every step. A step is
all that a party does with one message: decoding, all cryptography, its records, and the answer.
So the figures are upper bounds of the cryptography alone, by what encoding and dictionaries take.
"""

from __future__ import annotations

import os
import statistics
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from monetor_chain.parameters import NetworkParameters

from ..crypto.curve import BACKEND_VARIABLE, backend
from ..crypto.issuer import IssuerKey
from ..protocol.dialogue import Delivery, Dialogue, Name
from ..protocol.moment import Moment
from ..transport.payment_cell import RELAY_PAYLOAD, fragment
from .stopwatch import stopwatch

_NOW = 1_800_000_000
"""A moment in the middle of nothing: no epoch of the parameters in use ends here."""
TRANSFERRED = 500
"""Base units of one hidden payment."""

SESSION_PROTOCOLS = ("nano_setup", "nano_establish", "nano_close_relay", "nano_close_client")
"""The protocols of one session, payments aside."""


def cells_of(delivery: Delivery) -> int:
    """Relay cells that a message takes, counted once from end to end."""
    return len(fragment(delivery.pcmd, delivery.payload, RELAY_PAYLOAD))


@contextmanager
def using_backend(name: str) -> Iterator[None]:
    """All parties in this process compute with one curve backend."""
    before = os.environ.get(BACKEND_VARIABLE)
    os.environ[BACKEND_VARIABLE] = name
    try:
        yield
    finally:
        if before is None:
            del os.environ[BACKEND_VARIABLE]
        else:
            os.environ[BACKEND_VARIABLE] = before


@dataclass(frozen=True, slots=True)
class Step:
    """Median processor time of what one party does at one message or command."""

    backend: str
    protocol: str
    party: str
    step: str
    ms: float


@dataclass(frozen=True, slots=True)
class Crossing:
    """One message of one protocol run."""

    protocol: str
    source: str
    target: str
    message: str
    size: int
    cells: int


class Bench:
    """Runs protocols between honest parties with one backend, and keeps their times and messages.

    `parameters` are the network's; channels hold what a session and a hidden payment need.
    """

    def __init__(self, backend_name: str, parameters: NetworkParameters) -> None:
        self.backend = backend_name
        self._protocol = ""
        self._spans: list[tuple[str, str, float]] = []
        self._crossings: list[Crossing] = []
        self._runs: defaultdict[str, list[list[tuple[str, str, float]]]] = defaultdict(list)
        self._messages: dict[str, list[Crossing]] = {}
        issuer = IssuerKey.generate(backend(backend_name))
        moment = Moment(_NOW, parameters.epoch_at(_NOW), parameters)
        self._dialogue = Dialogue(moment, issuer, heard=self._heard, watch=self._watch)
        # As much as a channel may hold: enough for any number of runs.
        stake = parameters.deposit_max
        self._payments = min(parameters.n, 31)
        (self._cid,) = self._open(Name.CLIENT, stake, 0)
        self._open(Name.RELAY, 0, stake)
        (self._to,) = self._open(Name.PAYEE, 0, stake)

    def _open(self, name: Name, deposit: int, fund: int) -> list[int]:
        with self._running("establish"):
            return self._dialogue.open(name, deposit=deposit, fund=fund)

    @contextmanager
    def _watch(self, name: Name, step: str) -> Iterator[None]:
        with stopwatch() as span:
            yield
        self._spans.append((name.value, step, span.ms))

    def _heard(self, delivery: Delivery) -> None:
        self._crossings.append(Crossing(
            self._protocol, delivery.source.value, delivery.target.value, delivery.kind,
            len(delivery.payload), cells_of(delivery)))

    @contextmanager
    def _running(self, protocol: str) -> Iterator[None]:
        self._protocol = protocol
        self._spans, self._crossings = [], []
        yield
        self._runs[protocol].append(self._spans)
        self._messages[protocol] = self._crossings

    def session(self) -> None:
        """One session from setup to the close of both legs, with some payments."""
        with self._running("nano_setup"):
            terms_hash = self._dialogue.setup(self._cid)
        with self._running("nano_establish"):
            self._dialogue.establish(terms_hash)
        with self._running("nano_pay"):
            self._dialogue.pay(terms_hash, self._payments)
        with self._running("nano_close_relay"):
            self._dialogue.close_relay(terms_hash)
        with self._running("nano_close_client"):
            self._dialogue.close_client(terms_hash)

    def transfer(self) -> None:
        """One hidden payment."""
        with self._running("micropayment"):
            self._dialogue.transfer(self._cid, self._to, TRANSFERRED)

    def forget(self) -> None:
        """Drop the times so far: the first runs fill caches."""
        self._runs.clear()

    def protocol_ms(self, protocol: str, without: str = "") -> float:
        """Median processor time of a protocol, all parties together, but for one of its steps."""
        return statistics.median(sum(ms for _, step, ms in run if step != without)
                                 for run in self._runs[protocol])

    def steps(self) -> list[Step]:
        """Median times, step by step in the order of the messages."""
        found = []
        for protocol, runs in self._runs.items():
            if protocol == "nano_pay":
                continue
            for index, (party, step, _) in enumerate(runs[0]):
                ms = statistics.median(run[index][2] for run in runs)
                found.append(Step(self.backend, protocol, party, step, ms))
        return found

    def crossings(self) -> list[Crossing]:
        """The messages of the latest run of each protocol but the payments."""
        return [one for protocol, crossed in self._messages.items() if protocol != "nano_pay"
                for one in crossed]

    def cells(self, protocol: str) -> int:
        """Cells of the latest run of a protocol."""
        return sum(one.cells for one in self._messages[protocol])
