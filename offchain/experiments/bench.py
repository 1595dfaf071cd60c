# SPDX-License-Identifier: BSD-3-Clause
"""`monetor bench`: what the protocol costs on one core, and in how many cells.

Times are medians of processor time. Nothing is compared with a goal here: figures belong to the
machine that made them, ratios to the code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from monetor_chain.parameters import DEFAULT, NetworkParameters

from ..crypto.curve import DEFAULT_BACKEND, backend
from ..protocol.dialogue import DRAFT
from .breakdown import Spent, measure_breakdown
from .payments import decode_and_verify, rate, verify
from .scale import Size
from .sessions import SESSION_PROTOCOLS, Bench, Crossing, Step, using_backend
from .stopwatch import reference_costs
from .throughput import GROUP, Rate, measure_rate

REFERENCE = "pairing_check"
"""The operation that ratios are counted in."""
_WARMING = 12
"""Sessions before the measured ones: long-running parties have tables of their bases by then."""
_COLD = 2
"""Sessions of a fresh process that are measured apart, after one that loads everything."""

_RATES = ((0, GROUP), (0, 1), (1, GROUP), (2, GROUP))
"""Workers, and setups that share a commit; the first is in the headline."""


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What to measure, and how often.

    `runs` sessions and hidden payments on each backend, the first of which gives the headline
    figures; `rounds` sessions of payments; `setups` at the intermediary alone. `parts` takes the
    steps of a Nano-Setup apart and tries workers and groups; `gas` measures the ledger too. Both
    take longer.
    """

    runs: int = 25
    rounds: int = 60
    backends: Sequence[str] = (DEFAULT_BACKEND, "arkworks")
    parameters: NetworkParameters = DEFAULT
    setups: int = 256
    parts: bool = False
    gas: bool = False


@dataclass(frozen=True, slots=True)
class BenchReport:
    """Headline figures, and what they are made of.

    `figures`: times in milliseconds, rates in payments per second, messages in cells. `references`:
    backend → operation → milliseconds. `ratios`: backend → protocol → cost in pairing checks.
    """

    figures: dict[str, float]
    references: dict[str, dict[str, float]]
    ratios: dict[str, dict[str, float]]
    steps: list[Step]
    crossings: list[Crossing]
    gas: dict[str, int] = field(default_factory=dict)
    breakdown: Sequence[Spent] = ()
    rates: Sequence[Rate] = ()
    scale: Sequence[Size] = ()

    def to_json(self) -> dict[str, Any]:
        """The headline figures with the rest under them, as plain data."""
        return {**self.figures, "references": self.references, "ratios": self.ratios,
                "steps": [asdict(one) for one in self.steps],
                "messages": [asdict(one) for one in self.crossings], "gas": self.gas,
                "breakdown": [asdict(one) for one in self.breakdown],
                "rates": [asdict(one) for one in self.rates],
                "scale": [asdict(one) for one in self.scale]}


def run_bench(options: BenchOptions | None = None) -> BenchReport:
    """Measure everything; takes some seconds, and half a minute more with `gas` or `parts`."""
    options = options or BenchOptions()
    benches: list[Bench] = []
    references: dict[str, dict[str, float]] = {}
    cold: dict[str, float] = {}
    for name in options.backends:
        with using_backend(name):
            references[name] = reference_costs(backend(name), max(options.runs, 5))
            bench = _run(_warm(Bench(name, options.parameters), 1), _COLD)
            if not benches:
                cold = {f"{protocol}_first_ms": bench.protocol_ms(protocol)
                        for protocol in SESSION_PROTOCOLS}
            benches.append(_run(_warm(bench, _WARMING), options.runs))
    figures = _headline(benches[0]) | cold
    n = options.parameters.n
    figures["nano_pay_per_s"] = rate(verify, n, options.rounds)
    figures["nano_pay_from_bytes_per_s"] = rate(decode_and_verify, n, max(options.rounds // 4, 1))
    rates = [measure_rate(options.setups, workers=workers, group=group)
             for workers, group in (_RATES if options.parts else _RATES[:1])]
    figures["setups_per_s_per_core"] = rates[0].per_core
    ratios = {bench.backend: {
        protocol: bench.protocol_ms(protocol) / references[bench.backend][REFERENCE]
        for protocol in (*SESSION_PROTOCOLS, "micropayment")} for bench in benches}
    return BenchReport(
        {name: round(figure, 3) for name, figure in figures.items()}, references, ratios,
        [step for bench in benches for step in bench.steps()], benches[0].crossings(),
        _gas() if options.gas else {},
        measure_breakdown(options.runs) if options.parts else (), rates)


def measure() -> dict[str, float]:
    """The headline figures alone."""
    return run_bench(BenchOptions(backends=(DEFAULT_BACKEND,))).figures


def _run(bench: Bench, runs: int) -> Bench:
    for _ in range(runs):
        bench.session()
        bench.transfer()
    return bench


def _warm(bench: Bench, runs: int) -> Bench:
    _run(bench, runs)
    bench.forget()
    return bench


def _headline(bench: Bench) -> dict[str, float]:
    relay, client = bench.protocol_ms("nano_close_relay"), bench.protocol_ms("nano_close_client")
    return {
        "nano_setup_ms": bench.protocol_ms("nano_setup"),
        "nano_setup_on_demand_ms": bench.protocol_ms("nano_setup", without=DRAFT),
        "nano_establish_ms": bench.protocol_ms("nano_establish"),
        "nano_close_ms": max(relay, client),
        "nano_close_relay_ms": relay,
        "nano_close_client_ms": client,
        "micropayment_ms": bench.protocol_ms("micropayment"),
        "session_cells": sum(bench.cells(protocol) for protocol in SESSION_PROTOCOLS),
        "micropayment_cells": bench.cells("micropayment"),
    }


def _gas() -> dict[str, int]:
    from monetor_chain.gas import measure as measure_gas

    return measure_gas()
