"""Enhanced fan-out in a plan: the cloud's own pace, no read of the shard's five, and what it costs."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.runtime.batches import Outcome
from simulator.capacity.arrivals import TICKS, Arrivals, Kind
from simulator.capacity.clock import Clock
from simulator.capacity.fan_out import FanOutReader
from simulator.capacity.handlers import Durations
from simulator.capacity.model import Plan, plan
from simulator.capacity.report import as_json
from simulator.capacity.timeline import Timeline
from simulator.capacity.workload import Workload
from simulator.cloud.fan_out import Event, Subscription
from simulator.cloud.limits import LimitSettings
from simulator.cloud.shard import Shard
from simulator.deployment import ConsumerSpec, Deployment, EventSourceSpec, load_deployment
from simulator.local_functions import mapping_config

START_S = 1_700_000_000.0
ORDINARY = load_deployment()
LIVE = next(one for one in ORDINARY.functions if one.logical_id == "TumblingWindowFunction")
STREAM = ORDINARY.streams[0]
ARN = f"{STREAM.arn}/consumer/screens:0"


def pushed_to(*logical_ids: str, **changes: Any) -> Deployment:
    """Our deployment with those functions as registered consumers."""
    functions, consumers = [], []
    for one in ORDINARY.functions:
        if one.logical_id in logical_ids:
            arn = f"{STREAM.arn}/consumer/{one.logical_id}:0"
            consumers.append(ConsumerSpec(one.logical_id, one.logical_id, arn, STREAM.arn))
            one = replace(one, event_sources=(replace(one.event_sources[0], source_arn=arn, **changes),))
        functions.append(one)
    return replace(ORDINARY, functions=tuple(functions), consumers=tuple(consumers))


class Sink:
    """A function that is done at once; how many records came when."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.got: list[tuple[float, int]] = []

    def attach(self, reader: Any) -> None:
        """As of :class:`simulator.capacity.functions.Function`."""

    def invoke(self, reader: Any, action: Any, done: Any) -> None:
        self.got.append((self.clock.now, action.count))
        done(Outcome(action.count))


def events_of_the_cloud(shard: Shard, arrivals: dict[float, int], until: float) -> list[tuple[float, int]]:
    """What a subscription that nobody holds up pushes: when, and how many records."""
    subscription, found, now = Subscription(shard, 0, START_S, LimitSettings()), [], START_S
    times = sorted(arrivals)
    while now < until:
        answer = subscription.next_event(now, 0)
        if isinstance(answer, Event):
            found.append((now, len(answer.records)))
            continue
        # Woken by an append, or at the time that it gave.
        coming = [at for at in times if at > now]
        now = min([answer, *coming[:1]])
        if coming and now == coming[0]:
            shard.append([b"x" * 199] * arrivals[now], ["k"] * arrivals[now], now)
    return found


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 299), st.integers(1, 9000)), min_size=1, max_size=15))
def test_events_are_those_of_the_cloud(came: list[tuple[int, int]]) -> None:
    counts = np.zeros((6 * TICKS, 1), np.int64)
    for tick, records in came:
        counts[tick] += records
    arrivals = Arrivals(START_S, 1, record_bytes=200)
    for second in range(6):
        arrivals.append(1, [(Kind(0, 0, False), counts[second * TICKS : (second + 1) * TICKS])])
    at_tick = {
        round(START_S + (tick + 1) / TICKS, 3): int(records) for tick, records in enumerate(counts[:, 0]) if records
    }
    clock, timeline = Clock(START_S), Timeline(START_S)
    sink, shard = Sink(clock), Shard(0, (0, 2**128 - 1), START_S, LimitSettings())
    source = EventSourceSpec("Live", "Kinesis", ARN, "TRIM_HORIZON", batch_size=10_000)
    mapping = mapping_config(LIVE, source, ARN)
    reader = FanOutReader(clock, mapping, shard, 0, arrivals, sink, timeline, random.Random(1), LimitSettings())  # type: ignore[arg-type]
    clock.at(START_S, reader.step)
    clock.run_until(START_S + 20)
    assert sum(records for _, records in sink.got) == counts.sum() == reader.processed
    expected = events_of_the_cloud(shard, at_tick, START_S + 20)
    pushed = [(at, records) for at, records in expected if records]
    assert [records for _, records in sink.got] == [records for _, records in pushed]
    for (invoked_at, _), (pushed_at, _) in zip(sink.got, pushed, strict=True):
        assert invoked_at == pytest.approx(pushed_at, abs=0.01)
    assert timeline.total("pushed_events", "Live") == pytest.approx(len(expected), abs=1)


def told_of(found: Plan, logical_id: str) -> dict[str, Any]:
    place = next(at for at, one in enumerate(found.functions) if one.spec.logical_id == logical_id)
    return dict(as_json(found)["functions"][place])


def test_pushed_records_take_no_reads_and_come_sooner() -> None:
    """Before anything is written: an event is pushed within 20 ms, a poll comes once a second."""
    workload = Workload(racers=200, seconds=30)
    polled, pushed = (plan(one, workload) for one in (ORDINARY, pushed_to("FinalResultsFunction")))
    assert pushed.not_modelled == ()
    name = next(one.event_sources[0].name for one in ORDINARY.functions if one.logical_id == "FinalResultsFunction")
    for found, reads, low, high in ((polled, 2, 0.01, 1.1), (pushed, 1, 0.0, 0.05)):
        for shard in found.shards:
            assert found.timeline.series("read_calls", shard.shard_id, 30)[5:] == [reads] * 25
        ages = found.timeline.series("iterator_age_s", name, 29)[5:]
        assert low <= min(ages) <= max(ages) <= high
    assert 2 * 25 * 40 < sum(pushed.timeline.series("pushed_events", name, 29)[4:]) <= 2 * 25 * 50 + 2
    assert pushed.backlog == 0


def test_windows_and_finishes_come_out_the_same() -> None:
    workload = Workload(racers=100, seconds=20)
    polled = plan(ORDINARY, workload)
    pushed = plan(pushed_to("TumblingWindowFunction", "FinalResultsFunction"), workload)
    for one in (polled, pushed):
        assert [function.delays.messages for function in one.functions if function.reads_stream] == [2000, 100]
    wcu = [one.usage.write_units["alleycat-races"] for one in (polled, pushed)]
    assert wcu[1] == pytest.approx(wcu[0], rel=0.1)
    # The end is known by the next empty event, five seconds later.
    assert pushed.settled_s is not None
    assert polled.settled_s is not None
    assert 4.5 < pushed.settled_s < polled.settled_s + 6


def test_a_slow_function_makes_events_larger() -> None:
    slow, quick = (
        plan(pushed_to("FinalResultsFunction"), Workload(racers=500, seconds=20), durations=Durations(invocation_ms=ms))
        for ms in (400.0, 1.0)
    )
    calls = [told_of(one, "FinalResultsFunction")["invocations"] for one in (slow, quick)]
    assert calls[0] < 2 * 25 / 0.4
    assert calls[1] > 2 * 20 * 40
    assert slow.backlog == quick.backlog == 0


def test_it_is_charged_by_consumer_shard_hours_and_bytes() -> None:
    found = plan(pushed_to("TumblingWindowFunction"), Workload(racers=100, seconds=30))
    lines = {line.price.name: line.quantity for line in found.bill if line.resource == "TumblingWindowFunction"}
    assert lines["kinesis.fan_out.consumer_shard_hour"] == 2
    assert lines["kinesis.fan_out.gb"] == pytest.approx(3000 * found.riders.sizes.record_bytes / 1e9)
