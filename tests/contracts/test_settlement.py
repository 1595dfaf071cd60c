# SPDX-License-Identifier: BSD-3-Clause
"""The pure rules against a reference in Python, for arbitrary inputs."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st
from web3.contract import Contract

from monetor_chain.rehearsal import Rehearsal, TokenIssuer, commitment, payment_chain
from monetor_chain.statements import GROUP_ORDER, keccak256

from .mocks import compiled

RELAXED = settings(
    max_examples=25,
    deadline=None,
    # The assertion shows the case; shrinking a list of hundreds would take minutes.
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
BATCH = 200

amounts = st.one_of(st.integers(0, 300), st.integers(0, 2**31 - 1), st.integers(0, 2**39))
rates = st.one_of(st.just(1_000), st.sampled_from([0, 1, 9_999, 10_000]), st.integers(0, 10_000))
claims = st.one_of(st.integers(0, 600), st.integers(0, 2**33), st.integers(0, 2**256 - 1))
words = st.one_of(st.integers(0, 200), st.integers(0, 2**32 - 1))


@pytest.fixture(scope="module")
def arithmetic(shared_stage: Rehearsal) -> Contract:
    return shared_stage.deploy_code(*compiled("Arithmetic"))


def reference(role: int, deposit: int, fund: int, claim: int, rate: int) -> tuple[int, int, int]:
    """protocol, "Tax": in exact fractions, so that no rounding rule is copied."""
    tau = Fraction(rate, 10_000)
    if role == 1:
        paid = min(claim, deposit + fund)
        return paid, deposit + fund - paid, 0
    paid = min(claim, deposit + floor(fund / (1 + tau)))
    due = floor(max(0, paid - deposit) * tau)
    return paid, deposit + fund - paid - due, due


@RELAXED
@given(
    st.lists(
        st.tuples(st.sampled_from([1, 2]), amounts, amounts, claims, rates),
        min_size=BATCH,
        max_size=BATCH,
    )
)
def test_division_conserves_and_equals_the_reference(
    arithmetic: Contract, cases: list[tuple[int, int, int, int, int]]
) -> None:
    """Invariants L2, L3: every unit of the escrow is exactly one party's."""
    for case, shares in zip(cases, arithmetic.functions.divide(cases).call(), strict=True):
        assert tuple(shares) == reference(*case)
        assert sum(shares) == case[1] + case[2]
        assert min(shares) >= 0


@st.composite
def outcomes(draw: st.DrawFn) -> tuple[int, int, int, int, int, int]:
    n = 2 ** draw(st.integers(5, 18))
    saturated = draw(st.one_of(st.integers(0, 2**33), st.integers(0, 2**64 - 1)))
    return (
        draw(st.sampled_from([1, 2])),
        saturated,
        n,
        draw(st.integers(0, n)),
        draw(words),
        draw(words),
    )


@RELAXED
@given(st.lists(outcomes(), min_size=BATCH, max_size=BATCH))
def test_session_claims_equal_the_reference(
    arithmetic: Contract, cases: list[tuple[int, int, int, int, int, int]]
) -> None:
    """Invariant L13: neither overflow nor a negative claim, whatever was signed."""
    results = arithmetic.functions.session_claims(cases).call()
    for (role, saturated, n, k, price, delta_r), result in zip(cases, results, strict=True):
        if role == 1:
            assert result == saturated + price * (n - k)
        else:
            assert result == max(0, saturated - delta_r * (n - k))


@RELAXED
@given(st.integers(0, 2**31), rates)
def test_guard_share(arithmetic: Contract, amount: int, rate: int) -> None:
    """Invariant L20: floor(amount / (1 + rate)), the pool gets the rest."""
    share = arithmetic.functions.guard_share(amount, rate).call()
    assert share == floor(amount / (1 + Fraction(rate, 10_000)))


@RELAXED
@given(st.sampled_from([32, 64, 256]), st.data())
def test_predicate_is_exact(arithmetic: Contract, n: int, data: st.DataObject) -> None:
    """Invariant L12: a proof for j is accepted as a proof for k only if j = k."""
    chain = payment_chain(n)
    j, k = data.draw(st.integers(1, n)), data.draw(st.integers(1, n))
    _, value, path = chain.proof(j)
    accepted = arithmetic.functions.proves(n, chain.hc0, chain.root, k, value, path).call()
    assert accepted == (j == k)


@pytest.mark.parametrize("position", range(4))
def test_scalars_are_below_the_order(arithmetic: Contract, position: int) -> None:
    """Invariant L7: the verifier itself refuses a second name of the same message."""
    issuer = TokenIssuer(9)
    messages = [11, 12, 13, 14]
    token = issuer.sign(messages[0], messages[1], messages[2], messages[3])
    accepts = arithmetic.functions.is_token
    assert accepts(issuer.public_key, *messages, token).call()
    messages[position] += GROUP_ORDER
    assert not accepts(issuer.public_key, *messages, token).call()
    assert not accepts(issuer.public_key[:-128], 11, 12, 13, 14, token).call()


def test_commitments_agree(arithmetic: Contract) -> None:
    """The generators in the contract are those in the shared statements."""
    for values in ((5, 6, 7), (2**248 - 1, 2**64 - 1, GROUP_ORDER - 1)):
        assert arithmetic.functions.commitment(*values).call() == keccak256(commitment(*values))
