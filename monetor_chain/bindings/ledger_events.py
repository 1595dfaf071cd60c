# SPDX-License-Identifier: BSD-3-Clause
"""The ledger's events, and how to follow them.

Amounts are in token base units, times in Unix seconds. `at` is the event's place on the chain.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar, TypeAlias

from ..abi import EventDecoder, Position
from ..chain import Block
from ..errors import Reorganised, RpcError
from .contract import Contract

_BLOCKS_PER_QUERY = 2_000
"""Many endpoints refuse queries over more blocks than this, or answer them slowly."""


class RefundKind(IntEnum):
    """How a closing channel was claimed."""

    REFUND = 2
    CONDITIONAL = 3
    NANO = 4


@dataclass(frozen=True, slots=True)
class KeyRegistered:
    """An intermediary's key exists from now on."""

    SIGNATURE: ClassVar[str] = (
        "KeyRegistered(bytes32 indexed key_hash,address indexed owner,uint256 index)"
    )
    key_hash: bytes
    owner: str
    index: int
    at: Position


@dataclass(frozen=True, slots=True)
class VaultChanged:
    """An intermediary paid into its vault or took out of it; `balance` is the new one."""

    SIGNATURE: ClassVar[str] = "VaultChanged(address indexed intermediary,uint256 balance)"
    intermediary: str
    balance: int
    at: Position


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """An account took its credit out of the ledger."""

    SIGNATURE: ClassVar[str] = "Withdrawn(address indexed account,uint256 amount)"
    account: str
    amount: int
    at: Position


@dataclass(frozen=True, slots=True)
class Opened:
    """A group is half-open: the end user's deposits are in escrow. The windows are pinned."""

    SIGNATURE: ClassVar[str] = (
        "Opened(uint256 indexed group,bytes32 indexed key_hash,address indexed account,"
        "uint256 role,uint256 deposit,uint256 fund,uint256 count,uint256 dispute_window,"
        "uint256 close_notice)"
    )
    group: int
    key_hash: bytes
    account: str
    role: int
    deposit: int
    fund: int
    count: int
    dispute_window: int
    close_notice: int
    at: Position


@dataclass(frozen=True, slots=True)
class Funded:
    """The intermediary funded a group: its channels are open."""

    SIGNATURE: ClassVar[str] = "Funded(uint256 indexed group)"
    group: int
    at: Position


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """The end user took his deposits out of a group that was never funded."""

    SIGNATURE: ClassVar[str] = "Reclaimed(uint256 indexed group,uint256 amount)"
    group: int
    amount: int
    at: Position


@dataclass(frozen=True, slots=True)
class RefundPosted:
    """A channel is closing; `lock` is the posted wpk or nwpk, `kind` a `RefundKind`."""

    SIGNATURE: ClassVar[str] = (
        "RefundPosted(uint256 indexed cid,uint256 kind,uint256 lock,uint256 balance,"
        "uint256 deadline,bytes32 terms_hash)"
    )
    cid: int
    kind: int
    lock: int
    balance: int
    deadline: int
    terms_hash: bytes
    at: Position


@dataclass(frozen=True, slots=True)
class PayerRevealed:
    """A conditional refund made the payer's secret public."""

    SIGNATURE: ClassVar[str] = "PayerRevealed(uint256 indexed cid,uint256 lock,bytes32 secret)"
    cid: int
    lock: int
    secret: bytes
    at: Position


@dataclass(frozen=True, slots=True)
class Revealed:
    """More payments of a session are proven: k_c at any time, k_r while it had not expired."""

    SIGNATURE: ClassVar[str] = (
        "Revealed(bytes32 indexed terms_hash,uint256 k_c,uint256 k_r,bytes32 hc,bytes32[] path)"
    )
    terms_hash: bytes
    k_c: int
    k_r: int
    hc: bytes
    path: tuple[bytes, ...]
    at: Position


@dataclass(frozen=True, slots=True)
class Refuted:
    """A posted state was revoked: everything went to the intermediary."""

    SIGNATURE: ClassVar[str] = "Refuted(uint256 indexed cid,bytes32 secret)"
    cid: int
    secret: bytes
    at: Position


@dataclass(frozen=True, slots=True)
class Resolved:
    """A channel's escrow was divided."""

    SIGNATURE: ClassVar[str] = (
        "Resolved(uint256 indexed cid,uint256 to_account,uint256 to_intermediary,uint256 tax)"
    )
    cid: int
    to_account: int
    to_intermediary: int
    tax: int
    at: Position


@dataclass(frozen=True, slots=True)
class GroupClosed:
    """The channels in a bitmap were closed together; the account got `total`."""

    SIGNATURE: ClassVar[str] = (
        "GroupClosed(uint256 indexed group,uint256 channels,uint256 total,"
        "uint256 to_intermediary,uint256 tax)"
    )
    group: int
    channels: int
    total: int
    to_intermediary: int
    tax: int
    at: Position


@dataclass(frozen=True, slots=True)
class CloseRequested:
    """The intermediary asks the end user to close until `deadline` and stakes a bond."""

    SIGNATURE: ClassVar[str] = (
        "CloseRequested(uint256 indexed cid,uint256 deadline,uint256 bond)"
    )
    cid: int
    deadline: int
    bond: int
    at: Position


@dataclass(frozen=True, slots=True)
class BondSettled:
    """The bond of a request to close: the end user's credit if `answered`, else back in the vault.
    """

    SIGNATURE: ClassVar[str] = "BondSettled(uint256 indexed cid,bool answered,uint256 amount)"
    cid: int
    answered: bool
    amount: int
    at: Position


@dataclass(frozen=True, slots=True)
class GuardOpened:
    """A direct channel between a client and its guard exists; its price is pinned."""

    SIGNATURE: ClassVar[str] = (
        "GuardOpened(uint256 indexed gid,address indexed client,address indexed payout,"
        "uint256 deposit,uint256 price,uint256 dispute_window)"
    )
    gid: int
    client: str
    payout: str
    deposit: int
    price: int
    dispute_window: int
    at: Position


@dataclass(frozen=True, slots=True)
class GuardClaimed:
    """A guard claimed; `claimed` is the sum of all its claims on the channel so far."""

    SIGNATURE: ClassVar[str] = (
        "GuardClaimed(uint256 indexed gid,uint256 claimed,uint256 to_payout,uint256 tax)"
    )
    gid: int
    claimed: int
    to_payout: int
    tax: int
    at: Position


@dataclass(frozen=True, slots=True)
class GuardCloseRequested:
    """The client wants the rest of a direct channel; the guard can claim until `deadline`."""

    SIGNATURE: ClassVar[str] = "GuardCloseRequested(uint256 indexed gid,uint256 deadline)"
    gid: int
    deadline: int
    at: Position


@dataclass(frozen=True, slots=True)
class GuardClosed:
    """A direct channel is gone; the client got the rest."""

    SIGNATURE: ClassVar[str] = "GuardClosed(uint256 indexed gid,uint256 to_client)"
    gid: int
    to_client: int
    at: Position


LedgerEvent: TypeAlias = (
    KeyRegistered
    | VaultChanged
    | Withdrawn
    | Opened
    | Funded
    | Reclaimed
    | RefundPosted
    | PayerRevealed
    | Revealed
    | Refuted
    | Resolved
    | GroupClosed
    | CloseRequested
    | BondSettled
    | GuardOpened
    | GuardClaimed
    | GuardCloseRequested
    | GuardClosed
)

EVENT_CLASSES = (
    KeyRegistered,
    VaultChanged,
    Withdrawn,
    Opened,
    Funded,
    Reclaimed,
    RefundPosted,
    PayerRevealed,
    Revealed,
    Refuted,
    Resolved,
    GroupClosed,
    CloseRequested,
    BondSettled,
    GuardOpened,
    GuardClaimed,
    GuardCloseRequested,
    GuardClosed,
)

_DECODER: EventDecoder[LedgerEvent] = EventDecoder(EVENT_CLASSES)


def decode_events(logs: Iterable[Mapping[str, Any]], ledger: str) -> tuple[LedgerEvent, ...]:
    """The ledger's events among JSON-RPC log entries, in the given order."""
    found = []
    for log in logs:
        if log["address"].lower() == ledger.lower():
            event = _DECODER.decode(log)
            if event is not None:
                found.append(event)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class EventBatch:
    """All events up to and including `block`, from where the reader left off, in chain order."""

    events: tuple[LedgerEvent, ...]
    block: Block


class LedgerEvents:
    """Reads the ledger's log with a number of confirmations.

    Keeps no state: the reader says how far it has come, so that it can store that number together
    with what it did about the events. A reader that hands back the block of the last batch instead
    of its number hears of a reorganisation that went deeper than the confirmations.
    """

    def __init__(self, ledger: Contract, confirmations: int = 0) -> None:
        self._chain = ledger.chain
        self._ledger = ledger.address
        self._confirmations = confirmations

    async def since(self, after: int | Block, most: int | None = None) -> EventBatch:
        """Events of the confirmed blocks after `after`, of `most` blocks at most.

        `after` is a block's number, -1 for everything, or the block of the batch before.
        `batch.block` is the newest confirmed block that was read; if it is not above `after` there
        is nothing new. Raises `Reorganised` if another block has taken the place of the block
        `after`: events that were delivered are then no longer on the chain.
        """
        number = after if isinstance(after, int) else after.number
        while True:
            head = await self._chain.latest()
            target = max(head.number - self._confirmations, 0)
            if most is not None:
                target = min(target, number + most)
            confirmed = head if target == head.number else await self._chain.block(target)
            events = await self._read(number + 1, target)
            # Both ends are looked at after the reading, since either may have been replaced
            # meanwhile.
            if isinstance(after, Block) and (
                confirmed.hash != after.hash
                if target == number
                else await self._is_replaced(after)
            ):
                raise Reorganised(
                    f"block {number}, up to which the ledger was read, is no longer on the chain: "
                    f"a reorganisation went deeper than the {self._confirmations} confirmations "
                    "waited for; read the ledger again from its deployment on, and wait for more"
                )
            if target <= number or not await self._is_replaced(confirmed):
                return EventBatch(events, confirmed)

    async def follow(self, after: int | Block, poll: float = 0.25) -> AsyncIterator[EventBatch]:
        """Batches for ever, one whenever there are new confirmed blocks, also without events.

        `poll` is in real seconds. Raises what `since` raises; after a failure other than
        `Reorganised`, go on from the last batch's block.
        """
        position = after
        while True:
            batch = await self.since(position)
            if batch.block.number > (position if isinstance(position, int) else position.number):
                position = batch.block
                yield batch
            else:
                await asyncio.sleep(poll)

    async def _read(self, first: int, last: int) -> tuple[LedgerEvent, ...]:
        events: list[LedgerEvent] = []
        step = _BLOCKS_PER_QUERY
        while first <= last:
            until = min(first + step - 1, last)
            try:
                logs = await self._logs(first, until)
            except RpcError:
                if step == 1:
                    raise
                # The endpoint admits fewer blocks or fewer results at once.
                step = max(1, step // 10)
                continue
            events += decode_events(logs, self._ledger)
            first = until + 1
        return tuple(events)

    async def _is_replaced(self, block: Block) -> bool:
        """Whether another block stands in this one's place.

        A chain that is shorter says nothing: that may be an endpoint that lags behind.
        """
        found = await self._chain.rpc("eth_getBlockByNumber", hex(block.number), False)
        return found is not None and bytes.fromhex(found["hash"][2:]) != block.hash

    async def _logs(self, first: int, last: int) -> list[Mapping[str, Any]]:
        query = {"address": self._ledger, "fromBlock": hex(first), "toBlock": hex(last)}
        logs: list[Mapping[str, Any]] = await self._chain.rpc("eth_getLogs", query)
        return logs
