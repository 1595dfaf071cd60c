# SPDX-License-Identifier: BSD-3-Clause
"""The watcher's machine: it acts on the ledger for parties that are down.

It knows what `watch_packages` brought it and what it has seen on the ledger. Whatever it does, it
decides when a deadline comes, from these two alone, so that it does not matter in which order they
came, or how long it was away. A party that runs acts first; a watcher, and a second one, find the
thing done. What a call costs and who gains by it: docs/ledger.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum

from monetor_chain.statements import keccak256, lock_of

from .codec import B20, B32, U32, U64, U248
from .errors import ProtocolError
from .ledger import (
    Authorised,
    Block,
    ClaimKind,
    CloseRequested,
    GroupClosed,
    LedgerCall,
    LedgerEvent,
    NanoRefund,
    PayerRevealed,
    RefundPosted,
    Refute,
    Refuted,
    Resolve,
    Resolved,
    Reveal,
    Revealed,
)
from .moment import Moment, advance, tip
from .outbox import Note, Outbox, Submit
from .pruning import Horizon
from .records import Records, Table, key248, record
from .sessions import Deadline, due, set_deadline, subject_of
from .watch_packages import (
    Charged,
    Entry,
    Finished,
    Header,
    Kept,
    PackageKind,
    Proof,
    Revoked,
    WatchedGroup,
    unseal,
)

ANSWER_MARGINS = 4
"""A request to close is answered so many safety margins before its notice ends: until then its
owner may come back, answer itself, or hand over a newer package."""

EXPIRY_MARGINS = 2
"""An authorisation is used at the latest so many safety margins before it expires."""

RESOLVE_MARGINS = 2
"""After this many safety margins, a channel that can be resolved is left lying."""

OLD_VIEW_MARGINS = 2
"""A ledger that was not heard of for so many safety margins is caught up with before anything is
decided: what seems due may have been done."""

REVEAL_GAS = 80_000
"""Gas of a session's first `reveal` with the longest proof, at most (docs/ledger.md)."""

WEI_PER_UNIT = 10**9
"""A base unit of the token wraps one gwei of the native coin."""


class Duty(IntEnum):
    """What a deadline reminds the watcher of."""

    DEFEND = 1
    RESOLVE = 2
    REVEAL = 3
    REVEAL_AGAIN = 4
    ANSWER = 5


@record
@dataclass(frozen=True, slots=True)
class TakenPackage:
    """The newest package of a kind from a party, and when the party made it."""

    counter: U64
    digest: B32
    issued: U64


@record
@dataclass(frozen=True, slots=True)
class PostedChannel:
    """A channel that is closing on the ledger; its claim can be refuted until `deadline`."""

    cid: U248
    kind: ClaimKind
    lock: U248
    terms_hash: B32
    deadline: U64


@record
@dataclass(frozen=True, slots=True)
class RequestedChannel:
    """A channel whose close the intermediary has asked for; its owner has until `deadline`."""

    cid: U248
    deadline: U64


@record
@dataclass(frozen=True, slots=True)
class RevealedCount:
    """The payments of a session that are on the ledger."""

    k: U32


@record
@dataclass(frozen=True, slots=True)
class Answer:
    """An end user's authorised claim."""

    account: B20
    claim: Authorised


@record
@dataclass(frozen=True, slots=True)
class KnownSecret:
    """The secret of a lock, which `account`'s intermediary has handed over, or, with no account,
    the ledger has shown; revoked at `since` (Unix seconds)."""

    secret: B32
    since: U64
    account: B20


NOBODY = bytes(20)


@record
@dataclass(frozen=True, slots=True)
class GasPrice:
    """What a unit of gas costs, in wei."""

    wei: U64


def reveal_cost(wei: int) -> int:
    """What a `reveal` costs in base units, rounded up, at a gas price in wei."""
    return -(-wei * REVEAL_GAS // WEI_PER_UNIT)


def answer_time(deadline: int, not_after: int, margin: int) -> int:
    """When a request that runs until `deadline` is answered with an authorisation that is valid
    until `not_after` (Unix seconds)."""
    return min(deadline - ANSWER_MARGINS * margin, not_after - EXPIRY_MARGINS * margin)


class WatcherMachine:
    """The machine of one watcher on the ledger with the EIP-712 `domain`; it holds no key.

    `thrifty`: it reveals a relay's payments only if they are worth more than the gas.
    """

    def __init__(self, domain: bytes, *, thrifty: bool = True) -> None:
        self.domain = domain
        self.thrifty = thrifty

    # --- Packages

    def take(self, records: Records, moment: Moment, data: bytes) -> Outbox:
        """Take over a package; `ProtocolError` if it is not whole, or older than what is here."""
        package = unseal(data, self.domain)
        header = package.header
        key = b"package:" + bytes([header.kind]) + header.account
        taken = TakenPackage(header.counter, keccak256(data), header.issued)
        before = records.get(Table.META, key)
        if isinstance(before, TakenPackage):
            if before.digest == taken.digest:
                return []
            if header.kind is PackageKind.DISPUTES:
                # Each adds, or says what can matter no more: their order makes no difference.
                taken = max(before, taken, key=lambda one: one.counter)
            elif header.counter <= before.counter:
                raise ProtocolError(f"package {header.counter} of {header.kind.name.lower()} is "
                                    f"superseded by package {before.counter}")
        records.put(Table.META, key, taken)
        match header.kind:
            case PackageKind.DISPUTES:
                _take_disputes(records, moment, header.account, package.entries)
            case PackageKind.PROOFS:
                _take_proofs(records, moment, header, package.entries)
            case PackageKind.ANSWERS:
                _take_answers(records, moment, header, package.entries)
        return [Note("package-taken", f"{header.kind.name.lower()} {header.counter}, "
                                      f"{header.entries} entries")]

    def on_gas_price(self, records: Records, wei: int) -> None:
        """Remember what gas costs, in wei; before that is known, no `reveal` is too dear."""
        records.put(Table.META, b"gas-price", GasPrice(wei if self.thrifty else 0))

    # --- Ledger

    def on_ledger(self, records: Records, moment: Moment, event: LedgerEvent) -> Outbox:
        """Follow the ledger; events come in chain order, before the `Block` that confirms them."""
        match event:
            case Block():
                advance(records, event)
            case RefundPosted():
                self._on_posted(records, moment, event)
            case CloseRequested():
                _put_requested(records, RequestedChannel(event.cid, event.deadline))
                _set_answer(records, moment, event.cid, event.deadline)
                _set_resolve(records, moment, event.cid, event.deadline)
            case Revealed():
                records.put(Table.CHAIN_HEAD, event.terms_hash, RevealedCount(event.k_c))
            case PayerRevealed():
                _learn(records, KnownSecret(event.secret, tip(records).timestamp, NOBODY))
                _defend_all(records, moment)
            case Resolved() | Refuted():
                _forget(records, event.cid)
            case GroupClosed():
                for index in range(event.channels.bit_length()):
                    if event.channels >> index & 1:
                        _forget(records, event.group << 8 | index)
        return []

    @staticmethod
    def _on_posted(records: Records, moment: Moment, event: RefundPosted) -> None:
        margin = moment.parameters.safety_margin
        _forget(records, event.cid)
        records.put(Table.CHANNEL, _posted_key(event.cid), PostedChannel(
            event.cid, event.kind, event.lock, event.terms_hash, event.deadline))
        # Its intermediary acts at once if it is there, and a margin later it has acted.
        set_deadline(records, min(moment.now + margin, event.deadline - 2 * margin),
                     Duty.DEFEND, subject_of(event.cid))
        _set_resolve(records, moment, event.cid, event.deadline)

    # --- Time

    def tick(self, records: Records, moment: Moment) -> Outbox:
        """Do what is due; to be called at least every μ / 4 seconds."""
        margin = moment.parameters.safety_margin
        if moment.now - tip(records).timestamp > OLD_VIEW_MARGINS * margin:
            return []
        outbox: Outbox = []
        for deadline in due(records, moment.now):
            outbox += _on_due(records, moment, deadline)
        return outbox

    def wanted(self, records: Records, moment: Moment, call: LedgerCall) -> bool:
        """Whether a transaction that was decided on, and is not on the ledger yet, still may be
        sent: what it stands on can be superseded while the chain does not answer."""
        match call:
            case Authorised():
                return (_requested(records, call.cid) is not None
                        and moment.now <= call.not_after
                        and any(one.claim.signature == call.signature
                                for one in _answers(records, call.cid)))
            case Refute():
                return _posted(records, call.cid) is not None
            case Resolve():
                return (_posted(records, call.cid) or _requested(records, call.cid)) is not None
            case Reveal():
                return call.k > _counted(records, call.terms.nano_terms().hash())
        return True


# --- Decisions -----------------------------------------------------------------------------------


def _on_due(records: Records, moment: Moment, deadline: Deadline) -> Outbox:
    cid = int.from_bytes(deadline.subject[1:], "big")
    match deadline.what:
        case Duty.DEFEND:
            return _defend(records, moment, cid)
        case Duty.RESOLVE:
            return _resolve(records, moment, cid)
        case Duty.REVEAL:
            return _prove(records, moment, deadline.subject, say=True)
        case Duty.REVEAL_AGAIN:
            return _prove(records, moment, deadline.subject, say=False)
        case Duty.ANSWER:
            return _answer(records, moment, cid)
    return []


def _defend(records: Records, moment: Moment, cid: int) -> Outbox:
    """A claim is posted: refute what was revoked, and raise a session's count to what is known."""
    posted = _posted(records, cid)
    if posted is None or tip(records).timestamp > posted.deadline:
        return []
    outbox: Outbox = []
    if _is_watched(records, cid):
        outbox = _refute(records, posted) or _charge(records, posted)
    if not outbox and posted.kind is ClaimKind.NANO and any(
            proof.cid == cid for proof in _proofs(records, posted.terms_hash)):
        # The relay's channel is resolved at the count of then.
        return _prove(records, moment, posted.terms_hash, say=True)
    if outbox:
        set_deadline(records, moment.now + moment.parameters.safety_margin, Duty.DEFEND,
                     subject_of(cid))
    return outbox


def _refute(records: Records, posted: PostedChannel) -> Outbox:
    known = records.get(Table.LOCK, key248(posted.lock))
    if not isinstance(known, KnownSecret):
        return []
    return [Submit(b"refute:" + key248(posted.cid), Refute(posted.cid, known.secret)),
            Note("refuting", "a claim that was revoked")]


def _charge(records: Records, posted: PostedChannel) -> Outbox:
    known = records.get(Table.SESSION, key248(posted.lock))
    if not isinstance(known, Charged) or known.claim.k <= _counted(records, posted.terms_hash):
        return []
    return [_revealing(known.claim), Note("revealing", f"{known.claim.k} payments of a client")]


def _prove(records: Records, moment: Moment, terms_hash: bytes, *, say: bool) -> Outbox:
    """A relay's session is about to expire unclosed, or its channel is posted."""
    outbox: Outbox = []
    counted = _counted(records, terms_hash)
    again = False
    for proof in _proofs(records, terms_hash):
        claim = proof.claim
        if claim.k <= counted:
            continue
        if tip(records).timestamp > claim.terms.t_exp:
            return [Note("too-late", f"{claim.k} payments expired with their session")]
        again = True
        gain = claim.terms.delta_r * (claim.k - counted)
        price = records.get(Table.META, b"gas-price")
        cost = reveal_cost(price.wei) if isinstance(price, GasPrice) else 0
        if gain > cost:
            outbox += [_revealing(claim), Note("revealing", f"{claim.k} payments to a relay")]
        elif say:
            outbox.append(Note("not-worth-the-gas",
                               f"{gain} units, and to reveal them costs {cost}"))
    if again:
        # Until it is on the ledger: a transaction may be lost, and gas become cheaper.
        set_deadline(records, moment.now + max(1, moment.parameters.safety_margin // 4),
                     Duty.REVEAL_AGAIN, terms_hash)
    return outbox


def _revealing(claim: Reveal) -> Submit:
    return Submit(b"reveal:" + claim.terms.nano_terms().hash() + claim.k.to_bytes(4, "big"), claim)


def _answer(records: Records, moment: Moment, cid: int) -> Outbox:
    """A close is asked for and its owner has not answered: use its newest authorisation."""
    requested = _requested(records, cid)
    if requested is None:
        return []
    if tip(records).timestamp > requested.deadline:
        return [Note("too-late", "a request to close went unanswered")]
    margin = moment.parameters.safety_margin
    outbox: Outbox = []
    for one in _answers(records, cid):
        claim = one.claim
        at = answer_time(requested.deadline, claim.not_after, margin)
        if moment.now > claim.not_after:
            outbox.append(Note("authorisation-expired", "a request to close is not answered"))
        elif moment.now < at:
            # A newer package came, which can wait longer.
            set_deadline(records, at, Duty.ANSWER, subject_of(cid))
        else:
            outbox += [Submit(b"answer:" + key248(cid) + one.account, _with_best(records, claim)),
                       Note("answering", "a request to close")]
            set_deadline(records, moment.now + margin, Duty.ANSWER, subject_of(cid))
    return outbox


def _with_best(records: Records, authorised: Authorised) -> Authorised:
    """A session's claim with the most payments that are known here; the signature allows it."""
    call = authorised.call()
    if not isinstance(call, NanoRefund):
        return authorised
    best = max((proof.claim for proof in _proofs(records, call.terms.nano_terms().hash())),
               key=lambda one: one.k, default=None)
    if best is None or best.k <= call.k:
        return authorised
    return Authorised.of(replace(call, k=best.k, hc=best.hc, path=best.path),
                         authorised.public_key, authorised.not_after, authorised.signature)


def _resolve(records: Records, moment: Moment, cid: int) -> Outbox:
    """The intermediary's money lies in a channel whose deadline has passed."""
    channel = _posted(records, cid) or _requested(records, cid)
    if channel is None or not _is_watched(records, cid):
        return []
    late = tip(records).timestamp - channel.deadline
    margin = moment.parameters.safety_margin
    # Should it not succeed, each attempt waits as long as all before it together.
    set_deadline(records, moment.now + max(late, margin), Duty.RESOLVE, subject_of(cid))
    if late <= 0:
        return []
    return [Submit(b"resolve:" + key248(cid), Resolve(cid)), Note("resolving", "a channel")]


# --- What is known -------------------------------------------------------------------------------


def _take_disputes(records: Records, moment: Moment, account: bytes, entries: tuple[Entry, ...]
                   ) -> None:
    for entry in entries:
        match entry:
            case WatchedGroup():
                records.put(Table.GROUP, key248(entry.group), entry)
            case Finished():
                records.delete(Table.GROUP, key248(entry.group))
            case Horizon():
                _forget_before(records, account, entry)
            case Revoked():
                if entry.since >= _horizon(records, account).at:
                    _learn(records, KnownSecret(entry.secret, entry.since, account))
            case Charged():
                key = key248(entry.nwpk)
                before = records.get(Table.SESSION, key)
                if isinstance(records.get(Table.LOCK, key), KnownSecret):
                    continue  # the session is closed: whoever posts it is refuted
                if not isinstance(before, Charged) or before.claim.k < entry.claim.k:
                    records.put(Table.SESSION, key, entry)
    _defend_all(records, moment)


def _learn(records: Records, known: KnownSecret) -> None:
    key = key248(lock_of(known.secret))
    before = records.get(Table.LOCK, key)
    if not isinstance(before, KnownSecret) or before.since < known.since:
        records.put(Table.LOCK, key, known)
    records.delete(Table.SESSION, key)


def _horizon(records: Records, account: bytes) -> Horizon:
    found = records.get(Table.META, b"horizon:" + account)
    return found if isinstance(found, Horizon) else Horizon(0)


def _forget_before(records: Records, account: bytes, horizon: Horizon) -> None:
    """Every channel that these secrets could have been posted on is paid out."""
    if horizon.at <= _horizon(records, account).at:
        return
    records.put(Table.META, b"horizon:" + account, horizon)
    for key, known in list(records.scan(Table.LOCK)):
        if known.account == account and known.since < horizon.at:
            records.delete(Table.LOCK, key)


def _defend_all(records: Records, moment: Moment) -> None:
    for _, posted in list(records.scan(Table.CHANNEL, b"posted:", b"posted;")):
        set_deadline(records, moment.now, Duty.DEFEND, subject_of(posted.cid))
        _set_resolve(records, moment, posted.cid, posted.deadline)
    for _, requested in list(records.scan(Table.CHANNEL, b"requested:", b"requested;")):
        _set_resolve(records, moment, requested.cid, requested.deadline)


def _take_proofs(records: Records, moment: Moment, header: Header, entries: tuple[Entry, ...]
                 ) -> None:
    for key, _ in list(records.scan(Table.PAYMENT)):
        if key.endswith(header.account):
            records.delete(Table.PAYMENT, key)
    margin = moment.parameters.safety_margin
    for entry in entries:
        assert isinstance(entry, Proof), "unseal checks it"
        terms = entry.claim.terms
        terms_hash = terms.nano_terms().hash()
        records.put(Table.PAYMENT, terms_hash + header.account, entry)
        set_deadline(records, max(0, terms.t_exp - margin), Duty.REVEAL, terms_hash)
        if _posted(records, entry.cid) is not None:
            set_deadline(records, moment.now, Duty.DEFEND, subject_of(entry.cid))


def _take_answers(records: Records, moment: Moment, header: Header, entries: tuple[Entry, ...]
                  ) -> None:
    kept = {key248(entry.cid) + header.account for entry in entries if isinstance(entry, Kept)}
    for key, _ in list(records.scan(Table.WALLET)):
        if key.endswith(header.account) and key not in kept:
            records.delete(Table.WALLET, key)
    for entry in entries:
        if not isinstance(entry, Authorised):
            continue
        records.put(Table.WALLET, key248(entry.cid) + header.account,
                    Answer(header.account, entry))
        requested = _requested(records, entry.cid)
        if requested is not None:
            _set_answer(records, moment, entry.cid, requested.deadline)


def _set_answer(records: Records, moment: Moment, cid: int, deadline: int) -> None:
    """Answer in time, with what is there now or will be then."""
    margin = moment.parameters.safety_margin
    times = {answer_time(deadline, one.claim.not_after, margin) for one in _answers(records, cid)}
    for at in times | {deadline - ANSWER_MARGINS * margin}:
        set_deadline(records, max(0, at), Duty.ANSWER, subject_of(cid))


def _set_resolve(records: Records, moment: Moment, cid: int, deadline: int) -> None:
    set_deadline(records, deadline + 1 + RESOLVE_MARGINS * moment.parameters.safety_margin,
                 Duty.RESOLVE, subject_of(cid))


def _posted_key(cid: int) -> bytes:
    return b"posted:" + key248(cid)


def _requested_key(cid: int) -> bytes:
    return b"requested:" + key248(cid)


def _put_requested(records: Records, requested: RequestedChannel) -> None:
    records.put(Table.CHANNEL, _requested_key(requested.cid), requested)


def _posted(records: Records, cid: int) -> PostedChannel | None:
    found = records.get(Table.CHANNEL, _posted_key(cid))
    return found if isinstance(found, PostedChannel) else None


def _requested(records: Records, cid: int) -> RequestedChannel | None:
    found = records.get(Table.CHANNEL, _requested_key(cid))
    return found if isinstance(found, RequestedChannel) else None


def _forget(records: Records, cid: int) -> None:
    records.delete(Table.CHANNEL, _posted_key(cid))
    records.delete(Table.CHANNEL, _requested_key(cid))


def _is_watched(records: Records, cid: int) -> bool:
    return records.get(Table.GROUP, key248(cid >> 8)) is not None


def _counted(records: Records, terms_hash: bytes) -> int:
    found = records.get(Table.CHAIN_HEAD, terms_hash)
    return found.k if isinstance(found, RevealedCount) else 0


def _proofs(records: Records, terms_hash: bytes) -> Iterator[Proof]:
    for _, found in records.scan(Table.PAYMENT, terms_hash, terms_hash + b"\xff" * 21):
        if isinstance(found, Proof):
            yield found


def _answers(records: Records, cid: int) -> Iterator[Answer]:
    for _, found in records.scan(Table.WALLET, key248(cid), key248(cid) + b"\xff" * 21):
        if isinstance(found, Answer):
            yield found
