# SPDX-License-Identifier: BSD-3-Clause
"""The account statement: who had what, who has what, and that nothing is missing.

Everything is read from the ledger and from each party's own records; nothing here knows what the
scenario meant to happen.
"""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any

from monetor_chain.bindings.ledger_events import GroupClosed, LedgerEvents, Resolved
from monetor_chain.parameters import BASIS_POINTS

from ..agents.download import Download
from ..protocol.records import Records, Table
from ..protocol.sessions import Phase, Session
from .network import Network


@dataclass(slots=True)
class Party:
    """One party's account, in base units; `floor` is what the protocol guarantees it."""

    role: str
    honest: bool
    before: int
    after: int
    floor: int
    sent: int
    received: int
    gas: int


@dataclass(slots=True)
class Statement:
    """What a run did to everybody's money."""

    download: dict[str, Any]
    parties: dict[str, Party]
    intermediary: dict[str, int]
    tax_pool: int
    conservation: bool
    total_before: int
    total_after: int
    left_in_ledger: int
    protocols: dict[str, dict[str, float]]
    dispute: str = ""
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The statement as plain data."""
        return asdict(self)

    @property
    def sound(self) -> bool:
        """Every unit is accounted for and no honest party is below its floor."""
        return self.conservation and all(
            party.after >= party.floor for party in self.parties.values() if party.honest)


async def make_statement(network: Network, download: Download | None, *,
                         hidden_payments: int, dishonest: frozenset[str] = frozenset(),
                         dispute: str = "") -> Statement:
    """Read the ledger and every party's records."""
    price, delta_r = network.options.parameters.price, network.options.parameters.delta_r
    pay_fee = network.options.parameters.pay_fee
    tax_rate = network.deployment.tax_rate_bp
    fee = network.options.parameters.fee(tax_rate)
    client, payee = network.client, network.payee
    sent = {hop: client.sent(hop) for hop in ("guard", "middle", "exit")}
    parties: dict[str, Party] = {}

    accounts = ("client", "client-guard", "client2", "client2-guard")
    before = sum(network.before[name] for name in accounts)
    parties["client"] = Party(
        "client", "client" not in dishonest, before,
        sum([await network.balance(name) for name in accounts]),
        before - price * sum(sent.values()) - pay_fee * hidden_payments, sum(sent.values()), 0,
        client.engine.measured.gas + payee.engine.measured.gas)

    for name, relay in network.relays.items():
        after = await network.balance(name)
        for payout, _ in relay.payouts():
            after += int(await network.contracts.token.balance_of(payout)
                         + await network.contracts.ledger.credit(payout))
        received, guarded = relay.received, relay.guard_received
        earned = received * delta_r + guarded * price * BASIS_POINTS // (BASIS_POINTS + tax_rate)
        parties[name] = Party(
            "relay", name not in dishonest, network.before[name], after,
            network.before[name] + earned, 0, received + guarded, relay.engine.measured.gas)

    agent = network.intermediary
    settled = settled_payments(agent.engine.store.read())
    after = await network.balance("intermediary")
    before = network.before["intermediary"]
    parties["intermediary"] = Party(
        "intermediary", "intermediary" not in dishonest, before, after,
        before + fee * settled + pay_fee * hidden_payments, 0, 0, agent.engine.measured.gas)

    session_tax = await _session_tax(network)
    pool = int(await network.contracts.tax_pool.holdings())
    left = int(await network.contracts.token.balance_of(network.deployment.ledger))
    owed, escrowed = await network.owed_by_ledger(), await network.open_guard_escrow()
    total_before = sum(network.before.values())
    total_after = sum(party.after for party in parties.values()) + pool
    return Statement(
        download={} if download is None else {
            "bytes": download.size, "sha256": download.sha256,
            "seconds": round(download.seconds, 3)},
        parties=parties,
        intermediary={
            "margin": (price - delta_r) * settled,
            "fee": (price - delta_r) * settled - session_tax,
            "pay_fees": pay_fee * hidden_payments, "session_tax": session_tax,
            "change": after - before},
        tax_pool=pool,
        conservation=total_before == total_after + escrowed and left == owed + escrowed,
        total_before=total_before, total_after=total_after, left_in_ledger=left - owed,
        protocols=_protocols(network), dispute=dispute)


def settled_payments(records: Records) -> int:
    """Payments that an intermediary's sessions were closed at, off chain or on the ledger."""
    settled = 0
    for _, one in records.scan(Table.SESSION):
        if isinstance(one, Session):
            if one.phase is Phase.RELAY_CLOSED:
                settled += one.best.k
            elif one.relay_resolved:
                settled += one.ledger_k_r
    return settled


async def _session_tax(network: Network) -> int:
    """Tax that the ledger took out of relays' channels, from its log."""
    batch = await LedgerEvents(network.contracts.ledger).since(network.deployment.block)
    return sum(event.tax for event in batch.events if isinstance(event, Resolved | GroupClosed))


def _protocols(network: Network) -> dict[str, dict[str, float]]:
    runs: dict[str, list[tuple[float, int]]] = {}
    agents = [network.client, network.payee, *network.relays.values()]
    for agent in agents:
        for name, measured in agent.engine.measured.timings.items():
            runs.setdefault(name, []).extend(measured)
    return {
        name: {"count": len(measured),
               "median_ms": round(statistics.median(ms for ms, _ in measured), 2),
               "cells": int(statistics.median(cells for _, cells in measured))}
        for name, measured in sorted(runs.items())
    }
