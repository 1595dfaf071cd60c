# SPDX-License-Identifier: BSD-3-Clause
"""An end user that comes up from a backup: what it may do with channels that may have moved on.

Since the backup a wallet may have been spent and its lock revoked; a claim on that lock forfeits
the channel. So nothing of the backup is posted or spent before the intermediary was asked: stored
requests go out again, byte for byte, and are answered from its store; an idle wallet is asked
about with its nonce. A wallet that is unspent goes on, and its first step puts a fresh lock in
place of the old one. One that is spent is `Stale`: its newest secrets are lost.

The intermediary's word is not proof. It decides only what is spent, never what is posted: old
claims are posted in one case, when the close of their channel is asked for and not to answer
forfeits everything as well.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from monetor_chain.statements import lock_of

from . import guard, old_locks, wallet as wallets
from .errors import ProtocolError, RefusalCode
from .messages import NanoSetupRequest, Refusal, Terms, pack
from .moment import Moment
from .old_locks import Fate
from .outbox import Done, Note, Outbox, Request
from .records import Records, Table, dump, key248
from .sessions import ClientSession, RelaySession
from .wallet import (
    NO_TOKEN,
    CashingOut,
    Claiming,
    Closing,
    Establishing,
    Idle,
    InSession,
    Paying,
    Recalled,
    Renewing,
    Spending,
    Stale,
    Voiding,
    Wallet,
)
from .watch_packages import leave_behind

_NO_EPOCH = 0
"""The first epoch of Unix time takes no sessions: a setup in it asks only whether a nonce is
spent, which the intermediary looks at first, and marks nothing."""


# --- Putting back --------------------------------------------------------------------------------


def mark(records: Records, made_at: int) -> list[bytes]:
    """Turn a copy of an end user's records, made at Unix second `made_at`, into a restored store.

    Returns the direct channels that a client is to ask the ledger to close: how much it has paid
    on them since is not known.
    """
    old_locks.set_restored(records, made_at)
    leave_behind(records)
    for wallet in wallets.all_wallets(records):
        cid = wallets.channel_of(wallet)
        for lock in _revocable(records, wallet):
            old_locks.set_fate(records, lock, cid, Fate.UNKNOWN)
        if isinstance(wallet, Idle):
            wallets.put(records, cid, wallet)
    return [key for key, one in records.scan(Table.GUARD) if isinstance(one, guard.PaidGuard)
            and key == one.channel and not one.closing_at]


def _revocable(records: Records, wallet: Wallet) -> list[int]:
    """Locks whose secrets can have been told after this state of the wallet.

    From a wallet that is shown for a cooperative close, or whose claim is on its way to the ledger,
    nothing leads to telling its secret.
    """
    match wallet:
        case Idle():
            return [wallet.wpk]
        case Establishing() | Renewing():
            return [lock_of(wallet.next.wsk)]
        case Spending():
            return [wallet.idle.wpk, _session_lock(records, wallet.session)]
        case InSession():
            return [_session_lock(records, wallet.session)]
        case Closing():
            return [_session_lock(records, wallet.session), lock_of(wallet.next.wsk)]
        case Paying() | Voiding():
            return [wallet.idle.wpk, lock_of(wallet.next.wsk)]
        case Recalled():
            return [wallet.idle.wpk]
        case _:
            return []


def _session_lock(records: Records, terms_hash: bytes) -> int:
    return lock_of(wallets.session_of(records, terms_hash).nwsk)


def close_guards(records: Records, channels: list[bytes]) -> Outbox:
    """Pay on these direct channels no more, and ask for what is left of them."""
    outbox: Outbox = []
    for channel in channels:
        current = guard.paid_guard(records, channel)
        records.put(Table.GUARD, channel, replace(current, seq=guard.NO_VOUCHERS, accepted=False))
        outbox += guard.request_close(records, channel)
    return outbox


# --- Asking --------------------------------------------------------------------------------------


def conversation(cid: int) -> bytes:
    """The conversation in which it is asked whether a wallet is spent."""
    return b"recall:" + key248(cid)


def ask(records: Records, moment: Moment) -> Outbox:
    """Ask about every idle wallet of a backup that was not asked about yet."""
    if old_locks.restored(records) is None:
        return []
    outbox: Outbox = []
    for wallet in wallets.all_wallets(records):
        if isinstance(wallet, Recalled):
            idle = wallet.idle
            if old_locks.fate(records, idle.wpk) is Fate.UNKNOWN:
                old_locks.set_fate(records, idle.wpk, idle.cid, Fate.ASKED)
                outbox.append(_question(moment, idle))
    return outbox


def recall(records: Records, cid: int) -> None:
    """Ask again about a wallet of a backup that was shown for a cash-out which was refused."""
    wallet = wallets.get(records, cid)
    if isinstance(wallet, CashingOut) and old_locks.fate(records, wallet.idle.wpk) is not None:
        old_locks.set_fate(records, wallet.idle.wpk, cid, Fate.UNKNOWN)
        wallets.put(records, cid, wallet.idle)


def _question(moment: Moment, idle: Idle) -> Request:
    parameters = moment.parameters
    terms = Terms(-parameters.price, parameters.delta_r, parameters.n, bytes(32),
                  parameters.lifetime, bytes(32), _NO_EPOCH)
    return Request(conversation(idle.cid), *pack(NanoSetupRequest(
        idle.nonce, terms, 0, bytes(48), bytes(48), bytes(192), bytes(48), b"")))


def on_word(records: Records, cid: int, refusal: Refusal) -> Outbox:
    """The intermediary's word on an idle wallet; it refuses every such request."""
    wallet = wallets.get(records, cid)
    if not isinstance(wallet, Recalled):
        return [Done(conversation(cid))]
    match refusal.code:
        case RefusalCode.REUSED:
            return [Done(conversation(cid)), *give_over(records, cid)]
        case RefusalCode.TERMS:
            old_locks.set_fate(records, wallet.idle.wpk, cid, Fate.UNSPENT)
            wallets.put(records, cid, wallet.idle)
            return [Done(conversation(cid)), Note("wallet-unspent", f"channel {cid & 0xFF}")]
    # Not a word on the wallet: the intermediary lags behind the ledger, or settles only.
    return []


def give_over(records: Records, cid: int) -> Outbox:
    """The intermediary is beyond what this store knows of a channel."""
    wallet = wallets.get(records, cid)
    if wallet is None or isinstance(wallet, Stale):
        return []
    kind, state = dump(wallet)
    wallets.put(records, cid, Stale(cid, kind.encode(), state))
    return [Note("channel-stale", f"channel {cid:#x}: the backup is older than its newest state")]


# --- What is allowed -----------------------------------------------------------------------------


def stands_on_old_lock(records: Records, cid: int) -> bool:
    """Whether the claim of a channel may have been revoked after the backup."""
    wallet = wallets.get(records, cid)
    if wallet is None or isinstance(wallet, Claiming):
        return False
    claim = wallets.live_claim(records, wallet)
    return claim is not None and old_locks.is_old(records, claim)


def awaits_first_token(records: Records, cid: int) -> bool:
    """Whether a channel of a backup has no claim before the intermediary repeats its first reply.
    Since the backup it may have been opened."""
    wallet = wallets.get(records, cid)
    return (isinstance(wallet, Establishing) and wallet.rt == NO_TOKEN
            and old_locks.is_old_secret(records, wallet.next.wsk))


def is_lost(records: Records, cid: int, code: RefusalCode) -> bool:
    """Whether such a refusal says that the intermediary is beyond what the store knows.

    A request that spends a wallet may also be refused for what it says: then the wallet is idle
    again, and is asked about.
    """
    wallet = wallets.get(records, cid)
    if isinstance(wallet, Establishing) and wallet.rt == NO_TOKEN:
        return code is RefusalCode.REUSED and old_locks.restored(records) is not None
    return stands_on_old_lock(records, cid) and (
        code is RefusalCode.REUSED or not isinstance(wallet, Spending | Paying | Voiding))


def require_current(records: Records, terms_hash: bytes) -> None:
    """`ProtocolError` if a session comes out of a backup: it may have been used up since."""
    if is_old_session(records, terms_hash):
        raise ProtocolError("the session comes out of a backup: it is closed, not paid in")


def is_old_session(records: Records, terms_hash: bytes) -> bool:
    """Whether a session of this end user comes out of a backup."""
    session = records.get(Table.SESSION, terms_hash)
    return isinstance(session, ClientSession | RelaySession) and old_locks.is_old_secret(
        records, session.session.nwsk)


def channels_of(records: Records, name: bytes) -> list[int]:
    """The channel that a conversation is about; none for those that are about no wallet yet."""
    kind, _, key = name.partition(b":")
    match kind:
        case b"session":
            session = records.get(Table.SESSION, key)
            if isinstance(session, ClientSession | RelaySession):
                return [session.session.cid]
        case b"pay":
            transfer = records.get(Table.PAYMENT, key)
            if transfer is not None:
                return [transfer.cid]
        case b"establish":
            return [int.from_bytes(key, "big")]
        case b"cash-out":
            return [one.idle.cid for one in wallets.all_wallets(records)
                    if isinstance(one, CashingOut) and key248(one.idle.cid >> 8) == key]
    return []


# --- What became of it ---------------------------------------------------------------------------


class Verdict(StrEnum):
    """How a channel of a backup stands."""

    ASKING = "asking"
    USABLE = "usable"
    RENEWED = "renewed"
    WAITING = "waiting"
    STALE = "stale"
    SETTLED = "settled"


@dataclass(frozen=True, slots=True)
class Standing:
    """One channel; `balance` (base units) is what the backup knows of, None if it is nothing."""

    cid: int
    verdict: Verdict
    balance: int | None


def standings(records: Records) -> list[Standing]:
    """Every channel of a restored store, in order of channel id."""
    return [Standing(wallets.channel_of(one), _verdict(records, one), _balance(records, one))
            for one in wallets.all_wallets(records)]


def _verdict(records: Records, wallet: Wallet) -> Verdict:
    claim = wallets.live_claim(records, wallet)
    match wallet:
        case Stale():
            return Verdict.STALE
        case Recalled():
            return Verdict.ASKING
        case _ if claim is None and not isinstance(wallet, Establishing):
            return Verdict.SETTLED
        case _ if claim is None or not old_locks.is_old(records, claim):
            return Verdict.RENEWED
        case Idle():
            return Verdict.USABLE
    return Verdict.WAITING


def _balance(records: Records, wallet: Wallet) -> int | None:
    match wallet:
        case Stale():
            return _balance(records, wallets.stale_state(wallet))
        case Idle():
            return wallet.balance
        case Recalled() | Spending() | Paying() | Voiding():
            return wallet.idle.balance
        case Renewing() | Establishing():
            return wallet.next.balance
        case InSession() | Closing():
            return wallets.session_of(records, wallet.session).saturated
    return None
