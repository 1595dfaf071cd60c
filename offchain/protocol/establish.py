# SPDX-License-Identifier: BSD-3-Clause
"""Establish, Init-E, Init-I: open a group of equal micropayment channels.

The end user gets a refund token for every channel before it escrows anything; it gets wallet
tokens only after the intermediary's funds are confirmed on the ledger as well (paper, section
IV-A; one opening serves 1 to 256 channels).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from enum import IntEnum

from monetor_chain.statements import (
    MAX_GROUP_SIZE,
    Role,
    TokenKind,
    channel_id,
    group_id,
    lock_of,
    tag,
)

from ..crypto.issuer import unblind
from ..crypto.opening import prove_opening, verify_opening
from ..crypto.proofs import TokenRequest
from . import wallet as wallets
from .answering import Answer, Intermediary
from .codec import B20, B32, G2, U16, U64, U248
from .errors import ProtocolError, RefusalCode, Refused
from .ledger import Fund, Funded, Open, Opened, Reclaim, Reclaimed
from .messages import (
    EstablishReply,
    EstablishRequest,
    GroupReply,
    GroupRequest,
    OpenedReply,
    OpenedRequest,
    pack,
)
from .moment import Moment
from .outbox import Done, Note, Outbox, Request, Submit
from .records import Records, Table, key248, record
from .wallet import NO_TOKEN, EndUser, Establishing, Idle, Next


class GroupPhase(IntEnum):
    """Life of a group, as either side sees it."""

    AGREED = 1
    SUBMITTED = 2
    HALF_OPEN = 3
    OPEN = 4
    GONE = 5
    RESOLVED = 6
    """At the intermediary: all of its channels are paid out."""


@record
@dataclass(frozen=True, slots=True)
class PendingGroup:
    """E's half of a group whose id is not known yet; `key_hash` is the key of the asked I."""

    key_hash: B32
    role: Role
    deposit: U64
    fund: U64
    count: U16
    rho_e: B32


@record
@dataclass(frozen=True, slots=True)
class Group:
    """A channel group. Amounts in base units for each channel; windows in seconds."""

    group: U248
    account: B20
    role: Role
    deposit: U64
    fund: U64
    count: U16
    rho_e: B32
    rho_i: B32
    phase: GroupPhase
    ready: U16
    dispute_window: U64
    close_notice: U64


def group_key(group: int) -> bytes:
    """Record key of a group."""
    return key248(group)


def opening_conversation(cid: int) -> bytes:
    """The conversation of a channel's opening."""
    return b"establish:" + key248(cid)


def find_group(records: Records, group: int) -> Group | None:
    """The group of this id, if the party knows it."""
    found = records.get(Table.GROUP, group_key(group))
    return found if isinstance(found, Group) else None


def group_of(records: Records, cid: int) -> Group:
    """The group that channel `cid` belongs to; `ProtocolError` if it is unknown."""
    group = find_group(records, cid >> 8)
    if group is None or (cid & 0xFF) >= group.count:
        raise ProtocolError(f"channel {cid:#x} belongs to no known group")
    return group


def is_at(group: Group, ctx: bytes, intermediary: bytes) -> bool:
    """Whether a group is under the key of `ctx` and the account of this intermediary: the hash that
    names a group covers both."""
    return group.group == group_id(ctx, group.account, intermediary, group.role, group.deposit,
                                   group.fund, group.count, group.rho_e, group.rho_i)


def asked_intermediary(records: Records, conversation: bytes) -> bytes | None:
    """The hash of the intermediary's key that a new group's conversation is with."""
    found = records.get(Table.META, b"pending-group:" + conversation.removeprefix(b"group:"))
    return found.key_hash if isinstance(found, PendingGroup) else None


# --- End user ------------------------------------------------------------------------------------


def start_group(records: Records, user: EndUser, moment: Moment, *, deposit: int, fund: int,
                count: int) -> Outbox:
    """Ask the intermediary for a group of `count` channels of `deposit` and `fund` base units."""
    limit = moment.parameters.deposit_max
    if not 1 <= count <= MAX_GROUP_SIZE:
        raise ProtocolError(f"a group has 1 to {MAX_GROUP_SIZE} channels, not {count}")
    for name, amount in (("deposit", deposit), ("fund", fund)):
        if not 0 <= amount <= limit:
            raise ProtocolError(f"the {name} of a channel lies in [0, {limit}], not {amount}")
    rho_e = secrets.token_bytes(32)
    records.put(Table.META, b"pending-group:" + rho_e,
                PendingGroup(user.key_hash, user.role, deposit, fund, count, rho_e))
    message = GroupRequest(user.account, user.role, deposit, fund, count, rho_e)
    return [Request(b"group:" + rho_e, *pack(message))]


def on_group_reply(records: Records, user: EndUser, conversation: bytes, reply: GroupReply
                   ) -> Outbox:
    """The group's id is fixed: request the first tokens of each channel."""
    pending = records.get(Table.META, b"pending-group:" + conversation.removeprefix(b"group:"))
    if not isinstance(pending, PendingGroup):
        return [Done(conversation)]
    group = group_id(user.ctx, user.account, user.intermediary, pending.role, pending.deposit,
                     pending.fund, pending.count, pending.rho_e, reply.rho_i)
    records.delete(Table.META, b"pending-group:" + pending.rho_e)
    records.put(Table.GROUP, group_key(group), Group(
        group, user.account, pending.role, pending.deposit, pending.fund, pending.count,
        pending.rho_e, reply.rho_i, GroupPhase.AGREED, 0, 0, 0))
    outbox: Outbox = [Done(conversation)]
    for index in range(pending.count):
        cid = channel_id(group, index)
        nonce, wsk = wallets.fresh_nonce(), wallets.fresh_secret()
        request, proof, blinding = prove_opening(
            user.issuer, user.ctx, role=user.role, cid=cid, balance=pending.deposit, nonce=nonce,
            wpk=lock_of(wsk))
        wallets.put(records, cid, Establishing(
            Next(cid, nonce, wsk, pending.deposit, blinding.t_rt, blinding.t_pt), NO_TOKEN))
        outbox.append(Request(opening_conversation(cid), *pack(
            EstablishRequest(cid, request.d_rt, request.d_pt, proof))))
    return outbox


def on_establish_reply(records: Records, user: EndUser, moment: Moment, cid: int,
                       reply: EstablishReply) -> Outbox:
    """A channel's refund token: with the last one of the group, Init-E.

    The ledger opens the group only with the windows that E names here, those in force by now.
    """
    wallet = wallets.get(records, cid)
    if not isinstance(wallet, Establishing) or wallet.rt != NO_TOKEN:
        # Said before: the conversation may by now be about the wallet token.
        return []
    rt = refund_token(user, wallet.next, reply.rt)
    wallets.put(records, cid, replace(wallet, rt=rt))
    group = group_of(records, cid)
    group = replace(group, ready=group.ready + 1)
    outbox: Outbox = [Done(opening_conversation(cid))]
    if group.ready == group.count:
        group = replace(group, phase=GroupPhase.SUBMITTED)
        outbox.append(Submit(b"open:" + group_key(group.group), Open(
            group.group, user.key_hash, user.account, group.role, group.deposit, group.fund,
            group.count, moment.parameters.dispute_window, moment.parameters.close_notice,
            group.rho_e, group.rho_i)))
    records.put(Table.GROUP, group_key(group.group), group)
    return outbox


def on_funded(records: Records, event: Funded) -> Outbox:
    """The group is open on the ledger: ask for the wallet tokens."""
    group = find_group(records, event.group)
    if group is None or group.phase is GroupPhase.OPEN:
        return []
    records.put(Table.GROUP, group_key(group.group), replace(group, phase=GroupPhase.OPEN))
    return [
        Request(opening_conversation(cid), *pack(OpenedRequest(cid)))
        for cid in (channel_id(group.group, index) for index in range(group.count))
    ]


def on_opened_reply(records: Records, user: EndUser, cid: int, reply: OpenedReply) -> Outbox:
    """A channel's wallet token: the wallet can be spent."""
    wallet = wallets.get(records, cid)
    if not isinstance(wallet, Establishing) or wallet.rt == NO_TOKEN:
        return [Done(opening_conversation(cid))]
    pt = wallet_token(user, wallet.next, reply.pt)
    wallets.put(records, cid, Idle(cid, wallet.next.nonce, wallet.next.wsk, wallet.next.balance,
                                   pt, wallet.rt))
    return [Done(opening_conversation(cid)), Note("channel-open", f"{wallet.next.balance} units")]


def forgo(records: Records, group: int) -> Outbox:
    """Forget the channels of a group that was agreed on and gets no tokens; nothing is escrowed for
    them. Nothing happens in any later phase."""
    found = find_group(records, group)
    if found is None or found.phase is not GroupPhase.AGREED:
        return []
    records.put(Table.GROUP, group_key(group), replace(found, phase=GroupPhase.GONE))
    outbox: Outbox = []
    for cid in (channel_id(group, index) for index in range(found.count)):
        records.delete(Table.WALLET, key248(cid))
        outbox.append(Done(opening_conversation(cid)))
    return outbox


def reclaim(records: Records, group: int) -> Outbox:
    """Give up a group that the intermediary does not fund."""
    found = find_group(records, group)
    if found is None or found.phase is not GroupPhase.HALF_OPEN:
        raise ProtocolError("only a group that is escrowed and not funded can be reclaimed")
    return [Submit(b"reclaim:" + group_key(group), Reclaim(group))]


def refund_token(user: EndUser, new: Next, blind: bytes) -> bytes:
    """Unblind and verify the refund token of a wallet to come, as the ledger would."""
    return unblind(user.issuer, blind, new.t_rt, tag=tag(TokenKind.REFUND, user.role, user.ctx),
                   cid=new.cid, nonce=0, wpk=lock_of(new.wsk), balance=new.balance)


def wallet_token(user: EndUser, new: Next, blind: bytes) -> bytes:
    """Unblind and verify the wallet token of a wallet to come."""
    return unblind(user.issuer, blind, new.t_pt, tag=tag(TokenKind.PAYMENT, user.role, user.ctx),
                   cid=new.cid, nonce=new.nonce, wpk=lock_of(new.wsk), balance=new.balance)


# --- Both sides: the group on the ledger ---------------------------------------------------------


def on_reclaimed(records: Records, event: Reclaimed) -> Outbox:
    """A half-open group is gone."""
    group = find_group(records, event.group)
    if group is not None:
        records.put(Table.GROUP, group_key(group.group), replace(group, phase=GroupPhase.GONE))
        for index in range(group.count):
            records.delete(Table.WALLET, key248(channel_id(group.group, index)))
    return []


def note_opened(records: Records, event: Opened) -> Group | None:
    """Pin the windows of a group that the ledger has opened; None if it is not ours."""
    group = find_group(records, event.group)
    if group is None:
        return None
    group = replace(group, phase=GroupPhase.HALF_OPEN, dispute_window=event.dispute_window,
                    close_notice=event.close_notice)
    records.put(Table.GROUP, group_key(group.group), group)
    return group


# --- Intermediary --------------------------------------------------------------------------------


@record
@dataclass(frozen=True, slots=True)
class ChannelRequest:
    """The D's of a channel's first tokens, for the wallet token after funding."""

    d_pt: G2


def answer_group(records: Records, me: Intermediary, moment: Moment, message: GroupRequest
                 ) -> Answer:
    """Agree to a group, within what this intermediary escrows."""
    limit = moment.parameters.deposit_max
    if not 1 <= message.count <= MAX_GROUP_SIZE or message.deposit > limit:
        raise Refused(RefusalCode.ESCROW, f"count {message.count} or deposit {message.deposit} "
                                          "is out of range")
    # A client's wallet needs room above its deposit to receive hidden payments.
    allowed = min(limit, me.max_fund)
    if message.fund > allowed:
        raise Refused(RefusalCode.ESCROW, f"a fund of {message.fund} is more than {allowed}")
    rho_i = secrets.token_bytes(32)
    group = group_id(me.ctx, message.account, me.address, message.role, message.deposit,
                     message.fund, message.count, message.rho_e, rho_i)
    records.put(Table.GROUP, group_key(group), Group(
        group, message.account, message.role, message.deposit, message.fund, message.count,
        message.rho_e, rho_i, GroupPhase.AGREED, 0, 0, 0))
    return Answer(GroupReply(rho_i))


def answer_establish(records: Records, me: Intermediary, moment: Moment,
                     message: EstablishRequest) -> Answer:
    """Sign a channel's first refund token: one pair of D's for a cid, ever."""
    group = _known_group(records, message.cid)
    me.require_proof(
        verify_opening, me.ctx, TokenRequest(message.d_rt, message.d_pt), message.proof,
        role=group.role, cid=message.cid, balance=group.deposit)
    records.put(Table.CHANNEL, b"request:" + key248(message.cid), ChannelRequest(message.d_pt))
    return Answer(EstablishReply(me.issuer.blind_sign(
        message.d_rt, tag=tag(TokenKind.REFUND, group.role, me.ctx), cid=message.cid,
        balance=group.deposit)))


def answer_opened(records: Records, me: Intermediary, moment: Moment, message: OpenedRequest
                  ) -> Answer:
    """Sign a channel's first wallet token, once both escrows are confirmed."""
    group = _known_group(records, message.cid)
    if group.phase is not GroupPhase.OPEN:
        raise Refused(RefusalCode.NOT_YET, "the group is not funded on the ledger yet")
    request = records.get(Table.CHANNEL, b"request:" + key248(message.cid))
    if not isinstance(request, ChannelRequest):
        raise Refused(RefusalCode.UNKNOWN, "the channel has no refund token yet")
    return Answer(OpenedReply(me.issuer.blind_sign(
        request.d_pt, tag=tag(TokenKind.PAYMENT, group.role, me.ctx), cid=message.cid,
        balance=group.deposit)))


def fund_opened(records: Records, moment: Moment, event: Opened) -> Outbox:
    """Init-I: fund a group that E has escrowed as agreed.

    Its windows are pinned for life: other ones than the network's are funded by nobody, and E
    takes its escrow back.
    """
    known = find_group(records, event.group)
    if known is None or known.phase is not GroupPhase.AGREED:
        return []
    note_opened(records, event)
    windows = {(one.dispute_window, one.close_notice)
               for one in (moment.parameters, *moment.older.values())}
    if (event.dispute_window, event.close_notice) not in windows:
        return [Note("not-funded", "the group has other windows than the network")]
    return [Submit(b"fund:" + group_key(event.group), Fund(event.group))]


def _known_group(records: Records, cid: int) -> Group:
    group = find_group(records, cid >> 8)
    if group is None or group.phase is GroupPhase.RESOLVED or (cid & 0xFF) >= group.count:
        raise Refused(RefusalCode.UNKNOWN, "the channel belongs to no agreed group")
    return group
