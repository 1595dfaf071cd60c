# SPDX-License-Identifier: BSD-3-Clause
"""A party is down and its watcher stands up for it on the real ledger; the watcher, and whoever
steals what it was given, cannot take anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from monetor_chain.parameters import DEMO
from monetor_chain.statements import lock_of
from offchain.agents.authorising import authoriser
from offchain.protocol import ledger as calls, wallet as wallets
from offchain.protocol.errors import ProtocolError
from offchain.protocol.records import Table
from offchain.protocol.sessions import client_session, relay_session
from offchain.protocol.wallet import InSession, Posted
from offchain.protocol.watch_packages import (
    RENEWAL_MARGINS,
    Authorised,
    Charged,
    PackageKind,
    Proof,
    Revoked,
    WatchedGroup,
    export_answers,
    export_disputes,
    export_proofs,
    next_counter,
    seal,
    unseal,
)
from offchain.protocol.watching import (
    ANSWER_MARGINS,
    WatcherMachine,
    answer_time,
    reveal_cost,
)
from tests.protocol.test_pay_rules import crt_held, take_secret
from tests.protocol.world import (
    CLIENT_DEPOSIT,
    DELTA_R,
    FEE,
    MU,
    PRICE,
    TICK,
    Node,
    World,
)

PAYMENTS = 20
CHEAP = 10**7
"""A gas price in wei at which twenty payments are worth their reveal."""
DEAR = 10**9
REQUESTED, CLOSING, RESOLVED = 1, (2, 3), 6


@pytest.fixture
def watched(world: World) -> Iterator[World]:
    parties = set(world.nodes)
    yield world
    for name in set(world.nodes) - parties:
        del world.nodes[name]


def watcher(world: World, name: str = "W", account: str = "watcher", gas: int = CHEAP) -> Node:
    """One more program that follows the ledger, with an account that owns no channel."""
    node = world._add(name, WatcherMachine(world.domain), world.stage.party(account))
    world.act(node, lambda records, moment: node.machine.on_gas_price(records, gas) or [])
    world.block()
    return node


def hand(world: World, to: Node, data: bytes) -> None:
    world.act(to, lambda records, moment: to.machine.take(records, moment, data))


def package(world: World, node: Node, kind: PackageKind, entries: Any = None) -> bytes:
    """What `node` hands over now."""
    if entries is None:
        entries = {
            PackageKind.DISPUTES: lambda: export_disputes(node.records),
            PackageKind.PROOFS: lambda: export_proofs(node.records),
            PackageKind.ANSWERS: lambda: answers(world, node),
        }[kind]()
    return seal(kind, entries, domain=world.domain, key=node.party.private_key,
                counter=next_counter(node.records, kind), issued=world.now)


def disputes(world: World) -> bytes:
    return package(world, world.i, PackageKind.DISPUTES)


def proofs(world: World) -> bytes:
    return package(world, world.r, PackageKind.PROOFS)


def answers(world: World, node: Node) -> list[Any]:
    return list(export_answers(
        node.records, node.machine.user_of, world.moment(),
        authoriser(node.party.private_key, world.domain), {}).values())


def answered(world: World, node: Node) -> bytes:
    return package(world, node, PackageKind.ANSWERS)


def status(world: World, cid: int) -> int:
    return int(world.stage.ledger.functions.channel(cid).call()[0])


def claims(world: World, terms_hash: bytes) -> list[int]:
    return list(world.stage.ledger.functions.claims(terms_hash).call())


def relay_cid(world: World, terms_hash: bytes) -> int:
    return relay_session(world.r.records, terms_hash).session.cid


def expiry(world: World, terms_hash: bytes) -> int:
    return client_session(world.c.records, terms_hash).session.terms.t_exp


def said(node: Node) -> list[str]:
    return [one.what for one in node.notes]


def down(world: World, *nodes: Node) -> None:
    for node in nodes:
        node.alive = False


def up(world: World, node: Node) -> None:
    node.alive = True
    world.follow(node)


def hoarding(world: World, node: Node, play: Callable[[], Any]) -> list[Any]:
    """Every claim that `node` could have posted while `play` went on."""
    node.hoard = {}
    world._collect(node)
    play()
    found = list(node.hoard.values())
    node.hoard = None
    return found


def request_close(world: World, *cids: int) -> int:
    """The intermediary asks; the notice's end."""
    for cid in cids:
        world.act(world.i, lambda records, moment, cid=cid: world.i.machine.request_close(
            records, cid))
    world.run()
    return int(world.stage.ledger.functions.channel(cids[0]).call()[1])


# --- The intermediary is down


@pytest.mark.parametrize("who", ["C", "R"])
def test_whatever_was_revoked_is_refuted_in_time(watched: World, who: str) -> None:
    world, node = watched, watched.nodes[who]
    w = watcher(world)
    floor = world.stake(world.i) + PAYMENTS * FEE
    held: dict[str, bytes] = {}

    def play() -> None:
        held["hash"] = world.session(PAYMENTS)
        world.close(held["hash"])

    old = hoarding(world, node, play)
    cid = world.c.cids()[0] if who == "C" else relay_cid(world, held["hash"])
    hand(world, w, disputes(world))
    down(world, world.i)
    live = wallets.claim(node.records, node.wallet(cid))
    assert live is not None
    tried = 0
    for call in [one for one in old if one.cid == cid]:
        if getattr(call, "wpk", getattr(call, "nwpk", 0)) == live.wpk:  # type: ignore[union-attr]
            continue
        saved = world.save()
        assert world.transact(node, call), node.reverted
        world.travel(world.now + 3 * MU)
        assert status(world, cid) == RESOLVED, f"{type(call).__name__} stands"
        assert node.wallet(cid).amount == 0
        assert "refuting" in said(w) and not w.reverted
        other = world.c.cids()[0] if who == "R" else relay_cid(world, held["hash"])
        world.settle(other)
        assert world.stake(world.i) >= floor
        assert world.conserved()
        world.load(saved)
        tried += 1
    assert tried >= 3


def test_a_secret_that_comes_after_the_claim_refutes_it_too(watched: World) -> None:
    world = watched
    w = watcher(world)
    cid = world.c.cids()[0]
    old = wallets.claim(world.c.records, world.c.wallet(cid))
    world.close(world.session(1, cid))
    data = disputes(world)
    down(world, world.i)
    assert world.transact(world.c, old)
    world.travel(world.now + 2 * MU)
    assert status(world, cid) in CLOSING and not said(w)
    hand(world, w, data)
    world.travel(world.now + TICK)
    assert status(world, cid) == RESOLVED


def test_a_secret_that_a_payee_makes_public_refutes_its_payer(watched: World) -> None:
    """The conditional claim shows wsk_C on the ledger; the payer's old claim is then revoked."""
    world = watched
    w = watcher(world)
    cid, to = world.c.cids()[0], world.e.cids()[0]
    old = wallets.claim(world.c.records, world.c.wallet(cid))
    lock, secret, _ = crt_held(world)
    hand(world, w, disputes(world))
    down(world, world.i)
    assert world.transact(world.c, old)
    down(world, world.c)
    world.travel(world.now + MU + TICK)
    take_secret(world, lock, secret)
    world.act(world.e, lambda records, moment: world.e.machine.post_claim(records, to))
    world.run()
    world.travel(world.now + TICK)
    assert status(world, cid) == RESOLVED and "refuting" in said(w)


def test_payments_that_only_the_intermediary_knows_are_charged(watched: World) -> None:
    world = watched
    w = watcher(world)
    before = world.stake(world.i)
    terms_hash = world.session(PAYMENTS)
    cid, other = world.c.cids()[0], relay_cid(world, terms_hash)
    world.close_relay(terms_hash)
    hand(world, w, disputes(world))
    down(world, world.i)
    world.act(world.c, lambda records, moment: world.c.machine.claim_session(records, terms_hash))
    world.run()
    assert claims(world, terms_hash) == [0, 0]
    world.travel(world.now + 3 * MU)
    assert claims(world, terms_hash)[0] == PAYMENTS
    world.settle(cid, other)
    assert world.c.wallet(cid).amount == CLIENT_DEPOSIT - PAYMENTS * PRICE
    assert world.stake(world.i) >= before + PAYMENTS * FEE
    assert world.conserved() and not w.reverted
    assert said(w).count("revealing") == 1


def test_the_intermediary_has_a_margin_to_act_itself(watched: World) -> None:
    world = watched
    w = watcher(world)
    cid = world.c.cids()[0]
    old = wallets.claim(world.c.records, world.c.wallet(cid))
    world.close(world.session(1, cid))
    hand(world, w, disputes(world))
    down(world, world.i)
    assert world.transact(world.c, old)
    world.travel(world.now + MU - 1, tick=MU - 1)
    assert status(world, cid) in CLOSING
    world.travel(world.now + 1)
    assert status(world, cid) == RESOLVED


def test_a_relay_that_posts_less_than_it_proved_is_not_helped(watched: World) -> None:
    """The intermediary's watcher raises the client's count only."""
    world = watched
    w = watcher(world)
    terms_hash = world.session(PAYMENTS)
    other = relay_cid(world, terms_hash)
    claim = wallets.claim(world.r.records, InSession(other, terms_hash))
    assert isinstance(claim, calls.NanoRefund)
    world.close_relay(terms_hash)
    hand(world, w, disputes(world))
    down(world, world.i, world.r)
    assert world.transact(world.r, replace(claim, k=0, hc=bytes(32), path=()))
    world.travel(world.now + 3 * MU)
    # What it posted is revoked besides.
    assert said(w).count("revealing") == 0 and status(world, other) == RESOLVED


def test_the_intermediary_s_money_does_not_stay_in_a_channel(watched: World) -> None:
    world = watched
    w = watcher(world)
    before = world.stake(world.i)
    cid, silent = world.c.cids()
    claim = wallets.claim(world.c.records, world.c.wallet(cid))
    hand(world, w, disputes(world))
    down(world, world.c)
    request_close(world, silent)
    down(world, world.i)
    assert world.transact(world.c, claim)
    world.travel(world.now + DEMO.dispute_window + TICK)
    assert status(world, cid) in CLOSING
    world.travel(world.now + DEMO.close_notice + 4 * MU, tick=MU)
    assert [status(world, cid), status(world, silent)] == [RESOLVED] * 2
    assert world.stake(world.i) == before + CLIENT_DEPOSIT
    assert said(w).count("resolving") == 2 and not w.reverted


def test_an_answered_request_is_resolved_only_after_its_dispute(watched: World) -> None:
    world = watched
    w = watcher(world)
    cid = world.c.cids()[0]
    claim = wallets.claim(world.c.records, world.c.wallet(cid))
    hand(world, w, disputes(world))
    down(world, world.c)
    deadline = request_close(world, cid)
    down(world, world.i)
    world.jump(deadline - TICK)
    assert world.transact(world.c, claim)
    world.travel(deadline + DEMO.dispute_window - 2 * TICK, tick=TICK)
    assert "resolving" not in said(w) and not w.reverted
    world.travel(deadline + DEMO.dispute_window + 4 * MU)
    assert status(world, cid) == RESOLVED and said(w).count("resolving") == 1


def test_channels_of_others_are_not_defended(watched: World) -> None:
    """An intermediary's secret may be the lock of somebody else's channel: not its business."""
    world = watched
    w = watcher(world)
    cid = world.c.cids()[0]
    old = wallets.claim(world.c.records, world.c.wallet(cid))
    world.close(world.session(1, cid))
    entries = [one for one in export_disputes(world.i.records)
               if not isinstance(one, WatchedGroup)]
    hand(world, w, package(world, world.i, PackageKind.DISPUTES, entries))
    down(world, world.i, world.c)
    assert world.transact(world.c, old)
    world.travel(world.now + DEMO.dispute_window + 4 * MU)
    assert status(world, cid) in CLOSING and not said(w)[1:]


# --- The relay is down


def test_payments_are_revealed_before_their_session_expires(watched: World) -> None:
    world = watched
    w = watcher(world)
    terms_hash = world.session(PAYMENTS)
    t_exp, other = expiry(world, terms_hash), relay_cid(world, terms_hash)
    hand(world, w, proofs(world))
    down(world, world.r, world.i)
    world.travel(t_exp - MU - 1, tick=MU)
    world.tick()
    world.run()
    assert claims(world, terms_hash) == [0, 0]
    world.travel(t_exp - MU // 2)
    assert claims(world, terms_hash) == [PAYMENTS, PAYMENTS]
    world.travel(t_exp + MU)
    assert said(w)[1:] == ["revealing"] and not w.reverted
    up(world, world.i)
    up(world, world.r)
    world.travel(t_exp + 6 * MU)
    world.settle(other, world.c.cids()[0])
    assert world.r.wallet(other).amount == PAYMENTS * DELTA_R
    assert world.conserved()


def test_a_reveal_that_is_lost_is_sent_again(watched: World) -> None:
    world = watched
    w = watcher(world)
    terms_hash = world.session(PAYMENTS)
    hand(world, w, proofs(world))
    down(world, world.r, world.i, world.c)
    lost = []

    def lose(parcel: Any) -> tuple[Any, ...]:
        if parcel.kind == "submit" and not lost:
            lost.append(parcel)
            w.submissions.pop(parcel.item.key)
            return ()
        return (parcel,)

    world.fault = lose
    world.travel(expiry(world, terms_hash))
    assert lost and claims(world, terms_hash) == [PAYMENTS, PAYMENTS]


def test_what_is_not_worth_the_gas_is_not_revealed_and_it_says_so(watched: World) -> None:
    world = watched
    assert reveal_cost(DEAR) > PAYMENTS * DELTA_R > reveal_cost(CHEAP)
    w = watcher(world, gas=DEAR)
    terms_hash = world.session(PAYMENTS)
    t_exp = expiry(world, terms_hash)
    hand(world, w, proofs(world))
    down(world, world.r, world.i)
    world.travel(t_exp - MU // 2)
    assert claims(world, terms_hash) == [0, 0]
    assert said(w).count("not-worth-the-gas") == 1
    assert w.notes[-1].detail == "1720 units, and to reveal them costs 80000"
    world.act(w, lambda records, moment: w.machine.on_gas_price(records, CHEAP) or [])
    world.travel(t_exp)
    assert claims(world, terms_hash) == [PAYMENTS, PAYMENTS], "gas became cheaper in time"


@pytest.mark.parametrize(("wei", "units"), [(0, 0), (1, 1), (12_500, 1), (12_501, 2),
                                            (10**9, 80_000)])
def test_what_a_reveal_costs_in_units_of_a_gwei(wei: int, units: int) -> None:
    assert reveal_cost(wei) == units


def test_a_reveal_needs_no_more_gas_than_it_is_reckoned_at(watched: World) -> None:
    world = watched
    terms_hash = world.session(DEMO.n)
    (proof,) = export_proofs(world.r.records)
    assert isinstance(proof, Proof)
    last = replace(proof.claim, k=proof.claim.k)
    receipt = world.stage.send(world._function(world.r, last), world.stage.party("watcher"))
    assert claims(world, terms_hash) == [DEMO.n, DEMO.n]
    assert receipt["gasUsed"] * 10**9 <= reveal_cost(10**9) * 10**9


def test_a_session_that_closes_meanwhile_costs_no_gas(watched: World) -> None:
    """The next package leaves it out, and what is on the ledger is not revealed again."""
    world = watched
    w = watcher(world)
    first = world.session(PAYMENTS)
    hand(world, w, proofs(world))
    world.close(first)
    second = world.session(PAYMENTS, world.c.cids()[1])
    hand(world, w, proofs(world))
    (proof,) = export_proofs(world.r.records)
    assert isinstance(proof, Proof)
    assert world.transact(world.e, proof.claim)
    down(world, world.r, world.i)
    world.travel(expiry(world, second) + MU, tick=TICK)
    assert claims(world, first) == [0, 0] and "revealing" not in said(w)


def test_a_claim_that_leaves_payments_out_is_raised(watched: World) -> None:
    """A thief of the relay's authorisation posts its session without the proof."""
    world = watched
    w = watcher(world)
    terms_hash = world.session(PAYMENTS)
    other = relay_cid(world, terms_hash)
    hand(world, w, proofs(world))
    stolen = {one.cid: one for one in answers(world, world.r)}[other]
    call = stolen.call()
    assert isinstance(call, calls.NanoRefund) and call.k == PAYMENTS
    bare = Authorised.of(replace(call, k=0, hc=bytes(32), path=()), stolen.public_key,
                         stolen.not_after, stolen.signature)
    down(world, world.r, world.i, world.c)
    assert world.transact(world.e, bare)
    assert status(world, other) in CLOSING and claims(world, terms_hash) == [0, 0]
    world.travel(world.now + 2 * MU)
    assert claims(world, terms_hash) == [PAYMENTS, PAYMENTS]
    up(world, world.r)
    world.travel(world.now + DEMO.dispute_window + 2 * MU)
    assert world.r.wallet(other).amount == PAYMENTS * DELTA_R


# --- The end user is down


def test_a_request_to_close_is_answered_with_the_newest_state(watched: World) -> None:
    world = watched
    w = watcher(world)
    cid = world.c.cids()[0]
    hand(world, w, answered(world, world.c))
    world.close(world.session(PAYMENTS, cid))
    hand(world, w, answered(world, world.c))
    before = world.wealth(world.c)
    down(world, world.c)
    deadline = request_close(world, cid)
    world.travel(deadline - ANSWER_MARGINS * MU - 1, tick=MU)
    world.tick()
    world.run()
    assert status(world, cid) == REQUESTED, "until then its owner may come back"
    world.travel(deadline - MU)
    assert status(world, cid) in CLOSING and not w.reverted
    up(world, world.c)
    world.travel(world.now + DEMO.dispute_window + 2 * MU)
    assert world.c.wallet(cid).amount == CLIENT_DEPOSIT - PAYMENTS * PRICE
    assert world.wealth(world.c) == before + CLIENT_DEPOSIT - PAYMENTS * PRICE + DEMO.close_bond
    assert world.conserved()


def test_a_relay_s_session_is_answered_with_every_payment_known(watched: World) -> None:
    """The authorisation is of the session's beginning, the proof of its end."""
    world = watched
    w = watcher(world)
    terms_hash = world.session(1)
    other = relay_cid(world, terms_hash)
    hand(world, w, answered(world, world.r))
    world.pay(terms_hash, PAYMENTS - 1)
    hand(world, w, proofs(world))
    down(world, world.r, world.c)
    at = request_close(world, other) - ANSWER_MARGINS * MU
    down(world, world.i)
    assert at + MU < expiry(world, terms_hash) - MU, "no reveal is due yet"
    world.travel(at + MU, tick=MU)
    assert status(world, other) in CLOSING
    assert claims(world, terms_hash) == [PAYMENTS, PAYMENTS]
    up(world, world.r)
    world.travel(world.now + DEMO.dispute_window + 2 * MU)
    assert world.r.wallet(other).amount == PAYMENTS * DELTA_R


def test_an_owner_that_comes_back_answers_itself(watched: World) -> None:
    world = watched
    w = watcher(world)
    cid = world.c.cids()[0]
    hand(world, w, answered(world, world.c))
    down(world, world.c)
    deadline = request_close(world, cid)
    world.travel(world.now + 2 * MU)
    up(world, world.c)
    world.run()
    assert status(world, cid) in CLOSING
    world.travel(deadline + MU, tick=MU)
    assert "answering" not in said(w) and not w.reverted


def test_a_stale_package_is_refused(watched: World) -> None:
    world = watched
    w = watcher(world)
    cid = world.c.cids()[0]
    stale = answered(world, world.c)
    hand(world, w, stale)
    hand(world, w, stale)
    world.close(world.session(PAYMENTS, cid))
    newest = answered(world, world.c)
    hand(world, w, newest)
    with pytest.raises(ProtocolError, match="superseded"):
        hand(world, w, stale)
    again = seal(PackageKind.ANSWERS, unseal(stale, world.domain).entries, domain=world.domain,
                 key=world.c.party.private_key, counter=2, issued=world.now)
    with pytest.raises(ProtocolError, match="superseded"):
        hand(world, w, again)
    assert {one.claim for _, one in w.records.scan(Table.WALLET)} == set(
        unseal(newest, world.domain).entries)
    down(world, world.c)
    world.travel(request_close(world, cid) - MU, tick=MU)
    up(world, world.c)
    world.travel(world.now + DEMO.dispute_window + 2 * MU)
    assert world.c.wallet(cid).amount == CLIENT_DEPOSIT - PAYMENTS * PRICE


def test_an_old_package_of_proofs_is_refused(watched: World) -> None:
    world = watched
    w = watcher(world)
    terms_hash = world.session(2)
    old = proofs(world)
    world.pay(terms_hash, 2)
    hand(world, w, proofs(world))
    with pytest.raises(ProtocolError, match="superseded"):
        hand(world, w, old)


def test_an_answer_on_its_way_is_dropped_when_it_is_superseded(watched: World) -> None:
    """The chain did not take it before its owner came back and went on."""
    world = watched
    w = watcher(world)
    cid = world.c.cids()[0]
    hand(world, w, answered(world, world.c))
    stale = unseal(answered(world, world.c), world.domain)
    down(world, world.c)
    deadline = request_close(world, cid)
    world.fault = lambda parcel: () if parcel.kind == "submit" else (parcel,)
    world.travel(deadline - ANSWER_MARGINS * MU, tick=MU)
    (pending,) = w.submissions.values()
    assert isinstance(pending.call, Authorised)
    hand(world, w, package(world, world.c, PackageKind.ANSWERS,
                           [one for one in stale.entries if one.cid != cid]))
    world.fault = lambda parcel: (parcel,)
    world.restart(w)
    world.run()
    assert status(world, cid) == REQUESTED and not w.submissions and not w.reverted


def test_an_expired_authorisation_is_not_used(watched: World) -> None:
    world = watched
    w = watcher(world)
    cid = world.c.cids()[0]
    hand(world, w, answered(world, world.c))
    down(world, world.c)
    world.travel(world.now + RENEWAL_MARGINS * MU + DEMO.close_notice + 1, tick=4 * MU)
    deadline = request_close(world, cid)
    down(world, world.i)
    world.travel(deadline, tick=MU)
    assert status(world, cid) == REQUESTED
    assert "authorisation-expired" in said(w) and not w.reverted and not w.submissions


def test_an_authorisation_is_used_before_it_expires(watched: World) -> None:
    """The request comes at the last moment that the package is good for."""
    world = watched
    w = watcher(world)
    cid = world.c.cids()[0]
    hand(world, w, answered(world, world.c))
    not_after = world.now + RENEWAL_MARGINS * MU + DEMO.close_notice
    down(world, world.c)
    world.travel(not_after - 3 * MU, tick=4 * MU)
    request_close(world, cid)
    world.travel(not_after - MU)
    assert status(world, cid) in CLOSING and not w.reverted


@pytest.mark.parametrize(("deadline", "not_after", "at"), [
    (10_000, 20_000, 10_000 - 4 * MU), (10_000, 9_900, 9_900 - 2 * MU)])
def test_when_a_request_is_answered(deadline: int, not_after: int, at: int) -> None:
    assert answer_time(deadline, not_after, MU) == at


def test_a_newer_package_lets_the_answer_wait(watched: World) -> None:
    world = watched
    w = watcher(world)
    cid = world.c.cids()[0]
    hand(world, w, answered(world, world.c))
    down(world, world.c)
    world.travel(world.now + (RENEWAL_MARGINS + 4) * MU, tick=4 * MU)
    deadline = request_close(world, cid)
    (first,) = [one.claim for _, one in w.records.scan(Table.WALLET) if one.claim.cid == cid]
    assert answer_time(deadline, first.not_after, MU) < deadline - ANSWER_MARGINS * MU
    hand(world, w, answered(world, world.c))
    world.travel(deadline - ANSWER_MARGINS * MU - 1, tick=MU)
    world.tick()
    world.run()
    assert status(world, cid) == REQUESTED
    world.travel(deadline - MU)
    assert status(world, cid) in CLOSING


def test_a_package_that_comes_after_the_request_answers_it(watched: World) -> None:
    world = watched
    w = watcher(world)
    cid = world.c.cids()[0]
    down(world, world.c)
    deadline = request_close(world, cid)
    world.travel(deadline - 2 * MU, tick=MU)
    hand(world, w, answered(world, world.c))
    world.travel(world.now + TICK)
    assert status(world, cid) in CLOSING and not w.reverted


def test_a_request_whose_notice_is_over_is_not_answered(watched: World) -> None:
    world = watched
    w = watcher(world)
    cid = world.c.cids()[0]
    hand(world, w, answered(world, world.c))
    down(world, world.c)
    deadline = request_close(world, cid)
    down(world, world.i)
    world.jump(deadline + 1)
    world.tick()
    world.run()
    assert status(world, cid) == REQUESTED
    assert said(w)[1:] == ["too-late"] and not w.reverted


def test_nobody_answers_for_a_channel_that_was_not_handed_over(watched: World) -> None:
    world = watched
    w = watcher(world)
    hand(world, w, answered(world, world.r))
    down(world, world.c)
    cid = world.c.cids()[0]
    deadline = request_close(world, cid)
    world.travel(deadline + 1, tick=MU)
    assert status(world, cid) == REQUESTED and not said(w)[1:]


# --- Two watchers, and one that was away


def test_two_watchers_and_the_party_do_no_harm(watched: World) -> None:
    """All three see the same claim and the same request at the same time."""
    world = watched
    pair = [watcher(world, "W1"), watcher(world, "W2", "guard")]
    cid, idle = world.c.cids()
    old = wallets.claim(world.c.records, world.c.wallet(cid))
    floor = world.stake(world.i) + PAYMENTS * FEE
    world.close(world.session(PAYMENTS, cid))
    for w in pair:
        hand(world, w, disputes(world))
        hand(world, w, answered(world, world.c))
    # The intermediary's own transaction is kept back, so that three compete.
    kept: list[Any] = []
    world.fault = lambda parcel: () if parcel.kind == "submit" and not kept.append(
        parcel) else (parcel,)
    down(world, world.c)
    world.act(world.i, lambda records, moment: world.i.machine.request_close(records, idle))
    world.run()
    (asked,) = kept
    assert world.submit(world.i, asked.item)
    assert world.transact(world.c, old)
    world.travel(world.now + MU + TICK)
    world.fault = lambda parcel: (parcel,)
    refuting = [one for one in kept if isinstance(one.item.call, calls.Refute)]
    assert {one.source for one in refuting} == {"I", "W1", "W2"}
    done = [world.submit(world.nodes[one.source], one.item) for one in refuting]
    assert done.count(True) == 1
    world.travel(world.now + DEMO.close_notice, tick=TICK)
    assert status(world, cid) == RESOLVED and status(world, idle) != REQUESTED
    for w in pair:
        assert len(w.reverted) <= 1, w.reverted
        assert not w.submissions
    up(world, world.c)
    world.settle(*world.r.cids())
    world.travel(world.now + DEMO.dispute_window + 2 * MU, tick=MU)
    assert world.c.wallet(idle).amount == CLIENT_DEPOSIT
    assert world.stake(world.i) >= floor - DEMO.close_bond
    assert world.conserved()


@pytest.mark.parametrize("away", [True, False])
def test_a_watcher_that_was_away_catches_up(watched: World, away: bool) -> None:
    """Claim and reveal fall into its absence; it is back before their deadlines."""
    world = watched
    w = watcher(world)
    cid = world.c.cids()[0]
    old = wallets.claim(world.c.records, world.c.wallet(cid))
    world.close(world.session(1, cid))
    terms_hash = world.session(PAYMENTS, world.c.cids()[1])
    hand(world, w, disputes(world))
    hand(world, w, proofs(world))
    down(world, world.i, world.r, world.c)
    t_exp = expiry(world, terms_hash)
    w.alive = not away
    world.travel(t_exp - MU - DEMO.dispute_window // 2, tick=4 * MU)
    assert world.transact(world.c, old)
    world.travel(t_exp - MU // 2, tick=TICK)
    assert (status(world, cid) in CLOSING) == away
    # Its clock runs on before it has seen a block: nothing is decided on the old view.
    w.alive = True
    world.tick()
    assert not [one for one in world.wire if one.source == "W"] or not away
    world.follow(w)
    world.tick()
    world.run()
    assert claims(world, terms_hash) == [PAYMENTS, PAYMENTS]
    world.travel(world.now + MU)
    assert status(world, cid) == RESOLVED
    assert not w.reverted


def test_a_watcher_that_comes_too_late_sends_nothing_in_vain(watched: World) -> None:
    """Only what can still be done is: the channel is resolved."""
    world = watched
    w = watcher(world)
    cid = world.c.cids()[0]
    old = wallets.claim(world.c.records, world.c.wallet(cid))
    world.close(world.session(1, cid))
    terms_hash = world.session(PAYMENTS, world.c.cids()[1])
    other = world.r.cids()[0]
    for data in (disputes(world), proofs(world), answered(world, world.r)):
        hand(world, w, data)
    down(world, world.r, world.c)
    request_close(world, other)
    down(world, world.i, w)
    assert world.transact(world.c, old)
    world.jump(expiry(world, terms_hash) + DEMO.close_notice)
    up(world, w)
    world.tick()
    world.run()
    assert not w.reverted
    assert "too-late" in said(w) and "refuting" not in said(w) and "answering" not in said(w)
    assert status(world, cid) == RESOLVED and claims(world, terms_hash) == [0, 0]


def test_what_ended_while_it_was_away_is_left_alone(watched: World) -> None:
    world = watched
    w = watcher(world)
    cid, idle = world.c.cids()
    hand(world, w, disputes(world))
    hand(world, w, answered(world, world.c))
    down(world, w)
    world.settle(cid)
    request_close(world, idle)
    world.settle(idle)
    world.travel(world.now + DEMO.close_notice + DEMO.dispute_window, tick=4 * MU)
    up(world, w)
    world.tick()
    world.run()
    assert not w.reverted and not said(w)[2:]


def test_the_party_learns_what_its_watcher_did(watched: World) -> None:
    """Back again, the client neither spends nor claims the channel that was closed for it."""
    world = watched
    w = watcher(world)
    cid = world.c.cids()[0]
    hand(world, w, answered(world, world.c))
    down(world, world.c)
    world.travel(request_close(world, cid) - MU, tick=MU)
    up(world, world.c)
    assert isinstance(world.c.wallet(cid), Posted)
    with pytest.raises(ProtocolError):
        world.start_setup(cid)
    assert not w.reverted


# --- Thieves


def test_a_thief_of_disputes_refutes_only_what_was_revoked(watched: World) -> None:
    world, thief = watched, watcher(watched, "thief", "stranger")
    cid, idle = world.c.cids()
    terms_hash = world.session(PAYMENTS, cid)
    world.close(terms_hash)
    entries = unseal(disputes(world), world.domain).entries
    secrets = [one.secret for one in entries if isinstance(one, Revoked)]
    assert len(secrets) == 4
    before = world.wealth(thief)
    for secret in secrets:
        assert not world.transact(thief, calls.Refute(idle, secret)), "the channel is not closing"
    down(world, world.i)
    for owned in (cid, idle):
        claim = wallets.claim(world.c.records, world.c.wallet(owned))
        assert world.transact(world.c, claim)
        for secret in secrets:
            assert not world.transact(thief, calls.Refute(owned, secret)), "the claim is live"
    live = {one.wsk for node in (world.c, world.r) for _, one in node.records.scan(Table.WALLET)
            if hasattr(one, "wsk")}
    assert not live & set(secrets)
    assert world.wealth(thief) == before and world.conserved()


def test_a_thief_of_proofs_makes_them_public_at_most(watched: World) -> None:
    world, thief = watched, watcher(watched, "thief", "stranger")
    terms_hash = world.session(PAYMENTS)
    other = relay_cid(world, terms_hash)
    (proof,) = unseal(proofs(world), world.domain).entries
    assert isinstance(proof, Proof)
    before = world.wealth(thief)
    assert not world.transact(thief, replace(proof.claim, k=PAYMENTS + 1)), "not on the chain"
    assert world.transact(thief, proof.claim)
    # Payments go on, and both legs close as if nothing had happened.
    world.pay(terms_hash, 5)
    world.close(terms_hash)
    assert world.r.balance(other) == (PAYMENTS + 5) * DELTA_R
    assert world.c.balance(world.c.cids()[0]) == CLIENT_DEPOSIT - (PAYMENTS + 5) * PRICE
    assert world.wealth(thief) == before and world.conserved()


def test_a_thief_of_answers_closes_channels_in_their_owner_s_favour(watched: World) -> None:
    """It cannot change a word, nor send the money elsewhere; a channel closes that should not."""
    world, thief = watched, watcher(watched, "thief", "stranger")
    cid = world.c.cids()[0]
    terms_hash = world.session(PAYMENTS)
    world.close_relay(terms_hash)
    entries = {one.cid: one for one in answers(world, world.c) + answers(world, world.r)}
    session, refund = entries[cid].call(), entries[world.c.cids()[1]].call()
    assert isinstance(session, calls.NanoRefund) and isinstance(refund, calls.Refund)
    other = relay_cid(world, terms_hash)
    twisted = [
        replace(refund, balance=refund.balance - 1), replace(refund, wpk=refund.wpk ^ 1),
        replace(refund, token=wallets.rerandomised(refund).token), replace(refund, cid=cid),
        replace(session, saturated=session.saturated + 1), replace(session, cid=refund.cid),
        replace(session, k=PAYMENTS + 1), replace(session, nwpk=session.nwpk ^ 1),
    ]
    for call in twisted:
        source = entries[cid] if isinstance(call, calls.NanoRefund) else entries[refund.cid]
        assert not world.transact(thief, Authorised.of(
            call, source.public_key, source.not_after, source.signature)), call
    assert not world.transact(thief, replace(entries[cid], not_after=2**63))
    before = world.wealth(thief), world.wealth(world.c), world.wealth(world.r)
    for stolen in (entries[cid], entries[refund.cid], entries[other]):
        assert world.transact(thief, stolen), thief.reverted
    world.run()
    world.travel(expiry(world, terms_hash) + DEMO.dispute_window + 4 * MU, tick=MU)
    assert world.wealth(thief) == before[0]
    assert world.wealth(world.c) == before[1] + 2 * CLIENT_DEPOSIT - PAYMENTS * PRICE
    assert world.wealth(world.r) == before[2] + PAYMENTS * DELTA_R
    assert world.conserved()


def test_at_worst_a_kept_old_answer_forfeits_the_channel(watched: World) -> None:
    """What an owner must trust its watcher with, and for how long."""
    world, thief = watched, watcher(watched, "thief", "stranger")
    cid = world.c.cids()[0]
    (kept,) = [one for one in answers(world, world.c) if one.cid == cid]
    world.close(world.session(PAYMENTS, cid))
    saved = world.save()
    assert world.transact(thief, kept)
    world.run()
    assert world.c.wallet(cid).amount == 0 and status(world, cid) == RESOLVED
    world.load(saved)
    world.jump(kept.not_after + 1)
    assert not world.transact(thief, kept), "until it expires"
    assert thief.reverted[-1][1] == "authorisation: expired"


def test_no_package_holds_what_spends(watched: World) -> None:
    world = watched
    terms_hash = world.session(PAYMENTS)
    world.act(world.r, lambda records, moment: world.r.machine.nano_close(records, terms_hash))
    handed = b"".join([
        *(answered(world, node) for node in (world.c, world.r, world.e)), proofs(world),
        disputes(world)])
    spending = [world.issuer.encode()]
    for node in (world.c, world.r, world.e):
        for _, one in node.records.scan(Table.WALLET):
            spending += [getattr(one, name) for name in ("wsk", "pt") if hasattr(one, name)]
        for _, one in node.records.scan(Table.SESSION):
            spending.append(one.session.nwsk)
            spending.append(getattr(one, "seed", one.session.nwsk))
    assert len(set(spending)) >= 10
    assert not [one for one in spending if one in handed]
    for _, one in world.c.records.scan(Table.WALLET):
        assert getattr(one, "rt", b"no token") not in handed, "its issuer would know the token"


# --- Packages


def test_a_package_is_read_whole_or_not_at_all(watched: World) -> None:
    world = watched
    terms_hash = world.session(PAYMENTS)
    world.close_relay(terms_hash)
    for data in (disputes(world), answered(world, world.c)):
        assert unseal(data, world.domain).entries
        for size in (0, 10, 100, len(data) // 2, len(data) - 1):
            with pytest.raises(ProtocolError):
                unseal(data[:size], world.domain)
        for at in (0, 1, 40, 60, 90, len(data) // 2, len(data) - 1):
            with pytest.raises(ProtocolError):
                unseal(data[:at] + bytes([data[at] ^ 1]) + data[at + 1:], world.domain)
        with pytest.raises(ProtocolError, match="another ledger"):
            unseal(data, bytes(32))


def test_nobody_else_can_replace_a_package(watched: World) -> None:
    """The signature decides whose package it is, and only its owner's replace it."""
    world = watched
    w = watcher(world)
    hand(world, w, answered(world, world.c))
    empty = seal(PackageKind.ANSWERS, [], domain=world.domain, key=world.e.party.private_key,
                 counter=99, issued=world.now)
    hand(world, w, empty)
    assert len(list(w.records.scan(Table.WALLET))) == 2
    account = world.c.machine.user.account
    forged = empty.replace(world.e.machine.user.account, account)
    assert forged != empty
    with pytest.raises(ProtocolError, match="not signed by"):
        hand(world, w, forged)


def test_a_proof_that_proves_nothing_is_refused(watched: World) -> None:
    world = watched
    world.session(PAYMENTS)
    (proof,) = export_proofs(world.r.records)
    assert isinstance(proof, Proof)
    for claim in (replace(proof.claim, k=PAYMENTS + 1), replace(proof.claim, k=0)):
        data = package(world, world.r, PackageKind.PROOFS, [replace(proof, claim=claim)])
        with pytest.raises(ProtocolError, match="prove"):
            unseal(data, world.domain)


def test_disputes_only_add(watched: World) -> None:
    """They come in any order, some of them twice."""
    world = watched
    w = watcher(world)
    first = world.session(2)
    world.close_relay(first)
    early = disputes(world)
    world.close_client(first)
    second = world.session(2)
    world.close(second)
    late = disputes(world)
    hand(world, w, late)
    known = len(list(w.records.scan(Table.LOCK)))
    for data in (early, late, early):
        hand(world, w, data)
    assert len(list(w.records.scan(Table.LOCK))) == known
    assert not [one for one in export_disputes(world.i.records) if isinstance(one, Charged)]
    touched = {(Table.LOCK, key) for key, _ in world.i.records.scan(Table.LOCK)}
    assert {one for one in export_disputes(world.i.records, touched)
            if isinstance(one, Revoked)} == {
        one for one in export_disputes(world.i.records) if isinstance(one, Revoked)}


def test_a_count_that_the_watcher_knows_is_never_lowered(watched: World) -> None:
    world = watched
    w = watcher(world)
    terms_hash = world.session(1)
    nwpk = lock_of(client_session(world.c.records, terms_hash).session.nwsk)
    packages = []
    for _ in range(2):
        (proof,) = export_proofs(world.r.records)
        assert isinstance(proof, Proof)
        packages.append(package(world, world.i, PackageKind.DISPUTES,
                                [Charged(nwpk, proof.claim)]))
        world.pay(terms_hash)
    for data in reversed(packages):
        hand(world, w, data)
    (known,) = [one for _, one in w.records.scan(Table.SESSION)]
    assert known.claim.k == 2


def test_an_authorisation_outlives_the_next_renewal_and_the_notice(watched: World) -> None:
    """One that still has half its time is taken over, so that a package is cheap to make again."""
    world, node = watched, watched.c
    sign = authoriser(node.party.private_key, world.domain)

    def export(before: Any) -> dict[tuple[int, int], Authorised]:
        return export_answers(node.records, node.machine.user_of, world.moment(), sign, before)

    first = export({})
    assert {one.not_after for one in first.values()} == {
        world.now + RENEWAL_MARGINS * MU + DEMO.close_notice}
    assert {one.cid for one in first.values()} == set(node.cids())
    world.now += RENEWAL_MARGINS * MU // 2
    assert export(first) == first
    world.now += 1
    renewed = export(first)
    assert {one.not_after for one in renewed.values()} == {
        world.now + RENEWAL_MARGINS * MU + DEMO.close_notice}


def test_every_state_of_a_wallet_is_answered_by_its_live_claim(watched: World) -> None:
    """At every step of a session and of a hidden payment: what the ledger would take, unrevoked."""
    world = watched
    w = watcher(world)
    seen = set()
    cid = world.c.cids()[0]

    def look() -> None:
        for node in (world.c, world.r, world.e):
            for one in answers(world, node):
                call = one.call()
                state = (type(node.wallet(one.cid)).__name__, type(call).__name__)
                if (node.name, state) in seen or node.wallet(one.cid) is None:
                    continue
                seen.add((node.name, state))
                saved = world.stage.snapshot(), world.now
                world._next_block()
                world.stage.send(world._function(w, one), w.party)
                world.stage.revert(saved[0])
                world.now = saved[1]
                lock = call.wpk if isinstance(call, calls.Refund) else call.nwpk
                known = {lock_of(entry.secret) for entry in export_disputes(world.i.records)
                         if isinstance(entry, Revoked)}
                assert lock not in known, f"{node.name} hands over a revoked {state}"

    world.on_step = look
    world.close(world.session(3, cid))
    world.transfer(5_000, cid)
    world.act(world.c, lambda records, moment: world.c.machine.post_claim(records, cid))
    states = {state for _, state in seen}
    assert {("Idle", "Refund"), ("Spending", "Refund"), ("InSession", "NanoRefund"),
            ("Closing", "NanoRefund"), ("Renewing", "Refund"), ("Paying", "Refund")} <= states
    world.on_step = lambda: None
    world.run()
    assert cid not in {one.cid for one in answers(world, world.c)}, "it is posted"
