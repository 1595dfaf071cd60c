# SPDX-License-Identifier: BSD-3-Clause
"""What becomes of a transaction while the newest blocks are exchanged for others.

A snapshot's return takes blocks off the chain as a reorganisation does, and empties the pool.
"""

from __future__ import annotations

import asyncio

import pytest

from monetor_chain import sender as sending
from monetor_chain.accounts import dev_address, dev_key
from monetor_chain.chain import Chain
from monetor_chain.embedded import EmbeddedChain
from monetor_chain.errors import TransactionReverted
from monetor_chain.sender import FeePolicy, Sender

GAS = 30_000
CONFIRMATIONS = 2

# SLOAD(0), and if that is set REVERT; else SSTORE(0, 1).
ONCE = bytes.fromhex("5f54600a57" "60015f5500" "5b5f5ffd")
# Returns the 14 bytes that follow it.
CREATE_ONCE = bytes.fromhex("600e80600a5f395ff300") + ONCE


@pytest.fixture(scope="module")
def embedded():
    with EmbeddedChain(speed=0.0) as chain:
        yield chain


class Stage:
    """A chain that mines when it is told to or a transaction comes, and one careful sender."""

    def __init__(self, chain):
        self.chain = chain
        self.sender = Sender(chain, dev_key("client"), confirmations=CONFIRMATIONS, timeout=30)
        self.hashes = []

    def send(self, to=None, data=b"", value=1, **options):
        """A transfer on its way; every hash it leaves under is noted."""
        to = dev_address("nobody") if to is None else to
        return asyncio.create_task(
            self.sender.send(
                to, data, gas=options.pop("gas", GAS), value=value, announce=self.hashes.append,
                **options,
            )
        )  # fmt: skip

    async def mined(self, job):
        """Wait until a transaction is in a block, but not confirmed."""
        async with asyncio.timeout(10):
            while not self.hashes or await self.receipt(self.hashes[-1]) is None:
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)
        assert not job.done(), "one block is no confirmation"

    async def receipt(self, hash_):
        return await self.chain.rpc("eth_getTransactionReceipt", "0x" + hash_.hex())

    async def done(self, job, real_seconds=20):
        """Mine until it is concluded; its result."""
        async with asyncio.timeout(real_seconds):
            while not job.done():
                await self.chain.mine()
                await asyncio.sleep(0.05)
        return job.result()

    async def rival(self, nonce, value=2):
        """Another transaction of the same account and nonce, by a wallet that knows of nothing."""
        other = Sender(self.chain, dev_key("client"))
        request = {"data": b"", "gas": GAS, "value": value, "to": dev_address("nobody")}
        raw, hash_ = other._sign(request, nonce, 10**10, 10**11)
        await self.chain.rpc("eth_sendRawTransaction", "0x" + raw.hex())
        return bytes.fromhex(hash_[2:])

    async def count(self):
        """Nonces that the account has used."""
        return int(
            await self.chain.rpc("eth_getTransactionCount", self.sender.address, "latest"), 16
        )


def on_stage(embedded, work):
    async def run():
        async with await Chain.connect(embedded.url) as chain:
            snapshot = await chain.snapshot()
            await chain.set_speed(0)
            try:
                await work(Stage(chain))
            finally:
                await chain.set_speed(0)
                await chain.revert(snapshot)

    asyncio.run(run())


def test_a_transaction_taken_off_the_chain_is_sent_again_and_succeeds_once(embedded):
    async def work(stage):
        before = await stage.chain.wei(dev_address("nobody"))
        snapshot = await stage.chain.snapshot()
        job = stage.send()
        await stage.mined(job)
        await stage.chain.revert(snapshot)
        assert await stage.receipt(stage.hashes[0]) is None
        receipt = await stage.done(job)
        # The same signed transaction: whichever copy is mined, the other never can be.
        assert stage.hashes == [receipt.transaction]
        assert await stage.count() == 1
        assert await stage.chain.wei(dev_address("nobody")) == before + 1
        assert (await stage.chain.latest()).number >= receipt.block + CONFIRMATIONS

    on_stage(embedded, work)


def test_again_and_again(embedded):
    async def work(stage):
        before = await stage.chain.wei(dev_address("nobody"))
        snapshot = await stage.chain.snapshot()
        job = stage.send()
        for _ in range(2):
            await stage.mined(job)
            await stage.chain.revert(snapshot)
            snapshot = await stage.chain.snapshot()
        receipt = await stage.done(job)
        assert stage.hashes == [receipt.transaction]
        assert await stage.count() == 1
        assert await stage.chain.wei(dev_address("nobody")) == before + 1

    on_stage(embedded, work)


def test_a_receipt_of_a_block_that_is_replaced_while_it_is_judged_is_none(embedded, monkeypatch):
    async def work(stage):
        snapshot = await stage.chain.snapshot()
        job = stage.send()
        await stage.mined(job)
        confirmed = (await stage.chain.latest()).number + CONFIRMATIONS
        ask, exchanged = stage.chain.rpc, []

        async def exchange(method, *params):
            judged = method == "eth_blockNumber" and not exchanged
            if judged and (await stage.chain.latest()).number >= confirmed:
                exchanged.append(method)
                await stage.chain.revert(snapshot)
                for _ in range(confirmed):
                    await stage.chain.mine()
            return await ask(method, *params)

        monkeypatch.setattr(stage.chain, "rpc", exchange)
        receipt = await stage.done(job)
        assert exchanged
        found = await stage.receipt(receipt.transaction)
        assert found is not None and int(found["blockNumber"], 16) == receipt.block
        assert await stage.count() == 1

    on_stage(embedded, work)


def test_a_rival_that_takes_its_place_for_good_makes_it_take_another_nonce(embedded):
    async def work(stage):
        before = await stage.chain.wei(dev_address("nobody"))
        snapshot = await stage.chain.snapshot()
        job = stage.send()
        await stage.mined(job)
        await stage.chain.revert(snapshot)
        rival = await stage.rival(0)
        receipt = await stage.done(job)
        assert receipt.transaction not in (rival, stage.hashes[0])
        assert await stage.receipt(rival) is not None
        assert await stage.receipt(stage.hashes[0]) is None
        assert await stage.count() == 2
        assert await stage.chain.wei(dev_address("nobody")) == before + 2 + 1

    on_stage(embedded, work)


def test_a_rival_that_is_not_confirmed_does_not_make_it_happen_twice(embedded):
    """The reorganisation that brought the rival may be undone, and the first block come back."""

    async def work(stage):
        before = await stage.chain.wei(dev_address("nobody"))
        snapshot = await stage.chain.snapshot()
        job = stage.send()
        await stage.mined(job)
        await stage.chain.revert(snapshot)
        snapshot = await stage.chain.snapshot()
        await stage.rival(0)
        # Long enough to be missed, and to see that the nonce is used.
        await asyncio.sleep(4.5)
        assert not job.done() and len(stage.hashes) == 1
        await stage.chain.revert(snapshot)
        receipt = await stage.done(job)
        assert stage.hashes == [receipt.transaction]
        assert await stage.count() == 1
        assert await stage.chain.wei(dev_address("nobody")) == before + 1

    on_stage(embedded, work)


def test_success_that_a_reorganisation_turns_into_a_refusal_is_reported_as_one(embedded):
    """A contract that takes one call: somebody else's comes first in the new chain."""

    async def work(stage):
        other = Sender(stage.chain, dev_key("exit"))
        contract = (await other.send(None, CREATE_ONCE, gas=200_000)).contract
        snapshot = await stage.chain.snapshot()
        job = stage.send(contract, value=0, gas=100_000)
        await stage.mined(job)
        assert int((await stage.receipt(stage.hashes[0]))["status"], 16) == 1
        await stage.chain.revert(snapshot)
        await other.send(contract, b"", gas=100_000)
        with pytest.raises(TransactionReverted) as caught:
            await stage.done(job)
        assert caught.value.transaction == stage.hashes[0]
        assert len(stage.hashes) == 1 and await stage.count() == 1

    on_stage(embedded, work)


def test_refusal_that_a_reorganisation_turns_into_success_is_reported_as_one(embedded):
    async def work(stage):
        other = Sender(stage.chain, dev_key("exit"))
        contract = (await other.send(None, CREATE_ONCE, gas=200_000)).contract
        snapshot = await stage.chain.snapshot()
        await other.send(contract, b"", gas=100_000)
        job = stage.send(contract, value=0, gas=100_000, simulate=False)
        await stage.mined(job)
        assert int((await stage.receipt(stage.hashes[0]))["status"], 16) == 0
        await stage.chain.revert(snapshot)
        receipt = await stage.done(job)
        assert stage.hashes == [receipt.transaction]

    on_stage(embedded, work)


def test_a_transaction_that_the_node_forgets_is_handed_over_again(embedded):
    async def work(stage):
        # Nothing is mined at this speed.
        await stage.chain.set_speed(0.001)
        snapshot = await stage.chain.snapshot()
        job = stage.send()
        while not stage.hashes:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
        await stage.chain.revert(snapshot)
        hash_ = "0x" + stage.hashes[0].hex()
        assert await stage.chain.rpc("eth_getTransactionByHash", hash_) is None
        async with asyncio.timeout(10):
            while await stage.chain.rpc("eth_getTransactionByHash", hash_) is None:
                await asyncio.sleep(0.05)
        receipt = await stage.done(job)
        assert stage.hashes == [receipt.transaction]
        assert await stage.count() == 1

    on_stage(embedded, work)


@pytest.mark.parametrize("limited", [False, True])
def test_a_stuck_transaction_is_offered_at_a_higher_fee(embedded, monkeypatch, limited):
    """By an eighth at least, under the same nonce, and never above the cap."""
    monkeypatch.setattr(sending, "_RAISE_SECONDS", 0.1)
    cap = 10**10

    async def work(stage):
        if limited:
            policy = FeePolicy(cap_wei=cap, base_fee_multiple=100)
            stage.sender = Sender(stage.chain, dev_key("client"), fees=policy, timeout=30)
        await stage.chain.set_speed(0.001)
        job = stage.send()
        await asyncio.sleep(5)
        sent = [
            await stage.chain.rpc("eth_getTransactionByHash", "0x" + hash_.hex())
            for hash_ in stage.hashes
        ]
        known = [one for one in sent if one is not None]
        assert len(known) == 1 and int(known[0]["nonce"], 16) == 0
        if limited:
            assert len(stage.hashes) == 1 and int(known[0]["maxFeePerGas"], 16) == cap
        else:
            assert len(stage.hashes) > 1 and known[0] == sent[-1]
        receipt = await stage.done(job)
        assert receipt.transaction == stage.hashes[-1]
        assert await stage.count() == 1

    on_stage(embedded, work)


def test_the_cheaper_offer_may_be_the_one_that_is_mined(embedded, monkeypatch):
    """Another node may not have heard of the dearer one: either hash tells of success."""
    monkeypatch.setattr(sending, "_RAISE_SECONDS", 0.1)

    async def work(stage):
        await stage.chain.set_speed(0.001)
        snapshot = await stage.chain.snapshot()
        job = stage.send()
        while not stage.hashes:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
        first = await stage.chain.rpc(
            "eth_getTransactionByHash", "0x" + stage.hashes[0].hex()
        )
        assert first is not None
        while len(stage.hashes) < 2:
            await asyncio.sleep(0.05)
        await stage.chain.revert(snapshot)
        cheap, _ = stage.sender._sign(
            {"data": b"", "gas": GAS, "value": 1, "to": dev_address("nobody")},
            0, int(first["maxPriorityFeePerGas"], 16), int(first["maxFeePerGas"], 16),
        )  # fmt: skip
        await stage.chain.rpc("eth_sendRawTransaction", "0x" + cheap.hex())
        receipt = await stage.done(job)
        assert receipt.transaction == stage.hashes[0]
        assert await stage.count() == 1

    on_stage(embedded, work)


def test_a_receipt_counts_when_its_block_is_known(embedded):
    """An endpoint of several nodes answers by one that is ahead, then by one that lags behind."""

    class Ahead(Chain):
        """Knows receipts at once, and the block that they name only when asked for it again."""

        asked = 0

        async def rpc(self, method, *params):
            if method == "eth_getBlockByNumber" and params[0] == self.named:
                Ahead.asked += 1
                if Ahead.asked <= 3:
                    return None
            answer = await super().rpc(method, *params)
            if method == "eth_getTransactionReceipt" and answer is not None:
                self.named = answer["blockNumber"]
            return answer

        named = None

    async def work():
        async with await Ahead.connect(embedded.url) as chain:
            snapshot = await chain.snapshot()
            try:
                sender = Sender(chain, dev_key("client"), timeout=20)
                receipt = await sender.send(dev_address("nobody"), b"", gas=GAS, value=1)
                assert receipt.timestamp == (await chain.block(receipt.block)).timestamp
                assert Ahead.asked > 3
            finally:
                await chain.revert(snapshot)

    asyncio.run(work())
