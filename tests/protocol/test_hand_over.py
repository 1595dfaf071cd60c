# SPDX-License-Identifier: BSD-3-Clause
"""Between a party and its watcher: what is on the watcher's disk before anything leaves, files that
are whole or not there, and what the watcher does with them."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from monetor_chain.errors import ChainUnavailable
from monetor_chain.parameters import DEMO
from offchain.agents.authorising import authoriser
from offchain.agents.end_user import EndUserAgent
from offchain.agents.engine import Engine
from offchain.agents.place import AgentPlace
from offchain.agents.watch_folder import (
    EndUserHander,
    HandOverFailed,
    IntermediaryHander,
    Parcel,
    deposit,
)
from offchain.agents.watcher import WatcherAgent
from offchain.cli.failures import explain
from offchain.protocol import ledger as calls, wallet as wallets
from offchain.protocol.moment import Moment
from offchain.protocol.outbox import Request, Submit, Tell
from offchain.protocol.records import Table
from offchain.protocol.wallet import Idle
from offchain.protocol.watch_packages import (
    RENEWAL_MARGINS,
    PackageKind,
    Proof,
    Revoked,
    WatchedGroup,
    export_disputes,
    unseal,
)
from offchain.protocol.watching import WatcherMachine
from offchain.store import Store
from tests.protocol.test_watching import answered
from tests.protocol.world import MU, Node, World

ACCOUNT = b"\x11" * 32


class Stepping(Engine):
    """An engine that is only stepped: it has no chain, and its time is a test's."""

    def __init__(self, world: World, store: Store, machine: Any, **options: Any) -> None:
        nothing: Any = None
        super().__init__("party", store, machine, chain=nothing, consensus=nothing,
                         events=nothing, port=options.pop("port", nothing), first_block=0,
                         **options)
        self._world = world

    def moment(self) -> Moment:
        return self._world.moment()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "for-the-watcher"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    found = Store(tmp_path / "store.sqlite", bytes(32), "test")
    yield found
    found.close()


def fill(store: Store, node: Node) -> None:
    with store.transaction() as records:
        for table in Table:
            for key, one in node.records.scan(table):
                records.put(table, key, one)


def hander(world: World, folder: Path, node: Node, *, proofs: bool = False) -> EndUserHander:
    key = node.party.private_key
    return EndUserHander([folder], node.name, key, node.machine,
                         authoriser(key, world.domain), proofs=proofs)


def left(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def test_a_package_s_file_is_whole_private_and_replaced(folder: Path) -> None:
    deposit(folder, Parcel("a.watch", b"old"))
    deposit(folder, Parcel("a.watch", b"new"))
    assert left(folder) == ["a.watch"] and (folder / "a.watch").read_bytes() == b"new"
    assert stat.S_IMODE((folder / "a.watch").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    deposit(folder, Parcel("b-2.watch", b"all", "b-*.watch"))
    deposit(folder, Parcel("b-3.watch", b"all", "b-*.watch"))
    assert left(folder) == ["a.watch", "b-3.watch"]


def test_the_watcher_is_told_before_anything_leaves(
        world: World, store: Store, folder: Path) -> None:
    """What goes out could revoke what the watcher holds."""
    fill(store, world.c)
    cid = world.c.cids()[0]
    seen: list[set[int]] = []

    def tell(item: Tell) -> None:
        package = unseal((folder / "C-answers.watch").read_bytes(), world.domain)
        seen.append({one.call().balance for one in package.entries if one.cid == cid})

    engine = Stepping(world, store, world.c.machine, tell=tell,
                      hander=hander(world, folder, world.c))
    for balance in (41, 42):

        def spend(records: Any, moment: Moment, outbox: Any, balance: int = balance) -> None:
            wallet = wallets.get(records, cid)
            assert isinstance(wallet, Idle)
            wallets.put(records, cid, replace(
                wallet, wsk=bytes([balance]) * 32, balance=balance))
            outbox.append(Tell(bytes(32), 1, b"a secret"))

        engine.step(spend)
    assert seen == [{41}, {42}]


def test_nothing_leaves_if_the_watcher_cannot_be_told(
        world: World, store: Store, folder: Path) -> None:
    fill(store, world.c)
    folder.write_bytes(b"a file where the folder should be")
    told: list[Tell] = []
    engine = Stepping(world, store, world.c.machine, tell=told.append,
                      hander=hander(world, folder, world.c))
    item = Tell(bytes(32), 1, b"a secret")
    with pytest.raises(HandOverFailed, match="takes no package"):
        engine.step(lambda records, moment, outbox: outbox.append(item))
    with pytest.raises(HandOverFailed):
        engine.check()
    # Nor afterwards: whatever runs on finds nothing outstanding.
    folder.unlink()
    asked = Request(b"session:x", 1, b"a secret")
    engine.step(lambda records, moment, outbox: outbox.extend([item, asked]))
    assert store.read().request(asked.conversation) == asked
    assert not told and engine._outstanding(asked.conversation) is None
    assert "start again" in str(explain(engine.tasks.failure))  # type: ignore[arg-type]


def test_answers_follow_the_wallets_and_are_renewed(
        world: World, store: Store, folder: Path) -> None:
    fill(store, world.c)
    mine = hander(world, folder, world.c)
    engine = Stepping(world, store, world.c.machine, hander=mine)
    path = folder / "C-answers.watch"

    def counter() -> int:
        return unseal(path.read_bytes(), world.domain).header.counter

    def step(action: Any = lambda records, moment, outbox: None) -> int:
        engine.step(action)
        return counter()

    assert step() == 1
    assert step() == 1
    assert step(lambda records, moment, outbox: records.delete(Table.NONCE, b"x")) == 1
    cid = world.c.cids()[0]
    assert step(lambda records, moment, outbox: records.delete(
        Table.WALLET, cid.to_bytes(31, "big"))) == 2
    assert len(unseal(path.read_bytes(), world.domain).entries) == 1
    world.now += RENEWAL_MARGINS * MU // 2 + 1
    assert step() == 3
    # Another process on the same store goes on counting.
    engine = Stepping(world, store, world.c.machine, hander=hander(world, folder, world.c))
    assert step() == 4


def test_an_agent_with_answers_out_does_not_run_without_its_watcher(
        world: World, store: Store, folder: Path, tmp_path: Path) -> None:
    """It would revoke what the watcher may still post."""
    fill(store, world.c)
    engine = Stepping(world, store, world.c.machine, hander=hander(world, folder, world.c))
    engine.clock.now = lambda: world.now  # type: ignore[method-assign]

    def client(*folders: Path) -> EndUserAgent:
        found = EndUserAgent(AgentPlace(tmp_path, "", tmp_path, watcher_folders=folders), ACCOUNT,
                             "C")
        found.engine = engine
        return found

    client()._check_watcher()
    engine.step(lambda records, moment, outbox: None)
    with pytest.raises(HandOverFailed, match="--watcher-folder"):
        client()._check_watcher()
    client(folder)._check_watcher()
    world.now += RENEWAL_MARGINS * MU + DEMO.close_notice
    with pytest.raises(HandOverFailed):
        client()._check_watcher()
    world.now += 1
    client()._check_watcher()


def test_proofs_follow_the_payments(world: World, store: Store, folder: Path,
                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offchain.agents.watch_folder.PROOFS_SECONDS", 0.0)
    world.session(3)
    engine = Stepping(world, store, world.r.machine, hander=hander(
        world, folder, world.r, proofs=True))
    engine.step(lambda records, moment, outbox: None)
    fill(store, world.r)
    engine.step(lambda records, moment, outbox: records.put(
        Table.PAYMENT, *next(iter(world.r.records.scan(Table.PAYMENT)))))
    (proof,) = unseal((folder / "R-proofs.watch").read_bytes(), world.domain).entries
    assert isinstance(proof, Proof) and proof.claim.k == 3


def test_disputes_are_handed_over_whole_once_and_then_step_by_step(
        world: World, store: Store, folder: Path) -> None:
    world.close(world.session(1))
    fill(store, world.i)
    secrets = [one for one in export_disputes(world.i.records) if isinstance(one, Revoked)]

    def engine() -> Stepping:
        return Stepping(world, store, world.i.machine, hander=IntermediaryHander(
            [folder], "I", world.i.party.private_key, world.domain))

    running = engine()
    running.step(lambda records, moment, outbox: None)
    running.step(lambda records, moment, outbox: None)
    (whole,) = folder.iterdir()
    entries = unseal(whole.read_bytes(), world.domain).entries
    assert set(secrets) <= set(entries)
    assert sum(isinstance(one, WatchedGroup) for one in entries) == 3
    for key, one in list(world.i.records.scan(Table.LOCK))[:2]:
        running.step(lambda records, moment, outbox, key=key, one=one: records.put(
            Table.LOCK, key, one))
    assert len(left(folder)) == 3
    new = unseal((folder / left(folder)[-1]).read_bytes(), world.domain)
    assert len(new.entries) == 1 and new.header.kind is PackageKind.DISPUTES
    # A restart says it all again, and what lay there is in it.
    engine().step(lambda records, moment, outbox: None)
    assert left(folder) == ["I-disputes-000000000004.watch"]


def agent(world: World, store: Store, folder: Path) -> WatcherAgent:
    found = WatcherAgent(AgentPlace(folder.parent, "", folder.parent), ACCOUNT, nickname="watcher",
                         packages=folder)
    found.engine = Stepping(world, store, WatcherMachine(world.domain))
    return found


def test_the_watcher_takes_files_and_refuses_others(
        world: World, store: Store, folder: Path) -> None:
    watcher = agent(world, store, folder)
    old, new = answered(world, world.c), answered(world, world.c)
    deposit(folder, Parcel("C-answers.watch", new))
    deposit(folder, Parcel("broken.watch", new[:-1]))
    (folder / ".half.watch.partial").write_bytes(b"half")
    watcher._take_all()
    assert watcher.holdings()["channels_to_answer_for"] == 2
    assert left(folder) == [".half.watch.partial", "broken.refused"]
    deposit(folder, Parcel("C-answers.watch", old))
    watcher._take_all()
    assert "C-answers.refused" in left(folder)
    assert (folder / "C-answers.refused").read_bytes() == old


def test_a_watcher_killed_while_it_takes_a_file_takes_it_again(
        world: World, store: Store, folder: Path) -> None:
    """Its owner has put a newer one beside it."""
    watcher = agent(world, store, folder)
    old, new = answered(world, world.c), answered(world, world.c)
    deposit(folder, Parcel("C-answers.taking", old))
    deposit(folder, Parcel("C-answers.watch", new))
    watcher._take_all()
    assert left(folder) == []
    ((_, taken),) = store.read().scan(Table.META, b"package:", b"package;")
    assert taken.counter == 2
    deposit(folder, Parcel("R-answers.taking", answered(world, world.r)))
    watcher._take_all()
    assert left(folder) == [] and watcher.holdings()["channels_to_answer_for"] == 4


def test_a_package_that_comes_while_another_is_taken_is_not_lost(
        world: World, store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = agent(world, store, folder)
    old, new = answered(world, world.c), answered(world, world.c)
    deposit(folder, Parcel("C-answers.watch", old))
    take = watcher._take

    def meanwhile(data: bytes) -> None:
        take(data)
        deposit(folder, Parcel("C-answers.watch", new))

    monkeypatch.setattr(watcher, "_take", meanwhile)
    watcher._take_all()
    assert (folder / "C-answers.watch").read_bytes() == new


def test_a_transaction_that_is_not_wanted_any_more_is_dropped(world: World, store: Store) -> None:
    """The chain was away meanwhile; the engine asks before each attempt."""
    wanted = [True]
    attempts = []

    class Port:
        async def submit(self, call: Any, now: int) -> Any:
            attempts.append(call)
            wanted.clear()
            raise ChainUnavailable("nobody there")

    engine = Stepping(world, store, WatcherMachine(world.domain), port=Port(),
                      wanted=lambda records, moment, call: bool(wanted))
    engine.clock.now = lambda: world.now  # type: ignore[method-assign]
    item = Submit(b"answer", calls.Resolve(1))
    with store.transaction() as records:
        records.keep([item])
    asyncio.run(asyncio.wait_for(engine._submit(item), 5))
    assert attempts == [item.call] and not store.read().submissions()
