# SPDX-License-Identifier: BSD-3-Clause
"""Gas of every call: operations within their budgets, and no silent change of any.

After a deliberate change write the new table with
`python -m tests.contracts.test_gas`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monetor_chain.compiler import CONTRACTS, compile_contract, source_folder
from monetor_chain.gas import BUDGETS, GROUP_SIZES, GroupCost, measure, measure_groups
from monetor_chain.gas_survey import survey
from monetor_chain.rehearsal_chain import RehearsalChain

TABLE = Path(__file__).parent / "gas_table.json"
TOLERANCE = 0.02
OPERATIONS = {
    "Ledger.open": "open",
    "Ledger.fund": "fund",
    "Ledger.close": "close",
    "Ledger.refund": "refund",
    "Ledger.nano_refund": "nano_refund_1024",
    "Ledger.batch_nano_refund": "batch_claim_marginal",
    "Ledger.reveal": "reveal",
    "Ledger.refute": "refute",
    "Ledger.resolve": "resolve",
    "Ledger.claim_guard": "guard_claim",
    "TaxPool.claim": "tax_claim_marginal",
}
"""Calls whose cost is a budgeted operation's."""


@pytest.fixture(scope="module")
def figures(new_chain: Callable[[], RehearsalChain]) -> dict[str, int]:
    return measure(new_chain)


@pytest.fixture(scope="module")
def calls(new_chain: Callable[[], RehearsalChain]) -> dict[str, int]:
    return survey(new_chain)


@pytest.fixture(scope="module")
def groups(new_chain: Callable[[], RehearsalChain]) -> tuple[GroupCost, ...]:
    return measure_groups(new_chain)


def _committed(kind: str) -> Any:
    return json.loads(TABLE.read_text(encoding="utf-8"))[kind]


def _close(found: int, committed: int) -> bool:
    return abs(found - committed) <= TOLERANCE * committed


@pytest.mark.parametrize("name", BUDGETS)
def test_within_budget(figures: dict[str, int], name: str) -> None:
    assert figures[name] <= BUDGETS[name]


@pytest.mark.parametrize("name", BUDGETS)
def test_as_committed(figures: dict[str, int], name: str) -> None:
    table = _committed("operations")
    assert set(table) == set(BUDGETS)
    assert _close(figures[name], table[name])


def test_other_calls_as_committed(calls: dict[str, int]) -> None:
    table = _committed("calls")
    assert set(table) == set(calls)
    moved = {name: gas for name, gas in calls.items() if not _close(gas, table[name])}
    assert not moved


def test_groups_as_committed(groups: tuple[GroupCost, ...]) -> None:
    table = _committed("groups")
    assert [group.channels for group in groups] == [row[0] for row in table] == list(GROUP_SIZES)
    for group, row in zip(groups, table, strict=True):
        for found, committed in zip((group.open, group.fund, group.close), row[1:], strict=True):
            assert _close(found, committed)


def _calls_that_change_something() -> set[str]:
    return {
        f"{name}.{entry['name']}"
        for name in CONTRACTS
        for entry in compile_contract(name).abi
        if entry["type"] == "function" and entry["stateMutability"] in ("nonpayable", "payable")
    }


def test_no_call_is_without_a_figure(calls: dict[str, int]) -> None:
    measured = {name.split(" ")[0] for name in calls} | set(OPERATIONS)
    assert _calls_that_change_something() == measured


def test_the_page_on_the_ledger_names_every_call_with_its_cost() -> None:
    """docs/ledger.md has a row for each call that changes something, with the committed figure."""
    root = source_folder()
    assert root is not None
    page = (root.parent / "docs" / "ledger.md").read_text(encoding="utf-8")
    operations, others = _committed("operations"), _committed("calls")
    for call in _calls_that_change_something():
        contract, _, function = call.partition(".")
        gas = operations[OPERATIONS[call]] if call in OPERATIONS else others[call]
        rows = [
            line
            for line in page.splitlines()
            if line.startswith("|") and f"`{function}`" in line and f" {gas:,} " in line
        ]
        assert rows, f"{contract}: no row for `{function}` with {gas:,} gas"


def main() -> None:
    """Measure and write the table."""
    table = {
        "operations": measure(),
        "calls": survey(),
        "groups": [[one.channels, one.open, one.fund, one.close] for one in measure_groups()],
    }
    TABLE.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
