# SPDX-License-Identifier: BSD-3-Clause
"""`monetor backup` and `monetor restore`: also of an agent that runs, and not of every role."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from offchain.cli.main import app
from offchain.protocol import old_locks
from offchain.protocol.moment import Tip
from offchain.protocol.records import Table
from offchain.protocol.wallet import Idle, Recalled, get, put
from offchain.store import Store, sealed
from offchain.store.backup import STORE

NETWORK = b"\x01" * 32
CID = 5 << 8
ROOT = Path(__file__).resolve().parents[2]
WALLET = Idle(CID, 3, b"\x07" * 32, 1_000, bytes(192), bytes(192))


@pytest.fixture(autouse=True)
def _passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed, "COST", 2)
    monkeypatch.setenv("MONETOR_PASSWORD", "correct horse")


def folder_of(tmp_path: Path, role: str) -> Path:
    store = Store(tmp_path / role / STORE, NETWORK, role)
    with store.transaction() as records:
        if role in ("client", "relay"):
            put(records, CID, WALLET)
        records.put(Table.META, b"tip", Tip(1, 1))
    store.close()
    return tmp_path / role


def command(*arguments: object) -> dict[str, object]:
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    found: dict[str, object] = json.loads(result.stdout)
    return found


@contextmanager
def opened(folder: Path, role: str) -> Iterator[Store]:
    store = Store(folder / STORE, NETWORK, role)
    try:
        yield store
    finally:
        store.close()


@pytest.mark.parametrize("role", ["client", "relay"])
def test_a_restored_end_user_asks_before_it_acts(tmp_path: Path, role: str) -> None:
    folder, file = folder_of(tmp_path, role), tmp_path / "file"
    assert command("backup", folder, file)["role"] == role
    assert not (folder / "snapshot.sqlite").exists()
    command("restore", file, tmp_path / "again")
    with opened(tmp_path / "again", role) as store:
        assert old_locks.restored(store.read()) is not None
        assert get(store.read(), CID) == Recalled(WALLET)
    command("restore", file, tmp_path / "trusted", "--current")
    with opened(tmp_path / "trusted", role) as store:
        assert old_locks.restored(store.read()) is None
        assert get(store.read(), CID) == WALLET


def test_an_intermediary_does_not_come_back_unasked(tmp_path: Path) -> None:
    folder, file = folder_of(tmp_path, "intermediary"), tmp_path / "file"
    command("backup", folder, file)
    with pytest.raises(Exception, match="pay twice"):
        command("restore", file, tmp_path / "again")
    assert not (tmp_path / "again").exists()
    command("restore", file, tmp_path / "again", "--settle-only")
    with opened(tmp_path / "again", "intermediary") as store:
        assert old_locks.restored(store.read()) is not None
    command("restore", file, tmp_path / "trusted", "--current")
    with opened(tmp_path / "trusted", "intermediary") as store:
        assert old_locks.restored(store.read()) is None


def test_a_watcher_is_not_backed_up(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="new one in an empty folder"):
        command("backup", folder_of(tmp_path, "watcher"), tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_a_passphrase_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONETOR_PASSWORD", "")
    with pytest.raises(Exception, match="passphrase"):
        command("backup", folder_of(tmp_path, "relay"), tmp_path / "file")


RUNNING = """
    import asyncio, sys
    from pathlib import Path
    from types import SimpleNamespace
    from offchain.cli.presence import present
    from offchain.cli.service import running_with_store, until_told
    from offchain.protocol.moment import Tip
    from offchain.protocol.records import Table
    from offchain.store import Store

    folder = Path(sys.argv[1])

    class Busy:
        place = SimpleNamespace(folder=folder)

        async def start(self):
            store = Store(folder / "store.sqlite", b"\\x01" * 32, "relay")
            self.engine = SimpleNamespace(store=store)
            self.work = asyncio.create_task(self.write())
            print("up", flush=True)

        async def write(self):
            number = 1
            while True:
                with self.engine.store.transaction() as records:
                    # Both change in every step: a copy that is not of one moment shows it.
                    records.put(Table.META, b"one", Tip(number, number))
                    records.put(Table.META, b"two", Tip(number, number))
                number += 1
                await asyncio.sleep(0)

        async def stop(self):
            self.work.cancel()
            self.engine.store.close()

    async def main():
        async with running_with_store(Busy()):
            await until_told()

    with present(folder):
        asyncio.run(main())
"""


def test_an_agent_that_runs_is_backed_up_and_runs_on(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "relay")
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", textwrap.dedent(RUNNING), str(folder)], cwd=ROOT,
        stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "up\n"
        with pytest.raises(Exception, match="runs in"):
            command("restore", tmp_path / "none", folder)
        for number in range(3):
            command("backup", folder, tmp_path / f"file{number}")
        assert process.poll() is None
    finally:
        process.terminate()
        assert process.wait(20) == 0
    command("restore", tmp_path / "file2", tmp_path / "again")
    with opened(tmp_path / "again", "relay") as store:
        one = store.read().get(Table.META, b"one")
        assert one is not None and one == store.read().get(Table.META, b"two")
