# SPDX-License-Identifier: BSD-3-Clause
"""The chains that a rehearsal can run on: py-evm in this process, or a node of anvil.

They look alike: the same chain id, the same funded accounts, whose keys sign every transaction,
the same first timestamp, and a block of its own for every transaction, one second after the block
before. Addresses, signatures and calldata are therefore the same on all of them, and so is gas.
"""

from __future__ import annotations

import socket
import subprocess
import time
import weakref
from abc import ABC, abstractmethod
from typing import Any

from eth_tester import EthereumTester, PyEVMBackend  # type: ignore[import-untyped]
from eth_tester.exceptions import TransactionFailed  # type: ignore[import-untyped]
from web3 import EthereumTesterProvider, HTTPProvider, Web3
from web3.exceptions import ContractLogicError
from web3.middleware import SignAndSendRawMiddlewareBuilder
from web3.types import RPCEndpoint, TxReceipt

from .accounts import DEV_BALANCE_WEI, address_of
from .errors import ChainUnavailable
from .precompiles import Mode, prague_vm
from .sender import revert_reason

KEYS = tuple(number.to_bytes(32, "big") for number in range(1, 11))
"""Private keys of the funded accounts, which are eth-tester's well-known ones."""

CHAIN_ID = 131277322940537
"""eth-tester's, which is not to be chosen; other chains follow it."""

GENESIS_TIME = 4_000_000_000
"""Ahead of any wall clock, which a block's time would otherwise catch up with: so every block
comes one second after the one before, and every run is like the last."""

CALL_REVERTED = (ContractLogicError, TransactionFailed)
"""What web3 raises when a call reverts, by one chain or the other; the text has the reason."""

_NOTHING_SAID = "b''"
"""How eth-tester writes a revert without a payload."""

_READY_SECONDS = 20.0
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.002


class RehearsalChain(ABC):
    """A chain of one's own, whose clock moves with its blocks only."""

    w3: Web3
    """Sends from all of `KEYS`' accounts."""

    def transact(self, call: Any, fields: dict[str, Any]) -> TxReceipt:
        """Mines a contract call or creation; its receipt, whether it failed or not.

        `fields` are those of the transaction but for the gas price, gas limit included.
        """
        price = int(self.w3.eth.get_block("latest")["baseFeePerGas"]) * 2
        sent = call.transact({**fields, "gasPrice": price})
        return self.w3.eth.wait_for_transaction_receipt(sent, poll_latency=_POLL_SECONDS)

    @abstractmethod
    def reason(self, call: Any, fields: dict[str, Any], receipt: TxReceipt) -> str:
        """What the contract said when the latest block's transaction, which failed, did so.

        `call` and `fields` as they were sent.
        """

    @abstractmethod
    def travel(self, timestamp: int) -> None:
        """Makes the next block have exactly this timestamp, in seconds."""

    @abstractmethod
    def mine(self) -> None:
        """Mines an empty block."""

    @abstractmethod
    def snapshot(self) -> int:
        """Remembers the present state; its number."""

    @abstractmethod
    def revert(self, snapshot: int) -> None:
        """Goes back to a snapshot, which is used up, and so are all that were taken after it."""

    @abstractmethod
    def close(self) -> None:
        """Ends the chain and what belongs to it; a second time does nothing."""


class InProcessChain(RehearsalChain):
    """py-evm through eth-tester, with native EIP-2537 operations or py-evm's own."""

    def __init__(self, mode: Mode = "native") -> None:
        backend = PyEVMBackend(
            genesis_parameters=PyEVMBackend.generate_genesis_params({"timestamp": GENESIS_TIME}),
            vm_configuration=((0, prague_vm(mode)),),
        )
        self._tester = EthereumTester(backend=backend)
        self.w3 = Web3(EthereumTesterProvider(self._tester))

    def reason(self, call: Any, fields: dict[str, Any], receipt: TxReceipt) -> str:
        """Simulates the call in the pending block, which is set to the same time for it."""
        failed = self.w3.eth.get_block(receipt["blockNumber"])
        chain = self._tester.backend.chain
        following = chain.header
        chain.header = following.copy(timestamp=failed["timestamp"])
        try:
            call.call(
                {**fields, "gasPrice": receipt["effectiveGasPrice"]}, block_identifier="pending"
            )
        except CALL_REVERTED as error:
            said = str(error.args[0]).removeprefix("execution reverted: ")
            return revert_reason(b"") if said == _NOTHING_SAID else said
        finally:
            chain.header = following
        raise AssertionError("a transaction that failed does not fail when it is simulated")

    def travel(self, timestamp: int) -> None:
        """See `RehearsalChain`."""
        chain = self._tester.backend.chain
        chain.header = chain.header.copy(timestamp=timestamp)

    def mine(self) -> None:
        """See `RehearsalChain`."""
        self._tester.mine_block()

    def snapshot(self) -> int:
        """See `RehearsalChain`."""
        return int(self._tester.take_snapshot())

    def revert(self, snapshot: int) -> None:
        """See `RehearsalChain`."""
        self._tester.revert_to_snapshot(snapshot)

    def close(self) -> None:
        """Nothing to end."""


class AnvilChain(RehearsalChain):
    """A process of anvil on loopback, which ends with this object or this process at the latest."""

    def __init__(self, binary: str) -> None:
        """`binary`: anvil's path, or its name if it is on the PATH.

        Raises `ChainUnavailable` if it does not come up.
        """
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        process = _start(
            [binary, "--port", str(port), "--silent", "--hardfork", "prague"]
            + ["--chain-id", str(CHAIN_ID), "--timestamp", str(GENESIS_TIME), "--accounts", "1"]
            # Otherwise every block's state goes to the home directory, and stays there.
            + ["--prune-history", "16"]
        )
        self._stop = weakref.finalize(self, _stop, process)
        self.w3 = Web3(HTTPProvider(f"http://127.0.0.1:{port}"))
        self._wait(process)
        for key in KEYS:
            self._rpc("anvil_setBalance", address_of(key), hex(DEV_BALANCE_WEI))
        self._rpc("anvil_setBlockTimestampInterval", 1)
        signing = SignAndSendRawMiddlewareBuilder.build(KEYS)
        self.w3.middleware_onion.inject(signing, layer=0)

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while not self.w3.is_connected():
            if process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise ChainUnavailable(f"anvil does not come up (status {process.returncode})")
            time.sleep(_POLL_SECONDS)
        if process.poll() is not None:
            raise ChainUnavailable("anvil has ended, and another process has its port")

    def _rpc(self, method: str, *arguments: Any) -> Any:
        answer = self.w3.provider.make_request(RPCEndpoint(method), list(arguments))
        if "error" in answer:
            raise ChainUnavailable(f"anvil refuses {method}: {answer['error']}")
        return answer["result"]

    def reason(self, call: Any, fields: dict[str, Any], receipt: TxReceipt) -> str:
        """Reads it from the trace of the mined transaction."""
        hash_ = receipt["transactionHash"].to_0x_hex()
        trace = self._rpc("debug_traceTransaction", hash_, {"tracer": "callTracer"})
        return revert_reason(bytes.fromhex(trace.get("output", "0x").removeprefix("0x")))

    def travel(self, timestamp: int) -> None:
        """See `RehearsalChain`."""
        self._rpc("evm_setNextBlockTimestamp", timestamp)

    def mine(self) -> None:
        """See `RehearsalChain`."""
        self._rpc("evm_mine")

    def snapshot(self) -> int:
        """See `RehearsalChain`."""
        return int(self._rpc("evm_snapshot"), 16)

    def revert(self, snapshot: int) -> None:
        """See `RehearsalChain`."""
        if not self._rpc("evm_revert", hex(snapshot)):
            raise ValueError(f"anvil has no snapshot {snapshot}")

    def close(self) -> None:
        """See `RehearsalChain`."""
        self._stop()


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise ChainUnavailable(f"anvil cannot be started: {error}") from error


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
