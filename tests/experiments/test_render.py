# SPDX-License-Identifier: BSD-3-Clause
"""The statement's JSON form has the agreed keys, and its columns add up on the page."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

from offchain.testnet.render import show
from offchain.testnet.statement import Party, Statement

PARTY = Party("relay", True, 0, 0, 0, 0, 0, 0)


def statement(**changes: Any) -> Statement:
    one = Statement(
        download={"bytes": 8_388_608, "sha256": "ab" * 32, "seconds": 4.0},
        parties={
            "client": replace(PARTY, role="client", before=460_000, after=458_000, floor=458_000,
                              sent=20, gas=700_001),
            "guard": replace(PARTY, after=909, floor=909, received=10),
            "exit": replace(PARTY, after=860, floor=860, received=10),
            "intermediary": replace(PARTY, role="intermediary", before=4_000_000,
                                    after=4_000_054, floor=4_000_050),
        },
        intermediary={"margin": 140, "fee": 54, "session_tax": 86}, tax_pool=177,
        conservation=True, total_before=4_460_000, total_after=4_460_000, left_in_ledger=0,
        protocols={"nano_setup": {"count": 2, "median_ms": 12.34, "cells": 6}})  # fmt: skip
    return replace(one, **changes)


def shown(one: Statement) -> dict[str, list[str]]:
    """The lines by their first word."""
    out = io.StringIO()
    show(one.to_json(), out)
    return {line.split()[0]: line.split() for line in out.getvalue().splitlines() if line.strip()}


def test_json_has_the_agreed_keys():
    plain = statement().to_json()
    assert plain.keys() >= {"download", "parties", "intermediary", "tax_pool", "conservation",
                            "protocols"}
    assert plain["download"].keys() == {"bytes", "sha256", "seconds"}
    for party in plain["parties"].values():
        assert party.keys() == {"role", "honest", "before", "after", "floor", "sent", "received",
                                "gas"}
    assert plain["intermediary"].keys() >= {"margin", "fee"}
    assert plain["conservation"] is True
    assert plain["protocols"]["nano_setup"].keys() == {"count", "median_ms", "cells"}


def test_columns_add_up():
    lines = shown(statement())
    names = ("client", "guard", "exit", "intermediary")
    for column in (1, 2, 3):
        rows = [int(lines[name][column].replace(",", "")) for name in names]
        rows.append(int(lines["tax"][1 + column].replace(",", "")))
        assert sum(rows) == int(lines["sum"][column].replace(",", ""))
    assert lines["client"] == ["client", "460,000", "458,000", "-2,000", "458,000", "20", "0",
                               "700,001"]
    assert lines["sum"][1:] == ["4,460,000", "4,460,000", "+0"]


def test_margin_and_tax_are_broken_into_their_parts():
    lines = shown(statement())
    assert "140 = 86 tax + 54 fee" in " ".join(lines["Intermediary"])
    assert "177 = 86 of sessions + 91 of the direct channel" in " ".join(lines["Tax"])


def test_a_lost_unit_is_seen():
    broken = statement(conservation=False)
    broken.parties["exit"].after -= 1
    lines = shown(broken)
    assert lines["sum"][3] == "-1"
    assert " ".join(lines["Conservation"]).endswith("177 tax: DOES NOT HOLD")
    assert " ".join(lines["Honest"]) == "Honest parties below their floor: exit"


def test_escrow_counts_and_a_dispute_is_named():
    one = statement(left_in_ledger=700, dispute="exit-vanishes", notes=["nobody knows why"])
    one.parties["client"].after -= 700
    one.parties["client"].honest = False
    lines = shown(one)
    assert lines["sum"][1:] == ["4,460,000", "4,460,000", "+0"]
    assert lines["Dispute"][1] == "exit-vanishes"
    assert lines["client"][:2] == ["client", "(dishonest)"]
    assert lines["Note:"] == ["Note:", "nobody", "knows", "why"]
    assert " ".join(lines["Conservation"]).endswith("700 still in escrow: holds")
