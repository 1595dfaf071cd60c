# SPDX-License-Identifier: BSD-3-Clause
"""The rules of settlement on a million random inputs, against integers.

    python -m pytest -m long -s tests/contracts/test_settlement_million.py

It takes six to eight minutes of one core, most of them inside py-evm.

The reference here works on integers only, in another way than the contract: shares are found by
what they must satisfy, and `test_the_reference_is_exact` holds them against exact fractions.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import islice
from math import floor

import pytest
from web3.contract import Contract

from monetor_chain.rehearsal import Rehearsal
from monetor_chain.statements import keccak256

from .mocks import compiled

MANY = 500
"""Cases in one call, as in mocks/Arithmetic.vy."""
MILLION = 1_000_000

Case = tuple[int, ...]

EDGES = sorted(
    {0, 1, 2, 2**31 - 1, 2**31, 2**32 - 1, 2**39, 2**40 - 1}
    | {2**i + d for i in range(3, 40, 4) for d in (-1, 0, 1)}
)
RATES = (0, 1, 1_000, 9_999, 10_000)


# --- Inputs ------------------------------------------------------------------------------------


def _amount(draw: random.Random) -> int:
    """Deposits, funds: below 2^40."""
    choice = draw.random()
    if choice < 0.3:
        return draw.choice(EDGES)
    if choice < 0.5:
        return draw.randrange(2**12)
    return draw.randrange(2 ** draw.choice((31, 40)))


def _rate(draw: random.Random) -> int:
    return draw.choice(RATES) if draw.random() < 0.5 else draw.randrange(10_001)


def divisions(draw: random.Random) -> Iterator[Case]:
    """role, deposit, fund, claim, rate"""
    while True:
        role, deposit, fund, rate = draw.choice((1, 2)), _amount(draw), _amount(draw), _rate(draw)
        choice = draw.random()
        if choice < 0.4:
            around = draw.choice((0, deposit, deposit + fund, cap(role, deposit, fund, rate)))
            claim = max(0, around + draw.randint(-2, 2))
        elif choice < 0.9:
            claim = draw.randrange(deposit + fund + 2)
        else:
            claim = draw.choice((2**256 - 1, 2**64 - 1, draw.randrange(2**256)))
        yield role, deposit, fund, claim, rate


def sessions(draw: random.Random) -> Iterator[Case]:
    """role, saturated, n, k, price, delta_r"""
    words = (0, 1, 86, 100, 2**31, 2**32 - 1)
    while True:
        n = 2 ** draw.randint(5, 18)
        k = draw.choice((0, 1, n - 1, n)) if draw.random() < 0.3 else draw.randrange(n + 1)
        price, delta = (
            draw.choice(words) if draw.random() < 0.4 else draw.randrange(2**32) for _ in "pd"
        )
        choice = draw.random()
        if choice < 0.3:
            saturated = max(0, delta * (n - k) + draw.randint(-2, 2))
        elif choice < 0.5:
            saturated = draw.choice((*EDGES, 2**64 - 1))
        else:
            saturated = draw.randrange(2 ** draw.choice((33, 52, 64)))
        yield draw.choice((1, 2)), saturated, n, k, price, delta


def guards(draw: random.Random) -> Iterator[Case]:
    """amount, rate"""
    while True:
        amount = draw.choice(EDGES) if draw.random() < 0.3 else draw.randrange(2**31)
        yield amount, _rate(draw)


# --- Reference -----------------------------------------------------------------------------------


def net(amount: int, rate: int) -> int:
    """The largest part of `amount` that leaves enough for the tax on it."""
    part, rest = divmod(amount, 10_000 + rate)
    return 10_000 * part + rest - -(-rest * rate // (10_000 + rate))


def cap(role: int, deposit: int, fund: int, rate: int) -> int:
    return deposit + (fund if role == 1 else net(fund, rate))


def division(role: int, deposit: int, fund: int, claim: int, rate: int) -> Case:
    """(account, intermediary, tax)"""
    account = min(claim, cap(role, deposit, fund, rate))
    earned = max(0, account - deposit) if role == 2 else 0
    whole, part = divmod(earned, 10_000)
    tax = whole * rate + part * rate // 10_000
    return account, deposit + fund - account - tax, tax


def session(role: int, saturated: int, n: int, k: int, price: int, delta: int) -> Case:
    """A client gets back what it did not pay, a relay loses what it did not receive."""
    balance = saturated + (n - k) * (price if role == 1 else -delta)
    return (max(0, balance),)


def guard(amount: int, rate: int) -> Case:
    return (net(amount, rate),)


Rule = tuple[str, Callable[[random.Random], Iterator[Case]], Callable[..., Case], int]
RULES: tuple[Rule, ...] = (
    ("divide_many", divisions, division, 3),
    ("session_claims_many", sessions, session, 1),
    ("guard_shares_many", guards, guard, 1),
)


def _call(arithmetic: Contract, name: str, cases: list[Case], width: int) -> list[Case]:
    """One eth_call with packed words: static arrays need no offsets or lengths."""
    selector = keccak256(getattr(arithmetic.functions, name).signature.encode())[:4]
    data = "0x" + selector.hex() + "".join(f"{value:064x}" for case in cases for value in case)
    raw = arithmetic.w3.eth.call(
        {"to": arithmetic.address, "data": data, "gas": 29_000_000}  # type: ignore[typeddict-item]
    )
    values = [int.from_bytes(raw[i : i + 32], "big") for i in range(0, len(raw), 32)]
    return [tuple(values[i : i + width]) for i in range(0, len(values), width)]


def compare(arithmetic: Contract, total: int, seed: int) -> int:
    """`total` inputs or a few more, a third for each rule; how many there were."""
    done = 0
    draws = [(rule, rule[1](random.Random(f"{seed} {rule[0]}"))) for rule in RULES]
    while done < total:
        for (name, _, reference, width), inputs in draws:
            cases = list(islice(inputs, MANY))
            results = _call(arithmetic, name, cases, width)
            assert len(results) == MANY
            for case, result in zip(cases, results, strict=True):
                assert result == reference(*case), (name, case)
                if width == 3:
                    assert sum(result) == case[1] + case[2], (name, case)
            done += MANY
    return done


@pytest.fixture(scope="module")
def arithmetic(shared_stage: Rehearsal) -> Contract:
    return shared_stage.deploy_code(*compiled("Arithmetic"))


def test_the_reference_is_exact() -> None:
    """Invariants L2, L3, L13, L20: the integers are those of the rules written in fractions."""
    draw = random.Random(5)
    for role, deposit, fund, claim, rate in islice(divisions(draw), 5_000):
        tau = Fraction(rate, 10_000)
        most = deposit + (fund if role == 1 else floor(fund / (1 + tau)))
        account = min(claim, most)
        tax = floor(max(0, account - deposit) * tau) if role == 2 else 0
        expected = (account, deposit + fund - account - tax, tax)
        assert division(role, deposit, fund, claim, rate) == expected
        assert min(expected) >= 0
    for amount, rate in islice(guards(draw), 5_000):
        assert guard(amount, rate) == (floor(amount / (1 + Fraction(rate, 10_000))),)


def test_some_thousand_inputs(arithmetic: Contract) -> None:
    """Invariants L2, L3, L13, L20, on the first of the million."""
    assert compare(arithmetic, 6 * MANY, 1) == 6 * MANY


@pytest.mark.long
@pytest.mark.timeout(3_600)
def test_a_million_inputs(arithmetic: Contract) -> None:
    """Invariants L2, L3, L13, L20: division, session claims and guard shares."""
    start = time.monotonic()
    done = compare(arithmetic, MILLION, 1)
    seconds = time.monotonic() - start
    print(f"{done} inputs in {seconds:.0f} s, {len(RULES)} rules, seed 1")
    assert done >= MILLION
