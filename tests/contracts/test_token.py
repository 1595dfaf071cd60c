# SPDX-License-Identifier: BSD-3-Clause
"""The token in both of its forms, and the tax pool."""

from __future__ import annotations

import pytest

from monetor_chain.errors import TransactionReverted
from monetor_chain.rehearsal import NO_AUTHORISATION, Rehearsal
from monetor_chain.statements import Role

from .actions import DEPOSIT, FUND, open_channel, refused

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
        stage.send(stage.token.functions.issue(deployer.address, 1), deployer)
    with refused("token: not issued"):
        stage.send(stage.token.functions.burn(0), deployer)
    names = {item.get("name") for item in stage.token.abi}
    assert not names & {"mint", "set_minter", "burn_from", "renounce_ownership"}


def test_issued_by_the_authorities(stage: Rehearsal) -> None:
    deployer, stranger = stage.party("deployer"), stage.party("stranger")
    token = stage.deploy("Token", True).functions
    stage.send(token.issue(stranger.address, 9), deployer)
    stage.send(token.issue(deployer.address, 4), deployer)
    stage.send(token.burn(3), deployer)
    assert token.totalSupply().call() == 10
    with refused("ownable: caller is not the owner"):
        stage.send(token.issue(stranger.address, 1), stranger)
    with refused("ownable: caller is not the owner"):
        stage.send(token.burn(1), stranger)
    with refused("token: not wrapped"):
        stage.send(token.deposit(), stranger, value=GWEI)
    with refused("token: not wrapped"):
        stage.send(token.withdraw(1), stranger)


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


def test_collecting_tax(stage: Rehearsal) -> None:
    """Invariant L18: tax waits as a credit like any other, and anybody may pull it in."""
    cid = open_channel(stage, Role.RELAY)
    total = DEPOSIT + 10_000
    signature = stage.close_signature(cid >> 8, 1, total)
    stage.send(
        stage.ledger.functions.close(cid >> 8, 1, total, signature, NO_AUTHORISATION),
        stage.party("relay"),
    )
    assert stage.ledger.functions.credit(stage.pool.address).call() == 1_000
    stage.send(stage.pool.functions.collect(), stage.party("stranger"))
    assert stage.pool.functions.holdings().call() == 1_000
    assert stage.ledger.functions.credit(stage.pool.address).call() == 0
    assert FUND > 10_000


def test_the_pools_ledger_is_named_once(stage: Rehearsal) -> None:
    """Invariant L24: nobody can point the pool at another ledger."""
    pool = stage.deploy("TaxPool", stage.token.address).functions
    with refused("tax_pool: deployer only"):
        stage.send(pool.set_ledger(stage.ledger.address), stage.party("stranger"))
    with refused("tax_pool: ledger has no code"):
        stage.send(pool.set_ledger(stage.party("client").address), stage.party("deployer"))
    stage.send(pool.set_ledger(stage.ledger.address), stage.party("deployer"))
    with refused("tax_pool: ledger is set"):
        stage.send(pool.set_ledger(stage.ledger.address), stage.party("deployer"))


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
