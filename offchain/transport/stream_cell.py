# SPDX-License-Identifier: BSD-3-Clause
"""Bodies of BEGIN, CONNECTED, END, RESOLVE and RESOLVED (tor-spec, "Opening streams", "Closing
streams", "Remote hostname lookup")."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from enum import IntFlag

from .errors import EndReason, ProtocolViolation

_MAX_HOST = 255
_TTL = 60
_KNOWN_FLAGS = 7
_RESOLVED_IPV4, _RESOLVED_IPV6, _RESOLVED_ERROR = 4, 6, 0xF1
_MAX_ANSWERS = 16


class BeginFlag(IntFlag):
    """Which addresses the client takes (tor-spec, "Opening streams"). Without any: IPv4 alone."""

    IPV6_OKAY = 1
    IPV4_NOT_OKAY = 2
    IPV6_PREFERRED = 4


@dataclass(frozen=True, slots=True)
class Begin:
    """Where a stream is to be connected: a name or an address, a port, and the client's wishes."""

    host: str
    port: int
    flags: BeginFlag = BeginFlag.IPV6_OKAY

    def wanted(self, addresses: list[str]) -> list[str]:
        """Those of a host's addresses that the client takes, preferred ones first."""
        four = [one for one in addresses if ":" not in one]
        six = [one for one in addresses if ":" in one]
        if BeginFlag.IPV4_NOT_OKAY in self.flags:
            four = []
        if BeginFlag.IPV6_OKAY not in self.flags:
            six = []
        return six + four if BeginFlag.IPV6_PREFERRED in self.flags else four + six


def encode_begin(begin: Begin) -> bytes:
    """Ask the exit for a connection. Raises ValueError for a host or port that cannot be."""
    host = begin.host
    if not 0 < begin.port <= 0xFFFF or not host or len(host) > _MAX_HOST:
        raise ValueError("a stream needs a host and a port from 1 to 65535")
    try:
        if ipaddress.ip_address(host).version == 6:
            host = f"[{host}]"
    except ValueError:
        pass  # a host name
    return f"{host}:{begin.port}".encode("ascii") + b"\0" + struct.pack(">I", begin.flags)


def decode_begin(data: bytes) -> Begin:
    """Read a BEGIN body. Raises ProtocolViolation. Flags that are missing count as zero."""
    text, end, rest = data.partition(b"\0")
    host, colon, port = text.rpartition(b":")
    if not end or not colon or not host or len(host) > _MAX_HOST + 2:
        raise ProtocolViolation("BEGIN without host:port")
    if not port.isdigit() or len(port) > 5 or not 0 < int(port) <= 0xFFFF:
        raise ProtocolViolation("BEGIN with a bad port")
    if host.startswith(b"[") and host.endswith(b"]"):
        host = host[1:-1]
    flags = BeginFlag(int.from_bytes(rest[:4], "big") & _KNOWN_FLAGS if len(rest) >= 4 else 0)
    return Begin(_host(host), int(port), flags)


def decode_resolve(data: bytes) -> str:
    """The name that a RESOLVE asks for, or a ProtocolViolation."""
    name, end, _ = data.partition(b"\0")
    if not end or not name or len(name) > _MAX_HOST:
        raise ProtocolViolation("RESOLVE without a name")
    return _host(name)


def _host(host: bytes) -> str:
    if not host.isascii() or any(byte <= 0x20 or byte == 0x7F for byte in host):
        raise ProtocolViolation("a host that is neither name nor address")
    return host.decode("ascii")


def encode_resolved(addresses: list[str]) -> bytes:
    """Answer RESOLVE with addresses, of which a cell holds at least 19; with none, that the name
    has none (tor-spec, "Remote hostname lookup")."""
    out = b""
    for text in addresses[:_MAX_ANSWERS]:
        packed = ipaddress.ip_address(text).packed
        kind = _RESOLVED_IPV4 if len(packed) == 4 else _RESOLVED_IPV6
        out += struct.pack(">BB", kind, len(packed)) + packed + struct.pack(">I", _TTL)
    return out or struct.pack(">BBI", _RESOLVED_ERROR, 0, _TTL)


def encode_connected(address: str) -> bytes:
    """Tell the client which address the stream is connected to."""
    parsed = ipaddress.ip_address(address)
    if parsed.version == 4:
        return parsed.packed + struct.pack(">I", _TTL)
    return bytes(4) + b"\x06" + parsed.packed + struct.pack(">I", _TTL)


def encode_end(reason: EndReason) -> bytes:
    """Close a stream."""
    return bytes([reason])


def decode_end(data: bytes) -> EndReason:
    """Why the peer closed a stream. An empty body counts as MISC."""
    return EndReason.of(data[0]) if data else EndReason.MISC
