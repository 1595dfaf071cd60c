# SPDX-License-Identifier: BSD-3-Clause
"""One deployed ledger for the replays of each model; all start from the same open channels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.model.pay_replay import open_pay_stage
from tests.model.session_replay import open_stage
from tests.protocol.world import World


@pytest.fixture(scope="session")
def opened_stage() -> World:
    return open_stage()


@pytest.fixture
def world(opened_stage: World) -> Iterator[World]:
    saved: Any = opened_stage.save()
    yield opened_stage
    opened_stage.load(saved)


@pytest.fixture(scope="session")
def pay_stage() -> World:
    return open_pay_stage()


@pytest.fixture
def pay_world(pay_stage: World) -> Iterator[World]:
    saved: Any = pay_stage.save()
    yield pay_stage
    pay_stage.load(saved)
