# SPDX-License-Identifier: BSD-3-Clause
"""Pay: a hidden micropayment between two client wallets through the intermediary.

The intermediary learns neither the amount nor the channels. Its use here is to break the link
between a channel's sessions and its cash-out (the paper's footnote 7). Steps: both requests → rt'
to the payer, a conditional crt' to the payee → the payee confirms → the payer reveals wsk_C to the
payee, then to the intermediary → the payee trades wsk_C for an unconditional rt', reveals its own
wsk, and both get new wallets. Until T_p the payee can enforce crt' on the ledger with wsk_C.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace

from monetor_chain.statements import GROUP_ORDER, Role, TokenKind, keccak256, lock_of, tag

from ..crypto.issuer import unblind
from ..crypto.pay import (
    PayStatement,
    prove_pay_payee,
    prove_pay_payer,
    verify_pay_payee,
    verify_pay_payer,
)
from ..crypto.proofs import TokenRequest
from ..crypto.reissue import VoidPayment, prove_reissue, verify_reissue
from . import answering, wallet as wallets
from .answering import Answer, Intermediary
from .codec import B32, G1, G2, U8, U64, U248, Scalar
from .errors import ProtocolError, RefusalCode, Refused
from .establish import group_of, refund_token, wallet_token
from .messages import (
    PayeeClaim,
    PayeeRequest,
    PayeeReveal,
    PayeeVoid,
    PayerRequest,
    PayerReveal,
    PayInvoice,
    PayQuery,
    PaySecret,
    PayTerms,
    PayVerified,
    RefundTokenReply,
    WalletTokenReply,
    pack,
)
from .moment import Moment, tip
from .outbox import Done, Note, Outbox, Request, Tell
from .records import Records, Table, key248, record
from .wallet import NO_TOKEN, EndUser, Next, Paying, Renewing, Voiding

_UNKNOWN = bytes(32)


@record
@dataclass(frozen=True, slots=True)
class Transfer:
    """One end user's side of a hidden payment, under the payer's lock.

    `t` is the blinding of the K that the request showed; the payee needs it if the payment turns
    out void.
    """

    cid: U248
    payer: bool
    amount: U64
    s: Scalar
    t_p: U64
    wpk_c: U248
    t: Scalar
    verified: bool = False
    secret: B32 = _UNKNOWN
    """wsk_C at the payer once it is committed to be revealed."""
    done: bool = False
    """The wallet that the payment leads to is there."""


def _key(wpk_c: int) -> bytes:
    return key248(wpk_c)


def session_key(wpk_c: int) -> bytes:
    """The name under which the two sides of a hidden payment reach each other."""
    return b"\x01" + key248(wpk_c)


def conversation(wpk_c: int) -> bytes:
    """The conversation of a hidden payment."""
    return b"pay:" + key248(wpk_c)


def transfer(records: Records, wpk_c: int) -> Transfer:
    """This user's side of the payment; `ProtocolError` if it has none."""
    found = records.get(Table.PAYMENT, _key(wpk_c))
    if not isinstance(found, Transfer):
        raise ProtocolError("no such hidden payment")
    return found


def _void_payment(ctx: bytes, nonce: int, t_p: int, wpk_c: int) -> VoidPayment:
    return VoidPayment(tag(TokenKind.PAYMENT, Role.CLIENT, ctx), nonce, t_p, wpk_c)


def _paying(records: Records, cid: int) -> Paying:
    wallet = wallets.get(records, cid)
    if not isinstance(wallet, Paying):
        raise ProtocolError("the channel has no hidden payment under way")
    return wallet


def _require_near(records: Records, moment: Moment, cid: int, t_p: int) -> None:
    """`ProtocolError` if T_p is later than this user's own dispute window allows.

    The intermediary's limit is the smallest window of all; without one here it could bind a wallet
    to a payment for as long as it likes. Judged by the clock: the parties' latest blocks differ.
    """
    now = max(moment.now, tip(records).timestamp)
    if t_p > now + group_of(records, cid).dispute_window - moment.parameters.safety_margin:
        raise ProtocolError("the payment's deadline is later than the channel's window allows")


# --- Payer ---------------------------------------------------------------------------------------


def start_payer(records: Records, user: EndUser, moment: Moment, *, cid: int, amount: int,
                t_p: int) -> tuple[int, Outbox]:
    """Pay `amount` base units out of the idle wallet of `cid`, valid until T_p.

    Returns the payer's lock, which names the payment, and the outbox: the request, and the
    invoice that tells the payee what to join.
    """
    idle = wallets.spendable(records, cid)
    fee = moment.parameters.pay_fee
    if not 0 <= amount <= idle.balance - fee:
        raise ProtocolError(f"the wallet holds {idle.balance} units, too few for {amount} and "
                            f"the fee of {fee}")
    if moment.now >= t_p - 2 * moment.parameters.safety_margin:
        raise ProtocolError("the payment's deadline is too near")
    _require_near(records, moment, cid, t_p)
    s = secrets.randbelow(GROUP_ORDER - 1) + 1
    nonce, wsk = wallets.fresh_nonce(), wallets.fresh_secret()
    statement, proof, hidden = prove_pay_payer(
        user.issuer, user.ctx, token=idle.pt, tag=tag(TokenKind.PAYMENT, user.role, user.ctx),
        cid=cid, nonce=idle.nonce, wpk=idle.wpk, balance=idle.balance, amount=amount, s=s,
        pay_fee=fee, wpk_new=lock_of(wsk), nonce_new=nonce, payment_deadline=t_p)
    new = Next(cid, nonce, wsk, idle.balance - amount - fee, hidden.t_rt, hidden.t_pt)
    wallets.put(records, cid, Paying(idle, new, NO_TOKEN, idle.wpk, t_p, _UNKNOWN))
    current = Transfer(cid, True, amount, s, t_p, idle.wpk, hidden.t)
    records.put(Table.PAYMENT, _key(idle.wpk), current)
    request = PayerRequest(idle.nonce, idle.wpk, t_p, statement.sigma, statement.k, statement.v,
                           statement.d_rt, statement.d_pt, proof)
    return idle.wpk, [Request(conversation(idle.wpk), *pack(request)), _invoice(current)]


def on_payer_refund(records: Records, user: EndUser, moment: Moment, wpk_c: int,
                    reply: RefundTokenReply) -> Outbox:
    """rt'_C: verified, it waits for the payee's word before it replaces the old token."""
    current = transfer(records, wpk_c)
    wallet = _paying(records, current.cid)
    if wallet.conditional != NO_TOKEN:
        return []
    rt = refund_token(user, wallet.next, reply.rt)
    wallets.put(records, current.cid, replace(wallet, conditional=rt))
    return [Done(conversation(wpk_c))] + _reveal_when_agreed(records, moment, wpk_c)


def on_verified(records: Records, moment: Moment, wpk_c: int) -> Outbox:
    """The payee holds a conditional refund token that verifies."""
    current = transfer(records, wpk_c)
    records.put(Table.PAYMENT, _key(wpk_c), replace(current, verified=True))
    return _reveal_when_agreed(records, moment, wpk_c)


def _reveal_when_agreed(records: Records, moment: Moment, wpk_c: int) -> Outbox:
    current = transfer(records, wpk_c)
    wallet = wallets.get(records, current.cid)
    if not isinstance(wallet, Paying) or wallet.conditional == NO_TOKEN or not current.verified:
        return []
    if moment.now >= current.t_p - 2 * moment.parameters.safety_margin:
        return [Note("payment-late", "the payer keeps its old refund token")]
    wallets.put(records, current.cid, Renewing(wallet.next, wallet.conditional))
    records.put(Table.PAYMENT, _key(wpk_c), replace(current, secret=wallet.idle.wsk))
    return [
        *tell_secret(records, moment, wpk_c),
        Request(conversation(wpk_c), *pack(PayerReveal(wallet.idle.nonce, wallet.idle.wsk))),
    ]


def tell_again(records: Records, moment: Moment, wpk_c: int) -> Outbox:
    """What the other side has to know and may not have heard: the invoice, "crt verified", wsk_C.

    A word to a peer is lost with its circuit or with a process; each is said again while it can
    still move the payment on.
    """
    current = transfer(records, wpk_c)
    wallet = wallets.get(records, current.cid)
    if current.secret != _UNKNOWN:
        return tell_secret(records, moment, wpk_c)
    if (not isinstance(wallet, Paying) or wallet.wsk_c != _UNKNOWN
            or moment.now >= current.t_p - 2 * moment.parameters.safety_margin):
        return []
    if current.payer and wallet.conditional == NO_TOKEN:
        return [_invoice(current)]
    if not current.payer and wallet.conditional != NO_TOKEN:
        return [Tell(session_key(wpk_c), *pack(PayVerified(wpk_c)))]
    # The payer waits for the payee's word, or the payee for the intermediary's.
    return []


def _invoice(current: Transfer) -> Tell:
    return Tell(session_key(current.wpk_c), *pack(PayInvoice(
        current.amount, current.s, current.t_p, current.wpk_c)))


def tell_secret(records: Records, moment: Moment, wpk_c: int) -> Outbox:
    """Tell the payee wsk_C, while it can still make use of it.

    Were it lost, the intermediary, which hears the secret too, would keep the amount: so it is
    said again until T_p − μ.
    """
    current = transfer(records, wpk_c)
    if (current.secret == _UNKNOWN
            or moment.now >= current.t_p - moment.parameters.safety_margin):
        return []
    return [Tell(session_key(wpk_c), *pack(PaySecret(current.secret)))]


def on_payer_wallet(records: Records, user: EndUser, wpk_c: int, reply: WalletTokenReply
                    ) -> Outbox:
    """pt'_C: the payer's wallet is idle again."""
    current = transfer(records, wpk_c)
    wallet = wallets.get(records, current.cid)
    if not isinstance(wallet, Renewing):
        return [Done(conversation(wpk_c))]
    wallets.put(records, current.cid,
                wallets.renewed(wallet, wallet_token(user, wallet.next, reply.pt)))
    records.put(Table.PAYMENT, _key(wpk_c), replace(current, done=True))
    return [Done(conversation(wpk_c)), Note("payment-made", "hidden")]


# --- Payee ---------------------------------------------------------------------------------------


def on_invoice(records: Records, user: EndUser, moment: Moment, cid: int, invoice: PayInvoice
               ) -> Outbox:
    """Join a hidden payment with the idle wallet of `cid`; an invoice said again changes nothing.
    """
    known = records.get(Table.PAYMENT, _key(invoice.wpk_c))
    if isinstance(known, Transfer) and not known.payer and (
            known.amount, known.s, known.t_p) == (invoice.amount, invoice.s, invoice.t_p):
        return []
    idle = wallets.spendable(records, cid)
    group = group_of(records, cid)
    if idle.balance + invoice.amount > group.deposit + group.fund:
        raise ProtocolError("the payee's channel has no room for the payment")
    if moment.now >= invoice.t_p - 2 * moment.parameters.safety_margin:
        raise ProtocolError("the payment's deadline is too near")
    _require_near(records, moment, cid, invoice.t_p)
    if idle.wpk == invoice.wpk_c:
        raise ProtocolError("a wallet cannot pay itself")
    if known is not None:
        raise ProtocolError("a payment with this lock is known here already")
    nonce, wsk = wallets.fresh_nonce(), wallets.fresh_secret()
    statement, proof, hidden = prove_pay_payee(
        user.issuer, user.ctx, token=idle.pt, tag=tag(TokenKind.PAYMENT, user.role, user.ctx),
        cid=cid, nonce=idle.nonce, wpk=idle.wpk, balance=idle.balance, amount=invoice.amount,
        s=invoice.s, wpk_new=lock_of(wsk), nonce_new=nonce, payment_deadline=invoice.t_p,
        wpk_payer=invoice.wpk_c)
    new = Next(cid, nonce, wsk, idle.balance + invoice.amount, hidden.t_rt, hidden.t_pt)
    wallets.put(records, cid, Paying(idle, new, NO_TOKEN, invoice.wpk_c, invoice.t_p, _UNKNOWN))
    records.put(Table.PAYMENT, _key(invoice.wpk_c), Transfer(
        cid, False, invoice.amount, invoice.s, invoice.t_p, invoice.wpk_c, hidden.t))
    return [Request(conversation(invoice.wpk_c), *pack(PayeeRequest(
        idle.nonce, idle.wpk, invoice.t_p, invoice.wpk_c, statement.sigma, statement.k,
        statement.v, statement.d_rt, statement.d_pt, proof)))]


def on_payee_refund(records: Records, user: EndUser, moment: Moment, wpk_c: int,
                    reply: RefundTokenReply) -> Outbox:
    """First crt'_R, later the unconditional rt'_R, told apart by whether wsk_C is known; or, if
    the payment became void, the refund token over the old balance."""
    current = transfer(records, wpk_c)
    wallet = wallets.get(records, current.cid)
    if isinstance(wallet, Voiding):
        rt = refund_token(user, wallet.next, reply.rt)
        wallets.put(records, current.cid, Renewing(wallet.next, rt))
        return [Request(conversation(wpk_c), *pack(
            PayeeReveal(wallet.idle.nonce, wallet.idle.wsk)))]
    if isinstance(wallet, Renewing):
        return []
    if not isinstance(wallet, Paying):
        return [Done(conversation(wpk_c))]
    if wallet.wsk_c == _UNKNOWN:
        if wallet.conditional != NO_TOKEN:
            return []
        crt_tag = tag(TokenKind.CONDITIONAL_REFUND, user.role, user.ctx, wpk_c, current.t_p)
        crt = unblind(user.issuer, reply.rt, wallet.next.t_rt, tag=crt_tag, cid=current.cid,
                      nonce=0, wpk=lock_of(wallet.next.wsk), balance=wallet.next.balance)
        wallets.put(records, current.cid, replace(wallet, conditional=crt))
        return [Done(conversation(wpk_c)), Tell(session_key(wpk_c), *pack(PayVerified(wpk_c)))]
    rt = refund_token(user, wallet.next, reply.rt)
    wallets.put(records, current.cid, Renewing(wallet.next, rt))
    return [Request(conversation(wpk_c), *pack(PayeeReveal(wallet.idle.nonce, wallet.idle.wsk)))]


def on_secret(records: Records, moment: Moment, secret: bytes) -> Outbox:
    """wsk_C: the payment is received if crt' is verified and it is early enough to enforce."""
    wpk_c = lock_of(secret)
    current = transfer(records, wpk_c)
    wallet = wallets.get(records, current.cid)
    if not current.payer and (current.done or isinstance(wallet, Renewing) or (
            isinstance(wallet, Paying) and wallet.wsk_c == secret)):
        return []
    if current.payer or not isinstance(wallet, Paying) or wallet.conditional == NO_TOKEN:
        raise ProtocolError("the payment's conditional refund token is not verified")
    if moment.now >= current.t_p - moment.parameters.safety_margin:
        raise ProtocolError("the payer's secret comes too late")
    wallets.put(records, current.cid, replace(wallet, wsk_c=secret))
    return [Request(conversation(wpk_c), *pack(PayeeClaim(wallet.idle.nonce, secret))),
            Note("payment-received", "hidden")]


def on_payee_wallet(records: Records, user: EndUser, wpk_c: int, reply: WalletTokenReply
                    ) -> Outbox:
    """pt'_R: the payee's wallet is idle again, with the payment."""
    current = transfer(records, wpk_c)
    wallet = wallets.get(records, current.cid)
    if not isinstance(wallet, Renewing):
        return [Done(conversation(wpk_c))]
    wallets.put(records, current.cid,
                wallets.renewed(wallet, wallet_token(user, wallet.next, reply.pt)))
    records.put(Table.PAYMENT, _key(wpk_c), replace(current, done=True))
    return [Done(conversation(wpk_c))]


def void_payee(records: Records, user: EndUser, wpk_c: int) -> Outbox:
    """T_p has passed and wsk_C never came: trade the old wallet for a new one of equal balance."""
    current = transfer(records, wpk_c)
    wallet = _paying(records, current.cid)
    if current.payer or wallet.wsk_c != _UNKNOWN or tip(records).timestamp <= current.t_p:
        raise ProtocolError("the payment is not void")
    nonce, wsk = wallets.fresh_nonce(), wallets.fresh_secret()
    request, proof, blinding = prove_reissue(
        user.issuer, user.ctx, t=current.t, cid=current.cid, balance=wallet.idle.balance,
        wpk_new=lock_of(wsk), nonce_new=nonce, role=user.role,
        void=_void_payment(user.ctx, wallet.idle.nonce, current.t_p, wpk_c))
    wallets.put(records, current.cid, Voiding(wallet.idle, Next(
        current.cid, nonce, wsk, wallet.idle.balance, blinding.t_rt, blinding.t_pt)))
    return [Request(conversation(wpk_c), *pack(PayeeVoid(
        wallet.idle.nonce, request.d_rt, request.d_pt, proof))), Note("payment-void", "hidden")]


def on_refused(records: Records, wpk_c: int, code: RefusalCode) -> bool:
    """Make the wallet idle again if the refused request can have led to nothing; whether it did.

    Neither side's secret has left before it holds a new token, so the old refund token stands, and
    a nonce that the intermediary marked all the same is refused before a secret is asked for. A
    wallet that it calls spent is of no use any more: its refund token is all that it is worth.
    """
    if code is RefusalCode.REUSED:
        return False
    current = transfer(records, wpk_c)
    wallet = wallets.get(records, current.cid)
    never_joined = isinstance(wallet, Voiding) and code is RefusalCode.UNKNOWN
    if isinstance(wallet, Voiding | Paying) and (
            never_joined or isinstance(wallet, Paying) and wallet.conditional == NO_TOKEN):
        wallets.put(records, current.cid, replace(wallet.idle, shown=True))
        records.delete(Table.PAYMENT, _key(wpk_c))
        return True
    return False


def can_wait(records: Records, wpk_c: int) -> bool:
    """Whether this is a payer without rt'_C before T_p: it has revealed nothing, and as long as
    its wallet may still be unspent there is no need to lose the channel over a payee that never
    came or an intermediary that is slow."""
    current = transfer(records, wpk_c)
    wallet = wallets.get(records, current.cid)
    return (current.payer and isinstance(wallet, Paying) and wallet.conditional == NO_TOKEN
            and tip(records).timestamp <= current.t_p)


# --- Intermediary --------------------------------------------------------------------------------


@record
@dataclass(frozen=True, slots=True)
class PendingLeg:
    """A verified leg that waits for the other one of the same V."""

    nonce: U248
    wpk: U248
    t_p: U64
    wpk_c: U248
    k: G1
    d_rt: G2
    d_pt: G2
    request: B32
    """Hash of the request that was verified: no other is answered once the leg is joined."""


@record
@dataclass(frozen=True, slots=True)
class JoinedLeg:
    """A leg of a payment whose both nonces are marked, under its nonce."""

    leg: PendingLeg
    payer: bool
    state: U8


JOINED, CLAIMED, DONE, VOIDING = 1, 2, 3, 4


@record
@dataclass(frozen=True, slots=True)
class WindowCount:
    """How many unresolved channels have this dispute window (seconds, in the key)."""

    channels: U64


def count_window(records: Records, window: int, change: int) -> None:
    """Keep track of the dispute windows of unresolved channels."""
    key = b"window:" + window.to_bytes(8, "big")
    found = records.get(Table.META, key)
    number = (found.channels if isinstance(found, WindowCount) else 0) + change
    if number > 0:
        records.put(Table.META, key, WindowCount(number))
    else:
        records.delete(Table.META, key)


def smallest_window(records: Records) -> int:
    """Δ_min over the intermediary's unresolved channels; 0 if there is none."""
    for key, _ in records.scan(Table.META, b"window:", b"window;"):
        return int.from_bytes(key.removeprefix(b"window:"), "big")
    return 0


def latest_deadline(records: Records, moment: Moment) -> int:
    """The latest T_p that is safe now: a token posted after this block resolves only after it."""
    window = smallest_window(records)
    if window < 4 * moment.parameters.safety_margin:
        raise Refused(RefusalCode.STATE, "the dispute windows are too short for hidden payments")
    return tip(records).timestamp + window - moment.parameters.safety_margin


def answer_query(records: Records, me: Intermediary, moment: Moment, message: PayQuery) -> Answer:
    """Until when would a payment requested now be valid?"""
    return Answer(PayTerms(latest_deadline(records, moment)))


def answer_payer(records: Records, me: Intermediary, moment: Moment, message: PayerRequest
                 ) -> Answer:
    """The payer's leg; answered with rt'_C once the payee's leg is there."""
    leg = PendingLeg(message.nonce, message.wpk, message.t_p, message.wpk, message.k,
                     message.d_rt, message.d_pt, keccak256(pack(message)[1]))
    if _joined_already(records, leg, payer=True):
        return _answer_leg(me, leg, payer=True)
    _require_leg(records, moment, leg)
    statement = PayStatement(sigma=message.sigma, k=message.k, v=message.v, d_rt=message.d_rt,
                             d_pt=message.d_pt)
    me.require_proof(
        verify_pay_payer, me.ctx, statement, message.proof,
        tag=tag(TokenKind.PAYMENT, Role.CLIENT, me.ctx), nonce=message.nonce, wpk=message.wpk,
        pay_fee=moment.parameters.pay_fee, payment_deadline=message.t_p)
    return _join(records, me, message.v, leg, payer=True)


def answer_payee(records: Records, me: Intermediary, moment: Moment, message: PayeeRequest
                 ) -> Answer:
    """The payee's leg; answered with crt'_R once the payer's leg is there."""
    leg = PendingLeg(message.nonce, message.wpk, message.t_p, message.wpk_c, message.k,
                     message.d_rt, message.d_pt, keccak256(pack(message)[1]))
    if _joined_already(records, leg, payer=False):
        return _answer_leg(me, leg, payer=False)
    _require_leg(records, moment, leg)
    statement = PayStatement(sigma=message.sigma, k=message.k, v=message.v, d_rt=message.d_rt,
                             d_pt=message.d_pt)
    me.require_proof(
        verify_pay_payee, me.ctx, statement, message.proof,
        tag=tag(TokenKind.PAYMENT, Role.CLIENT, me.ctx), nonce=message.nonce, wpk=message.wpk,
        payment_deadline=message.t_p, wpk_payer=message.wpk_c)
    return _join(records, me, message.v, leg, payer=False)


def _joined_already(records: Records, leg: PendingLeg, *, payer: bool) -> bool:
    """Whether this very leg was verified and joined before; `Refused` if its nonce was spent
    otherwise. A joined leg is not judged again: what the network charges may have changed since.
    """
    joined = records.get(Table.NONCE, key248(leg.nonce))
    if isinstance(joined, JoinedLeg) and joined.leg == leg and joined.payer is payer:
        return True
    if joined is not None:
        raise Refused(RefusalCode.REUSED, "the wallet is spent")
    return False


def _require_leg(records: Records, moment: Moment, leg: PendingLeg) -> None:
    if leg.nonce == 0:
        raise Refused(RefusalCode.MALFORMED, "a wallet token has a nonce above 0")
    answering.require_live(records, leg.wpk, "wpk")
    answering.require_unspent(records, leg.nonce)
    if leg.t_p > latest_deadline(records, moment):
        raise Refused(RefusalCode.TERMS, "T_p is later than the locks allow")
    if tip(records).timestamp >= leg.t_p - 2 * moment.parameters.safety_margin:
        raise Refused(RefusalCode.TOO_LATE, "T_p is too near")


def _join(records: Records, me: Intermediary, v: bytes, leg: PendingLeg, *, payer: bool
          ) -> Answer:
    own, other = (b"payer:", b"payee:") if payer else (b"payee:", b"payer:")
    partner = records.get(Table.CHANNEL, b"pay:" + other + v)
    if not isinstance(partner, PendingLeg):
        # Waiting marks nothing: the nonce is spent only when both legs are.
        records.put(Table.CHANNEL, b"pay:" + own + v, leg)
        return Answer(None, refusal=RefusalCode.NOT_YET)
    _mark_both(records, leg if payer else partner, partner if payer else leg)
    records.delete(Table.CHANNEL, b"pay:" + other + v)
    return _answer_leg(me, leg, payer=payer)


def _answer_leg(me: Intermediary, leg: PendingLeg, *, payer: bool) -> Answer:
    if payer:
        new_tag = tag(TokenKind.REFUND, Role.CLIENT, me.ctx)
    else:
        new_tag = tag(TokenKind.CONDITIONAL_REFUND, Role.CLIENT, me.ctx, leg.wpk_c, leg.t_p)
    return Answer(RefundTokenReply(me.issuer.blind_sign(leg.d_rt, tag=new_tag)))


def _mark_both(records: Records, payer: PendingLeg, payee: PendingLeg) -> None:
    if payer.nonce == payee.nonce:
        raise Refused(RefusalCode.REUSED, "both legs show the same wallet")
    # From here on the fault may be the other leg's: `REUSED` would say that this wallet is dead.
    if payer.wpk == payee.wpk:
        raise Refused(RefusalCode.TERMS, "both legs show the same lock")
    if payee.wpk_c != payer.wpk or payee.t_p != payer.t_p:
        raise Refused(RefusalCode.TERMS, "the two legs do not agree on the payer or on T_p")
    for leg in (payer, payee):
        answering.require_live(records, leg.wpk, "wpk")
        if answering.is_spent(records, leg.nonce):
            raise Refused(RefusalCode.STATE, "the other leg's wallet is spent")
    for leg, is_payer in ((payer, True), (payee, False)):
        answering.take(records, leg.wpk)
        records.put(Table.NONCE, key248(leg.nonce), JoinedLeg(leg, is_payer, JOINED))


def _joined(records: Records, nonce: int, *, payer: bool) -> JoinedLeg:
    found = records.get(Table.NONCE, key248(nonce))
    if not isinstance(found, JoinedLeg) or found.payer is not payer:
        raise Refused(RefusalCode.UNKNOWN, "no payment was made with this wallet")
    return found


def _move(records: Records, joined: JoinedLeg, state: int) -> None:
    records.put(Table.NONCE, key248(joined.leg.nonce), replace(joined, state=state))


def answer_payer_reveal(records: Records, me: Intermediary, moment: Moment, message: PayerReveal
                        ) -> Answer:
    """wsk_C from the payer; answered with pt'_C."""
    joined = _joined(records, message.nonce, payer=True)
    if joined.state != JOINED:
        raise Refused(RefusalCode.STATE, "the payer's leg is finished")
    refuting = _take_payer_secret(records, message.wsk, joined.leg.wpk)
    if refuting is not None:
        return Answer(None, refuting)
    _move(records, joined, DONE)
    return Answer(WalletTokenReply(me.issuer.blind_sign(
        joined.leg.d_pt, tag=tag(TokenKind.PAYMENT, Role.CLIENT, me.ctx))))


def _take_payer_secret(records: Records, secret: bytes, lock: int) -> Outbox | None:
    """wsk_C can come from payer, payee or ledger; the first time revokes, later ones agree.

    As `accept_secret` otherwise: an outbox, and no answer, if the lock is on the ledger.
    """
    state = answering.lock_state(records, lock)
    if state.revoked and not state.posted and lock_of(secret) == lock:
        return None
    return answering.accept_secret(records, secret, lock, "wpk_C")


def answer_payee_claim(records: Records, me: Intermediary, moment: Moment, message: PayeeClaim
                       ) -> Answer:
    """wsk_C from the payee; answered with the unconditional rt'_R."""
    joined = _joined(records, message.nonce, payer=False)
    if joined.state != JOINED:
        raise Refused(RefusalCode.STATE, "the payee's leg is finished")
    refuting = _take_payer_secret(records, message.wsk_c, joined.leg.wpk_c)
    if refuting is not None:
        return Answer(None, refuting)
    _move(records, joined, CLAIMED)
    return Answer(RefundTokenReply(me.issuer.blind_sign(
        joined.leg.d_rt, tag=tag(TokenKind.REFUND, Role.CLIENT, me.ctx))))


def answer_payee_reveal(records: Records, me: Intermediary, moment: Moment, message: PayeeReveal
                        ) -> Answer:
    """wsk_R; answered with pt'_R."""
    joined = _joined(records, message.nonce, payer=False)
    if joined.state not in (CLAIMED, VOIDING):
        raise Refused(RefusalCode.STATE, "the payee holds no new refund token, or is finished")
    refuting = answering.accept_secret(records, message.wsk, joined.leg.wpk, "wpk_R")
    if refuting is not None:
        return Answer(None, refuting)
    _move(records, joined, DONE)
    return Answer(WalletTokenReply(me.issuer.blind_sign(
        joined.leg.d_pt, tag=tag(TokenKind.PAYMENT, Role.CLIENT, me.ctx))))


def answer_void(records: Records, me: Intermediary, moment: Moment, message: PayeeVoid) -> Answer:
    """T_p has passed without wsk_C: a new wallet over the payee's old balance.

    The payee reveals the old wallet's secret only against this refund token: were both asked for
    at once, an intermediary that took the secret and fell silent could refute its only claim.
    """
    joined = _joined(records, message.nonce, payer=False)
    if joined.state != JOINED:
        raise Refused(RefusalCode.STATE, "the payee's leg is finished")
    if tip(records).timestamp <= joined.leg.t_p:
        raise Refused(RefusalCode.NOT_YET, "T_p has not passed")
    if answering.lock_state(records, joined.leg.wpk_c).revoked:
        raise Refused(RefusalCode.STATE, "the payment was made: claim it with wsk_C")
    answering.require_live(records, joined.leg.wpk, "wpk_R")
    me.require_proof(
        verify_reissue, me.ctx, TokenRequest(message.d_rt, message.d_pt), message.proof,
        k=joined.leg.k, role=Role.CLIENT,
        void=_void_payment(me.ctx, joined.leg.nonce, joined.leg.t_p, joined.leg.wpk_c))
    leg = replace(joined.leg, d_rt=message.d_rt, d_pt=message.d_pt)
    _move(records, replace(joined, leg=leg), VOIDING)
    return Answer(RefundTokenReply(me.issuer.blind_sign(
        message.d_rt, tag=tag(TokenKind.REFUND, Role.CLIENT, me.ctx))))
