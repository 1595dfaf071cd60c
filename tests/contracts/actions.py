# SPDX-License-Identifier: BSD-3-Clause
"""Short forms of the steps that many contract tests take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from monetor_chain.errors import TransactionReverted
from monetor_chain.rehearsal import (
    NO_AUTHORISATION,
    Party,
    Rehearsal,
    payment_chain,
    words,
)
from monetor_chain.statements import NanoTerms, Role, lock_of

DEPOSIT = 100_000
FUND = 60_000
ESCROW = DEPOSIT + FUND


@contextmanager
def refused(reason: str) -> Iterator[None]:
    """The block's transaction must be mined and fail with exactly this reason."""
    with pytest.raises(TransactionReverted) as caught:
        yield
    assert caught.value.reason == reason


@dataclass(frozen=True)
class Wealth:
    """What the ledger owes to whom, and what it holds."""

    vault: int
    account: int
    pool: int


def wealth(stage: Rehearsal, account: Party) -> Wealth:
    """The intermediary's vault, the account's credit, the pool's credit."""
    ledger = stage.ledger.functions
    return Wealth(
        ledger.vault(stage.party("intermediary").address).call(),
        ledger.credit(account.address).call(),
        ledger.credit(stage.pool.address).call(),
    )


def gains(before: Wealth, after: Wealth) -> tuple[int, int, int]:
    """(account, intermediary, pool)"""
    return (
        after.account - before.account,
        after.vault - before.vault,
        after.pool - before.pool,
    )


def account_of(stage: Rehearsal, role: Role) -> Party:
    return stage.party("client" if role is Role.CLIENT else "relay")


def open_channel(stage: Rehearsal, role: Role, count: int = 1) -> int:
    """A funded group of the role's usual account; returns the first channel's id."""
    return stage.open_group(account_of(stage, role), role, DEPOSIT, FUND, count) << 8


def post_refund(
    stage: Rehearsal, role: Role, cid: int, balance: int, secret: bytes, **changes: Any
) -> Any:
    """`refund` by the account itself."""
    lock = lock_of(secret)
    token = stage.refund_token(role, cid, lock, balance)
    call = stage.ledger.functions.refund(
        cid, stage.issuer.public_key, lock, balance, token, NO_AUTHORISATION
    )
    return stage.send(call, account_of(stage, role), **changes)


def post_session(
    stage: Rehearsal,
    role: Role,
    cid: int,
    terms: NanoTerms,
    b_full: int,
    k: int,
    secret: bytes | None = None,
) -> Any:
    """`nano_refund` by the account itself."""
    claim = stage.nano_claim(role, cid, terms, secret or stage.secret(), b_full, k)
    return stage.send(stage.ledger.functions.nano_refund(*claim), account_of(stage, role))


def reveal(stage: Rehearsal, terms: NanoTerms, k: int) -> Any:
    """`reveal` by a third party."""
    proof = payment_chain(terms.n).proof(k)
    return stage.send(stage.ledger.functions.reveal(words(terms), *proof), stage.party("watcher"))


def claims(stage: Rehearsal, terms: NanoTerms) -> tuple[int, int]:
    """(k_C, k_R) on the registry."""
    k_c, k_r = stage.ledger.functions.claims(terms.hash()).call()
    return k_c, k_r


def deadline(stage: Rehearsal, cid: int) -> int:
    return int(stage.ledger.functions.channel(cid).call()[1])


def status(stage: Rehearsal, cid: int) -> int:
    return int(stage.ledger.functions.channel(cid).call()[0])


def resolve(stage: Rehearsal, cid: int) -> Any:
    """`resolve` by a third party, one second after the deadline if that is not past yet."""
    stage.travel(max(deadline(stage, cid), stage.now()) + 1)
    return stage.send(stage.ledger.functions.resolve(cid), stage.party("watcher"))


REQUESTED, CLOSING_MICRO, CLOSING_NANO, HALF_OPEN, OPEN, RESOLVED = range(1, 7)
