# SPDX-License-Identifier: BSD-3-Clause
"""The clients of one run as a process, and the server that they download from.

`python -m offchain.experiments.priority.clients '{…}'` prints bytes a second of each client.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...transport.identity import RouterInfo
from ...transport.priority import Priority
from ...transport.proxy import ClientCircuit, OnionProxy
from .grant import ask_all

_BLOCK = bytes(64 * 1024)
_READ = 256 * 1024


@dataclass(frozen=True, slots=True)
class ClientsSpec:
    """Who downloads, for how long, and through whom."""

    path: Sequence[dict[str, Any]]
    clients: int
    premium: int
    streams: int
    share: int
    alpha: int
    beta: int
    warm: float
    seconds: float


class _Source(asyncio.Protocol):
    """Sends zeros for as long as somebody takes them."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._full = False
        self._more()

    def _more(self) -> None:
        while not self._full and not self._transport.is_closing():
            self._transport.write(_BLOCK)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._more()


class Downloader:
    """One client with a proxy of its own, hence a link of its own to the guard."""

    def __init__(self, priority: Priority, *, premium: bool) -> None:
        self.premium = premium
        self.received = 0
        self._proxy = OnionProxy(priority=lambda: priority)
        self._circuit: ClientCircuit
        self._tasks: list[asyncio.Task[None]] = []

    async def build(self, path: Sequence[RouterInfo]) -> None:
        """Build the circuit, and make it premium if it is to be."""
        self._circuit = await self._proxy.build_circuit(path)
        if self.premium:
            await ask_all(self._circuit)

    def download(self, port: int, streams: int) -> None:
        """Begin to download, in so many streams at once."""
        self._tasks = [asyncio.create_task(self._read(port)) for _ in range(streams)]

    async def _read(self, port: int) -> None:
        stream = await self._circuit.open_stream("127.0.0.1", port, timeout=60)
        while data := await stream.read(_READ):
            self.received += len(data)

    def check(self) -> None:
        """Raise what has gone wrong, if anything has."""
        for task in self._tasks:
            if task.done():
                task.result()

    async def close(self) -> None:
        """Stop."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._proxy.close()


async def measure(spec: ClientsSpec) -> dict[str, list[float]]:
    """Bytes a second of every premium and of every other client."""
    loop = asyncio.get_running_loop()
    priority = Priority(share=spec.share, alpha=spec.alpha, beta=spec.beta)
    path = [RouterInfo.from_dict(one) for one in spec.path]
    source = await loop.create_server(_Source, "127.0.0.1", 0)
    port = source.sockets[0].getsockname()[1]
    clients = [Downloader(priority, premium=number < spec.premium)
               for number in range(spec.clients)]
    try:
        for one in clients:
            await one.build(path)
        for one in clients:
            one.download(port, spec.streams)
        await asyncio.sleep(spec.warm)
        before, started = [one.received for one in clients], loop.time()
        await asyncio.sleep(spec.seconds)
        elapsed = loop.time() - started
        speeds = [(one.received - count) / elapsed
                  for one, count in zip(clients, before, strict=True)]
        for one in clients:
            one.check()
    finally:
        await asyncio.gather(*(one.close() for one in clients))
        source.close()
    return {
        "premium": [speed for one, speed in zip(clients, speeds, strict=True) if one.premium],
        "others": [speed for one, speed in zip(clients, speeds, strict=True) if not one.premium],
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(measure(ClientsSpec(**json.loads(sys.argv[1]))))))
