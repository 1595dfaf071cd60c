# SPDX-License-Identifier: BSD-3-Clause
"""The tax pool: collecting, distributions by quorum, claims, and what nobody claims."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from monetor_chain.parameters import DEMO, TAX_RATE_BP
from monetor_chain.rehearsal import CLAIM_EPOCHS, NO_AUTHORISATION, Rehearsal
from monetor_chain.rehearsal_chain import RehearsalChain
from monetor_chain.statements import Role
from monetor_chain.tax_tree import TaxTree

from .actions import DEPOSIT, FUND, open_channel, refused
from .mocks import compiled

POLICY = "bandwidth-proportional"
INPUTS = b"q" * 32
TAX = 1_000


def _collected(stage: Rehearsal) -> None:
    """One relay earned 10,000, and the pool holds the tenth of it that is the tax."""
    cid = open_channel(stage, Role.RELAY)
    assert 10 * TAX < FUND
    total = DEPOSIT + 10 * TAX
    signature = stage.close_signature(cid >> 8, 1, total)
    stage.send(
        stage.ledger.functions.close(cid >> 8, 1, total, signature, NO_AUTHORISATION),
        stage.party("relay"),
    )
    stage.send(stage.pool.functions.collect(), stage.party("stranger"))


def _epoch(stage: Rehearsal) -> int:
    return stage.now() // DEMO.epoch


def _next_epoch(stage: Rehearsal, ahead: int = 1) -> None:
    stage.travel((_epoch(stage) + ahead) * DEMO.epoch)
    stage.send(stage.token.functions.approve(stage.ledger.address, 0), stage.party("stranger"))


def _approve(stage: Rehearsal, seat: int, epoch: int, root: bytes, total: int, **changes: Any):
    values = {"policy": POLICY, "inputs": INPUTS, **changes}
    call = stage.pool.functions.distribute(epoch, root, total, *values.values())
    return stage.send(call, stage.party(f"authority_{seat}"))


def _entries(stage: Rehearsal) -> list[tuple[str, int]]:
    return [(stage.party(name).address, amount) for name, amount in SHARES]


SHARES = [("relay", 500), ("guard", 299), ("client", 1)]


def _published(stage: Rehearsal, epoch: int | None = None) -> tuple[int, TaxTree]:
    """A distribution of 800 to three accounts for the last epoch."""
    if epoch is None:
        _collected(stage)
        _next_epoch(stage)
        epoch = _epoch(stage) - 1
    tree = TaxTree(epoch, _entries(stage))
    for seat in (1, 2):
        _approve(stage, seat, epoch, tree.root, 800)
    return epoch, tree


def _share(tree: TaxTree, epoch: int, index: int, amount: int | None = None) -> tuple[Any, ...]:
    return epoch, index, SHARES[index][1] if amount is None else amount, list(tree.proof(index))


def _claim(stage: Rehearsal, name: str, *shares: tuple[Any, ...]) -> int:
    """What a stranger's claim for an account brings it."""
    account = stage.party(name).address
    balance = stage.token.functions.balanceOf(account)
    before = balance.call()
    stage.send(stage.pool.functions.claim(account, list(shares)), stage.party("stranger"))
    return balance.call() - before


def test_collecting(stage: Rehearsal) -> None:
    """Invariant L18: tax waits as a credit like any other, and anybody may pull it in."""
    _collected(stage)
    pool = stage.pool.functions
    assert pool.holdings().call() == pool.available().call() == TAX
    assert stage.ledger.functions.credit(stage.pool.address).call() == 0


def test_the_pools_ledger_is_named_once(stage: Rehearsal) -> None:
    """Invariant L24: nobody can point the pool at another ledger."""
    arguments = (stage.token.address, stage.consensus.address, CLAIM_EPOCHS)
    contract = stage.deploy("TaxPool", *arguments)
    pool, deployer = contract.functions, stage.party("deployer")
    addresses = (stage.token.address, stage.consensus.address, contract.address)
    ledger = stage.deploy("Ledger", *addresses, TAX_RATE_BP).address
    with refused("tax_pool: deployer only"):
        stage.send(pool.set_ledger(ledger), stage.party("stranger"))
    with refused("tax_pool: ledger has no code"):
        stage.send(pool.set_ledger(stage.party("client").address), deployer)
    with refused("tax_pool: ledger of another pool"):
        stage.send(pool.set_ledger(stage.ledger.address), deployer)
    stage.send(pool.set_ledger(ledger), deployer)
    with refused("tax_pool: ledger is set"):
        stage.send(pool.set_ledger(ledger), deployer)


def test_a_quorum_publishes(stage: Rehearsal) -> None:
    """Invariant L30: all of it agreed by a quorum, for an epoch that is over, and only once."""
    _collected(stage)
    _next_epoch(stage)
    epoch = _epoch(stage) - 1
    tree = TaxTree(epoch, _entries(stage))
    pool = stage.pool.functions
    with refused("approvals: authorities only"):
        stage.send(
            pool.distribute(epoch, tree.root, 800, POLICY, INPUTS), stage.party("stranger")
        )
    _approve(stage, 1, epoch, tree.root, 800)
    for changes in ({"policy": "waterfilling"}, {"inputs": bytes(32)}):
        _approve(stage, 2, epoch, tree.root, 800, **changes)
    _approve(stage, 2, epoch, tree.root, 799)
    _approve(stage, 2, epoch, b"other root".ljust(32), 800)
    assert pool.distribution(epoch).call()[1] == 0
    _approve(stage, 3, epoch, tree.root, 800)
    assert pool.distribution(epoch).call() == (
        tree.root, 800, 0, epoch + 1 + CLAIM_EPOCHS, POLICY, INPUTS
    )  # fmt: skip
    assert pool.reserved().call() == 800 and pool.available().call() == TAX - 800
    with refused("tax_pool: distributed before"):
        _approve(stage, 2, epoch, tree.root, 800)
    with refused("tax_pool: the epoch is not over"):
        _approve(stage, 1, epoch + 1, tree.root, 100)


def test_only_what_is_available(stage: Rehearsal) -> None:
    """Invariant L30: what one distribution owes, no other can promise."""
    epoch, _ = _published(stage)
    for total, taken in ((TAX - 800 + 1, False), (TAX - 800, True)):
        tree = TaxTree(epoch - 1, _entries(stage)[:1])
        _approve(stage, 1, epoch - 1, tree.root, total)
        if taken:
            _approve(stage, 2, epoch - 1, tree.root, total)
        else:
            with refused("tax_pool: more than is available"):
                _approve(stage, 2, epoch - 1, tree.root, total)
    assert stage.pool.functions.available().call() == 0


@pytest.mark.parametrize(
    ("root", "total", "policy"), [(bytes(32), 5, POLICY), (INPUTS, 0, POLICY), (INPUTS, 5, "")]
)
def test_distributions_of_nothing(
    stage: Rehearsal, root: bytes, total: int, policy: str
) -> None:
    with refused("tax_pool: nothing to distribute"):
        _approve(stage, 1, _epoch(stage) - 1, root, total, policy=policy)


def test_everybody_gets_its_share_once(stage: Rehearsal) -> None:
    """Invariant L31: whoever submits, the account in the leaf is paid, and once."""
    epoch, tree = _published(stage)
    for index, (name, amount) in enumerate(SHARES):
        assert not stage.pool.functions.is_paid(epoch, index).call()
        assert _claim(stage, name, _share(tree, epoch, index)) == amount
        assert stage.pool.functions.is_paid(epoch, index).call()
        assert _claim(stage, name, _share(tree, epoch, index)) == 0
    assert stage.pool.functions.distribution(epoch).call()[2] == 800
    assert stage.pool.functions.reserved().call() == 0
    assert stage.pool.functions.holdings().call() == TAX - 800


def test_several_epochs_in_one_call(stage: Rehearsal) -> None:
    """Invariant L31: a share that somebody submitted before is passed over, not refused."""
    first, tree = _published(stage)
    second = first - 1
    other = TaxTree(second, _entries(stage)[:1])
    for seat in (1, 3):
        _approve(stage, seat, second, other.root, 150)
    assert _claim(stage, "relay", _share(tree, first, 0)) == 500
    shares = (_share(tree, first, 0), _share(other, second, 0))
    with refused("tax_pool: more than the total"):
        _claim(stage, "relay", *shares)
    _next_epoch(stage)
    third = _epoch(stage) - 1
    entries = [(stage.party("relay").address, 50)]
    small = TaxTree(third, entries)
    for seat in (1, 3):
        _approve(stage, seat, third, small.root, 50)
    shares = (_share(tree, first, 0), (third, 0, 50, []))
    assert _claim(stage, "relay", *shares, *shares) == 50


@pytest.mark.parametrize(
    "forge",
    [
        lambda e, t: ("client", (e, 0, 500, list(t.proof(0)))),
        lambda e, t: ("relay", (e, 0, 501, list(t.proof(0)))),
        lambda e, t: ("relay", (e, 1, 500, list(t.proof(0)))),
        lambda e, t: ("relay", (e, 0, 500, list(t.proof(0))[:-1])),
        lambda e, t: ("relay", (e, 0, 500, [*t.proof(0), bytes(32)])),
        lambda e, t: ("relay", (e, 0, 500, list(t.proof(1)))),
        lambda e, t: ("relay", (e, 256, 500, list(t.proof(0)))),
    ],
    ids=["account", "amount", "index", "short", "long", "other path", "other word"],
)
def test_forged_shares(stage: Rehearsal, forge: Any) -> None:
    """Invariant L31."""
    name, share = forge(*_published(stage))
    with refused("tax_pool: not in the distribution"):
        _claim(stage, name, share)


def test_a_share_of_another_epoch(stage: Rehearsal) -> None:
    """Invariant L31: the leaf names its epoch, so equal distributions do not mix."""
    epoch, tree = _published(stage)
    for seat in (1, 2):
        _approve(stage, seat, epoch - 1, tree.root, 100)
    with refused("tax_pool: not in the distribution"):
        _claim(stage, "relay", (epoch - 1, 0, 500, list(tree.proof(0))))
    with refused("tax_pool: no such distribution"):
        _claim(stage, "relay", (epoch - 2, 0, 500, list(tree.proof(0))))


def test_an_inner_node_is_no_leaf(stage: Rehearsal) -> None:
    """Invariant L31: with leaves hashed once, a node's two children would pass for a leaf of 64
    bytes; a leaf has 128, hashed twice."""
    epoch, tree = _published(stage)
    assert len(tree.proof(0)) == 2
    for index in (0, 1, 2):
        with refused("tax_pool: not in the distribution"):
            _claim(stage, "relay", (epoch, index, 500, list(tree.proof(0))[1:]))


def test_unclaimed_tax_rolls_over(stage: Rehearsal) -> None:
    """Invariant L32: after the last epoch for claims, and neither before nor twice."""
    epoch, tree = _published(stage)
    pool = stage.pool.functions
    last = epoch + 1 + CLAIM_EPOCHS
    assert _claim(stage, "relay", _share(tree, epoch, 0)) == 500
    stage.travel((last + 1) * DEMO.epoch - 1)
    with refused("tax_pool: still to be claimed"):
        stage.send(pool.roll_over(epoch), stage.party("stranger"))
    snapshot = stage.now()
    assert snapshot // DEMO.epoch == last
    stage.travel((last + 1) * DEMO.epoch)
    with refused("tax_pool: too late"):
        _claim(stage, "guard", _share(tree, epoch, 1))
    receipt = stage.send(pool.roll_over(epoch), stage.party("stranger"))
    (event,) = stage.pool.events.RolledOver().process_receipt(receipt)
    assert event["args"]["amount"] == 300
    assert pool.available().call() == pool.holdings().call() == TAX - 500
    with refused("tax_pool: nothing left"):
        stage.send(pool.roll_over(epoch), stage.party("stranger"))
    with refused("tax_pool: too late"):
        _claim(stage, "guard", _share(tree, epoch, 1))
    with refused("tax_pool: no such distribution"):
        stage.send(pool.roll_over(epoch - 1), stage.party("stranger"))


def test_a_claim_at_the_last_second(stage: Rehearsal) -> None:
    """Invariant L32."""
    epoch, tree = _published(stage)
    stage.travel((epoch + 2 + CLAIM_EPOCHS) * DEMO.epoch - 1)
    assert _claim(stage, "guard", _share(tree, epoch, 1)) == 299


def test_a_root_that_promises_more_than_its_total(stage: Rehearsal) -> None:
    """Invariant L30: the last claimants go without; nobody else's money pays them."""
    _collected(stage)
    _next_epoch(stage)
    epoch = _epoch(stage) - 1
    tree = TaxTree(epoch, _entries(stage))
    for seat in (1, 2):
        _approve(stage, seat, epoch, tree.root, 600)
    assert _claim(stage, "relay", _share(tree, epoch, 0)) == 500
    with refused("tax_pool: more than the total"):
        _claim(stage, "guard", _share(tree, epoch, 1))
    assert _claim(stage, "client", _share(tree, epoch, 2)) == 1


@pytest.mark.parametrize("epochs", [0, 3_661])
def test_claim_epochs_are_bounded(stage: Rehearsal, epochs: int) -> None:
    arguments = (stage.token.address, stage.consensus.address, epochs)
    assert stage.deploy("TaxPool", *arguments).address is None


def test_a_failed_payout_keeps_the_share(new_chain: Callable[[], RehearsalChain]) -> None:
    """Invariant L18: with a token that refuses the transfer, the share stays to be claimed."""
    odd = Rehearsal(chain=new_chain(), token=compiled("OddToken"))
    odd.send(odd.token.functions.deposit(), odd.party("stranger"), value=TAX * 10**9)
    pool = odd.deploy("TaxPool", odd.token.address, odd.consensus.address, CLAIM_EPOCHS)
    odd.pool = pool
    rich = odd.party("stranger")
    odd.send(odd.token.functions.transfer(pool.address, TAX), rich)
    epoch, tree = _published(odd, _epoch(odd) - 1)
    for mode, reason in ((2, "tax_pool: transfer failed"), (3, "odd")):
        odd.send(odd.token.functions.set_mode(mode), rich)
        with refused(reason):
            _claim(odd, "relay", _share(tree, epoch, 0))
        assert not pool.functions.is_paid(epoch, 0).call()
    odd.send(odd.token.functions.set_mode(0), rich)
    assert _claim(odd, "relay", _share(tree, epoch, 0)) == 500
