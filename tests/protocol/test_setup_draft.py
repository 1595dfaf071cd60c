# SPDX-License-Identifier: BSD-3-Clause
"""Sessions that a client drafts before they are wanted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from offchain.protocol import messages as m
from offchain.protocol.errors import ProtocolError
from offchain.protocol.nano_setup import NanoSetupDraft
from offchain.protocol.records import Table
from offchain.protocol.sessions import Phase, client_session
from tests.protocol.world import World


def drafted(world: World, **changes: Any) -> NanoSetupDraft:
    moment = world.moment()
    moment = replace(moment, parameters=replace(moment.parameters, **changes))
    return world.c.machine.draft_setup(world.c.records, moment, world.c.cids()[0])


def start(world: World, draft: NanoSetupDraft) -> m.NanoSetupRequest:
    world.act(world.c, lambda records, moment: world.c.machine.nano_setup(
        records, moment, world.c.cids()[0], draft))
    (request,) = world.c.requests.values()
    found = m.unpack(request.pcmd, request.payload)
    assert isinstance(found, m.NanoSetupRequest)
    return found


def test_a_drafted_session_is_set_up(world: World) -> None:
    before = [list(world.c.records.scan(table)) for table in Table]
    draft = drafted(world)
    assert [list(world.c.records.scan(table)) for table in Table] == before
    request = start(world, draft)
    assert request.terms.hc0 == draft.chain.hc0 and request.com == draft.proof.statement.com
    world.run()
    found = request.terms.nano_terms().hash()
    assert world.i.records.get(Table.SESSION, found).phase is Phase.SETUP
    assert client_session(world.c.records, found).seed == draft.chain.seed


def test_a_draft_is_used_once_even_if_its_first_use_came_to_nothing(world: World) -> None:
    """As when a step is rolled back: a second challenge to the same announcements would give the
    wallet away."""
    draft = drafted(world)
    saved = world.save()
    first = start(world, draft)
    world.load(saved)
    second = start(world, draft)
    assert first.nonce == second.nonce
    for name in ("com", "commitment", "sigma", "k", "proof", "nwpk", "terms"):
        assert getattr(first, name) != getattr(second, name)
    world.run()
    assert world.i.records.get(
        Table.SESSION, second.terms.nano_terms().hash()).phase is Phase.SETUP


@pytest.mark.parametrize("change", [{"price": 101}, {"n": 64}, {"n": 64, "price": 200}])
def test_a_draft_of_other_parameters_is_not_used(world: World, change: dict[str, int]) -> None:
    draft = drafted(world, **change)
    request = start(world, draft)
    assert request.com != draft.proof.statement.com and not draft.proof.finished
    world.run()
    assert world.i.records.get(
        Table.SESSION, request.terms.nano_terms().hash()).phase is Phase.SETUP


def test_a_draft_of_an_earlier_wallet_is_not_used(world: World) -> None:
    draft = drafted(world)
    world.close(world.session(3))
    request = start(world, draft)
    assert request.com != draft.proof.statement.com and not draft.proof.finished


def test_a_busy_or_empty_wallet_is_not_drafted(world: World) -> None:
    with pytest.raises(ProtocolError, match="costs up to"):
        drafted(world, n=2**14)
    start(world, drafted(world))
    with pytest.raises(ProtocolError):
        drafted(world)
