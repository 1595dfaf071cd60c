# SPDX-License-Identifier: BSD-3-Clause
"""The ledger's whole state, rebuilt from its events alone.

The contract keeps no list of its groups, channels or accounts, so whoever wants to see all of it
reads the log from the deployment on. The views are those of `bindings.ledger`, so that the two can
be compared. Amounts are in token base units, times in Unix seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from .accounts import checksum
from .bindings.ledger import (
    ChannelStatus,
    ChannelView,
    GroupState,
    GroupView,
    GuardState,
    GuardView,
)
from .bindings.ledger_events import (
    BondSettled,
    CloseRequested,
    Funded,
    GroupClosed,
    GuardClaimed,
    GuardClosed,
    GuardCloseRequested,
    GuardOpened,
    KeyRegistered,
    LedgerEvent,
    Opened,
    PayerRevealed,
    Reclaimed,
    RefundKind,
    RefundPosted,
    Refuted,
    Resolved,
    Revealed,
    VaultChanged,
    Withdrawn,
)
from .errors import IllegalHistory
from .statements import Role

_LOCK_MASK = 2**144 - 1
"""What the ledger keeps of a posted lock."""
_MAX_COUNT = 256
_NO_TERMS = bytes(32)
_NO_CHANNEL = ChannelView(ChannelStatus.NONE, 0, 0, 0, _NO_TERMS)


@dataclass(frozen=True, slots=True)
class Key:
    """A registered key: its owner's address and its number, from 1."""

    owner: str
    index: int


@dataclass(frozen=True, slots=True)
class Totals:
    """What the ledger holds, by what it is held for.

    `escrow` backs unresolved channels, `bonds` requests to close, `guards` is what guards have not
    claimed yet; the tax pool's credit is among `credits`.
    """

    escrow: int
    bonds: int
    guards: int
    vaults: int
    credits: int

    @property
    def held(self) -> int:
        """The sum: what the ledger must hold of the token at least."""
        return self.escrow + self.bonds + self.guards + self.vaults + self.credits


@dataclass(slots=True)
class _Group:
    """A group's record, and where the bonds of its requested channels are, one bit a channel."""

    view: GroupView
    bonds: int = 0
    """Bond staked."""
    answered: int = 0
    """Bond paid to the account, whose refund is posted next."""
    returned: int = 0
    """Bond back in the vault, and the channel's end comes next."""


class LedgerIndex:
    """State of one ledger after the events applied so far.

    Every event costs a constant amount of work. What an event contradicts raises `IllegalHistory`
    and changes nothing: an event was left out, came twice or is another ledger's.
    """

    def __init__(self, tax_pool: str | bytes) -> None:
        """`tax_pool` is the address that the ledger credits tax to; no event names it."""
        self._tax_pool = checksum(tax_pool)
        self._place = (-1, -1)
        self._keys: dict[bytes, Key] = {}
        self._vaults: dict[str, int] = {}
        self._credits: dict[str, int] = {}
        self._groups: dict[int, _Group] = {}
        self._channels: dict[int, ChannelView] = {}
        self._claims: dict[bytes, tuple[int, int]] = {}
        self._guards: dict[int, GuardView] = {}
        self._escrow = self._bonds = self._guarded = self._in_vaults = self._credited = 0

    # --- Views ------------------------------------------------------------------------------------

    def key(self, key_hash: bytes) -> Key | None:
        """A registered key; None if nobody registered it."""
        return self._keys.get(key_hash)

    def intermediary(self, key_hash: bytes) -> str | None:
        """The account that registered a key; None if nobody did."""
        key = self._keys.get(key_hash)
        return None if key is None else key.owner

    def vault(self, intermediary: str | bytes) -> int:
        """An intermediary's vault."""
        return self._vaults.get(checksum(intermediary), 0)

    def credit(self, account: str | bytes) -> int:
        """What an account may withdraw."""
        return self._credits.get(checksum(account), 0)

    def group(self, group: int) -> GroupView | None:
        """A group's record; None if there is none."""
        found = self._groups.get(group)
        return None if found is None else found.view

    def channel(self, cid: int) -> ChannelView:
        """A channel's record; status NONE if there is none."""
        group = self.group(cid >> 8)
        if group is None or cid & 255 >= group.count:
            return _NO_CHANNEL
        if group.state is GroupState.HALF_OPEN:
            return replace(_NO_CHANNEL, status=ChannelStatus.HALF_OPEN)
        record = self._channels.get(cid)
        if group.resolved >> (cid & 255) & 1:
            return replace(record or _NO_CHANNEL, status=ChannelStatus.RESOLVED)
        return record or replace(_NO_CHANNEL, status=ChannelStatus.OPEN)

    def claims(self, terms_hash: bytes) -> tuple[int, int]:
        """(k_c, k_r) of a session, zeros if nothing was revealed."""
        return self._claims.get(terms_hash, (0, 0))

    def guard(self, gid: int) -> GuardView | None:
        """A direct channel's record; None if there is none."""
        return self._guards.get(gid)

    def keys(self) -> Mapping[bytes, Key]:
        """All registered keys by their hashes, as they are now."""
        return MappingProxyType(dict(self._keys))

    def vaults(self) -> Mapping[str, int]:
        """All vaults that were ever paid into, as they are now."""
        return MappingProxyType(dict(self._vaults))

    def credits(self) -> Mapping[str, int]:
        """All accounts that were ever credited, as they are now."""
        return MappingProxyType(dict(self._credits))

    def groups(self) -> Mapping[int, GroupView]:
        """All groups, as they are now."""
        return MappingProxyType({group: found.view for group, found in self._groups.items()})

    def sessions(self) -> Mapping[bytes, tuple[int, int]]:
        """(k_c, k_r) of all sessions with a proven payment by the hash of their terms."""
        return MappingProxyType(dict(self._claims))

    def guards(self) -> Mapping[int, GuardView]:
        """All direct channels, as they are now."""
        return MappingProxyType(dict(self._guards))

    def unresolved(self) -> Iterator[int]:
        """The channels that still hold money, in half-open groups too."""
        for group, found in list(self._groups.items()):
            for index in range(found.view.count):
                if not found.view.resolved >> index & 1:
                    yield group << 8 | index

    def totals(self) -> Totals:
        """What the ledger holds, and what for."""
        return Totals(
            self._escrow, self._bonds, self._guarded, self._in_vaults, self._credited
        )

    def held(self) -> int:
        """What the ledger must hold of the token; what it holds beyond was sent by mistake."""
        return self.totals().held

    # --- Events -----------------------------------------------------------------------------------

    def apply(self, event: LedgerEvent) -> None:
        """Take in the next event of the ledger's log. Raises `IllegalHistory`."""
        place = (event.at.block, event.at.log_index)
        _demand(place > self._place, event, "it is not later than the event before")
        match event:
            case KeyRegistered():
                self._key_registered(event)
            case VaultChanged():
                self._add_to_vault(
                    event.intermediary, event.balance - self._vaults.get(event.intermediary, 0)
                )
            case Withdrawn():
                self._withdrawn(event)
            case Opened():
                self._opened(event)
            case Funded():
                self._funded(event)
            case Reclaimed():
                self._reclaimed(event)
            case CloseRequested():
                self._close_requested(event)
            case BondSettled():
                self._bond_settled(event)
            case RefundPosted():
                self._refund_posted(event)
            case PayerRevealed():
                self._closing(event, event.cid)
            case Revealed():
                self._revealed(event)
            case Refuted():
                self._refuted(event)
            case Resolved():
                self._resolved(event)
            case GroupClosed():
                self._group_closed(event)
            case GuardOpened():
                self._guard_opened(event)
            case GuardClaimed():
                self._guard_claimed(event)
            case GuardCloseRequested():
                self._guard_close_requested(event)
            case GuardClosed():
                self._guard_closed(event)
        self._place = place

    # --- Accounts ---------------------------------------------------------------------------------

    def _key_registered(self, event: KeyRegistered) -> None:
        _demand(event.key_hash not in self._keys, event, "the key is registered already")
        _demand(event.index == len(self._keys) + 1, event, "another key comes before it")
        self._keys[event.key_hash] = Key(event.owner, event.index)

    def _withdrawn(self, event: Withdrawn) -> None:
        credit = self._credits.get(event.account, 0)
        _demand(event.amount == credit, event, f"the account has a credit of {credit}")
        self._credit(event.account, -credit)

    def _add_to_vault(self, intermediary: str, amount: int) -> None:
        self._vaults[intermediary] = self._vaults.get(intermediary, 0) + amount
        self._in_vaults += amount

    def _take_from_vault(self, event: LedgerEvent, intermediary: str, amount: int) -> None:
        vault = self._vaults.get(intermediary, 0)
        _demand(vault >= amount, event, f"the vault holds only {vault}")
        self._add_to_vault(intermediary, -amount)

    def _credit(self, account: str, amount: int) -> None:
        if amount:
            self._credits[account] = self._credits.get(account, 0) + amount
            self._credited += amount

    # --- Groups -----------------------------------------------------------------------------------

    def _opened(self, event: Opened) -> None:
        key = self._keys.get(event.key_hash)
        if key is None:
            raise _illegal(event, "its key is not registered")
        _demand(event.group not in self._groups, event, "the group exists already")
        _demand(0 < event.count <= _MAX_COUNT, event, "no group has so many channels")
        _demand(event.role in tuple(Role), event, "there is no such role")
        self._groups[event.group] = _Group(
            GroupView(
                state=GroupState.HALF_OPEN,
                account=event.account,
                intermediary=key.owner,
                key_index=key.index,
                role=Role(event.role),
                deposit=event.deposit,
                fund=event.fund,
                count=event.count,
                dispute_window=event.dispute_window,
                close_notice=event.close_notice,
                resolved=0,
            )
        )
        self._escrow += event.count * event.deposit

    def _funded(self, event: Funded) -> None:
        group = self._half_open(event, event.group)
        amount = group.view.count * group.view.fund
        self._take_from_vault(event, group.view.intermediary, amount)
        self._escrow += amount
        group.view = replace(group.view, state=GroupState.OPEN)

    def _reclaimed(self, event: Reclaimed) -> None:
        group = self._half_open(event, event.group)
        _demand(
            event.amount == group.view.count * group.view.deposit, event, "it is not the deposits"
        )
        self._escrow -= event.amount
        self._credit(group.view.account, event.amount)
        _end(group, _all(group.view.count))

    def _group_closed(self, event: GroupClosed) -> None:
        group = self._funded_group(event, event.group)
        view, channels = group.view, event.channels
        _demand(channels & ~_all(view.count) == 0 and channels != 0, event, "foreign channels")
        _demand(channels & view.resolved == 0, event, "a channel is resolved already")
        _demand(
            channels & (group.bonds | group.answered) == 0 and group.returned & ~channels == 0,
            event,
            "the bonds were not settled accordingly",
        )
        escrow = channels.bit_count() * (view.deposit + view.fund)
        self._divide(event, view, escrow, event.total, event.to_intermediary, event.tax)
        group.returned = 0
        _end(group, channels)

    def _half_open(self, event: LedgerEvent, group_id: int) -> _Group:
        group = self._group_of(event, group_id)
        _demand(group.view.state is GroupState.HALF_OPEN, event, "the group is not half-open")
        return group

    def _funded_group(self, event: LedgerEvent, group_id: int) -> _Group:
        group = self._group_of(event, group_id)
        _demand(group.view.state is not GroupState.HALF_OPEN, event, "the group is not funded")
        return group

    def _group_of(self, event: LedgerEvent, group_id: int) -> _Group:
        group = self._groups.get(group_id)
        if group is None:
            raise _illegal(event, "there is no such group")
        return group

    # --- Channels ---------------------------------------------------------------------------------

    def _close_requested(self, event: CloseRequested) -> None:
        group, bit = self._live(event, event.cid)
        _demand(event.cid not in self._channels, event, "the channel is not open")
        self._take_from_vault(event, group.view.intermediary, event.bond)
        self._bonds += event.bond
        group.bonds |= bit
        self._channels[event.cid] = ChannelView(
            ChannelStatus.REQUESTED, event.deadline, event.bond, 0, _NO_TERMS
        )

    def _bond_settled(self, event: BondSettled) -> None:
        group, bit = self._live(event, event.cid)
        _demand(group.bonds & bit != 0, event, "no bond is staked")
        _demand(event.amount == self._channels[event.cid].balance, event, "the bond is another")
        group.bonds &= ~bit
        self._bonds -= event.amount
        if event.answered:
            group.answered |= bit
            self._credit(group.view.account, event.amount)
        else:
            group.returned |= bit
            self._add_to_vault(group.view.intermediary, event.amount)

    def _refund_posted(self, event: RefundPosted) -> None:
        group, bit = self._live(event, event.cid)
        _demand(
            event.cid not in self._channels or group.answered & bit != 0,
            event,
            "the channel is not open, or its bond was not paid out",
        )
        _demand(event.kind in tuple(RefundKind), event, "there is no such kind")
        in_session = event.kind == RefundKind.NANO
        group.answered &= ~bit
        self._channels[event.cid] = ChannelView(
            ChannelStatus.CLOSING_SESSION if in_session else ChannelStatus.CLOSING_REFUND,
            event.deadline,
            event.balance,
            event.lock & _LOCK_MASK,
            event.terms_hash,
        )

    def _revealed(self, event: Revealed) -> None:
        k_c, k_r = self._claims.get(event.terms_hash, (0, 0))
        _demand(event.k_c > k_c, event, f"{k_c} payments were proven before")
        _demand(event.k_r in (k_r, event.k_c), event, f"k_r was {k_r} before")
        self._claims[event.terms_hash] = (event.k_c, event.k_r)

    def _refuted(self, event: Refuted) -> None:
        group, bit = self._closing(event, event.cid)
        escrow = group.view.deposit + group.view.fund
        self._divide(event, group.view, escrow, 0, escrow, 0)
        self._forget(group, event.cid, bit)

    def _resolved(self, event: Resolved) -> None:
        group, bit = self._live(event, event.cid)
        if not group.returned & bit:
            self._closing(event, event.cid)
        escrow = group.view.deposit + group.view.fund
        self._divide(
            event, group.view, escrow, event.to_account, event.to_intermediary, event.tax
        )
        self._forget(group, event.cid, bit)

    def _live(self, event: LedgerEvent, cid: int) -> tuple[_Group, int]:
        """The group and the bit of an unresolved channel."""
        group, bit = self._funded_group(event, cid >> 8), 1 << (cid & 255)
        _demand(cid & 255 < group.view.count, event, "there is no such channel")
        _demand(group.view.resolved & bit == 0, event, "the channel is resolved already")
        return group, bit

    def _closing(self, event: LedgerEvent, cid: int) -> tuple[_Group, int]:
        group, bit = self._live(event, cid)
        record = self._channels.get(cid)
        _demand(
            record is not None and record.status is not ChannelStatus.REQUESTED,
            event,
            "the channel is not closing",
        )
        return group, bit

    def _forget(self, group: _Group, cid: int, bit: int) -> None:
        """A channel that ends alone loses its record; one of a cooperative close keeps it."""
        del self._channels[cid]
        group.returned &= ~bit
        _end(group, bit)

    def _divide(
        self,
        event: LedgerEvent,
        group: GroupView,
        escrow: int,
        to_account: int,
        to_intermediary: int,
        tax: int,
    ) -> None:
        _demand(
            to_account + to_intermediary + tax == escrow, event, f"the escrow is {escrow}"
        )
        self._escrow -= escrow
        self._credit(group.account, to_account)
        self._credit(self._tax_pool, tax)
        self._add_to_vault(group.intermediary, to_intermediary)

    # --- Direct channels --------------------------------------------------------------------------

    def _guard_opened(self, event: GuardOpened) -> None:
        _demand(event.gid not in self._guards, event, "the channel exists already")
        self._guarded += event.deposit
        self._guards[event.gid] = GuardView(
            state=GuardState.OPEN,
            client=event.client,
            payout=event.payout,
            deposit=event.deposit,
            claimed=0,
            price=event.price,
            dispute_window=event.dispute_window,
            deadline=0,
        )

    def _guard_claimed(self, event: GuardClaimed) -> None:
        guard = self._guard_of(event, event.gid)
        _demand(guard.state is not GuardState.CLOSED, event, "the channel is closed")
        gained = event.claimed - guard.claimed
        _demand(0 < gained == event.to_payout + event.tax, event, f"{guard.claimed} before")
        _demand(event.claimed <= guard.deposit, event, f"the deposit is {guard.deposit}")
        self._guarded -= gained
        self._credit(guard.payout, event.to_payout)
        self._credit(self._tax_pool, event.tax)
        self._guards[event.gid] = replace(guard, claimed=event.claimed)

    def _guard_close_requested(self, event: GuardCloseRequested) -> None:
        guard = self._guard_of(event, event.gid)
        _demand(guard.state is GuardState.OPEN, event, "the channel is not open")
        self._guards[event.gid] = replace(
            guard, state=GuardState.CLOSING, deadline=event.deadline
        )

    def _guard_closed(self, event: GuardClosed) -> None:
        guard = self._guard_of(event, event.gid)
        rest = guard.deposit - guard.claimed
        _demand(guard.state is GuardState.CLOSING, event, "the channel is not closing")
        _demand(event.to_client == rest, event, f"the rest is {rest}")
        self._guarded -= rest
        self._credit(guard.client, rest)
        self._guards[event.gid] = replace(guard, state=GuardState.CLOSED)

    def _guard_of(self, event: LedgerEvent, gid: int) -> GuardView:
        guard = self._guards.get(gid)
        if guard is None:
            raise _illegal(event, "there is no such channel")
        return guard


def _all(count: int) -> int:
    """Bitmap of `count` channels."""
    return (1 << count) - 1


def _end(group: _Group, channels: int) -> None:
    """Mark channels as resolved."""
    resolved = group.view.resolved | channels
    whole = resolved == _all(group.view.count)
    state = GroupState.ENDED if whole else GroupState.PARTLY_RESOLVED
    group.view = replace(group.view, resolved=resolved, state=state)


def _demand(holds: bool, event: LedgerEvent, objection: str) -> None:
    if not holds:
        raise _illegal(event, objection)


def _illegal(event: LedgerEvent, objection: str) -> IllegalHistory:
    return IllegalHistory(
        f"{type(event).__name__} in block {event.at.block}, log {event.at.log_index} does not "
        f"follow from the events before it: {objection}"
    )
