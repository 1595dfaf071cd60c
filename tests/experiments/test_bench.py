# SPDX-License-Identifier: BSD-3-Clause
"""What the bench counts; never how long anything takes."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from monetor_chain.parameters import DEFAULT
from offchain.crypto.curve import BACKEND_VARIABLE, backend
from offchain.experiments.bench import BenchOptions, BenchReport, run_bench
from offchain.experiments.breakdown import KINDS, STEPS, Spent, measure_breakdown
from offchain.experiments.figures import MissingMatplotlib, draw, protocol_costs
from offchain.experiments.payments import decode_and_verify, payments_of, verify
from offchain.experiments.results import page
from offchain.experiments.scale import Size
from offchain.experiments.sessions import SESSION_PROTOCOLS, Bench, using_backend
from offchain.experiments.throughput import Load, Rate, measure_rate
from offchain.protocol.errors import ProtocolError


@pytest.fixture(scope="module")
def report() -> BenchReport:
    return run_bench(BenchOptions(runs=1, rounds=1, setups=4))


def test_figures_that_are_asked_for(report):
    plain = report.to_json()
    for name in ("nano_setup_ms", "nano_setup_on_demand_ms", "nano_close_ms", "micropayment_ms",
                 "nano_pay_per_s", "setups_per_s_per_core"):
        assert plain[name] > 0
    assert plain["session_cells"] == 24


def test_a_session_is_counted_message_by_message(report):
    crossed = [one for one in report.crossings if one.protocol in SESSION_PROTOCOLS]
    assert sum(one.cells for one in crossed) == report.figures["session_cells"]
    assert [one.cells for one in crossed if one.message == "NanoSetupRequest"] == [3]
    assert all(one.cells == -(-max(one.size, 1) // 495) for one in crossed)
    assert not any(one.message == "NanoPayment" for one in report.crossings)


def test_the_longest_session_fits_as_well():
    with using_backend("blst"):
        bench = Bench("blst", replace(DEFAULT, n=2**14))
        bench.session()
    assert sum(bench.cells(protocol) for protocol in SESSION_PROTOCOLS) <= 25


def test_both_sides_of_both_backends_are_measured(report):
    for name in ("blst", "arkworks"):
        costs = protocol_costs(report, name)
        assert costs["nano_setup"].keys() == {"client", "intermediary"}
        assert costs["nano_close_relay"].keys() == {"relay", "intermediary"}
        assert costs["micropayment"].keys() == {"client", "client2", "intermediary"}
    close = [one.step for one in report.steps
             if one.backend == "blst" and one.protocol == "nano_close_relay"]
    setup = [one.step for one in report.steps
             if one.backend == "blst" and one.protocol == "nano_setup"]
    assert setup == list(STEPS)
    assert close == ["nano_close", "RelayCloseRequest", "RefundTokenReply", "RelayCloseReveal",
                     "WalletTokenReply"]


def test_the_backend_is_everybodys_and_only_meanwhile(monkeypatch):
    monkeypatch.delenv(BACKEND_VARIABLE, raising=False)
    with using_backend("arkworks"):
        assert backend().name == "arkworks"
    assert BACKEND_VARIABLE not in os.environ


def test_payments_are_really_checked():
    payments = payments_of(64)
    assert verify(payments) == decode_and_verify(payments)
    assert verify(payments).k == 64
    forged = list(payments.messages)
    forged[20] = replace(forged[20], hc=bytes(32))
    with pytest.raises(ProtocolError, match="payment 21"):
        verify(replace(payments, messages=forged))
    stripped = list(payments.messages)
    stripped[15] = replace(stripped[15], path=())
    with pytest.raises(ProtocolError, match="payment 16"):
        verify(replace(payments, messages=stripped))


def test_every_step_is_taken_apart_whole():
    parts = measure_breakdown(runs=1)
    assert [one.step for one in parts] == list(STEPS)
    assert {one.party for one in parts} == {"client", "intermediary"}
    for one in parts:
        assert set(one.ratios) == set(KINDS) and all(part >= 0 for part in one.ratios.values())
    of = {one.step: one.ratios for one in parts}
    # Where the curves are used, and where they must not be any more.
    assert of["draft_setup"]["pairing curve"] > 0 and of["NanoSetupRequest"]["pairing curve"] > 0
    assert of["nano_setup"]["pairing curve"] == 0
    assert of["NanoSetupReveal"]["SQLite"] > 0


@pytest.mark.parametrize("workers", [0, 1])
def test_the_setups_that_are_counted_are_answered(tmp_path: Path, workers: int):
    rate = measure_rate(6, workers=workers, group=4, folder=tmp_path)
    assert rate.per_core > 0 and rate.per_second > 0
    assert rate.own == 1 if workers == 0 else rate.own <= 1


def test_setups_that_are_refused_are_not_counted(tmp_path: Path):
    load = Load(tmp_path)
    setups = [load.setup(), load.setup()]
    with pytest.raises(ValueError, match="not spent"):
        # The secret of a wallet that no session was asked for with.
        asyncio.run(load.serve([(setups[0][0], setups[1][1])], 1, None))
    load.store.close()


def test_the_page_holds_every_figure(report):
    report = replace(
        report, breakdown=[Spent("client", "a_step", 1.0, dict.fromkeys(KINDS, 0.25))],
        rates=[*report.rates, Rate(2, 16, 77.0, 321.0, 4.5, 0.25)],
        scale=[Size(4321, 18, 3700.0, 4, 3.9, 4.4, 13.5)])
    text = page(report, "1 core", {
        "download": {"bytes": 5, "seconds": 1.0},
        "protocols": {"nano_setup": {"count": 1, "median_ms": 2.0, "cells": 6}}})
    for name in report.figures:
        assert f"`{name}`" in text
    assert "Machine: 1 core" in text
    assert "| nano_setup | 1 | 2 | 6 |" in text
    assert "| client | `a_step` | 1.50 |" in text
    assert "| 2 | 16 | 321 | 4.5 | 25% | 77 |" in text
    assert "| 4,321 | 18 | 3,700 | 4 | 3.90 | 4.4 | 13.5 |" in text


def test_figures_are_drawn_or_their_library_is_named(report, tmp_path: Path):
    try:
        sizes = [Size(10**power, 18, 3700.0, 4, 3.9, 4.4, 13.5) for power in (3, 4)]
        drawn = draw(replace(report, gas={"open": 1}, scale=sizes), tmp_path)
    except MissingMatplotlib as missing:
        assert "experiments" in str(missing)
        return
    assert [path.name for path in drawn] == [
        "protocol_costs.svg", "cells.svg", "gas.svg", "scale.svg"]
    assert all("<svg" in path.read_text() for path in drawn)
