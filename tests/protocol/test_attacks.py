# SPDX-License-Identifier: BSD-3-Clause
"""Coalitions that once made money out of the machines as they were first written."""

from __future__ import annotations

from dataclasses import replace

from monetor_chain.parameters import DEMO
from offchain.crypto.hash_chain import HashChain
from offchain.protocol import ledger as calls, messages as m, pay, wallet as wallets
from offchain.protocol.errors import RefusalCode
from offchain.protocol.records import Table
from offchain.protocol.sessions import client_session
from tests.protocol.world import FEE, MU, PAY_FEE, TICK, World


def reveal_call(world: World, terms_hash: bytes, k: int) -> calls.Reveal:
    current = client_session(world.c.records, terms_hash)
    chain = HashChain(current.session.terms.n, current.seed)
    return calls.Reveal(current.session.terms, k, chain.value(k), chain.path(k))


def refused(reply: object) -> RefusalCode:
    assert isinstance(reply, m.Refusal), f"answered with {type(reply).__name__}"
    return reply.code


def test_terms_revealed_on_the_ledger_before_setup_are_refused(world: World) -> None:
    """Client and relay put n payments on record before the session exists: the intermediary would
    pay the relay for all of them and close the client's leg at none."""
    terms_hash = world.start_setup(world.c.cids()[0])
    world.transact(world.c, reveal_call(world, terms_hash, DEMO.n))
    world.run()
    assert world.c.refusals == [RefusalCode.REUSED]
    assert world.i.records.get(Table.SESSION, terms_hash) is None


def test_relay_close_reveals_when_the_client_has_claimed_already(world: World) -> None:
    """The client claims its leg at zero; the relay then closes off chain at 40."""
    floor = world.stake(world.i) + 40 * FEE
    terms_hash = world.session(40)
    world.act(world.c, lambda records, moment: world.c.machine.claim_session(records, terms_hash))
    world.run()
    world.close_relay(terms_hash)
    world.settle()
    assert world.stake(world.i) >= floor
    assert world.i.records.get(Table.SESSION, terms_hash).ledger.k == 40
    assert world.conserved()


def test_one_lock_posted_on_two_channels_is_refuted_on_both(world: World) -> None:
    """Two wallets share a secret. The payer posts both old states after the two legs are joined;
    once its secret is known neither may stand."""
    first, second = world.c.cids()
    # A client that is free to choose its secrets requests both channels' wallets with one wsk.
    for cid in (first, second):
        terms_hash = world.session(0, cid)
        world.close_relay(terms_hash)
        wallets_fresh = wallets.fresh_secret
        wallets.fresh_secret = lambda: b"\x07" * 32  # type: ignore[assignment]
        try:
            world.close_client(terms_hash)
        finally:
            wallets.fresh_secret = wallets_fresh
    assert world.c.wallet(first).wpk == world.c.wallet(second).wpk
    old = [wallets.claim(world.c.records, world.c.wallet(cid)) for cid in (first, second)]
    assert old[0] is not None and old[1] is not None
    world.invoice(40_000, first, world.e.cids()[0])
    world.fault = lambda parcel: (
        () if parcel.kind == "tell" and parcel.item.pcmd == m.PayVerified.PCMD else (parcel,))
    world.run()
    world.retry()
    for call in old:
        assert world.transact(world.c, call)
    # The accomplice knows wsk_C and enforces the payment on the ledger.
    payee = world.e.wallet(world.e.cids()[0])
    world.act(world.e, lambda records, moment: wallets.put(
        records, world.e.cids()[0], replace(payee, wsk_c=b"\x07" * 32)) or [])
    world.act(world.e, lambda records, moment: world.e.machine.post_claim(
        records, world.e.cids()[0]))
    world.run()
    status = [world.stage.ledger.functions.channel(cid).call()[0] for cid in (first, second)]
    assert status == [6, 6], "a posted state whose secret is known stands"


def test_payee_of_a_void_payment_reveals_nothing_before_it_holds_a_token(world: World) -> None:
    """An intermediary that takes the payee's secret and goes silent could refute its only claim."""
    cid = world.e.cids()[0]
    before = world.e.balance(cid)
    secret = world.e.wallet(cid).wsk
    lock = world.invoice(3_000, world.c.cids()[0], cid)
    world.fault = lambda parcel: (
        () if parcel.kind == "tell" and parcel.item.pcmd == m.PayVerified.PCMD else (parcel,))
    world.run()
    world.retry()
    world.i.alive = False
    world.travel(world.now + DEMO.dispute_window - 2 * TICK)
    request = world.e.requests[pay.conversation(lock)]
    assert request.pcmd == m.PayeeVoid.PCMD and secret not in request.payload
    world.i.alive = True
    world.travel(world.now + 2 * MU)
    assert world.e.balance(cid) == before


def test_a_lost_secret_is_told_again(world: World) -> None:
    """The payer is killed after it has committed wsk_C and before the payee has heard it."""
    cid, to = world.c.cids()[0], world.e.cids()[0]
    balance, received = world.c.balance(cid), world.e.balance(to)
    world.invoice(3_000, cid, to)

    def lose_first_secret(parcel):
        if parcel.kind == "tell" and parcel.item.pcmd == m.PaySecret.PCMD:
            world.fault = lambda parcel: (parcel,)
            return ()
        return (parcel,)

    world.fault = lose_first_secret
    world.run()
    world.retry()
    world.travel(world.now + 2 * MU)
    assert world.e.balance(to) == received + 3_000
    assert world.c.balance(cid) == balance - 3_000 - PAY_FEE


def test_repeating_a_secret_costs_the_intermediary_no_second_transaction(world: World) -> None:
    """Each repetition of a refuted secret was once a transaction that reverts."""
    cid = world.c.cids()[0]
    old = wallets.claim(world.c.records, world.c.wallet(cid))
    world.start_setup(cid)
    reveal = world.stop_before(m.NanoSetupReveal, world.c)
    assert world.transact(world.c, old)
    for _ in range(3):
        assert refused(world.ask(reveal)) is RefusalCode.LOCK
        world.run()
    assert world.stage.ledger.functions.channel(cid).call()[0] == 6
    assert not world.i.reverted


def test_a_payment_out_of_a_posted_wallet_is_never_answered(world: World) -> None:
    """Also when the secret was known before: the claim of a wallet on the ledger may stand."""
    cid, to = world.c.cids()[0], world.e.cids()[0]
    idle = world.c.wallet(cid)
    old = wallets.claim(world.c.records, idle)
    lock = world.invoice(3_000, cid, to)
    world.fault = lambda parcel: (
        () if parcel.kind == "tell" and parcel.item.pcmd == m.PayVerified.PCMD else (parcel,))
    world.run()
    world.retry()
    assert world.transact(world.c, old)
    payee = world.e.wallet(to).idle
    for _ in range(2):
        assert refused(world.ask(m.PayerReveal(idle.nonce, idle.wsk))) is RefusalCode.LOCK
        assert refused(world.ask(m.PayeeClaim(payee.nonce, idle.wsk))) is RefusalCode.LOCK
    assert lock == idle.wpk
