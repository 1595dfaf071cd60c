# SPDX-License-Identifier: BSD-3-Clause
"""When a client stops paying a circuit: the test itself, its error rates, and its patience."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from offchain.experiments.tit_for_tat import all_outcomes, play, simulate, table
from offchain.policy.tit_for_tat import (
    FALSE_LEAVE,
    FIRST_PAUSE,
    MISSED_CHEAT,
    MOST_UNPAID,
    PAID_FIRST,
    PATIENCE,
    REST_SECONDS,
    SKIPPED,
    SPREAD,
    Patience,
    Stance,
    TitForTat,
    log_likelihood,
)

GAIN = math.sqrt(5)


def density(x, mean, variance):
    return math.exp(-((x - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)


@pytest.mark.parametrize(("n_p", "n_u", "difference"), [(10, 1, 0.1), (10, 4, 0.9), (30, 15, -0.2)])
def test_the_ratio_is_that_of_the_two_densities(n_p, n_u, difference):
    variance = SPREAD**2 * (1 / n_p + 1 / n_u)
    expected = math.log(density(difference, math.log(GAIN), variance)
                        / density(difference, 0, variance))
    level = 7.0  # the speed itself does not matter
    assert log_likelihood(GAIN, (n_p, level + difference), (n_u, level)) == pytest.approx(expected)
    assert log_likelihood(GAIN, (0, 0.0), (n_u, level)) == 0


def feed(client, seconds, speed, premium):
    for _ in range(seconds):
        client.second(speed, premium=premium)
    return client.stance


def probing(promised=5.0, speed=500.0):
    client = TitForTat(promised, 150)
    assert feed(client, SKIPPED + PAID_FIRST - 1, speed, True) is Stance.PAY
    assert feed(client, 1, speed, True) is Stance.WITHHOLD
    return client


def test_a_circuit_that_is_slower_when_it_is_not_paid_is_paid_again():
    client = probing()
    # While credit is left the seconds are still paid for, and count for nothing.
    assert feed(client, 50, 500.0, True) is Stance.WITHHOLD
    assert feed(client, 3, 300.0, None) is Stance.WITHHOLD
    assert feed(client, SKIPPED, 500.0, False) is Stance.WITHHOLD
    assert feed(client, 3, 100.0, False) is Stance.PAY
    assert client.probes == 1


def test_cells_that_were_under_way_count_for_neither():
    """After a change, one premium window of them, if that takes longer than two seconds."""
    client = TitForTat(5.0, 2500)
    feed(client, 5 + PAID_FIRST, 500.0, True)
    assert client.stance is Stance.WITHHOLD
    feed(client, 5, 500.0, False)  # what was sent while it was premium
    assert feed(client, 2, 100.0, False) is Stance.PAY


def test_a_circuit_that_is_no_slower_twice_in_a_row_is_left_for_good():
    client = probing()
    assert feed(client, SKIPPED + 6, 500.0, False) is Stance.PAY
    assert client.probes == 0
    assert feed(client, SKIPPED + PAID_FIRST, 500.0, True) is Stance.WITHHOLD, "at once"
    assert feed(client, SKIPPED + 6, 500.0, False) is Stance.LEAVE
    assert feed(client, 50, 5000.0, True) is Stance.LEAVE


def test_one_bad_probe_is_forgotten_after_a_good_one():
    client = probing()
    for unpaid in (500.0, 100.0, 500.0):
        feed(client, SKIPPED + 6, unpaid, False)
        assert client.stance is Stance.PAY
        while client.stance is Stance.PAY:
            feed(client, 1, 500.0, True)
    assert feed(client, SKIPPED + 6, 500.0, False) is Stance.LEAVE


def test_each_probe_that_finds_service_is_followed_by_a_longer_pause():
    client = probing()
    pauses = []
    for _ in range(9):
        feed(client, SKIPPED + 4, 100.0, False)
        assert client.stance is Stance.PAY
        count = 0
        while client.stance is Stance.PAY:
            feed(client, 1, 500.0, True)
            count += 1
            assert count < 2000
        pauses.append(count - SKIPPED)
    assert pauses[:4] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE, 8 * FIRST_PAUSE]
    assert pauses[-2:] == [1280, 1280]


def test_a_relay_that_begins_to_cheat_later_is_found_out():
    client = probing()
    feed(client, SKIPPED + 4, 100.0, False)
    assert client.stance is Stance.PAY
    for end in (Stance.PAY, Stance.LEAVE):
        feed(client, 200, 100.0, True)
        assert client.stance is Stance.WITHHOLD
        assert feed(client, SKIPPED + 6, 100.0, False) is end


def test_a_probe_ends_in_any_case():
    client = probing()
    between = 500.0 / GAIN**0.5  # as likely one as the other
    feed(client, SKIPPED + MOST_UNPAID - 1, between * 1.01, False)
    assert client.stance is Stance.WITHHOLD
    assert feed(client, 1, between * 1.01, False) is Stance.PAY
    assert client.probes == 0, "what is likelier counts, and that was no gain"


def test_a_network_that_promises_nothing_is_not_put_to_the_test():
    client = TitForTat(1.0, 150)
    assert feed(client, 500, 100.0, True) is Stance.PAY


def test_a_stalled_second_is_no_measurement():
    client = probing()
    assert feed(client, 100, 0.0, False) is Stance.WITHHOLD


def test_error_rates_are_those_that_the_test_is_made_for():
    """With the noise that it reckons with, at the gain that it asks for, and for a cheat."""
    honest = simulate(2.24, SPREAD, 0.0, circuits=150)
    cheat = simulate(1.0, SPREAD, 0.0, circuits=150)
    # A probe is cut short after some seconds, which costs a little on either side; and to be left
    # takes two of them.
    assert honest.left_at_once <= FALSE_LEAVE
    assert honest.left_within_hour <= 5 * FALSE_LEAVE
    assert 1 - cheat.left_at_once <= 2 * (MISSED_CHEAT + 0.05)
    assert cheat.left_within_hour == 1
    full = simulate(5.0, SPREAD, 0.0, circuits=50)
    assert full.left_within_hour == 0 and full.unpaid_share < 0.05


def test_a_cheat_is_paid_for_seconds_only():
    chance = random.Random(3)
    seconds = [play(1.0, SPREAD, 0.0, chance)[1] for _ in range(100)]
    assert statistics.median(seconds) < 120


def test_the_table_has_a_row_for_each_kind():
    lines = table(all_outcomes(circuits=1))
    assert len(lines) == 2 + 5 * 3 * 2 and len({line.count("|") for line in lines}) == 1


def test_after_some_circuits_in_vain_nobody_is_paid_for_a_while():
    patience = Patience()
    for number in range(PATIENCE):
        assert patience.pays(number)
        patience.left(number)
    end = PATIENCE - 1 + REST_SECONDS
    assert not patience.pays(PATIENCE) and not patience.pays(end - 1) and patience.pays(end)
    patience.left(end)
    patience.served()
    for _ in range(PATIENCE - 1):
        patience.left(end)
    assert patience.pays(end), "one that served well begins the count anew"
