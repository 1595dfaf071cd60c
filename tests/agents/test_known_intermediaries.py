# SPDX-License-Identifier: BSD-3-Clause
"""Whose channels are in a store that does not say so yet."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from monetor_chain.statements import Role, channel_id, group_id, keccak256
from offchain.agents.client import ClientAgent
from offchain.agents.directory import DirectoryError, Router
from offchain.crypto.issuer import IssuerKey
from offchain.protocol.establish import Group, GroupPhase, group_key
from offchain.protocol.records import Table
from offchain.protocol.wallet import Idle, known_intermediaries, put
from offchain.store import Store
from offchain.transport.identity import RouterIdentity

ACCOUNT, OWNERS = b"\x07" * 20, [bytes([number]) * 20 for number in (1, 2)]


@pytest.fixture(scope="module")
def routers() -> list[Router]:
    public = IssuerKey.generate().public
    return [Router(RouterIdentity.generate().info(f"i{number}", "127.0.0.1", 9001), False, False,
                   True, owner, key_hash=keccak256(owner), issuer=public)
            for number, owner in enumerate(OWNERS)]


def agent() -> Any:
    found = object.__new__(ClientAgent)
    found.access = SimpleNamespace(ctx=lambda key_hash: keccak256(b"ctx" + key_hash))

    async def check(router: Router, known: Any) -> None:
        pass

    found._check = check
    return found


def store_with_channel_at(path: Path, router: Router) -> Store:
    store = Store(path / "store.sqlite", bytes(32), "client")
    ctx = agent().access.ctx(router.key_hash)
    group = group_id(ctx, ACCOUNT, router.account, Role.CLIENT, 10, 0, 1, bytes(32), bytes(32))
    with store.transaction() as records:
        records.put(Table.GROUP, group_key(group), Group(
            group, ACCOUNT, Role.CLIENT, 10, 0, 1, bytes(32), bytes(32), GroupPhase.OPEN, 1, 1, 1))
        cid = channel_id(group, 0)
        put(records, cid, Idle(cid, 1, bytes(32), 10, bytes(192), bytes(192)))
    return store


def test_channels_are_recognised_at_the_intermediary_that_they_are_with(
        tmp_path: Path, routers: list[Router]) -> None:
    store = store_with_channel_at(tmp_path, routers[1])
    known: dict[bytes, Any] = {}
    asyncio.run(agent()._recognise(store, routers, known))
    assert list(known) == [routers[1].key_hash]
    assert known_intermediaries(store.read()) == list(known.values())
    asyncio.run(agent()._recognise(store, [], known))
    store.close()


def test_channels_are_not_used_under_another_key(tmp_path: Path, routers: list[Router]) -> None:
    store = store_with_channel_at(tmp_path, routers[1])
    with pytest.raises(DirectoryError, match="does not list"):
        asyncio.run(agent()._recognise(store, routers[:1], {}))
    assert known_intermediaries(store.read()) == []
    store.close()
