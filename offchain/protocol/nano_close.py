# SPDX-License-Identifier: BSD-3-Clause
"""Nano-Close (algorithm 5): the relay closes first and fixes k, then the client follows.

Relay: k, its proof and blind requests for the new wallet → rt' → nwsk_R → pt'. Client: asks for
k*, then the same. A leg's nwsk is revealed only once rt', which replaces nrt, is verified and
stored.
"""

from __future__ import annotations

import hmac
from dataclasses import replace

from monetor_chain.statements import Role, TokenKind, lock_of, tag

from ..crypto.generators import commit
from ..crypto.hash_chain import verify_claim
from ..crypto.nano_close import prove_nano_close, verify_nano_close
from ..crypto.proofs import TokenRequest
from . import answering, old_locks, wallet as wallets
from .answering import Answer, Intermediary
from .errors import ProtocolError, RefusalCode, Refused
from .establish import ChannelRequest, refund_token, wallet_token
from .ledger import Reveal
from .messages import (
    ClientCloseCount,
    ClientCloseQuery,
    ClientCloseRequest,
    ClientCloseReveal,
    RefundTokenReply,
    RelayCloseRequest,
    RelayCloseReveal,
    Terms,
    WalletTokenReply,
    pack,
)
from .moment import Moment, tip
from .nano_pay import chain_of
from .nano_setup import conversation
from .outbox import Done, Note, Outbox, Request, Submit
from .records import Records, Table, key248
from .sessions import (
    ClientPhase,
    Leg,
    Phase,
    RelayPhase,
    Session,
    client_session,
    relay_session,
    session,
)
from .wallet import (
    Closing,
    EndUser,
    EndUserSession,
    InSession,
    Next,
    Proved,
    Renewing,
    proved,
)


def client_balance(saturated: int, terms: Terms, k: int) -> int:
    """B' of a client that made k payments: B_full + price · (n − k)."""
    return saturated - terms.delta_c * (terms.n - k)


def relay_balance(saturated: int, terms: Terms, k: int) -> int:
    """B' of a relay that received k payments: B_full − δ_R · (n − k)."""
    return saturated - terms.delta_r * (terms.n - k)


def _request(user: EndUser, current: EndUserSession, k: int, balance: int
             ) -> tuple[Next, TokenRequest, bytes]:
    nonce, wsk = wallets.fresh_nonce(), wallets.fresh_secret()
    request, proof, blinding = prove_nano_close(
        user.issuer, user.ctx, role=user.role, cid=current.cid, saturated=current.saturated,
        rho=current.rho, commitment=commit(current.cid, current.saturated, current.rho),
        adjustment=balance - current.saturated, wpk_new=lock_of(wsk), nonce_new=nonce,
        terms_hash=current.terms.nano_terms().hash(), k=k)
    return Next(current.cid, nonce, wsk, balance, blinding.t_rt, blinding.t_pt), request, proof


def _replaced(records: Records, user: EndUser, cid: int, rt_blind: bytes) -> None:
    wallet = wallets.get(records, cid)
    if not isinstance(wallet, Closing):
        raise ProtocolError("the channel is not closing a session")
    rt = refund_token(user, wallet.next, rt_blind)
    wallets.put(records, cid, Renewing(wallet.next, rt))


def _renewed(records: Records, user: EndUser, cid: int, pt_blind: bytes) -> int:
    wallet = wallets.get(records, cid)
    if not isinstance(wallet, Renewing):
        raise ProtocolError("the channel awaits no wallet token")
    pt = wallet_token(user, wallet.next, pt_blind)
    wallets.put(records, cid, wallets.renewed(wallet, pt))
    return wallet.next.balance


# --- Relay ---------------------------------------------------------------------------------------


def start_relay(records: Records, user: EndUser, terms_hash: bytes) -> Outbox:
    """Close an established session at the number of payments received."""
    current = relay_session(records, terms_hash)
    if current.phase is not RelayPhase.ACTIVE:
        raise ProtocolError(f"a session that is {current.phase.name.lower()} cannot be closed")
    best = proved(records, terms_hash)
    balance = relay_balance(current.session.saturated, current.session.terms, best.k)
    new, request, proof = _request(user, current.session, best.k, balance)
    wallets.put(records, new.cid, Closing(new.cid, terms_hash, new))
    records.put(Table.SESSION, terms_hash, replace(current, phase=RelayPhase.CLOSING))
    return [Request(conversation(terms_hash), *pack(RelayCloseRequest(
        terms_hash, best.k, best.hc, best.path, request.d_rt, request.d_pt, proof)))]


def on_relay_refund(records: Records, user: EndUser, terms_hash: bytes, reply: RefundTokenReply
                    ) -> Outbox:
    """rt' replaces nrt: now the session may be revoked."""
    current = relay_session(records, terms_hash)
    if current.phase is not RelayPhase.CLOSING:
        return []
    _replaced(records, user, current.session.cid, reply.rt)
    records.put(Table.SESSION, terms_hash, replace(current, phase=RelayPhase.REVOKED))
    return [Request(conversation(terms_hash), *pack(RelayCloseReveal(
        terms_hash, current.session.nwsk)))]


def on_relay_wallet(records: Records, user: EndUser, terms_hash: bytes, reply: WalletTokenReply
                    ) -> Outbox:
    """The relay's wallet is idle again, with its earnings."""
    current = relay_session(records, terms_hash)
    if current.phase is not RelayPhase.REVOKED:
        return []
    balance = _renewed(records, user, current.session.cid, reply.pt)
    records.put(Table.SESSION, terms_hash, replace(current, phase=RelayPhase.CLOSED))
    return [Done(conversation(terms_hash)), Note("session-closed", f"balance {balance}")]


# --- Client --------------------------------------------------------------------------------------


def start_client(records: Records, terms_hash: bytes) -> Outbox:
    """Ask at how many payments the session closes."""
    current = client_session(records, terms_hash)
    if current.phase not in (ClientPhase.READY, ClientPhase.OFFERED, ClientPhase.ACTIVE):
        raise ProtocolError(f"a session that is {current.phase.name.lower()} cannot be closed")
    records.put(Table.SESSION, terms_hash, replace(current, phase=ClientPhase.QUERYING))
    return [Request(conversation(terms_hash), *pack(ClientCloseQuery(
        terms_hash, lock_of(current.session.nwsk))))]


def on_count(records: Records, user: EndUser, terms_hash: bytes, reply: ClientCloseCount
             ) -> Outbox:
    """k* must be proved, and not more than was sent.

    A session out of a backup may have paid more since: then the preimage, which nobody but its
    owner had, is the proof that it did.
    """
    current = client_session(records, terms_hash)
    if current.phase is not ClientPhase.QUERYING:
        return []
    terms = current.session.terms
    if reply.k > (terms.n if old_locks.is_old_secret(records, current.session.nwsk)
                  else current.sent):
        raise ProtocolError(f"the intermediary counts {reply.k} payments, {current.sent} were sent")
    if reply.k and chain_of(current.seed, terms.n).value(reply.k) != reply.hc:
        raise ProtocolError("the intermediary's preimage is not of this session's chain")
    balance = client_balance(current.session.saturated, terms, reply.k)
    new, request, proof = _request(user, current.session, reply.k, balance)
    wallets.put(records, new.cid, Closing(new.cid, terms_hash, new))
    records.put(Table.SESSION, terms_hash, replace(
        current, phase=ClientPhase.CLOSING, sent=max(current.sent, reply.k)))
    return [Request(conversation(terms_hash), *pack(ClientCloseRequest(
        terms_hash, reply.k, request.d_rt, request.d_pt, proof)))]


def ask_again(records: Records, terms_hash: bytes) -> Outbox:
    """The count has changed since it was told, and nothing was signed: ask for it once more."""
    current = client_session(records, terms_hash)
    wallets.put(records, current.session.cid, InSession(current.session.cid, terms_hash))
    records.put(Table.SESSION, terms_hash, replace(current, phase=ClientPhase.QUERYING))
    return [Request(conversation(terms_hash), *pack(ClientCloseQuery(
        terms_hash, lock_of(current.session.nwsk))))]


def on_client_refund(records: Records, user: EndUser, terms_hash: bytes, reply: RefundTokenReply
                     ) -> Outbox:
    """rt' replaces nrt: now the session may be revoked."""
    current = client_session(records, terms_hash)
    if current.phase is not ClientPhase.CLOSING:
        return []
    _replaced(records, user, current.session.cid, reply.rt)
    records.put(Table.SESSION, terms_hash, replace(current, phase=ClientPhase.REVOKED))
    return [Request(conversation(terms_hash), *pack(ClientCloseReveal(
        terms_hash, current.session.nwsk)))]


def on_client_wallet(records: Records, user: EndUser, terms_hash: bytes, reply: WalletTokenReply
                     ) -> Outbox:
    """The client's wallet is idle again, with what it did not spend."""
    current = client_session(records, terms_hash)
    if current.phase is not ClientPhase.REVOKED:
        return []
    balance = _renewed(records, user, current.session.cid, reply.pt)
    records.put(Table.SESSION, terms_hash, replace(current, phase=ClientPhase.CLOSED))
    return [Done(conversation(terms_hash)), Note("session-closed", f"balance {balance}")]


# --- Intermediary: relay leg ---------------------------------------------------------------------


def answer_relay_close(records: Records, me: Intermediary, moment: Moment,
                       message: RelayCloseRequest) -> Answer:
    """Freeze k and sign the relay's next refund token."""
    current = session(records, message.terms_hash)
    terms = current.terms
    if current.phase is not Phase.ESTABLISHED:
        raise Refused(RefusalCode.STATE, "the session is not established")
    answering.require_live(records, current.nwpk_r, "nwpk_R")
    if not verify_claim(n=terms.n, hc0=terms.hc0, root=terms.root, k=message.k, hc=message.hc,
                        path=message.path):
        raise Refused(RefusalCode.CLAIM, f"{message.k} payments are not proved")
    late = tip(records).timestamp >= terms.t_exp - moment.parameters.safety_margin
    if late and message.k != max(current.best.k, current.ledger_k_r):
        # Late, only what the ledger binds the client's leg to as well. Until T_exp the relay can
        # still put its count there.
        expired = tip(records).timestamp > terms.t_exp
        raise Refused(RefusalCode.TOO_LATE if expired else RefusalCode.NOT_YET,
                      "after T_exp − μ a session closes only at the count on the ledger")
    _verify_close(me, Role.RELAY, current.commitment_r, message.d_rt, message.d_pt, message.proof,
                  -terms.delta_r * (terms.n - message.k), message.terms_hash, message.k)
    closing = replace(current, phase=Phase.RELAY_CLOSING,
                      best=Proved(message.k, message.hc, message.path))
    records.put(Table.SESSION, message.terms_hash, closing)
    _keep_request(records, message.terms_hash, Role.RELAY, message.d_pt)
    reply = RefundTokenReply(me.issuer.blind_sign(
        message.d_rt, tag=tag(TokenKind.REFUND, Role.RELAY, me.ctx)))
    return Answer(reply, reveal_best(records, message.terms_hash, closing))


def reveal_best(records: Records, terms_hash: bytes, current: Session) -> Outbox:
    """Put the best count on the ledger if the client has claimed its leg there with less.

    A client that claims must be charged what its relay is paid, whichever of the two comes first.
    """
    best = current.best
    if best.k <= current.ledger.k or not answering.lock_state(records, current.nwpk_c).posted:
        return []
    return [Submit(b"reveal:" + terms_hash, Reveal(current.terms, best.k, best.hc, best.path))]


def answer_relay_reveal(records: Records, me: Intermediary, moment: Moment,
                        message: RelayCloseReveal) -> Answer:
    """nwsk_R revokes the relay leg; its next wallet token follows."""
    current = session(records, message.terms_hash)
    if current.phase is not Phase.RELAY_CLOSING:
        raise Refused(RefusalCode.STATE, "the relay leg is not closing")
    refuting = answering.accept_secret(records, message.nwsk, current.nwpk_r, "nwpk_R")
    if refuting is not None:
        return Answer(None, refuting)
    records.put(Table.SESSION, message.terms_hash, replace(current, phase=Phase.RELAY_CLOSED))
    return Answer(WalletTokenReply(_issue_wallet(records, me, message.terms_hash, Role.RELAY)))


# --- Intermediary: client leg --------------------------------------------------------------------


def closing_count(records: Records, current: Session) -> Proved:
    """k*: the most payments that the intermediary or the ledger knows of.

    `Refused` while the relay could still claim more: the client's leg closes only after the
    relay's has, on or off chain, or after T_exp; a session without a relay is void.
    """
    if current.client_leg is Leg.CLOSED:
        raise Refused(RefusalCode.STATE, "the client leg is closed")
    answering.require_live(records, current.nwpk_c, "nwpk_C")
    expired = tip(records).timestamp > current.terms.t_exp
    if current.phase is Phase.SETTING_UP:
        raise Refused(RefusalCode.STATE, "the wallet behind the session is not revoked")
    settled = (current.phase in (Phase.SETUP, Phase.VOID, Phase.RELAY_CLOSED)
               or current.relay_resolved or expired)
    if not settled:
        raise Refused(RefusalCode.NOT_YET, "the relay has not closed the session yet")
    return max(current.best, current.ledger, key=lambda one: one.k)


def answer_client_query(records: Records, me: Intermediary, moment: Moment,
                        message: ClientCloseQuery) -> Answer:
    """Tell the client k*; a session without a relay becomes void, so that none can join."""
    current = session(records, message.terms_hash)
    if not hmac.compare_digest(key248(message.nwpk), key248(current.nwpk_c)):
        raise Refused(RefusalCode.UNKNOWN, "no session has these terms and this lock")
    best = closing_count(records, current)
    if current.phase is Phase.SETUP:
        records.put(Table.SESSION, message.terms_hash, replace(current, phase=Phase.VOID))
    return Answer(ClientCloseCount(best.k, best.hc, best.path))


def answer_client_close(records: Records, me: Intermediary, moment: Moment,
                        message: ClientCloseRequest) -> Answer:
    """Sign the client's next refund token at k*, which this answer freezes."""
    current = session(records, message.terms_hash)
    if current.client_leg is not Leg.OPEN:
        raise Refused(RefusalCode.STATE, "the client leg is not open")
    best = closing_count(records, current)
    if current.phase is Phase.SETUP:
        raise Refused(RefusalCode.STATE, "ask for the count first")
    if message.k != best.k:
        raise Refused(RefusalCode.CLAIM, f"the session closes at {best.k} payments")
    terms = current.terms
    _verify_close(me, Role.CLIENT, current.commitment_c, message.d_rt, message.d_pt, message.proof,
                  -terms.delta_c * (terms.n - message.k), message.terms_hash, message.k)
    records.put(Table.SESSION, message.terms_hash, replace(current, client_leg=Leg.CLOSING))
    _keep_request(records, message.terms_hash, Role.CLIENT, message.d_pt)
    return Answer(RefundTokenReply(me.issuer.blind_sign(
        message.d_rt, tag=tag(TokenKind.REFUND, Role.CLIENT, me.ctx))))


def answer_client_reveal(records: Records, me: Intermediary, moment: Moment,
                         message: ClientCloseReveal) -> Answer:
    """nwsk_C revokes the client leg; its next wallet token follows."""
    current = session(records, message.terms_hash)
    if current.client_leg is not Leg.CLOSING:
        raise Refused(RefusalCode.STATE, "the client leg is not closing")
    refuting = answering.accept_secret(records, message.nwsk, current.nwpk_c, "nwpk_C")
    if refuting is not None:
        return Answer(None, refuting)
    records.put(Table.SESSION, message.terms_hash, replace(current, client_leg=Leg.CLOSED))
    return Answer(WalletTokenReply(_issue_wallet(records, me, message.terms_hash, Role.CLIENT)))


def _verify_close(me: Intermediary, role: Role, commitment: bytes, d_rt: bytes, d_pt: bytes,
                  proof: bytes, adjustment: int, terms_hash: bytes, k: int) -> None:
    me.require_proof(
        verify_nano_close, me.ctx, TokenRequest(d_rt, d_pt), proof, role=role,
        commitment=commitment, adjustment=adjustment, terms_hash=terms_hash, k=k)


def _keep_request(records: Records, terms_hash: bytes, role: Role, d_pt: bytes) -> None:
    records.put(Table.CHANNEL, b"close:" + bytes([role]) + terms_hash, ChannelRequest(d_pt))


def _issue_wallet(records: Records, me: Intermediary, terms_hash: bytes, role: Role) -> bytes:
    request = records.get(Table.CHANNEL, b"close:" + bytes([role]) + terms_hash)
    if not isinstance(request, ChannelRequest):
        raise Refused(RefusalCode.UNKNOWN, "no close of this leg was requested")
    return me.issuer.blind_sign(request.d_pt, tag=tag(TokenKind.PAYMENT, role, me.ctx))
