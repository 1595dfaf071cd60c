# SPDX-License-Identifier: BSD-3-Clause
"""One party's SQLite database."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from offchain.protocol.history import Change, Entry
from offchain.protocol.outbox import Done, Outbox, Request, Submit
from offchain.protocol.records import Table, dump, load

SCHEMA_VERSION = 3

LOCK_SECONDS = 2.0
"""How long to wait for a process that is just letting go of the store."""
LOCK_PAUSE = 0.05
"""Seconds between two attempts."""

_SCHEMA = """
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
_HISTORY = """
CREATE TABLE history (
    number INTEGER PRIMARY KEY, at INTEGER NOT NULL, what TEXT NOT NULL, subject BLOB NOT NULL,
    count INTEGER NOT NULL, amount INTEGER NOT NULL
);
"""
_MIGRATIONS = {
    # A group that was asked for and not agreed to holds nothing; it did not say whom it had asked.
    1: _HISTORY + """
DELETE FROM requests WHERE conversation IN (
    SELECT CAST('group:' || substr(key, 15) AS BLOB) FROM records WHERE type = 'PendingGroup');
DELETE FROM records WHERE type = 'PendingGroup';
""",
    # Locks say since when they are revoked, claims which lock was posted, the tip which block it
    # is. Groups that are open count as open from the beginning of time: nothing that was revoked
    # is forgotten on their account.
    2: """
UPDATE records SET value = CAST(value || zeroblob(8) AS BLOB) WHERE type = 'Lock';
UPDATE records SET value = CAST(value || zeroblob(31) AS BLOB) WHERE type = 'PostedClaim';
UPDATE records SET value = CAST(value || zeroblob(32) AS BLOB) WHERE type = 'Tip';
INSERT INTO records SELECT 'channel', CAST('open-since:' || key AS BLOB), 'OpenSince', zeroblob(8)
    FROM records WHERE tbl = 'group';
""",
}
"""What brings a store of a format to the next one."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The network (32 bytes, see `Store`) and role that a store is for."""

    network: bytes
    role: str


class StoreError(Exception):
    """The store cannot be used; the text says what is wrong with it and what to do."""


class Transaction:
    """The records (`protocol.records.Records`) within one open transaction."""

    def __init__(self, connection: sqlite3.Connection, *, compares: bool = False) -> None:
        self._connection = connection
        self._compares = compares
        self.touched: dict[tuple[Table, bytes], tuple[str, bytes] | None] = {}
        """What was written or removed in this transaction, and, for `changes`, what was there
        before it."""

    def get(self, table: Table, key: bytes) -> Any | None:
        """See `Records.get`."""
        row = self._stored(table, key)
        return None if row is None else load(*row)

    def _stored(self, table: Table, key: bytes) -> tuple[str, bytes] | None:
        found: tuple[str, bytes] | None = self._connection.execute(
            "SELECT type, value FROM records WHERE tbl = ? AND key = ?", (table, key)).fetchone()
        return found

    def _touch(self, table: Table, key: bytes) -> None:
        if (table, key) not in self.touched:
            self.touched[table, key] = self._stored(table, key) if self._compares else None

    def put(self, table: Table, key: bytes, value: Any) -> None:
        """See `Records.put`."""
        self._touch(table, key)
        self._connection.execute(
            "INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?)", (table, key, *dump(value)))

    def delete(self, table: Table, key: bytes) -> None:
        """See `Records.delete`."""
        self._touch(table, key)
        self._connection.execute("DELETE FROM records WHERE tbl = ? AND key = ?", (table, key))

    def scan(self, table: Table, start: bytes = b"", stop: bytes | None = None
             ) -> Iterator[tuple[bytes, Any]]:
        """See `Records.scan`."""
        query = "SELECT key, type, value FROM records WHERE tbl = ? AND key >= ?"
        arguments: list[Any] = [table, start]
        if stop is not None:
            query += " AND key < ?"
            arguments.append(stop)
        rows = self._connection.execute(query + " ORDER BY key", arguments).fetchall()
        for key, name, value in rows:
            yield key, load(name, value)

    def keep(self, outbox: Outbox) -> None:
        """Put the durable items of an outbox on disk, and drop what is done."""
        for item in outbox:
            match item:
                case Request():
                    self._connection.execute(
                        "INSERT OR REPLACE INTO requests VALUES (?, ?, ?)",
                        (item.conversation, item.pcmd, item.payload))
                case Done():
                    self._connection.execute(
                        "DELETE FROM requests WHERE conversation = ?", (item.conversation,))
                case Submit():
                    self._connection.execute(
                        "INSERT OR IGNORE INTO submissions VALUES (?, ?, ?)",
                        (item.key, *dump(item.call)))

    @contextmanager
    def part(self) -> Iterator[None]:
        """One of several steps in this transaction: an exception undoes what is written inside,
        and nothing else.

        `StoreError` if the database itself fails: then the whole transaction is lost.
        """
        before, self.touched = self.touched, {}
        try:
            self._connection.execute("SAVEPOINT part")
            try:
                yield
            except BaseException:
                # Fails too if SQLite has ended the transaction, as after some failures it does.
                self._connection.execute("ROLLBACK TO part")
                self._connection.execute("RELEASE part")
                self.touched = {}
                raise
            self._connection.execute("RELEASE part")
        except sqlite3.Error as error:
            raise StoreError(f"a step could not be stored ({error})") from error
        finally:
            self.touched = self.touched | before

    def count(self, name: str, change: int = 1) -> None:
        """Add to one of the party's running totals."""
        self._connection.execute(
            "INSERT INTO counters VALUES (?, ?) ON CONFLICT (name) DO UPDATE "
            "SET value = value + excluded.value", (name, change))

    def counter(self, name: str) -> int:
        """One of the party's running totals."""
        row = self._connection.execute(
            "SELECT value FROM counters WHERE name = ?", (name,)).fetchone()
        return int(row[0]) if row else 0

    def changes(self) -> list[Change]:
        """What this transaction, begun with `compares`, has made of the records that it touched."""
        assert self._compares, "nothing was kept to compare with"
        found = []
        for (table, key), stored in self.touched.items():
            before = None if stored is None else load(*stored)
            after = self.get(table, key)
            if before != after:
                found.append(Change(table, key, before, after))
        return found

    def remember(self, at: int, entries: Iterable[Entry]) -> None:
        """Append to the party's history, at Unix second `at` of the network's clock."""
        self._connection.executemany(
            "INSERT INTO history (at, what, subject, count, amount) VALUES (?, ?, ?, ?, ?)",
            [(at, one.what, one.subject, one.count, one.amount) for one in entries])

    def history(self) -> list[tuple[int, Entry]]:
        """(Unix second, entry) of everything that was remembered, oldest first."""
        return [(at, Entry(what, subject, count, amount))
                for at, what, subject, count, amount in self._connection.execute(
                    "SELECT at, what, subject, count, amount FROM history ORDER BY number")]

    def forget_submission(self, key: bytes) -> None:
        """The ledger has confirmed or refused this transaction."""
        self._connection.execute("DELETE FROM submissions WHERE key = ?", (key,))

    def requests(self) -> list[Request]:
        """Requests that have no final reply yet."""
        return [Request(*row) for row in self._connection.execute("SELECT * FROM requests")]

    def request(self, conversation: bytes) -> Request | None:
        """The outstanding request of a conversation."""
        row = self._connection.execute(
            "SELECT * FROM requests WHERE conversation = ?", (conversation,)).fetchone()
        return None if row is None else Request(*row)

    def submissions(self) -> list[Submit]:
        """Transactions that are not confirmed yet."""
        return [Submit(key, load(name, value)) for key, name, value
                in self._connection.execute("SELECT * FROM submissions")]


class Store:
    """A party's database file, bound to one network (its ctx) and one role for ever.

    The file itself is the state: an old copy of it holds wallets that have been revoked since, and
    whoever posts or spends one of those forfeits the channel. So a copy is put back by `backup` and
    `protocol.restored` only, which mark it as one.
    """

    def __init__(self, path: Path, network: bytes, role: str) -> None:
        """Open or create; `StoreError` if the file is of another network, role or format."""
        self.path = path
        fresh = not path.exists()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if fresh:
            path.touch(mode=0o600)
        os.chmod(path, 0o600)
        # Two processes on one store would spend the same wallet twice. SQLite's own exclusive mode
        # would keep out those that only read as well.
        self._lock = self._only_writer()
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=LOCK_SECONDS)
        except sqlite3.Error as error:
            os.close(self._lock)
            raise self._unusable(error) from error
        try:
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._prepare(network, role)
        except sqlite3.Error as error:
            self.close()
            raise self._unusable(error) from error
        except BaseException:
            self.close()
            raise

    def _only_writer(self) -> int:
        """A lock that ends with this process; `StoreError` if another one has it."""
        lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        until = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            except BlockingIOError:
                if time.monotonic() > until:
                    os.close(lock)
                    raise self._in_use() from None
                time.sleep(LOCK_PAUSE)

    def _in_use(self) -> StoreError:
        return StoreError(f"{self.path} is in use by another process; stop that one first, or "
                          "choose another folder")

    def _unusable(self, error: sqlite3.Error) -> StoreError:
        if getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return self._in_use()
        return StoreError(
            f"{self.path} is no usable moneTor store ({error}); move it away to start "
            "anew without its channels, or put a backup in its place with `monetor restore`, never "
            "by hand: it holds states revoked since")

    def _prepare(self, network: bytes, role: str) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        tables = {row[0] for row in self._connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables:
            self._execute(_SCHEMA + _HISTORY)
            self._connection.execute("INSERT INTO identity VALUES (?, ?, ?)",
                                     (SCHEMA_VERSION, network, role))
        elif "identity" in tables:
            self._migrate()
        self._connection.execute("COMMIT")
        _check_format(self.path, self._connection)
        known_network, known_role = self._connection.execute(
            "SELECT network, role FROM identity").fetchone()
        if known_network != network:
            raise StoreError(f"{self.path} belongs to another network ({known_network.hex()[:16]} "
                             f"instead of {network.hex()[:16]}); choose another folder")
        if known_role != role:
            raise StoreError(f"{self.path} is the store of a {known_role}, not of a {role}; "
                             "choose another folder")

    def _migrate(self) -> None:
        row = self._connection.execute("SELECT version FROM identity").fetchone()
        for version in range(row[0] if row else SCHEMA_VERSION, SCHEMA_VERSION):
            self._execute(_MIGRATIONS[version])
            self._connection.execute("UPDATE identity SET version = ?", (version + 1,))

    def _execute(self, statements: str) -> None:
        # `executescript` would commit.
        for statement in filter(str.strip, statements.split(";")):
            self._connection.execute(statement)

    @contextmanager
    def transaction(self, *, compares: bool = False) -> Iterator[Transaction]:
        """Everything written inside is committed together, or, on an exception, not at all.

        `compares` keeps what was there before, which costs a look at each record written.
        `StoreError` if the disk does not take it; nothing may be delivered then.
        """
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield Transaction(self._connection, compares=compares)
        except BaseException:
            self._roll_back()
            raise
        try:
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            raise StoreError(f"{self.path}: a step could not be committed ({error})") from error

    def _roll_back(self) -> None:
        # SQLite has rolled back by itself after some failures, a full disk among them.
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def copy_to(self, path: Path) -> None:
        """Copy what is committed, while this process works on; `StoreError` between two commits."""
        if self._connection.in_transaction:
            raise StoreError(f"{self.path} is being written to; ask again")
        try:
            copy_store(self._connection, path)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"{self.path} could not be copied to {path}: {error}") from error

    def compact(self) -> int:
        """Give the space of what was deleted back to the disk; the file's size in bytes after it.

        `StoreError` if there is no room for the copy that SQLite makes.
        """
        try:
            self._connection.execute("VACUUM")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            raise StoreError(f"{self.path} could not be compacted ({error})") from error
        return self.path.stat().st_size

    def read(self) -> Transaction:
        """The records for reading, outside any transaction."""
        return Transaction(self._connection)

    def close(self) -> None:
        """Close the file; everything committed is on disk."""
        self._connection.close()
        os.close(self._lock)


@contextmanager
def reading(path: Path) -> Iterator[tuple[Transaction, Identity]]:
    """A store's records as they are at one moment, and whose it is, while its agent may be running.

    Nothing can be written. `StoreError` if the file is none, or of another format.
    """
    if not path.exists():
        raise StoreError(f"there is no store at {path}")
    connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True,
                                 isolation_level=None, timeout=LOCK_SECONDS)
    try:
        # One transaction: what is read first and what last belongs to the same state.
        connection.execute("BEGIN")
        _check_format(path, connection)
        yield Transaction(connection), Identity(
            *connection.execute("SELECT network, role FROM identity").fetchone())
    except sqlite3.Error as error:
        raise StoreError(f"{path} cannot be read ({error})") from error
    finally:
        connection.close()


def _check_format(path: Path, connection: sqlite3.Connection) -> None:
    row = connection.execute("SELECT version FROM identity").fetchone()
    if row is None:
        raise StoreError(f"{path} is half-written: it says of no network that it is for; "
                         "move it away and start again")
    if row[0] < SCHEMA_VERSION:
        raise StoreError(f"{path} has the older format {row[0]}; its agent brings it to "
                         f"{SCHEMA_VERSION} when it starts")
    if row[0] > SCHEMA_VERSION:
        raise StoreError(f"{path} has format {row[0]}, this version of moneTor reads "
                         f"format {SCHEMA_VERSION}")


def copy_store(source: sqlite3.Connection, target: Path) -> None:
    """A consistent copy of an open store, with mode 0600, whole on disk when it has its name."""
    partial = target.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    with closing(sqlite3.connect(partial)) as copy:
        source.backup(copy)
    _sync(partial)
    os.replace(partial, target)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
