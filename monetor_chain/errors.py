# SPDX-License-Identifier: BSD-3-Clause
"""Everything that `monetor_chain` raises on purpose; each message is one sentence for a person."""

from __future__ import annotations

from collections.abc import Sequence


class ChainError(Exception):
    """Base of all errors of this package."""


class ChainUnavailable(ChainError):
    """No answer, or no usable one, from the JSON-RPC endpoint."""


class RpcError(ChainError):
    """The endpoint answered with a JSON-RPC error; `data` is a revert's payload, if any."""

    def __init__(self, message: str, code: int = 0, data: bytes = b"") -> None:
        super().__init__(message)
        self.code = code
        self.data = data


class WrongChain(ChainError):
    """The endpoint serves another chain than the caller expects."""


class NotADevelopmentChain(ChainError):
    """A call that only development chains offer (clock, snapshots) was refused."""


class MissingPrecompiles(ChainError):
    """The chain lacks EIP-2537, without which no token can be checked."""


class PortInUse(ChainError):
    """The embedded chain cannot listen where it was told to."""


class CompilationFailed(ChainError):
    """A contract does not compile, or its sources are missing."""


class SettingsError(ChainError):
    """brownie-config.yaml is missing, unreadable or contradicts itself."""


class DeploymentMissing(ChainError):
    """No deployment is recorded for this chain."""


class DeploymentMismatch(ChainError):
    """The record does not describe what the chain holds."""


class IllegalHistory(ChainError):
    """Events that the ledger cannot have emitted in this order: some are missing or foreign."""


class Reorganised(ChainError):
    """Blocks that were taken for confirmed are no longer on the chain."""


class InvalidParameters(ChainError):
    """A parameter set that the consensus contract would refuse."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("invalid network parameters: " + "; ".join(problems))
        self.problems = tuple(problems)


class TransactionError(ChainError):
    """A transaction did not do what was asked."""

    def __init__(self, message: str, transaction: bytes | None = None) -> None:
        super().__init__(message)
        self.transaction = transaction


class TransactionReverted(TransactionError):
    """A contract refused the call. `reason` is the contract's own word, `module: reason`.

    `transaction` is the hash when the refusal was mined and cost gas, None when a simulation
    found it first and nothing was sent.
    """

    def __init__(self, reason: str, transaction: bytes | None = None) -> None:
        super().__init__(f"reverted: {reason}", transaction)
        self.reason = reason


class TransactionDropped(TransactionError):
    """The chain forgot the transaction again and again, whatever was paid."""


class TransactionTimeout(TransactionError):
    """The transaction was not mined in time; it may still be."""


class InsufficientFunds(TransactionError):
    """The account cannot pay for gas and value."""
