# SPDX-License-Identifier: BSD-3-Clause
"""Vaults, withdrawable balances, and tokens and receivers that misbehave."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from monetor_chain.rehearsal import NO_AUTHORISATION, NO_PERMIT, Rehearsal
from monetor_chain.rehearsal_chain import RehearsalChain
from monetor_chain.statements import Role

from .actions import DEPOSIT, FUND, open_channel, post_refund, refused, resolve
from .mocks import compiled


def _tokens(stage: Rehearsal, address: str) -> int:
    return int(stage.token.functions.balanceOf(address).call())


def test_vault_in_and_out(stage: Rehearsal) -> None:
    intermediary = stage.party("intermediary")
    ledger, before = stage.ledger.functions, _tokens(stage, intermediary.address)
    vault = ledger.vault(intermediary.address).call()
    receipt = stage.send(ledger.deposit_vault(500), intermediary)
    assert stage.events(receipt, "VaultChanged")[0]["balance"] == vault + 500
    stage.send(ledger.withdraw_vault(200), intermediary)
    assert ledger.vault(intermediary.address).call() == vault + 300
    assert _tokens(stage, intermediary.address) == before - 300
    with refused("vaults: vault too small"):
        stage.send(ledger.withdraw_vault(vault + 301), intermediary)
    with refused("vaults: vault too small"):
        stage.send(ledger.withdraw_vault(1), stage.party("stranger"))


def test_withdraw_pays_once(stage: Rehearsal) -> None:
    """Invariant L18: credit is pulled by its owner, and only once."""
    client = stage.party("client")
    cid = open_channel(stage, Role.CLIENT)
    post_refund(stage, Role.CLIENT, cid, 77, stage.secret())
    resolve(stage, cid)
    before = _tokens(stage, client.address)
    receipt = stage.send(stage.ledger.functions.withdraw(), client)
    assert stage.events(receipt, "Withdrawn")[0]["amount"] == 77
    stage.send(stage.ledger.functions.withdraw(), client)
    assert _tokens(stage, client.address) == before + 77


def test_stray_transfers_are_nobodys(stage: Rehearsal) -> None:
    """Invariant L19: tokens sent to the ledger by mistake change no account and block nothing."""
    relay = stage.party("relay")
    stage.send(stage.token.functions.transfer(stage.ledger.address, 123), relay)
    ledger = stage.ledger.functions
    assert ledger.credit(relay.address).call() == 0
    cid = open_channel(stage, Role.CLIENT)
    post_refund(stage, Role.CLIENT, cid, DEPOSIT, stage.secret())
    resolve(stage, cid)
    assert ledger.credit(stage.party("client").address).call() == DEPOSIT


def test_settling_calls_nobody(stage: Rehearsal) -> None:
    """Invariant L18: the account may be a contract that refuses everything (here the pool,
    which has no way to accept a payment); resolving its channel does not touch it."""
    guard = stage.pool.address
    client = stage.party("client")
    stage.approve(client)
    receipt = stage.send(stage.ledger.functions.open_guard(guard, DEPOSIT, NO_PERMIT), client)
    gid = stage.events(receipt, "GuardOpened")[0]["gid"]
    stage.send(stage.ledger.functions.request_close_guard(gid), client)
    stage.travel(stage.now() + stage.parameters.dispute_window + 1)
    stage.send(stage.ledger.functions.close_guard(gid), client)
    assert stage.ledger.functions.credit(client.address).call() == DEPOSIT


@pytest.fixture(scope="module")
def odd_stage(new_chain: Callable[[], RehearsalChain]) -> Rehearsal:
    return Rehearsal(chain=new_chain(), token=compiled("OddToken"))


@pytest.fixture
def odd(odd_stage: Rehearsal) -> Iterator[Rehearsal]:
    snapshot = odd_stage.snapshot()
    yield odd_stage
    odd_stage.revert(snapshot)


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        (1, "vaults: token kept a fee"),
        (2, "vaults: transfer failed"),
        (3, "odd"),
        (5, "vaults: token kept a fee"),
    ],
    ids=["fee", "false", "reverts", "delivers nothing"],
)
def test_nothing_is_credited_that_did_not_arrive(odd: Rehearsal, mode: int, reason: str) -> None:
    """Invariant L19."""
    odd.send(odd.token.functions.set_mode(mode), odd.party("stranger"))
    intermediary = odd.party("intermediary")
    vault = odd.ledger.functions.vault(intermediary.address).call()
    with refused(reason):
        odd.send(odd.ledger.functions.deposit_vault(10_000), intermediary)
    assert odd.ledger.functions.vault(intermediary.address).call() == vault
    client = odd.party("client")
    with refused(reason):
        odd.send(
            odd.ledger.functions.open(
                odd.issuer.key_hash, client.address, 1, DEPOSIT, FUND, 1, *odd.windows(),
                bytes(32), bytes(32), NO_AUTHORISATION, NO_PERMIT,
            ),
            client,
        )  # fmt: skip


@pytest.mark.parametrize("mode", [2, 3, 4])
def test_a_failed_payout_keeps_the_credit(odd: Rehearsal, mode: int) -> None:
    """Invariants L18, L19: also when the token calls back into the ledger meanwhile."""
    intermediary = odd.party("intermediary")
    ledger = odd.ledger.functions
    vault = ledger.vault(intermediary.address).call()
    odd.send(odd.token.functions.set_mode(mode), odd.party("stranger"))
    with pytest.raises(Exception, match="revert"):
        odd.send(ledger.withdraw_vault(5), intermediary)
    assert ledger.vault(intermediary.address).call() == vault
    odd.send(odd.token.functions.set_mode(0), odd.party("stranger"))
    odd.send(ledger.withdraw_vault(5), intermediary)


def test_a_callback_cannot_enter(odd: Rehearsal) -> None:
    """Invariant L19: the same lock guards every function, so a token cannot re-enter."""
    odd.send(odd.token.functions.set_mode(4), odd.party("stranger"))
    with pytest.raises(Exception, match="revert"):
        odd.send(odd.ledger.functions.deposit_vault(5), odd.party("intermediary"))


def test_a_token_without_return_values(new_chain: Callable[[], RehearsalChain]) -> None:
    """Invariant L19: silence is taken for success; the arrived amount decides."""
    stage = Rehearsal(chain=new_chain(), token=compiled("SilentToken"))
    intermediary = stage.party("intermediary")
    vault = stage.ledger.functions.vault(intermediary.address).call()
    assert vault > 0
    stage.send(stage.ledger.functions.withdraw_vault(vault), intermediary)
    assert _tokens(stage, stage.ledger.address) == 0
