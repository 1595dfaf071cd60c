# SPDX-License-Identifier: BSD-3-Clause
"""Nobody honest loses: the whole ledger under random attack, against the floors of the protocol.

The short tests take some hundred steps on the contracts. The long ones, ten thousand steps on the
contracts and a million on the books alone, and every weakening that must be found:

    python -m pytest -m long -s tests/contracts/test_floors.py

Each prints how many steps it took. A failure prints the seed and the moves that led to it, those
that it can do without left out; `play` plays such a run again.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from itertools import combinations, count

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from monetor_chain.rehearsal_chain import RehearsalChain

from .floors_machine import ENTRY_POINTS, NEVER_REFUSED, SIDES, Base, make_base
from .floors_rules import machine
from .offchain_records import Weakness

COALITIONS = tuple(
    frozenset(sides) for size in range(len(SIDES) + 1) for sides in combinations(SIDES, size)
)
LONG_STEPS = 10_000
BOOK_STEPS = 1_000_000


@pytest.fixture(scope="module")
def base(new_chain: Callable[[], RehearsalChain]) -> Base:
    return make_base(new_chain())


# --- On the contracts, by hypothesis -----------------------------------------------------------


def walk(base: Base, coalition: frozenset[str], number: int, runs: int, steps: int) -> None:
    """`runs` runs of at most `steps` steps; hypothesis shrinks what fails."""
    bound = seed(number)(machine(base=base, coalition=coalition, number=number))
    run_state_machine_as_test(
        bound,
        settings=settings(
            max_examples=runs,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.slow
def test_nobody_honest_loses_in_a_few_runs(base: Base) -> None:
    """Invariants L1 to L3 and L8 to L20 in arbitrary order, one run for every coalition."""
    before = base.steps
    for number, coalition in enumerate(COALITIONS):
        walk(base, coalition, number, 1, 35)
    assert base.steps - before > 200


@pytest.mark.long
@pytest.mark.timeout(3_600)
def test_nobody_honest_loses_in_ten_thousand_steps(base: Base) -> None:
    """The same, until ten thousand steps have run and each entry point was taken and refused."""
    begin, calls, coalitions = base.steps, base.calls, Counter[str]()
    for number in count(100):
        coalition = COALITIONS[number % len(COALITIONS)]
        walk(base, coalition, number, 2, 100)
        coalitions[",".join(sorted(coalition)) or "nobody"] += 2
        if base.steps - begin >= LONG_STEPS and len(coalitions) == len(COALITIONS):
            break
    print(f"\n{base.steps - begin} steps in {sum(coalitions.values())} runs, ", end="")
    print(f"{base.calls - calls} calls mined; runs by coalition: {dict(coalitions)}")
    for name in sorted(ENTRY_POINTS):
        print(f"{name:>20} {base.taken[name]:>5} taken {base.refused[name]:>5} refused")
    for name, times in base.moves.most_common():
        print(f"{times:>20} {name}")
    assert base.steps - begin >= LONG_STEPS
    assert len(coalitions) == 2 ** len(SIDES)
    assert {name for name in ENTRY_POINTS if not base.taken[name]} == set()
    assert {name for name in ENTRY_POINTS if not base.refused[name]} == NEVER_REFUSED


# --- On the books alone, by seeds --------------------------------------------------------------


def play(
    base: Base,
    coalition: frozenset[str],
    number: int,
    steps: list[int],
    weak: Weakness | None = None,
    *,
    live: bool = False,
) -> str:
    """What went wrong in a run; empty if nobody lost."""
    run = machine(base=base, coalition=coalition, number=number, weak=weak, live=live)()
    try:
        try:
            run.begin(0)
            for step in steps:
                run.step(step)
        finally:
            run.teardown()
    except AssertionError as error:
        return str(error)
    return ""


def steps_of(number: int) -> list[int]:
    """The steps of a seed's run; short runs leave little to hide a loss behind."""
    draw = random.Random(number)
    return [draw.randrange(2**16) for _ in range(draw.choice((30, 60, 100)))]


def shrink(
    base: Base, coalition: frozenset[str], number: int, steps: list[int], weak: Weakness | None
) -> list[int]:
    """A part of the steps, none of which can be left out, by which the same party loses."""

    def loser(part: list[int]) -> str:
        return play(base, coalition, number, part, weak).partition(":")[0]

    wanted, size = loser(steps), max(1, len(steps) // 2)
    while True:
        start, before = 0, len(steps)
        while start < len(steps):
            part = steps[:start] + steps[start + size :]
            if loser(part) == wanted:
                steps = part
            else:
                start += size
        if size == 1 and len(steps) == before:
            return steps
        size = max(1, size // 2)


def search(
    base: Base, coalitions: tuple[frozenset[str], ...], runs: int, weak: Weakness | None = None
) -> tuple[frozenset[str], int, list[int]] | None:
    """The first of `runs` seeds by which somebody honest loses, with the least steps for it."""
    for number in range(runs):
        coalition = coalitions[number % len(coalitions)]
        steps = steps_of(number)
        if play(base, coalition, number, steps, weak):
            return coalition, number, shrink(base, coalition, number, steps, weak)
    return None


def _nobody_loses(base: Base, runs: int) -> None:
    found = search(base, COALITIONS, runs)
    if found is not None:
        coalition, number, steps = found
        books = play(base, coalition, number, steps)
        contracts = play(base, coalition, number, steps, live=True)
        pytest.fail(f"seed {number}, steps {steps}: {books}\non the contracts: {contracts}")


def test_nobody_honest_loses_on_the_books(base: Base) -> None:
    _nobody_loses(base, 400)


@pytest.mark.long
@pytest.mark.timeout(3_600)
def test_nobody_honest_loses_in_a_million_steps_on_the_books(base: Base) -> None:
    """The books are the contracts', as the other tests show, and a hundred times as fast."""
    before = base.steps
    _nobody_loses(base, 20_000)
    print(f"\n{base.steps - before} steps on the books")
    assert base.steps - before >= BOOK_STEPS


# --- Weakenings that the machine must find -------------------------------------------------------

C, R, I = "clients", "relays", "intermediary"  # noqa: E741
QUICK = (
    (Weakness.NO_REFUTATION, {C}),
    (Weakness.POSTED_LOCK_AT_SETUP, {C, R}),
    (Weakness.CLOSE_FROM_SETTING_UP, {C}),
    (Weakness.LATE_REVEAL, {C}),
    (Weakness.NOT_VERIFIED, {I}),
    (Weakness.UNCONDITIONAL, {C}),
    (Weakness.SILENT_ON_REQUEST, {I}),
    (Weakness.OLD_TOKEN_ON_REQUEST, {I}),
)
"""With the sides that profit."""
RARE = (
    (Weakness.TOKEN_BEFORE_FUNDS, {C}),
    (Weakness.NO_REVEAL_FOR_POSTED_CLIENTS, {C}),
    (Weakness.POSTED_LOCK_AT_PAY, {C}),
    (Weakness.NOT_ESTABLISHING, {C, R}),
    (Weakness.ESTABLISH_AFTER_CLOSE, {C, R}),
    (Weakness.LATE_RELAY_CLOSE, {C, R}),
    (Weakness.CLOSING_IS_CLOSED, {C, R}),
    (Weakness.TWO_LIVE_LOCKS, {C}),
    (Weakness.LATE_T_P, {C}),
    (Weakness.OTHER_LOCK, {C}),
    (Weakness.LATE_REVEAL, {I}),
)


def _finds(base: Base, weak: Weakness, sides: set[str], runs: int) -> None:
    """The machine finds a loss on the books, and on the contracts it is one as well."""
    found = search(base, (frozenset(sides),), runs, weak)
    assert found is not None, f"not found in {runs} runs: {weak.value}"
    coalition, number, steps = found
    message = play(base, coalition, number, steps, weak, live=True)
    print(f"\n{weak.value}; run {number}, {len(steps)} steps\n{message}")
    assert message.startswith("floor of "), message
    assert not play(base, coalition, number, steps), "a loss without the weakness"


@pytest.mark.parametrize(("weak", "sides"), QUICK, ids=lambda value: getattr(value, "name", None))
def test_finds_a_weakness(base: Base, weak: Weakness, sides: set[str]) -> None:
    _finds(base, weak, sides, 1_000)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("weak", "sides"), RARE, ids=lambda value: getattr(value, "name", None))
def test_finds_a_rare_weakness(base: Base, weak: Weakness, sides: set[str]) -> None:
    _finds(base, weak, sides, 10_000)


def test_every_weakness_is_tried() -> None:
    assert {weak for weak, _ in (*QUICK, *RARE)} == set(Weakness)


def test_a_wrong_book_is_noticed(base: Base) -> None:
    """The comparison is not vacuous: a unit too much in the book, and the first call fails."""
    run = machine(base=base)()
    run.begin(0)
    run.book.vault += 1
    with pytest.raises(AssertionError, match="books differ"):
        run.withdraw("client")
    run.teardown()
