# SPDX-License-Identifier: BSD-3-Clause
"""One sealed file of a party's folder: of one moment, whole or refused, and never over another."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from offchain.protocol.moment import Tip
from offchain.protocol.records import Table
from offchain.store import Store, StoreError, sealed
from offchain.store.backup import (
    SNAPSHOT,
    STORE,
    copy_idle_store,
    examine,
    install,
    read_backup,
    write_backup,
)
from offchain.store.sealed import PIECE, SealedError, SealedReader, SealedWriter

NETWORK = b"\x01" * 32
PASSPHRASE = "correct horse"


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed, "COST", 2)


def folder_with(tmp_path: Path, number: int) -> Path:
    folder = tmp_path / "agent"
    store = Store(folder / STORE, NETWORK, "relay")
    with store.transaction() as records:
        records.put(Table.META, b"tip", Tip(number, 4))
    store.close()
    (folder / "router").mkdir()
    (folder / "router" / "onion.pem").write_bytes(b"secret key")
    (folder / "process").write_text("123")
    return folder


def back_up(folder: Path, target: Path) -> int:
    return write_backup(folder, copy_idle_store(folder), target, PASSPHRASE)


def seal(content: bytes, path: Path) -> bytes:
    with path.open("wb") as file:
        writer = SealedWriter(file, PASSPHRASE)
        writer.write(content)
        writer.close()
    return path.read_bytes()


def unseal(path: Path, passphrase: str = PASSPHRASE) -> bytes:
    with path.open("rb") as file:
        reader = SealedReader(file, passphrase)
        content = reader.read(10 * PIECE)
        reader.finish()
        return content


def test_a_folder_comes_back_as_it_was(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, 7)
    back_up(folder, tmp_path / "file")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600
    again = tmp_path / "again #2?%41"
    partial, found = read_backup(tmp_path / "file", again, PASSPHRASE)
    assert (found.role, found.network) == ("relay", NETWORK)
    assert not again.exists(), "nothing is there before it is checked and marked"
    install(partial, again)
    assert (again / "router" / "onion.pem").read_bytes() == b"secret key"
    assert sorted(one.name for one in again.iterdir()) == ["router", STORE]
    for path in [again, *again.rglob("*")]:
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
    store = Store(again / STORE, NETWORK, "relay")
    assert store.read().get(Table.META, b"tip") == Tip(7, 4)
    store.close()


def test_no_secret_is_in_the_file_in_clear(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, 7)
    back_up(folder, tmp_path / "file")
    content = (tmp_path / "file").read_bytes()
    assert b"secret key" not in content and b"SQLite" not in content


def test_an_open_store_is_copied_at_one_moment(tmp_path: Path) -> None:
    store = Store(tmp_path / STORE, NETWORK, "client")
    with store.transaction() as records:
        records.put(Table.META, b"tip", Tip(1, 1))
    store.copy_to(tmp_path / SNAPSHOT)
    with store.transaction() as records:
        records.put(Table.META, b"tip", Tip(2, 2))
        with pytest.raises(StoreError, match="being written"):
            store.copy_to(tmp_path / SNAPSHOT)
    assert store.read().get(Table.META, b"tip") == Tip(2, 2), "the party works on"
    copy = Store(tmp_path / SNAPSHOT, NETWORK, "client")
    assert copy.read().get(Table.META, b"tip") == Tip(1, 1)
    assert stat.S_IMODE((tmp_path / SNAPSHOT).stat().st_mode) == 0o600
    copy.close()
    store.close()


def test_another_passphrase_opens_nothing(tmp_path: Path) -> None:
    back_up(folder_with(tmp_path, 7), tmp_path / "file")
    with pytest.raises(SealedError, match="passphrase"):
        read_backup(tmp_path / "file", tmp_path / "again", "wrong")
    assert not list(tmp_path.glob(".*partial")) and not (tmp_path / "again").exists()


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE])
def test_any_length_comes_back(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    seal(content, tmp_path / "file")
    assert unseal(tmp_path / "file") == content


def test_every_part_of_the_file_is_verified(tmp_path: Path) -> None:
    whole = seal(os.urandom(2 * PIECE + 100), tmp_path / "file")
    head, step = 38, PIECE + 16
    pieces = [whole[at:at + step] for at in range(head, len(whole), step)]
    assert len(pieces) == 3
    spoilt = {
        "cut": whole[:-1],
        "without its last piece": whole[:head] + pieces[0] + pieces[1],
        "without its first piece": whole[:head] + pieces[1] + pieces[2],
        "moved": whole[:head] + pieces[1] + pieces[0] + pieces[2],
        "repeated": whole[:head] + pieces[0] + pieces[0] + pieces[1] + pieces[2],
        "longer": whole + b"\0",
    }
    for at in (0, 17, 20, 30, head, head + step, len(whole) - 1):
        spoilt[f"changed at {at}"] = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1:]
    for name, content in spoilt.items():
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(SealedError):
            unseal(tmp_path / "file")
            raise AssertionError(name)


def test_a_damaged_store_is_found(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, 7)
    snapshot = copy_idle_store(folder)
    content = bytearray(snapshot.read_bytes())
    content[4096:8192] = os.urandom(4096)
    snapshot.write_bytes(content)
    with pytest.raises(StoreError):
        examine(snapshot)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, 7)
    back_up(folder, tmp_path / "file")
    with pytest.raises(FileExistsError):
        back_up(folder, tmp_path / "file")
    with pytest.raises(FileExistsError):
        read_backup(tmp_path / "file", folder, PASSPHRASE)
