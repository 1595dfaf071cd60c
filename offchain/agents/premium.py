# SPDX-License-Identifier: BSD-3-Clause
"""What payment means to the transport: the voted constants of priority, and when a circuit's ends
have the windows of premium circuits.

Session and payment are the steps that `transport.edge` asks for: a relay allows the larger windows
before it accepts a session, its client allows and uses them on that, and with the first payment
the relay uses them too. Each end goes back when the credit that it counts is exhausted.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from monetor_chain.parameters import NetworkParameters

from ..policy.credit import Credit
from ..transport.priority import Priority
from ..transport.proxy import ClientCircuit
from ..transport.relay_circuit import RouterCircuit


def priority_of(parameters: NetworkParameters) -> Priority:
    """The constants of priority in force."""
    return Priority(parameters.circuit_window, parameters.stream_window,
                    parameters.premium_share, parameters.alpha, parameters.beta)


@dataclass(slots=True)
class ServedPremium:
    """A circuit at its relay: premium while a session is established and the credit positive."""

    circuit: RouterCircuit
    credit: Credit
    _established: set[bytes] = field(default_factory=set)

    def established(self, session: bytes) -> None:
        """A session, or a direct channel, is established. Call it before the client is told."""
        self._established.add(session)
        self.circuit.edge.allow_premium()
        self.update()

    def ended(self, session: bytes) -> None:
        """A session is not paid any more."""
        self._established.discard(session)
        self.update()

    def update(self) -> None:
        """The credit may have changed."""
        premium = bool(self._established) and self.credit.premium
        self.circuit.premium = premium
        # Whoever has paid has been told, and has allowed the windows.
        self.circuit.edge.use_premium(premium and self.credit.payments > 0)


@dataclass(slots=True)
class BoughtPremium:
    """A circuit at its client, whose credit at the last hop is `credit`."""

    circuit: ClientCircuit
    credit: Credit
    _accepted: bool = False
    _premium: bool = False

    def accepted(self) -> None:
        """The last hop has accepted a session. Call it before it is paid."""
        self._accepted = True
        self.update()

    def update(self) -> None:
        """The credit may have changed."""
        premium = self._accepted and self.credit.premium
        if premium != self._premium:
            self._premium = premium
            self.circuit.use_premium(premium)
