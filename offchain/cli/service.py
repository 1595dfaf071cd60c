# SPDX-License-Identifier: BSD-3-Clause
"""Run an agent in the foreground until it is told to end, or fails."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from .options import AGENTS
from .presence import COPY
from .report import pairs_or_json

if TYPE_CHECKING:
    from offchain.agents.engine import Engine
    from offchain.agents.place import AgentPlace

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


class Keeping(Agent, Protocol):
    """An agent with a store."""

    engine: Engine
    place: AgentPlace


@asynccontextmanager
async def running(agent: Agent) -> AsyncIterator[None]:
    """The agent is up within the block, and stopped after it whatever happens."""
    await agent.start()
    try:
        yield
    finally:
        await agent.stop()


@asynccontextmanager
async def running_with_store(agent: Keeping) -> AsyncIterator[None]:
    """As `running`; on `COPY` the agent leaves a copy of its store in its folder."""
    loop = asyncio.get_running_loop()
    async with running(agent):
        loop.add_signal_handler(COPY, _leave_copy, agent)
        try:
            yield
        finally:
            loop.remove_signal_handler(COPY)
            signal.signal(COPY, signal.SIG_IGN)


def _leave_copy(agent: Keeping) -> None:
    import structlog

    from offchain.store import StoreError
    from offchain.store.backup import SNAPSHOT

    try:
        agent.engine.store.copy_to(agent.place.folder / SNAPSHOT)
    except StoreError as error:
        # Whoever asked waits and asks again; that the disk takes no copy is not the agent's end.
        structlog.get_logger("backup").warning("no copy was made", reason=str(error))


async def until_told(
    check: Callable[[], None] = lambda: None,
    on_settle: Callable[[], None] | None = None,
    ended: Callable[[], bool] = lambda: False,
) -> None:
    """Wait for an interrupt or a termination signal, or until there is nothing more to do.

    `check` is called now and then and raises if something has failed, `ended` says that the agent
    is at its end; `on_settle` is called on `SETTLE`, while the agent goes on serving.
    """
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told.set)
    if on_settle is not None:
        loop.add_signal_handler(SETTLE, on_settle)
    try:
        while not told.is_set() and not ended():
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
