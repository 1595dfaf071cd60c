# SPDX-License-Identifier: BSD-3-Clause
"""Run an agent in the foreground until it is told to end, or fails."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from .options import AGENTS
from .report import pairs_or_json

SETTLE = signal.SIGUSR1
"""Asks a running agent to settle."""

CHECK_SECONDS = 0.5
"""How often a running agent is asked whether one of its tasks has failed."""


class Agent(Protocol):
    """What can be started and stopped."""

    async def start(self) -> None:
        """Come up."""

    async def stop(self) -> None:
        """End; what is not done is on disk."""


@asynccontextmanager
async def running(agent: Agent) -> AsyncIterator[None]:
    """The agent is up within the block, and stopped after it whatever happens."""
    await agent.start()
    try:
        yield
    finally:
        await agent.stop()


async def until_told(
    check: Callable[[], None] = lambda: None, on_settle: Callable[[], None] | None = None
) -> None:
    """Wait for an interrupt or a termination signal.

    `check` is called now and then and raises if something has failed; `on_settle` is called on
    `SETTLE`, while the agent goes on serving.
    """
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told.set)
    if on_settle is not None:
        loop.add_signal_handler(SETTLE, on_settle)
    try:
        while not told.is_set():
            check()
            try:
                async with asyncio.timeout(CHECK_SECONDS):
                    await told.wait()
            except TimeoutError:
                continue
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, SETTLE):
            loop.remove_signal_handler(number)


def folder_of(folder: Path | None, name: str) -> Path:
    """The agent's folder: the one given, else one of its name in the working folder."""
    return folder if folder is not None else AGENTS / name


def say_ready(kind: str, name: str, facts: dict[str, object], *, as_json: bool) -> None:
    """Tell, in one go, that an agent is up and where. As JSON, a running agent writes lines."""
    pairs_or_json({"agent": kind, "name": name, **facts}, as_json=as_json, as_line=True)
