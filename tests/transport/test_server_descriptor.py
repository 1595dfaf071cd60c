# SPDX-License-Identifier: BSD-3-Clause
"""A router's descriptor, checked by hand and by stem."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from stem.descriptor.server_descriptor import RelayDescriptor

from offchain.transport.certificates import CertType, parse_ed25519_cert
from offchain.transport.errors import ProtocolViolation
from offchain.transport.exit_policy import ExitPolicy
from offchain.transport.identity import RouterIdentity
from offchain.transport.server_descriptor import (
    DescriptorError,
    PaidTerms,
    paid_terms,
    write_server_descriptor,
)

NOW = 1_800_000_000.0
PAID = PaidTerms(31337, bytes(range(20)), bytes(range(20, 40)), (bytes(32), bytes(range(32))))
POLICY = ExitPolicy(["127.0.0.0/8:80", "10.1.2.3:1000-2000", "[::1]:*", "*:443"])


def write(identity, **options):
    return write_server_descriptor(
        identity, identity.info("paid1", "127.0.0.1", 9001), now=NOW, exit_policy=POLICY,
        bandwidth=1_000_000, **options)


@pytest.fixture(scope="module")
def text(identities):
    return write(identities[0], is_directory=True, paid=PAID, uptime=7)


def blocks(text, title):
    found = re.findall(rf"-----BEGIN {title}-----\n(.*?)-----END", text, re.DOTALL)
    return [base64.b64decode(one) for one in found]


def test_stem_reads_what_it_says(identities, text):
    """stem validates the fingerprint, the RSA signature and the certificate while it reads."""
    found = RelayDescriptor(text.encode(), validate=True)
    one = identities[0]
    assert (found.nickname, found.address, found.or_port) == ("paid1", "127.0.0.1", 9001)
    assert found.fingerprint == one.rsa_fingerprint.hex().upper()
    assert base64.b64decode(found.ed25519_master_key + "=") == one.ed25519_identity
    assert base64.b64decode(found.ntor_onion_key) == one.ntor_key
    assert found.published.timestamp() and str(found.published) == "2027-01-15 08:00:00"
    assert (found.uptime, found.observed_bandwidth) == (7, 1_000_000)
    assert found.protocols == {
        "Cons": [1, 2], "Desc": [1, 2], "FlowCtrl": [1], "Link": [4, 5], "LinkAuth": [3],
        "Microdesc": [1, 2], "Relay": [2], "DirCache": [2]}
    assert "tunnelled-dir-server" in text
    assert paid_terms(found.get_unrecognized_lines()) == PAID
    assert found.exit_policy.can_exit_to("127.0.0.1", 80)
    assert found.exit_policy.can_exit_to("10.1.2.3", 1500)
    assert found.exit_policy.can_exit_to("8.8.8.8", 443)
    assert not found.exit_policy.can_exit_to("8.8.8.8", 80)


def test_a_relay_that_is_no_directory_and_unpaid_says_neither(identities):
    text = write(identities[0])
    assert "DirCache" not in text and "tunnelled" not in text and "monetor-paid" not in text


def test_both_signatures_cover_everything_before_them(identities, text):
    one = identities[0]
    head, _, rest = text.partition("router-sig-ed25519 ")
    signed = head + "router-sig-ed25519 "
    signature, _, last = rest.partition("\n")
    message = hashlib.sha256(b"Tor router descriptor signature v1" + signed.encode()).digest()
    (certificate, _) = (parse_ed25519_cert(each) for each in blocks(text, "ED25519 CERT"))
    assert certificate.kind == CertType.IDENTITY_SIGNING
    certificate.check(one.ed25519_identity, NOW)
    Ed25519PublicKey.from_public_bytes(certificate.key).verify(
        base64.b64decode(signature + "=="), message)
    assert last.startswith("router-signature\n")
    whole = signed + signature + "\nrouter-signature\n"
    recovered = one.rsa.public_key().recover_data_from_signature(
        blocks(text, "SIGNATURE")[0], padding.PKCS1v15(), None)
    assert recovered == hashlib.sha1(whole.encode()).digest()


def edwards(u_bytes, sign):
    """The Ed25519 key of a curve25519 key, by the formula of cert-spec: y = (u - 1) / (u + 1)."""
    p = 2**255 - 19
    u = int.from_bytes(u_bytes, "little")
    y = (u - 1) * pow(u + 1, -1, p) % p
    return (y | sign << 255).to_bytes(32, "little")


def test_the_onion_key_vouches_for_the_identity():
    """Over several keys, as the sign bit differs from key to key."""
    signs = set()
    one = RouterIdentity.generate()
    for _ in range(8):
        one = RouterIdentity(one.rsa, one.ed25519, X25519PrivateKey.generate())
        text = write(one)
        sign = int(re.search(r"^ntor-onion-key-crosscert ([01])$", text, re.MULTILINE)[1])
        certificate = parse_ed25519_cert(blocks(text, "ED25519 CERT")[1])
        assert certificate.kind == CertType.NTOR_CROSS == 10
        assert certificate.key == one.ed25519_identity
        certificate.check(edwards(one.ntor_key, sign), NOW)
        with pytest.raises(ProtocolViolation, match="bad signature"):
            certificate.check(edwards(one.ntor_key, 1 - sign), NOW)
        signs.add(sign)
        if len(signs) == 2:
            return
    raise AssertionError("eight keys with one sign: less than one in a hundred")


def test_paid_terms():
    assert PaidTerms.parse(PAID.line()) == PAID
    assert PaidTerms.parse(PAID.line() + " later=yes") == PAID, "newer arguments are skipped"
    none = PaidTerms(1, bytes(20), bytes(20), ())
    assert PaidTerms.parse(none.line()) == none
    for broken in ("", "monetor-paid", "monetor-paid 2 " + PAID.line().partition(" 1 ")[2],
                   PAID.line().replace("chain=31337", "chain=x"),
                   PAID.line().replace("ledger=00", "ledger="),
                   PAID.line().replace("account=", "acount="),
                   PAID.line() + "00", PAID.line().replace("monetor-paid", "monetor-free")):
        with pytest.raises(DescriptorError):
            PaidTerms.parse(broken)
    assert paid_terms(["bridging 1", "monetor-paid nonsense"]) is None
    assert paid_terms(["x", none.line()]) == none


def test_policies_in_descriptors():
    assert POLICY.lines() == ("accept 127.0.0.0/8:80", "accept 10.1.2.3/32:1000-2000",
                              "accept *:443", "reject *:*")
    assert ExitPolicy.reject_all().lines() == ("reject *:*",)
    assert ExitPolicy(["*:*"]).lines() == ("accept *:*", "reject *:*")
    lines = ExitPolicy(["public:443", "10.1.2.3:80"]).lines()
    # In a descriptor the first line that fits decides.
    assert lines[0] == "accept 10.1.2.3/32:80" and lines[-2:] == ("accept *:443", "reject *:*")
    assert "reject 192.168.0.0/16:*" in lines[1:-2]
