# SPDX-License-Identifier: BSD-3-Clause
"""One party's disk: all or nothing, its own network and role only, one process at a time."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
from contextlib import closing
from pathlib import Path

import pytest

from offchain.protocol.answering import Lock
from offchain.protocol.history import Entry
from offchain.protocol.ledger import Resolve
from offchain.protocol.moment import Tip
from offchain.protocol.outbox import Done, Note, Request, Submit, Tell
from offchain.protocol.pruning import OpenSince
from offchain.protocol.records import MemoryRecords, Table, dump
from offchain.store import Identity, Store, StoreError, reading

NETWORK = b"\x01" * 32
ROOT = Path(__file__).resolve().parents[2]


def open_store(path: Path, network: bytes = NETWORK, role: str = "client") -> Store:
    return Store(path / "store.sqlite", network, role)


def test_what_is_committed_is_there_after_a_restart(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    request, submit = Request(b"a", 7, b"payload"), Submit(b"k", Resolve(5))
    with store.transaction() as records:
        records.put(Table.META, b"tip", Tip(3, 4))
        records.keep([request, submit, Tell(b"s", 1, b""), Note("what", "detail")])
        records.count("gas", 5)
        records.count("gas")
    store.close()
    store = open_store(tmp_path)
    reading = store.read()
    assert reading.get(Table.META, b"tip") == Tip(3, 4)
    assert reading.requests() == [request] and reading.request(b"a") == request
    assert reading.submissions() == [submit]
    assert reading.counter("gas") == 6 and reading.counter("none") == 0
    store.close()


def test_an_exception_leaves_nothing_behind(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with store.transaction() as records:
        records.put(Table.META, b"tip", Tip(1, 1))
    with pytest.raises(KeyboardInterrupt), store.transaction() as records:
        records.put(Table.META, b"tip", Tip(2, 2))
        records.keep([Request(b"a", 7, b"")])
        raise KeyboardInterrupt
    assert store.read().get(Table.META, b"tip") == Tip(1, 1)
    assert store.read().requests() == []
    with store.transaction() as records:
        records.delete(Table.META, b"tip")
    assert store.read().get(Table.META, b"tip") is None
    store.close()


def test_the_outbox_keeps_the_last_request_of_a_conversation(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with store.transaction() as records:
        records.keep([Request(b"a", 1, b"one"), Request(b"b", 1, b""), Request(b"a", 2, b"two")])
        records.keep([Submit(b"k", Resolve(1)), Submit(b"k", Resolve(2))])
    assert store.read().request(b"a") == Request(b"a", 2, b"two")
    assert store.read().submissions() == [Submit(b"k", Resolve(1))], "one transaction a purpose"
    with store.transaction() as records:
        records.keep([Done(b"a"), Done(b"unknown")])
        records.forget_submission(b"k")
    assert store.read().requests() == [Request(b"b", 1, b"")]
    assert store.read().submissions() == []
    store.close()


def test_scans_agree_with_records_in_memory(tmp_path: Path) -> None:
    store, memory = open_store(tmp_path), MemoryRecords()
    keys = [bytes([a, b]) for a in (0, 7, 255) for b in (0, 128, 255)] + [b"", b"\x07"]
    with store.transaction() as records:
        for target in (records, memory):
            for number, key in enumerate(keys):
                target.put(Table.LOCK, key, Tip(number, 0))
            target.put(Table.META, b"\x07", Tip(99, 99))
    for start, stop in ((b"", None), (b"\x07", b"\xff"), (b"\x07\x80", None),
                        (b"\xff\xff\xff", None)):
        assert list(store.read().scan(Table.LOCK, start, stop)) == list(
            memory.scan(Table.LOCK, start, stop))
    with store.transaction() as records:
        for key, _ in records.scan(Table.LOCK):
            records.delete(Table.LOCK, key)
    assert list(store.read().scan(Table.LOCK)) == []
    assert store.read().get(Table.META, b"\x07") == Tip(99, 99)
    store.close()


@pytest.mark.parametrize(("network", "role", "message"), [
    (b"\x02" * 32, "client", "another network"), (NETWORK, "relay", "store of a client"),
], ids=["network", "role"])
def test_another_networks_or_roles_store_is_refused(
        tmp_path: Path, network: bytes, role: str, message: str) -> None:
    open_store(tmp_path).close()
    with pytest.raises(StoreError, match=message):
        open_store(tmp_path, network, role)
    # The refusal let go of the file.
    open_store(tmp_path).close()


def test_another_format_is_refused(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "store.sqlite")) as connection, connection:
        connection.execute("UPDATE identity SET version = 99")
    with pytest.raises(StoreError, match="format 99"):
        open_store(tmp_path)


def test_a_later_formats_own_columns_are_no_crash(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "store.sqlite")) as connection, connection:
        connection.execute("ALTER TABLE identity ADD COLUMN more TEXT")
        connection.execute("UPDATE identity SET version = 98")
    with pytest.raises(StoreError, match="format 98"):
        open_store(tmp_path)


FORMAT_1 = """
CREATE TABLE identity (version INTEGER NOT NULL, network BLOB NOT NULL, role TEXT NOT NULL);
CREATE TABLE records (
    tbl TEXT NOT NULL, key BLOB NOT NULL, type TEXT NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (tbl, key)
) WITHOUT ROWID;
CREATE TABLE requests (
    conversation BLOB PRIMARY KEY, pcmd INTEGER NOT NULL, payload BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE submissions (
    key BLOB PRIMARY KEY, type TEXT NOT NULL, value BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""


def test_a_store_of_the_format_before_is_brought_up_to_date(tmp_path: Path) -> None:
    """With everything that is in it, but for a group that was asked for and holds nothing."""
    rho, kept = bytes(range(32)), Request(b"session:" + b"s" * 32, 7, b"payload")
    with closing(sqlite3.connect(tmp_path / "store.sqlite")) as connection, connection:
        connection.executescript(FORMAT_1)
        connection.execute("INSERT INTO identity VALUES (1, ?, 'client')", (NETWORK,))
        connection.execute("INSERT INTO records VALUES ('meta', ?, 'PendingGroup', ?)",
                           (b"pending-group:" + rho, bytes(51)))
        connection.execute("INSERT INTO records VALUES ('meta', ?, 'Tip', ?)",
                           (b"tip", dump(Tip(3, 4))[1][:16]))  # without the block's hash
        revoked = dump(Lock(b"\x00\xff" * 16, taken=True))[1]
        connection.execute("INSERT INTO records VALUES ('lock', ?, 'Lock', ?)",
                           (b"\x01" * 31, revoked[:-8]))  # without its time
        connection.execute("INSERT INTO records VALUES ('group', ?, 'Group', x'')",
                           (b"\x00\xfe" * 15 + b"\x01",))
        for one in (Request(b"group:" + rho, 16, b""), kept):
            connection.execute("INSERT INTO requests VALUES (?, ?, ?)",
                               (one.conversation, one.pcmd, one.payload))
    with pytest.raises(StoreError, match="older format 1"), reading(tmp_path / "store.sqlite"):
        pass
    for _ in range(2):
        store = open_store(tmp_path)
        assert store.read().requests() == [kept]
        assert list(store.read().scan(Table.META)) == [(b"tip", Tip(3, 4))]
        assert list(store.read().scan(Table.LOCK)) == [
            (b"\x01" * 31, Lock(b"\x00\xff" * 16, taken=True))]
        # Nothing that such a group may still need is forgotten.
        assert list(store.read().scan(Table.CHANNEL)) == [
            (b"open-since:" + b"\x00\xfe" * 15 + b"\x01", OpenSince(0))]
        assert store.read().history() == []
        store.close()


def test_the_history_is_kept_with_the_step_and_in_order(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    one, two = Entry("paid", b"s" * 32, 3, 300), Entry("hidden-payment", b"c" * 31, 1, -7)
    with store.transaction() as records:
        records.remember(5, [one])
    with pytest.raises(KeyboardInterrupt), store.transaction() as records:
        records.remember(6, [two])
        raise KeyboardInterrupt
    with store.transaction() as records:
        records.remember(7, [two])
    store.close()
    store = open_store(tmp_path)
    assert store.read().history() == [(5, one), (7, two)]
    store.close()


def test_a_transaction_knows_what_it_has_changed(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with store.transaction() as records:
        for key in (b"same", b"changed", b"gone"):
            records.put(Table.META, key, Tip(1, 1))
    with store.transaction(compares=True) as records:
        records.put(Table.META, b"same", Tip(2, 2))
        records.put(Table.META, b"same", Tip(1, 1))
        records.put(Table.META, b"changed", Tip(2, 2))
        records.put(Table.META, b"changed", Tip(3, 3))
        records.delete(Table.META, b"gone")
        records.put(Table.META, b"new", Tip(4, 4))
        records.delete(Table.META, b"never there")
        found = {one.key: (one.before, one.after) for one in records.changes()}
    assert found == {b"changed": (Tip(1, 1), Tip(3, 3)), b"gone": (Tip(1, 1), None),
                     b"new": (None, Tip(4, 4))}
    store.close()


def test_what_a_part_took_back_is_no_change(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with store.transaction(compares=True) as records:
        with records.part():
            records.put(Table.META, b"kept", Tip(1, 1))
        with pytest.raises(ValueError), records.part():
            records.put(Table.META, b"kept", Tip(2, 2))
            records.put(Table.META, b"refused", Tip(2, 2))
            raise ValueError("refused")
        with records.part():
            records.put(Table.META, b"kept", Tip(3, 3))
        found = {one.key: (one.before, one.after) for one in records.changes()}
    assert found == {b"kept": (None, Tip(3, 3))}
    store.close()


def test_others_can_read_while_the_party_writes(tmp_path: Path) -> None:
    """One state from beginning to end, and nothing can be written."""
    store = open_store(tmp_path)
    with store.transaction() as records:
        records.put(Table.META, b"tip", Tip(1, 1))
    with reading(tmp_path / "store.sqlite") as (seen, identity):
        assert identity == Identity(NETWORK, "client") and seen.get(Table.META, b"tip") == Tip(1, 1)
        with store.transaction() as records:
            records.put(Table.META, b"tip", Tip(2, 2))
        assert seen.get(Table.META, b"tip") == Tip(1, 1)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            seen.put(Table.META, b"tip", Tip(9, 9))
    assert store.read().get(Table.META, b"tip") == Tip(2, 2)
    store.close()
    with reading(tmp_path / "store.sqlite") as (seen, _):
        assert seen.get(Table.META, b"tip") == Tip(2, 2)
    with pytest.raises(StoreError, match="no store"), reading(tmp_path / "nothing"):
        pass


def test_a_store_without_identity_is_refused(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "store.sqlite")) as connection, connection:
        connection.execute("DELETE FROM identity")
    with pytest.raises(StoreError, match="half-written"):
        open_store(tmp_path)


@pytest.mark.parametrize("content", [b"no database at all" * 100,
                                     b"SQLite format 3\x00" + bytes(50)])
def test_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "store.sqlite").write_bytes(content)
    with pytest.raises(StoreError, match="no usable moneTor store"):
        open_store(tmp_path)
    assert (tmp_path / "store.sqlite").read_bytes() == content, "nothing is overwritten"


def test_somebody_elses_database_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "store.sqlite")) as connection, connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    with pytest.raises(StoreError):
        open_store(tmp_path)


def test_a_truncated_store_is_refused(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with store.transaction() as records:
        for number in range(2000):
            records.put(Table.META, number.to_bytes(4, "big"), Tip(number, number))
    store.close()
    path = tmp_path / "store.sqlite"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(StoreError):
        store = open_store(tmp_path)
        list(store.read().scan(Table.META))


def test_an_empty_file_is_a_new_store(tmp_path: Path) -> None:
    """Killed between the creation of the file and its first transaction."""
    (tmp_path / "store.sqlite").touch()
    open_store(tmp_path).close()
    open_store(tmp_path).close()


def test_only_the_owner_may_read(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        store = open_store(tmp_path / "folder")
        with store.transaction() as records:
            records.put(Table.META, b"tip", Tip(1, 1))
        modes = {path.name: stat.S_IMODE(path.stat().st_mode)
                 for path in (tmp_path / "folder").iterdir()}
        folder = stat.S_IMODE((tmp_path / "folder").stat().st_mode)
        store.close()
    finally:
        os.umask(previous)
    assert set(modes.values()) == {0o600}, modes
    assert folder == 0o700


def test_a_store_that_others_can_read_is_closed_to_them(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    os.chmod(tmp_path / "store.sqlite", 0o644)
    open_store(tmp_path).close()
    assert stat.S_IMODE((tmp_path / "store.sqlite").stat().st_mode) == 0o600


def child(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), *arguments], cwd=ROOT,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_second_process_cannot_open_it(tmp_path: Path) -> None:
    """Two processes on one store would spend the same wallet twice."""
    store = open_store(tmp_path)
    second = child("""
        import sys
        from pathlib import Path
        from offchain.store import Store, StoreError
        try:
            Store(Path(sys.argv[1]), b"\\x01" * 32, "client")
        except StoreError as error:
            print(error)
            sys.exit(3)
        """, str(tmp_path / "store.sqlite"))
    output, errors = second.communicate(timeout=60)
    assert second.returncode == 3, errors
    assert "another process" in output
    with store.transaction() as records:
        records.put(Table.META, b"tip", Tip(1, 1))
    store.close()
    open_store(tmp_path).close()


WRITER = """
    import sys
    from pathlib import Path
    from offchain.protocol.moment import Tip
    from offchain.protocol.outbox import Request
    from offchain.protocol.records import Table
    from offchain.store import Store
    store = Store(Path(sys.argv[1]), b"\\x01" * 32, "client")
    number = 0
    while True:
        number += 1
        with store.transaction() as records:
            records.put(Table.META, b"tip", Tip(number, number))
            for key in range(20):
                records.put(Table.LOCK, bytes([key]), Tip(number, key))
            records.keep([Request(b"conversation", 1, number.to_bytes(8, "big"))])
        print(number, flush=True)
    """


@pytest.mark.parametrize("after", [1, 7, 40])
def test_a_killed_process_leaves_state_and_outbox_together(tmp_path: Path, after: int) -> None:
    writer = child(WRITER, str(tmp_path / "store.sqlite"))
    assert writer.stdout is not None
    seen = 0
    for line in writer.stdout:
        seen = int(line)
        if seen >= after:
            break
    os.kill(writer.pid, signal.SIGKILL)
    seen = max([seen, *map(int, writer.stdout.read().split())])
    writer.wait(timeout=30)
    writer.stdout.close()
    if writer.stderr is not None:
        writer.stderr.close()
    store = open_store(tmp_path)
    reading = store.read()
    number = reading.get(Table.META, b"tip").number
    # What was told to be committed is there; one more may be.
    assert number in (seen, seen + 1)
    assert [one.number for _, one in reading.scan(Table.LOCK)] == [number] * 20
    assert reading.requests() == [Request(b"conversation", 1, number.to_bytes(8, "big"))]
    store.close()


def test_a_transaction_that_cannot_be_committed_leaves_the_store_usable(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store._connection.execute("PRAGMA foreign_keys = ON")
    with pytest.raises(StoreError, match="committed"), store.transaction() as records:
        records.put(Table.META, b"tip", Tip(1, 1))
        # As if the disk were full: everything is written, and the commit itself fails.
        store._connection.execute("CREATE TABLE parent (id INTEGER PRIMARY KEY)")
        store._connection.execute("CREATE TABLE part (whole INTEGER REFERENCES parent (id) "
                                  "DEFERRABLE INITIALLY DEFERRED)")
        store._connection.execute("INSERT INTO part VALUES (1)")
    assert store.read().get(Table.META, b"tip") is None
    with store.transaction() as records:
        records.put(Table.META, b"tip", Tip(2, 2))
    assert store.read().get(Table.META, b"tip") == Tip(2, 2)
    store.close()


def test_a_part_of_a_transaction_is_undone_alone(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with store.transaction() as records:
        records.put(Table.META, b"before", Tip(1, 1))
        with pytest.raises(ValueError, match="refused"), records.part():
            records.put(Table.META, b"before", Tip(2, 2))
            records.put(Table.META, b"part", Tip(2, 2))
            records.keep([Request(b"a", 7, b"")])
            raise ValueError("refused")
        assert set(records.touched) == {(Table.META, b"before")}
        with records.part():
            records.put(Table.META, b"kept", Tip(3, 3))
        assert set(records.touched) == {(Table.META, b"before"), (Table.META, b"kept")}
    reading = store.read()
    assert dict(reading.scan(Table.META)) == {b"before": Tip(1, 1), b"kept": Tip(3, 3)}
    assert reading.requests() == []
    store.close()


def test_a_part_is_on_disk_with_its_transaction_and_not_before(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with pytest.raises(KeyboardInterrupt), store.transaction() as records:
        with records.part():
            records.put(Table.META, b"part", Tip(1, 1))
        raise KeyboardInterrupt
    assert store.read().get(Table.META, b"part") is None
    store.close()
