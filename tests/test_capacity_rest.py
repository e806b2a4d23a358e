"""Seconds that a plan skips come out as if it had not, records that stand for many as the many."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.runtime.actions import Invoke, Poll, Wait
from consumers.runtime.batches import Outcome
from consumers.runtime.config import MappingConfig, RuntimeSettings
from consumers.runtime.event import Record
from consumers.runtime.shard_schedule import ShardSchedule
from simulator.capacity.arrivals import TICKS, Arrivals, Kind
from simulator.capacity.delays import Delays
from simulator.capacity.model import Plan, plan
from simulator.capacity.report import as_json
from simulator.capacity.workload import Workload
from simulator.cloud.limits import LimitSettings
from simulator.deployment import load_deployment

TEMPLATE = Path(__file__).resolve().parents[1] / "template.yaml"
ARN = "arn:aws:kinesis:us-east-1:000000000000:stream/s"


def assert_alike(rested: Plan, stepped: Plan) -> None:
    """To the last number, but for the order in which floats were added up."""
    told, others = as_json(rested), as_json(stepped)
    for one, other in zip(told["bill"]["lines"], others["bill"]["lines"], strict=True):
        # A sum of durations, each the difference of two times that are known to a quarter of a microsecond.
        assert one.pop("quantity") == pytest.approx(other.pop("quantity"), rel=1e-9, abs=2e-5)
        assert one.pop("usd") == pytest.approx(other.pop("usd"), rel=1e-9, abs=2e-6)
    assert told.pop("bill")["lines"] == others.pop("bill")["lines"]
    assert told == others
    for function, its_like in zip(rested.functions, stepped.functions, strict=True):
        assert function.delays.as_ms() == its_like.delays.as_ms()
        durations, as_many = (sorted(one.totals.durations_s) for one in (function, its_like))
        assert durations == pytest.approx(as_many, abs=2e-6)


# -- rest --------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(
    racers=st.integers(1, 90),
    seconds=st.integers(1, 14),
    races=st.integers(1, 3),
    shards=st.integers(1, 4),
    window=st.sampled_from([0, 1, 2, 3, 5]),
    batch=st.sampled_from([7, 40, 1000]),
    classes=st.sampled_from([(1,), (3, 6)]),
    key=st.sampled_from(["racer", "race", "random", "timestamp"]),
    transport=st.sampled_from(["putrecords", "mqtt"]),
    factor=st.sampled_from([0.02, 0.05, 1.0]),
    wcu=st.sampled_from([1, 20, 1000]),
    seed=st.integers(0, 50),
)
def test_a_plan_that_rests_is_the_plan_that_does_not(
    racers: int,
    seconds: int,
    races: int,
    shards: int,
    window: int,
    batch: int,
    classes: tuple[int, ...],
    key: str,
    transport: Any,
    factor: float,
    wcu: int,
    seed: int,
) -> None:
    sizes = {
        "ShardCount": shards,
        "TumblingWindowInSeconds": window,
        "BatchSize": batch,
        "WriteCapacityUnits": wcu,
        "IndexWriteCapacityUnits": wcu,
    }
    deployment = load_deployment(TEMPLATE, overrides={name: str(value) for name, value in sizes.items()})
    workload = Workload(
        racers=racers,
        seconds=seconds,
        races=races,
        classes=classes,
        partition_key=key,
        transport=transport,
        seed=seed,
        deadline_s=20.0,
    )
    rested, stepped = (
        plan(deployment, workload, settings=LimitSettings(shard_rate_factor=factor), drain_s=60.0, rests=rests)
        for rests in (True, False)
    )
    assert_alike(rested, stepped)


def test_a_function_that_only_reads_rests_too() -> None:
    text = TEMPLATE.read_text().replace("consumers.final_results.handler", "consumers.other.handler")
    text = text.replace("consumers.tumbling_window.handler", "consumers.another.handler")
    path = Path(__file__).parent / "template-of-readers.yaml"
    try:
        path.write_text(text)
        deployment = load_deployment(path)
    finally:
        path.unlink()
    rested, stepped = (plan(deployment, Workload(racers=50, seconds=20), rests=rests) for rests in (True, False))
    assert_alike(rested, stepped)
    readers = [one for one in rested.functions if one.reads_stream]
    assert [(one.is_modelled, one.delays.messages) for one in readers] == [(False, 1000)] * 2


def test_an_undisturbed_race_is_mostly_rest() -> None:
    """Otherwise the two would be equal for another reason."""
    deployment = load_deployment(TEMPLATE, overrides={"TumblingWindowInSeconds": "60"})
    found = plan(deployment, Workload(racers=50, seconds=60))
    readers = [one for one in found.functions if one.reads_stream]
    spans = [found.timeline.series("invocations", one.spec.name, 60) for one in readers]
    assert all(sum(one) >= 55 * 2 for one in spans)
    reader_steps = Counter(type(one.handler).__name__ for one in readers)
    assert reader_steps == {"Live": 1, "Final": 1}


# -- arrivals ----------------------------------------------------------------------------------------------

_pages = st.lists(
    st.tuples(st.integers(1, 4), st.lists(st.tuples(st.integers(0, TICKS - 1), st.integers(0, 2), st.integers(1, 30)))),
    min_size=1,
    max_size=6,
)


@settings(deadline=None)
@given(pages=_pages, data=st.data())
def test_arrivals_are_what_was_appended(
    pages: list[tuple[int, list[tuple[int, int, int]]]], data: st.DataObject
) -> None:
    arrivals, each = Arrivals(1000.0, 1), []
    for place, (seconds, came) in enumerate(pages):
        parts: dict[Kind, Any] = {}
        for tick, class_place, count in came:
            kind = Kind(place, class_place, False)
            parts.setdefault(kind, np.zeros((TICKS, 1), np.int64))[tick, 0] += count
        for second in range(arrivals.until, arrivals.until + seconds):
            for tick in range(TICKS):
                for kind, counts in parts.items():
                    each += [(second * TICKS + tick, kind)] * int(counts[tick, 0])
        arrivals.append(seconds, list(parts.items()))
    assert arrivals.total(0) == len(each)
    begin = data.draw(st.integers(0, len(each)))
    end = data.draw(st.integers(begin, len(each)))
    runs = arrivals.runs(0, begin, end)
    told = [(round((run.arrival_s - 1000.0) * TICKS) - 1, run.kind) for run in runs for _ in range(run.count)]
    assert told == each[begin:end]
    assert arrivals.kinds_between(0, begin, end) == Counter(kind for _, kind in each[begin:end])
    chunks = [
        (chunk.first_tick + tick, count)
        for chunk in arrivals.chunks(0, begin, end)
        for tick, count in enumerate(chunk.counts)
        if count
    ]
    by_tick = Counter(tick for tick, _ in each[begin:end])
    assert chunks == sorted(by_tick.items())
    now = 1000.0 + data.draw(st.integers(0, arrivals.until * TICKS)) / TICKS
    came_by = sum((tick + 1) / TICKS <= now - 1000.0 + 1e-9 for tick, _ in each)
    assert arrivals.end(0, now) == came_by
    if begin < len(each):
        assert arrivals.arrived_s(0, begin) == pytest.approx(1000.0 + (each[begin][0] + 1) / TICKS)
    arrivals.forget([begin])
    assert arrivals.runs(0, begin, end) == runs


def test_a_read_ends_at_ten_thousand_records_or_ten_mebibytes() -> None:
    assert Arrivals(0.0, 1, record_bytes=200).read_max == 10_000
    assert Arrivals(0.0, 1, record_bytes=1024 * 1024).read_max == 10


def test_delays_count_from_the_tick_a_message_was_due_in() -> None:
    arrivals = Arrivals(1000.0, 1)
    counts = np.zeros((TICKS, 1), np.int64)
    counts[0, 0], counts[10, 0] = 3, 1
    waits = np.zeros((TICKS, 1), np.int64)
    waits[10, 0] = 5
    arrivals.append(1, [(Kind(0, 0, False), counts)], waits)
    by_run, by_chunk = Delays(1000.0), Delays(1000.0)
    for run in arrivals.runs(0, 0, 4):
        by_run.add(run, run.count, 1001.0)
    for chunk in arrivals.chunks(0, 0, 4):
        by_chunk.add_chunk(chunk, 1001.0)
    for one in (by_run, by_chunk):
        # Three of the tick that ended at 20 ms, and one that was accepted five ticks after the one it was due in.
        assert (one.messages, one.ms(0.25), one.ms(1.0)) == (4, 920, 1020)
        assert one.ms(1.0, messages=5) is None


# -- records that stand for many ---------------------------------------------------------------------------


def _mapping(batch_size: int, window_s: int, factor: int, bisect: bool, retries: int) -> MappingConfig:
    return MappingConfig(
        name="m",
        function_name="f",
        stream_name="s",
        stream_arn=ARN,
        batch_size=batch_size,
        tumbling_window_s=window_s,
        parallelization_factor=1 if window_s else factor,
        bisect_batch_on_function_error=bisect,
        maximum_retry_attempts=retries,
    )


def _drive(mapping: MappingConfig, reads: list[list[Record]], fails: list[int]) -> list[tuple[Any, ...]]:
    """Every invocation: time, lane, numbers of its records, and the books at its end."""
    schedule = ShardSchedule(mapping, "shardId-000000000000", RuntimeSettings(), 0.0, rng=lambda: 0.5)
    now, seen, waiting = 0.0, [], list(reads)
    failing = list(fails)
    while now < len(reads) + 60:
        action = schedule.next_action(now)
        match action:
            case Poll():
                records = waiting.pop(0) if waiting else []
                schedule.on_poll_result(now, now, records, 0, shard_ended=False)
            case Invoke():
                told = [r.sequence_number.partition("/")[0] for r in action.records for _ in range(r.count)]
                processed = action.count
                if action.records and failing:
                    processed = min(processed, failing.pop(0))
                failed = processed < action.count
                outcome = Outcome(
                    processed, ("E", "no") if failed else None, b"{}" if mapping.tumbling_window_s else None
                )
                schedule.on_invoke_result(outcome, now, action.lane)
                seen.append((round(now, 3), action.lane, told, action.is_final, schedule.buffered))
            case Wait():
                now = max(action.until, now + 0.001)
    counts = schedule.counts
    seen.append((counts.polled, counts.invoked, counts.failed_invoke, counts.retries, counts.dropped_records))
    return seen


@settings(deadline=None, max_examples=150)
@given(
    reads=st.lists(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3)), max_size=4), min_size=1, max_size=6),
    batch_size=st.integers(1, 12),
    window_s=st.sampled_from([0, 2]),
    factor=st.sampled_from([1, 3]),
    bisect=st.booleans(),
    retries=st.sampled_from([-1, 0, 2]),
    fails=st.lists(st.integers(0, 5), max_size=6),
)
def test_a_run_is_batched_as_its_records_are(
    reads: list[list[tuple[int, int]]],
    batch_size: int,
    window_s: int,
    factor: int,
    bisect: bool,
    retries: int,
    fails: list[int],
) -> None:
    runs: list[list[Record]] = []
    singles: list[list[Record]] = []
    number = 0
    for second, came in enumerate(reads):
        run_read, single_read = [], []
        for count, key in came:
            number += 1
            run_read.append(Record(f"{number:09d}", float(second), b"{}", str(key), count))
            single_read += [Record(f"{number:09d}/{place}", float(second), b"{}", str(key)) for place in range(count)]
        runs.append(run_read)
        singles.append(single_read)
    mapping = _mapping(batch_size, window_s, factor, bisect, retries)
    assert _drive(mapping, runs, fails) == _drive(mapping, singles, fails)


def test_a_part_of_a_run_keeps_its_place() -> None:
    whole = Record("7", 1.0, b"{}", "k", 5)
    assert whole.first(5) is whole
    assert whole.first(2) == Record("7", 1.0, b"{}", "k", 2)


@pytest.mark.parametrize("size", [1, 10])
def test_too_large_a_run_closes_the_batch(size: int) -> None:
    mapping = _mapping(10_000, 0, 1, False, -1)
    schedule = ShardSchedule(mapping, "shardId-000000000000", RuntimeSettings(), 0.0)
    schedule.next_action(0.0)
    large = Record("1", 0.0, b"x" * (1024 * 1024 * size), "k", 20)
    schedule.on_poll_result(0.0, 0.0, [large], 0, shard_ended=False)
    action = schedule.next_action(0.0)
    if size == 10:
        # None of them fits an event: each is dropped, one after the other.
        assert schedule.dropped_records == 20
        return
    assert isinstance(action, Invoke)
    assert action.count == 5
    assert len(action.event()) < 6 * 1024 * 1024
