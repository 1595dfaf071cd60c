# SPDX-License-Identifier: BSD-3-Clause
"""`monetor tax`: how collected tax goes back to relays (docs/tax.md).

Every command starts from a relay list, the CSV file that the authorities agree on and publish, and
computes the distribution from it anew; what the chain holds is only ever compared with that.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .accounts import address_named, signing_key
from .failures import UsageProblem
from .networks import DEFAULT_NETWORK, attached
from .options import DEPLOYMENTS, AsJson, Deployments, Keystore, NetworkName
from .report import pairs_or_json, say_json, say_table

if TYPE_CHECKING:
    from monetor_chain.deployment import Contracts
    from offchain.policy.tax.distribution import Distribution
    from offchain.policy.tax.facts import Relay

RelayList = Annotated[
    Path, typer.Argument(help="The relay list (CSV) that the tax is divided by.", metavar="RELAYS")
]
Epoch = Annotated[
    int | None, typer.Option(min=0, help="The epoch, which must be over. [default: the last one]")
]
Policy = Annotated[str, typer.Option(help="The policy's published name.")]
Total = Annotated[
    int | None,
    typer.Option(min=1, help="Units to divide. [default: what the pool has and owes to nobody]"),
]
DEFAULT_POLICY = "bandwidth-proportional"


def plan(
    relays: RelayList,
    policy: Policy = DEFAULT_POLICY,
    epoch: Epoch = None,
    total: Total = None,
    network: NetworkName = DEFAULT_NETWORK,
    deployments: Deployments = DEPLOYMENTS,
    as_json: AsJson = False,
) -> None:
    """Compute a distribution: who would get what, the root, and the hash of the inputs.

    With --epoch and --total no chain is asked.
    """
    listed = _read(relays)
    distribution = asyncio.run(_planned(listed, policy, epoch, total, network, deployments))
    if as_json:
        say_json(_facts(distribution) | {"entries": dict(distribution.entries)})
        return
    pairs_or_json(_facts(distribution), as_json=False)
    rows = [(account, f"{units:,}") for account, units in distribution.entries]
    say_table(("account", "units"), rows)


def publish(
    relays: RelayList,
    policy: Policy = DEFAULT_POLICY,
    epoch: Epoch = None,
    total: Total = None,
    network: NetworkName = DEFAULT_NETWORK,
    deployments: Deployments = DEPLOYMENTS,
    account: Annotated[
        str, typer.Option(help="Development account of the authority that approves.")
    ] = "authority",
    keystore: Keystore = None,
    as_json: AsJson = False,
) -> None:
    """Approve a distribution as an authority; the quorum's last approval publishes it.

    All must approve the same within one epoch: name --epoch and --total when others approve too.
    Tax that the ledger has credited is collected first.
    """
    listed = _read(relays)

    async def work() -> dict[str, object]:
        from monetor_chain.sender import Sender

        async with attached(network, deployments) as (chain, contracts):
            pool = contracts.tax_pool
            sender = Sender(chain, signing_key(chain.chain_id, account, keystore))
            distribution = await _divide(contracts, listed, policy, epoch, total)
            if await contracts.ledger.credit(pool.address):
                await pool.collect(sender)
            await pool.distribute(
                sender, distribution.epoch, distribution.tree().root, distribution.total,
                distribution.policy, distribution.inputs_hash,
            )  # fmt: skip
            published = await pool.distribution(distribution.epoch)
            return _facts(distribution) | {
                "published": published is not None,
                "last_epoch": None if published is None else published.last_epoch,
            }

    pairs_or_json(asyncio.run(work()), as_json=as_json)


def verify(
    relays: RelayList,
    epoch: Epoch = None,
    network: NetworkName = DEFAULT_NETWORK,
    deployments: Deployments = DEPLOYMENTS,
    as_json: AsJson = False,
) -> None:
    """Compute a published root anew from the relay list; exit status 1 if another comes out."""
    listed = _read(relays)

    async def work() -> dict[str, object]:
        async with attached(network, deployments) as (_, contracts):
            return await _compared(contracts, listed, epoch)

    found = asyncio.run(work())
    pairs_or_json(found, as_json=as_json)
    if not found["verified"]:
        raise typer.Exit(1)


def claim(
    lists: Annotated[
        list[str],
        typer.Argument(help="Epochs to claim, each with its relay list.", metavar="EPOCH=RELAYS"),
    ],
    beneficiary: Annotated[
        str | None,
        typer.Option(
            "--for", help="Address or development account that is paid. [default: --account's]"
        ),
    ] = None,
    network: NetworkName = DEFAULT_NETWORK,
    deployments: Deployments = DEPLOYMENTS,
    account: Annotated[
        str, typer.Option(help="Development account that pays for the gas.")
    ] = "exit",
    keystore: Keystore = None,
    as_json: AsJson = False,
) -> None:
    """Have an account paid its shares of published distributions, several epochs at once.

    Anybody may; the account in the distribution is paid. What was paid before is left out.
    """
    wanted = dict(_epoch_and_list(text) for text in lists)

    async def work() -> dict[str, object]:
        from monetor_chain.bindings.tax_pool import MAX_CLAIMS, TaxShare
        from monetor_chain.sender import Sender

        async with attached(network, deployments) as (chain, contracts):
            pool = contracts.tax_pool
            sender = Sender(chain, signing_key(chain.chain_id, account, keystore))
            paid = address_named(beneficiary) if beneficiary else sender.address
            shares: list[TaxShare] = []
            before = 0
            for epoch, listed in sorted(wanted.items()):
                distribution = await _published(contracts, listed, epoch)
                index, amount = _entry(distribution, paid)
                if await pool.is_paid(epoch, index):
                    before += 1
                    continue
                proof = distribution.tree().proof(index)
                shares.append(TaxShare(epoch, index, amount, proof))
            for first in range(0, len(shares), MAX_CLAIMS):
                await pool.claim(sender, paid, shares[first : first + MAX_CLAIMS])
            return {
                "account": paid,
                "claimed": sum(share.amount for share in shares),
                "epochs": [share.epoch for share in shares],
                "paid_before": before,
            }

    pairs_or_json(asyncio.run(work()), as_json=as_json)


def show(
    epoch: Annotated[
        int | None, typer.Option(min=0, help="Show this epoch's distribution as well.")
    ] = None,
    network: NetworkName = DEFAULT_NETWORK,
    deployments: Deployments = DEPLOYMENTS,
    as_json: AsJson = False,
) -> None:
    """Show what the pool holds and owes, and a distribution."""

    async def work() -> dict[str, object]:
        async with attached(network, deployments) as (_, contracts):
            pool = contracts.tax_pool
            found: dict[str, object] = {
                "epoch": await contracts.consensus.current_epoch(),
                "holdings": await pool.holdings(),
                "reserved": await pool.reserved(),
                "available": await pool.available(),
                "still_on_the_ledger": await contracts.ledger.credit(pool.address),
            }
            if epoch is not None:
                one = await pool.distribution(epoch)
                if one is None:
                    raise UsageProblem(f"no distribution of epoch {epoch} is published")
                found |= {
                    "root": one.root.hex(),
                    "total": one.total,
                    "claimed": one.claimed,
                    "last_epoch": one.last_epoch,
                    "policy": one.policy,
                    "inputs_hash": one.inputs_hash.hex(),
                }
            return found

    pairs_or_json(asyncio.run(work()), as_json=as_json)


def roll_over(
    epoch: Annotated[int, typer.Argument(min=0, help="The distribution's epoch.")],
    network: NetworkName = DEFAULT_NETWORK,
    deployments: Deployments = DEPLOYMENTS,
    account: Annotated[
        str, typer.Option(help="Development account that pays for the gas.")
    ] = "authority",
    keystore: Keystore = None,
    as_json: AsJson = False,
) -> None:
    """Return to the pool what nobody has claimed of a distribution in time."""

    async def work() -> dict[str, object]:
        from monetor_chain.sender import Sender

        async with attached(network, deployments) as (chain, contracts):
            pool = contracts.tax_pool
            before = await pool.available()
            await pool.roll_over(
                Sender(chain, signing_key(chain.chain_id, account, keystore)), epoch
            )
            after = await pool.available()
            return {"epoch": epoch, "rolled_over": after - before, "available": after}

    pairs_or_json(asyncio.run(work()), as_json=as_json)


# --- Distributions --------------------------------------------------------------------------------


def _read(path: Path) -> tuple[Relay, ...]:
    from offchain.policy.tax.errors import PolicyError
    from offchain.policy.tax.relay_list import read

    try:
        return read(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise UsageProblem(f"{path} is no relay list: it is not UTF-8 text") from error
    except PolicyError as error:
        raise UsageProblem(f"{path}: {error}") from error


async def _planned(
    listed: tuple[Relay, ...],
    policy: str,
    epoch: int | None,
    total: int | None,
    network: str,
    deployments: Path,
) -> Distribution:
    from offchain.policy.tax.distribution import plan as divide

    if epoch is not None and total is not None:
        return divide(listed, policy, epoch, total)
    async with attached(network, deployments) as (_, contracts):
        return await _divide(contracts, listed, policy, epoch, total)


async def _divide(
    contracts: Contracts,
    listed: tuple[Relay, ...],
    policy: str,
    epoch: int | None,
    total: int | None,
) -> Distribution:
    """The distribution of the last epoch, and of all that is there, unless others are named."""
    from offchain.policy.tax.distribution import plan as divide

    pool = contracts.tax_pool
    if epoch is None:
        epoch = await contracts.consensus.current_epoch() - 1
    if total is None:
        total = await pool.available() + await contracts.ledger.credit(pool.address)
    if total == 0:
        raise UsageProblem("the pool holds no tax that is not owed already")
    return divide(listed, policy, epoch, total)


async def _compared(
    contracts: Contracts, listed: tuple[Relay, ...], epoch: int | None
) -> dict[str, object]:
    from offchain.policy.tax.distribution import plan as divide

    if epoch is None:
        epoch = await contracts.consensus.current_epoch() - 1
    published = await contracts.tax_pool.distribution(epoch)
    if published is None:
        raise UsageProblem(f"no distribution of epoch {epoch} is published")
    computed = divide(listed, published.policy, epoch, published.total)
    root, inputs_hash = computed.tree().root, computed.inputs_hash
    return {
        "epoch": epoch,
        "policy": published.policy,
        "total": published.total,
        "published_root": published.root.hex(),
        "computed_root": root.hex(),
        "published_inputs_hash": published.inputs_hash.hex(),
        "computed_inputs_hash": inputs_hash.hex(),
        "verified": (root, inputs_hash) == (published.root, published.inputs_hash),
    }


async def _published(
    contracts: Contracts, listed: tuple[Relay, ...], epoch: int
) -> Distribution:
    """The published distribution with its entries, which this list must reproduce."""
    from offchain.policy.tax.distribution import plan as divide

    found = await _compared(contracts, listed, epoch)
    if not found["verified"]:
        raise UsageProblem(
            f"the relay list given for epoch {epoch} is not the one that its distribution was "
            "computed from"
        )
    return divide(listed, str(found["policy"]), epoch, int(str(found["total"])))


def _entry(distribution: Distribution, account: str) -> tuple[int, int]:
    for index, (one, amount) in enumerate(distribution.entries):
        if one.lower() == account.lower():
            return index, amount
    raise UsageProblem(f"{account} has no share of the distribution of epoch {distribution.epoch}")


def _epoch_and_list(text: str) -> tuple[int, tuple[Relay, ...]]:
    epoch, _, path = text.partition("=")
    if not epoch.isdecimal() or not path:
        raise UsageProblem(f"{text} is not EPOCH=RELAYS: a number, and the file of its relay list")
    return int(epoch), _read(Path(path))


def _facts(distribution: Distribution) -> dict[str, object]:
    return {
        "epoch": distribution.epoch,
        "policy": distribution.policy,
        "total": distribution.total,
        "accounts": len(distribution.entries),
        "root": distribution.tree().root.hex(),
        "inputs_hash": distribution.inputs_hash.hex(),
    }
