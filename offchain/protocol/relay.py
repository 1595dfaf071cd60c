# SPDX-License-Identifier: BSD-3-Clause
"""The relay's machine: sessions it is paid in, and, for a guard, its direct channels."""

from __future__ import annotations

from typing import Any

from . import (
    establish,
    guard,
    nano_close,
    nano_establish,
    nano_pay,
    nano_setup,
    restored,
    wallet as wallets,
)
from .end_user import LOOKS, Duty, EndUserMachine
from .errors import ProtocolError
from .ledger import (
    GuardClaimed,
    GuardClosed,
    GuardCloseRequested,
    GuardOpened,
    LedgerEvent,
    Reveal,
    Revealed,
)
from .messages import (
    Acknowledged,
    GuardPayment,
    GuardPayout,
    GuardVoucher,
    NanoOffer,
    NanoPayment,
    NanoRefundReply,
    RefundTokenReply,
    WalletTokenReply,
    pack,
)
from .moment import Moment, tip
from .outbox import Done, Note, Outbox, Submit, Tell
from .records import Records, Table
from .sessions import Deadline, RelayPhase, RelaySession, relay_session, set_deadline
from .wallet import EndUser, Idle, Next, Proved, proved


class Relay(EndUserMachine):
    """One relay's machine."""

    # --- Sessions

    def idle_channel(self, records: Records, user: EndUser | None = None) -> int | None:
        """A channel at `user`'s intermediary that can take up a session, the one with the most
        room first."""
        wanted, closing = user or self.user, set(wallets.noticed(records))
        idle = [one for one in wallets.all_wallets(records) if isinstance(one, Idle)
                and one.cid not in closing and self.user_of(records, one.cid >> 8) is wanted]
        return max(idle, key=lambda one: self.room(records, one)).cid if idle else None

    def room(self, records: Records, wallet: Idle | Next) -> int:
        """How many base units the channel of an idle wallet, or one to come, can still earn."""
        group = establish.group_of(records, wallet.cid)
        return nano_establish.relay_cap(group, self.user.tax_rate_bp) - wallet.balance

    def on_offer(self, records: Records, moment: Moment, message: NanoOffer
                 ) -> tuple[bytes, Outbox]:
        """Take up an offered session with an idle channel; returns hash(nT)."""
        user = self.user_at(message.intermediary)
        cid = self.idle_channel(records, user)
        if cid is None:
            raise ProtocolError("every channel of this relay is in a session")
        terms_hash, outbox = nano_establish.on_offer(records, user, moment, cid, message)
        margin = moment.parameters.safety_margin
        t_exp = message.terms.t_exp
        set_deadline(records, t_exp - 2 * margin, Duty.CLOSE, terms_hash)
        set_deadline(records, t_exp - margin - margin // LOOKS, Duty.REVEAL, terms_hash)
        set_deadline(records, t_exp + 2 * margin, Duty.CLAIM, terms_hash)
        return terms_hash, outbox

    def on_payment(self, records: Records, moment: Moment, terms_hash: bytes,
                   message: NanoPayment) -> Proved:
        """Accept one payment."""
        return nano_pay.on_payment(records, moment, terms_hash, message)

    def nano_close(self, records: Records, terms_hash: bytes) -> Outbox:
        """Start closing a session; nothing happens if it is not active.

        One out of a backup may have been paid more since, and a watcher may hold the proof: it is
        closed after T_exp, at what the ledger knows by then.
        """
        session = relay_session(records, terms_hash)
        if session.phase is not RelayPhase.ACTIVE or (
                restored.is_old_session(records, terms_hash)
                and tip(records).timestamp <= session.session.terms.t_exp):
            return []
        return nano_close.start_relay(
            records, self.user_of_session(records, terms_hash), terms_hash)

    def active_sessions(self, records: Records) -> list[bytes]:
        """Sessions that take payments."""
        return [key for key, one in records.scan(Table.SESSION)
                if isinstance(one, RelaySession) and one.phase is RelayPhase.ACTIVE]

    # --- Guard channels

    def name_payout(self, records: Records, session: bytes, payout: bytes, key: bytes) -> Outbox:
        """Name a fresh payout address (and keep its key) to the client on `session`'s link."""
        guard.remember_payout(records, payout, key)
        return [Tell(session, *pack(GuardPayout(payout)))]

    def on_voucher(self, records: Records, moment: Moment, message: GuardVoucher) -> Outbox:
        """Take a client's voucher; what it will have paid is claimed before it expires."""
        outbox = guard.on_voucher(records, self.user.domain, moment, message)
        set_deadline(records, message.expiry - 2 * moment.parameters.safety_margin, Duty.GUARD,
                     message.channel)
        return outbox

    def on_guard_payment(self, records: Records, moment: Moment, channel: bytes,
                         message: GuardPayment) -> int:
        """Accept one payment on a direct channel; returns the number received in all."""
        return guard.on_guard_payment(records, moment, channel, message)

    def claim_guard(self, records: Records, channel: bytes) -> Outbox:
        """Claim what a direct channel has paid."""
        return guard.claim_guard(records, channel)

    # --- Dispatch

    def _on_reply(self, records: Records, moment: Moment, conversation: bytes, message: Any
                  ) -> Outbox:
        kind, _, key = conversation.partition(b":")
        if kind != b"session":
            return super()._on_reply(records, moment, conversation, message)
        user = self.user_of_session(records, key)
        match message:
            case NanoRefundReply():
                return nano_establish.on_refund_reply(records, user, key, message)
            case Acknowledged():
                return nano_establish.on_acknowledged(records, key)
            case RefundTokenReply():
                return nano_close.on_relay_refund(records, user, key, message)
            case WalletTokenReply():
                return nano_close.on_relay_wallet(records, user, key, message)
        raise ProtocolError(f"a {type(message).__name__} does not answer what was asked")

    def give_up(self, records: Records, moment: Moment, conversation: bytes, *,
                refused: bool = False) -> Outbox:
        """See `EndUserMachine.give_up`."""
        if not refused and self.waits_for_word(records, conversation):
            return []
        kind, _, key = conversation.partition(b":")
        if kind != b"session":
            return super().give_up(records, moment, conversation, refused=refused)
        current = relay_session(records, key)
        if refused and current.phase is RelayPhase.REQUESTED:
            return nano_establish.on_refused(records, key)
        return [Done(conversation), *self.claim_session(records, key)]

    def claim_session(self, records: Records, terms_hash: bytes) -> Outbox:
        """Claim a session's channel on the ledger, without the intermediary."""
        current = relay_session(records, terms_hash)
        if current.phase in (RelayPhase.CLOSED, RelayPhase.ON_LEDGER):
            return []
        return self.post_claim(records, current.session.cid)

    def _leave(self, records: Records, cid: int) -> Outbox:
        # A payment taken after the claim would be one that the claim does not cover.
        outbox = super()._leave(records, cid)
        for key, one in records.scan(Table.SESSION):
            if isinstance(one, RelaySession) and one.session.cid == cid and one.phase not in (
                    RelayPhase.CLOSED, RelayPhase.ON_LEDGER):
                records.put(Table.SESSION, key, RelaySession(one.session, RelayPhase.ON_LEDGER))
                outbox.append(Done(nano_setup.conversation(key)))
        return outbox

    def on_ledger(self, records: Records, moment: Moment, event: LedgerEvent) -> Outbox:
        """See `EndUserMachine.on_ledger`; a guard also follows its direct channels."""
        match event:
            case Revealed():
                self._on_revealed(records, event)
                return []
            case GuardOpened():
                return guard.on_opened_guard(records, event)
            case GuardClaimed():
                return guard.on_claimed(records, event)
            case GuardCloseRequested():
                return guard.on_close_requested_guard(records, event)
            case GuardClosed():
                return guard.on_closed(records, event)
        return super().on_ledger(records, moment, event)

    @staticmethod
    def _on_revealed(records: Records, event: Revealed) -> None:
        """The ledger proves more payments of a session than this relay can: one out of a backup,
        or whose client reveals what it has not paid. A late close is at the ledger's count only.

        What is proved after the relay has asked for its close was not paid to it: the count of the
        close stands.
        """
        best = proved(records, event.terms_hash)
        session = records.get(Table.SESSION, event.terms_hash)
        if (event.k_r == event.k_c > best.k and isinstance(session, RelaySession)
                and session.phase is RelayPhase.ACTIVE):
            records.put(Table.PAYMENT, event.terms_hash,
                        Proved(event.k_r, event.hc, event.path))

    def _on_due(self, records: Records, moment: Moment, deadline: Deadline) -> Outbox:
        if deadline.what == Duty.GUARD:
            current = records.get(Table.GUARD, deadline.subject)
            return (guard.claim_guard(records, deadline.subject)
                    if isinstance(current, guard.EarningGuard) else [])
        session = records.get(Table.SESSION, deadline.subject)
        if not isinstance(session, RelaySession):
            return super()._on_due(records, moment, deadline)
        match deadline.what:
            case Duty.CLOSE if session.phase is RelayPhase.ACTIVE:
                started = self.nano_close(records, deadline.subject)
                if not started:
                    set_deadline(records, max(moment.now, session.session.terms.t_exp) + 1,
                                 Duty.CLOSE, deadline.subject)
                return started
            case Duty.REVEAL if session.phase in (RelayPhase.ACTIVE, RelayPhase.CLOSING):
                best = proved(records, deadline.subject)
                if best.k == 0:
                    return []
                # The intermediary has not answered: with k on the ledger the channel survives.
                return [Submit(b"reveal:" + deadline.subject, Reveal(
                            session.session.terms, best.k, best.hc, best.path)),
                        Note("revealed", f"{best.k} payments")]
            case Duty.CLAIM:
                return self.claim_session(records, deadline.subject)
        return []
