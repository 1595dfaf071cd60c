# SPDX-License-Identifier: BSD-3-Clause
"""One deployed ledger for all tests of what observers see; each starts with open channels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from monetor_chain.rehearsal import Rehearsal
from offchain.crypto.issuer import IssuerKey
from tests.anonymity.observed import ObservedWorld
from tests.protocol.world import open_world


@pytest.fixture(scope="package")
def opened() -> tuple[ObservedWorld, Any]:
    world = open_world(Rehearsal(), IssuerKey.generate(), ObservedWorld)
    return world, (list(world.log), list(world.posted))


@pytest.fixture
def world(opened: tuple[ObservedWorld, Any]) -> Iterator[ObservedWorld]:
    """Everybody has channels, and what was seen of their opening is part of what is known."""
    world, (log, posted) = opened
    world.log[:], world.posted[:] = log, posted
    saved = world.save()
    yield world
    world.load(saved)
