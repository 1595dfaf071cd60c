# SPDX-License-Identifier: BSD-3-Clause
"""Separate processes: an intermediary goes over to a new key. Channels under the old one are served
to their end, new ones are opened under the new one, and the old one's records go with the last."""

from __future__ import annotations

import asyncio
import json
import urllib.request

import pytest

from monetor_chain.accounts import dev_address
from monetor_chain.chain import Chain
from monetor_chain.deployment import attach
from monetor_chain.faucet import fund
from tests.end_to_end.file_server import FileServer
from tests.end_to_end.parties import FEE, RELAYS, TOKENS, Parties

SIZE = 400 * 1024


class TwoKeys(Parties):
    """Parties, and the intermediary's second account."""

    def fund(self):
        super().fund()

        async def work():
            async with await Chain.connect(self.endpoint) as chain:
                deployment = await attach(chain, self.folder / "deployments")
                await fund(chain, deployment, dev_address("successor"), tokens=4_000_000)
        asyncio.run(work())

    def start_successor(self):
        process = self.run("successor", "run_intermediary", "successor")
        process.wait_for_facts()

    def listed(self):
        """What the directory says of each router: nickname → (hashes of its key, or of those that
        it is paid under; whether it opens channels)."""
        with urllib.request.urlopen(f"{self.directory}/consensus", timeout=10) as answer:
            body = json.loads(json.loads(answer.read())["body"])
        return {one["router"]["nickname"]: (
                    {one["key_hash"]} if one["intermediary"] else set(one["accepts"]),
                    one["opens"]) for one in body["routers"]}


@pytest.mark.long
@pytest.mark.timeout(900)
def test_channels_go_over_to_a_new_key(tmp_path):
    with FileServer(SIZE) as server, TwoKeys(tmp_path) as parties:
        first = parties.start_client(server.url)
        assert first.end(120) == 0, first.said()
        assert first.facts()[-1]["sha256"] == server.sha256
        parties.start_successor()
        parties.processes["intermediary"].terminate()
        parties.intermediary_arguments.append("--retire")
        old = parties.start_intermediary()
        listed = parties.listed()
        assert listed["intermediary"][1] is False and listed["successor"][1] is True
        assert all(listed[name][0] == listed["intermediary"][0] for name in RELAYS)
        second = parties.start_client(server.url)
        assert second.end(120) == 0, second.said()
        facts = parties.settle()
        assert old.end(60) == 0, old.said()
        wound_up = old.facts()[-1]
        assert wound_up["bytes_after"] < wound_up["bytes_before"]
        assert not facts["client"]["channels_not_paid_out"]
        after, _ = parties.check_accounts(facts)
        assert after["intermediary"] >= TOKENS["intermediary"] + FEE
        parties.set_speed(2)
        for name in RELAYS:
            parties.processes[name].terminate()
        for name in RELAYS:
            parties.start_relay(name, wait=False)
        for name in RELAYS:
            parties.processes[name].wait_for_facts()
        third = parties.start_client(server.url)
        assert third.end(120) == 0, third.said()
        listed = parties.listed()
        assert all(listed[name][0] == listed["successor"][0] for name in RELAYS)
