# SPDX-License-Identifier: BSD-3-Clause
"""Steps of many share one commit: each whole or not at all, and nothing leaves before the disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from offchain.agents.engine import Engine
from offchain.agents.watch_folder import Hander, HandOverFailed, Parcel
from offchain.protocol.errors import ProtocolError
from offchain.protocol.moment import Tip
from offchain.protocol.outbox import Tell
from offchain.protocol.records import Table
from offchain.store import Store, StoreError, Transaction


class Told(Hander):
    """A hander that writes down what it is asked, and when."""

    def __init__(self, seen: list[str], *, fails: bool = False) -> None:
        super().__init__([], "party", bytes(32), bytes(32))
        self.seen = seen
        self.fails = fails

    def prepare(self, records: Transaction, moment: Any) -> list[Parcel]:
        self.seen.append("prepare " + " ".join(
            key.decode() for table, key in sorted(records.touched)))
        return [Parcel("a", b"")]

    def hand_over(self, parcels: Any) -> None:
        self.seen.append("hand over")
        if self.fails:
            raise HandOverFailed("no disk")


class Stepping(Engine):
    """An engine without a chain, whose deliveries are written down."""

    def __init__(self, store: Store, seen: list[str], hander: Hander | None = None) -> None:
        nothing: Any = None

        def tell(item: Tell) -> None:
            committed = self.store.read().get(Table.META, item.session)
            seen.append(f"tell {item.session.decode()} {committed is not None}")

        super().__init__("party", store, object(), chain=nothing, consensus=nothing,
                         events=nothing, port=nothing, first_block=0, tell=tell, hander=hander)

    def moment(self) -> Any:
        return None


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    found = Store(tmp_path / "store.sqlite", bytes(32), "test")
    yield found
    found.close()


def writes(name: str, error: Exception | None = None) -> Callable[..., str]:
    def action(records: Transaction, moment: Any, outbox: Any) -> str:
        records.put(Table.META, name.encode(), Tip(1, 1))
        outbox.append(Tell(name.encode(), 1, b""))
        if error is not None:
            raise error
        return name

    return action


def together(engine: Engine, *actions: Callable[..., str]) -> list[Any]:
    async def main() -> list[Any]:
        waiting: list[Coroutine[Any, Any, str]] = [engine.grouped(one) for one in actions]
        async with asyncio.timeout(30):
            return await asyncio.gather(*waiting, return_exceptions=True)

    return asyncio.run(main())


def stored(store: Store) -> list[str]:
    return [key.decode() for key, _ in store.read().scan(Table.META)]


def commits(store: Store, work: Callable[[], object]) -> int:
    statements: list[str] = []
    store._connection.set_trace_callback(statements.append)
    work()
    store._connection.set_trace_callback(None)
    return statements.count("COMMIT")


def test_steps_that_are_there_together_share_a_commit(store: Store) -> None:
    seen: list[str] = []
    engine = Stepping(store, seen)
    found: list[Any] = []
    assert commits(store, lambda: found.extend(
        together(engine, *(writes(name) for name in "abc")))) == 1
    assert found == ["a", "b", "c"] == stored(store)
    assert seen == ["tell a True", "tell b True", "tell c True"]


def test_a_refused_step_leaves_nothing_and_the_others_happen(store: Store) -> None:
    seen: list[str] = []
    engine = Stepping(store, seen, Told(seen))
    refusal = ProtocolError("no")
    assert together(engine, writes("a"), writes("b", refusal), writes("c")) == ["a", refusal, "c"]
    assert stored(store) == ["a", "c"]
    # Nor does the watcher hear of it.
    assert seen == ["prepare a c", "hand over", "tell a True", "tell c True"]


def test_a_step_sees_what_the_one_before_it_did(store: Store) -> None:
    """As two requests that spend one wallet must."""
    def spends(records: Transaction, moment: Any, outbox: Any) -> str:
        if records.get(Table.META, b"spent") is not None:
            raise ProtocolError("spent")
        return writes("spent")(records, moment, outbox)

    first, second = together(Stepping(store, []), spends, spends)
    assert first == "spent" and isinstance(second, ProtocolError)


def test_a_commit_that_fails_fails_all_and_nothing_leaves(
        store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    engine = Stepping(store, seen)

    def full(records: Transaction, moment: Any, outbox: Any) -> str:
        # The disk is full: SQLite itself refuses the page, and may end the transaction.
        pages = records._connection.execute("PRAGMA page_count").fetchone()[0]
        records._connection.execute(f"PRAGMA max_page_count = {pages}")
        for number in range(10_000):
            records.put(Table.META, b"big%d" % number, Tip(1, 1))
        return "never"

    found = together(engine, writes("a"), full, writes("c"))
    assert all(isinstance(one, StoreError) for one in found) and not seen
    store._connection.execute("PRAGMA max_page_count = 1000000")
    assert stored(store) == []
    assert together(engine, writes("d")) == ["d"]


def test_a_fault_in_a_step_undoes_the_group(store: Store) -> None:
    """It is no refusal: whoever waits raises it, instead of going on with half a group."""
    seen: list[str] = []
    fault = RuntimeError("fault")

    async def main() -> list[Any]:
        asyncio.get_running_loop().set_exception_handler(
            lambda loop, context: seen.append(str(context["exception"])))
        engine = Stepping(store, seen)
        return await asyncio.gather(*(engine.grouped(one) for one in (
            writes("a"), writes("b", fault))), return_exceptions=True)

    assert asyncio.run(main()) == [fault, fault]
    assert stored(store) == [] and seen == ["fault"]


def test_nothing_leaves_before_the_watcher_knows(store: Store) -> None:
    seen: list[str] = []
    found = together(Stepping(store, seen, Told(seen, fails=True)), writes("a"), writes("b"))
    assert all(isinstance(one, HandOverFailed) for one in found)
    assert seen == ["prepare a b", "hand over"] and stored(store) == ["a", "b"]


def test_a_group_of_refusals_writes_nothing(store: Store) -> None:
    """Whoever is refused must not make the intermediary wait for its disk."""
    wal = store.path.with_name(store.path.name + "-wal")
    together(Stepping(store, []), writes("a"))
    size = wal.stat().st_size

    def refuses(records: Transaction, moment: Any, outbox: Any) -> str:
        assert records.get(Table.META, b"a") is not None
        raise ProtocolError("no")

    together(Stepping(store, []), refuses, refuses)
    assert wal.stat().st_size == size
