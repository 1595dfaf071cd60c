# SPDX-License-Identifier: BSD-3-Clause
"""Nanopayment sessions: each party's record of one, and what decides its phase.

A client's and a relay's session are the shared `EndUserSession` with a phase of their own. The
intermediary's session joins both legs: its phase moves only forward, and the client's leg closes
apart from the relay's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from monetor_chain.statements import Role, keccak256, nano_refund_struct, typed_digest

from ..crypto.ecdsa import recover, sign
from ..crypto.encoding import evm_g1
from ..crypto.errors import CryptoError
from .codec import B32, G1, U8, U32, U248
from .errors import ProtocolError, RefusalCode, Refused
from .messages import Terms
from .records import Records, Table, key248, record
from .wallet import EndUserSession, Proved


class ClientPhase(IntEnum):
    """A client's session. Payments flow in ACTIVE only."""

    REQUESTED = 1
    REVEALING = 2
    READY = 3
    OFFERED = 4
    ACTIVE = 5
    QUERYING = 6
    CLOSING = 7
    REVOKED = 8
    CLOSED = 9
    ON_LEDGER = 10


@record
@dataclass(frozen=True, slots=True)
class ClientSession:
    """A client's side: the hash chain's seed HC[n] and how many payments have left."""

    session: EndUserSession
    phase: ClientPhase
    seed: B32
    sent: U32
    attempts: U8 = 0


class RelayPhase(IntEnum):
    """A relay's session. Payments are accepted in ACTIVE only."""

    REQUESTED = 1
    REVEALING = 2
    ACTIVE = 3
    CLOSING = 4
    REVOKED = 5
    CLOSED = 6
    ON_LEDGER = 7


@record
@dataclass(frozen=True, slots=True)
class RelaySession:
    """A relay's side; its count of payments is the `Proved` record of the session."""

    session: EndUserSession
    phase: RelayPhase


class Phase(IntEnum):
    """The intermediary's view of a session, in the order in which it moves."""

    SETTING_UP = 1
    SETUP = 2
    ESTABLISHING = 3
    ESTABLISHED = 4
    RELAY_CLOSING = 5
    RELAY_CLOSED = 6
    VOID = 7


class Leg(IntEnum):
    """The client leg of a session at the intermediary."""

    OPEN = 1
    CLOSING = 2
    CLOSED = 3


_NO_POINT = bytes(48)


@record
@dataclass(frozen=True, slots=True)
class Session:
    """The intermediary's record of a session.

    `best` is the highest count proved to it off chain; `ledger` the highest k_C on the ledger,
    with its preimage. `relay_resolved`: the relay's channel was paid out with this session.
    """

    terms: Terms
    phase: Phase
    client_leg: Leg
    com_c: G1
    nwpk_c: U248
    commitment_c: G1
    com_r: G1
    nwpk_r: U248
    commitment_r: G1
    best: Proved
    ledger: Proved
    ledger_k_r: U32
    relay_resolved: bool


def new_session(terms: Terms, com: bytes, nwpk: int, commitment: bytes) -> Session:
    """A session that is being set up, without a relay."""
    none = Proved(0, bytes(32), ())
    return Session(terms, Phase.SETTING_UP, Leg.OPEN, com, nwpk, commitment, _NO_POINT, 0,
                   _NO_POINT, none, none, 0, False)


def session(records: Records, terms_hash: bytes) -> Session:
    """The intermediary's session; `Refused` if there is none."""
    found = records.get(Table.SESSION, terms_hash)
    if not isinstance(found, Session):
        raise Refused(RefusalCode.UNKNOWN, "no session has these terms")
    return found


def client_session(records: Records, terms_hash: bytes) -> ClientSession:
    """The client's session; `ProtocolError` if there is none."""
    found = records.get(Table.SESSION, terms_hash)
    if not isinstance(found, ClientSession):
        raise ProtocolError("this client has no session with these terms")
    return found


def relay_session(records: Records, terms_hash: bytes) -> RelaySession:
    """The relay's session; `ProtocolError` if there is none."""
    found = records.get(Table.SESSION, terms_hash)
    if not isinstance(found, RelaySession):
        raise ProtocolError("this relay has no session with these terms")
    return found


def nano_refund_digest(domain: bytes, ctx: bytes, role: Role, terms_hash: bytes, nwpk: int,
                       commitment: bytes) -> bytes:
    """What nrt signs: (ctx, role, hash(nT), nwpk, N)."""
    return typed_digest(domain, nano_refund_struct(
        ctx, role, terms_hash, nwpk, keccak256(evm_g1(commitment))))


def sign_nano_refund(key: bytes, domain: bytes, ctx: bytes, role: Role, terms_hash: bytes,
                     nwpk: int, commitment: bytes) -> bytes:
    """nrt of one leg."""
    return sign(nano_refund_digest(domain, ctx, role, terms_hash, nwpk, commitment), key)


def require_nano_refund(signature: bytes, signer: bytes, digest: bytes) -> None:
    """`ProtocolError` unless the ledger would take this nrt."""
    try:
        recovered = recover(digest, signature)
    except CryptoError as error:
        raise ProtocolError(f"nrt: {error}") from error
    if recovered != signer:
        raise ProtocolError("nrt: the signature is not the intermediary's")


# --- Deadlines -----------------------------------------------------------------------------------


@record
@dataclass(frozen=True, slots=True)
class Deadline:
    """At its time, something is to be done about `subject`; `what` is the machine's own number."""

    what: U8
    subject: B32


def set_deadline(records: Records, at: int, what: int, subject: bytes) -> None:
    """Remember that `what` is due for `subject` (32 bytes) at Unix second `at`."""
    records.put(Table.DEADLINE, at.to_bytes(8, "big") + bytes([what]) + subject,
                Deadline(what, subject))


def due(records: Records, now: int) -> Iterator[Deadline]:
    """Deadlines with at ≤ now, removed as they are handed out."""
    stop = (now + 1).to_bytes(8, "big")
    for key, deadline in list(records.scan(Table.DEADLINE, b"", stop)):
        records.delete(Table.DEADLINE, key)
        yield deadline


def subject_of(cid: int) -> bytes:
    """A channel as a deadline's subject."""
    return b"\x00" + key248(cid)
