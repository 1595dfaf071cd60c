# SPDX-License-Identifier: BSD-3-Clause
"""Opening groups: nothing is escrowed without a refund token, no wallet without both escrows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from monetor_chain.statements import channel_id
from offchain.protocol import establish, ledger as calls, messages as m, wallet as wallets
from offchain.protocol.errors import ProtocolError, RefusalCode
from offchain.protocol.records import Table
from offchain.protocol.wallet import NO_TOKEN, Establishing, Idle
from tests.protocol.test_session_rules import answered, refused
from tests.protocol.world import CLIENT_DEPOSIT, World


def begin(world: World, **options: int) -> None:
    world.act(world.c, lambda records, moment: world.c.machine.open_group(
        records, moment, **{"deposit": 5_000, "fund": 0, "count": 2, **options}))


def new_cids(world: World, known: set[int]) -> list[int]:
    return sorted(set(world.c.cids()) - known)


def test_nothing_is_escrowed_before_every_channel_has_its_refund_token(world: World) -> None:
    known, before = set(world.c.cids()), world.wealth(world.c)
    lost: list[bytes] = []

    def fault(parcel: Any) -> tuple[Any, ...]:
        if parcel.kind == "request" and parcel.item.pcmd == m.EstablishRequest.PCMD and not lost:
            lost.append(parcel.item.conversation)
            return ()
        return (parcel,)

    world.fault = fault
    begin(world)
    world.run()
    first, second = new_cids(world, known)
    tokens = [world.c.wallet(cid).rt for cid in (first, second)]
    assert NO_TOKEN in tokens and not world.c.submissions
    assert world.wealth(world.c) == before
    world.fault = lambda parcel: (parcel,)
    world.retry()
    assert all(isinstance(world.c.wallet(cid), Idle) for cid in (first, second))


def test_no_wallet_token_before_both_escrows_are_confirmed(world: World) -> None:
    known = set(world.c.cids())
    world.fault = lambda parcel: () if parcel.kind == "submit" and isinstance(
        parcel.item.call, calls.Fund) else (parcel,)
    begin(world)
    world.run()
    for cid in new_cids(world, known):
        assert refused(world.ask(m.OpenedRequest(cid))) is RefusalCode.NOT_YET
    assert refused(world.ask(m.OpenedRequest(channel_id(cid >> 8, 2)))) is RefusalCode.UNKNOWN
    assert refused(world.ask(m.OpenedRequest(12345 << 8))) is RefusalCode.UNKNOWN


def test_a_channel_has_one_pair_of_requests_ever(world: World) -> None:
    known = set(world.c.cids())
    world.fault = lambda parcel: () if parcel.kind == "request" and (
        parcel.item.pcmd == m.OpenedRequest.PCMD) else (parcel,)
    begin(world, count=1)
    world.run()
    (cid,) = new_cids(world, known)
    user = world.c.machine.user
    request, proof, _ = establish.prove_opening(
        user.issuer, user.ctx, role=user.role, cid=cid, balance=5_000, nonce=77, wpk=99)
    other = m.EstablishRequest(cid, request.d_rt, request.d_pt, proof)
    assert refused(world.ask(other)) is RefusalCode.REUSED


@pytest.mark.parametrize("change", ["balance", "cid"])
def test_the_first_tokens_hold_the_agreed_deposit(world: World, change: str) -> None:
    known = set(world.c.cids())
    begin(world, count=1)
    request = world.stop_before(m.EstablishRequest, world.c)
    (cid,) = new_cids(world, known)
    user = world.c.machine.user
    forged, proof, _ = establish.prove_opening(
        user.issuer, user.ctx, role=user.role, cid=cid + (change == "cid"),
        balance=5_000 + (change == "balance"), nonce=77, wpk=99)
    assert refused(world.ask(m.EstablishRequest(cid, forged.d_rt, forged.d_pt, proof))
                   ) is RefusalCode.PROOF
    answered(world.ask(request))


def test_groups_within_what_the_intermediary_escrows(world: World) -> None:
    good = m.GroupRequest(bytes(20), world.c.machine.user.role, 1, 1, 1, b"\x01" * 32)
    limit = 2**31 - 1
    for wrong in ({"count": 0}, {"count": 257}, {"deposit": limit + 1}, {"fund": limit + 1}):
        assert refused(world.ask(replace(good, **wrong))) is RefusalCode.ESCROW
    answered(world.ask(good))
    for wrong in ({"deposit": -1}, {"fund": limit + 1}, {"count": 0}, {"count": 257}):
        with pytest.raises(ProtocolError):
            begin(world, **wrong)


def test_a_token_that_does_not_verify_is_not_taken(world: World) -> None:
    known = set(world.c.cids())
    begin(world, count=1)
    request = world.stop_before(m.EstablishRequest, world.c)
    reply = answered(world.ask(request))
    (cid,) = new_cids(world, known)
    for rt in (bytes(192), reply.rt[96:] + reply.rt[:96]):
        with pytest.raises(ProtocolError):
            world.c.machine.on_reply(world.c.records.copy(), world.moment(),
                                     b"establish:" + cid.to_bytes(31, "big"),
                                     *m.pack(m.EstablishReply(rt)))
    world.retry()
    assert isinstance(world.c.wallet(cid), Idle)


def test_every_state_of_a_wallet_has_its_claim(world: World) -> None:
    """The ledger takes each of them: exactly one is live at a time."""
    cid = world.c.cids()[0]
    for payments in (0, 5):
        world.close(world.session(payments, cid))
    claim = wallets.claim(world.c.records, world.c.wallet(cid))
    assert isinstance(claim, calls.Refund)
    assert claim.balance == CLIENT_DEPOSIT - 500
    begin(world, count=1)
    world.stop_before(m.EstablishRequest, world.c)
    waiting = [one for one in wallets.all_wallets(world.c.records)
               if isinstance(one, Establishing)]
    assert [wallets.claim(world.c.records, one) for one in waiting] == [None]


def test_reclaiming_is_for_groups_that_are_not_funded(world: World) -> None:
    group = world.c.cids()[0] >> 8
    with pytest.raises(ProtocolError, match="reclaimed"):
        establish.reclaim(world.c.records.copy(), group)
    assert not world.transact(world.c, calls.Reclaim(group))
    assert world.i.records.get(Table.GROUP, group.to_bytes(31, "big")).group == group


def agreed(world: World) -> None:
    """A group of two is agreed on, and none of its channels has been asked for."""
    world.fault = lambda parcel: () if parcel.kind == "request" and (
        parcel.item.pcmd == m.EstablishRequest.PCMD) else (parcel,)
    begin(world)
    world.run()
    world.fault = lambda parcel: (parcel,)


@pytest.mark.parametrize("silent", [True, False])
def test_a_group_that_gets_no_tokens_is_given_up(world: World, silent: bool) -> None:
    known, before = set(world.c.cids()), world.wealth(world.c)
    agreed(world)
    first, _ = new_cids(world, known)
    if silent:
        conversation = establish.opening_conversation(first)
        world.act(world.c, lambda records, moment: world.c.machine.give_up(
            records, moment, conversation))
    else:
        world.act(world.i, lambda records, moment: world.i.machine.retire(records) or [])
    world.run()
    world.retry()
    assert new_cids(world, known) == [], "no later opening waits for them"
    assert not world.c.requests and not world.c.submissions
    assert world.wealth(world.c) == before
    if silent:
        assert len(world.open(world.c, deposit=5_000, fund=0, count=2)) == 2


def test_an_opening_waits_for_an_intermediary_that_is_busy(world: World) -> None:
    known = set(world.c.cids())
    agreed(world)
    cids = new_cids(world, known)
    busy = m.Refusal(RefusalCode.NOT_YET, m.EstablishRequest.PCMD)
    for cid in cids:
        world.act(world.c, lambda records, moment, cid=cid: world.c.machine.on_reply(
            records, moment, establish.opening_conversation(cid), *m.pack(busy),
            m.EstablishRequest.PCMD))
    world.run()
    world.retry()
    assert all(isinstance(world.c.wallet(cid), Idle) for cid in cids)
