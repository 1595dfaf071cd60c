# SPDX-License-Identifier: BSD-3-Clause
"""JSON-RPC methods of the embedded chain.

The names and forms are those of the Ethereum JSON-RPC specification, as far as a client such as
web3 needs them, and of the usual development nodes (`evm_*`). The `monetor_*` methods are ours:

- `monetor_clock` -> {"now": seconds, "speed": factor}; `monetor_now` -> seconds, a float
- `monetor_setSpeed(factor)`; 0 stops the clock, and blocks then come only with transactions
- `monetor_increaseTime(seconds)` jumps ahead and mines a block there -> the new present
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from .clock import ChainClock
from .encoding import Json, data, quantity
from .node import CallRequest, Node, Refused, SealedBlock

INVALID_PARAMS = -32602
METHOD_NOT_FOUND = -32601
GAS_TIP_WEI = 10**9
_MAX_FEE_HISTORY = 1024

T = TypeVar("T")


class Rpc:
    """Answers single requests. Work that executes EVM code goes to the EVM's own thread."""

    def __init__(
        self,
        node: Node,
        clock: ChainClock,
        evm: ThreadPoolExecutor,
        wake: Callable[[], None],
    ) -> None:
        """`wake` tells the miner that the pool or the clock has changed."""
        self._node = node
        self._clock = clock
        self._evm = evm
        self._wake = wake
        self._methods: dict[str, Callable[[list[Any]], Awaitable[Any]]] = {
            "web3_clientVersion": self._client_version,
            "net_version": self._net_version,
            "net_listening": self._true,
            "eth_syncing": self._false,
            "eth_accounts": self._nothing,
            "eth_chainId": self._chain_id,
            "eth_blockNumber": self._block_number,
            "eth_gasPrice": self._gas_price,
            "eth_maxPriorityFeePerGas": self._tip,
            "eth_feeHistory": self._fee_history,
            "eth_getBalance": self._balance,
            "eth_getCode": self._code,
            "eth_getStorageAt": self._storage,
            "eth_getTransactionCount": self._nonce,
            "eth_call": self._call,
            "eth_estimateGas": self._estimate,
            "eth_sendRawTransaction": self._submit,
            "eth_getTransactionByHash": self._transaction,
            "eth_getTransactionReceipt": self._receipt,
            "eth_getBlockByNumber": self._block_by_number,
            "eth_getBlockByHash": self._block_by_hash,
            "eth_getLogs": self._logs,
            "evm_snapshot": self._snapshot,
            "evm_revert": self._revert,
            "evm_mine": self._mine,
            "evm_increaseTime": self._increase_time,
            "monetor_now": self._now,
            "monetor_clock": self._read_clock,
            "monetor_setSpeed": self._set_speed,
            "monetor_increaseTime": self._increase_time,
        }

    async def answer(self, method: str, params: list[Any]) -> Any:
        """The result of one request; raises `Refused`."""
        handler = self._methods.get(method)
        if handler is None:
            raise Refused(METHOD_NOT_FOUND, f"the method {method} is not available")
        try:
            return await handler(params)
        except (TypeError, ValueError, IndexError, KeyError) as error:
            raise Refused(INVALID_PARAMS, f"invalid parameters of {method}: {error}") from error

    async def seal(self, at_least: int = 0) -> SealedBlock:
        """Mine a block now, or at the earliest later time that the chain admits."""

        def work() -> SealedBlock:
            # Read inside: another block may have been mined while this one was waiting.
            earliest = max(self._node.head.timestamp + 1, at_least)
            timestamp = max(int(self._clock.now()), earliest)
            return self._node.mine(timestamp)

        block = await self._in_evm(work)
        self._clock.at_least(block.timestamp)
        return block

    async def _in_evm(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._evm, work)

    # --- What kind of chain -----------------------------------------------------------------------

    async def _client_version(self, params: list[Any]) -> str:
        return "moneTor-embedded/py-evm"

    async def _net_version(self, params: list[Any]) -> str:
        return str(self._node.chain_id)

    async def _chain_id(self, params: list[Any]) -> str:
        return quantity(self._node.chain_id)

    async def _true(self, params: list[Any]) -> bool:
        return True

    async def _false(self, params: list[Any]) -> bool:
        return False

    async def _nothing(self, params: list[Any]) -> list[str]:
        return []

    # --- Blocks and fees --------------------------------------------------------------------------

    async def _block_number(self, params: list[Any]) -> str:
        return quantity(self._node.head.number)

    async def _block_by_number(self, params: list[Any]) -> Json | None:
        block = self._node.block(_block_tag(params[0]))
        return None if block is None else self._render(block, bool(params[1:] and params[1]))

    async def _block_by_hash(self, params: list[Any]) -> Json | None:
        block = self._node.by_hash.get(_bytes(params[0], 32))
        return None if block is None else self._render(block, bool(params[1:] and params[1]))

    def _render(self, block: SealedBlock, full: bool) -> Json:
        if not full:
            return block.json
        whole = [self._node.transactions[hash_] for hash_ in block.transactions]
        return {**block.json, "transactions": whole}

    async def _gas_price(self, params: list[Any]) -> str:
        return quantity(await self._in_evm(lambda: self._node.base_fee) + GAS_TIP_WEI)

    async def _tip(self, params: list[Any]) -> str:
        return quantity(GAS_TIP_WEI)

    async def _fee_history(self, params: list[Any]) -> Json:
        count = min(_integer(params[0]), _MAX_FEE_HISTORY)
        percentiles = params[2] if params[2:] and params[2] else []
        newest = self._at(params[1])
        following = await self._in_evm(lambda: self._node.base_fee)
        blocks = self._node.blocks[max(newest.number - count + 1, 0) : newest.number + 1]
        fees = [block.header.base_fee_per_gas for block in blocks]
        after = self._node.block(newest.number + 1)
        fees.append(following if after is None else after.header.base_fee_per_gas)
        history: Json = {
            "oldestBlock": quantity(blocks[0].number),
            "baseFeePerGas": [quantity(fee) for fee in fees],
            "gasUsedRatio": [block.header.gas_used / block.header.gas_limit for block in blocks],
        }
        if percentiles:
            history["reward"] = [[quantity(GAS_TIP_WEI)] * len(percentiles) for _ in blocks]
        return history

    # --- State ------------------------------------------------------------------------------------

    async def _balance(self, params: list[Any]) -> str:
        address, block = _bytes(params[0], 20), self._at(*params[1:2])
        return quantity(await self._in_evm(lambda: self._node.balance(address, block)))

    async def _code(self, params: list[Any]) -> str:
        address, block = _bytes(params[0], 20), self._at(*params[1:2])
        return data(await self._in_evm(lambda: self._node.code(address, block)))

    async def _storage(self, params: list[Any]) -> str:
        address, slot = _bytes(params[0], 20), _integer(params[1])
        block = self._at(*params[2:3])
        value = await self._in_evm(lambda: self._node.storage(address, slot, block))
        return data(value.to_bytes(32, "big"))

    async def _nonce(self, params: list[Any]) -> str:
        address, block = _bytes(params[0], 20), self._at(*params[1:2])
        pending = params[1:2] == ["pending"]
        return quantity(await self._in_evm(lambda: self._node.nonce(address, block, pending)))

    # --- Calls and transactions -------------------------------------------------------------------

    async def _call(self, params: list[Any]) -> str:
        request, block = _call_request(params[0]), self._at(*params[1:2])
        return data(await self._in_evm(lambda: self._node.call(request, block)))

    async def _estimate(self, params: list[Any]) -> str:
        request, now = _call_request(params[0]), int(self._clock.now())
        return quantity(await self._in_evm(lambda: self._node.estimate(request, now)))

    async def _submit(self, params: list[Any]) -> str:
        raw = _bytes(params[0])
        hash_ = await self._in_evm(lambda: self._node.submit(raw))
        self._wake()
        return data(hash_)

    async def _transaction(self, params: list[Any]) -> Json | None:
        return self._node.transactions.get(_bytes(params[0], 32))

    async def _receipt(self, params: list[Any]) -> Json | None:
        return self._node.receipts.get(_bytes(params[0], 32))

    async def _logs(self, params: list[Any]) -> list[Json]:
        query = params[0]
        if query.get("blockHash") is not None:
            block = self._node.by_hash.get(_bytes(query["blockHash"], 32))
            if block is None:
                raise Refused(-32000, "unknown block")
            first = last = block.number
        else:
            # A range may reach beyond the head: what is not there has no logs.
            first, last = (self._height(query.get(key)) for key in ("fromBlock", "toBlock"))
        given = query.get("address")
        addresses = None
        if given is not None:
            several = given if isinstance(given, list) else [given]
            addresses = sorted({data(_bytes(address, 20)) for address in several})
        topics = tuple(_topic(topic) for topic in query.get("topics") or [])
        return list(self._node.logs(first, last, addresses, topics))

    # --- Development ------------------------------------------------------------------------------

    async def _snapshot(self, params: list[Any]) -> str:
        moment = self._clock.now()
        return quantity(await self._in_evm(lambda: self._node.snapshot(moment)))

    async def _revert(self, params: list[Any]) -> bool:
        identity = _integer(params[0])
        moment = await self._in_evm(lambda: self._node.revert(identity))
        if moment is None:
            return False
        self._clock.restore(moment)
        self._wake()
        return True

    async def _mine(self, params: list[Any]) -> str:
        count = _integer(params[0]) if params and not isinstance(params[0], dict) else 1
        for _ in range(count):
            await self.seal()
        return "0x0"

    async def _increase_time(self, params: list[Any]) -> float:
        moment = self._clock.advance(_number(params[0]))
        await self.seal()
        return max(moment, float(self._node.head.timestamp))

    async def _now(self, params: list[Any]) -> float:
        return self._clock.now()

    async def _read_clock(self, params: list[Any]) -> Json:
        return {"now": self._clock.now(), "speed": self._clock.speed}

    async def _set_speed(self, params: list[Any]) -> Json:
        self._clock.set_speed(_number(params[0]))
        self._wake()
        return await self._read_clock([])

    # --- Parameters -------------------------------------------------------------------------------

    def _at(self, tag: Any = "latest") -> SealedBlock:
        block = self._node.block(_block_tag(tag))
        if block is None:
            raise Refused(-32000, "header not found")
        return block

    def _height(self, tag: Any) -> int:
        value = _block_tag("latest" if tag is None else tag)
        return value if isinstance(value, int) else self._at(value).number


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError("expected a number")
    return value if isinstance(value, int) else int(value, 16 if value.startswith("0x") else 10)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, float) else float(_integer(value))


def _bytes(value: Any, size: int | None = None) -> bytes:
    if not isinstance(value, str) or not value.startswith("0x"):
        raise TypeError("expected 0x-prefixed hex")
    raw = bytes.fromhex(value[2:])
    if size is not None and len(raw) != size:
        raise ValueError(f"expected {size} bytes")
    return raw


def _block_tag(value: Any) -> str | int:
    if isinstance(value, str) and not value.startswith("0x"):
        return value
    return _integer(value)


def _topic(value: Any) -> frozenset[str] | None:
    if value is None:
        return None
    options = value if isinstance(value, list) else [value]
    return frozenset(data(_bytes(option, 32)) for option in options)


def _call_request(value: Any) -> CallRequest:
    if not isinstance(value, dict):
        raise TypeError("expected a transaction object")
    payload = value.get("input", value.get("data")) or "0x"
    return CallRequest(
        sender=_bytes(value["from"], 20) if value.get("from") else bytes(20),
        to=_bytes(value["to"], 20) if value.get("to") else b"",
        data=_bytes(payload),
        value=_integer(value.get("value") or 0),
        gas=_integer(value["gas"]) if value.get("gas") else None,
    )
