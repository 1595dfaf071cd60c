# SPDX-License-Identifier: BSD-3-Clause
"""What the intermediary sees of two sessions, two payments and a cash-out shares no fresh value.

Each check has controls: machines that leak on purpose, which it must catch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from monetor_chain.parameters import DEMO
from offchain.crypto import possession, proofs
from offchain.crypto.curve import decode_g2
from offchain.protocol import messages as m, moment as moments, nano_setup, wallet as wallets
from offchain.protocol.codec import encode
from tests.protocol.world import Sent, World

CHUNK = 16
"""Points, scalars, hashes and locks all start at multiples of this within their fields."""


def chunks(value: Any) -> Iterator[bytes]:
    """Everything of 16 bytes or more that a message holds, in pieces."""
    if dataclasses.is_dataclass(value):
        for one in dataclasses.fields(value):
            yield from chunks(getattr(value, one.name))
    elif isinstance(value, tuple):
        for one in value:
            yield from chunks(one)
    elif isinstance(value, bytes):
        for at in range(0, len(value) - CHUNK + 1, CHUNK):
            yield value[at:at + CHUNK]
    elif isinstance(value, int) and value >= 1 << 8 * CHUNK:
        yield value.to_bytes(32, "big")[:CHUNK]


def seen(log: list[Sent], *, by: str = "I") -> set[bytes]:
    """What a party sees in its messages; zeros stand for nothing."""
    found = {piece for one in log if by in (one.source, one.target)
             for piece in chunks(m.unpack(one.pcmd, one.payload))}
    return found - {bytes(CHUNK)}


def watch(world: World, action: Any) -> set[bytes]:
    world.log.clear()
    action()
    return seen(world.log)


def lives(world: World) -> list[set[bytes]]:
    """One wallet's session, payment and session, then its cash-out with the group's other one."""
    cid, other = world.c.cids()
    views = [
        watch(world, lambda: world.close(world.session(5, cid))),
        watch(world, lambda: world.transfer(700, cid)),
        watch(world, lambda: world.close(world.session(18, cid))),
        watch(world, lambda: world.close(world.session(0, other))),
        watch(world, lambda: world.cash_out(world.c, cid >> 8)),
    ]
    assert all(views)
    return views


def common(views: list[set[bytes]]) -> set[bytes]:
    return {piece for at, one in enumerate(views) for other in views[at + 1:]
            for piece in one & other}


def test_what_belongs_to_one_wallet_has_nothing_in_common(world: World) -> None:
    assert common(lives(world)) == set()


@pytest.mark.parametrize("leak", ["sigma", "nonce", "lock"])
def test_a_leak_is_caught(world: World, monkeypatch: pytest.MonkeyPatch, leak: str) -> None:
    if leak == "sigma":
        # The signature is shown as it was issued.
        monkeypatch.setattr(possession, "random_scalar", lambda: 1)
    elif leak == "nonce":
        monkeypatch.setattr(wallets, "fresh_nonce", lambda: 1 << 240)
    else:
        monkeypatch.setattr(wallets, "fresh_secret", lambda: b"\x08" * 32)
    first, second = world.c.cids()
    if leak == "nonce":
        for cid in (first, second):
            world.close(world.session(0, cid))
    if leak == "sigma":
        views = [watch(world, lambda: world.close(world.session(0, first))) for _ in range(2)]
    else:
        views = [watch(world, lambda cid=cid: world.setup(cid)) for cid in (first, second)]
    assert common(views)


def requests_of(log: list[Sent]) -> list[tuple[bytes, bytes]]:
    found = [m.unpack(one.pcmd, one.payload) for one in log
             if one.pcmd in (m.ClientCloseRequest.PCMD, m.RelayCloseRequest.PCMD,
                             m.PayerRequest.PCMD, m.PayeeRequest.PCMD)]
    return [(one.d_rt, one.d_pt) for one in found]


def nonces_of(log: list[Sent]) -> list[int]:
    return [m.unpack(one.pcmd, one.payload).nonce for one in log if one.pcmd in (
        m.NanoSetupRequest.PCMD, m.NanoEstablishRequest.PCMD, m.PayerRequest.PCMD,
        m.PayeeRequest.PCMD)]


def linked(world: World, pairs: list[tuple[bytes, bytes]], nonces: list[int]) -> int:
    """How many requests the intermediary can tie to a later nonce by their quotient."""
    public = world.issuer.public
    curve = public.curve
    marks = {curve.encode_g2(curve.mul_g2(public.request_base(2), nonce)) for nonce in nonces}
    quotients = [curve.add_g2(decode_g2(curve, d_pt, "D_pt"),
                              curve.neg_g2(decode_g2(curve, d_rt, "D_rt")))
                 for d_rt, d_pt in pairs]
    return sum(curve.encode_g2(one) in marks for one in quotients)


@pytest.mark.parametrize("blinded_alike", [False, True])
def test_requests_do_not_tell_the_next_nonce(
        world: World, monkeypatch: pytest.MonkeyPatch, blinded_alike: bool) -> None:
    if blinded_alike:
        # The control: one blinding for both requests of a wallet.
        drawn = proofs.random_scalar()
        monkeypatch.setattr(proofs, "random_scalar", lambda: drawn)
    cid = world.c.cids()[0]
    log: list[Sent] = []
    for _ in range(2):
        world.log.clear()
        world.close(world.session(1, cid))
        log += world.log
    found = linked(world, requests_of(log), nonces_of(log))
    assert found > 0 if blinded_alike else found == 0


def test_all_sessions_of_an_epoch_expire_together(
        world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def expiries() -> set[int]:
        found = set()
        for cid in world.c.cids():
            world.start_setup(cid)
            found.add(world.held(world.c).terms.t_exp)
            world.c.requests.clear()
            world.now += 7
        return found

    world.jump((DEMO.epoch_at(world.now) + 1) * DEMO.epoch + 1)
    saved = world.c.records.copy()
    assert len(expiries()) == 1
    world.c.records = saved
    monkeypatch.setattr(nano_setup, "expiry", lambda epoch, parameters: world.now + 660)
    assert len(expiries()) == 2, "the control: an expiry of its own for each session"
    assert moments.expiry(1, DEMO) == 2 * DEMO.epoch + DEMO.lifetime


def test_a_refund_shares_nothing_with_the_sessions_before(world: World) -> None:
    cid = world.c.cids()[0]
    views = [watch(world, lambda: world.close(world.session(5, cid))),
             watch(world, lambda: world.transfer(700, cid))]
    claim = wallets.claim(world.c.records, world.c.wallet(cid))
    shown = set(chunks(claim))
    assert shown and not any(shown & one for one in views)


def test_the_claim_of_an_unfinished_session_shares_its_setup_only(world: World) -> None:
    cid = world.c.cids()[0]
    before = watch(world, lambda: world.close(world.session(5, cid)))
    world.log.clear()
    terms_hash = world.session(3, cid)
    during = seen(world.log)
    claim = wallets.claim(world.c.records, world.c.wallet(cid))
    shown = set(chunks(claim)) - {bytes(CHUNK)}
    assert not shown & before
    setup = next(m.unpack(one.pcmd, one.payload) for one in world.log
                 if one.pcmd == m.NanoSetupRequest.PCMD)
    allowed = set(chunks(setup.terms)) | set(chunks(setup.nwpk)) | set(chunks(claim.nrt))
    assert shown & during <= allowed
    assert encode(setup.terms) and terms_hash


def test_the_relay_sees_terms_and_preimages_only(world: World) -> None:
    world.log.clear()
    terms_hash = world.session(20)
    by_relay = {piece for one in world.log if {one.source, one.target} == {"C", "R"}
                for piece in chunks(m.unpack(one.pcmd, one.payload))}
    by_intermediary = {piece for one in world.log if {one.source, one.target} == {"C", "I"}
                       for piece in chunks(m.unpack(one.pcmd, one.payload))}
    setup = next(m.unpack(one.pcmd, one.payload) for one in world.log
                 if one.pcmd == m.NanoSetupRequest.PCMD)
    assert by_relay & by_intermediary <= set(chunks(setup.terms)) | {bytes(CHUNK)}
    assert {one.pcmd for one in world.log if one.source == "C" and one.target == "R"} == {
        m.NanoOffer.PCMD, m.NanoPayment.PCMD}
    assert terms_hash
