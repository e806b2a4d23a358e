"""The figures of a report, from counts put together by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.conductor import Record, StageRecord
from loadtests.findings import bind, find_knee, fullest, limit_row, outcome_of, rounded, sustained_rate
from loadtests.measurements import Measurements, Meter
from loadtests.resources import Limit
from loadtests.sentences import said

RECORDS = Limit("kinesis.shard.write.records_per_second", "s", 1000, "records/s", ("PutRecords",), "accepted")
BYTES = Limit("kinesis.shard.write.bytes_per_second", "s", 1_048_576, "bytes/s", ("PutRecords",), "bytes")


def recorded(seconds: list[tuple[int, int]], size: int = 200, purpose: str = "hold") -> Record:
    """One stage of ``seconds``: accepted and throttled in each, records of ``size`` bytes."""
    meter = Meter()
    for at, (accepted, throttled) in enumerate(seconds):
        due_at = 100.0 + at + 0.5
        meter.due(0, "PutRecords", due_at, accepted + throttled)
        meter.answered(
            0,
            "PutRecords",
            "s",
            due_at,
            due_at + 0.01,
            accepted=accepted,
            throttled=throttled,
            size_bytes=accepted * size,
        )
    measured = Measurements()
    measured.add(meter.take())
    judged = purpose not in ("hold", "rest", "prime")
    return Record(
        measurements=measured,
        stages=[StageRecord(0, purpose, purpose, 1500, 100.0, 100.0 + len(seconds), judged)],
        started_at=100.0,
        ended_at=100.0 + len(seconds),
        workers=["one"],
    )


def test_burst_is_no_part_of_what_is_sustained() -> None:
    record = recorded([(1500, 0), (1500, 0), (1400, 100), (1000, 500), (1001, 499), (999, 501), (1000, 500), (300, 50)])
    row = limit_row(RECORDS, record)
    assert row["sustained"] == 1000
    assert row["ratio"] == 1.0
    assert row["peak"] == 1500
    assert row["first_throttle_at_s"] == 2.0
    # Above the limit until the first second that refused: 500, 500 and 400.
    assert row["above_limit"] == 1400


def test_a_trifle_of_refusals_is_no_limit_at_work() -> None:
    """1 in 300 at 90 % of the limit: a hiccup of arrivals, and 900 a second is not what the limit sustains."""
    row = limit_row(RECORDS, recorded([(897, 3)] * 8, purpose="trial"))
    assert row["sustained"] is None
    assert row["throttled"] == 24


def test_without_refusals_it_is_the_best_of_what_held() -> None:
    assert limit_row(RECORDS, recorded([(400, 0), (500, 0), (600, 0)], purpose="step"))["sustained"] == 500


def test_too_few_seconds_are_not_called_sustained() -> None:
    assert limit_row(RECORDS, recorded([(1000, 100)] * 4))["sustained"] is None
    assert limit_row(RECORDS, recorded([(1000, 100)] * 5))["sustained"] == 1000


@given(
    runs=st.lists(st.lists(st.integers(900, 1100), min_size=3, max_size=8), min_size=1, max_size=5),
)
def test_every_run_of_refusals_counts_without_its_ends(runs: list[list[int]]) -> None:
    rates: dict[int, float] = {}
    refused, inner, second = [], [], 0
    for run in runs:
        for rate in run:
            rates[second] = rate
            refused.append(second)
            second += 1
        inner += run[1:-1]
        second += 2
    found = sustained_rate(rates, refused, [])
    assert found == (pytest.approx(sum(inner) / len(inner)) if len(inner) >= 3 else None)


@pytest.mark.parametrize(("size", "binding"), [(200, RECORDS), (2000, BYTES)])
def test_a_shard_says_not_which_limit_it_was_so_the_fuller_one_binds(size: int, binding: Limit) -> None:
    """Both rows count the same refusals; 2,000-byte records meet 1 MiB/s at 524 records/s."""
    accepted = 1000 if size == 200 else 524
    record = recorded([(accepted, 500)] * 8, size)
    rows = [limit_row(one, record) for one in (RECORDS, BYTES)]
    bind(rows, "limit")
    assert [one["name"] for one in rows if one["binding"]] == [binding.name]
    assert fullest([RECORDS, BYTES], record.measurements)[0] == binding


def test_what_is_far_below_its_limit_does_not_bind() -> None:
    """It refused, and not because of a limit known here."""
    record = recorded([(300, 300)] * 8)
    rows = [limit_row(one, record) for one in (RECORDS, BYTES)]
    bind(rows, "limit")
    assert not any(one["binding"] for one in rows)


def test_nothing_binds_when_somebody_was_busy() -> None:
    record = recorded([(1000, 500)] * 8)
    rows = [limit_row(RECORDS, record)]
    ceiling: dict[str, Any] = {"bottleneck": "generator"}
    outcome = outcome_of(record, rows, record.stages, ceiling)
    bind(rows, outcome)
    assert outcome == "generator"
    assert not rows[0]["binding"]


def test_an_accounts_limit_is_over_all_connections() -> None:
    account = Limit("iot.account.publish_in_per_second", "IoT Core", 20_000, "publishes/s", ("PutRecords",), "accepted")
    assert limit_row(account, recorded([(1000, 0)] * 5, purpose="step"))["sustained"] == 1000


def test_a_ramp_passes_the_knee_on_its_way() -> None:
    record = recorded([(500, 0), (800, 0), (1000, 100), (1000, 400)], purpose="ramp")
    record.stages[0].reason = "max-throttled was 11%"
    by_second = record.measurements.by(lambda key: key.second)
    knee = find_knee(record.stages, by_second, "records")
    assert knee is not None
    assert (knee["held_per_second"], knee["broke_per_second"]) == (800, 1100)


def test_the_knee_of_a_search_is_between_its_trials() -> None:
    def stage(index: int, purpose: str, rate: float, reason: str | None) -> StageRecord:
        return StageRecord(index, purpose, purpose, rate, 0, 1, purpose != "hold", reason)

    stages = [
        stage(0, "climb", 800, None),
        stage(1, "climb", 1300, None),  # Held by burst: no knee is above it.
        stage(2, "climb", 2000, "throttled"),
        stage(4, "trial", 900, None),
        stage(5, "trial", 1000, None),
        stage(6, "trial", 1020, "throttled"),
    ]
    knee = find_knee(stages, {}, "records")
    assert knee is not None
    assert (knee["held_per_second"], knee["broke_per_second"]) == (1000, 1020)


@pytest.mark.parametrize(
    ("value", "text"),
    [(2_132_565.4, "2,132,565"), (99.857, "99.857"), (1000.8, "1,000.8"), (0.5, "0.5"), (25, "25"), (0, "0")],
)
def test_figures_are_said_with_the_digits_they_are_good_for(value: float, text: str) -> None:
    assert said(value) == text


def test_rounding_keeps_five_digits() -> None:
    assert [rounded(one) for one in (1234567.0, 1234.5678, 0.123456789, 0.0, None)] == [
        1234567.0,
        1234.6,
        0.12346,
        0.0,
        None,
    ]
