# SPDX-License-Identifier: BSD-3-Clause
"""What the client and relay agents share: coming up, opening channels, cashing out."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence

import structlog

from monetor_chain.bindings.ledger_events import LedgerEvents
from monetor_chain.sender import Sender
from monetor_chain.statements import Role

from ..crypto.ecdsa import address_of
from ..crypto.errors import CryptoError
from ..protocol import establish, wallet as wallets
from ..protocol.end_user import EndUserMachine
from ..protocol.errors import ProtocolError
from ..protocol.outbox import Tell
from ..protocol.records import Records, Table
from ..protocol.wallet import CashingOut, EndUser, Idle, Settled, Wallet
from ..store import Store
from ..transport.identity import RouterInfo
from ..transport.proxy import OnionProxy
from .directory import Consensus, DirectoryError, Router, fetch_consensus
from .engine import Engine
from .intermediary_port import IntermediaryPort
from .ledger_port import LedgerPort
from .place import AgentPlace, ChainAccess, raw_address

DIRECTORY_PATIENCE = 60.0
"""Seconds to wait for the directory to list enough routers."""
HOPS_BETWEEN = 2
"""Relays between an end user and the intermediary."""


class EndUserAgent:
    """Base of the agents that own channels; subclasses give the machine."""

    role: Role

    def __init__(self, place: AgentPlace, account_key: bytes, nickname: str) -> None:
        self.nickname = nickname
        self.account = address_of(account_key)
        self.place = place
        self._key = account_key
        self._log = structlog.get_logger(nickname)
        self.access: ChainAccess
        self.engine: Engine
        self.sender: Sender
        self.consensus: Consensus
        self.intermediary: Router
        self.proxy: OnionProxy
        self._own: bytes = b""

    # --- Life

    async def _come_up(self, guard_key: bytes = b"") -> None:
        self.access = await ChainAccess.open(self.place)
        self.consensus, self.intermediary = await self._find_intermediary()
        issuer = self.intermediary.issuer
        assert issuer is not None, "_find_intermediary checks it"
        contracts = self.access.contracts
        user = EndUser(self.account, self.role, issuer, self.intermediary.account,
                       self.intermediary.key_hash, self.access.ctx(self.intermediary.key_hash),
                       self.access.domain, self.access.deployment.tax_rate_bp)
        self.sender = Sender(self.access.chain, self._key)
        guard_sender = Sender(self.access.chain, guard_key) if guard_key else None
        self.proxy = OnionProxy()
        self.engine = Engine(
            self.nickname,
            Store(self.place.folder / "store.sqlite", self.access.network, self.role.name.lower()),
            self._machine(user), chain=self.access.chain, consensus=contracts.consensus,
            events=LedgerEvents(contracts.ledger),
            port=LedgerPort(contracts.ledger, contracts.token, self.sender, self._key, issuer,
                            guard_sender=guard_sender, guard_key=guard_key),
            first_block=self.access.deployment.block, tell=self._tell,
            intermediary=IntermediaryPort(self.proxy, self.intermediary.info, self._relays,
                                          HOPS_BETWEEN))

    def _machine(self, user: EndUser) -> EndUserMachine:
        raise NotImplementedError

    def _tell(self, item: Tell) -> None:
        raise NotImplementedError

    async def stop(self) -> None:
        """Stop; what is not done is on disk."""
        await self.engine.stop()
        await self.proxy.close()
        await self.access.chain.close()

    # --- Directory

    async def _find_intermediary(self) -> tuple[Consensus, Router]:
        async with asyncio.timeout(DIRECTORY_PATIENCE):
            while not (consensus := await fetch_consensus(self.place.directory_url)
                       ).intermediaries():
                await asyncio.sleep(0.2)
        found = consensus.intermediaries()[0]
        issuer = found.issuer
        owner = await self.access.contracts.ledger.intermediary(found.key_hash)
        if issuer is None or issuer.key_hash != found.key_hash:
            raise DirectoryError("the directory lists an intermediary with another key than it has "
                                 "registered")
        if owner is None or raw_address(owner) != found.account:
            raise DirectoryError("the ledger does not know the listed intermediary's key")
        try:
            issuer.check()
        except CryptoError as error:
            raise DirectoryError(f"the intermediary's key is not well formed: {error}") from error
        return consensus, found

    async def wait_for_relays(self, enough: Callable[[Consensus], bool], what: str) -> Consensus:
        """Read the consensus until it lists `enough`; `DirectoryError` names what is missing."""
        try:
            async with asyncio.timeout(DIRECTORY_PATIENCE):
                while True:
                    self.consensus = await fetch_consensus(self.place.directory_url)
                    if enough(self.consensus):
                        return self.consensus
                    await asyncio.sleep(0.2)
        except TimeoutError:
            raise DirectoryError(f"the directory lists no {what}") from None

    def _relays(self) -> Sequence[RouterInfo]:
        return [one.info for one in self.consensus.relays()
                if one.info.ed25519_identity != self._own]

    # --- Channels

    def records(self) -> Records:
        """This agent's records, for reading."""
        return self.engine.store.read()

    def wallets(self) -> list[Wallet]:
        """Every channel's wallet."""
        return wallets.all_wallets(self.records())

    async def open_channels(self, *, deposit: int, fund: int, count: int, timeout: float = 120
                            ) -> None:
        """Open one group and wait until its channels can be used."""
        before = len(self.wallets())
        self.engine.do(lambda records, moment: self.engine.machine.open_group(
            records, moment, deposit=deposit, fund=fund, count=count))

        def ready(records: Records) -> bool:
            found = wallets.all_wallets(records)
            return len(found) >= before + count and not any(
                isinstance(one, wallets.Establishing) for one in found)

        await self.engine.until(ready, timeout, "open channel group")

    def groups(self) -> list[establish.Group]:
        """The groups this agent owns."""
        return [one for _, one in self.records().scan(Table.GROUP)
                if isinstance(one, establish.Group)]

    async def cash_out(self, timeout: float = 120) -> None:
        """Close all idle channels cooperatively and wait until the ledger has paid them out."""
        for group in self.groups():
            cids = {(group.group << 8) | index for index in range(group.count)}
            if not any(isinstance(one, Idle) and one.cid in cids for one in self.wallets()):
                continue
            try:
                self._cash_out_group(group.group)
            except ProtocolError as error:
                self._log.warning("a group is not cashed out", reason=str(error))
        await self.engine.until(
            lambda records: not any(isinstance(one, CashingOut | Idle)
                                    for one in wallets.all_wallets(records)),
            timeout, "cooperative close")

    def _cash_out_group(self, group: int) -> None:
        self.engine.do(lambda records, moment: self.engine.machine.cash_out(records, group))

    async def settled(self, timeout: float) -> None:
        """Wait until every channel is paid out, cooperatively or by a claim."""
        await self.engine.until(
            lambda records: all(isinstance(one, Settled) for one in wallets.all_wallets(records)),
            timeout, "settlement of every channel")

    async def withdraw(self) -> int:
        """Turn this account's credit at the ledger into tokens; returns the amount."""
        ledger = self.access.contracts.ledger
        amount = await ledger.credit(self.account)
        if amount:
            receipt = await ledger.withdraw(self.sender)
            self.engine.measured.gas += receipt.gas_used
        return int(amount)


def random_amount(limit: int) -> int:
    """A hidden payment's amount, uniform in [0, limit]."""
    return secrets.randbelow(limit + 1)
