# SPDX-License-Identifier: BSD-3-Clause
"""What a step costs the intermediary does not depend on how many sessions it has served: counted in
SQL statements, instructions of SQLite, pages and curve operations, after 10^3 and 10^4 sessions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from offchain.crypto.curve import backend
from offchain.experiments.scale import measure_scale, sizes_up_to
from offchain.experiments.stored import NOW, StoredIntermediary
from offchain.protocol.dialogue import Name
from offchain.protocol.ledger import Block
from offchain.protocol.records import Table

SIZES = (10**3, 10**4)
CURVE = ("add_g1", "add_g2", "mul_g1", "mul_g2", "msm_g1", "msm_g2", "uncompress_g1",
         "uncompress_g2", "encode_g1", "encode_g2", "pairing_equal")
SETUP = ["NanoSetupRequest", "NanoSetupReveal"]
STEPS = [*SETUP, "NanoEstablishRequest", "NanoEstablishReveal", "RelayCloseRequest",
         "RelayCloseReveal", "ClientCloseQuery", "ClientCloseRequest", "ClientCloseReveal"]


class Counts:
    """Operations by (step, kind), and every statement that was executed."""

    def __init__(self) -> None:
        self.of: dict[str, Counter[str]] = {}
        self.statements: set[str] = set()
        self._step: str | None = None
        self._store: Any = None

    def use(self, one: StoredIntermediary) -> None:
        self._store = one.store

    @contextmanager
    def observe(self, name: Name, step: str) -> Iterator[None]:
        if name is not Name.INTERMEDIARY or self._store is None:
            yield
            return
        counted = self.of.setdefault(step, Counter())

        def statement(text: str) -> None:
            counted["statements"] += 1
            self.statements.add(text)

        def instruction() -> int:
            counted["instructions"] += 1
            return 0

        self._store.statements(statement)
        self._store.instructions(instruction)
        self._step = step
        try:
            yield
        finally:
            self._step = None
            self._store.statements(None)
            self._store.instructions(None)

    def count(self, name: str) -> None:
        if self._step is not None:
            self.of[self._step][name] += 1


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Any]]:
    """Size → the counts of a session, the pages of its steps, and the disk at that size."""
    counts, found = Counts(), {}
    patch = pytest.MonkeyPatch()
    one = StoredIntermediary(tmp_path_factory.mktemp("scale") / "store.sqlite",
                             observe=counts.observe)
    curve = backend()
    for name in CURVE:
        patch.setattr(curve, name, partial(counted, counts, name, getattr(curve, name)))
    counts.use(one)
    try:
        filled, empty = 0, one.store.disk().bytes
        for size in SIZES:
            one.fill(size - filled)
            filled = size
            disk = one.store.disk()
            counts.of, counts.statements = {}, set()
            one.counting = True
            one.touched.clear()
            one.session()
            with counts.observe(Name.INTERMEDIARY, "block"), one.store.transaction() as records:
                machine = one.dialogue.sides[Name.INTERMEDIARY].machine
                machine.on_ledger(records, one.dialogue.moment, Block(2, NOW))
                machine.tick(records, one.dialogue.moment)
            plans = {text: one.store.plan(text) for text in counts.statements
                     if text.startswith(("SELECT", "INSERT", "DELETE", "UPDATE"))}
            found[size] = (counts.of, {step.step: step.pages for step in one.touched},
                           (disk.bytes - empty) / size, disk.depth, plans)
        yield found
    finally:
        patch.undo()
        one.close()


def counted(counts: Counts, name: str, original: Any, *arguments: Any) -> Any:
    counts.count(name)
    return original(*arguments)


def test_every_step_takes_the_same_operations(measured: dict[int, Any]) -> None:
    few, many = (measured[size][0] for size in SIZES)
    assert set(STEPS) <= set(few)
    for step in STEPS:
        for kind in ("statements", *CURVE):
            assert few[step][kind] == many[step][kind], (step, kind)
    assert few["block"] == many["block"] and few["block"]["statements"] >= 4


def test_every_step_takes_the_same_instructions_of_the_database(measured: dict[int, Any]) -> None:
    """A scan takes some for every row; the search of a row takes one, however deep the tree is."""
    few, many = (measured[size][0] for size in SIZES)
    for step in STEPS:
        assert few[step]["instructions"] == many[step]["instructions"] > 0, step


def test_no_statement_scans_a_table(measured: dict[int, Any]) -> None:
    for size in SIZES:
        plans = measured[size][4]
        assert len(plans) > 20
        for text, plan in plans.items():
            assert not any("SCAN" in line or "TEMP" in line for line in plan), (text, plan)
        assert any("SEARCH" in line for plan in plans.values() for line in plan)


def test_a_scan_would_be_seen(tmp_path: Path) -> None:
    one = StoredIntermediary(tmp_path / "store.sqlite")
    one.fill(100)
    seen = 0

    def instruction() -> int:
        nonlocal seen
        seen += 1
        return 0

    one.store.instructions(instruction)
    assert sum(1 for _ in one.store.read().scan(Table.LOCK)) >= 400
    one.store.instructions(None)
    assert seen > 400
    assert any("SCAN" in line for line in one.store.plan("SELECT * FROM records"))
    one.close()


def test_pages_and_disk_are_those_of_one_session(measured: dict[int, Any]) -> None:
    for size in SIZES:
        _, pages, each, depth, _ = measured[size]
        # Each row may be on a page of its own; one that is full is shared out among its siblings,
        # whose parent then changes too.
        assert sum(pages[step] for step in SETUP) <= 8 * (1 + 2 + 1)
        assert 3_500 < each < 5_500
        assert depth <= 5
    assert abs(measured[SIZES[0]][2] / measured[SIZES[1]][2] - 1) < 0.05


def test_one_setup_costs_two_pairings_and_decodes_each_point_once(measured: dict[int, Any]) -> None:
    for size in SIZES:
        request, reveal = (measured[size][0][step] for step in SETUP)
        # K, com, N and four digits; sigma'.
        assert (request["uncompress_g1"], request["uncompress_g2"]) == (7, 2)
        assert request["pairing_equal"] == 1
        # One sum for each equation, and the key that the token is checked against.
        assert (request["msm_g1"], request["mul_g1"], request["add_g1"]) == (7, 1, 1)
        assert not request["mul_g2"] + request["msm_g2"] + request["add_g2"]
        assert reveal["msm_g1"] == 1 and not reveal["pairing_equal"] + reveal["uncompress_g1"]


def test_the_measurement_reports_each_size(tmp_path: Path) -> None:
    seen: list[int] = []
    found = measure_scale((100, 300), runs=2, folder=tmp_path,
                          progress=lambda size: seen.append(size.sessions))
    assert [one.sessions for one in found] == seen == [100, 300]
    assert all(one.rows_per_session == found[0].rows_per_session > 10 for one in found)
    assert all(one.setup_ms > 0 and 5 < one.pages <= 32 for one in found)
    assert not list(tmp_path.iterdir())
    assert sizes_up_to(10**5) == (10**3, 10**4, 10**5) and sizes_up_to(500) == (500,)
