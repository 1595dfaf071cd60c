# SPDX-License-Identifier: BSD-3-Clause
"""What the parties remember of channels, sessions and hidden payments in `offchain_model`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from monetor_chain.rehearsal import PaymentChain
from monetor_chain.statements import NanoTerms, Role

from .ledger_book import Right

INTERMEDIARY = "intermediary"


class Weakness(Enum):
    """A rule that an honest party does not keep; each costs somebody money."""

    TOKEN_BEFORE_FUNDS = "I gives payment tokens for a group that it has not funded"
    NO_REVEAL_FOR_POSTED_CLIENTS = "I's watcher does not reveal for posted client legs"
    NO_REFUTATION = "I's watcher does not refute"
    POSTED_LOCK_AT_SETUP = "I ignores a posted lock at Setup"
    POSTED_LOCK_AT_PAY = "I ignores a posted lock at Pay 1 and 4"
    LATE_REVEAL = "R reveals after T_exp"
    NOT_ESTABLISHING = "nrt_R is given without the state establishing"
    ESTABLISH_AFTER_CLOSE = "I establishes a session whose client leg is closed"
    LATE_RELAY_CLOSE = "I closes with R after T_exp at any k"
    CLOSING_IS_CLOSED = "relay_closing is taken for relay_closed"
    CLOSE_FROM_SETTING_UP = "I closes with C before it has wsk_C"
    TWO_LIVE_LOCKS = "I answers a second close request with another lock"
    LATE_T_P = "T_p lies beyond the payer's dispute window"
    UNCONDITIONAL = "Pay 2 gives the payee an unconditional token"
    OTHER_LOCK = "the payee's unconditional token has another lock than its conditional one"
    NOT_VERIFIED = "C reveals before the payee has its token"
    SILENT_ON_REQUEST = "E does not answer a request to close"
    OLD_TOKEN_ON_REQUEST = "E answers with the token before the newest"


@dataclass(eq=False)
class Wallet:
    """One channel as its end user knows it."""

    cid: int
    group: int
    owner: str
    role: Role
    deposit: int
    room: int
    safe: Right
    """What an honest owner would post now."""
    rights: list[Right] = field(default_factory=list)
    spendable: bool = False
    """The owner has a payment token whose nonce is not marked."""
    ended: bool = False
    """The owner has posted, or let somebody post, so it says nothing more about this channel."""

    @property
    def balance(self) -> int:
        return self.safe.balance

    def __str__(self) -> str:
        return f"{self.owner} {(self.cid >> 8) % 1_000}/{self.cid & 255}"


class Stage(Enum):
    SETTING_UP = 0
    SETUP = 1
    ESTABLISHING = 2
    ESTABLISHED = 3
    RELAY_CLOSING = 4
    RELAY_CLOSED = 5
    VOID = 6


class Leg(Enum):
    OPEN = 0
    CLOSING = 1
    CLOSED = 2


@dataclass(eq=False)
class Session:
    terms: NanoTerms
    chain: PaymentChain
    client: Wallet
    client_right: Right
    relay: Wallet | None = None
    relay_right: Right | None = None
    stage: Stage = Stage.SETTING_UP
    leg: Leg = Leg.OPEN
    old_secret_c: bytes = b""
    old_secret_r: bytes = b""
    client_bound: bool = False
    """The client has revoked the wallet before the session."""
    relay_bound: bool = False
    established: bool = False
    """The relay has the intermediary's word that the session stands."""
    acked: bool = False
    sent: int = 0
    received: int = 0
    stored: int = 0
    stored_at: int = 0
    relay_refund: Right | None = None
    client_refund: Right | None = None
    doubled: bool = False
    relay_asked: bool = False


@dataclass(eq=False)
class Payment:
    """A hidden payment between two wallets of clients."""

    payer: Wallet
    payee: Wallet
    amount: int
    fee: int
    t_p: int
    old_payer: Right
    old_payee: Right
    payer_refund: Right
    conditional: Right
    payee_refund: Right | None = None
    verified: bool = False
    """The payee says, or pretends, that it has its conditional token."""
    delivered: bool = False
    revealed: bool = False
    told_payee: bool = False
    counted: bool = False
    accepted: bool = False
    """The intermediary learnt the payer's secret while its lock was not posted."""
    finished: bool = False
    void: bool = False


@dataclass(eq=False)
class GuardLink:
    """A direct channel between a client and its guard."""

    gid: int
    client: str
    chain: PaymentChain
    seq: int
    base: int
    expiry: int
    sent: int = 0
    accepted: int = 0
    accepted_total: int = 0
