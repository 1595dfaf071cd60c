# SPDX-License-Identifier: BSD-3-Clause
"""What a party hands to its watcher, and how the watcher reads it.

A package is a header, entries and the signature of the party's account, so that nobody else can
replace it. There is one kind for each of three duties; none holds a key or a wallet token.
`disputes` of an intermediary add to what the watcher knows, and say what no longer matters.
`proofs` of a relay and `answers` of an end user replace the package before, and their counter never
goes back.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeAlias

from monetor_chain.statements import hash_words, keccak256, typed_digest

from ..crypto.ecdsa import SIGNATURE_BYTES, address_of, recover, sign
from ..crypto.errors import CryptoError
from ..crypto.hash_chain import verify_claim
from . import old_locks, wallet as wallets
from .answering import Lock
from .codec import B20, B32, U8, U32, U64, U248, decode, encode
from .errors import ProtocolError
from .establish import Group, GroupPhase, find_group
from .ledger import Authorised, NanoRefund, Refund, RefundConditional, Reveal
from .moment import Moment
from .pruning import HORIZON, Horizon
from .records import Records, Table, load, record
from .sessions import Leg, RelayPhase, RelaySession, Session
from .wallet import Claiming, EndUser, Paying, Posted, Settled, Voiding, Wallet, proved

VERSION = 2

RENEWAL_MARGINS = 24
"""An authorisation outlives its channel's notice by so many safety margins; a party that runs
renews it when half of them are gone."""

_TYPE = keccak256(b"WatchPackage(bytes body)")


class PackageKind(IntEnum):
    """Which duty a package is for."""

    DISPUTES = 1
    PROOFS = 2
    ANSWERS = 3


@dataclass(frozen=True, slots=True)
class Header:
    """Who hands over what, when (Unix seconds), on which ledger, and how much of it."""

    version: U8
    kind: PackageKind
    domain: B32
    account: B20
    counter: U64
    issued: U64
    entries: U32


@record
@dataclass(frozen=True, slots=True)
class WatchedGroup:
    """A group of the intermediary's, whose channels it wants to be defended."""

    group: U248


@record
@dataclass(frozen=True, slots=True)
class Revoked:
    """The secret of a lock that somebody could still post: showing it refutes the claim. `since`:
    when it was revoked (Unix seconds)."""

    secret: B32
    since: U64


@record
@dataclass(frozen=True, slots=True)
class Finished:
    """All channels of this group of the intermediary's are paid out."""

    group: U248


@record
@dataclass(frozen=True, slots=True)
class Charged:
    """The most payments of a session that the intermediary can prove, by the client's lock."""

    nwpk: U248
    claim: Reveal


@record
@dataclass(frozen=True, slots=True)
class Proof:
    """The payments that a relay can prove of the session in its channel `cid`."""

    cid: U248
    claim: Reveal


@record
@dataclass(frozen=True, slots=True)
class Kept:
    """A channel whose newest state a party out of a backup does not know: what the watcher was
    handed for it before is newer, and stays."""

    cid: U248


Entry: TypeAlias = (
    WatchedGroup | Revoked | Charged | Finished | Horizon | Proof | Authorised | Kept)

_ENTRIES: dict[PackageKind, tuple[type[Any], ...]] = {
    PackageKind.DISPUTES: (WatchedGroup, Revoked, Charged, Finished, Horizon),
    PackageKind.PROOFS: (Proof,),
    PackageKind.ANSWERS: (Authorised, Kept),
}

_FRAME = struct.Struct(">BH")
"""Before each entry: which of its kind's types it is, and its length."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package that was read whole and whose signature fits."""

    header: Header
    entries: tuple[Entry, ...]


def seal(kind: PackageKind, entries: Iterable[Entry], *, domain: bytes, key: bytes, counter: int,
         issued: int) -> bytes:
    """The bytes of a package; `key` is the 32-byte key of the party's account."""
    frames = []
    for entry in entries:
        data = encode(entry)
        frames.append(_FRAME.pack(_ENTRIES[kind].index(type(entry)), len(data)) + data)
    header = Header(VERSION, kind, domain, address_of(key), counter, issued, len(frames))
    body = encode(header) + b"".join(frames)
    return body + sign(_digest(domain, body), key)


def unseal(data: bytes, domain: bytes) -> Package:
    """Read a package; `ProtocolError` names what is wrong with it, and nothing of it counts."""
    body, signature = data[:-SIGNATURE_BYTES], data[-SIGNATURE_BYTES:]
    header = decode(Header, body[:_HEADER_BYTES])
    if header.version != VERSION:
        raise ProtocolError(f"the package has format {header.version}, not {VERSION}")
    if header.domain != domain:
        raise ProtocolError("the package is for another ledger")
    try:
        signer = recover(_digest(domain, body), signature)
    except CryptoError as error:
        raise ProtocolError(f"package: {error}") from error
    if signer != header.account:
        raise ProtocolError("the package is not signed by the account that it names")
    entries, offset = [], _HEADER_BYTES
    for _ in range(header.entries):
        if offset + _FRAME.size > len(body):
            raise ProtocolError("the package ends too early")
        which, size = _FRAME.unpack_from(body, offset)
        offset += _FRAME.size
        entries.append(_entry(header.kind, which, body[offset:offset + size]))
        offset += size
    if offset != len(body):
        raise ProtocolError("the package does not end where it should")
    return Package(header, tuple(entries))


def _entry(kind: PackageKind, which: int, data: bytes) -> Entry:
    if which >= len(_ENTRIES[kind]):
        raise ProtocolError(f"a package of {kind.name.lower()} has no entry of type {which}")
    entry: Entry = decode(_ENTRIES[kind][which], data)
    match entry:
        case Charged() | Proof() if not _proves(entry.claim):
            raise ProtocolError("an entry does not prove its payments")
        case Authorised():
            entry.call()
    return entry


def _proves(claim: Reveal) -> bool:
    terms = claim.terms
    return claim.k > 0 and verify_claim(n=terms.n, hc0=terms.hc0, root=terms.root, k=claim.k,
                                        hc=claim.hc, path=claim.path)


def _digest(domain: bytes, body: bytes) -> bytes:
    return typed_digest(domain, hash_words(_TYPE, keccak256(body)))


_HEADER_BYTES = len(encode(Header(VERSION, PackageKind.PROOFS, bytes(32), bytes(20), 0, 0, 0)))


# --- The party's side ----------------------------------------------------------------------------


@record
@dataclass(frozen=True, slots=True)
class PackageCounter:
    """The number of the party's latest package of a kind, and the last second of its answers."""

    counter: U64
    until: U64


def _latest(records: Records, kind: PackageKind) -> PackageCounter:
    found = records.get(Table.META, b"watch-package:" + bytes([kind]))
    return found if isinstance(found, PackageCounter) else PackageCounter(0, 0)


def next_counter(records: Records, kind: PackageKind, entries: Iterable[Entry] = ()) -> int:
    """The number of the next package, committed with the state that the package tells of."""
    latest = _latest(records, kind)
    counter = latest.counter + 1
    until = max((one.not_after if isinstance(one, Authorised) else latest.until
                 for one in entries if isinstance(one, Authorised | Kept)), default=0)
    records.put(Table.META, b"watch-package:" + bytes([kind]), PackageCounter(counter, until))
    return counter


_FAR = 2**32
"""More packages than anybody makes between a backup and its use."""

FOR_EVER = 2**63
"""A time that does not come, for answers of which it is not known until when they last."""


def leave_behind(records: Records) -> None:
    """Number packages beyond any that were made after this copy of the records was.

    How long the latest answers last is not known either: the watcher has to be told of everything.
    """
    for kind in (PackageKind.PROOFS, PackageKind.ANSWERS):
        latest = _latest(records, kind)
        records.put(Table.META, b"watch-package:" + bytes([kind]), PackageCounter(
            latest.counter + _FAR, FOR_EVER if latest.until else 0))


def answers_until(records: Records) -> int:
    """Until when (Unix seconds) a watcher may use the answers that it was handed last."""
    return _latest(records, PackageKind.ANSWERS).until


def export_disputes(records: Records, touched: Iterable[tuple[Table, bytes]] | None = None
                    ) -> list[Entry]:
    """What an intermediary's watcher needs: all of it, or what stands under the `touched` keys.

    A channel is not known by its locks: the secrets of revoked ones stay useful until every channel
    is paid out that was open then, which a `Horizon` says.
    """
    if touched is None:
        found = [one for table in (Table.GROUP, Table.LOCK, Table.SESSION)
                 for _, one in records.scan(table)]
        found.append(records.get(Table.META, HORIZON))
    else:
        found = [records.get(table, key) for table, key in sorted(touched)
                 if table in (Table.GROUP, Table.LOCK, Table.SESSION)
                 or (table, key) == (Table.META, HORIZON)]
    return [entry for one in found if (entry := _dispute(one)) is not None]


def _dispute(stored: Any) -> Entry | None:
    match stored:
        case Group() if stored.phase is GroupPhase.OPEN:
            return WatchedGroup(stored.group)
        case Group() if stored.phase is GroupPhase.RESOLVED:
            return Finished(stored.group)
        case Horizon():
            return stored
        case Lock() if stored.revoked:
            return Revoked(stored.secret, stored.since)
        case Session() if stored.best.k and stored.client_leg is not Leg.CLOSED:
            best = stored.best
            return Charged(stored.nwpk_c, Reveal(stored.terms, best.k, best.hc, best.path))
    return None


def export_proofs(records: Records) -> list[Entry]:
    """What a relay's watcher needs: the best proof of every session that is not closed."""
    entries: list[Entry] = []
    for terms_hash, one in records.scan(Table.SESSION):
        if not isinstance(one, RelaySession) or one.phase in (RelayPhase.REVOKED,
                                                              RelayPhase.CLOSED):
            continue
        best = proved(records, terms_hash)
        paid_out = isinstance(wallets.get(records, one.session.cid), Posted | Settled)
        if best.k and not paid_out:
            entries.append(Proof(one.session.cid, Reveal(one.session.terms, best.k, best.hc,
                                                         best.path)))
    return entries


Authorise: TypeAlias = Callable[[Refund | NanoRefund, int], bytes]
"""Signs a claim for somebody else to submit until `not_after`; E's 65-byte signature."""

Answers: TypeAlias = Mapping[tuple[int, int], Authorised]
"""Authorised claims by (cid, lock)."""


def export_answers(records: Records, user_of: Callable[[Records, int], EndUser], moment: Moment,
                   authorise: Authorise, before: Answers) -> dict[tuple[int, int], Authorised]:
    """What an end user's watcher needs to answer a request to close: every live claim, signed.

    `user_of` tells who the party is at the intermediary of a group. Claims of the package `before`
    whose validity still lasts are taken over as they are.
    """
    renewal = RENEWAL_MARGINS * moment.parameters.safety_margin
    answers: dict[tuple[int, int], Authorised] = {}
    public_keys: dict[bytes, bytes] = {}
    for wallet in wallets.all_wallets(records):
        group = find_group(records, wallets.channel_of(wallet) >> 8)
        claim = standing_claim(records, wallet)
        if claim is None or group is None or group.phase is not GroupPhase.OPEN:
            continue
        if old_locks.is_old(records, claim):
            # A claim out of a backup may be revoked: nobody may post it for its owner.
            continue
        lock = (claim.cid, claim.wpk if isinstance(claim, Refund) else claim.nwpk)
        known = before.get(lock)
        if (known is not None and isinstance(claim, Refund)
                and known.not_after >= moment.now + renewal // 2 + group.close_notice):
            answers[lock] = known
            continue
        claim = wallets.rerandomised(claim)
        not_after = moment.now + renewal + group.close_notice
        user = user_of(records, group.group)
        if user.key_hash not in public_keys:
            public_keys[user.key_hash] = user.issuer.evm_encoding()
        answers[lock] = Authorised.of(claim, public_keys[user.key_hash], not_after,
                                      authorise(claim, not_after))
    return answers


def export_kept(records: Records) -> list[Entry]:
    """The channels out of a backup that `export_answers` leaves out."""
    if old_locks.restored(records) is None:
        return []
    return [Kept(claim.cid) for wallet in wallets.all_wallets(records)
            if (claim := standing_claim(records, wallet)) is not None
            and old_locks.is_old(records, claim)]


def standing_claim(records: Records, wallet: Wallet) -> Refund | NanoRefund | None:
    """The claim of a wallet that stands whatever the time is, with its token as it was issued.

    In a hidden payment it is that of the wallet before: a watcher ends no hidden payment.
    """
    if isinstance(wallet, Claiming):
        return standing_claim(records, load(wallet.kind.decode(), wallet.state))
    if isinstance(wallet, Paying):
        wallet = Voiding(wallet.idle, wallet.next)
    claim = wallets.live_claim(records, wallet)
    assert not isinstance(claim, RefundConditional), "only a wallet in a hidden payment has one"
    return claim
