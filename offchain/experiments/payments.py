# SPDX-License-Identifier: BSD-3-Clause
"""How many nanopayments a relay verifies in a second, in one process and without a disk."""

from __future__ import annotations

import secrets
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from monetor_chain.statements import CHECKPOINT_STRIDE

from ..crypto.hash_chain import HashChain
from ..protocol.messages import NanoPayment, Terms, pack, unpack
from ..protocol.nano_pay import check_payment
from ..protocol.wallet import NOTHING, Proved
from .stopwatch import stopwatch


@dataclass(frozen=True, slots=True)
class Payments:
    """A session's payments as messages and as bytes."""

    terms: Terms
    messages: Sequence[NanoPayment]
    encoded: Sequence[tuple[int, bytes]]


def payments_of(n: int) -> Payments:
    """All n payments of a fresh chain, with a path at every checkpoint."""
    chain = HashChain(n, secrets.token_bytes(32))
    terms = Terms(-100, 86, n, chain.hc0, 2**40, chain.root, 0)
    messages = [NanoPayment(k, chain.value(k), chain.path(k) if k % CHECKPOINT_STRIDE == 0 else ())
                for k in range(1, n + 1)]
    return Payments(terms, messages, [pack(one) for one in messages])


def verify(payments: Payments) -> Proved:
    """Check every payment as a relay does before it stores one."""
    terms, last = payments.terms, NOTHING
    for payment in payments.messages:
        last = check_payment(terms, last, payment)
    return last


def decode_and_verify(payments: Payments) -> Proved:
    """The same from the bytes that a cell carries."""
    terms, last = payments.terms, NOTHING
    for pcmd, payload in payments.encoded:
        last = check_payment(terms, last, unpack(pcmd, payload))
    return last


def rate(action: Callable[[Payments], Proved], n: int, rounds: int) -> float:
    """Payments per second of processor time: the median over so many sessions of n payments."""
    rates = []
    for _ in range(rounds):
        payments = payments_of(n)
        with stopwatch() as span:
            action(payments)
        rates.append(n / span.ms * 1e3)
    return statistics.median(rates)
