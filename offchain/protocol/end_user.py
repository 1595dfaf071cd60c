# SPDX-License-Identifier: BSD-3-Clause
"""What client and relay machines share: opening, cashing out, and standing up for a channel.

The machine is a dispatcher: replies, refusals, ledger events and deadlines go to the protocol
modules. Its own rule is `post_claim`: when the intermediary is silent or refuses, the wallet's one
live claim goes to the ledger, and the wallet is not used again.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any

from monetor_chain.statements import channel_id

from ..crypto.errors import CryptoError
from . import cash_out, establish, restored, wallet as wallets
from .errors import ProtocolError, RefusalCode
from .ledger import (
    Block,
    CloseRequested,
    Funded,
    GroupClosed,
    LedgerEvent,
    Opened,
    Reclaimed,
    RefundPosted,
    Refuted,
    Resolve,
    Resolved,
)
from .messages import (
    CashOutReply,
    ClientCloseQuery,
    ClientCloseRequest,
    EstablishReply,
    EstablishRequest,
    GroupReply,
    NanoEstablishRequest,
    NanoSetupRequest,
    OpenedReply,
    OpenedRequest,
    PayeeRequest,
    PayeeVoid,
    PayerRequest,
    Refusal,
    RelayCloseRequest,
    unpack,
)
from .moment import Moment, advance, tip
from .outbox import Done, Note, Outbox, Submit
from .records import Records, key248
from .sessions import Deadline, due, set_deadline, subject_of
from .wallet import (
    Claiming,
    CloseNotice,
    EndUser,
    Establishing,
    Idle,
    Paying,
    Posted,
    Settled,
    Voiding,
    Wallet,
)

OPENING_MARGINS = 4
"""After this many safety margins, an intermediary that agreed to a group does not open it."""

VOID_MARGINS = 4
"""This many safety margins after T_p, a payee whose payment came to nothing has its new wallet, or
claims its old one."""

REPOST_MARGINS = 2
"""After this many safety margins, a claim that is not on the ledger is posted again."""

LOOKS = 4
"""Deadlines are looked at at least this often in a safety margin: what has to be on its way at a
given time is due so much earlier."""

MAY_WAIT = frozenset(one.PCMD for one in (
    EstablishRequest, OpenedRequest, NanoSetupRequest, NanoEstablishRequest, RelayCloseRequest,
    ClientCloseQuery, ClientCloseRequest, PayerRequest, PayeeRequest, PayeeVoid))
"""PCMDs of the requests that "not yet" answers. The others wait for nothing: an intermediary that
puts them off for ever is to be treated as one that refuses."""


class Duty(IntEnum):
    """What a deadline reminds an end user of."""

    RESOLVE = 1
    CLOSE = 2
    REVEAL = 3
    CLAIM = 4
    PAY = 5
    GUARD = 6
    TELL = 7
    ANSWER = 8
    POSTED = 9
    REPOST = 10
    OPENING = 11
    SHOWN = 12
    UNSHOW = 13


class EndUserMachine:
    """Base of the client's and the relay's machine; it holds no state but its configuration.

    `user` says who the party is at one intermediary, `others` at further ones.
    """

    def __init__(self, user: EndUser, others: Sequence[EndUser] = ()) -> None:
        self.user = user
        self.others = tuple(others)
        self._at: dict[int, EndUser] = {}

    # --- Intermediaries

    def user_at(self, key_hash: bytes) -> EndUser:
        """Who this party is at the intermediary of a key; `ProtocolError` if it is at none such."""
        for one in (self.user, *self.others):
            if one.key_hash == key_hash:
                return one
        raise ProtocolError("this party has no channel at that intermediary")

    def user_of(self, records: Records, group: int) -> EndUser:
        """Who this party is at the intermediary of a group."""
        if not self.others:
            return self.user
        if group not in self._at:
            found = establish.find_group(records, group)
            if found is None:
                return self.user
            self._at[group] = next(
                one for one in (*self.others, self.user)
                if one is self.user or establish.is_at(found, one.ctx, one.intermediary))
        return self._at[group]

    def user_of_session(self, records: Records, terms_hash: bytes) -> EndUser:
        """Who this party is at the intermediary of a session."""
        return self.user_of(records, wallets.session_of(records, terms_hash).cid >> 8)

    def user_for(self, records: Records, conversation: bytes) -> EndUser:
        """Who this party is at the intermediary that a conversation is with."""
        kind, _, key = conversation.partition(b":")
        match kind:
            case b"group":
                asked = establish.asked_intermediary(records, conversation)
                return self.user if asked is None else self.user_at(asked)
            case b"establish" | b"recall":
                return self.user_of(records, int.from_bytes(key, "big") >> 8)
            case b"cash-out":
                return self.user_of(records, int.from_bytes(key, "big"))
            case b"session":
                return self.user_of_session(records, key)
        return self.user

    # --- Commands

    def open_group(self, records: Records, moment: Moment, *, deposit: int, fund: int, count: int,
                   user: EndUser | None = None) -> Outbox:
        """Open a channel group; see `establish.start_group`."""
        return establish.start_group(records, user or self.user, moment, deposit=deposit,
                                     fund=fund, count=count)

    def cash_out(self, records: Records, group: int) -> Outbox:
        """Close the idle channels of a group; see `cash_out.start`.

        A wallet whose nonce was shown before is closed by its refund token, which has none.
        """
        outbox: Outbox = []
        for wallet in wallets.all_wallets(records):
            if (isinstance(wallet, Idle) and wallet.cid >> 8 == group
                    and not cash_out.may_show(records, wallet)):
                outbox += self.post_claim(records, wallet.cid)
        if outbox and not cash_out.has_idle(records, group):
            return outbox
        outbox += cash_out.start(records, self.user_of(records, group), group)
        set_deadline(records, tip(records).timestamp + 1, Duty.SHOWN, subject_of(group))
        return outbox

    def post_claim(self, records: Records, cid: int, *, at_last: bool = False) -> Outbox:
        """Close one channel on the ledger with its live claim, without the intermediary.

        The wallet takes part in nothing more, but it is kept until the ledger has taken the claim:
        a transaction that is lost or reverts is followed by another. A claim out of a backup, which
        may be revoked, is posted `at_last` only: when the channel is forfeited without it.
        """
        wallet = wallets.get(records, cid)
        call = None if wallet is None else wallets.claim(records, wallet)
        if wallet is None or call is None:
            return []
        if not at_last and restored.stands_on_old_lock(records, cid):
            return [Note("claim-held", "it comes out of a backup and may be revoked")]
        group = establish.find_group(records, cid >> 8)
        if group is None or group.phase is not establish.GroupPhase.OPEN:
            return []
        wallets.put(records, cid, wallets.claiming(cid, wallet))
        set_deadline(records, tip(records).timestamp + 1, Duty.POSTED, subject_of(cid))
        return [Submit(b"claim:" + key248(cid), call), Note("claim-posted", type(call).__name__),
                *self._leave(records, cid)]

    def _leave(self, records: Records, cid: int) -> Outbox:
        """A channel is closing on the ledger: end its part in everything else."""
        return [Done(b"establish:" + key248(cid))]

    # --- Replies of the intermediary

    def on_reply(self, records: Records, moment: Moment, conversation: bytes, pcmd: int,
                 payload: bytes, asked: int | None = None) -> Outbox:
        """Handle the reply to a conversation's outstanding request, whose PCMD is `asked`.

        A reply that does not verify raises `ProtocolError`; the request then stays outstanding. A
        refusal of another request than the outstanding one comes late and means nothing any more.
        """
        message = unpack(pcmd, payload)
        if isinstance(message, Refusal):
            if asked is not None and message.about != asked & 0xFF:
                return []
            kind, _, key = conversation.partition(b":")
            if kind == b"recall":
                outbox = restored.on_word(records, int.from_bytes(key, "big"), message)
            else:
                outbox = (self._refused_after_backup(records, conversation, message)
                          or self.on_refusal(records, moment, conversation, message))
            return outbox + self._answer_notices(records)
        try:
            outbox = self._on_reply(records, moment, conversation, message)
        except CryptoError as error:
            raise ProtocolError(f"{type(message).__name__}: {error}") from error
        return outbox + self._answer_notices(records)

    def _on_reply(self, records: Records, moment: Moment, conversation: bytes, message: Any
                  ) -> Outbox:
        kind, _, key = conversation.partition(b":")
        user = self.user_for(records, conversation)
        match kind, message:
            case b"group", GroupReply():
                return establish.on_group_reply(records, user, conversation, message)
            case b"establish", EstablishReply():
                return establish.on_establish_reply(
                    records, user, moment, int.from_bytes(key, "big"), message)
            case b"establish", OpenedReply():
                return establish.on_opened_reply(
                    records, user, int.from_bytes(key, "big"), message)
            case b"cash-out", CashOutReply():
                return cash_out.on_reply(records, user, int.from_bytes(key, "big"), message)
        raise ProtocolError(f"a {type(message).__name__} does not answer what was asked")

    def _refused_after_backup(self, records: Records, conversation: bytes, refusal: Refusal
                              ) -> Outbox:
        """What a refusal means to a channel whose claim comes out of a backup; nothing to others.

        The intermediary has answered another request in this place, or has gone on from it.
        """
        kind, _, key = conversation.partition(b":")
        if kind == b"cash-out" and self.waits_for_word(records, conversation):
            # One channel that has moved on refuses them all: each is asked about again.
            for cid in restored.channels_of(records, conversation):
                restored.recall(records, cid)
            return [Done(conversation), *self._claim_shown(records, int.from_bytes(key, "big"))]
        if refusal.code not in (RefusalCode.REUSED, RefusalCode.STATE, RefusalCode.UNKNOWN):
            return []
        lost = [cid for cid in restored.channels_of(records, conversation)
                if restored.is_lost(records, cid, refusal.code)]
        if not lost:
            return []
        outbox: Outbox = [Done(conversation)]
        for cid in lost:
            outbox += [*self._leave(records, cid), *restored.give_over(records, cid)]
        return outbox

    def waits_for_word(self, records: Records, conversation: bytes) -> bool:
        """Whether there is nothing to do but to ask again: claims out of a backup do not serve to
        be posted."""
        return conversation.startswith(b"recall:") or any(
            restored.stands_on_old_lock(records, cid) or restored.awaits_first_token(records, cid)
            for cid in restored.channels_of(records, conversation))

    def on_refusal(self, records: Records, moment: Moment, conversation: bytes, refusal: Refusal
                   ) -> Outbox:
        """`NOT_YET` keeps the request outstanding; anything else ends the conversation.

        A wallet that is called spent is claimed: nobody will take it again.
        """
        if refusal.code is RefusalCode.NOT_YET and refusal.about in MAY_WAIT:
            return []
        return [Note("refused", f"{conversation.partition(b':')[0].decode()}: "
                                f"{refusal.code.name.lower()}"),
                *self.give_up(records, moment, conversation,
                              refused=refusal.code is not RefusalCode.REUSED)]

    def give_up(self, records: Records, moment: Moment, conversation: bytes, *,
                refused: bool = False) -> Outbox:
        """The intermediary is silent or refuses: recover what the conversation stands for."""
        if not refused and self.waits_for_word(records, conversation):
            return []
        kind, _, key = conversation.partition(b":")
        done: Outbox = [Done(conversation)]
        if kind == b"establish":
            cid = int.from_bytes(key, "big")
            if restored.awaits_first_token(records, cid):
                return done + restored.give_over(records, cid)
            return done + establish.forgo(records, cid >> 8) + self.post_claim(records, cid)
        if kind == b"cash-out":
            return done + self._claim_shown(records, int.from_bytes(key, "big"))
        return done

    # --- Ledger

    def on_ledger(self, records: Records, moment: Moment, event: LedgerEvent) -> Outbox:
        """Follow the ledger; events come in chain order, before the `Block` that confirms them."""
        match event:
            case Block():
                advance(records, event)
            case Opened() if establish.note_opened(records, event) is not None:
                self._await_opening(records, moment, event.group)
            case Funded() if establish.find_group(records, event.group) is not None:
                self._await_opening(records, moment, event.group)
                return establish.on_funded(records, event)
            case Reclaimed():
                return establish.on_reclaimed(records, event)
            case GroupClosed():
                return cash_out.on_group_closed(records, event)
            case CloseRequested() if wallets.get(records, event.cid) is not None:
                return self._on_close_requested(records, moment, event)
            case RefundPosted() if wallets.get(records, event.cid) is not None:
                wallets.put(records, event.cid, Posted(event.cid, event.deadline))
                set_deadline(records, event.deadline + 1, Duty.RESOLVE, subject_of(event.cid))
                return self._leave(records, event.cid)
            case Resolved() if wallets.get(records, event.cid) is not None:
                wallets.put(records, event.cid, Settled(event.cid, event.to_account))
                return [Note("channel-settled", f"{event.to_account} units")]
            case Refuted() if wallets.get(records, event.cid) is not None:
                wallets.put(records, event.cid, Settled(event.cid, 0))
                return [Note("channel-refuted", "the posted state was revoked")]
        return []

    def _await_opening(self, records: Records, moment: Moment, group: int) -> None:
        set_deadline(records, moment.now + OPENING_MARGINS * moment.parameters.safety_margin,
                     Duty.OPENING, subject_of(group))

    def _on_close_requested(self, records: Records, moment: Moment, event: CloseRequested
                            ) -> Outbox:
        """Answer at once; but a hidden payment that is under way may end first, within the notice.

        A payee that closes in its middle would leave the payer's secret revealed for nothing. A
        claim out of a backup waits as well: the wallet may get a better one, and in the end there
        is nothing to lose by it.
        """
        latest = event.deadline - 2 * moment.parameters.safety_margin
        if self._must_wait(records, event.cid) and moment.now < latest:
            wallets.put_notice(records, event.cid, CloseNotice(latest))
            set_deadline(records, latest, Duty.ANSWER, subject_of(event.cid))
            return []
        return self.post_claim(records, event.cid, at_last=True)

    def _answer_notices(self, records: Records) -> Outbox:
        """Post what a hidden payment has held up, as soon as it has ended."""
        outbox: Outbox = []
        for cid in wallets.noticed(records):
            if not self._must_wait(records, cid):
                outbox += self._answer_notice(records, cid)
        return outbox

    def _must_wait(self, records: Records, cid: int) -> bool:
        wallet = wallets.get(records, cid)
        return isinstance(wallet, Paying | Voiding) or restored.stands_on_old_lock(records, cid)

    def _answer_notice(self, records: Records, cid: int) -> Outbox:
        outbox = self.post_claim(records, cid, at_last=True)
        wallets.put_notice(records, cid, None)
        return outbox

    # --- Time

    def tick(self, records: Records, moment: Moment) -> Outbox:
        """Do what is due; to be called at least every μ / `LOOKS` seconds."""
        outbox = restored.ask(records, moment)
        for deadline in due(records, moment.now):
            try:
                outbox += self._on_due(records, moment, deadline)
            except (ProtocolError, CryptoError) as error:
                # One duty that fails must not take the others with it: they guard other channels.
                outbox.append(Note("duty-failed", f"{Duty(deadline.what).name.lower()}: {error}"))
                set_deadline(records, moment.now + max(1, moment.parameters.safety_margin // 4),
                             deadline.what, deadline.subject)
        return outbox

    def _on_due(self, records: Records, moment: Moment, deadline: Deadline) -> Outbox:
        subject = int.from_bytes(deadline.subject[1:], "big")
        later = moment.now + REPOST_MARGINS * moment.parameters.safety_margin
        match deadline.what:
            case Duty.RESOLVE:
                return self._resolve_due(records, moment, subject)
            case Duty.POSTED:
                set_deadline(records, later, Duty.REPOST, deadline.subject)
            case Duty.REPOST if isinstance(wallets.get(records, subject), Claiming):
                return self.post_claim(records, subject)
            case Duty.ANSWER if subject in wallets.noticed(records):
                return self._answer_notice(records, subject)
            case Duty.OPENING:
                return self._opening_due(records, subject)
            case Duty.SHOWN:
                set_deadline(records, later, Duty.UNSHOW, deadline.subject)
            case Duty.UNSHOW:
                return self._claim_shown(records, subject)
        return []

    def _resolve_due(self, records: Records, moment: Moment, cid: int) -> Outbox:
        wallet = wallets.get(records, cid)
        if not isinstance(wallet, Posted):
            return []
        if tip(records).timestamp <= wallet.deadline:
            set_deadline(records, moment.now + 1, Duty.RESOLVE, subject_of(cid))
            return []
        return [Submit(b"resolve:" + key248(cid), Resolve(cid))]

    def _opening_due(self, records: Records, group: int) -> Outbox:
        """The intermediary had its time: take back what it does not fund, close what it funded
        and gave no wallet for."""
        found = establish.find_group(records, group)
        if found is None:
            return []
        if found.phase is establish.GroupPhase.HALF_OPEN:
            return establish.reclaim(records, group)
        outbox: Outbox = []
        for index in range(found.count):
            cid = channel_id(group, index)
            if isinstance(wallets.get(records, cid), Establishing):
                outbox += self.post_claim(records, cid)
        return outbox

    def _claim_shown(self, records: Records, group: int) -> Outbox:
        """Wallets that were shown for a cooperative close which has not come about."""
        found = establish.find_group(records, group)
        if self.waits_for_word(records, cash_out.conversation(group)):
            return []
        outbox = cash_out.abandon(records, group)
        for index in range(found.count if found else 0):
            cid = channel_id(group, index)
            if isinstance(wallets.get(records, cid), wallets.CashingOut):
                outbox += self.post_claim(records, cid)
        return outbox


def unfinished(records: Records) -> list[Wallet]:
    """Wallets that are neither idle nor settled: what still has to come to an end."""
    return [one for one in wallets.all_wallets(records)
            if not isinstance(one, Idle | Settled | Establishing)]
