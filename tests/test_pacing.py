"""Arrivals by schedule: their number and times, whatever the users do."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.pacing import Schedule, batch_for


def until(schedule: Schedule, end: float) -> list[tuple[float, int]]:
    found = []
    while schedule.due() < end:
        arrival = schedule.take()
        found.append((arrival.due_at, arrival.number))
    return found


@given(rate=st.floats(0.5, 5_000), batch=st.integers(1, 500), workers=st.integers(1, 8), seconds=st.floats(1, 10))
def test_workers_offer_together_what_was_asked_for(rate: float, batch: int, workers: int, seconds: float) -> None:
    offered = 0
    for index in range(workers):
        schedule = Schedule(offset=index / workers)
        schedule.set(0, rate / workers, batch, 100.0)
        offered += sum(number for _, number in until(schedule, 100.0 + seconds))
    assert abs(offered - rate * seconds) <= batch * workers + 1


def test_workers_interleave() -> None:
    times = []
    for index in range(4):
        schedule = Schedule(offset=index / 4)
        schedule.set(0, 10, 1, 0.0)
        times += [at for at, _ in until(schedule, 0.99)]
    gaps = [after - before for before, after in pairwise(sorted(times))]
    assert gaps == pytest.approx([0.025] * 39)


def test_due_times_do_not_move_when_nobody_takes_them() -> None:
    schedule = Schedule()
    schedule.set(0, 10, 1, 50.0)
    assert schedule.due() == 50.0
    assert [schedule.take().due_at for _ in range(3)] == pytest.approx([50.0, 50.1, 50.2])


@given(rates=st.lists(st.floats(1, 1000), min_size=2, max_size=40))
def test_a_ramp_of_small_changes_loses_no_time(rates: list[float]) -> None:
    """Changing the rate four times a second offers the sum of what each asks for."""
    schedule = Schedule()
    offered, now = 0, 0.0
    for rate in rates:
        schedule.set(3, rate, 1, now)
        now += 0.25
        offered += len(until(schedule, now))
    assert offered == pytest.approx(sum(rates) * 0.25, abs=3)


def test_most_is_exact_and_the_last_request_may_be_smaller() -> None:
    schedule = Schedule()
    schedule.set(0, 1000, 30, 0.0, most=100)
    found = until(schedule, 60.0)
    assert [number for _, number in found] == [30, 30, 30, 10]
    assert schedule.due() == math.inf


def test_without_a_rate_nothing_is_due() -> None:
    schedule = Schedule()
    assert schedule.due() == math.inf
    schedule.set(0, 5, 1, 0.0)
    schedule.set(1, 0, 1, 10.0)
    assert schedule.due() == math.inf


def test_poisson_arrivals_have_the_mean_and_the_spread_of_one() -> None:
    schedule = Schedule(rng=random.Random(5))
    schedule.set(0, 100, 1, 0.0)
    times = [at for at, _ in until(schedule, 200.0)]
    gaps = [after - before for before, after in pairwise(times)]
    mean = sum(gaps) / len(gaps)
    assert mean == pytest.approx(0.01, rel=0.05)
    deviation = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps))
    assert deviation == pytest.approx(mean, rel=0.1)


@pytest.mark.parametrize(("rate", "batch"), [(-1.0, 1), (1.0, 0)])
def test_a_load_that_cannot_be_is_refused(rate: float, batch: int) -> None:
    with pytest.raises(ValueError, match="a schedule needs"):
        Schedule().set(0, rate, batch, 0.0)


@given(rate=st.floats(0, 1e6), most=st.integers(1, 500))
def test_requests_are_neither_few_and_large_nor_beyond_what_a_call_takes(rate: float, most: int) -> None:
    batch = batch_for(rate, most)
    assert 1 <= batch <= most
    assert batch == most or rate / batch <= 20.0 + 1e-6
