# SPDX-License-Identifier: BSD-3-Clause
"""One chain with the deployed contracts for the whole session, and a snapshot for every test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from monetor_chain import precompiles
from monetor_chain.rehearsal import Rehearsal
from monetor_chain.rehearsal_chain import AnvilChain, InProcessChain, RehearsalChain


def take_native_away(patch: pytest.MonkeyPatch) -> None:
    """What claims to run on py-evm's own precompiles fails if it reaches the native ones."""
    for name in ("g1_add", "g1_msm", "pairing_check"):
        patch.delattr(precompiles, name)


@pytest.fixture(scope="session")
def new_chain(request: pytest.FixtureRequest) -> Iterator[Callable[[], RehearsalChain]]:
    """Makes fresh chains of the kind that the session tests; they end with the session."""
    kind = request.config.getoption("chain")
    made: list[RehearsalChain] = []

    def make() -> RehearsalChain:
        if kind == "anvil":
            made.append(AnvilChain("anvil"))
        else:
            made.append(InProcessChain("pure" if kind == "pure" else "native"))
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        if kind == "pure":
            take_native_away(patch)
        yield make
    for chain in made:
        chain.close()


@pytest.fixture(scope="session")
def shared_stage(new_chain: Callable[[], RehearsalChain]) -> Rehearsal:
    """Contracts deployed once, with the demo parameters."""
    return Rehearsal(chain=new_chain())


@pytest.fixture
def stage(shared_stage: Rehearsal) -> Iterator[Rehearsal]:
    """The shared chain; what the test does to it is undone."""
    snapshot = shared_stage.snapshot()
    yield shared_stage
    shared_stage.revert(snapshot)
