# SPDX-License-Identifier: BSD-3-Clause
"""Every protocol message with its PCMD, the number that names it in a payment cell (figure 3).

A request to the intermediary and its reply have neighbouring numbers. `REQUESTS` lists what an
intermediary answers; the other messages pass between a client and a relay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from monetor_chain.statements import NanoTerms, Role

from .codec import (
    B20,
    B32,
    G1,
    G2,
    I64,
    U8,
    U16,
    U32,
    U64,
    U248,
    Ecdsa,
    Many,
    Path,
    Proof,
    Scalar,
    Token,
    decode,
    encode,
)
from .errors import ProtocolError, RefusalCode, Refused


@dataclass(frozen=True, slots=True)
class Terms:
    """nT on the wire; see `monetor_chain.statements.NanoTerms`."""

    delta_c: I64
    delta_r: U64
    n: U32
    hc0: B32
    t_exp: U64
    root: B32
    epoch: U64

    def nano_terms(self) -> NanoTerms:
        """The same terms as the ledger and the proofs hash them."""
        return NanoTerms(self.delta_c, self.delta_r, self.n, self.hc0, self.t_exp, self.root,
                         self.epoch)

    @classmethod
    def of(cls, terms: NanoTerms) -> Terms:
        """The wire form of `terms`."""
        return cls(terms.delta_c, terms.delta_r, terms.n, terms.hc0, terms.t_exp, terms.root,
                   terms.epoch)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The intermediary (or a relay) does not do what was asked; `code` is a `RefusalCode`."""

    PCMD: ClassVar[int] = 0x01
    code: RefusalCode
    about: U8
    """PCMD of the refused request."""

    @classmethod
    def of(cls, error: ProtocolError, about: int) -> Refusal:
        """The refusal that tells a peer about `error`, without its text."""
        code = error.code if isinstance(error, Refused) else RefusalCode.MALFORMED
        return cls(code, about)


# --- Establish (section IV-A, "Micropayment channels"; groups of channels) ------------------------


@dataclass(frozen=True, slots=True)
class GroupRequest:
    """E→I: the group that E would open. Amounts in base units, each channel."""

    PCMD: ClassVar[int] = 0x10
    account: B20
    role: Role
    deposit: U64
    fund: U64
    count: U16
    rho_e: B32


@dataclass(frozen=True, slots=True)
class GroupReply:
    """I→E: the intermediary's half of the group's randomness."""

    PCMD: ClassVar[int] = 0x11
    rho_i: B32


@dataclass(frozen=True, slots=True)
class EstablishRequest:
    """E→I: requests for a channel's first refund and wallet tokens, with proof of opening."""

    PCMD: ClassVar[int] = 0x12
    cid: U248
    d_rt: G2
    d_pt: G2
    proof: Proof


@dataclass(frozen=True, slots=True)
class EstablishReply:
    """I→E: blind refund token."""

    PCMD: ClassVar[int] = 0x13
    rt: Token


@dataclass(frozen=True, slots=True)
class OpenedRequest:
    """E→I: the group is open and funded; the channel's wallet token, please."""

    PCMD: ClassVar[int] = 0x14
    cid: U248


@dataclass(frozen=True, slots=True)
class OpenedReply:
    """I→E: blind wallet token."""

    PCMD: ClassVar[int] = 0x15
    pt: Token


# --- Nano-Setup (algorithm 2) --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NanoSetupRequest:
    """C→I: spend a wallet into a session; statement and proof as `crypto.nano_setup`."""

    PCMD: ClassVar[int] = 0x20
    nonce: U248
    terms: Terms
    nwpk: U248
    com: G1
    commitment: G1
    sigma: Token
    k: G1
    proof: Proof


@dataclass(frozen=True, slots=True)
class NanoRefundReply:
    """I→E: nrt, the ECDSA signature over (role, hash(nT), nwpk, N)."""

    PCMD: ClassVar[int] = 0x21
    nrt: Ecdsa


@dataclass(frozen=True, slots=True)
class NanoSetupReveal:
    """C→I: revoke the spent wallet: its secret and the opening of `com`."""

    PCMD: ClassVar[int] = 0x22
    nonce: U248
    wsk: B32
    r: Scalar


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """I→E: the revocation is accepted and the session has moved on."""

    PCMD: ClassVar[int] = 0x23


# --- Nano-Establish (algorithm 3) ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NanoOffer:
    """C→R: the terms of a set-up session that C wants to pay R with."""

    PCMD: ClassVar[int] = 0x28
    terms: Terms
    intermediary: B32


@dataclass(frozen=True, slots=True)
class NanoAccepted:
    """R→C: the session is established; payments are welcome."""

    PCMD: ClassVar[int] = 0x29
    terms_hash: B32


@dataclass(frozen=True, slots=True)
class NanoEstablishRequest:
    """R→I: put the relay's wallet behind the session's relay leg."""

    PCMD: ClassVar[int] = 0x2A
    nonce: U248
    terms_hash: B32
    nwpk: U248
    com: G1
    commitment: G1
    sigma: Token
    k: G1
    proof: Proof


@dataclass(frozen=True, slots=True)
class NanoEstablishReveal:
    """R→I: revoke the relay's spent wallet."""

    PCMD: ClassVar[int] = 0x2C
    nonce: U248
    wsk: B32
    r: Scalar


# --- Nano-Pay (algorithm 4) ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NanoPayment:
    """C→R: one payment, HC[k]; the path travels when 16 divides k."""

    PCMD: ClassVar[int] = 0x30
    k: U32
    hc: B32
    path: Path


# --- Nano-Close (algorithm 5) --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RelayCloseRequest:
    """R→I: close the relay leg at k payments."""

    PCMD: ClassVar[int] = 0x38
    terms_hash: B32
    k: U32
    hc: B32
    path: Path
    d_rt: G2
    d_pt: G2
    proof: Proof


@dataclass(frozen=True, slots=True)
class RefundTokenReply:
    """I→E: blind refund token of the wallet to come."""

    PCMD: ClassVar[int] = 0x39
    rt: Token


@dataclass(frozen=True, slots=True)
class RelayCloseReveal:
    """R→I: nwsk_R revokes the relay leg."""

    PCMD: ClassVar[int] = 0x3A
    terms_hash: B32
    nwsk: B32


@dataclass(frozen=True, slots=True)
class WalletTokenReply:
    """I→E: blind wallet token of the new wallet."""

    PCMD: ClassVar[int] = 0x3B
    pt: Token


@dataclass(frozen=True, slots=True)
class ClientCloseQuery:
    """C→I: how many payments does the session close at?

    A relay knows the terms that it was offered. The lock is known to C and I alone, so that nobody
    else makes a session void, or learns its count.
    """

    PCMD: ClassVar[int] = 0x40
    terms_hash: B32
    nwpk: U248


@dataclass(frozen=True, slots=True)
class ClientCloseCount:
    """I→C: k*, and the preimage that proves it."""

    PCMD: ClassVar[int] = 0x41
    k: U32
    hc: B32
    path: Path


@dataclass(frozen=True, slots=True)
class ClientCloseRequest:
    """C→I: close the client leg at k* payments."""

    PCMD: ClassVar[int] = 0x42
    terms_hash: B32
    k: U32
    d_rt: G2
    d_pt: G2
    proof: Proof


@dataclass(frozen=True, slots=True)
class ClientCloseReveal:
    """C→I: nwsk_C revokes the client leg."""

    PCMD: ClassVar[int] = 0x44
    terms_hash: B32
    nwsk: B32


# --- Pay (hidden micropayment; section IV-A and footnote 7) ---------------------------------------


@dataclass(frozen=True, slots=True)
class PayQuery:
    """E→I: until when would a hidden payment made now be valid?"""

    PCMD: ClassVar[int] = 0x4E


@dataclass(frozen=True, slots=True)
class PayTerms:
    """I→E: T_p, Unix seconds."""

    PCMD: ClassVar[int] = 0x4F
    t_p: U64


@dataclass(frozen=True, slots=True)
class PayerRequest:
    """C→I: the payer's leg."""

    PCMD: ClassVar[int] = 0x50
    nonce: U248
    wpk: U248
    t_p: U64
    sigma: Token
    k: G1
    v: G1
    d_rt: G2
    d_pt: G2
    proof: Proof


@dataclass(frozen=True, slots=True)
class PayeeRequest:
    """R→I: the payee's leg, joined to the payer's by V."""

    PCMD: ClassVar[int] = 0x52
    nonce: U248
    wpk: U248
    t_p: U64
    wpk_c: U248
    sigma: Token
    k: G1
    v: G1
    d_rt: G2
    d_pt: G2
    proof: Proof


@dataclass(frozen=True, slots=True)
class PayInvoice:
    """C→R: the amount, the blinding of V, the deadline and the payer's lock."""

    PCMD: ClassVar[int] = 0x54
    amount: U64
    s: Scalar
    t_p: U64
    wpk_c: U248


@dataclass(frozen=True, slots=True)
class PayVerified:
    """R→C: the conditional refund token verifies ("crt verified")."""

    PCMD: ClassVar[int] = 0x55
    wpk_c: U248


@dataclass(frozen=True, slots=True)
class PaySecret:
    """C→R: wsk_C, which completes the payment."""

    PCMD: ClassVar[int] = 0x56
    wsk: B32


@dataclass(frozen=True, slots=True)
class PayerReveal:
    """C→I: wsk_C; answered with pt'_C."""

    PCMD: ClassVar[int] = 0x58
    nonce: U248
    wsk: B32


@dataclass(frozen=True, slots=True)
class PayeeClaim:
    """R→I: wsk_C; answered with the unconditional rt'_R."""

    PCMD: ClassVar[int] = 0x5A
    nonce: U248
    wsk_c: B32


@dataclass(frozen=True, slots=True)
class PayeeReveal:
    """R→I: wsk_R; answered with pt'_R."""

    PCMD: ClassVar[int] = 0x5C
    nonce: U248
    wsk: B32


@dataclass(frozen=True, slots=True)
class PayeeVoid:
    """R→I: the payment did not happen before T_p; a new wallet over the old balance, please.

    Answered with its refund token; `PayeeReveal` then gives up the old wallet.
    """

    PCMD: ClassVar[int] = 0x5E
    nonce: U248
    d_rt: G2
    d_pt: G2
    proof: Proof


# --- Cash-out ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CashOutWallet:
    """One idle wallet in clear; the token is re-randomised."""

    index: U8
    nonce: U248
    wpk: U248
    balance: U64
    pt: Token


@dataclass(frozen=True, slots=True)
class CashOutRequest:
    """E→I: close these channels of a group together."""

    PCMD: ClassVar[int] = 0x70
    group: U248
    wallets: Annotated[tuple[CashOutWallet, ...], Many(128)]


@dataclass(frozen=True, slots=True)
class CashOutReply:
    """I→E: the intermediary's signature over (group, channels, total)."""

    PCMD: ClassVar[int] = 0x71
    signature: Ecdsa


# --- Guard channel (direct, transparent) ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GuardQuery:
    """C→guard: which fresh payout address shall the direct channel have?"""

    PCMD: ClassVar[int] = 0x60


@dataclass(frozen=True, slots=True)
class GuardPayout:
    """Guard→C: the payout address."""

    PCMD: ClassVar[int] = 0x61
    payout: B20


@dataclass(frozen=True, slots=True)
class GuardVoucher:
    """C→guard: a signed chain; worth base + k·price once HC[k] is known."""

    PCMD: ClassVar[int] = 0x62
    channel: B32
    seq: U64
    base: U64
    n: U32
    hc0: B32
    root: B32
    expiry: U64
    signature: Ecdsa


@dataclass(frozen=True, slots=True)
class GuardAccepted:
    """Guard→C: payments on the chain of voucher `seq` are welcome."""

    PCMD: ClassVar[int] = 0x63
    channel: B32
    seq: U64


@dataclass(frozen=True, slots=True)
class GuardPayment:
    """C→guard: one payment, HC[k]; the path travels when 16 divides k."""

    PCMD: ClassVar[int] = 0x64
    k: U32
    hc: B32
    path: Path


MESSAGES: dict[int, type[Any]] = {
    kind.PCMD: kind
    for kind in (
        Refusal, GroupRequest, GroupReply, EstablishRequest, EstablishReply, OpenedRequest,
        OpenedReply, NanoSetupRequest, NanoRefundReply, NanoSetupReveal, Acknowledged, NanoOffer,
        NanoAccepted, NanoEstablishRequest, NanoEstablishReveal, NanoPayment, RelayCloseRequest,
        RefundTokenReply, RelayCloseReveal, WalletTokenReply, ClientCloseQuery, ClientCloseCount,
        ClientCloseRequest, ClientCloseReveal, PayQuery, PayTerms, PayerRequest, PayeeRequest,
        PayInvoice, PayVerified, PaySecret, PayerReveal, PayeeClaim, PayeeReveal, PayeeVoid,
        CashOutRequest, CashOutReply, GuardQuery, GuardPayout, GuardVoucher,
        GuardAccepted, GuardPayment,
    )
}
"""PCMD → message type."""


def pack(message: Any) -> tuple[int, bytes]:
    """(PCMD, payload) of a message, as the transport carries it."""
    return message.PCMD, encode(message)


def unpack(pcmd: int, payload: bytes) -> Any:
    """The message that (PCMD, payload) is; `ProtocolError` names what is wrong with it."""
    kind = MESSAGES.get(pcmd)
    if kind is None:
        raise ProtocolError(f"no message has the PCMD {pcmd:#04x}")
    return decode(kind, payload)
