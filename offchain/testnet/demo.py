# SPDX-License-Identifier: BSD-3-Clause
"""The demo: a real file bought over three relays, and an account of every unit.

`run_demo` brings up a whole network, downloads, closes, cashes out and returns the statement. With
a dispute's name one party misbehaves (`disputes`), and the ledger settles what it owes.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from monetor_chain.parameters import DEMO

from ..agents.download import Download, DownloadError, Target
from ..agents.relay import RelayAgent
from ..protocol.wallet import Idle
from . import disputes
from .file_server import FileServer
from .network import Network, Options
from .statement import Statement, make_statement

DEFAULT_SIZE = 8 * 1024 * 1024
"""Bytes of the file that the demo serves when no URL is given."""
SETTLING_SPEED = 24.0
"""Speed of the dev network's clock while deadlines of the ledger are waited for."""

HIDDEN_PAUSE = 0.3
"""Longest pause before a hidden payment and between the cash-outs of a client's two accounts, in
seconds. A demo has no days to spread them over."""

Say = Callable[[str], None]
ShowProgress = Callable[[int, int | None], None]


@dataclass(slots=True)
class DemoOptions:
    """What `monetor demo` takes."""

    url: str | None = None
    size: int = DEFAULT_SIZE
    cells_per_payment: int = DEMO.cells_per_payment
    dispute: str | None = None
    speed: float = 4.0
    precompiles: Literal["native", "pure"] = "native"
    folder: Path | None = None
    say: Say = lambda text: None
    progress: ShowProgress = lambda size, total: None
    explain: list[str] = field(default_factory=list)


class DemoFailed(Exception):
    """The demo did not do what it shows; the statement, if there is one, says what happened."""

    def __init__(self, reason: str, statement: Statement | None = None) -> None:
        super().__init__(reason)
        self.statement = statement


async def run_demo(options: DemoOptions) -> Statement:
    """Run the demo; `DemoFailed` if the file or a unit is missing, `DownloadError` if the URL can
    lead to no file."""
    if options.dispute is not None and options.dispute not in disputes.DISPUTES:
        raise DemoFailed(f"there is no dispute {options.dispute!r}; the disputes are "
                         + ", ".join(sorted(disputes.DISPUTES)))
    if options.url is not None:
        Target.of(options.url)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="monetor-demo-"))
    parameters = replace(DEMO, cells_per_payment=options.cells_per_payment)
    parameters.check()
    network = Network(Options(folder, parameters, speed=options.speed,
                              precompiles=options.precompiles,
                              relay_agent=disputes.SleepyRelay if options.dispute else RelayAgent),
                      say=options.say)
    server = None if options.url else FileServer(options.size)
    try:
        return await _run(options, network, server)
    finally:
        await network.stop()
        if server is not None:
            await server.stop()
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)


async def _run(options: DemoOptions, network: Network, server: FileServer | None) -> Statement:
    say = options.say
    started = time.monotonic()
    if server is not None:
        await server.start()
    say("starting the embedded chain and deploying the contracts")
    await network.start_chain()
    say("starting authority, intermediary, three relays and the client")
    await network.start_agents()
    say("escrowing: channel groups of client, middle and exit")
    await network.open_channels()
    say("setting up sessions and building a paid circuit")
    client = network.client
    await client.prepare_sessions(3)
    url = options.url or (server.url if server else "")
    if options.dispute is not None:
        outcome = await disputes.DISPUTES[options.dispute](network, url, options.progress)
        say("cashing out what is idle, and waiting for the ledger to settle the rest")
        await finish(network, gone=outcome.gone)
        statement = await make_statement(network, outcome.download, hidden_payments=0,
                                         dishonest=outcome.dishonest, dispute=options.dispute)
        statement.notes = outcome.notes
        return _checked(statement, None, None)

    await client.build_circuit()
    say(f"downloading {url}")
    download: Download | None = None
    failure: DownloadError | None = None
    try:
        download = await client.download(url, options.progress)
    except DownloadError as error:
        failure = error
        say(f"{error}; closing sessions and accounting all the same")
    say("closing the sessions: relays first, then the client")
    await close_sessions(network)
    say("hidden micropayments, so that cash-outs tell nothing about sessions")
    hidden = await hidden_payments(network)
    say("cashing out on the ledger")
    await finish(network)
    statement = await make_statement(network, download, hidden_payments=hidden)
    statement.notes.append(f"{time.monotonic() - started:.0f} s in all")
    return _checked(statement, failure, server)


async def close_sessions(network: Network) -> None:
    """Everybody leaves the circuits; relays close first, then the client."""
    await network.client.close_sessions()
    await asyncio.gather(*(relay.close_sessions() for relay in network.relays.values()))


async def hidden_payments(network: Network) -> int:
    """One hidden payment out of every channel of the client; returns how many were made.

    In random order and with random pauses, so that neither tells which sessions a channel had.
    """
    chance = secrets.SystemRandom()
    idle = [one for one in network.client.wallets() if isinstance(one, Idle)]
    for one in chance.sample(idle, len(idle)):
        await asyncio.sleep(chance.uniform(0, HIDDEN_PAUSE))
        await network.client.hidden_payment(network.payee, one.cid)
    return len(idle)


async def finish(network: Network, gone: frozenset[str] = frozenset()) -> None:
    """Cash out, settle, close the guard channel, withdraw; parties in `gone` do nothing more."""
    users = {"client": network.client, "client2": network.payee, **network.relays}
    present = {name: user for name, user in users.items() if name not in gone}
    if "intermediary" not in gone:
        # The client's two accounts cash out one after the other.
        await asyncio.gather(*(user.cash_out() for name, user in present.items()
                               if name != "client2"))
        await asyncio.sleep(secrets.SystemRandom().uniform(0, HIDDEN_PAUSE))
        await network.payee.cash_out()
    await network.relays["guard"].claim_guards()
    if "client" not in gone:
        network.client.request_close_guards()
    await network.chain.set_speed(SETTLING_SPEED)
    patience = 240.0
    await asyncio.gather(*(user.settled(patience) for user in present.values()))
    if "client" not in gone:
        await network.client.guards_closed(patience)
    await disputes.wait_for_resolution(network, patience)
    for payout in network.payouts():
        await network.give_gas(payout)
    await asyncio.gather(*(user.withdraw() for user in present.values()))
    await network.collect_tax()


def _checked(statement: Statement, failure: DownloadError | None, server: FileServer | None
             ) -> Statement:
    if failure is not None:
        raise DemoFailed(str(failure), statement)
    if server is not None and statement.download.get("sha256") != server.sha256:
        raise DemoFailed("the file that arrived is not the file that was served", statement)
    if not statement.sound:
        raise DemoFailed("the account does not balance", statement)
    return statement
