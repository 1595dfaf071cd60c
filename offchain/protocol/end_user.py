# SPDX-License-Identifier: BSD-3-Clause
"""What client and relay machines share: opening, cashing out, and standing up for a channel.

The machine is a dispatcher: replies, refusals, ledger events and deadlines go to the protocol
modules. Its own rule is `post_claim`: when the intermediary is silent or refuses, the wallet's one
live claim goes to the ledger, and the wallet is not used again.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from . import cash_out, establish, wallet as wallets
from .errors import ProtocolError, RefusalCode
from .ledger import (
    CloseRequested, Funded, GroupClosed, LedgerEvent, Opened, Reclaimed, RefundPosted, Refuted,
    Resolve, Resolved, Block,
)
from .messages import (
    CashOutReply, EstablishReply, GroupReply, OpenedReply, Refusal, unpack,
)
from .moment import Moment, advance, tip
from .outbox import Done, Note, Outbox, Submit
from .records import Records, Table, key248
from .sessions import Deadline, due, set_deadline, subject_of
from .wallet import EndUser, Establishing, Idle, Posted, Settled, Wallet


class Duty(IntEnum):
    """What a deadline reminds an end user of."""

    RESOLVE = 1
    CLOSE = 2
    REVEAL = 3
    CLAIM = 4
    PAY = 5
    GUARD = 6


class EndUserMachine:
    """Base of the client's and the relay's machine; it holds no state but its configuration."""

    def __init__(self, user: EndUser) -> None:
        self.user = user

    # --- Commands

    def open_group(self, records: Records, moment: Moment, *, deposit: int, fund: int, count: int
                   ) -> Outbox:
        """Open a channel group; see `establish.start_group`."""
        return establish.start_group(records, self.user, moment, deposit=deposit, fund=fund,
                                     count=count)

    def cash_out(self, records: Records, group: int) -> Outbox:
        """Close the idle channels of a group; see `cash_out.start`."""
        return cash_out.start(records, self.user, group)

    def post_claim(self, records: Records, cid: int) -> Outbox:
        """Close one channel on the ledger with its live claim, without the intermediary."""
        wallet = wallets.get(records, cid)
        call = None if wallet is None else wallets.claim(records, wallet)
        if call is None:
            return []
        wallets.put(records, cid, Posted(cid, 0))
        outbox: Outbox = [Submit(b"claim:" + key248(cid), call),
                          Note("claim-posted", type(call).__name__)]
        return outbox + [Done(conversation) for conversation in self._conversations(wallet, cid)]

    def _conversations(self, wallet: Wallet | None, cid: int) -> list[bytes]:
        """Conversations that a posted wallet no longer needs."""
        session = getattr(wallet, "session", None)
        return ([b"session:" + session] if session else []) + [b"establish:" + key248(cid)]

    # --- Replies of the intermediary

    def on_reply(self, records: Records, moment: Moment, conversation: bytes, pcmd: int,
                 payload: bytes) -> Outbox:
        """Handle the reply to a conversation's outstanding request.

        A reply that does not verify raises `ProtocolError`; the request then stays outstanding.
        """
        message = unpack(pcmd, payload)
        if isinstance(message, Refusal):
            return self.on_refusal(records, moment, conversation, message)
        return self._on_reply(records, moment, conversation, message)

    def _on_reply(self, records: Records, moment: Moment, conversation: bytes, message: Any
                  ) -> Outbox:
        kind, _, key = conversation.partition(b":")
        match kind, message:
            case b"group", GroupReply():
                return establish.on_group_reply(records, self.user, conversation, message)
            case b"establish", EstablishReply():
                return establish.on_establish_reply(
                    records, self.user, int.from_bytes(key, "big"), message)
            case b"establish", OpenedReply():
                return establish.on_opened_reply(
                    records, self.user, int.from_bytes(key, "big"), message)
            case b"cash-out", CashOutReply():
                return cash_out.on_reply(records, self.user, int.from_bytes(key, "big"), message)
        raise ProtocolError(f"a {type(message).__name__} does not answer what was asked")

    def on_refusal(self, records: Records, moment: Moment, conversation: bytes, refusal: Refusal
                   ) -> Outbox:
        """`NOT_YET` keeps the request outstanding; anything else ends the conversation."""
        if refusal.code is RefusalCode.NOT_YET:
            return []
        return [Note("refused", f"{conversation.partition(b':')[0].decode()}: "
                                f"{refusal.code.name.lower()}"),
                *self.give_up(records, moment, conversation, refused=True)]

    def give_up(self, records: Records, moment: Moment, conversation: bytes, *,
                refused: bool = False) -> Outbox:
        """The intermediary is silent or refuses: recover what the conversation stands for."""
        kind, _, key = conversation.partition(b":")
        done: Outbox = [Done(conversation)]
        if kind == b"establish":
            return done + self.post_claim(records, int.from_bytes(key, "big"))
        if kind == b"cash-out":
            records.delete(Table.META, conversation)
            group = establish.find_group(records, int.from_bytes(key, "big"))
            for index in range(group.count if group else 0):
                cid = (int.from_bytes(key, "big") << 8) | index
                if isinstance(wallets.get(records, cid), wallets.CashingOut):
                    done += self.post_claim(records, cid)
        return done

    # --- Ledger

    def on_ledger(self, records: Records, moment: Moment, event: LedgerEvent) -> Outbox:
        """Follow the ledger; events come in chain order and before the `Block` that confirms them."""
        match event:
            case Block():
                advance(records, event.number, event.timestamp)
            case Opened():
                establish.note_opened(records, event)
            case Funded():
                return establish.on_funded(records, event)
            case Reclaimed():
                return establish.on_reclaimed(records, event)
            case GroupClosed():
                return cash_out.on_group_closed(records, event)
            case CloseRequested() if wallets.get(records, event.cid) is not None:
                return self.post_claim(records, event.cid)
            case RefundPosted() if wallets.get(records, event.cid) is not None:
                wallets.put(records, event.cid, Posted(event.cid, event.deadline))
                set_deadline(records, event.deadline + 1, Duty.RESOLVE, subject_of(event.cid))
            case Resolved() if wallets.get(records, event.cid) is not None:
                wallets.put(records, event.cid, Settled(event.cid, event.to_account))
                return [Note("channel-settled", f"{event.to_account} units")]
            case Refuted() if wallets.get(records, event.cid) is not None:
                wallets.put(records, event.cid, Settled(event.cid, 0))
                return [Note("channel-refuted", "the posted state was revoked")]
        return []

    # --- Time

    def tick(self, records: Records, moment: Moment) -> Outbox:
        """Do what is due; to be called at least every μ / 4 seconds."""
        outbox: Outbox = []
        for deadline in due(records, moment.now):
            outbox += self._on_due(records, moment, deadline)
        return outbox

    def _on_due(self, records: Records, moment: Moment, deadline: Deadline) -> Outbox:
        if deadline.what != Duty.RESOLVE:
            return []
        cid = int.from_bytes(deadline.subject[1:], "big")
        wallet = wallets.get(records, cid)
        if not isinstance(wallet, Posted):
            return []
        if tip(records).timestamp <= wallet.deadline:
            set_deadline(records, moment.now + 1, Duty.RESOLVE, deadline.subject)
            return []
        return [Submit(b"resolve:" + key248(cid), Resolve(cid))]


def unfinished(records: Records) -> list[Wallet]:
    """Wallets that are neither idle nor settled: what still has to come to an end."""
    return [one for one in wallets.all_wallets(records)
            if not isinstance(one, Idle | Settled | Establishing)]
