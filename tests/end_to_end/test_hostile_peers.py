# SPDX-License-Identifier: BSD-3-Clause
"""Peers that send garbage, nothing, or do not pay; the agents go on, and no unit is lost."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque

import pytest

from offchain.agents import relay
from offchain.agents.end_user import EndUserAgent
from offchain.agents.intermediary import IntermediaryAgent
from offchain.agents.relay import RelayAgent
from offchain.protocol import guard, messages
from offchain.protocol.errors import ProtocolError
from offchain.protocol.messages import Refusal, unpack
from offchain.protocol.records import Table
from offchain.protocol.sessions import ClientPhase, RelayPhase, RelaySession
from offchain.protocol.wallet import Idle, Settled
from tests.end_to_end.conftest import Background
from tests.end_to_end.file_server import FileServer

PCMDS = sorted({one.PCMD for one in vars(messages).values() if hasattr(one, "PCMD")})


class Impatient(RelayAgent):
    """A relay that closes unpaid and idle sessions soon."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, unpaid_seconds=1.5, idle_seconds=3.0, **options)


class Moody(IntermediaryAgent):
    """An intermediary that can be made to answer garbage, or nothing."""

    mood = "honest"

    def payment_received(self, circuit, pcmd, payload, *, link):
        if self.mood == "honest":
            super().payment_received(circuit, pcmd, payload, link=link)
        elif self.mood == "garbage":
            circuit.send_payment(secrets.choice(PCMDS), secrets.token_bytes(secrets.randbelow(900)))


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory):
    """A network whose relays are impatient and whose intermediary is moody."""
    found = Background(tmp_path_factory.mktemp("disturbed"), speed=8.0, relay_agent=Impatient,
                       intermediary_agent=Moody)
    try:
        found.start()
        yield found
    finally:
        found.stop()


async def _replies(proxy, path, sendings, count, link=False):
    """What the last hop answers to each of `sendings` (PCMD, payload)."""
    circuit = await proxy.build_circuit(path)
    got = []
    circuit.on_payment = lambda hop, pcmd, payload: got.append((pcmd, payload))
    try:
        for pcmd, payload in sendings:
            circuit.send_payment(len(path) - 1, pcmd, payload, link)
            await asyncio.sleep(0.002)
        async with asyncio.timeout(30):
            while len(got) < count and not circuit.closed:
                await asyncio.sleep(0.02)
        assert not circuit.closed
    finally:
        await circuit.close()
    return got


def _garbage():
    """For every PCMD, and some that there are not: nothing, noise, and noise of the right size."""
    for pcmd in [*PCMDS, 0, 9, 199, 255]:
        yield pcmd, b""
        yield pcmd, secrets.token_bytes(secrets.randbelow(1500))
        # Small numbers get further than noise: many fields are lengths or counts.
        yield pcmd, bytes(secrets.randbelow(3) for _ in range(secrets.randbelow(1500)))


@pytest.mark.parametrize("target", ["guard", "middle", "intermediary"])
def test_garbage_is_refused_message_by_message(disturbed, target):
    network = disturbed.network
    listed = {one.info.nickname: one.info for one in network.client.consensus.routers}
    sendings = list(_garbage())
    path = ([listed["guard"]] if target == "guard" else
            [listed["guard"], listed[target]])
    got = disturbed.run(_replies(network.client.proxy, path, sendings, len(sendings),
                                 link=target == "guard"))
    agent = network.intermediary if target == "intermediary" else network.relays[target]
    assert agent.engine.tasks.failure is None
    refusals = [one for one in got if isinstance(unpack(*one), Refusal)]
    # One that asks for something harmless (a payout address, a deadline) may be answered.
    assert len(got) == len(sendings) and len(refusals) >= len(sendings) - 6
    if target != "intermediary":
        # What strangers name is not remembered.
        assert not agent._circuit_of


def test_a_guard_names_no_more_payout_addresses_than_it_would_keep(disturbed, monkeypatch):
    network = disturbed.network
    agent = network.relays["guard"]
    path = [one.info for one in network.client.consensus.routers if one.info.nickname == "guard"]
    query = [(messages.GuardQuery.PCMD, b"")]

    def ask():
        """Each circuit is named one."""
        return unpack(*disturbed.run(_replies(network.client.proxy, path, query, 1, link=True))[0])

    monkeypatch.setattr(relay, "PAYOUTS", 3)
    monkeypatch.setattr(agent, "_named", deque(maxlen=3))
    answers = [ask() for _ in range(5)]
    assert [isinstance(one, messages.GuardPayout) for one in answers] == [True] * 3 + [False] * 2
    assert isinstance(answers[-1], Refusal)
    assert len({one.payout for one in answers[:3]}) == 3
    monkeypatch.setattr(relay, "PAYOUT_SECONDS", 0.0)
    assert isinstance(ask(), messages.GuardPayout)


def test_messages_of_the_right_form_and_false_content_are_refused(disturbed):
    """Every request of the protocol, replayed from an honest exchange with one byte changed."""
    network = disturbed.network
    agent, recorded = network.intermediary, []
    honest = agent.engine.machine.handle

    def record(records, moment, pcmd, payload, verdicts=None):
        recorded.append((pcmd, payload))
        return honest(records, moment, pcmd, payload, verdicts)

    agent.engine.machine.handle = record
    try:
        disturbed.run(network.client.prepare_sessions(1))
        disturbed.run(network.client.close_sessions())
    finally:
        agent.engine.machine.handle = honest
    assert len({pcmd for pcmd, _ in recorded}) >= 5
    changed = []
    for pcmd, payload in recorded:
        for _ in range(4):
            at = secrets.randbelow(len(payload))
            changed.append((pcmd, payload[:at] + bytes([payload[at] ^ (1 << secrets.randbelow(8))])
                            + payload[at + 1:]))
    listed = {one.info.nickname: one.info for one in network.client.consensus.routers}
    got = disturbed.run(_replies(network.client.proxy, [listed["guard"], listed["intermediary"]],
                                 changed, len(changed)))
    assert all(isinstance(unpack(*one), Refusal) for one in got)
    assert agent.engine.tasks.failure is None


def _relay_sessions(relay, phase=None):
    return [one for _, one in relay.records().scan(Table.SESSION)
            if isinstance(one, RelaySession) and (phase is None or one.phase is phase)]


async def _until(condition, seconds=20):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)


def test_a_session_that_nobody_pays_gives_its_channel_back(disturbed):
    network = disturbed.network
    client, exit_ = network.client, network.relays["exit"]

    async def work():
        closed = len(_relay_sessions(exit_, RelayPhase.CLOSED))
        await client.prepare_sessions(2)
        pay, client.pay_once = client.pay_once, lambda hop, session: None
        try:
            await client.build_circuit()
            await _until(lambda: _relay_sessions(exit_, RelayPhase.ACTIVE), 5)
            await _until(lambda: len(_relay_sessions(exit_, RelayPhase.CLOSED)) > closed)
            assert all(isinstance(one, Idle) for one in exit_.wallets())
            await client.close_sessions()
        finally:
            client.pay_once = pay

    disturbed.run(work())
    assert not client.routes and not client.pool._taken


def test_a_session_closed_for_idleness_is_replaced_when_the_client_goes_on(disturbed):
    network = disturbed.network
    client, exit_ = network.client, network.relays["exit"]
    size = 1 << 20

    async def work(url):
        before = exit_.received, client.sent("exit")
        await client.prepare_sessions(2)
        await client.download(url)
        first = client.sent("exit")
        await _until(lambda: not _relay_sessions(exit_, RelayPhase.ACTIVE))
        await client.download(url)
        # The replacement takes a moment, and then pays what has come due since.
        await _until(lambda: _relay_sessions(exit_, RelayPhase.ACTIVE))
        await client.download(url)
        paid = client.circuits[0].hops
        assert not any(hop.refused for hop in paid), paid
        assert client.sent("exit") - first >= 2 * size // 498 // 100 - 3
        # Refused payments were counted as sent, not as received, and there are few of them.
        lost = (client.sent("exit") - before[1]) - (exit_.received - before[0])
        assert 0 <= lost <= 20
        await client.close_sessions()

    with FileServer(size) as server:
        disturbed.run(work(server.url))
    assert not client.routes and not client.pool._taken and not client.circuits


def test_a_guard_channel_goes_on_where_a_lost_payment_left_it(disturbed):
    """A payment that the circuit took with it must not end the channel's use."""
    network = disturbed.network
    client, guard_ = network.client, network.relays["guard"]

    async def work(url):
        await client.prepare_sessions(2)
        await client.build_circuit()
        channel = client.guards()[0]
        # One payment leaves the client's account and never arrives.
        client.engine.step(lambda records, moment, outbox: guard.pay_guard(
            records, moment, channel))
        await client.close_sessions()
        before = guard_.guard_received
        await client.prepare_sessions(2)
        await client.download(url)
        await client.close_sessions()
        return guard_.guard_received - before

    with FileServer(1 << 19) as server:
        assert disturbed.run(work(server.url)) >= (1 << 19) // 498 // 100


@pytest.mark.parametrize("mood", ["garbage", "nothing"])
def test_an_intermediary_that_answers_garbage_or_nothing_costs_nobody_a_unit(
        disturbed, mood, monkeypatch):
    """Last in this file: afterwards the channels in use are claimed on the ledger."""
    monkeypatch.setattr("offchain.agents.intermediary_port.ANSWER_TIMEOUT", 1.0)
    network = disturbed.network
    client = network.client
    agent: EndUserAgent = client

    async def work():
        free = [one for one in client.wallets() if isinstance(one, Idle)]
        balance = {one.cid: one.balance for one in free}
        network.intermediary.mood = mood
        try:
            with pytest.raises(TimeoutError, match="0 of 1 sessions are set up"):
                await client.prepare_sessions(1, timeout=2)
            # It counts as silent after two safety margins; then the ledger is asked.
            await _until(lambda: not any(
                one.phase is ClientPhase.REQUESTED for _, one in client._sessions()), 60)
            busy = [cid for cid in balance if cid not in {
                one.cid for one in client.wallets() if isinstance(one, Idle)}]
            assert busy
            await network.chain.set_speed(24)
            await _until(lambda: all(
                isinstance(one, Settled) for one in client.wallets()
                if not isinstance(one, Idle)), 60)
        finally:
            network.intermediary.mood = "honest"
            await network.chain.set_speed(8)
        settled = {one.cid: one.amount for one in agent.wallets() if isinstance(one, Settled)}
        assert all(settled[cid] == balance[cid] for cid in busy)

    disturbed.run(work(), 200)
    assert client.engine.tasks.failure is None


def test_a_wallet_that_is_not_there_cannot_be_set_up(disturbed):
    """No idle wallet with enough in it is a sentence, not a wait."""
    payee = disturbed.network.payee
    with pytest.raises(ProtocolError, match="no idle wallet holds the 12800 units"):
        disturbed.run(payee.prepare_sessions(1))
