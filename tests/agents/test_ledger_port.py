# SPDX-License-Identifier: BSD-3-Clause
"""What agents send to a real ledger, several calls at a time."""

from __future__ import annotations

import asyncio

import pytest

from monetor_chain.accounts import address_of, dev_key
from monetor_chain.chain import Chain
from monetor_chain.deployment import bind, deploy
from monetor_chain.embedded import EmbeddedChain
from monetor_chain.faucet import fund
from monetor_chain.sender import Sender
from offchain.agents import relay as relay_agent
from offchain.agents.directory import DirectoryError
from offchain.agents.ledger_port import LedgerPort
from offchain.agents.relay import RelayAgent
from offchain.protocol.ledger import OpenGuard

DEPOSITS = (10_000, 20_000, 30_000)


def test_openings_at_the_same_time_are_all_mined(tmp_path):
    async def work(url):
        async with await Chain.connect(url) as chain:
            deployment = await deploy(chain, dev_key("deployer"), directory=tmp_path)
            key = dev_key("client-guard")
            await fund(chain, deployment, address_of(key), tokens=sum(DEPOSITS))
            contracts = bind(chain, deployment)
            sender = Sender(chain, key)
            port = LedgerPort(contracts.ledger, contracts.token, sender, dev_key("client"), None,
                              guard_sender=sender, guard_key=key)
            now = int(await chain.now())
            await asyncio.gather(*(
                port.submit(OpenGuard(bytes([deposit // 10_000]) * 20, deposit), now)
                for deposit in DEPOSITS))
            assert await contracts.token.balance_of(address_of(key)) == 0

    with EmbeddedChain(speed=1.0) as embedded:
        asyncio.run(work(embedded.url))


class Silent(RelayAgent):
    """A relay whose intermediary answers at the third attempt, or says no."""

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)
        self.warnings = []
        self._log = self

    def warning(self, *_, **facts):
        self.warnings.append(facts["reason"])

    async def prepare(self):
        outcome = self.outcomes.pop(0)
        if outcome is not None:
            raise outcome


def test_a_relay_serves_on_while_its_intermediary_is_silent(monkeypatch):
    monkeypatch.setattr(relay_agent, "PREPARE_PAUSE", (0.0, 0.0))
    agent = Silent(TimeoutError("no open channel group"), DirectoryError("no answer"), None)
    asyncio.run(agent.keep_preparing())
    assert agent.warnings == ["no open channel group", "no answer"] and not agent.outcomes
    with pytest.raises(ValueError, match="refused"):
        asyncio.run(Silent(ValueError("refused")).keep_preparing())
