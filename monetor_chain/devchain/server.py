# SPDX-License-Identifier: BSD-3-Clause
"""The embedded chain's process: HTTP on loopback, the miner, and an orderly end."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

from ..accounts import DEV_BALANCE_WEI, DEV_ROLES, dev_address
from ..errors import PortInUse
from ..precompile_mode import Mode
from .clock import ChainClock
from .node import Node, Refused
from .rpc import Rpc

HOST = "127.0.0.1"
_MAX_BODY = 4 * 2**20
_GATHER_SECONDS = 0.01
"""A block waits this long after its first transaction, so that simultaneous ones share it."""
_LEAST_EMPTY_SECONDS = 0.25
"""Empty blocks are at least this far apart in real time, however fast the chain's clock runs."""
_MIN_WAIT_SECONDS = 0.001
_KEEPALIVE_SECONDS = 3600.0
"""Agents that pause for minutes should not find their connection closed."""


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How the process runs. `block_interval`: chain seconds between empty blocks, at least 1."""

    port: int
    chain_id: int
    speed: float = 1.0
    mode: Mode = "native"
    block_interval: float = 2.0
    genesis_time: float | None = None
    end_with_input: bool = False


class Miner:
    """Decides when blocks are made: at once for transactions, at intervals without.

    Block times are whole, strictly increasing chain seconds and never ahead of the clock, unless
    the clock stands still: then every block moves it on by a second.
    """

    def __init__(self, node: Node, clock: ChainClock, interval: float) -> None:
        self._node = node
        self._clock = clock
        self._interval = max(1.0, interval)
        self._changed = asyncio.Event()
        self._last_empty = time.monotonic()

    def wake(self) -> None:
        """The pool or the clock has changed."""
        self._changed.set()

    async def run(self, rpc: Rpc) -> None:
        """Mine until cancelled."""
        while True:
            delay = self._delay()
            if delay <= 0:
                if self._node.has_pending:
                    await asyncio.sleep(_GATHER_SECONDS)
                before = self._node.head
                block = await rpc.seal()
                if not block.transactions:
                    self._last_empty = time.monotonic()
                    if self._node.has_pending and before is not block:
                        # What is left cannot enter a block now; do not spin on it.
                        await self._pause(_LEAST_EMPTY_SECONDS)
                continue
            await self._pause(delay)

    async def _pause(self, seconds: float) -> None:
        self._changed.clear()
        try:
            await asyncio.wait_for(
                self._changed.wait(), None if seconds == float("inf") else seconds
            )
        except TimeoutError:
            return

    def _delay(self) -> float:
        """Real seconds until the next block is due."""
        head = self._node.head.timestamp
        if self._node.has_pending:
            if self._clock.speed == 0:
                return 0.0
            return _at_least_one_tick(self._clock.real_seconds_until(head + 1))
        empty_due = self._clock.real_seconds_until(head + self._interval)
        rate_limit = self._last_empty + _LEAST_EMPTY_SECONDS - time.monotonic()
        return _at_least_one_tick(max(empty_due, rate_limit))


def _at_least_one_tick(seconds: float) -> float:
    # A timer may fire a little early; without a floor the miner would spin on the remainder.
    return 0.0 if seconds <= 0 else max(seconds, _MIN_WAIT_SECONDS)


async def serve(options: ServerOptions) -> None:
    """Run the chain until SIGTERM, SIGINT or, if asked to, the end of standard input.

    One JSON line on standard output says where it listens. Raises `PortInUse`.
    """
    start = time.time() if options.genesis_time is None else options.genesis_time
    clock = ChainClock(start, options.speed)
    balances = {bytes.fromhex(dev_address(role)[2:]): DEV_BALANCE_WEI for role in DEV_ROLES}
    evm = ThreadPoolExecutor(max_workers=1, thread_name_prefix="evm")
    loop = asyncio.get_running_loop()
    node = await loop.run_in_executor(
        evm, lambda: Node(options.chain_id, int(start), balances, options.mode)
    )
    miner = Miner(node, clock, options.block_interval)
    rpc = Rpc(node, clock, evm, miner.wake)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    application = web.Application(client_max_size=_MAX_BODY)
    application.router.add_post("/", _handler(rpc))
    runner = web.AppRunner(
        application, access_log=None, shutdown_timeout=1.0, keepalive_timeout=_KEEPALIVE_SECONDS
    )
    await runner.setup()
    tasks: list[asyncio.Task[Any]] = []
    try:
        await _listen(runner, options.port)
        port = runner.addresses[0][1]
        tasks.append(asyncio.create_task(miner.run(rpc)))
        if options.end_with_input:
            tasks.append(asyncio.create_task(_watch_input(stop)))
        ready = {
            "rpc": f"http://{HOST}:{port}",
            "chain_id": options.chain_id,
            "pid": os.getpid(),
            "speed": options.speed,
            "precompiles": options.mode,
        }
        sys.stdout.write(msgspec.json.encode(ready).decode() + "\n")
        sys.stdout.flush()
        stopped = asyncio.create_task(stop.wait())
        tasks.append(stopped)
        done, _ = await asyncio.wait({tasks[0], stopped}, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0] in done:
            # The miner never ends by itself: let its error end the process with a trace.
            await tasks[0]
    finally:
        for task in tasks:
            task.cancel()
        await runner.cleanup()
        evm.shutdown(wait=False, cancel_futures=True)


async def _listen(runner: web.AppRunner, port: int) -> None:
    try:
        await web.TCPSite(runner, HOST, port).start()
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise PortInUse(
                f"the embedded chain cannot listen on {HOST}:{port}: {os.strerror(error.errno)}"
            ) from error
        raise


async def _watch_input(stop: asyncio.Event) -> None:
    """Stop when standard input ends, as it does however the parent process goes."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    while await reader.read(1024):
        continue
    stop.set()


def _handler(rpc: Rpc) -> Any:
    async def handle(request: web.Request) -> web.Response:
        body = await request.read()
        try:
            document = msgspec.json.decode(body)
        except msgspec.DecodeError:
            answer: Any = _error(None, -32700, "parse error")
        else:
            if isinstance(document, list) and document:
                answer = await asyncio.gather(*(_single(rpc, entry) for entry in document))
            else:
                answer = await _single(rpc, document)
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")

    return handle


async def _single(rpc: Rpc, document: object) -> dict[str, Any]:
    if not isinstance(document, dict) or not isinstance(document.get("method"), str):
        return _error(None, -32600, "invalid request")
    identity, params = document.get("id"), document.get("params", [])
    if not isinstance(params, list):
        return _error(identity, -32602, "parameters must be a list")
    try:
        result = await rpc.answer(document["method"], params)
    except Refused as error:
        return _error(identity, error.code, error.message, error.payload)
    return {"jsonrpc": "2.0", "id": identity, "result": result}


def _error(identity: object, code: int, message: str, payload: str | None = None) -> dict[str, Any]:
    error: dict[str, Any] = {"code": code, "message": message}
    if payload is not None:
        error["data"] = payload
    return {"jsonrpc": "2.0", "id": identity, "error": error}
