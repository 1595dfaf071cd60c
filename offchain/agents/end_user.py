# SPDX-License-Identifier: BSD-3-Clause
"""What the client and relay agents share: coming up, opening channels, cashing out."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import structlog

from monetor_chain.sender import Sender
from monetor_chain.statements import Role

from ..crypto.ecdsa import address_of
from ..crypto.errors import CryptoError
from ..protocol import establish, wallet as wallets
from ..protocol.end_user import EndUserMachine
from ..protocol.errors import ProtocolError
from ..protocol.outbox import Tell
from ..protocol.records import Records, Table
from ..protocol.wallet import (
    CashingOut,
    Claiming,
    EndUser,
    Establishing,
    Idle,
    Posted,
    Settled,
    Wallet,
)
from ..protocol.watch_packages import answers_until
from ..store import Store
from ..transport.identity import RouterInfo
from ..transport.priority import Priority
from ..transport.proxy import OnionProxy
from .authorising import authoriser
from .directory import Consensus, DirectoryError, Router, fetch_consensus
from .engine import Engine
from .intermediary_port import IntermediaryPort
from .ledger_port import LedgerPort
from .place import AgentPlace, ChainAccess, raw_address
from .premium import priority_of
from .watch_folder import EndUserHander, HandOverFailed

DIRECTORY_PATIENCE = 60.0
"""Seconds to wait for the directory to list enough routers."""
HOPS_BETWEEN = 2
"""Relays between an end user and the intermediary."""
LOOK_AGAIN_SECONDS = 2.0
"""The directory is asked again at most this often when routers cannot be reached."""


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
        self._open = AsyncExitStack()
        """What has come up and has to be taken down, in reverse."""
        self._looked_at = 0.0

    # --- Life

    async def _come_up(self, guard_key: bytes = b"") -> None:
        self.access = await ChainAccess.open(self.place)
        self._open.push_async_callback(self.access.chain.close)
        self.consensus, self.intermediary = await self._find_intermediary()
        issuer = self.intermediary.issuer
        assert issuer is not None, "_find_intermediary checks it"
        contracts = self.access.contracts
        user = EndUser(self.account, self.role, issuer, self.intermediary.account,
                       self.intermediary.key_hash, self.access.ctx(self.intermediary.key_hash),
                       self.access.domain, self.access.deployment.tax_rate_bp)
        self.sender = self.access.sender(self._key)
        guard_sender = self.access.sender(guard_key) if guard_key else None
        self.proxy = OnionProxy(priority=self.priority)
        store = Store(self.place.folder / "store.sqlite", self.access.network,
                      self.role.name.lower())
        self.engine = Engine(
            self.nickname, store, self._machine(user), chain=self.access.chain,
            consensus=contracts.consensus, events=self.access.events(),
            port=LedgerPort(contracts.ledger, contracts.token, self.sender, self._key, issuer,
                            guard_sender=guard_sender, guard_key=guard_key),
            first_block=self.access.deployment.block, tell=self._tell,
            intermediary=IntermediaryPort(self.proxy, lambda: self.intermediary.info,
                                          self._relays, HOPS_BETWEEN),
            look_again=self._look_again, hander=self._hander(user),
            first=self._check_watcher)
        self._open.push_async_callback(self.engine.stop)
        # Circuits end while the engine still writes down what that means for their sessions.
        self._open.push_async_callback(self.proxy.close)

    def _hander(self, user: EndUser) -> EndUserHander | None:
        folders = self.place.watcher_folders
        return None if not folders else EndUserHander(
            folders, self.nickname, self._key, user, authoriser(self._key, user.domain),
            proofs=self.role is Role.RELAY)

    def _check_watcher(self) -> None:
        """An agent whose watcher is not told would go on until its watcher's answer is a revoked
        claim. `HandOverFailed` says so."""
        until = answers_until(self.records())
        if not self.place.watcher_folders and until >= self.engine.clock.now():
            when = datetime.fromtimestamp(until, UTC).isoformat(sep=" ", timespec="minutes")
            raise HandOverFailed(
                f"a watcher may answer for {self.nickname} until {when} and would not hear of what "
                "it does: start it with --watcher-folder")

    def _machine(self, user: EndUser) -> EndUserMachine:
        raise NotImplementedError

    def _tell(self, item: Tell) -> None:
        raise NotImplementedError

    async def stop(self) -> None:
        """Stop, also if it has not come up whole; what is not done is on disk."""
        await self._open.aclose()

    def priority(self) -> Priority:
        """The network's constants of priority in force."""
        return priority_of(self.engine.moment().parameters)

    # --- Directory

    async def _find_intermediary(self) -> tuple[Consensus, Router]:
        try:
            async with asyncio.timeout(DIRECTORY_PATIENCE):
                while not (consensus := await fetch_consensus(self.place.directory_url)
                           ).intermediaries():
                    await asyncio.sleep(0.2)
        except TimeoutError:
            raise DirectoryError(f"the directory at {self.place.directory_url} lists no "
                                 "intermediary") from None
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

    async def _look_again(self) -> None:
        """Read the consensus again, not too often: a restarted router may listen elsewhere.

        Only the addresses are taken over: the intermediary stays the one of the same key.
        """
        if time.monotonic() - self._looked_at < LOOK_AGAIN_SECONDS:
            return
        self._looked_at = time.monotonic()
        try:
            consensus = await fetch_consensus(self.place.directory_url)
        except DirectoryError as error:
            self._log.warning("the directory does not help", error=str(error))
            return
        self.consensus = consensus
        for one in consensus.intermediaries():
            if one.key_hash == self.intermediary.key_hash:
                self.intermediary = one

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

    async def have_channels(self, *, deposit: int, fund: int, count: int, timeout: float = 120
                            ) -> None:
        """Have channels that can be used: those there are, those whose opening a crash has
        interrupted, or else a new group."""
        if not self._group_is_asked_for() and all(
                isinstance(one, Claiming | Posted | Settled) or self._will_not_open(one)
                for one in self.wallets()):
            await self.open_channels(deposit=deposit, fund=fund, count=count, timeout=timeout)
            return

        def opened(records: Records) -> bool:
            return not self._group_is_asked_for() and not any(
                isinstance(one, Establishing) and not self._will_not_open(one)
                for one in wallets.all_wallets(records))

        await self.engine.until(opened, timeout, "end of the opening of channels")

    def _group_is_asked_for(self) -> bool:
        return any(one.conversation.startswith(b"group:")
                   for one in self.engine.store.read().requests())

    def _will_not_open(self, wallet: Wallet) -> bool:
        """A channel whose opening the ledger has refused."""
        if not isinstance(wallet, Establishing):
            return False
        reading = self.engine.store.read()
        group = establish.find_group(reading, wallet.next.cid >> 8)
        return group is not None and group.phase is establish.GroupPhase.SUBMITTED and not any(
            one.key == b"open:" + establish.group_key(group.group)
            for one in reading.submissions())

    async def open_channels(self, *, deposit: int, fund: int, count: int, timeout: float = 120
                            ) -> None:
        """Open one group and wait until its channels can be used.

        `ProtocolError` if the intermediary or the ledger refuses, with its word.
        """
        known = {wallets.channel_of(one) for one in self.wallets()}
        latest = self.engine.measured.latest
        for what in ("refused", "transaction-reverted"):
            latest.pop(what, None)
        self.engine.do(lambda records, moment: self.engine.machine.open_group(
            records, moment, deposit=deposit, fund=fund, count=count))

        def ready(records: Records) -> bool:
            new = [one for one in wallets.all_wallets(records)
                   if wallets.channel_of(one) not in known]
            refused, reverted = latest.get("refused"), latest.get("transaction-reverted")
            if not new and refused and refused.detail.startswith("group:"):
                raise ProtocolError(
                    f"the intermediary does not open {count} channels with a deposit of {deposit} "
                    f"and a fund of {fund} units each: {refused.detail[7:]}")
            if reverted and reverted.detail.startswith("Open:") and any(
                    self._will_not_open(one) for one in new):
                raise ProtocolError(
                    f"the ledger does not open {count} channels with a deposit of {deposit} units "
                    f"each: {reverted.detail[6:]}")
            return len(new) >= count and not any(isinstance(one, Establishing) for one in new)

        await self.engine.until(ready, timeout, "open channel group")

    def groups(self) -> list[establish.Group]:
        """The groups this agent owns."""
        return [one for _, one in self.records().scan(Table.GROUP)
                if isinstance(one, establish.Group)]

    async def cash_out(self, timeout: float = 120) -> None:
        """Close all idle channels cooperatively, those too that become idle meanwhile, and wait
        until the ledger has paid them out."""
        def done(records: Records) -> bool:
            self._cash_out_idle()
            return not any(isinstance(one, CashingOut | Idle)
                           for one in wallets.all_wallets(records))

        await self.engine.until(done, timeout, "cooperative close")

    def _cash_out_idle(self) -> None:
        """Show every group's idle wallets, unless a close of the group is under way."""
        reading = self.engine.store.read()
        under_way = {one.key for one in reading.submissions()}
        idle = {one.cid >> 8 for one in self.wallets() if isinstance(one, Idle)}
        busy = {wallets.channel_of(one) >> 8 for one in self.wallets()
                if isinstance(one, CashingOut)}
        for group in idle - busy:
            if b"close:" + establish.group_key(group) in under_way:
                continue
            try:
                self._cash_out_group(group)
            except ProtocolError as error:
                self._log.info("a group is not cashed out yet", reason=str(error))

    def _cash_out_group(self, group: int) -> None:
        self.engine.do(lambda records, moment: self.engine.machine.cash_out(records, group))

    async def settled(self, timeout: float) -> None:
        """Wait until every channel is paid out, cooperatively or by a claim."""
        await self.engine.until(
            lambda records: all(isinstance(one, Settled) or self._will_not_open(one)
                                for one in wallets.all_wallets(records)),
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
