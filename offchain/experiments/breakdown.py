# SPDX-License-Identifier: BSD-3-Clause
"""Where the time of each step of a Nano-Setup goes, by the kind of work.

Python's profiler says in which functions a step spends its processor time; what a library does is
counted to the kind of the function that called it. What the profiler itself takes at each call is
measured and subtracted. Shares are applied to the times without profiler.
"""

from __future__ import annotations

import cProfile
import pstats
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..crypto.curve import backend
from ..protocol.dialogue import DRAFT, Name
from .stopwatch import reference_costs, stopwatch
from .stored import StoredIntermediary

KINDS = ("pairing curve", "ECDSA", "hashing", "codec", "SQLite", "rest")
STEPS = (DRAFT, "nano_setup", "NanoSetupRequest", "NanoRefundReply", "NanoSetupReveal",
         "Acknowledged")
"""Of a Nano-Setup, in their order."""
_WARMING = 12

_LIBRARIES = (
    ("pyblst", "pairing curve"), ("BlstP", "pairing curve"), ("compress", "pairing curve"),
    ("to_xy_bytes", "pairing curve"), ("secp256k1", "ECDSA"), ("_cffi", "ECDSA"),
    ("pysha3", "hashing"), ("sqlite3", "SQLite"),
)  # fmt: skip
"""Part of a built-in function's name → kind."""
_FILES = (
    ("crypto/curve", "pairing curve"), ("crypto/fixed_base", "pairing curve"),
    ("crypto/encoding", "pairing curve"), ("crypto/ecdsa", "ECDSA"), ("coincurve", "ECDSA"),
    ("crypto/hash_chain", "hashing"), ("crypto/transcript", "hashing"),
    ("monetor_chain/statements", "hashing"), ("protocol/codec", "codec"),
    ("protocol/records", "codec"), ("protocol/messages", "codec"), ("store/sqlite", "SQLite"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Spent:
    """One step: its time in pairing checks of the same minute, by kind of work."""

    party: str
    step: str
    ms: float
    ratios: dict[str, float]


def measure_breakdown(runs: int = 40) -> list[Spent]:
    """Take apart every step of a Nano-Setup, the intermediary's with its database."""
    times: defaultdict[str, list[float]] = defaultdict(list)
    profiles: defaultdict[str, cProfile.Profile] = defaultdict(
        lambda: cProfile.Profile(time.thread_time))
    parties: dict[str, str] = {}
    profiling = [False]

    @contextmanager
    def observe(name: Name, step: str) -> Iterator[None]:
        parties[step] = name.value
        if not profiling[0]:
            with stopwatch() as span:
                yield
            times[step].append(span.ms)
            return
        profiles[step].enable()
        try:
            yield
        finally:
            profiles[step].disable()

    with tempfile.TemporaryDirectory(prefix="monetor-breakdown-") as place:
        one = StoredIntermediary(Path(place) / "store.sqlite", observe=observe)
        try:
            for _ in range(min(_WARMING, runs)):
                one.session()
            times.clear()
            pairing = reference_costs(backend(), runs)["pairing_check"]
            for profiling[0] in (False, True):
                for _ in range(runs):
                    one.finish(one.setup())
        finally:
            one.close()
    return [Spent(parties[step], step, ms := statistics.median(times[step]),
                  {kind: share * ms / pairing for kind, share in _shares(profiles[step]).items()})
            for step in STEPS]


def _shares(profile: cProfile.Profile) -> dict[str, float]:
    called, calling = _own_cost()
    spent = dict.fromkeys(KINDS, 0.0)
    for function, (_, _, _, _, callers) in _statistics(profile).items():
        kind = _kind(function)
        for caller, (count, _, own, _) in callers.items():
            spent[kind or _kind(caller) or "rest"] += own - count * called
            spent[_kind(caller) or "rest"] -= count * calling
    spent = {kind: max(0.0, one) for kind, one in spent.items()}
    total = sum(spent.values())
    return {kind: one / total for kind, one in spent.items()}


def _own_cost(calls: int = 20_000) -> tuple[float, float]:
    """Seconds that the profiler takes at each call, in the times of callee and caller."""
    profile = cProfile.Profile(time.thread_time)
    with stopwatch() as plain:
        _call(calls)
    profile.runcall(_call, calls)
    own = {name: times[2] for (_, _, name), times in _statistics(profile).items()}
    called, calling = own[_nothing.__name__], own[_call.__name__]
    real = plain.ms / 1e3
    return max(0.0, called - real / 2) / calls, max(0.0, calling - real / 2) / calls


def _nothing() -> None:
    return


def _call(times: int) -> None:
    for _ in range(times):
        _nothing()


def _statistics(profile: cProfile.Profile) -> Mapping[Any, Any]:
    found: Any = pstats.Stats(profile)
    statistics_of: Mapping[Any, Any] = found.stats
    return statistics_of


def _kind(function: tuple[str, int, str]) -> str | None:
    """The kind of a function; None for a built-in one that its caller has to answer for."""
    file, _, name = function
    if file == "~":
        return next((kind for part, kind in _LIBRARIES if part in name), None)
    return next((kind for part, kind in _FILES if part in file), "rest")
