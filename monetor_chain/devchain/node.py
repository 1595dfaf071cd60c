# SPDX-License-Identifier: BSD-3-Clause
"""A chain of one node: pool, blocks, calls and logs over py-evm's Prague machine.

Everything that executes EVM code runs in the caller's thread and may take long with the pure
precompiles; the server therefore calls it from one thread of its own. What the node keeps about
past blocks are finished JSON values in plain containers, so that reading them needs no EVM.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from eth.chains.base import MiningChain
from eth.constants import GENESIS_PARENT_HASH, POST_MERGE_DIFFICULTY, POST_MERGE_NONCE, ZERO_ADDRESS
from eth.db.atomic import AtomicDB
from eth.exceptions import Revert, VMError
from eth.vm.spoof import SpoofTransaction
from eth_utils.exceptions import ValidationError
from rlp.exceptions import RLPException

from ..precompile_mode import Mode
from ..precompiles import prague_vm
from ..statements import keccak256
from .encoding import (
    Json,
    data,
    effective_gas_price,
    encode_header,
    encode_log,
    encode_transaction,
    quantity,
)

if TYPE_CHECKING:
    from eth.abc import BlockHeaderAPI, ComputationAPI, SignedTransactionAPI

BLOCK_GAS_LIMIT = 60_000_000
"""Gas of a block; a single transaction may use as much (Prague has no limit of its own)."""

_DYNAMIC_FEE_TYPE = 2
_REPLACEMENT_PERCENT = 110
"""A transaction replaces another of the same nonce only at a fee at least this much higher."""


class Refused(Exception):
    """A request that a node answers with a JSON-RPC error. `data` is a revert's payload."""

    def __init__(self, code: int, message: str, payload: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.payload = payload


def refused(message: str) -> Refused:
    """A transaction or request that the node does not accept, with geth's error code."""
    return Refused(-32000, message)


@dataclass(frozen=True, slots=True)
class CallRequest:
    """What eth_call and eth_estimateGas execute."""

    sender: bytes = ZERO_ADDRESS
    to: bytes = b""
    data: bytes = b""
    value: int = 0
    gas: int | None = None


@dataclass(frozen=True, slots=True)
class SealedBlock:
    """A block of the chain."""

    header: Any
    json: Json
    transactions: tuple[bytes, ...]
    logs: tuple[Json, ...]

    @property
    def number(self) -> int:
        """Height above the first block."""
        return int(self.header.block_number)

    @property
    def timestamp(self) -> int:
        """Unix seconds of the chain's clock."""
        return int(self.header.timestamp)


@dataclass(frozen=True, slots=True)
class _Pooled:
    order: int
    transaction: SignedTransactionAPI


@dataclass(slots=True)
class _Snapshot:
    height: int
    moment: float
    pool: dict[bytes, dict[int, _Pooled]]


@dataclass(slots=True)
class Node:
    """The chain's state. Times are whole Unix seconds of the chain's clock."""

    chain_id: int
    genesis_time: int
    balances: dict[bytes, int]
    mode: Mode = "native"
    blocks: list[SealedBlock] = field(init=False, default_factory=list)
    receipts: dict[bytes, Json] = field(init=False, default_factory=dict)
    transactions: dict[bytes, Json] = field(init=False, default_factory=dict)
    by_hash: dict[bytes, SealedBlock] = field(init=False, default_factory=dict)
    _chain: Any = field(init=False)
    _pool: dict[bytes, dict[int, _Pooled]] = field(init=False, default_factory=dict)
    _accepted: int = field(init=False, default=0)
    _logs_of: dict[str, list[tuple[int, int]]] = field(init=False, default_factory=dict)
    _snapshots: dict[int, _Snapshot] = field(init=False, default_factory=dict)
    _next_snapshot: int = field(init=False, default=1)

    def __post_init__(self) -> None:
        chain_class = MiningChain.configure(
            "EmbeddedChain",
            vm_configuration=((0, prague_vm(self.mode)),),
            chain_id=self.chain_id,
        )
        state: Any = {
            address: {"balance": balance, "nonce": 0, "code": b"", "storage": {}}
            for address, balance in self.balances.items()
        }
        self._chain = chain_class.from_genesis(
            AtomicDB(),
            {
                "coinbase": ZERO_ADDRESS,
                "difficulty": POST_MERGE_DIFFICULTY,
                "nonce": POST_MERGE_NONCE,
                "extra_data": b"moneTor",
                "gas_limit": BLOCK_GAS_LIMIT,
                # Two chains that start in the same second still differ in their first block.
                "mix_hash": os.urandom(32),
                "timestamp": self.genesis_time,
            },
            state,
        )
        self._append(self._chain.get_canonical_head(), (), ())

    # --- Reading ----------------------------------------------------------------------------------

    @property
    def head(self) -> SealedBlock:
        """The newest block."""
        return self.blocks[-1]

    @property
    def base_fee(self) -> int:
        """Base fee per gas of the next block, in wei."""
        return int(self._next_header(self.head.timestamp + 1).base_fee_per_gas)

    def block(self, tag: str | int) -> SealedBlock | None:
        """The block with a number or a tag of the JSON-RPC specification; None if there is none.

        One node confirms at once: `safe`, `finalized` and `pending` are the newest block.
        """
        if isinstance(tag, int):
            return self.blocks[tag] if 0 <= tag < len(self.blocks) else None
        if tag in ("latest", "safe", "finalized", "pending"):
            return self.head
        if tag == "earliest":
            return self.blocks[0]
        raise Refused(-32602, f"no such block tag: {tag}")

    def logs(
        self,
        first: int,
        last: int,
        addresses: Iterable[str] | None,
        topics: tuple[frozenset[str] | None, ...],
    ) -> Iterator[Json]:
        """Log entries of the blocks first..last in chain order that match a filter."""
        if addresses is None:
            places: Iterable[tuple[int, int]] = (
                (number, index)
                for number in range(max(first, 0), min(last, self.head.number) + 1)
                for index in range(len(self.blocks[number].logs))
            )
        else:
            found: list[tuple[int, int]] = []
            for address in addresses:
                entries = self._logs_of.get(address.lower(), [])
                start = bisect_left(entries, (first, 0))
                found += entries[start : bisect_left(entries, (last + 1, 0))]
            places = sorted(found)
        for number, index in places:
            entry = self.blocks[number].logs[index]
            if _topics_match(entry["topics"], topics):
                yield entry

    def balance(self, address: bytes, block: SealedBlock) -> int:
        """Wei of an account after `block`."""
        return int(self._vm(block.header).state.get_balance(address))

    def code(self, address: bytes, block: SealedBlock) -> bytes:
        """An account's code after `block`."""
        return bytes(self._vm(block.header).state.get_code(address))

    def storage(self, address: bytes, slot: int, block: SealedBlock) -> int:
        """A storage word after `block`."""
        return int(self._vm(block.header).state.get_storage(address, slot))

    def nonce(self, address: bytes, block: SealedBlock, pending: bool = False) -> int:
        """Next nonce of an account after `block`; with `pending`, after the pool as well."""
        nonce = int(self._vm(block.header).state.get_nonce(address))
        queue = self._pool.get(address, {}) if pending else {}
        while nonce in queue:
            nonce += 1
        return nonce

    # --- Executing --------------------------------------------------------------------------------

    def call(self, request: CallRequest, block: SealedBlock) -> bytes:
        """Output of a call on the state and in the context of `block`; nothing is kept.

        Raises `Refused` with code 3 and the revert's payload if the contract reverts.
        """
        vm = self._vm(block.header)
        transaction = self._spoof(vm, request, request.gas or BLOCK_GAS_LIMIT)
        try:
            computation = vm.state.apply_transaction(transaction)
        except ValidationError as error:
            raise refused(str(error)) from error
        if computation.is_error:
            raise _failure(computation)
        return bytes(computation.output)

    def estimate(self, request: CallRequest, now: int) -> int:
        """Gas with which a call succeeds in the next block, with a margin of a quarter."""
        generous = request.gas or BLOCK_GAS_LIMIT
        used = self._used(request, generous, now)
        # A callee gets at most 63/64 of what is left, so a little more than was used is needed.
        estimate = min(generous, used + used // 4 + 20_000)
        try:
            self._used(request, estimate, now)
        except Refused:
            return generous
        return estimate

    def submit(self, raw: bytes) -> bytes:
        """Take a signed transaction into the pool; its hash. Raises `Refused`."""
        transaction = self._decode(raw)
        state = self._vm(self.head.header).state
        sender = transaction.sender
        if transaction.hash in self.receipts:
            raise refused("already known")
        if transaction.nonce < state.get_nonce(sender):
            raise refused("nonce too low")
        if transaction.gas > BLOCK_GAS_LIMIT:
            raise refused("exceeds block gas limit")
        if transaction.intrinsic_gas > transaction.gas:
            raise refused("intrinsic gas too low")
        cost = transaction.gas * _max_fee(transaction) + transaction.value
        if cost > state.get_balance(sender):
            raise refused("insufficient funds for gas * price + value")
        queue = self._pool.setdefault(sender, {})
        rival = queue.get(transaction.nonce)
        if rival is not None:
            if rival.transaction.hash == transaction.hash:
                raise refused("already known")
            if _max_fee(transaction) * 100 < _max_fee(rival.transaction) * _REPLACEMENT_PERCENT:
                raise refused("replacement transaction underpriced")
            self.transactions.pop(rival.transaction.hash, None)
        self._accepted += 1
        queue[transaction.nonce] = _Pooled(self._accepted, transaction)
        self.transactions[transaction.hash] = encode_transaction(transaction, self.chain_id)
        return bytes(transaction.hash)

    @property
    def has_pending(self) -> bool:
        """Whether the pool holds anything."""
        return bool(self._pool)

    def mine(self, timestamp: int) -> SealedBlock:
        """Build a block, possibly empty, at `timestamp`, which must be later than the head's.

        Transactions enter in the order of their arrival; one that has become invalid is dropped.
        """
        if timestamp <= self.head.timestamp:
            raise ValueError("a block must be later than its parent")
        header = self._next_header(timestamp).copy(mix_hash=os.urandom(32))
        vm = self._vm(header)
        taken: list[SignedTransactionAPI] = []
        receipts: list[Any] = []
        results: list[ComputationAPI] = []
        while (entry := self._best(vm, header)) is not None:
            transaction = entry.transaction
            try:
                receipt, computation = vm.apply_transaction(header, transaction)
            except ValidationError:
                self._unpool(transaction)
                self.transactions.pop(transaction.hash, None)
                continue
            header = vm.add_receipt_to_header(header, receipt)
            header = vm.increment_blob_gas_used(header, transaction)
            self._unpool(transaction)
            taken.append(transaction)
            receipts.append(receipt)
            results.append(computation)
        filled = vm.set_block_transactions_and_withdrawals(
            vm.get_block(), header, tuple(taken), tuple(receipts)
        )
        sealed = vm.mine_block(filled).block
        self._chain.chaindb.persist_block(sealed)
        return self._append(sealed.header, taken, list(zip(receipts, results, strict=True)))

    # --- Snapshots --------------------------------------------------------------------------------

    def snapshot(self, moment: float) -> int:
        """Remember the chain, its pool and the clock's `moment`; the snapshot's id."""
        identity = self._next_snapshot
        self._next_snapshot += 1
        pool = {sender: dict(queue) for sender, queue in self._pool.items()}
        self._snapshots[identity] = _Snapshot(len(self.blocks), moment, pool)
        return identity

    def revert(self, identity: int) -> float | None:
        """Return to a snapshot, which is used up with all later ones; the clock's moment then.

        None if there is no such snapshot.
        """
        snapshot = self._snapshots.get(identity)
        if snapshot is None:
            return None
        self._snapshots = {i: s for i, s in self._snapshots.items() if i < identity}
        for block in self.blocks[snapshot.height :]:
            self.by_hash.pop(block.header.hash, None)
            for hash_ in block.transactions:
                self.receipts.pop(hash_, None)
                self.transactions.pop(hash_, None)
        self.blocks = self.blocks[: snapshot.height]
        for entries in self._logs_of.values():
            del entries[bisect_left(entries, (snapshot.height, 0)) :]
        for queue in self._pool.values():
            for entry in queue.values():
                self.transactions.pop(entry.transaction.hash, None)
        self._pool = {sender: dict(queue) for sender, queue in snapshot.pool.items()}
        for queue in self._pool.values():
            for entry in queue.values():
                pending = encode_transaction(entry.transaction, self.chain_id)
                self.transactions[entry.transaction.hash] = pending
        chaindb = self._chain.chaindb
        chaindb._set_as_canonical_chain_head(chaindb.db, self.head.header, GENESIS_PARENT_HASH)
        return snapshot.moment

    # --- Inside -----------------------------------------------------------------------------------

    def _vm(self, header: BlockHeaderAPI) -> Any:
        """The machine at a block. Untyped: py-evm's interfaces lack half of what it offers."""
        return self._chain.get_vm(header)

    def _next_header(self, timestamp: int) -> Any:
        parent = self.head.header
        header = self._chain.create_header_from_parent(parent, timestamp=timestamp)
        # py-evm would let the limit drift.
        return header.copy(gas_limit=parent.gas_limit)

    def _spoof(self, vm: Any, request: CallRequest, gas: int) -> Any:
        """A transaction that the machine takes without a key; its gas is a gift to the sender."""
        state = vm.state
        if request.value > state.get_balance(request.sender):
            raise refused("insufficient funds for transfer")
        price = int(vm.get_header().base_fee_per_gas)
        forged = vm.get_transaction_builder().new_dynamic_fee_transaction(
            chain_id=self.chain_id,
            nonce=state.get_nonce(request.sender),
            max_priority_fee_per_gas=0,
            max_fee_per_gas=price,
            gas=gas,
            to=request.to,
            value=request.value,
            data=request.data,
            access_list=(),
            y_parity=0,
            r=1,
            s=1,
        )
        state.set_balance(request.sender, state.get_balance(request.sender) + gas * price)
        return SpoofTransaction(forged, sender=request.sender)

    def _used(self, request: CallRequest, gas: int, now: int) -> int:
        header = self._next_header(max(now, self.head.timestamp + 1))
        vm = self._vm(header)
        try:
            receipt, computation = vm.apply_transaction(header, self._spoof(vm, request, gas))
        except ValidationError as error:
            raise refused(str(error)) from error
        if computation.is_error:
            raise _failure(computation)
        return int(receipt.gas_used)

    def _decode(self, raw: bytes) -> SignedTransactionAPI:
        if not raw:
            raise refused("empty transaction")
        if raw[0] < 0x80 and raw[0] > _DYNAMIC_FEE_TYPE:
            # Blobs and code delegation: nothing here uses them, and py-evm's support is partial.
            raise refused("transaction type not supported")
        builder = self._vm(self.head.header).get_transaction_builder()
        try:
            transaction: SignedTransactionAPI = builder.decode(raw)
            transaction.validate()
            known = transaction.chain_id
            if known is not None and known != self.chain_id:
                raise refused(f"invalid chain id: have {known}, want {self.chain_id}")
            # Recovers the sender, hence checks the signature.
            transaction.check_signature_validity()
        except (RLPException, ValidationError, VMError, ValueError, TypeError) as error:
            raise refused(f"invalid transaction: {error}") from error
        return transaction

    def _best(self, vm: Any, header: Any) -> _Pooled | None:
        """The oldest pooled transaction that fits into the block being built."""
        room = header.gas_limit - header.gas_used
        best = None
        for sender, queue in self._pool.items():
            entry = queue.get(vm.state.get_nonce(sender))
            if entry is None or entry.transaction.gas > room:
                continue
            if _max_fee(entry.transaction) < header.base_fee_per_gas:
                continue
            if best is None or entry.order < best.order:
                best = entry
        return best

    def _unpool(self, transaction: SignedTransactionAPI) -> None:
        queue = self._pool[transaction.sender]
        del queue[transaction.nonce]
        if not queue:
            del self._pool[transaction.sender]

    def _append(
        self,
        header: Any,
        transactions: Iterable[SignedTransactionAPI],
        outcomes: Iterable[tuple[Any, ComputationAPI]],
    ) -> SealedBlock:
        place = {"blockNumber": quantity(header.block_number), "blockHash": data(header.hash)}
        logs: list[Json] = []
        receipts: dict[bytes, Json] = {}
        hashes: list[bytes] = []
        cumulated = 0
        for index, (transaction, outcome) in enumerate(zip(transactions, outcomes, strict=True)):
            receipt, computation = outcome
            hash_ = bytes(transaction.hash)
            hashes.append(hash_)
            price = effective_gas_price(transaction, header.base_fee_per_gas)
            own = [
                encode_log(log, len(logs) + position, index, hash_) | place
                for position, log in enumerate(receipt.logs)
            ]
            logs += own
            pending = encode_transaction(transaction, self.chain_id)
            at = {**place, "transactionIndex": quantity(index)}
            self.transactions[hash_] = {**pending, **at, "gasPrice": quantity(price)}
            created = None
            if not transaction.to and not computation.is_error:
                created = data(computation.msg.storage_address)
            receipts[hash_] = {
                **at,
                "transactionHash": data(hash_),
                "from": data(transaction.sender),
                "to": data(transaction.to) if transaction.to else None,
                "type": pending["type"],
                "status": quantity(int(not computation.is_error)),
                "cumulativeGasUsed": quantity(receipt.gas_used),
                "gasUsed": quantity(receipt.gas_used - cumulated),
                "effectiveGasPrice": quantity(price),
                "contractAddress": created,
                "logs": own,
                "logsBloom": data(receipt.bloom.to_bytes(256, "big")),
            }
            if computation.is_error:
                # Besu's name for it; other nodes leave callers to replay the transaction.
                receipts[hash_]["revertReason"] = data(_payload(computation))
            cumulated = receipt.gas_used
        block = SealedBlock(header, encode_header(header, hashes), tuple(hashes), tuple(logs))
        for position, entry in enumerate(logs):
            self._logs_of.setdefault(entry["address"], []).append((block.number, position))
        self.by_hash[header.hash] = block
        # In this order, since others read meanwhile: no block without its parts, and no receipt
        # before its block.
        self.blocks.append(block)
        self.receipts.update(receipts)
        return block


def _max_fee(transaction: SignedTransactionAPI) -> int:
    return int(getattr(transaction, "max_fee_per_gas", None) or transaction.gas_price)


def _payload(computation: ComputationAPI) -> bytes:
    error = computation.error
    if isinstance(error, Revert) and error.args and isinstance(error.args[0], bytes):
        return error.args[0]
    return b""


def _failure(computation: ComputationAPI) -> Refused:
    error = computation.error
    if not isinstance(error, Revert):
        return refused(f"{type(error).__name__}: {error}")
    payload = _payload(computation)
    return Refused(3, "execution reverted" + revert_reason(payload), data(payload))


_ERROR_SELECTOR = keccak256(b"Error(string)")[:4]


def revert_reason(payload: bytes) -> str:
    """`: reason` for a payload of Error(string), else nothing."""
    if payload[:4] != _ERROR_SELECTOR or len(payload) < 68:
        return ""
    length = int.from_bytes(payload[36:68], "big")
    return ": " + payload[68 : 68 + length].decode("utf-8", "replace")


def _topics_match(topics: list[str], wanted: tuple[frozenset[str] | None, ...]) -> bool:
    if len(wanted) > len(topics):
        return False
    return all(
        allowed is None or topic in allowed
        for topic, allowed in zip(topics, wanted, strict=False)
    )
