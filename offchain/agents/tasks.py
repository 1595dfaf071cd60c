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
        before = self._running.get(name)
        # One that has ended may not have been told of yet: it does none of this work any more.
        if before is not None and not before.done():
            work.close()
            return
        task = asyncio.create_task(work, name=f"{self._owner}:{name}")
        self._running[name] = task
        task.add_done_callback(lambda done: self._finished(name, done))

    def running(self, prefix: str = "") -> bool:
        """Whether any task runs whose name starts with `prefix`."""
        return any(name.startswith(prefix) and not task.done()
                   for name, task in self._running.items())

    def _finished(self, name: str, task: asyncio.Task[Any]) -> None:
        if self._running.get(name) is task:
            del self._running[name]
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self._log.error("task failed", task=name, error=f"{type(error).__name__}: {error}",
                            exc_info=error)
            if self.failure is None:
                self.failure = error

    async def stop(self, prefix: str = "") -> None:
        """Cancel every task whose name starts with `prefix`, and wait until it has ended.

        Those that start others while they end are waited for with them.
        """
        this = asyncio.current_task()
        while tasks := [task for name, task in self._running.items()
                        if name.startswith(prefix) and not task.done() and task is not this]:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
