# SPDX-License-Identifier: BSD-3-Clause
"""A router's own server descriptor (dir-spec, "Server descriptor format"), as stock authorities
take it.

Tor keeps lines with keywords that it does not know and passes them on, so that a paid relay says
in one line of its own where it is paid. The line is covered by both signatures.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import secrets
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.utils import NoDigestInfo
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from nacl import bindings as sodium

from .certificates import ED25519_KEY, CertType, encode_ed25519_cert
from .exit_policy import ExitPolicy
from .identity import RouterIdentity, RouterInfo, pkcs1

PAID_KEYWORD = "monetor-paid"
PLATFORM = "moneTor"
PROTOCOLS = "Cons=1-2 Desc=1-2 FlowCtrl=1 Link=4-5 LinkAuth=3 Microdesc=1-2 Relay=2"
"""What a stock client is to use with us: ntor of version 1, fixed windows."""
_ED25519_PREFIX = b"Tor router descriptor signature v1"
_TAP_BITS = 1024
_ADDRESS_LEN, _HASH_LEN = 20, 32


class DescriptorError(ValueError):
    """A descriptor, or what should become one, is malformed."""


@dataclass(frozen=True, slots=True)
class PaidTerms:
    """How a relay is paid: the ledger's chain and address, its own account there (20 bytes each),
    and the keys' hashes (32 bytes) of the intermediaries that it accepts."""

    chain_id: int
    ledger: bytes
    account: bytes
    intermediaries: tuple[bytes, ...]

    def line(self) -> str:
        """The descriptor's line, without its end."""
        accepted = ",".join(one.hex() for one in self.intermediaries)
        return (f"{PAID_KEYWORD} 1 chain={self.chain_id} ledger={self.ledger.hex()} "
                f"account={self.account.hex()} intermediaries={accepted}")

    @classmethod
    def parse(cls, line: str) -> PaidTerms:
        """The inverse of `line`; arguments that are not known are skipped. DescriptorError."""
        keyword, _, rest = line.partition(" ")
        version, *words = rest.split(" ")
        named = dict(word.partition("=")[::2] for word in words)
        if keyword != PAID_KEYWORD or version != "1":
            raise DescriptorError(f"not a {PAID_KEYWORD} line of version 1")
        try:
            listed = named["intermediaries"]
            found = cls(int(named["chain"]), bytes.fromhex(named["ledger"]),
                        bytes.fromhex(named["account"]),
                        tuple(bytes.fromhex(one) for one in listed.split(",") if one))
        except (KeyError, ValueError) as error:
            raise DescriptorError(f"malformed {PAID_KEYWORD} line: {error}") from error
        if (len(found.ledger) != _ADDRESS_LEN or len(found.account) != _ADDRESS_LEN
                or any(len(one) != _HASH_LEN for one in found.intermediaries)):
            raise DescriptorError(f"{PAID_KEYWORD} line with an address of the wrong length")
        return found


class _OnionSigner:
    """The Ed25519 key that belongs to an X25519 onion key, so that the latter can sign
    (cert-spec, "Converting a curve25519 public key to an ed25519 key")."""

    def __init__(self, onion: X25519PrivateKey) -> None:
        scalar = bytearray(onion.private_bytes_raw())
        scalar[0] &= 248
        scalar[31] = scalar[31] & 127 | 64
        self._scalar = sodium.crypto_core_ed25519_scalar_reduce(bytes(scalar) + bytes(32))
        self.public = sodium.crypto_scalarmult_ed25519_base_noclamp(self._scalar)

    @property
    def sign_bit(self) -> int:
        """The bit of the public key that its X25519 form lacks."""
        return self.public[31] >> 7

    def sign(self, message: bytes) -> bytes:
        """An Ed25519 signature with a random nonce."""
        nonce = sodium.crypto_core_ed25519_scalar_reduce(secrets.token_bytes(64))
        point = sodium.crypto_scalarmult_ed25519_base_noclamp(nonce)
        challenge = sodium.crypto_core_ed25519_scalar_reduce(
            hashlib.sha512(point + self.public + message).digest())
        product = sodium.crypto_core_ed25519_scalar_mul(challenge, self._scalar)
        return point + sodium.crypto_core_ed25519_scalar_add(nonce, product)


def _block(title: str, data: bytes) -> str:
    lines = "\n".join(textwrap.wrap(base64.b64encode(data).decode(), 64))
    return f"-----BEGIN {title}-----\n{lines}\n-----END {title}-----\n"


def _unpadded(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")


def _sign(key: RSAPrivateKey, digest: bytes) -> bytes:
    return key.sign(digest, padding.PKCS1v15(), NoDigestInfo())


def write_server_descriptor(identity: RouterIdentity, info: RouterInfo, *, now: float,
                            exit_policy: ExitPolicy, bandwidth: int, uptime: int = 0,
                            is_directory: bool = False, paid: PaidTerms | None = None) -> str:
    """The descriptor of the router with these keys.

    `now`: seconds since the epoch; `bandwidth`: bytes per second that it claims and has observed;
    `uptime` in seconds; `is_directory`: whether it serves BEGIN_DIR.
    """
    # Nobody uses TAP any more, but clients older than 0.4.9 want the key: one that nobody holds.
    tap = generate_private_key(65537, _TAP_BITS)
    onion = _OnionSigner(identity.onion)
    signing = encode_ed25519_cert(
        CertType.IDENTITY_SIGNING, ED25519_KEY, identity.signing.public_key().public_bytes_raw(),
        identity.ed25519, now=now, name_signer=True)
    crossed = encode_ed25519_cert(
        CertType.NTOR_CROSS, ED25519_KEY, identity.ed25519_identity, onion, now=now)
    grouped = " ".join(textwrap.wrap(info.rsa_fingerprint.hex().upper(), 4))
    published = f"{datetime.datetime.fromtimestamp(now, datetime.UTC):%Y-%m-%d %H:%M:%S}"
    text = "".join([
        f"router {info.nickname} {info.host} {info.port} 0 0\n",
        "identity-ed25519\n", _block("ED25519 CERT", signing),
        f"master-key-ed25519 {_unpadded(identity.ed25519_identity)}\n",
        f"platform {PLATFORM}\n",
        f"proto {PROTOCOLS}{' DirCache=2' if is_directory else ''}\n",
        f"published {published}\n",
        f"fingerprint {grouped}\n",
        f"uptime {uptime}\n",
        f"bandwidth {bandwidth} {bandwidth} {bandwidth}\n",
        "onion-key\n", _block("RSA PUBLIC KEY", pkcs1(tap.public_key())),
        "signing-key\n", _block("RSA PUBLIC KEY", pkcs1(identity.rsa.public_key())),
        "onion-key-crosscert\n",
        _block("CROSSCERT", _sign(tap, info.rsa_fingerprint + identity.ed25519_identity)),
        f"ntor-onion-key-crosscert {onion.sign_bit}\n", _block("ED25519 CERT", crossed),
        f"ntor-onion-key {base64.b64encode(identity.ntor_key).decode()}\n",
        f"{paid.line()}\n" if paid else "",
        "tunnelled-dir-server\n" if is_directory else "",
        *(f"{line}\n" for line in exit_policy.lines()),
        "router-sig-ed25519 ",
    ])
    signature = identity.signing.sign(hashlib.sha256(_ED25519_PREFIX + text.encode()).digest())
    text += f"{_unpadded(signature)}\nrouter-signature\n"
    digest = hashlib.sha1(text.encode(), usedforsecurity=False).digest()
    return text + _block("SIGNATURE", _sign(identity.rsa, digest))


def paid_terms(lines: Sequence[str]) -> PaidTerms | None:
    """The terms in a descriptor's lines, None where there are none or none that can be read."""
    for line in lines:
        if line.startswith(PAID_KEYWORD + " "):
            try:
                return PaidTerms.parse(line)
            except DescriptorError:
                return None
    return None
