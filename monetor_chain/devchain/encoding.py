# SPDX-License-Identifier: BSD-3-Clause
"""Blocks, transactions and logs in the form of the Ethereum JSON-RPC specification."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eth.abc import LogAPI, SignedTransactionAPI

Json = dict[str, Any]


def quantity(value: int) -> str:
    """An integer as a hex quantity, without leading zeros."""
    return hex(value)


def data(value: bytes) -> str:
    """Bytes as 0x-prefixed hex."""
    return "0x" + value.hex()


def encode_header(header: Any, transactions: Sequence[bytes]) -> Json:
    """A block with the hashes of its transactions."""
    return {
        "number": quantity(header.block_number),
        "hash": data(header.hash),
        "parentHash": data(header.parent_hash),
        "nonce": data(header.nonce),
        "sha3Uncles": data(header.uncles_hash),
        "logsBloom": data(header.bloom.to_bytes(256, "big")),
        "transactionsRoot": data(header.transaction_root),
        "stateRoot": data(header.state_root),
        "receiptsRoot": data(header.receipt_root),
        "miner": data(header.coinbase),
        "difficulty": quantity(header.difficulty),
        "mixHash": data(header.mix_hash),
        "extraData": data(header.extra_data),
        "size": quantity(1),
        "gasLimit": quantity(header.gas_limit),
        "gasUsed": quantity(header.gas_used),
        "timestamp": quantity(header.timestamp),
        "baseFeePerGas": quantity(header.base_fee_per_gas),
        "transactions": [data(hash_) for hash_ in transactions],
        "uncles": [],
        "withdrawals": [],
        "withdrawalsRoot": data(header.withdrawals_root),
        "blobGasUsed": quantity(header.blob_gas_used),
        "excessBlobGas": quantity(header.excess_blob_gas),
        "parentBeaconBlockRoot": data(header.parent_beacon_block_root),
        "requestsHash": data(header.requests_hash),
    }


def encode_transaction(transaction: Any, chain_id: int) -> Json:
    """A transaction that is in no block yet."""
    kind = getattr(transaction, "type_id", None) or 0
    encoded: Json = {
        "type": quantity(kind),
        "hash": data(transaction.hash),
        "nonce": quantity(transaction.nonce),
        "blockHash": None,
        "blockNumber": None,
        "transactionIndex": None,
        "from": data(transaction.sender),
        "to": data(transaction.to) if transaction.to else None,
        "value": quantity(transaction.value),
        "gas": quantity(transaction.gas),
        "input": data(transaction.data),
        "chainId": quantity(chain_id),
        "r": quantity(transaction.r),
        "s": quantity(transaction.s),
        "v": quantity(transaction.y_parity if kind else transaction.v),
    }
    if kind:
        encoded["yParity"] = encoded["v"]
        encoded["accessList"] = [
            {"address": data(address), "storageKeys": [data(_word(key)) for key in keys]}
            for address, keys in transaction.access_list
        ]
    if kind >= 2:
        encoded["maxFeePerGas"] = quantity(transaction.max_fee_per_gas)
        encoded["maxPriorityFeePerGas"] = quantity(transaction.max_priority_fee_per_gas)
        encoded["gasPrice"] = quantity(transaction.max_fee_per_gas)
    else:
        encoded["gasPrice"] = quantity(transaction.gas_price)
    return encoded


def encode_log(log: LogAPI, index: int, transaction_index: int, transaction: bytes) -> Json:
    """A log entry; the block's number and hash are added when the block is sealed."""
    return {
        "address": data(log.address),
        "topics": [data(_word(topic)) for topic in log.topics],
        "data": data(log.data),
        "logIndex": quantity(index),
        "transactionIndex": quantity(transaction_index),
        "transactionHash": data(transaction),
        "removed": False,
    }


def effective_gas_price(transaction: SignedTransactionAPI, base_fee: int) -> int:
    """What a unit of gas cost the sender (EIP-1559)."""
    if (getattr(transaction, "type_id", None) or 0) < 2:
        return int(transaction.gas_price)
    return int(
        min(transaction.max_fee_per_gas, transaction.max_priority_fee_per_gas + base_fee)
    )


def _word(value: int | bytes) -> bytes:
    return value.to_bytes(32, "big") if isinstance(value, int) else value.rjust(32, b"\0")
