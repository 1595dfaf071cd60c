# SPDX-License-Identifier: BSD-3-Clause
"""Who is at the other end of a link: keys, certificates, and the handshake around them."""

from __future__ import annotations

import hashlib
import stat
import time

import pytest

from offchain.transport import certificates as certs
from offchain.transport.cell import CellParser, Command, encode_fixed, encode_variable
from offchain.transport.errors import DestroyReason, ProtocolViolation, TransportError
from offchain.transport.identity import RouterIdentity, RouterInfo, pkcs1
from offchain.transport.link import (
    Initiating,
    LinkHandshake,
    Responding,
    choose_version,
    encode_versions,
)

HOUR = 3600


def test_recorded_relay_proves_its_identity(vectors):
    """The CERTS cell that a tor relay sent in 2018, checked as of then."""
    v = vectors("link_cells")
    parser = CellParser()
    parser.feed(bytes.fromhex(v["recorded_link"]))
    parser.next_cell()
    body = parser.next_cell().body
    tls_cert = certs.decode_certs(body)[certs.CertType.LINK_X509]
    proven = certs.check_responder(body, tls_cert, v["recorded_at"])
    assert proven.ed25519_identity.hex().startswith("1aa5b3bd88b143")  # stem's own test says so
    with pytest.raises(ProtocolViolation, match="another TLS"):
        certs.check_responder(body, tls_cert + b"\0", v["recorded_at"])
    with pytest.raises(ProtocolViolation, match="expired"):
        certs.check_responder(body, tls_cert, v["recorded_at"] + 30 * 24 * HOUR)


def test_own_certificates(identities):
    one, other, _ = identities
    now = time.time()
    body = certs.responder_certs(one, now)
    proven = certs.check_responder(body, one.link_cert, now)
    assert (proven.rsa_fingerprint, proven.ed25519_identity) == (
        one.rsa_fingerprint, one.ed25519_identity)
    with pytest.raises(ProtocolViolation, match="another TLS"):
        certs.check_responder(body, other.link_cert, now)
    with pytest.raises(ProtocolViolation, match="expired"):
        certs.check_responder(body, one.link_cert, now + 1001 * HOUR)
    mine, theirs = certs.decode_certs(body), certs.decode_certs(certs.responder_certs(other, now))
    for kind in mine:
        lacking = {k: c for k, c in mine.items() if k != kind}
        with pytest.raises(ProtocolViolation, match="lacks"):
            certs.check_responder(certs.encode_certs(list(lacking.items())), one.link_cert, now)
        swapped = {**mine, kind: theirs[kind]}
        with pytest.raises(ProtocolViolation):
            certs.check_responder(certs.encode_certs(list(swapped.items())), one.link_cert, now)
        for at in (0, 10, len(mine[kind]) // 2, -1):
            spoiled = bytearray(mine[kind])
            spoiled[at] ^= 1
            changed = {**mine, kind: bytes(spoiled)}
            with pytest.raises(ProtocolViolation):
                certs.check_responder(certs.encode_certs(list(changed.items())),
                                      one.link_cert, now)


def test_cross_certificate_is_checked_in_full(identities):
    one = identities[0]
    key, ed25519 = one.rsa.public_key(), one.ed25519_identity
    now = time.time()
    good = certs.encode_cross_cert(one, now)
    certs.check_cross_cert(good, key, ed25519, now)
    with pytest.raises(ProtocolViolation, match="expired"):
        certs.check_cross_cert(good, key, ed25519, now + 1001 * HOUR)
    prolonged = good[:32] + (int.from_bytes(good[32:36], "big") + 9).to_bytes(4, "big") + good[36:]
    with pytest.raises(ProtocolViolation, match="something else"):
        certs.check_cross_cert(prolonged, key, ed25519, now)
    with pytest.raises(ProtocolViolation, match="another key"):
        certs.check_cross_cert(good, key, bytes(32), now)


def test_identity_certificate_has_its_time(identities):
    der, now = identities[0].identity_cert, time.time()
    certs._rsa_identity(der, now)
    for other in (now - 2 * 24 * HOUR, now + 301 * 24 * HOUR):
        with pytest.raises(ProtocolViolation, match="not valid now"):
            certs._rsa_identity(der, other)


def test_unknown_extension_that_matters_is_refused(identities):
    cert = bytearray(certs.encode_ed25519_cert(
        certs.CertType.IDENTITY_SIGNING, 1, bytes(32), identities[0].ed25519, now=0,
        name_signer=True))
    certs.parse_ed25519_cert(bytes(cert))
    cert[42] = 9  # ExtType
    certs.parse_ed25519_cert(bytes(cert))
    cert[43] = 1  # ExtFlags: affects validation
    with pytest.raises(ProtocolViolation, match="not understood"):
        certs.parse_ed25519_cert(bytes(cert))


def test_identity_is_kept_for_its_owner_only(tmp_path, identities):
    one = identities[0]
    one.save(tmp_path / "keys")
    again = RouterIdentity.load(tmp_path / "keys")
    assert again.info("n", "127.0.0.1", 1) == one.info("n", "127.0.0.1", 1)
    for file in (tmp_path / "keys").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with pytest.raises(TransportError):
        RouterIdentity.load(tmp_path / "elsewhere")


def test_router_info_round_trip(identities):
    info = identities[0].info("relay", "127.0.0.1", 9001)
    assert RouterInfo.from_dict(info.to_dict()) == info
    assert info.rsa_fingerprint == identities[0].rsa_fingerprint
    for broken in ({}, {**info.to_dict(), "ntor_key": "00"}, {**info.to_dict(), "port": 0}):
        with pytest.raises(TransportError):
            RouterInfo.from_dict(broken)


# --- the handshake


def bound_to(secret):
    return lambda context: hashlib.sha256(secret + context).digest()


class _Pair:
    def __init__(self, identity, target=None, caller=None, secrets=(b"tls", b"tls")):
        info = identity.info("r", "127.0.0.1", 1)
        now = time.time()
        self.a = LinkHandshake(Initiating(target or info.target, identity.link_cert, caller,
                                          bound_to(secrets[0])), now=now)
        self.b = LinkHandshake(Responding(identity, bound_to(secrets[1])), now=now)
        self.to_a, self.to_b = CellParser(), CellParser()

    def run(self):
        self.to_b.feed(self.a.start())
        self.to_a.feed(self.b.step(self.to_b))
        self.to_b.feed(self.a.step(self.to_a))
        self.b.step(self.to_b)


def test_handshake(identities):
    pair = _Pair(identities[0])
    pair.run()
    assert pair.a.done and pair.b.done and pair.a.version == pair.b.version == 5
    assert pair.a.peer.ed25519_identity == identities[0].ed25519_identity
    assert pair.b.peer is None, "who called has not said who it is"


def _authenticating(identities):
    """A link from the second router to the first, and what the second answers the first with."""
    pair = _Pair(identities[0], caller=identities[1])
    pair.to_b.feed(pair.a.start())
    pair.to_a.feed(pair.b.step(pair.to_b))
    answer = CellParser()
    answer.id_len = 4
    answer.feed(pair.a.step(pair.to_a))
    cells = []
    while (cell := answer.next_cell()) is not None:
        encode = encode_fixed if cell.command == Command.NETINFO else encode_variable
        cells.append(encode(0, cell.command, cell.body))
    return pair, cells


def test_a_router_that_calls_says_who_it_is(identities):
    pair, cells = _authenticating(identities)
    assert [cell[4] for cell in cells] == [
        Command.CERTS, Command.AUTHENTICATE, Command.NETINFO]
    pair.to_b.feed(b"".join(cells))
    pair.b.step(pair.to_b)
    assert pair.a.done and pair.b.done
    assert pair.b.peer.rsa_fingerprint == identities[1].rsa_fingerprint
    assert pair.b.peer.ed25519_identity == identities[1].ed25519_identity
    assert pair.a.peer.ed25519_identity == identities[0].ed25519_identity


def test_authentication_layout(identities):
    """The order of fields in tor-spec, "AUTHENTICATE cells", and that the signature covers all."""
    pair, cells = _authenticating(identities)
    one, two = identities[:2]
    body = cells[1][7:]
    size = 8 + 7 * 32 + 32 + 24 + 64
    assert body[:4] == b"\0\3" + size.to_bytes(2, "big") and len(body) == 4 + size
    signed = body[4:-64]
    rsa = [hashlib.sha256(pkcs1(one.rsa.public_key())).digest() for one in (two, one)]
    assert signed[:8 + 128] == (b"AUTH0003" + rsa[0] + rsa[1] + two.ed25519_identity
                                + one.ed25519_identity)
    assert signed[8 + 192 : 8 + 224] == hashlib.sha256(one.link_cert).digest()
    assert signed[8 + 224 : 8 + 256] == bound_to(b"tls")(rsa[0])
    two.link_auth.public_key().verify(body[-64:], signed)


def test_an_authentication_is_good_for_one_link(identities):
    """Replayed on another link, or bound to another TLS session, it proves nothing."""
    _, recorded = _authenticating(identities)
    pair, fresh = _authenticating(identities)
    pair.to_b.feed(fresh[0] + recorded[1])
    with pytest.raises(ProtocolViolation, match="another link"):
        pair.b.step(pair.to_b)
    pair = _Pair(identities[0], caller=identities[1], secrets=(b"one", b"other"))
    with pytest.raises(ProtocolViolation, match="another link"):
        pair.run()


@pytest.mark.parametrize("at", [0, 4 + 8, 4 + 200, -65, -1])
def test_a_spoiled_authentication_is_refused(identities, at):
    pair, cells = _authenticating(identities)
    body = bytearray(cells[1][7:])
    body[at] ^= 1
    pair.to_b.feed(cells[0] + encode_variable(0, Command.AUTHENTICATE, bytes(body)))
    with pytest.raises(ProtocolViolation, match="AUTHENTICATE"):
        pair.b.step(pair.to_b)


def test_certificates_alone_prove_nothing(identities):
    pair, cells = _authenticating(identities)
    pair.to_b.feed(cells[0] + cells[2])
    pair.b.step(pair.to_b)
    assert pair.b.done and pair.b.peer is None
    pair, cells = _authenticating(identities)
    pair.to_b.feed(cells[1])
    with pytest.raises(ProtocolViolation, match="does not belong"):
        pair.b.step(pair.to_b)


def test_another_key_cannot_authenticate(identities):
    """Certificates of one router, signed for by another."""
    pair, cells = _authenticating(identities)
    thief = identities[2]
    body = cells[1][7:]
    forged = body[:-64] + thief.link_auth.sign(body[4:-64])
    pair.to_b.feed(cells[0] + encode_variable(0, Command.AUTHENTICATE, forged))
    with pytest.raises(ProtocolViolation, match="bad signature"):
        pair.b.step(pair.to_b)


def test_own_certificates_of_an_initiator(identities):
    one, now = identities[0], time.time()
    body = certs.initiator_certs(one, now)
    proven, key = certs.check_initiator(body, now)
    assert proven.ed25519_identity == one.ed25519_identity
    assert key == one.link_auth.public_key().public_bytes_raw()
    with pytest.raises(ProtocolViolation, match="expired"):
        certs.check_initiator(body, now + 1001 * HOUR)
    with pytest.raises(ProtocolViolation, match="lacks"):
        certs.check_initiator(certs.responder_certs(one, now), now)


def test_client_tells_no_time_and_no_address(identities):
    pair = _Pair(identities[0])
    pair.to_b.feed(pair.a.start())
    pair.to_a.feed(pair.b.step(pair.to_b))
    pair.to_b.feed(pair.a.step(pair.to_a))
    netinfo = pair.to_b.next_cell()
    assert netinfo.command == Command.NETINFO
    assert netinfo.body[:4] == bytes(4) and netinfo.body[4:11] == b"\4\4\x7f\0\0\1\0"


@pytest.mark.parametrize("field", ["rsa_fingerprint", "ed25519_identity"])
def test_another_router_is_not_accepted(identities, field):
    info = identities[0].info("r", "127.0.0.1", 1)
    wrong = RouterInfo(**{**{k: getattr(info, k) for k in RouterInfo.__dataclass_fields__},
                          field: getattr(identities[1], field)})
    pair = _Pair(identities[0], wrong.target)
    with pytest.raises(ProtocolViolation) as caught:
        pair.run()
    assert caught.value.reason is DestroyReason.OR_IDENTITY


def test_versions():
    assert choose_version(b"\0\3\0\4\0\5\0\6") == 5
    assert choose_version(b"\0\4") == 4
    for body in (b"", b"\0\3", b"\0"):
        with pytest.raises(ProtocolViolation):
            choose_version(body)
    assert encode_versions() == b"\0\0\7\0\4\0\4\0\5"


@pytest.mark.parametrize("cell", [
    encode_fixed(0, Command.NETINFO, b""),
    encode_fixed(1, Command.CREATE2, b""),
    encode_fixed(1, Command.RELAY, b""),
    encode_variable(0, Command.AUTH_CHALLENGE, bytes(36)),
    encode_variable(0, Command.VERSIONS, b"\0\5"),
    encode_variable(7, Command.CERTS, b"\0"),
])
def test_nothing_else_belongs_between_versions_and_certs(identities, cell):
    pair = _Pair(identities[0])
    pair.a.start()
    pair.to_a.feed(encode_versions() + cell)
    with pytest.raises(ProtocolViolation):
        pair.a.step(pair.to_a)


def test_first_cell_must_be_versions_and_padding_is_bounded(identities):
    pair = _Pair(identities[0])
    pair.to_b.feed(b"\0\0" + bytes([Command.NETINFO]) + bytes(509))
    with pytest.raises(ProtocolViolation):
        pair.b.step(pair.to_b)
    pair = _Pair(identities[0])
    padding = encode_variable(0, Command.VPADDING, b"")
    pair.to_b.feed(pair.a.start() + 32 * padding)
    pair.b.step(pair.to_b)
    pair.to_b.feed(padding)
    with pytest.raises(ProtocolViolation, match="padding"):
        pair.b.step(pair.to_b)


def test_cross_certificate_is_pkcs1_without_digest_info(identities):
    one = identities[0]
    cross = certs.encode_cross_cert(one, 0)
    digest = hashlib.sha256(b"Tor TLS RSA/Ed25519 cross-certificate" + cross[:36]).digest()
    numbers = one.rsa.public_key().public_numbers()
    block = pow(int.from_bytes(cross[37:], "big"), numbers.e, numbers.n).to_bytes(128, "big")
    assert block == b"\0\1" + b"\xff" * (128 - 3 - 32) + b"\0" + digest
