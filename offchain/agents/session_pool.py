# SPDX-License-Identifier: BSD-3-Clause
"""A client's sessions that are set up ahead of the circuits that will be paid with them.

The pool follows from the store: after a restart the sessions that are ready are ready again, those
on the way go on, and a resting wallet rests on. In memory is only who has taken which.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from ..policy.coins import (
    Coin,
    Load,
    Supply,
    choose_coin,
    choose_intermediary,
    group_size,
    runs_out,
)
from ..policy.session_pool import Demand, ready_sessions, share
from ..protocol.errors import ProtocolError
from ..protocol.nano_close import client_balance
from ..protocol.records import Table
from ..protocol.resting import rests_until
from ..protocol.sessions import ClientPhase, ClientSession
from ..protocol.wallet import (
    Closing,
    EndUser,
    Establishing,
    Idle,
    InSession,
    Renewing,
    Spending,
    Wallet,
    channel_of,
)

if TYPE_CHECKING:
    from .client import ClientAgent

LOOK_SECONDS = 0.02
"""How often a taker looks for a session that becomes ready, in seconds of this machine's clock."""
KEEP_SECONDS = 0.2
"""How often the pool is looked after."""
OPEN_AGAIN_SECONDS = 30.0
"""After a group that could not be opened, another attempt is made no sooner than this."""
OPENING = "pool:open"
"""Name of the task that opens another group."""
TAKE_SECONDS = 120.0
"""How long to wait for a session on demand."""
_STARTING = (ClientPhase.REQUESTED, ClientPhase.REVEALING)
_IN_USE = (ClientPhase.OFFERED, ClientPhase.ACTIVE)


@dataclass(frozen=True, slots=True)
class Held:
    """A session that holds a channel: its name, hash(nT), and its record."""

    terms_hash: bytes
    session: ClientSession

    @property
    def phase(self) -> ClientPhase:
        """Where the session stands."""
        return self.session.phase

    @property
    def least(self) -> int:
        """The least that the channel holds when the session has closed, in base units."""
        inner = self.session.session
        return client_balance(inner.saturated, inner.terms, self.session.sent)


@dataclass(frozen=True, slots=True)
class Survey:
    """The channels at one intermediary as they are now, and the sessions that hold some of them.

    `ready` are those that can be taken; `cost` is what one session can cost, in base units.
    """

    user: EndUser
    wallets: list[Wallet]
    held: list[Held]
    ready: list[bytes]
    taken: int
    cost: int

    def supply(self) -> Supply:
        """What there is for the next sessions."""
        return Supply(
            ready=len(self.ready), setting_up=sum(one.phase in _STARTING for one in self.held),
            able=sum(isinstance(one, Idle) and one.balance >= self.cost for one in self.wallets),
            returning=self._returning())

    def _returning(self) -> int:
        """Wallets that are about to be idle again and to pay for another session."""
        return sum(isinstance(one, Closing | Renewing) and one.next.balance >= self.cost
                   for one in self.wallets) + sum(
            one.phase is ClientPhase.QUERYING and one.least >= self.cost for one in self.held)

    def load(self) -> Load:
        """How many sessions are ready and how many in use."""
        return Load(len(self.ready), self.taken + sum(one.phase in _IN_USE for one in self.held))

    def busy(self) -> Counter[int]:
        """Channels at work, by group."""
        return Counter(channel_of(one) >> 8 for one in self.wallets
                       if isinstance(one, Spending | InSession))


class SessionPool:
    """The pool of one client. `deposit` (base units) is what each channel of a further group
    escrows; without it none is opened."""

    def __init__(self, agent: ClientAgent, deposit: int = 0) -> None:
        self.deposit = deposit
        self._agent = agent
        self._log = structlog.get_logger(agent.nickname)
        self._demand = Demand()
        self._taken: set[bytes] = set()
        self._not_before = 0.0
        self._keeping = False

    # --- What there is

    def circuit_opened(self) -> None:
        """One more circuit is wanted: the pool grows with what has been wanted within a minute."""
        self._demand.opened(time.monotonic())

    @property
    def target(self) -> int:
        """How many sessions are kept ready over all intermediaries."""
        return ready_sessions(self._demand.peak(time.monotonic()))

    def survey(self, user: EndUser) -> Survey:
        """What there is at one intermediary. Sessions that are over cost nothing: what is looked
        through is one wallet for each channel."""
        agent = self._agent
        records, moment = agent.records(), agent.engine.moment()
        wallets = agent.wallets_at(user)
        held = [Held(one.session, found) for one in wallets
                if isinstance(one, Spending | InSession | Closing)
                and isinstance(found := records.get(Table.SESSION, one.session), ClientSession)]
        unused = [one for one in held if one.phase is ClientPhase.READY]
        ready = [one.terms_hash for one in unused if one.terms_hash not in self._taken
                 and one.session.session.terms.t_exp > self._latest()]
        return Survey(user, wallets, held, ready,
                      sum(one.terms_hash in self._taken for one in unused),
                      moment.parameters.n * moment.parameters.price)

    def ready(self) -> list[bytes]:
        """Sessions that can be taken, over all intermediaries."""
        return [one for user in self._agent.users for one in self.survey(user).ready]

    def _latest(self) -> int:
        """A session that expires then, or earlier, can be offered to nobody."""
        moment = self._agent.engine.moment()
        return moment.now + 2 * moment.parameters.safety_margin

    # --- Setting up

    def set_up(self, user: EndUser, wanted: int) -> Survey:
        """Start setups until `wanted` sessions are ready or on the way, as far as channels that
        can pay for one have rested. Returns what there is afterwards."""
        while True:
            found = self.survey(user)
            supply = found.supply()
            coin = self._coin(found) if supply.ready + supply.setting_up < wanted else None
            if coin is None:
                self._agent.draft_one([one for one in found.wallets if isinstance(one, Idle)
                                       and one.balance >= found.cost])
                return found
            self._agent.start_setup(coin.cid)

    def _coin(self, found: Survey) -> Coin | None:
        records, now = self._agent.records(), self._agent.engine.clock.exact() * 1000
        coins = [Coin(one.cid, one.balance, rested=rests_until(records, one.cid) <= now)
                 for one in found.wallets if isinstance(one, Idle)]
        return choose_coin(coins, found.busy(), found.cost, secrets.choice)

    async def prepare(self, count: int, timeout: float) -> None:
        """Have `count` sessions ready, over all intermediaries; `TimeoutError`, or `ProtocolError`
        when no channel can pay for one."""
        users = self._agent.chosen
        try:
            async with asyncio.timeout(timeout):
                while len(self.ready()) < count:
                    self._agent.engine.check()
                    # One that is refused, as around a change of epoch, is set up again.
                    self._require_hope([self.set_up(user, (count + number) // len(users))
                                        for number, user in enumerate(users)])
                    await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError:
            raise TimeoutError(
                f"{self._agent.nickname}: {len(self.ready())} of {count} sessions are set "
                f"up after {timeout:.0f} s; does the intermediary answer?") from None

    def _require_hope(self, found: Sequence[Survey]) -> None:
        if not any(one.supply().total for one in found) and not self._opening() and not (
                self._keeping and self._may_open(found[0].cost)):
            raise ProtocolError(f"no idle wallet holds the {found[0].cost} units that a session "
                                "can cost")

    def _opening(self) -> bool:
        return self._agent.engine.tasks.running(OPENING) or any(
            isinstance(one, Establishing) for one in self._agent.wallets())

    def _may_open(self, cost: int) -> bool:
        return self.deposit >= cost and time.monotonic() >= self._not_before

    # --- Taking

    async def take(self, accepted: Collection[bytes]) -> bytes:
        """A ready session through one of the `accepted` intermediaries; nobody else gets it until
        `release`. One is set up if none is ready.

        `ProtocolError` if there is no channel at any of them that could pay, `TimeoutError`.
        """
        users = [one for one in self._agent.users if one.key_hash in accepted]
        if not users:
            raise ProtocolError("the relay accepts no intermediary that this client has channels "
                                "at; name one with --intermediary")
        try:
            async with asyncio.timeout(TAKE_SECONDS):
                while True:
                    self._agent.engine.check()
                    found = [self.survey(one) for one in users]
                    taken = self._take_ready(found)
                    if taken is not None:
                        return taken
                    self._require_hope([self.set_up(one, 1) for one in users])
                    await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError:
            raise TimeoutError(
                f"{self._agent.nickname}: no session is set up after {TAKE_SECONDS:.0f} s; does "
                "the intermediary answer?") from None

    def _take_ready(self, found: Sequence[Survey]) -> bytes | None:
        at = {one.user.key_hash: one for one in found}
        chosen = choose_intermediary(at, {key: one.load() for key, one in at.items()},
                                     secrets.choice)
        if chosen is None or not at[chosen].ready:
            return None
        taken = at[chosen].ready[0]
        self._taken.add(taken)
        return taken

    def release(self, terms_hash: bytes) -> None:
        """The session is offered, or can be taken again."""
        self._taken.discard(terms_hash)

    # --- Keeping

    async def keep(self) -> None:
        """Keep as many sessions ready as the demand asks for, for as long as this runs."""
        self._keeping = True
        try:
            await self._keep()
        finally:
            self._keeping = False

    async def _keep(self) -> None:
        while True:
            self._close_old()
            chosen = self._agent.chosen
            for user in chosen:
                wanted = share(self.target, len(chosen))
                found = self.set_up(user, wanted)
                if (runs_out(found.supply(), wanted) and self._may_open(found.cost)
                        and not self._opening()):
                    self._agent.engine.tasks.start(OPENING, self._open_group(user, wanted))
            await asyncio.sleep(KEEP_SECONDS)

    def _close_old(self) -> None:
        """Sessions that were not used in time give their channels back."""
        for user in self._agent.users:
            for held in self.survey(user).held:
                if (held.phase is ClientPhase.READY and held.terms_hash not in self._taken
                        and held.session.session.terms.t_exp <= self._latest()):
                    self._agent.close_session(held.terms_hash)

    async def _open_group(self, user: EndUser, wanted: int) -> None:
        tokens = int(await self._agent.access.contracts.token.balance_of(self._agent.account))
        count = group_size(wanted, tokens // self.deposit)
        if not count:
            self._log.warning("no tokens for further channels", tokens=tokens)
            self._not_before = time.monotonic() + OPEN_AGAIN_SECONDS
            return
        try:
            await self._agent.open_channels(deposit=self.deposit, fund=0, count=count, user=user)
        except (ProtocolError, TimeoutError) as error:
            self._log.warning("no further channels", reason=str(error))
            self._not_before = time.monotonic() + OPEN_AGAIN_SECONDS
