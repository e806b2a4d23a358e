"""Statistic sets: what is kept by the second, what is rolled up, and that nothing is lost on the way."""

from __future__ import annotations

import math
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.cloud.metrics import Metrics, unit_of

KEY = ("N", "M", (("D", "v"),))

observations = st.lists(st.tuples(st.integers(0, 600), st.integers(-1000, 1000)), min_size=1, max_size=200)


@given(observed=observations, keep=st.integers(1, 20), period=st.sampled_from([60, 120, 300]))
def test_rolling_up_keeps_sum_minimum_maximum_and_count(
    observed: list[tuple[int, int]], keep: int, period: int
) -> None:
    metrics = Metrics(keep_seconds=keep)
    for second, value in sorted(observed, key=lambda one: one[0]):
        metrics.record(*KEY, value, second + 0.5)
    found = metrics.periods(KEY, 0, 700, period)
    expected: dict[int, list[int]] = {}
    for second, value in observed:
        expected.setdefault(second - second % period, []).append(value)
    assert list(found) == sorted(expected)
    for at, values in expected.items():
        one = found[at]
        assert (one.sample_count, one.sum, one.minimum, one.maximum) == (
            len(values),
            sum(values),
            min(values),
            max(values),
        )
    assert metrics.since_start(KEY) == (len(observed), sum(value for _, value in observed))


def test_memory_is_bounded_and_totals_never_go_down() -> None:
    metrics = Metrics(keep_seconds=10, keep_minutes=5)
    before = 0.0
    for second in range(2000):
        metrics.record(*KEY, 1, second)
        total = metrics.total("N", "M")
        assert total == before + 1
        before = total
    assert len(metrics.points(KEY, 0, math.inf, 60)) <= 15
    assert [at for at, _ in metrics.points(KEY, 0, math.inf, 1)] == list(range(1990, 2000))


def test_an_aggregate_keeps_the_extremes_of_its_observations() -> None:
    metrics = Metrics()
    metrics.record(*KEY, 30, 1, samples=3, minimum=5, maximum=20)
    metrics.record(*KEY, 8, 1)
    ((_, one),) = metrics.points(KEY, 0, 2)
    assert (one.sample_count, one.sum, one.minimum, one.maximum) == (4, 38, 5, 20)
    metrics.record(*KEY, 30, 2, samples=3)
    ((_, equal),) = metrics.points(KEY, 2, 3)
    assert (equal.minimum, equal.maximum) == (10, 10)


def test_reading_while_another_thread_records_and_rolls_up_misses_nothing() -> None:
    metrics = Metrics(keep_seconds=5)
    done = threading.Event()

    def write() -> None:
        for second in range(5000):
            metrics.record(*KEY, 1, second)
            metrics.record("N", f"M{second}", (), 1, second)
        done.set()

    thread = threading.Thread(target=write)
    metrics.record(*KEY, 0, 0)
    thread.start()
    before = 0.0
    while not done.is_set():
        count, total = metrics.since_start(KEY)
        # Between the two, one more may have been recorded into a second that was already there.
        assert total >= before
        assert count >= total
        before = total
        metrics.to_json()
    thread.join()
    assert metrics.since_start(KEY) == (5001, 5000)


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("IncomingBytes", "Bytes"),
        ("PutRecords.Bytes", "Bytes"),
        ("IncomingRecords", "Count"),
        ("GetRecords.IteratorAgeMilliseconds", "Milliseconds"),
        ("IteratorAge", "Milliseconds"),
        ("Duration", "Milliseconds"),
        ("ConsumedReadCapacityUnits", "Count"),
    ],
)
def test_units_are_awss(name: str, unit: str) -> None:
    assert unit_of(name) == unit
