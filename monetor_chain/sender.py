# SPDX-License-Identifier: BSD-3-Clause
"""Send transactions from one account and find out what became of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from eth_account import Account

from .accounts import address_of, checksum
from .chain import SEND_RAW, Chain
from .errors import (
    ChainError,
    ChainUnavailable,
    InsufficientFunds,
    RpcError,
    TransactionDropped,
    TransactionReverted,
    TransactionTimeout,
)
from .statements import keccak256

_ATTEMPTS = 8
"""How often a transaction whose nonce somebody else used is sent again under a new one."""
_FIRST_POLL_SECONDS = 0.02
_LONGEST_POLL_SECONDS = 1.0
_FORGOTTEN_SECONDS = 2.0
"""A transaction that the chain does not know after this long is sent again."""
_RAISE_SECONDS = 30.0
"""A known but unmined transaction is sent again at a higher fee after this long."""
_RAISE_PERCENT = 125
"""Nodes replace a transaction only if the fees rise by a tenth; an eighth is customary."""
_RETRY_SECONDS = 0.1
_SILENCE_SECONDS = 3.0
"""How long the chain may be silent while a transaction is on its way, before that is reported."""
_ERROR_SELECTOR = keccak256(b"Error(string)")[:4]
_NO_REASON = "no reason given"


@dataclass(frozen=True, slots=True)
class FeePolicy:
    """What to pay for gas (EIP-1559).

    The fee cap is `base_fee_multiple` times the newest base fee plus the tip, so that a
    transaction survives several full blocks. Without `tip_wei` the chain's suggestion is taken;
    `cap_wei` bounds the fee cap.
    """

    base_fee_multiple: int = 2
    tip_wei: int | None = None
    cap_wei: int | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """A mined, successful transaction. `logs` are JSON-RPC log entries."""

    transaction: bytes
    block: int
    timestamp: int
    gas_used: int
    contract: str | None = None
    logs: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)


@dataclass(slots=True)
class _Sent:
    """A transaction on its way: the same call may be out under several hashes."""

    nonce: int
    request: dict[str, Any]
    tip: int
    cap: int
    raw: bytes
    hashes: list[str]
    since: float
    announce: Callable[[bytes], None]


class Sender:
    """One account's way to the chain.

    Any number of tasks may send at once: nonces are given out in one queue. Others may use the
    same account at the same time: a nonce that somebody else used is noticed and another taken.
    Gas limits are explicit, since an estimate would run the pairing once more. `timeout` is in
    real seconds from the call to the receipt with its confirmations.
    """

    def __init__(
        self,
        chain: Chain,
        private_key: bytes,
        fees: FeePolicy | None = None,
        confirmations: int = 0,
        timeout: float = 120.0,
    ) -> None:
        self.address = address_of(private_key)
        self._chain = chain
        self._key = private_key
        self._fees = fees or FeePolicy()
        self._confirmations = confirmations
        self._timeout = timeout
        self._queue = asyncio.Lock()
        self._in_flight: set[int] = set()

    @property
    def chain(self) -> Chain:
        """The chain this sender sends to."""
        return self._chain

    async def send(
        self,
        to: str | bytes | None,
        data: bytes,
        *,
        gas: int,
        value: int = 0,
        simulate: bool = True,
        announce: Callable[[bytes], None] | None = None,
    ) -> Receipt:
        """Send one transaction and wait until it is mined and confirmed.

        `to` is None to create a contract, `value` is in wei. With `simulate` the call is tried
        first, so that a refusal costs nothing. `announce` hears every hash under which the
        transaction may appear, before it leaves. Raises `TransactionReverted` with the contract's
        reason, `InsufficientFunds`, `TransactionTimeout`, `TransactionDropped` or
        `ChainUnavailable`; after the last three it may still be mined.
        """
        request: dict[str, Any] = {"data": data, "gas": gas, "value": value}
        announce = announce or _keep_quiet
        if to is not None:
            request["to"] = checksum(to)
        deadline = time.monotonic() + self._timeout
        for _ in range(_ATTEMPTS):
            if simulate:
                await self._simulate(request, deadline)
            sent = await self._broadcast(request, deadline, announce)
            try:
                receipt = await self._outcome(sent, deadline)
            finally:
                self._in_flight.discard(sent.nonce)
            if receipt is not None:
                return await self._conclude(request, receipt)
        raise TransactionDropped("other transactions of the same account kept taking its place")

    async def _simulate(self, request: dict[str, Any], deadline: float) -> None:
        earlier = set(self._in_flight)
        while True:
            try:
                await self._chain.rpc("eth_call", self._as_call(request), "latest")
            except RpcError as error:
                if earlier and time.monotonic() < deadline:
                    # It may build on transactions of ours that were not mined yet: once more
                    # when they are.
                    await asyncio.sleep(_RETRY_SECONDS)
                    earlier &= self._in_flight
                    continue
                if _is_poor(error):
                    raise InsufficientFunds(f"{self.address}: {error}") from error
                raise TransactionReverted(_reason(error)) from error
            return

    def _as_call(self, request: dict[str, Any]) -> dict[str, str]:
        call = {
            "from": self.address,
            "data": "0x" + request["data"].hex(),
            "gas": hex(request["gas"]),
        }
        if request["value"]:
            call["value"] = hex(request["value"])
        if "to" in request:
            call["to"] = request["to"]
        return call

    async def _broadcast(
        self, request: dict[str, Any], deadline: float, announce: Callable[[bytes], None]
    ) -> _Sent:
        """Give the transaction a nonce and hand it to the chain."""
        while True:
            async with self._queue:
                nonce = await self._next_nonce()
                tip, cap = await self._price()
                raw, hash_ = self._sign(request, nonce, tip, cap)
                announce(_raw(hash_))
                try:
                    await self._hand_over(raw)
                except RpcError as error:
                    if _is_poor(error):
                        raise InsufficientFunds(f"{self.address}: {error}") from error
                    if not _is_taken(error) and not _is_cheap(error):
                        raise
                    if time.monotonic() >= deadline:
                        raise TransactionTimeout(f"not accepted in time: {error}") from error
                else:
                    self._in_flight.add(nonce)
                    return _Sent(nonce, request, tip, cap, raw, [hash_], time.monotonic(), announce)
            await asyncio.sleep(_RETRY_SECONDS)

    async def _next_nonce(self) -> int:
        count = await self._chain.rpc("eth_getTransactionCount", self.address, "pending")
        nonce = int(count, 16)
        # A node need not count what it was handed a moment ago.
        while nonce in self._in_flight:
            nonce += 1
        return nonce

    async def _price(self) -> tuple[int, int]:
        head = await self._chain.rpc("eth_getBlockByNumber", "latest", False)
        base = int(head["baseFeePerGas"], 16)
        tip = self._fees.tip_wei
        if tip is None:
            tip = int(await self._chain.rpc("eth_maxPriorityFeePerGas"), 16)
        cap = self._fees.base_fee_multiple * base + tip
        if self._fees.cap_wei is not None:
            cap = min(cap, self._fees.cap_wei)
        return min(tip, cap), cap

    def _sign(self, request: dict[str, Any], nonce: int, tip: int, cap: int) -> tuple[bytes, str]:
        fields = request | {
            "type": 2,
            "nonce": nonce,
            "chainId": self._chain.chain_id,
            "maxPriorityFeePerGas": tip,
            "maxFeePerGas": cap,
        }
        signed = Account.sign_transaction(fields, self._key)
        return bytes(signed.raw_transaction), "0x" + bytes(signed.hash).hex()

    async def _hand_over(self, raw: bytes) -> None:
        await self._chain.rpc(SEND_RAW, "0x" + raw.hex())

    async def _outcome(self, sent: _Sent, deadline: float) -> Mapping[str, Any] | None:
        """The confirmed receipt; None if another transaction has used up the nonce."""
        pause = _FIRST_POLL_SECONDS
        answered = time.monotonic()
        while True:
            try:
                receipt = await self._find(sent)
                if receipt is not None and await self._is_confirmed(receipt):
                    return receipt
                if receipt is None and await self._is_superseded(sent):
                    return None
                answered = time.monotonic()
            except ChainUnavailable:
                if time.monotonic() - answered > _SILENCE_SECONDS:
                    raise
            if time.monotonic() >= deadline:
                raise TransactionTimeout(
                    f"not mined within {self._timeout:.0f} s", _raw(sent.hashes[-1])
                )
            await asyncio.sleep(pause)
            pause = min(pause * 1.3, _LONGEST_POLL_SECONDS)

    async def _find(self, sent: _Sent) -> Mapping[str, Any] | None:
        for hash_ in sent.hashes:
            receipt: Mapping[str, Any] | None = await self._chain.rpc(
                "eth_getTransactionReceipt", hash_
            )
            if receipt is not None and receipt.get("blockNumber") is not None:
                return receipt
        return None

    async def _is_confirmed(self, receipt: Mapping[str, Any]) -> bool:
        if self._confirmations:
            head = int(await self._chain.rpc("eth_blockNumber"), 16)
            if head < int(receipt["blockNumber"], 16) + self._confirmations:
                return False
        # A reorganisation may have moved the transaction while the blocks came; and an endpoint of
        # several nodes may tell of a receipt by one whose block another does not know yet.
        block = await self._chain.rpc("eth_getBlockByNumber", receipt["blockNumber"], False)
        return block is not None and block["hash"] == receipt["blockHash"]

    async def _is_superseded(self, sent: _Sent) -> bool:
        """Whether the nonce is used up without us; sends again what was forgotten or is stuck."""
        age = time.monotonic() - sent.since
        if age < _FORGOTTEN_SECONDS:
            return False
        if await self._used("latest") > sent.nonce:
            # Mined between the two questions, or another one was. That one may be reorganised away
            # as well, and ours come back: only when it is confirmed is ours really gone.
            return await self._find(sent) is None and await self._used_for_good(sent.nonce)
        known = await self._chain.rpc("eth_getTransactionByHash", sent.hashes[-1])
        if known is None:
            await self._send_again(sent, sent.raw)
        elif age > _RAISE_SECONDS:
            await self._raise_fee(sent)
        return False

    async def _used(self, block: str) -> int:
        """How many nonces of the account were used after a block."""
        return int(await self._chain.rpc("eth_getTransactionCount", self.address, block), 16)

    async def _used_for_good(self, nonce: int) -> bool:
        """Whether a nonce was used with the confirmations."""
        if not self._confirmations:
            return True
        head = int(await self._chain.rpc("eth_blockNumber"), 16)
        return await self._used(hex(max(head - self._confirmations, 0))) > nonce

    async def _raise_fee(self, sent: _Sent) -> None:
        tip, cap = await self._price()
        tip = max(tip, sent.tip * _RAISE_PERCENT // 100 + 1)
        cap = max(cap, sent.cap * _RAISE_PERCENT // 100 + 1)
        limit = self._fees.cap_wei
        if limit is not None and cap > limit:
            return
        raw, hash_ = self._sign(sent.request, sent.nonce, tip, cap)
        sent.announce(_raw(hash_))
        if await self._send_again(sent, raw):
            sent.tip, sent.cap, sent.raw = tip, cap, raw
            sent.hashes.append(hash_)

    async def _send_again(self, sent: _Sent, raw: bytes) -> bool:
        sent.since = time.monotonic()
        try:
            await self._hand_over(raw)
        except RpcError:
            # Whatever the chain objects to, the next look at the nonce tells what is the case.
            return False
        return True

    async def _conclude(self, request: dict[str, Any], found: Mapping[str, Any]) -> Receipt:
        transaction = _raw(found["transactionHash"])
        number = int(found["blockNumber"], 16)
        if int(found["status"], 16) == 0:
            raise TransactionReverted(await self._why(request, found), transaction)
        created = found.get("contractAddress")
        return Receipt(
            transaction=transaction,
            block=number,
            timestamp=(await self._chain.block(number)).timestamp,
            gas_used=int(found["gasUsed"], 16),
            contract=None if created is None else checksum(created),
            logs=tuple(found["logs"]),
        )

    async def _why(self, request: dict[str, Any], found: Mapping[str, Any]) -> str:
        """The reason of a mined revert: from the receipt if the node tells, else by a replay."""
        told = found.get("revertReason")
        if told is not None:
            return revert_reason(_raw(told))
        if int(found["gasUsed"], 16) >= request["gas"]:
            return "out of gas"
        try:
            await self._chain.rpc("eth_call", self._as_call(request), found["blockNumber"])
        except RpcError as error:
            return _reason(error)
        return _NO_REASON


def revert_reason(payload: bytes) -> str:
    """What a contract said in reverting: the text of ``Error(string)``, or why there is none."""
    if payload[:4] == _ERROR_SELECTOR and len(payload) >= 68:
        length = int.from_bytes(payload[36:68], "big")
        return payload[68 : 68 + length].decode("utf-8", "replace")
    return f"0x{payload.hex()}" if payload else _NO_REASON


def _reason(error: RpcError) -> str:
    return revert_reason(error.data) if error.data else str(error)


def _is_poor(error: ChainError) -> bool:
    return "insufficient funds" in str(error).lower()


def _is_taken(error: ChainError) -> bool:
    """Whether somebody else uses the nonce.

    A transaction that is known before we hand it over is somebody else's too: another sender of
    this account has just sent the very same call, and the two must not pass for one.
    """
    said = str(error).lower()
    return any(
        phrase in said
        for phrase in (
            "nonce too low", "replacement transaction underpriced", "already known",
            "already imported",
        )
    )  # fmt: skip


def _is_cheap(error: ChainError) -> bool:
    said = str(error).lower()
    return "max fee per gas less than" in said or "transaction underpriced" in said


def _raw(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def _keep_quiet(transaction: bytes) -> None:
    return None
