# SPDX-License-Identifier: BSD-3-Clause
"""docs/results.md and its figures, from a measurement on the machine that runs this.

    python -m offchain.experiments.results [folder] [statement.json] [scale.json]

The first file is what `monetor demo --json` wrote; with it the page has the demo's latencies too.
The second is what `monetor bench --sessions 1000000 --json` wrote, for an intermediary after many
sessions; without it there are 10,000. What `monetor experiment priority --out
docs/figures/priority.json` wrote is taken from there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from monetor_chain.gas import BUDGETS

from .bench import REFERENCE, BenchOptions, BenchReport, run_bench
from .breakdown import KINDS
from .figures import PROTOCOLS, draw
from .priority.report import draw as draw_priority, section
from .priority.run import Result, load
from .scale import Size, measure_scale, sizes_up_to
from .sessions import SESSION_PROTOCOLS

_AIMS = {
    "nano_setup_ms": "≤ 10", "nano_setup_on_demand_ms": "≤ 5", "nano_close_ms": "≤ 8",
    "nano_pay_per_s": "≥ 400,000", "setups_per_s_per_core": "≥ 200", "session_cells": "≤ 25",
}  # fmt: skip
_MEANINGS = {
    "nano_setup_ms": "Nano-Setup, both sides, from the idle wallet to the acknowledgement",
    "nano_setup_on_demand_ms": "the same without what the client drafts ahead of the demand",
    "nano_establish_ms": "Nano-Establish, all sides",
    "nano_close_ms": "Nano-Close of one leg (the dearer), both sides, two blind signatures",
    "nano_close_relay_ms": "Nano-Close of the relay's leg",
    "nano_close_client_ms": "Nano-Close of the client's leg",
    "micropayment_ms": "hidden micropayment, both legs, all sides",
    "nano_pay_per_s": "payments verified a second, without disk",
    "nano_pay_from_bytes_per_s": "the same from the bytes of the cells",
    "setups_per_s_per_core": "Nano-Setups that an intermediary answers, with its disk, in a second "
                             "of processor time",
    "session_cells": "cells of a session, setup to close, both legs, payments excluded",
    "micropayment_cells": "cells of a hidden micropayment",
    "nano_setup_first_ms": "Nano-Setup in a process that has just started",
    "nano_establish_first_ms": "Nano-Establish in such a process",
    "nano_close_relay_first_ms": "Nano-Close of the relay's leg in such a process",
    "nano_close_client_first_ms": "Nano-Close of the client's leg in such a process",
}


def page(report: BenchReport, machine: str, statement: Mapping[str, Any] | None,
         priority: Sequence[Result] = ()) -> str:
    """The page in Markdown."""
    return "\n".join([*_head(machine), *_headline(report), *_steps(report),
                      *_breakdown(report), *_rates(report), *_scale(report), *_messages(report),
                      *_references(report), *_gas(report), *_demo(statement),
                      *section(priority)]) + "\n"


def machine() -> str:
    """The machine, as far as it matters to the figures."""
    return (f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, "
            f"CPython {platform.python_version()}")


def _busy() -> str:
    load = os.getloadavg()[2]
    if load <= (os.cpu_count() or 1):
        return ""
    return (f" Other programs ran on it meanwhile ({load:.0f} at a time), which share its caches "
            "and memory: a quiet machine is faster. Ratios suffer less.")


def _head(machine_text: str) -> list[str]:
    return [
        "# Results", "",
        "Written by `python -m offchain.experiments.results`; `monetor bench` prints the headline "
        "figures of your machine.", "",
        f"Machine: {machine_text}; one core used.{_busy()}", "",
        "Times are medians of processor time of one thread, so other programs hardly count, yet "
        "they belong to the machine. Ratios to a pairing check (`e(a, b) = e(c, d)`, measured in "
        "the same process) carry over to others. A step is everything that a party does with one "
        "message: decoding it, all the cryptography, its records in memory, and its answer. No "
        "test asserts a time.", "",
    ]


def _headline(report: BenchReport) -> Iterator[str]:
    yield "## Headline"
    yield ""
    yield from _table(("figure", "meaning", "value", "aim"), (
        (f"`{name}`", _MEANINGS[name], _number(value), _AIMS.get(name, ""))
        for name, value in report.figures.items()))
    yield ""
    yield (
        "For comparison: Bolt's micropayment is quoted at 37 to 100 ms. A process that has just "
        "started computes without tables; with blst, a base of the proofs that has been multiplied "
        "90 times gets one (`crypto/fixed_base.py`). Nano-Setup includes the client's hash chain "
        "of 1,024 values. A hidden micropayment includes one request that has to be repeated, "
        "because it arrives before the other leg.")
    yield ""


def _steps(report: BenchReport) -> Iterator[str]:
    yield "## Who computes what"
    yield ""
    yield "![Cost of each protocol by party](figures/protocol_costs.svg)"
    backends = list(report.references)
    times = {(one.backend, one.protocol, index): one for backend in backends
             for protocol in PROTOCOLS
             for index, one in enumerate(step for step in report.steps
                                         if step.backend == backend and step.protocol == protocol)}
    for protocol in PROTOCOLS:
        first = [one for one in report.steps
                 if one.backend == backends[0] and one.protocol == protocol]
        ratios = ", ".join(f"{report.ratios[backend][protocol]:.1f} ({backend})"
                           for backend in backends)
        yield ""
        yield f"**{protocol}**, in all {ratios} pairing checks; milliseconds:"
        yield ""
        yield from _table(("party", "handles", *backends), (
            (one.party, f"`{one.step}`",
             *(f"{times[backend, protocol, index].ms:.2f}" for backend in backends))
            for index, one in enumerate(first)))
    yield ""


def _breakdown(report: BenchReport) -> Iterator[str]:
    if not report.breakdown:
        return
    yield "## Where the time of a Nano-Setup goes"
    yield ""
    yield (
        "In pairing checks of the same minute; the intermediary with its database, one commit for "
        "each message. `draft_setup` is done before anybody asks for a session. Shares are a "
        "profiler's, less what it takes itself.")
    yield ""
    yield from _table(("party", "handles", "in all", *KINDS), (
        (one.party, f"`{one.step}`", f"{sum(one.ratios.values()):.2f}",
         *(f"{one.ratios[kind]:.2f}" for kind in KINDS)) for one in report.breakdown))
    yield ""


def _rates(report: BenchReport) -> Iterator[str]:
    if len(report.rates) < 2:
        return
    yield "## How many setups an intermediary answers"
    yield ""
    yield (
        "Both messages of each setup, from bytes to bytes, with the database; no cells and no "
        "links. `workers` verify proofs in processes of their own; setups of a group share each of "
        "their two commits. Per core: of processor time of all processes together. By the clock: "
        "as fast as this machine let them, beside everything else that ran on it.")
    yield ""
    yield from _table(("workers", "group", "per second and core", "in pairing checks each",
                       "of it not by workers", "per second by the clock"), (
        (str(one.workers), str(one.group), f"{one.per_core:.0f}", f"{one.cost:.1f}",
         f"{one.own:.0%}", f"{one.per_second:.0f}") for one in report.rates))
    yield ""
    yield (
        "What was tried and is not done. *Merging the equations of a proof under random weights*: "
        "the proof would carry its announcements instead of the challenge, so 7 points more to "
        "decode (0.5 pairing checks) and to multiply (0.7), against 0.3 that fewer table sums "
        "save. *Checking the pairings of several messages as one product under random weights of "
        "128 bits*: spares each a Miller loop and most of the final exponentiation (0.7), and "
        "costs it a multiplication in G1 and one in G2 (0.3), for the library multiplies by short "
        "numbers no faster. That is a tenth of a setup, for a second path on which one bad message "
        "has to be told from many good ones.")
    yield ""


def _scale(report: BenchReport) -> Iterator[str]:
    if not report.scale:
        return
    yield "## An intermediary after many sessions"
    yield ""
    yield (
        "A database that holds so many finished sessions, and Nano-Setups on top of it, one commit "
        "for each message. The rows are those of a real session under random keys; from 20,000 "
        "sessions on they are inserted in order of key, which leaves pages a little fuller than "
        "growth does, as the first lines show. `depth`: pages from the root of the tree of records "
        "to one of them. Most of a session's rows are forgotten when it can matter no more "
        "(operations.md, \"What an intermediary forgets\"); here all are there still.")
    yield ""
    yield "![Cost of a setup and disk per session](figures/scale.svg)"
    yield ""
    yield from _table(("sessions", "rows each", "bytes each", "depth", "setup, ms",
                       "in pairing checks", "pages written"), (
        (f"{one.sessions:,}", str(one.rows_per_session), f"{one.bytes_per_session:,.0f}",
         str(one.depth), f"{one.setup_ms:.2f}", f"{one.setup_ratio:.1f}", f"{one.pages:.1f}")
        for one in report.scale))
    yield ""


def _messages(report: BenchReport) -> Iterator[str]:
    yield "## Messages and cells"
    yield ""
    yield "Each cell is counted once, from end to end; 495 bytes of a message fit one."
    yield ""
    yield "![Bytes and cells of a session's messages](figures/cells.svg)"
    yield ""
    yield from _table(("protocol", "from", "to", "message", "bytes", "cells"), (
        (one.protocol, one.source, one.target, f"`{one.message}`", f"{one.size:,}", str(one.cells))
        for one in report.crossings if one.protocol in SESSION_PROTOCOLS))
    yield ""


def _references(report: BenchReport) -> Iterator[str]:
    backends = list(report.references)
    yield "## Operations that it is made of"
    yield ""
    yield "Milliseconds, and in pairing checks of the same backend. Decoding checks the subgroup."
    yield ""
    yield from _table(("operation", *(f"{backend}{unit}" for backend in backends
                                      for unit in (", ms", ", ratio"))), (
        (f"`{name}`", *(text for backend in backends for text in (
            f"{report.references[backend][name]:.4f}",
            f"{report.references[backend][name] / report.references[backend][REFERENCE]:.3f}")))
        for name in report.references[backends[0]]))
    yield ""


def _gas(report: BenchReport) -> Iterator[str]:
    if not report.gas:
        return
    yield "## Gas"
    yield ""
    yield "Whole transactions; `monetor gas` measures them. Gas does not depend on the machine."
    yield "Every other call, and what a group costs per channel: [ledger.md](ledger.md#every-call)."
    yield ""
    yield "![Gas of each operation and its budget](figures/gas.svg)"
    yield ""
    yield from _table(("operation", "gas", "budget", "used"), (
        (f"`{name}`", f"{gas:,}", f"{BUDGETS[name]:,}", f"{gas / BUDGETS[name]:.0%}")
        for name, gas in report.gas.items()))
    yield ""


def _demo(statement: Mapping[str, Any] | None) -> Iterator[str]:
    if statement is None:
        return
    yield "## The demo"
    yield ""
    download = statement["download"]
    yield (f"One run of `monetor demo`: chain, authority, intermediary, three relays and client on "
           f"these cores. {download['bytes']:,} bytes arrived in {download['seconds']:.1f} s, "
           "paid for as they came. Latencies are of wall-clock time over onion circuits on "
           "loopback, all parties competing for the cores, and include the building of a circuit "
           "to the intermediary. Cells are those of a median conversation with it, or for "
           "`nano_offer` with the relay.")
    yield ""
    yield from _table(("protocol", "count", "median ms", "cells"), (
        (name, f"{one['count']:,}", f"{one['median_ms']:,.0f}", f"{one['cells']:,}")
        for name, one in statement["protocols"].items()))
    yield ""


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(header) + " |"
    yield "|" + "---|" * len(header)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:.1f}"


def main(arguments: Sequence[str]) -> None:
    """Measure, write the page and draw the figures."""
    parser = argparse.ArgumentParser(prog="python -m offchain.experiments.results")
    parser.add_argument("folder", nargs="?", type=Path, default=Path("docs"))
    parser.add_argument("statement", nargs="?", type=Path)
    parser.add_argument("scale", nargs="?", type=Path)
    options = parser.parse_args(arguments)
    folder: Path = options.folder
    statement = json.loads(options.statement.read_text()) if options.statement else None
    measured = folder / "figures" / "priority.json"
    priority = load(json.loads(measured.read_text())) if measured.exists() else ()
    report = run_bench(BenchOptions(parts=True, gas=True))
    report = replace(report, scale=(
        [Size(**one) for one in json.loads(options.scale.read_text())["scale"]] if options.scale
        else measure_scale(sizes_up_to(10**4))))
    if priority:
        draw_priority(priority, folder / "figures" / "priority.svg")
    draw(report, folder / "figures")
    (folder / "results.md").write_text(page(report, machine(), statement, priority).rstrip() + "\n",
                                       encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
