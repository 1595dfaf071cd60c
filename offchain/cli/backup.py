# SPDX-License-Identifier: BSD-3-Clause
"""`monetor backup` and `monetor restore`."""

from __future__ import annotations

import os
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .accounts import PASSWORD
from .failures import UsageProblem
from .options import AsJson
from .presence import COPY, present, running_process
from .report import pairs_or_json

if TYPE_CHECKING:
    from offchain.store.backup import Contents

COPY_SECONDS = 60.0
"""How long a running agent is asked for a copy of its store."""
ASK_SECONDS = 1.0
"""How long to wait before it is asked again."""

BackupFile = Annotated[
    Path, typer.Argument(help="One encrypted file; the passphrase is asked for, or is in "
                              "MONETOR_PASSWORD.")
]


def backup(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="An agent's folder; "
                                           "the agent may run.")],
    file: BackupFile,
    as_json: AsJson = False,
) -> None:
    """Put an agent's store and keys into one encrypted file.

    The account's own keys are not in the folder, and so not in the file.
    """
    from offchain.store.backup import SNAPSHOT, copy_idle_store, examine, write_backup

    passphrase = _new_passphrase(file)
    snapshot = folder / SNAPSHOT
    try:
        process = running_process(folder)
        if process is None:
            with present(folder):
                copy_idle_store(folder)
        else:
            _ask_for_copy(process, folder, snapshot)
        found = examine(snapshot)
        if found.role == "watcher":
            raise UsageProblem(
                f"{folder} is a watcher's: start a new one in an empty folder instead, and the "
                "parties with --watcher-folder, which hand over everything once more"
            )
        size = write_backup(folder, snapshot, file, passphrase)
    finally:
        snapshot.unlink(missing_ok=True)
    facts = {"file": str(file), "role": found.role, "made": _time(found), "bytes": size}
    pairs_or_json(facts, as_json=as_json)


def restore(
    file: BackupFile,
    folder: Annotated[Path, typer.Argument(file_okay=False, help="The agent's folder; it must "
                                           "hold no store.")],
    current: Annotated[
        bool,
        typer.Option(
            "--current",
            help="I know that nothing has run on this store after the backup: go on from it as "
            "from the store itself. If that is wrong, channels are forfeited.",
        ),
    ] = False,
    settle_only: Annotated[
        bool,
        typer.Option(
            "--settle-only",
            help="For an intermediary: answer no request any more, only settle on the ledger.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put a backup back.

    A client or relay then asks its intermediary about every channel before it spends or posts
    anything; the file may be old. An intermediary must not answer from an old store, and comes
    back with --settle-only or --current.
    """
    from offchain.store.backup import install, read_backup
    from offchain.store.sealed import SealedError

    if current and settle_only:
        raise UsageProblem("--current and --settle-only exclude one another")
    if running_process(folder) is not None:
        raise UsageProblem(f"an agent runs in {folder}: stop it first")
    passphrase = os.environ.get(PASSWORD)
    if passphrase is None:
        passphrase = typer.prompt(f"Passphrase of {file}", hide_input=True, err=True)
    try:
        partial, found = read_backup(file, folder, passphrase)
    except SealedError as error:
        raise UsageProblem(f"{file}: {error}") from error
    try:
        _mark(partial, found, current=current, settle_only=settle_only)
        install(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    facts: dict[str, object] = {"folder": str(folder), "role": found.role, "made": _time(found)}
    if not current:
        facts["goes on by"] = (
            "settling what it knows of" if found.role == "intermediary"
            else "asking the intermediary about every channel"
        )  # fmt: skip
    pairs_or_json(facts, as_json=as_json)


def _mark(folder: Path, found: Contents, *, current: bool, settle_only: bool) -> None:
    from offchain.protocol import old_locks, restored
    from offchain.store import Store
    from offchain.store.backup import STORE

    if settle_only and found.role != "intermediary":
        raise UsageProblem(f"the backup is a {found.role}'s: --settle-only is for intermediaries")
    if found.role == "intermediary" and not (current or settle_only):
        raise UsageProblem(
            "an intermediary's backup may have forgotten which wallets were spent and which "
            "secrets it was told, and would pay twice: give --settle-only, or --current if "
            "nothing has run on the store after the backup"
        )
    if current:
        return
    store = Store(folder / STORE, found.network, found.role)
    try:
        with store.transaction() as records:
            if found.role == "intermediary":
                old_locks.set_restored(records, found.made_at)
            else:
                channels = restored.mark(records, found.made_at)
                records.keep(restored.close_guards(records, channels))
    finally:
        store.close()


def _ask_for_copy(process: int, folder: Path, snapshot: Path) -> None:
    """Have the running agent leave a copy of its store. Raises `UsageProblem`."""
    snapshot.unlink(missing_ok=True)
    deadline = time.monotonic() + COPY_SECONDS
    while time.monotonic() < deadline:
        try:
            os.kill(process, COPY)
        except ProcessLookupError:
            break
        again = time.monotonic() + ASK_SECONDS
        while time.monotonic() < again:
            if snapshot.exists():
                return
            time.sleep(0.02)
    raise UsageProblem(f"process {process}, which runs in {folder}, has left no copy of its store; "
                       "try again when it is up")


def _new_passphrase(file: Path) -> str:
    given = os.environ.get(PASSWORD)
    if given is None:
        given = str(typer.prompt(f"New passphrase of {file}", hide_input=True, err=True,
                                 confirmation_prompt=True))
    if not given:
        raise UsageProblem("a backup needs a passphrase: whoever reads it can spend everything")
    return given


def _time(found: Contents) -> str:
    return datetime.fromtimestamp(found.made_at, UTC).isoformat(timespec="seconds")
