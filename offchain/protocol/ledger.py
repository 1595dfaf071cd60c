# SPDX-License-Identifier: BSD-3-Clause
"""The ledger as the protocol sees it: calls to submit, events to hear of.

`monetor_chain` turns calls into transactions and logs into events; the fields are the contract's
(docs/ledger.md). Amounts in base units, times in Unix seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

from monetor_chain.statements import Role

from .codec import B20, B32, U16, U32, U64, U248, U256, Blob, Ecdsa, Path, Scalar, Token
from .errors import ProtocolError
from .messages import Terms
from .records import dump, load, record


class ClaimKind(IntEnum):
    """How a closing channel was claimed, numbered as in the ledger's events."""

    REFUND = 2
    CONDITIONAL = 3
    NANO = 4


# --- Calls ---------------------------------------------------------------------------------------


@record
@dataclass(frozen=True, slots=True)
class Open:
    """Init-E: open a group and escrow count · deposit, if the windows, in seconds, are in force."""

    group: U248
    key_hash: B32
    account: B20
    role: Role
    deposit: U64
    fund: U64
    count: U16
    dispute_window: U64
    close_notice: U64
    rho_e: B32
    rho_i: B32


@record
@dataclass(frozen=True, slots=True)
class Fund:
    """Init-I: fund a group from the intermediary's vault."""

    group: U248


@record
@dataclass(frozen=True, slots=True)
class Reclaim:
    """Take back the deposits of a group that was never funded."""

    group: U248


@record
@dataclass(frozen=True, slots=True)
class Refund:
    """Close a channel with a refund token (re-randomised)."""

    cid: U248
    wpk: U248
    balance: U64
    token: Token


@record
@dataclass(frozen=True, slots=True)
class RefundConditional:
    """Close a payee's channel with a conditional refund token and the payer's secret."""

    cid: U248
    wpk: U248
    balance: U64
    token: Token
    wpk_c: U248
    t_p: U64
    wsk_c: B32


@record
@dataclass(frozen=True, slots=True)
class NanoRefund:
    """Nano-Refund (algorithm 6): close a channel in session, at k proved payments."""

    cid: U248
    terms: Terms
    nwpk: U248
    saturated: U64
    rho: Scalar
    nrt: Ecdsa
    k: U32
    hc: B32
    path: Path


@record
@dataclass(frozen=True, slots=True)
class Reveal:
    """Put a session's number of payments on record."""

    terms: Terms
    k: U32
    hc: B32
    path: Path


@record
@dataclass(frozen=True, slots=True)
class Refute:
    """Nano-Refute (algorithm 7): the posted state was revoked; its secret proves it."""

    cid: U248
    secret: B32


@record
@dataclass(frozen=True, slots=True)
class Resolve:
    """Nano-Resolve (algorithm 8): pay out a channel whose deadline has passed."""

    cid: U248


@record
@dataclass(frozen=True, slots=True)
class Close:
    """Cooperative close of the channels in a bitmap."""

    group: U248
    channels: U256
    total: U64
    signature: Ecdsa


@record
@dataclass(frozen=True, slots=True)
class RequestClose:
    """The intermediary asks E to close a channel, against a bond."""

    cid: U248


@record
@dataclass(frozen=True, slots=True)
class Authorised:
    """E's claim on a channel, which anybody may submit until `not_after` (Unix seconds).

    `kind` and `claim` are the claim as a record; `public_key` is the intermediary's in EIP-2537
    encoding, 768 bytes. E's `signature` covers everything but a session's k, hc and path.
    """

    cid: U248
    kind: Blob
    claim: Blob
    public_key: Blob
    not_after: U64
    signature: Ecdsa

    @classmethod
    def of(cls, claim: Refund | NanoRefund, public_key: bytes, not_after: int, signature: bytes
           ) -> Authorised:
        """The claim with E's signature."""
        kind, data = dump(claim)
        return cls(claim.cid, kind.encode(), data, public_key, not_after, signature)

    def call(self) -> Refund | NanoRefund:
        """What E claims; `ProtocolError` if it is no claim on this channel."""
        found = load(self.kind.decode("ascii", "replace"), self.claim)
        if not isinstance(found, Refund | NanoRefund) or found.cid != self.cid:
            raise ProtocolError("the authorised call is no claim on its channel")
        return found


@record
@dataclass(frozen=True, slots=True)
class OpenGuard:
    """Open a direct channel to a guard's payout address."""

    payout: B20
    deposit: U64


@record
@dataclass(frozen=True, slots=True)
class ClaimGuard:
    """Claim base + k · price on a direct channel with the client's voucher."""

    channel: B32
    seq: U64
    base: U64
    n: U32
    hc0: B32
    root: B32
    expiry: U64
    k: U32
    hc: B32
    path: Path
    signature: Ecdsa


@record
@dataclass(frozen=True, slots=True)
class RequestCloseGuard:
    """The client wants a direct channel closed; the guard has the dispute window to claim."""

    channel: B32


@record
@dataclass(frozen=True, slots=True)
class CloseGuard:
    """Pay the rest of a direct channel back to the client."""

    channel: B32


LedgerCall: TypeAlias = (
    Open | Fund | Reclaim | Refund | RefundConditional | NanoRefund | Reveal | Refute | Resolve
    | Close | RequestClose | Authorised | OpenGuard | ClaimGuard | RequestCloseGuard | CloseGuard
)


# --- Events --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Opened:
    """A group is escrowed by E; the windows are pinned for its life."""

    group: int
    dispute_window: int
    close_notice: int


@dataclass(frozen=True, slots=True)
class Funded:
    """A group is funded by I: its channels are open."""

    group: int


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """A half-open group is gone."""

    group: int


@dataclass(frozen=True, slots=True)
class RefundPosted:
    """A channel is closing. `lock` is the posted wpk or nwpk; `terms_hash` is zero unless NANO."""

    cid: int
    kind: ClaimKind
    lock: int
    balance: int
    deadline: int
    terms_hash: bytes


@dataclass(frozen=True, slots=True)
class PayerRevealed:
    """A conditional refund was posted on channel `cid`; it made the payer's secret public."""

    cid: int
    lock: int
    secret: bytes


@dataclass(frozen=True, slots=True)
class Revealed:
    """The record of a session's payments grew: k_C and k_R, with the preimage of k_C."""

    terms_hash: bytes
    k_c: int
    k_r: int
    hc: bytes
    path: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Refuted:
    """A revoked state was posted; everything went to the intermediary."""

    cid: int
    secret: bytes


@dataclass(frozen=True, slots=True)
class Resolved:
    """A channel is paid out."""

    cid: int
    to_account: int
    to_intermediary: int
    tax: int


@dataclass(frozen=True, slots=True)
class GroupClosed:
    """Channels in the bitmap are paid out together."""

    group: int
    channels: int
    total: int
    tax: int


@dataclass(frozen=True, slots=True)
class CloseRequested:
    """The intermediary asks E to close; E has until `deadline`."""

    cid: int
    deadline: int


@dataclass(frozen=True, slots=True)
class GuardOpened:
    """A direct channel exists."""

    channel: bytes
    client: bytes
    payout: bytes
    deposit: int
    price: int


@dataclass(frozen=True, slots=True)
class GuardClaimed:
    """A guard's claim was paid: `amount` in all so far."""

    channel: bytes
    amount: int


@dataclass(frozen=True, slots=True)
class GuardCloseRequested:
    """The client wants the direct channel closed after `deadline`."""

    channel: bytes
    deadline: int


@dataclass(frozen=True, slots=True)
class GuardClosed:
    """The direct channel is gone; the client got the rest."""

    channel: bytes


@dataclass(frozen=True, slots=True)
class Block:
    """A block has the required confirmations; all its events were delivered before."""

    number: int
    timestamp: int
    hash: bytes = bytes(32)


LedgerEvent: TypeAlias = (
    Opened | Funded | Reclaimed | RefundPosted | PayerRevealed | Revealed | Refuted | Resolved
    | GroupClosed | CloseRequested | GuardOpened | GuardClaimed | GuardCloseRequested | GuardClosed
    | Block
)
