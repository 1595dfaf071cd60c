# SPDX-License-Identifier: BSD-3-Clause
"""Nano-Setup (algorithm 2): the client turns a wallet into a nanopayment session.

C→I nonce, com, nT, nwpk, N, proof; I→C nrt; C→I wsk and the opening of com; I→C ack. The session
is then `setup`: any relay may be paid with it, and the intermediary does not know which wallet
paid for it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from monetor_chain.parameters import NetworkParameters
from monetor_chain.statements import NanoTerms, Role, TokenKind, lock_of, tag

from ..crypto.generators import commit
from ..crypto.hash_chain import HashChain
from ..crypto.nano_setup import (
    SetupDraft,
    SetupStatement,
    draft_nano_setup,
    verify_nano_setup,
)
from . import answering, wallet as wallets
from .answering import Answer, Intermediary
from .codec import B32, G1, U248, Scalar
from .errors import ProtocolError, RefusalCode, Refused
from .messages import (
    Acknowledged,
    NanoRefundReply,
    NanoSetupRequest,
    NanoSetupReveal,
    Terms,
    pack,
)
from .moment import Moment, expiry, offered_epochs, tip
from .outbox import Done, Note, Outbox, Request
from .records import Records, Table, key248, record
from .sessions import (
    ClientPhase,
    ClientSession,
    Phase,
    client_session,
    nano_refund_digest,
    new_session,
    require_nano_refund,
    session,
    sign_nano_refund,
)
from .wallet import NO_SIGNATURE, EndUser, EndUserSession, Idle, InSession, Spending


def conversation(terms_hash: bytes) -> bytes:
    """The conversation of a session's setup, establishment or close."""
    return b"session:" + terms_hash


@record
@dataclass(frozen=True, slots=True)
class SpentWallet:
    """What the revealing step needs of the wallet that the session spends."""

    nonce: U248
    wsk: B32
    r: Scalar
    commitment: G1


def spent_wallet(records: Records, terms_hash: bytes) -> SpentWallet:
    """The wallet that a session of this end user spends."""
    found = records.get(Table.NONCE, terms_hash)
    if not isinstance(found, SpentWallet):
        raise ProtocolError("no wallet is being spent into this session")
    return found


# --- Client --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class NanoSetupDraft:
    """A session that is ready but for its terms: hash chain, lock, and a proof without challenge.

    It serves one wallet once and lives in memory only. A crash loses it, and the wallet is drafted
    anew: a proof that was begun twice from the same announcements would give the wallet away.
    """

    nonce: int
    n: int
    chain: HashChain
    nwsk: bytes
    proof: SetupDraft

    def fits(self, idle: Idle, parameters: NetworkParameters) -> bool:
        """Whether it is for this wallet and these parameters, and not used up."""
        return (self.nonce == idle.nonce and self.n == parameters.n
                and self.proof.cost == _cost(parameters) and not self.proof.finished)


def _cost(parameters: NetworkParameters) -> int:
    return parameters.n * parameters.price


def _offered(records: Records, moment: Moment) -> tuple[int, NetworkParameters]:
    # The latest confirmed block decides the epoch, so that the intermediary sees the same one.
    epoch = tip(records).timestamp // moment.parameters.epoch
    parameters = moment.parameters_of(epoch)
    if parameters is None:
        raise ProtocolError(f"the parameters of epoch {epoch} are not known")
    return epoch, parameters


def draft(records: Records, user: EndUser, moment: Moment, cid: int) -> NanoSetupDraft:
    """Do ahead of demand what a setup out of the idle wallet of `cid` will take; writes nothing.

    `ProtocolError` when the wallet is busy, or its balance does not cover n payments.
    """
    idle = wallets.spendable(records, cid)
    parameters = _offered(records, moment)[1]
    cost = _cost(parameters)
    if idle.balance < cost:
        raise ProtocolError(f"a session costs up to {cost} units, the wallet holds {idle.balance}")
    return NanoSetupDraft(
        idle.nonce, parameters.n, HashChain.generate(parameters.n), wallets.fresh_secret(),
        draft_nano_setup(user.issuer, token=idle.pt, cid=cid, wpk=idle.wpk, balance=idle.balance,
                         cost=cost))


def start(records: Records, user: EndUser, moment: Moment, cid: int,
          prepared: NanoSetupDraft | None = None) -> tuple[bytes, Outbox]:
    """Set up a session out of the idle wallet of `cid`; returns hash(nT) and the outbox.

    `prepared` saves most of the work if it still fits. `ProtocolError` when the wallet is busy, or
    its balance does not cover n payments.
    """
    idle = wallets.spendable(records, cid)
    epoch, parameters = _offered(records, moment)
    if prepared is None or not prepared.fits(idle, parameters):
        prepared = draft(records, user, moment, cid)
    chain = prepared.chain
    terms = NanoTerms(-parameters.price, parameters.delta_r, parameters.n, chain.hc0,
                      expiry(epoch, parameters), chain.root, epoch)
    terms_hash = terms.hash()
    nwpk = lock_of(prepared.nwsk)
    proof = prepared.proof.finish(
        user.ctx, tag=tag(TokenKind.PAYMENT, Role.CLIENT, user.ctx), nonce=idle.nonce, terms=terms,
        nwpk=nwpk)
    statement, hidden = prepared.proof.statement, prepared.proof.secrets
    records.put(Table.SESSION, terms_hash, ClientSession(
        EndUserSession(Terms.of(terms), cid, prepared.nwsk, hidden.rho,
                       idle.balance - prepared.proof.cost, NO_SIGNATURE),
        ClientPhase.REQUESTED, chain.seed, 0))
    records.put(Table.NONCE, terms_hash, SpentWallet(
        idle.nonce, idle.wsk, hidden.r, statement.commitment))
    wallets.put(records, cid, Spending(idle, terms_hash))
    return terms_hash, [Request(conversation(terms_hash), *pack(NanoSetupRequest(
        idle.nonce, Terms.of(terms), nwpk, statement.com, statement.commitment, statement.sigma,
        statement.k, proof)))]


def on_refund_reply(records: Records, user: EndUser, terms_hash: bytes, reply: NanoRefundReply
                    ) -> Outbox:
    """nrt_C: verify it as the ledger would, then revoke the old wallet."""
    current = client_session(records, terms_hash)
    if current.phase is not ClientPhase.REQUESTED:
        return []
    spent = spent_wallet(records, terms_hash)
    require_nano_refund(reply.nrt, user.intermediary, nano_refund_digest(
        user.domain, user.ctx, Role.CLIENT, terms_hash, lock_of(current.session.nwsk),
        spent.commitment))
    records.put(Table.SESSION, terms_hash, replace(
        current, session=replace(current.session, nrt=reply.nrt), phase=ClientPhase.REVEALING))
    wallets.put(records, current.session.cid, InSession(current.session.cid, terms_hash))
    return [Request(conversation(terms_hash), *pack(NanoSetupReveal(
        spent.nonce, spent.wsk, spent.r)))]


def on_acknowledged(records: Records, terms_hash: bytes) -> Outbox:
    """The session is ready to pay any relay."""
    current = client_session(records, terms_hash)
    if current.phase is not ClientPhase.REVEALING:
        return []
    records.put(Table.SESSION, terms_hash, replace(current, phase=ClientPhase.READY))
    records.delete(Table.NONCE, terms_hash)
    return [Done(conversation(terms_hash)), Note("session-ready", terms_hash.hex()[:8])]


def on_refused(records: Records, terms_hash: bytes) -> Outbox:
    """The intermediary will not set this session up: the wallet is idle again."""
    current = client_session(records, terms_hash)
    wallet = wallets.get(records, current.session.cid)
    if current.phase is ClientPhase.REQUESTED and isinstance(wallet, Spending):
        wallets.put(records, current.session.cid, replace(wallet.idle, shown=True))
        records.delete(Table.SESSION, terms_hash)
        records.delete(Table.NONCE, terms_hash)
    return [Done(conversation(terms_hash))]


def mark_on_ledger(records: Records, terms_hash: bytes) -> None:
    """The session's wallet is claimed on the ledger: the session takes part in nothing more."""
    records.put(Table.SESSION, terms_hash, replace(
        client_session(records, terms_hash), phase=ClientPhase.ON_LEDGER))


# --- Intermediary --------------------------------------------------------------------------------


@record
@dataclass(frozen=True, slots=True)
class NonceUse:
    """What a spent nonce went into: hash(nT) of a session."""

    terms_hash: B32


def revealed_key(terms_hash: bytes) -> bytes:
    """Record key of terms whose payments came on the ledger before any session had them."""
    return b"revealed:" + terms_hash


def require_fresh_terms(records: Records, moment: Moment, terms: NanoTerms) -> None:
    """`Refused` unless the terms are the network's and no session has them or their hc0."""
    for epoch, parameters in offered_epochs(records, moment).items():
        if terms.epoch == epoch:
            expected = (-parameters.price, parameters.delta_r, parameters.n,
                        expiry(epoch, parameters))
            if (terms.delta_c, terms.delta_r, terms.n, terms.t_exp) == expected:
                break
            raise Refused(RefusalCode.TERMS, "the terms are not the network's of their epoch")
    else:
        raise Refused(RefusalCode.TERMS, f"epoch {terms.epoch} takes no new sessions now")
    if records.get(Table.SESSION, terms.hash()) is not None:
        raise Refused(RefusalCode.REUSED, "a session has these terms")
    if records.get(Table.CHAIN_HEAD, terms.hc0) is not None:
        raise Refused(RefusalCode.REUSED, "a session has this hash chain")
    if records.get(Table.CHAIN_HEAD, revealed_key(terms.hash())) is not None:
        # Payments that the ledger knows of and this session would not: the relay would be paid
        # for them, and the client's leg closed without them.
        raise Refused(RefusalCode.REUSED, "payments under these terms are on the ledger already")


def answer_setup(records: Records, me: Intermediary, moment: Moment, message: NanoSetupRequest
                 ) -> Answer:
    """Verify the wallet and its balance; promise the session on the ledger (nrt_C)."""
    terms = message.terms.nano_terms()
    terms_hash = terms.hash()
    answering.require_unspent(records, message.nonce)
    require_fresh_terms(records, moment, terms)
    answering.require_fresh(records, message.nwpk, "nwpk")
    me.require_proof(
        verify_nano_setup, me.ctx,
        SetupStatement(com=message.com, commitment=message.commitment, sigma=message.sigma,
                       k=message.k),
        message.proof, tag=tag(TokenKind.PAYMENT, Role.CLIENT, me.ctx), nonce=message.nonce,
        terms=terms, nwpk=message.nwpk)
    answering.take(records, message.nwpk)
    records.put(Table.CHAIN_HEAD, terms.hc0, NonceUse(terms_hash))
    records.put(Table.NONCE, key248(message.nonce), NonceUse(terms_hash))
    records.put(Table.SESSION, terms_hash, new_session(
        message.terms, message.com, message.nwpk, message.commitment))
    return Answer(NanoRefundReply(sign_nano_refund(
        me.signing_key, me.domain, me.ctx, Role.CLIENT, terms_hash, message.nwpk,
        message.commitment)))


def session_of_nonce(records: Records, nonce: int) -> bytes:
    """hash(nT) of the session that a nonce was spent into; `Refused` if none was."""
    use = records.get(Table.NONCE, key248(nonce))
    if not isinstance(use, NonceUse):
        raise Refused(RefusalCode.UNKNOWN, "this nonce was not spent into a session")
    return use.terms_hash


def open_wallet_lock(records: Records, com: bytes, wsk: bytes, r: int, name: str
                     ) -> Outbox | None:
    """Check a revealed wsk against com = P1^wpk P3^r and revoke it; see `accept_secret`."""
    lock = lock_of(wsk)
    if commit(lock, 0, r) != com:
        raise Refused(RefusalCode.PROOF, f"the secret does not open {name}")
    return answering.accept_secret(records, wsk, lock, name)


def answer_setup_reveal(records: Records, me: Intermediary, moment: Moment,
                        message: NanoSetupReveal) -> Answer:
    """The old wallet is revoked: the session is set up."""
    terms_hash = session_of_nonce(records, message.nonce)
    current = session(records, terms_hash)
    if current.phase is not Phase.SETTING_UP:
        raise Refused(RefusalCode.STATE, "the session is not being set up")
    refuting = open_wallet_lock(records, current.com_c, message.wsk, message.r, "wpk_C")
    if refuting is not None:
        return Answer(None, refuting)
    records.put(Table.SESSION, terms_hash, replace(current, phase=Phase.SETUP))
    return Answer(Acknowledged())
