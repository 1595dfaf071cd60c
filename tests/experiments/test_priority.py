# SPDX-License-Identifier: BSD-3-Clause
"""The priority experiment on a small scale: its processes, its statistics, its table."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from offchain.cli import main
from offchain.cli.failures import UsageProblem
from offchain.experiments.figures import MissingMatplotlib
from offchain.experiments.priority import plan
from offchain.experiments.priority.report import HEADER, draw, markdown, row, section
from offchain.experiments.priority.run import (
    ExperimentFailed,
    Run,
    interval,
    load,
    measure,
    ratio,
    results,
    run_once,
)
from offchain.transport.scheduler import Discipline

SMALL = plan.Setting(0.5, 0.5, plan.Order(Discipline.STRICT), clients=2, rate=2_000_000, warm=0.7,
                     seconds=0.7)


def test_real_relays_carry_both_classes_within_the_limit():
    found = run_once(SMALL)
    (premium,), (other,) = found.premium, found.others
    assert premium > other, "strict order at a saturated relay"
    # What waits behind the limit, and the burst, come in the measured time at worst.
    assert premium + other < SMALL.rate * 1.5
    assert 0 < found.core < 1


def test_a_process_that_fails_is_named(monkeypatch):
    with pytest.raises(ExperimentFailed, match="guard has ended"):
        run_once(replace(SMALL, limited="guard", rate=-5))


def test_the_grid_is_what_was_asked_for():
    grid = plan.grid(SMALL)
    assert len(grid) == len(set(grid)) == 2 * 3 * 4
    assert {one.share for one in grid} == {0.25, 0.5}
    assert {one.alpha for one in grid} == {0, 0.25, 0.5}
    assert {one.order.discipline for one in grid} == set(Discipline)
    assert all(one.clients == 2 and one.rate == SMALL.rate for one in grid)
    assert set(plan.quick(SMALL)) <= set(grid)
    assert not set(plan.elsewhere(SMALL)) & set(grid)
    ratios = {(one.share, one.alpha): one.window_ratio for one in grid}
    assert ratios == {(0.25, 0): 1, (0.25, 0.25): 1750 / 750, (0.25, 0.5): 5,
                      (0.5, 0): 1, (0.5, 0.25): 1250 / 750, (0.5, 0.5): 3}
    assert plan.Setting(0.25, 0, plan.ORDERS[0]).premium_clients == 2


def test_ratio_and_interval():
    runs = [Run([500.0, 300.0], [100.0, 90.0, 110.0], 0.1), Run([400.0], [100.0], 0.2)]
    assert ratio(runs) == 4
    low, high = interval(runs)
    assert 300 / 110 <= low < 4 < high <= 500 / 90
    assert interval(runs) == (low, high), "the same data give the same interval"
    assert interval([Run([400.0] * 3, [100.0] * 3, 0)]) == (4, 4)
    assert ratio([Run([1.0], [0.0], 0)]) == float("inf")


def test_totals_are_compared_with_those_without_priority():
    even, other = replace(SMALL, alpha=0.0), replace(SMALL, limited="exit")
    made = {one.setting: one for one in results({
        SMALL: [Run([70.0], [20.0], 0), Run([80.0], [10.0], 0)],
        even: [Run([50.0], [50.0], 0)], other: [Run([1.0], [0.0], 0)]})}
    assert made[SMALL].total == 90 and made[SMALL].against_even == 0.9
    assert made[even].against_even == 1
    assert made[other].against_even is None, "that was measured nowhere"
    plain = json.loads(json.dumps(made[other].to_json(), allow_nan=False))
    assert plain["ratio"] is None and plain["order"] == "strict" and plain["windows"] == 3


def test_table_and_figure(tmp_path):
    made = results({one: [Run([600e3, 500e3], [100e3, 0.0], 0.1)] for one in plan.grid(SMALL)})
    made += results({plan.elsewhere(SMALL)[-1]: [Run([1e3], [0.0], 0.1)]})
    assert all(len(row(one)) == len(HEADER) for one in made)
    assert row(made[-1])[0] == "middle (sending)" and "∞" in row(made[-1])
    assert len(markdown(made)) == 2 + len(made)
    assert sum(line.startswith("| guard") for line in section(made)) == 24
    assert load(json.loads(json.dumps([one.to_json() for one in made]))) == made
    assert list(section([])) == []
    try:
        path = draw(made, tmp_path / "new" / "priority.svg")
    except MissingMatplotlib:
        pytest.skip("matplotlib is in the extra 'experiments'")
    assert path.read_text().startswith("<?xml") and "p = 0.25" in path.read_text()


def test_a_relay_that_does_not_exist_cannot_be_limited():
    result = CliRunner().invoke(main.app, ["experiment", "priority", "--limited", "bridge"])
    assert isinstance(result.exception, UsageProblem) and "middle" in str(result.exception)


@pytest.mark.long
def test_shares_follow_the_windows_and_beta():
    """At a guard that has too little, with p = 0.25 and α = 0.5 or β = 5: five to one."""
    template = plan.Setting(0.25, 0.0, plan.ORDERS[0], seconds=8)
    fifo, weighted = plan.ORDERS[0], plan.ORDERS[2]
    windows, beta = replace(template, alpha=0.5), replace(template, alpha=0.5, order=weighted)
    made = {one.setting: one for one in measure([
        template, windows, beta, replace(windows, order=plan.ORDERS[1])])}
    assert made[template].ratio == pytest.approx(1, rel=0.2)
    assert made[windows].ratio == pytest.approx(5, rel=0.2)
    assert made[windows].setting.order == fifo
    assert made[windows].against_even == pytest.approx(1, rel=0.1), "nothing is lost"
    assert made[beta].ratio == pytest.approx(5, rel=0.2)
    assert made[replace(windows, order=plan.ORDERS[1])].ratio == pytest.approx(1, rel=0.2), \
        "plain EWMA takes away what the windows give"
