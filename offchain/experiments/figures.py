# SPDX-License-Identifier: BSD-3-Clause
"""Figures of a `BenchReport` as SVG files. Needs matplotlib, of the extra `experiments`."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from monetor_chain.gas import BUDGETS

from .bench import BenchReport
from .sessions import SESSION_PROTOCOLS

PROTOCOLS = (*SESSION_PROTOCOLS, "micropayment")
_PARTIES = ("client", "relay", "client2", "intermediary")
_COLOURS = ("#4477aa", "#66ccee", "#aabbdd", "#ee6677")


class MissingMatplotlib(Exception):
    """The extra `experiments` is not installed."""


def pyplot() -> Any:
    """matplotlib's plotting module, set up for files; `MissingMatplotlib` without it."""
    try:
        matplotlib: Any = import_module("matplotlib")
    except ModuleNotFoundError as error:
        raise MissingMatplotlib("figures need matplotlib: install the extra 'experiments'"
                                ) from error
    matplotlib.use("svg")
    # The same report gives the same file.
    matplotlib.rcParams.update({"svg.hashsalt": "monetor", "svg.fonttype": "none"})
    return import_module("matplotlib.pyplot")


def protocol_costs(report: BenchReport, backend: str) -> dict[str, dict[str, float]]:
    """Protocol → party → milliseconds, summed over the steps."""
    costs: dict[str, dict[str, float]] = {protocol: {} for protocol in PROTOCOLS}
    for step in report.steps:
        if step.backend == backend and step.protocol in costs:
            parties = costs[step.protocol]
            parties[step.party] = parties.get(step.party, 0.0) + step.ms
    return costs


def draw(report: BenchReport, folder: Path) -> list[Path]:
    """Write every figure into `folder`; returns the files. `MissingMatplotlib` without it."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [_draw_costs(report, folder / "protocol_costs.svg"),
             _draw_cells(report, folder / "cells.svg")]
    if report.gas:
        drawn.append(_draw_gas(report, folder / "gas.svg"))
    if report.scale:
        drawn.append(_draw_scale(report, folder / "scale.svg"))
    return drawn


def _draw_costs(report: BenchReport, path: Path) -> Path:
    """Stacked bars: who computes how much, in pairing checks, for each backend."""
    plot = pyplot()
    backends = list(report.references)
    figure, axes = plot.subplots(figsize=(8, 3.6), layout="constrained")
    height = 0.8 / len(backends)
    for number, backend in enumerate(backends):
        unit = report.references[backend]["pairing_check"]
        costs = protocol_costs(report, backend)
        places = [index + number * height for index in range(len(PROTOCOLS))]
        left = [0.0] * len(PROTOCOLS)
        for party, colour in zip(_PARTIES, _COLOURS, strict=True):
            widths = [costs[protocol].get(party, 0.0) / unit for protocol in PROTOCOLS]
            axes.barh(places, widths, height * 0.9, left=left, color=colour,
                      label=party if number == 0 else None)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        for place, width in zip(places, left, strict=True):
            axes.text(width, place, f" {backend}", va="center", fontsize=7)
    axes.set_yticks([index + 0.4 - height / 2 for index in range(len(PROTOCOLS))], PROTOCOLS)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("processor time, in pairing checks of the same backend")
    axes.legend(loc="upper right", fontsize=8)
    return save(plot, figure, path)


def _draw_cells(report: BenchReport, path: Path) -> Path:
    """Bars: the cells of each message, in order."""
    plot = pyplot()
    crossed = [one for one in report.crossings if one.protocol in SESSION_PROTOCOLS]
    figure, axes = plot.subplots(figsize=(8, 4.6), layout="constrained")
    places = range(len(crossed))
    axes.barh(places, [one.size for one in crossed], color=[
        _COLOURS[_PARTIES.index(one.source)] for one in crossed])
    axes.set_yticks(places, [f"{one.source} → {one.target}: {one.message}" for one in crossed],
                    fontsize=7)
    for place, one in enumerate(crossed):
        axes.text(one.size, place, f" {one.cells}", va="center", fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("bytes of a message; the number is its cells")
    return save(plot, figure, path)


def _draw_gas(report: BenchReport, path: Path) -> Path:
    """Bars: gas of each operation with its budget as a line."""
    plot = pyplot()
    figure, axes = plot.subplots(figsize=(8, 3.4), layout="constrained")
    names = list(report.gas)
    places = range(len(names))
    axes.barh(places, [report.gas[name] / 1e3 for name in names], color=_COLOURS[0])
    for place, name in enumerate(names):
        axes.plot([BUDGETS[name] / 1e3] * 2, [place - 0.4, place + 0.4], color=_COLOURS[3])
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xlabel("thousand gas of the whole transaction; the line is the budget")
    return save(plot, figure, path)


def _draw_scale(report: BenchReport, path: Path) -> Path:
    """Two curves over the number of sessions: cost of a setup, and disk of a session."""
    plot = pyplot()
    figure, (time, disk) = plot.subplots(1, 2, figsize=(8, 2.8), layout="constrained")
    sessions = [one.sessions for one in report.scale]
    for axes, values, label in (
            (time, [one.setup_ratio for one in report.scale],
             "a Nano-Setup at the intermediary, in pairing checks"),
            (disk, [one.bytes_per_session / 1e3 for one in report.scale],
             "disk of a finished session, kB")):
        axes.plot(sessions, values, marker="o", color=_COLOURS[0])
        axes.set_xscale("log")
        axes.set_ylim(0, max(values) * 1.4)
        axes.set_xlabel("sessions that the intermediary has served")
        axes.set_title(label, fontsize=9)
    return save(plot, figure, path)


def save(plot: Any, figure: Any, path: Path) -> Path:
    """Write a figure as SVG and close it."""
    figure.savefig(path, metadata={"Date": None})
    plot.close(figure)
    # matplotlib leaves blanks at line ends.
    path.write_text("".join(f"{line.rstrip()}\n" for line in _lines(path)), encoding="utf-8")
    return path


def _lines(path: Path) -> Iterable[str]:
    return path.read_text(encoding="utf-8").splitlines()
