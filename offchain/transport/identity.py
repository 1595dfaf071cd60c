# SPDX-License-Identifier: BSD-3-Clause
"""Who a router is: its long-term keys, what others need to know of it, and where keys are kept."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import (
    RSAPrivateKey,
    RSAPublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from .errors import TransportError
from .extend import LinkTarget

_RSA_IDENTITY_BITS = 1024
"""Tor's identity format fixes this size; the identity that counts is the Ed25519 one."""
_LINK_KEY_BITS = 2048
_CERT_DAYS = 300
_FILES = ("identity_rsa.pem", "identity_ed25519.pem", "onion_x25519.pem")


@dataclass(frozen=True, slots=True)
class RouterInfo:
    """What a client must know to extend a circuit to a router.

    `host` is an address: EXTEND2 has no names, and a client must not look any up.
    `rsa_fingerprint` is SHA-1 of the RSA identity key (20 bytes), `ed25519_identity` and
    `ntor_key` are 32 bytes each.
    """

    nickname: str
    host: str
    port: int
    rsa_fingerprint: bytes
    ed25519_identity: bytes
    ntor_key: bytes

    def __post_init__(self) -> None:
        sizes = (len(self.rsa_fingerprint), len(self.ed25519_identity), len(self.ntor_key))
        if sizes != (20, 32, 32) or not 0 < self.port <= 0xFFFF:
            raise ValueError(f"router info with keys of {sizes} bytes and port {self.port}")
        ipaddress.ip_address(self.host)

    @property
    def target(self) -> LinkTarget:
        """Where and to whom a link is opened."""
        return LinkTarget(self.host, self.port, self.rsa_fingerprint, self.ed25519_identity)

    def to_dict(self) -> dict[str, str | int]:
        """A form that JSON can hold; keys in hex."""
        return {
            "nickname": self.nickname, "host": self.host, "port": self.port,
            "rsa_fingerprint": self.rsa_fingerprint.hex(),
            "ed25519_identity": self.ed25519_identity.hex(),
            "ntor_key": self.ntor_key.hex(),
        }

    @classmethod
    def from_dict(cls, data: dict[str, str | int]) -> RouterInfo:
        """The inverse of `to_dict`. Raises TransportError when a field is missing or malformed."""
        try:
            return cls(
                str(data["nickname"]), str(data["host"]), int(data["port"]),
                bytes.fromhex(str(data["rsa_fingerprint"])),
                bytes.fromhex(str(data["ed25519_identity"])),
                bytes.fromhex(str(data["ntor_key"])),
            )
        except (KeyError, ValueError) as error:
            raise TransportError(f"not a router info: {error}") from error


def pkcs1(key: RSAPublicKey) -> bytes:
    """The encoding whose SHA-1 is a router's fingerprint."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)


def fingerprint(key: RSAPublicKey) -> bytes:
    """SHA-1 of an RSA identity key, 20 bytes."""
    return hashlib.sha1(pkcs1(key), usedforsecurity=False).digest()


def _x509(subject: str, issuer: str, key: RSAPublicKey, signer: RSAPrivateKey) -> bytes:
    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name(issuer))
        .public_key(key).serial_number(x509.random_serial_number())
        .not_valid_before(now - day).not_valid_after(now + _CERT_DAYS * day)
        .sign(signer, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.DER)


class RouterIdentity:
    """A router's keys.

    The two identity keys and the onion key are kept; signing, link and link authentication keys
    are made anew whenever the identity is loaded, as they are certified on every link anyway.
    """

    def __init__(self, rsa: RSAPrivateKey, ed25519: Ed25519PrivateKey,
                 onion: X25519PrivateKey) -> None:
        self.rsa = rsa
        self.ed25519 = ed25519
        self.onion = onion
        self.rsa_fingerprint = fingerprint(rsa.public_key())
        self.ed25519_identity = ed25519.public_key().public_bytes_raw()
        self.ntor_key = onion.public_key().public_bytes_raw()
        self.signing = Ed25519PrivateKey.generate()
        self.link_auth = Ed25519PrivateKey.generate()
        self.link_key = generate_private_key(65537, _LINK_KEY_BITS)
        # Names that say nothing, as Tor's do.
        self.identity_cert = _x509("www.monetor.net", "www.monetor.net", rsa.public_key(), rsa)
        self.link_cert = _x509("www.link.net", "www.monetor.net", self.link_key.public_key(), rsa)

    @classmethod
    def generate(cls) -> RouterIdentity:
        """A new identity with keys from the operating system's randomness."""
        return cls(generate_private_key(65537, _RSA_IDENTITY_BITS), Ed25519PrivateKey.generate(),
                   X25519PrivateKey.generate())

    def info(self, nickname: str, host: str, port: int) -> RouterInfo:
        """What to publish of this router when it listens at `host` and `port`."""
        return RouterInfo(nickname, host, port, self.rsa_fingerprint, self.ed25519_identity,
                          self.ntor_key)

    def save(self, folder: Path | str) -> None:
        """Write the long-term keys into `folder`, readable by the owner only (0600)."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        keys: tuple[RSAPrivateKey | Ed25519PrivateKey | X25519PrivateKey, ...] = (
            self.rsa, self.ed25519, self.onion)
        for name, key in zip(_FILES, keys, strict=True):
            pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                    serialization.NoEncryption())
            unfinished = folder / (name + ".new")
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(pem)
            unfinished.replace(folder / name)

    @classmethod
    def load(cls, folder: Path | str) -> RouterIdentity:
        """Read what `save` wrote. Raises TransportError when a key is missing or unreadable."""
        try:
            rsa, ed25519, onion = (
                serialization.load_pem_private_key((Path(folder) / name).read_bytes(), None)
                for name in _FILES
            )
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise TransportError(f"no router identity in {folder}: {error}") from error
        if (not isinstance(rsa, RSAPrivateKey) or not isinstance(ed25519, Ed25519PrivateKey)
                or not isinstance(onion, X25519PrivateKey)):
            raise TransportError(f"router identity in {folder} has keys of the wrong kind")
        return cls(rsa, ed25519, onion)
