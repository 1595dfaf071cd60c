# SPDX-License-Identifier: BSD-3-Clause
"""The linking game: of two honest clients, whose act comes first?

The adversary knows everything up to now: which channel, and which earlier acts, are whose. Then
both clients do the same thing, a session or a hidden payment, in an order that a secret bit
decides; in some rounds they then cash out or claim a refund, under their names. Each detector
guesses the bit, and a coin where it has no evidence. After its guess the adversary is told, and the
next round begins. Counts and amounts are drawn for each client and known to the adversary.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import log, sqrt

import pytest

from offchain.crypto.issuer import IssuerKey
from offchain.protocol import ledger as calls
from tests.anonymity.acts import Act, Memory
from tests.anonymity.detectors import DETECTORS, Adversary, Detector, User, learned_bits
from tests.anonymity.stand import CLIENTS, PAYEE, Stand

DEPOSIT = 2**30
SPREAD = 2**20
"""Deposits differ by less: they are public, and each client has one of its own."""
MOST = 40
"""Payments of a session, at most: with and without checkpoints."""

KINDS = ("session", "lonely session", "payment")


@dataclass
class Score:
    """How a detector did: guesses, right ones, and rounds with any evidence at all."""

    rounds: int = 0
    right: int = 0
    spoke: int = 0


class Game:
    """Rounds between two clients and an adversary, who is I or R (`against`)."""

    def __init__(self, patch: pytest.MonkeyPatch, issuer: IssuerKey, *, against: str = "I",
                 detectors: Sequence[Detector] = tuple(DETECTORS)) -> None:
        self.against = against
        self.detectors = detectors
        self.stand = Stand(issuer)
        self.adversary = Adversary(issuer, Memory(patch), statistics=any(
            one.evidence is learned_bits for one in detectors))
        self.users = {name: User() for name in CLIENTS}
        self.adversary.users = list(self.users.values())
        self.cids: dict[str, int] = {}
        self.scores = {one.name: Score() for one in detectors}
        self.stand.open("R", deposit=0, fund=2**31 - 1)
        self.payee = self.stand.open(PAYEE, deposit=0, fund=2**31 - 1)[0]

    # --- Acts

    def _see(self, name: str, action: Callable[[], object], *, by: str = "") -> Act:
        """Do something; what the adversary sees of it."""
        start, called = len(self.stand.log), len(self.stand.ledger)
        self.stand.wait(secrets.randbelow(3))
        action()
        heard = [replace(one, source="?" if one.source == name else one.source,
                         target="?" if one.target == name else one.target)
                 for one in self.stand.log[start:]
                 if {one.source, one.target} == {name, by or self.against}]
        public = [call for who, call in self.stand.ledger[called:]
                  if who == name and isinstance(call, calls.Refund | calls.Close)]
        return Act(heard, public)

    def open(self) -> None:
        """Both open a channel, under their names."""
        for name in CLIENTS:
            deposit = DEPOSIT + secrets.randbelow(SPREAD)

            def opening(name: str = name, deposit: int = deposit) -> None:
                (self.cids[name],) = self.stand.open(name, deposit=deposit, fund=0)

            act = self._see(name, opening)
            user = self.users[name]
            user.cid, user.balance = self.cids[name], deposit
            user.acts.clear()
            self.adversary.learn(user, act)

    def _do(self, name: str, kind: str) -> Act:
        cid = self.cids[name]
        if kind == "payment":
            amount = secrets.randbelow(1_000)
            act = self._see(name, lambda: self.stand.transfer(name, cid, self.payee, amount))
            act.amount = amount + self.stand.parameters.pay_fee
            return act
        payments = secrets.randbelow(MOST) if kind == "session" else None
        return self._see(name, lambda: self.stand.session(name, cid, payments))

    def _end(self, name: str, kind: str) -> Act:
        cid = self.cids[name]
        act = self._see(name, lambda: self.stand.cash_out(name, cid >> 8) if kind == "cash-out"
                        else self.stand.claim(name, cid))
        act.cid = cid
        return act

    # --- Rounds

    def round(self, kind: str, end: str = "") -> None:
        """Both clients act in secret order; `end`: both leave afterwards, under their names."""
        if not self.cids:
            self.open()
        bit = secrets.randbits(1)
        order = CLIENTS[::-1] if bit else CLIENTS
        first, second = (self._do(name, kind) for name in order)
        ends = {name: self._end(name, end) for name in CLIENTS} if end else {}
        for one in self.detectors:
            straight = self._evidence(one, first, second, ends)
            crossed = self._evidence(one, second, first, ends)
            guess = int(crossed > straight) if crossed != straight else secrets.randbits(1)
            score = self.scores[one.name]
            score.rounds += 1
            score.right += guess == bit
            score.spoke += crossed != straight
        for name, act in zip(order, (first, second), strict=True):
            self.adversary.learn(self.users[name], act)
        self.adversary.forget()
        if end:
            self.cids.clear()

    def _evidence(self, detector: Detector, of_a: Act, of_b: Act, ends: dict[str, Act]) -> float:
        """That the one act is A's and the other B's, with how both leave if they do."""
        total = 0.0
        for name, act in zip(CLIENTS, (of_a, of_b), strict=True):
            user = self.users[name]
            total += detector.evidence(self.adversary, user, act)
            if name in ends:
                supposed = user.copy()
                self.adversary.suppose(supposed, act)
                total += detector.evidence(self.adversary, supposed, ends[name])
        return total

    def play(self, rounds: int, *, life: int = 8, kinds: Sequence[str] = KINDS) -> None:
        """So many rounds; after each `life` of them both leave and open new channels."""
        ends = ("cash-out", "refund")
        for number in range(1, rounds + 1):
            end = ends[number // life % 2] if life and number % life == 0 else ""
            self.round(secrets.choice(kinds), end)


def bound(rounds: int, detectors: int, doubt: float) -> float:
    """How far the share of right guesses of one of so many detectors strays from its probability.

    Hoeffding's inequality: Pr[|right / rounds - p| >= e] <= 2 exp(-2 rounds e^2), for all of them
    together at most `doubt`.
    """
    return sqrt(log(2 * detectors / doubt) / (2 * rounds))


def summary(scores: dict[str, Score]) -> str:
    """One line per detector."""
    return "\n".join(f"{name:22} right {one.right / one.rounds:.3f} of {one.rounds}, "
                     f"spoke in {one.spoke}" for name, one in scores.items())


