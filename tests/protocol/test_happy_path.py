# SPDX-License-Identifier: BSD-3-Clause
"""Everybody is honest: exact balances, counted cells, equal lengths."""

from __future__ import annotations

from monetor_chain.parameters import DEMO
from offchain.protocol.wallet import Idle, Settled
from tests.protocol.world import (
    CLIENT_DEPOSIT, DELTA_R, FEE, PAY_FEE, PRICE, World,
)


def test_session_moves_exactly_what_was_paid(world: World) -> None:
    cid = world.c.cids()[0]
    terms_hash = world.session(40)
    world.close(terms_hash)
    assert world.c.balance(cid) == CLIENT_DEPOSIT - 40 * PRICE
    assert sorted(world.r.balance(one) for one in world.r.cids()) == [0, 40 * DELTA_R]
