# SPDX-License-Identifier: BSD-3-Clause
"""Separate processes: a relay is killed for good in the middle of a session, and its watcher, which
has nothing but the packages in a folder, saves what the relay was paid."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import time

import pytest

from monetor_chain.accounts import dev_address, dev_key
from monetor_chain.bindings.ledger import (
    ChannelStatus,
    LedgerEvents,
    Opened,
    RefundPosted,
    Revealed,
)
from monetor_chain.chain import Chain
from monetor_chain.deployment import attach, bind
from monetor_chain.faucet import fund
from monetor_chain.parameters import DEMO
from monetor_chain.sender import Sender
from offchain.agents.watch_folder import PROOFS_SECONDS
from offchain.protocol.records import load
from tests.end_to_end.file_server import FileServer
from tests.end_to_end.parties import DELTA_R, RELAYS, Parties

SIZE = 4 * 1024 * 1024
SLOW = 300 * 1024
FAST, SLOWER = 24, 5
"""Chain seconds per second while everybody waits for deadlines, and when one comes."""


class Watched(Parties):
    """Parties of which the exit and the intermediary hand packages to one watcher."""

    def start_watcher(self, *arguments):
        process = self.run("watcher", "run_watcher", "--packages", str(self.packages), *arguments)
        return process.wait_for_facts()

    @property
    def packages(self):
        return self.folder / "packages"

    def run(self, name, script, *arguments, **options):
        if name == "watcher":
            options |= {"agent": False}
            arguments = (*arguments, "--folder", str(self.folder / "parties" / name), "--verbose")
        if name in ("exit", "intermediary"):
            arguments = (*arguments, "--watcher-folder", str(self.packages))
        return super().run(name, script, *arguments, **options)

    def on_chain(self, work):
        async def run():
            async with await Chain.connect(self.endpoint) as chain:
                deployment = await attach(chain, self.folder / "deployments")
                return await work(chain, deployment, bind(chain, deployment).ledger)
        return asyncio.run(run())

    def expiry(self):
        """When the session expires that the exit had on its disk when it was last looked at."""
        with sqlite3.connect(self.folder / "exit-copy" / "store.sqlite") as connection:
            rows = connection.execute(
                "SELECT type, value FROM records WHERE tbl = 'session'").fetchall()
        connection.close()
        (t_exp,) = {load(*row).session.terms.t_exp for row in rows}
        return t_exp

    def wait_until(self, network_time):
        async def now(chain, _, __):
            return await chain.now()
        while self.on_chain(now) < network_time:
            time.sleep(0.3)

    def events(self, kind):
        async def work(_, deployment, ledger):
            batch = await LedgerEvents(ledger).since(deployment.block)
            return [one for one in batch.events if isinstance(one, kind)]
        return self.on_chain(work)

    def wait_for(self, kind, seconds):
        deadline = time.monotonic() + seconds
        while not (found := self.events(kind)):
            assert time.monotonic() < deadline, (kind, self.processes["watcher"].said())
            time.sleep(0.5)
        return found


@pytest.mark.long
def test_a_watcher_saves_what_a_killed_relay_was_paid(tmp_path):
    with FileServer(SIZE, per_second=SLOW) as server, Watched(tmp_path) as parties:
        parties.on_chain(lambda chain, deployment, _: fund(
            chain, deployment, dev_address("watcher"), tokens=0))
        held = parties.start_watcher("--at-any-price")
        assert held["revoked_claims"] == 0
        client = parties.start_client(server.url)
        parties.wait_for_payments("exit", "received", 20)
        assert stat.S_IMODE(parties.packages.stat().st_mode) == 0o700
        time.sleep(2 * PROOFS_SECONDS)
        parties.processes["exit"].kill()
        on_disk = parties.counter("exit", "received")
        client.kill()

        # It is down for long: a session expires, and the intermediary asks for a channel.
        parties.set_speed(FAST)
        (group,) = [one.group for one in parties.events(Opened)
                    if one.account == dev_address("exit")]
        idle = group << 8 | 3
        parties.on_chain(lambda chain, _, ledger: ledger.request_close(
            Sender(chain, dev_key("intermediary")), idle))
        parties.wait_until(parties.expiry() - 2 * DEMO.safety_margin)
        parties.set_speed(SLOWER)
        (posted,) = parties.wait_for(RefundPosted, 60)
        assert posted.cid == idle
        (revealed,) = parties.wait_for(Revealed, 60)
        # What came just before it was killed may be lost.
        assert 20 <= revealed.k_r <= on_disk
        assert not list(parties.packages.glob("*.refused"))

        parties.set_speed(FAST)

        # The watcher is killed too; what it did is not done again.
        parties.processes["watcher"].kill()
        held = parties.start_watcher("--at-any-price")
        assert held["revoked_claims"] >= 4 and held["sessions_to_reveal"] == 1
        unpaid = 1
        while unpaid:
            settling = parties.run("exit", "run_relay", "exit", *RELAYS["exit"], "--settle")
            assert settling.end(60) == 0, settling.said()
            unpaid = settling.facts()[-1]["channels_not_paid_out"]
        after = parties.balances()
        assert after["exit"] == revealed.k_r * DELTA_R + DEMO.close_bond

        async def status(_, __, ledger):
            return (await ledger.channel(posted.cid)).status
        assert parties.on_chain(status) is ChannelStatus.RESOLVED
        logs = "".join(one.complaints() for one in parties.started if "run_watcher" in str(
            one.command))
        assert logs.count("answering") == logs.count("revealing") == 1
        # The relay and its watcher may resolve at the same time; that is tried first, for nothing.
        assert logs.count("the ledger refuses") <= 1 and "is refused" not in logs
        for process in parties.started:
            assert "task failed" not in process.complaints(), process.said()
