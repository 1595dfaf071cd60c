# SPDX-License-Identifier: BSD-3-Clause
"""Provers that prove something weaker, against the real verifier.

Each has a control: with the relation weakened to what the prover can prove, the same message is
answered. So it is the rule that refuses it, and not a mistake in the attack.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from offchain.crypto import nano_close as close_proof, nano_setup as setup_proof, pay as pay_proof
from offchain.crypto.errors import CryptoError
from offchain.protocol import nano_close, wallet as wallets
from offchain.protocol.errors import RefusalCode
from offchain.protocol.records import Table
from tests.protocol import forgeries, weak_sessions
from tests.protocol.forgeries import bent
from tests.protocol.test_session_rules import answered, refused
from tests.protocol.world import World


def test_range_on_the_balance_instead_of_what_is_left(
        world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wallet of 5,000 would buy payments of 12,800 and close with more than it ever had."""
    (cid,) = world.open(world.c, deposit=5_000, fund=0, count=1)
    request, _, _ = weak_sessions.poor_setup(world, world.c.wallet(cid))
    assert refused(world.ask(request)) is RefusalCode.PROOF
    monkeypatch.setattr(setup_proof, "_relation", weak_sessions.weak_setup_relation)
    answered(world.ask(request))


def test_two_locks_in_the_two_requests(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spending the wallet token would reveal one secret, and the refund token keep another."""
    terms_hash = world.session(5)
    weak = weak_sessions.weak_locks
    with bent(close_proof, "request_equations", weak), bent(
            close_proof, "prepare_request", weak_sessions.two_locks):
        world.act(world.r, lambda records, moment: nano_close.start_relay(
            records, world.r.machine.user, terms_hash))
    request = world.held(world.r)
    assert refused(world.ask(request)) is RefusalCode.PROOF
    monkeypatch.setattr(close_proof, "request_equations", weak)
    answered(world.ask(request))


def test_a_negative_amount(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The payer would gain what the payee's balance, modulo the group's order, loses."""
    request, _ = forgeries.negative_payer(
        world, world.c, world.c.wallet(world.c.cids()[0]), -1_000, world.deadline())
    assert refused(world.ask(request)) is RefusalCode.PROOF
    monkeypatch.setattr(pay_proof, "_payer_relation", forgeries.weak_payer_relation)
    assert refused(world.ask(request)) is RefusalCode.NOT_YET, "taken, and waiting for its payee"


def test_another_session_balance_than_the_proof_says(world: World) -> None:
    """N, k and the price are in the transcript: none can be exchanged afterwards."""
    terms_hash = world.start_setup(world.c.cids()[0])
    request = world.held(world.c)
    other = world.c.cids()[1]
    world.c.requests.clear()
    world.start_setup(other)
    second = world.held(world.c)
    for wrong in (replace(request, commitment=second.commitment), replace(request, com=second.com),
                  replace(request, k=second.k), replace(request, sigma=second.sigma),
                  replace(request, nwpk=second.nwpk), replace(request, nonce=second.nonce),
                  replace(request, terms=second.terms), replace(request, proof=second.proof)):
        assert refused(world.ask(wrong)) is RefusalCode.PROOF
    answered(world.ask(request))
    assert world.i.records.get(Table.SESSION, terms_hash).commitment_c == request.commitment


def test_a_close_is_bound_to_its_session_and_count(world: World) -> None:
    first = world.session(20, world.c.cids()[0])
    second = world.session(20, world.c.cids()[1])
    requests = []
    for terms_hash in (first, second):
        world.act(world.r, lambda records, moment, th=terms_hash: nano_close.start_relay(
            records, world.r.machine.user, th))
        requests.append(world.held(world.r))
        world.r.requests.clear()
    one, two = requests
    for wrong in (replace(one, d_rt=two.d_rt), replace(one, d_pt=two.d_pt),
                  replace(one, d_rt=two.d_rt, d_pt=two.d_pt, proof=two.proof),
                  replace(one, d_rt=one.d_pt, d_pt=one.d_rt)):
        assert refused(world.ask(wrong)) is RefusalCode.PROOF
    answered(world.ask(one))
    assert wallets.proved(world.r.records, first).k == 20


def test_nobody_can_put_a_tag_into_a_request(world: World) -> None:
    """With a base for it a client would ask for a relay's token, or for a wallet of any kind."""
    public = world.issuer.public
    assert len(public.y_tilde) == 4
    for attribute in (0, 5, -1):
        with pytest.raises(CryptoError):
            public.request_base(attribute)
