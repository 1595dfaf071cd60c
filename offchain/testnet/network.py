# SPDX-License-Identifier: BSD-3-Clause
"""One authority, one intermediary, three relays and a client with their own folders and sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from monetor_chain.accounts import address_of, dev_key
from monetor_chain.bindings.ledger import GuardState
from monetor_chain.chain import Chain
from monetor_chain.deployment import Contracts, Deployment, bind, deploy
from monetor_chain.embedded import EmbeddedChain
from monetor_chain.faucet import fund
from monetor_chain.parameters import NetworkParameters
from monetor_chain.sender import Sender

from ..agents.client import ClientAgent
from ..agents.directory import Authority
from ..agents.intermediary import IntermediaryAgent
from ..agents.place import AgentPlace
from ..agents.relay import RelayAgent
from ..protocol.records import Table

RELAYS = ("guard", "middle", "exit")
GAS_MONEY = 10**18
"""Native coin, in wei, that every account gets for gas."""


@dataclass(slots=True)
class Options:
    """What a test network is made of. Amounts in base units."""

    folder: Path
    parameters: NetworkParameters
    speed: float = 4.0
    precompiles: Literal["native", "pure"] = "native"
    client_tokens: int = 400_000
    client_channels: int = 6
    client_deposit: int = 20_000
    guard_deposit: int = 60_000
    vault: int = 4_000_000
    relay_tokens: int = 0
    relay_fund: int = 100_000
    relay_channels: int = 4
    payee_deposit: int = 1_000
    payee_fund: int = 60_000
    client_agent: type[ClientAgent] = ClientAgent
    relay_agent: type[RelayAgent] = RelayAgent
    intermediary_agent: type[IntermediaryAgent] = IntermediaryAgent


Say = Callable[[str], None]
Agent: TypeAlias = Authority | IntermediaryAgent | RelayAgent | ClientAgent


@dataclass(slots=True)
class Network:
    """A running test network; `start` brings it up, `stop` takes it down."""

    options: Options
    say: Say = print
    chain_process: EmbeddedChain = field(init=False)
    chain: Chain = field(init=False)
    deployment: Deployment = field(init=False)
    contracts: Contracts = field(init=False)
    authority: Authority = field(init=False)
    intermediary: IntermediaryAgent = field(init=False)
    relays: dict[str, RelayAgent] = field(init=False, default_factory=dict)
    client: ClientAgent = field(init=False)
    payee: ClientAgent = field(init=False)
    before: dict[str, int] = field(init=False, default_factory=dict)
    _started: list[Agent] = field(init=False, default_factory=list)

    def place(self, name: str) -> AgentPlace:
        """The folder and addresses of one agent."""
        url = self.authority.url if hasattr(self, "authority") else ""
        return AgentPlace(self.options.folder / name, self.chain_process.url,
                          self.options.folder / "deployments", url)

    async def start_chain(self) -> None:
        """Start the embedded chain, deploy the contracts, give every account its tokens."""
        options = self.options
        self.chain_process = EmbeddedChain(speed=options.speed, precompiles=options.precompiles)
        await asyncio.to_thread(self.chain_process.start)
        self.chain = await Chain.connect(self.chain_process.url)
        self.deployment = await deploy(
            self.chain, dev_key("deployer"), parameters=options.parameters,
            authorities=(address_of(dev_key("authority")),),
            directory=options.folder / "deployments")
        self.contracts = bind(self.chain, self.deployment)
        payee_tokens = options.payee_deposit
        tokens = {
            "intermediary": options.vault, "client": options.client_tokens,
            "client-guard": options.guard_deposit, "client2": payee_tokens,
            "client2-guard": 0, **dict.fromkeys(RELAYS, options.relay_tokens),
        }
        for name, amount in tokens.items():
            await fund(self.chain, self.deployment, address_of(dev_key(name)), wei=GAS_MONEY,
                       tokens=amount)
        self.before = {name: await self.balance(name) for name in tokens}

    async def balance(self, name: str) -> int:
        """Tokens, credit at the ledger and vault of one account, in base units."""
        address = address_of(dev_key(name))
        ledger = self.contracts.ledger
        return int(await self.contracts.token.balance_of(address)
                   + await ledger.credit(address) + await ledger.vault(address))

    async def start_agents(self) -> None:
        """Start the authority, the intermediary, the relays and both of the client's accounts."""
        options = self.options
        self.authority = Authority(self.place("authority"))
        await self._start(self.authority)
        self.intermediary = options.intermediary_agent(
            self.place("intermediary"), dev_key("intermediary"), vault=options.vault)
        await self._start(self.intermediary)
        for name in RELAYS:
            self.relays[name] = options.relay_agent(
                self.place(name), dev_key(name), nickname=name, is_guard=name == "guard",
                is_exit=name == "exit", fund=options.relay_fund, channels=options.relay_channels)
            await self._start(self.relays[name])
        self.client = options.client_agent(
            self.place("client"), dev_key("client"), guard_key=dev_key("client-guard"),
            guard_deposit=options.guard_deposit)
        self.payee = ClientAgent(self.place("client2"), dev_key("client2"),
                                 guard_key=dev_key("client2-guard"), nickname="client2")
        await self._start(self.client)
        await self._start(self.payee)

    async def open_channels(self) -> None:
        """Give every end user its channel group, all at once."""
        options = self.options
        await self.client.wait_for_relays(
            lambda consensus: len(consensus.relays()) >= len(RELAYS), "three relays")
        await self.payee.wait_for_relays(
            lambda consensus: len(consensus.relays()) >= len(RELAYS), "three relays")
        await asyncio.gather(
            self.client.open_channels(deposit=options.client_deposit, fund=0,
                                      count=options.client_channels),
            self.payee.open_channels(deposit=options.payee_deposit, fund=options.payee_fund,
                                     count=1),
            *(relay.prepare() for name, relay in self.relays.items() if name != "guard"))

    async def give_gas(self, address: bytes) -> None:
        """Give a payout address gas to withdraw with."""
        await fund(self.chain, self.deployment, address, wei=GAS_MONEY)

    async def collect_tax(self) -> None:
        """Move the tax from the ledger to the tax pool; anybody may do that."""
        await self.contracts.tax_pool.collect(Sender(self.chain, dev_key("faucet")))

    def payouts(self) -> list[bytes]:
        """The payout addresses of every relay's direct channels."""
        return [payout for relay in self.relays.values() for payout, _ in relay.payouts()]

    async def owed_by_ledger(self) -> int:
        """Vaults, credits and uncollected tax: what the ledger holds outside of channels."""
        ledger = self.contracts.ledger
        addresses: list[str | bytes] = [address_of(dev_key(name)) for name in self.before]
        addresses += self.payouts()
        owed = int(await ledger.credit(self.deployment.tax_pool))
        for address in addresses:
            owed += int(await ledger.credit(address) + await ledger.vault(address))
        return owed

    async def open_guard_escrow(self) -> int:
        """What direct channels that nobody has closed still hold."""
        held = 0
        for relay in self.relays.values():
            for _, one in relay.records().scan(Table.GUARD):
                view = await self.contracts.ledger.guard(int.from_bytes(one.channel, "big"))
                if view is not None and view.state is not GuardState.CLOSED:
                    held += view.deposit - view.claimed
        return held

    async def _start(self, agent: Agent) -> None:
        self._started.append(agent)
        await agent.start()

    async def stop(self) -> None:
        """Stop every agent that was started, then the chain."""
        for agent in reversed(self._started):
            await agent.stop()
        if hasattr(self, "chain"):
            await self.chain.close()
        if hasattr(self, "chain_process"):
            await asyncio.to_thread(self.chain_process.stop)
