"""What meters tell adds up: in any order, over any number of workers, exactly."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.measurements import HIGHEST_US, Counts, Latency, Measurements, Meter, histogram, note

calls = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from(["PutRecords", "PutItem"]),
        st.sampled_from(["shard-0", "shard-1"]),
        st.floats(0, 30),
        st.floats(0, 5),
        st.integers(0, 500),
        st.integers(0, 20),
    ),
    max_size=30,
)


def fill(meter: Meter, one: tuple[int, str, str, float, float, int, int]) -> None:
    stage, operation, resource, due_at, took, accepted, throttled = one
    meter.due(stage, operation, due_at, accepted + throttled)
    meter.sent(stage, operation, due_at, due_at + took / 2)
    meter.answered(
        stage, operation, resource, due_at, due_at + took, accepted=accepted, throttled=throttled, size_bytes=accepted
    )
    if throttled:
        meter.problem(operation, resource, "Throttled", "too fast", throttled, due_at)


@given(done=calls, workers=st.integers(1, 4), seed=st.integers(0, 100))
def test_workers_measure_together_what_one_would(
    done: list[tuple[int, str, str, float, float, int, int]], workers: int, seed: int
) -> None:
    alone, meters = Meter(), [Meter() for _ in range(workers)]
    told = []
    for index, one in enumerate(done):
        fill(alone, one)
        fill(meters[index % workers], one)
        if index % 7 == 0:
            told.append(meters[index % workers].take())
    told += [meter.take() for meter in meters]
    random.Random(seed).shuffle(told)
    one, many = Measurements(), Measurements()
    one.add(alone.take())
    for part in told:
        # As they travel.
        many.add(json.loads(json.dumps(part)))
    assert many.counts == one.counts
    assert many.latencies().percentiles_ms() == one.latencies().percentiles_ms()
    assert {key: problem.count for key, problem in many.problems.items()} == {
        key: problem.count for key, problem in one.problems.items()
    }
    again = Measurements.from_json(json.loads(json.dumps(many.to_json())))
    assert again.counts == many.counts
    assert again.latencies().percentiles_ms() == many.latencies().percentiles_ms()


def test_a_meter_tells_everything_once() -> None:
    meter = Meter()
    fill(meter, (0, "PutRecords", "shard-0", 1.0, 0.1, 10, 0))
    assert meter.take()["counts"]
    assert meter.take() == {"counts": [], "latency": [], "problems": []}


@given(values=st.lists(st.floats(1e-6, 500), min_size=1, max_size=200))
def test_quantiles_are_exact_within_a_tenth_of_a_percent(values: list[float]) -> None:
    latency = Latency()
    for value in values:
        note(latency.accepted, value)
    found = latency.percentiles_ms()
    ordered = sorted(values)
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)):
        # HdrHistogram takes the nearest rank.
        rank = max(int(share * len(ordered) + 0.5), 1)
        true_ms = ordered[rank - 1] * 1000
        got = found[name]
        assert got is not None
        # 1 us of rounding to whole microseconds, and three significant digits.
        assert got == pytest.approx(true_ms, rel=0.0011, abs=0.0011)


def test_a_latency_of_many_records_counts_each() -> None:
    one = histogram()
    note(one, 0.01, 500)
    note(one, 1.0, 1)
    assert one.get_total_count() == 501
    assert one.get_value_at_percentile(99) / 1000 == pytest.approx(10, rel=0.001)


def test_latencies_beyond_what_is_kept_count_as_the_highest() -> None:
    one = histogram()
    note(one, 7200.0)
    note(one, 0.0)
    note(one, -1.0)
    assert one.get_total_count() == 3
    assert one.get_max_value() == pytest.approx(HIGHEST_US, rel=0.001)


def test_nothing_measured_has_no_quantiles() -> None:
    assert Latency().percentiles_ms() == {"p50": None, "p90": None, "p99": None, "p99_9": None, "max": None}


def test_shares_are_of_all_answers() -> None:
    counts = Counts(accepted=90, throttled=5, retried=5, failed=0)
    assert counts.throttled_share == pytest.approx(0.1)
    assert Counts().throttled_share == 0
    assert Counts(accepted=3, failed=1).failed_share == 0.25


def test_the_worst_operation_does_not_drown_in_the_others() -> None:
    meter = Meter()
    fill(meter, (0, "PutRecords", "shard-0", 1.0, 0.1, 100_000, 0))
    fill(meter, (0, "PutItem", "table", 1.0, 0.1, 1, 1))
    found = Measurements()
    found.add(meter.take())
    assert found.worst(lambda one: one.throttled_share) == 0.5
    assert found.total().throttled_share < 0.001
