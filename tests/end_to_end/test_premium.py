# SPDX-License-Identifier: BSD-3-Clause
"""Premium is bought, runs out and comes back on a living circuit; who cheats is found out."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import pytest

from monetor_chain.parameters import DEMO
from offchain.agents.client import ClientAgent
from offchain.agents.download import Target, fetch
from offchain.agents.premium import priority_of
from offchain.agents.relay import RelayAgent
from offchain.policy.tit_for_tat import Stance
from offchain.transport.priority import Windows
from offchain.transport.proxy import OnionProxy
from offchain.transport.scheduler import Discipline
from tests.end_to_end.conftest import Background
from tests.end_to_end.file_server import FileServer

RATE = 800_000
PREMIUM, OTHERS = Windows(2500, 1250), Windows(500, 250)


class Scarce(RelayAgent):
    """A guard that carries little, first come, first served: what counts are the windows. The exit
    can be made to cheat: it then takes payments, and serves nobody better for them."""

    cheats = False

    def __init__(self, *arguments, is_guard=False, **options):
        limits = {"rate": RATE, "burst": RATE // 5, "discipline": Discipline.FIFO}
        super().__init__(*arguments, is_guard=is_guard, **options, **(limits if is_guard else {}))

    def circuit_opened(self, circuit):
        super().circuit_opened(circuit)
        if self.cheats:
            self._served[circuit.id].premium = Nothing()


class Nothing:
    """Stands where a relay keeps its word."""

    def established(self, session):
        pass

    def ended(self, session):
        pass

    def update(self):
        pass


class Careful(ClientAgent):
    """A client that can be made to put its circuits to the test, quickly."""

    sample_seconds = 0.4

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.satisfied = 0

    def served_well(self, paid):
        super().served_well(paid)
        self.satisfied += 1


@pytest.fixture(scope="module")
def scarce(tmp_path_factory):
    found = Background(tmp_path_factory.mktemp("scarce"), speed=2.0, relay_agent=Scarce,
                       client_agent=Careful, client_tokens=600_000, client_channels=8,
                       client_deposit=70_000, guard_deposit=300_000)
    try:
        found.start()
        yield found
    finally:
        found.stop()


async def until(condition, seconds=30):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


def ends(network, paid):
    """The client's edge of a circuit, and the three relays' circuits, guard first."""
    circuits = []
    number = paid.circuit._core._circ_id
    for name in ("guard", "middle", "exit"):
        (found,) = [one for one in network.relays[name]._router.circuits
                    if one._previous_id == number]
        circuits.append(found)
        number = found._next_id
    return paid.circuit._core.edge, circuits


def packages(edge):
    """The sizes of the circuit's window and of its streams' windows."""
    return {edge.package.size, *(stream.package.size for stream in edge._streams.values())}


def sizes(windows):
    return {windows.circuit, windows.stream}


def test_the_parameters_make_these_windows():
    assert priority_of(DEMO).windows(premium=True) == PREMIUM
    assert priority_of(DEMO).windows(premium=False) == OTHERS


def test_a_circuit_is_promoted_demoted_and_promoted_again_without_breaking(scarce):
    """By payment, by credit that runs out because the client pays no more, and by payment."""
    network = scarce.network
    client = network.client

    async def work(url):
        await client.prepare_sessions(2)
        paid = await client.build_circuit()
        edge, circuits = ends(network, paid)
        exit_ = circuits[-1].edge
        await until(lambda: exit_.package.size == PREMIUM.circuit)
        assert all(one.premium for one in circuits)
        assert edge.package.size == PREMIUM.circuit
        assert edge.deliver.limit == exit_.deliver.limit == PREMIUM.circuit
        download = asyncio.create_task(fetch(paid.circuit, Target.of(url), lambda *_: None))
        await until(lambda: exit_._streams and packages(exit_) == sizes(PREMIUM))
        assert packages(edge) == sizes(PREMIUM)
        # A client that stops paying within its credit.
        paid.take_stance(Stance.WITHHOLD)
        await until(lambda: not any(one.premium for one in circuits))
        assert packages(exit_) == sizes(OTHERS)
        await until(lambda: packages(edge) == sizes(OTHERS))
        assert not paid.circuit.closed and not download.done()
        served = network.relays["exit"]._served[circuits[-1].id]
        assert served.credit.left <= 0
        paid.take_stance(Stance.PAY)
        await until(lambda: all(one.premium for one in circuits))
        await until(lambda: exit_.package.size == edge.package.size == PREMIUM.circuit)
        assert (await download).sha256 == server.sha256
        assert not paid.circuit.closed
        await client.close_sessions()

    with FileServer(6 << 20) as server:
        scarce.run(work(server.url))


def test_an_established_session_alone_is_not_enough_for_the_exits_windows(scarce):
    """They wait for the first payment, which says that the client allows them."""
    network = scarce.network
    client = network.client

    async def work():
        await client.prepare_sessions(2)
        pay, client.pay_once = client.pay_once, lambda hop, session: None
        try:
            paid = await client.build_circuit()
            edge, circuits = ends(network, paid)
            assert edge.package.size == PREMIUM.circuit, "the exit has allowed it"
            assert all(one.premium for one in circuits), "a session with credit"
            exit_ = circuits[-1].edge
            assert exit_.deliver.limit == PREMIUM.circuit
            assert exit_.package.size == OTHERS.circuit
        finally:
            client.pay_once = pay
        await client.close_sessions()

    scarce.run(work())


@contextlib.asynccontextmanager
async def crowd(network, url, count=3):
    """Circuits of clients that do not pay, and download all the time through the same relays."""
    listed = {one.info.nickname: one.info for one in network.client.consensus.routers}
    path = [listed[name] for name in ("guard", "middle", "exit")]
    priority = priority_of(DEMO)
    proxies = [OnionProxy(priority=lambda: priority) for _ in range(count)]
    circuits = [await proxy.build_circuit(path) for proxy in proxies]
    downloads = [asyncio.create_task(fetch(one, Target.of(url), lambda *_: None))
                 for one in circuits]
    try:
        yield circuits
    finally:
        for one in downloads:
            one.cancel()
        await asyncio.gather(*downloads, return_exceptions=True)
        for proxy in proxies:
            await proxy.close()


@pytest.mark.long
def test_paying_and_other_clients_share_a_guard_as_their_windows_say(scarce):
    """With real payments to every hop: five to one, at p = 0.25 and α = 0.5."""
    network = scarce.network
    client = network.client

    async def work(url):
        await client.prepare_sessions(2)
        async with crowd(network, url) as others:
            paid = await client.build_circuit()
            download = asyncio.create_task(client.download(url))
            circuits = [paid.circuit, *others]
            await asyncio.sleep(8)
            before = [one.cells_received for one in circuits]
            await asyncio.sleep(12)
            mine, *theirs = [one.cells_received - cells
                             for one, cells in zip(circuits, before, strict=True)]
            download.cancel()
            await asyncio.gather(download, return_exceptions=True)
        await client.close_sessions()
        return mine / (sum(theirs) / len(theirs))

    with FileServer(200 << 20) as server:
        ratio = scarce.run(work(server.url), 180)
    print(f"premium / others: {ratio:.2f}")
    assert 3.5 < ratio < 6.5


@pytest.mark.long
def test_a_client_goes_on_paying_relays_that_serve_it_better(scarce):
    network = scarce.network
    client = network.client
    client._tit_for_tat = True

    async def work(url):
        await client.prepare_sessions(2)
        async with crowd(network, url):
            paid = await client.build_circuit()
            download = asyncio.create_task(client.download(url))
            await until(lambda: paid.stance is not Stance.PAY, 60)
            assert paid.stance is Stance.WITHHOLD
            await until(lambda: paid.stance is not Stance.WITHHOLD, 60)
            assert paid.stance is Stance.PAY and client.satisfied == 1
            assert not client.doubts and client.patience.in_a_row == 0
            before = client.sent("exit")
            await until(lambda: client.sent("exit") > before + 5)
            download.cancel()
            await asyncio.gather(download, return_exceptions=True)
        await client.close_sessions()

    with FileServer(200 << 20) as server:
        scarce.run(work(server.url), 180)


@pytest.mark.long
def test_a_client_leaves_a_relay_that_takes_payment_and_gives_no_premium(scarce):
    network = scarce.network
    client, exit_ = network.client, network.relays["exit"]
    client._tit_for_tat = True

    async def work(url):
        exit_.cheats = True
        await client.prepare_sessions(2)
        try:
            async with crowd(network, url):
                paid = await client.build_circuit()
                download = asyncio.create_task(client.download(url))
                await until(lambda: paid.stance is Stance.LEAVE, 90)
                received = exit_.received
                assert received > 0, "it took payment"
                await asyncio.sleep(2)
                assert exit_.received <= received + 1, "and gets no more"
                assert not paid.circuit.closed, "the download goes on"
                cheat = paid.circuit.hops[-1].ed25519_identity
                assert client.doubts[cheat] == 1
                # What comes next goes another way; here there is none, but another circuit.
                await client.prepare_sessions(2)
                assert await client.build_circuit() is not paid
                download.cancel()
                await asyncio.gather(download, return_exceptions=True)
                await until(lambda: paid.circuit.closed)
            await client.close_sessions()
        finally:
            exit_.cheats = False

    with FileServer(200 << 20) as server:
        scarce.run(work(server.url), 200)


def test_paths_avoid_relays_that_are_doubted(scarce):
    from offchain.agents.client import choose_path
    consensus = scarce.network.client.consensus
    relays = consensus.relays()
    both = [replace(one, exit=one.info.nickname != "guard") for one in relays]
    consensus = replace(consensus, routers=tuple(both))
    doubted = next(one for one in both if one.info.nickname == "exit")
    for _ in range(20):
        path = choose_path(consensus, doubted.accepts, {doubted.info.ed25519_identity: 1})
        assert path[-1].nickname == "middle"
