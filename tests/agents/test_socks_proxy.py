# SPDX-License-Identifier: BSD-3-Clause
"""The SOCKS proxy over real circuits on loopback, used by curl and by bare sockets."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from offchain.agents import socks_proxy
from offchain.agents.socks_proxy import SocksProxy
from offchain.agents.tasks import Tasks
from offchain.transport.errors import CircuitClosed, DestroyReason
from tests.agents.socks_net import BLOB, GREETING, free_port, run, until


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
