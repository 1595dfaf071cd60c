# SPDX-License-Identifier: BSD-3-Clause
"""`monetor client`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .accounts import signing_key
from .failures import UsageProblem
from .meter import Meter
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
    Intermediaries,
    Keystore,
    NetworkName,
    WatcherFolders,
)
from .presence import present
from .report import pairs_or_json
from .service import folder_of, running_with_store, say_ready, until_told

if TYPE_CHECKING:
    from offchain.agents.client import ClientAgent

GUARD_PRIVATE_KEY = "MONETOR_GUARD_PRIVATE_KEY"


def run(
    url: Annotated[str | None, typer.Argument(help="What to download.")] = None,
    name: Annotated[str, typer.Option(help="The client's name on this machine.")] = "client",
    sessions: Annotated[
        int, typer.Option(min=1, help="Sessions that each of the client's channels can pay.")
    ] = 4,
    channels: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=256,
            help="Channels to open at each intermediary. [default: as many as one circuit and the "
            "sessions kept ready need]",
        ),
    ] = None,
    intermediary: Intermediaries = None,
    socks: Annotated[
        str | None,
        typer.Option(
            metavar="[ADDRESS:]PORT",
            help="Serve as a SOCKS5 proxy here until told to end, on loopback only; port 0 takes "
            "any free one.",
        ),
    ] = None,
    settle: Annotated[
        bool, typer.Option("--settle", help="Afterwards cash out, withdraw and close the guards.")
    ] = False,
    tit_for_tat: Annotated[
        bool,
        typer.Option(
            "--tit-for-tat",
            help="Stop paying now and then to see whether it helps, and leave circuits that are no "
            "faster for it.",
        ),
    ] = False,
    network: NetworkName = DEFAULT_NETWORK,
    deployments: Deployments = DEPLOYMENTS,
    directory: Directory = DIRECTORY,
    confirmations: Confirmations = 0,
    folder: Folder = None,
    account: Account = None,
    keystore: Keystore = None,
    guard_keystore: Annotated[
        Path | None,
        typer.Option(
            help="Keystore of the account that pays guards and must not be tied to the other. "
            "Without it, MONETOR_GUARD_PRIVATE_KEY or the development account NAME-guard."
        ),
    ] = None,
    watcher_folder: WatcherFolders = None,
    verbose: Annotated[bool, typer.Option(help="Log what happens.")] = False,
    as_json: AsJson = False,
) -> None:
    """Download through three relays, paying each; then close the sessions.

    With --socks applications use the paid circuits instead (curl --socks5-hostname ADDRESS:PORT),
    until the client is told to end; those with different user names or passwords share none.
    The channels stay open for the next download unless --settle is given, which also works
    without a URL; so does --watcher-folder, which then renews what the watcher holds.
    """
    if url is None and socks is None and not settle and not watcher_folder:
        raise UsageProblem("nothing to do: give a URL, --socks or --settle")
    if url is not None and socks is not None:
        raise UsageProblem("give a URL or --socks, not both")
    listen = _address(socks) if socks is not None else None
    from offchain.agents.client import ClientAgent
    from offchain.agents.download import Target
    from offchain.agents.place import AgentPlace
    from offchain.policy.coins import group_size
    from offchain.policy.session_pool import FEWEST

    if url is not None:
        Target.of(url)
    from .logs import to_standard_error

    to_standard_error(verbose=verbose)
    place = AgentPlace(
        folder_of(folder, name),
        find(network).host,
        deployments,
        directory,
        confirmations=confirmations,
        watcher_folders=tuple(watcher_folder or ()),
    )

    async def work(meter: Meter) -> dict[str, object]:
        async with connected(network) as chain:
            key = signing_key(chain.chain_id, account or name, keystore)
            guard_key = signing_key(
                chain.chain_id, f"{account or name}-guard", guard_keystore, GUARD_PRIVATE_KEY
            )
        agent = ClientAgent(
            place,
            key,
            guard_key=guard_key,
            nickname=name,
            intermediaries=tuple(intermediary or ()),
            tit_for_tat=tit_for_tat,
        )
        facts: dict[str, object] = {}
        async with running_with_store(agent):
            if url is not None or listen is not None:
                meter.step("opening channels")
                terms = agent.engine.moment().parameters
                deposit = sessions * terms.n * terms.price
                count = channels or group_size(FEWEST)
                await agent.have_channels(deposit=deposit, fund=0, count=count)
                agent.keep_ready(deposit=deposit, clean=int(listen is not None))
            if url is not None:
                facts |= await _download(agent, url, meter)
            if listen is not None:
                facts |= await _serve(agent, listen, meter, as_json=as_json)
            if settle:
                meter.step("cashing out")
                facts["withdrawn"] = await agent.settle()
                facts["channels_not_paid_out"] = agent.unsettled()
        return facts

    with present(place.folder), Meter(quiet=as_json) as meter:
        facts = asyncio.run(work(meter))
    pairs_or_json(facts, as_json=as_json)


async def _download(agent: ClientAgent, url: str, meter: Meter) -> dict[str, object]:
    """Download, and close the sessions however that ends: a lost download is no lost money."""
    try:
        meter.step("setting up sessions and building a paid circuit")
        await agent.paid.open()
        meter.step(f"downloading {url}")
        found = await agent.download(url, meter.progress)
    finally:
        meter.step("closing the sessions")
        await agent.close_sessions()
    return {
        "url": url,
        "bytes": found.size,
        "sha256": found.sha256,
        "seconds": round(found.seconds, 3),
        "sent": {hop: agent.sent(hop) for hop in ("guard", "middle", "exit")},
    }


def _address(text: str) -> tuple[str, int]:
    """Host and port to listen on. `UsageProblem` for what others could reach, too."""
    from ipaddress import ip_address

    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    try:
        if not ip_address(host).is_loopback:
            raise UsageProblem(
                f"--socks {text} could be reached from elsewhere, and whoever reaches it spends "
                "this client's money: use 127.0.0.1 or [::1]"
            )
        if not 0 <= int(port) <= 0xFFFF:
            raise ValueError("the port is above 65535")
    except ValueError as error:
        raise UsageProblem(
            f"--socks {text} is no address and port ({error}); for example 127.0.0.1:9050"
        ) from error
    return host, int(port)


async def _serve(
    agent: ClientAgent, listen: tuple[str, int], meter: Meter, *, as_json: bool
) -> dict[str, object]:
    """Carry what applications send, until told to end; then close the sessions."""
    from offchain.agents.socks_proxy import SocksProxy

    proxy = SocksProxy(agent.paid.open, agent.engine.tasks, agent.nickname)
    meter.step("serving; end with Ctrl-C")
    try:
        await proxy.start(*listen)
        host = f"[{listen[0]}]" if ":" in listen[0] else listen[0]
        say_ready(
            "client", agent.nickname, {"socks": f"{host}:{proxy.port}"}, as_json=as_json
        )
        await until_told(agent.engine.check)
    finally:
        await proxy.stop()
        meter.step("closing the sessions")
        await agent.close_sessions()
    return {
        "connections": proxy.served,
        "sent": {hop: agent.sent(hop) for hop in ("guard", "middle", "exit")},
    }
