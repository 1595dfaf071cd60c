# SPDX-License-Identifier: BSD-3-Clause
"""The intermediary as a running agent: an onion router that answers payment messages."""

from __future__ import annotations

import itertools
from collections import deque
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import cast

import structlog

from monetor_chain.sender import Sender

from ..crypto.ecdsa import address_of
from ..crypto.errors import CryptoError
from ..crypto.issuer import IssuerKey
from ..protocol import old_locks, pruning
from ..protocol.answering import Intermediary
from ..protocol.claims import Claim, Unverified
from ..protocol.errors import ProtocolError, RefusalCode, Refused
from ..protocol.intermediary import IntermediaryMachine
from ..protocol.moment import Moment
from ..protocol.outbox import Outbox
from ..store import Store, Transaction
from ..transport.errors import TransportError
from ..transport.relay_circuit import RouterCircuit
from ..transport.router import OnionRouter
from ..verification.workers import NoVerdict, ProofWorkers
from .directory import Router, keep_published, publish
from .engine import Engine
from .ledger_port import LedgerPort
from .place import AgentPlace, ChainAccess
from .watch_folder import IntermediaryHander

MAX_WAITING = 64
"""Requests of one circuit that wait for their answers; what comes on top of them is lost."""


@dataclass(frozen=True, slots=True)
class WoundUp:
    """What a finished key has left behind: bytes of its store, and base units from its vault."""

    bytes_before: int
    bytes_after: int
    withdrawn: int


class IntermediaryAgent:
    """Registers its key once, keeps a vault, and answers whoever asks over a circuit.

    `vault` is how many base units the vault is filled up to at start, `workers` how many processes
    verify proofs; with 0 of them this one does. `retire`: take no new channels under this key from
    now on, for good; its successor is an intermediary with an account and a folder of its own.
    """

    def __init__(self, place: AgentPlace, account_key: bytes, *, vault: int,
                 nickname: str = "intermediary", workers: int = 0, retire: bool = False) -> None:
        self.nickname = nickname
        self.account = address_of(account_key)
        self.place = place
        self._key = account_key
        self._vault = vault
        self._retire = retire
        self._worker_count = workers
        self._workers: ProofWorkers | None = None
        self._waiting: dict[RouterCircuit, deque[tuple[int, bytes]]] = {}
        self._served = itertools.count()
        self._log = structlog.get_logger(nickname)
        self.engine: Engine
        self.access: ChainAccess
        self.sender: Sender
        self._router: OnionRouter
        self._open = AsyncExitStack()

    async def start(self) -> None:
        """Come up; safe to repeat after a crash."""
        try:
            await self._come_up(self._issuer_key())
        except BaseException:
            await self.stop()
            raise

    def _issuer_key(self) -> IssuerKey:
        secret = self.place.secret("issuer.key", lambda: IssuerKey.generate().encode())
        try:
            return IssuerKey.decode(secret)
        except CryptoError as error:
            raise CryptoError(
                f"{self.place.folder / 'issuer.key'} is no key of an intermediary ({error}); "
                "restore it from a backup: what was signed with it is owed still") from error

    async def _come_up(self, issuer: IssuerKey) -> None:
        access = self.access = await ChainAccess.open(self.place)
        self._open.push_async_callback(access.chain.close)
        ledger = access.contracts.ledger
        self.sender = access.sender(self._key)
        key_hash = issuer.public.key_hash
        if await ledger.intermediary(key_hash) is None:
            await ledger.register_key(self.sender, issuer.public.evm_encoding(),
                                      issuer.public.rest_hash())
        if self._worker_count:
            self._workers = ProofWorkers(issuer, self._worker_count)
            self._open.push_async_callback(self._workers.close)
        machine = self._machine(Intermediary(issuer, self._key, self.account, key_hash,
                                             access.ctx(key_hash), access.domain))
        store = Store(self.place.folder / "store.sqlite", access.network, "intermediary")
        self.engine = Engine(
            self.nickname, store, machine, chain=access.chain,
            consensus=access.contracts.consensus, events=access.events(),
            port=LedgerPort(ledger, access.contracts.token, self.sender, self._key),
            first_block=access.deployment.block, hander=self._hander())
        self._open.push_async_callback(self.engine.stop)
        if self._retire:
            with store.transaction() as records:
                machine.retire(records)
        opens = not pruning.is_retiring(store.read()) and old_locks.restored(store.read()) is None
        if opens:
            await self._fill_vault()
        await self.engine.start()
        identity = self.place.router_identity()
        self._router = OnionRouter(identity, hooks=self)
        self._open.push_async_callback(self._router.stop)
        port = await self._router.start(self.place.host, self.place.port)
        listed = Router(
            identity.info(self.nickname, self.place.host, port), guard=False, exit=False,
            intermediary=True, account=self.account, key_hash=key_hash, issuer=issuer.public,
            opens=opens)
        await publish(self.place.directory_url, listed)
        self.engine.tasks.start("publish", keep_published(
            self.place.directory_url, listed,
            lambda why: self._log.warning("not published", reason=why)))

    def _machine(self, me: Intermediary) -> IntermediaryMachine:
        return IntermediaryMachine(me)

    def _hander(self) -> IntermediaryHander | None:
        folders = self.place.watcher_folders
        return None if not folders else IntermediaryHander(
            folders, self.nickname, self._key, self.access.domain)

    async def _fill_vault(self) -> None:
        ledger, token = self.access.contracts.ledger, self.access.contracts.token
        missing = self._vault - int(await ledger.vault(self.account))
        # After a restart most of it may be in channels, and nothing is left to add.
        amount = min(missing, int(await token.balance_of(self.account)))
        if amount > 0:
            await token.approve(self.sender, ledger.address, amount)
            await ledger.deposit_vault(self.sender, amount)
        if amount < missing:
            self._log.info("the vault is not filled up", missing=missing - amount)

    def finished(self) -> bool:
        """Whether the key is retired and its last channel paid out."""
        return pruning.is_finished(self.engine.store.read())

    async def wind_up(self) -> WoundUp:
        """Forget what the finished key needed, and empty its vault."""
        await self.stop_serving()
        store = self.engine.store
        before = store.compact()
        with store.transaction() as records:
            pruning.forget_all(records)
        after = store.compact()
        ledger = self.access.contracts.ledger
        vault = int(await ledger.vault(self.account))
        if vault:
            await ledger.withdraw_vault(self.sender, vault)
        return WoundUp(before, after, vault)

    async def stop_serving(self) -> None:
        """End all circuits and stop listening."""
        await self._router.stop()

    async def stop(self) -> None:
        """Stop, also if it has not come up whole; everything answered is on disk."""
        await self._open.aclose()

    # --- RouterHooks

    def circuit_opened(self, circuit: RouterCircuit) -> None:
        """See `RouterHooks`."""

    def circuit_closed(self, circuit: RouterCircuit) -> None:
        """Nobody waits for the answers to what has not been looked at."""
        self._waiting.pop(circuit, None)

    def cells_passed(self, circuit: RouterCircuit, count: int) -> None:
        """See `RouterHooks`."""

    def payment_received(self, circuit: RouterCircuit, pcmd: int, payload: bytes, *,
                         link: bool) -> None:
        """Answer the requests of a circuit in their order, and those of many at the same time."""
        waiting = self._waiting.setdefault(circuit, deque())
        if len(waiting) >= MAX_WAITING:
            self._log.info("a circuit asks too much at once")
            return
        waiting.append((pcmd, payload))
        if len(waiting) == 1:
            self.engine.tasks.start(f"answer:{next(self._served)}", self._serve(circuit, waiting))

    async def _serve(self, circuit: RouterCircuit, waiting: deque[tuple[int, bytes]]) -> None:
        while waiting and not circuit.closed:
            reply = await self._reply(*waiting[0])
            waiting.popleft()
            try:
                circuit.send_payment(*reply)
            except TransportError as error:
                # The reply is stored; whoever asked asks again on another circuit.
                self._log.info("a reply found no circuit", error=str(error))

    async def _reply(self, pcmd: int, payload: bytes) -> tuple[int, bytes]:
        """Answer one request in one step; a refused one leaves no trace.

        With workers, the step is taken until it comes to a proof, and again with the verdict: so
        nobody can make the intermediary verify what is refused for less.
        """
        machine = self.engine.machine
        verdicts: dict[Claim, str] | None = None if self._workers is None else {}

        def answer(records: Transaction, moment: Moment, outbox: Outbox) -> tuple[int, bytes]:
            reply, items = machine.handle(records, moment, pcmd, payload, verdicts)
            outbox.extend(items)
            return cast(tuple[int, bytes], reply)

        while True:
            try:
                return await self.engine.grouped(answer)
            except Unverified as needed:
                assert self._workers is not None and verdicts is not None
                try:
                    verdicts[needed.claim] = await self._workers.verdict(needed.claim)
                except NoVerdict as error:
                    self._log.warning("not answered now", pcmd=pcmd, reason=str(error))
                    return cast(tuple[int, bytes], machine.refusal(
                        Refused(RefusalCode.NOT_YET, str(error)), pcmd))
            except ProtocolError as error:
                self._log.info("refused", pcmd=pcmd, reason=str(error))
                return cast(tuple[int, bytes], machine.refusal(error, pcmd))
            except ValueError as error:
                # Something below does not bear what the message says; nothing of it remains.
                self._log.warning("refused", pcmd=pcmd, reason=f"{type(error).__name__}: {error}")
                return cast(tuple[int, bytes], machine.refusal(ProtocolError("malformed"), pcmd))
