# SPDX-License-Identifier: AGPL-3.0-only
# pragma version 0.4.3
# pragma evm-version prague
# pragma nonreentrancy on
"""
@title Records of channel groups and their channels
@license GNU Affero General Public License v3.0 only
@notice A group is 1 to 256 equal channels opened together. A channel that nobody claimed has no
        record of its own; which channels are resolved is one bitmap per group, and that alone
        says whether a channel still holds money.
"""

from . import refusal
from . import settlement

struct Group:
    account: address
    deposit: uint256
    fund: uint256
    count: uint256
    role: uint256
    state: uint256
    requested: bool
    pin: uint256
    intermediary: address
    key_index: uint256
    dispute_window: uint256
    close_notice: uint256


struct Channel:
    status: uint256
    deadline: uint256
    balance: uint256
    lock: uint256


struct GroupView:
    state: uint256
    account: address
    intermediary: address
    key_index: uint256
    role: uint256
    deposit: uint256
    fund: uint256
    count: uint256
    dispute_window: uint256
    close_notice: uint256
    resolved: uint256


struct ChannelView:
    status: uint256
    deadline: uint256
    balance: uint256
    lock: uint256
    terms_hash: bytes32


# States of a group.
HALF_OPEN: constant(uint256) = 1
OPEN: constant(uint256) = 2
PARTIAL: constant(uint256) = 3  # some, not all, channels are resolved
ENDED: constant(uint256) = 4  # reclaimed, or every channel is resolved

# Statuses of a channel record; in the views also those that follow from the group.
UNTOUCHED: constant(uint256) = 0
REQUESTED: constant(uint256) = 1
CLOSING_MICRO: constant(uint256) = 2
CLOSING_NANO: constant(uint256) = 3
VIEW_NONE: constant(uint256) = 0
VIEW_HALF_OPEN: constant(uint256) = 4
VIEW_OPEN: constant(uint256) = 5
VIEW_RESOLVED: constant(uint256) = 6

LOCK_MASK: constant(uint256) = 2**144 - 1
_ADDRESS: constant(uint256) = 2**160 - 1
_WORD: constant(uint256) = 2**32 - 1
_BYTE: constant(uint256) = 2**8 - 1
_AMOUNT: constant(uint256) = 2**31 - 1  # bounds deposit_max
_PIN_LIMIT: constant(uint256) = 2**22
_REQUESTED_FLAG: constant(uint256) = 1 << 255

# account | deposit << 160 | fund << 191 | (count - 1) << 222 | (role - 1) << 230
# | (state - 1) << 231 | pin << 233 | requested << 255
_heads: HashMap[uint256, uint256]
# What a group pins for life is the same for many groups, so it is stored once and numbered from
# 1: intermediary | key index << 160 | dispute window << 192 | close notice << 224
_pinned: HashMap[uint256, uint256]
_pins: HashMap[uint256, uint256]
_pin_count: uint256
_resolved: HashMap[uint256, uint256]
# Bit i once channel i was requested: a close looks for bonds there alone.
_requests: HashMap[uint256, uint256]
# lock's low 144 bits | balance << 144 | deadline << 208 | status << 248; a requested channel
# keeps the bond in the balance's place. 144 bits of a hash resist a second preimage better
# than the curve resists a discrete logarithm.
_channels: HashMap[uint256, uint256]
_sessions: HashMap[uint256, bytes32]


@external
@view
def group(group_id: uint256) -> GroupView:
    """
    @return The group's record; state 0 if there is none, 1 half-open, 2 open, 3 partly
            resolved, 4 ended. `resolved` has bit i set when channel i is resolved.
    """
    if self._heads[group_id] == 0:
        return empty(GroupView)
    g: Group = self._group(group_id)
    resolved: uint256 = self._resolved[group_id]
    if g.state == ENDED:
        resolved = self._all(g.count)
    return GroupView(
        state=g.state,
        account=g.account,
        intermediary=g.intermediary,
        key_index=g.key_index,
        role=g.role,
        deposit=g.deposit,
        fund=g.fund,
        count=g.count,
        dispute_window=g.dispute_window,
        close_notice=g.close_notice,
        resolved=resolved,
    )


@external
@view
def channel(cid: uint256) -> ChannelView:
    """
    @return The channel's record. Status 0 none, 1 requested (balance is the bond, deadline the
            notice), 2 closing with a refund token, 3 closing with a session, 4 half-open,
            5 open, 6 resolved. `lock` holds the posted lock's low 144 bits.
    """
    group_id: uint256 = cid >> 8
    if self._heads[group_id] == 0:
        return empty(ChannelView)
    g: Group = self._group(group_id)
    if cid & _BYTE >= g.count:
        return empty(ChannelView)
    if g.state == HALF_OPEN:
        return ChannelView(
            status=VIEW_HALF_OPEN, deadline=0, balance=0, lock=0, terms_hash=empty(bytes32)
        )
    c: Channel = self._channel(cid)
    if self._is_resolved(g, group_id, 1 << (cid & _BYTE)):
        c.status = VIEW_RESOLVED
    elif c.status == UNTOUCHED:
        c.status = VIEW_OPEN
    return ChannelView(
        status=c.status,
        deadline=c.deadline,
        balance=c.balance,
        lock=c.lock,
        terms_hash=self._sessions[cid],
    )


@internal
@pure
def _all(count: uint256) -> uint256:
    """
    @return Bitmap of `count` channels.
    """
    return max_value(uint256) >> (256 - count)


@internal
@view
def _exists(group_id: uint256) -> bool:
    return self._heads[group_id] != 0


@internal
@view
def _group(group_id: uint256) -> Group:
    """
    @notice Loads a group; reverts if it was never opened.
    """
    head: uint256 = self._heads[group_id]
    refusal._unless(head != 0, "channel_groups: no such group")
    pin: uint256 = (head >> 233) & (_PIN_LIMIT - 1)
    pinned: uint256 = self._pinned[pin]
    return Group(
        account=convert(head & _ADDRESS, address),
        deposit=(head >> 160) & _AMOUNT,
        fund=(head >> 191) & _AMOUNT,
        count=((head >> 222) & _BYTE) + 1,
        role=((head >> 230) & 1) + 1,
        state=((head >> 231) & 3) + 1,
        requested=head & _REQUESTED_FLAG != 0,
        pin=pin,
        intermediary=convert(pinned & _ADDRESS, address),
        key_index=(pinned >> 160) & _WORD,
        dispute_window=(pinned >> 192) & _WORD,
        close_notice=pinned >> 224,
    )


@internal
def _create(group_id: uint256, g: Group):
    """
    @notice Stores a new group; its `pin` is found or made here.
    """
    pinned: uint256 = (
        convert(g.intermediary, uint256)
        | (g.key_index << 160)
        | (g.dispute_window << 192)
        | (g.close_notice << 224)
    )
    g.pin = self._pins[pinned]
    if g.pin == 0:
        g.pin = self._pin_count + 1
        refusal._unless(g.pin < _PIN_LIMIT, "channel_groups: full")
        self._pin_count = g.pin
        self._pins[pinned] = g.pin
        self._pinned[g.pin] = pinned
    self._store_head(group_id, g)


@internal
def _store_head(group_id: uint256, g: Group):
    head: uint256 = (
        convert(g.account, uint256)
        | (g.deposit << 160)
        | (g.fund << 191)
        | ((g.count - 1) << 222)
        | ((g.role - 1) << 230)
        | ((g.state - 1) << 231)
        | (g.pin << 233)
    )
    if g.requested:
        head |= _REQUESTED_FLAG
    self._heads[group_id] = head


@internal
@view
def _channel(cid: uint256) -> Channel:
    record: uint256 = self._channels[cid]
    return Channel(
        status=record >> 248,
        deadline=(record >> 208) & (2**40 - 1),
        balance=(record >> 144) & (2**64 - 1),
        lock=record & LOCK_MASK,
    )


@internal
def _store_channel(
    cid: uint256, status: uint256, deadline: uint256, balance: uint256, lock: uint256
):
    self._channels[cid] = (
        (lock & LOCK_MASK) | (balance << 144) | (deadline << 208) | (status << 248)
    )


@internal
@view
def _is_resolved(g: Group, group_id: uint256, channels: uint256) -> bool:
    """
    @notice Whether any of `channels` is resolved.
    """
    if g.state == PARTIAL:
        return self._resolved[group_id] & channels != 0
    return g.state == ENDED


@internal
@view
def _live(cid: uint256) -> Group:
    """
    @notice Loads the group of a channel that is open, requested or closing; reverts otherwise.
    """
    group_id: uint256 = cid >> 8
    g: Group = self._group(group_id)
    refusal._unless(cid & _BYTE < g.count, "channel_groups: no such channel")
    refusal._unless(g.state != HALF_OPEN, "channel_groups: not funded")
    refusal._unless(
        not self._is_resolved(g, group_id, 1 << (cid & _BYTE)),
        "channel_groups: resolved",
    )
    return g


@internal
def _mark_resolved(g: Group, group_id: uint256, channels: uint256):
    """
    @notice Marks `channels`, none of which may be resolved, as resolved.
    """
    resolved: uint256 = channels
    if g.state == PARTIAL:
        resolved |= self._resolved[group_id]
    if resolved == self._all(g.count):
        g.state = ENDED
        self._store_head(group_id, g)
        return
    self._resolved[group_id] = resolved
    if g.state == OPEN:
        g.state = PARTIAL
        self._store_head(group_id, g)


@internal
def _forget(cid: uint256):
    """
    @notice Drops the record of a resolved channel.
    """
    self._channels[cid] = 0
    self._sessions[cid] = empty(bytes32)
