# SPDX-License-Identifier: BSD-3-Clause
"""One deployed ledger for all tests of what observers see; each starts with open channels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from monetor_chain.rehearsal import Rehearsal
from offchain.crypto.issuer import IssuerKey
from tests.anonymity.observed import ObservedWorld
from tests.protocol.world import open_world

Opened = tuple[ObservedWorld, tuple[list[Any], list[Any]]]
"""A world in which everybody has channels, and what was seen of their opening."""


@contextmanager
def known(opened: Opened) -> Iterator[ObservedWorld]:
    """The world as it was opened, for a while."""
    world, (log, posted) = opened
    saved = world.save()
    world.log[:], world.posted[:] = log, posted
    yield world
    world.load(saved)


@pytest.fixture(scope="package")
def opened() -> Opened:
    world = open_world(Rehearsal(), IssuerKey.generate(), ObservedWorld)
    return world, (list(world.log), list(world.posted))


@pytest.fixture
def world(opened: Opened) -> Iterator[ObservedWorld]:
    with known(opened) as world:
        yield world
