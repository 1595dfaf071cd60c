# SPDX-License-Identifier: BSD-3-Clause
"""How many cells a second one core of a relay forwards.

A client downloads over guard, middle and exit, each a process of its own, with TLS on loopback,
queues, flow control and scheduling as always. What counts is the processor time of each process
per relay cell, so that other programs, and that all four share the machine's cores, matter little.
The cost of one cell's AES-CTR, measured in the same process, makes figures of different machines
comparable.
"""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Self

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from ..transport.cell import BODY_LEN
from ..transport.exit_policy import ExitPolicy
from ..transport.identity import RouterIdentity, RouterInfo
from ..transport.proxy import OnionProxy
from ..transport.relay_cell import MAX_DATA
from ..transport.router import OnionRouter

HOPS = ("guard", "middle", "exit")
MIB = 1 << 20
_BLOCK = bytes(64 * 1024)
_START_SECONDS = 30.0
_REFERENCE_CELLS = 20_000

Progress = Callable[[int, int], None]
"""Called with the bytes so far and in all."""


@dataclass(frozen=True, slots=True)
class Speed:
    """One process: processor time per relay cell and what follows from it.

    `aes_per_cell` is that time in units of one cell's AES-CTR in the same process.
    """

    name: str
    cells: int
    microseconds_per_cell: float
    cells_per_second: int
    aes_per_cell: float

    @classmethod
    def of(cls, name: str, cells: int, seconds: float, aes_seconds: float) -> Self:
        """From processor seconds for so many cells, and those of one cell's AES."""
        each = seconds / cells
        return cls(name, cells, round(each * 1e6, 2), round(1 / each), round(each / aes_seconds, 1))

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def aes_seconds() -> float:
    """Processor seconds for AES-128-CTR over one cell's body."""
    cipher = Cipher(algorithms.AES(bytes(16)), modes.CTR(bytes(16))).encryptor()
    body = bytes(BODY_LEN)
    started = time.process_time()
    for _ in range(_REFERENCE_CELLS):
        cipher.update(body)
    return (time.process_time() - started) / _REFERENCE_CELLS


def measure(size: int = 32 * MIB, progress: Progress = lambda done, total: None) -> list[Speed]:
    """Download `size` bytes over three relay processes; the speed of each, and the client's.

    Raises `TransportError` if the circuit fails, `RuntimeError` if a process does not come up.
    """
    context = multiprocessing.get_context("spawn")
    with ExitStack() as ending:
        relays = []
        for name in HOPS:
            ours, theirs = context.Pipe()
            process = context.Process(target=_relay, args=(theirs, name, size), daemon=True)
            process.start()
            ending.callback(_end, process, ours)
            relays.append(ours)
        found = []
        for name, pipe in zip(HOPS, relays, strict=True):
            if not pipe.poll(_START_SECONDS):
                raise RuntimeError(f"the {name} does not come up within {_START_SECONDS:.0f} s")
            found.append(pipe.recv())
        path: list[RouterInfo] = [info for info, _ in found]
        port = found[-1][1]
        aes = aes_seconds()
        before = _times(relays)
        seconds, cells = asyncio.run(_download(path, port, size, progress))
        after = _times(relays)
    speeds = [Speed.of(name, cells, late[0] - early[0], late[1])
              for name, early, late in zip(HOPS, before, after, strict=True)]
    return [*speeds, Speed.of("client", cells, seconds, aes)]


def _times(relays: list[Connection]) -> list[tuple[float, float]]:
    found = []
    for pipe in relays:
        pipe.send("time")
        found.append(pipe.recv())
    return found


def _end(process: multiprocessing.process.BaseProcess, pipe: Connection) -> None:
    pipe.close()
    process.join(5)
    if process.is_alive():
        process.kill()
        process.join()


async def _download(path: list[RouterInfo], port: int, size: int,
                    progress: Progress) -> tuple[float, int]:
    """Processor seconds of this process, and relay cells that passed."""
    proxy = OnionProxy()
    try:
        circuit = await proxy.build_circuit(path)
        stream = await circuit.open_stream("127.0.0.1", port)
        started, before = time.process_time(), circuit.cells_sent + circuit.cells_received
        got, digest = 0, hashlib.sha256()
        while data := await stream.read(256 * 1024):
            got += len(data)
            digest.update(data)
            progress(got, size)
        seconds = time.process_time() - started
        cells = circuit.cells_sent + circuit.cells_received - before
        await stream.close()
        await circuit.close()
    finally:
        await proxy.close()
    if got != size or cells < size / MAX_DATA:
        raise RuntimeError(f"{got} of {size} bytes arrived")
    return seconds, cells


def _relay(pipe: Connection, name: str, size: int) -> None:
    """The process of one relay: says where it is, then its processor time whenever it is asked,
    until the pipe closes."""
    asyncio.run(_serve(pipe, name, size))


async def _serve(pipe: Connection, name: str, size: int) -> None:
    identity = RouterIdentity.generate()
    policy = ExitPolicy.loopback_only() if name == HOPS[-1] else ExitPolicy.reject_all()
    router = OnionRouter(identity, exit_policy=policy)
    port = await router.start("127.0.0.1")
    source = await asyncio.start_server(
        lambda reader, writer: _send(writer, size), "127.0.0.1", 0)
    aes = aes_seconds()
    ended = asyncio.Event()

    def asked() -> None:
        try:
            pipe.recv()
        except EOFError:
            ended.set()
            return
        pipe.send((time.process_time(), aes))

    loop = asyncio.get_running_loop()
    loop.add_reader(pipe.fileno(), asked)
    pipe.send((identity.info(name, "127.0.0.1", port), source.sockets[0].getsockname()[1]))
    await ended.wait()
    loop.remove_reader(pipe.fileno())
    source.close()
    await router.stop()


async def _send(writer: asyncio.StreamWriter, size: int) -> None:
    """The exit's own server: what it costs counts with the exit."""
    for at in range(0, size, len(_BLOCK)):
        writer.write(_BLOCK[: size - at])
        await writer.drain()
    writer.close()
