# SPDX-License-Identifier: BSD-3-Clause
"""Where an agent lives and whom it reaches: its folder, its keys, the chain, the directory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from monetor_chain.bindings.ledger_events import LedgerEvents
from monetor_chain.chain import Chain
from monetor_chain.deployment import Contracts, Deployment, attach, bind
from monetor_chain.sender import Sender
from monetor_chain.statements import context, domain_separator

from ..transport.identity import RouterIdentity


@dataclass(frozen=True, slots=True)
class AgentPlace:
    """`folder` is the agent's own; `deployments` holds the records of deployed contracts.

    `host` is the address that its sockets listen on, `port` that of its router (0: any).
    `confirmations`: how many blocks must follow one before the agent believes it; what it sends
    counts as done only then. A chain that replaces blocks more deeply stops the agent. In each of
    the `watcher_folders` it leaves packages for a watcher.
    """

    folder: Path
    chain_url: str
    deployments: Path
    directory_url: str = ""
    host: str = "127.0.0.1"
    port: int = 0
    confirmations: int = 0
    watcher_folders: tuple[Path, ...] = ()

    def router_identity(self) -> RouterIdentity:
        """The router keys in this folder, made on first use, all or none of them.

        `TransportError` if they are there and unreadable.
        """
        keys, partial = self.folder / "router", self.folder / "router.partial"
        if keys.exists():
            return RouterIdentity.load(keys)
        shutil.rmtree(partial, ignore_errors=True)
        identity = RouterIdentity.generate()
        identity.save(partial)
        os.replace(partial, keys)
        return identity

    def secret(self, name: str, make: Callable[[], bytes]) -> bytes:
        """A secret kept in this folder with mode 0600, made on first use."""
        path = self.folder / name
        if path.exists():
            return path.read_bytes()
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        secret = make()
        partial = path.with_suffix(".partial")
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(secret)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        return secret


@dataclass(frozen=True, slots=True)
class ChainAccess:
    """An agent's own connection to the chain and the contracts on it."""

    chain: Chain
    deployment: Deployment
    contracts: Contracts
    confirmations: int = 0

    @classmethod
    async def open(cls, place: AgentPlace) -> ChainAccess:
        """Connect; `ChainError` if the chain or the deployment is not there."""
        chain = await Chain.connect(place.chain_url)
        try:
            deployment = await attach(chain, place.deployments)
            return cls(chain, deployment, bind(chain, deployment), place.confirmations)
        except BaseException:
            await chain.close()
            raise

    def sender(self, private_key: bytes) -> Sender:
        """An account's way to this chain."""
        return Sender(self.chain, private_key, confirmations=self.confirmations)

    def events(self) -> LedgerEvents:
        """The ledger's log, as far as it is confirmed."""
        return LedgerEvents(self.contracts.ledger, self.confirmations)

    def ctx(self, key_hash: bytes) -> bytes:
        """The context of (chain, ledger, intermediary's key)."""
        return context(self.chain.chain_id, self.deployment.ledger, key_hash)

    @property
    def domain(self) -> bytes:
        """The ledger's EIP-712 domain separator."""
        return domain_separator(self.chain.chain_id, self.deployment.ledger)

    @property
    def network(self) -> bytes:
        """What a store is bound to: this chain, told apart by its first block, and this ledger.

        A development chain that is started anew repeats its id and its contracts' addresses.
        """
        genesis = bytes.fromhex(self.deployment.genesis.removeprefix("0x"))
        return context(self.chain.chain_id, self.deployment.ledger, genesis)


def raw_address(address: str | bytes) -> bytes:
    """20 bytes of an address in hex or raw."""
    return bytes.fromhex(address.removeprefix("0x")) if isinstance(address, str) else address


