# SPDX-License-Identifier: BSD-3-Clause
"""Which circuit's cells go first, on one link and among links, and how many pass in a second."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings, strategies as st

from offchain.transport.bandwidth import LEAST_READ, MOST_READ, LinkTurns, TokenBucket
from offchain.transport.priority import ONE, Priority
from offchain.transport.scheduler import (
    HALF_LIFE,
    MAX_QUEUED,
    Activity,
    Discipline,
    LinkQueues,
    Scheduling,
)


class Clock:
    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


def scheduling(discipline, beta=ONE, alpha=0, clock=None):
    return Scheduling(discipline, priority=Priority(beta=beta, alpha=alpha), now=clock or Clock())


def served(queues, count):
    return [queues.pop()[1] for _ in range(count)]


# --- activity


@settings(max_examples=100)
@given(st.lists(st.tuples(st.floats(0, 200), st.integers(1, 32), st.sampled_from([1.0, 5.0, 40.0])),
                min_size=1, max_size=30), st.floats(0, 1e9))
def test_activity_is_the_decaying_sum(steps, start):
    """A · 0.5^(Δt/H) + C/β, with H = 30 s."""
    activity, expected, now = Activity(), 0.0, start
    assert activity.value(now) == 0
    for wait, cells, beta in steps:
        now += wait
        expected = expected * 0.5 ** (wait / 30.0) + cells / beta
        activity.sent(cells, beta, now)
    assert activity.value(now) == pytest.approx(expected, rel=1e-5)
    assert activity.value(now + HALF_LIFE) == pytest.approx(expected / 2, rel=1e-5)


# --- one link


@pytest.mark.parametrize("discipline", list(Discipline))
def test_a_circuits_cells_keep_their_order(discipline):
    queues = LinkQueues(scheduling(discipline))
    chance = random.Random(1)
    sent = {1: 0, 2: 0, 3: 0}
    got = {1: 0, 2: 0, 3: 0}
    for _ in range(2000):
        circ_id = chance.choice([1, 2, 3])
        if chance.random() < 0.5:
            queues.push(circ_id, sent[circ_id].to_bytes(4, "big"), 1)
            sent[circ_id] += 1
        elif queues:
            circ_id, wire = queues.pop()
            assert int.from_bytes(wire, "big") == got[circ_id]
            got[circ_id] += 1
        if chance.random() < 0.1:
            queues.set_premium(circ_id, chance.random() < 0.5)
    while queues:
        circ_id, wire = queues.pop()
        got[circ_id] += 1
    assert got == sent
    with pytest.raises(KeyError):
        queues.pop()


def test_fifo_serves_in_the_order_of_arrival_whatever_the_class():
    queues = LinkQueues(scheduling(Discipline.FIFO, beta=50_000))
    queues.register(2)
    queues.set_premium(2, True)
    for number, circ_id in enumerate([1, 1, 1, 2, 3, 1, 2]):
        queues.push(circ_id, b"%d" % number, 1)
    assert b"".join(served(queues, 7)) == b"0123456"


def test_strict_serves_premium_first_and_equals_in_turn():
    queues = LinkQueues(scheduling(Discipline.STRICT))
    for circ_id in (1, 2, 3, 4):
        queues.register(circ_id)
        for _ in range(3):
            queues.push(circ_id, b"%d" % circ_id, 1)
    queues.set_premium(3, True)
    queues.set_premium(4, True)
    assert b"".join(served(queues, 12)) == b"343434" + b"121212"


def test_ewma_serves_whoever_has_sent_least_of_late():
    clock = Clock()
    queues = LinkQueues(scheduling(Discipline.EWMA, clock=clock))
    queues.register(1)
    for _ in range(20):
        queues.push(1, b"1", 10)
    served(queues, 10)
    queues.push(2, b"2", 1)
    queues.push(2, b"2", 1)
    assert served(queues, 3) == [b"2", b"2", b"1"], "one that was silent goes first"
    clock.seconds = 8 * HALF_LIFE  # what was sent counts for little now
    queues.push(3, b"3", 60)
    queues.push(3, b"3", 1)
    assert served(queues, 2) == [b"3", b"1"]


@pytest.mark.parametrize("beta", [1, 2, 5, 20])
def test_premium_circuits_get_beta_times_the_cells(beta):
    """While all of them have cells waiting."""
    clock = Clock()
    queues = LinkQueues(scheduling(Discipline.EWMA, beta * ONE, clock=clock))
    for circ_id in range(8):
        queues.register(circ_id)
        queues.set_premium(circ_id, circ_id < 2)
        for _ in range(4000):
            queues.push(circ_id, bytes([circ_id]), 1)
    count = [0] * 8
    for _ in range(6000):
        count[queues.pop()[0]] += 1
        clock.seconds += 0.001
    per_premium, per_other = sum(count[:2]) / 2, sum(count[2:]) / 6
    assert per_premium / per_other == pytest.approx(beta, rel=0.02)


def test_the_formula_as_the_paper_prints_it_gives_no_ratio():
    """A/β + C divides the past, not the cells: so the difference is not β."""
    activity = [1.0] * 8
    count = [0] * 8
    for _ in range(6000):
        first = min(range(8), key=activity.__getitem__)
        count[first] += 1
        activity[first] = activity[first] / (5 if first < 2 else 1) + 1
    assert sum(count[6:]) == 0 or count[0] / count[7] > 50


def test_a_change_of_class_counts_at_once():
    queues = LinkQueues(scheduling(Discipline.STRICT))
    for circ_id in (1, 2):
        queues.register(circ_id)
        for _ in range(4):
            queues.push(circ_id, b"%d" % circ_id, 1)
    assert served(queues, 2) == [b"1", b"2"]
    queues.set_premium(2, True)
    assert served(queues, 2) == [b"2", b"2"]
    queues.set_premium(2, False)
    queues.set_premium(1, True)
    assert served(queues, 4) == [b"1", b"1", b"1", b"2"]


def test_nothing_is_remembered_of_circuits_that_are_gone():
    queues = LinkQueues(scheduling(Discipline.EWMA))
    queues.push(9, b"a cell for a circuit that is not there", 1)
    queues.pop()
    queues.register(1)
    queues.push(1, b"x", 1)
    queues.pop()
    assert list(queues._circuits) == [1]
    queues.push(1, b"x", 1)
    queues.forget(1)
    assert queues and queues.queued(1) == 1, "what was queued still goes out"
    queues.pop()
    queues.register(2)
    queues.push(2, b"x", 1)
    queues.forget(2)
    queues.discard(2)
    assert not queues._circuits and not queues and queues._shared.used == 0


def test_a_larger_window_makes_room():
    share = scheduling(Discipline.EWMA, alpha=9_000)
    assert Priority(alpha=9_000).windows(premium=True).circuit == 3700
    queues = LinkQueues(share)
    assert queues.room_for(1, MAX_QUEUED + 2400) and not queues.room_for(1, MAX_QUEUED + 2401)


def test_a_pick_does_not_look_at_every_circuit():
    """Comparisons per pick grow as the logarithm of the circuits that wait."""
    from offchain.transport import scheduler

    def comparisons(circuits):
        queues = LinkQueues(scheduling(Discipline.EWMA))
        for circ_id in range(circuits):
            for _ in range(3):
                queues.push(circ_id, b"x", 1)
        count = 0
        original = scheduler._Entry.__lt__

        def counting(one, other):
            nonlocal count
            count += 1
            return original(one, other)

        scheduler._Entry.__lt__ = counting
        try:
            served(queues, circuits)
        finally:
            scheduler._Entry.__lt__ = original
        return count / circuits

    assert comparisons(4096) < 2.5 * comparisons(64)


# --- several links


class Link:
    def __init__(self, shared):
        self.queues = LinkQueues(shared)

    @property
    def turn(self):
        return self.queues.turn


@pytest.mark.parametrize(("discipline", "expected"), [
    (Discipline.FIFO, "ab" * 30), (Discipline.STRICT, "b" * 30 + "a" * 30)])
def test_circuits_compete_across_links(discipline, expected):
    shared = scheduling(discipline, beta=50_000)
    a, b = Link(shared), Link(shared)
    b.queues.register(1)
    b.queues.set_premium(1, True)
    turns = LinkTurns()
    for _ in range(30):
        for link, name in ((a, b"a"), (b, b"b")):
            if link.queues.push(1, name, 1):
                turns.announce(link)
    assert drain(turns, 100) == expected


def drain(turns, count):
    order = b""
    while count and (link := turns.next()) is not None:
        order += link.queues.pop()[1]
        turns.announce(link)
        count -= 1
    return order.decode()


def test_premium_circuits_get_beta_times_the_cells_on_links_of_their_own():
    shared = scheduling(Discipline.EWMA, beta=50_000)
    links = [Link(shared) for _ in range(4)]
    turns = LinkTurns()
    for number, link in enumerate(links):
        link.queues.register(7)
        link.queues.set_premium(7, number == 0)
        for _ in range(1000):
            link.queues.push(7, b"%d" % number, 1)
        turns.announce(link)
    order = drain(turns, 1600)
    assert order.count("0") / order.count("3") == pytest.approx(5, rel=0.02)


def test_what_is_urgent_overtakes_what_was_announced():
    shared = scheduling(Discipline.STRICT)
    quiet, other = Link(shared), Link(shared)
    turns = LinkTurns()
    for circ_id in (1, 2):
        quiet.queues.register(circ_id)
    quiet.queues.set_premium(2, True)
    other.queues.push(1, b"o", 1)
    turns.announce(other)
    quiet.queues.push(1, b"q", 1)
    turns.announce(quiet)
    assert quiet.queues.push(2, b"!", 1), "it is next now: the link is announced again"
    turns.announce(quiet)
    assert drain(turns, 9) == "!oq"
    turns.announce(quiet)
    assert not turns and turns.next() is None


def test_a_link_whose_cells_have_become_less_urgent_waits():
    shared = scheduling(Discipline.STRICT)
    demoted, other = Link(shared), Link(shared)
    turns = LinkTurns()
    for link in (demoted, other):
        link.queues.register(1)
        link.queues.set_premium(1, True)
    for link, name in ((demoted, b"d"), (other, b"o")):
        link.queues.push(1, name, 1)
        turns.announce(link)
    demoted.queues.set_premium(1, False)
    assert drain(turns, 9) == "od"


def test_a_link_that_is_gone_sends_nothing():
    shared = scheduling(Discipline.FIFO)
    link = Link(shared)
    link.queues.push(1, b"x", 1)
    turns = LinkTurns()
    turns.announce(link)
    assert turns
    turns.withdraw(link)
    assert not turns and turns.next() is None


# --- bandwidth


def test_bucket_gives_the_rate_and_at_most_a_burst():
    bucket = TokenBucket(1000, 500, now=10.0)
    assert bucket.left(10.0) == 500
    bucket.take(700)
    assert bucket.left(10.1) == pytest.approx(-100), "what was taken too much is missing"
    assert bucket.left(10.2) == pytest.approx(0)
    assert bucket.left(10.3) == pytest.approx(100)
    assert bucket.left(99) == 500
    for wrong in ((0, 1), (1, 0), (-1, 1)):
        with pytest.raises(ValueError):
            TokenBucket(*wrong, now=0)


def test_one_read_takes_a_share_of_what_is_left():
    bucket = TokenBucket(1e6, 1e6, now=0)
    assert bucket.read_size(0) == MOST_READ
    bucket.take(1_000_000 - 80_000)
    assert bucket.read_size(0) == 10_000
    bucket.take(79_999)
    assert bucket.read_size(0) == LEAST_READ
    bucket.take(1)
    assert bucket.read_size(0) == 0
