# SPDX-License-Identifier: BSD-3-Clause
"""What the pool of sessions makes of a client's records, without anybody else."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from offchain.agents.session_pool import SessionPool
from offchain.protocol import restored, wallet as wallets
from offchain.protocol.errors import ProtocolError
from offchain.protocol.old_locks import Fate, set_fate
from offchain.protocol.wallet import CloseNotice, Idle
from tests.protocol.world import World


class Agent:
    """As much of a client agent as the pool looks at."""

    nickname = "client"

    def __init__(self, world: World) -> None:
        self.world = world
        self.machine = world.c.machine
        self.users = self.chosen = [self.machine.user]
        self.drafted: list[int] = []
        self.started: list[int] = []
        self.access: Any = None
        self.engine: Any = SimpleNamespace(
            moment=world.moment, check=lambda: None,
            clock=SimpleNamespace(exact=lambda: float(world.now + 10**6)),
            tasks=SimpleNamespace(running=lambda name: False))

    def records(self) -> Any:
        return self.world.c.records

    def wallets(self) -> list[Any]:
        return wallets.all_wallets(self.records())

    def wallets_at(self, user: Any) -> list[Any]:
        return self.wallets()

    def is_opening(self, user: Any) -> bool:
        return False

    def draft_one(self, waiting: list[Idle]) -> None:
        for one in waiting[:1]:
            self.machine.draft_setup(self.records(), self.world.moment(), one.cid)
            self.drafted.append(one.cid)

    def start_setup(self, cid: int) -> None:
        self.started.append(cid)
        self.world.start_setup(cid)


def pool_of(world: World) -> tuple[SessionPool, Any]:
    agent: Any = Agent(world)
    return SessionPool(agent), agent


def test_a_session_out_of_a_backup_is_not_taken(world: World) -> None:
    world.setup()
    pool, agent = pool_of(world)
    assert len(pool.ready()) == 1
    restored.mark(world.c.records, world.now)
    assert pool.ready() == []
    assert pool.survey(agent.users[0]).held, "it holds its channel until it is closed"


def test_a_wallet_whose_close_is_asked_for_is_left_alone(world: World) -> None:
    first, second = world.c.cids()
    set_fate(world.c.records, world.c.wallet(first).wpk, first, Fate.UNSPENT)
    wallets.put_notice(world.c.records, first, CloseNotice(world.now + 1_000))
    pool, agent = pool_of(world)
    pool.set_up(agent.users[0], 2)
    assert agent.started == [second] and agent.drafted == []
    pool.set_up(agent.users[0], 1)
    assert agent.drafted == []


def test_a_client_that_lags_behind_the_ledger_waits(
        world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, agent = pool_of(world)
    monkeypatch.setattr(Agent, "start_setup", refuse)
    monkeypatch.setattr(Agent, "draft_one", refuse)
    assert pool.set_up(agent.users[0], 1).ready == []
    assert pool.set_up(agent.users[0], 0).ready == []


def refuse(agent: Agent, what: Any) -> None:
    raise ProtocolError("the parameters of epoch 1 are not known")


def test_a_client_without_any_intermediary_is_told_so(world: World) -> None:
    pool, _ = pool_of(world)
    with pytest.raises(ProtocolError, match="no idle wallet"):
        pool._require_hope([])


def test_an_opening_at_one_intermediary_holds_up_no_other(
        world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, agent = pool_of(world)
    here = pool.survey(agent.users[0])
    other = replace(here, user=replace(here.user, key_hash=bytes(32)))
    monkeypatch.setattr(Agent, "is_opening", lambda self, user: user is other.user)
    assert pool._opening([other]) and pool._opening([here, other])
    assert not pool._opening([here])
