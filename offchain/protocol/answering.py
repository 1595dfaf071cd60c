# SPDX-License-Identifier: BSD-3-Clause
"""How the intermediary answers: who it is, stored replies, and the locks that it has seen.

A reply belongs to a (step, key). The identical request gets the stored reply; a different one
under the same key is refused for ever, since answering it would leave two live claims. A failed
check marks nothing.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Concatenate, ParamSpec

from monetor_chain.statements import keccak256, lock_of

from ..crypto.issuer import IssuerKey
from .claims import Claim, Unverified, Verdicts
from .codec import B32, U8, U64, U248, Blob
from .errors import RefusalCode, Refused
from .ledger import Refute
from .moment import tip
from .outbox import Outbox, Submit
from .records import Records, Table, key248, record

P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Intermediary:
    """The intermediary's keys and what they are pinned to.

    `signing_key` is its 32-byte secp256k1 key, `address` the 20-byte account of it; `max_fund` is
    the most it escrows for one relay channel, in base units. With `verdicts`, proofs are verified
    elsewhere (see `claims`).
    """

    issuer: IssuerKey = field(repr=False)
    signing_key: bytes = field(repr=False)
    address: bytes
    key_hash: bytes
    ctx: bytes
    domain: bytes
    max_fund: int = 2**31 - 1
    verdicts: Verdicts | None = field(default=None, repr=False)

    def require_proof(self, verify: Callable[Concatenate[IssuerKey, P], None],
                      *arguments: P.args, **named: P.kwargs) -> None:
        """`Refused` unless `verify` accepts its arguments under the issuer's key.

        `Unverified` if that is decided elsewhere and is not yet. So a step calls it before it
        writes anything.
        """
        claim = Claim.of(verify, *arguments, **named)
        if self.verdicts is None:
            reason = claim.verdict(self.issuer)
        elif claim in self.verdicts:
            reason = self.verdicts[claim]
        else:
            raise Unverified(claim)
        if reason:
            raise Refused(RefusalCode.PROOF, reason)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a handler decided. Without a reply, none is stored and the peer gets `refusal`."""

    reply: Any | None
    outbox: Outbox = field(default_factory=list)
    refusal: RefusalCode = RefusalCode.LOCK


@record
@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """The hash of a request and the reply that it got."""

    request: B32
    pcmd: U8
    payload: Blob


def _answer_key(step: str, key: bytes) -> bytes:
    return step.encode() + b":" + key


def stored_answer(records: Records, step: str, key: bytes, pcmd: int, payload: bytes
                  ) -> tuple[int, bytes] | None:
    """The reply that this very request got before; `Refused` if another request got one."""
    stored = records.get(Table.ANSWER, _answer_key(step, key))
    if stored is None:
        return None
    if not hmac.compare_digest(stored.request, keccak256(bytes([pcmd]) + payload)):
        raise Refused(RefusalCode.REUSED, f"{step} was answered before, to another request")
    return stored.pcmd, stored.payload


def store_answer(records: Records, step: str, key: bytes, request: tuple[int, bytes],
                 reply: tuple[int, bytes]) -> None:
    """Bind the reply to its request."""
    digest = keccak256(bytes([request[0]]) + request[1])
    records.put(Table.ANSWER, _answer_key(step, key), StoredAnswer(digest, *reply))


def forget_answer(records: Records, step: str, key: bytes) -> None:
    """Drop a reply that nobody needs any more; `pruning` says when."""
    records.delete(Table.ANSWER, _answer_key(step, key))


SPEND = "spend"
"""The step under which a nonce is spent, the same for every protocol that spends one."""


def is_spent(records: Records, nonce: int) -> bool:
    """Whether this nonce was spent into anything."""
    key = key248(nonce)
    return (records.get(Table.ANSWER, _answer_key(SPEND, key)) is not None
            or records.get(Table.NONCE, key) is not None)


def require_unspent(records: Records, nonce: int) -> None:
    """`Refused` unless this nonce was never spent: a wallet is spent once, into one thing."""
    if is_spent(records, nonce):
        raise Refused(RefusalCode.REUSED, "the wallet is spent")


# --- Locks ---------------------------------------------------------------------------------------

_UNKNOWN = bytes(32)


@record
@dataclass(frozen=True, slots=True)
class Lock:
    """What the intermediary knows of one wpk or nwpk.

    `secret` is the revealed wsk (zero while unknown). `taken`: named by a session or a payment, so
    no other may name it. `retired`: cashed out. `posted`: a claim with it is on the ledger.
    `since`: when it was revoked (Unix seconds of the latest confirmed block).
    """

    secret: B32 = _UNKNOWN
    taken: bool = False
    retired: bool = False
    posted: bool = False
    since: U64 = 0

    @property
    def revoked(self) -> bool:
        """Whether the secret is known."""
        return self.secret != _UNKNOWN


def lock_state(records: Records, lock: int) -> Lock:
    """What is known of `lock`; a fresh one is unknown in every respect."""
    stored = records.get(Table.LOCK, key248(lock))
    return stored if isinstance(stored, Lock) else Lock()


def _put(records: Records, lock: int, state: Lock) -> None:
    records.put(Table.LOCK, key248(lock), state)


def require_fresh(records: Records, lock: int, name: str) -> None:
    """`Refused` unless nobody has named, revealed or posted this lock before."""
    if lock_state(records, lock) != Lock():
        raise Refused(RefusalCode.REUSED, f"{name} was used before")


def require_live(records: Records, lock: int, name: str) -> None:
    """`Refused` if this lock is revoked, cashed out or posted on the ledger."""
    state = lock_state(records, lock)
    if state.revoked or state.retired or state.posted:
        raise Refused(RefusalCode.LOCK, f"{name} is revoked, cashed out or on the ledger")


def take(records: Records, lock: int) -> None:
    """Mark a lock as named by a session or payment."""
    _put(records, lock, replace(lock_state(records, lock), taken=True))


def retire(records: Records, lock: int) -> None:
    """Mark a lock as cashed out."""
    _put(records, lock, replace(lock_state(records, lock), retired=True))


def accept_secret(records: Records, secret: bytes, lock: int, name: str) -> Outbox | None:
    """Take a revealed secret.

    None when the lock was live and is now revoked. When a claim with it is already on the ledger
    the secret is stored and the outbox that refutes the claim is returned: then the step is not
    answered. `Refused` when the secret does not fit, or was revealed before.
    """
    if not hmac.compare_digest(key248(lock_of(secret)), key248(lock)):
        raise Refused(RefusalCode.PROOF, f"the secret does not open {name}")
    state = lock_state(records, lock)
    if state.posted:
        return learn_secret(records, secret)
    if state.revoked or state.retired:
        raise Refused(RefusalCode.LOCK, f"{name} was revoked before")
    _revoke(records, lock, state, secret)
    return None


@record
@dataclass(frozen=True, slots=True)
class RevokedLock:
    """A lock, under the time at which it was revoked."""

    lock: U248


def _revoked_key(at: int, lock: bytes = b"") -> bytes:
    return b"revoked:" + at.to_bytes(8, "big") + lock


def _revoke(records: Records, lock: int, state: Lock, secret: bytes) -> None:
    now = tip(records).timestamp
    _put(records, lock, replace(state, secret=secret, since=now))
    records.put(Table.CHANNEL, _revoked_key(now, key248(lock)), RevokedLock(lock))


def forget_revoked(records: Records, before: int) -> None:
    """Forget locks that were revoked before a time (Unix seconds) and are not on the ledger."""
    for key, one in list(records.scan(Table.CHANNEL, b"revoked:", _revoked_key(before))):
        records.delete(Table.CHANNEL, key)
        if not lock_state(records, one.lock).posted:
            records.delete(Table.LOCK, key248(one.lock))


def learn_secret(records: Records, secret: bytes) -> Outbox:
    """Take a secret that became known otherwise (from the ledger), and refute what it refutes.

    Once: whoever repeats a secret must not make the intermediary pay for another transaction.
    """
    lock = lock_of(secret)
    if lock_state(records, lock).revoked:
        return []
    _revoke(records, lock, lock_state(records, lock), secret)
    return [refute(cid, secret) for cid in posted_channels(records, lock)]


@record
@dataclass(frozen=True, slots=True)
class PostedLock:
    """A channel on which a lock was posted. A user may give one lock to wallets of several
    channels; then its secret must refute every one of them."""

    cid: U248


def _posted_key(lock: int, cid: bytes = b"") -> bytes:
    return b"lock:" + key248(lock) + cid


def posted_channels(records: Records, lock: int) -> list[int]:
    """Channels that are closing on the ledger with a claim on this lock."""
    return [one.cid for _, one in records.scan(
        Table.CHANNEL, _posted_key(lock), _posted_key(lock, b"\xff" * 32))]


def forget_posted(records: Records, lock: int, cid: int) -> None:
    """A channel that a lock was posted on is paid out; that the lock was posted is kept."""
    records.delete(Table.CHANNEL, _posted_key(lock, key248(cid)))


def mark_posted(records: Records, lock: int, cid: int) -> Outbox:
    """A claim with this lock is on the ledger; refute it at once if the lock is revoked."""
    state = replace(lock_state(records, lock), posted=True)
    _put(records, lock, state)
    records.put(Table.CHANNEL, _posted_key(lock, key248(cid)), PostedLock(cid))
    return [refute(cid, state.secret)] if state.revoked else []


def refute(cid: int, secret: bytes) -> Submit:
    """The transaction that takes everything of a channel whose posted state was revoked."""
    return Submit(b"refute:" + key248(cid), Refute(cid, secret))
