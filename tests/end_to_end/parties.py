# SPDX-License-Identifier: BSD-3-Clause
"""The parties as processes of their own, started from scripts/, and what the ledger owes each."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from monetor_chain.accounts import dev_address
from monetor_chain.chain import Chain
from monetor_chain.deployment import attach, bind

ROOT = Path(__file__).resolve().parent.parent.parent
RELAYS = {"guard": ["--guard"], "middle": [], "exit": ["--exit"]}
TOKENS = {"intermediary": 4_000_000, "client": 400_000, "client-guard": 60_000,
          "guard": 0, "middle": 0, "exit": 0}
PRICE, DELTA_R, FEE = 100, 86, 5
N = 128
COMING_UP = 60
ANVIL_KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
"""Of the first account that anvil, by its documentation, gives coins to."""


class Process:
    """One running command; its standard output is JSON."""

    def __init__(self, command, log, environment=None):
        self.command = command
        self.out, self.err = log.with_suffix(".out"), log.with_suffix(".err")
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.popen = subprocess.Popen(
                [sys.executable, *command], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out,
                stderr=err, env={**os.environ, **(environment or {})})

    @property
    def pid(self):
        return self.popen.pid

    def facts(self):
        """Every JSON document printed so far."""
        text, found, at = self.out.read_text(), [], 0
        decoder = json.JSONDecoder()
        while at < len(text):
            if text[at].isspace():
                at += 1
                continue
            try:
                one, at = decoder.raw_decode(text, at)
            except ValueError:
                break
            found.append(one)
        return found

    def wait_for_facts(self, count=1, seconds=COMING_UP):
        deadline = time.monotonic() + seconds
        while len(self.facts()) < count:
            assert self.popen.poll() is None, f"{self.command} ended: {self.said()}"
            assert time.monotonic() < deadline, f"{self.command} is silent: {self.said()}"
            time.sleep(0.05)
        return self.facts()[count - 1]

    def said(self):
        return self.out.read_text()[-2000:] + self.err.read_text()[-4000:]

    def complaints(self):
        return self.err.read_text()

    def end(self, seconds=20):
        """Wait for the end; the exit status."""
        return self.popen.wait(seconds)

    def kill(self):
        """As a power failure would."""
        self.popen.send_signal(signal.SIGKILL)
        self.popen.wait(10)

    def terminate(self):
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(15)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait(10)


class Parties:
    """A chain, or an endpoint that is there already, and processes on it."""

    def __init__(self, folder, *, speed=2.0, endpoint=None, intermediary=(), tokens=None):
        self.folder = folder
        self.tokens = tokens or TOKENS
        self.speed = speed
        self.endpoint = endpoint
        self.embedded = endpoint is None
        self.processes = {}
        self.started = []
        self.directory = ""
        self.intermediary_arguments = list(intermediary)

    # --- starting and ending

    def run(self, name, script, *arguments, network=True, agent=True, environment=None, dies=()):
        """Start a script; one that `dies` does so at that message (see dying.py)."""
        count = sum(one.startswith(f"{name}-") for one in os.listdir(self.folder))
        start = (["tests/end_to_end/dying.py", *map(str, dies), script.removeprefix("run_")]
                 if dies else [f"scripts/{script}.py"])
        command = [*start, *arguments, "--json"]
        if network:
            command += ["--network", self.endpoint, "--deployments",
                        str(self.folder / "deployments")]
        if agent:
            command += ["--folder", str(self.folder / "parties" / name), "--verbose"]
            if script != "run_authority":
                command += ["--directory", self.directory]
        process = Process(command, self.folder / f"{name}-{count}", environment)
        self.started.append(process)
        self.processes[name] = process
        return process

    def start(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.endpoint is None:
            chain = Process(["-m", "offchain.cli", "chain", "--port", "0", "--speed",
                             str(self.speed)], self.folder / "chain")
            self.started.append(chain)
            self.endpoint = chain.wait_for_facts()["rpc"]
        deployed = self.run("deploy", "deploy", agent=False, environment=(
            {} if self.embedded else {"MONETOR_PRIVATE_KEY": ANVIL_KEY}))
        assert deployed.end(90) == 0, deployed.said()
        self.fund()
        authority = self.run("authority", "run_authority", "--port", "0")
        self.directory = authority.wait_for_facts()["url"]
        self.start_intermediary()
        for name in RELAYS:
            self.start_relay(name, wait=False)
        for name in RELAYS:
            self.processes[name].wait_for_facts()

    def fund(self):
        async def work():
            from monetor_chain.faucet import fund
            async with await Chain.connect(self.endpoint) as chain:
                deployment = await attach(chain, self.folder / "deployments")
                for name, tokens in self.tokens.items():
                    await fund(chain, deployment, dev_address(name), tokens=tokens)
        asyncio.run(work())

    def start_intermediary(self, dies=()):
        process = self.run("intermediary", "run_intermediary", *self.intermediary_arguments,
                           dies=dies)
        process.wait_for_facts()
        return process

    def start_relay(self, name, wait=True, dies=()):
        process = self.run(name, "run_relay", name, *RELAYS[name], dies=dies)
        if wait:
            process.wait_for_facts()
        return process

    def start_client(self, *arguments, dies=()):
        return self.run("client", "run_client", *arguments, dies=dies)

    def stop(self):
        for process in reversed(self.started):
            process.terminate()

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    # --- settling

    def settle(self, seconds=150):
        """Everybody cashes out, the client until its direct channel is paid back too."""
        self.set_speed(24)
        facts = {}
        for name in RELAYS:
            self.processes[name].popen.send_signal(signal.SIGUSR1)
        for name in RELAYS:
            facts[name] = self.processes[name].wait_for_facts(2, seconds)
        deadline = time.monotonic() + seconds
        while True:
            client = self.start_client("--settle")
            assert client.end(seconds) == 0, client.said()
            facts["client"] = client.facts()[-1]
            if not facts["client"]["channels_not_paid_out"]:
                return facts
            assert time.monotonic() < deadline, client.said()
            time.sleep(1 if self.embedded else 10)

    def set_speed(self, speed):
        """On the embedded chain; any other has the clock that it has."""
        if not self.embedded:
            return

        async def work():
            async with await Chain.connect(self.endpoint) as chain:
                await chain.set_speed(speed)
        asyncio.run(work())

    def counter(self, party, name):
        """A running total on a party's disk, also while it runs."""
        store = self.folder / "parties" / party / "store.sqlite"
        copy = self.folder / f"{party}-copy"
        copy.mkdir(exist_ok=True)
        # The party holds the file exclusively: what is read is a copy, with its journal.
        for suffix in ("", "-wal"):
            source = Path(f"{store}{suffix}")
            if source.exists():
                (copy / f"store.sqlite{suffix}").write_bytes(source.read_bytes())
        with sqlite3.connect(copy / "store.sqlite") as connection:
            row = connection.execute("SELECT value FROM counters WHERE name = ?",
                                     (name,)).fetchone()
        connection.close()
        return row[0] if row else 0

    def wait_for_payments(self, party, name, count, seconds=90):
        deadline = time.monotonic() + seconds
        while (found := self.read_counter(party, name)) < count:
            assert time.monotonic() < deadline, f"{party} has {found} {name}"
            time.sleep(0.1)

    def read_counter(self, party, name):
        try:
            return self.counter(party, name)
        except (sqlite3.Error, OSError):
            return 0  # caught between two writes, or not there yet

    def balances(self, payouts=()):
        """What each account owns: tokens, credit, vault; `payouts` belong to the guard."""
        async def work():
            async with await Chain.connect(self.endpoint) as chain:
                contracts = bind(chain, await attach(chain, self.folder / "deployments"))

                async def owned(address):
                    return int(await contracts.token.balance_of(address)
                               + await contracts.ledger.credit(address)
                               + await contracts.ledger.vault(address))

                found = {name: await owned(dev_address(name)) for name in self.tokens}
                found["guard"] += sum([await owned(one) for one in payouts])
                found["tax"] = int(await contracts.tax_pool.holdings()) + int(
                    await contracts.ledger.credit(contracts.tax_pool.address))
                return found
        return asyncio.run(work())

    def check_accounts(self, facts):
        """Nobody is a unit short of what the protocol guarantees; nothing is missing."""
        after = self.balances(facts["guard"]["payout_addresses"])
        assert sum(after.values()) == sum(self.tokens.values()), "every unit is somebody's"
        sent = sum(self.counter("client", f"sent:{hop}") for hop in RELAYS)
        client = after["client"] + after["client-guard"]
        assert client >= TOKENS["client"] + TOKENS["client-guard"] - sent * PRICE
        for name in ("middle", "exit"):
            assert facts[name]["received"] == self.counter(name, "received")
            assert after[name] >= facts[name]["received"] * DELTA_R, name
        guarded = facts["guard"]["guard_received"]
        assert after["guard"] >= guarded * PRICE * 10_000 // 11_000
        settled = facts["middle"]["received"] + facts["exit"]["received"]
        others = [name for name in self.tokens if name.startswith("intermediary")]
        assert sum(after[name] - self.tokens[name] for name in others) >= FEE * settled
        return after, sent
