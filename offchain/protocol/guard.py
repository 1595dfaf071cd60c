# SPDX-License-Identifier: BSD-3-Clause
"""The direct, transparent channel between a client and its guard.

The guard knows its client anyway, so nothing is hidden and no intermediary stands between: the
client escrows, signs a voucher for a hash chain, and pays by revealing preimages. When a chain is
used up, a voucher with a higher base replaces it. The channel outlives circuits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from monetor_chain.statements import (
    CHECKPOINT_STRIDE,
    MAX_PAYMENTS,
    MIN_PAYMENTS,
    typed_digest,
    voucher_struct,
)

from ..crypto.ecdsa import recover, sign
from ..crypto.errors import CryptoError
from ..crypto.hash_chain import HashChain
from .codec import B20, B32, U32, U64
from .errors import ProtocolError
from .ledger import (
    ClaimGuard,
    CloseGuard,
    GuardClaimed,
    GuardClosed,
    GuardCloseRequested,
    GuardOpened,
    OpenGuard,
    RequestCloseGuard,
)
from .messages import (
    GuardAccepted,
    GuardPayment,
    GuardPayout,
    GuardQuery,
    GuardVoucher,
    Terms,
    pack,
)
from .moment import Moment
from .nano_pay import chain_of, check_payment
from .outbox import Note, Outbox, Submit, Tell
from .records import Records, Table, record
from .wallet import NOTHING, Proved

NO_CHANNEL = bytes(32)


def _terms(voucher: GuardVoucher, price: int) -> Terms:
    """A voucher's chain in the form that `check_payment` reads."""
    return Terms(-price, price, voucher.n, voucher.hc0, voucher.expiry, voucher.root, 0)


def voucher_digest(domain: bytes, voucher: GuardVoucher) -> bytes:
    """What the client signs."""
    return typed_digest(domain, voucher_struct(
        int.from_bytes(voucher.channel, "big"), voucher.seq, voucher.base, voucher.n, voucher.hc0,
        voucher.root, voucher.expiry))


# --- Client --------------------------------------------------------------------------------------


NO_VOUCHERS = 0
"""`seq` of a channel that was opened by mistake: no voucher is made for it."""


@record
@dataclass(frozen=True, slots=True)
class PaidGuard:
    """A client's direct channel. `sent` payments on the chain of voucher `seq`."""

    channel: B32
    payout: B20
    deposit: U64
    price: U64
    seq: U64
    base: U64
    n: U32
    seed: B32
    expiry: U64
    sent: U32
    accepted: bool
    closing_at: U64
    """When the rest can be taken back; 0 while nobody has asked."""


@record
@dataclass(frozen=True, slots=True)
class PendingGuard:
    """A direct channel whose opening is on its way to the ledger."""

    payout: B20
    deposit: U64


def query(session: bytes) -> Outbox:
    """Ask the guard for a fresh payout address; `session` names the link."""
    return [Tell(session, *pack(GuardQuery()))]


def on_payout(records: Records, deposit: int, message: GuardPayout) -> Outbox:
    """Open the channel to the address that the guard named."""
    records.put(Table.GUARD, b"pending:" + message.payout, PendingGuard(message.payout, deposit))
    return [Submit(b"open-guard:" + message.payout, OpenGuard(message.payout, deposit))]


def on_opened_client(records: Records, moment: Moment, account: bytes, event: GuardOpened
                     ) -> Outbox:
    """The channel exists: its gid and price come from the ledger.

    One that nobody waits for was opened by a transaction that was sent again after a crash, having
    been mined before: nothing is ever paid on it, and its deposit is asked back at once.
    """
    if event.client != account or records.get(Table.GUARD, event.channel) is not None:
        return []
    pending = records.get(Table.GUARD, b"pending:" + event.payout)
    wanted = isinstance(pending, PendingGuard)
    records.delete(Table.GUARD, b"pending:" + event.payout)
    chain = HashChain.generate(moment.parameters.n)
    records.put(Table.GUARD, event.channel, PaidGuard(
        event.channel, event.payout, event.deposit, event.price, 1 if wanted else NO_VOUCHERS, 0,
        moment.parameters.n, chain.seed, guard_expiry(moment), 0, False, 0))
    if not wanted:
        return [*request_close(records, event.channel),
                Note("guard-opened-twice", f"deposit {event.deposit} units")]
    return [Note("guard-open", f"deposit {event.deposit} units")]


def guard_expiry(moment: Moment) -> int:
    """Expiry of a voucher made now: as uniform as a session's."""
    parameters = moment.parameters
    return (moment.now // parameters.epoch + 1) * parameters.epoch + parameters.lifetime


def paid_guard(records: Records, channel: bytes) -> PaidGuard:
    """The client's direct channel; `ProtocolError` if there is none."""
    found = records.get(Table.GUARD, channel)
    if not isinstance(found, PaidGuard):
        raise ProtocolError("this client has no such direct channel")
    return found


def voucher(records: Records, key: bytes, domain: bytes, channel: bytes) -> Outbox:
    """Send (again) the voucher of the current chain; `key` is the client's account key."""
    current = paid_guard(records, channel)
    chain = chain_of(current.seed, current.n)
    unsigned = GuardVoucher(channel, current.seq, current.base, current.n, chain.hc0, chain.root,
                            current.expiry, bytes(65))
    signed = replace(unsigned, signature=sign(voucher_digest(domain, unsigned), key))
    return [Tell(channel, *pack(signed))]


def roll_over(records: Records, moment: Moment, channel: bytes) -> None:
    """Start a new chain on top of everything that the old one paid."""
    current = paid_guard(records, channel)
    chain = HashChain.generate(moment.parameters.n)
    records.put(Table.GUARD, channel, replace(
        current, seq=current.seq + 1, base=current.base + current.sent * current.price,
        n=moment.parameters.n, seed=chain.seed, expiry=guard_expiry(moment), sent=0,
        accepted=False))


def on_accepted(records: Records, message: GuardAccepted) -> Outbox:
    """The guard takes payments on the current chain."""
    current = paid_guard(records, message.channel)
    if message.seq == current.seq:
        records.put(Table.GUARD, message.channel, replace(current, accepted=True))
    return []


def guard_left(records: Records, moment: Moment, channel: bytes) -> int:
    """How many payments the current chain, its expiry and the deposit allow now."""
    current = paid_guard(records, channel)
    if (not current.accepted or current.closing_at
            or moment.now >= current.expiry - 2 * moment.parameters.safety_margin):
        return 0
    affordable = (current.deposit - current.base) // current.price - current.sent
    return max(0, min(current.n - current.sent, affordable))


def pay_guard(records: Records, moment: Moment, channel: bytes) -> Outbox:
    """Reveal the next preimage. The count is stored before the preimage leaves."""
    if not guard_left(records, moment, channel):
        raise ProtocolError("the direct channel cannot pay now")
    current = paid_guard(records, channel)
    k = current.sent + 1
    chain = chain_of(current.seed, current.n)
    path = chain.path(k) if k % CHECKPOINT_STRIDE == 0 else ()
    records.put(Table.GUARD, channel, replace(current, sent=k))
    return [Tell(channel, *pack(GuardPayment(k, chain.value(k), path)))]


def request_close(records: Records, channel: bytes) -> Outbox:
    """Ask the ledger for the rest; the guard has its window to claim."""
    paid_guard(records, channel)
    return [Submit(b"close-guard-request:" + channel, RequestCloseGuard(channel))]


def on_close_requested(records: Records, event: GuardCloseRequested) -> Outbox:
    """Remember when the rest can be taken."""
    current = records.get(Table.GUARD, event.channel)
    if isinstance(current, PaidGuard):
        records.put(Table.GUARD, event.channel, replace(current, closing_at=event.deadline))
    return []


def close_due(records: Records, now: int, channel: bytes) -> Outbox:
    """Take the rest once the guard's window is over."""
    current = paid_guard(records, channel)
    if not current.closing_at or now <= current.closing_at:
        return []
    return [Submit(b"close-guard:" + channel, CloseGuard(channel))]


# --- Guard ---------------------------------------------------------------------------------------


@record
@dataclass(frozen=True, slots=True)
class EarningGuard:
    """A guard's side of a direct channel: the voucher with the best claim, and its proof."""

    channel: B32
    client: B20
    payout: B20
    deposit: U64
    price: U64
    claimed: U64
    closing_at: U64
    voucher: GuardVoucher
    best: Proved
    received: U64
    """Payments received over all vouchers."""


_NO_VOUCHER = GuardVoucher(NO_CHANNEL, 0, 0, 0, NO_CHANNEL, NO_CHANNEL, 0, bytes(65))


def earning_guard(records: Records, channel: bytes) -> EarningGuard:
    """The guard's direct channel; `ProtocolError` if there is none."""
    found = records.get(Table.GUARD, channel)
    if not isinstance(found, EarningGuard):
        raise ProtocolError("this guard has no such direct channel")
    return found


@record
@dataclass(frozen=True, slots=True)
class PayoutKey:
    """The key of a payout address that this guard named to one client."""

    key: B32


def remember_payout(records: Records, payout: bytes, key: bytes) -> None:
    """Store a fresh payout address's key before the address is named."""
    records.put(Table.ADDRESS, payout, PayoutKey(key))


def payout_key(records: Records, payout: bytes) -> bytes | None:
    """The key of one of this guard's payout addresses."""
    found = records.get(Table.ADDRESS, payout)
    return found.key if isinstance(found, PayoutKey) else None


def on_opened_guard(records: Records, event: GuardOpened) -> Outbox:
    """A client escrowed to an address of ours."""
    if payout_key(records, event.payout) is None or records.get(Table.GUARD, event.channel):
        return []
    records.put(Table.GUARD, event.channel, EarningGuard(
        event.channel, event.client, event.payout, event.deposit, event.price, 0, 0, _NO_VOUCHER,
        NOTHING, 0))
    return []


def on_voucher(records: Records, domain: bytes, moment: Moment, message: GuardVoucher) -> Outbox:
    """Take a voucher whose base covers everything proved so far."""
    current = earning_guard(records, message.channel)
    accepted = [Tell(message.channel, *pack(GuardAccepted(message.channel, message.seq)))]
    if message == current.voucher:
        return list(accepted)
    try:
        signer = recover(voucher_digest(domain, message), message.signature)
    except CryptoError as error:
        raise ProtocolError(f"voucher: {error}") from error
    if signer != current.client:
        raise ProtocolError("voucher: the signature is not the channel's client's")
    if message.seq <= current.voucher.seq or message.base < owed(current):
        raise ProtocolError("voucher: it does not continue the one before")
    if moment.now >= message.expiry - 2 * moment.parameters.safety_margin:
        raise ProtocolError("voucher: its expiry is too near")
    if message.base > current.deposit or message.n & (message.n - 1) or not (
            MIN_PAYMENTS <= message.n <= MAX_PAYMENTS):
        # Outside these bounds the ledger would refuse every claim.
        raise ProtocolError("voucher: base or n is out of range")
    records.put(Table.GUARD, message.channel, replace(current, voucher=message, best=NOTHING))
    return list(accepted)


def owed(current: EarningGuard) -> int:
    """base + k · price: what the guard can claim in all."""
    return current.voucher.base + current.best.k * current.price


def on_guard_payment(records: Records, moment: Moment, channel: bytes, payment: GuardPayment
                     ) -> int:
    """Accept a payment within deposit and expiry; returns how many were received in all."""
    current = earning_guard(records, channel)
    if moment.now >= current.voucher.expiry - 2 * moment.parameters.safety_margin:
        raise ProtocolError("the payment comes too near the voucher's expiry")
    if owed(current) + current.price > current.deposit:
        raise ProtocolError("the deposit of the direct channel is used up")
    if current.closing_at:
        raise ProtocolError("the direct channel is closing")
    best = check_payment(_terms(current.voucher, current.price), current.best, payment)
    records.put(Table.GUARD, channel, replace(current, best=best, received=current.received + 1))
    return current.received + 1


def claim_guard(records: Records, channel: bytes) -> Outbox:
    """Claim everything proved so far; nothing happens if it is claimed already."""
    current = earning_guard(records, channel)
    if owed(current) <= current.claimed:
        return []
    one, best = current.voucher, current.best
    # Every count is a purpose of its own: an earlier claim that is not mined yet must not stand in
    # for this one.
    key = channel + one.seq.to_bytes(8, "big") + best.k.to_bytes(4, "big")
    return [Submit(b"claim-guard:" + key, ClaimGuard(
        channel, one.seq, one.base, one.n, one.hc0, one.root, one.expiry, best.k, best.hc,
        best.path, one.signature))]


def on_claimed(records: Records, event: GuardClaimed) -> Outbox:
    """The ledger paid a claim."""
    current = records.get(Table.GUARD, event.channel)
    if isinstance(current, EarningGuard):
        records.put(Table.GUARD, event.channel, replace(current, claimed=event.amount))
    return []


def on_close_requested_guard(records: Records, event: GuardCloseRequested) -> Outbox:
    """The client wants its rest: claim now, while the window lasts."""
    current = records.get(Table.GUARD, event.channel)
    if not isinstance(current, EarningGuard):
        return []
    records.put(Table.GUARD, event.channel, replace(current, closing_at=event.deadline))
    return claim_guard(records, event.channel)


def on_closed(records: Records, event: GuardClosed) -> Outbox:
    """The channel is gone."""
    current = records.get(Table.GUARD, event.channel)
    if isinstance(current, PaidGuard | EarningGuard):
        records.delete(Table.GUARD, event.channel)
        records.put(Table.GUARD, b"closed:" + event.channel, current)
        return [Note("guard-closed", "paid out")]
    return []
