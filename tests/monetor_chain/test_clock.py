# SPDX-License-Identifier: BSD-3-Clause
import pytest

from monetor_chain.devchain.clock import ChainClock


class RealTime:
    def __init__(self) -> None:
        self.value = 100.0

    def __call__(self) -> float:
        return self.value


@pytest.fixture
def real() -> RealTime:
    return RealTime()


def test_the_clock_runs_at_its_speed(real):
    clock = ChainClock(1_000.0, 10.0, real)
    real.value += 3
    assert clock.now() == pytest.approx(1_030)


def test_a_change_of_speed_keeps_the_present(real):
    clock = ChainClock(1_000.0, 10.0, real)
    real.value += 1
    clock.set_speed(2.0)
    assert clock.now() == pytest.approx(1_010)
    real.value += 1
    assert clock.now() == pytest.approx(1_012)


def test_jumps_go_ahead_only(real):
    clock = ChainClock(1_000.0, 1.0, real)
    assert clock.advance(60) == pytest.approx(1_060)
    clock.at_least(1_050)
    assert clock.now() == pytest.approx(1_060)
    clock.at_least(1_100)
    assert clock.now() == pytest.approx(1_100)
    for jump in (-1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="advanced"):
            clock.advance(jump)


def test_waiting_times_follow_the_speed(real):
    clock = ChainClock(1_000.0, 4.0, real)
    assert clock.real_seconds_until(1_010) == pytest.approx(2.5)
    assert clock.real_seconds_until(999) == 0
    clock.set_speed(0)
    assert clock.real_seconds_until(1_010) == float("inf")


@pytest.mark.parametrize("speed", [-1.0, float("inf"), float("nan")])
def test_impossible_speeds(real, speed):
    with pytest.raises(ValueError, match="speed"):
        ChainClock(0.0, speed, real)
