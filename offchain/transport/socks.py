# SPDX-License-Identifier: BSD-3-Clause
"""SOCKS5 as applications speak it to an onion proxy, without any IO.

RFC 1928 (CONNECT), RFC 1929 (a user name and password), and what Tor makes of the latter
(socks-extensions, "Stream isolation"): they are no secret and are always accepted, and streams
with different ones must not share a circuit. Names go to the exit as they are and are resolved
there.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from enum import Enum, IntEnum, auto

from .errors import EndReason, TransportError

VERSION = 5
_AUTH_VERSION = 1
_NO_AUTHENTICATION, _USERNAME_PASSWORD, _NO_METHOD = 0x00, 0x02, 0xFF
_CONNECT = 0x01
_IPV4, _NAME, _IPV6 = 0x01, 0x03, 0x04
_ADDRESS_SIZE = {_IPV4: 4, _IPV6: 16}
_ONION = ".onion"


class SocksReply(IntEnum):
    """The answer to a request (RFC 1928, section 6)."""

    SUCCEEDED = 0x00
    GENERAL_FAILURE = 0x01
    NOT_ALLOWED = 0x02
    NETWORK_UNREACHABLE = 0x03
    HOST_UNREACHABLE = 0x04
    CONNECTION_REFUSED = 0x05
    TTL_EXPIRED = 0x06
    COMMAND_NOT_SUPPORTED = 0x07
    ADDRESS_TYPE_NOT_SUPPORTED = 0x08

    @classmethod
    def of(cls, reason: EndReason) -> SocksReply:
        """What an application is told when its stream was refused for this reason, as tor does.

        DONE before anything was connected means that the destination hung up on the exit.
        """
        return _REPLIES.get(reason, cls.GENERAL_FAILURE)


_REPLIES = {
    EndReason.RESOLVEFAILED: SocksReply.HOST_UNREACHABLE,
    EndReason.NOROUTE: SocksReply.HOST_UNREACHABLE,
    EndReason.CONNECTREFUSED: SocksReply.CONNECTION_REFUSED,
    EndReason.CONNRESET: SocksReply.CONNECTION_REFUSED,
    EndReason.DONE: SocksReply.CONNECTION_REFUSED,
    EndReason.EXITPOLICY: SocksReply.NOT_ALLOWED,
    EndReason.TIMEOUT: SocksReply.TTL_EXPIRED,
}


class SocksError(TransportError):
    """The application asks for what is not given. `answer` are the bytes that tell it so."""

    def __init__(self, text: str, answer: bytes = b"") -> None:
        super().__init__(text)
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Isolation:
    """Streams share a circuit only if theirs are equal. Both parts are empty if none were sent."""

    username: bytes = b""
    password: bytes = b""

    def __repr__(self) -> str:
        # It can name a person, or a site that a person visits.
        return "Isolation(...)"


@dataclass(frozen=True, slots=True)
class SocksRequest:
    """A connection that an application asks for."""

    host: str
    """A name, or an address without brackets."""
    port: int
    isolation: Isolation


def encode_reply(reply: SocksReply) -> bytes:
    """The answer to a request. The address in it is all zero: only the exit knows its own."""
    return bytes([VERSION, reply, 0, _IPV4]) + bytes(6)


class _State(Enum):
    METHODS = auto()
    AUTHENTICATION = auto()
    REQUEST = auto()
    DONE = auto()


class SocksConversation:
    """What is said before an application's own bytes. One for each connection.

    Feed it with `receive` until `request` is there. An application may send its first bytes
    before it has the answer; they are in `early`.
    """

    def __init__(self) -> None:
        self.request: SocksRequest | None = None
        self.early = b""
        self._state = _State.METHODS
        self._buffer = b""
        self._isolation = Isolation()

    def receive(self, data: bytes) -> bytes:
        """Take bytes from the application; returns those to be sent to it now.

        Raises SocksError; nothing more can be said in this conversation then but its `answer`.
        """
        if self._state is _State.DONE:
            self.early += data
            return b""
        self._buffer += data
        answers = b""
        while (answer := self._step()) is not None:
            answers += answer
        return answers

    def _step(self) -> bytes | None:
        """Take one whole message off the buffer; None while it is not all there."""
        match self._state:
            case _State.METHODS:
                return self._methods()
            case _State.AUTHENTICATION:
                return self._authentication()
            case _State.REQUEST:
                return self._request()
            case _State.DONE:
                return None

    def _take(self, size: int) -> bytes:
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def _methods(self) -> bytes | None:
        if not self._buffer:
            return None
        if self._buffer[0] != VERSION:
            raise SocksError(f"this is a SOCKS5 proxy; the application's first byte is "
                             f"{self._buffer[0]:#04x}, not 0x05: use socks5h:// in its settings")
        if len(self._buffer) < 2 or len(self._buffer) < 2 + self._buffer[1]:
            return None
        methods = self._take(2 + self._buffer[1])[2:]
        # Whoever offers a name and password wants isolation by them.
        for method, state in ((_USERNAME_PASSWORD, _State.AUTHENTICATION),
                              (_NO_AUTHENTICATION, _State.REQUEST)):
            if method in methods:
                self._state = state
                return bytes([VERSION, method])
        raise SocksError("the application offers neither no authentication nor a user name and "
                         "password", bytes([VERSION, _NO_METHOD]))

    def _authentication(self) -> bytes | None:
        buffer = self._buffer
        if buffer and buffer[0] != _AUTH_VERSION:
            raise SocksError("the application's user name and password are not in the format of "
                             "RFC 1929", bytes([_AUTH_VERSION, 1]))
        if len(buffer) < 2 or len(buffer) < 3 + buffer[1]:
            return None
        name_end = 2 + buffer[1]
        end = name_end + 1 + buffer[name_end]
        if len(buffer) < end:
            return None
        taken = self._take(end)
        self._isolation = Isolation(taken[2:name_end], taken[name_end + 1 :])
        self._state = _State.REQUEST
        return bytes([_AUTH_VERSION, 0])

    def _request(self) -> bytes | None:
        buffer = self._buffer
        if buffer and buffer[0] != VERSION:
            raise _refused("the application's request is not of SOCKS5",
                           SocksReply.GENERAL_FAILURE)
        if len(buffer) < 5:
            return None
        kind = buffer[3]
        start = 5 if kind == _NAME else 4
        size = buffer[4] if kind == _NAME else _ADDRESS_SIZE.get(kind)
        if size is None:
            raise _refused(f"the address type {kind:#04x} is not known",
                           SocksReply.ADDRESS_TYPE_NOT_SUPPORTED)
        if len(buffer) < start + size + 2:
            return None
        taken = self._take(start + size + 2)
        if taken[1] != _CONNECT:
            raise _refused(f"the command {taken[1]:#04x} is not given; only CONNECT is",
                           SocksReply.COMMAND_NOT_SUPPORTED)
        host = _host(kind, taken[start : start + size])
        (port,) = struct.unpack(">H", taken[-2:])
        if not port:
            raise _refused("the request names port 0", SocksReply.GENERAL_FAILURE)
        self.request = SocksRequest(host, port, self._isolation)
        self._state = _State.DONE
        self.early, self._buffer = self._buffer, b""
        return b""


def _host(kind: int, raw: bytes) -> str:
    if kind != _NAME:
        return str(ipaddress.ip_address(raw))
    if not raw or any(byte <= 0x20 or byte >= 0x7F or byte in b"[]:/@" for byte in raw):
        try:
            return str(ipaddress.IPv6Address(raw.decode("ascii").removeprefix("[")
                                             .removesuffix("]")))
        except ValueError:
            raise _refused("the request names a host that is no name of ASCII letters, nor an "
                           "address", SocksReply.GENERAL_FAILURE) from None
    host = raw.decode("ascii")
    if host.rstrip(".").lower().endswith(_ONION):
        raise _refused("onion services are not reached by this client",
                       SocksReply.HOST_UNREACHABLE)
    return host


def _refused(text: str, reply: SocksReply) -> SocksError:
    return SocksError(text, encode_reply(reply))
