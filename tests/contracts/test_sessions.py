# SPDX-License-Identifier: BSD-3-Clause
"""nano_refund and the outcome of sessions on both legs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from monetor_chain import statements
from monetor_chain.rehearsal import (
    NO_AUTHORISATION,
    Rehearsal,
    commitment,
    payment_chain,
    words,
)
from monetor_chain.statements import GROUP_ORDER, NanoTerms, Role, lock_of

from .actions import (
    CLOSING_NANO,
    DEPOSIT,
    ESCROW,
    account_of,
    claims,
    deadline,
    gains,
    open_channel,
    post_session,
    refused,
    resolve,
    reveal,
    status,
    wealth,
)

pytestmark = pytest.mark.precompiles

CLIENT, RELAY = Role.CLIENT, Role.RELAY


def _saturated(role: Role, terms: NanoTerms, balance: int = DEPOSIT) -> int:
    """B_full of a session that starts at `balance`."""
    change = terms.n * (terms.delta_r if role is RELAY else terms.delta_c)
    return balance + change


def _send(stage: Rehearsal, role: Role, claim: tuple[Any, ...]) -> Any:
    return stage.send(stage.ledger.functions.nano_refund(*claim), account_of(stage, role))


@pytest.mark.parametrize("role", [CLIENT, RELAY])
@pytest.mark.parametrize("k", [0, 1, 15, 16, 17, 100, 128])
def test_outcome_after_k_payments(stage: Rehearsal, role: Role, k: int) -> None:
    """Invariant L13: the client gets the unpaid payments back, the relay only the paid ones."""
    cid, terms, account = open_channel(stage, role), stage.terms(), account_of(stage, role)
    before = wealth(stage, account)
    receipt = post_session(stage, role, cid, terms, _saturated(role, terms), k)
    event = stage.events(receipt, "RefundPosted")[0]
    assert event["kind"] == 4 and event["terms_hash"] == terms.hash()
    assert status(stage, cid) == CLOSING_NANO
    resolve(stage, cid)
    if role is CLIENT:
        expected = (DEPOSIT - 100 * k, ESCROW - DEPOSIT + 100 * k, 0)
    else:
        earned, tax = 86 * k, 86 * k // 10
        expected = (DEPOSIT + earned, ESCROW - DEPOSIT - earned - tax, tax)
    assert gains(before, wealth(stage, account)) == expected


def test_deadlines_of_the_two_legs(stage: Rehearsal) -> None:
    """Invariant L11: the client's window starts when the relay can no longer prove payments."""
    terms = stage.terms()
    client, relay = open_channel(stage, CLIENT), open_channel(stage, RELAY)
    post_session(stage, CLIENT, client, terms, _saturated(CLIENT, terms), 0)
    post_session(stage, RELAY, relay, terms, _saturated(RELAY, terms), 5)
    window = stage.parameters.dispute_window
    assert deadline(stage, client) == terms.t_exp + window
    assert deadline(stage, relay) == stage.now() + window
    late = open_channel(stage, CLIENT)
    stage.travel(terms.t_exp + 50)
    post_session(stage, CLIENT, late, terms, _saturated(CLIENT, terms), 0)
    assert deadline(stage, late) == terms.t_exp + 50 + window


@pytest.mark.parametrize("relay_first", [False, True])
def test_both_legs_settle_at_the_same_k(stage: Rehearsal, relay_first: bool) -> None:
    """Invariant L13: whatever the order, a relay's proof counts for the client's leg too."""
    terms = stage.terms()
    legs = {CLIENT: open_channel(stage, CLIENT), RELAY: open_channel(stage, RELAY)}
    numbers = {CLIENT: 0, RELAY: 40}
    before = wealth(stage, account_of(stage, CLIENT))
    vault, pool = before.vault, before.pool
    for role in (RELAY, CLIENT) if relay_first else (CLIENT, RELAY):
        post_session(stage, role, legs[role], terms, _saturated(role, terms), numbers[role])
    for role in (RELAY, CLIENT):
        resolve(stage, legs[role])
    after = wealth(stage, account_of(stage, CLIENT))
    assert after.account - before.account == DEPOSIT - 4_000
    assert stage.ledger.functions.credit(stage.party("relay").address).call() == DEPOSIT + 3_440
    tax = 344
    fee = 4_000 - 3_440 - tax
    stakes = 2 * (ESCROW - DEPOSIT)
    assert (after.vault - vault, after.pool - pool) == (stakes + fee, tax)


def test_proofs_after_expiry_bind_the_client_only(stage: Rehearsal) -> None:
    """Invariant L12: k_R is frozen at T_exp, k_C is not; the intermediary thus loses nothing by
    a relay that proves late, nor gains by proving for the client late."""
    terms = stage.terms()
    client, relay = open_channel(stage, CLIENT), open_channel(stage, RELAY)
    stage.travel(terms.t_exp)
    reveal(stage, terms, 10)
    assert claims(stage, terms) == (10, 10)
    stage.travel(terms.t_exp + 1)
    reveal(stage, terms, 30)
    assert claims(stage, terms) == (30, 10)
    post_session(stage, RELAY, relay, terms, _saturated(RELAY, terms), 40)
    assert claims(stage, terms) == (40, 10)
    post_session(stage, CLIENT, client, terms, _saturated(CLIENT, terms), 0)
    relay_before = wealth(stage, account_of(stage, RELAY))
    client_before = wealth(stage, account_of(stage, CLIENT))
    resolve(stage, relay)
    resolve(stage, client)
    assert gains(relay_before, wealth(stage, account_of(stage, RELAY)))[0] == DEPOSIT + 860
    assert gains(client_before, wealth(stage, account_of(stage, CLIENT)))[0] == DEPOSIT - 4_000


def test_proofs_count_until_the_resolution(stage: Rehearsal) -> None:
    """Invariant L13: a watcher's reveal after the client posted k = 0 still counts."""
    terms = stage.terms()
    cid, account = open_channel(stage, CLIENT), account_of(stage, CLIENT)
    before = wealth(stage, account)
    post_session(stage, CLIENT, cid, terms, _saturated(CLIENT, terms), 0)
    reveal(stage, terms, 77)
    resolve(stage, cid)
    assert gains(before, wealth(stage, account))[0] == DEPOSIT - 7_700


def test_terms_are_not_consumed(stage: Rehearsal) -> None:
    """The same terms serve two legs and, in tests of abuse, even two relays' channels."""
    terms = stage.terms()
    for cid in (open_channel(stage, RELAY), open_channel(stage, RELAY)):
        post_session(stage, RELAY, cid, terms, _saturated(RELAY, terms), 3)
        assert status(stage, cid) == CLOSING_NANO


def test_the_statement_binds_everything(stage: Rehearsal) -> None:
    """Invariant L7: context, role, terms, lock, and through the commitment cid and balance."""
    cid, terms, secret = open_channel(stage, RELAY, 2), stage.terms(), stage.secret()
    b_full = _saturated(RELAY, terms)
    good = stage.nano_claim(RELAY, cid, terms, secret, b_full, 0)
    changed = replace(terms, delta_r=87)
    wrong = {
        "cid": (cid + 1, *good[1:]),
        "terms": (good[0], words(changed), *good[2:]),
        "nwpk": (*good[:2], good[2] + 1, *good[3:]),
        "balance": (*good[:3], b_full + 1, *good[4:]),
        "rho": (*good[:4], good[4] + 1, *good[5:]),
        "role": (
            *good[:5],
            stage.nano_refund_signature(CLIENT, terms, good[2], cid, b_full, good[4]),
            *good[6:],
        ),
    }
    for name, claim in wrong.items():
        with refused("authorisation: signature"):
            _send(stage, RELAY, claim)
        assert name
    _send(stage, RELAY, good)


def test_only_the_intermediary_signs_sessions(stage: Rehearsal) -> None:
    """Invariant L7: the signer is the account that registered the channel's key."""
    cid, terms = open_channel(stage, RELAY), stage.terms()
    claim = stage.nano_claim(RELAY, cid, terms, stage.secret(), DEPOSIT, 0)
    struct = statements.nano_refund_struct(stage.ctx, RELAY, terms.hash(), claim[2], bytes(32))
    for signer in ("relay", "stranger"):
        forged = stage.party(signer).sign(stage.digest(struct))
        with refused("authorisation: signature"):
            _send(stage, RELAY, (*claim[:5], forged, *claim[6:]))


def test_replay_on_another_ledger(stage: Rehearsal) -> None:
    """Invariant L21: ledger and chain are part of the domain and of the context."""
    cid, terms, secret = open_channel(stage, RELAY), stage.terms(), stage.secret()
    claim = stage.nano_claim(RELAY, cid, terms, secret, DEPOSIT, 0)
    struct = statements.nano_refund_struct(
        stage.ctx,
        RELAY,
        terms.hash(),
        claim[2],
        statements.keccak256(commitment(claim[0], claim[3], claim[4])),
    )
    for chain_id, address in (
        (stage.chain_id + 1, stage.ledger.address),
        (stage.chain_id, stage.token.address),
    ):
        domain = statements.domain_separator(chain_id, address)
        signature = stage.party("intermediary").sign(statements.typed_digest(domain, struct))
        with refused("authorisation: signature"):
            _send(stage, RELAY, (*claim[:5], signature, *claim[6:]))
    _send(stage, RELAY, claim)


def test_malleable_and_short_signatures(stage: Rehearsal) -> None:
    """Invariant L21: 65 bytes, v 27 or 28, lower s; everything else counts as no signature."""
    cid, terms = open_channel(stage, RELAY), stage.terms()
    claim = stage.nano_claim(RELAY, cid, terms, stage.secret(), DEPOSIT, 0)
    good = claim[5]
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    high = (order - int.from_bytes(good[32:64], "big")).to_bytes(32, "big")
    compact = int.from_bytes(good[32:64], "big") | (good[64] - 27) << 255
    for bad in (
        good[:32] + high + bytes([55 - good[64]]),
        good[:64] + bytes([good[64] - 27]),
        good[:64],
        good[:32] + compact.to_bytes(32, "big"),
        b"",
        bytes(65),
    ):
        with refused("authorisation: signature"):
            _send(stage, RELAY, (*claim[:5], bad, *claim[6:]))


def test_numbers_beyond_their_range(stage: Rehearsal) -> None:
    """Invariant L7: scalars are bounded, since the precompile would reduce them."""
    cid, terms = open_channel(stage, RELAY), stage.terms()
    good = stage.nano_claim(RELAY, cid, terms, stage.secret(), DEPOSIT, 0)
    for index, value in (
        (2, 2**248),
        (3, 2**64),
        (3, good[3] + GROUP_ORDER),
        (4, GROUP_ORDER),
        (4, good[4] + GROUP_ORDER),
    ):
        with refused("ledger: out of range"):
            _send(stage, RELAY, (*good[:index], value, *good[index + 1 :]))


@pytest.mark.parametrize(
    "changes",
    [
        {"n": 0},
        {"n": 16},
        {"n": 96},
        {"n": 2**19},
        {"delta_c": 1},
        {"delta_c": -(2**32)},
        {"delta_c": -(2**255)},
        {"delta_r": 2**32},
        {"t_exp": 2**39 + 1},
        {"t_exp": 2**255},
    ],
    ids=str,
)
def test_malformed_terms(stage: Rehearsal, changes: dict[str, int]) -> None:
    """Invariant L2: terms that could overflow a record are refused even when I signed them."""
    cid = open_channel(stage, RELAY)
    terms = replace(stage.terms(), **changes)
    proof = payment_chain(128).proof(3)
    claim = stage.nano_claim(RELAY, cid, terms, stage.secret(), DEPOSIT, 3, proof=proof)
    with refused("preimages: terms"):
        _send(stage, RELAY, claim)
    with refused("preimages: terms"):
        stage.send(stage.ledger.functions.reveal(words(terms), *proof), stage.party("watcher"))


@pytest.mark.parametrize(
    ("role", "b_full", "k", "paid"),
    [
        (CLIENT, 2**64 - 1, 0, ESCROW),
        (CLIENT, 0, 128, 0),
        (CLIENT, ESCROW, 0, ESCROW),
        (RELAY, 0, 0, 0),
        (RELAY, 86 * 128 - 1, 0, 0),
        (RELAY, 2**64 - 1, 128, DEPOSIT + 60_000 * 10 // 11),
    ],
)
def test_absurd_balances_conserve(
    stage: Rehearsal, role: Role, b_full: int, k: int, paid: int
) -> None:
    """Invariant L2: capped at both ends, nothing created, nothing lost."""
    cid, terms, account = open_channel(stage, role), stage.terms(), account_of(stage, role)
    before = wealth(stage, account)
    post_session(stage, role, cid, terms, b_full, k)
    resolve(stage, cid)
    shares = gains(before, wealth(stage, account))
    assert shares[0] == paid
    assert sum(shares) == ESCROW


def test_a_front_run_reveal_does_not_fail_the_claim(stage: Rehearsal) -> None:
    """Invariant L12: somebody reveals as much or more just before; the relay's claim passes."""
    for lead in (40, 41, 128):
        cid, terms = open_channel(stage, RELAY), stage.terms(t_exp=stage.now() + 500 + lead)
        reveal(stage, terms, lead)
        post_session(stage, RELAY, cid, terms, _saturated(RELAY, terms), 40)
        assert status(stage, cid) == CLOSING_NANO
        assert claims(stage, terms) == (lead, lead)


def test_a_false_proof_fails_the_claim(stage: Rehearsal) -> None:
    """Invariant L12: k is checked (and n + 1 is no k)."""
    cid, terms = open_channel(stage, RELAY), stage.terms()
    chain = payment_chain(terms.n)
    for proof in (
        (40, chain.values[39], chain.path(40)),
        (129, chain.values[128], chain.path(128)),
        (40, chain.values[40], chain.path(60)),
    ):
        claim = stage.nano_claim(RELAY, cid, terms, stage.secret(), DEPOSIT, 0, proof=proof)
        with refused("preimages: not on the chain"):
            _send(stage, RELAY, claim)


def test_zero_payments_need_no_preimage(stage: Rehearsal) -> None:
    """A party without any preimage can always claim at k = 0."""
    cid, terms = open_channel(stage, CLIENT), stage.terms()
    proof = (0, b"?" * 32, [b"?" * 32])
    claim = stage.nano_claim(
        CLIENT, cid, terms, stage.secret(), _saturated(CLIENT, terms), 0, proof=proof
    )
    _send(stage, CLIENT, claim)
    assert status(stage, cid) == CLOSING_NANO


def test_batch_equals_single_claims(stage: Rehearsal) -> None:
    cid, account = open_channel(stage, RELAY, 4), stage.party("relay")
    terms = [stage.terms(t_exp=stage.now() + 500 + i) for i in range(3)]
    claims_ = [
        stage.nano_claim(RELAY, cid + i, t, stage.secret(), DEPOSIT + 128 * 86, 20 + i)
        for i, t in enumerate(terms)
    ]
    stage.send(stage.ledger.functions.batch_nano_refund(claims_), account)
    before = wealth(stage, account)
    for i in range(3):
        resolve(stage, cid + i)
    assert gains(before, wealth(stage, account))[0] == 3 * DEPOSIT + 86 * (20 + 21 + 22)
    with refused("channel_groups: resolved"):
        stage.send(stage.ledger.functions.batch_nano_refund(claims_), account)


def test_batch_is_authorised_item_by_item(stage: Rehearsal) -> None:
    """Invariant L4: a batch is no way around the authorisation."""
    cid, terms = open_channel(stage, RELAY), stage.terms()
    claim = stage.nano_claim(RELAY, cid, terms, stage.secret(), DEPOSIT, 0)
    assert claim[-1] == NO_AUTHORISATION
    with refused("authorisation: expired"):
        stage.send(stage.ledger.functions.batch_nano_refund([claim]), stage.party("intermediary"))


def test_lock_in_the_event_is_the_session_lock(stage: Rehearsal) -> None:
    cid, terms, secret = open_channel(stage, RELAY), stage.terms(), stage.secret()
    receipt = post_session(stage, RELAY, cid, terms, DEPOSIT, 0, secret)
    assert stage.events(receipt, "RefundPosted")[0]["lock"] == lock_of(secret)
