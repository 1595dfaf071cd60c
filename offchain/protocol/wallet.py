# SPDX-License-Identifier: BSD-3-Clause
"""An end user's channels: which states a wallet can be in, and what each can claim on the ledger.

Each state is a class of its own, so that a step cannot spend a wallet that is in a session. The
rule that keeps an end user whole is `claim`: in every state there is exactly one live claim, and
a secret is revealed only once the claim that replaces it is stored.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

from monetor_chain.statements import Role, lock_of

from ..crypto.issuer import IssuerPublicKey, rerandomise
from . import old_locks
from .codec import B20, B32, U32, U64, U248, Blob, Ecdsa, Path, Scalar, Token
from .errors import ProtocolError
from .ledger import LedgerCall, NanoRefund, Refund, RefundConditional
from .messages import Terms
from .moment import tip
from .records import Records, Table, dump, key248, load, record

NO_TOKEN = bytes(192)
NO_SIGNATURE = bytes(65)


@dataclass(frozen=True, slots=True)
class EndUser:
    """Who an end user's machine acts for, and with which intermediary.

    `account` is the ledger account (20 bytes) that owns the groups, `ctx` the 32-byte context of
    (chain, ledger, intermediary's key), `domain` the ledger's EIP-712 domain separator,
    `tax_rate_bp` the ledger's tax rate in basis points.
    """

    account: bytes
    role: Role
    issuer: IssuerPublicKey
    intermediary: bytes
    key_hash: bytes
    ctx: bytes
    domain: bytes
    tax_rate_bp: int


@record
@dataclass(frozen=True, slots=True)
class KnownIntermediary:
    """An intermediary that this party has checked and works with: what it takes to claim from it.

    `name` is what its operator calls it, `issuer` its public key encoded.
    """

    key_hash: B32
    ctx: B32
    account: B20
    name: Blob
    issuer: Blob


def know_intermediary(records: Records, known: KnownIntermediary) -> None:
    """Remember an intermediary, for as long as the store lasts."""
    records.put(Table.ADDRESS, b"intermediary:" + known.key_hash, known)


def known_intermediaries(records: Records) -> list[KnownIntermediary]:
    """Every intermediary that this party works or has worked with."""
    return [one for _, one in records.scan(Table.ADDRESS, b"intermediary:", b"intermediary;")]


@record
@dataclass(frozen=True, slots=True)
class Next:
    """The wallet that a running step will produce: its secrets and the blinding of its tokens."""

    cid: U248
    nonce: U248
    wsk: B32
    balance: U64
    t_rt: Scalar
    t_pt: Scalar


@record
@dataclass(frozen=True, slots=True)
class Establishing:
    """The channel's first tokens are being issued; nothing is escrowed before `rt` is stored."""

    next: Next
    rt: Token


@record
@dataclass(frozen=True, slots=True)
class Idle:
    """A wallet that can be spent: balance in base units, wallet token pt, refund token rt."""

    cid: U248
    nonce: U248
    wsk: B32
    balance: U64
    pt: Token
    rt: Token
    shown: bool = False
    """The nonce was seen in a request that was refused: beside the cid it would tell whose it was.
    """

    @property
    def wpk(self) -> int:
        """The wallet's lock."""
        return lock_of(self.wsk)


@record
@dataclass(frozen=True, slots=True)
class Spending:
    """A request that spends the wallet is under way; its secret is not revealed."""

    idle: Idle
    session: B32


@record
@dataclass(frozen=True, slots=True)
class InSession:
    """The wallet's value is in a nanopayment session; nrt is stored, the old secret revealed."""

    cid: U248
    session: B32


@record
@dataclass(frozen=True, slots=True)
class Closing:
    """A close of the session is under way; nwsk is not revealed."""

    cid: U248
    session: B32
    next: Next


@record
@dataclass(frozen=True, slots=True)
class Renewing:
    """The new refund token is stored and the old state revoked; the wallet token is to come."""

    next: Next
    rt: Token


@record
@dataclass(frozen=True, slots=True)
class Paying:
    """A hidden payment is under way, and the wallet's own secret is not revealed.

    `conditional` is the payee's conditional refund token once it is verified, with the payer's
    lock and the deadline; it becomes a claim when the payer's secret is known.
    """

    idle: Idle
    next: Next
    conditional: Token
    wpk_c: U248
    t_p: U64
    wsk_c: B32


@record
@dataclass(frozen=True, slots=True)
class Voiding:
    """A hidden payment came to nothing: the payee's wallet is traded for one of equal balance.

    The wallet's own secret is not revealed.
    """

    idle: Idle
    next: Next


@record
@dataclass(frozen=True, slots=True)
class CashingOut:
    """The wallet is shown to the intermediary for a cooperative close; rt still stands."""

    idle: Idle


@record
@dataclass(frozen=True, slots=True)
class Claiming:
    """A claim is on its way to the ledger, and nothing else may happen to the wallet.

    `kind` and `state` are the wallet that stands behind the claim: until the ledger has taken it,
    it may have to be posted again, or, after its time has passed, another one instead.
    """

    cid: U248
    kind: Blob
    state: Blob


@record
@dataclass(frozen=True, slots=True)
class Recalled:
    """An idle wallet out of a backup: it may have been spent since, and is neither spent nor shown
    before the intermediary has said that it was not."""

    idle: Idle


@record
@dataclass(frozen=True, slots=True)
class Stale:
    """A channel out of a backup that the intermediary has gone beyond: the newest secrets are
    lost, and nothing may happen to it any more. `kind` and `state` are the wallet as it was."""

    cid: U248
    kind: Blob
    state: Blob


@record
@dataclass(frozen=True, slots=True)
class Posted:
    """A claim is on the ledger; it is resolved after `deadline`."""

    cid: U248
    deadline: U64


@record
@dataclass(frozen=True, slots=True)
class Settled:
    """The channel is paid out on the ledger."""

    cid: U248
    amount: U64


Wallet: TypeAlias = (
    Establishing | Idle | Spending | InSession | Closing | Renewing | Paying | Voiding | CashingOut
    | Claiming | Recalled | Stale | Posted | Settled
)


@record
@dataclass(frozen=True, slots=True)
class EndUserSession:
    """What both roles must keep of a session to close or claim it.

    `saturated` is B_full: the balance if every payment is made. `k`, `hc` and `path` are the best
    proof of payments that this party holds (a relay's; a client recomputes its own chain).
    """

    terms: Terms
    cid: U248
    nwsk: B32
    rho: Scalar
    saturated: U64
    nrt: Ecdsa


@record
@dataclass(frozen=True, slots=True)
class Proved:
    """Payments that can be proved: k, HC[k] and the path of the checkpoint at or below k."""

    k: U32
    hc: B32
    path: Path


NOTHING = Proved(0, bytes(32), ())


def fresh_nonce() -> int:
    """A nonce in (0, 2^248)."""
    return secrets.randbelow((1 << 248) - 1) + 1


def fresh_secret() -> bytes:
    """A wallet secret, 32 bytes."""
    return secrets.token_bytes(32)


def get(records: Records, cid: int) -> Wallet | None:
    """The wallet of channel `cid`."""
    return records.get(Table.WALLET, key248(cid))


def put(records: Records, cid: int, wallet: Wallet) -> None:
    """Store the wallet of channel `cid`; an idle one out of a backup is to be asked about first."""
    if isinstance(wallet, Idle) and old_locks.fate(records, wallet.wpk) in (
            old_locks.Fate.UNKNOWN, old_locks.Fate.ASKED):
        wallet = Recalled(wallet)
    records.put(Table.WALLET, key248(cid), wallet)


def idle(records: Records, cid: int) -> Idle:
    """The idle wallet of channel `cid`; `ProtocolError` if it is in any other state."""
    wallet = get(records, cid)
    if not isinstance(wallet, Idle):
        state = type(wallet).__name__ if wallet else "unknown"
        raise ProtocolError(f"channel {cid:#x} is not idle but {state}")
    return wallet


@record
@dataclass(frozen=True, slots=True)
class CloseNotice:
    """The intermediary has asked the ledger for a channel's close; its claim waits for the end of
    the hidden payment that is under way, and not beyond `deadline` (Unix seconds)."""

    deadline: U64


def _notice_key(cid: int) -> bytes:
    return b"notice:" + key248(cid)


def put_notice(records: Records, cid: int, notice: CloseNotice | None) -> None:
    """Remember that a channel's close was asked for; with None, that it is answered."""
    if notice is None:
        records.delete(Table.CHANNEL, _notice_key(cid))
    else:
        records.put(Table.CHANNEL, _notice_key(cid), notice)


def noticed(records: Records) -> list[int]:
    """Channels whose close was asked for and not answered yet."""
    return [int.from_bytes(key.removeprefix(b"notice:"), "big")
            for key, _ in records.scan(Table.CHANNEL, b"notice:", b"notice;")]


def spendable(records: Records, cid: int) -> Idle:
    """The idle wallet of `cid`; `ProtocolError` if it is busy or about to be closed.

    A wallet that began something new would have to be claimed in its middle.
    """
    found = idle(records, cid)
    if records.get(Table.CHANNEL, _notice_key(cid)) is not None:
        raise ProtocolError(f"the close of channel {cid:#x} was asked for on the ledger")
    return found


def channel_of(wallet: Wallet) -> int:
    """The channel id of a wallet in any state."""
    match wallet:
        case Establishing() | Renewing():
            return wallet.next.cid
        case Spending() | CashingOut() | Paying() | Voiding() | Recalled():
            return wallet.idle.cid
        case _:
            return wallet.cid


def all_wallets(records: Records) -> list[Wallet]:
    """Every wallet, in order of channel id."""
    return [wallet for _, wallet in records.scan(Table.WALLET)]


def renewed(wallet: Renewing, pt: bytes) -> Idle:
    """The idle wallet that a finished step leaves."""
    return Idle(wallet.next.cid, wallet.next.nonce, wallet.next.wsk, wallet.next.balance, pt,
                wallet.rt)


def claiming(cid: int, wallet: Wallet) -> Claiming:
    """The wallet with its claim on the way to the ledger."""
    if isinstance(wallet, Claiming):
        return wallet
    kind, state = dump(wallet)
    return Claiming(cid, kind.encode(), state)


def stale_state(wallet: Stale) -> Wallet:
    """The wallet as it was in the backup."""
    found: Wallet = load(wallet.kind.decode(), wallet.state)
    return found


def session_of(records: Records, terms_hash: bytes) -> EndUserSession:
    """The session under hash(nT); `ProtocolError` if there is none."""
    session = records.get(Table.SESSION, terms_hash)
    if session is None:
        raise ProtocolError(f"no session has the terms {terms_hash.hex()}")
    found: EndUserSession = session.session if hasattr(session, "session") else session
    return found


def proved(records: Records, terms_hash: bytes) -> Proved:
    """What this party can prove of a session's payments."""
    found = records.get(Table.PAYMENT, terms_hash)
    return found if isinstance(found, Proved) else NOTHING


def claim(records: Records, wallet: Wallet) -> LedgerCall | None:
    """The one live claim of a wallet, or None when nothing is (or remains) escrowed.

    Section 6 of docs/protocol.md: before the old secret leaves, the old claim; after it, the new.
    """
    found = live_claim(records, wallet)
    return None if found is None else rerandomised(found)


def live_claim(records: Records, wallet: Wallet) -> Refund | RefundConditional | NanoRefund | None:
    """`claim` with its token as it was issued, which nobody else may see: see `rerandomised`."""
    match wallet:
        case Idle():
            return Refund(wallet.cid, wallet.wpk, wallet.balance, wallet.rt)
        case Spending() | CashingOut() | Voiding() | Recalled():
            return Refund(wallet.idle.cid, wallet.idle.wpk, wallet.idle.balance, wallet.idle.rt)
        case Paying():
            if wallet.wsk_c != bytes(32) and tip(records).timestamp <= wallet.t_p:
                return RefundConditional(
                    wallet.next.cid, lock_of(wallet.next.wsk), wallet.next.balance,
                    wallet.conditional, wallet.wpk_c, wallet.t_p, wallet.wsk_c,
                )
            return Refund(wallet.idle.cid, wallet.idle.wpk, wallet.idle.balance, wallet.idle.rt)
        case InSession() | Closing():
            session = session_of(records, wallet.session)
            best = proved(records, wallet.session)
            return NanoRefund(session.cid, session.terms, lock_of(session.nwsk), session.saturated,
                              session.rho, session.nrt, best.k, best.hc, best.path)
        case Renewing() | Establishing():
            if wallet.rt == NO_TOKEN:
                return None
            return Refund(wallet.next.cid, lock_of(wallet.next.wsk), wallet.next.balance,
                          wallet.rt)
        case Claiming() | Stale():
            return live_claim(records, load(wallet.kind.decode(), wallet.state))
        case Posted() | Settled():
            return None


Claim = TypeVar("Claim", bound=Refund | RefundConditional | NanoRefund)


def rerandomised(call: Claim) -> Claim:
    """The claim with a token that the intermediary cannot tell from any other it has issued."""
    if isinstance(call, NanoRefund):
        return call
    return replace(call, token=rerandomise(call.token))
