# SPDX-License-Identifier: BSD-3-Clause
"""Processes that verify proofs for an intermediary, since the curve libraries hold the GIL.

A worker gets the intermediary's key over its pipe, holds it in memory only, and answers one claim
after the other. It ends with the pipe, so none outlives its parent. A worker that dies or takes too
long is replaced, and its claim is tried once more: what kills workers twice is not verified.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import pickle
import signal
from collections import deque
from dataclasses import dataclass
from multiprocessing.connection import Connection

import structlog

from ..crypto.issuer import IssuerKey
from ..protocol.claims import Claim

VERDICT_SECONDS = 10.0
"""How long a worker may take for one claim; milliseconds are usual."""
START_SECONDS = 60.0
"""How much longer the first claim of a process may take, which has to start."""
TRIES = 2
WAITING_PER_WORKER = 256
"""As many claims as a worker verifies in a second: with more, whoever waits gives up first."""
_STOP_SECONDS = 5.0


class NoVerdict(Exception):
    """A claim could not be verified now; nothing is known of it."""


def serve(connection: Connection) -> None:
    """A worker's whole life: the key, then claims, until the other side closes the pipe."""
    # An interrupt from the terminal is for the parent, which then ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        issuer = IssuerKey.decode(connection.recv())
        while True:
            claim: Claim = connection.recv()
            connection.send(claim.verdict(issuer))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


@dataclass(eq=False)
class _Task:
    claim: Claim
    verdict: asyncio.Future[str]
    tries: int = 0


class _Worker:
    """One process and what it is working on."""

    def __init__(self, secret: bytes) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs,), daemon=True,
                                       name="proof-worker")
        self.process.start()
        theirs.close()
        self.connection.send(secret)
        self.patience = START_SECONDS + VERDICT_SECONDS
        self.task: _Task | None = None
        self.limit: asyncio.TimerHandle | None = None

    def end(self) -> None:
        """Close the pipe and make sure that the process is gone."""
        self.connection.close()
        self.process.kill()
        self.process.join(_STOP_SECONDS)
        self.process.close()


class ProofWorkers:
    """So many workers, in one event loop. Claims that wait are verified in their order."""

    def __init__(self, issuer: IssuerKey, count: int) -> None:
        """`count` processes are started with the first claims, at least one."""
        if count < 1:
            raise ValueError("at least one worker verifies")
        self._secret = issuer.encode()
        self._count = count
        self._workers: list[_Worker] = []
        self._waiting: deque[_Task] = deque()
        self._known: dict[Claim, asyncio.Future[str]] = {}
        self._closed = False
        self._log = structlog.get_logger("proofs")

    async def verdict(self, claim: Claim) -> str:
        """`Claim.verdict`, found by a worker. `NoVerdict` if too many wait, if the claim has cost
        the lives of workers, and after `close`."""
        if self._closed:
            raise NoVerdict("the workers have been stopped")
        verdict = self._known.get(claim)
        if verdict is None:
            if len(self._waiting) >= WAITING_PER_WORKER * self._count:
                raise NoVerdict("too many proofs are waiting")
            verdict = self._known[claim] = asyncio.get_running_loop().create_future()
            verdict.add_done_callback(lambda done: self._known.pop(claim, None))
            self._waiting.append(_Task(claim, verdict))
            self._assign()
        # Somebody else may wait for the same claim: one who goes away does not take it along.
        return await asyncio.shield(verdict)

    def pids(self) -> list[int]:
        """The processes that there are."""
        return [pid for worker in self._workers if (pid := worker.process.pid) is not None]

    async def close(self) -> None:
        """End all processes; who waits gets `NoVerdict`."""
        self._closed = True
        waiting = [worker.task for worker in self._workers if worker.task] + list(self._waiting)
        self._waiting.clear()
        workers, self._workers = self._workers, []
        for worker in workers:
            self._let_go(worker)
        await asyncio.gather(*(asyncio.to_thread(worker.end) for worker in workers))
        for task in waiting:
            self._give_up(task, "the workers have been stopped")

    # --- Work

    def _assign(self) -> None:
        while self._waiting:
            worker = next((one for one in self._workers if one.task is None), None)
            if worker is None:
                if len(self._workers) >= self._count:
                    return
                worker = self._start()
            self._hand(worker, self._waiting.popleft())

    def _start(self) -> _Worker:
        worker = _Worker(self._secret)
        self._workers.append(worker)
        asyncio.get_running_loop().add_reader(worker.connection.fileno(), self._heard, worker)
        return worker

    def _hand(self, worker: _Worker, task: _Task) -> None:
        task.tries += 1
        worker.task = task
        worker.limit = asyncio.get_running_loop().call_later(
            worker.patience, self._lost, worker, "takes too long")
        try:
            worker.connection.send(task.claim)
        except OSError as error:
            self._lost(worker, f"takes no claim ({error})")

    def _heard(self, worker: _Worker) -> None:
        try:
            verdict = worker.connection.recv()
        except (EOFError, OSError, pickle.UnpicklingError):
            self._lost(worker, "has died")
            return
        task = worker.task
        if task is None or not isinstance(verdict, str):
            self._lost(worker, "says what it was not asked")
            return
        assert worker.limit is not None
        worker.limit.cancel()
        worker.task, worker.patience = None, VERDICT_SECONDS
        if not task.verdict.done():
            task.verdict.set_result(verdict)
        self._assign()

    def _lost(self, worker: _Worker, why: str) -> None:
        if worker not in self._workers:
            return
        self._workers.remove(worker)
        self._let_go(worker)
        worker.end()
        task = worker.task
        self._log.error("a proof worker is replaced", reason=why)
        if task is not None and task.tries < TRIES:
            self._waiting.appendleft(task)
        elif task is not None:
            self._give_up(task, f"the worker {why}")
        self._assign()

    def _let_go(self, worker: _Worker) -> None:
        asyncio.get_running_loop().remove_reader(worker.connection.fileno())
        if worker.limit is not None:
            worker.limit.cancel()

    @staticmethod
    def _give_up(task: _Task, why: str) -> None:
        if not task.verdict.done():
            task.verdict.set_exception(NoVerdict(why))
            task.verdict.exception()  # Whoever asked may be gone; then nobody else reads it.


def default_workers(cores: int | None) -> int:
    """One core answers and keeps the store, the others verify."""
    return max(0, (cores or 1) - 1)
