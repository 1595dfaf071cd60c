# SPDX-License-Identifier: BSD-3-Clause
"""The token in both of its forms."""

from __future__ import annotations

import pytest

from monetor_chain.errors import TransactionReverted
from monetor_chain.rehearsal import Rehearsal

from .actions import refused

GWEI = 10**9


def test_one_unit_is_one_gwei(stage: Rehearsal) -> None:
    """Invariant L19: every unit of the wrapped token is backed by a gwei held by it."""
    stranger, token = stage.party("stranger"), stage.token.functions
    assert token.decimals().call() == 9
    held = stage.w3.eth.get_balance(stage.token.address)
    assert held == token.totalSupply().call() * GWEI
    stage.send(token.deposit(), stranger, value=5 * GWEI)
    assert token.balanceOf(stranger.address).call() == 5
    stage.send(token.withdraw(2), stranger)
    assert token.balanceOf(stranger.address).call() == 3
    assert stage.w3.eth.get_balance(stage.token.address) == held + 3 * GWEI
    with refused("erc20: burn amount exceeds balance"):
        stage.send(token.withdraw(4), stranger)


@pytest.mark.parametrize("value", [1, GWEI - 1, GWEI + 1])
def test_fractions_of_a_unit_are_refused(stage: Rehearsal, value: int) -> None:
    with refused("token: not a whole number of units"):
        stage.send(stage.token.functions.deposit(), stage.party("stranger"), value=value)


def test_wrapped_is_never_issued(stage: Rehearsal) -> None:
    deployer = stage.party("deployer")
    with refused("token: not issued"):
        stage.send(stage.token.functions.issue(deployer.address, 1, 0), deployer)
    with refused("token: not issued"):
        stage.send(stage.token.functions.burn(0), deployer)


def test_issued_by_the_authorities(stage: Rehearsal) -> None:
    """Invariant L29: a quorum creates units, each issue once; holders destroy theirs."""
    first, second, third = (stage.party(f"authority_{i}") for i in (1, 2, 3))
    stranger, deployer = stage.party("stranger"), stage.party("deployer")
    contract = stage.deploy("Token", stage.consensus.address)
    token = contract.functions
    assert token.issued().call()
    stage.send(token.issue(stranger.address, 9, 0), first)
    assert token.totalSupply().call() == 0
    with refused("approvals: approved before"):
        stage.send(token.issue(stranger.address, 9, 0), first)
    stage.send(token.issue(stranger.address, 8, 0), second)
    assert token.totalSupply().call() == 0
    stage.send(token.issue(stranger.address, 9, 0), third)
    assert token.balanceOf(stranger.address).call() == 9
    with refused("token: not the next issue"):
        stage.send(token.issue(stranger.address, 9, 0), second)
    for nobody in (stranger, deployer):
        with refused("approvals: authorities only"):
            stage.send(token.issue(nobody.address, 1, 1), nobody)
    stage.send(token.burn(4), stranger)
    assert token.totalSupply().call() == 5
    with refused("erc20: burn amount exceeds balance"):
        stage.send(token.burn(6), stranger)
    with refused("token: not wrapped"):
        stage.send(token.deposit(), stranger, value=GWEI)
    with refused("token: not wrapped"):
        stage.send(token.withdraw(1), stranger)


def test_nobody_owns_the_token(stage: Rehearsal) -> None:
    """Invariant L29: what snekmate gives an owner or a minter cannot be called."""
    names = {item.get("name") for item in stage.token.abi}
    assert not names & {
        "mint", "set_minter", "is_minter", "burn_from", "owner", "transfer_ownership",
        "renounce_ownership",
    }  # fmt: skip


def test_the_issuer_is_a_contract(stage: Rehearsal) -> None:
    assert stage.deploy("Token", stage.party("client").address).address is None


def test_stray_native_coin_is_refused(stage: Rehearsal) -> None:
    """Invariant L19: nothing arrives that nobody could get out again."""
    for contract in (stage.token, stage.ledger, stage.pool, stage.consensus):
        sent = stage.w3.eth.send_transaction(
            {
                "from": stage.party("stranger").address,
                "to": contract.address,
                "value": 1,
                "gas": 100_000,
            }
        )
        assert not stage.w3.eth.wait_for_transaction_receipt(sent)["status"]


def test_permit_cannot_be_replayed(stage: Rehearsal) -> None:
    client = stage.party("client")
    value, expiry, signature = stage.permit(client, 5)
    arguments = (
        client.address, stage.ledger.address, value, expiry,
        signature[64], signature[:32], signature[32:64],
    )  # fmt: skip
    stage.send(stage.token.functions.permit(*arguments), stage.party("watcher"))
    with pytest.raises(TransactionReverted):
        stage.send(stage.token.functions.permit(*arguments), stage.party("watcher"))
