# SPDX-License-Identifier: BSD-3-Clause
"""Where a party's state lives: typed records under (table, key), in order of key.

A machine reads and writes nothing else. `MemoryRecords` keeps them in a dictionary;
`offchain.store` keeps the same encodings in SQLite, inside the transaction that also commits the
outbox. Records are stored encoded, so that a machine can never alias what is on disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from .codec import decode, encode
from .errors import ProtocolError

T = TypeVar("T")


class Table(StrEnum):
    """The tables of every party; a party uses those that its role needs."""

    META = "meta"
    GROUP = "group"
    WALLET = "wallet"
    SESSION = "session"
    DEADLINE = "deadline"
    ANSWER = "answer"
    LOCK = "lock"
    CHANNEL = "channel"
    NONCE = "nonce"
    CHAIN_HEAD = "chain_head"
    PAYMENT = "payment"
    GUARD = "guard"
    ADDRESS = "address"


RECORD_TYPES: dict[str, type[Any]] = {}
"""Name → record type, for decoding what a store holds."""


def record(kind: type[T]) -> type[T]:
    """Class decorator: make a frozen dataclass storable under its class name."""
    if RECORD_TYPES.setdefault(kind.__name__, kind).__qualname__ != kind.__qualname__:
        raise TypeError(f"two record types are named {kind.__name__}")
    RECORD_TYPES[kind.__name__] = kind
    return kind


def dump(value: Any) -> tuple[str, bytes]:
    """(type name, encoding) of a record."""
    return type(value).__name__, encode(value)


def load(name: str, data: bytes) -> Any:
    """The record of type `name` that `data` encodes; `ProtocolError` if the type is unknown."""
    kind = RECORD_TYPES.get(name)
    if kind is None:
        raise ProtocolError(f"the store holds a record of the unknown type {name}")
    return decode(kind, data)


class Records(Protocol):
    """Ordered tables of records within one open transaction."""

    def get(self, table: Table, key: bytes) -> Any | None:
        """The record under `key`, or None."""

    def put(self, table: Table, key: bytes, value: Any) -> None:
        """Store or replace."""

    def delete(self, table: Table, key: bytes) -> None:
        """Remove; nothing happens if there is none."""

    def scan(self, table: Table, start: bytes = b"", stop: bytes | None = None
             ) -> Iterator[tuple[bytes, Any]]:
        """Records with start ≤ key < stop in order of key; writing meanwhile is allowed."""


class MemoryRecords:
    """Records in a dictionary, for tests and simulation."""

    def __init__(self) -> None:
        self._tables: dict[Table, dict[bytes, tuple[str, bytes]]] = {table: {} for table in Table}

    def get(self, table: Table, key: bytes) -> Any | None:
        """See `Records.get`."""
        stored = self._tables[table].get(key)
        return None if stored is None else load(*stored)

    def put(self, table: Table, key: bytes, value: Any) -> None:
        """See `Records.put`."""
        self._tables[table][key] = dump(value)

    def delete(self, table: Table, key: bytes) -> None:
        """See `Records.delete`."""
        self._tables[table].pop(key, None)

    def scan(self, table: Table, start: bytes = b"", stop: bytes | None = None
             ) -> Iterator[tuple[bytes, Any]]:
        """See `Records.scan`."""
        rows = self._tables[table]
        for key in sorted(k for k in rows if k >= start and (stop is None or k < stop)):
            if key in rows:
                yield key, load(*rows[key])

    def copy(self) -> MemoryRecords:
        """An independent copy, as a backup of a disk would be."""
        twin = MemoryRecords()
        twin._tables = {table: dict(rows) for table, rows in self._tables.items()}
        return twin


def key248(value: int) -> bytes:
    """A cid, nonce or lock as a record key."""
    return value.to_bytes(31, "big")
