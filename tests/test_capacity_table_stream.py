"""Functions fed by a table's stream in a plan: what writes leave, when it is read, what is published."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.publish import PAYLOAD_MAX_BYTES, messages
from consumers.runtime.batches import Outcome
from consumers.runtime.event import EventBuilder
from consumers.runtime.filtering import Filters
from consumers.store import Results, results_text
from simulator.capacity.clock import Clock
from simulator.capacity.handlers import Durations
from simulator.capacity.model import Plan, plan
from simulator.capacity.publishing import payloads
from simulator.capacity.report import as_json
from simulator.capacity.table_feed import Change, Queue, TableFeed
from simulator.capacity.table_reading import SHARD_ID, TableReader
from simulator.capacity.timeline import Timeline
from simulator.capacity.workload import Workload
from simulator.cloud.dynamodb_streams import TableStream
from simulator.deployment import Deployment, load_deployment
from simulator.local_functions import mapping_config

START_S = 1_700_000_000.0
ORDINARY = load_deployment()
PUBLISH = next(one for one in ORDINARY.functions if one.logical_id == "PublishFunction")
(SOURCE,) = PUBLISH.event_sources
MAPPING = mapping_config(PUBLISH, SOURCE, SOURCE.source_arn)
TABLE = ORDINARY.tables[0]


def feed() -> TableFeed:
    return TableFeed(TABLE, "us-east-1", EventBuilder(MAPPING, SHARD_ID))


def results_item(ts_ms: int, length: int = 30, sort: str = "results") -> dict[str, Any]:
    keys = {"PK": {"S": "race-5666666"}, "SK": {"S": sort}, "GSI": {"N": "1"}, "ts": {"N": str(ts_ms)}}
    return {**keys, "results": {"S": "x" * length}}


def finish_item(output: str) -> dict[str, Any]:
    keys = {"PK": {"S": "race-5666666"}, "SK": {"S": "racer-101"}, "GSI": {"N": output}, "ts": {"N": "1700000000123"}}
    return {**keys}


# -- what is recorded --------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", ["NEW_AND_OLD_IMAGES", "NEW_IMAGE", "KEYS_ONLY"])
def test_records_are_those_of_the_embedded_cloud(view: str) -> None:
    described = {
        "LatestStreamArn": SOURCE.source_arn,
        "LatestStreamLabel": "latest",
        "TableName": TABLE.name,
        "StreamSpecification": {"StreamViewType": view},
        "KeySchema": [{"AttributeName": name} for name, _ in TABLE.keys],
    }
    stream = TableStream(described, "us-east-1", START_S)
    planned = TableFeed(replace(TABLE, stream_view_type=view), "us-east-1", EventBuilder(MAPPING, SHARD_ID))
    planned.readers.append(Queue(lambda: None))
    writes = [
        (None, finish_item("40.1")),
        (finish_item("40.1"), finish_item("53.92")),
        (finish_item("53.92"), finish_item("53.92")),
        (None, results_item(1, 14_000)),
        (results_item(1, 14_000), results_item(2, 15_000)),
        (None, results_item(3, sort="results-4")),
    ]
    for before, after in writes:
        stream.add(before, after, START_S + 0.7)
        planned.add(before, after, START_S + 0.7)
    recorded, changes = list(stream.shards[0].records), planned.readers[0].read()
    assert len(recorded) == 5  # a write that changes nothing leaves none
    assert [one.nbytes for one in changes] == [one.nbytes for one in recorded]
    passes = Filters(MAPPING.filter_patterns, "DynamoDB").passes
    real = [EventBuilder(MAPPING, SHARD_ID).dynamodb_record(one.body, START_S) for one in recorded]
    assert [passes(one.encoded) for one in changes] == [passes(one.encoded) for one in real]
    assert [passes(one.encoded) for one in changes] == [False, False, True, True, True]
    assert [one.partition_key for one in changes] == [one.partition_key for one in real]
    assert [one.arrival_s for one in changes] == [START_S] * 5
    assert [bool(one.results) for one in changes] == [False, False, True, True, True]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 900), st.sampled_from(["", "a", "b"]), st.integers(0, 3)), max_size=30),
    st.data(),
)
def test_a_queue_gives_everything_once_in_order_and_a_megabyte_at_most(
    pushes: list[tuple[int, str, int]], data: st.DataObject
) -> None:
    queue, pushed, read = Queue(lambda: None), 0, 0
    for times, alike, second in pushes:
        for _ in range(times):
            nbytes = {"": 700_000, "a": 600, "b": 3000}[alike]
            queue.push(Change(str(pushed), START_S + second, b"{}", "k", 1, alike, nbytes))
            pushed += 1
        if data.draw(st.booleans()):
            read += check_read(queue)
    while queue.records:
        read += check_read(queue)
    assert read == pushed
    assert queue.read() == []


def check_read(queue: Queue) -> int:
    before, found = queue.records, queue.read()
    records = sum(one.count for one in found)
    assert records == before - queue.records
    assert 1 <= records <= 1000
    nbytes = sum(one.count * one.nbytes for one in found)
    assert nbytes <= 1024 * 1024 or records == 1
    return records


# -- when it is read ---------------------------------------------------------------------------------------


class Recorder:
    """Stands for a function that takes ``lasts_s``; what it got and when."""

    def __init__(self, clock: Clock, lasts_s: float) -> None:
        self.clock = clock
        self.lasts_s = lasts_s
        self.got: list[tuple[float, list[str]]] = []

    def read(self, action: Any) -> Any:
        numbers = [record.results for record in action.records]
        self.got.append((self.clock.now, numbers))
        return action

    def run(self, action: Any, records: int, source: str, done: Any) -> None:
        self.clock.at(self.clock.now + self.lasts_s, lambda: done(Outcome(action.count)))


@settings(deadline=None, max_examples=100)
@given(
    puts=st.lists(st.tuples(st.integers(0, 3000), st.booleans()), max_size=40),
    lasts_ms=st.sampled_from([1, 90, 700]),
)
def test_idle_polls_need_not_be_carried_out(puts: list[tuple[int, bool]], lasts_ms: int) -> None:
    """Results come to the function once, in order, in batches of ten at most, at the next poll when it is idle."""
    clock = Clock(START_S)
    function, stream = Recorder(clock, lasts_ms / 1e3), feed()
    reader = TableReader(clock, MAPPING, stream, function, Timeline(START_S), random.Random(1))  # type: ignore[arg-type]
    clock.at(START_S + 0.1, reader.step)
    put_at, written = START_S, []
    for number, (pause_ms, is_results) in enumerate(puts):
        put_at += pause_ms / 1e3
        clock.run_until(put_at)
        if is_results:
            stream.add(None, results_item(number, sort=f"results-{number}"), put_at)
            written.append((put_at, f"race-5666666/results-{number}"))
        else:
            stream.add(None, finish_item("40.1"), put_at, "finish")
    clock.run_until(put_at + 60)
    assert reader.caught_up(put_at)
    assert reader.backlog == 0
    assert [one for _, batch in function.got for one in batch] == [name for _, name in written]
    assert all(1 <= len(batch) <= 10 for _, batch in function.got)
    invoked = {name: at for at, batch in function.got for name in batch}
    for at, name in written:
        assert invoked[name] - at >= 0
        if lasts_ms == 1 and len(written) <= 10:
            assert invoked[name] - at <= 0.25 + 0.002 * len(written)


# -- what is published -------------------------------------------------------------------------------------


@pytest.mark.parametrize("racers", [1, 1000, 9000, 9600, 20_000, 28_000])
def test_messages_are_as_many_and_as_large_as_those_of_the_function(racers: int) -> None:
    rng = random.Random(racers)
    best = {100 + racer: rng.randint(4000, 30_000) for racer in range(racers)}
    real = [len(one) for one in messages(Results(5_666_666, 1, 1_700_000_000_123, best))]
    planned = payloads("5666666", len(results_text(best)))
    assert len(planned) == len(real)
    assert sum(planned) == pytest.approx(sum(real), abs=20 * len(real))
    assert max(planned) <= PAYLOAD_MAX_BYTES


def publish_with(deployment: Deployment = ORDINARY, **changes: Any) -> Deployment:
    sources = {name: changes.pop(name) for name in ("batch_size", "maximum_retry_attempts") if name in changes}
    function = replace(PUBLISH, event_sources=(replace(SOURCE, **sources),), **changes)
    functions = tuple(function if one.name == PUBLISH.name else one for one in deployment.functions)
    return replace(deployment, functions=functions)


def told_of(found: Plan) -> dict[str, Any]:
    return next(one for one in as_json(found)["functions"] if one["name"] == PUBLISH.name)


def metered_of(found: Plan) -> float:
    return next(line.quantity for line in found.bill if line.price.name == "iot.message")


def test_every_change_of_results_is_published() -> None:
    """One at a time, each put of a results item is a message; finishes and class bests are filtered out."""
    found = plan(publish_with(batch_size=1), Workload(racers=100, seconds=60))
    stream = found.tables[0].feed
    assert stream is not None
    puts = stream.written - 2 * 100
    assert puts >= 24  # 12 windows of two shards
    told = told_of(found)
    assert told["publishes"] == told["invocations"] == puts
    assert told["writes_modelled"]
    assert found.not_modelled == ()
    assert metered_of(found) == puts  # 1.5 KB each
    assert found.settled_s is not None


def test_changes_of_one_item_in_a_batch_are_one_message() -> None:
    found, alone = (
        plan(publish_with(batch_size=size), Workload(racers=1000, seconds=60), durations=Durations(call_ms=20))
        for size in (10, 1)
    )
    assert told_of(found)["publishes"] < told_of(alone)["publishes"]
    assert told_of(found)["publishes"] >= 12
    each = payloads("5666666", round(1000 * found.riders.sizes.result_bytes) + 1)
    assert metered_of(found) <= told_of(found)["publishes"] * math.ceil((each[0] + 20) / 5120)
    assert told_of(found)["iterator_age_ms_max"] < 3000
    assert 23 <= told_of(found)["duration_ms"]["p50"] < 25


def test_a_function_that_is_killed_gives_its_batch_up_after_its_retries() -> None:
    """Four attempts of each batch; nothing is published, and the plan goes on."""
    killed = publish_with(timeout_s=1, maximum_retry_attempts=3)
    found = plan(killed, Workload(racers=20, seconds=20), durations=Durations(call_ms=1100))
    told = told_of(found)
    assert told["timeouts"] == told["invocations"] > 0
    assert told["invocations"] % 4 == 0
    assert told["publishes"] == 0
    assert not any(line.price.name == "iot.message" for line in found.bill)
    assert found.settled_s is not None
    assert found.backlog == 0


def test_the_stream_of_a_table_that_is_not_in_the_template_is_left_out() -> None:
    elsewhere = replace(SOURCE, source_arn=SOURCE.source_arn.replace("alleycat-races", "elsewhere"))
    functions = tuple(one for one in ORDINARY.functions if one.name != PUBLISH.name)
    fed = replace(ORDINARY, functions=(*functions, replace(PUBLISH, event_sources=(elsewhere,))))
    found = plan(fed, Workload(racers=5, seconds=5))
    assert found.not_modelled == (f"{PUBLISH.name} is fed by elsewhere, which is not in the template",)


def test_another_function_reads_its_batch_only() -> None:
    found = plan(publish_with(handler="other.handler"), Workload(racers=50, seconds=20))
    told = told_of(found)
    assert told["invocations"] > 0
    assert (told["publishes"], told["writes_modelled"]) == (0, False)
    assert found.not_modelled == (f"{PUBLISH.name} reads its batches; what it writes is not known to the planner",)
