# SPDX-License-Identifier: BSD-3-Clause
"""No detector wins the linking game against honest clients; each wins where it should.

What the long test says: with 2,000 rounds and the battery of `detectors.py`, an honest
implementation fails it with probability 0.001 at most, and with 99.9 % confidence no detector of
the battery is right with probability above 1/2 + `REACH`. That is a statement about these detectors
only; that there is nothing to see for any other is what the simulators are for.
"""

from __future__ import annotations

import pytest

from offchain.crypto.issuer import IssuerKey
from tests.anonymity.detectors import DETECTORS
from tests.anonymity.game import KINDS, Game, Score, bound, summary
from tests.anonymity.leaks import LEAKS, TO_RELAY, Leak

ROUNDS = 2_000
FEW = 5
CONTROLS = 2
MANY_CONTROLS = 40
DOUBT = 0.001
EXACT = {one.name for one in DETECTORS if one.exact}
REACH = bound(ROUNDS, len(DETECTORS), DOUBT)


@pytest.fixture(scope="module")
def issuer() -> IssuerKey:
    return IssuerKey.generate()


def judge(game: Game) -> None:
    """Nothing that proves anything spoke, and nothing else is right more often than a coin."""
    for name, one in game.scores.items():
        if name in EXACT:
            assert not one.spoke, f"{name} tells users apart\n{summary(game.scores)}"
        strays = abs(one.right / one.rounds - 0.5)
        assert strays < bound(one.rounds, len(game.scores), DOUBT), summary(game.scores)


@pytest.mark.parametrize("against", ["I", "R"])
def test_a_few_rounds(monkeypatch: pytest.MonkeyPatch, issuer: IssuerKey, against: str) -> None:
    game = Game(monkeypatch, issuer, against=against)
    game.play(FEW, kinds=KINDS if against == "I" else ("session",))
    judge(game)


@pytest.mark.long
@pytest.mark.parametrize("against", ["I", "R"])
def test_the_linking_game(monkeypatch: pytest.MonkeyPatch, issuer: IssuerKey, against: str
                          ) -> None:
    assert REACH < 0.053
    game = Game(monkeypatch, issuer, against=against)
    game.play(ROUNDS, kinds=KINDS if against == "I" else ("session",))
    judge(game)
    print(summary(game.scores))


# --- Controls


def caught(patch: pytest.MonkeyPatch, issuer: IssuerKey, leak: Leak, against: str, rounds: int
           ) -> None:
    """The detector has evidence in every round, and it is right in every one."""
    (wanted,) = (one for one in DETECTORS if one.name == leak.detector)
    game = Game(patch, issuer, against=against, detectors=(wanted,))
    leak.install(patch, game.stand)
    for _ in range(leak.warm_up):
        game.round(leak.kind)
    score = game.scores[wanted.name] = Score()
    for _ in range(rounds):
        game.round(leak.kind, leak.end)
    assert score.right == score.spoke == score.rounds == rounds, summary(game.scores)


@pytest.mark.parametrize("leak", LEAKS, ids=lambda one: one.name)
def test_a_leak_to_the_intermediary_is_seen(
        monkeypatch: pytest.MonkeyPatch, issuer: IssuerKey, leak: Leak) -> None:
    caught(monkeypatch, issuer, leak, "I", CONTROLS)


@pytest.mark.parametrize("leak", TO_RELAY, ids=lambda one: one.name)
def test_a_leak_to_the_relay_is_seen(
        monkeypatch: pytest.MonkeyPatch, issuer: IssuerKey, leak: Leak) -> None:
    caught(monkeypatch, issuer, leak, "R", CONTROLS)


@pytest.mark.long
@pytest.mark.parametrize(("leak", "against"), [
    *((one, "I") for one in LEAKS), *((one, "R") for one in TO_RELAY)],
    ids=lambda one: getattr(one, "name", one))
def test_a_leak_is_seen_in_many_rounds(
        monkeypatch: pytest.MonkeyPatch, issuer: IssuerKey, leak: Leak, against: str) -> None:
    """Right in every round: an advantage above 0.68 with 99.9 % confidence, for whoever is right
    with a probability of 0.84 at most is right in all 40 once in a thousand times."""
    caught(monkeypatch, issuer, leak, against, MANY_CONTROLS)
    assert 0.84 ** MANY_CONTROLS < DOUBT


def test_every_detector_has_a_leak_that_it_sees() -> None:
    likely = {"counts", "likeness"}  # Nothing but the noise that a coin is compared with.
    assert {one.detector for one in LEAKS} == {one.name for one in DETECTORS} - likely
