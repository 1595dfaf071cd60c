# SPDX-License-Identifier: BSD-3-Clause
"""open, fund, reclaim."""

from __future__ import annotations

from typing import Any

import pytest

from monetor_chain import statements
from monetor_chain.rehearsal import NO_AUTHORISATION, NO_PERMIT, Party, Rehearsal
from monetor_chain.statements import Role

from .actions import (
    DEPOSIT,
    FUND,
    HALF_OPEN,
    OPEN,
    gains,
    post_refund,
    refused,
    status,
    wealth,
)

RHO_E, RHO_I = b"e" * 32, b"i" * 32


def _opening(stage: Rehearsal, owner: Party, **changes: Any) -> Any:
    values: dict[str, Any] = {
        "key_hash": stage.issuer.key_hash,
        "account": owner.address,
        "role": Role.CLIENT,
        "deposit": DEPOSIT,
        "fund": FUND,
        "count": 3,
        "dispute_window": stage.parameters.dispute_window,
        "close_notice": stage.parameters.close_notice,
        "rho_e": RHO_E,
        "rho_i": RHO_I,
        "auth": NO_AUTHORISATION,
        "permit": NO_PERMIT,
    }
    return stage.ledger.functions.open(*{**values, **changes}.values())


def test_group_id_and_record(stage: Rehearsal) -> None:
    """Invariant L8: the ledger computes the id that both sides computed before."""
    client = stage.party("client")
    stage.approve(client)
    before = stage.token.functions.balanceOf(client.address).call()
    receipt = stage.send(_opening(stage, client), client)
    expected = statements.group_id(
        stage.ctx,
        client.address,
        stage.party("intermediary").address,
        Role.CLIENT,
        DEPOSIT,
        FUND,
        3,
        RHO_E,
        RHO_I,
    )
    event = stage.events(receipt, "Opened")[0]
    assert event["group"] == expected
    assert (event["dispute_window"], event["close_notice"]) == (120, 600)
    assert before - stage.token.functions.balanceOf(client.address).call() == 3 * DEPOSIT
    group = stage.ledger.functions.group(expected).call()
    assert group == (
        1, client.address, stage.party("intermediary").address, 1, 1, DEPOSIT, FUND, 3, 120, 600, 0
    )  # fmt: skip
    cid = statements.channel_id(expected, 2)
    assert status(stage, cid) == HALF_OPEN
    assert status(stage, cid + 1) == 0
    stage.send(stage.ledger.functions.fund(expected), stage.party("intermediary"))
    assert status(stage, cid) == OPEN


@pytest.mark.parametrize("resolved", [False, True])
def test_an_id_is_never_used_twice(stage: Rehearsal, resolved: bool) -> None:
    """Invariant L8, also after the group has ended: old tokens would fit the new one."""
    client = stage.party("client")
    stage.approve(client)
    group = stage.events(stage.send(_opening(stage, client), client), "Opened")[0]["group"]
    if resolved:
        stage.send(stage.ledger.functions.reclaim(group, NO_AUTHORISATION), client)
    with refused("ledger: group exists"):
        stage.send(_opening(stage, client), client)


@pytest.mark.parametrize(
    "changes",
    [
        {"role": 0},
        {"role": 3},
        {"count": 0},
        {"count": 257},
        {"deposit": 2**31},
        {"fund": 2**31},
        {"deposit": 0, "fund": 0},
        {"account": "0x" + "00" * 20},
    ],
    ids=str,
)
def test_terms_out_of_bounds(stage: Rehearsal, changes: dict[str, Any]) -> None:
    client = stage.party("client")
    stage.approve(client)
    with refused("ledger: terms"):
        stage.send(_opening(stage, client, **changes), client)


@pytest.mark.parametrize("changes", [{"dispute_window": 121}, {"close_notice": 599}], ids=str)
def test_windows_that_the_account_did_not_name(stage: Rehearsal, changes: dict[str, int]) -> None:
    """Invariant L17: a vote that comes into force before the opening is mined makes it fail, since
    the account would be bound for life by windows that it has not seen."""
    client = stage.party("client")
    stage.approve(client)
    with refused("ledger: windows"):
        stage.send(_opening(stage, client, **changes), client)


@pytest.mark.parametrize("count", [1, 256])
def test_size_does_not_change_the_price(stage: Rehearsal, count: int) -> None:
    """One opening carries up to 256 channels at the same cost."""
    client = stage.party("client")
    stage.approve(client)
    stage.send(_opening(stage, client, rho_e=bytes(32)), client)
    receipt = stage.send(_opening(stage, client, count=count), client)
    reference = stage.send(_opening(stage, client, count=2), client)
    assert abs(receipt["gasUsed"] - reference["gasUsed"]) < 200


def test_intermediary_funds_once_and_exactly(stage: Rehearsal) -> None:
    """Invariant L5: only I funds, with the agreed sum, only a half-open group."""
    client, intermediary = stage.party("client"), stage.party("intermediary")
    group = stage.open_group(client, Role.CLIENT, DEPOSIT, FUND, 3, funded=False)
    fund = stage.ledger.functions.fund(group)
    with refused("ledger: intermediary only"):
        stage.send(fund, client)
    before = wealth(stage, client)
    stage.send(fund, intermediary)
    assert gains(before, wealth(stage, client)) == (0, -3 * FUND, 0)
    with refused("ledger: not half-open"):
        stage.send(fund, intermediary)


def test_an_empty_vault_funds_nothing(stage: Rehearsal) -> None:
    """Invariant L1: nobody's money but I's own backs I's channels."""
    intermediary = stage.party("intermediary")
    vault = stage.ledger.functions.vault(intermediary.address).call()
    stage.send(stage.ledger.functions.withdraw_vault(vault), intermediary)
    group = stage.open_group(stage.party("client"), Role.CLIENT, DEPOSIT, FUND, funded=False)
    with refused("vaults: vault too small"):
        stage.send(stage.ledger.functions.fund(group), intermediary)


def test_reclaim_only_while_half_open(stage: Rehearsal) -> None:
    """Invariant L1: the deposit goes back once, and not from under a funded group."""
    client, intermediary = stage.party("client"), stage.party("intermediary")
    group = stage.open_group(client, Role.CLIENT, DEPOSIT, FUND, 3, funded=False)
    reclaim = stage.ledger.functions.reclaim(group, NO_AUTHORISATION)
    before = wealth(stage, client)
    stage.send(reclaim, client)
    assert gains(before, wealth(stage, client)) == (3 * DEPOSIT, 0, 0)
    with refused("ledger: not half-open"):
        stage.send(reclaim, client)
    with refused("ledger: not half-open"):
        stage.send(stage.ledger.functions.fund(group), intermediary)
    funded = stage.open_group(client, Role.CLIENT, DEPOSIT, FUND)
    with refused("ledger: not half-open"):
        stage.send(stage.ledger.functions.reclaim(funded, NO_AUTHORISATION), client)


def test_a_half_open_channel_pays_nothing(stage: Rehearsal) -> None:
    """Invariant L10: claims need the intermediary's stake in place."""
    group = stage.open_group(stage.party("client"), Role.CLIENT, DEPOSIT, FUND, funded=False)
    cid = group << 8
    with refused("channel_groups: not funded"):
        post_refund(stage, Role.CLIENT, cid, 1, stage.secret())
    with refused("channel_groups: not funded"):
        stage.send(stage.ledger.functions.request_close(cid), stage.party("intermediary"))
    signature = stage.close_signature(group, 1, 5)
    with refused("ledger: not funded"):
        stage.send(
            stage.ledger.functions.close(group, 1, 5, signature, NO_AUTHORISATION),
            stage.party("client"),
        )


def test_channels_outside_the_group_do_not_exist(stage: Rehearsal) -> None:
    group = stage.open_group(stage.party("client"), Role.CLIENT, DEPOSIT, FUND, 2)
    with refused("channel_groups: no such channel"):
        post_refund(stage, Role.CLIENT, group << 8 | 2, 1, stage.secret())
    with refused("channel_groups: no such group"):
        post_refund(stage, Role.CLIENT, (group + 1) << 8, 1, stage.secret())


def test_a_submitted_permit_does_not_block_opening(stage: Rehearsal) -> None:
    """Anybody can submit a permit he sees first; the opening must go on all the same."""
    client, watcher = stage.party("client"), stage.party("watcher")
    value, expiry, signature = stage.permit(client, 3 * DEPOSIT)
    r, s, v = signature[:32], signature[32:64], signature[64]
    stage.send(
        stage.token.functions.permit(client.address, stage.ledger.address, value, expiry, v, r, s),
        watcher,
    )
    permit = (value, expiry, signature)
    stage.send(_opening(stage, client, permit=permit), client)
    with refused("erc20: insufficient allowance"):
        stage.send(_opening(stage, client, permit=permit, rho_e=bytes(32)), client)
