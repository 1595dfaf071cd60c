# SPDX-License-Identifier: BSD-3-Clause
"""Following the ledger's log while the newest blocks are exchanged for others.

A snapshot's return takes blocks off the chain as a reorganisation does, and what is mined next has
other hashes.
"""

from __future__ import annotations

import asyncio

import pytest

from monetor_chain.accounts import dev_key
from monetor_chain.bindings.ledger_events import LedgerEvents
from monetor_chain.chain import Chain
from monetor_chain.deployment import bind, deploy
from monetor_chain.embedded import EmbeddedChain
from monetor_chain.errors import Reorganised
from monetor_chain.sender import Sender
from offchain.agents.engine import Engine
from offchain.protocol.ledger import Block
from offchain.protocol.moment import advance, tip
from offchain.store import Store

ROLES = ("client", "middle", "guard", "exit")


@pytest.fixture(scope="module")
def standing(tmp_path_factory):
    """The contracts on a chain that mines only when it is told to or a transaction comes."""
    folder = tmp_path_factory.mktemp("deployments")

    async def put(url):
        async with await Chain.connect(url) as chain:
            return await deploy(chain, dev_key("deployer"), directory=folder)

    with EmbeddedChain(speed=0.0) as embedded:
        yield embedded.url, asyncio.run(put(embedded.url))


class Town:
    """A ledger and accounts that can make it emit an event each, in a block of its own."""

    def __init__(self, chain, deployment):
        self.chain = chain
        self.ledger = bind(chain, deployment).ledger
        self._senders = {role: Sender(chain, dev_key(role)) for role in ROLES}

    async def emit(self, role):
        """A Withdrawn of nothing; the account's address tells the events apart."""
        await self.ledger.withdraw(self._senders[role])

    async def mine(self, blocks):
        for _ in range(blocks):
            await self.chain.mine()

    async def final(self, first):
        """Accounts of all events after block `first`, as the chain has them in the end."""
        return names(await LedgerEvents(self.ledger).since(first))


def names(batch):
    known = {Sender(None, dev_key(role)).address: role for role in ROLES}
    return [known[event.account] for event in batch.events]


def in_town(standing, work):
    url, deployment = standing

    async def run():
        async with await Chain.connect(url) as chain:
            snapshot = await chain.snapshot()
            try:
                await work(Town(chain, deployment), (await chain.latest()).number)
            finally:
                await chain.revert(snapshot)

    asyncio.run(run())


@pytest.mark.parametrize("confirmations", [1, 2, 5])
def test_no_event_of_a_replaced_block_and_none_twice(standing, confirmations):
    async def work(town, first):
        reader = LedgerEvents(town.ledger, confirmations)
        batches = []

        async def read():
            start = first
            async for batch in reader.follow(start, poll=0.01):
                batches.append(batch)

        reading = asyncio.create_task(read())
        await town.emit("client")
        await asyncio.sleep(0.1)
        for lost, kept in (("middle", "guard"), ("guard", "exit")):
            snapshot = await town.chain.snapshot()
            await town.emit(lost)
            await town.mine(confirmations - 1)
            await asyncio.sleep(0.1)
            # As deep as is allowed: the lost event's block is the oldest that goes.
            await town.chain.revert(snapshot)
            await asyncio.sleep(0.1)
            await town.emit(kept)
            await town.mine(confirmations)
            await asyncio.sleep(0.1)
        head = (await town.chain.latest()).number
        async with asyncio.timeout(10):
            while batches[-1].block.number < head - confirmations:
                await asyncio.sleep(0.02)
        reading.cancel()
        delivered = [name for batch in batches for name in names(batch)]
        assert delivered == await town.final(first) == ["client", "guard", "exit"]

    in_town(standing, work)


@pytest.mark.parametrize("confirmations", [0, 2])
def test_a_deeper_reorganisation_is_noticed(standing, confirmations):
    async def work(town, first):
        snapshot = await town.chain.snapshot()
        await town.emit("client")
        await town.mine(confirmations)
        reader = LedgerEvents(town.ledger, confirmations)
        before = await reader.since(first)
        assert names(before) == ["client"]
        await town.chain.revert(snapshot)
        # One block deeper than was waited for: the event that was delivered is gone.
        await town.emit("middle")
        await town.mine(confirmations + 1)
        with pytest.raises(Reorganised, match=rf"block {before.block.number}\b.*read the ledger"):
            await reader.since(before.block)
        # A reader that hands back a number cannot be warned.
        assert names(await reader.since(before.block.number)) == []

    in_town(standing, work)


@pytest.mark.parametrize("longer", [False, True])
def test_a_follower_stops_at_a_deeper_reorganisation(standing, longer):
    async def work(town, first):
        snapshot = await town.chain.snapshot()
        follower = LedgerEvents(town.ledger).follow(first, poll=0.01)
        await town.emit("client")
        assert names(await anext(follower)) == ["client"]
        await town.chain.revert(snapshot)
        # Also if the new chain is just as long and so has no new block to tell of.
        await town.emit("middle")
        await town.mine(int(longer))
        with pytest.raises(Reorganised):
            await asyncio.wait_for(anext(follower), 5)

    in_town(standing, work)


def test_a_shorter_chain_is_waited_for(standing):
    """An endpoint that lags behind another one looks like that: no reorganisation yet."""

    async def work(town, first):
        await town.emit("client")
        snapshot = await town.chain.snapshot()
        reader = LedgerEvents(town.ledger)
        earlier = (await reader.since(first)).block
        await town.mine(3)
        ahead = (await reader.since(earlier)).block
        await town.chain.revert(snapshot)
        short = await reader.since(ahead)
        assert short.events == () and short.block == earlier
        await town.mine(3)
        with pytest.raises(Reorganised):
            await reader.since(ahead)

    in_town(standing, work)


def test_a_block_replaced_while_its_events_are_read_is_read_again(standing, monkeypatch):
    async def work(town, first):
        snapshot = await town.chain.snapshot()
        await town.emit("client")
        ask, done = town.chain.rpc, []

        async def exchanged_meanwhile(method, *params):
            if method == "eth_getLogs" and not done:
                done.append(method)
                await town.chain.revert(snapshot)
                await town.emit("middle")
            return await ask(method, *params)

        monkeypatch.setattr(town.chain, "rpc", exchanged_meanwhile)
        reader = LedgerEvents(town.ledger)
        batch = await reader.since(first)
        assert names(batch) == ["middle"]
        assert batch.block == await town.chain.latest()
        assert (await reader.since(batch.block)).events == ()

    in_town(standing, work)


def test_at_most_so_many_blocks_at_once(standing):
    async def work(town, first):
        for role in ROLES:
            await town.emit(role)
        reader, after, found = LedgerEvents(town.ledger), first, []
        while True:
            batch = await reader.since(after, most=1)
            if not batch.events:
                break
            assert batch.block.number == first + len(found) + 1
            found += names(batch)
            after = batch.block
        assert found == list(ROLES)

    in_town(standing, work)


class Listener:
    """A machine that moves on with the blocks and has nothing else to do."""

    def on_ledger(self, records, moment, event):
        if isinstance(event, Block):
            advance(records, event)
        return []

    def tick(self, records, moment):
        return []


def listening(town, deployment, folder, first):
    consensus = bind(town.chain, deployment).consensus
    return Engine(
        "agent", Store(folder / "store.sqlite", bytes(32), "client"), Listener(),
        chain=town.chain, consensus=consensus, events=LedgerEvents(town.ledger),
        port=None, first_block=first,
    )  # fmt: skip


def test_an_agent_that_was_down_does_not_go_on_from_a_block_that_is_gone(standing, tmp_path):
    async def work(town, first):
        await town.chain.set_speed(5)
        snapshot = await town.chain.snapshot()
        engine = listening(town, standing[1], tmp_path, first)
        await engine.start()
        await town.emit("client")
        seen = (await town.chain.latest()).number
        await engine.until(lambda records: tip(records).number >= seen, 10, "block")
        await engine.stop()
        engine = listening(town, standing[1], tmp_path, first)
        await engine.start()
        await town.emit("client")
        await engine.until(lambda records: tip(records).number > seen, 10, "block")
        await engine.stop()
        await town.chain.revert(snapshot)
        for role in ROLES:
            await town.emit(role)
        engine = listening(town, standing[1], tmp_path, first)
        await engine.start()
        try:
            with pytest.raises(Reorganised):
                await engine.until(lambda records: False, 10, "failure")
        finally:
            await engine.stop()
            await town.chain.set_speed(0)

    in_town(standing, work)


def test_an_agent_does_not_go_on_with_events_that_are_gone(standing, tmp_path):
    """Its records tell of them; other troubles of the chain are waited out."""

    async def work(town, first):
        engine = listening(town, standing[1], tmp_path, first)
        await town.chain.set_speed(5)  # an agent's clock has to run
        await engine.start()
        try:
            snapshot = await town.chain.snapshot()
            await town.emit("client")
            seen = (await town.chain.latest()).number
            await engine.until(lambda records: tip(records).number >= seen, 10, "block")
            await town.chain.revert(snapshot)
            await town.emit("middle")
            await town.emit("exit")
            with pytest.raises(Reorganised):
                await engine.until(lambda records: False, 10, "failure")
        finally:
            await engine.stop()
            await town.chain.set_speed(0)

    in_town(standing, work)
