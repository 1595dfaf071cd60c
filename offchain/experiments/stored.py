# SPDX-License-Identifier: BSD-3-Clause
"""An intermediary over a real database, as full as one likes, and what a step of it touches.

The parties are those of `protocol.dialogue`; only the intermediary's records are on disk. To fill
the database, the rows of one real session are repeated under fresh random keys: the same tables,
the same lengths, in the same order of keys as true ones would have, since those are hashes too.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from monetor_chain.parameters import DEFAULT, NetworkParameters

from ..crypto.curve import backend
from ..crypto.issuer import IssuerKey
from ..protocol.dialogue import Dialogue, Name, Watch, unwatched
from ..protocol.moment import Moment
from ..protocol.records import Records, Table, dump
from ..store import Store
from .stopwatch import stopwatch

NOW = 1_800_000_000
"""A moment in the middle of nothing: no epoch of the parameters in use ends here."""
_RANDOM_BYTES = 31
"""How many last bytes of a key are a nonce, lock or hash."""
_SORTED_FROM = 20_000
"""From so many sessions on, rows are inserted in order of key instead of session by session."""

_PAGE = 4096
_WAL_HEADER, _FRAME_HEADER = 32, 24
_INTERIOR = 2
"""Sizes and the page type of SQLite's file format (sqlite.org/fileformat.html), sections 1.6, 4."""

Row: TypeAlias = tuple[str, bytes, str, bytes]
"""Table, key, type and value, as the store keeps them."""


@dataclass(frozen=True, slots=True)
class Touched:
    """What one step of the intermediary took: pages written, and milliseconds of processor time."""

    step: str
    pages: int
    ms: float


@dataclass(frozen=True, slots=True)
class Disk:
    """What a database takes: bytes, and the pages from the root of the records to one of them."""

    bytes: int
    depth: int


class MeasuredStore(Store):
    """A store whose database can be looked into, and filled with rows."""

    def statements(self, heard: Callable[[str], None] | None) -> None:
        """Tell `heard` of every SQL statement; None stops it."""
        self._connection.set_trace_callback(heard)

    def instructions(self, heard: Callable[[], int] | None) -> None:
        """Call `heard` for every instruction of SQLite's machine; None stops it."""
        self._connection.set_progress_handler(heard, 1)

    def plan(self, statement: str) -> list[str]:
        """How SQLite would find the rows of a statement."""
        return [str(row[3]) for row in self._connection.execute(f"EXPLAIN QUERY PLAN {statement}")]

    def insert(self, rows: Iterable[Row]) -> None:
        """Add records as `Transaction.put` would."""
        with self.transaction():
            self._connection.executemany("INSERT INTO records VALUES (?, ?, ?, ?)", rows)

    def checkpoint(self) -> None:
        """Move the journal into the database, so that it is empty."""
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def journal_pages(self) -> int:
        """Pages in the journal."""
        journal = self.path.with_name(f"{self.path.name}-wal")
        return max(0, journal.stat().st_size - _WAL_HEADER) // (_PAGE + _FRAME_HEADER)

    def disk(self) -> Disk:
        """What the database takes, its journal included in it."""
        self.checkpoint()
        (root,) = self._connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'records'").fetchone()
        return Disk(self.path.stat().st_size, self._depth(root))

    def _depth(self, page: int) -> int:
        with self.path.open("rb") as file:
            for depth in itertools.count(1):
                file.seek((page - 1) * _PAGE)
                head = file.read(12)
                if head[0] != _INTERIOR:
                    return depth
                page = int.from_bytes(head[8:12], "big")
        raise AssertionError("a tree ends in leaves")


class StoredIntermediary:
    """Honest parties whose intermediary keeps everything in `path`, a new database."""

    def __init__(self, path: Path, parameters: NetworkParameters = DEFAULT, *,
                 observe: Watch = unwatched) -> None:
        """`observe` is entered around each step of each party, its transaction included."""
        self._observe = observe
        self.store = MeasuredStore(path, bytes(32), "intermediary")
        self.touched: list[Touched] = []
        self.counting = False
        """Whether pages are counted, which empties the journal before each step and takes time."""
        self._watching = False
        moment = Moment(NOW, parameters.epoch_at(NOW), parameters)
        self.dialogue = Dialogue(moment, IssuerKey.generate(backend()), watch=self._watch)
        stake = parameters.deposit_max
        (self._cid,) = self.dialogue.open(Name.CLIENT, deposit=stake, fund=0)
        self.dialogue.open(Name.RELAY, deposit=0, fund=stake)
        self._template = self._rows_of_a_session()
        self._to_disk()

    def _rows_of_a_session(self) -> list[Row]:
        side = self.dialogue.sides[Name.INTERMEDIARY]
        self._session(1)
        before = set(_rows(side.records))
        self._session(1)
        known = {(table, key) for table, key, _, _ in before}
        return [row for row in _rows(side.records) if row[:2] not in known]

    def _to_disk(self) -> None:
        side = self.dialogue.sides[Name.INTERMEDIARY]
        with self.store.transaction() as records:
            for table in Table:
                for key, value in side.records.scan(table):
                    records.put(table, key, value)
        side.records = self.store.read()
        self._watching = True

    @contextmanager
    def _watch(self, name: Name, step: str) -> Iterator[None]:
        if not self._watching or name is not Name.INTERMEDIARY:
            with self._observe(name, step):
                yield
            return
        if self.counting:
            self.store.checkpoint()
        with stopwatch() as span, self._observe(name, step), self.store.transaction():
            yield
        pages = self.store.journal_pages() if self.counting else 0
        self.touched.append(Touched(step, pages, span.ms))

    @property
    def rows_per_session(self) -> int:
        """Records that a session leaves behind, from its setup to the close of both legs."""
        return len(self._template)

    def setup(self) -> bytes:
        """A Nano-Setup on top of what is there."""
        return self.dialogue.setup(self._cid)

    def session(self) -> None:
        """A whole session on top of what is there."""
        self._session(1)

    def _session(self, payments: int) -> None:
        found = self.dialogue.setup(self._cid)
        self.dialogue.establish(found)
        self.dialogue.pay(found, payments)
        self.dialogue.close_relay(found)
        self.dialogue.close_client(found)

    def finish(self, terms_hash: bytes) -> None:
        """Close a session that was only set up, so that its wallet can be used again."""
        self.dialogue.close_client(terms_hash)

    def fill(self, sessions: int) -> None:
        """Add the rows of so many finished sessions.

        Many of them are inserted in order of key, which leaves pages full; in the order of
        sessions, pages are two thirds full as of any tree that grows at random places.
        """
        if sessions < _SORTED_FROM:
            self.store.insert([_again(row) for _ in range(sessions) for row in self._template])
            return
        for table, key, kind, value in sorted(self._template):
            keys = sorted(key[:-_RANDOM_BYTES] + secrets.token_bytes(_RANDOM_BYTES)
                          for _ in range(sessions))
            self.store.insert([(table, one, kind, value) for one in keys])

    def close(self) -> None:
        """Close the database."""
        self.store.close()


def _rows(records: Records) -> list[Row]:
    return [(table.value, key, *dump(value)) for table in Table
            for key, value in records.scan(table)]


def _again(row: Row) -> Row:
    table, key, kind, value = row
    return table, key[:-_RANDOM_BYTES] + secrets.token_bytes(_RANDOM_BYTES), kind, value
