# SPDX-License-Identifier: BSD-3-Clause
"""The pool of sessions and the groups behind it, on running agents; wallets that add up."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from monetor_chain.accounts import dev_key
from monetor_chain.audit import audit
from monetor_chain.parameters import DEMO
from offchain.agents import paid_circuit
from offchain.agents.client import ClientAgent
from offchain.agents.relay import RelayAgent
from offchain.agents.wallet_report import read_report
from offchain.policy.session_pool import FEWEST
from offchain.protocol import wallet as wallets
from offchain.protocol.records import Table
from offchain.protocol.resting import begin_rest
from offchain.protocol.sessions import ClientPhase, RelayPhase, RelaySession
from offchain.protocol.wallet import Idle
from tests.end_to_end.conftest import Background
from tests.end_to_end.file_server import FileServer

SHORT = replace(DEMO, n=32)
"""Sessions that are used up soon."""
COST = SHORT.n * SHORT.price
SIZE = 2 * 1024 * 1024
PAYMENTS = SIZE // 498 // SHORT.cells_per_payment
SLOW = 150 * 1024
"""Bytes per second: half a session takes longer than it takes to establish the next one."""


class Watchful(RelayAgent):
    """A relay that counts the cells which pass on a paid circuit while no session can pay for them.

    Premium also asks for credit, which lags on a busy machine; a succession must not cost any.
    """

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.paid = set()
        self.lost = 0

    def cells_passed(self, circuit, count):
        super().cells_passed(circuit, count)
        served = self._served.get(circuit.id)
        active = served is not None and any(
            isinstance(one, RelaySession) and one.phase is RelayPhase.ACTIVE
            for one in (self.records().get(Table.SESSION, key) for key in served.sessions))
        if active:
            self.paid.add(circuit.id)
        elif circuit.id in self.paid:
            self.lost += count


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """Each channel of the client pays for one session, each relay has two channels."""
    found = Background(tmp_path_factory.mktemp("short"), speed=4.0, parameters=SHORT,
                       relay_agent=Watchful, client_channels=4, client_deposit=COST,
                       relay_channels=2)
    try:
        found.start()
        yield found
    finally:
        found.stop()


def report(network, name):
    return read_report(network.options.folder / name / "store.sqlite")


def check_wallet(found):
    """What was escrowed is there, paid, or earned, to the unit."""
    total = {one.what: 0 for one in found.history}
    for one in found.history:
        total[one.what] += one.amount
    moved = total.get("earned", 0) - total.get("paid", 0) + total.get("hidden-payment", 0)
    sign = 1 if found.role == "relay" else -1
    assert found.worth.total == (total["escrowed"] + moved + sign * found.unsettled), found.history


async def check_ledger(network):
    """The parties' groups are what the ledger holds in channels, and its books agree."""
    books = await audit(network.contracts.ledger, network.contracts.token,
                        network.deployment.block)
    assert not books.disagreements
    groups = [one for name in ("client", "client2", *network.relays)
              for one in report(network, name).groups]
    assert books.totals.escrow == sum(one.channels * (one.deposit + one.fund) for one in groups)


async def until(condition, seconds=30):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)


def test_a_download_outlives_sessions_and_groups_without_a_gap(short):
    network = short.network
    client = network.client
    found = {}

    async def work(url):
        for name in ("middle", "exit"):
            relay = network.relays[name]
            relay.engine.tasks.start("channels", relay.keep_channels())
        client.keep_ready(deposit=COST)
        await until(lambda: len(client.pool.ready()) >= FEWEST)
        download = asyncio.create_task(client.download(url))
        while not download.done():
            # Read from the outside, as `monetor wallet` does, while everything goes on.
            for name in ("client", "middle", "exit"):
                found.setdefault(name, []).append(await asyncio.to_thread(report, network, name))
            await asyncio.sleep(0.3)
        size = (await download).size
        await client.close_sessions()
        await until(lambda: all(
            not report(network, name).sessions for name in ("middle", "exit")))
        await check_ledger(network)
        return size, client.sent("exit"), network.relays["exit"].received

    with FileServer(SIZE, per_second=SLOW) as server:
        size, sent, received = short.run(work(server.url))
    assert size == SIZE and sent == received >= PAYMENTS > SHORT.n
    for name in ("middle", "exit"):
        assert network.relays[name].paid and not network.relays[name].lost, name
    # More sessions than the first group could pay for, and so another one.
    groups = report(network, "client").groups
    assert len(groups) >= 2 and groups[0].intermediary == "intermediary"
    assert any(len(report(network, name).groups) >= 2 for name in ("middle", "exit"))
    for name, seen in found.items():
        for one in [*seen, report(network, name)]:
            check_wallet(one)
    assert any(one.unsettled for one in found["client"])
    assert client.engine.tasks.failure is None


def test_a_circuit_that_is_ready_is_handed_out_once(short):
    network = short.network
    client = network.client

    async def work():
        client.keep_ready(deposit=COST, clean=1)
        await until(lambda: client.paid._ready)
        ready = client.paid._ready[0][1]
        assert client.paid.is_clean(ready) and all(hop.session for hop in ready.hops)
        first = await client.paid.open()
        assert first is ready and not client.paid.is_clean(first)
        second = await client.paid.open()
        assert second is not first
        await client.close_sessions()
        assert first.circuit.closed and second.circuit.closed
        assert client.paid._ready == [] or client.paid._ready[0][1].circuit.closed

    short.run(work())
    assert client.engine.tasks.failure is None


def test_sessions_are_replaced_before_they_expire(short, monkeypatch):
    """Used ones by the next on their hop, although no cell passes; unused ones by fresh ones."""
    network = short.network
    client = network.client

    async def work():
        await client.open_channels(deposit=COST, fund=0, count=8)
        await client.prepare_sessions(2)
        paid = await client.build_circuit()
        assert not any(hop.next for hop in paid.hops)
        await client.prepare_sessions(2)
        client.keep_ready(deposit=0)
        await asyncio.sleep(1)
        assert not any(hop.next for hop in paid.hops), "there is time"
        monkeypatch.setattr(paid_circuit, "SUCCEED_BEFORE", 10**6)
        await until(lambda: all(hop.next for hop in paid.hops[1:]))
        await paid.circuit.close()
        await until(lambda: len(client.pool.ready()) >= 2)
        old = client.pool.ready()
        monkeypatch.setattr(client.pool, "_latest", lambda: 10**12)
        await until(lambda: not {key for key, one in client._sessions()
                                 if one.phase is ClientPhase.READY} & set(old))
        monkeypatch.undo()
        await until(lambda: len(client.pool.ready()) >= 2)
        await client.close_sessions()

    short.run(work())
    assert client.engine.tasks.failure is None


def test_a_wallet_that_rests_is_not_set_up_before_its_time(short):
    network = short.network
    client = network.client

    def rest(seconds):
        """As closes would have it, under a longest pause of so many seconds."""
        def draw(records, moment, outbox):
            pause = replace(moment, parameters=replace(moment.parameters, setup_pause=seconds))
            for one in client.wallets():
                begin_rest(records, pause, wallets.channel_of(one))

        client.engine.step(draw)

    async def work():
        await client.open_channels(deposit=COST, fund=0, count=1)
        rest(10**8)
        with pytest.raises(TimeoutError, match="0 of 1 sessions are set up"):
            await client.prepare_sessions(1, timeout=1.5)
        assert not report(network, "client").sessions
        rest(0)
        await client.prepare_sessions(1)
        await client.close_sessions()

    short.run(work())


def test_a_restart_finds_the_pool_as_it_was(short):
    """The same sessions are ready, nothing is set up beside them, and none is left lying."""
    network = short.network

    async def work():
        client = network.client
        await client.open_channels(deposit=COST, fund=0, count=3)
        await client.prepare_sessions(2)
        ready = sorted(client.pool.ready())
        assert len(ready) >= 2
        await client.stop()
        again = ClientAgent(network.place("client"), dev_key("client"),
                            guard_key=dev_key("client-guard"), guard_deposit=60_000)
        network._started[network._started.index(client)] = network.client = again
        await again.start()
        assert sorted(again.pool.ready()) == ready
        await again.prepare_sessions(len(ready))
        assert sorted(again.pool.ready()) == ready
        await again.build_circuit()
        used = {key for key, one in again._sessions() if one.phase is ClientPhase.ACTIVE}
        assert len(used) == 2 and used <= set(ready)
        await again.close_sessions()
        assert not report(network, "client").sessions
        assert all(isinstance(one, Idle) for one in again.wallets())

    short.run(work())
