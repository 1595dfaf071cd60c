# SPDX-License-Identifier: BSD-3-Clause
"""Whom a reader of a real consensus believes, on one that stock tor wrote, and how it chooses."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from offchain.transport.authenticate import LinkFacts, check_authenticate
from offchain.transport.certificates import ProvenIdentity, check_initiator
from offchain.transport.errors import ProtocolViolation
from offchain.transport.identity import RouterInfo
from offchain.transport.network_status import (
    DirectoryDocumentError,
    ListedRouter,
    NetworkStatus,
    choose_hops,
    read_consensus,
)
from offchain.transport.server_descriptor import PaidTerms


class Recorded:
    """A private network's documents."""

    def __init__(self, v) -> None:
        self.consensus, self.certificates, self.descriptors = (
            v[name].encode() for name in ("consensus", "certificates", "descriptors"))
        self.authority = bytes.fromhex(v["authority"])
        self.at = v["recorded_at"]
        self.routers, self.paid = v["routers"], v["paid"]

    def read(self, *, authorities=None, now=None):
        return read_consensus(self.consensus, self.certificates, now=now or self.at,
                              authorities=authorities or {self.authority})


@pytest.fixture
def recorded(vectors):
    return Recorded(vectors("private_network"))


def test_recorded_network(recorded):
    status = recorded.read().with_descriptors(recorded.descriptors)
    found = {one.info.nickname: one for one in status.routers}
    assert set(found) == {"authority", "stock0", "stock1", "ours0"}
    for name, info in recorded.routers.items():
        assert found[name].info == RouterInfo.from_dict(info)
    assert found["ours0"].paid == PaidTerms.parse(recorded.paid)
    assert found["stock0"].paid is None
    assert found["ours0"].accepts_streams and not found["authority"].accepts_streams
    assert "Guard" in found["ours0"].flags and found["ours0"].bandwidth == 10_000
    assert status.weights["Wmm"] == 10_000
    assert status.valid_after <= recorded.at <= status.valid_until


def test_a_consensus_has_its_time(recorded):
    status = recorded.read()
    for now in (status.valid_after - 1, status.valid_until + 1):
        with pytest.raises(DirectoryDocumentError, match="not valid now"):
            recorded.read(now=now)


def test_who_must_have_signed(recorded):
    other, another = bytes(20), bytes(range(20))
    for authorities in ({other}, {recorded.authority, other},
                        {recorded.authority, other, another}):
        with pytest.raises(DirectoryDocumentError, match="is signed by"):
            recorded.read(authorities=authorities)


def spoil(data, old, new):
    assert data.count(old) >= 1
    return data.replace(old, new, 1)


def test_a_spoiled_consensus_is_refused(recorded):
    good = recorded.consensus
    for old, new in ((b"Running", b"Running Fast"), (b"consensus-method", b"consensus-Method"),
                     (b"-----BEGIN SIGNATURE-----\n", b"-----BEGIN SIGNATURE-----\nAAAA")):
        recorded.consensus = spoil(good, old, new)
        with pytest.raises(DirectoryDocumentError, match="signed by 0 of 1"):
            recorded.read()
    for junk in (b"", b"network-status-version 3\n", good.partition(b"directory-signature")[0]):
        recorded.consensus = junk
        with pytest.raises(DirectoryDocumentError, match="no signatures"):
            recorded.read()


def test_what_is_behind_the_signatures_is_not_read(recorded):
    before = recorded.read()
    assert "x" not in before.parameters
    recorded.consensus += b"directory-signature 00 00\nparams x=1\n"
    assert recorded.read() == before


def test_signing_keys_are_certified_for_a_time(recorded):
    good = recorded.certificates
    for old, new in ((b"dir-key-expires 20", b"dir-key-expires 21"),
                     (b"dir-signing-key\n", b"dir-signing-key \n"),
                     (b"dir-key-certification\n", b"dir-key-certificatiom\n")):
        recorded.certificates = spoil(good, old, new)
        with pytest.raises(DirectoryDocumentError, match="signed by 0 of 1"):
            recorded.read()
    recorded.certificates = good
    with pytest.raises(DirectoryDocumentError, match="signed by 0 of 1"):
        recorded.read(now=recorded.at + 400 * 86_400)


def test_a_descriptor_is_the_one_that_the_consensus_names(recorded):
    signed = recorded.read()
    assert len(signed.descriptor_digests()) == 4
    changed = spoil(recorded.descriptors, b"monetor-paid 1 chain=31337",
                    b"monetor-paid 1 chain=31338")
    assert "ours0" not in {one.info.nickname for one in signed.with_descriptors(changed).routers}
    assert signed.with_descriptors(b"").routers == ()
    assert signed.with_descriptors(b"router \xff\n" + recorded.descriptors[:500]).routers == ()


def test_a_stock_relays_authentication(vectors):
    """What tor 0.4.9 sent to a relay of ours, field by field."""
    v = vectors("authenticate")
    identity, key = check_initiator(bytes.fromhex(v["certs"]), v["recorded_at"])
    initiator, responder = (ProvenIdentity(*(bytes.fromhex(one) for one in v[name]))
                            for name in ("initiator", "responder"))
    assert (identity, key.hex()) == (initiator, v["link_auth"])
    facts = LinkFacts(initiator, responder, bytes.fromhex(v["responder_log"]),
                      bytes.fromhex(v["initiator_log"]), bytes.fromhex(v["tls_cert"]),
                      lambda context: bytes.fromhex(v["exported"]))
    body = bytes.fromhex(v["body"])
    check_authenticate(body, facts, key)
    for field, value in (("responder_log", bytes(32)), ("initiator_log", bytes(32)),
                         ("tls_cert", b""), ("binding", lambda context: bytes(32)),
                         ("initiator", responder), ("responder", initiator)):
        with pytest.raises(ProtocolViolation, match="another link"):
            check_authenticate(body, replace(facts, **{field: value}), key)
    with pytest.raises(ProtocolViolation, match="bad signature"):
        check_authenticate(body, facts, bytes(32))


# --- choosing


def router(name, flags="", bandwidth=10, paid=False, accepts=True):
    info = RouterInfo(name, "127.0.0.1", 1, name.encode().ljust(20), bytes(32), bytes(32))
    terms = PaidTerms(1, bytes(20), bytes(20), ()) if paid else None
    return ListedRouter(info, frozenset(flags.split()), bandwidth, accepts, terms)


def network(*routers, weights=None):
    return NetworkStatus(0, 1, {}, weights or {}, routers)


def test_every_hop_is_fit_for_its_place():
    status = network(router("g", "Guard"), router("e", "Exit"), router("m"),
                     router("bad", "Exit BadExit"), router("shut", "Exit", accepts=False))
    for _ in range(50):
        guard, middle, exit_ = choose_hops(status)
        assert (guard.nickname, exit_.nickname) == ("g", "e")
        assert middle.nickname in ("m", "bad", "shut")


def test_too_few_relays():
    for few in ((), (router("g", "Guard"), router("e", "Exit")),
                (router("g", "Guard"), router("m"), router("n")),
                (router("e", "Exit"), router("m"), router("n"))):
        with pytest.raises(DirectoryDocumentError, match="too few"):
            choose_hops(network(*few))


def test_paid_relays_only():
    names = [router(name, "Guard Exit", paid=name < "d") for name in "abcdef"]
    for _ in range(20):
        assert {one.nickname for one in choose_hops(network(*names), paid_only=True)} == set("abc")
    with pytest.raises(DirectoryDocumentError, match="too few"):
        choose_hops(network(*names[2:]), paid_only=True)


def test_hops_are_drawn_by_bandwidth_and_position_weight():
    """Middles of weight 1:3, and guards that the consensus gives no share of the middle."""
    weights = {"Wmg": 0, "Wmm": 10_000, "Wme": 0, "Wgg": 10_000, "Wee": 10_000}
    status = network(router("g", "Guard", 100), router("h", "Guard", 100), router("e", "Exit", 9),
                     router("m", "", 10), router("n", "", 30), weights=weights)
    drawn = Counter(choose_hops(status)[1].nickname for _ in range(4000))
    assert set(drawn) == {"m", "n"}
    # Six standard deviations of a binomial with p = 1/4.
    assert abs(drawn["m"] - 1000) < 6 * (4000 * 0.25 * 0.75) ** 0.5
