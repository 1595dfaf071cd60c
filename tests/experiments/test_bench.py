# SPDX-License-Identifier: BSD-3-Clause
"""What the bench counts; never how long anything takes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from monetor_chain.parameters import DEFAULT
from offchain.crypto.curve import BACKEND_VARIABLE, backend
from offchain.experiments.bench import BenchOptions, BenchReport, run_bench
from offchain.experiments.figures import MissingMatplotlib, draw, protocol_costs
from offchain.experiments.payments import decode_and_verify, payments_of, verify
from offchain.experiments.results import page
from offchain.experiments.sessions import SESSION_PROTOCOLS, Bench, using_backend
from offchain.protocol.errors import ProtocolError


@pytest.fixture(scope="module")
def report() -> BenchReport:
    return run_bench(BenchOptions(runs=1, rounds=1))


def test_figures_that_are_asked_for(report):
    plain = report.to_json()
    for name in ("nano_setup_ms", "nano_close_ms", "micropayment_ms", "nano_pay_per_s"):
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


def test_the_page_holds_every_figure(report):
    text = page(report, "1 core", {
        "download": {"bytes": 5, "seconds": 1.0},
        "protocols": {"nano_setup": {"count": 1, "median_ms": 2.0, "cells": 6}}})
    for name in report.figures:
        assert f"`{name}`" in text
    assert "Machine: 1 core" in text
    assert "| nano_setup | 1 | 2 | 6 |" in text


def test_figures_are_drawn_or_their_library_is_named(report, tmp_path: Path):
    try:
        drawn = draw(replace(report, gas={"open": 1}), tmp_path)
    except MissingMatplotlib as missing:
        assert "experiments" in str(missing)
        return
    assert [path.name for path in drawn] == ["protocol_costs.svg", "cells.svg", "gas.svg"]
    assert all("<svg" in path.read_text() for path in drawn)
