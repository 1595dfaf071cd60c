# SPDX-License-Identifier: BSD-3-Clause
"""Bodies of BEGIN, CONNECTED and END (tor-spec, "Opening streams", "Closing streams")."""

from __future__ import annotations

import ipaddress
import struct

from .errors import EndReason, ProtocolViolation

_MAX_HOST = 255
_TTL = 60


def encode_begin(host: str, port: int) -> bytes:
    """Ask the exit for a connection to `host` (a name or an address) and `port`."""
    if not 0 < port <= 0xFFFF or not host or len(host) > _MAX_HOST:
        raise ValueError("a stream needs a host and a port from 1 to 65535")
    try:
        if ipaddress.ip_address(host).version == 6:
            host = f"[{host}]"
    except ValueError:
        pass  # a host name
    return f"{host}:{port}".encode("ascii") + b"\0" + bytes(4)


def decode_begin(data: bytes) -> tuple[str, int]:
    """Host and port of a BEGIN body, or a ProtocolViolation. The flags are not looked at."""
    text, end, _ = data.partition(b"\0")
    host, colon, port = text.rpartition(b":")
    if not end or not colon or not host or len(host) > _MAX_HOST + 2:
        raise ProtocolViolation("BEGIN without host:port")
    if not port.isdigit() or len(port) > 5 or not 0 < int(port) <= 0xFFFF:
        raise ProtocolViolation("BEGIN with a bad port")
    if host.startswith(b"[") and host.endswith(b"]"):
        host = host[1:-1]
    if not host.isascii() or any(byte <= 0x20 or byte == 0x7F for byte in host):
        raise ProtocolViolation("BEGIN with a bad host")
    return host.decode("ascii"), int(port)


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
