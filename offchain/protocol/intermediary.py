# SPDX-License-Identifier: BSD-3-Clause
"""The intermediary's machine: answers requests and stands up for its money on the ledger.

Every request is answered in one transaction of the store. `handle` finds a stored reply first;
only a new request reaches its protocol's check. Put back from a backup it answers none, and only
settles. `on_ledger` and `tick` refute revoked claims,
reveal known payments and resolve channels whose deadline has passed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

from monetor_chain.statements import Role, channel_id, group_id, keccak256

from ..crypto.errors import CryptoError
from . import (
    answering,
    cash_out,
    establish,
    nano_close,
    nano_establish,
    nano_setup,
    old_locks,
    pay,
    pruning,
)
from .answering import SPEND, Answer, Intermediary
from .claims import Verdicts
from .codec import B32, U64, U248
from .errors import ProtocolError, RefusalCode, Refused
from .ledger import (
    Block,
    ClaimKind,
    CloseRequested,
    Funded,
    GroupClosed,
    LedgerEvent,
    Opened,
    PayerRevealed,
    Reclaimed,
    RefundPosted,
    Refuted,
    RequestClose,
    Resolve,
    Resolved,
    Revealed,
)
from .messages import (
    CashOutRequest,
    ClientCloseQuery,
    ClientCloseRequest,
    ClientCloseReveal,
    EstablishRequest,
    GroupReply,
    GroupRequest,
    NanoEstablishRequest,
    NanoEstablishReveal,
    NanoSetupRequest,
    NanoSetupReveal,
    OpenedRequest,
    PayeeClaim,
    PayeeRequest,
    PayeeReveal,
    PayeeVoid,
    PayerRequest,
    PayerReveal,
    PayQuery,
    Refusal,
    RelayCloseRequest,
    RelayCloseReveal,
    pack,
    unpack,
)
from .moment import Moment, advance, tip
from .outbox import Outbox, Submit
from .records import Records, Table, key248, record
from .sessions import Deadline, Session, due, session, set_deadline, subject_of
from .wallet import Proved

Handler = Callable[[Records, Intermediary, Moment, Any], Answer]
KeyOf = Callable[[Any], bytes]


def _by_nonce(message: Any) -> bytes:
    return key248(message.nonce)


def _by_terms(message: Any) -> bytes:
    found: bytes = message.terms_hash
    return found


def _by_cid(message: Any) -> bytes:
    return key248(message.cid)


_STEPS: dict[type[Any], tuple[str, KeyOf | None, Handler]] = {
    GroupRequest: ("group", lambda m: m.rho_e, establish.answer_group),
    EstablishRequest: ("establish", _by_cid, establish.answer_establish),
    OpenedRequest: ("opened", _by_cid, establish.answer_opened),
    NanoSetupRequest: (SPEND, _by_nonce, nano_setup.answer_setup),
    NanoSetupReveal: ("setup-reveal", _by_nonce, nano_setup.answer_setup_reveal),
    NanoEstablishRequest: (SPEND, _by_nonce, nano_establish.answer_establish),
    NanoEstablishReveal: ("establish-reveal", _by_nonce, nano_establish.answer_establish_reveal),
    RelayCloseRequest: ("relay-close", _by_terms, nano_close.answer_relay_close),
    RelayCloseReveal: ("relay-reveal", _by_terms, nano_close.answer_relay_reveal),
    ClientCloseQuery: ("client-query", None, nano_close.answer_client_query),
    ClientCloseRequest: ("client-close", _by_terms, nano_close.answer_client_close),
    ClientCloseReveal: ("client-reveal", _by_terms, nano_close.answer_client_reveal),
    PayQuery: ("pay-query", None, pay.answer_query),
    PayerRequest: (SPEND, _by_nonce, pay.answer_payer),
    PayeeRequest: (SPEND, _by_nonce, pay.answer_payee),
    PayerReveal: ("payer-reveal", _by_nonce, pay.answer_payer_reveal),
    PayeeClaim: ("payee-claim", _by_nonce, pay.answer_payee_claim),
    PayeeReveal: ("payee-reveal", _by_nonce, pay.answer_payee_reveal),
    PayeeVoid: ("payee-void", _by_nonce, pay.answer_void),
    CashOutRequest: ("cash-out", None, cash_out.answer),
}
"""Message → (step, what the reply is bound to, handler). Without a key nothing is stored."""


_TIMED = frozenset((
    NanoSetupRequest, NanoEstablishRequest, RelayCloseRequest, ClientCloseQuery,
    ClientCloseRequest, PayerRequest, PayeeRequest, PayeeVoid))
"""What is judged by the ledger as it stands, its time and the locks posted on it: not answered by
an intermediary that has not heard of it for a safety margin."""


class Duty(IntEnum):
    """What a deadline reminds the intermediary of."""

    RESOLVE = 1
    PRUNE_SESSION = 2
    PRUNE_LEG = 3
    PRUNE_WAITING = 4
    PRUNE_GROUP = 5


@record
@dataclass(frozen=True, slots=True)
class PostedClaim:
    """A claim on one of the intermediary's channels; `terms_hash` is zero unless in a session,
    `lock` unless a lock was posted."""

    terms_hash: B32
    deadline: U64
    lock: U248


class IntermediaryMachine:
    """The intermediary's machine; it holds no state but its keys."""

    def __init__(self, me: Intermediary) -> None:
        self.me = me

    def handle(self, records: Records, moment: Moment, pcmd: int, payload: bytes,
               verdicts: Verdicts | None = None) -> tuple[tuple[int, bytes], Outbox]:
        """The reply to a request, and the outbox.

        Raises `ProtocolError` (`Refused` with its code) when the request is refused and nothing
        may be stored; `refusal` turns that into the message to send. With `verdicts` it verifies
        no proof of its own and raises `Unverified` where a verdict is missing.
        """
        me = self.me if verdicts is None else replace(self.me, verdicts=verdicts)
        if old_locks.restored(records) is not None:
            # It may have forgotten what it answered, which wallets are spent and which locks
            # revoked: any answer could be a second one to the same question.
            raise Refused(RefusalCode.STATE, "put back from a backup, it only settles")
        message = unpack(pcmd, payload)
        step = _STEPS.get(type(message))
        if step is None:
            raise ProtocolError(f"a {type(message).__name__} is no request")
        name, key_of, handler = step
        if key_of is not None:
            stored = answering.stored_answer(records, name, key_of(message), pcmd, payload)
            if stored is not None:
                return stored, []
        elif name == "cash-out":
            key_of = lambda _: keccak256(payload)  # noqa: E731 - the whole request is the key
            stored = answering.stored_answer(records, name, key_of(message), pcmd, payload)
            if stored is not None:
                return stored, []
        if isinstance(message, GroupRequest | EstablishRequest) and pruning.is_retiring(records):
            # One that was answered before gets its answer: the channel may be open, and its owner
            # back from a backup.
            raise Refused(RefusalCode.STATE, "this key takes no new channels")
        if type(message) in _TIMED and (
                moment.now - tip(records).timestamp > moment.parameters.safety_margin):
            raise Refused(RefusalCode.NOT_YET, "the latest confirmed block is too old")
        try:
            answer = handler(records, me, moment, message)
        except CryptoError as error:
            raise Refused(RefusalCode.PROOF, str(error)) from error
        self._schedule(records, moment, message, answer.reply)
        if answer.reply is None:
            return pack(Refusal(answer.refusal, pcmd)), answer.outbox
        reply = pack(answer.reply)
        if key_of is not None:
            answering.store_answer(records, name, key_of(message), (pcmd, payload), reply)
        if isinstance(message, CashOutRequest):
            pruning.note_cashed_out(records, message.group, keccak256(payload))
        return reply, answer.outbox

    def _schedule(self, records: Records, moment: Moment, message: Any, reply: Any) -> None:
        """Say when what a request has left behind may be forgotten."""
        match message:
            case GroupRequest() if isinstance(reply, GroupReply):
                group = group_id(
                    self.me.ctx, message.account, self.me.address, message.role, message.deposit,
                    message.fund, message.count, message.rho_e, reply.rho_i)
                set_deadline(records, moment.now + moment.parameters.close_notice,
                             Duty.PRUNE_GROUP, subject_of(group))
            case NanoSetupRequest():
                terms_hash = message.terms.nano_terms().hash()
                pruning.note_spent(records, terms_hash, message.nonce)
                pruning.keep_session_until(records, moment, session(records, terms_hash),
                                           Duty.PRUNE_SESSION)
            case NanoEstablishRequest():
                pruning.note_spent(records, message.terms_hash, message.nonce)
            case PayerRequest() | PayeeRequest():
                joined = records.get(Table.NONCE, key248(message.nonce))
                if isinstance(joined, pay.JoinedLeg):
                    pruning.keep_leg_until(records, moment, joined.leg, Duty.PRUNE_LEG)
                else:
                    set_deadline(records, message.t_p + moment.parameters.safety_margin,
                                 Duty.PRUNE_WAITING, bytes(32))

    @staticmethod
    def refusal(error: ProtocolError, pcmd: int) -> tuple[int, bytes]:
        """The message that tells a peer its request is refused."""
        return pack(Refusal.of(error, pcmd & 0xFF))

    # --- Commands

    def retire(self, records: Records) -> None:
        """Take no new channels under this key any more; those there are are served to their end."""
        pruning.retire(records)

    def request_close(self, records: Records, cid: int) -> Outbox:
        """Ask the owner of a channel to close it, for one that is not heard of any more.

        The owner has the channel's notice time to post its claim; then everything is ours.
        """
        if establish.find_group(records, cid >> 8) is None or (
                cash_out.gone(records, cid >> 8) >> (cid & 0xFF) & 1):
            raise ProtocolError("the channel is not open")
        return [Submit(b"request-close:" + key248(cid), RequestClose(cid))]

    # --- Ledger

    def on_ledger(self, records: Records, moment: Moment, event: LedgerEvent) -> Outbox:
        """Follow the ledger; events come in chain order, before the `Block` that confirms them."""
        match event:
            case Block():
                advance(records, event)
                if old_locks.restored(records) is None:
                    # Out of a backup it does not know which channels are open besides.
                    pruning.move_horizon(records)
            case Opened() if old_locks.restored(records) is None and not pruning.is_retiring(
                    records):
                return establish.fund_opened(records, moment, event)
            case Funded():
                self._on_funded(records, event)
            case Reclaimed():
                return establish.on_reclaimed(records, event)
            case CloseRequested() if establish.find_group(records, event.cid >> 8) is not None:
                self._watch(records, moment, event.cid, PostedClaim(bytes(32), event.deadline, 0))
            case RefundPosted():
                return self._on_posted(records, moment, event)
            case PayerRevealed():
                return answering.learn_secret(records, event.secret)
            case Revealed():
                self._on_revealed(records, event)
            case Resolved() | Refuted():
                return self._on_resolved(records, event.cid)
            case GroupClosed():
                return self._on_group_closed(records, event)
        return []

    def _on_funded(self, records: Records, event: Funded) -> None:
        group = establish.find_group(records, event.group)
        if group is None or group.phase is establish.GroupPhase.OPEN:
            return
        records.put(Table.GROUP, establish.group_key(event.group),
                    replace(group, phase=establish.GroupPhase.OPEN))
        pay.count_window(records, group.dispute_window, group.count)
        pruning.note_open(records, group.group)

    def _on_posted(self, records: Records, moment: Moment, event: RefundPosted) -> Outbox:
        group = establish.find_group(records, event.cid >> 8)
        if group is None:
            return []
        cash_out.mark_gone(records, group.group, 1 << (event.cid & 0xFF))
        self._watch(records, moment, event.cid,
                    PostedClaim(event.terms_hash, event.deadline, event.lock))
        outbox = answering.mark_posted(records, event.lock, event.cid)
        session = records.get(Table.SESSION, event.terms_hash)
        if event.kind is ClaimKind.NANO and isinstance(session, Session):
            outbox += nano_close.reveal_best(records, event.terms_hash, session)
        return outbox

    @staticmethod
    def _watch(records: Records, moment: Moment, cid: int, claim: PostedClaim) -> None:
        records.put(Table.CHANNEL, b"posted:" + key248(cid), claim)
        set_deadline(records, claim.deadline + 1 + moment.parameters.safety_margin, Duty.RESOLVE,
                     subject_of(cid))

    def _on_revealed(self, records: Records, event: Revealed) -> None:
        session = records.get(Table.SESSION, event.terms_hash)
        if isinstance(session, Session):
            ledger = (Proved(event.k_c, event.hc, event.path) if event.k_c > session.ledger.k
                      else session.ledger)
            records.put(Table.SESSION, event.terms_hash, replace(
                session, ledger=ledger, ledger_k_r=max(session.ledger_k_r, event.k_r)))
        else:
            records.put(Table.CHAIN_HEAD, nano_setup.revealed_key(event.terms_hash),
                        nano_setup.NonceUse(event.terms_hash))

    def _on_resolved(self, records: Records, cid: int) -> Outbox:
        group = establish.find_group(records, cid >> 8)
        if group is None:
            return []
        cash_out.mark_gone(records, group.group, 1 << (cid & 0xFF))
        pay.count_window(records, group.dispute_window, -1)
        posted = self._forget_claim(records, cid)
        if posted is not None:
            session = records.get(Table.SESSION, posted.terms_hash)
            if isinstance(session, Session) and group.role is Role.RELAY:
                records.put(Table.SESSION, posted.terms_hash,
                            replace(session, relay_resolved=True))
        return pruning.on_paid_out(records, group, 1 << (cid & 0xFF))

    @staticmethod
    def _forget_claim(records: Records, cid: int) -> PostedClaim | None:
        key = b"posted:" + key248(cid)
        posted = records.get(Table.CHANNEL, key)
        if not isinstance(posted, PostedClaim):
            return None
        records.delete(Table.CHANNEL, key)
        answering.forget_posted(records, posted.lock, cid)
        return posted

    def _on_group_closed(self, records: Records, event: GroupClosed) -> Outbox:
        group = establish.find_group(records, event.group)
        if group is None:
            return []
        cash_out.mark_gone(records, group.group, event.channels)
        pay.count_window(records, group.dispute_window, -event.channels.bit_count())
        for index in range(group.count):
            if event.channels >> index & 1:
                # Nothing is left to resolve of a claim that the close has overtaken.
                self._forget_claim(records, channel_id(group.group, index))
        return pruning.on_paid_out(records, group, event.channels)

    # --- Time

    def tick(self, records: Records, moment: Moment) -> Outbox:
        """Resolve channels whose deadline has passed and whose owner has not done so; forget what
        can never matter again."""
        outbox: Outbox = []
        # Out of a backup it does not know what has been opened, or joined, since.
        forgets = old_locks.restored(records) is None
        for deadline in due(records, moment.now):
            match deadline.what:
                case Duty.RESOLVE:
                    outbox += self._resolve_due(records, moment, deadline)
                case _ if not forgets:
                    continue
                case Duty.PRUNE_SESSION:
                    outbox += pruning.session_due(records, moment, deadline)
                case Duty.PRUNE_LEG:
                    outbox += pruning.leg_due(records, moment, deadline)
                case Duty.PRUNE_GROUP:
                    outbox += pruning.group_due(records, moment, deadline)
                case Duty.PRUNE_WAITING:
                    pruning.waiting_due(records, moment)
        return outbox

    @staticmethod
    def _resolve_due(records: Records, moment: Moment, deadline: Deadline) -> Outbox:
        cid = int.from_bytes(deadline.subject[1:], "big")
        posted = records.get(Table.CHANNEL, b"posted:" + key248(cid))
        if not isinstance(posted, PostedClaim):
            return []
        if tip(records).timestamp <= posted.deadline:
            set_deadline(records, moment.now + 1, Duty.RESOLVE, deadline.subject)
            return []
        return [Submit(b"resolve:" + key248(cid), Resolve(cid))]
