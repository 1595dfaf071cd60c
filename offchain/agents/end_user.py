# SPDX-License-Identifier: BSD-3-Clause
"""What the client and relay agents share: coming up, opening channels, cashing out."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from types import UnionType

import structlog

from monetor_chain.sender import Sender
from monetor_chain.statements import Role

from ..crypto.ecdsa import address_of
from ..crypto.errors import CryptoError
from ..crypto.issuer import IssuerPublicKey
from ..protocol import establish, history, old_locks, restored, wallet as wallets
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
    KnownIntermediary,
    Posted,
    Recalled,
    Settled,
    Stale,
    Wallet,
)
from ..protocol.watch_packages import FOR_EVER, answers_until
from ..store import Store
from ..transport.errors import TransportError
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
HASH_DIGITS = 8
"""Hexadecimal digits of a key's hash that name an intermediary at least."""
MOST_INTERMEDIARIES = 3
"""Intermediaries that an agent chooses by itself; each one's channels are escrow of their own."""


class EndUserAgent:
    """Base of the agents that own channels; subclasses give the machine."""

    role: Role

    def __init__(self, place: AgentPlace, account_key: bytes, nickname: str,
                 intermediaries: Sequence[str] = ()) -> None:
        """`intermediaries` names those to have channels at; without it they are those of the store,
        or else some of those that the directory lists."""
        self.nickname = nickname
        self.account = address_of(account_key)
        self.place = place
        self._key = account_key
        self._wanted = intermediaries
        self._log = structlog.get_logger(nickname)
        self.access: ChainAccess
        self.engine: Engine
        self.sender: Sender
        self.consensus: Consensus
        self.chosen: list[EndUser] = []
        """Who this agent is at each intermediary where it opens channels."""
        self._seen: dict[bytes, RouterInfo] = {}
        self._opening = asyncio.Lock()
        self.proxy: OnionProxy
        self._own: bytes = b""
        self._open = AsyncExitStack()
        """What has come up and has to be taken down, in reverse."""
        self._looked_at = 0.0

    # --- Life

    async def _come_up(self, guard_key: bytes = b"") -> None:
        self.access = await ChainAccess.open(self.place)
        self._open.push_async_callback(self.access.chain.close)
        self.sender = self.access.sender(self._key)
        guard_sender = self.access.sender(guard_key) if guard_key else None
        self.proxy = OnionProxy(priority=self.priority)
        store = Store(self.place.folder / "store.sqlite", self.access.network,
                      self.role.name.lower())
        try:
            machine = self._machine(await self._meet_intermediaries(store))
        except BaseException:
            store.close()
            raise
        contracts = self.access.contracts
        self.engine = Engine(
            self.nickname, store, machine, chain=self.access.chain,
            consensus=contracts.consensus, events=self.access.events(),
            port=LedgerPort(
                contracts.ledger, contracts.token, self.sender, self._key,
                lambda cid: machine.user_of(self.records(), cid >> 8).issuer,
                guard_sender=guard_sender, guard_key=guard_key),
            first_block=self.access.deployment.block, tell=self._tell,
            intermediary=IntermediaryPort(self.proxy, self._intermediary_of, self._relays,
                                          HOPS_BETWEEN),
            look_again=self._look_again, hander=self._hander(machine),
            first=self._check_watcher, chronicle=history.entries)
        self._open.push_async_callback(self.engine.stop)
        if old_locks.restored(store.read()) is not None:
            self.engine.tasks.start("restored", self._report_restored())
        # Circuits end while the engine still writes down what that means for their sessions.
        self._open.push_async_callback(self.proxy.close)

    def _hander(self, machine: EndUserMachine) -> EndUserHander | None:
        folders = self.place.watcher_folders
        return None if not folders else EndUserHander(
            folders, self.nickname, self._key, machine,
            authoriser(self._key, machine.user.domain), proofs=self.role is Role.RELAY)

    def _check_watcher(self) -> None:
        """An agent whose watcher is not told would go on until its watcher's answer is a revoked
        claim. `HandOverFailed` says so."""
        until = answers_until(self.records())
        if not self.place.watcher_folders and until >= self.engine.clock.now():
            when = ("a time that a backup does not know" if until == FOR_EVER else
                    datetime.fromtimestamp(until, UTC).isoformat(sep=" ", timespec="minutes"))
            raise HandOverFailed(
                f"a watcher may answer for {self.nickname} until {when} and would not hear of what "
                "it does: start it with --watcher-folder")

    async def _report_restored(self) -> None:
        """Say what became of the channels of a backup, once the intermediary was asked about all
        of them."""
        def told(records: Records) -> list[restored.Standing]:
            return [one for one in restored.standings(records)
                    if one.verdict is restored.Verdict.ASKING]

        while told(self.records()):
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
        for one in restored.standings(self.records()):
            if one.verdict is restored.Verdict.STALE:
                self._log.warning(
                    "the newest state of a channel is lost with what the backup does not know",
                    channel=f"{one.cid:#x}", balance_in_the_backup=one.balance)
        found = Counter(one.verdict.value for one in restored.standings(self.records()))
        self._log.warning("back from a backup", channels=dict(found))

    def _machine(self, users: Sequence[EndUser]) -> EndUserMachine:
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

    async def _meet_intermediaries(self, store: Store) -> list[EndUser]:
        """Choose where to have channels, and be ready for those there are from before.

        `DirectoryError` if the directory lists none of those that are wanted.
        """
        known = {one.key_hash: one for one in wallets.known_intermediaries(store.read())}
        listed = await self._listed(known)
        await self._recognise(store, listed, known)
        living = _in_use(store.read(), known.values())
        sound: list[Router] = []
        for router in self._candidates(listed, known, living):
            try:
                await self._check(router, known.get(router.key_hash))
            except DirectoryError as error:
                if self._wanted:
                    raise
                self._log.warning("an intermediary is not used", name=router.info.nickname,
                                  reason=str(error))
                continue
            sound.append(router)
            if not self._wanted and len(sound) == MOST_INTERMEDIARIES:
                break
        if not sound and not known:
            raise DirectoryError("the directory lists no intermediary that can be used")
        with store.transaction() as records:
            for router in sound:
                # What was checked once is not replaced by what the directory says now.
                if router.key_hash not in known:
                    known[router.key_hash] = self._known(router)
                    wallets.know_intermediary(records, known[router.key_hash])
        users = {key: self._user(one) for key, one in known.items()}
        self.chosen = [users[one.key_hash] for one in sound]
        return [*self.chosen, *(one for one in users.values() if one not in self.chosen)]

    async def _recognise(self, store: Store, listed: Sequence[Router],
                         known: dict[bytes, KnownIntermediary]) -> None:
        """Add to `known` whose channels are in a store that did not keep that yet.

        `DirectoryError` if one of them is not listed: under another key nothing could be claimed.
        """
        missing = _groups_at_none(store.read(), known.values())
        for router in listed if missing else ():
            found = self._known(router) if router.issuer is not None else None
            if found is None or not any(
                    establish.is_at(one, found.ctx, found.account) for one in missing):
                continue
            await self._check(router, None)
            known[router.key_hash] = found
            with store.transaction() as records:
                wallets.know_intermediary(records, found)
        if _groups_at_none(store.read(), known.values()):
            raise DirectoryError("the store holds channels at an intermediary that the directory "
                                 "does not list; start again when it does")

    def _user(self, known: KnownIntermediary) -> EndUser:
        return EndUser(self.account, self.role, IssuerPublicKey.decode(known.issuer),
                       known.account, known.key_hash, known.ctx,
                       self.access.domain, self.access.deployment.tax_rate_bp)

    def _known(self, router: Router) -> KnownIntermediary:
        assert router.issuer is not None, "it has been checked"
        return KnownIntermediary(
            router.key_hash, self.access.ctx(router.key_hash), router.account,
            router.info.nickname.encode(), router.issuer.encode())

    async def _listed(self, known: Collection[bytes]) -> list[Router]:
        """The intermediaries of the directory; waits until those that are wanted are there."""
        missing = ""
        try:
            async with asyncio.timeout(DIRECTORY_PATIENCE):
                while True:
                    self._take_consensus(await fetch_consensus(self.place.directory_url))
                    listed = list(self.consensus.intermediaries())
                    missing = next((name for name in self._wanted if not _named(listed, name)), "")
                    # Whoever has channels can claim them, whether or not anybody is there.
                    if not missing and (listed or known):
                        return listed
                    await asyncio.sleep(0.2)
        except TimeoutError:
            raise DirectoryError(f"the directory at {self.place.directory_url} lists no "
                                 f"intermediary {missing}".rstrip()) from None

    def _candidates(self, listed: Sequence[Router], known: Collection[bytes],
                    living: Collection[bytes]) -> list[Router]:
        """Those that are named; else those of the store that are listed; else any, at random.

        One whose key retires opens no channels: it is chosen for those that are there.
        """
        if self._wanted:
            return [router for name in dict.fromkeys(self._wanted)
                    for router in _named(listed, name)[:1]]
        before = [one for one in listed if one.key_hash in known and (
            one.opens or one.key_hash in living)]
        opening = [one for one in listed if one.opens]
        return before or secrets.SystemRandom().sample(opening, len(opening))

    async def _check(self, router: Router, known: KnownIntermediary | None) -> None:
        """`DirectoryError` unless the ledger knows the key as this account's and it is sound."""
        name, issuer = router.info.nickname, router.issuer
        if known is not None and known.account == router.account:
            return
        if issuer is None or issuer.key_hash != router.key_hash:
            raise DirectoryError(f"the directory lists {name} with another key than it has "
                                 "registered")
        owner = await self.access.contracts.ledger.intermediary(router.key_hash)
        if owner is None or raw_address(owner) != router.account:
            raise DirectoryError(f"the ledger does not know the key of {name}")
        try:
            issuer.check()
        except CryptoError as error:
            raise DirectoryError(f"the key of {name} is not well formed: {error}") from error

    def _take_consensus(self, consensus: Consensus) -> None:
        self.consensus = consensus
        for one in consensus.intermediaries():
            self._seen[one.key_hash] = self._seen[one.account] = one.info

    def _intermediary_of(self, conversation: bytes) -> RouterInfo:
        """Where the intermediary of a conversation listens; one with a newer key is still the same.

        `TransportError` if the directory has not listed it.
        """
        try:
            user = self.engine.machine.user_for(self.records(), conversation)
        except ProtocolError as error:
            raise TransportError(str(error)) from error
        found = self._seen.get(user.key_hash) or self._seen.get(user.intermediary)
        if found is None:
            raise TransportError("the directory does not list the intermediary")
        return found

    async def _look_again(self) -> None:
        """Read the consensus again, not too often: a restarted router may listen elsewhere."""
        if time.monotonic() - self._looked_at < LOOK_AGAIN_SECONDS:
            return
        self._looked_at = time.monotonic()
        try:
            consensus = await fetch_consensus(self.place.directory_url)
        except DirectoryError as error:
            self._log.warning("the directory does not help", error=str(error))
            return
        self._take_consensus(consensus)

    async def wait_for_relays(self, enough: Callable[[Consensus], bool], what: str) -> Consensus:
        """Read the consensus until it lists `enough`; `DirectoryError` names what is missing."""
        try:
            async with asyncio.timeout(DIRECTORY_PATIENCE):
                while True:
                    self._take_consensus(await fetch_consensus(self.place.directory_url))
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
        """Have channels that can be used, at every chosen intermediary: those there are, those
        whose opening a crash has interrupted, or else a new group.

        An intermediary that opens none does not matter while another one does; `ProtocolError` or
        `TimeoutError` of the first if none does.
        """
        failures: list[ProtocolError | TimeoutError] = []
        for user in self.chosen:
            try:
                await self._have_channels_at(user, deposit, fund, count, timeout)
            except (ProtocolError, TimeoutError) as error:
                self._log.warning("no channels at an intermediary", reason=str(error))
                failures.append(error)
        if failures and len(failures) == len(self.chosen):
            raise failures[0]

    async def _have_channels_at(self, user: EndUser, deposit: int, fund: int, count: int,
                                timeout: float) -> None:
        def opened(records: Records) -> bool:
            return not self._group_is_asked_for(user) and not self.is_opening(user) and not any(
                isinstance(one, Recalled) for one in self.wallets_at(user))

        await self.engine.until(opened, timeout, "end of the opening of channels, or of the "
                                "questions about those of a backup")
        if all(isinstance(one, Claiming | Stale | Posted | Settled) or self._will_not_open(one)
               for one in self.wallets_at(user)):
            await self.open_channels(deposit=deposit, fund=fund, count=count, timeout=timeout,
                                     user=user)

    @property
    def users(self) -> tuple[EndUser, ...]:
        """Who this party is at every intermediary that it has or had channels at."""
        return (self.engine.machine.user, *self.engine.machine.others)

    def wallets_at(self, user: EndUser) -> list[Wallet]:
        """Every channel's wallet at one intermediary."""
        records = self.records()
        return [one for one in wallets.all_wallets(records) if self.engine.machine.user_of(
            records, wallets.channel_of(one) >> 8) == user]

    def is_opening(self, user: EndUser) -> bool:
        """Whether channels at an intermediary are being opened."""
        return any(isinstance(one, Establishing) and not self._will_not_open(one)
                   for one in self.wallets_at(user))

    def _group_is_asked_for(self, user: EndUser) -> bool:
        return any(one.conversation.startswith(b"group:") and user.key_hash
                   == establish.asked_intermediary(self.records(), one.conversation)
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

    async def open_channels(self, *, deposit: int, fund: int, count: int, timeout: float = 120,
                            user: EndUser | None = None) -> None:
        """Open one group, at the first chosen intermediary or that of `user`, and wait until its
        channels can be used. One group is opened after the other.

        `ProtocolError` if the intermediary or the ledger refuses, with its word.
        """
        async with self._opening:
            await self._open_group(deposit, fund, count, timeout, user)

    async def _open_group(self, deposit: int, fund: int, count: int, timeout: float,
                          user: EndUser | None) -> None:
        known = {wallets.channel_of(one) for one in self.wallets()}
        latest = self.engine.measured.latest
        for what in ("refused", "transaction-reverted"):
            latest.pop(what, None)
        self.engine.do(lambda records, moment: self.engine.machine.open_group(
            records, moment, deposit=deposit, fund=fund, count=count, user=user))

        def ready(records: Records) -> bool:
            new = [one for one in wallets.all_wallets(records)
                   if wallets.channel_of(one) not in known]
            refused, reverted = latest.get("refused"), latest.get("transaction-reverted")
            if not new and refused and refused.detail.startswith(("group:", "establish:")):
                raise ProtocolError(
                    f"the intermediary does not open {count} channels with a deposit of {deposit} "
                    f"and a fund of {fund} units each: {refused.detail.partition(': ')[2]}")
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
            return not any(isinstance(one, CashingOut | Idle | Recalled)
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
            self.remember(history.withdrawn(self.account, int(amount)))
        return int(amount)

    def remember(self, entry: history.Entry) -> None:
        """Add something to the history that no step of the protocol has done."""
        self.engine.step(lambda records, moment, outbox: records.remember(moment.now, [entry]))


def _named(listed: Sequence[Router], name: str) -> list[Router]:
    """Those of a nickname, or of a key whose hash begins so."""
    digits = name.lower().removeprefix("0x")
    return [one for one in listed if one.info.nickname == name
            or (len(digits) >= HASH_DIGITS and one.key_hash.hex().startswith(digits))]


def _in_use(records: Records, known: Iterable[KnownIntermediary]) -> set[bytes]:
    """Hashes of the keys under which there are channels that can be used."""
    groups = _groups_with(records, Claiming | Stale | Posted | Settled)
    return {one.key_hash for one in known if any(
        establish.is_at(group, one.ctx, one.account) for group in groups)}


def _groups_at_none(records: Records, known: Iterable[KnownIntermediary]) -> list[establish.Group]:
    """Groups that may have money in them and are under none of the keys."""
    at = list(known)
    return [group for group in _groups_with(records, Settled)
            if group.phase is not establish.GroupPhase.AGREED and not any(
                establish.is_at(group, one.ctx, one.account) for one in at)]


def _groups_with(records: Records, over: UnionType | type[Wallet]) -> list[establish.Group]:
    """Groups that have a channel whose wallet is of none of the types `over`."""
    ids = dict.fromkeys(wallets.channel_of(one) >> 8 for one in wallets.all_wallets(records)
                        if not isinstance(one, over))
    groups = [establish.find_group(records, one) for one in ids]
    return [one for one in groups if one is not None]


def random_amount(limit: int) -> int:
    """A hidden payment's amount, uniform in [0, limit]."""
    return secrets.randbelow(limit + 1)
