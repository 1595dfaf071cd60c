# SPDX-License-Identifier: BSD-3-Clause
"""The measurement of a relay's speed measures what it says; no test asserts a time."""

from __future__ import annotations

from offchain.experiments.relay_speed import MIB, Speed, measure
from offchain.transport.relay_cell import MAX_DATA


def test_every_process_of_a_circuit_is_measured():
    seen = []
    speeds = measure(2 * MIB, lambda done, total: seen.append((done, total)))
    assert [one.name for one in speeds] == ["guard", "middle", "exit", "client"]
    assert seen[-1] == (2 * MIB, 2 * MIB)
    data = -(-2 * MIB // MAX_DATA)
    for one in speeds:
        # DATA, one circuit SENDME for a hundred and one stream SENDME for fifty, some short cells.
        assert data < one.cells < 1.1 * data
        assert one.cells_per_second > 0 and one.aes_per_cell > 1


def test_figures_follow_from_processor_time():
    speed = Speed.of("guard", 1000, 0.01, 1e-6)
    assert speed.as_dict() == {"name": "guard", "cells": 1000, "microseconds_per_cell": 10.0,
                               "cells_per_second": 100_000, "aes_per_cell": 10.0}
