# SPDX-License-Identifier: BSD-3-Clause
"""A verdict found elsewhere counts for exactly what it was found for."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import pytest

from offchain.crypto.issuer import IssuerKey
from offchain.protocol import messages as m
from offchain.protocol.claims import Claim, Unverified, Verdicts
from offchain.protocol.errors import ProtocolError, RefusalCode, Refused
from offchain.protocol.outbox import Request
from offchain.protocol.records import Table
from tests.protocol.world import World


def handle(world: World, request: Request, verdicts: Verdicts | None) -> tuple[int, bytes]:
    records = world.i.records.copy()
    reply, _ = world.i.machine.handle(
        records, world.moment(), request.pcmd, request.payload, verdicts)
    world.i.records = records
    return reply


def wanted(world: World, request: Request, verdicts: Verdicts | None = None) -> Claim:
    """The claim that a step stops at, before it has written anything."""
    records = world.i.records.copy()
    with pytest.raises(Unverified) as found:
        world.i.machine.handle(records, world.moment(), request.pcmd, request.payload,
                               {} if verdicts is None else verdicts)
    assert everything(records) == everything(world.i.records)
    return found.value.claim


def everything(records: Any) -> list[Any]:
    return [list(records.scan(table)) for table in Table]


def setup_request(world: World) -> Request:
    world.start_setup(world.c.cids()[0])
    (request,) = world.c.requests.values()
    return request


def altered(request: Request, **changes: Any) -> Request:
    message = replace(m.unpack(request.pcmd, request.payload), **changes)
    return Request(request.conversation, *m.pack(message))


def test_a_step_without_a_verdict_asks_for_it_and_leaves_nothing(world: World) -> None:
    request = setup_request(world)
    claim = wanted(world, request)
    reply = handle(world, request, {claim: claim.verdict(world.issuer)})
    assert isinstance(m.unpack(*reply), m.NanoRefundReply)
    # Answered once, it is not verified again.
    assert handle(world, request, {}) == reply


def test_every_proof_can_be_verified_elsewhere(world: World) -> None:
    """Sessions, hidden payments and closes, each proof of which is verified by its claim alone."""
    verified: list[str] = []
    original = world.i.machine.handle

    def elsewhere(records: Any, moment: Any, pcmd: int, payload: bytes) -> Any:
        verdicts: dict[Claim, str] = {}
        while True:
            try:
                return original(records, moment, pcmd, payload, verdicts)
            except Unverified as needed:
                sent = pickle.loads(pickle.dumps(needed.claim))
                assert sent == needed.claim
                verified.append(sent.verify.__name__)
                verdicts[needed.claim] = sent.verdict(world.issuer)

    world.i.machine.handle = elsewhere
    try:
        world.close(world.session(20))
        world.transfer(1_000)
        world.cash_out(world.r, world.r.cids()[0] >> 8)
    finally:
        del world.i.machine.handle
    assert set(world.c.refusals) <= {RefusalCode.NOT_YET}
    assert {"verify_nano_setup", "verify_nano_establish", "verify_nano_close", "verify_pay_payer",
            "verify_pay_payee"} <= set(verified)


@pytest.mark.parametrize("name", ["com", "commitment", "sigma", "k", "proof", "nonce", "nwpk"])
def test_a_verdict_serves_no_other_message(world: World, name: str) -> None:
    """Not even one of its bytes may differ from what was verified."""
    request = setup_request(world)
    claim = wanted(world, request)
    good = getattr(m.unpack(request.pcmd, request.payload), name)
    other = good + 1 if isinstance(good, int) else good[:-1] + bytes([good[-1] ^ 1])
    forged = altered(request, **{name: other})
    missing = wanted(world, forged, {claim: ""})
    assert missing != claim
    assert missing.verdict(world.issuer)
    with pytest.raises(Refused) as refused:
        handle(world, forged, {claim: "", missing: missing.verdict(world.issuer)})
    assert refused.value.code is RefusalCode.PROOF


def test_a_verdict_serves_no_other_context_and_no_other_key(world: World) -> None:
    claim = wanted(world, setup_request(world))
    elsewhere = replace(claim, arguments=(bytes(32), *claim.arguments[1:]))
    assert elsewhere != claim and hash(elsewhere) != hash(claim)
    assert elsewhere.verdict(world.issuer)
    assert claim.verdict(IssuerKey.generate())


def test_a_bad_verdict_refuses(world: World) -> None:
    request = setup_request(world)
    claim = wanted(world, request)
    with pytest.raises(Refused, match="no good") as refused:
        handle(world, request, {claim: "no good"})
    assert refused.value.code is RefusalCode.PROOF


def test_what_is_refused_for_less_needs_no_verdict(world: World) -> None:
    """Verifying is the dearest thing that a stranger can ask for."""
    request = setup_request(world)
    message = m.unpack(request.pcmd, request.payload)
    with pytest.raises(ProtocolError):
        handle(world, altered(request, terms=replace(message.terms, n=message.terms.n * 2)), {})
    claim = wanted(world, request)
    handle(world, request, {claim: ""})
    with pytest.raises(Refused) as refused:
        handle(world, altered(request, nwpk=message.nwpk + 1), {})
    assert refused.value.code is RefusalCode.REUSED
