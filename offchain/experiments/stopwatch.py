# SPDX-License-Identifier: BSD-3-Clause
"""Processor time of code, in milliseconds of one core, and what it means beside known operations.

Processor time of the measuring thread does not count what other programs on the machine do. It
still depends on the machine: the reference operations, measured in the same process, make figures
of different machines comparable as ratios.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from monetor_chain.statements import keccak256

from ..crypto.curve import Backend
from ..crypto.ecdsa import generate_private_key, recover, sign
from ..crypto.scalars import random_scalar

NANOSECONDS = 1e6
"""In a millisecond."""


def processor_ms() -> float:
    """Processor time of this thread so far, in milliseconds."""
    return time.thread_time_ns() / NANOSECONDS


@dataclass(slots=True)
class Span:
    """Processor time between entering and leaving a `stopwatch`, in milliseconds."""

    ms: float = 0.0


@contextmanager
def stopwatch() -> Iterator[Span]:
    """Measure a block of code."""
    span, started = Span(), processor_ms()
    try:
        yield span
    finally:
        span.ms = processor_ms() - started


def cost_of(action: Callable[[], object], runs: int) -> float:
    """Median processor time of `action` over so many runs, in milliseconds; one more warms up."""
    action()
    spans = []
    for _ in range(runs):
        with stopwatch() as span:
            action()
        spans.append(span.ms)
    return statistics.median(spans)


def reference_costs(curve: Backend, runs: int) -> dict[str, float]:
    """Milliseconds of the operations that everything else is made of, on one backend.

    `pairing_check` is e(a, b) = e(c, d), two pairings; `decode_*` checks the subgroup.
    """
    k = random_scalar()
    g1, g2 = curve.mul_g1(curve.g1, k), curve.mul_g2(curve.g2, k)
    in_g1, in_g2 = curve.encode_g1(g1), curve.encode_g2(g2)
    key, digest = generate_private_key(), keccak256(b"reference")
    signature = sign(digest, key)
    operations: dict[str, Callable[[], object]] = {
        "g1_multiplication": lambda: curve.mul_g1(g1, random_scalar()),
        "g2_multiplication": lambda: curve.mul_g2(g2, random_scalar()),
        "pairing_check": lambda: curve.pairing_equal(g1, curve.g2, curve.g1, g2),
        "decode_g1": lambda: curve.uncompress_g1(in_g1),
        "decode_g2": lambda: curve.uncompress_g2(in_g2),
        "ecdsa_sign": lambda: sign(digest, key),
        "ecdsa_recover": lambda: recover(digest, signature),
        "keccak256": lambda: keccak256(digest),
    }
    return {name: cost_of(action, runs) for name, action in operations.items()}
