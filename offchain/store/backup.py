# SPDX-License-Identifier: BSD-3-Clause
"""A party's folder in one sealed file, and back.

The store is copied with SQLite's backup interface, so that the copy is of one moment although the
party works on; keys and other files of the folder never change once they are made. Putting back is
done beside the target and becomes visible as a whole.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tarfile
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast
from urllib.parse import quote

from .sealed import SealedError, SealedReader, SealedWriter
from .sqlite import SCHEMA_VERSION, StoreError, copy_store

STORE = "store.sqlite"
SNAPSHOT = "snapshot.sqlite"
"""A copy that a running party leaves in its folder for whoever makes the backup."""
_LEFT_OUT = (STORE, f"{STORE}.lock", SNAPSHOT, f"{SNAPSHOT}.lock", "process")
"""Files that are not taken as they are: the store as a copy, the others not at all."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a store is: `role` of its party, `network` (32 bytes) that it belongs to, and when the
    copy was made (Unix seconds of this machine's clock)."""

    role: str
    network: bytes
    made_at: int


def copy_idle_store(folder: Path) -> Path:
    """The copy of a store that no process has open; `StoreError` if there is none or one has."""
    path = folder / STORE
    if not path.exists():
        raise StoreError(f"{folder} holds no store: it is no folder of a client, relay or "
                         "intermediary")
    try:
        with closing(sqlite3.connect(path, timeout=2.0)) as source:
            copy_store(source, folder / SNAPSHOT)
    except sqlite3.Error as error:
        raise StoreError(f"{path} cannot be copied: {error}") from error
    return folder / SNAPSHOT


def examine(store: Path) -> Contents:
    """What a store file says of itself; `StoreError` if it is damaged or of another format."""
    try:
        with closing(sqlite3.connect(
                f"file:{quote(str(store))}?immutable=1", uri=True)) as connection:
            (found,) = connection.execute("PRAGMA integrity_check").fetchone()
            row = connection.execute("SELECT version, network, role FROM identity").fetchone()
    except sqlite3.Error as error:
        raise StoreError(f"the copy of the store is no store: {error}") from error
    if found != "ok":
        raise StoreError(f"the copy of the store is damaged: {found}")
    if row is None or row[0] > SCHEMA_VERSION:
        raise StoreError(f"the store has format {row and row[0]}, this version of moneTor reads "
                         f"format {SCHEMA_VERSION}")
    return Contents(row[2], row[1], int(store.stat().st_mtime))


def write_backup(folder: Path, snapshot: Path, target: Path, passphrase: str) -> int:
    """Seal a folder with `snapshot` in the place of its store, and read the result again.

    Returns its size in bytes. A file that is there already is not touched: `FileExistsError`.
    """
    if target.exists():
        raise FileExistsError(17, "it is there already, and a backup overwrites nothing",
                              str(target))
    partial = target.with_name(f".{target.name}.partial")
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            sealed = SealedWriter(file, passphrase)
            with tarfile.open(mode="w|", fileobj=cast(IO[bytes], sealed)) as archive:
                archive.add(snapshot, STORE)
                for path in _others(folder):
                    archive.add(path, str(path.relative_to(folder)), recursive=False)
            sealed.close()
            file.flush()
            os.fsync(file.fileno())
        with partial.open("rb") as file:
            SealedReader(file, passphrase).finish()
        os.rename(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return target.stat().st_size


def _others(folder: Path) -> Iterable[Path]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).parts[0]
        if (path.is_file() and not path.is_symlink() and name not in _LEFT_OUT
                and not name.startswith(f"{STORE}-") and not path.name.endswith(".partial")):
            yield path


def read_backup(source: Path, folder: Path, passphrase: str) -> tuple[Path, Contents]:
    """Unseal into a new folder beside `folder`, check the store, and return both.

    `install` gives it its name. Raises `SealedError`, `StoreError`, or `FileExistsError` if
    `folder` holds a store already.
    """
    if (folder / STORE).exists():
        raise FileExistsError(17, "it holds a store already, and a backup overwrites nothing",
                              str(folder))
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, mode=0o700)
    try:
        with source.open("rb") as file:
            sealed = SealedReader(file, passphrase)
            with tarfile.open(mode="r|", fileobj=cast(IO[bytes], sealed)) as archive:
                for member in archive:
                    _extract(archive, member, partial)
            sealed.finish()
        return partial, examine(partial / STORE)
    except tarfile.TarError as error:
        shutil.rmtree(partial)
        raise SealedError(f"the backup's content is malformed: {error}") from error
    except BaseException:
        shutil.rmtree(partial)
        raise


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    name = PurePosixPath(member.name)
    content = archive.extractfile(member) if member.isreg() else None
    if content is None or name.is_absolute() or ".." in name.parts:
        raise SealedError(f"the backup holds {member.name!r}, which is no file of a party")
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        shutil.copyfileobj(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.utime(path, (member.mtime, member.mtime))


def install(partial: Path, folder: Path) -> None:
    """Give an unsealed folder its name, whole or not at all."""
    if folder.exists():
        # Nothing but what a command leaves in passing: `read_backup` has looked for a store.
        os.rename(folder, folder.with_name(f"{folder.name}.before-restore"))
    os.rename(partial, folder)
