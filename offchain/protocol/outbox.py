# SPDX-License-Identifier: BSD-3-Clause
"""What a step wants delivered. Items are committed together with the records they stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from .ledger import LedgerCall


@dataclass(frozen=True, slots=True)
class Request:
    """A request to the intermediary, sent again, byte for byte, until its reply is handled.

    At most one request is outstanding per conversation; a new one replaces the old.
    """

    conversation: bytes
    pcmd: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Done:
    """The conversation needs no further delivery."""

    conversation: bytes


@dataclass(frozen=True, slots=True)
class Tell:
    """A message to the peer of `session` (a hash of terms, a guard channel or a payment's lock).

    It is delivered once on the circuit or link that the session lives on, and lost with it.
    """

    session: bytes
    pcmd: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Submit:
    """A transaction for the ledger, submitted again until it is confirmed or reverts.

    `key` identifies the purpose, so that a repeated step does not submit twice.
    """

    key: bytes
    call: LedgerCall


@dataclass(frozen=True, slots=True)
class Note:
    """Something a person may want to see; `what` is a stable word, `detail` names no secret."""

    what: str
    detail: str


Item: TypeAlias = Request | Done | Tell | Submit | Note
Outbox: TypeAlias = list[Item]
