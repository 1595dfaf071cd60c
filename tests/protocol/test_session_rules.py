# SPDX-License-Identifier: BSD-3-Clause
"""The intermediary's rules for sessions: each refusal here once cost it, or somebody, money."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from monetor_chain.parameters import DEMO
from monetor_chain.statements import Role, lock_of
from offchain.crypto.hash_chain import HashChain
from offchain.protocol import (
    ledger as calls,
    messages as m,
    nano_close,
    nano_setup,
    sessions,
    wallet as wallets,
)
from offchain.protocol.errors import ProtocolError, RefusalCode
from offchain.protocol.records import Table
from offchain.protocol.sessions import (
    ClientPhase,
    Phase,
    RelayPhase,
    client_session,
    relay_session,
)
from offchain.protocol.wallet import InSession
from tests.protocol.world import CLIENT_DEPOSIT, DELTA_R, MU, PRICE, World


def refused(reply: Any) -> RefusalCode:
    assert isinstance(reply, m.Refusal), f"answered with {type(reply).__name__}"
    return reply.code


def answered(reply: Any) -> Any:
    assert not isinstance(reply, m.Refusal), f"refused: {reply.code.name}"
    return reply


def phase(world: World, terms_hash: bytes) -> Phase:
    return world.i.records.get(Table.SESSION, terms_hash).phase


def query_of(world: World, terms_hash: bytes) -> m.ClientCloseQuery:
    """The client's question at which count its session closes."""
    session = client_session(world.c.records, terms_hash).session
    return m.ClientCloseQuery(terms_hash, lock_of(session.nwsk))


def setup_request(world: World, cid: int | None = None, **changes: Any) -> m.NanoSetupRequest:
    """A valid proof of a client that believes in other parameters than the network's."""
    cid = world.c.cids()[0] if cid is None else cid

    def start(records: Any, moment: Any) -> Any:
        return world.c.machine.nano_setup(
            records, replace(moment, parameters=replace(moment.parameters, **changes)), cid)

    world.act(world.c, start)
    found = world.held(world.c)
    assert isinstance(found, m.NanoSetupRequest)
    return found


# --- Replies are bound to their requests


def test_identical_requests_get_the_stored_reply_and_others_none(world: World) -> None:
    world.close(world.session(20))
    world.transfer(1_000)
    world.cash_out(world.r, world.r.cids()[0] >> 8)
    asked: dict[tuple[int, bytes], tuple[int, bytes]] = {}
    log = list(world.log)
    for sent, reply in zip(log, log[1:], strict=False):
        if sent.target == "I" and reply.source == "I" and reply.pcmd != m.Refusal.PCMD:
            asked[sent.pcmd, sent.payload] = (reply.pcmd, reply.payload)
    kinds = {m.MESSAGES[pcmd] for pcmd, _ in asked}
    assert len(kinds) >= 16
    # What was said of a group that is paid out is forgotten: nothing can come of it any more.
    closed = world.r.cids()[0] >> 8
    opening = (m.EstablishRequest, m.OpenedRequest)
    over = [(pcmd, payload) for pcmd, payload in asked if m.MESSAGES[pcmd] is m.CashOutRequest
            or (m.MESSAGES[pcmd] is m.GroupRequest and payload[20] == Role.RELAY)
            or (m.MESSAGES[pcmd] in opening and m.unpack(pcmd, payload).cid >> 8 == closed)]
    for (pcmd, payload), reply in asked.items():
        if m.MESSAGES[pcmd] in (m.PayQuery, m.ClientCloseQuery) or (pcmd, payload) in over:
            continue
        assert world.request(pcmd, payload) == reply, f"{m.MESSAGES[pcmd].__name__} repeated"
        if m.MESSAGES[pcmd] is m.OpenedRequest:
            continue
        at = 0 if m.MESSAGES[pcmd] is m.GroupRequest else len(payload) - 1
        changed = payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1:]
        code = refused(m.unpack(*world.request(pcmd, changed)))
        if m.MESSAGES[pcmd] is not m.CashOutRequest:
            assert code is RefusalCode.REUSED, f"{m.MESSAGES[pcmd].__name__}: {code.name}"


def test_a_second_close_with_another_count_is_refused_for_ever(world: World) -> None:
    """Answering it would leave the relay two live refund tokens."""
    terms_hash = world.session(20)
    saved = world.r.records.copy()
    world.close_relay(terms_hash)
    assert phase(world, terms_hash) is Phase.RELAY_CLOSED
    world.r.records = saved
    proof = wallets.proved(saved, terms_hash)
    for k in (20, 19):
        world.r.records = saved.copy()
        chain = chain_of(world, terms_hash)
        world.r.records.put(Table.PAYMENT, terms_hash,
                            replace(proof, k=k, hc=chain.value(k), path=chain.path(k)))
        world.act(world.r, lambda records, moment: world.r.machine.nano_close(
            records, terms_hash))
        assert refused(world.ask(world.held(world.r))) is RefusalCode.REUSED
        world.r.requests.clear()


def test_a_second_close_while_the_first_waits_for_its_secret_is_refused(world: World) -> None:
    terms_hash = world.session(20)
    saved = world.r.records.copy()
    world.act(world.r, lambda records, moment: world.r.machine.nano_close(records, terms_hash))
    world.stop_before(m.RelayCloseReveal, world.r)
    world.r.records, world.r.requests = saved, {}
    world.act(world.r, lambda records, moment: world.r.machine.nano_close(records, terms_hash))
    assert refused(world.ask(world.held(world.r))) is RefusalCode.REUSED


def test_a_second_client_close_with_new_requests_is_refused(world: World) -> None:
    terms_hash = world.session(20)
    world.close_relay(terms_hash)
    saved = world.c.records.copy()
    world.act(world.c, lambda records, moment: world.c.machine.nano_close(records, terms_hash))
    world.stop_before(m.ClientCloseReveal, world.c)
    world.c.records, world.c.requests = saved, {}
    world.act(world.c, lambda records, moment: world.c.machine.nano_close(records, terms_hash))
    request = world.stop_before(m.ClientCloseRequest, world.c)
    assert refused(world.ask(request)) is RefusalCode.REUSED


def test_a_failed_check_marks_nothing(world: World) -> None:
    request = setup_request(world)
    wrong = replace(request, proof=bytes([request.proof[0] ^ 1]) + request.proof[1:])
    assert refused(world.ask(wrong)) is RefusalCode.PROOF
    answered(world.ask(request))


# --- Setup: fresh nonce, nwpk, nT, hc0; the network's terms


def test_a_wallet_is_spent_once(world: World) -> None:
    saved = world.c.records.copy()
    world.setup()
    world.c.records = saved
    assert refused(world.ask(setup_request(world))) is RefusalCode.REUSED


def test_a_session_lock_must_be_fresh(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wallets, "fresh_secret", lambda: b"\x05" * 32)
    first, second = world.c.cids()
    world.setup(first)
    assert refused(world.ask(setup_request(world, second))) is RefusalCode.REUSED


def test_the_relay_cannot_take_the_clients_lock(
        world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wallets, "fresh_secret", lambda: b"\x05" * 32)
    terms_hash = world.setup()
    world.offer(terms_hash)
    request = world.stop_before(m.NanoEstablishRequest, world.r)
    assert refused(world.ask(request)) is RefusalCode.REUSED


def test_a_lock_that_is_on_the_ledger_is_not_fresh(
        world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = world.c.cids()
    wallet = world.c.wallet(first)
    assert world.transact(world.c, wallets.claim(world.c.records, wallet))
    monkeypatch.setattr(wallets, "fresh_secret", lambda: wallet.wsk)
    assert refused(world.ask(setup_request(world, second))) is RefusalCode.REUSED


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_hash_chain_serves_one_session(
        world: World, monkeypatch: pytest.MonkeyPatch, epochs: int) -> None:
    """With two sessions on one chain, the payments of one prove those of the other."""
    chain = HashChain.generate(DEMO.n)
    monkeypatch.setattr(HashChain, "generate", classmethod(lambda cls, n: chain))
    first, second = world.c.cids()
    world.setup(first)
    world.jump(world.now + epochs * DEMO.epoch)
    assert refused(world.ask(setup_request(world, second))) is RefusalCode.REUSED


@pytest.mark.parametrize("changes", [
    {"price": DEMO.price - 1}, {"price": DEMO.price + 1}, {"delta_r": DEMO.delta_r + 1},
    {"delta_r": DEMO.delta_r - 1}, {"n": DEMO.n // 2}, {"lifetime": DEMO.lifetime + 60},
    {"lifetime": DEMO.lifetime - 60}, {"lifetime": DEMO.lifetime + 1},
])
def test_terms_are_the_networks(world: World, changes: dict[str, int]) -> None:
    assert refused(world.ask(setup_request(world, **changes))) is RefusalCode.TERMS


def next_epoch(world: World, seconds: int) -> None:
    """Be `seconds` into the next epoch."""
    world.jump((DEMO.epoch_at(world.now) + 1) * DEMO.epoch + seconds)


@pytest.mark.parametrize(("seconds", "accepted"), [(1, True), (MU - 1, True), (MU, False)])
def test_the_epoch_before_is_taken_during_the_first_margin(
        world: World, seconds: int, accepted: bool) -> None:
    request = setup_request(world)
    next_epoch(world, seconds)
    reply = world.ask(request)
    assert isinstance(reply, m.NanoRefundReply) is accepted
    if not accepted:
        assert refused(reply) is RefusalCode.TERMS


def test_each_epoch_has_its_own_prices(world: World) -> None:
    epoch = DEMO.epoch_at(world.now)
    world.parameters = {epoch + 1: replace(DEMO, price=110)}
    old = setup_request(world)
    next_epoch(world, 2)
    world.c.requests.clear()
    new = setup_request(world, world.c.cids()[1])
    assert (old.terms.delta_c, new.terms.delta_c) == (-100, -110)
    answered(world.ask(old))
    answered(world.ask(new))
    mixed = replace(old, terms=replace(old.terms, epoch=epoch + 1, t_exp=new.terms.t_exp))
    assert refused(world.ask(mixed)) is RefusalCode.REUSED


def test_an_epoch_whose_parameters_are_unknown_takes_no_session(world: World) -> None:
    request = setup_request(world)
    next_epoch(world, 1)
    moment = world.moment()
    world.moment = lambda: replace(moment, older={})  # type: ignore[method-assign]
    try:
        assert refused(world.ask(request)) is RefusalCode.TERMS
    finally:
        del world.moment  # type: ignore[method-assign]


def test_a_session_of_an_older_epoch_can_still_be_established(world: World) -> None:
    terms_hash = world.setup()
    world.parameters = {DEMO.epoch_at(world.now) + 3: replace(DEMO, price=110)}
    world.jump(world.now + 3 * DEMO.epoch)
    world.establish(terms_hash)
    assert phase(world, terms_hash) is Phase.ESTABLISHED


def test_a_relay_wallet_cannot_set_up(world: World) -> None:
    """Roles are in the tag: a relay's balance is taxed, a client's is not."""
    cid, other = world.r.cids()
    world.r.records.delete(Table.WALLET, other.to_bytes(31, "big"))
    world.close(world.session(DEMO.n, world.c.cids()[0]))
    world.close(world.session(DEMO.n, world.c.cids()[0]))
    assert world.r.balance(cid) >= DEMO.n * PRICE
    wallets.put(world.c.records, cid, world.r.wallet(cid))
    user, world.c.machine.user = world.c.machine.user, world.r.machine.user
    try:
        request = setup_request(world, cid)
    finally:
        world.c.machine.user = user
    assert refused(world.ask(request)) is RefusalCode.PROOF


def test_a_client_wallet_cannot_establish(world: World) -> None:
    terms_hash = world.setup()
    cid = world.c.cids()[1]
    group = world.c.records.get(Table.GROUP, (cid >> 8).to_bytes(31, "big"))
    world.r.records.put(Table.GROUP, (cid >> 8).to_bytes(31, "big"), replace(group, fund=10**6))
    wallets.put(world.r.records, cid, world.c.wallet(cid))
    for other in world.r.cids():
        if other != cid:
            world.r.records.delete(Table.WALLET, other.to_bytes(31, "big"))
    user, world.r.machine.user = world.r.machine.user, world.c.machine.user
    try:
        request = establish_request(world, terms_hash)
    finally:
        world.r.machine.user = user
    assert refused(world.ask(request)) is RefusalCode.PROOF


# --- Setting up


def test_only_the_spent_wallets_secret_completes_a_setup(world: World) -> None:
    terms_hash = world.start_setup(world.c.cids()[0])
    request = world.stop_before(m.NanoSetupReveal, world.c)
    assert refused(world.ask(replace(request, wsk=b"\x01" * 32))) is RefusalCode.PROOF
    assert refused(world.ask(replace(request, r=request.r + 1))) is RefusalCode.PROOF
    assert phase(world, terms_hash) is Phase.SETTING_UP
    answered(world.ask(request))
    assert phase(world, terms_hash) is Phase.SETUP


def test_nobody_joins_a_session_whose_wallet_is_not_revoked(world: World) -> None:
    terms_hash = world.start_setup(world.c.cids()[0])
    world.stop_before(m.NanoSetupReveal, world.c)
    world.c.records.put(Table.SESSION, terms_hash, replace(
        client_session(world.c.records, terms_hash), phase=ClientPhase.READY))
    world.offer(terms_hash)
    request = world.stop_before(m.NanoEstablishRequest, world.r)
    assert refused(world.ask(request)) is RefusalCode.STATE


def test_a_client_leg_does_not_close_from_setting_up(world: World) -> None:
    """The old refund token still stands: the client would have two."""
    terms_hash = world.start_setup(world.c.cids()[0])
    world.stop_before(m.NanoSetupReveal, world.c)
    assert refused(world.ask(query_of(world, terms_hash))) is RefusalCode.STATE
    world.jump(client_session(world.c.records, terms_hash).session.terms.t_exp + 1)
    assert refused(world.ask(query_of(world, terms_hash))) is RefusalCode.STATE


# --- Establish


def establish_request(world: World, terms_hash: bytes) -> m.NanoEstablishRequest:
    world.offer(terms_hash)
    found = world.stop_before(m.NanoEstablishRequest, world.r)
    assert isinstance(found, m.NanoEstablishRequest)
    return found


def test_one_relay_wallet_joins_a_session(world: World) -> None:
    terms_hash = world.setup()
    saved = world.r.records.copy()
    answered(world.ask(establish_request(world, terms_hash)))
    assert phase(world, terms_hash) is Phase.ESTABLISHING
    world.r.records, world.r.requests = saved, {}
    # The relay's other channel, and the same one with another proof.
    world.c.records.put(Table.SESSION, terms_hash, replace(
        client_session(world.c.records, terms_hash), phase=ClientPhase.READY))
    assert refused(world.ask(establish_request(world, terms_hash))) in (
        RefusalCode.STATE, RefusalCode.REUSED)
    world.r.records, world.r.requests = saved, {}
    cid = world.r.machine.idle_channel(saved)
    wallets.put(world.r.records, cid, InSession(cid, terms_hash))
    world.c.records.put(Table.SESSION, terms_hash, replace(
        client_session(world.c.records, terms_hash), phase=ClientPhase.READY))
    assert refused(world.ask(establish_request(world, terms_hash))) is RefusalCode.STATE


def test_no_relay_joins_an_unknown_session(world: World) -> None:
    terms_hash = world.setup()
    request = establish_request(world, terms_hash)
    assert refused(world.ask(replace(request, terms_hash=b"\x01" * 32))) is RefusalCode.UNKNOWN


@pytest.mark.parametrize(("before", "accepted"), [(MU + 1, True), (MU, False), (-1, False)])
def test_establishing_ends_a_margin_before_expiry(
        world: World, before: int, accepted: bool) -> None:
    terms_hash = world.setup()
    request = establish_request(world, terms_hash)
    world.jump(client_session(world.c.records, terms_hash).session.terms.t_exp - before)
    reply = world.ask(request)
    if accepted:
        answered(reply)
    else:
        assert refused(reply) is RefusalCode.TOO_LATE


def test_a_void_session_takes_no_relay(world: World) -> None:
    """The client closed at zero; a relay that joins afterwards would be paid by nobody."""
    terms_hash = world.setup()
    request = establish_request(world, terms_hash)
    world.close_client(terms_hash)
    assert phase(world, terms_hash) is Phase.VOID
    assert refused(world.ask(request)) is RefusalCode.STATE


@pytest.mark.parametrize("relay", ["in setup", "established", "closed"])
def test_only_the_client_asks_for_the_count(world: World, relay: str) -> None:
    """Whoever was offered the session knows its terms: it neither voids it nor learns from it."""
    terms_hash = world.setup()
    if relay != "in setup":
        world.establish(terms_hash)
        world.pay(terms_hash, 3)
    if relay == "closed":
        world.close_relay(terms_hash)
    known = sessions.session(world.i.records, terms_hash)
    for lock in (0, 1, known.nwpk_r, known.nwpk_c ^ 1):
        assert refused(world.ask(m.ClientCloseQuery(terms_hash, lock))) is RefusalCode.UNKNOWN
    assert sessions.session(world.i.records, terms_hash) == known
    if relay == "in setup":
        world.establish(terms_hash)
        world.pay(terms_hash, 3)
    if relay != "closed":
        world.close_relay(terms_hash)
    world.close_client(terms_hash)
    assert world.c.balance(world.c.cids()[0]) == CLIENT_DEPOSIT - 3 * PRICE


def test_the_count_already_makes_a_session_void(world: World) -> None:
    terms_hash = world.setup()
    request = establish_request(world, terms_hash)
    assert answered(world.ask(query_of(world, terms_hash))).k == 0
    assert refused(world.ask(request)) is RefusalCode.STATE


def test_a_client_cannot_skip_the_count(world: World) -> None:
    terms_hash = world.setup()
    world.act(world.c, lambda records, moment: world.c.machine.nano_close(records, terms_hash))
    request = world.stop_before(m.ClientCloseRequest, world.c)
    current = world.i.records.get(Table.SESSION, terms_hash)
    world.i.records.put(Table.SESSION, terms_hash, replace(current, phase=Phase.SETUP))
    assert refused(world.ask(request)) is RefusalCode.STATE


def test_the_relays_old_wallet_is_revoked_before_it_is_paid(world: World) -> None:
    """Its old refund token, posted after the session, is refuted."""
    old = wallets.claim(world.r.records, world.r.wallet(world.r.machine.idle_channel(
        world.r.records)))
    terms_hash = world.session(10)
    assert isinstance(old, calls.Refund)
    assert world.transact(world.r, old)
    world.run()
    assert world.stage.ledger.functions.channel(old.cid).call()[0] == 6
    assert relay_session(world.r.records, terms_hash).phase is RelayPhase.ON_LEDGER


def test_only_the_spent_relay_wallets_secret_establishes(world: World) -> None:
    terms_hash = world.setup()
    world.offer(terms_hash)
    request = world.stop_before(m.NanoEstablishReveal, world.r)
    assert refused(world.ask(replace(request, wsk=b"\x01" * 32))) is RefusalCode.PROOF
    assert phase(world, terms_hash) is Phase.ESTABLISHING
    answered(world.ask(request))


# --- Close: order, counts, time


def chain_of(world: World, terms_hash: bytes) -> HashChain:
    current = client_session(world.c.records, terms_hash)
    return HashChain(current.session.terms.n, current.seed)


def close_request(world: World, terms_hash: bytes, k: int | None = None) -> m.RelayCloseRequest:
    """A relay's close with a valid proof of balances at `k`, whatever it was paid."""
    best = wallets.proved(world.r.records, terms_hash)
    if k is not None:
        chain = chain_of(world, terms_hash)
        world.r.records.put(Table.PAYMENT, terms_hash,
                            replace(best, k=k, hc=chain.value(k), path=chain.path(k)))
    world.act(world.r, lambda records, moment: nano_close.start_relay(
        records, world.r.machine.user, terms_hash))
    found = world.held(world.r)
    world.r.requests.clear()
    assert isinstance(found, m.RelayCloseRequest)
    return found


def test_the_client_leg_waits_for_the_relays_secret(world: World) -> None:
    terms_hash = world.setup()
    world.offer(terms_hash)
    world.stop_before(m.NanoEstablishReveal, world.r)
    query = query_of(world, terms_hash)
    assert refused(world.ask(query)) is RefusalCode.NOT_YET, "establishing"
    world.retry()
    world.pay(terms_hash, 5)
    assert refused(world.ask(query)) is RefusalCode.NOT_YET, "established"
    world.act(world.r, lambda records, moment: world.r.machine.nano_close(records, terms_hash))
    reveal = world.stop_before(m.RelayCloseReveal, world.r)
    assert refused(world.ask(query)) is RefusalCode.NOT_YET, "relay closing"
    answered(world.ask(reveal))
    assert answered(world.ask(query)).k == 5


def test_a_close_request_too_waits_for_the_relays_secret(world: World) -> None:
    terms_hash = world.session(5)
    world.close_relay(terms_hash)
    world.act(world.c, lambda records, moment: world.c.machine.nano_close(records, terms_hash))
    request = world.stop_before(m.ClientCloseRequest, world.c)
    closed = world.i.records.get(Table.SESSION, terms_hash)
    for one in (Phase.ESTABLISHING, Phase.ESTABLISHED, Phase.RELAY_CLOSING):
        world.i.records.put(Table.SESSION, terms_hash, replace(closed, phase=one))
        assert refused(world.ask(request)) is RefusalCode.NOT_YET
    world.i.records.put(Table.SESSION, terms_hash, closed)
    answered(world.ask(request))


def test_a_relay_that_is_not_established_cannot_close(world: World) -> None:
    """Both its old refund token and nrt would stand beside the new token."""
    terms_hash = world.setup()
    world.offer(terms_hash)
    world.stop_before(m.NanoEstablishReveal, world.r)
    world.r.requests.clear()
    world.r.records.put(Table.SESSION, terms_hash, replace(
        relay_session(world.r.records, terms_hash), phase=RelayPhase.ACTIVE))
    assert refused(world.ask(close_request(world, terms_hash))) is RefusalCode.STATE


def test_the_relay_closes_at_what_it_can_prove(world: World) -> None:
    terms_hash = world.session(20)
    saved = world.r.records.copy()
    for k in (21, 33, DEMO.n):
        world.r.records = saved.copy()
        request = close_request(world, terms_hash, k)
        chain = chain_of(world, terms_hash)
        for hc, path in ((chain.value(20), chain.path(20)), (chain.value(20), chain.path(k)),
                         (b"\x00" * 32, chain.path(k)), (chain.value(k), chain.path(20))):
            if (hc, path) == (request.hc, request.path):
                continue
            if k < 32 and (hc, path) == (chain.value(k), chain.path(20)):
                continue
            assert refused(world.ask(replace(request, hc=hc, path=path))) is RefusalCode.CLAIM
    world.r.records = saved.copy()
    request = close_request(world, terms_hash)
    assert refused(world.ask(replace(request, k=DEMO.n + 1))) is RefusalCode.CLAIM


def test_the_balance_follows_from_the_count(world: World) -> None:
    """A proof for 20 payments does not close at 16, which the same chain proves."""
    terms_hash = world.session(20)
    request = close_request(world, terms_hash)
    chain = chain_of(world, terms_hash)
    assert refused(world.ask(replace(request, k=16, hc=chain.value(16), path=chain.path(16)))
                   ) is RefusalCode.PROOF


def test_a_late_relay_close_needs_its_count_on_the_ledger(world: World) -> None:
    """After T_exp − μ the client's leg may be bound already; only the registry binds both."""
    terms_hash = world.session(20)
    request = close_request(world, terms_hash)
    t_exp = relay_session(world.r.records, terms_hash).session.terms.t_exp
    world.jump(t_exp - MU)
    assert refused(world.ask(request)) is RefusalCode.NOT_YET
    world.transact(world.r, calls.Reveal(
        relay_session(world.r.records, terms_hash).session.terms, request.k, request.hc,
        request.path))
    answered(world.ask(request))


def test_after_expiry_a_count_that_is_not_on_the_ledger_is_lost(world: World) -> None:
    terms_hash = world.session(20)
    terms = relay_session(world.r.records, terms_hash).session.terms
    request = close_request(world, terms_hash)
    chain = chain_of(world, terms_hash)
    world.transact(world.r, calls.Reveal(terms, 7, chain.value(7), ()))
    world.jump(terms.t_exp + 1)
    world.transact(world.r, calls.Reveal(terms, 20, chain.value(20), chain.path(20)))
    assert refused(world.ask(request)) is RefusalCode.TOO_LATE
    # The registry knows 20 for the client and 7 for the relay: the relay gets 7.
    world.r.records.put(Table.SESSION, terms_hash, replace(
        relay_session(world.r.records, terms_hash), phase=RelayPhase.ACTIVE))
    answered(world.ask(close_request(world, terms_hash, 7)))


def test_the_relay_closes_in_time_up_to_the_margin(world: World) -> None:
    terms_hash = world.session(20)
    request = close_request(world, terms_hash)
    world.jump(relay_session(world.r.records, terms_hash).session.terms.t_exp - MU - 1)
    answered(world.ask(request))


def test_expiry_is_a_confirmed_block_and_not_a_clock(world: World) -> None:
    """By its clock the session has expired; a block that says so has not come. The relay's claim
    may be in the blocks between."""
    terms_hash = world.session(5)
    t_exp = client_session(world.c.records, terms_hash).session.terms.t_exp
    query = query_of(world, terms_hash)
    world.i.follows = False
    world.jump(t_exp + MU)
    assert refused(world.ask(query)) is RefusalCode.NOT_YET
    world.i.follows = True
    world.follow(world.i)
    assert answered(world.ask(query)).k == 0


@pytest.mark.parametrize(("after", "accepted"), [(0, False), (1, True)])
def test_a_silent_relay_holds_the_client_until_expiry_and_no_longer(
        world: World, after: int, accepted: bool) -> None:
    terms_hash = world.session(5)
    world.jump(client_session(world.c.records, terms_hash).session.terms.t_exp + after)
    reply = world.ask(query_of(world, terms_hash))
    assert isinstance(reply, m.ClientCloseCount) is accepted


def test_the_client_pays_for_what_the_ledger_knows(world: World) -> None:
    terms_hash = world.session(20)
    terms = relay_session(world.r.records, terms_hash).session.terms
    best = wallets.proved(world.r.records, terms_hash)
    world.transact(world.r, calls.Reveal(terms, best.k, best.hc, best.path))
    world.jump(terms.t_exp + 1)
    world.close_client(terms_hash)
    assert world.c.balance(world.c.cids()[0]) == CLIENT_DEPOSIT - 20 * PRICE


def test_the_client_closes_at_the_intermediarys_count_only(world: World) -> None:
    terms_hash = world.session(20)
    world.close_relay(terms_hash)

    def low(records: Any, moment: Any) -> Any:
        nano_close.start_client(records, terms_hash)
        return nano_close.on_count(records, world.c.machine.user, terms_hash,
                                   m.ClientCloseCount(0, bytes(32), ()))

    world.act(world.c, low)
    assert refused(world.ask(world.held(world.c))) is RefusalCode.CLAIM


def test_a_client_asks_again_when_more_payments_were_proved_meanwhile(world: World) -> None:
    terms_hash = world.session(20)
    request = close_request(world, terms_hash, 10)
    answered(world.ask(request))
    world.r.requests.clear()
    answered(world.ask(m.RelayCloseReveal(
        terms_hash, relay_session(world.r.records, terms_hash).session.nwsk)))
    world.act(world.c, lambda records, moment: world.c.machine.nano_close(records, terms_hash))
    world.stop_before(m.ClientCloseRequest, world.c)
    chain, terms = chain_of(world, terms_hash), client_session(
        world.c.records, terms_hash).session.terms
    world.transact(world.e, calls.Reveal(terms, 20, chain.value(20), chain.path(20)))
    world.retry()
    assert world.c.balance(world.c.cids()[0]) == CLIENT_DEPOSIT - 20 * PRICE
    assert not world.c.reverted


def test_the_client_pays_for_no_more_than_it_sent(world: World) -> None:
    terms_hash = world.session(20)
    world.close_relay(terms_hash)
    chain = chain_of(world, terms_hash)

    def on_count(k: int, hc: bytes) -> None:
        def action(records: Any, moment: Any) -> Any:
            nano_close.start_client(records, terms_hash)
            return nano_close.on_count(records, world.c.machine.user, terms_hash,
                                       m.ClientCloseCount(k, hc, ()))

        world.act(world.c, action)

    with pytest.raises(ProtocolError, match="were sent"):
        on_count(21, chain.value(21))
    with pytest.raises(ProtocolError, match="preimage"):
        on_count(19, chain.value(20))


# --- Locks that are on the ledger


def test_setup_with_a_wallet_that_is_on_the_ledger_is_refuted(world: World) -> None:
    cid = world.c.cids()[0]
    old = wallets.claim(world.c.records, world.c.wallet(cid))
    terms_hash = world.start_setup(cid)
    reveal = world.stop_before(m.NanoSetupReveal, world.c)
    assert world.transact(world.c, old)
    assert refused(world.ask(reveal)) is RefusalCode.LOCK
    assert phase(world, terms_hash) is Phase.SETTING_UP
    world.run()
    assert world.stage.ledger.functions.channel(cid).call()[0] == 6


def test_establish_with_a_wallet_that_is_on_the_ledger_is_refuted(world: World) -> None:
    terms_hash = world.setup()
    cid = world.r.machine.idle_channel(world.r.records)
    old = wallets.claim(world.r.records, world.r.wallet(cid))
    world.offer(terms_hash)
    reveal = world.stop_before(m.NanoEstablishReveal, world.r)
    assert world.transact(world.r, old)
    assert refused(world.ask(reveal)) is RefusalCode.LOCK
    assert phase(world, terms_hash) is Phase.ESTABLISHING
    world.run()
    assert world.stage.ledger.functions.channel(cid).call()[0] == 6


def test_a_relay_leg_that_is_on_the_ledger_does_not_close(world: World) -> None:
    terms_hash = world.session(20)
    nrt = wallets.claim(world.r.records, InSession(
        relay_session(world.r.records, terms_hash).session.cid, terms_hash))
    request = close_request(world, terms_hash)
    assert world.transact(world.r, nrt)
    assert refused(world.ask(request)) is RefusalCode.LOCK


def test_a_relay_secret_whose_leg_is_on_the_ledger_is_refuted(world: World) -> None:
    terms_hash = world.session(20)
    current = relay_session(world.r.records, terms_hash).session
    nrt = wallets.claim(world.r.records, InSession(current.cid, terms_hash))
    world.act(world.r, lambda records, moment: world.r.machine.nano_close(records, terms_hash))
    reveal = world.stop_before(m.RelayCloseReveal, world.r)
    assert world.transact(world.r, nrt)
    assert refused(world.ask(reveal)) is RefusalCode.LOCK
    assert phase(world, terms_hash) is Phase.RELAY_CLOSING
    world.run()
    assert world.stage.ledger.functions.channel(current.cid).call()[0] == 6


def test_a_client_leg_that_is_on_the_ledger_does_not_close(world: World) -> None:
    terms_hash = world.session(20)
    world.close_relay(terms_hash)
    cid = world.c.cids()[0]
    nrt = wallets.claim(world.c.records, InSession(cid, terms_hash))
    world.act(world.c, lambda records, moment: world.c.machine.nano_close(records, terms_hash))
    request = world.stop_before(m.ClientCloseRequest, world.c)
    assert world.transact(world.c, nrt)
    assert refused(world.ask(request)) is RefusalCode.LOCK
    assert refused(world.ask(query_of(world, terms_hash))) is RefusalCode.LOCK


def test_a_client_secret_whose_leg_is_on_the_ledger_is_refuted(world: World) -> None:
    terms_hash = world.session(20)
    world.close_relay(terms_hash)
    cid = world.c.cids()[0]
    nrt = wallets.claim(world.c.records, InSession(cid, terms_hash))
    world.act(world.c, lambda records, moment: world.c.machine.nano_close(records, terms_hash))
    reveal = world.stop_before(m.ClientCloseReveal, world.c)
    assert world.transact(world.c, nrt)
    assert refused(world.ask(reveal)) is RefusalCode.LOCK
    world.run()
    assert world.stage.ledger.functions.channel(cid).call()[0] == 6


# --- What relay and client check


def test_a_relay_takes_only_terms_that_it_can_be_paid_under(world: World) -> None:
    terms_hash = world.setup()
    terms = client_session(world.c.records, terms_hash).session.terms
    offer = m.NanoOffer(terms, world.key_hash)

    def offered(message: m.NanoOffer) -> None:
        world.r.machine.on_offer(world.r.records.copy(), world.moment(), message)

    offered(offer)
    for wrong in ({"delta_r": DELTA_R - 1}, {"delta_c": -PRICE + 1}, {"n": 256},
                  {"t_exp": terms.t_exp + 60}, {"t_exp": terms.t_exp - 1},
                  {"epoch": terms.epoch + 1}, {"epoch": terms.epoch - 1}):
        with pytest.raises(ProtocolError):
            offered(replace(offer, terms=replace(terms, **wrong)))
    with pytest.raises(ProtocolError):
        offered(replace(offer, intermediary=b"\x01" * 32))
    world.establish(terms_hash)
    with pytest.raises(ProtocolError, match="before"):
        offered(offer)


@pytest.mark.parametrize(("before", "accepted"), [(2 * MU + 1, True), (2 * MU, False)])
def test_a_relay_takes_no_session_near_its_expiry(
        world: World, before: int, accepted: bool) -> None:
    terms_hash = world.setup()
    terms = client_session(world.c.records, terms_hash).session.terms
    world.jump(terms.t_exp - before)
    message = m.NanoOffer(terms, world.key_hash)
    if accepted:
        world.r.machine.on_offer(world.r.records, world.moment(), message)
    else:
        with pytest.raises(ProtocolError, match="near"):
            world.r.machine.on_offer(world.r.records, world.moment(), message)


def test_a_relay_takes_no_session_that_its_escrow_does_not_cover(world: World) -> None:
    """Beyond deposit + ⌊fund / (1 + τ)⌋ the ledger would cap what it earned."""
    (cid,) = world.open(world.r, deposit=0, fund=DEMO.n * DELTA_R * 11 // 10, count=1)
    for other in world.r.cids():
        if other != cid:
            world.r.records.delete(Table.WALLET, other.to_bytes(31, "big"))
    terms_hash = world.setup()
    message = m.NanoOffer(client_session(world.c.records, terms_hash).session.terms,
                          world.key_hash)
    with pytest.raises(ProtocolError, match="escrow"):
        world.r.machine.on_offer(world.r.records.copy(), world.moment(), message)
    (enough,) = world.open(world.r, deposit=0, fund=-(-DEMO.n * DELTA_R * 11 // 10), count=1)
    world.r.records.delete(Table.WALLET, cid.to_bytes(31, "big"))
    world.establish(terms_hash)
    assert relay_session(world.r.records, terms_hash).session.cid == enough


def test_a_relay_counts_only_payments_that_follow_and_prove_themselves(world: World) -> None:
    terms_hash = world.session(15)
    chain = chain_of(world, terms_hash)

    def paid(k: int, hc: bytes, path: tuple[bytes, ...]) -> int:
        return world.r.machine.on_payment(
            world.r.records, world.moment(), terms_hash, m.NanoPayment(k, hc, path)).k

    for k, hc, path in ((15, chain.value(15), ()), (17, chain.value(17), ()),
                        (17, chain.value(16), ()), (15, chain.value(16), ()),
                        (16, chain.value(17), chain.path(16)), (16, chain.value(16), ()),
                        (16, chain.value(16), chain.path(32)), (16, b"\x00" * 32, chain.path(16))):
        with pytest.raises(ProtocolError):
            paid(k, hc, path)
    assert paid(16, chain.value(16), chain.path(16)) == 16
    for k in range(17, DEMO.n + 1):
        paid(k, chain.value(k), chain.path(k) if k % 16 == 0 else ())
    with pytest.raises(ProtocolError):
        paid(DEMO.n + 1, chain.value(DEMO.n), chain.path(DEMO.n))


@pytest.mark.parametrize(("before", "accepted"), [(2 * MU + 1, True), (2 * MU, False)])
def test_payments_end_two_margins_before_expiry(
        world: World, before: int, accepted: bool) -> None:
    terms_hash = world.session(1)
    chain = chain_of(world, terms_hash)
    world.jump(relay_session(world.r.records, terms_hash).session.terms.t_exp - before)
    message = m.NanoPayment(2, chain.value(2), ())
    if accepted:
        world.r.machine.on_payment(world.r.records, world.moment(), terms_hash, message)
    else:
        with pytest.raises(ProtocolError, match="near"):
            world.r.machine.on_payment(world.r.records, world.moment(), terms_hash, message)
        with pytest.raises(ProtocolError, match="near"):
            world.pay(terms_hash)


def test_a_token_that_the_ledger_would_refuse_is_not_accepted(world: World) -> None:
    """The client keeps its old secret when nrt or rt' does not verify."""
    cid = world.c.cids()[0]
    terms_hash = world.start_setup(cid)
    request = world.stop_before(m.NanoSetupRequest, world.c)
    reply = answered(world.ask(request))
    bad = reply.nrt[:64] + bytes([reply.nrt[64] ^ 3])
    for nrt in (bad, bytes(65), reply.nrt[::-1]):
        with pytest.raises(ProtocolError, match="nrt"):
            world.c.machine.on_reply(world.c.records.copy(), world.moment(),
                                     nano_setup.conversation(terms_hash),
                                     *m.pack(m.NanoRefundReply(nrt)))
    world.retry()
    world.establish(terms_hash)
    world.close_relay(terms_hash)
    world.act(world.c, lambda records, moment: world.c.machine.nano_close(records, terms_hash))
    request = world.stop_before(m.ClientCloseRequest, world.c)
    reply = answered(world.ask(request))
    for rt in (bytes(192), reply.rt[96:] + reply.rt[:96], bytes([reply.rt[0] ^ 1]) + reply.rt[1:]):
        with pytest.raises(ProtocolError):
            world.c.machine.on_reply(world.c.records.copy(), world.moment(),
                                     nano_setup.conversation(terms_hash),
                                     *m.pack(m.RefundTokenReply(rt)))
    assert client_session(world.c.records, terms_hash).phase is ClientPhase.CLOSING
