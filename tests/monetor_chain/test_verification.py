# SPDX-License-Identifier: BSD-3-Clause
"""What `verify_deployment` notices: other code, other sources, other wiring."""

from __future__ import annotations

import asyncio
import shutil

import pytest

from monetor_chain.accounts import dev_address, dev_key
from monetor_chain.chain import Chain
from monetor_chain.deployment import bind, deploy
from monetor_chain.embedded import EmbeddedChain
from monetor_chain.errors import DeploymentMissing
from monetor_chain.verification import verify_deployment


@pytest.fixture(scope="module")
def chain_url():
    with EmbeddedChain(speed=50.0) as chain:
        yield chain.url


def on(url, work):
    async def run():
        async with await Chain.connect(url) as chain:
            return await work(chain)

    return asyncio.run(run())


def failing(checks):
    return [check.what for check in checks if not check.holds]


def test_a_deployment_as_it_should_be(network):
    async def work(chain):
        checks = await verify_deployment(chain, network.folder)
        assert failing(checks) == []
        names = {check.what.partition(":")[0] for check in checks}
        assert names >= {"Consensus", "Token", "TaxPool", "Ledger"}

    on(network.url, work)


def test_nothing_recorded(tmp_path, chain_url):
    async def work(chain):
        with pytest.raises(DeploymentMissing):
            await verify_deployment(chain, tmp_path)

    on(chain_url, work)


@pytest.mark.parametrize("issued", [False, True])
def test_a_record_that_names_another_contract(tmp_path, chain_url, issued):
    """The code of one contract in another's place, and one of two deployments' ledgers."""

    async def work(chain):
        first = await deploy(chain, dev_key("deployer"), directory=tmp_path / "1", issued=issued)
        assert await bind(chain, first).token.issued() is issued
        assert failing(await verify_deployment(chain, tmp_path / "1")) == []
        second = await deploy(chain, dev_key("deployer"), directory=tmp_path / "2", issued=issued)
        record = tmp_path / "1" / f"{chain.chain_id}.json"
        original = record.read_text()

        record.write_text(original.replace(first.ledger, first.token))
        found = failing(await verify_deployment(chain, tmp_path / "1"))
        assert {"Ledger: code as recorded", "Ledger: code of these sources"} <= set(found)

        # The same code, but it answers to other authorities: only hashes and wiring tell.
        record.write_text(original.replace(first.consensus, second.consensus))
        found = failing(await verify_deployment(chain, tmp_path / "1"))
        assert {"Ledger: consensus", "TaxPool: consensus"} <= set(found)

        record.write_text(original.replace(first.tax_pool, second.tax_pool))
        found = failing(await verify_deployment(chain, tmp_path / "1"))
        assert {"Ledger: tax pool", "TaxPool: ledger"} <= set(found)

    on(chain_url, work)


def test_other_sources(tmp_path, chain_url, monkeypatch):
    """What was compiled from sources that differ in one rule is not what these sources say."""
    from monetor_chain.compiler import source_folder

    sources = tmp_path / "contracts"
    shutil.copytree(source_folder(), sources)
    ledger = sources / "Ledger.vy"
    text = ledger.read_text()
    rule = 'refusal._unless(block.timestamp > c.deadline, "ledger: too early")'
    assert rule in text

    async def work(chain):
        await deploy(chain, dev_key("deployer"), directory=tmp_path)
        ledger.write_text(text.replace(rule, "pass"))
        monkeypatch.setenv("MONETOR_CONTRACTS", str(sources))
        assert failing(await verify_deployment(chain, tmp_path)) == [
            "Ledger: code of these sources"
        ]

    on(chain_url, work)


def test_an_unfinished_deployment_is_finished_by_another_account(tmp_path, chain_url):
    """The pool obeys its deployer until it knows its ledger, so it is made anew; what belongs to
    nobody stays."""
    voters = [dev_address("authority")]

    async def work(chain):
        first = await deploy(
            chain, dev_key("deployer"), authorities=voters, directory=tmp_path
        )
        record = tmp_path / f"{chain.chain_id}.json"
        record.write_text(record.read_text().replace('"complete": true', '"complete": false'))
        second = await deploy(chain, dev_key("client"), authorities=voters, directory=tmp_path)
        assert (second.consensus, second.token) == (first.consensus, first.token)
        assert second.tax_pool != first.tax_pool and second.ledger != first.ledger
        assert second.deployer == dev_address("client")
        assert failing(await verify_deployment(chain, tmp_path)) == []

    on(chain_url, work)


def test_an_attempt_that_never_reached_the_chain_binds_nobody(tmp_path, chain_url):
    """An account without coin for gas leaves a record in which nothing has happened."""

    async def work(chain):
        from monetor_chain.errors import InsufficientFunds

        with pytest.raises(InsufficientFunds):
            await deploy(chain, dev_key("a poor account"), directory=tmp_path)
        assert (tmp_path / f"{chain.chain_id}.json").exists()
        done = await deploy(chain, dev_key("deployer"), directory=tmp_path, claim_epochs=7)
        assert await bind(chain, done).tax_pool.claim_epochs() == 7

    on(chain_url, work)
