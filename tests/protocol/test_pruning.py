# SPDX-License-Identifier: BSD-3-Clause
"""What an intermediary and its watcher forget, and that nothing spent or revoked comes to life."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from monetor_chain.parameters import DEMO
from monetor_chain.statements import lock_of
from offchain.protocol import (
    ledger as calls,
    messages as m,
    old_locks,
    pruning,
    wallet as wallets,
)
from offchain.protocol.answering import Lock, lock_state
from offchain.protocol.errors import RefusalCode
from offchain.protocol.establish import find_group
from offchain.protocol.outbox import Request
from offchain.protocol.records import Records, Table, dump
from offchain.protocol.wallet import Settled
from offchain.protocol.watch_packages import (
    PackageKind,
    Revoked,
    export_disputes,
    next_counter,
    seal,
)
from offchain.protocol.watching import KnownSecret, WatcherMachine
from tests.protocol.world import CLIENT_DEPOSIT, MU, PRICE, Node, World


def size(records: Records, tables: Iterable[Table] = tuple(Table)) -> int:
    """Bytes of keys and records."""
    return sum(len(key) + len(dump(one)[1]) for table in tables for key, one in records.scan(table))


def rows(records: Records, table: Table, prefix: bytes = b"") -> int:
    return sum(1 for key, _ in records.scan(table) if key.startswith(prefix))


def long_after(world: World, t_exp: int) -> None:
    world.travel(t_exp + DEMO.close_notice + 4 * MU, tick=4 * MU)


def code(reply: Any) -> RefusalCode:
    assert isinstance(reply, m.Refusal), reply
    return RefusalCode(reply.code)


def closed_session(world: World, cid: int) -> tuple[bytes, int, list[Any]]:
    """hash(nT), T_exp, and every request that the intermediary was sent for it."""
    world.log.clear()
    terms_hash = world.session(3, cid)
    t_exp = world.c.records.get(Table.SESSION, terms_hash).session.terms.t_exp
    world.close(terms_hash)
    return terms_hash, t_exp, [one for one in world.log if one.target == "I"]


# --- Sessions ------------------------------------------------------------------------------------


def test_a_session_that_is_over_is_forgotten_and_its_wallets_stay_spent(world: World) -> None:
    cid = world.c.cids()[0]
    before = size(world.i.records)
    terms_hash, t_exp, asked = closed_session(world, cid)
    at_close = size(world.i.records)
    long_after(world, t_exp)
    left = size(world.i.records) - before
    assert world.i.records.get(Table.SESSION, terms_hash) is None
    assert rows(world.i.records, Table.ANSWER, b"setup-reveal:") == 0
    assert at_close - before < 3_500 and left < 750, "bytes; docs/operations.md says so"
    for lock in [key for key, one in world.i.records.scan(Table.LOCK)]:
        world.i.records.delete(Table.LOCK, lock)
    for key in [key for key, _ in world.i.records.scan(Table.CHANNEL, b"revoked:", b"revoked;")]:
        world.i.records.delete(Table.CHANNEL, key)
    assert size(world.i.records) - before < 220
    for one in asked:
        reply = m.unpack(*world.request(one.pcmd, one.payload))
        assert code(reply) in (RefusalCode.REUSED, RefusalCode.UNKNOWN), m.MESSAGES[one.pcmd]
    spent = [one for one in asked
             if one.pcmd in (m.NanoSetupRequest.PCMD, m.NanoEstablishRequest.PCMD)]
    assert len(spent) == 2
    assert code(m.unpack(*world.request(spent[0].pcmd, spent[0].payload))) is RefusalCode.REUSED


def test_a_lock_of_an_open_channel_is_never_forgotten(world: World) -> None:
    """The session is long forgotten; its nrt, posted now, is refuted all the same."""
    cid = world.c.cids()[0]
    world.c.hoard = {}
    terms_hash, t_exp, _ = closed_session(world, cid)
    (old,) = {one.nwpk: one for one in world.c.hoard.values()
              if isinstance(one, calls.NanoRefund)}.values()
    group = world.c.cids()[0] >> 8
    # Another group, opened before as well, is paid out meanwhile: it says nothing of this one.
    world.cash_out(world.r, world.r.cids()[0] >> 8)
    long_after(world, t_exp)
    assert world.i.records.get(Table.SESSION, terms_hash) is None
    assert lock_state(world.i.records, old.nwpk).revoked
    assert world.transact(world.c, old)
    world.run()
    assert world.c.wallet(cid) == Settled(cid, 0), "refuted"
    assert group == cid >> 8


def test_a_session_whose_relay_never_closed_is_kept(world: World) -> None:
    terms_hash = world.session(3)
    t_exp = world.c.records.get(Table.SESSION, terms_hash).session.terms.t_exp
    world.r.alive = False
    long_after(world, t_exp)
    assert world.i.records.get(Table.SESSION, terms_hash) is not None


# --- Groups --------------------------------------------------------------------------------------


def test_a_resolved_group_signs_no_token_again(world: World) -> None:
    world.log.clear()
    cids = world.open(world.c, deposit=1_000, fund=0, count=2)
    opening = [one for one in world.log if one.target == "I"]
    world.cash_out(world.c, cids[0] >> 8)
    assert all(isinstance(world.c.wallet(cid), Settled) for cid in cids)
    assert rows(world.i.records, Table.ANSWER, b"establish:" + cids[0].to_bytes(31, "big")) == 0
    assert rows(world.i.records, Table.ANSWER, b"cash-out:") == 0
    for one in opening:
        if one.pcmd == m.GroupRequest.PCMD:
            continue
        reply = m.unpack(*world.request(one.pcmd, one.payload))
        assert code(reply) is RefusalCode.UNKNOWN, "a token of a dead channel would be money"


def test_a_wallet_of_a_channel_that_was_posted_stays_dead(world: World) -> None:
    """Its nonce was never spent: only the posted lock says that its money has left."""
    (cid,) = world.open(world.c, deposit=CLIENT_DEPOSIT, fund=0, count=1)
    idle = world.c.wallet(cid)
    world.settle(cid)
    world.log.clear()
    long_after(world, world.now)
    world.c.records.put(Table.WALLET, cid.to_bytes(31, "big"), idle)
    terms_hash = world.setup(cid)
    assert RefusalCode.LOCK in world.c.refusals
    reveal = next(one for one in world.log if one.pcmd == m.NanoSetupReveal.PCMD)
    world.block()
    everybody_leaves(world)
    assert rows(world.i.records, Table.CHANNEL, b"revoked:") == 0, "the horizon has passed it"
    assert code(m.unpack(*world.request(reveal.pcmd, reveal.payload))) is RefusalCode.LOCK
    assert world.i.records.get(Table.SESSION, terms_hash).phase.name == "SETTING_UP"


def test_an_agreed_group_that_nobody_opens_is_forgotten(world: World) -> None:
    records, node = world.c.records.copy(), world.c
    (request,) = [one for one in node.machine.open_group(
        records, world.moment(), deposit=1_000, fund=0, count=1) if isinstance(one, Request)]
    before = size(world.i.records, (Table.GROUP, Table.ANSWER))
    world.request(request.pcmd, request.payload)
    assert size(world.i.records, (Table.GROUP, Table.ANSWER)) > before
    long_after(world, world.now)
    assert size(world.i.records, (Table.GROUP, Table.ANSWER)) == before


# --- Hidden payments -----------------------------------------------------------------------------


def test_a_finished_payment_is_forgotten_and_its_wallets_stay_spent(world: World) -> None:
    world.log.clear()
    base = size(world.i.records, (Table.NONCE, Table.ANSWER))
    world.transfer(500)
    legs = [one for one in world.log if one.target == "I"
            and one.pcmd in (m.PayerRequest.PCMD, m.PayeeRequest.PCMD)]
    before = size(world.i.records, (Table.NONCE, Table.ANSWER))
    long_after(world, world.now + DEMO.dispute_window)
    left = size(world.i.records, (Table.NONCE, Table.ANSWER)) - base
    assert left < (before - base) / 10
    for one in legs:
        lock = m.unpack(one.pcmd, one.payload).wpk.to_bytes(31, "big")
        world.i.records.delete(Table.LOCK, lock)  # as when every channel of then is paid out
        reply = m.unpack(*world.request(one.pcmd, one.payload))
        assert code(reply) is RefusalCode.REUSED


def test_a_leg_without_a_partner_is_forgotten(world: World) -> None:
    world.fault = lambda parcel: () if parcel.kind == "tell" else (parcel,)
    world.invoice(500, world.c.cids()[0], world.e.cids()[0])
    world.run()
    assert rows(world.i.records, Table.CHANNEL, b"pay:") == 1
    world.travel(world.now + DEMO.dispute_window + 3 * MU)
    assert rows(world.i.records, Table.CHANNEL, b"pay:") == 0


# --- Locks ---------------------------------------------------------------------------------------


def everybody_leaves(world: World) -> None:
    for node in (world.c, world.r, world.e):
        for group in sorted({cid >> 8 for cid in node.cids()
                             if isinstance(node.wallet(cid), wallets.Idle)}):
            world.cash_out(node, group)


def revoked(world: World) -> int:
    return sum(one.revoked for _, one in world.i.records.scan(Table.LOCK) if isinstance(one, Lock))


def test_revoked_locks_go_with_the_last_channel_that_was_open_then(world: World) -> None:
    first = world.c.cids()[0]
    closed_session(world, first)
    world.block()
    (young,) = world.open(world.c, deposit=CLIENT_DEPOSIT, fund=0, count=1)
    old = revoked(world)
    assert old == 4, "both wallets, both sessions"
    world.block()
    closed_session(world, young)
    world.block()
    assert revoked(world) == 8
    world.cash_out(world.c, first >> 8)
    assert revoked(world) == 8, "the relay's and the payee's channels are as old"
    for node in (world.e, world.r):
        world.cash_out(node, node.cids()[0] >> 8)
    assert revoked(world) == 4, "those of the young channel's time"
    world.cash_out(world.c, young >> 8)
    world.block()
    assert revoked(world) <= 4


def test_an_intermediary_out_of_a_backup_calls_no_lock_forgettable(world: World) -> None:
    closed_session(world, world.c.cids()[0])
    known = revoked(world)
    old_locks.set_restored(world.i.records, world.now)
    everybody_leaves(world)
    world.travel(world.now + DEMO.dispute_window + 6 * MU)
    assert all(isinstance(one, Settled) for node in (world.c, world.e, world.r)
               for one in wallets.all_wallets(node.records))
    assert revoked(world) == known, "of channels opened after the backup it has not heard"
    assert world.i.records.get(Table.META, pruning.HORIZON) is None


def test_an_intermediary_out_of_an_old_backup_still_defends_a_group(world: World) -> None:
    world.act(world.c, lambda records, moment: world.c.machine.open_group(
        records, moment, deposit=1_000, fund=0, count=1))
    world.stop_before(m.EstablishRequest, world.c)
    backup = world.i.copy()
    world.retry()
    group = max(cid >> 8 for cid in world.c.cids() if isinstance(world.c.wallet(cid), wallets.Idle)
                and world.c.wallet(cid).balance == 1_000)
    world.i.records = backup.records.copy()
    old_locks.set_restored(world.i.records, world.now)
    later = world.now + DEMO.close_notice + MU
    world.act(world.i, lambda records, moment: world.i.machine.tick(
        records, replace(moment, now=later)))
    assert find_group(world.i.records, group) is not None, "the ledger was not read yet"


# --- The end of a key ----------------------------------------------------------------------------


def test_a_retiring_key_serves_its_channels_and_opens_none(world: World) -> None:
    before = world.stake(world.c)
    world.act(world.i, lambda records, moment: world.i.machine.retire(records) or [])
    assert world.open(world.c, deposit=1_000, fund=0, count=1) == []
    assert RefusalCode.STATE in world.c.refusals
    cid = world.c.cids()[0]
    closed_session(world, cid)
    assert world.c.balance(cid) == CLIENT_DEPOSIT - 3 * PRICE
    assert not pruning.is_finished(world.i.records)
    everybody_leaves(world)
    assert pruning.is_finished(world.i.records)
    assert "key-finished" in [one.what for one in world.i.notes]
    assert world.wealth(world.c) == before - 3 * PRICE and world.conserved()


def test_a_finished_key_forgets_everything_but_that_it_is(world: World) -> None:
    closed_session(world, world.c.cids()[0])
    world.act(world.i, lambda records, moment: world.i.machine.retire(records) or [])
    everybody_leaves(world)
    before = size(world.i.records)
    world.act(world.i, lambda records, moment: pruning.forget_all(records) and [])
    assert size(world.i.records) < before / 20
    assert pruning.is_finished(world.i.records)
    (request,) = [one for one in world.c.machine.open_group(
        world.c.records.copy(), world.moment(), deposit=1_000, fund=0, count=1)
        if isinstance(one, Request)]
    assert code(m.unpack(*world.request(request.pcmd, request.payload))) is RefusalCode.STATE


def test_a_group_that_was_agreed_on_before_is_not_funded_by_a_retiring_key(world: World) -> None:
    world.act(world.c, lambda records, moment: world.c.machine.open_group(
        records, moment, deposit=1_000, fund=0, count=1))
    world.stop_before(m.EstablishRequest, world.c)
    submitted = list(world.c.requests.values())
    world.act(world.i, lambda records, moment: world.i.machine.retire(records) or [])
    reply = m.unpack(*world.request(submitted[0].pcmd, submitted[0].payload))
    assert code(reply) is RefusalCode.STATE, "nothing is escrowed for nothing"


def test_a_retiring_key_repeats_the_replies_of_an_opening(world: World) -> None:
    world.log.clear()
    world.open(world.c, deposit=1_000, fund=0, count=1)
    asked = [one for one in world.log if one.target == "I"]
    replies = [world.request(one.pcmd, one.payload) for one in asked]
    world.act(world.i, lambda records, moment: world.i.machine.retire(records) or [])
    assert [world.request(one.pcmd, one.payload) for one in asked] == replies, (
        "out of a backup they bring the channel's claim back")
    assert m.EstablishReply in [type(m.unpack(*one)) for one in replies]


# --- The watcher ---------------------------------------------------------------------------------


def test_a_watcher_forgets_what_its_intermediary_does(world: World) -> None:
    closed_session(world, world.c.cids()[0])
    world.block()
    parties = set(world.nodes)
    node: Node = world._add("W", WatcherMachine(world.domain), world.stage.party("watcher"))

    def hand(entries: list[Any], counter: int = 0) -> None:
        data = seal(PackageKind.DISPUTES, entries, domain=world.domain,
                    key=world.i.party.private_key, issued=world.now,
                    counter=counter or next_counter(world.i.records, PackageKind.DISPUTES))
        world.act(node, lambda records, moment: node.machine.take(records, moment, data))

    early = export_disputes(world.i.records)
    hand(early)
    assert rows(node.records, Table.LOCK) == 4 and rows(node.records, Table.GROUP) == 3
    assert rows(node.records, Table.SESSION) == 0, "a closed session needs no count"
    other = KnownSecret(b"\x05" * 32, 1, b"\x09" * 20)
    node.records.put(Table.LOCK, lock_of(other.secret).to_bytes(31, "big"), other)
    everybody_leaves(world)
    late = export_disputes(world.i.records)
    assert not [one for one in late if isinstance(one, Revoked)]
    hand(late)
    assert [one for _, one in node.records.scan(Table.LOCK)] == [other], "another intermediary's"
    assert rows(node.records, Table.GROUP) == 0
    hand([one for one in early if isinstance(one, Revoked)])
    assert rows(node.records, Table.LOCK) == 1, "a package that comes late brings nothing back"
    for name in set(world.nodes) - parties:
        del world.nodes[name]
