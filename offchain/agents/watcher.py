# SPDX-License-Identifier: BSD-3-Clause
"""A watcher as a running agent: it takes packages from a folder and follows the ledger."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import structlog

from monetor_chain.errors import ChainError

from ..crypto.ecdsa import address_of
from ..protocol.errors import ProtocolError
from ..protocol.records import Table
from ..protocol.watching import WatcherMachine
from ..store import Store
from .engine import Engine
from .ledger_port import LedgerPort
from .place import AgentPlace, ChainAccess
from .watch_folder import SUFFIX

LOOK_SECONDS = 0.5
"""How often the folder is looked into, in seconds of this machine's clock."""

GAS_SECONDS = 5.0
"""How often the price of gas is asked for, in seconds of this machine's clock."""

TAKING, REFUSED = ".taking", ".refused"
"""A file's suffix while it is taken over, and after it was found to be of no use."""


class WatcherAgent:
    """One watcher. `account_key` pays gas and owns nothing else.

    Packages are taken out of `packages`, and of the files `given` when it comes up. `thrifty`: a
    relay's payments are revealed only if they are worth more than the gas.
    """

    def __init__(self, place: AgentPlace, account_key: bytes, *, nickname: str, packages: Path,
                 given: Iterable[Path] = (), thrifty: bool = True) -> None:
        self.nickname = nickname
        self.account = address_of(account_key)
        self.packages = packages
        self.place = place
        self._key = account_key
        self._given = tuple(given)
        self._thrifty = thrifty
        self._log = structlog.get_logger(nickname)
        self.access: ChainAccess
        self.engine: Engine
        self._open = AsyncExitStack()

    async def start(self) -> None:
        """Come up and catch up; a package among those given that cannot be used stops it."""
        try:
            await self._come_up()
        except BaseException:
            await self.stop()
            raise

    async def _come_up(self) -> None:
        self.packages.mkdir(parents=True, exist_ok=True, mode=0o700)
        access = self.access = await ChainAccess.open(self.place)
        self._open.push_async_callback(access.chain.close)
        contracts = access.contracts
        machine = WatcherMachine(access.domain, thrifty=self._thrifty)
        self.engine = Engine(
            self.nickname,
            Store(self.place.folder / "store.sqlite", access.network, "watcher"), machine,
            chain=access.chain, consensus=contracts.consensus,
            events=access.events(),
            port=LedgerPort(contracts.ledger, contracts.token, access.sender(self._key),
                            self._key, None),
            first_block=access.deployment.block, first=self._first, wanted=machine.wanted)
        self._open.push_async_callback(self.engine.stop)
        await self._read_gas_price(machine)
        await self.engine.start()
        self.engine.tasks.start("packages", self._look())
        self.engine.tasks.start("gas", self._keep_gas_price(machine))

    async def stop(self) -> None:
        """Stop, also if it has not come up whole; what is not done is on disk."""
        await self._open.aclose()

    def holdings(self) -> dict[str, int]:
        """How many entries of each kind it holds."""
        reading = self.engine.store.read()
        kinds = {"channels_to_answer_for": Table.WALLET, "sessions_to_reveal": Table.PAYMENT,
                 "revoked_claims": Table.LOCK, "sessions_to_charge": Table.SESSION}
        return {name: sum(1 for _ in reading.scan(table)) for name, table in kinds.items()}

    # --- Packages

    def _first(self) -> None:
        """What was left while it was down comes before what it had decided on then."""
        for path in self._given:
            self._take(path.read_bytes())
        self._take_all()

    def _take(self, data: bytes) -> None:
        self.engine.do(lambda records, moment: self.engine.machine.take(records, moment, data))

    def _take_all(self) -> None:
        for path in self._arrived():
            try:
                self._take(path.read_bytes())
            except ProtocolError as error:
                self._log.warning("a package is refused", file=path.stem, reason=str(error))
                os.replace(path, path.with_suffix(REFUSED))
            else:
                path.unlink()

    def _arrived(self) -> Iterator[Path]:
        """Files to take over, each renamed first: its owner may put a newer one in its place."""
        yield from sorted(self.packages.glob(f"*{TAKING}"))
        for path in sorted(self.packages.glob(f"*{SUFFIX}")):
            taking = path.with_suffix(TAKING)
            os.replace(path, taking)
            yield taking

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self._take_all()

    # --- Gas

    async def _keep_gas_price(self, machine: WatcherMachine) -> None:
        while True:
            await asyncio.sleep(GAS_SECONDS)
            try:
                await self._read_gas_price(machine)
            except ChainError as error:
                self._log.warning("the chain does not answer", error=str(error))

    async def _read_gas_price(self, machine: WatcherMachine) -> None:
        wei = int(await self.access.chain.rpc("eth_gasPrice"), 16)
        with self.engine.store.transaction() as records:
            machine.on_gas_price(records, wei)
