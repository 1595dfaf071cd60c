# SPDX-License-Identifier: BSD-3-Clause
"""`monetor relay`."""

from __future__ import annotations

import asyncio
import os
import signal
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from .accounts import signing_key
from .failures import UsageProblem
from .networks import DEFAULT_NETWORK, connected, find
from .options import (
    DEPLOYMENTS,
    DIRECTORY,
    Account,
    AsJson,
    Confirmations,
    Deployments,
    Directory,
    Folder,
    Host,
    Intermediaries,
    Keystore,
    NetworkName,
    WatcherFolders,
)
from .presence import present, running_process
from .report import pairs_or_json
from .service import SETTLE, folder_of, running_with_store, say_ready, until_told

if TYPE_CHECKING:
    from offchain.agents.relay import RelayAgent


class Scheduler(StrEnum):
    """The orders that the transport knows, without loading it for the help text."""

    EWMA = "ewma"
    FIFO = "fifo"
    STRICT = "strict"


def run(
    name: Annotated[str, typer.Argument(help="The relay's nickname.")],
    guard: Annotated[bool, typer.Option("--guard", help="Offer to be a first hop.")] = False,
    exit_: Annotated[bool, typer.Option("--exit", help="Offer to be a last hop.")] = False,
    exit_policy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NETWORK:PORTS",
            help="Where an exit connects to: public:443, 10.0.0.0/8:80-90, *:*; may be repeated. "
            "[default: this machine]",
        ),
    ] = None,
    deposit: Annotated[int, typer.Option(min=0, help="Own escrow per channel, base units.")] = 0,
    fund: Annotated[
        int, typer.Option(min=0, help="Escrow of the intermediary per channel, base units.")
    ] = 100_000,
    channels: Annotated[
        int,
        typer.Option(
            min=1, max=256, help="Channels to open at each intermediary, again when they run out."
        ),
    ] = 4,
    intermediary: Intermediaries = None,
    bandwidth_rate: Annotated[
        int, typer.Option(min=0, help="Bytes a second in each direction, at most. [default: any]")
    ] = 0,
    bandwidth_burst: Annotated[
        int, typer.Option(min=0, help="Bytes at once. [default: one second's]")
    ] = 0,
    scheduler: Annotated[
        Scheduler,
        typer.Option(
            help="Who is served first: whoever has sent least of late (ewma), whoever came first "
            "(fifo), or whoever pays (strict)."
        ),
    ] = Scheduler.EWMA,
    settle: Annotated[
        bool,
        typer.Option("--settle", help="Close sessions, claim, cash out, withdraw, and end."),
    ] = False,
    network: NetworkName = DEFAULT_NETWORK,
    deployments: Deployments = DEPLOYMENTS,
    directory: Directory = DIRECTORY,
    folder: Folder = None,
    account: Account = None,
    keystore: Keystore = None,
    confirmations: Confirmations = 0,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes any free port.")] = 0,
    tor_authority: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Directory port of a Tor network's authority: join that network too, unpaid "
            "clients and all.",
        ),
    ] = None,
    bandwidth: Annotated[
        int, typer.Option(min=1, help="Bytes per second to claim; clients choose by it.")
    ] = 1_000_000,
    watcher_folder: WatcherFolders = None,
    verbose: Annotated[bool, typer.Option(help="Log what happens.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a relay: forward cells, be paid for them, and settle when told to.

    With --settle a relay that runs is told to settle, and goes on serving; one that does not run
    comes up for as long as that takes.
    """
    from offchain.agents.place import AgentPlace
    from offchain.agents.relay import RelayAgent
    from offchain.transport.exit_policy import ExitPolicy
    from offchain.transport.scheduler import Discipline

    from .logs import to_standard_error

    try:
        policy = ExitPolicy(exit_policy) if exit_policy else None
    except ValueError as error:
        raise UsageProblem(f"--exit-policy: {error}") from error
    if policy is not None and not exit_:
        raise UsageProblem("--exit-policy is of relays with --exit")
    home = folder_of(folder, name)
    authority = _authority(tor_authority) if tor_authority is not None else None
    if settle and (process := running_process(home)) is not None:
        os.kill(process, SETTLE)
        pairs_or_json({"relay": name, "told_process": process}, as_json=as_json)
        return
    to_standard_error(verbose=verbose)
    place = AgentPlace(
        home,
        find(network).host,
        deployments,
        directory,
        host=host,
        port=port,
        confirmations=confirmations,
        watcher_folders=tuple(watcher_folder or ()),
    )

    async def serve() -> None:
        async with connected(network) as chain:
            key = signing_key(chain.chain_id, account or name, keystore)
        agent = RelayAgent(
            place,
            key,
            nickname=name,
            is_guard=guard,
            is_exit=exit_,
            exit_policy=policy,
            deposit=deposit,
            fund=fund,
            channels=channels,
            intermediaries=tuple(intermediary or ()),
            tor_authority=authority,
            bandwidth=bandwidth,
            discipline=Discipline(scheduler.value),
            rate=bandwidth_rate,
            burst=bandwidth_burst,
        )
        async with running_with_store(agent):
            if settle:
                pairs_or_json(await _settle(agent), as_json=as_json)
                return
            facts: dict[str, object] = {"account": "0x" + agent.account.hex()}
            say_ready("relay", name, facts, as_json=as_json)
            await _serve(agent, as_json=as_json)

    # Until the relay is up there is nothing to settle, and the signal must not end it.
    signal.signal(SETTLE, signal.SIG_IGN)
    with present(home):
        asyncio.run(serve())


def _authority(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) <= 0xFFFF:
        raise typer.BadParameter(f"{text!r} is not HOST:PORT", param_hint="--tor-authority")
    return host.removeprefix("[").removesuffix("]"), int(port)


async def _serve(agent: RelayAgent, *, as_json: bool) -> None:
    """Serve at once; the channels open when enough other relays are there to hide among.

    A relay that has been told to settle opens no further ones.
    """

    async def have_channels() -> None:
        await agent.keep_preparing()
        await agent.keep_channels()

    async def settle() -> None:
        opening.cancel()
        pairs_or_json(await _settle(agent), as_json=as_json, as_line=True)

    # The engine watches its own tasks; these have to be watched here.
    opening = asyncio.create_task(have_channels())
    work: set[asyncio.Task[None]] = {opening}

    def check() -> None:
        agent.engine.check()
        for task in [one for one in work if one.done()]:
            work.discard(task)
            if not task.cancelled():
                task.result()

    try:
        await until_told(check, on_settle=lambda: work.add(asyncio.create_task(settle())))
    finally:
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)


async def _settle(agent: RelayAgent) -> dict[str, object]:
    """Close, claim and cash out; what the ledger still has to decide can be withdrawn later."""
    await agent.close_sessions()
    await agent.claim_guards()
    await agent.cash_out()
    withdrawn = await agent.withdraw()
    return {
        "received": agent.received,
        "guard_received": agent.guard_received,
        "withdrawn": withdrawn,
        "channels_not_paid_out": _unsettled(agent),
        # Each needs gas of its own to withdraw what guards' clients have paid to it.
        "payout_addresses": ["0x" + payout.hex() for payout, _ in agent.payouts()],
    }


def _unsettled(agent: RelayAgent) -> int:
    from offchain.protocol.wallet import Settled

    return sum(not isinstance(one, Settled) for one in agent.wallets())
