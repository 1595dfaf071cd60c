# SPDX-License-Identifier: BSD-3-Clause
"""AUTHENTICATE: how a router that opened a link proves who it is (tor-spec, "AUTHENTICATE cells",
method 3, Ed25519-SHA256-RFC5705).

The initiator signs both identities, both transcripts of the handshake so far, the responder's TLS
certificate and keying material of the TLS session. So the signature is good for this link alone.
"""

from __future__ import annotations

import hashlib
import secrets
import struct
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from .certificates import ProvenIdentity
from .errors import ProtocolViolation

AUTH_ED25519_SHA256_RFC5705 = 3
EXPORTER_LABEL = b"EXPORTER FOR TOR TLS CLIENT BINDING AUTH0003"
EXPORTED_LEN = 32
_TYPE = b"AUTH0003"
_RANDOM_LEN, _SIGNATURE_LEN = 24, 64

Binding = Callable[[bytes], bytes]
"""Keying material (32 bytes) that the TLS session exports for a context (RFC 5705), under
`EXPORTER_LABEL`."""


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """What both ends of a link know of it once the initiator has sent its certificates.

    The logs are SHA-256 of all that one end has said: the responder up to AUTH_CHALLENGE, the
    initiator up to CERTS. `tls_cert` is the responder's (DER).
    """

    initiator: ProvenIdentity
    responder: ProvenIdentity
    responder_log: bytes
    initiator_log: bytes
    tls_cert: bytes
    binding: Binding

    def signed_part(self) -> bytes:
        """The beginning of the authentication, which both ends compute alike."""
        return b"".join([
            _TYPE, self.initiator.rsa_sha256, self.responder.rsa_sha256,
            self.initiator.ed25519_identity, self.responder.ed25519_identity,
            self.responder_log, self.initiator_log, hashlib.sha256(self.tls_cert).digest(),
            self.binding(self.initiator.rsa_sha256),
        ])


def encode_authenticate(facts: LinkFacts, link_auth: Ed25519PrivateKey) -> bytes:
    """Body of AUTHENTICATE, signed with the link authentication key of the initiator's CERTS."""
    body = facts.signed_part() + secrets.token_bytes(_RANDOM_LEN)
    body += link_auth.sign(body)
    return struct.pack(">HH", AUTH_ED25519_SHA256_RFC5705, len(body)) + body


def check_authenticate(body: bytes, facts: LinkFacts, link_auth: bytes) -> None:
    """Raise ProtocolViolation unless `body` authenticates the initiator of this very link.

    `link_auth` is the public key (32 bytes) that the initiator's certificates vouch for.
    """
    expected = facts.signed_part()
    size = len(expected) + _RANDOM_LEN + _SIGNATURE_LEN
    if len(body) < 4 + size or struct.unpack_from(">HH", body) != (
            AUTH_ED25519_SHA256_RFC5705, size):
        raise ProtocolViolation("AUTHENTICATE by another method, or cut short")
    signed, signature = body[4 : 4 + size - _SIGNATURE_LEN], body[4 + size - _SIGNATURE_LEN :]
    if not signed.startswith(expected):
        raise ProtocolViolation("AUTHENTICATE is for another link")
    try:
        Ed25519PublicKey.from_public_bytes(link_auth).verify(signature[:_SIGNATURE_LEN], signed)
    except (InvalidSignature, ValueError) as error:
        raise ProtocolViolation("AUTHENTICATE: bad signature") from error
