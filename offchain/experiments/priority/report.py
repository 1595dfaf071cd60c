# SPDX-License-Identifier: BSD-3-Clause
"""Results as a table and as a figure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..figures import pyplot, save
from .plan import ALPHAS, ORDERS, SHARES
from .run import Result

HEADER = ("limit at", "order", "p", "α", "windows", "premium, kB/s", "others, kB/s", "ratio",
          "95 %", "total, kB/s", "total / α=0")
_COLOURS = ("#bbbbbb", "#66ccee", "#4477aa")
_TOP = 12.0
"""Where the axis of ratios ends; what is larger is written at its end."""


def row(result: Result) -> tuple[str, ...]:
    """One line of the table."""
    setting = result.setting
    place = setting.limited + ("" if setting.reading else " (sending)")
    return (place, setting.order.name, f"{setting.share:g}", f"{setting.alpha:g}",
            f"{setting.window_ratio:.2f}", f"{_median(result, 'premium') / 1e3:.0f}",
            f"{_median(result, 'others') / 1e3:.0f}", _number(result.ratio),
            f"{_number(result.low)} to {_number(result.high)}", f"{result.total / 1e3:.0f}",
            "" if result.against_even is None else f"{result.against_even:.3f}")


def markdown(results: Sequence[Result]) -> list[str]:
    """The table for a page."""
    lines = [HEADER, ("---",) * len(HEADER), *map(row, results)]
    return ["| " + " | ".join(line) + " |" for line in lines]


def section(results: Sequence[Result]) -> Iterator[str]:
    """What a page of results says of the experiment; nothing if it was not made."""
    if not results:
        return
    setting = results[0].setting
    cores = max(run.core for one in results for run in one.runs)
    yield "## Priority"
    yield ""
    yield ("`monetor experiment priority`: three relays as processes, the one that is named with a "
           f"limit of {setting.rate / 1e3:,.0f} kB/s in each direction, {setting.clients} clients "
           "that download all the time, a share p of them premium. "
           f"{len(results[0].runs)} runs of {setting.seconds:g} s after {setting.warm:g} s. Speeds "
           "are medians over the clients; the interval of their ratio is a bootstrap over clients "
           f"(95 %). The busiest relay used {cores:.0%} of a core. What it means: "
           "[transport.md](transport.md#what-was-measured).")
    yield ""
    yield "![Ratio of speeds and total throughput](figures/priority.svg)"
    yield ""
    yield "The red lines are the ratio of the windows."
    yield ""
    yield from markdown(results)
    yield ""


def _median(result: Result, kind: str) -> float:
    speeds = [run.premium if kind == "premium" else run.others for run in result.runs]
    return statistics.median(speed for one in speeds for speed in one)


def _number(ratio: float) -> str:
    if math.isinf(ratio):
        return "∞"
    return f"{ratio:.2f}" if ratio < 100 else f"{ratio:.0f}"


def draw(results: Sequence[Result], path: Path) -> Path:
    """Bars of the whole grid: ratios above with their intervals and the ratio of the windows as a
    line, totals below. `MissingMatplotlib` without matplotlib."""
    plot = pyplot()
    path.parent.mkdir(parents=True, exist_ok=True)
    shares = [p for p in SHARES if any(one.setting.share == p for one in results)]
    orders = [order for order in ORDERS if any(one.setting.order == order for one in results)]
    limited = results[0].setting.limited
    figure, axes = plot.subplots(2, len(shares), figsize=(4.4 * len(shares), 5), squeeze=False,
                                 sharex=True, sharey="row", layout="constrained",
                                 height_ratios=(3, 1))
    for column, share in enumerate(shares):
        ratios, totals = axes[0][column], axes[1][column]
        for number, alpha in enumerate(ALPHAS):
            found = [one for order in orders for one in results
                     if one.setting.order == order and one.setting.share == share
                     and one.setting.alpha == alpha and one.setting.limited == limited
                     and one.setting.reading]
            places = [orders.index(one.setting.order) + (number - 1) * 0.27 for one in found]
            _bars(ratios, found, places, _COLOURS[number], alpha)
            totals.bar(places, [one.total / 1e6 for one in found], 0.25, color=_COLOURS[number])
        ratios.set_title(f"p = {share:g}", fontsize=10)
        ratios.set_ylim(0, _TOP)
        totals.set_xticks(range(len(orders)), [order.name for order in orders], fontsize=8)
    axes[0][0].set_ylabel("premium speed / other speed")
    axes[1][0].set_ylabel("total, MB/s")
    axes[0][0].legend(fontsize=8, loc="upper left")
    save(plot, figure, path)
    return path


def _bars(axes: Any, found: Sequence[Result], places: Sequence[float], colour: str, alpha: float
          ) -> None:
    heights = [min(one.ratio, _TOP) for one in found]
    errors = [[max(0.0, height - one.low) if math.isfinite(one.low) else 0.0
               for one, height in zip(found, heights, strict=True)],
              [max(0.0, min(one.high, _TOP) - height)
               for one, height in zip(found, heights, strict=True)]]
    axes.bar(places, heights, 0.25, yerr=errors, color=colour, label=f"α = {alpha:g}",
             error_kw={"linewidth": 0.8})
    for one, place in zip(found, places, strict=True):
        axes.plot([place - 0.12, place + 0.12], [one.setting.window_ratio] * 2, color="#ee6677")
        if one.ratio > _TOP:
            axes.text(place, _TOP * 0.97, _number(one.ratio), ha="center", va="top", fontsize=7,
                      color="white" if alpha == ALPHAS[-1] else "black")
