# SPDX-License-Identifier: BSD-3-Clause
"""What a router tells the agent that runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .relay_circuit import RouterCircuit


class RouterHooks(Protocol):
    """Called in the event loop; implementations are quick and do not block.

    They may call any method of the circuit, `destroy` included.
    """

    def circuit_opened(self, circuit: RouterCircuit) -> None:
        """A client has extended a circuit to this router."""

    def circuit_closed(self, circuit: RouterCircuit) -> None:
        """The circuit is gone. Called once for every circuit that was opened."""

    def payment_received(self, circuit: RouterCircuit, pcmd: int, payload: bytes, *,
                         link: bool) -> None:
        """A whole payment message from the circuit's client arrived, addressed to this hop.

        `link`: by link cells rather than inside the circuit; only a guard gets those.
        """

    def cells_passed(self, circuit: RouterCircuit, count: int) -> None:
        """`count` more RELAY or RELAY_EARLY cells passed, ended or began here, in either
        direction. Link cells do not count."""


class NoHooks:
    """For a router that nobody watches."""

    def circuit_opened(self, circuit: RouterCircuit) -> None:
        """Nothing."""

    def circuit_closed(self, circuit: RouterCircuit) -> None:
        """Nothing."""

    def payment_received(self, circuit: RouterCircuit, pcmd: int, payload: bytes, *,
                         link: bool) -> None:
        """Nothing."""

    def cells_passed(self, circuit: RouterCircuit, count: int) -> None:
        """Nothing."""
