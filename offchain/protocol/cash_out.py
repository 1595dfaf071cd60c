# SPDX-License-Identifier: BSD-3-Clause
"""Cash-out: close the idle channels of a group together, with one cheap transaction.

The wallets are shown in clear (group, balances), with re-randomised tokens, so that the
intermediary cannot tie them to the sessions that produced them. Refund tokens stay usable if the
intermediary goes silent.
"""

from __future__ import annotations

from dataclasses import dataclass

from monetor_chain.statements import (
    TokenKind,
    channel_id,
    close_struct,
    tag,
    typed_digest,
)

from ..crypto.ecdsa import recover, sign
from ..crypto.errors import CryptoError
from ..crypto.issuer import rerandomise, verify_token
from . import answering, old_locks, wallet as wallets
from .answering import Answer, Intermediary
from .codec import U64, U248, U256
from .errors import ProtocolError, RefusalCode, Refused
from .establish import Group, GroupPhase, find_group
from .ledger import Close, GroupClosed
from .messages import CashOutReply, CashOutRequest, CashOutWallet, pack
from .moment import Moment
from .outbox import Done, Note, Outbox, Request, Submit
from .records import Records, Table, key248, load, record
from .wallet import CashingOut, Claiming, EndUser, Idle, Settled


@record
@dataclass(frozen=True, slots=True)
class PendingClose:
    """The channels (bitmap) and total of a cash-out that awaits the intermediary's signature."""

    group: U248
    channels: U256
    total: U64


@record
@dataclass(frozen=True, slots=True)
class GoneChannels:
    """Channels of a group (bitmap) that are closing or paid out on the ledger."""

    channels: U256


def conversation(group: int) -> bytes:
    """The conversation in which a group's idle wallets are shown."""
    return b"cash-out:" + key248(group)


def _digest(domain: bytes, ctx: bytes, group: int, channels: int, total: int) -> bytes:
    return typed_digest(domain, close_struct(ctx, group, channels, total))


# --- End user ------------------------------------------------------------------------------------


def start(records: Records, user: EndUser, group: int) -> Outbox:
    """Cash out every idle wallet of a group; channels in session or dispute are left out.

    So are wallets whose nonce a refused request has shown: those close by refund token.
    """
    found = find_group(records, group)
    if found is None:
        raise ProtocolError("no such group")
    if records.get(Table.META, conversation(group)) is not None:
        raise ProtocolError("the group is being cashed out already")
    shown: list[CashOutWallet] = []
    channels = total = 0
    for index in range(found.count):
        cid = channel_id(group, index)
        wallet = wallets.get(records, cid)
        if (not isinstance(wallet, Idle) or not may_show(records, wallet)
                or len(shown) == 128):
            continue
        shown.append(CashOutWallet(index, wallet.nonce, wallet.wpk, wallet.balance,
                                   rerandomise(wallet.pt)))
        channels |= 1 << index
        total += wallet.balance
        wallets.put(records, cid, CashingOut(wallet))
    if not shown:
        raise ProtocolError("the group has no idle channel to cash out")
    records.put(Table.META, conversation(group), PendingClose(group, channels, total))
    return [Request(conversation(group), *pack(CashOutRequest(group, tuple(shown))))]


def has_idle(records: Records, group: int) -> bool:
    """Whether `start` would find a wallet to show."""
    return any(isinstance(one, Idle) and may_show(records, one) and one.cid >> 8 == group
               for one in wallets.all_wallets(records))


def may_show(records: Records, wallet: Idle) -> bool:
    """Whether a wallet may be shown beside its channel: unless its nonce was shown elsewhere, and
    even then if its refund token comes out of a backup and must not be posted."""
    return not wallet.shown or old_locks.fate(records, wallet.wpk) is not None


def on_reply(records: Records, user: EndUser, group: int, reply: CashOutReply) -> Outbox:
    """The intermediary's signature, checked as the ledger does: close the channels."""
    pending = records.get(Table.META, conversation(group))
    if not isinstance(pending, PendingClose):
        return [Done(conversation(group))]
    digest = _digest(user.domain, user.ctx, group, pending.channels, pending.total)
    try:
        signer = recover(digest, reply.signature)
    except CryptoError as error:
        raise ProtocolError(f"cash-out signature: {error}") from error
    if signer != user.intermediary:
        raise ProtocolError("the cash-out signature is not the intermediary's")
    records.delete(Table.META, conversation(group))
    # A second close of the group, of other channels, must not be taken for the first.
    purpose = b"close:" + key248(group) + pending.channels.to_bytes(32, "big")
    return [Done(conversation(group)), Submit(purpose, Close(
        group, pending.channels, pending.total, reply.signature))]


def abandon(records: Records, group: int) -> Outbox:
    """Wait for the intermediary's signature no longer; the group can be cashed out again."""
    records.delete(Table.META, conversation(group))
    return [Done(conversation(group))]


def on_group_closed(records: Records, event: GroupClosed) -> Outbox:
    """The channels of the bitmap are paid out."""
    group = find_group(records, event.group)
    if group is None:
        return []
    for index in range(group.count):
        if event.channels >> index & 1:
            cid = channel_id(event.group, index)
            wallet = wallets.get(records, cid)
            if isinstance(wallet, Claiming):  # it was given up, and the ledger had it all the same
                wallet = load(wallet.kind.decode(), wallet.state)
            amount = wallet.idle.balance if isinstance(wallet, CashingOut) else 0
            wallets.put(records, cid, Settled(cid, amount))
    return [Note("cashed-out", f"{event.total} units")]


# --- Intermediary --------------------------------------------------------------------------------


def gone(records: Records, group: int) -> int:
    """Bitmap of a group's channels that are closing or paid out on the ledger."""
    found = records.get(Table.CHANNEL, b"gone:" + key248(group))
    return found.channels if isinstance(found, GoneChannels) else 0


def mark_gone(records: Records, group: int, channels: int) -> None:
    """Remember channels that are closing or paid out."""
    records.put(Table.CHANNEL, b"gone:" + key248(group),
                GoneChannels(gone(records, group) | channels))


def answer(records: Records, me: Intermediary, moment: Moment, message: CashOutRequest) -> Answer:
    """Spend all the wallets shown, or none, and sign their total."""
    group = find_group(records, message.group)
    if group is None or group.phase is not GroupPhase.OPEN:
        raise Refused(RefusalCode.UNKNOWN, "the group is not open")
    channels = _check(records, me, group, message)
    total = 0
    for wallet in message.wallets:
        answering.retire(records, wallet.wpk)
        answering.store_answer(records, answering.SPEND, key248(wallet.nonce),
                               (message.PCMD, b"cash-out"), (CashOutReply.PCMD, b""))
        total += wallet.balance
    return Answer(CashOutReply(sign(
        _digest(me.domain, me.ctx, message.group, channels, total), me.signing_key)))


def _check(records: Records, me: Intermediary, group: Group, message: CashOutRequest) -> int:
    channels = 0
    unavailable = gone(records, group.group)
    wallet_tag = tag(TokenKind.PAYMENT, group.role, me.ctx)
    for wallet in message.wallets:
        bit = 1 << wallet.index
        cid = channel_id(group.group, wallet.index)
        if wallet.index >= group.count or channels & bit or unavailable & bit:
            raise Refused(RefusalCode.STATE, f"channel {wallet.index} cannot be cashed out")
        answering.require_unspent(records, wallet.nonce)
        answering.require_live(records, wallet.wpk, "wpk")
        if not verify_token(me.issuer.public, wallet.pt, tag=wallet_tag, cid=cid,
                            nonce=wallet.nonce, wpk=wallet.wpk, balance=wallet.balance):
            raise Refused(RefusalCode.PROOF, f"the token of channel {wallet.index} is not valid")
        channels |= bit
    if not channels:
        raise Refused(RefusalCode.MALFORMED, "no wallet is shown")
    return channels
