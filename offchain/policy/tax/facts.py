# SPDX-License-Identifier: BSD-3-Clause
"""What a policy knows of a relay."""

from __future__ import annotations

import re
from dataclasses import dataclass

from monetor_chain.statements import keccak256

from .errors import PolicyError

BANDWIDTH_LIMIT = 2**32
"""Bandwidths lie below it, as in a consensus."""

_FINGERPRINT = re.compile(r"[0-9A-Fa-f]{40}")
_ACCOUNT = re.compile(r"0x[0-9A-Fa-f]{40}")
_LOCATION = re.compile(r"[0-9A-Za-z.:/_-]{1,40}")


@dataclass(frozen=True, slots=True)
class Relay:
    """Facts of one relay, all of them public.

    `fingerprint`: 40 hexadecimal digits, kept in upper case. `account`: the ledger address that is
    paid, kept in lower case, or None: such a relay still counts as part of the network.
    `bandwidth`: consensus weight in KB/s. `is_guard`, `is_exit`: what the authorities let it be
    (an exit flagged as bad is none). `location`: key of the place, the first two bytes of the
    IPv4 address ("185.220"), since Tor takes addresses of one /16 for neighbours.

    Raises `PolicyError`, which names the column of the relay list.
    """

    fingerprint: str
    account: str | None
    bandwidth: int
    is_guard: bool
    is_exit: bool
    location: str

    def __post_init__(self) -> None:
        if not _FINGERPRINT.fullmatch(self.fingerprint):
            raise PolicyError(
                f"column fingerprint: {self.fingerprint!r} is not 40 hexadecimal digits"
            )
        if self.account is not None:
            _check_account(self.account)
            object.__setattr__(self, "account", self.account.lower())
        if not 0 <= self.bandwidth < BANDWIDTH_LIMIT:
            raise PolicyError(f"column bandwidth: {self.bandwidth} is not from 0 to 2^32 - 1")
        if not _LOCATION.fullmatch(self.location):
            raise PolicyError(
                f"column location: {self.location!r} is not 1 to 40 of the characters "
                "0-9 A-Z a-z . : / _ -"
            )
        object.__setattr__(self, "fingerprint", self.fingerprint.upper())


def _check_account(account: str) -> None:
    if not _ACCOUNT.fullmatch(account):
        raise PolicyError(f"column account: {account!r} is not 0x and 40 hexadecimal digits")
    digits = account[2:]
    if not digits.strip("0"):
        raise PolicyError("column account: the zero address cannot be paid")
    if digits not in (digits.lower(), digits.upper()) and digits != _eip_55(digits.lower()):
        raise PolicyError(f"column account: the checksum of {account} is wrong (EIP-55)")


def _eip_55(digits: str) -> str:
    """An address's digits with its checksum in their case."""
    mask = keccak256(digits.encode()).hex()
    return "".join(
        digit.upper() if int(bit, 16) >= 8 else digit
        for digit, bit in zip(digits, mask, strict=False)
    )
