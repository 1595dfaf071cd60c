# SPDX-License-Identifier: BSD-3-Clause
"""The client's machine: sessions it pays with, hidden payments, and its guard channel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from monetor_chain.statements import lock_of

from ..crypto.ecdsa import address_of
from . import (
    guard,
    nano_close,
    nano_establish,
    nano_pay,
    nano_setup,
    pay,
    restored,
    wallet as wallets,
)
from .end_user import LOOKS, MAY_WAIT, REPOST_MARGINS, VOID_MARGINS, Duty, EndUserMachine
from .errors import ProtocolError, RefusalCode
from .ledger import (
    GuardClosed,
    GuardCloseRequested,
    GuardOpened,
    LedgerEvent,
)
from .messages import (
    Acknowledged,
    ClientCloseCount,
    GuardAccepted,
    GuardPayout,
    NanoAccepted,
    NanoRefundReply,
    OpenedReply,
    PayInvoice,
    PayQuery,
    PaySecret,
    PayTerms,
    PayVerified,
    RefundTokenReply,
    Refusal,
    WalletTokenReply,
    pack,
    unpack,
)
from .moment import Moment, tip
from .nano_setup import NanoSetupDraft
from .outbox import Done, Note, Outbox, Request, Tell
from .records import Records, Table
from .resting import begin_rest
from .sessions import ClientPhase, ClientSession, Deadline, client_session, set_deadline
from .wallet import EndUser, Idle, Paying, Renewing, Voiding


class Client(EndUserMachine):
    """One client's machine; `guard_key` owns its direct channels and signs their vouchers."""

    def __init__(self, user: EndUser, guard_key: bytes, others: Sequence[EndUser] = ()) -> None:
        super().__init__(user, others)
        self._guard_key = guard_key
        self.guard_account = address_of(guard_key)

    # --- Sessions

    def draft_setup(self, records: Records, moment: Moment, cid: int) -> NanoSetupDraft:
        """What a setup from an idle wallet can have ready before it is wanted; writes nothing."""
        return nano_setup.draft(records, self.user_of(records, cid >> 8), moment, cid)

    def nano_setup(self, records: Records, moment: Moment, cid: int,
                   prepared: NanoSetupDraft | None = None) -> tuple[bytes, Outbox]:
        """Set up a session from an idle wallet; returns hash(nT)."""
        terms_hash, outbox = nano_setup.start(
            records, self.user_of(records, cid >> 8), moment, cid, prepared)
        t_exp = client_session(records, terms_hash).session.terms.t_exp
        margin = moment.parameters.safety_margin
        set_deadline(records, t_exp + margin, Duty.CLOSE, terms_hash)
        set_deadline(records, t_exp + 4 * margin, Duty.CLAIM, terms_hash)
        return terms_hash, outbox

    def nano_offer(self, records: Records, moment: Moment, terms_hash: bytes) -> Outbox:
        """Offer a ready session to the relay at the other end of its circuit."""
        restored.require_current(records, terms_hash)
        return nano_establish.offer(
            records, self.user_of_session(records, terms_hash), moment, terms_hash)

    def nano_pay(self, records: Records, moment: Moment, terms_hash: bytes) -> Outbox:
        """Make one payment."""
        restored.require_current(records, terms_hash)
        return nano_pay.pay(records, moment, terms_hash)

    def nano_close(self, records: Records, terms_hash: bytes) -> Outbox:
        """Start closing a session."""
        return nano_close.start_client(records, terms_hash)

    def open_sessions(self, records: Records) -> list[bytes]:
        """Sessions that can be closed."""
        return [key for key, one in records.scan(Table.SESSION)
                if isinstance(one, ClientSession)
                and one.phase in (ClientPhase.READY, ClientPhase.OFFERED, ClientPhase.ACTIVE)]

    # --- Hidden payments

    def pay_query(self, user: EndUser | None = None) -> Outbox:
        """Ask until when a hidden payment made now is valid; the reply is handled as a note."""
        return [Request(b"pay-terms:" + (user or self.user).key_hash, *pack(PayQuery()))]

    def pay(self, records: Records, moment: Moment, *, cid: int, amount: int, t_p: int
            ) -> tuple[int, Outbox]:
        """Make a hidden payment; returns the payer's lock, which names it."""
        wpk_c, outbox = pay.start_payer(
            records, self.user_of(records, cid >> 8), moment, cid=cid, amount=amount, t_p=t_p)
        set_deadline(records, t_p - 2 * moment.parameters.safety_margin, Duty.PAY,
                     pay.session_key(wpk_c))
        return wpk_c, self._telling(records, moment, wpk_c, outbox)

    def receive(self, records: Records, moment: Moment, cid: int, invoice: PayInvoice) -> Outbox:
        """Join a hidden payment as its payee."""
        outbox = pay.on_invoice(records, self.user_of(records, cid >> 8), moment, cid, invoice)
        if outbox:
            margin = moment.parameters.safety_margin
            set_deadline(records, invoice.t_p - margin - margin // LOOKS, Duty.PAY,
                         pay.session_key(invoice.wpk_c))
        return outbox

    # --- Guard channel

    def open_guard(self, records: Records, deposit: int, payout: GuardPayout) -> Outbox:
        """Open a direct channel to the address that a guard named."""
        return guard.on_payout(records, deposit, payout)

    def guard_voucher(self, records: Records, channel: bytes) -> Outbox:
        """Send the voucher of the current chain."""
        return guard.voucher(records, self._guard_key, self.user.domain, channel)

    def guard_roll_over(self, records: Records, moment: Moment, channel: bytes) -> Outbox:
        """Replace a used-up chain and send its voucher."""
        guard.roll_over(records, moment, channel)
        return self.guard_voucher(records, channel)

    def close_guard(self, records: Records, channel: bytes) -> Outbox:
        """Ask the ledger for the rest of a direct channel."""
        return guard.request_close(records, channel)

    # --- Dispatch

    def user_for(self, records: Records, conversation: bytes) -> EndUser:
        """See `EndUserMachine.user_for`."""
        kind, _, key = conversation.partition(b":")
        if kind == b"pay":
            return self._user_of_payment(records, int.from_bytes(key, "big"))
        if kind == b"pay-terms":
            return self.user_at(key)
        return super().user_for(records, conversation)

    def _user_of_payment(self, records: Records, wpk_c: int) -> EndUser:
        return self.user_of(records, pay.transfer(records, wpk_c).cid >> 8)

    def on_message(self, records: Records, moment: Moment, session: bytes, pcmd: int,
                   payload: bytes) -> Outbox:
        """A message from a relay, the guard, or the other side of a hidden payment."""
        outbox = self._on_message(records, moment, session, unpack(pcmd, payload))
        return outbox + self._answer_notices(records)

    def _on_message(self, records: Records, moment: Moment, session: bytes, message: Any
                    ) -> Outbox:
        match message:
            case NanoAccepted() if message.terms_hash == session:
                return nano_establish.on_accepted(records, message)
            case GuardAccepted() if message.channel == session:
                return guard.on_accepted(records, message)
            case PayVerified() if pay.session_key(message.wpk_c) == session:
                return self._telling(records, moment, message.wpk_c,
                                     pay.on_verified(records, moment, message.wpk_c))
            case PaySecret() if pay.session_key(lock_of(message.wsk)) == session:
                return pay.on_secret(records, moment, message.wsk)
        raise ProtocolError(f"a {type(message).__name__} is not expected here")

    def _on_reply(self, records: Records, moment: Moment, conversation: bytes, message: Any
                  ) -> Outbox:
        kind, _, key = conversation.partition(b":")
        if kind == b"session":
            return self._on_session_reply(records, moment, key, message)
        if kind == b"pay":
            return self._on_pay_reply(records, moment, int.from_bytes(key, "big"), message)
        if kind == b"pay-terms" and isinstance(message, PayTerms):
            return [Done(conversation), Note("pay-terms", str(message.t_p))]
        if isinstance(message, OpenedReply):
            return self._resting(
                records, moment, int.from_bytes(key, "big"),
                lambda: super(Client, self)._on_reply(records, moment, conversation, message))
        return super()._on_reply(records, moment, conversation, message)

    @staticmethod
    def _resting(records: Records, moment: Moment, cid: int, take: Callable[[], Outbox]) -> Outbox:
        """Take a reply; a wallet that is new with it rests before its session."""
        before = wallets.get(records, cid)
        outbox = take()
        after = wallets.get(records, cid)
        if isinstance(after, Idle) and after != before:
            begin_rest(records, moment, cid)
        return outbox

    def _on_session_reply(self, records: Records, moment: Moment, terms_hash: bytes, message: Any
                          ) -> Outbox:
        user = self.user_of_session(records, terms_hash)
        match message:
            case NanoRefundReply():
                return nano_setup.on_refund_reply(records, user, terms_hash, message)
            case Acknowledged():
                return nano_setup.on_acknowledged(records, terms_hash)
            case ClientCloseCount():
                return nano_close.on_count(records, user, terms_hash, message)
            case RefundTokenReply():
                return nano_close.on_client_refund(records, user, terms_hash, message)
            case WalletTokenReply():
                return self._resting(
                    records, moment, client_session(records, terms_hash).session.cid,
                    lambda: nano_close.on_client_wallet(records, user, terms_hash, message))
        raise ProtocolError(f"a {type(message).__name__} does not answer what was asked")

    def _on_pay_reply(self, records: Records, moment: Moment, wpk_c: int, message: Any) -> Outbox:
        payer = pay.transfer(records, wpk_c).payer
        user = self._user_of_payment(records, wpk_c)
        match message:
            case RefundTokenReply() if payer:
                return self._telling(records, moment, wpk_c, pay.on_payer_refund(
                    records, user, moment, wpk_c, message))
            case RefundTokenReply():
                return self._telling(records, moment, wpk_c, pay.on_payee_refund(
                    records, user, moment, wpk_c, message))
            case WalletTokenReply():
                take = pay.on_payer_wallet if payer else pay.on_payee_wallet
                return self._resting(records, moment, pay.transfer(records, wpk_c).cid,
                                     lambda: take(records, user, wpk_c, message))
        raise ProtocolError(f"a {type(message).__name__} does not answer what was asked")

    @staticmethod
    def _telling(records: Records, moment: Moment, wpk_c: int, outbox: Outbox) -> Outbox:
        if any(isinstance(item, Tell) for item in outbox):
            set_deadline(records, moment.now + max(1, moment.parameters.safety_margin // 4),
                         Duty.TELL, pay.session_key(wpk_c))
        return outbox

    def _tell_due(self, records: Records, moment: Moment, deadline: Deadline) -> Outbox:
        current = records.get(Table.PAYMENT, deadline.subject[1:])
        if not isinstance(current, pay.Transfer):
            return []
        return self._telling(records, moment, current.wpk_c,
                             pay.tell_again(records, moment, current.wpk_c))

    def on_refusal(self, records: Records, moment: Moment, conversation: bytes, refusal: Refusal
                   ) -> Outbox:
        """See `EndUserMachine.on_refusal`; some refusals need no claim on the ledger."""
        kind, _, key = conversation.partition(b":")
        if (kind == b"session" and refusal.code is RefusalCode.CLAIM
                and client_session(records, key).phase is ClientPhase.CLOSING):
            # Somebody has proved more payments since the intermediary told the count.
            return nano_close.ask_again(records, key)
        waits = refusal.code is RefusalCode.NOT_YET and refusal.about in MAY_WAIT
        if kind == b"pay" and not waits:
            wpk_c = int.from_bytes(key, "big")
            done: Outbox = [Done(conversation),
                            Note("refused", f"pay: {refusal.code.name.lower()}")]
            if pay.on_refused(records, wpk_c, refusal.code):
                return done
            return done + self.post_claim(records, pay.transfer(records, wpk_c).cid)
        return super().on_refusal(records, moment, conversation, refusal)

    def give_up(self, records: Records, moment: Moment, conversation: bytes, *,
                refused: bool = False) -> Outbox:
        """See `EndUserMachine.give_up`."""
        if not refused and self.waits_for_word(records, conversation):
            return []
        kind, _, key = conversation.partition(b":")
        if kind == b"session":
            current = client_session(records, key)
            if refused and current.phase is ClientPhase.REQUESTED:
                return nano_setup.on_refused(records, key)
            return [Done(conversation), *self.claim_session(records, key)]
        if kind == b"pay":
            wpk_c = int.from_bytes(key, "big")
            if pay.can_wait(records, wpk_c):
                return []
            cid = pay.transfer(records, wpk_c).cid
            return [Done(conversation), *self.post_claim(records, cid)]
        if kind == b"pay-terms":
            return [Done(conversation)]
        return super().give_up(records, moment, conversation, refused=refused)

    def claim_session(self, records: Records, terms_hash: bytes) -> Outbox:
        """Claim a session's channel on the ledger, without the intermediary."""
        current = client_session(records, terms_hash)
        if current.phase in (ClientPhase.CLOSED, ClientPhase.ON_LEDGER):
            return []
        return self.post_claim(records, current.session.cid)

    def _leave(self, records: Records, cid: int) -> Outbox:
        outbox = super()._leave(records, cid)
        for key, one in records.scan(Table.SESSION):
            if isinstance(one, ClientSession) and one.session.cid == cid and one.phase not in (
                    ClientPhase.CLOSED, ClientPhase.ON_LEDGER):
                nano_setup.mark_on_ledger(records, key)
                outbox.append(Done(nano_setup.conversation(key)))
        for _, transfer in records.scan(Table.PAYMENT):
            if isinstance(transfer, pay.Transfer) and transfer.cid == cid and not transfer.done:
                outbox.append(Done(pay.conversation(transfer.wpk_c)))
        return outbox

    def on_ledger(self, records: Records, moment: Moment, event: LedgerEvent) -> Outbox:
        """See `EndUserMachine.on_ledger`; a client also follows its guard channels."""
        match event:
            case GuardOpened():
                return guard.on_opened_client(records, moment, self.guard_account, event)
            case GuardCloseRequested():
                set_deadline(records, event.deadline + 1, Duty.GUARD, event.channel)
                return guard.on_close_requested(records, event)
            case GuardClosed():
                return guard.on_closed(records, event)
        return super().on_ledger(records, moment, event)

    def _on_due(self, records: Records, moment: Moment, deadline: Deadline) -> Outbox:
        match deadline.what:
            case Duty.CLOSE:
                session = records.get(Table.SESSION, deadline.subject)
                if isinstance(session, ClientSession) and session.phase in (
                        ClientPhase.READY, ClientPhase.OFFERED, ClientPhase.ACTIVE):
                    return nano_close.start_client(records, deadline.subject)
            case Duty.CLAIM:
                if isinstance(records.get(Table.SESSION, deadline.subject), ClientSession):
                    return self.claim_session(records, deadline.subject)
            case Duty.PAY:
                return self._pay_due(records, moment, deadline)
            case Duty.TELL:
                return self._tell_due(records, moment, deadline)
            case Duty.GUARD:
                current = records.get(Table.GUARD, deadline.subject)
                if isinstance(current, guard.PaidGuard):
                    calls = guard.close_due(records, tip(records).timestamp, deadline.subject)
                    if not calls:
                        set_deadline(records, moment.now + 1, Duty.GUARD, deadline.subject)
                    return calls
            case _:
                return super()._on_due(records, moment, deadline)
        return []

    def _pay_due(self, records: Records, moment: Moment, deadline: Deadline) -> Outbox:
        current = records.get(Table.PAYMENT, deadline.subject[1:])
        if not isinstance(current, pay.Transfer):
            return []
        wallet = wallets.get(records, current.cid)
        margin = moment.parameters.safety_margin
        if isinstance(wallet, Renewing) and not current.done:
            # The new refund token is there, and the intermediary keeps the wallet token back.
            if moment.now > current.t_p + 2 * margin:
                return self.post_claim(records, current.cid)
            set_deadline(records, current.t_p + 2 * margin + 1, Duty.PAY, deadline.subject)
            return []
        if isinstance(wallet, Voiding) and moment.now > current.t_p + VOID_MARGINS * margin:
            # The intermediary puts the payee off: it has its old refund token still.
            return self.post_claim(records, current.cid)
        if not isinstance(wallet, Paying) or moment.now < current.t_p - 2 * margin:
            # A deadline of an earlier attempt with the same wallet.
            return []
        if pay.can_wait(records, current.wpk_c):
            set_deadline(records, max(moment.now, current.t_p) + 1, Duty.PAY, deadline.subject)
            return []
        if current.payer or wallet.wsk_c != bytes(32):
            # The payer was not told in time, or the payee's claim is not answered: both enforce
            # what they hold while the ledger still takes it.
            return self.post_claim(records, current.cid)
        if tip(records).timestamp <= current.t_p:
            set_deadline(records, moment.now + 1, Duty.PAY, deadline.subject)
            return []
        # After a long absence the intermediary gets some time to answer all the same.
        set_deadline(records, max(current.t_p + VOID_MARGINS * margin,
                                  moment.now + REPOST_MARGINS * margin) + 1,
                     Duty.PAY, deadline.subject)
        return pay.void_payee(
            records, self._user_of_payment(records, current.wpk_c), current.wpk_c)
