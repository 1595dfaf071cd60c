# SPDX-License-Identifier: BSD-3-Clause
"""The real thing: asyncio, TCP and TLS on loopback, with an HTTP server behind the exit."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import socket

import pytest
from aiohttp import web

from offchain.transport import exit_stream, router as router_driver
from offchain.transport.bandwidth_driver import BandwidthLimit
from offchain.transport.errors import (
    CircuitClosed,
    DestroyReason,
    EndReason,
    LinkFailed,
    ProtocolViolation,
    StreamClosed,
    TransportError,
)
from offchain.transport.exit_policy import ExitPolicy
from offchain.transport.identity import RouterInfo
from offchain.transport.proxy import OnionProxy
from offchain.transport.relay_cell import MAX_DATA, RelayCommand
from offchain.transport.router import OnionRouter

MIB = 1 << 20
BLOB = random.Random(7).randbytes(MIB) * 8


class Net:
    """Three routers, a client and an HTTP server in this process."""

    def __init__(self, identities, recorder, policy, directory=None, limited=None, rate=0):
        self.identities = identities
        self.hooks = [recorder() for _ in identities]
        self.routers = [OnionRouter(i, exit_policy=policy, hooks=h, directory=directory, limit=(
                            BandwidthLimit(rate, rate / 4) if number == limited else None))
                        for number, (i, h) in enumerate(zip(identities, self.hooks, strict=True))]
        self.proxy = OnionProxy()
        self.path = []

    async def __aenter__(self):
        for number, (identity, router) in enumerate(zip(self.identities, self.routers,
                                                        strict=True)):
            port = await router.start("127.0.0.1")
            self.path.append(identity.info(f"r{number}", "127.0.0.1", port))
        app = web.Application(client_max_size=64 * MIB)

        async def blob(request):
            return web.Response(body=BLOB)

        async def digest(request):
            return web.Response(text=hashlib.sha256(await request.read()).hexdigest())

        async def part(request):
            return web.Response(body=BLOB[:MIB])

        app.router.add_get("/blob", blob)
        app.router.add_get("/part", part)
        app.router.add_post("/digest", digest)
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc):
        await self.proxy.close()
        for router in self.routers:
            await router.stop()
        await self.runner.cleanup()


@pytest.fixture
def net(identities, recorder):
    def make(policy=None, **options):
        return Net(identities, recorder, policy or ExitPolicy.loopback_only(), **options)

    def run(body, **options):
        async def main():
            async with asyncio.timeout(30), make(**options) as network:
                await body(network)
            leftover = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
            assert not leftover, "nothing is left running"

        asyncio.run(main())

    return run


async def fetch(circuit, port, path="/blob"):
    stream = await circuit.open_stream("127.0.0.1", port)
    await stream.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    parts = []
    while part := await stream.read():
        parts.append(part)
    await stream.close()
    head, _, body = b"".join(parts).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    return body


async def until(condition):
    while not condition():
        await asyncio.sleep(0.005)


def test_fetch_with_payments_to_every_hop_meanwhile(net):
    async def body(n):
        circuit = await n.proxy.build_circuit(n.path)
        assert circuit.hops == tuple(n.path)
        got, counted = [], []
        circuit.on_payment = lambda hop, pcmd, payload: got.append((hop, pcmd, payload))
        before = circuit.cells_sent + circuit.cells_received
        circuit.on_cells = counted.append
        for hooks in n.hooks:
            hooks.on_payment = lambda c, pcmd, payload, link: c.send_payment(
                pcmd + 100, payload[::-1], link)
        download = asyncio.create_task(fetch(circuit, n.port))
        sent = []
        for turn in range(60):
            hop, link = turn % 3, turn % 9 == 0
            payload = turn.to_bytes(2, "big") * (1 + turn * 13)
            assert circuit.send_payment(hop, turn, payload, link) >= 1
            sent.append((hop, turn + 100, payload[::-1]))
            await asyncio.sleep(0.002)
        assert await download == BLOB
        await until(lambda: len(got) == len(sent))
        assert sorted(got) == sorted(sent)
        assert not circuit.closed
        # SENDMEs: one for the circuit per 100 DATA cells, one for the stream per 50.
        data_cells = -(-len(BLOB) // MAX_DATA)
        payments = sum(-(-len(p) // 495) for h, c, p in sent if (c - 100) % 9)
        expected = 2 + data_cells // 100 + data_cells // 50 + 2 + payments
        assert abs(circuit.cells_sent - expected) <= 12, "plus END and a few short DATA cells"
        total = circuit.cells_sent + circuit.cells_received
        assert sum(counted) == total - before
        await until(lambda: n.hooks[0].cells == total)
        assert n.hooks[0].cells > n.hooks[1].cells > n.hooks[2].cells
        await circuit.close()
        await until(lambda: not any(router.circuits for router in n.routers))
        assert [len(h.closed) for h in n.hooks] == [1, 1, 1]

    net(body)


@pytest.mark.parametrize("limited", [0, 1, 2])
def test_a_limited_router_is_not_faster_than_its_limit(net, limited):
    """And loses nothing: two circuits on links of their own, both directions."""
    rate, size = 3 * MIB, MIB

    async def body(n):
        loop = asyncio.get_running_loop()
        other = OnionProxy()
        circuits = [await n.proxy.build_circuit(n.path), await other.build_circuit(n.path)]
        started = loop.time()

        async def upload(circuit):
            stream = await circuit.open_stream("127.0.0.1", n.port)
            head = f"POST /digest HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n"
            await stream.write(head.encode() + b"Connection: close\r\n\r\n" + BLOB[:size])
            answer = b""
            while part := await stream.read():
                answer += part
            assert answer.endswith(hashlib.sha256(BLOB[:size]).hexdigest().encode())

        await asyncio.gather(*(upload(circuit) for circuit in circuits))
        passed = 2 * size
        assert loop.time() - started >= (passed - rate / 4) / rate
        assert all([len(await fetch(circuit, n.port, "/part")) == MIB for circuit in circuits])
        assert loop.time() - started >= (2 * passed - rate / 4 - rate / 4) / rate
        await other.close()

    net(body, limited=limited, rate=rate)


def test_upload_and_several_streams_at_once(net):
    async def body(n):
        circuit = await n.proxy.build_circuit(n.path)

        async def upload(size):
            payload = BLOB[:size]
            stream = await circuit.open_stream("127.0.0.1", n.port)
            head = f"POST /digest HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n"
            await stream.write(head.encode() + b"Connection: close\r\n\r\n")
            await stream.write(payload)
            answer = b""
            while part := await stream.read(100):
                assert len(part) <= 100
                answer += part
            assert answer.endswith(hashlib.sha256(payload).hexdigest().encode())

        bodies = await asyncio.gather(
            upload(3 * MIB), fetch(circuit, n.port), upload(100_000), fetch(circuit, n.port))
        assert bodies[1] == bodies[3] == BLOB

    net(body)


def test_slow_reader_is_waited_for(net):
    """Unread data stays at the exit: the client holds a bounded amount of it."""

    async def body(n):
        circuit = await n.proxy.build_circuit(n.path)
        stream = await circuit.open_stream("127.0.0.1", n.port)
        await stream.write(b"GET /blob HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await asyncio.sleep(0.4)
        assert stream._unread < MIB
        (exit_circuit,) = n.routers[2].circuits
        assert exit_circuit.edge.get(1).pending < MIB, "the exit stops reading from the server"
        assert await fetch(circuit, n.port) == BLOB, "another stream is not held up"
        size = 0
        while part := await stream.read():
            size += len(part)
        assert size > len(BLOB)

    net(body)


def test_refusals_of_an_exit(net):
    async def body(n):
        circuit = await n.proxy.build_circuit(n.path)
        cases = [("127.0.0.1", n.port, EndReason.EXITPOLICY),
                 ("localhost.invalid", 80, EndReason.RESOLVEFAILED)]
        for host, port, reason in cases:
            with pytest.raises(StreamClosed) as caught:
                await circuit.open_stream(host, port)
            assert caught.value.reason is reason
        assert not circuit.closed

    net(body, policy=ExitPolicy(["127.0.0.1:1"]))


def test_a_router_that_is_no_exit_carries_no_streams(net):
    async def body(n):
        circuit = await n.proxy.build_circuit(n.path)
        with pytest.raises(StreamClosed) as caught:
            await circuit.open_stream("127.0.0.1", n.port)
        assert caught.value.reason is EndReason.EXITPOLICY

    net(body, policy=ExitPolicy.reject_all())


def test_nobody_listens_behind_the_exit(net):
    async def body(n):
        circuit = await n.proxy.build_circuit(n.path)
        with pytest.raises(StreamClosed) as caught:
            await circuit.open_stream("127.0.0.1", 1)
        assert caught.value.reason is EndReason.CONNECTREFUSED

    net(body)


@pytest.mark.parametrize("dead", [0, 1, 2])
def test_a_dead_hop_gives_a_clean_error(net, dead):
    async def body(n):
        await n.routers[dead].stop()
        with pytest.raises(TransportError) as caught:
            await n.proxy.build_circuit(n.path, timeout=10)
        if dead:
            assert caught.value.reason is DestroyReason.CONNECTFAILED
        else:
            assert isinstance(caught.value, LinkFailed)
        await until(lambda: not any(router.circuits for router in n.routers))

    net(body)


@pytest.mark.parametrize("dying", [0, 1, 2])
def test_a_hop_that_dies_during_a_transfer(net, dying):
    async def body(n):
        circuit = await n.proxy.build_circuit(n.path)
        reasons = []
        circuit.on_closed = reasons.append
        stream = await circuit.open_stream("127.0.0.1", n.port)
        await stream.write(b"GET /blob HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await stream.read(10)
        for link in list(n.routers[dying]._links._links):
            link.abort()
        with pytest.raises(StreamClosed) as caught:
            while await stream.read():
                pass
        assert caught.value.reason is EndReason.DESTROY
        assert circuit.closed and reasons == [DestroyReason.CHANNEL_CLOSED]
        await until(lambda: not any(router.circuits for router in n.routers))
        with pytest.raises(CircuitClosed):
            circuit.send_payment(0, 1, b"")
        with pytest.raises(CircuitClosed):
            await circuit.open_stream("127.0.0.1", n.port)

    net(body)


def test_a_stopped_router_says_goodbye(net):
    async def body(n):
        circuit = await n.proxy.build_circuit(n.path)
        reasons = []
        circuit.on_closed = reasons.append
        await n.routers[1].stop()
        await until(lambda: circuit.closed)
        assert reasons == [DestroyReason.HIBERNATING]
        again = await n.proxy.build_circuit([n.path[0], n.path[2]])
        assert await fetch(again, n.port) == BLOB

    net(body)


def test_wrong_identity_and_wrong_onion_key(net):
    async def body(n):
        def altered(hop, **changes):
            fields = {k: getattr(n.path[hop], k) for k in RouterInfo.__dataclass_fields__}
            return RouterInfo(**{**fields, **changes})

        with pytest.raises(ProtocolViolation) as caught:
            await n.proxy.build_circuit([altered(0, rsa_fingerprint=bytes(20)), *n.path[1:]])
        assert caught.value.reason is DestroyReason.OR_IDENTITY
        with pytest.raises(CircuitClosed) as closed:
            await n.proxy.build_circuit([n.path[0], altered(1, ed25519_identity=bytes(32))])
        assert closed.value.reason is DestroyReason.OR_IDENTITY
        with pytest.raises(CircuitClosed):
            await n.proxy.build_circuit([n.path[0], altered(1, ntor_key=n.path[2].ntor_key)])
        assert not (await n.proxy.build_circuit(n.path)).closed

    net(body)


def test_a_relay_that_never_answers(net):
    async def body(n):
        loop = asyncio.get_running_loop()
        silent = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        port = silent.sockets[0].getsockname()[1]
        hole = RouterInfo("hole", "127.0.0.1", port, bytes(20), bytes(32), bytes(32))
        impatient = OnionProxy(handshake_timeout=0.2)
        with pytest.raises(LinkFailed, match="too long"):
            await impatient.build_circuit([hole])
        with pytest.raises(CircuitClosed) as caught:
            await n.proxy.build_circuit([hole], timeout=0.2)
        assert caught.value.reason is DestroyReason.TIMEOUT
        await impatient.close()
        await n.proxy.close()
        silent.close()

    net(body)


def test_garbage_on_the_port_disturbs_nobody(net):
    async def body(n):
        circuit = await n.proxy.build_circuit(n.path)
        hello = b"\x16\x03\x01\x02\x00" + bytes(600)
        for garbage in (b"GET / HTTP/1.0\r\n\r\n", bytes(2000), hello):
            reader, writer = await asyncio.open_connection("127.0.0.1", n.path[0].port)
            writer.write(garbage)
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()
        circuit.send_payment(2, 1, b"x")
        await until(lambda: n.hooks[2].payments)

    net(body)


def test_links_are_bounded(identities):
    async def main():
        router = OnionRouter(identities[0], max_links=2)
        port = await router.start()
        info = identities[0].info("r", "127.0.0.1", port)
        proxies = [OnionProxy() for _ in range(3)]
        for proxy in proxies[:2]:
            await proxy.build_circuit([info])
        with pytest.raises(LinkFailed):
            await proxies[2].build_circuit([info], timeout=5)
        await proxies[0].close()
        await until(lambda: len(router._links) < 2)
        await proxies[2].build_circuit([info], timeout=5)
        for proxy in proxies:
            await proxy.close()
        await router.stop()

    asyncio.run(main())


def test_last_words_before_closing_arrive(net):
    """What was sent before `close` is delivered: a payment channel's last message must be."""

    async def body(n):
        circuit = await n.proxy.build_circuit(n.path)
        circuit.send_payment(2, 7, b"z" * 20_000)
        await circuit.close()
        await n.proxy.close()
        await until(lambda: n.hooks[2].payments)
        assert n.hooks[2].payments == [(7, b"z" * 20_000, False)]

    net(body)


def test_streams_after_their_end(net):
    async def body(n):
        circuit = await n.proxy.build_circuit(n.path)
        stream = await circuit.open_stream("127.0.0.1", n.port)
        await stream.close()
        await stream.close()
        assert await stream.read() == b""
        with pytest.raises(StreamClosed):
            await stream.write(b"x")
        early = await circuit.open_stream("127.0.0.1", n.port)
        await early.write(b"GET /blob HTTP/1.1\r\nHost: x\r\n\r\n")
        await early.read(1)
        await early.close()  # while data is on its way
        assert await fetch(circuit, n.port) == BLOB

    net(body)


def test_routers_know_who_called_them(net):
    """Over real TLS sessions: the middle knows the guard, the guard does not know the client."""

    async def body(n):
        circuit = await n.proxy.build_circuit(n.path)
        peers = [one._previous.peer for router in n.routers for one in router.circuits]
        assert peers[0] is None
        assert [one.ed25519_identity for one in peers[1:]] == [
            one.ed25519_identity for one in n.identities[:2]]
        await circuit.close()

    net(body)


class Teller:
    """A client that speaks to the last hop as it likes, and writes down what it hears."""

    def __init__(self, circuit):
        self.core, self.heard = circuit._core, []
        handle = self.core._handle

        def keep(hop, message, tag):
            self.heard.append((message.command, message.stream_id, message.data))
            if message.command in (RelayCommand.CONNECTED, RelayCommand.DATA, RelayCommand.END):
                handle(hop, message, tag)

        self.core._handle = keep

    async def ask(self, command, stream_id, data):
        before = len(self.heard)
        self.core.edge.send(command, stream_id, data)
        await until(lambda: len(self.heard) > before)
        return self.heard[-1]


def test_names_and_addresses_as_clients_want_them(net):
    async def body(n):
        circuit = await n.proxy.build_circuit(n.path)
        tell = Teller(circuit)
        command, stream, data = await tell.ask(RelayCommand.RESOLVE, 5, b"127.0.0.1\0")
        assert (command, stream, data[:6]) == (RelayCommand.RESOLVED, 5, b"\4\4\x7f\0\0\1")
        command, stream, data = await tell.ask(RelayCommand.RESOLVE, 6, b"name.invalid\0")
        assert (command, stream, data[0]) == (RelayCommand.RESOLVED, 6, 0xF1)
        # A client that takes no IPv4 address is connected to none.
        host = f"127.0.0.1:{n.port}".encode() + b"\0"
        answer = await tell.ask(RelayCommand.BEGIN, 7, host + b"\0\0\0\2")
        assert answer == (RelayCommand.END, 7, bytes([EndReason.EXITPOLICY]))
        answer = await tell.ask(RelayCommand.BEGIN, 8, b"[::1]:9\0" + bytes(4))
        assert answer == (RelayCommand.END, 8, bytes([EndReason.EXITPOLICY]))
        assert not circuit.closed

    net(body)


def test_a_router_that_is_no_exit_resolves_nothing(net):
    async def body(n):
        tell = Teller(await n.proxy.build_circuit(n.path))
        command, _, data = await tell.ask(RelayCommand.RESOLVE, 5, b"127.0.0.1\0")
        assert (command, data[0]) == (RelayCommand.RESOLVED, 0xF1)
        answer = await tell.ask(RelayCommand.BEGIN_DIR, 6, b"")
        assert answer == (RelayCommand.END, 6, bytes([EndReason.NOTDIRECTORY]))

    net(body, policy=ExitPolicy.reject_all())


async def _never(host):
    await asyncio.Event().wait()


def test_a_stream_that_ends_is_connected_no_further(net, monkeypatch):
    """Its lookup counts until it has ended, and there are only so many of them."""
    monkeypatch.setattr(router_driver, "_addresses", _never)
    monkeypatch.setattr(router_driver, "MAX_LOOKUPS_TOTAL", 20)

    async def body(n):
        exit_ = n.routers[2]
        circuit = await n.proxy.build_circuit(n.path)
        tell = Teller(circuit)
        for number in range(1, 21):
            circuit._core.edge.send(RelayCommand.BEGIN, number, b"example.com:80\0")
        await until(lambda: len(exit_._lookups) == 20)
        for number in range(1, 21):
            circuit._core.edge.send(RelayCommand.END, number, b"\6")
        await until(lambda: not exit_._streams)
        assert len(exit_._lookups) == 20
        answer = await tell.ask(RelayCommand.BEGIN, 21, b"example.com:80\0")
        assert answer == (RelayCommand.END, 21, bytes([EndReason.RESOLVEFAILED]))
        command, _, data = await tell.ask(RelayCommand.RESOLVE, 22, b"example.com\0")
        assert (command, data[0]) == (RelayCommand.RESOLVED, 0xF1)
        # An address is no name.
        assert await fetch(circuit, n.port, "/part") == BLOB[:MIB]

    net(body)


def test_who_reads_no_more_does_not_keep_what_a_stream_left(net, monkeypatch):
    monkeypatch.setattr(exit_stream, "LINGER_SECONDS", 0.05)
    ended = []
    lost = exit_stream.ExitStream.connection_lost
    monkeypatch.setattr(exit_stream.ExitStream, "connection_lost",
                        lambda self, error: (ended.append(self), lost(self, error)))

    async def body(n):
        with socket.create_server(("127.0.0.1", 0)) as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            circuit = await n.proxy.build_circuit(n.path)
            stream = await circuit.open_stream("127.0.0.1", deaf.getsockname()[1])
            writing = asyncio.create_task(stream.write(bytes(32 * MIB)))
            # As much as the kernel takes and a window more.
            before = -1
            while circuit.cells_sent > before:
                before = circuit.cells_sent
                await asyncio.sleep(0.2)
            await circuit.close()
            with pytest.raises(StreamClosed):
                await writing
            await until(lambda: ended)

    net(body)


def test_a_directory_stream_leads_to_the_directory(net):
    """Whatever the exit policy says, and to no other address."""

    async def serve(reader, writer):
        writer.write(b"directory:" + await reader.readuntil(b"\n"))
        writer.close()

    async def body(n):
        directory = await asyncio.start_server(serve, *address)
        circuit = await n.proxy.build_circuit(n.path)
        tell = Teller(circuit)
        stream = circuit._core.edge.open(7, Sink())
        await tell.ask(RelayCommand.BEGIN_DIR, 7, b"")
        stream.send(b"GET /tor/\n")
        await until(lambda: stream.closed)
        assert (RelayCommand.DATA, 7, b"directory:GET /tor/\n") in tell.heard
        directory.close()
        await directory.wait_closed()

    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = probe.getsockname()
    net(body, policy=ExitPolicy.reject_all(), directory=address)


class Sink:
    def connected(self):
        pass

    def data(self, data):
        pass

    def ended(self, reason):
        pass

    def writable(self):
        pass
