# SPDX-License-Identifier: BSD-3-Clause
"""refund_conditional: a payee closes with what the payer's secret makes valid."""

from __future__ import annotations

from typing import Any

import pytest

from monetor_chain import statements
from monetor_chain.rehearsal import NO_AUTHORISATION, Rehearsal
from monetor_chain.statements import Role, TokenKind, lock_of

from .actions import (
    CLOSING_MICRO,
    DEPOSIT,
    ESCROW,
    account_of,
    deadline,
    gains,
    open_channel,
    refused,
    resolve,
    status,
    wealth,
)

pytestmark = pytest.mark.precompiles

PAID = 130_000


def _claim(stage: Rehearsal, cid: int, t_p: int, secret: bytes, role: Role = Role.CLIENT):
    """Arguments of an honest claim by the client-role payee."""
    lock, payer_lock = lock_of(stage.secret()), lock_of(secret)
    tag = statements.tag(TokenKind.CONDITIONAL_REFUND, role, stage.ctx, payer_lock, t_p)
    token = stage.issuer.sign(tag, cid, lock, PAID)
    return [
        cid, stage.issuer.public_key, lock, PAID, token, payer_lock, t_p, secret,
        NO_AUTHORISATION,
    ]  # fmt: skip


def _send(stage: Rehearsal, arguments: list[Any]):
    return stage.send(stage.ledger.functions.refund_conditional(*arguments), stage.party("client"))


def test_until_the_deadline_and_not_longer(stage: Rehearsal) -> None:
    """Invariant L10: after T_p the payer may count the payment as void."""
    cid, payer_secret = open_channel(stage, Role.CLIENT), stage.secret()
    t_p = stage.now() + 100
    arguments = _claim(stage, cid, t_p, payer_secret)
    snapshot = stage.snapshot()
    stage.travel(t_p + 1)
    with refused("ledger: too late"):
        _send(stage, arguments)
    stage.revert(snapshot)
    stage.travel(t_p)
    receipt = _send(stage, arguments)
    assert status(stage, cid) == CLOSING_MICRO
    assert deadline(stage, cid) == t_p + stage.parameters.dispute_window
    assert stage.events(receipt, "RefundPosted")[0]["kind"] == 3
    event = stage.events(receipt, "PayerRevealed")[0]
    assert event == {"cid": cid, "lock": lock_of(payer_secret), "secret": payer_secret}
    before = wealth(stage, account_of(stage, Role.CLIENT))
    resolve(stage, cid)
    assert gains(before, wealth(stage, account_of(stage, Role.CLIENT))) == (
        PAID,
        ESCROW - PAID,
        0,
    )


def test_needs_the_payers_secret(stage: Rehearsal) -> None:
    """Invariant L7: an unconditional token here would pay R twice, by I and by C."""
    cid, secret = open_channel(stage, Role.CLIENT), stage.secret()
    arguments = _claim(stage, cid, stage.now() + 100, secret)
    with refused("ledger: wrong secret"):
        _send(stage, [*arguments[:7], stage.secret(), arguments[8]])


@pytest.mark.parametrize("change", ["deadline", "lock", "unconditional token", "role"])
def test_the_tag_binds_the_condition(stage: Rehearsal, change: str) -> None:
    """Invariant L7: lock and T_p are those that I signed."""
    cid, secret, t_p = open_channel(stage, Role.CLIENT), stage.secret(), stage.now() + 100
    arguments = _claim(stage, cid, t_p, secret)
    if change == "deadline":
        arguments[6] = t_p + 1
    elif change == "lock":
        other = stage.secret()
        arguments[5], arguments[7] = lock_of(other), other
    elif change == "role":
        arguments = _claim(stage, cid, t_p, secret, Role.RELAY)
    else:
        arguments[4] = stage.refund_token(Role.CLIENT, cid, arguments[2], PAID)
    with refused("ledger: token"):
        _send(stage, arguments)


def test_not_an_unconditional_refund(stage: Rehearsal) -> None:
    """Invariant L7: a conditional token without its condition is worth nothing."""
    cid, secret = open_channel(stage, Role.CLIENT), stage.secret()
    arguments = _claim(stage, cid, stage.now() + 100, secret)
    call = stage.ledger.functions.refund(*arguments[:5], NO_AUTHORISATION)
    with refused("ledger: token"):
        stage.send(call, stage.party("client"))


def test_the_payees_own_secret_still_refutes(stage: Rehearsal) -> None:
    """Invariant L14."""
    cid, secret = open_channel(stage, Role.CLIENT), stage.secret()
    own = stage.secret()
    arguments = _claim(stage, cid, stage.now() + 100, secret)
    arguments[2] = lock_of(own)
    tag = statements.tag(
        TokenKind.CONDITIONAL_REFUND, Role.CLIENT, stage.ctx, arguments[5], arguments[6]
    )
    arguments[4] = stage.issuer.sign(tag, cid, arguments[2], PAID)
    _send(stage, arguments)
    before = wealth(stage, account_of(stage, Role.CLIENT))
    with refused("ledger: wrong secret"):
        stage.send(stage.ledger.functions.refute(cid, secret), stage.party("watcher"))
    stage.send(stage.ledger.functions.refute(cid, own), stage.party("watcher"))
    assert gains(before, wealth(stage, account_of(stage, Role.CLIENT))) == (0, ESCROW, 0)
    assert DEPOSIT < PAID
