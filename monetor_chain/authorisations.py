# SPDX-License-Identifier: BSD-3-Clause
"""What an end user signs so that somebody else may submit his call to the ledger.

Each function signs one call: the ledger takes it from anybody until `not_after` (Unix seconds).
The arguments covered are those of docs/ledger.md; a watcher may still choose k, hc and path.
`domain` is `statements.domain_separator` of the ledger.
"""

from __future__ import annotations

from dataclasses import dataclass

import coincurve

from .accounts import address_of
from .statements import (
    NanoTerms,
    Role,
    address_word,
    authorisation_struct,
    hash_words,
    keccak256,
    typed_digest,
    word,
)


@dataclass(frozen=True, slots=True)
class Authorisation:
    """An end user's permission: the last second of its validity and a 65-byte signature."""

    not_after: int
    signature: bytes


@dataclass(frozen=True, slots=True)
class Permit:
    """A token permit (ERC-2612) over `value` units, valid until `deadline`."""

    value: int
    deadline: int
    signature: bytes


NO_AUTHORISATION = Authorisation(0, b"")
"""For calls that the end user submits himself."""

NO_PERMIT = Permit(0, 0, b"")
"""For calls that need no allowance or have one already."""

_PERMIT_TYPE = keccak256(
    b"Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"
)
_NO_ARGUMENTS = keccak256(b"")


def sign_digest(private_key: bytes, digest: bytes) -> bytes:
    """secp256k1 signature r || s || v (v 27 or 28, s in the lower half) on 32 bytes."""
    raw = coincurve.PrivateKey(private_key).sign_recoverable(digest, hasher=None)
    return raw[:64] + bytes([raw[64] + 27])


def arguments_of_open(
    key_hash: bytes,
    account: str | bytes,
    role: Role,
    deposit: int,
    fund: int,
    count: int,
    dispute_window: int,
    close_notice: int,
    rho_e: bytes,
    rho_i: bytes,
) -> bytes:
    """Hash of the arguments of `open` that the end user authorises; the windows in seconds."""
    return hash_words(
        key_hash,
        address_word(account),
        int(role),
        deposit,
        fund,
        count,
        dispute_window,
        close_notice,
        rho_e,
        rho_i,
    )


def arguments_of_refund(cid: int, wpk: int, balance: int, token: bytes) -> bytes:
    """Hash of the arguments of `refund`; `token` in EIP-2537 encoding."""
    return hash_words(cid, wpk, balance, keccak256(token))


def arguments_of_refund_conditional(
    cid: int, wpk: int, balance: int, token: bytes, wpk_c: int, t_p: int, wsk_c: bytes
) -> bytes:
    """Hash of the arguments of `refund_conditional`."""
    return hash_words(cid, wpk, balance, keccak256(token), wpk_c, t_p, wsk_c)


def arguments_of_nano_refund(
    cid: int, terms: NanoTerms, nwpk: int, b_full: int, rho: int, signature: bytes
) -> bytes:
    """Hash of the arguments of `nano_refund`, also for each claim of a batch."""
    return hash_words(cid, terms.hash(), nwpk, b_full, rho, keccak256(signature))


def arguments_of_close(group: int, channels: int, total: int, signature: bytes) -> bytes:
    """Hash of the arguments of `close`."""
    return hash_words(group, channels, total, keccak256(signature))


def authorise(
    private_key: bytes,
    domain: bytes,
    action: str,
    identifier: int,
    arguments: bytes,
    not_after: int,
) -> Authorisation:
    """Sign one call. `identifier`: group id for open, reclaim and close, else the channel id."""
    struct = authorisation_struct(action, identifier, arguments, not_after)
    return Authorisation(not_after, sign_digest(private_key, typed_digest(domain, struct)))


def authorise_open(
    private_key: bytes, domain: bytes, group: int, arguments: bytes, not_after: int
) -> Authorisation:
    """Let anybody open `group`, with `arguments_of_open`, from the signer's tokens."""
    return authorise(private_key, domain, "open", group, arguments, not_after)


def authorise_reclaim(
    private_key: bytes, domain: bytes, group: int, not_after: int
) -> Authorisation:
    """Let anybody reclaim a group that was never funded."""
    return authorise(private_key, domain, "reclaim", group, _NO_ARGUMENTS, not_after)


def authorise_refund(
    private_key: bytes,
    domain: bytes,
    cid: int,
    wpk: int,
    balance: int,
    token: bytes,
    not_after: int,
) -> Authorisation:
    """Let anybody post this refund token."""
    arguments = arguments_of_refund(cid, wpk, balance, token)
    return authorise(private_key, domain, "refund", cid, arguments, not_after)


def authorise_refund_conditional(
    private_key: bytes,
    domain: bytes,
    cid: int,
    wpk: int,
    balance: int,
    token: bytes,
    wpk_c: int,
    t_p: int,
    wsk_c: bytes,
    not_after: int,
) -> Authorisation:
    """Let anybody post this conditional refund token with the payer's secret."""
    arguments = arguments_of_refund_conditional(cid, wpk, balance, token, wpk_c, t_p, wsk_c)
    return authorise(private_key, domain, "refund_conditional", cid, arguments, not_after)


def authorise_nano_refund(
    private_key: bytes,
    domain: bytes,
    cid: int,
    terms: NanoTerms,
    nwpk: int,
    b_full: int,
    rho: int,
    signature: bytes,
    not_after: int,
) -> Authorisation:
    """Let anybody close a channel in session, with whatever (k, hc, path) proves most."""
    arguments = arguments_of_nano_refund(cid, terms, nwpk, b_full, rho, signature)
    return authorise(private_key, domain, "nano_refund", cid, arguments, not_after)


def authorise_close(
    private_key: bytes,
    domain: bytes,
    group: int,
    channels: int,
    total: int,
    signature: bytes,
    not_after: int,
) -> Authorisation:
    """Let anybody submit this cooperative close."""
    arguments = arguments_of_close(group, channels, total, signature)
    return authorise(private_key, domain, "close", group, arguments, not_after)


def sign_permit(
    private_key: bytes, token_domain: bytes, spender: str, value: int, nonce: int, deadline: int
) -> Permit:
    """A permit (ERC-2612) for `spender` over `value` units of the signer's tokens.

    `token_domain` is the token's EIP-712 domain separator, `nonce` the signer's permit nonce.
    """
    struct = keccak256(
        _PERMIT_TYPE
        + word(address_word(address_of(private_key)))
        + word(address_word(spender))
        + word(value)
        + word(nonce)
        + word(deadline)
    )
    return Permit(
        value, deadline, sign_digest(private_key, typed_digest(token_domain, struct))
    )
