# SPDX-License-Identifier: BSD-3-Clause
"""The ledger: keys, vaults, channel groups, claims, guard channels (`contracts/Ledger.vy`).

Amounts are in token base units, times in Unix seconds of the chain. Keys and tokens are in
EIP-2537 encoding (768 and 512 bytes), ECDSA signatures are 65 bytes r || s || v.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any

from ..abi import Function
from ..authorisations import NO_AUTHORISATION, NO_PERMIT, Authorisation, Permit
from ..sender import Receipt, Sender
from ..statements import NanoTerms, Role
from .contract import Contract
from .ledger_events import (
    EVENT_CLASSES as EVENT_CLASSES,
    BondSettled as BondSettled,
    CloseRequested as CloseRequested,
    EventBatch as EventBatch,
    Funded as Funded,
    GroupClosed as GroupClosed,
    GuardClaimed as GuardClaimed,
    GuardClosed as GuardClosed,
    GuardCloseRequested as GuardCloseRequested,
    GuardOpened as GuardOpened,
    KeyRegistered as KeyRegistered,
    LedgerEvent as LedgerEvent,
    LedgerEvents as LedgerEvents,
    Opened as Opened,
    PayerRevealed as PayerRevealed,
    Reclaimed as Reclaimed,
    RefundKind as RefundKind,
    RefundPosted as RefundPosted,
    Refuted as Refuted,
    Resolved as Resolved,
    Revealed as Revealed,
    VaultChanged as VaultChanged,
    Withdrawn as Withdrawn,
    decode_events as decode_events,
)

_TERMS = "(int256,uint256,uint256,bytes32,uint256,bytes32,uint256)"
_AUTH = "(uint256,bytes)"
_PERMIT = "(uint256,uint256,bytes)"
_NANO_CLAIM = (
    f"(uint256,{_TERMS},uint256,uint256,uint256,bytes,uint256,bytes32,bytes32[],{_AUTH})"
)

FUNCTIONS = {
    function.name: function
    for function in (
        Function("register_key(bytes,bytes32)", "(bytes32)"),
        Function("deposit_vault(uint256)"),
        Function("withdraw_vault(uint256)"),
        Function("withdraw()", "(uint256)"),
        Function(
            "open(bytes32,address,uint256,uint256,uint256,uint256,uint256,uint256,bytes32,bytes32,"
            f"{_AUTH},{_PERMIT})",
            "(uint256)",
        ),
        Function("fund(uint256)"),
        Function(f"reclaim(uint256,{_AUTH})"),
        Function(f"refund(uint256,bytes,uint256,uint256,bytes,{_AUTH})"),
        Function(
            "refund_conditional(uint256,bytes,uint256,uint256,bytes,uint256,uint256,bytes32,"
            f"{_AUTH})"
        ),
        Function(f"nano_refund{_NANO_CLAIM}"),
        Function(f"batch_nano_refund({_NANO_CLAIM}[])"),
        Function(f"reveal({_TERMS},uint256,bytes32,bytes32[])"),
        Function("refute(uint256,bytes32)"),
        Function("resolve(uint256)"),
        Function(f"close(uint256,uint256,uint256,bytes,{_AUTH})"),
        Function("request_close(uint256)"),
        Function(f"open_guard(address,uint256,{_PERMIT})", "(uint256)"),
        Function(
            "claim_guard(uint256,uint256,uint256,uint256,bytes32,bytes32,uint256,uint256,"
            "bytes32,bytes32[],bytes)"
        ),
        Function("request_close_guard(uint256)"),
        Function("close_guard(uint256)"),
        Function("intermediary(bytes32)", "(address)"),
        Function("context(bytes32)", "(bytes32)"),
        Function("vault(address)", "(uint256)"),
        Function("credit(address)", "(uint256)"),
        Function(
            "group(uint256)",
            "((uint256,address,address,uint256,uint256,uint256,uint256,uint256,uint256,uint256,"
            "uint256))",
        ),
        Function("channel(uint256)", "((uint256,uint256,uint256,uint256,bytes32))"),
        Function("claims(bytes32)", "(uint256,uint256)"),
        Function(
            "guard(uint256)",
            "((uint256,address,address,uint256,uint256,uint256,uint256,uint256))",
        ),
        Function("token()", "(address)"),
        Function("tax_pool()", "(address)"),
        Function("consensus()", "(address)"),
        Function("tax_rate_bp()", "(uint256)"),
    )
}
"""Every function that this class calls, by name."""

_ZERO_ADDRESS = "0x" + "0" * 40


class GroupState(IntEnum):
    """State of a channel group."""

    HALF_OPEN = 1
    OPEN = 2
    PARTLY_RESOLVED = 3
    ENDED = 4


class ChannelStatus(IntEnum):
    """Status of a channel."""

    NONE = 0
    REQUESTED = 1
    CLOSING_REFUND = 2
    CLOSING_SESSION = 3
    HALF_OPEN = 4
    OPEN = 5
    RESOLVED = 6


class GuardState(IntEnum):
    """State of a direct channel."""

    OPEN = 1
    CLOSING = 2
    CLOSED = 3


@dataclass(frozen=True, slots=True)
class GroupView:
    """A group's record. `resolved` has bit i set when channel i is resolved."""

    state: GroupState
    account: str
    intermediary: str
    key_index: int
    role: Role
    deposit: int
    fund: int
    count: int
    dispute_window: int
    close_notice: int
    resolved: int


@dataclass(frozen=True, slots=True)
class ChannelView:
    """A channel's record.

    `deadline` is that of the notice while requested (`balance` is the bond then) and of the
    dispute while closing. `lock` is the low 144 bits of the posted lock.
    """

    status: ChannelStatus
    deadline: int
    balance: int
    lock: int
    terms_hash: bytes


@dataclass(frozen=True, slots=True)
class GuardView:
    """A direct channel's record."""

    state: GuardState
    client: str
    payout: str
    deposit: int
    claimed: int
    price: int
    dispute_window: int
    deadline: int


@dataclass(frozen=True, slots=True)
class NanoClaim:
    """The arguments of one `nano_refund`, for `batch_nano_refund`."""

    cid: int
    terms: NanoTerms
    nwpk: int
    b_full: int
    rho: int
    signature: bytes
    k: int
    hc: bytes
    path: Sequence[bytes]
    auth: Authorisation = NO_AUTHORISATION


@dataclass(frozen=True, slots=True)
class LedgerReceipt(Receipt):
    """A receipt with the ledger's events of the transaction."""

    events: tuple[LedgerEvent, ...] = ()


class Ledger(Contract):
    """The ledger at an address."""

    # --- Intermediaries ---------------------------------------------------------------------------

    async def register_key(
        self, sender: Sender, public_key: bytes, rest_hash: bytes
    ) -> LedgerReceipt:
        """Register X, Y0..Y4 for the sender, for ever."""
        return await self._do(sender, "register_key", public_key, rest_hash, gas=500_000)

    async def deposit_vault(self, sender: Sender, amount: int) -> LedgerReceipt:
        """Pay into the sender's vault; the ledger needs a token allowance."""
        return await self._do(sender, "deposit_vault", amount, gas=200_000)

    async def withdraw_vault(self, sender: Sender, amount: int) -> LedgerReceipt:
        """Take tokens out of the sender's vault."""
        return await self._do(sender, "withdraw_vault", amount, gas=200_000)

    async def fund(self, sender: Sender, group: int) -> LedgerReceipt:
        """Init-I: add the agreed funds to a half-open group from the sender's vault."""
        return await self._do(sender, "fund", group, gas=200_000)

    async def request_close(self, sender: Sender, cid: int) -> LedgerReceipt:
        """Ask the end user to close a channel; stakes the bond from the sender's vault."""
        return await self._do(sender, "request_close", cid, gas=250_000)

    # --- End users --------------------------------------------------------------------------------

    async def open(
        self,
        sender: Sender,
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
        auth: Authorisation = NO_AUTHORISATION,
        permit: Permit = NO_PERMIT,
    ) -> LedgerReceipt:
        """Init-E: open a group of `count` channels; takes count * deposit from `account`.

        Refused ("ledger: windows") unless the two windows, which the group pins for life, are
        those in force when the transaction is mined.
        """
        return await self._do(
            sender, "open", key_hash, account, int(role), deposit, fund, count, dispute_window,
            close_notice, rho_e, rho_i, _auth(auth), _permit(permit), gas=400_000,
        )  # fmt: skip

    async def reclaim(
        self, sender: Sender, group: int, auth: Authorisation = NO_AUTHORISATION
    ) -> LedgerReceipt:
        """Take the deposits back out of a group that was never funded."""
        return await self._do(sender, "reclaim", group, _auth(auth), gas=200_000)

    async def refund(
        self,
        sender: Sender,
        cid: int,
        public_key: bytes,
        wpk: int,
        balance: int,
        token: bytes,
        auth: Authorisation = NO_AUTHORISATION,
    ) -> LedgerReceipt:
        """Close a channel with a refund token (re-randomised by its owner)."""
        return await self._do(
            sender, "refund", cid, public_key, wpk, balance, token, _auth(auth), gas=500_000
        )

    async def refund_conditional(
        self,
        sender: Sender,
        cid: int,
        public_key: bytes,
        wpk: int,
        balance: int,
        token: bytes,
        wpk_c: int,
        t_p: int,
        wsk_c: bytes,
        auth: Authorisation = NO_AUTHORISATION,
    ) -> LedgerReceipt:
        """Close a payee's channel with a conditional token and the payer's secret."""
        return await self._do(
            sender, "refund_conditional", cid, public_key, wpk, balance, token, wpk_c, t_p, wsk_c,
            _auth(auth), gas=550_000,
        )  # fmt: skip

    async def nano_refund(
        self,
        sender: Sender,
        cid: int,
        terms: NanoTerms,
        nwpk: int,
        b_full: int,
        rho: int,
        signature: bytes,
        k: int,
        hc: bytes,
        path: Sequence[bytes],
        auth: Authorisation = NO_AUTHORISATION,
    ) -> LedgerReceipt:
        """Nano-Refund: close a channel in session at `k` proven payments."""
        claim = NanoClaim(cid, terms, nwpk, b_full, rho, signature, k, hc, path, auth)
        return await self._do(sender, "nano_refund", *_claim(claim), gas=500_000)

    async def batch_nano_refund(
        self, sender: Sender, claims: Sequence[NanoClaim]
    ) -> LedgerReceipt:
        """`nano_refund` for up to 16 channels, all or none."""
        words = [_claim(claim) for claim in claims]
        gas = 100_000 + 400_000 * len(words)
        return await self._do(sender, "batch_nano_refund", words, gas=gas)

    async def close(
        self,
        sender: Sender,
        group: int,
        channels: int,
        total: int,
        signature: bytes,
        auth: Authorisation = NO_AUTHORISATION,
    ) -> LedgerReceipt:
        """Cash-out: close the channels in a bitmap with the intermediary's signature."""
        # Channels whose closing was requested each return a bond.
        gas = 300_000 + 10_000 * channels.bit_length()
        return await self._do(
            sender, "close", group, channels, total, signature, _auth(auth), gas=gas
        )

    async def withdraw(self, sender: Sender) -> LedgerReceipt:
        """Pay the sender's whole credit out to it."""
        return await self._do(sender, "withdraw", gas=200_000)

    # --- Anybody ----------------------------------------------------------------------------------

    async def reveal(
        self, sender: Sender, terms: NanoTerms, k: int, hc: bytes, path: Sequence[bytes]
    ) -> LedgerReceipt:
        """Put `k` payments of a session on record; never fails because somebody was first."""
        return await self._do(sender, "reveal", _terms(terms), k, hc, list(path), gas=250_000)

    async def refute(self, sender: Sender, cid: int, secret: bytes) -> LedgerReceipt:
        """Nano-Refute: show that the posted state was revoked."""
        return await self._do(sender, "refute", cid, secret, gas=250_000)

    async def resolve(self, sender: Sender, cid: int) -> LedgerReceipt:
        """Nano-Resolve: divide a channel's escrow after its deadline."""
        return await self._do(sender, "resolve", cid, gas=300_000)

    # --- Guard channels ---------------------------------------------------------------------------

    async def open_guard(
        self, sender: Sender, payout: str | bytes, deposit: int, permit: Permit = NO_PERMIT
    ) -> LedgerReceipt:
        """Open a direct channel from the sender to a guard's payout address."""
        return await self._do(
            sender, "open_guard", payout, deposit, _permit(permit), gas=400_000
        )

    async def claim_guard(
        self,
        sender: Sender,
        gid: int,
        seq: int,
        base: int,
        n: int,
        hc0: bytes,
        root: bytes,
        expiry: int,
        k: int,
        hc: bytes,
        path: Sequence[bytes],
        signature: bytes,
    ) -> LedgerReceipt:
        """Credit the guard with base + k * price by the client's voucher."""
        return await self._do(
            sender, "claim_guard", gid, seq, base, n, hc0, root, expiry, k, hc, list(path),
            signature, gas=300_000,
        )  # fmt: skip

    async def request_close_guard(self, sender: Sender, gid: int) -> LedgerReceipt:
        """The client asks for the rest; the guard has the dispute window to claim."""
        return await self._do(sender, "request_close_guard", gid, gas=150_000)

    async def close_guard(self, sender: Sender, gid: int) -> LedgerReceipt:
        """Credit the client with what the guard has not claimed in time."""
        return await self._do(sender, "close_guard", gid, gas=200_000)

    # --- Reading ----------------------------------------------------------------------------------

    async def intermediary(self, key_hash: bytes) -> str | None:
        """The account that registered a key; None if nobody did."""
        (address,) = await self._ask("intermediary", key_hash)
        return None if address == _ZERO_ADDRESS else str(address)

    async def context(self, key_hash: bytes) -> bytes:
        """ctx, which every token and statement under a key contains."""
        (value,) = await self._ask("context", key_hash)
        return bytes(value)

    async def vault(self, intermediary: str | bytes) -> int:
        """An intermediary's vault."""
        return await self._number("vault", intermediary)

    async def credit(self, account: str | bytes) -> int:
        """What an account may withdraw."""
        return await self._number("credit", account)

    async def group(self, group: int) -> GroupView | None:
        """A group's record; None if there is none."""
        ((state, account, intermediary, index, role, *rest),) = await self._ask("group", group)
        if not state:
            return None
        return GroupView(GroupState(state), account, intermediary, index, Role(role), *rest)

    async def channel(self, cid: int) -> ChannelView:
        """A channel's record; status NONE if there is none."""
        ((status, *rest),) = await self._ask("channel", cid)
        return ChannelView(ChannelStatus(status), *rest)

    async def claims(self, terms_hash: bytes) -> tuple[int, int]:
        """(k_c, k_r) of a session, zeros if nothing was revealed."""
        k_c, k_r = await self._ask("claims", terms_hash)
        return int(k_c), int(k_r)

    async def guard(self, gid: int) -> GuardView | None:
        """A direct channel's record; None if there is none."""
        ((state, *rest),) = await self._ask("guard", gid)
        return GuardView(GuardState(state), *rest) if state else None

    async def tax_rate_bp(self) -> int:
        """The tax rate, in basis points."""
        return await self._number("tax_rate_bp")

    async def token(self) -> str:
        """Address of the token."""
        return str((await self._ask("token"))[0])

    async def tax_pool(self) -> str:
        """Address of the tax pool."""
        return str((await self._ask("tax_pool"))[0])

    async def consensus(self) -> str:
        """Address of the consensus contract."""
        return str((await self._ask("consensus"))[0])

    # --- Inside -----------------------------------------------------------------------------------

    async def _ask(self, name: str, *arguments: Any) -> tuple[Any, ...]:
        return await self._read(FUNCTIONS[name], *arguments)

    async def _number(self, name: str, *arguments: Any) -> int:
        (value,) = await self._ask(name, *arguments)
        return int(value)

    async def _do(self, sender: Sender, name: str, *arguments: Any, gas: int) -> LedgerReceipt:
        receipt = await self._write(sender, FUNCTIONS[name], *arguments, gas=gas)
        shared = {field.name: getattr(receipt, field.name) for field in fields(Receipt)}
        return LedgerReceipt(**shared, events=decode_events(receipt.logs, self.address))


def _terms(terms: NanoTerms) -> tuple[Any, ...]:
    return (
        terms.delta_c, terms.delta_r, terms.n, terms.hc0, terms.t_exp, terms.root, terms.epoch,
    )  # fmt: skip


def _auth(auth: Authorisation) -> tuple[int, bytes]:
    return auth.not_after, auth.signature


def _permit(permit: Permit) -> tuple[int, int, bytes]:
    return permit.value, permit.deadline, permit.signature


def _claim(claim: NanoClaim) -> tuple[Any, ...]:
    return (
        claim.cid, _terms(claim.terms), claim.nwpk, claim.b_full, claim.rho, claim.signature,
        claim.k, claim.hc, list(claim.path), _auth(claim.auth),
    )  # fmt: skip
