# SPDX-License-Identifier: BSD-3-Clause
"""A network whose agents run in a thread of their own, for tests that disturb it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from monetor_chain.parameters import DEMO
from offchain.testnet.network import Network, Options

ROOT = Path(__file__).resolve().parent.parent.parent


class Background:
    """A running `Network`; `run` does something in its event loop."""

    def __init__(self, folder, **options):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.network = self.run(self._make(folder, options))

    @staticmethod
    async def _make(folder, options):
        parameters = options.pop("parameters", DEMO)
        return Network(Options(folder, parameters, **options), say=lambda text: None)

    def run(self, work, seconds=120):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(seconds)

    def start(self):
        self.run(self.network.start_chain())
        self.run(self.network.start_agents())
        self.run(self.network.open_channels())

    def stop(self):
        self.run(self.network.stop())
        left = [one.get_name() for one in asyncio.all_tasks(self.loop) if not one.done()]
        assert not left, f"tasks that outlive the agents: {left}"
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()


@pytest.fixture(scope="module")
def background(tmp_path_factory):
    found = Background(tmp_path_factory.mktemp("network"), speed=4.0)
    try:
        found.start()
        yield found
    finally:
        found.stop()


def monetor(*arguments, seconds=120, environment=None):
    """Run a command to its end: (status, standard output, standard error)."""
    import os
    done = subprocess.run([sys.executable, "-m", "offchain.cli", *map(str, arguments)], cwd=ROOT,
                          capture_output=True, text=True, timeout=seconds,
                          env={**os.environ, **(environment or {})}, check=False)
    return done.returncode, done.stdout, done.stderr
