# SPDX-License-Identifier: BSD-3-Clause
"""Everything that this layer raises on purpose."""

from __future__ import annotations

from enum import IntEnum


class DestroyReason(IntEnum):
    """Why a circuit ended; the byte in DESTROY and TRUNCATED (tor-spec, tearing down circuits)."""

    NONE = 0
    PROTOCOL = 1
    INTERNAL = 2
    REQUESTED = 3
    HIBERNATING = 4
    RESOURCELIMIT = 5
    CONNECTFAILED = 6
    OR_IDENTITY = 7
    CHANNEL_CLOSED = 8
    FINISHED = 9
    TIMEOUT = 10
    DESTROYED = 11
    NOSUCHSERVICE = 12

    @classmethod
    def of(cls, code: int) -> DestroyReason:
        """The reason numbered `code`; a number that nobody assigned counts as NONE."""
        try:
            return cls(code)
        except ValueError:
            return cls.NONE


class EndReason(IntEnum):
    """Why a stream ended; the first byte of RELAY_END (tor-spec, closing streams)."""

    MISC = 1
    RESOLVEFAILED = 2
    CONNECTREFUSED = 3
    EXITPOLICY = 4
    DESTROY = 5
    DONE = 6
    TIMEOUT = 7
    NOROUTE = 8
    HIBERNATING = 9
    INTERNAL = 10
    RESOURCELIMIT = 11
    CONNRESET = 12
    TORPROTOCOL = 13
    NOTDIRECTORY = 14

    @classmethod
    def of(cls, code: int) -> EndReason:
        """The reason numbered `code`; a number that nobody assigned counts as MISC."""
        try:
            return cls(code)
        except ValueError:
            return cls.MISC


class TransportError(Exception):
    """Anything that went wrong below the agents: a peer, a link, a circuit or a stream."""


class ProtocolViolation(TransportError):
    """A peer broke a rule. `reason` is what its circuit is destroyed with."""

    def __init__(self, text: str, reason: DestroyReason = DestroyReason.PROTOCOL) -> None:
        super().__init__(text)
        self.reason = reason


class LinkFailed(TransportError):
    """A link could not be opened, or was lost."""


class CircuitClosed(TransportError):
    """The circuit is gone, or was never built."""

    def __init__(self, text: str, reason: DestroyReason = DestroyReason.NONE) -> None:
        super().__init__(text)
        self.reason = reason


class ImpossiblePath(TransportError):
    """Routers that no circuit can visit in this order. A directory can be made to list such."""


class StreamClosed(TransportError):
    """The stream was refused or has ended."""

    def __init__(self, text: str, reason: EndReason = EndReason.MISC) -> None:
        super().__init__(text)
        self.reason = reason


class MessageTooLong(TransportError):
    """A payload of our own does not fit where it should go."""
