# SPDX-License-Identifier: BSD-3-Clause
"""Direct channels between a client and its guard."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from monetor_chain import statements
from monetor_chain.rehearsal import NO_PERMIT, Party, Rehearsal, payment_chain

from .actions import refused

DEPOSIT = 20_000
PRICE = 100


@dataclass(frozen=True)
class Voucher:
    gid: int
    expiry: int
    seq: int = 1
    base: int = 0
    n: int = 128

    def fields(self) -> tuple[Any, ...]:
        chain = payment_chain(128)
        return (self.gid, self.seq, self.base, self.n, chain.hc0, chain.root, self.expiry)


def _open(stage: Rehearsal, deposit: int = DEPOSIT) -> int:
    client = stage.party("client")
    call = stage.ledger.functions.open_guard(
        stage.party("guard").address, deposit, stage.permit(client, deposit)
    )
    return int(stage.events(stage.send(call, client), "GuardOpened")[0]["gid"])


def _voucher(stage: Rehearsal, gid: int, **changes: int) -> Voucher:
    return replace(Voucher(gid, stage.now() + 1_000), **changes)


def _claim(
    stage: Rehearsal, voucher: Voucher, k: int, signer: str = "client", sender: str = "watcher"
) -> Any:
    signature = stage.party(signer).sign(stage.digest(statements.voucher_struct(*voucher.fields())))
    call = stage.ledger.functions.claim_guard(
        *voucher.fields(), *payment_chain(128).proof(k), signature
    )
    return stage.send(call, stage.party(sender))


def _credit(stage: Rehearsal, party: Party | str) -> int:
    address = party if isinstance(party, str) else party.address
    return int(stage.ledger.functions.credit(address).call())


def _request(stage: Rehearsal, gid: int, sender: str = "client") -> Any:
    return stage.send(stage.ledger.functions.request_close_guard(gid), stage.party(sender))


def _close(stage: Rehearsal, gid: int) -> Any:
    return stage.send(stage.ledger.functions.close_guard(gid), stage.party("watcher"))


def test_life_of_a_channel(stage: Rehearsal) -> None:
    """Invariant L20: k payments go to guard and pool, the remainder to the client."""
    gid = _open(stage)
    guard = stage.party("guard")
    _claim(stage, _voucher(stage, gid), 37)
    assert _credit(stage, guard) == 3_700 * 10 // 11
    assert _credit(stage, stage.pool.address) == 3_700 - 3_700 * 10 // 11
    _request(stage, gid)
    stage.travel(stage.ledger.functions.guard(gid).call()[7] + 1)
    _close(stage, gid)
    assert _credit(stage, stage.party("client")) == DEPOSIT - 3_700
    assert stage.ledger.functions.guard(gid).call()[0] == 3


def test_claims_are_a_monotone_maximum(stage: Rehearsal) -> None:
    """Invariant L20: an older claim takes nothing back, is not refused, and pays nothing."""
    gid = _open(stage)
    voucher, guard = _voucher(stage, gid), stage.party("guard")
    _claim(stage, voucher, 40)
    earned = _credit(stage, guard)
    for k in (0, 10, 40):
        assert stage.events(_claim(stage, voucher, k), "GuardClaimed") == []
    assert _credit(stage, guard) == earned
    _claim(stage, voucher, 41)
    assert _credit(stage, guard) == 4_100 * 10 // 11


def test_splitting_changes_no_rounding(stage: Rehearsal) -> None:
    """Invariant L20: many small claims pay the guard what one claim would."""
    gid = _open(stage)
    voucher = _voucher(stage, gid)
    for k in range(1, 30):
        _claim(stage, voucher, k, sender="client")
    assert _credit(stage, stage.party("guard")) == 2_900 * 10 // 11


def test_roll_over_to_a_new_chain(stage: Rehearsal) -> None:
    gid = _open(stage)
    _claim(stage, _voucher(stage, gid), 50)
    _claim(stage, _voucher(stage, gid, seq=2, base=8_000), 3)
    assert stage.ledger.functions.guard(gid).call()[4] == 8_300


@pytest.mark.parametrize(
    ("base", "k"), [(0, 128), (DEPOSIT - 99, 1), (DEPOSIT + 1, 0), (2**256 - 1, 0)]
)
def test_never_above_the_deposit(stage: Rehearsal, base: int, k: int) -> None:
    """Invariant L20."""
    gid = _open(stage, DEPOSIT if base else 12_799)
    with refused("guard_channels: above deposit"):
        _claim(stage, _voucher(stage, gid, base=base), k)


def test_the_whole_deposit(stage: Rehearsal) -> None:
    gid = _open(stage, 12_800)
    _claim(stage, _voucher(stage, gid), 128)
    assert stage.ledger.functions.guard(gid).call()[4] == 12_800


def test_expiry_and_the_window_after_a_request(stage: Rehearsal) -> None:
    """Invariant L20: until expiry while open; after the client's request until its deadline."""
    gid = _open(stage)
    voucher = _voucher(stage, gid)
    snapshot = stage.snapshot()
    stage.travel(voucher.expiry + 1)
    with refused("guard_channels: too late"):
        _claim(stage, voucher, 5)
    _request(stage, gid)
    deadline = stage.ledger.functions.guard(gid).call()[7]
    assert deadline == stage.now() + stage.parameters.dispute_window
    stage.travel(deadline)
    _claim(stage, voucher, 5)
    stage.travel(deadline + 1)
    with refused("guard_channels: too late"):
        _claim(stage, voucher, 6)
    stage.revert(snapshot)
    stage.travel(voucher.expiry)
    _claim(stage, voucher, 5)


def test_the_remainder_waits_for_the_window(stage: Rehearsal) -> None:
    """Invariants L9, L20: no close before the deadline, and no request that moves it."""
    gid = _open(stage)
    with refused("guard_channels: too early"):
        _close(stage, gid)
    for other in ("guard", "watcher"):
        with refused("guard_channels: not the client's open one"):
            _request(stage, gid, other)
    _request(stage, gid)
    deadline = stage.ledger.functions.guard(gid).call()[7]
    with refused("guard_channels: not the client's open one"):
        _request(stage, gid)
    stage.travel(deadline)
    with refused("guard_channels: too early"):
        _close(stage, gid)
    stage.travel(deadline + 1)
    _close(stage, gid)
    with refused("guard_channels: too early"):
        _close(stage, gid)
    with refused("guard_channels: too late"):
        _claim(stage, _voucher(stage, gid), 5)


def test_only_the_clients_vouchers(stage: Rehearsal) -> None:
    """Invariants L20, L21: the client signs, and for this channel."""
    gid, other = _open(stage), _open(stage)
    voucher = _voucher(stage, gid)
    for signer in ("guard", "intermediary"):
        with refused("authorisation: signature"):
            _claim(stage, voucher, 5, signer)
    signature = stage.party("client").sign(
        stage.digest(statements.voucher_struct(*voucher.fields()))
    )
    for field, value in (
        (0, other),
        (1, 2),
        (2, 5),
        (3, 64),
        (4, bytes(32)),
        (5, bytes(32)),
        (6, 1),
    ):
        fields = list(voucher.fields())
        fields[field] = value
        if field == 6:
            fields[field] = voucher.expiry + 1
        with refused("authorisation: signature"):
            stage.send(
                stage.ledger.functions.claim_guard(
                    *fields, *payment_chain(128).proof(5), signature
                ),
                stage.party("guard"),
            )


def test_false_proofs(stage: Rehearsal) -> None:
    """Invariant L20."""
    gid = _open(stage)
    chain, voucher = payment_chain(128), _voucher(stage, gid)
    signature = stage.party("client").sign(
        stage.digest(statements.voucher_struct(*voucher.fields()))
    )
    for proof in ((20, chain.values[19], chain.path(20)), (129, chain.values[128], [])):
        with refused("guard_channels: not on the chain"):
            stage.send(
                stage.ledger.functions.claim_guard(*voucher.fields(), *proof, signature),
                stage.party("guard"),
            )
    with refused("guard_channels: not on the chain"):
        _claim(stage, _voucher(stage, gid, n=100), 5)


def test_ids_differ_and_unknown_ones_are_refused(stage: Rehearsal) -> None:
    """Invariant L8."""
    first, second = _open(stage), _open(stage)
    assert first != second
    with refused("guard_channels: no such channel"):
        _claim(stage, _voucher(stage, first ^ 1), 5)


@pytest.mark.parametrize("deposit", [0, 2**31])
def test_deposit_bounds(stage: Rehearsal, deposit: int) -> None:
    client = stage.party("client")
    stage.approve(client)
    with refused("guard_channels: terms"):
        stage.send(
            stage.ledger.functions.open_guard(stage.party("guard").address, deposit, NO_PERMIT),
            client,
        )
    with refused("guard_channels: terms"):
        stage.send(stage.ledger.functions.open_guard("0x" + "00" * 20, DEPOSIT, NO_PERMIT), client)
