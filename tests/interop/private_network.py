# SPDX-License-Identifier: BSD-3-Clause
"""A whole Tor network on loopback: one stock authority, stock relays, and relays of ours."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

from offchain.agents.tor_directory import publish_descriptor
from offchain.transport.exit_policy import ExitPolicy
from offchain.transport.identity import RouterIdentity
from offchain.transport.router import OnionRouter
from offchain.transport.server_descriptor import PaidTerms, write_server_descriptor
from tests.interop.stock_tor import HOST, PATIENCE, StockAuthority, StockRelay, TorError, running

POLICY = ExitPolicy(["*:*"])
"""Microdescriptors sum a policy up without private networks: one that accepts loopback alone would
look to clients as if it accepted nothing. The tests ask for loopback only."""
BANDWIDTH = 10_000_000


class Payee:
    """Hooks that count what passes and answer payments."""

    def __init__(self) -> None:
        self.circuits, self.cells, self.payments = 0, 0, []

    def circuit_opened(self, circuit):
        self.circuits += 1

    def circuit_closed(self, circuit):
        pass

    def cells_passed(self, circuit, count):
        self.cells += count

    def payment_received(self, circuit, pcmd, payload, *, link):
        self.payments.append((pcmd, payload))
        circuit.send_payment(pcmd + 1, payload[::-1], link)


class OurRelay:
    """A router of ours with its hooks."""

    def __init__(self, name: str, directory: tuple[str, int] | None = None) -> None:
        self.name = name
        self.identity = RouterIdentity.generate()
        self.hooks = Payee()
        self._directory = directory

    async def start(self) -> None:
        """Listen; from then on there are `router` and `info`."""
        self.router = OnionRouter(self.identity, exit_policy=POLICY, hooks=self.hooks,
                                  directory=self._directory)
        self.info = self.identity.info(self.name, HOST, await self.router.start(HOST))

    def descriptor(self, paid: PaidTerms | None) -> str:
        return write_server_descriptor(
            self.identity, self.info, now=time.time(), exit_policy=POLICY, bandwidth=BANDWIDTH,
            is_directory=self._directory is not None, paid=paid)


class PrivateNetwork:
    """`ours` relays of ours and `stock` stock ones; all of ours say that they are paid."""

    paid = PaidTerms(31337, bytes(range(20)), bytes(range(20, 40)), (bytes(range(32)),))

    def __init__(self, folder: Path, *, ours: int = 3, stock: int = 2) -> None:
        self.authority = StockAuthority(folder)
        self.directory = (HOST, self.authority.directory_port)
        self.stock = [StockRelay(folder, f"stock{i}", self.authority.lines,
                                 "ExitPolicy accept *:*\n") for i in range(stock)]
        self.ours = [OurRelay(f"ours{i}", self.directory) for i in range(ours)]
        self._processes = running(self.authority, *self.stock)

    async def __aenter__(self) -> PrivateNetwork:
        async with contextlib.AsyncExitStack() as opened:
            await asyncio.to_thread(opened.enter_context, self._processes)
            for one in self.ours:
                await one.start()
                opened.push_async_callback(one.router.stop)
                await publish_descriptor(self.directory, one.descriptor(self.paid))
            await self._all_listed()
            self._opened = opened.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._opened.aclose()

    async def _all_listed(self) -> None:
        """Wait for a consensus that lists everybody as running, with a bandwidth."""
        end = time.monotonic() + PATIENCE
        wanted = len(self.ours) + len(self.stock)
        while True:
            consensus = await asyncio.to_thread(self.authority.consensus)
            entries = [entry.splitlines() for entry in consensus.split("\nr ")[1:]]
            listed = [entry for entry in entries
                      if not entry[0].startswith("authority ") and " Running" in entry[1]]
            if len(listed) == wanted:
                return
            if time.monotonic() > end:
                raise TorError(f"the consensus lists {len(listed)} of {wanted} relays:\n"
                               f"{consensus}\n{self.authority.log()[-3000:]}")
            await asyncio.sleep(0.3)
