# SPDX-License-Identifier: BSD-3-Clause
"""Nano-Establish (algorithm 3): a relay puts its wallet behind a session that a client offers.

C→R nT; R→I nonce, com, nwpk, N, proof; I→R nrt; R→I wsk and opening; I→R ack; R→C ack. The client
pays only after the last of these.
"""

from __future__ import annotations

from dataclasses import replace

from monetor_chain.statements import Role, TokenKind, lock_of, tag

from ..crypto.nano_establish import EstablishStatement, prove_nano_establish, verify_nano_establish
from . import answering, wallet as wallets
from .answering import Answer, Intermediary
from .errors import ProtocolError, RefusalCode, Refused
from .establish import Group, group_of
from .messages import (
    Acknowledged,
    NanoAccepted,
    NanoEstablishRequest,
    NanoEstablishReveal,
    NanoOffer,
    NanoRefundReply,
    Terms,
    pack,
)
from .moment import Moment, expiry, tip
from .nano_setup import (
    NonceUse,
    SpentWallet,
    conversation,
    open_wallet_lock,
    session_of_nonce,
    spent_wallet,
)
from .outbox import Done, Note, Outbox, Request, Tell
from .records import Records, Table, key248
from .sessions import (
    ClientPhase,
    Phase,
    RelayPhase,
    RelaySession,
    client_session,
    nano_refund_digest,
    relay_session,
    require_nano_refund,
    session,
    sign_nano_refund,
)
from .wallet import NO_SIGNATURE, NOTHING, EndUser, EndUserSession, InSession, Spending

BASIS_POINTS = 10_000


def relay_cap(group: Group, tax_rate_bp: int) -> int:
    """The most a relay's channel pays out: deposit + floor(fund / (1 + τ)); τ in basis points."""
    return group.deposit + group.fund * BASIS_POINTS // (BASIS_POINTS + tax_rate_bp)


# --- Client --------------------------------------------------------------------------------------


def offer(records: Records, user: EndUser, moment: Moment, terms_hash: bytes) -> Outbox:
    """Offer a session that is set up to the relay on whose circuit it will be paid."""
    current = client_session(records, terms_hash)
    if current.phase is not ClientPhase.READY:
        raise ProtocolError(f"the session is {current.phase.name.lower()}, not ready to offer")
    if moment.now >= current.session.terms.t_exp - 2 * moment.parameters.safety_margin:
        raise ProtocolError("the session is too near its expiry to be offered")
    records.put(Table.SESSION, terms_hash, replace(current, phase=ClientPhase.OFFERED))
    return [Tell(terms_hash, *pack(NanoOffer(current.session.terms, user.key_hash)))]


def on_accepted(records: Records, message: NanoAccepted) -> Outbox:
    """The relay is bound to the session: payments may flow."""
    current = client_session(records, message.terms_hash)
    if current.phase is not ClientPhase.OFFERED:
        return []
    records.put(Table.SESSION, message.terms_hash, replace(current, phase=ClientPhase.ACTIVE))
    return [Note("session-established", message.terms_hash.hex()[:8])]


# --- Relay ---------------------------------------------------------------------------------------


def on_offer(records: Records, user: EndUser, moment: Moment, cid: int, message: NanoOffer
             ) -> tuple[bytes, Outbox]:
    """Take up a session with the idle wallet of `cid`; returns hash(nT) and the outbox.

    `ProtocolError` when the terms are not the network's, come too late, or the channel's escrow
    does not cover n payments.
    """
    terms = message.terms.nano_terms()
    terms_hash = terms.hash()
    parameters = moment.parameters
    if message.intermediary != user.key_hash:
        raise ProtocolError("the session is with an intermediary that this relay has no channel at")
    # A session that was set up in an earlier epoch keeps that epoch's terms until it expires.
    expected = moment.parameters_of(terms.epoch)
    if expected is None or (terms.delta_c, terms.delta_r, terms.n, terms.t_exp) != (
            -expected.price, expected.delta_r, expected.n, expiry(terms.epoch, expected)):
        raise ProtocolError("the offered terms are not the network's")
    if moment.now >= terms.t_exp - 2 * parameters.safety_margin:
        raise ProtocolError("the offered session is too near its expiry")
    if records.get(Table.SESSION, terms_hash) is not None:
        raise ProtocolError("the offered session was offered before")
    idle = wallets.spendable(records, cid)
    saturated = idle.balance + terms.n * terms.delta_r
    if saturated > relay_cap(group_of(records, cid), user.tax_rate_bp):
        raise ProtocolError("the channel's escrow does not cover the offered session")
    nwsk = wallets.fresh_secret()
    statement, proof, hidden = prove_nano_establish(
        user.issuer, user.ctx, token=idle.pt, tag=tag(TokenKind.PAYMENT, Role.RELAY, user.ctx),
        cid=cid, nonce=idle.nonce, wpk=idle.wpk, balance=idle.balance, terms=terms,
        nwpk=lock_of(nwsk))
    records.put(Table.SESSION, terms_hash, RelaySession(
        EndUserSession(Terms.of(terms), cid, nwsk, hidden.rho, saturated, NO_SIGNATURE),
        RelayPhase.REQUESTED))
    records.put(Table.NONCE, terms_hash, SpentWallet(
        idle.nonce, idle.wsk, hidden.r, statement.commitment))
    records.put(Table.PAYMENT, terms_hash, NOTHING)
    wallets.put(records, cid, Spending(idle, terms_hash))
    return terms_hash, [Request(conversation(terms_hash), *pack(NanoEstablishRequest(
        idle.nonce, terms_hash, lock_of(nwsk), statement.com, statement.commitment,
        statement.sigma, statement.k, proof)))]


def on_refund_reply(records: Records, user: EndUser, terms_hash: bytes, reply: NanoRefundReply
                    ) -> Outbox:
    """nrt_R: verify it as the ledger would, then revoke the old wallet."""
    current = relay_session(records, terms_hash)
    if current.phase is not RelayPhase.REQUESTED:
        return []
    spent = spent_wallet(records, terms_hash)
    require_nano_refund(reply.nrt, user.intermediary, nano_refund_digest(
        user.domain, user.ctx, Role.RELAY, terms_hash, lock_of(current.session.nwsk),
        spent.commitment))
    records.put(Table.SESSION, terms_hash, RelaySession(
        replace(current.session, nrt=reply.nrt), RelayPhase.REVEALING))
    wallets.put(records, current.session.cid, InSession(current.session.cid, terms_hash))
    return [Request(conversation(terms_hash), *pack(NanoEstablishReveal(
        spent.nonce, spent.wsk, spent.r)))]


def on_acknowledged(records: Records, terms_hash: bytes) -> Outbox:
    """The session is established: tell the client."""
    current = relay_session(records, terms_hash)
    if current.phase is not RelayPhase.REVEALING:
        return []
    records.put(Table.SESSION, terms_hash, replace(current, phase=RelayPhase.ACTIVE))
    records.delete(Table.NONCE, terms_hash)
    return [Done(conversation(terms_hash)), Tell(terms_hash, *pack(NanoAccepted(terms_hash))),
            Note("session-established", terms_hash.hex()[:8])]


def on_refused(records: Records, terms_hash: bytes) -> Outbox:
    """The intermediary does not know the session or will not establish it: the wallet is idle."""
    current = relay_session(records, terms_hash)
    wallet = wallets.get(records, current.session.cid)
    if current.phase is RelayPhase.REQUESTED and isinstance(wallet, Spending):
        wallets.put(records, current.session.cid, replace(wallet.idle, shown=True))
        records.delete(Table.SESSION, terms_hash)
        records.delete(Table.NONCE, terms_hash)
        records.delete(Table.PAYMENT, terms_hash)
    return [Done(conversation(terms_hash))]


# --- Intermediary --------------------------------------------------------------------------------


def answer_establish(records: Records, me: Intermediary, moment: Moment,
                     message: NanoEstablishRequest) -> Answer:
    """Bind one relay's wallet to a session that is set up; promise its leg (nrt_R)."""
    current = session(records, message.terms_hash)
    if current.phase is not Phase.SETUP:
        raise Refused(RefusalCode.STATE, "the session is not set up, or has its relay")
    terms = current.terms.nano_terms()
    if tip(records).timestamp >= terms.t_exp - moment.parameters.safety_margin:
        raise Refused(RefusalCode.TOO_LATE, "the session is too near its expiry")
    answering.require_unspent(records, message.nonce)
    answering.require_fresh(records, message.nwpk, "nwpk")
    me.require_proof(
        verify_nano_establish, me.ctx,
        EstablishStatement(com=message.com, commitment=message.commitment, sigma=message.sigma,
                           k=message.k),
        message.proof, tag=tag(TokenKind.PAYMENT, Role.RELAY, me.ctx), nonce=message.nonce,
        terms=terms, nwpk=message.nwpk)
    answering.take(records, message.nwpk)
    records.put(Table.NONCE, key248(message.nonce), NonceUse(message.terms_hash))
    records.put(Table.SESSION, message.terms_hash, replace(
        current, phase=Phase.ESTABLISHING, com_r=message.com, nwpk_r=message.nwpk,
        commitment_r=message.commitment))
    return Answer(NanoRefundReply(sign_nano_refund(
        me.signing_key, me.domain, me.ctx, Role.RELAY, message.terms_hash, message.nwpk,
        message.commitment)))


def answer_establish_reveal(records: Records, me: Intermediary, moment: Moment,
                            message: NanoEstablishReveal) -> Answer:
    """The relay's old wallet is revoked: the session is established."""
    terms_hash = session_of_nonce(records, message.nonce)
    current = session(records, terms_hash)
    if current.phase is not Phase.ESTABLISHING:
        raise Refused(RefusalCode.STATE, "the session is not being established")
    refuting = open_wallet_lock(records, current.com_r, message.wsk, message.r, "wpk_R")
    if refuting is not None:
        return Answer(None, refuting)
    records.put(Table.SESSION, terms_hash, replace(current, phase=Phase.ESTABLISHED))
    return Answer(Acknowledged())
