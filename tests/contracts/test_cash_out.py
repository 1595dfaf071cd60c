# SPDX-License-Identifier: BSD-3-Clause
"""close: the cooperative end of several channels of a group at once."""

from __future__ import annotations

from typing import Any

import pytest

from monetor_chain import statements
from monetor_chain.rehearsal import NO_AUTHORISATION, Rehearsal
from monetor_chain.statements import Role

from .actions import (
    DEPOSIT,
    ESCROW,
    FUND,
    OPEN,
    RESOLVED,
    account_of,
    gains,
    open_channel,
    post_refund,
    post_session,
    refused,
    resolve,
    status,
    wealth,
)

CLIENT, RELAY = Role.CLIENT, Role.RELAY


def _close(
    stage: Rehearsal,
    role: Role,
    group: int,
    channels: int,
    total: int,
    signature: bytes | None = None,
) -> Any:
    call = stage.ledger.functions.close(
        group,
        channels,
        total,
        stage.close_signature(group, channels, total) if signature is None else signature,
        NO_AUTHORISATION,
    )
    return stage.send(call, account_of(stage, role))


@pytest.mark.parametrize("role", [CLIENT, RELAY])
@pytest.mark.parametrize(("count", "channels"), [(1, 1), (3, 0b111), (3, 0b101), (256, 2**256 - 1)])
def test_whole_and_partial(stage: Rehearsal, role: Role, count: int, channels: int) -> None:
    """Invariant L15: exactly the covered channels end, for the agreed sum."""
    cid, account = open_channel(stage, role, count), account_of(stage, role)
    covered = channels.bit_count()
    total = covered * DEPOSIT + 1_019
    before = wealth(stage, account)
    receipt = _close(stage, role, cid >> 8, channels, total)
    tax = 101 if role is RELAY else 0
    assert gains(before, wealth(stage, account)) == (total, covered * ESCROW - total - tax, tax)
    event = stage.events(receipt, "GroupClosed")[0]
    assert event == {
        "group": cid >> 8,
        "channels": channels,
        "total": total,
        "to_intermediary": covered * ESCROW - total - tax,
        "tax": tax,
    }
    for index in range(min(count, 3)):
        assert status(stage, cid + index) == (RESOLVED if channels >> index & 1 else OPEN)


def test_the_rest_of_a_group_goes_on(stage: Rehearsal) -> None:
    """Invariant L15: a partial close leaves the other channels' money alone."""
    cid, account = open_channel(stage, CLIENT, 3), account_of(stage, CLIENT)
    _close(stage, CLIENT, cid >> 8, 0b010, 0)
    before = wealth(stage, account)
    post_refund(stage, CLIENT, cid, 10, stage.secret())
    resolve(stage, cid)
    _close(stage, CLIENT, cid >> 8, 0b100, 20)
    assert gains(before, wealth(stage, account)) == (30, 2 * ESCROW - 30, 0)
    assert stage.ledger.functions.group(cid >> 8).call()[0] == 4


@pytest.mark.parametrize("channels", [0b01, 0b11])
def test_not_over_a_resolved_channel(stage: Rehearsal, channels: int) -> None:
    """Invariant L15: I's old signature would pay a channel a second time."""
    cid = open_channel(stage, CLIENT, 2)
    old = stage.close_signature(cid >> 8, channels, ESCROW)
    post_refund(stage, CLIENT, cid, DEPOSIT, stage.secret())
    resolve(stage, cid)
    with refused("ledger: channels"):
        _close(stage, CLIENT, cid >> 8, channels, ESCROW, old)


@pytest.mark.parametrize("channels", [0, 0b1000, 0b1111, 2**255, 2**256 - 1])
def test_only_channels_of_the_group(stage: Rehearsal, channels: int) -> None:
    """Invariant L15."""
    cid = open_channel(stage, CLIENT, 3)
    with refused("ledger: channels"):
        _close(stage, CLIENT, cid >> 8, channels, 0)


@pytest.mark.parametrize("posted", ["refund", "session", "request"])
def test_open_requested_and_closing_channels(stage: Rehearsal, posted: str) -> None:
    """Invariants L15, L16: an agreement ends disputes too; a pending bond goes back to I."""
    cid, account = open_channel(stage, CLIENT, 2), account_of(stage, CLIENT)
    before = wealth(stage, account)
    if posted == "refund":
        post_refund(stage, CLIENT, cid, DEPOSIT, stage.secret())
    elif posted == "session":
        post_session(stage, CLIENT, cid, stage.terms(), 1_000, 0)
    else:
        stage.send(stage.ledger.functions.request_close(cid), stage.party("intermediary"))
    _close(stage, CLIENT, cid >> 8, 0b11, 5)
    assert gains(before, wealth(stage, account)) == (5, 2 * ESCROW - 5, 0)
    assert status(stage, cid) == RESOLVED


def test_an_answered_request_keeps_its_bond(stage: Rehearsal) -> None:
    """Invariant L16: the bond that E earned is not paid a second time by a later close."""
    cid, account = open_channel(stage, CLIENT, 2), account_of(stage, CLIENT)
    bond = stage.parameters.close_bond
    before = wealth(stage, account)
    for index in (0, 1):
        stage.send(stage.ledger.functions.request_close(cid + index), stage.party("intermediary"))
    post_refund(stage, CLIENT, cid, DEPOSIT, stage.secret())
    _close(stage, CLIENT, cid >> 8, 0b11, 7)
    assert gains(before, wealth(stage, account)) == (7 + bond, 2 * ESCROW - 7 - bond, 0)


def test_a_request_outside_the_cover_keeps_its_bond(stage: Rehearsal) -> None:
    """Invariant L16: the bond of a channel that the close does not cover stays with it."""
    cid, account = open_channel(stage, CLIENT, 2), account_of(stage, CLIENT)
    bond = stage.parameters.close_bond
    stage.send(stage.ledger.functions.request_close(cid), stage.party("intermediary"))
    before = wealth(stage, account)
    _close(stage, CLIENT, cid >> 8, 0b10, 0)
    assert gains(before, wealth(stage, account)) == (0, ESCROW, 0)
    resolve(stage, cid)
    assert gains(before, wealth(stage, account)) == (0, 2 * ESCROW + bond, 0)


@pytest.mark.parametrize(
    ("role", "most"),
    [(CLIENT, 2 * ESCROW), (RELAY, 2 * DEPOSIT + 2 * FUND * 10_000 // 11_000)],
)
def test_total_is_bounded(stage: Rehearsal, role: Role, most: int) -> None:
    """Invariants L2, L3: even both sides together cannot take more than their escrow."""
    cid = open_channel(stage, role, 3)
    with refused("ledger: total above the cap"):
        _close(stage, role, cid >> 8, 0b11, most + 1)
    for absurd in (2**255, 2**256 - 1):
        with refused("ledger: total above the cap"):
            _close(stage, role, cid >> 8, 0b11, absurd)
    before = wealth(stage, account_of(stage, role))
    _close(stage, role, cid >> 8, 0b11, most)
    assert sum(gains(before, wealth(stage, account_of(stage, role)))) == 2 * ESCROW


def test_the_intermediary_must_sign_these_values(stage: Rehearsal) -> None:
    """Invariant L15: group, channels, total and context are signed; nobody else's will do."""
    cid = open_channel(stage, CLIENT, 2)
    group = cid >> 8
    struct = statements.close_struct(stage.ctx, group, 1, 50)
    wrong = [
        stage.close_signature(group, 3, 50),
        stage.close_signature(group, 1, 51),
        stage.close_signature(group + 1, 1, 50),
        stage.party("client").sign(stage.digest(struct)),
        stage.party("intermediary").sign(
            stage.digest(statements.close_struct(bytes(32), group, 1, 50))
        ),
        b"",
    ]
    for signature in wrong:
        with refused("authorisation: signature"):
            _close(stage, CLIENT, group, 1, 50, signature)
    _close(stage, CLIENT, group, 1, 50)


def test_a_relay_is_taxed_on_the_sum(stage: Rehearsal) -> None:
    """Invariant L3: gains and losses of the covered channels offset each other."""
    cid, account = open_channel(stage, RELAY, 2), account_of(stage, RELAY)
    before = wealth(stage, account)
    _close(stage, RELAY, cid >> 8, 0b11, 2 * DEPOSIT)
    assert gains(before, wealth(stage, account)) == (2 * DEPOSIT, 2 * FUND, 0)


def test_largest_group_with_every_channel_requested(stage: Rehearsal) -> None:
    """Invariant L26: the worst close there is fits into a block many times."""
    cid, account = open_channel(stage, CLIENT, 256), account_of(stage, CLIENT)
    before = wealth(stage, account)
    request = stage.ledger.functions.request_close
    for index in range(256):
        stage.send(request(cid + index), stage.party("intermediary"))
    receipt = _close(stage, CLIENT, cid >> 8, 2**256 - 1, 0)
    assert gains(before, wealth(stage, account)) == (0, 256 * ESCROW, 0)
    assert receipt["gasUsed"] < 3_000_000
