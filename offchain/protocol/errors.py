# SPDX-License-Identifier: BSD-3-Clause
"""The ways in which a protocol step can fail."""

from __future__ import annotations

from enum import IntEnum


class ProtocolError(ValueError):
    """A message, record or argument breaks the protocol; the text names the field."""


class RefusalCode(IntEnum):
    """Why an intermediary refuses a request; the number travels in a `Refused` message."""

    MALFORMED = 1
    TERMS = 2
    PROOF = 3
    REUSED = 4
    STATE = 5
    TOO_LATE = 6
    NOT_YET = 7
    LOCK = 8
    CLAIM = 9
    UNKNOWN = 10
    ESCROW = 11


class Refused(ProtocolError):
    """The intermediary does not answer this request; nothing was marked.

    `NOT_YET` means that the same request can succeed later; every other code is final.
    """

    def __init__(self, code: RefusalCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
