# SPDX-License-Identifier: BSD-3-Clause
"""What the intermediary keeps adds nothing to what it hears: its messages are its whole view."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

import pytest

from monetor_chain.statements import keccak256, lock_of
from offchain.crypto.issuer import IssuerKey
from offchain.protocol import messages as m
from offchain.protocol.codec import encode
from offchain.protocol.records import Table
from tests.anonymity.fields import values
from tests.anonymity.stand import Stand


def of_key(table: Table, key: bytes) -> list[bytes]:
    """What a record's key consists of, without its label, time, duty or role."""
    if table is Table.DEADLINE:
        return [key[10:]]
    label = re.match(rb"([a-z-]+:)*", key)
    key = key[label.end():] if label else key
    if len(key) == 8 + 31:
        # When a lock was revoked comes before it.
        return [key[8:]]
    if len(key) in (2 * 31, 31 + 32):
        # Two names: of a session and a nonce, or of a group and a request.
        at = 32 if label and label.group() == b"spent:" else 31
        return [key[:at], key[at:]]
    return [key[1:] if len(key) == 33 else key]


def stored(stand: Stand) -> Iterator[tuple[Table, bytes]]:
    """Every value of 16 bytes or more in the intermediary's records, and in their keys."""
    for table in Table:
        for key, one in stand.i.records.scan(table):
            found = of_key(table, key)
            for name, value in values(one):
                if isinstance(value, int) and value >= 1 << 128:
                    found.append(value.to_bytes(30 if name == "group" else 31, "big"))
                elif isinstance(value, bytes):
                    # A channel as a deadline's subject has a zero before it.
                    found.append(value[1:] if name == "subject" else value)
            yield from ((table, value) for value in found if len(value) >= 16 and any(value))


def heard(stand: Stand) -> bytes:
    """All that it was told and has answered, with the hashes and locks that follow from it."""
    parts = []
    for one in stand.log:
        if "I" not in (one.source, one.target):
            continue
        parts += [one.payload, keccak256(bytes([one.pcmd]) + one.payload), keccak256(one.payload)]
        for name, value in values(one.message):
            if name in ("wsk", "nwsk", "wsk_c"):
                parts.append(lock_of(value).to_bytes(31, "big"))
        if isinstance(one.message, m.NanoSetupRequest):
            parts.append(one.message.terms.nano_terms().hash())
    # A wallet that is cashed out is spent into that, whatever else the request said.
    parts.append(keccak256(bytes([m.CashOutRequest.PCMD]) + b"cash-out"))
    return b"|".join(parts + [encode(call) for _, call in stand.ledger])


def unheard(stand: Stand) -> list[tuple[Table, str]]:
    known = heard(stand)
    return [(table, value.hex()) for table, value in stored(stand)
            if value not in known]


@pytest.fixture
def lived() -> Stand:
    stand = Stand(IssuerKey.generate())
    stand.open("R", deposit=0, fund=100_000)
    (to,) = stand.open("E", deposit=0, fund=60_000)
    (cid,) = stand.open("A", deposit=50_000, fund=0)
    (other,) = stand.open("B", deposit=50_000, fund=0)
    stand.session("A", cid, 18)
    stand.session("B", other, None)
    stand.transfer("A", cid, to, 100)
    stand.cash_out("A", cid >> 8)
    stand.claim("B", other)
    return stand


def test_the_store_of_the_intermediary_adds_nothing(lived: Stand) -> None:
    assert len(list(stored(lived))) > 100
    assert unheard(lived) == []


def test_what_was_not_heard_would_be_found(lived: Stand) -> None:
    """The control: a record of something that nobody said."""
    @dataclasses.dataclass(frozen=True, slots=True)
    class Whence:
        circuit: bytes

    lived.i.records.scan = lambda table: iter(  # type: ignore[method-assign]
        [(b"k" * 8, Whence(b"\x07" * 20))] if table is Table.META else [])
    assert unheard(lived) == [(Table.META, (b"\x07" * 20).hex())]


