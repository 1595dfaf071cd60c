# SPDX-License-Identifier: BSD-3-Clause
"""Deployment: once, whole, resumable, and recognised again or refused."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from monetor_chain.accounts import dev_address, dev_key
from monetor_chain.chain import Chain
from monetor_chain.compiler import compile_contract
from monetor_chain.deployment import attach, bind, deploy
from monetor_chain.eip2537 import require_precompiles
from monetor_chain.embedded import CHAIN_ID, EmbeddedChain
from monetor_chain.errors import (
    DeploymentMismatch,
    DeploymentMissing,
    InvalidParameters,
    MissingPrecompiles,
    NotADevelopmentChain,
)
from monetor_chain.faucet import fund
from monetor_chain.parameters import DEMO, TAX_RATE_BP
from monetor_chain.precompile_probe import G1_ADD_PROBE, G1_MSM_PROBE, PAIRING_PROBE
from monetor_chain.statements import keccak256

ROOT = Path(__file__).parents[2]
TRANSACTIONS = 5
"""Four creations and the pool's ledger."""

PROGRAM = """
import asyncio, sys
from monetor_chain.accounts import dev_key
from monetor_chain.chain import Chain
from monetor_chain.deployment import deploy

async def main():
    async with await Chain.connect(sys.argv[1]) as chain:
        print((await deploy(chain, dev_key("deployer"), directory=sys.argv[2])).ledger)

asyncio.run(main())
"""


def with_chain(url, work):
    async def run():
        async with await Chain.connect(url) as chain:
            return await work(chain)

    return asyncio.run(run())


async def sent_by_deployer(chain: Chain) -> int:
    return int(
        await chain.rpc("eth_getTransactionCount", dev_address("deployer"), "pending"), 16
    )


@pytest.fixture(scope="module")
def chain_url():
    with EmbeddedChain(speed=50.0) as chain:
        yield chain.url


def test_the_contracts_know_each_other(network):
    async def work(chain):
        contracts = bind(chain, network.deployment)
        assert await contracts.ledger.token() == network.deployment.token
        assert await contracts.ledger.tax_pool() == network.deployment.tax_pool
        assert await contracts.ledger.consensus() == network.deployment.consensus
        assert await contracts.tax_pool.ledger() == network.deployment.ledger
        assert await contracts.ledger.tax_rate_bp() == TAX_RATE_BP
        assert await contracts.consensus.parameters() == DEMO
        assert await contracts.consensus.epoch_length() == DEMO.epoch
        assert await contracts.consensus.quorum() == 2
        assert await contracts.consensus.authorities() == tuple(
            dev_address(role) for role in ("authority", "authority2", "authority3")
        )
        code = await chain.code(network.deployment.ledger)
        assert network.deployment.code_hashes["Ledger"] == keccak256(code).hex()
        assert code.startswith(compile_contract("Ledger").runtime)

    with_chain(network.url, work)


def test_a_second_deployment_changes_nothing(network):
    async def work(chain):
        before = await sent_by_deployer(chain)
        voters = [dev_address(role) for role in ("authority", "authority2", "authority3")]
        again = await deploy(
            chain, dev_key("deployer"), authorities=voters, directory=network.folder
        )
        assert again == network.deployment
        assert await attach(chain, network.folder) == network.deployment
        assert await sent_by_deployer(chain) == before

    with_chain(network.url, work)


def test_coins_for_everybody(network):
    async def work(chain):
        someone = dev_address("someone who needs coins")
        await fund(chain, network.deployment, someone, wei=10**17, tokens=1_234)
        assert await chain.wei(someone) == 10**17
        assert await bind(chain, network.deployment).token.balance_of(someone) == 1_234

    with_chain(network.url, work)


@pytest.mark.parametrize("moment", [1, 2, 4])
def test_a_killed_deployment_goes_on_where_it_stopped(tmp_path, moment):
    """Killed when the record names the transaction of the n-th step, mined or not."""

    async def work(chain):
        await chain.set_speed(4)
        first = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, chain.url, str(tmp_path)], cwd=ROOT
        )
        record = tmp_path / f"{CHAIN_ID}.json"
        deadline = time.monotonic() + 30
        while True:
            steps = json.loads(record.read_text())["steps"] if record.exists() else {}
            if sum(bool(step["transactions"]) for step in steps.values()) >= moment:
                break
            assert time.monotonic() < deadline
            await asyncio.sleep(0.005)
        first.kill()
        first.wait()
        with pytest.raises(DeploymentMissing):
            await attach(chain, tmp_path)
        await chain.set_speed(50)
        done = await deploy(chain, dev_key("deployer"), directory=tmp_path)
        assert await attach(chain, tmp_path) == done
        assert await bind(chain, done).tax_pool.ledger() == done.ledger
        assert await sent_by_deployer(chain) == TRANSACTIONS

    with EmbeddedChain(speed=4.0) as chain:
        with_chain(chain.url, work)


def test_two_processes_deploy_once(tmp_path, chain_url):
    before = with_chain(chain_url, sent_by_deployer)
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, chain_url, str(tmp_path)],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    ledgers = {job.communicate(timeout=60)[0] for job in jobs}
    assert len(ledgers) == 1
    assert with_chain(chain_url, sent_by_deployer) == before + TRANSACTIONS


def test_a_restarted_chain_with_the_same_id_is_another_chain(tmp_path):
    async def put(chain):
        return await deploy(chain, dev_key("deployer"), directory=tmp_path)

    async def find(chain):
        with pytest.raises(DeploymentMissing, match="another chain"):
            await attach(chain, tmp_path)
        return await put(chain)

    with EmbeddedChain(speed=50.0) as chain:
        first = with_chain(chain.url, put)
    with EmbeddedChain(speed=50.0) as chain:
        second = with_chain(chain.url, find)
    assert first.genesis != second.genesis


def test_records_that_do_not_fit_are_refused(tmp_path, chain_url):
    async def work(chain):
        with pytest.raises(DeploymentMissing, match="no deployment"):
            await attach(chain, tmp_path)
        done = await deploy(chain, dev_key("deployer"), directory=tmp_path)
        for changes in (
            {"tax_rate_bp": 500},
            {"parameters": replace(DEMO, pay_fee=6)},
            {"authorities": [dev_address("client")]},
        ):
            with pytest.raises(DeploymentMismatch, match="other arguments"):
                await deploy(chain, dev_key("deployer"), directory=tmp_path, **changes)
        with pytest.raises(DeploymentMismatch, match="another account"):
            await deploy(chain, dev_key("client"), directory=tmp_path)
        path = tmp_path / f"{CHAIN_ID}.json"
        original = path.read_text()
        path.write_text(original.replace(done.ledger, done.token))
        with pytest.raises(DeploymentMismatch, match="Ledger"):
            await attach(chain, tmp_path)
        with pytest.raises(DeploymentMismatch, match="other sources"):
            await deploy(chain, dev_key("deployer"), directory=tmp_path)
        for damaged in (original[:200], "[]", "{}", original.replace('"format": 1', '"format": 9')):
            path.write_text(damaged)
            with pytest.raises(DeploymentMismatch, match="cannot be read|another version"):
                await attach(chain, tmp_path)
        path.write_text(original)
        anew = await deploy(chain, dev_key("deployer"), directory=tmp_path, fresh=True)
        assert anew.ledger != done.ledger
        assert await attach(chain, tmp_path) == anew

    with_chain(chain_url, work)


def test_invalid_parameters_are_refused_before_anything_is_sent(tmp_path, chain_url):
    async def work(chain):
        before = await sent_by_deployer(chain)
        with pytest.raises(InvalidParameters, match="lifetime"):
            await deploy(
                chain, dev_key("deployer"), replace(DEMO, lifetime=80), directory=tmp_path
            )
        assert await sent_by_deployer(chain) == before

    with_chain(chain_url, work)


# --- EIP-2537 -------------------------------------------------------------------------------------


async def serve(answers) -> tuple[web.AppRunner, str]:
    """A JSON-RPC endpoint of a chain that answers calls as `answers(to)` says."""

    async def handle(request: web.Request) -> web.Response:
        body = await request.json()
        results = {"eth_chainId": "0x5", "web3_clientVersion": "older chain"}
        result = results.get(body["method"])
        if body["method"] == "eth_call":
            result = answers(body["params"][0]["to"])
        if result is None:
            error = {"code": -32601, "message": "no such method"}
            return web.json_response({"jsonrpc": "2.0", "id": body["id"], "error": error})
        return web.json_response({"jsonrpc": "2.0", "id": body["id"], "result": result})

    application = web.Application()
    application.router.add_post("/", handle)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


@pytest.mark.parametrize("missing", [G1_ADD_PROBE, G1_MSM_PROBE, PAIRING_PROBE])
@pytest.mark.parametrize("answer", ["0x", "0x" + "00" * 32])
def test_a_chain_without_the_bls_precompiles_gets_one_clear_sentence(tmp_path, missing, answer):
    right = {p.address: "0x" + p.output.hex() for p in (G1_ADD_PROBE, G1_MSM_PROBE, PAIRING_PROBE)}

    async def work():
        runner, url = await serve(
            lambda to: answer if to.lower() == missing.address else right[to.lower()]
        )
        async with await Chain.connect(url) as chain:
            with pytest.raises(MissingPrecompiles) as caught:
                await deploy(chain, dev_key("deployer"), directory=tmp_path)
            with pytest.raises(NotADevelopmentChain):
                await chain.set_speed(2)
        await runner.cleanup()
        assert "EIP-2537" in str(caught.value)
        assert "chain 5" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not list(tmp_path.iterdir())

    asyncio.run(work())


def test_the_running_chains_have_them(network):
    with_chain(network.url, require_precompiles)
