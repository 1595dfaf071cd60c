# SPDX-License-Identifier: BSD-3-Clause
"""What a step is told about the world: the time, and the network's parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from monetor_chain.parameters import NetworkParameters

from .codec import B32, U64
from .ledger import Block
from .records import Records, Table, record

_TIP = b"tip"


@record
@dataclass(frozen=True, slots=True)
class Tip:
    """The latest confirmed block that a party has processed, with all events up to it.

    By its `hash` a party that was down sees whether the block is still on the chain.
    """

    number: U64
    timestamp: U64
    hash: B32 = bytes(32)


@dataclass(frozen=True, slots=True)
class Moment:
    """When a step happens. `now` in Unix seconds of the network's clock.

    `parameters` is the set of `epoch`; `older` holds the sets of earlier epochs, at least of those
    whose sessions have not expired.
    """

    now: int
    epoch: int
    parameters: NetworkParameters
    older: Mapping[int, NetworkParameters] = field(default_factory=dict)

    def parameters_of(self, epoch: int) -> NetworkParameters | None:
        """The set of an epoch, if it is known here."""
        return self.parameters if epoch == self.epoch else self.older.get(epoch)


def tip(records: Records) -> Tip:
    """The confirmed block the party stands at; block 0 at time 0 before it has seen any."""
    stored = records.get(Table.META, _TIP)
    return stored if isinstance(stored, Tip) else Tip(0, 0)


def advance(records: Records, block: Block) -> None:
    """Move to a newly confirmed block."""
    records.put(Table.META, _TIP, Tip(block.number, block.timestamp, block.hash))


def expiry(epoch: int, parameters: NetworkParameters) -> int:
    """T_exp of every session whose terms follow `epoch`: (epoch + 1) · length + lifetime.

    Uniform, so that it tells nothing about a session but its epoch (section IV-C of the paper
    requires only that it be agreed).
    """
    return (epoch + 1) * parameters.epoch + parameters.lifetime


def offered_epochs(records: Records, moment: Moment) -> dict[int, NetworkParameters]:
    """Epochs whose parameters a Setup may use now, judged by the latest confirmed block.

    That block's epoch always, and the one before during an epoch's first μ seconds.
    """
    timestamp = tip(records).timestamp
    current = timestamp // moment.parameters.epoch
    allowed = {current}
    if timestamp % moment.parameters.epoch < moment.parameters.safety_margin:
        allowed.add(current - 1)
    # An epoch whose set is not known here takes no sessions: any other set would be a guess.
    return {epoch: found for epoch in allowed
            if (found := moment.parameters_of(epoch)) is not None}
