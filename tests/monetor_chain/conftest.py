# SPDX-License-Identifier: BSD-3-Clause
"""Chains for these tests: always real processes that answer over HTTP on loopback."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from monetor_chain.accounts import dev_address, dev_key
from monetor_chain.chain import Chain
from monetor_chain.deployment import Deployment, deploy
from monetor_chain.embedded import EmbeddedChain
from monetor_chain.errors import ChainError

AUTHORITIES = ("authority", "authority2", "authority3")
ANVIL_CHAIN_ID = 31337
ANVIL = shutil.which("anvil")
"""The tests of deployment, sending and bindings run on anvil as well where it is installed."""


@dataclass(frozen=True)
class DeployedNetwork:
    """A running chain with the contracts on it."""

    url: str
    folder: Path
    deployment: Deployment
    kind: str


def wait_for_chain(url: str, seconds: float = 15.0) -> None:
    async def answer() -> None:
        async with await Chain.connect(url):
            return

    deadline = time.monotonic() + seconds
    while True:
        try:
            return asyncio.run(answer())
        except ChainError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@pytest.fixture(scope="session")
def fast_chain():
    """An embedded chain whose clock runs twenty times as fast as real time."""
    with EmbeddedChain(speed=20.0) as chain:
        yield chain


@pytest.fixture(scope="session")
def anvil_url():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [ANVIL, "--port", str(port), "--chain-id", str(ANVIL_CHAIN_ID), "--silent"]
        + ["--hardfork", "prague"],
        stdin=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for_chain(url)
        yield url
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="session", params=["embedded", "anvil"] if ANVIL else ["embedded"])
def network(request, tmp_path_factory):
    """The contracts on the embedded chain, and on anvil where it is installed."""
    if request.param == "embedded":
        url = request.getfixturevalue("fast_chain").url
    else:
        url = request.getfixturevalue("anvil_url")
    folder = tmp_path_factory.mktemp("deployments")

    async def put() -> Deployment:
        async with await Chain.connect(url) as chain:
            if request.param == "anvil":
                for role in ("deployer", *AUTHORITIES):
                    await chain.rpc("anvil_setBalance", dev_address(role), hex(10**22))
            voters = [dev_address(role) for role in AUTHORITIES]
            return await deploy(chain, dev_key("deployer"), authorities=voters, directory=folder)

    return DeployedNetwork(url, folder, asyncio.run(put()), request.param)


class SharedChain:
    """One standing process for tests that need a chain of their own only for a moment.

    Each borrower finds it at its first block with the speed it asks for, and leaves no trace.
    """

    def __init__(self) -> None:
        self._embedded = EmbeddedChain(speed=0.0)

    def lend(self, work, speed: float):
        async def run():
            async with await Chain.connect(self._embedded.start()) as chain:
                snapshot = await chain.snapshot()
                await chain.set_speed(speed)
                try:
                    return await work(chain)
                finally:
                    await chain.set_speed(0)
                    await chain.revert(snapshot)

        return asyncio.run(run())

    def stop(self) -> None:
        self._embedded.stop()


@pytest.fixture(scope="session")
def shared_chain():
    shared = SharedChain()
    yield shared
    shared.stop()
