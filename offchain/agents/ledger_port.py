# SPDX-License-Identifier: BSD-3-Clause
"""Between the protocol and the chain: calls become transactions, logs become events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from monetor_chain import authorisations
from monetor_chain.bindings import ledger_events as logs
from monetor_chain.bindings.ledger import Ledger
from monetor_chain.bindings.token import Token
from monetor_chain.sender import Receipt, Sender

from ..crypto.encoding import evm_signature
from ..crypto.issuer import IssuerPublicKey
from ..protocol import ledger as protocol

PERMIT_LIFETIME = 3600
"""Seconds for which the permission to pull an escrow's tokens is valid."""


class LedgerPort:
    """One agent's access to the ledger.

    `account_key` owns channels, `guard_key` (a client's) owns its direct channels and nothing else.
    `issuer_of` tells the key under which one of the agent's own channels is, by its id; None for an
    agent without any.
    """

    def __init__(self, ledger: Ledger, token: Token, sender: Sender, account_key: bytes,
                 issuer_of: Callable[[int], IssuerPublicKey] | None = None, *,
                 guard_sender: Sender | None = None, guard_key: bytes = b"") -> None:
        self._ledger = ledger
        self._token = token
        self._sender = sender
        self._key = account_key
        self._issuer_of = issuer_of
        self._guard_sender = guard_sender or sender
        self._guard_key = guard_key or account_key
        self._permits: dict[bytes, asyncio.Lock] = {}

    async def submit(self, call: protocol.LedgerCall, now: int) -> Receipt:
        """Send one call and wait for its receipt; `ChainError` if it reverts or is not mined."""
        ledger, sender = self._ledger, self._sender
        match call:
            case protocol.Open():
                async with self._permitting(self._key):
                    permit = await self._permit(self._key, call.deposit * call.count, now)
                    return await ledger.open(sender, call.key_hash, call.account, call.role,
                                             call.deposit, call.fund, call.count,
                                             call.dispute_window, call.close_notice, call.rho_e,
                                             call.rho_i, permit=permit)
            case protocol.Fund():
                return await ledger.fund(sender, call.group)
            case protocol.Reclaim():
                return await ledger.reclaim(sender, call.group)
            case protocol.Refund():
                return await ledger.refund(sender, call.cid, self._public_key(call.cid), call.wpk,
                                           call.balance, evm_signature(call.token))
            case protocol.RefundConditional():
                return await ledger.refund_conditional(
                    sender, call.cid, self._public_key(call.cid), call.wpk, call.balance,
                    evm_signature(call.token), call.wpk_c, call.t_p, call.wsk_c)
            case protocol.NanoRefund():
                return await ledger.nano_refund(
                    sender, call.cid, call.terms.nano_terms(), call.nwpk, call.saturated, call.rho,
                    call.nrt, call.k, call.hc, call.path)
            case protocol.Reveal():
                return await ledger.reveal(sender, call.terms.nano_terms(), call.k, call.hc,
                                           call.path)
            case protocol.Refute():
                return await ledger.refute(sender, call.cid, call.secret)
            case protocol.Resolve():
                return await ledger.resolve(sender, call.cid)
            case protocol.Close():
                return await ledger.close(sender, call.group, call.channels, call.total,
                                          call.signature)
            case protocol.RequestClose():
                return await ledger.request_close(sender, call.cid)
            case protocol.Authorised():
                return await self._authorised(call)
            case protocol.OpenGuard():
                async with self._permitting(self._guard_key):
                    permit = await self._permit(self._guard_key, call.deposit, now)
                    return await ledger.open_guard(self._guard_sender, call.payout, call.deposit,
                                                   permit=permit)
            case protocol.ClaimGuard():
                return await ledger.claim_guard(
                    sender, int.from_bytes(call.channel, "big"), call.seq, call.base, call.n,
                    call.hc0, call.root, call.expiry, call.k, call.hc, call.path, call.signature)
            case protocol.RequestCloseGuard():
                return await ledger.request_close_guard(
                    self._guard_sender, int.from_bytes(call.channel, "big"))
            case protocol.CloseGuard():
                return await ledger.close_guard(
                    self._guard_sender, int.from_bytes(call.channel, "big"))

    def _public_key(self, cid: int) -> bytes:
        assert self._issuer_of is not None, "only an owner of channels claims them"
        return self._issuer_of(cid).evm_encoding()

    async def _authorised(self, call: protocol.Authorised) -> Receipt:
        auth = authorisations.Authorisation(call.not_after, call.signature)
        claim = call.call()
        if isinstance(claim, protocol.Refund):
            return await self._ledger.refund(
                self._sender, claim.cid, call.public_key, claim.wpk, claim.balance,
                evm_signature(claim.token), auth)
        return await self._ledger.nano_refund(
            self._sender, claim.cid, claim.terms.nano_terms(), claim.nwpk, claim.saturated,
            claim.rho, claim.nrt, claim.k, claim.hc, claim.path, auth)

    def _permitting(self, key: bytes) -> asyncio.Lock:
        """Held from the signing of a permit until it is mined: a permit carries the account's next
        permit number, so that of two in flight the ledger would refuse the second."""
        return self._permits.setdefault(key, asyncio.Lock())

    async def _permit(self, key: bytes, amount: int, now: int) -> authorisations.Permit:
        if not amount:
            return authorisations.NO_PERMIT
        return await self._token.sign_permit(key, self._ledger.address, amount,
                                             now + PERMIT_LIFETIME)


def _raw(address: str) -> bytes:
    return bytes.fromhex(address.removeprefix("0x"))


def translate(event: logs.LedgerEvent) -> protocol.LedgerEvent | None:
    """The protocol's form of a log; None for logs that no machine needs."""
    match event:
        case logs.Opened():
            return protocol.Opened(event.group, event.dispute_window, event.close_notice)
        case logs.Funded():
            return protocol.Funded(event.group)
        case logs.Reclaimed():
            return protocol.Reclaimed(event.group)
        case logs.RefundPosted():
            return protocol.RefundPosted(event.cid, protocol.ClaimKind(event.kind), event.lock,
                                         event.balance, event.deadline, event.terms_hash)
        case logs.PayerRevealed():
            return protocol.PayerRevealed(event.cid, event.lock, event.secret)
        case logs.Revealed():
            return protocol.Revealed(event.terms_hash, event.k_c, event.k_r, event.hc,
                                     tuple(event.path))
        case logs.Refuted():
            return protocol.Refuted(event.cid, event.secret)
        case logs.Resolved():
            return protocol.Resolved(event.cid, event.to_account, event.to_intermediary, event.tax)
        case logs.GroupClosed():
            return protocol.GroupClosed(event.group, event.channels, event.total, event.tax)
        case logs.CloseRequested():
            return protocol.CloseRequested(event.cid, event.deadline)
        case logs.GuardOpened():
            return protocol.GuardOpened(event.gid.to_bytes(32, "big"), _raw(event.client),
                                        _raw(event.payout), event.deposit, event.price)
        case logs.GuardClaimed():
            return protocol.GuardClaimed(event.gid.to_bytes(32, "big"), event.claimed)
        case logs.GuardCloseRequested():
            return protocol.GuardCloseRequested(event.gid.to_bytes(32, "big"), event.deadline)
        case logs.GuardClosed():
            return protocol.GuardClosed(event.gid.to_bytes(32, "big"))
    return None
