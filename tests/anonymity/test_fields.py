# SPDX-License-Identifier: BSD-3-Clause
"""Every field is classified, behaves as classified, and joins nothing that it should not.

The population is of several clients with several wallets and sessions each, hidden payments,
cash-outs, refusals and claims, on the deployed contracts.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

import pytest

from monetor_chain.parameters import DEMO
from monetor_chain.statements import GROUP_ORDER
from offchain.crypto import possession, spending
from offchain.protocol import answering, cash_out, messages as m, wallet as wallets
from offchain.protocol.codec import Fixed, Many, Prefixed, UInt
from offchain.protocol.errors import ProtocolError
from tests.anonymity.conftest import Opened, known
from tests.anonymity.fields import (
    CALL_TYPES,
    CALLS,
    EVENTS,
    MESSAGE_TYPES,
    MESSAGES,
    TABLE,
    Tells,
    declared,
    values,
)
from tests.anonymity.observed import (
    PIECE,
    ObservedWorld,
    Seen,
    knots,
    pieces,
    repeated,
    unexplained,
)
from tests.protocol.world import CLIENT_DEPOSIT, Node

WIDE = {("NanoOffer", "intermediary"), ("Open", "key_hash"), ("Authorised", "kind"),
        ("Authorised", "public_key"), ("KeyRegistered", "key_hash"), ("KeyRegistered", "owner"),
        ("VaultChanged", "intermediary"), ("Opened", "key_hash")}
"""Values of 16 bytes or more that are the same for everybody: all are the intermediary's."""


# --- The table is whole


@pytest.mark.parametrize(("table", "types"), [(MESSAGES, MESSAGE_TYPES), (CALLS, CALL_TYPES)],
                         ids=["messages", "calls"])
def test_every_field_is_classified(table: dict[str, dict[str, Tells]],
                                   types: dict[str, type[Any]]) -> None:
    assert set(table) == set(types)
    for name, kind in types.items():
        assert set(table[name]) == set(declared(kind)), name


def test_every_field_of_every_event_is_classified(world: ObservedWorld) -> None:
    found = {one.event_name: {field["name"] for field in one.abi["inputs"]}
             for one in world.stage.ledger.events}
    assert {name: set(fields) for name, fields in EVENTS.items()} == found


def width(hint: Any) -> int:
    """The bytes of a field, at most."""
    rule = hint.__metadata__[0] if hasattr(hint, "__metadata__") else None
    match rule:
        case UInt() | Fixed():
            return int(rule.size)
        case Prefixed() | Many():
            return 1 << 16
    return 8


@pytest.mark.parametrize("name", sorted({**MESSAGE_TYPES, **CALL_TYPES}))
def test_what_tells_nothing_is_wide_and_what_everybody_shares_is_narrow(name: str) -> None:
    """A value of 16 bytes could name somebody; a smaller one cannot be told from a guess."""
    for field, hint in declared({**MESSAGE_TYPES, **CALL_TYPES}[name]).items():
        if TABLE[name][field] in (Tells.NETWORK, Tells.AMOUNT, Tells.TIME):
            assert width(hint) < PIECE or (name, field) in WIDE or field == "channels", field
        elif TABLE[name][field] is Tells.NOTHING:
            assert width(hint) >= 32, field


# --- A population


def refused_setup(world: ObservedWorld, node: Node, cid: int) -> None:
    """A setup that the intermediary refuses, and the next one out of the same wallet."""
    # The two hold different sets of parameters, as around a change of epoch.
    world.parameters = {DEMO.epoch_at(world.now): replace(DEMO, price=101)}
    world.start_setup(cid, node)
    world.parameters = {}
    world.run()
    assert node.refusals and wallets.idle(node.records, cid).shown


def population(world: ObservedWorld) -> list[bytes]:
    """Several clients, wallets, sessions and payments; hash(nT) of the sessions."""
    world.open(world.e, deposit=CLIENT_DEPOSIT, fund=0, count=2)
    first, second = world.c.cids()
    stranger = [cid for cid in world.e.cids() if world.e.balance(cid) == CLIENT_DEPOSIT]
    payee = next(cid for cid in world.e.cids() if cid not in stranger)
    sessions = [
        world.run_session(world.c, first, 5), world.run_session(world.e, stranger[0], 18),
        world.run_session(world.c, second, 0)]
    refused_setup(world, world.c, first)
    sessions += [world.run_session(world.c, first, 17)]
    world.transfer(700, second, payee)
    sessions += [world.run_session(world.c, second, 16)]
    world.transfer(0, first, payee)
    # Nobody joins this one.
    world.close_client(lonely := world.setup(first))
    sessions += [lonely, world.run_session(world.e, stranger[1], 33)]
    world.cash_out(world.c, first >> 8)
    world.cash_out(world.r, world.r.cids()[0] >> 8)
    world.act(world.e, lambda records, moment: world.e.machine.post_claim(records, stranger[0]))
    world.run()
    unfinished = world.setup(stranger[1], world.e)
    world.act(world.e, lambda records, moment: world.e.machine.post_claim(records, stranger[1]))
    world.run()
    assert not world.c.reverted + world.e.reverted + world.r.reverted + world.i.reverted
    return [*sessions, unfinished]


@pytest.fixture(scope="module")
def lived(opened: Opened) -> tuple[list[bytes], dict[str, list[Seen]]]:
    """hash(nT) of a population's sessions, and what everybody saw of its life."""
    with known(opened) as world:
        return population(world), {by: world.seen(by) for by in "IRL"}


Lived = tuple[list[bytes], dict[str, list[Seen]]]


@pytest.mark.parametrize("by", ["I", "R", "L"])
def test_nothing_is_joined_that_the_documentation_does_not_name(lived: Lived, by: str) -> None:
    everything = lived[1][by]
    assert len(everything) > 20
    assert repeated(everything) == []
    assert unexplained(everything) == []


def test_the_intermediary_tells_sessions_payments_and_accounts_apart(lived: Lived) -> None:
    """As many heaps as there are things: nothing joins, and nothing that belongs together is
    overlooked."""
    sessions, seen = lived
    heaps = knots(seen["I"])
    with_session = [heap for heap in heaps
                    if any(one.kind == "session" for one in heap.things)]
    assert len(with_session) == len(sessions) == 8
    joined = [heap for heap in with_session if len({one.kind for one in heap.things}) > 1]
    assert len(joined) == 1, "the unfinished session that was posted, and no other"
    assert "NanoRefund" in {kind for one in joined[0].seen for kind in one.kinds}


def test_the_relay_sees_terms_and_preimages_only(world: ObservedWorld) -> None:
    """What a client tells a relay and what it tells the intermediary share nT and nothing else."""
    world.log.clear()
    world.posted.clear()
    terms_hash = world.setup(world.c.cids()[0])
    world.pay_from(world.c, terms_hash, 20)
    world.close_relay(terms_hash)
    world.close_client(terms_hash)
    told: dict[str, set[bytes]] = {"I": set(), "R": set()}
    for seen in world.seen("C"):
        (other,) = seen.by - {"C"}
        told[other] |= {piece for piece, _ in pieces(seen)}
        if other == "R":
            assert set(seen.kinds) <= {"NanoOffer", "NanoPayment", "NanoAccepted"}
    (setup,) = (one for seen in world.seen("I") for one in seen.contents
                if isinstance(one, m.NanoSetupRequest))
    named = Seen(("NanoOffer",), (m.NanoOffer(setup.terms, bytes(32)),), frozenset())
    count = next(one for seen in world.seen("C") for one in seen.contents
                 if isinstance(one, m.ClientCloseCount))
    proved = Seen(("ClientCloseCount",), (count,), frozenset())
    assert told["I"] & told["R"] == {piece for one in (named, proved) for piece, _ in pieces(one)}


def test_no_session_is_offered_to_two_relays(world: ObservedWorld) -> None:
    """Two relays that were offered one nT would know that its client is the same."""
    terms_hash = world.setup(world.c.cids()[0])
    world.offer(terms_hash)
    world.wire.clear()
    with pytest.raises(ProtocolError, match="not ready to offer"):
        world.offer(terms_hash)


def test_what_everybody_shares_is_the_same_for_all(lived: Lived) -> None:
    found: dict[tuple[str, str], set[Any]] = defaultdict(set)
    for item in lived[1]["I"]:
        for kind, name, value in item.fields():
            if TABLE[kind][name] is Tells.NETWORK:
                found[kind, name].add(value)
    terms = {name: found["NanoSetupRequest", name] for name in declared(m.Terms, "terms.")
             if TABLE["NanoSetupRequest"][name] is Tells.NETWORK}
    refused = terms.pop("terms.delta_c") - {-DEMO.price}
    assert len(refused) <= 1, "only the attempt that was refused had another price"
    assert terms["terms.n"] == {DEMO.n} and terms["terms.delta_r"] == {DEMO.delta_r}
    # Nobody's expiry tells more than the epoch does.
    assert len(terms["terms.t_exp"]) == len(terms["terms.epoch"])


def test_a_refund_shares_nothing_with_the_sessions_before(world: ObservedWorld) -> None:
    """Out of an idle wallet, and out of one whose session is closed but not renewed."""
    first, second = world.c.cids()
    world.run_session(world.c, first, 3)
    terms_hash = world.setup(second)
    world.fault = lambda parcel: () if (
        parcel.kind == "request" and parcel.item.pcmd == m.ClientCloseReveal.PCMD) else (parcel,)
    world.close_client(terms_hash)
    assert isinstance(world.c.wallet(second), wallets.Renewing)
    for cid in (first, second):
        world.act(world.c, lambda records, moment, cid=cid: world.c.machine.post_claim(
            records, cid))
    world.run()
    for heap in knots(world.seen("I")):
        kinds = {one.kind for one in heap.things}
        assert not {"session", "group"} <= kinds
    refunds = [one for one in world.posted if one.kinds == ("Refund",)]
    assert len(refunds) == 2 and all(one.done for one in refunds)


# --- Controls: machines that leak on purpose


def same(value: Any) -> Any:
    return lambda *_: value


LEAKS: dict[str, list[tuple[Any, str, Any]]] = {
    "the token as it was issued, at cash-out": [(cash_out, "rerandomise", lambda token: token)],
    "the refund token as it was issued, on the ledger": [
        (wallets, "rerandomised", lambda call: call)],
    "the token as it was issued, in a session": [(possession, "random_scalar", same(1))],
    "one opening of com": [(spending, "random_scalar", same(GROUP_ORDER - 7))],
    # An honest intermediary refuses a nonce or lock that it knows; one that listens does not.
    "one nonce": [(wallets, "fresh_nonce", same(1 << 240)),
                  (answering, "require_unspent", same(None)),
                  (answering, "stored_answer", same(None))],
    "one lock": [(wallets, "fresh_secret", same(b"\x08" * 32)),
                 (answering, "require_fresh", same(None)), (answering, "require_live", same(None)),
                 (answering, "accept_secret", same(None))],
}


@pytest.mark.parametrize("leak", sorted(LEAKS))
def test_a_leak_joins_what_it_should_not(
        world: ObservedWorld, monkeypatch: pytest.MonkeyPatch, leak: str) -> None:
    for place, name, value in LEAKS[leak]:
        monkeypatch.setattr(place, name, value)
    first, second = world.c.cids()
    for cid, payments in ((first, 2), (first, 4), (second, 4)):
        world.run_session(world.c, cid, payments)
    world.act(world.c, lambda records, moment: world.c.machine.post_claim(records, second))
    world.run()
    world.cash_out(world.c, first >> 8)
    everything = world.seen("I")
    assert repeated(everything) or unexplained(everything)


# --- Lengths and counts


def shape(world: ObservedWorld) -> list[tuple[Any, ...]]:
    """Who said what to whom in how many bytes; a path is as long as the count in clear says."""
    found = []
    for one in world.log:
        message = m.unpack(one.pcmd, one.payload)
        path = sum(len(value) for name, value in values(message) if name == "path")
        if not isinstance(message, m.NanoPayment):
            found.append((one.source, one.target, type(message).__name__,
                          len(one.payload) - path, one.cells))
    return found


def test_sessions_look_alike_whatever_is_paid(world: ObservedWorld) -> None:
    shapes = set()
    for payments, deposit in ((0, 12_800), (1, 50_000), (15, 2**31 - 1), (16, 20_000),
                              (33, 12_800)):
        (cid,) = world.open(world.c, deposit=deposit, fund=0, count=1)
        world.log.clear()
        world.run_session(world.c, cid, payments)
        shapes.add(tuple(shape(world)))
    assert len(shapes) == 1


def test_hidden_payments_look_alike_whatever_is_paid(world: ObservedWorld) -> None:
    world.open(world.c, deposit=2**31 - 1, fund=0, count=1)
    shapes = set()
    for cid, amount in ((world.c.cids()[0], 0), (world.c.cids()[1], 30_000),
                        (world.c.cids()[0], 255)):
        world.log.clear()
        world.transfer(amount, cid)
        shapes.add(tuple(shape(world)))
    assert len(shapes) == 1


@pytest.mark.parametrize("levels", [0, *range(1, 15)])
def test_a_close_takes_as_many_cells_at_any_count_and_any_n(levels: int) -> None:
    """The path is the only part of a close whose length depends on the count."""
    path = (bytes(32),) * levels
    proof = bytes(32 * 8)
    close = m.RelayCloseRequest(bytes(32), 16, bytes(32), path, bytes(96), bytes(96), proof)
    count = m.ClientCloseCount(16, bytes(32), path)
    assert -(-len(m.pack(close)[1]) // 495) == 2
    assert -(-len(m.pack(count)[1]) // 495) == 1
