# SPDX-License-Identifier: BSD-3-Clause
"""`monetor govern`: what the authorities decide, each by a transaction of its own.

A decision takes effect with the transaction that completes the quorum. Approvals of one decision
count together only within one epoch.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .accounts import address_named, signing_key
from .failures import UsageProblem
from .networks import DEFAULT_NETWORK, attached
from .options import DEPLOYMENTS, AsJson, Deployments, Keystore, NetworkName
from .report import pairs_or_json

if TYPE_CHECKING:
    from monetor_chain.deployment import Contracts
    from monetor_chain.parameters import NetworkParameters
    from monetor_chain.sender import Sender

Voter = Annotated[
    str, typer.Option("--account", help="Development account of the authority that decides.")
]


@dataclass(frozen=True, slots=True)
class _Office:
    """An authority at work: the contracts, and its way to send."""

    contracts: Contracts
    sender: Sender


@asynccontextmanager
async def _office(
    network: str, deployments: Path, account: str, keystore: Path | None
) -> AsyncIterator[_Office]:
    from monetor_chain.sender import Sender

    async with attached(network, deployments) as (chain, contracts):
        key = signing_key(chain.chain_id, account, keystore)
        yield _Office(contracts, Sender(chain, key))


def show(
    network: NetworkName = DEFAULT_NETWORK,
    deployments: Deployments = DEPLOYMENTS,
    as_json: AsJson = False,
) -> None:
    """Show authorities, quorum, and the parameters in force and agreed for the next epoch."""

    async def look() -> dict[str, object]:
        async with attached(network, deployments) as (_, contracts):
            return await _state(contracts)

    pairs_or_json(asyncio.run(look()), as_json=as_json)


def vote(
    changes: Annotated[
        list[str], typer.Argument(help="Parameters that shall differ, as NAME=VALUE.")
    ],
    network: NetworkName = DEFAULT_NETWORK,
    deployments: Deployments = DEPLOYMENTS,
    account: Voter = "authority",
    keystore: Keystore = None,
    as_json: AsJson = False,
) -> None:
    """Vote on the next epoch's parameters: those in force with the named changes.

    A second vote replaces the first. Units as in the documentation of the parameters: base units,
    seconds, cells, and ten-thousandths for premium_share, alpha and beta.
    """
    wanted = dict(_change(text) for text in changes)

    async def work() -> dict[str, object]:
        async with _office(network, deployments, account, keystore) as office:
            consensus = office.contracts.consensus
            in_force = await consensus.parameters()
            await consensus.vote(office.sender, _changed(in_force, wanted))
            return await _state(office.contracts)

    pairs_or_json(asyncio.run(work()), as_json=as_json)


def authorities(
    members: Annotated[
        list[str], typer.Argument(help="The new set: addresses or development accounts.")
    ],
    quorum: Annotated[
        int | None, typer.Option(min=1, help="[default: more than half of the new set]")
    ] = None,
    network: NetworkName = DEFAULT_NETWORK,
    deployments: Deployments = DEPLOYMENTS,
    account: Voter = "authority",
    keystore: Keystore = None,
    as_json: AsJson = False,
) -> None:
    """Approve another set of authorities and its quorum."""
    addresses = [address_named(member) for member in members]
    votes = quorum or len(addresses) // 2 + 1

    async def work() -> dict[str, object]:
        async with _office(network, deployments, account, keystore) as office:
            await office.contracts.consensus.change_authorities(office.sender, addresses, votes)
            return await _state(office.contracts)

    pairs_or_json(asyncio.run(work()), as_json=as_json)


def pause(
    end: Annotated[bool, typer.Option("--end", help="Let openings go on.")] = False,
    network: NetworkName = DEFAULT_NETWORK,
    deployments: Deployments = DEPLOYMENTS,
    account: Voter = "authority",
    keystore: Keystore = None,
    as_json: AsJson = False,
) -> None:
    """Approve that openings of channels stop, or go on; everything else always goes on."""

    async def work() -> dict[str, object]:
        async with _office(network, deployments, account, keystore) as office:
            await office.contracts.consensus.set_paused(office.sender, not end)
            return await _state(office.contracts)

    pairs_or_json(asyncio.run(work()), as_json=as_json)


def issue(
    receiver: Annotated[str, typer.Argument(help="Address or development account.")],
    amount: Annotated[int, typer.Argument(min=1, help="Units to create.")],
    network: NetworkName = DEFAULT_NETWORK,
    deployments: Deployments = DEPLOYMENTS,
    account: Voter = "authority",
    keystore: Keystore = None,
    as_json: AsJson = False,
) -> None:
    """Approve that tokens are created, where the authorities issue them."""
    address = address_named(receiver)

    async def work() -> dict[str, object]:
        async with _office(network, deployments, account, keystore) as office:
            token = office.contracts.token
            if not await token.issued():
                raise UsageProblem("this token wraps the native coin: nobody issues it")
            await token.issue(office.sender, address, amount)
            return {
                "receiver": address,
                "balance": await token.balance_of(address),
                "total_supply": await token.total_supply(),
            }

    pairs_or_json(asyncio.run(work()), as_json=as_json)


async def _state(contracts: Contracts) -> dict[str, object]:
    consensus = contracts.consensus
    epoch = await consensus.current_epoch()
    in_force, following = await consensus.parameters(epoch), await consensus.parameters(epoch + 1)
    changed = {
        name: value
        for name, value in asdict(following).items()
        if value != getattr(in_force, name)
    }
    return {
        "epoch": epoch,
        "authorities": list(await consensus.authorities()),
        "quorum": await consensus.quorum(),
        "openings_paused": await consensus.paused(),
        **asdict(in_force),
        "next_epoch_changes": changed,
    }


def _change(text: str) -> tuple[str, int]:
    name, _, value = text.partition("=")
    if not value.isdecimal():
        raise UsageProblem(f"{text} is no change: NAME=VALUE with a whole number is expected")
    return name, int(value)


def _changed(parameters: NetworkParameters, changes: dict[str, int]) -> NetworkParameters:
    known: dict[str, Any] = asdict(parameters)
    for name in changes:
        if name not in known:
            raise UsageProblem(f"no parameter is called {name}; known: {', '.join(known)}")
    return replace(parameters, **changes)
