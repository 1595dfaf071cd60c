# SPDX-License-Identifier: BSD-3-Clause
"""The network parameters on which the authorities vote, one set per epoch for everybody.

Plain data, so that every layer may use it. `contracts/Consensus.vy` stores the same words in the
same order and applies the same check to a whole set; tests compare the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

from .errors import InvalidParameters
from .statements import BALANCE_LIMIT, MAX_PAYMENTS, MIN_PAYMENTS

BASIS_POINTS = 10_000
"""One, in basis points: the unit of shares and ratios."""

TAX_RATE_BP = 1_000
"""Tax rate of the standard deployment. Constant for a ledger's life, hence not voted."""


@dataclass(frozen=True, slots=True)
class NetworkParameters:
    """One parameter set, all integers.

    Units: amounts in token base units, times in seconds, `cells_per_payment`, `initial_credit`
    and the windows in cells; `premium_share`, `alpha` and `beta` in ten-thousandths.
    """

    dispute_window: int
    """Delta: how long a posted claim can be refuted."""
    close_notice: int
    """Time an end user has to answer an intermediary's request to close."""
    close_bond: int
    """Stake of an intermediary that asks an end user to close; pays for the answer's gas."""
    price: int
    """What a client pays per nanopayment; delta_c = -price."""
    deposit_max: int
    """Largest deposit, and largest fund, of one channel."""
    delta_r: int
    """What a relay earns per nanopayment, before tax."""
    pay_fee: int
    """What the intermediary earns per hidden micropayment."""
    n: int
    """Payments in a nanopayment session, always exactly this; a power of two."""
    cells_per_payment: int
    """Cells that one nanopayment buys."""
    initial_credit: int
    """Cells that a relay forwards with premium before the first payment must arrive. More than a
    premium circuit's window, or no circuit stays premium: a client pays for the cells that have
    reached it, and its exit has sent up to a window more."""
    epoch: int
    """Length of an epoch; fixed when the network is deployed, since epochs are counted in it."""
    lifetime: int
    """Least time between a session's setup and its expiry."""
    safety_margin: int
    """mu: worst delay of inclusion on the ledger that the protocol reckons with."""
    setup_pause: int
    """t_r: longest random pause between a wallet's close and its next setup."""
    premium_share: int
    """p: share of paid circuits that the priority scheme aims at."""
    alpha: int
    """alpha of the priority scheme."""
    beta: int
    """beta of the priority scheme, the advantage of premium traffic; 50,000 means five."""
    circuit_window: int
    """Circuit-level flow-control window."""
    stream_window: int
    """Stream-level flow-control window."""

    @property
    def delta_c(self) -> int:
        """Change of a client's balance per nanopayment, negative."""
        return -self.price

    def tax(self, tax_rate_bp: int = TAX_RATE_BP) -> int:
        """Tax per nanopayment: tax_rate * delta_r, rounded up."""
        return -(-tax_rate_bp * self.delta_r // BASIS_POINTS)

    def fee(self, tax_rate_bp: int = TAX_RATE_BP) -> int:
        """What the intermediary keeps per nanopayment, at least."""
        return self.price - self.delta_r - self.tax(tax_rate_bp)

    def epoch_at(self, now: float) -> int:
        """Index of the epoch that contains Unix second `now`, counted from the Unix epoch."""
        return int(now) // self.epoch

    def t_exp(self, now: float) -> int:
        """Expiry T_exp of a session set up at `now`, the same for all sessions of an epoch."""
        return (self.epoch_at(now) + 1) * self.epoch + self.lifetime

    def problems(self, tax_rate_bp: int = TAX_RATE_BP) -> list[str]:
        """Every rule that this set breaks, empty if it may come into force.

        The rules concern the set as a whole: a median taken per parameter can break them although
        every vote keeps them.
        """
        found = []

        def rule(holds: bool, sentence: str) -> None:
            if not holds:
                found.append(sentence)

        for field in fields(self):
            value = getattr(self, field.name)
            rule(0 <= value < WORD_LIMIT, f"{field.name} must lie in [0, 2^32)")
        rule(self.delta_r > 0, "delta_r must be positive")
        rule(self.fee(tax_rate_bp) > 0, "the fee price - delta_r - tax must be positive")
        rule(
            MIN_PAYMENTS <= self.n <= MAX_PAYMENTS and self.n & (self.n - 1) == 0,
            "n must be a power of two between 32 and 2^18",
        )
        rule(self.deposit_max < BALANCE_LIMIT // 2, "deposit_max must lie below 2^31")
        rule(self.n * self.price <= self.deposit_max, "n * price must not exceed deposit_max")
        for name in _POSITIVE:
            rule(getattr(self, name) > 0, f"{name} must be positive")
        rule(self.dispute_window >= 4 * self.safety_margin, "dispute_window must be at least 4 mu")
        rule(self.lifetime > 4 * self.safety_margin, "lifetime must exceed 4 mu")
        rule(
            self.close_notice >= self.dispute_window,
            "close_notice must not be shorter than dispute_window",
        )
        for name, (least, most) in _BOUNDS.items():
            rule(
                least <= getattr(self, name) <= most, f"{name} must lie between {least} and {most}"
            )
        return found

    def check(self, tax_rate_bp: int = TAX_RATE_BP) -> None:
        """Raise `InvalidParameters` unless the set may come into force."""
        problems = self.problems(tax_rate_bp)
        if problems:
            raise InvalidParameters(problems)

    def words(self) -> tuple[int, ...]:
        """The set as the consensus contract takes it: one word per field, in field order."""
        return astuple(self)

    @classmethod
    def from_words(cls, words: Sequence[int]) -> NetworkParameters:
        """Inverse of `words`; raises `InvalidParameters` if the number of words is wrong."""
        names = [field.name for field in fields(cls)]
        if len(words) != len(names):
            raise InvalidParameters([f"a set has {len(names)} words, this one has {len(words)}"])
        return cls(**dict(zip(names, map(int, words), strict=True)))


_POSITIVE = ("epoch", "safety_margin", "cells_per_payment")

_DAY = 86_400
_BOUNDS = {
    "dispute_window": (0, 90 * _DAY),
    "lifetime": (0, 90 * _DAY),
    "close_notice": (0, 366 * _DAY),
    "premium_share": (1, BASIS_POINTS),
    "alpha": (0, 9_000),
    "beta": (BASIS_POINTS, 2**32 - 1),
    # The increments that Tor acknowledges (tor-spec, flow control): no window may be smaller.
    "circuit_window": (100, 2**32 - 1),
    "stream_window": (50, 2**32 - 1),
}
"""Least and largest value of single parameters. What users pin for life is bounded from above."""

WORD_LIMIT = 2**32
"""Every parameter lies below this, so that the contract's products cannot overflow."""

DEFAULT = NetworkParameters(
    price=100,
    delta_r=86,
    close_bond=225_000,
    pay_fee=5,
    n=1024,
    cells_per_payment=1000,
    initial_credit=3000,
    epoch=86_400,
    lifetime=86_400,
    dispute_window=86_400,
    close_notice=30 * 86_400,
    safety_margin=3_600,
    setup_pause=30,
    deposit_max=2**31 - 1,
    premium_share=2_500,
    alpha=5_000,
    beta=50_000,
    circuit_window=1000,
    stream_window=500,
)
"""For a network of days. `close_bond` is a refund's gas at 1 gwei, in units of 1 gwei."""

DEMO = NetworkParameters(
    price=100,
    delta_r=86,
    close_bond=1_000,
    pay_fee=5,
    n=128,
    cells_per_payment=100,
    initial_credit=3000,
    epoch=60,
    lifetime=600,
    dispute_window=120,
    close_notice=600,
    safety_margin=20,
    setup_pause=1,
    deposit_max=2**31 - 1,
    premium_share=2_500,
    alpha=5_000,
    beta=50_000,
    circuit_window=1000,
    stream_window=500,
)
"""For a network that lives for minutes on one machine. `initial_credit` exceeds the window of a
premium circuit here too: an exit is ahead of its client by what is under way."""
