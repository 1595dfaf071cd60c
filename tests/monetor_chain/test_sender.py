# SPDX-License-Identifier: BSD-3-Clause
"""One account's transactions: nonces, refusals, losses, reorganisations."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from monetor_chain.accounts import address_of, dev_address, dev_key
from monetor_chain.bindings.token import FUNCTIONS as TOKEN, Token
from monetor_chain.chain import Chain
from monetor_chain.embedded import EmbeddedChain
from monetor_chain.errors import (
    ChainUnavailable,
    InsufficientFunds,
    TransactionReverted,
    TransactionTimeout,
    WrongChain,
)
from monetor_chain.faucet import Faucet
from monetor_chain.sender import FeePolicy, Sender, revert_reason

ROOT = Path(__file__).parents[2]
GAS = 30_000


def fresh_key(name: str) -> bytes:
    return dev_key(f"sender tests: {name}")


def on(network, name, work, wei=10**18, tokens=0, **options):
    """Run `work(sender, token)` with a funded account of its own on the shared network."""

    async def run():
        async with await Chain.connect(network.url) as chain:
            key = fresh_key(f"{name} {network.kind}")
            if wei or tokens:
                await Faucet(chain, network.deployment).fund(address_of(key), wei, tokens)
            sender = Sender(chain, key, **options)
            return await work(sender, Token(chain, network.deployment.token))

    return asyncio.run(run())


def test_many_tasks_share_one_account(network):
    async def work(sender, token):
        gifts = [sender.send(dev_address("nobody"), b"", gas=GAS, value=1) for _ in range(20)]
        receipts = await asyncio.gather(*gifts)
        assert len({receipt.transaction for receipt in receipts}) == 20
        count = await sender.chain.rpc("eth_getTransactionCount", sender.address, "latest")
        assert int(count, 16) == 20

    on(network, "tasks", work)


def test_two_senders_of_one_account(network):
    async def work(sender, token):
        other = Sender(sender.chain, fresh_key(f"rivals {network.kind}"))
        assert other.address == sender.address
        jobs = [
            one.send(dev_address("nobody"), b"", gas=GAS, value=1)
            for one in (sender, other) * 8
        ]
        receipts = await asyncio.gather(*jobs)
        assert len({receipt.transaction for receipt in receipts}) == 16

    on(network, "rivals", work)


def test_two_processes_of_one_account(network):
    program = (
        "import asyncio, sys\n"
        "from monetor_chain.chain import Chain\n"
        "from monetor_chain.sender import Sender\n"
        "async def main():\n"
        "    async with await Chain.connect(sys.argv[1]) as chain:\n"
        "        sender = Sender(chain, bytes.fromhex(sys.argv[2]))\n"
        "        for _ in range(6):\n"
        "            await sender.send('0x' + '11' * 20, b'', gas=30_000, value=1)\n"
        "asyncio.run(main())\n"
    )

    async def work(sender, token):
        key = fresh_key(f"processes {network.kind}").hex()
        started = [
            subprocess.Popen([sys.executable, "-c", program, network.url, key], cwd=ROOT)
            for _ in range(2)
        ]
        codes = [await asyncio.to_thread(process.wait, 60) for process in started]
        assert codes == [0, 0]
        count = await sender.chain.rpc("eth_getTransactionCount", sender.address, "latest")
        assert int(count, 16) == 12

    on(network, "processes", work)


def test_a_refusal_is_found_before_anything_is_sent(network):
    async def work(sender, token):
        with pytest.raises(TransactionReverted) as caught:
            await token.withdraw(sender, 1)
        assert "exceeds balance" in caught.value.reason
        assert caught.value.transaction is None
        count = await sender.chain.rpc("eth_getTransactionCount", sender.address, "latest")
        assert int(count, 16) == 0

    on(network, "simulated", work)


def test_a_mined_refusal_has_the_contracts_reason(network):
    async def work(sender, token):
        data = TOKEN["withdraw"].encode(1)
        with pytest.raises(TransactionReverted) as caught:
            await sender.send(token.address, data, gas=100_000, simulate=False)
        assert "exceeds balance" in caught.value.reason
        assert len(caught.value.transaction) == 32

    on(network, "mined", work)


def test_running_out_of_gas_is_named(network):
    async def work(sender, token):
        data = TOKEN["deposit"].encode()
        with pytest.raises(TransactionReverted, match="out of gas|no reason"):
            await sender.send(token.address, data, gas=25_000, value=10**9, simulate=False)

    on(network, "gas", work)


def test_a_call_that_builds_on_an_unmined_one_waits_for_it(network):
    async def work(sender, token):
        deposit = asyncio.create_task(token.deposit(sender, 7))
        while not sender._in_flight and not deposit.done():
            await asyncio.sleep(0.001)
        await token.withdraw(sender, 7)
        assert deposit.done()

    on(network, "dependent", work)


@pytest.mark.parametrize("simulate", [True, False])
def test_poverty_is_named(network, simulate):
    async def work(sender, token):
        with pytest.raises(InsufficientFunds, match=sender.address):
            await sender.send(
                dev_address("nobody"), b"", gas=GAS, value=10**18, simulate=simulate
            )

    on(network, f"poor {simulate}", work, wei=10**15)


def test_a_real_refusal_is_told_while_other_transactions_go_on(network):
    async def work(sender, token):
        async def keep_busy():
            while True:
                await sender.send(dev_address("nobody"), b"", gas=GAS, value=1)

        busy = [asyncio.create_task(keep_busy()) for _ in range(2)]
        await asyncio.sleep(0.1)
        with pytest.raises(TransactionReverted):
            await asyncio.wait_for(token.withdraw(sender, 1), 10)
        for task in busy:
            task.cancel()

    on(network, "busy", work)


def test_the_fee_cap_holds(network):
    async def work(sender, token):
        receipt = await sender.send(dev_address("nobody"), b"", gas=GAS, value=1)
        sent = await sender.chain.rpc(
            "eth_getTransactionByHash", "0x" + receipt.transaction.hex()
        )
        assert int(sent["maxFeePerGas"], 16) <= 3 * 10**9
        assert int(sent["maxPriorityFeePerGas"], 16) == 7

    policy = FeePolicy(tip_wei=7, cap_wei=3 * 10**9)
    on(network, "capped", work, fees=policy)


def test_another_chain_is_refused(network):
    with pytest.raises(WrongChain, match="not chain 1"):
        asyncio.run(Chain.connect(network.url, expect_chain_id=1))


# --- Losses, on chains that stand still -----------------------------------------------------------


def alone(shared_chain, work, speed=1.0):
    """Run `work(chain, sender)` on an embedded chain that nobody else uses meanwhile."""

    async def lent(chain):
        return await work(chain, Sender(chain, dev_key("client"), timeout=20))

    return shared_chain.lend(lent, speed)


def test_a_forgotten_transaction_is_sent_again(shared_chain):
    async def work(chain, sender):
        # Nothing is mined at this speed; the snapshot's return makes the pool forget.
        await chain.set_speed(0.001)
        snapshot = await chain.snapshot()
        job = asyncio.create_task(sender.send(dev_address("guard"), b"", gas=GAS, value=1))
        await asyncio.sleep(0.5)
        await chain.revert(snapshot)
        await asyncio.sleep(2.5)
        await chain.set_speed(20)
        receipt = await job
        assert receipt.gas_used == 21_000

    alone(shared_chain, work)


def test_a_reorganisation_does_not_lose_a_transaction(shared_chain):
    async def work(chain, sender):
        careful = Sender(chain, dev_key("client"), confirmations=2, timeout=20)
        snapshot = await chain.snapshot()
        job = asyncio.create_task(careful.send(dev_address("guard"), b"", gas=GAS, value=1))
        while (await chain.latest()).number == 0:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
        assert not job.done(), "one block is no confirmation"
        await chain.revert(snapshot)
        while not job.done():
            await chain.mine()
            await asyncio.sleep(0.1)
        receipt = job.result()
        assert (await chain.latest()).number >= receipt.block + 2
        hash_ = "0x" + receipt.transaction.hex()
        assert int((await chain.rpc("eth_getTransactionReceipt", hash_))["status"], 16) == 1

    alone(shared_chain, work, speed=0.0)


def test_a_transaction_that_was_displaced_takes_another_nonce(shared_chain):
    async def work(chain, sender):
        await chain.set_speed(0.001)
        job = asyncio.create_task(sender.send(dev_address("guard"), b"", gas=GAS, value=1))
        await asyncio.sleep(0.3)
        rich = FeePolicy(base_fee_multiple=9, tip_wei=10**10)
        rival = Sender(chain, dev_key("client"), fees=rich)
        # The rival does not know of the first one's nonce: it takes the same at a higher fee.
        raw, hash_ = rival._sign(
            {"data": b"", "gas": GAS, "value": 2, "to": dev_address("exit")}, 0, 10**10, 10**11
        )
        await chain.rpc("eth_sendRawTransaction", "0x" + raw.hex())
        await chain.set_speed(20)
        receipt = await job
        assert "0x" + receipt.transaction.hex() != hash_
        count = await chain.rpc("eth_getTransactionCount", sender.address, "latest")
        assert int(count, 16) == 2

    alone(shared_chain, work)


def test_a_stuck_transaction_is_reported_in_time(shared_chain):
    async def work(chain, sender):
        await chain.set_speed(0.001)
        impatient = Sender(chain, dev_key("client"), timeout=0.5)
        with pytest.raises(TransactionTimeout) as caught:
            await impatient.send(dev_address("guard"), b"", gas=GAS, value=1)
        assert len(caught.value.transaction) == 32

    alone(shared_chain, work)


def test_a_chain_that_dies_under_a_sender_is_reported():
    async def work():
        embedded = EmbeddedChain()
        embedded.start()
        async with await Chain.connect(embedded.url) as chain:
            await chain.set_speed(0.001)
            sender = Sender(chain, dev_key("client"))
            job = asyncio.create_task(sender.send(dev_address("guard"), b"", gas=GAS, value=1))
            await asyncio.sleep(0.3)
            embedded.kill()
            with pytest.raises(ChainUnavailable):
                await job

    asyncio.run(work())


def test_every_hash_is_announced_before_the_transaction_leaves(shared_chain):
    async def work(chain, sender):
        known = []

        def announce(hash_: bytes) -> None:
            known.append(hash_)

        receipt = await sender.send(
            dev_address("guard"), b"", gas=GAS, value=1, announce=announce
        )
        assert known == [receipt.transaction]

    alone(shared_chain, work, speed=0.0)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "no reason given"),
        (b"\x01\x02", "0x0102"),
        (
            bytes.fromhex("08c379a0") + (32).to_bytes(32, "big") + (2).to_bytes(32, "big")
            + b"no".ljust(32, b"\0"),
            "no",
        ),
    ],
)  # fmt: skip
def test_revert_reasons(payload, reason):
    assert revert_reason(payload) == reason
