# SPDX-License-Identifier: BSD-3-Clause
"""Whether an agent runs in a folder, and in which process.

The running agent holds a lock on a file in its folder. The operating system drops the lock with
the process, so that a number left by a crash is never taken for a running agent's.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .failures import UsageProblem

FILE_NAME = "process"

COPY = signal.SIGUSR2
"""Asks the running agent to leave a copy of its store in its folder."""


@contextmanager
def present(folder: Path) -> Iterator[None]:
    """Within the block, this process is the one that runs the folder's agent.

    Raises `UsageProblem` if another one does.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(folder / FILE_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            running = os.read(descriptor, 32).decode(errors="replace")
            raise UsageProblem(f"{folder} is in use by process {running}") from None
        # Whoever asks for a copy before the agent is up, or while it ends, asks again.
        signal.signal(COPY, signal.SIG_IGN)
        os.truncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        os.close(descriptor)


def running_process(folder: Path) -> int | None:
    """The process that runs the folder's agent, None if none does."""
    try:
        descriptor = os.open(folder / FILE_NAME, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        digits = os.read(descriptor, 32)
        return int(digits) if digits.isdigit() else None
    else:
        return None
    finally:
        os.close(descriptor)
