# SPDX-License-Identifier: BSD-3-Clause
"""A party that burnt and comes back from a backup, old or not: real machines, the real ledger.

Each test that must not lose money has its counterpart in which the same backup is put back without
being marked as one, which is what happens without these rules.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from monetor_chain.parameters import DEMO
from offchain.protocol import (
    establish,
    guard,
    ledger as calls,
    messages as m,
    old_locks,
    restored,
    wallet as wallets,
)
from offchain.protocol.errors import ProtocolError, RefusalCode
from offchain.protocol.old_locks import Fate
from offchain.protocol.outbox import Done, Request
from offchain.protocol.records import Table
from offchain.protocol.restored import Verdict
from offchain.protocol.wallet import (
    Idle,
    Posted,
    Recalled,
    Settled,
    Stale,
    live_claim,
)
from offchain.protocol.watch_packages import (
    FOR_EVER,
    PackageKind,
    answers_until,
    export_kept,
    next_counter,
)
from tests.protocol.test_watching import answered, answers, hand, package, watcher
from tests.protocol.world import CLIENT_DEPOSIT, DELTA_R, MU, PRICE, Node, World

CLAIMS = (calls.Refund, calls.RefundConditional, calls.NanoRefund)


def put_back(world: World, node: Node, backup: Node, *, marked: bool = True) -> None:
    """The node's disk is as it was in the backup; it comes up and reads the ledger from there."""
    world.wire.clear()
    node.records = backup.records.copy()
    node.requests, node.submissions = dict(backup.requests), dict(backup.submissions)
    node.heard, node.refusals = {}, []
    if marked:
        channels = restored.mark(node.records, world.now)
        world.act(node, lambda records, moment: restored.close_guards(records, channels))
    world.restart(node)
    world.run()


def spy(world: World, node: Node) -> list[Any]:
    """Everything that the node submits from now on."""
    posted: list[Any] = []
    before = world.fault

    def watch(parcel: Any) -> Any:
        if parcel.kind == "submit" and parcel.source == node.name:
            posted.append(parcel.item.call)
        return before(parcel)

    world.fault = watch
    return posted


def claims(posted: list[Any]) -> list[Any]:
    return [one for one in posted if isinstance(one, CLAIMS)]


def standing(node: Node, cid: int) -> Verdict:
    return next(one.verdict for one in restored.standings(node.records) if one.cid == cid)


def refuted(world: World, node: Node) -> bool:
    return any(one.what == "channel-refuted" for one in node.notes)


def leave(world: World, node: Node) -> None:
    """What somebody does who wants out: cash out what can be, post what can be, and wait."""
    for group in {cid >> 8 for cid in node.cids()}:
        with suppress(ProtocolError):
            world.cash_out(node, group)
    for cid in node.cids():
        world.act(node, lambda records, moment, cid=cid: node.machine.post_claim(records, cid))
    world.run()
    world.travel(world.now + DEMO.dispute_window + 6 * MU)


# --- An idle wallet ------------------------------------------------------------------------------


@pytest.mark.parametrize("marked", [True, False])
def test_a_wallet_that_was_spent_since_is_neither_posted_nor_spent(
        world: World, marked: bool) -> None:
    cid, other = world.c.cids()
    backup = world.c.copy()
    before = world.stake(world.c)
    terms_hash = world.session(5, cid)
    world.close(terms_hash)
    put_back(world, world.c, backup, marked=marked)
    posted = spy(world, world.c)
    if marked:
        assert isinstance(world.c.wallet(cid), Recalled)
        world.tick()
        world.run()
        assert isinstance(world.c.wallet(cid), Stale), "the nonce is spent"
        assert standing(world.c, cid) is Verdict.STALE
        assert standing(world.c, other) is Verdict.USABLE
        with pytest.raises(ProtocolError):
            world.start_setup(cid)
        leave(world, world.c)
        assert not claims(posted) and not refuted(world, world.c)
        assert isinstance(world.c.wallet(other), Settled)
        assert world.wealth(world.c) >= before - CLIENT_DEPOSIT, "the other channel is whole"
    else:
        world.act(world.c, lambda records, moment: world.c.machine.post_claim(records, cid))
        world.run()
        assert claims(posted) and refuted(world, world.c), "it forfeits the channel"


def test_nothing_is_spent_or_posted_before_the_intermediary_was_asked(world: World) -> None:
    cid = world.c.cids()[0]
    backup = world.c.copy()
    world.i.alive = False
    put_back(world, world.c, backup)
    posted = spy(world, world.c)
    with pytest.raises(ProtocolError):
        world.start_setup(cid)
    with pytest.raises(ProtocolError):
        world.cash_out(world.c, cid >> 8)
    world.travel(world.now + DEMO.dispute_window + 10 * MU)
    assert not claims(posted), "a silent intermediary is no reason to post what may be revoked"
    world.i.alive = True
    world.travel(world.now + 2 * MU)
    assert isinstance(world.c.wallet(cid), Idle), "it is asked until it answers"


def test_a_current_backup_goes_on_as_if_nothing_had_happened(world: World) -> None:
    cid = world.c.cids()[0]
    backup = world.c.copy()
    before = world.stake(world.c)
    put_back(world, world.c, backup)
    world.tick()
    world.run()
    assert {standing(world.c, one) for one in world.c.cids()} == {Verdict.USABLE}
    terms_hash = world.session(3, cid)
    world.close(terms_hash)
    assert standing(world.c, cid) is Verdict.RENEWED
    leave(world, world.c)
    assert world.wealth(world.c) == before - 3 * PRICE
    assert world.conserved()


def test_asking_marks_nothing_and_names_no_channel(world: World) -> None:
    cid = world.c.cids()[0]
    idle = world.c.wallet(cid)
    put_back(world, world.c, world.c.copy())
    disk = world.i.records.copy()
    world.log.clear()
    world.tick()
    world.run()
    asked = [one for one in world.log if one.target == "I" and one.pcmd == m.NanoSetupRequest.PCMD]
    assert len(asked) == len(world.c.cids())
    assert any(idle.nonce.to_bytes(31, "big") in one.payload for one in asked)
    for one in asked:
        for secret in (cid.to_bytes(31, "big"), (cid >> 8).to_bytes(30, "big"),
                       idle.wpk.to_bytes(31, "big"), idle.pt[:96], idle.pt[96:]):
            assert secret not in one.payload
    assert list(world.i.records.scan(Table.NONCE)) == list(disk.scan(Table.NONCE))
    assert list(world.i.records.scan(Table.ANSWER)) == list(disk.scan(Table.ANSWER))
    assert list(world.i.records.scan(Table.LOCK)) == list(disk.scan(Table.LOCK))


def test_an_intermediary_that_calls_a_spent_wallet_unspent_gains_nothing(world: World) -> None:
    """Its word decides what is spent, and spending gives a claim on a fresh lock, or nothing."""
    cid = world.c.cids()[0]
    backup = world.c.copy()
    world.close(world.session(5, cid))
    put_back(world, world.c, backup)
    posted = spy(world, world.c)
    idle = world.c.wallet(cid).idle
    old_locks.set_fate(world.c.records, idle.wpk, cid, Fate.UNSPENT)
    world.act(world.c, lambda records, moment: restored.on_word(records, cid, m.Refusal(
        RefusalCode.TERMS, m.NanoSetupRequest.PCMD)))
    assert isinstance(world.c.wallet(cid), Idle)
    world.act(world.c, lambda records, moment: world.c.machine.post_claim(records, cid))
    world.run()
    assert not claims(posted)
    world.setup(cid)
    assert isinstance(world.c.wallet(cid), Stale), "the setup shows that it was a lie"
    assert not claims(posted)


# --- In the middle of something ------------------------------------------------------------------


def backups_of_a_session(world: World, cid: int) -> list[Node]:
    """The client's disk after each of its steps, from before a session until after its close."""
    copies = [world.c.copy()]
    act = world.act

    def record(node: Node, action: Any) -> Any:
        found = act(node, action)
        if node is world.c and node.records is not copies[-1].records:
            copies.append(world.c.copy())
        return found

    world.act = record  # type: ignore[method-assign]
    try:
        terms_hash = world.session(3, cid)
        world.close(terms_hash)
    finally:
        world.act = act  # type: ignore[method-assign]
    return copies


def test_every_backup_of_a_session_can_be_put_back_right_after_it(world: World) -> None:
    """As if nothing but the last moment was lost: the session is closed at what was paid."""
    cid = world.c.cids()[0]
    saved = world.save()
    count = len(backups_of_a_session(world, cid))
    for number in range(count):
        world.load(saved)
        before = world.stake(world.c)
        stopped = stop_after(world, cid, number)
        put_back(world, world.c, stopped)
        posted = spy(world, world.c)
        world.travel(world.now + 2 * MU)
        for session in world.r.machine.active_sessions(world.r.records):
            world.close_relay(session)
        for session in world.c.machine.open_sessions(world.c.records):
            world.close_client(session)
        world.travel(world.now + 4 * MU)
        leave(world, world.c)
        assert not claims(posted) or not refuted(world, world.c)
        assert all(isinstance(world.c.wallet(one), Settled) for one in world.c.cids()), (
            number, [type(world.c.wallet(one)).__name__ for one in world.c.cids()])
        assert world.wealth(world.c) >= before - 3 * PRICE
    world.load(saved)


class Enough(Exception):
    """The client has made as many steps as were wanted."""


def stop_after(world: World, cid: int, steps: int) -> Node:
    """Play the session until the client has made so many steps; its disk then."""
    act, left = world.act, [steps]

    def count(node: Node, action: Any) -> Any:
        if node is world.c:
            if not left[0]:
                raise Enough
            left[0] -= 1
        return act(node, action)

    world.act = count  # type: ignore[method-assign]
    try:
        terms_hash = world.session(3, cid)
        world.close(terms_hash)
    except Enough:
        pass
    finally:
        world.act = act  # type: ignore[method-assign]
    return world.c.copy()


@pytest.mark.long
def test_no_backup_of_a_session_forfeits_anything_after_two_more(world: World) -> None:
    check_backups_after_two_more(world, every=1)


def test_some_backups_of_a_session_forfeit_nothing_after_two_more(world: World) -> None:
    check_backups_after_two_more(world, every=4)


def check_backups_after_two_more(world: World, every: int) -> None:
    cid = world.c.cids()[0]
    copies = backups_of_a_session(world, cid)
    for _ in range(2):
        world.close(world.session(2, cid))
    # Out of an unfinished session the intermediary learns nothing more: it is the channel's past.
    saved = world.save()
    stale = 0
    for backup in copies[::every]:
        world.load(saved)
        put_back(world, world.c, backup)
        posted = spy(world, world.c)
        world.travel(world.now + 2 * MU)
        for session in world.c.machine.open_sessions(world.c.records):
            world.close_client(session)
        world.travel(world.now + 4 * MU)
        leave(world, world.c)
        assert not claims(posted) and not refuted(world, world.c)
        stale += isinstance(world.c.wallet(cid), Stale)
        assert isinstance(world.c.wallet(world.c.cids()[1]), Settled)
    assert stale == len(copies[::every]), "each of them is older than the channel's newest state"
    world.load(saved)


def test_a_session_that_paid_on_is_closed_at_what_its_preimages_prove(world: World) -> None:
    cid = world.c.cids()[0]
    terms_hash = world.session(2, cid)
    backup = world.c.copy()
    before = world.c.wallet(cid)
    world.pay(terms_hash, 5)
    world.close_relay(terms_hash)
    put_back(world, world.c, backup)
    with pytest.raises(ProtocolError, match="backup"):
        world.pay(terms_hash)
    world.close_client(terms_hash)
    assert type(world.c.wallet(cid)) is not type(before)
    assert world.c.balance(cid) == CLIENT_DEPOSIT - 7 * PRICE


def test_a_session_that_was_only_set_up_is_not_offered_again(world: World) -> None:
    terms_hash = world.setup()
    put_back(world, world.c, world.c.copy())
    with pytest.raises(ProtocolError, match="backup"):
        world.offer(terms_hash)


@pytest.mark.parametrize("code", [RefusalCode.REUSED, RefusalCode.STATE, RefusalCode.LOCK])
def test_a_refused_cash_out_does_not_condemn_the_wallets_that_are_unspent(
        world: World, code: RefusalCode) -> None:
    first, second = world.c.cids()
    put_back(world, world.c, world.c.copy())
    world.tick()
    world.run()
    assert isinstance(world.c.wallet(first), Idle) and isinstance(world.c.wallet(second), Idle)
    group = first >> 8
    world.act(world.c, lambda records, moment: world.c.machine.cash_out(records, group))
    world.wire.clear()
    world.act(world.c, lambda records, moment: world.c.machine.on_reply(
        records, moment, b"cash-out:" + group.to_bytes(31, "big"),
        *m.pack(m.Refusal(code, m.CashOutRequest.PCMD)), m.CashOutRequest.PCMD))
    assert not claims([one.call for one in world.c.submissions.values()])
    assert isinstance(world.c.wallet(first), Recalled)
    world.tick()
    world.run()
    assert isinstance(world.c.wallet(first), Idle), "the intermediary calls it unspent still"
    world.cash_out(world.c, group)
    assert isinstance(world.c.wallet(second), Settled)


def test_a_relay_takes_up_no_session_on_a_channel_whose_close_waits(world: World) -> None:
    put_back(world, world.r, world.r.copy())
    world.tick()
    world.run()
    chosen = world.r.machine.idle_channel(world.r.records)
    assert chosen is not None and isinstance(world.r.wallet(chosen), Idle)
    wallets.put_notice(world.r.records, chosen, wallets.CloseNotice(world.now + 1_000))
    other = world.r.machine.idle_channel(world.r.records)
    assert other not in (chosen, None), "the other channel is free"
    world.establish(world.setup())


# --- An opening ----------------------------------------------------------------------------------


def test_an_opening_out_of_a_backup_waits_for_its_first_reply(world: World) -> None:
    known = set(world.c.cids())
    world.act(world.c, lambda records, moment: world.c.machine.open_group(
        records, moment, deposit=5_000, fund=0, count=1))
    world.stop_before(m.EstablishRequest, world.c)
    backup = world.c.copy()
    world.retry()
    (cid,) = set(world.c.cids()) - known
    assert isinstance(world.c.wallet(cid), Idle), "it was opened after the backup"
    world.act(world.i, lambda records, moment: world.i.machine.retire(records) or [])
    world.fault = lambda parcel: () if parcel.kind == "request" else (parcel,)
    put_back(world, world.c, backup)
    conversation = establish.opening_conversation(cid)
    world.act(world.c, lambda records, moment: world.c.machine.give_up(
        records, moment, conversation))
    assert conversation in world.c.requests, "nothing else leads to the channel's claim"
    world.fault = lambda parcel: (parcel,)
    world.retry()
    assert live_claim(world.c.records, world.c.wallet(cid)) is not None


# --- A relay -------------------------------------------------------------------------------------


@pytest.mark.parametrize("marked", [True, False])
def test_a_relay_gets_what_its_watcher_has_put_on_the_ledger(world: World, marked: bool) -> None:
    before = world.stake(world.r)
    terms_hash = world.session(4)
    backup = world.r.copy()
    world.pay(terms_hash, 40)
    proof = world.r.records.get(Table.PAYMENT, terms_hash)
    session = world.r.records.get(Table.SESSION, terms_hash).session
    put_back(world, world.r, backup, marked=marked)
    world.close_relay(terms_hash)
    world.travel(session.terms.t_exp - MU)
    world.transact(world.e, calls.Reveal(session.terms, proof.k, proof.hc, proof.path))
    world.travel(session.terms.t_exp + 3 * MU)
    leave(world, world.r)
    received = 44 if marked else 4
    assert world.wealth(world.r) == before + received * DELTA_R


def test_a_relay_from_an_old_backup_forfeits_nothing(world: World) -> None:
    backup = world.r.copy()
    terms_hash = world.session(4)
    world.close(terms_hash)
    cid = world.r.records.get(Table.SESSION, terms_hash).session.cid
    put_back(world, world.r, backup)
    posted = spy(world, world.r)
    world.tick()
    world.run()
    leave(world, world.r)
    assert isinstance(world.r.wallet(cid), Stale)
    assert not claims(posted) and not refuted(world, world.r)


# --- A close that is asked for -------------------------------------------------------------------


def test_a_held_claim_is_posted_at_last_when_its_close_is_asked_for(world: World) -> None:
    """Silence would forfeit the channel too: nothing is left to lose."""
    cid = world.c.cids()[0]
    put_back(world, world.c, world.c.copy())
    posted = spy(world, world.c)
    assert world.transact(world.i, calls.RequestClose(cid))
    world.i.alive = False
    asked = world.now
    world.travel(asked + DEMO.close_notice - 4 * MU)
    assert not claims(posted)
    world.travel(asked + DEMO.close_notice - MU)
    assert len(claims(posted)) == 1 and isinstance(world.c.wallet(cid), Posted)
    world.travel(world.now + DEMO.dispute_window + 4 * MU)
    assert world.c.wallet(cid) == Settled(cid, CLIENT_DEPOSIT)


# --- Direct channels -----------------------------------------------------------------------------


def test_a_direct_channel_is_paid_on_no_more(world: World) -> None:
    payout = bytes.fromhex(world.r.party.address[2:])
    world.act(world.r, lambda records, moment: world.r.machine.name_payout(
        records, b"\x01" * 32, payout, b"\x02" * 32))
    world.act(world.c, lambda records, moment: world.c.machine.open_guard(
        records, 30_000, m.GuardPayout(payout)))
    world.run()
    (channel,) = [key for key, one in world.c.records.scan(Table.GUARD)
                  if isinstance(one, guard.PaidGuard)]
    world.c.records.put(Table.GUARD, channel, replace(
        guard.paid_guard(world.c.records, channel), accepted=True))
    assert guard.guard_left(world.c.records, world.moment(), channel) > 0
    world.fault = lambda parcel: () if parcel.kind == "submit" else (parcel,)
    put_back(world, world.c, world.c.copy())
    assert guard.guard_left(world.c.records, world.moment(), channel) == 0, "at once"
    world.fault = lambda parcel: (parcel,)
    world.crash(world.c)
    world.run()
    assert guard.paid_guard(world.c.records, channel).closing_at, "its rest is asked for"


# --- The intermediary ----------------------------------------------------------------------------


def test_a_restored_intermediary_answers_nothing_and_still_settles(world: World) -> None:
    cid = world.c.cids()[0]
    terms_hash = world.session(3, cid)
    old = world.c.copy()
    world.close(terms_hash)
    old_locks.set_restored(world.i.records, world.now)
    world.c.hoard = {}
    disk = world.i.records.copy()
    reply = world.ask(m.PayQuery())
    assert isinstance(reply, m.Refusal) and reply.code is RefusalCode.STATE
    opening = world.c.machine.open_group(world.c.records.copy(), world.moment(), deposit=1_000,
                                         fund=0, count=1)
    (request,) = [one for one in opening if isinstance(one, Request)]
    assert isinstance(m.unpack(*world.request(request.pcmd, request.payload)), m.Refusal)
    assert list(world.i.records.scan(Table.ANSWER)) == list(disk.scan(Table.ANSWER))
    put_back(world, world.c, old, marked=False)
    world.act(world.c, lambda records, moment: world.c.machine.post_claim(records, cid))
    world.run()
    assert refuted(world, world.c), "a revoked claim is refuted with the secrets that it has"


def test_a_question_that_is_not_answered_stays(world: World) -> None:
    put_back(world, world.c, world.c.copy())
    cid = world.c.cids()[0]
    word = m.pack(m.Refusal(RefusalCode.STATE, m.NanoSetupRequest.PCMD))
    outbox = world.c.machine.on_reply(
        world.c.records, world.moment(), restored.conversation(cid), *word,
        m.NanoSetupRequest.PCMD)
    assert not [one for one in outbox if isinstance(one, Done)]
    assert isinstance(world.c.wallet(cid), Recalled)


# --- A watcher -----------------------------------------------------------------------------------


def test_a_watcher_keeps_the_newest_answer_of_a_stale_channel(world: World) -> None:
    """It was told of every step before the step left: it knows what the backup does not."""
    cid, other = world.c.cids()
    parties = set(world.nodes)
    one = watcher(world)
    hand(world, one, answered(world, world.c))
    next_counter(world.c.records, PackageKind.ANSWERS, answers(world, world.c))
    backup = world.c.copy()
    world.close(world.session(5, cid))
    newest = answered(world, world.c)
    hand(world, one, newest)
    put_back(world, world.c, backup)
    world.tick()
    world.run()
    assert isinstance(world.c.wallet(cid), Stale)
    entries = [*answers(world, world.c), *export_kept(world.c.records)]
    assert all(one.cid != cid for one in entries if isinstance(one, calls.Authorised))
    assert answers_until(world.c.records) == FOR_EVER, "it has to be told of what follows"
    hand(world, one, package(world, world.c, PackageKind.ANSWERS, entries))
    with pytest.raises(ProtocolError, match="superseded"):
        hand(world, one, newest)
    assert world.transact(world.i, calls.RequestClose(cid))
    world.c.alive = False
    world.travel(world.now + DEMO.close_notice + DEMO.dispute_window + 4 * MU)
    assert int(world.stage.ledger.functions.channel(cid).call()[0]) == 6, "resolved"
    credit = world.stage.ledger.functions.credit(world.c.party.address).call()
    assert credit == CLIENT_DEPOSIT - 5 * PRICE + DEMO.close_bond
    for name in set(world.nodes) - parties:
        del world.nodes[name]
