# SPDX-License-Identifier: BSD-3-Clause
"""One deployed ledger for all replays; each starts from the same open channels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

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
