# SPDX-License-Identifier: BSD-3-Clause
"""What every field of every message, ledger call and ledger event tells those who see it.

A field that is not in this table fails the tests, and so does one whose values behave otherwise
than its class here promises.
"""

from __future__ import annotations

import dataclasses
import typing
from enum import StrEnum
from typing import Any

from offchain.protocol import ledger as calls, messages as m


class Tells(StrEnum):
    """What a value has in common with others. The last five repeat by design."""

    NOTHING = "nothing"
    """Fresh randomness, or hidden by it: no such value ever occurs twice."""
    NETWORK = "network"
    """The same for everybody, or a small number that any two users share: codes, roles, an index,
    the terms' prices, expiry and epoch, the intermediary's key."""
    AMOUNT = "amount"
    """Units or payments, told in clear because the protocol settles by them."""
    TIME = "time"
    """A deadline or moment in Unix seconds that follows from the network's parameters, from the
    intermediary's word or from the time of a block."""
    SESSION = "session"
    """One session: both legs, setup and close, and its claim if it ends on the ledger."""
    WALLET = "wallet"
    """One spending of one wallet: request and reveal, or a token and its nonce and lock."""
    LOCK = "lock"
    """A wallet's or a session's lock or secret, whichever was posted."""
    PAYMENT = "payment"
    """The two legs of one hidden payment."""
    CHANNEL = "channel"
    """One group: its opening, its cash-out and claims, and its owner's account."""
    GUARD = "guard"
    """One direct channel between a client and its guard, who know each other."""


BY_DESIGN = frozenset((Tells.SESSION, Tells.WALLET, Tells.LOCK, Tells.PAYMENT, Tells.CHANNEL,
                       Tells.GUARD))

_N, _NET, _A, _T = Tells.NOTHING, Tells.NETWORK, Tells.AMOUNT, Tells.TIME
_S, _W, _L, _P, _C, _G = (Tells.SESSION, Tells.WALLET, Tells.LOCK, Tells.PAYMENT, Tells.CHANNEL,
                          Tells.GUARD)

_TERMS = {"terms.delta_c": _NET, "terms.delta_r": _NET, "terms.n": _NET, "terms.hc0": _S,
          "terms.t_exp": _NET, "terms.root": _S, "terms.epoch": _NET}
_PROVED = {"k": _A, "hc": _S, "path": _S}
_REQUESTED = {"d_rt": _N, "d_pt": _N, "proof": _N}
_SPENT = {"nwpk": _S, "com": _N, "commitment": _S, "sigma": _N, "k": _N, "proof": _N}
_LEG = {"nonce": _W, "wpk": _W, "t_p": _T, "sigma": _N, "k": _N, "v": _P, **_REQUESTED}

MESSAGES: dict[str, dict[str, Tells]] = {
    "Refusal": {"code": _NET, "about": _NET},
    "GroupRequest": {"account": _C, "role": _NET, "deposit": _A, "fund": _A, "count": _A,
                     "rho_e": _C},
    "GroupReply": {"rho_i": _C},
    "EstablishRequest": {"cid": _C, **_REQUESTED},
    "EstablishReply": {"rt": _N},
    "OpenedRequest": {"cid": _C},
    "OpenedReply": {"pt": _N},
    "NanoSetupRequest": {"nonce": _W, **_TERMS, **_SPENT},
    "NanoRefundReply": {"nrt": _S},
    "NanoSetupReveal": {"nonce": _W, "wsk": _W, "r": _N},
    "Acknowledged": {},
    "NanoOffer": {**_TERMS, "intermediary": _NET},
    "NanoAccepted": {"terms_hash": _S},
    "NanoEstablishRequest": {"nonce": _W, "terms_hash": _S, **_SPENT},
    "NanoEstablishReveal": {"nonce": _W, "wsk": _W, "r": _N},
    "NanoPayment": _PROVED,
    "RelayCloseRequest": {"terms_hash": _S, **_PROVED, **_REQUESTED},
    "RefundTokenReply": {"rt": _N},
    "RelayCloseReveal": {"terms_hash": _S, "nwsk": _S},
    "WalletTokenReply": {"pt": _N},
    "ClientCloseQuery": {"terms_hash": _S, "nwpk": _S},
    "ClientCloseCount": _PROVED,
    "ClientCloseRequest": {"terms_hash": _S, "k": _A, **_REQUESTED},
    "ClientCloseReveal": {"terms_hash": _S, "nwsk": _S},
    "PayQuery": {},
    "PayTerms": {"t_p": _T},
    "PayerRequest": _LEG,
    "PayeeRequest": {**_LEG, "wpk_c": _W},
    "PayInvoice": {"amount": _A, "s": _N, "t_p": _T, "wpk_c": _W},
    "PayVerified": {"wpk_c": _W},
    "PaySecret": {"wsk": _W},
    "PayerReveal": {"nonce": _W, "wsk": _W},
    "PayeeClaim": {"nonce": _W, "wsk_c": _W},
    "PayeeReveal": {"nonce": _W, "wsk": _W},
    "PayeeVoid": {"nonce": _W, **_REQUESTED},
    "CashOutRequest": {"group": _C, "wallets.index": _NET, "wallets.nonce": _W, "wallets.wpk": _W,
                       "wallets.balance": _A, "wallets.pt": _N},
    "CashOutReply": {"signature": _C},
    "GuardQuery": {},
    "GuardPayout": {"payout": _G},
    "GuardVoucher": {"channel": _G, "seq": _NET, "base": _A, "n": _NET, "hc0": _G, "expiry": _NET,
                     "root": _G, "signature": _G},
    "GuardAccepted": {"channel": _G, "seq": _NET},
    "GuardPayment": {"k": _A, "hc": _G, "path": _G},
}

CALLS: dict[str, dict[str, Tells]] = {
    "Open": {"group": _C, "key_hash": _NET, "account": _C, "role": _NET, "deposit": _A,
             "fund": _A, "count": _A, "dispute_window": _NET, "close_notice": _NET, "rho_e": _C,
             "rho_i": _C},
    "Fund": {"group": _C},
    "Reclaim": {"group": _C},
    "Refund": {"cid": _C, "wpk": _W, "balance": _A, "token": _N},
    "RefundConditional": {"cid": _C, "wpk": _W, "balance": _A, "token": _N, "wpk_c": _W,
                          "t_p": _T, "wsk_c": _W},
    "NanoRefund": {"cid": _C, **_TERMS, "nwpk": _S, "saturated": _A, "rho": _N, "nrt": _S,
                   **_PROVED},
    "Reveal": {**_TERMS, **_PROVED},
    "Refute": {"cid": _C, "secret": _L},
    "Resolve": {"cid": _C},
    "Close": {"group": _C, "channels": _A, "total": _A, "signature": _C},
    "RequestClose": {"cid": _C},
    "Authorised": {"cid": _C, "kind": _NET, "claim": _L, "public_key": _NET, "not_after": _T,
                   "signature": _N},
    "OpenGuard": {"payout": _G, "deposit": _A},
    "ClaimGuard": {"channel": _G, "seq": _NET, "base": _A, "n": _NET, "hc0": _G, "root": _G,
                   "expiry": _NET, **{name: _A if name == "k" else _G for name in _PROVED},
                   "signature": _G},
    "RequestCloseGuard": {"channel": _G},
    "CloseGuard": {"channel": _G},
}

EVENTS: dict[str, dict[str, Tells]] = {
    "KeyRegistered": {"key_hash": _NET, "owner": _NET, "index": _NET},
    "VaultChanged": {"intermediary": _NET, "balance": _A},
    "Withdrawn": {"account": _C, "amount": _A},
    "Opened": {"group": _C, "key_hash": _NET, "account": _C, "role": _NET, "deposit": _A,
               "fund": _A, "count": _A, "dispute_window": _NET, "close_notice": _NET},
    "Funded": {"group": _C},
    "Reclaimed": {"group": _C, "amount": _A},
    "RefundPosted": {"cid": _C, "kind": _NET, "lock": _L, "balance": _A, "deadline": _T,
                     "terms_hash": _S},
    "PayerRevealed": {"cid": _C, "lock": _W, "secret": _W},
    "Revealed": {"terms_hash": _S, "k_c": _A, "k_r": _A, "hc": _S, "path": _S},
    "Refuted": {"cid": _C, "secret": _L},
    "Resolved": {"cid": _C, "to_account": _A, "to_intermediary": _A, "tax": _A},
    "GroupClosed": {"group": _C, "channels": _A, "total": _A, "to_intermediary": _A, "tax": _A},
    "CloseRequested": {"cid": _C, "deadline": _T, "bond": _NET},
    "BondSettled": {"cid": _C, "answered": _NET, "amount": _A},
    "GuardOpened": {"gid": _G, "client": _G, "payout": _G, "deposit": _A, "price": _NET,
                    "dispute_window": _NET},
    "GuardClaimed": {"gid": _G, "claimed": _A, "to_payout": _A, "tax": _A},
    "GuardCloseRequested": {"gid": _G, "deadline": _T},
    "GuardClosed": {"gid": _G, "to_client": _A},
}

TABLE = {**MESSAGES, **CALLS, **{f"event {name}": fields for name, fields in EVENTS.items()}}


def declared(kind: type[Any], prefix: str = "") -> dict[str, Any]:
    """Field → annotation of a message or call; nested fields as "terms.hc0"."""
    found = {}
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        if name not in {one.name for one in dataclasses.fields(kind)}:
            continue
        inner = typing.get_args(typing.get_args(hint)[0]) if typing.get_origin(hint) else ()
        nested = next((one for one in (hint, *inner) if dataclasses.is_dataclass(one)), None)
        if nested is None:
            found[prefix + name] = hint
        else:
            assert isinstance(nested, type)
            found |= declared(nested, f"{prefix}{name}.")
    return found


def values(item: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """(field, value) of a message, call or event; several for a field of several values."""
    pairs = (item.items() if isinstance(item, dict)
             else ((one.name, getattr(item, one.name)) for one in dataclasses.fields(item)))
    found: list[tuple[str, Any]] = []
    for name, value in pairs:
        for one in value if isinstance(value, tuple | list) else (value,):
            if dataclasses.is_dataclass(one):
                found += values(one, f"{prefix}{name}.")
            else:
                found.append((prefix + name, one))
    return found


MESSAGE_TYPES = {kind.__name__: kind for kind in m.MESSAGES.values()}
CALL_TYPES = {kind.__name__: kind for kind in typing.get_args(calls.LedgerCall)}
