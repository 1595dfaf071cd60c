# SPDX-License-Identifier: BSD-3-Clause
"""Nano-Pay (algorithm 4): one payment is one hash and one cell.

The client reveals HC[k]; at every 16th payment the Merkle path of the checkpoint travels along, so
that whoever holds (k, hc, path) can prove it to the intermediary and the ledger with at most 15
hashes and 14 siblings. Nobody counts a payment that it does not prove.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from monetor_chain.statements import CHECKPOINT_STRIDE, keccak256

from ..crypto.hash_chain import HashChain, verify_claim
from .errors import ProtocolError
from .messages import GuardPayment, NanoPayment, Terms, pack
from .moment import Moment
from .outbox import Outbox, Tell
from .records import Records, Table
from .sessions import ClientPhase, RelayPhase, client_session, relay_session
from .wallet import Proved, proved


@lru_cache(maxsize=64)
def chain_of(seed: bytes, n: int) -> HashChain:
    """The hash chain of a session, recomputed from its seed HC[n] once and kept while in use."""
    return HashChain(n, seed)


def check_payment(terms: Terms, last: Proved, payment: NanoPayment | GuardPayment) -> Proved:
    """The proof that this party holds after `payment`; `ProtocolError` if it does not follow.

    One hash; at a checkpoint also its path of log2(n / 16) siblings.
    """
    k = payment.k
    if k != last.k + 1 or k > terms.n:
        raise ProtocolError(f"payment {k} does not follow payment {last.k} of {terms.n}")
    if keccak256(payment.hc) != (last.hc if last.k else terms.hc0):
        raise ProtocolError(f"payment {k}: the preimage does not fit the hash chain")
    if k % CHECKPOINT_STRIDE:
        return Proved(k, payment.hc, last.path)
    if not verify_claim(n=terms.n, hc0=terms.hc0, root=terms.root, k=k, hc=payment.hc,
                        path=payment.path):
        raise ProtocolError(f"payment {k}: the path does not lead to the checkpoint root")
    return Proved(k, payment.hc, payment.path)


# --- Client --------------------------------------------------------------------------------------


def pay(records: Records, moment: Moment, terms_hash: bytes) -> Outbox:
    """Reveal the next preimage. The count is stored before the preimage leaves."""
    current = client_session(records, terms_hash)
    terms = current.session.terms
    if current.phase is not ClientPhase.ACTIVE:
        raise ProtocolError("payments flow only in an established session")
    if current.sent >= terms.n:
        raise ProtocolError("the session is used up")
    if moment.now >= terms.t_exp - 2 * moment.parameters.safety_margin:
        raise ProtocolError("the session is too near its expiry to be paid in")
    k = current.sent + 1
    chain = chain_of(current.seed, terms.n)
    path = chain.path(k) if k % CHECKPOINT_STRIDE == 0 else ()
    records.put(Table.SESSION, terms_hash, replace(current, sent=k))
    return [Tell(terms_hash, *pack(NanoPayment(k, chain.value(k), path)))]


def left(records: Records, moment: Moment, terms_hash: bytes) -> int:
    """How many payments a client's session can still make now."""
    current = client_session(records, terms_hash)
    terms = current.session.terms
    if (current.phase is not ClientPhase.ACTIVE
            or moment.now >= terms.t_exp - 2 * moment.parameters.safety_margin):
        return 0
    return terms.n - current.sent


# --- Relay ---------------------------------------------------------------------------------------


def on_payment(records: Records, moment: Moment, terms_hash: bytes, payment: NanoPayment
               ) -> Proved:
    """Accept a payment; it is received once the returned proof, stored here, is committed."""
    current = relay_session(records, terms_hash)
    if current.phase is not RelayPhase.ACTIVE:
        raise ProtocolError("the session takes no payments")
    if moment.now >= current.session.terms.t_exp - 2 * moment.parameters.safety_margin:
        raise ProtocolError("the payment comes too near the session's expiry")
    best = check_payment(current.session.terms, proved(records, terms_hash), payment)
    records.put(Table.PAYMENT, terms_hash, best)
    return best


def received(records: Records, terms_hash: bytes) -> int:
    """How many payments of a session are on this relay's disk."""
    return proved(records, terms_hash).k
