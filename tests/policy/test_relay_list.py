# SPDX-License-Identifier: BSD-3-Clause
"""Reading and writing the relay list."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, strategies as st

from offchain.policy.tax.errors import PolicyError
from offchain.policy.tax.facts import Relay
from offchain.policy.tax.relay_list import HEADER, read, write
from tests.policy.networks import REAL, UNHURRIED, fingerprint, networks

A, B = "A" * 40, "B" * 40
PAYEE = "0x" + "12" * 20
GOOD = f"{A},{PAYEE},500,1,0,185.220"
CHECKSUMMED = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"  # an example of EIP-55


def text(*rows: str) -> str:
    return "\n".join([HEADER, *rows]) + "\n"


def test_the_header_is_published():
    assert HEADER == "fingerprint,account,bandwidth,guard,exit,location"


def test_a_list():
    assert read(text(GOOD, f"{B},,0,0,1,9.9")) == (
        Relay(A, PAYEE, 500, True, False, "185.220"),
        Relay(B, None, 0, False, True, "9.9"),
    )


def test_spelling_that_does_not_matter():
    for same in (
        text(GOOD.replace(A, A.lower())),
        text(GOOD).replace("\n", "\r\n"),
        text(GOOD).rstrip("\n"),
        text(GOOD.replace("500", '"500"')),
        text(GOOD.replace(PAYEE, "0x" + PAYEE[2:].upper())),
    ):
        assert write(read(same)) == text(GOOD)


@UNHURRIED
@given(networks(), st.randoms())
def test_the_canonical_form(relays, order: random.Random):
    canonical = write(relays)
    assert set(read(canonical)) == set(relays)
    shuffled = list(relays)
    order.shuffle(shuffled)
    assert write(shuffled) == canonical
    keys = [line.split(",")[0] for line in canonical.splitlines()[1:]]
    assert keys == sorted(keys)


def test_an_empty_list_is_a_list():
    assert read(text()) == ()
    assert write([]) == text()


def test_the_real_sample_is_canonical():
    listed = read(REAL.read_text())
    assert write(listed) == REAL.read_text()
    assert len(listed) == 646
    assert len(REAL.read_bytes()) < 60_000


@pytest.mark.parametrize(
    ("row", "column"),
    [
        (GOOD.replace(A, A[1:]), "fingerprint"),
        (GOOD.replace(A, "G" * 40), "fingerprint"),
        (GOOD.replace(A, " " + A[1:]), "fingerprint"),
        (GOOD.replace(PAYEE, PAYEE[2:]), "account"),
        (GOOD.replace(PAYEE, PAYEE[:-1]), "account"),
        (GOOD.replace(PAYEE, "0x" + "0" * 40), "account"),
        (GOOD.replace(PAYEE, CHECKSUMMED.replace("5aA", "5aa")), "account"),
        (GOOD.replace("500", "-1"), "bandwidth"),
        (GOOD.replace("500", "5e2"), "bandwidth"),
        (GOOD.replace("500", "500.0"), "bandwidth"),
        (GOOD.replace("500", "0500"), "bandwidth"),
        (GOOD.replace("500", "٥"), "bandwidth"),
        (GOOD.replace("500", ""), "bandwidth"),
        (GOOD.replace("500", str(2**32)), "bandwidth"),
        (GOOD.replace(",1,0,", ",yes,0,"), "guard"),
        (GOOD.replace(",1,0,", ",1,2,"), "exit"),
        (GOOD.replace("185.220", ""), "location"),
        (GOOD.replace("185.220", "somewhere else"), "location"),
        (GOOD.replace("185.220", "x" * 41), "location"),
        (GOOD.replace("185.220", "Zürich"), "location"),
    ],
)
def test_a_bad_cell_is_named(row, column):
    with pytest.raises(PolicyError, match=f"^relay list, line 3: column {column}: "):
        read(text(f"{B},,1,0,0,1.1", row))


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ("", "line 1: the first line must be fingerprint,"),
        ("\n", "line 1: the first line must be"),
        (HEADER.replace("exit", "Exit"), "line 1: the first line must be"),
        (GOOD, "line 1: the first line must be"),
        (text(GOOD + ",9"), "line 2: 7 columns instead of 6"),
        (text(GOOD, ""), "line 3: 0 columns instead of 6"),
        (text("# note"), "line 2: 1 columns instead of 6"),
        (text(f'"{GOOD}'), "line 2: unexpected end of data"),
        (text(GOOD.replace(A, f'"{A[:20]}\n{A[20:]}"')), "line 3: column fingerprint"),
        (text(GOOD.replace("500", '"5"00')), "line 2: ',' expected after"),
    ],
)
def test_a_bad_line_is_named(listed, message):
    with pytest.raises(PolicyError, match=message):
        read(listed)


def test_a_relay_is_listed_once():
    again = GOOD.lower()
    with pytest.raises(PolicyError, match=f"line 4: column fingerprint: {A} .* line 2 already"):
        read(text(GOOD, f"{B},,1,0,0,1.1", again))
    one = Relay(A, None, 1, False, False, "1.1")
    with pytest.raises(PolicyError, match=f"{A} is listed twice"):
        write([one, one])


def test_a_correct_checksum_is_accepted():
    assert read(text(GOOD.replace(PAYEE, CHECKSUMMED)))[0].account == CHECKSUMMED.lower()


@pytest.mark.parametrize("bandwidth", [-1, 2**32])
def test_facts_are_checked_wherever_they_come_from(bandwidth):
    with pytest.raises(PolicyError, match="column bandwidth"):
        Relay(fingerprint(1), None, bandwidth, False, False, "1.1")
