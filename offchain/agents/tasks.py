# SPDX-License-Identifier: BSD-3-Clause
"""Background tasks of an agent: none is forgotten, and none fails unseen."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog


class Tasks:
    """Running tasks by name; the first failure is logged and kept in `failure`."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._running: dict[str, asyncio.Task[Any]] = {}
        self._log = structlog.get_logger(owner)
        self.failure: BaseException | None = None

    def start(self, name: str, work: Coroutine[Any, Any, Any]) -> None:
        """Run `work` unless a task of this name runs already."""
        if name in self._running:
            work.close()
            return
        task = asyncio.create_task(work, name=f"{self._owner}:{name}")
        self._running[name] = task
        task.add_done_callback(lambda done: self._finished(name, done))

    def running(self, prefix: str = "") -> bool:
        """Whether any task runs whose name starts with `prefix`."""
        return any(name.startswith(prefix) for name in self._running)

    def _finished(self, name: str, task: asyncio.Task[Any]) -> None:
        self._running.pop(name, None)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self._log.error("task failed", task=name, error=f"{type(error).__name__}: {error}",
                            exc_info=error)
            if self.failure is None:
                self.failure = error

    async def stop(self, prefix: str = "") -> None:
        """Cancel every task whose name starts with `prefix`, and wait until it has ended."""
        tasks = [task for name, task in self._running.items() if name.startswith(prefix)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
