# SPDX-License-Identifier: BSD-3-Clause
"""Nobody honest loses: the whole ledger under random attack, against the floors of the protocol.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from .floors_machine import Base, make_base
from .floors_rules import machine


@pytest.fixture(scope="module")
def base() -> Base:
    return make_base()


def walk(base: Base, number: int, runs: int, steps: int, shrink=True, **attributes) -> None:
    phases = [Phase.generate, Phase.shrink] if shrink else [Phase.generate]
    bound = seed(number)(machine(base=base, number=number, **attributes))
    run_state_machine_as_test(
        bound,
        settings=settings(
            max_examples=runs,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            phases=phases,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_short(base: Base) -> None:
    walk(base, 1, 6, 50, shrink=False)
    print(base.steps, base.calls, base.runs)
    print(base.taken, base.refused, base.moves, base.coalitions)
