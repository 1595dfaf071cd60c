# SPDX-License-Identifier: BSD-3-Clause
"""Three routers, a client, its SOCKS port and an HTTP server, all in this process."""

from __future__ import annotations

import asyncio
import hashlib
import random
import shutil
import socket
from functools import cache
from types import SimpleNamespace

import pytest
from aiohttp import web

from offchain.agents.socks_proxy import SocksProxy
from offchain.agents.tasks import Tasks
from offchain.transport.exit_policy import ExitPolicy
from offchain.transport.identity import RouterIdentity
from offchain.transport.proxy import OnionProxy
from offchain.transport.router import OnionRouter

BLOB = random.Random(11).randbytes(3 << 20)
GREETING = b"\x05\x01\x00"


@cache
def identities():
    """Slow to make, so made once."""
    return [RouterIdentity.generate() for _ in range(3)]


class Net:
    """Works as an asynchronous context manager."""

    def __init__(self):
        self.routers = [OnionRouter(one, exit_policy=ExitPolicy.loopback_only())
                        for one in identities()]
        self.proxy = OnionProxy()
        self.tasks = Tasks("test")
        self.socks = SocksProxy(self.build, self.tasks)
        self.built = []
        self.failures = []
        self.seen = []

    async def build(self):
        if self.failures:
            raise self.failures.pop(0)
        circuit = await self.proxy.build_circuit(self.path)
        self.built.append(circuit)
        return SimpleNamespace(circuit=circuit)

    async def __aenter__(self):
        self.path = []
        for number, (identity, router) in enumerate(zip(identities(), self.routers, strict=True)):
            port = await router.start("127.0.0.1")
            self.path.append(identity.info(f"r{number}", "127.0.0.1", port))

        async def blob(request):
            self.seen.append(request.host)
            return web.Response(body=BLOB)

        async def digest(request):
            return web.Response(text=hashlib.sha256(await request.read()).hexdigest())

        app = web.Application(client_max_size=64 << 20)
        app.router.add_get("/blob", blob)
        app.router.add_post("/digest", digest)
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]
        await self.socks.start("127.0.0.1", 0)
        return self

    async def __aexit__(self, *exc):
        await self.socks.stop()
        await self.proxy.close()
        for router in self.routers:
            await router.stop()
        await self.runner.cleanup()

    async def curl(self, path, *arguments, credentials="", host="localhost", body=None):
        """Exit status and output of curl, which lets the proxy resolve names."""
        if shutil.which("curl") is None:
            pytest.skip("curl is not installed")
        process = await asyncio.create_subprocess_exec(
            "curl", "--silent", "--show-error", "--max-time", "20", "--proxy",
            f"socks5h://{credentials}127.0.0.1:{self.socks.port}", *arguments,
            f"http://{host}:{self.port}{path}",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE)
        out, err = await process.communicate(body)
        return process.returncode, out, err.decode()

    async def ask(self, host, port, said=GREETING):
        """The code of the answer to a request for a name."""
        reader, writer = await self.dial()
        try:
            writer.write(said + b"\x05\x01\x00\x03" + bytes([len(host)]) + host
                         + port.to_bytes(2, "big"))
            assert await reader.readexactly(2) == b"\x05\x00"
            return (await reader.readexactly(10))[1]
        finally:
            writer.close()

    async def dial(self):
        return await asyncio.open_connection("127.0.0.1", self.socks.port)


def run(body):
    async def main():
        async with asyncio.timeout(60), Net() as net:
            await body(net)
            assert net.tasks.failure is None
        leftover = [one for one in asyncio.all_tasks() if one is not asyncio.current_task()]
        assert not leftover, "nothing is left running"

    asyncio.run(main())


async def until(condition):
    while not condition():
        await asyncio.sleep(0.005)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
