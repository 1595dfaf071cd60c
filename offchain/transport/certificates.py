# SPDX-License-Identifier: BSD-3-Clause
"""The certificates in a CERTS cell, and what they prove (tor-spec, "CERTS cells"; cert-spec).

The chain: the Ed25519 identity signs a signing key, which signs the digest of the TLS certificate;
the RSA identity signs the Ed25519 identity. So whoever holds the TLS key speaks for both.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import NoDigestInfo

from .errors import ProtocolViolation
from .identity import RouterIdentity, fingerprint, pkcs1

_LIFETIME_HOURS = 1000
_HOUR = 3600
ED25519_KEY, _X509_DIGEST = 1, 3
"""What a certificate certifies (cert-spec, "certified key types")."""
_TLS_KEY_TYPES = (ED25519_KEY, _X509_DIGEST)
"""C tor has long labelled the digest of its TLS certificate as an Ed25519 key."""
_EXT_SIGNING_KEY, _EXT_AFFECTS_VALIDATION = 4, 1
_SIGNATURE_LEN = 64
_CROSS_PREFIX = b"Tor TLS RSA/Ed25519 cross-certificate"
_RSA_MIN_BITS = 1024


class CertType(IntEnum):
    """Kinds of certificates (cert-spec, "List of certificate types")."""

    LINK_X509 = 1
    RSA_IDENTITY_X509 = 2
    IDENTITY_SIGNING = 4
    SIGNING_TLS = 5
    SIGNING_LINK_AUTH = 6
    RSA_CROSS = 7
    NTOR_CROSS = 10
    """The onion key's word for the identity; in descriptors, not in CERTS."""


@dataclass(frozen=True, slots=True)
class ProvenIdentity:
    """Who an end of a link has proven to be. `rsa_sha256` is another digest of the RSA key."""

    rsa_fingerprint: bytes
    ed25519_identity: bytes
    rsa_sha256: bytes

    @classmethod
    def of(cls, rsa: RSAPublicKey, ed25519_identity: bytes) -> ProvenIdentity:
        """The identity with these keys."""
        return cls(fingerprint(rsa), ed25519_identity, hashlib.sha256(pkcs1(rsa)).digest())


@dataclass(frozen=True, slots=True)
class Ed25519Cert:
    """A parsed certificate of cert-spec. `expires` is in seconds since the epoch."""

    kind: int
    expires: int
    key_type: int
    key: bytes
    signing_key: bytes
    """The signer that an extension names, empty without one."""
    signed: bytes
    signature: bytes

    def check(self, signer: bytes, now: float) -> None:
        """Raise ProtocolViolation unless `signer` (32 bytes) signed it and it is still valid."""
        if now >= self.expires:
            raise ProtocolViolation(f"certificate of type {self.kind} has expired")
        if self.signing_key and self.signing_key != signer:
            raise ProtocolViolation(f"certificate of type {self.kind} names another signer")
        try:
            Ed25519PublicKey.from_public_bytes(signer).verify(self.signature, self.signed)
        except (InvalidSignature, ValueError) as error:
            raise ProtocolViolation(f"certificate of type {self.kind}: bad signature") from error


class Signer(Protocol):
    """An Ed25519 private key, however it came about."""

    def sign(self, data: bytes, /) -> bytes:
        """64 bytes of signature."""


def encode_ed25519_cert(kind: CertType, key_type: int, key: bytes, signer: Signer, *,
                        now: float, name_signer: bool = False) -> bytes:
    """A certificate by `signer` over a 32-byte key or digest, valid for about six weeks.

    `name_signer`: with the signer's public key, for an `Ed25519PrivateKey` only.
    """
    expires = int(now) // _HOUR + _LIFETIME_HOURS
    extension = b"\0"
    if name_signer:
        if not isinstance(signer, Ed25519PrivateKey):
            raise TypeError("only an Ed25519PrivateKey can be named")
        extension = (b"\1" + struct.pack(">HBB", 32, _EXT_SIGNING_KEY, 0)
                     + signer.public_key().public_bytes_raw())
    body = struct.pack(">BBIB", 1, kind, expires, key_type) + key + extension
    return body + signer.sign(body)


def parse_ed25519_cert(data: bytes) -> Ed25519Cert:
    """Read a certificate. Raises ProtocolViolation when malformed, or when it has an extension
    that matters for validation and is not known here."""
    if len(data) < 40 + _SIGNATURE_LEN or data[0] != 1:
        raise ProtocolViolation("malformed Ed25519 certificate")
    _, kind, hours, key_type = struct.unpack_from(">BBIB", data)
    end = len(data) - _SIGNATURE_LEN
    at, signing_key = 40, b""
    for _ in range(data[39]):
        if at + 4 > end:
            raise ProtocolViolation("malformed certificate extension")
        size, ext_type, flags = struct.unpack_from(">HBB", data, at)
        value = data[at + 4 : min(at + 4 + size, end)]
        at += 4 + size
        if len(value) != size:
            raise ProtocolViolation("malformed certificate extension")
        if ext_type == _EXT_SIGNING_KEY and size == 32:
            signing_key = value
        elif flags & _EXT_AFFECTS_VALIDATION or ext_type == _EXT_SIGNING_KEY:
            raise ProtocolViolation(f"certificate extension {ext_type} is not understood")
    if at != end:
        raise ProtocolViolation("malformed Ed25519 certificate")
    return Ed25519Cert(kind, hours * _HOUR, key_type, data[7:39], signing_key, data[:end],
                       data[end:])


def encode_cross_cert(identity: RouterIdentity, now: float) -> bytes:
    """The RSA identity's word for the Ed25519 identity. PKCS#1 v1.5 without DigestInfo."""
    body = identity.ed25519_identity + struct.pack(">I", int(now) // _HOUR + _LIFETIME_HOURS)
    digest = hashlib.sha256(_CROSS_PREFIX + body).digest()
    signature = identity.rsa.sign(digest, padding.PKCS1v15(), NoDigestInfo())
    return body + bytes([len(signature)]) + signature


def check_cross_cert(data: bytes, rsa: RSAPublicKey, ed25519_identity: bytes, now: float) -> None:
    """Raise ProtocolViolation unless `rsa` vouches for `ed25519_identity` at time `now`."""
    if len(data) < 37 or len(data) != 37 + data[36] or data[:32] != ed25519_identity:
        raise ProtocolViolation("malformed RSA cross-certificate, or one for another key")
    if now >= int.from_bytes(data[32:36], "big") * _HOUR:
        raise ProtocolViolation("RSA cross-certificate has expired")
    digest = hashlib.sha256(_CROSS_PREFIX + data[:36]).digest()
    try:
        recovered = rsa.recover_data_from_signature(data[37:], padding.PKCS1v15(), None)
    except InvalidSignature as error:
        raise ProtocolViolation("RSA cross-certificate: bad signature") from error
    # Tor accepts bytes after the digest; only the digest itself is compared.
    if recovered[: len(digest)] != digest:
        raise ProtocolViolation("RSA cross-certificate: signature over something else")


def encode_certs(certificates: list[tuple[int, bytes]]) -> bytes:
    """Body of a CERTS cell."""
    return bytes([len(certificates)]) + b"".join(
        struct.pack(">BH", kind, len(data)) + data for kind, data in certificates
    )


def decode_certs(body: bytes) -> dict[int, bytes]:
    """Certificates of a CERTS cell by type. Raises ProtocolViolation when cut short or doubled."""
    if not body:
        raise ProtocolViolation("CERTS is empty")
    at, found = 1, dict[int, bytes]()
    for _ in range(body[0]):
        if len(body) < at + 3:
            raise ProtocolViolation("CERTS is cut short")
        kind, size = struct.unpack_from(">BH", body, at)
        data = body[at + 3 : at + 3 + size]
        at += 3 + size
        if len(data) != size or kind in found:
            raise ProtocolViolation("CERTS is cut short or has two certificates of one type")
        found[kind] = data
    return found


def _certs(identity: RouterIdentity, now: float, kind: CertType, key_type: int,
           key: bytes) -> bytes:
    """The chain from both identities to `key`, which is certified as `kind`."""
    signing = identity.signing.public_key().public_bytes_raw()
    return encode_certs([
        (CertType.RSA_IDENTITY_X509, identity.identity_cert),
        (CertType.IDENTITY_SIGNING, encode_ed25519_cert(
            CertType.IDENTITY_SIGNING, ED25519_KEY, signing, identity.ed25519, now=now,
            name_signer=True)),
        (kind, encode_ed25519_cert(kind, key_type, key, identity.signing, now=now)),
        (CertType.RSA_CROSS, encode_cross_cert(identity, now)),
    ])


def responder_certs(identity: RouterIdentity, now: float) -> bytes:
    """The CERTS body with which a router proves, on a link that it accepted, who it is."""
    return _certs(identity, now, CertType.SIGNING_TLS, _X509_DIGEST,
                  hashlib.sha256(identity.link_cert).digest())


def initiator_certs(identity: RouterIdentity, now: float) -> bytes:
    """The CERTS body with which a router that opened a link introduces its AUTHENTICATE."""
    return _certs(identity, now, CertType.SIGNING_LINK_AUTH, ED25519_KEY,
                  identity.link_auth.public_key().public_bytes_raw())


def _wanted(found: dict[int, bytes], kind: CertType) -> bytes:
    try:
        return found[kind]
    except KeyError:
        raise ProtocolViolation(f"CERTS lacks {kind.name}") from None


def _check_chain(found: dict[int, bytes], kind: CertType, now: float
                 ) -> tuple[ProvenIdentity, Ed25519Cert]:
    """The identities, and the certificate of type `kind` that they vouch for."""
    identity_signing = parse_ed25519_cert(_wanted(found, CertType.IDENTITY_SIGNING))
    last = parse_ed25519_cert(_wanted(found, kind))
    identity = identity_signing.signing_key
    if (identity_signing.kind != CertType.IDENTITY_SIGNING or not identity
            or identity_signing.key_type != ED25519_KEY):
        raise ProtocolViolation("the signing key's certificate is not one")
    identity_signing.check(identity, now)
    if last.kind != kind:
        raise ProtocolViolation(f"the certificate for {kind.name} is not one")
    last.check(identity_signing.key, now)
    rsa = _rsa_identity(_wanted(found, CertType.RSA_IDENTITY_X509), now)
    check_cross_cert(_wanted(found, CertType.RSA_CROSS), rsa, identity, now)
    return ProvenIdentity.of(rsa, identity), last


def check_responder(body: bytes, tls_cert: bytes, now: float) -> ProvenIdentity:
    """Who the responder of a link is, by its CERTS body and its TLS certificate (DER).

    Raises ProtocolViolation when the chain has a gap, an expired or a forged certificate.
    """
    proven, tls = _check_chain(decode_certs(body), CertType.SIGNING_TLS, now)
    if tls.key_type not in _TLS_KEY_TYPES or tls.key != hashlib.sha256(tls_cert).digest():
        raise ProtocolViolation("the certificates are for another TLS connection")
    return proven


def check_initiator(body: bytes, now: float) -> tuple[ProvenIdentity, bytes]:
    """Who the initiator claims to be, by its CERTS body, and the key (32 bytes) with which an
    AUTHENTICATE must yet prove it. Raises ProtocolViolation like `check_responder`."""
    proven, auth = _check_chain(decode_certs(body), CertType.SIGNING_LINK_AUTH, now)
    if auth.key_type != ED25519_KEY:
        raise ProtocolViolation("the link authentication key is not an Ed25519 key")
    return proven, auth.key


def _rsa_identity(der: bytes, now: float) -> RSAPublicKey:
    """The RSA identity key of a self-signed X.509 certificate."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        key = certificate.public_key()
        if not isinstance(key, RSAPublicKey) or key.key_size != _RSA_MIN_BITS:
            raise ProtocolViolation("the RSA identity is not a 1024-bit RSA key")
        algorithm = certificate.signature_hash_algorithm
        if algorithm is None:
            raise ProtocolViolation("the RSA identity's certificate has no hash")
        key.verify(certificate.signature, certificate.tbs_certificate_bytes, padding.PKCS1v15(),
                   algorithm)
        start = certificate.not_valid_before_utc.timestamp()
        if not start <= now <= certificate.not_valid_after_utc.timestamp():
            raise ProtocolViolation("the RSA identity's certificate is not valid now")
    except (ValueError, TypeError, x509.InvalidVersion, InvalidSignature,
            UnsupportedAlgorithm) as error:
        raise ProtocolViolation("malformed RSA identity certificate") from error
    return key
