# SPDX-License-Identifier: BSD-3-Clause
"""The embedded development chain: start it, know where it listens, end it.

The chain is a process of its own that speaks JSON-RPC over HTTP on loopback, so that agents use
it like any other chain. It holds everything in memory: a new process is a new chain. It also
holds the network's clock, which may run faster than real time (see `devchain`).

Run it by hand with ``python -m monetor_chain.embedded --port 8546``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from .errors import ChainUnavailable, PortInUse
from .precompile_mode import MODES, Mode

CHAIN_ID = 29127
"""Chain id of the embedded chain; no public network is registered under it."""

_READY_SECONDS = 30.0
_STOP_SECONDS = 5.0
_PORT_IN_USE_STATUS = 3


class EmbeddedChain:
    """Handle of a chain that runs in a child process and ends with this process.

    Works as a context manager, plain or asynchronous. `port` 0 takes any free port; `speed` is
    chain seconds per real second; `precompiles` chooses native or pure EIP-2537; `block_interval`
    is the time in chain seconds between blocks without transactions; `genesis_time` the clock's
    start, default the present.
    """

    def __init__(
        self,
        port: int = 0,
        speed: float = 1.0,
        precompiles: Mode = "native",
        block_interval: float = 2.0,
        genesis_time: float | None = None,
    ) -> None:
        self._arguments = [
            "--port", str(port), "--speed", repr(speed), "--precompiles", precompiles,
            "--block-interval", repr(block_interval), "--end-with-input",
        ]  # fmt: skip
        if genesis_time is not None:
            self._arguments += ["--genesis-time", repr(genesis_time)]
        self._process: subprocess.Popen[bytes] | None = None
        self._url = ""

    @property
    def url(self) -> str:
        """JSON-RPC endpoint of the running chain."""
        if self._process is None:
            raise ChainUnavailable("the embedded chain is not running")
        return self._url

    @property
    def pid(self) -> int:
        """Process id of the running chain."""
        if self._process is None:
            raise ChainUnavailable("the embedded chain is not running")
        return self._process.pid

    def start(self) -> str:
        """Start the process and wait until it listens; its endpoint.

        Raises `PortInUse`, or `ChainUnavailable` if it does not come up.
        """
        if self._process is not None:
            return self._url
        root = str(Path(__file__).resolve().parent.parent)
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        with tempfile.TemporaryFile() as complaints:
            process = subprocess.Popen(
                [sys.executable, "-m", "monetor_chain.embedded", *self._arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                env={**os.environ, "PYTHONPATH": path},
            )
            line = _first_line(process, _READY_SECONDS)
            if not line:
                process.kill()
                status = process.wait()
                _close(process)
                complaints.seek(0)
                said = complaints.read().decode(errors="replace").strip().splitlines()
                last = said[-1] if said else "it said nothing"
                if status == _PORT_IN_USE_STATUS:
                    raise PortInUse(last)
                raise ChainUnavailable(f"the embedded chain did not start: {last}")
        self._url = str(json.loads(line)["rpc"])
        self._process = process
        return self._url

    def stop(self) -> None:
        """End the process in order; it is killed if it takes too long."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _close(process)

    def kill(self) -> None:
        """End the process at once, as a crash would."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            _close(process)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.stop)


def _first_line(process: subprocess.Popen[bytes], seconds: float) -> bytes:
    """The child's first line of output; empty if it ends or takes too long."""
    stream = process.stdout
    if stream is None:
        raise ValueError("the child's output is not a pipe")
    deadline = time.monotonic() + seconds
    line = b""
    while not line.endswith(b"\n"):
        readable, _, _ = select.select([stream], [], [], max(0.0, deadline - time.monotonic()))
        piece = os.read(stream.fileno(), 4096) if readable else b""
        if not piece:
            # Give a child that is ending the time to set its exit status.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_SECONDS if readable else 0)
            return b""
        line += piece
    return line


def _close(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m monetor_chain.embedded", description="A development chain on loopback."
    )
    parser.add_argument("--port", type=int, default=0, help="0 takes any free port")
    parser.add_argument("--speed", type=float, default=1.0, help="chain seconds per real second")
    parser.add_argument("--precompiles", choices=MODES, default="native")
    parser.add_argument(
        "--block-interval", type=float, default=2.0, help="chain seconds between empty blocks"
    )
    parser.add_argument("--genesis-time", type=float, default=None, help="the clock's start")
    parser.add_argument("--chain-id", type=int, default=CHAIN_ID)
    parser.add_argument(
        "--end-with-input", action="store_true", help="end when standard input is closed"
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run a chain in this process until it is told to end; the process's exit status."""
    # These load the EVM and the web server, which a parent process does not need.
    from .devchain.server import ServerOptions, serve

    given = _parser().parse_args(arguments)
    options = ServerOptions(
        port=given.port,
        chain_id=given.chain_id,
        speed=given.speed,
        mode=given.precompiles,
        block_interval=given.block_interval,
        genesis_time=given.genesis_time,
        end_with_input=given.end_with_input,
    )
    try:
        asyncio.run(serve(options))
    except PortInUse as error:
        sys.stderr.write(f"{error}\n")
        return _PORT_IN_USE_STATUS
    return 0


if __name__ == "__main__":
    sys.exit(main())
