# SPDX-License-Identifier: BSD-3-Clause
"""A stock authority's network in which relays of ours are members like others."""

from __future__ import annotations

import asyncio
import hashlib
import time
import urllib.request

import pytest

from offchain.agents.directory import DirectoryError
from offchain.agents.tor_directory import fetch_network_status, publish_descriptor
from offchain.transport.network_status import DirectoryDocumentError, choose_hops
from offchain.transport.proxy import OnionProxy
from tests.interop.private_network import PrivateNetwork
from tests.interop.stock_tor import HOST, PATIENCE, FileServer, StockClient, zlib_or_plain
from tests.interop.test_stock_relays import download

MIB = 1 << 20


async def use(network, folder, name, more="", *, resolve=False):
    """A fresh stock client bootstraps and fetches a file; returns cells that passed our relays."""
    client = StockClient(folder, name, network.authority.lines, more)
    before = [one.hooks.cells for one in network.ours]
    async with FileServer(MIB) as server:
        client.start()
        try:
            await asyncio.to_thread(client.wait, client.bootstrapped, "bootstrap")
            async with asyncio.timeout(PATIENCE):
                body = await client.fetch(server.port)
                assert hashlib.sha256(body).hexdigest() == server.sha256
                if resolve:
                    address, _, writer = await client.connect(0xF0, "localhost", 0)
                    writer.close()
                    assert address == b"\x7f\0\0\1"
            assert not client.warnings()
        finally:
            client.stop()
    return [one.hooks.cells - was for one, was in zip(network.ours, before, strict=True)]


CELLS = MIB // 498


def test_stock_clients_use_our_relays_and_we_read_the_consensus(tmp_path):
    """The authority has tried our relays and lists them; a stock client fetches its directory and
    a file through them, in every place; our client chooses hops of that network and pays."""

    async def main():
        async with PrivateNetwork(tmp_path, ours=3, stock=2) as network:
            passed = await use(network, tmp_path, "any")
            assert sum(passed) > CELLS, "with three of five, every circuit has one of ours"
            assert sum(one.hooks.circuits for one in network.ours) > 0
            ours = ",".join(f"${one.info.rsa_fingerprint.hex()}" for one in network.ours)
            passed = await use(network, tmp_path, "resolving", f"ExitNodes {ours}\n"
                               "StrictNodes 1\n", resolve=True)
            assert sum(passed) > CELLS
            # The exit is stock: its handshake is one that we do not know (ntor v3), and it
            # authenticates the command of every cell (CGO), which has to pass guard and middle of
            # ours as it is.
            exit_ = network.stock[0].info.rsa_fingerprint.hex()
            passed = await use(network, tmp_path, "mixed", f"ExitNodes ${exit_}\nStrictNodes 1\n"
                               f"EntryNodes {ours}\nMiddleNodes {ours}\n")
            assert len([one for one in passed if one > CELLS]) == 2
            await _we_read_it(network)

    asyncio.run(main())


async def _we_read_it(network):
    status = await fetch_network_status(network.directory, {network.authority.v3_identity})
    found = {one.info.nickname: one for one in status.routers}
    # The authority may have described itself anew since, and keeps none of its old descriptors.
    assert set(found) - {"authority"} == {"stock0", "stock1", "ours0", "ours1", "ours2"}
    for one in network.ours:
        assert found[one.name].info == one.info
        assert found[one.name].paid == network.paid
        assert {"Exit", "Guard", "Running", "V2Dir"} <= found[one.name].flags
        assert found[one.name].accepts_streams
    for one in network.stock:
        assert found[one.name].info == one.info and found[one.name].paid is None
    with pytest.raises(DirectoryDocumentError, match="0 of 1"):
        await fetch_network_status(network.directory, {bytes(20)})

    proxy = OnionProxy()
    async with FileServer(MIB) as server:
        paid = choose_hops(status, paid_only=True)
        assert {one.nickname for one in paid} == {"ours0", "ours1", "ours2"}
        circuit = await proxy.build_circuit(paid)
        got = []
        circuit.on_payment = lambda hop, pcmd, payload: got.append((hop, pcmd))
        for hop in range(3):
            circuit.send_payment(hop, hop, b"payment")
        assert await download(circuit, server.port) == server.sha256
        assert sorted(got) == [(0, 1), (1, 2), (2, 3)]
        mixed = [network.stock[0].info, network.ours[0].info, network.stock[1].info]
        circuit = await proxy.build_circuit(mixed)
        assert await download(circuit, server.port) == server.sha256
    await proxy.close()

    # Caches keep the line of ours, and serve it to clients.
    text = await asyncio.to_thread(_get, network.authority.directory_port, "/tor/server/all")
    assert text.count(network.paid.line().encode()) == 3
    with pytest.raises(DirectoryError, match="refuses the descriptor"):
        await publish_descriptor(network.directory, "\ufeff")


def _get(port, path):
    with urllib.request.urlopen(f"http://{HOST}:{port}{path}", timeout=10) as answer:
        return zlib_or_plain(answer.read())


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_nine_times_in_ten(tmp_path):
    """Ten networks, each with a client that has never seen it: at least nine fetch the file, over
    circuits with a relay of ours."""
    outcomes = []

    async def main(number):
        folder = tmp_path / str(number)
        folder.mkdir()
        async with PrivateNetwork(folder, ours=3, stock=2) as network:
            begun = time.monotonic()
            passed = await use(network, folder, "client")
            return sum(passed) > CELLS, time.monotonic() - begun

    for number in range(10):
        try:
            outcomes.append(asyncio.run(main(number)))
        except Exception as error:  # noqa: BLE001 - a run that fails is what is counted
            outcomes.append((False, repr(error)))
    assert sum(good for good, _ in outcomes) >= 9, outcomes
