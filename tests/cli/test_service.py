# SPDX-License-Identifier: BSD-3-Clause
"""Agents in the foreground: one process to a folder, an end in order, no failure unseen."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from offchain.cli.failures import UsageProblem
from offchain.cli.presence import present, running_process
from offchain.cli.service import SETTLE, running, until_told

ROOT = Path(__file__).resolve().parent.parent.parent


class Agent:
    def __init__(self):
        self.calls = []

    async def start(self):
        self.calls.append("start")

    async def stop(self):
        self.calls.append("stop")


def test_an_agent_is_stopped_whatever_happens():
    agent = Agent()

    async def fail():
        async with running(agent):
            raise OSError("the link is lost")

    with pytest.raises(OSError, match="the link is lost"):
        asyncio.run(fail())
    assert agent.calls == ["start", "stop"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_wait(number):
    async def wait():
        asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), number)
        await asyncio.wait_for(until_told(), 5)

    asyncio.run(wait())


def test_a_failed_task_ends_the_wait():
    def check():
        raise ValueError("a task has failed")

    with pytest.raises(ValueError, match="a task has failed"):
        asyncio.run(until_told(check))


def test_a_request_to_settle_does_not_end_the_wait():
    asked = []

    async def wait():
        loop = asyncio.get_running_loop()
        loop.call_later(0.05, os.kill, os.getpid(), SETTLE)
        loop.call_later(0.3, os.kill, os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(until_told(on_settle=lambda: asked.append("settle")), 5)

    asyncio.run(wait())
    assert asked == ["settle"]


HOLD = """
import sys
from pathlib import Path
from offchain.cli.presence import present
with present(Path(sys.argv[1])):
    print("here", flush=True)
    sys.stdin.read()
"""


def test_one_process_to_a_folder(tmp_path):
    folder = tmp_path / "relay"
    assert running_process(folder) is None
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout.readline() == b"here\n"
        assert running_process(folder) == other.pid
        with pytest.raises(UsageProblem, match=str(other.pid)), present(folder):
            pass
        # A crash leaves the file behind, but not the lock.
        other.kill()
        other.wait(10)
    assert (folder / "process").read_text() == str(other.pid)
    assert running_process(folder) is None
    with present(folder):
        assert (folder / "process").read_text() == str(os.getpid())
