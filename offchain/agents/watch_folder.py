# SPDX-License-Identifier: BSD-3-Clause
"""The folder in which a party leaves packages for its watcher, and what writes them.

A package is written beside its name, synced, and renamed, so that a watcher never sees half of one.
What tells of a step is on this disk before anything of that step leaves: a secret that went out
while the watcher still holds the claim that it revokes would cost the channel.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..protocol.end_user import EndUserMachine
from ..protocol.ledger import Authorised
from ..protocol.moment import Moment
from ..protocol.records import Records, Table
from ..protocol.watch_packages import (
    RENEWAL_MARGINS,
    Authorise,
    Entry,
    PackageKind,
    export_answers,
    export_disputes,
    export_kept,
    export_proofs,
    next_counter,
    seal,
)
from ..store import Transaction

SUFFIX = ".watch"

PROOFS_SECONDS = 1.0
"""How often a relay's proofs are handed over while payments come in, in seconds of this machine's
clock: so many payments may be lost with the machine."""


class HandOverFailed(Exception):
    """The watcher could not be told of a step, so that nothing of it may leave."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """A package under the name of its file; `supersedes` is a pattern of files that it replaces."""

    name: str
    data: bytes
    supersedes: str = ""


def deposit(folder: Path, parcel: Parcel) -> None:
    """Put a package into a watcher's folder, whole and with mode 0600; `OSError` if that fails."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = folder / f".{parcel.name}.partial"
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(parcel.data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, folder / parcel.name)
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    if parcel.supersedes:
        for old in folder.glob(parcel.supersedes):
            if old.name != parcel.name:
                old.unlink(missing_ok=True)


class Hander(ABC):
    """One agent's packages. `prepare` runs inside each step's transaction, `hand_over` after its
    commit and before anything of the step leaves."""

    def __init__(self, folders: Sequence[Path], nickname: str, key: bytes, domain: bytes) -> None:
        self._folders = folders
        self._nickname = nickname
        self._key = key
        self._domain = domain

    @abstractmethod
    def prepare(self, records: Transaction, moment: Moment) -> list[Parcel]:
        """What the watcher has to be told of this step."""

    def hand_over(self, parcels: Sequence[Parcel]) -> None:
        """Put it on the disk that the watcher reads; `HandOverFailed` if that is not possible."""
        for folder in self._folders:
            try:
                for parcel in parcels:
                    deposit(folder, parcel)
            except OSError as error:
                raise HandOverFailed(
                    f"the watcher's folder {folder} takes no package ({error.strerror}); put that "
                    "right and start again; without a watcher only when what it was given can no "
                    "longer be used") from error

    def _seal(self, records: Records, moment: Moment, kind: PackageKind, entries: Sequence[Entry]
              ) -> tuple[int, bytes]:
        counter = next_counter(records, kind, entries)
        return counter, seal(kind, entries, domain=self._domain, key=self._key, counter=counter,
                             issued=moment.now)

    def _name(self, kind: PackageKind, number: str = "") -> str:
        return f"{self._nickname}-{kind.name.lower()}{number}{SUFFIX}"


class IntermediaryHander(Hander):
    """Everything when it comes up, afterwards what each step has added, in a file of its own."""

    def __init__(self, folders: Sequence[Path], nickname: str, key: bytes, domain: bytes) -> None:
        super().__init__(folders, nickname, key, domain)
        self._whole = True

    def prepare(self, records: Transaction, moment: Moment) -> list[Parcel]:
        """See `Hander`; a wallet is called revoked to nobody before the watcher has its secret."""
        kind = PackageKind.DISPUTES
        entries = export_disputes(records, None if self._whole else records.touched)
        if not entries and not self._whole:
            return []
        counter, data = self._seal(records, moment, kind, entries)
        return [Parcel(self._name(kind, f"-{counter:012d}"), data,
                       self._name(kind, "-*") if self._whole else "")]

    def hand_over(self, parcels: Sequence[Parcel]) -> None:
        """See `Hander`."""
        super().hand_over(parcels)
        self._whole = self._whole and not parcels


class EndUserHander(Hander):
    """A client's or relay's answers whenever a wallet changes, and a relay's proofs."""

    def __init__(self, folders: Sequence[Path], nickname: str, key: bytes,
                 machine: EndUserMachine, authorise: Authorise, *, proofs: bool) -> None:
        super().__init__(folders, nickname, key, machine.user.domain)
        self._machine = machine
        self._authorise = authorise
        self._proofs = proofs
        self._answers: dict[tuple[int, int], Authorised] = {}
        self._answered_at: int | None = None
        self._proved_at = 0.0
        self._unproved = proofs

    def prepare(self, records: Transaction, moment: Moment) -> list[Parcel]:
        """See `Hander`."""
        touched = {table for table, _ in records.touched}
        parcels = []
        if Table.WALLET in touched or Table.GROUP in touched or self._is_old(moment):
            self._answers = export_answers(records, self._machine.user_of, moment, self._authorise,
                                           self._answers)
            parcels.append(self._parcel(records, moment, PackageKind.ANSWERS,
                                        [*self._answers.values(), *export_kept(records)]))
        self._unproved |= self._proofs and bool(touched & {Table.PAYMENT, Table.SESSION})
        if self._unproved and (parcels or time.monotonic() - self._proved_at >= PROOFS_SECONDS):
            parcels.append(self._parcel(records, moment, PackageKind.PROOFS,
                                        export_proofs(records)))
        return parcels

    def _is_old(self, moment: Moment) -> bool:
        """Half of what the authorisations have beyond the notice is gone."""
        half = RENEWAL_MARGINS * moment.parameters.safety_margin // 2
        return self._answered_at is None or moment.now > self._answered_at + half

    def _parcel(self, records: Records, moment: Moment, kind: PackageKind,
                entries: Sequence[Entry]) -> Parcel:
        if kind is PackageKind.ANSWERS:
            self._answered_at = moment.now
        else:
            self._unproved, self._proved_at = False, time.monotonic()
        return Parcel(self._name(kind), self._seal(records, moment, kind, entries)[1])
