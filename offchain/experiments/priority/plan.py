# SPDX-License-Identifier: BSD-3-Clause
"""What is measured: one `Setting` per run, and the grid of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...transport.priority import ONE, Priority
from ...transport.scheduler import Discipline

HOPS = ("guard", "middle", "exit")
SHARES = (0.25, 0.5)
ALPHAS = (0.0, 0.25, 0.5)


@dataclass(frozen=True, slots=True)
class Order:
    """A scheduler with its β, which only EWMA uses."""

    discipline: Discipline
    beta: float = 1.0

    @property
    def name(self) -> str:
        """As tables and figures call it."""
        if self.discipline is Discipline.EWMA:
            return f"ewma β={self.beta:g}"
        return self.discipline.value


ORDERS = (Order(Discipline.FIFO), Order(Discipline.EWMA, 1), Order(Discipline.EWMA, 5),
          Order(Discipline.STRICT))


@dataclass(frozen=True, slots=True)
class Setting:
    """One run: `clients` download at once, a share of them premium, through three relays of which
    the one named `limited` carries `rate` bytes a second in each direction.

    Each client keeps `streams` downloads going. After `warm` seconds everybody's bytes are counted
    for `seconds`. `reading`: the limit holds for what the relay receives as well, as in Tor; else
    only for what it sends.
    """

    share: float
    alpha: float
    order: Order
    clients: int = 8
    streams: int = 1
    rate: int = 1_500_000
    limited: str = "guard"
    reading: bool = True
    warm: float = 8.0
    seconds: float = 15.0

    @property
    def premium_clients(self) -> int:
        """How many of the clients are premium."""
        return round(self.clients * self.share)

    @property
    def priority(self) -> Priority:
        """The network's constants."""
        return Priority(share=round(self.share * ONE), alpha=round(self.alpha * ONE),
                        beta=round(self.order.beta * ONE))

    @property
    def window_ratio(self) -> float:
        """A premium window divided by another."""
        return self.priority.ratio


def grid(template: Setting) -> list[Setting]:
    """Every combination of p, α and order; the rest as in `template`."""
    return [replace(template, share=share, alpha=alpha, order=order)
            for share in SHARES for alpha in ALPHAS for order in ORDERS]


def elsewhere(template: Setting) -> list[Setting]:
    """The ends of the grid with the limit at the other relays, and at the middle one with a limit
    on what it sends only: where cells wait decides what windows are good for."""
    found = [replace(template, limited=hop, share=SHARES[0], alpha=alpha, order=order)
             for hop in HOPS if hop != template.limited
             for alpha in (ALPHAS[0], ALPHAS[-1]) for order in (ORDERS[0], ORDERS[2])]
    return [*found, *(replace(template, limited="middle", reading=False, share=SHARES[0],
                              alpha=alpha, order=ORDERS[0]) for alpha in (ALPHAS[0], ALPHAS[-1]))]


def quick(template: Setting) -> list[Setting]:
    """The ends of the grid alone: no priority, and the most of it."""
    return [replace(template, share=SHARES[0], alpha=alpha, order=order)
            for alpha in (ALPHAS[0], ALPHAS[-1]) for order in (ORDERS[0], ORDERS[2])]
