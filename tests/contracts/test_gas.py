# SPDX-License-Identifier: BSD-3-Clause
"""Gas of every operation: within its budget, and no silent change.

After a deliberate change write the new table with
`python -c "from monetor_chain.gas import write; write('tests/contracts/gas_table.json')"`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from monetor_chain.gas import BUDGETS, measure
from monetor_chain.rehearsal_chain import RehearsalChain

TABLE = Path(__file__).parent / "gas_table.json"
TOLERANCE = 0.02


@pytest.fixture(scope="module")
def figures(new_chain: Callable[[], RehearsalChain]) -> dict[str, int]:
    return measure(new_chain)


@pytest.mark.parametrize("name", BUDGETS)
def test_within_budget(figures: dict[str, int], name: str) -> None:
    assert figures[name] <= BUDGETS[name]


@pytest.mark.parametrize("name", BUDGETS)
def test_as_committed(figures: dict[str, int], name: str) -> None:
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    assert set(table) == set(BUDGETS)
    assert abs(figures[name] - table[name]) <= TOLERANCE * table[name]
