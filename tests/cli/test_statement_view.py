# SPDX-License-Identifier: BSD-3-Clause
"""The statement as a person reads it: its sums can be checked, and a loss cannot hide."""

from __future__ import annotations

import copy

import pytest

from offchain.cli.meter import Meter
from offchain.cli.report import say_table
from offchain.testnet.render import show

PARTY = {"role": "relay", "honest": True, "before": 0, "after": 0, "floor": 0,
         "sent": 0, "received": 0, "gas": 21_000}  # fmt: skip

STATEMENT = {
    "download": {"bytes": 8_388_608, "sha256": "ab" * 32, "seconds": 2.0},
    "parties": {
        "client": {**PARTY, "role": "client", "before": 460_000, "after": 459_000,
                   "floor": 459_000, "sent": 10},
        "exit": {**PARTY, "after": 860, "floor": 860, "received": 10},
        "intermediary": {**PARTY, "before": 4_000_000, "after": 4_000_050, "floor": 4_000_050},
    },
    "intermediary": {"margin": 140, "fee": 50},
    "tax_pool": 90,
    "conservation": True,
    "protocols": {"nano_setup": {"count": 2, "median_ms": 12.34, "cells": 6}},
    "notes": ["40 s in all"],
}  # fmt: skip


def test_a_sound_statement(capsys):
    show(STATEMENT)
    shown = capsys.readouterr().out
    assert "8,388,608 bytes in 2.0 s (4,096 KiB/s)" in shown
    assert "ab" * 32 in shown
    assert "4,460,000 before = 4,459,910 after + 90 tax: holds" in shown
    assert "lost no unit" in shown
    assert "Note: 40 s in all" in shown
    client = next(line for line in shown.splitlines() if line.startswith("client"))
    assert client.split() == ["client", "460,000", "459,000", "-1,000", "459,000", "10", "0",
                              "21,000"]  # fmt: skip
    setup = next(line for line in shown.splitlines() if line.startswith("nano_setup"))
    assert setup.split() == ["nano_setup", "2", "12.3", "6"]


def test_a_missing_unit_is_seen(capsys):
    broken = copy.deepcopy(STATEMENT)
    broken["parties"]["exit"]["after"] -= 1
    broken["conservation"] = False
    show(broken)
    shown = capsys.readouterr().out
    assert "and not 4,459,909 after + 90 tax: DOES NOT HOLD" in shown
    assert "below their floor: exit" in shown


def test_what_is_left_in_escrow_is_part_of_the_sum(capsys):
    dispute = copy.deepcopy(STATEMENT) | {"left_in_ledger": 700}
    dispute["parties"]["client"]["after"] -= 700
    show(dispute)
    shown = capsys.readouterr().out
    assert "4,460,000 before = 4,459,210 after + 90 tax + 700 still in escrow: holds" in shown


def test_a_dishonest_party_is_named_and_may_lose(capsys):
    dispute = copy.deepcopy(STATEMENT)
    dispute["parties"]["exit"] |= {"honest": False, "after": 0}
    show(dispute)
    shown = capsys.readouterr().out
    assert "exit (dishonest)" in shown
    assert "lost no unit" in shown


def test_a_download_that_failed(capsys):
    show(STATEMENT | {"download": {}})
    assert "did not arrive" in capsys.readouterr().out


def test_columns_are_aligned(capsys):
    say_table(("name", "units"), [("a", "1"), ("longer", "1,000")])
    assert capsys.readouterr().out.splitlines() == [
        "name    units",
        "a           1",
        "longer  1,000",
    ]


@pytest.mark.parametrize("quiet", [False, True])
def test_steps_go_to_standard_error(quiet, capsys):
    with Meter(quiet=quiet) as meter:
        meter.step("downloading")
        meter.progress(1, 2)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == ("" if quiet else "- downloading\n")
