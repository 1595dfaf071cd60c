# SPDX-License-Identifier: BSD-3-Clause
"""Credit of a paid circuit, counted alike at the relay that serves and at the client that pays."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Credit:
    """Cells of premium service that a circuit still has at one hop.

    It starts at `initial_credit`; every relay cell that passes, in either direction, costs one,
    and a payment adds `cells_per_payment`. Below zero the circuit is served without premium; it is
    never blocked.
    """

    cells_per_payment: int
    initial_credit: int
    used: int = 0
    payments: int = 0

    @property
    def left(self) -> int:
        """Cells left; negative when the circuit is behind."""
        return self.initial_credit + self.payments * self.cells_per_payment - self.used

    def passed(self, cells: int) -> None:
        """`cells` have passed."""
        self.used += cells

    def paid(self) -> None:
        """A payment has been made (client) or accepted (relay)."""
        self.payments += 1

    def payment_refused(self) -> None:
        """A payment that was counted has not been accepted."""
        self.payments -= 1

    @property
    def premium(self) -> bool:
        """Whether the hop owes the circuit premium service."""
        return self.left > 0

    @property
    def payments_due(self) -> int:
        """How many payments a client makes now: the first at once, then one for every
        `cells_per_payment` cells, so that the credit stays near where it started."""
        return max(0, 1 + self.used // self.cells_per_payment - self.payments)
