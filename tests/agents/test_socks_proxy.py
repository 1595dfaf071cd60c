# SPDX-License-Identifier: BSD-3-Clause
"""The SOCKS proxy over real circuits on loopback, used by curl and by bare sockets."""

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

from offchain.agents import socks_proxy
from offchain.agents.socks_proxy import SocksProxy
from offchain.agents.tasks import Tasks
from offchain.transport.errors import CircuitClosed, DestroyReason
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
    """Three routers, a client, its SOCKS port and an HTTP server, all in this process."""

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


def test_curl_downloads_and_the_exit_resolves_the_name():
    async def body(net):
        status, out, err = await net.curl("/blob")
        assert (status, out == BLOB) == (0, True), err
        assert net.seen == [f"localhost:{net.port}"]
        assert len(net.built) == 1 and net.socks.served == 1

    run(body)


def test_curl_uploads():
    async def body(net):
        status, out, err = await net.curl("/digest", "--data-binary", "@-", body=BLOB)
        assert status == 0, err
        assert out.decode() == hashlib.sha256(BLOB).hexdigest()

    run(body)


def test_credentials_decide_who_shares_a_circuit():
    async def body(net):
        results = await asyncio.gather(*(
            net.curl("/blob", credentials=one)
            for one in ("", "", "alice:1@", "alice:1@", "alice:2@", "bob:1@")))
        assert all(status == 0 and out == BLOB for status, out, _ in results)
        assert len(net.built) == 4 and net.socks.circuits == 4
        assert (await net.curl("/blob", credentials="alice:2@"))[0] == 0
        assert len(net.built) == 4

    run(body)


@pytest.mark.parametrize(("host", "code"), [
    (b"127.0.0.1", 5),  # connection refused
    (b"no-such-name.invalid", 4),  # host unreachable
    (b"192.0.2.1", 2),  # the exit policy forbids it
])
def test_refusals_come_back_as_codes(host, code):
    async def body(net):
        assert await net.ask(host, free_port()) == code
        # The circuit is as good as before.
        assert await net.ask(b"localhost", net.port) == 0
        assert len(net.built) == 1

    run(body)


def test_a_circuit_that_cannot_be_built_is_told_and_tried_anew_by_the_next():
    async def body(net):
        net.failures.append(TimeoutError("no session is set up"))
        assert await net.ask(b"localhost", net.port) == 3
        assert await net.ask(b"localhost", net.port) == 0

    run(body)


def test_a_circuit_that_dies_before_the_stream_stands_is_built_over():
    async def body(net):
        net.failures.append(CircuitClosed("the circuit was closed", DestroyReason.DESTROYED))
        assert await net.ask(b"localhost", net.port) == 0
        await net.built[0].close()
        await until(lambda: net.built[0].closed)
        assert await net.ask(b"localhost", net.port) == 0
        assert len(net.built) == 2

    run(body)


def test_a_dirty_circuit_gets_no_new_connections_and_closes_after_its_last(monkeypatch):
    monkeypatch.setattr(socks_proxy, "DIRTY_SECONDS", 0.0)
    monkeypatch.setattr(socks_proxy, "LOOK_SECONDS", 0.01)

    async def body(net):
        reader, writer = await net.dial()
        writer.write(GREETING + b"\x05\x01\x00\x03\x09localhost" + net.port.to_bytes(2, "big"))
        await reader.readexactly(12)
        assert await net.ask(b"localhost", net.port) == 0
        assert len(net.built) == 2
        await until(lambda: net.built[1].closed)
        assert not net.built[0].closed, "it still carries the first connection"
        writer.write(b"GET /blob HTTP/1.0\r\n\r\n")
        assert (await reader.read()).endswith(BLOB)
        writer.close()
        await until(lambda: net.built[0].closed)
        assert net.socks.circuits == 0

    run(body)


def test_a_connection_that_is_dropped_ends_its_stream():
    async def body(net):
        reader, writer = await net.dial()
        writer.write(GREETING + b"\x05\x01\x00\x03\x09localhost" + net.port.to_bytes(2, "big")
                     + b"GET /blob HTTP/1.0\r\n\r\n")
        await reader.readexactly(100)
        edge = net.built[0]._core.edge
        assert len(edge) == 1
        writer.transport.abort()
        await until(lambda: len(edge) == 0)
        assert await net.ask(b"localhost", net.port) == 0

    run(body)


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x05\x01\x09"])
def test_who_speaks_nonsense_is_hung_up_on(said):
    async def body(net):
        reader, writer = await net.dial()
        writer.write(said)
        writer.write_eof()
        assert await reader.read() in (b"", b"\x05\xff")
        writer.close()
        assert not net.built

    run(body)


def test_who_says_nothing_is_hung_up_on(monkeypatch):
    monkeypatch.setattr(socks_proxy, "CONVERSATION_SECONDS", 0.05)

    async def body(net):
        reader, writer = await net.dial()
        assert await reader.read() == b""
        writer.close()

    run(body)


def test_only_this_machine_may_use_it():
    async def main():
        with pytest.raises(ValueError, match="spends this client's money"):
            await SocksProxy(None, Tasks("test")).start("0.0.0.0", 0)  # noqa: S104

    asyncio.run(main())


def test_no_more_than_so_many_at_once(monkeypatch):
    monkeypatch.setattr(socks_proxy, "MAX_CONNECTIONS", 1)

    async def body(net):
        first_reader, first = await net.dial()
        first.write(GREETING)
        assert await first_reader.readexactly(2) == b"\x05\x00"
        reader, writer = await net.dial()
        assert await reader.read() == b""
        writer.close()
        first.close()
        await until(lambda: net.socks._connections == 0)
        assert await net.ask(b"localhost", net.port) == 0

    run(body)
