# SPDX-License-Identifier: BSD-3-Clause
"""Runs settings one after the other, each with fresh processes, and makes results of them."""

from __future__ import annotations

import json
import math
import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any

from ...transport.scheduler import Discipline
from .clients import ClientsSpec
from .plan import HOPS, Order, Setting
from .relay import RelaySpec

RESAMPLES = 2000
CONFIDENCE = 0.95
_PATIENCE = 60.0
"""Seconds that a process may need to begin and to end."""

Progress = Callable[[int, int, str], None]
"""Called with runs done, runs in all, and what is being run."""


class ExperimentFailed(Exception):
    """A process of an experiment did not do its part; the text says which, and what it said."""


@dataclass(frozen=True, slots=True)
class Run:
    """Bytes a second of every client, and the busiest relay's share of a core."""

    premium: Sequence[float]
    others: Sequence[float]
    core: float


@dataclass(frozen=True, slots=True)
class Result:
    """One setting over all its runs.

    `ratio`: median speed of premium clients divided by that of the others, with `low` and `high`
    the ends of its 95 % interval, by resampling clients. `total`: bytes a second of all clients,
    the mean over the runs; `against_even`: that divided by the total of α = 0 with the same p and
    order and limit, if that was measured. A ratio is infinite when others got nothing.
    """

    setting: Setting
    runs: Sequence[Run]
    ratio: float
    low: float
    high: float
    total: float
    against_even: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data; an infinite ratio becomes null."""
        plain = asdict(self) | {"order": self.setting.order.name,
                                "windows": self.setting.window_ratio}
        return plain | {name: _finite(plain[name]) for name in ("ratio", "low", "high")}


def measure(settings: Sequence[Setting], repetitions: int = 1,
            progress: Progress = lambda done, total, what: None) -> list[Result]:
    """Run every setting so many times. `ExperimentFailed` if a process does not do its part."""
    runs: dict[Setting, list[Run]] = {one: [] for one in settings}
    total = len(settings) * repetitions
    # One repetition of everything after the other: what disturbs the machine for a while then
    # disturbs all settings alike.
    for number in range(total):
        setting = settings[number % len(settings)]
        progress(number, total, f"p {setting.share:g}, α {setting.alpha:g}, {setting.order.name}")
        runs[setting].append(run_once(setting))
    progress(total, total, "done")
    return results(runs)


def run_once(setting: Setting) -> Run:
    """Start relays and clients, and wait for what they have measured."""
    priority = setting.priority
    constants = {"share": priority.share, "alpha": priority.alpha, "beta": priority.beta}
    with ExitStack() as stack:
        relays = [stack.enter_context(_Relay(RelaySpec(
            name, setting.rate if name == setting.limited else 0, setting.reading,
            setting.order.discipline.value, **constants))) for name in HOPS]
        spec = ClientsSpec([relay.router() for relay in relays], setting.clients,
                           setting.premium_clients, setting.streams, warm=setting.warm,
                           seconds=setting.seconds, **constants)
        try:
            done = subprocess.run(
                [sys.executable, "-m", f"{__package__}.clients", json.dumps(asdict(spec))],
                capture_output=True, text=True, check=False,
                timeout=setting.warm + setting.seconds + _PATIENCE)
        except subprocess.TimeoutExpired:
            raise ExperimentFailed("the clients have not ended in time") from None
        if done.returncode:
            raise ExperimentFailed(f"the clients failed: {done.stderr.strip()[-500:]}")
        core = max(relay.end() for relay in relays)
    speeds = json.loads(done.stdout)
    return Run(speeds["premium"], speeds["others"], core)


class _Relay:
    """A relay's process."""

    def __init__(self, spec: RelaySpec) -> None:
        self._name = spec.name
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.relay", json.dumps(asdict(spec))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> _Relay:
        return self

    def __exit__(self, *_: object) -> None:
        process = self._process
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def router(self) -> dict[str, Any]:
        """Where it listens, once it does."""
        found: dict[str, Any] = self._line()["router"]
        return found

    def end(self) -> float:
        """Let it end; returns its share of a core."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return float(self._line()["core"])

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ExperimentFailed(f"the {self._name} has ended by itself")
        facts: dict[str, Any] = json.loads(line)
        return facts


# --- results


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def results(runs: dict[Setting, list[Run]]) -> list[Result]:
    """Ratios, intervals and totals."""
    totals = {setting: statistics.fmean(sum(one.premium) + sum(one.others) for one in found)
              for setting, found in runs.items()}
    even = {one: total for one, total in totals.items() if one.alpha == 0}
    made = []
    for setting, found in runs.items():
        low, high = interval(found)
        base = even.get(replace(setting, alpha=0.0))
        made.append(Result(setting, found, ratio(found), low, high, totals[setting],
                           totals[setting] / base if base else None))
    return made


def load(plain: Sequence[Mapping[str, Any]]) -> list[Result]:
    """The results of which `Result.to_json` was written to a file."""
    runs: dict[Setting, list[Run]] = {}
    for one in plain:
        fields = dict(one["setting"])
        order = fields.pop("order")
        setting = Setting(order=Order(Discipline(order["discipline"]), order["beta"]), **fields)
        runs[setting] = [Run(**run) for run in one["runs"]]
    return results(runs)


def ratio(runs: Sequence[Run]) -> float:
    """Median premium speed over all runs divided by the others' median."""
    return _quotient([x for one in runs for x in one.premium],
                     [x for one in runs for x in one.others])


def interval(runs: Sequence[Run], resamples: int = RESAMPLES) -> tuple[float, float]:
    """Percentile bootstrap of the ratio: the clients of each class are drawn anew."""
    chance = random.Random(1)
    premium = [x for one in runs for x in one.premium]
    others = [x for one in runs for x in one.others]
    found = sorted(_quotient(chance.choices(premium, k=len(premium)),
                             chance.choices(others, k=len(others))) for _ in range(resamples))
    outside = (1 - CONFIDENCE) / 2
    return found[int(outside * resamples)], found[int((1 - outside) * resamples) - 1]


def _quotient(premium: Sequence[float], others: Sequence[float]) -> float:
    if not premium or not others:
        return float("nan")
    slow = statistics.median(others)
    return statistics.median(premium) / slow if slow else float("inf")
