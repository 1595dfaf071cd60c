# SPDX-License-Identifier: BSD-3-Clause
"""Verifiers that do to their process what a fault would; workers find them by their names."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from offchain.crypto.issuer import IssuerKey


def dies(issuer: IssuerKey) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dies_once(issuer: IssuerKey, marker: str) -> None:
    if not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)


def takes(issuer: IssuerKey, seconds: float) -> None:
    time.sleep(seconds)


def knows(issuer: IssuerKey, secret: bytes) -> None:
    if issuer.encode() != secret:
        raise ValueError("another key")
