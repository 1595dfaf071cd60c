# SPDX-License-Identifier: BSD-3-Clause
"""Leave one rule out of the real code, and a written play loses somebody honest money.

`RULES` is the list of single weakenings that must each be caught; the plays are in
`weak_sessions`, `weak_payments` and `weak_claims`, one for each.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.protocol.board import Board, open_board
from tests.protocol.weak_claims import CLAIMS
from tests.protocol.weak_ledger import open_weak_board, weaken
from tests.protocol.weak_payments import PAYMENTS
from tests.protocol.weak_sessions import SESSIONS
from tests.protocol.weakening import Weakening, run

ALL = (*SESSIONS, *PAYMENTS, *CLAIMS)


@pytest.fixture(scope="module")
def strong() -> Board:
    return open_board(2)


@pytest.fixture(scope="module")
def weak(tmp_path_factory: pytest.TempPathFactory) -> Board:
    return open_weak_board(tmp_path_factory.mktemp("weak"))


def named(one: Weakening) -> Any:
    """The ledger's, which has to be compiled for them, and those that others cover take longer."""
    marks = [pytest.mark.long] if one.ledger or not one.loser else []
    return pytest.param(one, id=one.name, marks=marks)


@pytest.mark.parametrize("one", [named(one) for one in ALL])
def test_weakening(one: Weakening, strong: Board, request: pytest.FixtureRequest,
                   monkeypatch: pytest.MonkeyPatch) -> None:
    saved = strong.save()
    try:
        why, broken = run(strong, one)
    finally:
        strong.load(saved)
    assert (why or "").startswith(one.stop) and bool(why) is bool(one.stop), f"stopped: {why}"
    assert broken == {}, "somebody loses with the rule"
    board = request.getfixturevalue("weak") if one.ledger else strong
    saved = board.save()
    try:
        with monkeypatch.context() as patch:
            one.patch(patch, board)
            if one.ledger:
                weaken(board, one.ledger)
            why, broken = run(board, one)
    finally:
        board.load(saved)
    assert why is None, f"the play is stopped without the rule: {why}"
    print(f"{one.name}: {broken}")
    # Of the few that others cover: the rule refuses, and that is all that there is to see.
    assert (one.loser in broken) if one.loser else broken == {}


RULES = (
    "close order", "role by sign", "k unchecked", "nwpk unbound",
    "second close with a new commitment", "posted lock ignored: Setup",
    "posted lock ignored: Establish", "posted lock ignored: Close R",
    "posted lock ignored: Close C", "posted lock ignored: Pay 1",
    "posted lock ignored: Pay 1, payee", "posted lock ignored: Pay 4", "no T_exp",
    "T_exp by wall clock", "no client delay", "relay wallet not revoked",
    "nrt_R without the state establishing", "relay_closing taken for relay_closed",
    "late Establish", "late relay close", "range on B instead of B − n·price",
    "different wpk' in the two requests", "Ỹ0 in a request", "checkpoint without position",
    "Close-C from setting_up", "k in the reply key", "one deadline for notice and dispute",
    "group close over a resolved channel", "tax rate by session", "I's own close",
    "re-registration of I's key", "T_p too late", "unconditional crt", "negative ε",
    "same wallet twice", 'no "crt verified"',
)
"""Single weakenings, each of which must be caught."""

COVERED = {
    "posted lock ignored: Establish": "a channel pays once, and a relay's balance only grows",
    "relay wallet not revoked": "the same: its old token is worth less than its new one",
    "late Establish": "a relay that closes late is paid what the ledger binds the client to",
    "posted lock ignored: Pay 1, payee": "a channel that is closing takes no other token",
}
"""Rules without which nobody loses a unit while the others stand, and the rule that covers."""


def test_every_rule_has_its_weakening() -> None:
    assert sorted(one.name for one in ALL) == sorted(RULES)
    assert {one.name for one in ALL if not one.loser} == set(COVERED)
