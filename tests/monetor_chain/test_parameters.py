# SPDX-License-Identifier: BSD-3-Clause
"""Parameter sets: arithmetic, and the same verdict on a whole set as the contract's."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from monetor_chain.accounts import dev_address
from monetor_chain.bindings.consensus import FUNCTIONS, Consensus
from monetor_chain.chain import Chain
from monetor_chain.errors import InvalidParameters, RpcError
from monetor_chain.parameters import DEFAULT, DEMO, TAX_RATE_BP, NetworkParameters

# Each breaks exactly one rule of a valid set.
BROKEN = {
    "fee": {"price": 95},
    "delta_r": {"delta_r": 0},
    "n small": {"n": 16},
    "n large": {"n": 2**19, "price": 100},
    "n no power": {"n": 96},
    "deposit_max": {"deposit_max": 2**31},
    "n * price": {"deposit_max": 128 * 100 - 1},
    "dispute_window": {"dispute_window": 79},
    "dispute_window long": {"dispute_window": 90 * 86_400 + 1, "close_notice": 100 * 86_400},
    "close_notice": {"close_notice": 119},
    "close_notice long": {"close_notice": 366 * 86_400 + 1},
    "lifetime": {"lifetime": 80},
    "lifetime long": {"lifetime": 90 * 86_400 + 1},
    "safety_margin": {"safety_margin": 0},
    "cells_per_payment": {"cells_per_payment": 0},
    "premium_share": {"premium_share": 10_001},
    "no premium_share": {"premium_share": 0},
    "alpha": {"alpha": 9_001},
    "beta": {"beta": 9_999},
    "circuit_window": {"circuit_window": 99},
    "stream_window": {"stream_window": 49},
    "word": {"close_bond": 2**32},
}
# At the edge of a rule, still valid.
EDGES = [
    {"price": 96},
    {"n": 32},
    {"n": 2**18},
    {"deposit_max": 128 * 100},
    {"deposit_max": 2**31 - 1},
    {"dispute_window": 80},
    {"dispute_window": 90 * 86_400, "close_notice": 366 * 86_400},
    {"close_notice": 120},
    {"lifetime": 81},
    {"lifetime": 90 * 86_400},
    {"premium_share": 10_000},
    {"premium_share": 1},
    {"alpha": 9_000, "beta": 10_000},
    {"circuit_window": 100, "stream_window": 50},
    {"close_bond": 2**32 - 1},
    {"close_bond": 0, "pay_fee": 0, "initial_credit": 0, "setup_pause": 0, "alpha": 0},
]


def test_the_default_is_the_issue_of_the_design():
    for parameters in (DEFAULT, DEMO):
        parameters.check()
        assert parameters.delta_c == -100
        assert parameters.tax() == 9
        assert parameters.fee() == 5


def test_tax_is_rounded_up():
    assert replace(DEMO, delta_r=81).tax(1_000) == 9
    assert replace(DEMO, delta_r=80).tax(1_000) == 8
    assert replace(DEMO, delta_r=1).tax(1) == 1


def test_expiry_is_the_same_throughout_an_epoch():
    start = 60 * 1_000
    assert DEMO.epoch_at(start) == 1_000
    assert {DEMO.t_exp(start + second) for second in (0, 1.5, 59.9)} == {start + 60 + 600}
    assert DEMO.t_exp(start + 60) == start + 120 + 600


def test_words_and_back():
    assert NetworkParameters.from_words(DEFAULT.words()) == DEFAULT
    with pytest.raises(InvalidParameters, match="19 words"):
        NetworkParameters.from_words(DEFAULT.words()[:-1])


@pytest.mark.parametrize("rule", BROKEN)
def test_each_rule_is_told_apart(rule):
    problems = replace(DEMO, **BROKEN[rule]).problems()
    assert problems
    with pytest.raises(InvalidParameters) as caught:
        replace(DEMO, **BROKEN[rule]).check()
    assert list(caught.value.problems) == problems


async def verdict(chain: Chain, consensus: Consensus, parameters: NetworkParameters) -> bool:
    """Whether the contract takes the set as a vote."""
    epoch = await consensus.current_epoch() + 1
    data = FUNCTIONS["vote"].encode(epoch, parameters.words())
    try:
        await chain.call(consensus.address, data, sender=dev_address("authority"))
    except RpcError as error:
        if "not the next epoch" in str(error):  # an epoch began between the two calls
            return await verdict(chain, consensus, parameters)
        assert "consensus: " in str(error)
        return False
    return True


def ask(network, sets: list[NetworkParameters]) -> list[bool]:
    async def work() -> list[bool]:
        async with await Chain.connect(network.url) as chain:
            consensus = Consensus(chain, network.deployment.consensus)
            return [await verdict(chain, consensus, one) for one in sets]

    return asyncio.run(work())


def test_the_contract_agrees_on_every_rule_and_edge(network):
    broken = [replace(DEMO, **change) for change in BROKEN.values()]
    valid = [DEMO, *(replace(DEMO, **change) for change in EDGES)]
    assert ask(network, broken) == [False] * len(broken)
    assert ask(network, valid) == [True] * len(valid)
    assert not any(one.problems() for one in valid)


FIELDS = st.sampled_from(
    [name for name in NetworkParameters.__dataclass_fields__ if name != "epoch"]
)
VALUES = st.one_of(
    st.sampled_from(
        [0, 1, 20, 32, 49, 50, 79, 80, 81, 95, 96, 99, 100, 119, 120, 128, 9_000, 9_001, 9_999]
        + [10_000, 2**18, 7_776_000, 7_776_001, 31_622_400, 31_622_401, 2**31 - 1, 2**31]
    ),
    st.integers(0, 2**33),
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(changes=st.dictionaries(FIELDS, VALUES, min_size=1, max_size=3))
def test_the_contract_agrees_on_any_set(network, changes):
    parameters = replace(DEMO, **changes)
    assert ask(network, [parameters]) == [not parameters.problems(TAX_RATE_BP)]
