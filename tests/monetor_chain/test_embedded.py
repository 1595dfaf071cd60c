# SPDX-License-Identifier: BSD-3-Clause
"""The embedded chain as a process: its life, its clock, its blocks and its JSON-RPC."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from eth_account import Account
from web3 import AsyncHTTPProvider, AsyncWeb3

from monetor_chain.accounts import DEV_BALANCE_WEI, DEV_ROLES, dev_address, dev_key
from monetor_chain.chain import Chain
from monetor_chain.devchain.node import Node
from monetor_chain.embedded import CHAIN_ID, EmbeddedChain
from monetor_chain.errors import ChainError, ChainUnavailable, PortInUse, RpcError
from monetor_chain.precompile_probe import G1_ADD_PROBE, G1_MSM_PROBE, PAIRING_PROBE

ROOT = Path(__file__).parents[2]


def signed(role: str, nonce: int, **changes) -> str:
    """A raw transaction of one wei from a role to the watcher."""
    fields = {
        "type": 2, "nonce": nonce, "gas": 50_000, "maxFeePerGas": 4 * 10**9, "value": 1,
        "maxPriorityFeePerGas": 10**9, "chainId": CHAIN_ID, "to": dev_address("watcher"),
        "data": b"",
    } | changes  # fmt: skip
    return "0x" + bytes(Account.sign_transaction(fields, dev_key(role)).raw_transaction).hex()


async def mined(chain: Chain, hash_: str, seconds: float = 10.0) -> dict:
    deadline = time.monotonic() + seconds
    while (receipt := await chain.rpc("eth_getTransactionReceipt", hash_)) is None:
        assert time.monotonic() < deadline, "not mined in time"
        await asyncio.sleep(0.01)
    return receipt


async def timestamps(chain: Chain) -> list[int]:
    head = await chain.latest()
    return [(await chain.block(number)).timestamp for number in range(head.number + 1)]


def on_new_chain(work, **options):
    """Run `work(chain)` on a chain of its own."""

    async def run():
        async with EmbeddedChain(**options) as embedded:
            async with await Chain.connect(embedded.url, CHAIN_ID) as chain:
                return await work(chain)

    return asyncio.run(run())


# --- Life and death -------------------------------------------------------------------------------


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_taken_port_gives_one_clear_error():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortInUse) as caught:
            EmbeddedChain(port=port).start()
    assert str(port) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(number):
    process = subprocess.Popen(
        [sys.executable, "-m", "monetor_chain.embedded"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, text=True,
    )  # fmt: skip
    ready = json.loads(process.stdout.readline())
    assert ready["chain_id"] == CHAIN_ID
    assert ready["rpc"].startswith("http://127.0.0.1:")
    process.send_signal(number)
    _, complaints = process.communicate(timeout=10)
    assert process.returncode == 0
    assert complaints == ""


def test_it_ends_with_its_parent_even_if_that_is_killed():
    program = (
        "import time; from monetor_chain.embedded import EmbeddedChain;"
        "chain = EmbeddedChain(); chain.start(); print(chain.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT, text=True
    )
    child = int(parent.stdout.readline())
    assert is_alive(child)
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 5
    while is_alive(child):
        assert time.monotonic() < deadline, "the chain outlives its parent"
        time.sleep(0.05)


def test_a_chain_that_is_gone_is_reported_as_such():
    async def work():
        embedded = EmbeddedChain()
        embedded.start()
        async with await Chain.connect(embedded.url) as chain:
            embedded.kill()
            with pytest.raises(ChainUnavailable):
                await chain.latest()
        with pytest.raises(ChainUnavailable):
            await Chain.connect("http://127.0.0.1:1")
        with pytest.raises(ChainUnavailable):
            _ = embedded.url

    asyncio.run(work())


def test_naming_the_chain_loads_neither_web3_nor_an_evm():
    program = (
        "import sys, monetor_chain.embedded, monetor_chain.accounts, monetor_chain.parameters,"
        "monetor_chain.settings, monetor_chain.compiler;"
        "print([name for name in ('web3', 'eth', 'vyper', 'eth_account') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


# --- Clock and blocks -----------------------------------------------------------------------------


def test_the_clock_runs_at_its_speed_and_blocks_follow_it(shared_chain):
    async def work(chain):
        (start, speed), real = await chain.clock(), time.monotonic()
        assert speed == 20
        await asyncio.sleep(1.5)
        passed = (await chain.now() - start) / (time.monotonic() - real)
        assert passed == pytest.approx(20, rel=0.1)
        times = await timestamps(chain)
        assert len(times) >= 4, "time passes in blocks without transactions too"
        assert all(b > a for a, b in zip(times, times[1:], strict=False))
        assert 0 <= await chain.now() - times[-1] < 20

    shared_chain.lend(work, speed=20.0)


def test_empty_blocks_keep_their_distance():
    async def work(chain):
        await asyncio.sleep(2.2)
        times = await timestamps(chain)
        assert {b - a for a, b in zip(times, times[1:], strict=False)} <= {4, 5}
        assert len(times) >= 2

    on_new_chain(work, speed=2.0, block_interval=4.0)


def test_the_clock_can_start_anywhere_and_change_its_speed():
    async def work(chain):
        assert 0 <= await chain.now() - 1_000_000 < 60
        await chain.set_speed(500)
        before = await chain.now()
        await asyncio.sleep(0.4)
        assert await chain.now() - before > 100
        with pytest.raises(RpcError, match="speed"):
            await chain.set_speed(-1)

    on_new_chain(work, genesis_time=1_000_000.0)


def test_a_jump_is_followed_by_a_block_at_once(shared_chain):
    async def work(chain):
        before = await chain.latest()
        await chain.increase_time(3_600)
        after = await chain.latest()
        assert after.number > before.number
        assert 3_600 <= after.timestamp - before.timestamp < 3_610
        assert (await chain.wait_past(after.timestamp - 1)).timestamp >= after.timestamp
        with pytest.raises(RpcError, match="advanced"):
            await chain.increase_time(-1)

    shared_chain.lend(work, speed=1.0)


def test_a_standing_clock_moves_with_transactions_only(shared_chain):
    async def work(chain):
        start = await chain.latest()
        await asyncio.sleep(0.6)
        assert await chain.latest() == start
        for nonce in range(3):
            await mined(chain, await chain.rpc("eth_sendRawTransaction", signed("client", nonce)))
        assert (await chain.latest()).number == start.number + 3
        assert await chain.now() == start.timestamp + 3

    shared_chain.lend(work, speed=0.0)


def test_waiting_for_a_time_waits_for_a_confirmed_block_of_that_time(shared_chain):
    async def work(chain):
        target = int(await chain.now()) + 30
        block = await chain.wait_past(target, confirmations=2)
        assert block.timestamp > target
        assert (await chain.latest()).number >= block.number + 2

    shared_chain.lend(work, speed=50.0)


def test_transactions_are_mined_soon_and_simultaneous_ones_share_blocks(shared_chain):
    async def work(chain):
        waits = []
        for nonce in range(4):
            await asyncio.sleep(0.3 * nonce)
            sent = time.monotonic()
            await mined(chain, await chain.rpc("eth_sendRawTransaction", signed("client", nonce)))
            waits.append(time.monotonic() - sent)
        assert max(waits) < 1.5
        hashes = await asyncio.gather(
            *(
                chain.rpc("eth_sendRawTransaction", signed(role, 0))
                for role in ("guard", "middle", "exit", "watcher")
            ),
            *(chain.rpc("eth_sendRawTransaction", signed("client", n)) for n in range(4, 10)),
        )
        receipts = [await mined(chain, hash_) for hash_ in hashes]
        assert len({receipt["blockNumber"] for receipt in receipts}) <= 2

    shared_chain.lend(work, speed=1.0)


def test_no_receipt_is_there_before_its_block():
    """Blocks are made in one thread and read in another: a reader that finds a receipt asks for
    its block next."""

    class Blocks(list):
        def append(self, block):
            assert not set(block.transactions) & set(node.receipts)
            super().append(block)

    node = Node(CHAIN_ID, 1_000, {bytes.fromhex(dev_address("client")[2:]): 10**18})
    node.blocks = Blocks(node.blocks)
    hash_ = node.submit(bytes.fromhex(signed("client", 0)[2:]))
    assert node.mine(1_001).transactions == (hash_,)
    assert node.receipts[hash_]["blockNumber"] == "0x1"


def test_a_snapshot_brings_back_state_blocks_pool_and_clock(shared_chain):
    async def work(chain):
        await mined(chain, await chain.rpc("eth_sendRawTransaction", signed("client", 0)))
        head, now = await chain.latest(), await chain.now()
        snapshot = await chain.snapshot()
        lost = await chain.rpc("eth_sendRawTransaction", signed("client", 1, value=77))
        await mined(chain, lost)
        await chain.increase_time(500)
        await chain.revert(snapshot)
        assert await chain.latest() == head
        assert await chain.now() == now
        assert await chain.wei(dev_address("watcher")) == DEV_BALANCE_WEI + 1
        assert await chain.rpc("eth_getTransactionReceipt", lost) is None
        assert await chain.rpc("eth_getTransactionByHash", lost) is None
        await mined(chain, await chain.rpc("eth_sendRawTransaction", signed("client", 1, value=5)))
        assert await chain.wei(dev_address("watcher")) == DEV_BALANCE_WEI + 6
        with pytest.raises(ChainError, match="no such snapshot"):
            await chain.revert(snapshot)

    shared_chain.lend(work, speed=0.0)


# --- Transactions the node must refuse ------------------------------------------------------------


REFUSED = {
    "another chain": ({"chainId": 1}, "chain id"),
    "too poor": ({"value": 2 * DEV_BALANCE_WEI}, "insufficient funds"),
    "too little gas": ({"gas": 20_000}, "intrinsic gas too low"),
    "too much gas": ({"gas": 10**9}, "exceeds block gas limit"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_impossible_transactions_are_refused(fast_chain, case):
    changes, message = REFUSED[case]

    async def work():
        async with await Chain.connect(fast_chain.url) as chain:
            with pytest.raises(RpcError, match=message):
                await chain.rpc("eth_sendRawTransaction", signed("exit2", 0, **changes))

    asyncio.run(work())


def test_nonces_and_replacement(shared_chain):
    async def work(chain):
        send = "eth_sendRawTransaction"
        early = await chain.rpc(send, signed("client", 1))
        with pytest.raises(RpcError, match="already known"):
            await chain.rpc(send, signed("client", 1))
        with pytest.raises(RpcError, match="underpriced"):
            await chain.rpc(send, signed("client", 1, value=2))
        await asyncio.sleep(0.3)
        assert await chain.rpc("eth_getTransactionReceipt", early) is None, "nonce 0 is missing"
        better = await chain.rpc(send, signed("client", 1, value=2, maxFeePerGas=5 * 10**9))
        await chain.rpc(send, signed("client", 0))
        await mined(chain, better)
        assert await chain.rpc("eth_getTransactionByHash", early) is None
        assert await chain.rpc("eth_getTransactionCount", dev_address("client"), "latest") == "0x2"
        with pytest.raises(RpcError, match="nonce too low"):
            await chain.rpc(send, signed("client", 1, value=3))

    shared_chain.lend(work, speed=50.0)


def test_a_transaction_below_the_base_fee_waits_without_harm(shared_chain):
    async def work(chain):
        low = signed("client", 0, maxFeePerGas=1, maxPriorityFeePerGas=1)
        stuck = await chain.rpc("eth_sendRawTransaction", low)
        await mined(chain, await chain.rpc("eth_sendRawTransaction", signed("guard", 0)))
        assert await chain.rpc("eth_getTransactionReceipt", stuck) is None
        assert await chain.rpc("eth_getTransactionCount", dev_address("client"), "pending") == "0x1"
        first = (await chain.latest()).number
        await asyncio.sleep(1.0)
        assert (await chain.latest()).number - first <= 6, "the miner must not spin"

    shared_chain.lend(work, speed=50.0)


# --- JSON-RPC -------------------------------------------------------------------------------------


def post(url: str, body: bytes):
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.loads(answer.read())


MALFORMED = [
    (b"{", -32700),
    (b"5", -32600),
    (b"[]", -32600),
    (b'{"id":1}', -32600),
    (b'{"id":1,"method":"eth_chainId","params":{}}', -32602),
    (b'{"id":1,"method":"eth_mystery","params":[]}', -32601),
    (b'{"id":1,"method":"eth_getBalance","params":["0x12"]}', -32602),
    (b'{"id":1,"method":"eth_getBalance","params":[]}', -32602),
    (b'{"id":1,"method":"eth_getBalance","params":[5]}', -32602),
    (b'{"id":1,"method":"eth_getBlockByNumber","params":["never",false]}', -32602),
    (b'{"id":1,"method":"eth_sendRawTransaction","params":["0x"]}', -32000),
    (b'{"id":1,"method":"eth_sendRawTransaction","params":["0x02c0"]}', -32000),
    (b'{"id":1,"method":"eth_sendRawTransaction","params":["0x03c0"]}', -32000),
    (b'{"id":1,"method":"eth_sendRawTransaction","params":["0x04c0"]}', -32000),
    (b'{"id":1,"method":"eth_sendRawTransaction","params":["0xzz"]}', -32602),
    (b'{"id":1,"method":"eth_call","params":[[]]}', -32602),
    (b'{"id":1,"method":"monetor_setSpeed","params":["fast"]}', -32602),
]


@pytest.mark.parametrize(("body", "code"), MALFORMED)
def test_bad_requests_get_an_error_and_the_chain_lives_on(fast_chain, body, code):
    assert post(fast_chain.url, body)["error"]["code"] == code
    alive = post(fast_chain.url, b'{"id":7,"method":"eth_chainId"}')
    assert alive == {"jsonrpc": "2.0", "id": 7, "result": hex(CHAIN_ID)}


def test_batches_are_answered_in_order(fast_chain):
    batch = [{"id": i, "method": "eth_chainId", "params": []} for i in range(3)]
    answers = post(fast_chain.url, json.dumps([*batch, {"id": 9}]).encode())
    assert [answer["id"] for answer in answers] == [0, 1, 2, None]


def test_web3_works_on_it(fast_chain):
    """The standard client, with its own formatting and checks."""

    async def work():
        provider = AsyncHTTPProvider(fast_chain.url)
        w3 = AsyncWeb3(provider)
        assert await w3.eth.chain_id == CHAIN_ID
        assert await w3.eth.get_balance(dev_address(DEV_ROLES[-1])) >= 10**23
        hash_ = await w3.eth.send_raw_transaction(signed("middle2", 0))
        receipt = await w3.eth.wait_for_transaction_receipt(hash_, timeout=10)
        assert receipt["status"] == 1
        assert receipt["from"] == dev_address("middle2")
        block = await w3.eth.get_block(receipt["blockNumber"], full_transactions=True)
        assert block["transactions"][receipt["transactionIndex"]]["hash"] == hash_
        assert (await w3.eth.get_block(block["hash"]))["number"] == block["number"]
        assert (await w3.eth.get_transaction(hash_))["blockHash"] == block["hash"]
        history = await w3.eth.fee_history(3, "latest", [50.0])
        assert len(history["baseFeePerGas"]) == 4
        assert await w3.eth.gas_price > 0
        assert await w3.eth.max_priority_fee > 0
        call = {"from": dev_address("middle2"), "to": dev_address("watcher"), "value": 1}
        assert 21_000 <= await w3.eth.estimate_gas(call) < 60_000
        assert await w3.eth.get_code(dev_address("watcher")) == b""
        assert await w3.eth.get_transaction_count(dev_address("middle2")) == 1
        assert await w3.eth.get_logs({"fromBlock": 0, "toBlock": "latest"}) is not None
        await provider.disconnect()

    asyncio.run(work())


# --- Precompiles ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["native", "pure"])
def test_both_kinds_of_precompiles_answer_and_the_clock_stays_responsive(mode):
    async def work(chain):
        async def ask_the_time() -> float:
            longest = 0.0
            while not calls.done():
                asked = time.monotonic()
                await chain.now()
                longest = max(longest, time.monotonic() - asked)
            return longest

        async def ask_the_precompiles() -> None:
            for probe in (G1_ADD_PROBE, G1_MSM_PROBE, PAIRING_PROBE):
                assert await chain.call(probe.address, probe.input) == probe.output

        calls = asyncio.ensure_future(ask_the_precompiles())
        longest = await ask_the_time()
        await calls
        assert longest < 0.5

    on_new_chain(work, precompiles=mode)


def test_the_mode_shows_in_the_time_a_pairing_takes():
    async def work(chain):
        started = time.monotonic()
        for _ in range(5):
            await chain.call(PAIRING_PROBE.address, PAIRING_PROBE.input)
        return (time.monotonic() - started) / 5

    assert on_new_chain(work, precompiles="native") < 0.2


def test_a_second_chain_is_another_chain():
    async def first_block(chain):
        return (await chain.block(0)).hash

    first, second = (on_new_chain(first_block, genesis_time=5.0) for _ in range(2))
    assert first != second


def test_the_child_inherits_no_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.environ.pop("PYTHONPATH", None)
    with EmbeddedChain() as chain:
        assert chain.url
