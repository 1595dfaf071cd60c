# SPDX-License-Identifier: BSD-3-Clause
"""Whether a ledger is what its log says, and holds what it owes (invariant L1).

Amounts are in token base units.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar

from .bindings.ledger import ChannelStatus, GroupState, GuardState, Ledger
from .bindings.ledger_events import LedgerEvents
from .bindings.token import Token
from .chain import Block
from .indexer import LedgerIndex, Totals

_BLOCKS = 2_000
"""Blocks whose events are taken in between two reports of progress."""
_AT_ONCE = 32
"""Views asked for at the same time."""

Progress = Callable[[str, int, int], None]
"""Hears what is being done, how far it has come, and how far it goes."""

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Audit:
    """A ledger's books after a block.

    `groups`, `channels` and `guards` are numbers by state. `tax` is the tax pool's part of the
    credits, `balance` what the ledger holds of the token. `disagreements` says in one sentence each
    where contract, log and balance differ.
    """

    block: int
    events: int
    groups: Mapping[GroupState, int]
    channels: Mapping[ChannelStatus, int]
    guards: Mapping[GuardState, int]
    totals: Totals
    tax: int
    balance: int
    disagreements: tuple[str, ...]

    @property
    def surplus(self) -> int:
        """What was sent to the ledger without being asked for; below zero, what is missing."""
        return self.balance - self.totals.held


async def audit(
    ledger: Ledger,
    token: Token,
    first_block: int,
    *,
    confirmations: int = 0,
    progress: Progress | None = None,
) -> Audit:
    """Read the ledger's log from `first_block` on and compare what follows from it with the views.

    Compared are all keys, vaults, credits, groups, sessions, direct channels and unresolved
    channels, after the newest block with the confirmations; the node must still know the state
    after it at the end. Raises `IllegalHistory` if the log contradicts itself, `Reorganised` if
    the block was replaced meanwhile, and `ChainError` if the chain does not answer.
    """
    tell = progress or _keep_quiet
    log = LedgerEvents(ledger, confirmations)
    tax_pool = await ledger.tax_pool()
    index = LedgerIndex(tax_pool)
    newest = max((await ledger.chain.latest()).number - confirmations, 0)
    end, count = await _take_in(log, index, first_block, newest, tell)
    settled, paid = ledger.at(end.number), token.at(end.number)
    comparison = _Comparison(settled, index, tell)
    await comparison.run()
    balance = await paid.balance_of(ledger.address)
    if balance < index.held():
        comparison.found.append(
            f"the ledger holds {balance} of the token, {index.held() - balance} less than it owes"
        )
    # Asking with the block itself tells whether all this was said of a block that still exists.
    await log.since(end, most=0)
    return Audit(
        block=end.number,
        events=count,
        groups=Counter(view.state for view in index.groups().values()),
        channels=_channels(index),
        guards=Counter(view.state for view in index.guards().values()),
        totals=index.totals(),
        tax=index.credit(tax_pool),
        balance=balance,
        disagreements=tuple(comparison.found),
    )


async def _take_in(
    log: LedgerEvents, index: LedgerIndex, first_block: int, newest: int, tell: Progress
) -> tuple[Block, int]:
    """Apply all events up to block `newest`; the last block and the number of events."""
    after: int | Block = first_block - 1
    count = 0
    while True:
        batch = await log.since(after, most=_BLOCKS)
        for event in batch.events:
            index.apply(event)
        count += len(batch.events)
        tell("blocks", batch.block.number - first_block + 1, newest - first_block + 1)
        if batch.block.number >= newest:
            return batch.block, count
        after = batch.block


class _Comparison:
    """Every view of the contract beside that of the index."""

    def __init__(self, ledger: Ledger, index: LedgerIndex, tell: Progress) -> None:
        self._ledger = ledger
        self._index = index
        self._tell = tell
        self.found: list[str] = []

    async def run(self) -> None:
        """Ask for everything; what differs is in `found`."""
        ledger, index = self._ledger, self._index
        await self._each("keys", index.keys(), ledger.intermediary, index.intermediary)
        await self._each("vaults", index.vaults(), ledger.vault, index.vault)
        await self._each("credits", index.credits(), ledger.credit, index.credit)
        await self._each("groups", index.groups(), ledger.group, index.group)
        await self._each("channels", tuple(index.unresolved()), ledger.channel, index.channel)
        await self._each("sessions", index.sessions(), ledger.claims, index.claims)
        await self._each("direct channels", index.guards(), ledger.guard, index.guard)

    async def _each(
        self,
        kind: str,
        items: Collection[Item],
        ask: Callable[[Item], Awaitable[object]],
        expect: Callable[[Item], object],
    ) -> None:
        asked = list(items)
        for start in range(0, len(asked), _AT_ONCE):
            part = asked[start : start + _AT_ONCE]
            for item, answer in zip(part, await asyncio.gather(*map(ask, part)), strict=True):
                if answer != expect(item):
                    self.found.append(
                        f"{kind}: the contract says {answer} of {_name(item)}, "
                        f"its log {expect(item)}"
                    )
            self._tell(kind, start + len(part), len(asked))


def _channels(index: LedgerIndex) -> Counter[ChannelStatus]:
    found = Counter(index.channel(cid).status for cid in index.unresolved())
    resolved = sum(view.resolved.bit_count() for view in index.groups().values())
    if resolved:
        found[ChannelStatus.RESOLVED] = resolved
    return found


def _name(item: object) -> str:
    if isinstance(item, int):
        return hex(item)
    return "0x" + item.hex() if isinstance(item, bytes) else str(item)


def _keep_quiet(what: str, done: int, total: int) -> None:
    return None
