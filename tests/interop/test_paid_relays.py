# SPDX-License-Identifier: BSD-3-Clause
"""Paid relays as processes of their own that are members of a stock network as well."""

from __future__ import annotations

import asyncio
import time

import pytest

from monetor_chain.chain import Chain
from monetor_chain.deployment import attach
from offchain.agents.directory import DirectoryError
from offchain.agents.place import raw_address
from offchain.agents.tor_directory import fetch_network_status
from offchain.transport.errors import TransportError
from tests.end_to_end.file_server import FileServer as HttpServer
from tests.end_to_end.parties import RELAYS, Parties
from tests.interop.stock_tor import (
    HOST,
    PATIENCE,
    FileServer,
    StockAuthority,
    StockClient,
    StockRelay,
    running,
)

MIB = 1 << 20


class Members(Parties):
    """Parties whose relays describe themselves to a stock authority."""

    def __init__(self, folder, authority):
        super().__init__(folder)
        self.authority = authority

    def start_relay(self, name, wait=True, dies=()):
        process = self.run(name, "run_relay", name, *RELAYS[name], "--tor-authority",
                           f"{HOST}:{self.authority.directory_port}", "--bandwidth", "20000000",
                           dies=dies)
        if wait:
            process.wait_for_facts()
        return process

    def ledger(self):
        async def work():
            async with await Chain.connect(self.endpoint) as chain:
                deployment = await attach(chain, self.folder / "deployments")
                return deployment.chain_id, raw_address(deployment.ledger)
        return asyncio.run(work())


def listed(authority):
    """The network once it lists the paid relays."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            status = asyncio.run(fetch_network_status(
                (HOST, authority.directory_port), {authority.v3_identity}))
        except (DirectoryError, TransportError):
            found = {}
        else:
            found = {one.info.nickname: one for one in status.routers}
        if found.keys() >= {*RELAYS, "stock"}:
            return found
        assert time.monotonic() < end, f"listed: {sorted(found)}\n{authority.log()[-2000:]}"
        time.sleep(0.5)


async def fetch_as_stock_client(client):
    async with FileServer(MIB) as server:
        await asyncio.to_thread(client.wait, client.bootstrapped, "bootstrap")
        async with asyncio.timeout(PATIENCE):
            return len(await client.fetch(server.port))


@pytest.mark.long
def test_the_same_relays_serve_those_who_pay_and_stock_clients(tmp_path):
    authority = StockAuthority(tmp_path)
    stock = StockRelay(tmp_path, "stock", authority.lines, "ExitPolicy accept *:*\n")
    with running(authority, stock), Members(tmp_path / "parties", authority) as parties, \
            HttpServer(MIB) as server:
        found = listed(authority)
        chain_id, ledger = parties.ledger()
        for name in RELAYS:
            paid = found[name].paid
            assert (paid.chain_id, paid.ledger) == (chain_id, ledger)
            facts = parties.processes[name].facts()[0]
            assert "0x" + paid.account.hex() == facts["account"]
            assert len(paid.intermediaries) == 1
        client = StockClient(tmp_path, "client", authority.lines)
        client.start()
        try:
            # Paid exits of this kind connect to loopback only, which no microdescriptor can say:
            # the stock client's exit is the stock relay, guard and middle are paid relays.
            assert asyncio.run(fetch_as_stock_client(client)) == MIB
            paying = parties.start_client(server.url)
            assert paying.end(120) == 0, paying.said()
            assert paying.facts()[-1]["sha256"] == server.sha256
            assert paying.facts()[-1]["sent"]["exit"] > 0
        finally:
            client.stop()
