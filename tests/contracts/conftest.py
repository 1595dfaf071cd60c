# SPDX-License-Identifier: BSD-3-Clause
"""One chain with the deployed contracts for the whole session, and a snapshot for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from monetor_chain.rehearsal import Rehearsal


@pytest.fixture(scope="session")
def shared_stage() -> Rehearsal:
    """Contracts deployed once, with the demo parameters."""
    return Rehearsal()


@pytest.fixture
def stage(shared_stage: Rehearsal) -> Iterator[Rehearsal]:
    """The shared chain; what the test does to it is undone."""
    snapshot = shared_stage.tester.take_snapshot()
    yield shared_stage
    shared_stage.tester.revert_to_snapshot(snapshot)
