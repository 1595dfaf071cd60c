# SPDX-License-Identifier: BSD-3-Clause
"""From an exception to the one sentence that a person reads.

Expected failures are those that the layers below raise on purpose, and what the operating system
says of files, sockets and processes. Anything else is a mistake in the program and keeps its
traceback.
"""

from __future__ import annotations

import sys
from errno import EADDRINUSE

EXPECTED = (
    ("monetor_chain.errors", "ChainError"),
    ("offchain.crypto.errors", "CryptoError"),
    ("offchain.protocol.errors", "ProtocolError"),
    ("offchain.transport.errors", "TransportError"),
    ("offchain.transport.server_descriptor", "DescriptorError"),
    ("offchain.store.sqlite", "StoreError"),
    ("offchain.store.sealed", "SealedError"),
    ("offchain.policy.tax.errors", "PolicyError"),
    ("offchain.agents.directory", "DirectoryError"),
    ("offchain.agents.download", "DownloadError"),
    ("offchain.agents.watch_folder", "HandOverFailed"),
    ("offchain.experiments.figures", "MissingMatplotlib"),
    ("offchain.experiments.priority.run", "ExperimentFailed"),
    ("offchain.testnet.demo", "DemoFailed"),
    ("offchain.cli.failures", "UsageProblem"),
)
"""Modules and the base classes of the errors that they raise on purpose."""

EXTRAS = {"matplotlib": "experiments", "numba": "experiments", "numpy": "experiments"}
"""Libraries that come with an optional part of the installation."""


class UsageProblem(Exception):
    """The command cannot be carried out as given; the text says what to change."""


def explain(error: BaseException) -> str | None:
    """One sentence for an expected failure, None for any other."""
    if isinstance(error, BaseExceptionGroup):
        sentences = [explain(one) for one in error.exceptions]
        known = [one for one in sentences if one is not None]
        return "; ".join(dict.fromkeys(known)) if len(known) == len(sentences) else None
    if isinstance(error, _expected()):
        return _one_line(str(error)) or type(error).__name__
    if isinstance(error, TimeoutError):
        return _one_line(str(error)) or "the other side did not answer in time"
    if isinstance(error, OSError):
        return _system(error)
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
        extra = EXTRAS[error.name]
        return f"this needs {error.name}: pip install 'monetor[{extra}]'"
    return None


def _expected() -> tuple[type[BaseException], ...]:
    # A class whose module nobody has loaded cannot have been raised.
    return tuple(
        getattr(sys.modules[module], name) for module, name in EXPECTED if module in sys.modules
    )


def _system(error: OSError) -> str:
    said = error.strerror or str(error) or type(error).__name__
    if error.errno == EADDRINUSE:
        return f"{said}; choose another port, or end whatever listens there"
    if error.filename is not None:
        return f"{error.filename}: {said}"
    return _one_line(said)


def _one_line(text: str) -> str:
    return " ".join(text.split())
