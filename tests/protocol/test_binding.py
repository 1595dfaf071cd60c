# SPDX-License-Identifier: BSD-3-Clause
"""An end user stays with the key that its channels are under."""

from __future__ import annotations

from offchain.protocol import messages as m, pruning
from offchain.protocol.binding import bind_to, bound_to
from offchain.protocol.wallet import Establishing, Settled
from tests.protocol.world import World

KEY = b"\x07" * 32


def test_channels_are_served_by_their_own_key_until_the_last_is_paid_out(world: World) -> None:
    assert bound_to(world.c.records, ()) is None, "nobody has said which"
    bind_to(world.c.records, KEY)
    assert bound_to(world.c.records, ()) == KEY
    cids = world.c.cids()
    world.settle(cids[0])
    assert bound_to(world.c.records, ()) == KEY, "one is left"
    world.settle(cids[1])
    assert all(isinstance(world.c.wallet(cid), Settled) for cid in cids)
    assert bound_to(world.c.records, ()) is None


def test_an_opening_that_was_refused_binds_nobody(world: World) -> None:
    for cid in world.r.cids():
        world.settle(cid)
    bind_to(world.r.records, KEY)
    world.act(world.r, lambda records, moment: world.r.machine.open_group(
        records, moment, deposit=0, fund=1_000, count=1))
    world.stop_before(m.EstablishRequest, world.r)
    assert bound_to(world.r.records, world.r.requests) == KEY, "it is under way"
    world.act(world.i, lambda records, moment: pruning.retire(records) or [])
    world.retry()
    assert any(isinstance(world.r.wallet(cid), Establishing) for cid in world.r.cids())
    assert not world.r.requests
    assert bound_to(world.r.records, world.r.requests) is None
