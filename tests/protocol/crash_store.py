# SPDX-License-Identifier: BSD-3-Clause
"""The rig over real databases: who dies leaves a file behind, and comes back with that file.

What a killed process leaves is what is in its file and its journal at that moment, whatever a
transaction was doing; so the victim comes back with a copy of both, made as it dies.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monetor_chain.rehearsal import Rehearsal
from offchain.crypto.issuer import IssuerKey
from offchain.protocol.outbox import Outbox, Submit
from offchain.protocol.records import Table
from offchain.store import Store
from tests.protocol.crash_rig import Rig
from tests.protocol.world import Node

NETWORK = b"\x01" * 32


class StoreRig(Rig):
    """A rig whose parties keep everything in SQLite."""

    def __init__(self, stage: Rehearsal, issuer: IssuerKey) -> None:
        self.stores: dict[str, Store] = {}
        self.folder = Path()
        self.reopened = 0
        self._images: dict[str, Path] = {}
        super().__init__(stage, issuer)

    def use(self, folder: Path) -> None:
        """Move everything that the parties know into databases in `folder`."""
        self.folder, self.reopened = folder, 0
        for node in self.nodes.values():
            store = self._open(node, folder / f"{node.name}.sqlite")
            with store.transaction() as records:
                for table in Table:
                    for key, value in node.records.scan(table):
                        records.put(table, key, value)
                records.keep([*node.requests.values(), *node.submissions.values()])
            node.records = store.read()  # type: ignore[assignment]

    def _open(self, node: Node, path: Path) -> Store:
        store = self.stores[node.name] = Store(path, NETWORK, node.name)
        return store

    def put_away(self) -> None:
        """Close every database."""
        for store in self.stores.values():
            store.close()
        self.stores.clear()

    @contextmanager
    def transaction(self, node: Node) -> Iterator[Any]:
        """See `Rig.transaction`."""
        if node.name not in self.stores:
            with super().transaction(node) as draft:
                yield draft
            return
        with self.stores[node.name].transaction() as records:
            yield records

    def keep_durably(self, records: Any, outbox: Outbox) -> None:
        """See `Rig.keep_durably`."""
        if self.stores:
            records.keep(outbox)

    def submit(self, node: Node, item: Submit) -> bool:
        """See `World.submit`."""
        done = super().submit(node, item)
        if self.stores:
            with self.stores[node.name].transaction() as records:
                records.forget_submission(item.key)
        return done

    def _forget_receipt(self, node: Node, item: Submit) -> None:
        with self.stores[node.name].transaction() as records:
            records.keep([item])

    def power_off(self, node: Node) -> None:
        """See `Rig.power_off`."""
        path = self.stores[node.name].path
        image = self.folder / f"{node.name}-{len(self._images)}-left.sqlite"
        for suffix in ("", "-wal"):
            if (source := Path(f"{path}{suffix}")).exists():
                shutil.copyfile(source, f"{image}{suffix}")
        self._images[node.name] = image

    def power_on(self, node: Node) -> None:
        """See `Rig.power_on`."""
        self.stores[node.name].close()
        store = self._open(node, self._images.pop(node.name))
        reading = store.read()
        node.records = reading  # type: ignore[assignment]
        node.requests = {one.conversation: one for one in reading.requests()}
        node.submissions = {one.key: one for one in reading.submissions()}
        node.heard = {}
        self.reopened += 1
        super().power_on(node)
