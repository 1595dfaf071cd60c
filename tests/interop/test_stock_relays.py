# SPDX-License-Identifier: BSD-3-Clause
"""Our client and our relays with stock relays, on circuits of every mixture."""

from __future__ import annotations

import asyncio
import hashlib
import time

import pytest

from offchain.transport.errors import (
    CircuitClosed,
    DestroyReason,
    EndReason,
    ProtocolViolation,
    StreamClosed,
)
from offchain.transport.identity import RouterInfo
from offchain.transport.proxy import OnionProxy
from tests.interop.private_network import OurRelay
from tests.interop.stock_tor import HOST, PATIENCE, FileServer, StockRelay, running

MIB = 1 << 20


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    relays = [StockRelay(tmp_path_factory.mktemp("stock"), f"stock{i}") for i in range(3)]
    with running(*relays):
        yield relays


class Rig:
    """Two relays of ours beside the stock ones, and a client of ours."""

    def __init__(self, stock) -> None:
        self.stock = stock
        self.ours = [OurRelay(f"ours{i}") for i in range(2)]

    async def __aenter__(self):
        for one in self.ours:
            await one.start()
        self.proxy = OnionProxy()
        return self

    async def __aexit__(self, *exc):
        await self.proxy.close()
        for one in self.ours:
            await one.router.stop()

    def path(self, places):
        """Routers by letters: s for the next stock relay, o for the next of ours."""
        left = {"s": list(self.stock), "o": list(self.ours)}
        return [left[letter].pop(0).info for letter in places]


@pytest.fixture
def rig(stock):
    def run(body, **options):
        async def main():
            async with asyncio.timeout(4 * PATIENCE), Rig(stock) as rig:
                await body(rig)

        asyncio.run(main())

    return run


async def open_stream(circuit, port):
    """A stock relay has no exit policy until it has described itself, seconds after it listens."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return await circuit.open_stream(HOST, port)
        except StreamClosed as error:
            if error.reason is not EndReason.EXITPOLICY or time.monotonic() > end:
                raise
        await asyncio.sleep(0.2)


async def download(circuit, port):
    """SHA-256 of what the server sends."""
    stream = await open_stream(circuit, port)
    await stream.write(b"GET / HTTP/1.0\r\n\r\n")
    head, digest = b"", None
    while part := await stream.read():
        if digest is None:
            head += part
            if b"\r\n\r\n" in head:
                digest = hashlib.sha256(head.partition(b"\r\n\r\n")[2])
        else:
            digest.update(part)
    await stream.close()
    return digest.hexdigest()


async def upload(circuit, port, data):
    """What the server says of what it was sent."""
    stream = await open_stream(circuit, port)
    await stream.write(b"POST / HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
    answer = b""
    while part := await stream.read():
        answer += part
    return answer.rpartition(b"\r\n\r\n")[2].decode()


@pytest.mark.parametrize("places", ["sss", "oss", "sos", "sso", "oso", "oos", "soo"])
def test_circuits_of_every_mixture(rig, places):
    """The file arrives over it, an upload too, and payments reach each hop of ours over the leaky
    pipe, whatever stands before it."""

    async def body(rig):
        path = rig.path(places)
        circuit = await rig.proxy.build_circuit(path)
        got = []
        circuit.on_payment = lambda hop, pcmd, payload: got.append((hop, pcmd, payload))
        sent = []
        for hop, letter in enumerate(places):
            if letter == "o":
                payload = bytes([hop]) * 1200 + b"end"
                assert circuit.send_payment(hop, 10 + hop, payload) == 3
                sent.append((hop, 11 + hop, payload[::-1]))
        async with FileServer(MIB) as server:
            assert await download(circuit, server.port) == server.sha256
            data = bytes(range(256)) * 2400
            assert await upload(circuit, server.port, data) == hashlib.sha256(data).hexdigest()
        assert sorted(got) == sent
        assert not circuit.closed

    rig(body)


def test_fifty_mebibytes_and_every_sendme(rig):
    """Through stock guard, our middle, stock exit: 105,000 cells, each hundredth of which the
    exit waits for a SENDME that quotes the right digest."""

    async def body(rig):
        circuit = await rig.proxy.build_circuit(rig.path("sos"))
        async with FileServer(50 * MIB) as server:
            assert await download(circuit, server.port) == server.sha256
        cells = -(-50 * MIB // 498)
        assert rig.ours[0].hooks.cells > cells + cells // 100 + cells // 50
        assert not circuit.closed

    rig(body)


def test_our_exit_takes_the_acknowledgements_of_our_client_through_stock_relays(rig):
    async def body(rig):
        circuit = await rig.proxy.build_circuit(rig.path("sso"))
        async with FileServer(4 * MIB) as server:
            assert await download(circuit, server.port) == server.sha256

    rig(body)


def test_a_stock_relay_uses_the_link_that_we_opened(rig):
    """Since we authenticate, it takes us for a relay and sends CREATE2 down the same link."""

    async def body(rig):
        ours, stock = rig.ours[0], rig.stock[0]
        first = await rig.proxy.build_circuit([ours.info, stock.info])
        links = len(ours.router._links)
        second = await rig.proxy.build_circuit([stock.info, ours.info])
        assert len(ours.router._links) == links, "it has not called us"
        assert len(ours.router.circuits) == 2
        got = []
        second.on_payment = lambda *payment: got.append(payment)
        second.send_payment(1, 5, b"down the link")
        while not got:
            await asyncio.sleep(0.01)
        assert got == [(1, 6, b"knil eht nwod")]
        assert not first.closed

    rig(body)


def test_each_knows_the_other(rig):
    """A stock relay that extends to ours authenticates; so does ours to it, or it would not have
    been given a circuit down the link in the test before."""

    async def body(rig):
        await rig.proxy.build_circuit(rig.path("sos"))
        (at_ours,) = rig.ours[0].router.circuits
        stock = rig.stock[0].info
        assert at_ours._previous.peer.rsa_fingerprint == stock.rsa_fingerprint
        assert at_ours._previous.peer.ed25519_identity == stock.ed25519_identity
        assert at_ours._next.peer.ed25519_identity == rig.stock[1].info.ed25519_identity

    rig(body)


def test_a_stock_relay_that_is_somebody_else_is_left(rig):
    async def body(rig):
        one, other = rig.stock[0].info, rig.stock[1].info
        wrong = RouterInfo("wrong", one.host, one.port, other.rsa_fingerprint,
                           other.ed25519_identity, other.ntor_key)
        with pytest.raises(ProtocolViolation) as refused:
            await rig.proxy.build_circuit([wrong])
        assert refused.value.reason is DestroyReason.OR_IDENTITY
        with pytest.raises(CircuitClosed):
            await rig.proxy.build_circuit([rig.ours[0].info, wrong])

    rig(body)


def test_our_relay_is_told_when_a_circuit_ends_behind_and_before_it(rig, tmp_path):
    """DESTROY from a stock relay becomes TRUNCATED for the client, and the other way round."""

    async def body(rig):
        dying = StockRelay(tmp_path, "dying")
        with running(dying):
            circuit = await rig.proxy.build_circuit(
                [rig.stock[0].info, rig.ours[0].info, dying.info])
            (at_ours,) = rig.ours[0].router.circuits
        while not circuit.closed:
            await asyncio.sleep(0.01)
        while not at_ours.closed:
            await asyncio.sleep(0.01)
        circuit = await rig.proxy.build_circuit(rig.path("sos"))
        (at_ours,) = rig.ours[0].router.circuits
        await circuit.close()
        while not at_ours.closed:
            await asyncio.sleep(0.01)

    rig(body)


def test_a_stock_hop_ends_the_circuit_that_it_should_truncate(rig, tmp_path):
    """tor-spec calls TRUNCATE unused, and tor 0.4.9 refuses it: our middle hears DESTROY, the
    client too."""

    async def body(rig):
        guard = StockRelay(tmp_path, "cutting")
        with running(guard):
            circuit = await rig.proxy.build_circuit(
                [guard.info, rig.ours[0].info, rig.stock[0].info])
            (at_ours,) = rig.ours[0].router.circuits
            circuit._core.truncate(0)
            while not (circuit.closed and at_ours.closed):
                await asyncio.sleep(0.01)

    rig(body)


def test_stock_relays_drop_payments(rig, tmp_path):
    """Nobody pays a stock hop; one that got a payment by mistake says so in its log, and serves."""

    async def body(rig):
        guard = StockRelay(tmp_path, "unpaid")
        with running(guard):
            circuit = await rig.proxy.build_circuit([guard.info, *rig.path("so")])
            circuit.send_payment(0, 1, b"relay cell")
            circuit.send_payment(0, 1, b"link cell", link=True)
            async with FileServer(MIB) as server:
                assert await download(circuit, server.port) == server.sha256
        assert "Received unknown relay command 200" in guard.log()
        assert "Cell of unknown type (13)" in guard.details()

    rig(body)


def test_nothing_of_ours_is_a_violation_to_stock_relays(stock):
    """With ProtocolWarnings on, tor says at level warn what it does not like; so far nothing."""
    assert [line for one in stock for line in one.warnings()] == []
