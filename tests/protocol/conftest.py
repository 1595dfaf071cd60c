# SPDX-License-Identifier: BSD-3-Clause
"""One deployed ledger and one issuer key for all tests; each starts with open channels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from monetor_chain.rehearsal import Rehearsal
from offchain.crypto.issuer import IssuerKey
from tests.protocol.world import World, open_world


@pytest.fixture(scope="session")
def opened_world() -> World:
    return open_world(Rehearsal(), IssuerKey.generate(), World)


@pytest.fixture
def world(opened_world: World) -> Iterator[World]:
    saved: Any = opened_world.save()
    yield opened_world
    opened_world.load(saved)
