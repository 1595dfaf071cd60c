# SPDX-License-Identifier: BSD-3-Clause
"""EXTEND2: the link specifiers that name the next relay, and the handshake for it (tor-spec).

The handshake is between the client and the next relay: whoever extends passes it on as it is, of
whatever type and length, and the answer too.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

from .errors import ProtocolViolation

_IPV4, _IPV6, _RSA_ID, _ED25519_ID = 0, 1, 2, 3
_MAX_ANSWER = 496
"""What fits into a relay cell after the length."""
_LENGTHS = {_IPV4: 6, _IPV6: 18, _RSA_ID: 20, _ED25519_ID: 32}


@dataclass(frozen=True, slots=True)
class LinkTarget:
    """A relay as a link is opened to it: where it listens and who it must prove to be.

    `ed25519_identity` is empty when the client did not name one.
    """

    host: str
    port: int
    rsa_fingerprint: bytes
    ed25519_identity: bytes


def encode_extend2(target: LinkTarget, create2: bytes) -> bytes:
    """Body of EXTEND2: address and identities of `target`, and the CREATE2 body for it."""
    address = ipaddress.ip_address(target.host)
    specifiers = [
        (_IPV4 if address.version == 4 else _IPV6, address.packed + struct.pack(">H", target.port)),
        (_RSA_ID, target.rsa_fingerprint),
    ]
    if target.ed25519_identity:
        specifiers.append((_ED25519_ID, target.ed25519_identity))
    listed = b"".join(bytes([kind, len(value)]) + value for kind, value in specifiers)
    return bytes([len(specifiers)]) + listed + create2


def decode_extend2(data: bytes) -> tuple[LinkTarget, bytes]:
    """Read an EXTEND2 body: where to extend to, and the CREATE2 body to send there.

    Unknown specifiers are skipped. Raises ProtocolViolation when the body is cut short, names an
    identity twice, or lacks an address or the RSA identity.
    """
    if not data:
        raise ProtocolViolation("EXTEND2 is empty")
    at = 1
    host, port = "", 0
    identities: dict[int, bytes] = {}
    for _ in range(data[0]):
        if len(data) < at + 2:
            raise ProtocolViolation("EXTEND2 is cut short")
        kind, size = data[at], data[at + 1]
        value = data[at + 2 : at + 2 + size]
        at += 2 + size
        if len(value) != size or _LENGTHS.get(kind, size) != size:
            raise ProtocolViolation(f"EXTEND2: link specifier {kind} of {len(value)} bytes")
        if kind == _IPV4 or (kind == _IPV6 and not host):
            host = str(ipaddress.ip_address(value[:-2]))
            (port,) = struct.unpack(">H", value[-2:])
        elif kind in (_RSA_ID, _ED25519_ID):
            if kind in identities:
                raise ProtocolViolation("EXTEND2 names an identity twice")
            identities[kind] = value
    if not host or not port or _RSA_ID not in identities:
        raise ProtocolViolation("EXTEND2 names no address or no identity")
    target = LinkTarget(host, port, identities[_RSA_ID], identities.get(_ED25519_ID, b""))
    if len(data) < at + 4:
        raise ProtocolViolation("EXTEND2 without a handshake")
    (size,) = struct.unpack_from(">H", data, at + 2)
    if len(data) < at + 4 + size:
        raise ProtocolViolation("EXTEND2 with a handshake that is cut short")
    return target, data[at : at + 4 + size]


def encode_extended2(created2: bytes) -> bytes:
    """Body of EXTENDED2 for the CREATED2 body of the next relay, or a ProtocolViolation."""
    if len(created2) < 2:
        raise ProtocolViolation("CREATED2 is cut short")
    (size,) = struct.unpack_from(">H", created2)
    if size > _MAX_ANSWER or len(created2) < 2 + size:
        raise ProtocolViolation(f"CREATED2 with {size} bytes")
    return created2[: 2 + size]
