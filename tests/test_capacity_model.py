"""Plans in virtual time: nothing is lost from the books, limits hold, and the published story comes out."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.capacity.clock import Clock, Process
from simulator.capacity.model import Plan, PlanError, plan
from simulator.capacity.report import as_json
from simulator.capacity.workload import Workload
from simulator.cloud.limits import LimitSettings
from simulator.deployment import Deployment, load_deployment

TEMPLATE = Path(__file__).resolve().parents[1] / "template.yaml"
SHARD = "shardId-000000000000"
TABLE, INDEX = "alleycat-races", "alleycat-races/GSI_Index"


def deployment_of(config_env: str = "default", **parameters: object) -> Deployment:
    return load_deployment(TEMPLATE, config_env, {name: str(value) for name, value in parameters.items()})


def plan_of(config_env: str = "default", workload: dict[str, Any] | None = None, **parameters: object) -> Plan:
    return plan(deployment_of(config_env, **parameters), Workload(**(workload or {})))


def check_books(found: Plan, limit: float = 1000.0) -> None:
    """What any plan must satisfy."""
    ledger, timeline = found.ledger, found.timeline
    assert ledger.generated == found.workload.messages
    assert ledger.generated == ledger.delivered + ledger.lost
    offered, accepted, throttled = (timeline.total(one) for one in ("offered", "accepted", "throttled"))
    assert offered == accepted + throttled
    assert accepted == ledger.delivered == sum(shard["accepted"] for shard in as_json(found)["shards"])
    assert throttled == ledger.throttled
    # Every attempt is the first of a message, or a retry; a deadline may pass before the first.
    tried = offered - ledger.retried
    assert tried <= ledger.generated if ledger.lost else tried == ledger.generated
    for shard in found.shards:
        series = timeline.series("accepted", shard.shard_id, found.seconds)
        for length in (1, 2, 5):
            windows = [sum(series[begin : begin + length]) for begin in range(len(series))]
            assert max(windows) <= limit * (length + 1)  # a bucket of one second, and its rate
    for function in found.functions:
        assert function.totals.duration_s <= function.totals.invocations * function.spec.timeout_s
    waits = found.accepted_ms
    assert waits["p50"] <= waits["p99"] <= waits["max"]
    if not throttled:
        assert waits["max"] == (20 if ledger.delivered else 0)
    if found.settled_s is not None:
        assert found.backlog == 0


@settings(deadline=None, max_examples=40)
@given(
    racers=st.integers(1, 60),
    seconds=st.integers(1, 6),
    races=st.integers(1, 3),
    shards=st.integers(1, 4),
    classes=st.sampled_from([(1,), (2, 4)]),
    key=st.sampled_from(["racer", "race", "class", "random", "timestamp"]),
    transport=st.sampled_from(["putrecords", "mqtt"]),
    phase=st.sampled_from(["spread", "burst"]),
    window=st.sampled_from([0, 2]),
    factor=st.sampled_from([0.01, 0.03, 1.0]),
    deadline_s=st.sampled_from([1.5, 300.0]),
    seed=st.integers(0, 1000),
)
def test_records_are_conserved(
    racers: int,
    seconds: int,
    races: int,
    shards: int,
    classes: tuple[int, ...],
    key: str,
    transport: Any,
    phase: Any,
    window: int,
    factor: float,
    deadline_s: float,
    seed: int,
) -> None:
    workload = Workload(
        racers=racers,
        seconds=seconds,
        races=races,
        classes=classes,
        partition_key=key,
        transport=transport,
        phase=phase,
        deadline_s=deadline_s,
        seed=seed,
    )
    limits = LimitSettings(shard_rate_factor=factor)
    found = plan(deployment_of(ShardCount=shards, TumblingWindowInSeconds=window), workload, settings=limits)
    check_books(found, 1000 * factor)
    finals = workload.bikers * workload.races
    if not found.ledger.lost and found.settled_s is not None:
        # A finisher's race item is two units of the table and one of the index, and the class best costs one at least.
        assert found.timeline.total("consumed_write_units", TABLE) >= finals * 3
        assert found.timeline.total("consumed_write_units", INDEX) >= finals


@pytest.mark.parametrize("parallelization_factor", [1, 4])
def test_lanes_conserve_records(parallelization_factor: int) -> None:
    found = deployment_of(TumblingWindowInSeconds=0)
    functions = tuple(
        replace(
            function,
            event_sources=tuple(
                replace(one, parallelization_factor=parallelization_factor if one.kind == "Kinesis" else 1)
                for one in function.event_sources
            ),
        )
        for function in found.functions
    )
    result = plan(replace(found, functions=functions), Workload(racers=80, seconds=10))
    check_books(result)
    assert result.settled_s is not None
    at_once = max(function["concurrency_max"] for function in as_json(result)["functions"])
    assert at_once <= 2 * parallelization_factor
    assert (at_once > 2) == (parallelization_factor > 1)


def test_the_same_arguments_give_the_same_plan() -> None:
    one, other = (as_json(plan_of(workload={"racers": 1100, "seconds": 10}, ShardCount=1)) for _ in range(2))
    assert one == other
    assert one["ledger"]["throttled"] > 0


# -- at, under and over the limit of records ------------------------------------------------------------


@pytest.mark.parametrize(("racers", "refuses"), [(900, False), (1000, False), (1100, True)])
def test_a_shard_takes_a_thousand_records_a_second(racers: int, refuses: bool) -> None:
    found = plan_of(workload={"racers": racers, "seconds": 30}, ShardCount=1)
    check_books(found)
    names = [one.name for one in found.broken]
    assert ("kinesis.shard.write.records_per_second" in names) == refuses
    if refuses:
        # The bucket begins with 1,000 spare and is short of 100 a second: refusals begin about ten seconds in.
        assert found.broken[0].name == "kinesis.shard.write.records_per_second"
        assert 8 < found.broken[0].first_s < 11
        assert found.ledger.lost == 0
        seconds = found.timeline.series("accepted", SHARD, 30)
        assert all(count <= 1020 for count in seconds[12:])  # a tick's worth may fall on either side


def test_a_deadline_loses_what_the_shard_cannot_take() -> None:
    """1,300 a second into 1,000 for 30 s: beyond the bucket's 1,000, some 8,000 too many, which may wait 3 s."""
    found = plan_of(workload={"racers": 1300, "seconds": 30, "deadline_s": 3.0}, ShardCount=1)
    check_books(found)
    assert 5000 < found.ledger.lost < 8000
    assert 2000 < found.accepted_ms["max"] <= 3020
    assert not found.recovers


def test_one_put_record_a_message_pays_whole_kibibytes() -> None:
    """1,000 messages of 200 bytes are 1,000 KiB a second to a rule, within 1,024. What it cannot put in three attempts
    is lost to the stream."""
    at = plan_of(workload={"racers": 1000, "seconds": 20, "transport": "mqtt"}, ShardCount=1)
    check_books(at)
    assert at.ledger.throttled == at.ledger.lost == 0
    over = plan_of(workload={"racers": 1200, "seconds": 20, "transport": "mqtt"}, ShardCount=1)
    check_books(over)
    # 24,000 are offered; 1,000 were saved and 1,000 come a second.
    assert over.ledger.delivered == pytest.approx(21_000, rel=0.02)
    assert over.ledger.lost == 24_000 - over.ledger.delivered


def test_a_flood_costs_a_shard_four_thousand_attempts_at_a_time() -> None:
    """20,000 messages a second into one shard: no new ones are sent while 4,000 wait to be sent again, as the producer
    has it, so attempts stay few, and the deadline ends it."""
    found = plan_of(workload={"racers": 20_000, "seconds": 5, "deadline_s": 10.0}, ShardCount=1)
    check_books(found)
    assert found.ledger.delivered == pytest.approx(1000 + 15 * 1000, rel=0.03)
    # Pauses are 0.05 s on average at first, and double: five attempts each in the first second, for 4,500 at a time.
    attempts = found.timeline.series("offered", SHARD, 9)
    assert attempts[0] < 30_000
    assert max(attempts[3:]) < 15_000


def test_a_partition_key_of_one_value_uses_one_shard() -> None:
    found = plan_of(workload={"racers": 1200, "seconds": 10, "partition_key": "class"}, ShardCount=4)
    used = [shard for shard in as_json(found)["shards"] if shard["offered"]]
    assert len(used) == 1
    assert found.broken[0].name == "kinesis.shard.write.records_per_second"


# -- the table -------------------------------------------------------------------------------------------


def test_units_of_a_race_worked_out_by_hand() -> None:
    """100 bikers for 10 s, one shard, windows of 5 s.

    Results: 100 entries of 10 to 13 bytes make an item of 1 to 2 KB: 2 units, as many for the LSI, and for the GSI.
    Windows are aligned to the epoch, as is the race: it fills two, or three when the producer's 20 ms reach beyond.
    Finishes: 100 race items and 100 class bests, each 1 unit on the table, 1 on the LSI and 1 on the GSI.
    """
    found = plan_of(workload={"racers": 100, "seconds": 10}, ShardCount=1)
    windows = (found.timeline.total("consumed_write_units", TABLE) - 100 * 2 * 2) / 4
    assert windows in (2, 3)
    assert found.timeline.total("consumed_write_units", INDEX) == 100 * 2 + windows * 2
    assert found.holds


def test_a_results_item_has_a_largest_size() -> None:
    """33,000 bikers of one class at some 13 bytes each are more than the 400 KB that an item may have: no capacity
    helps, and the window's last invocation fails for ever."""
    workload = Workload(racers=33_000, seconds=3)
    deployment = deployment_of(ShardCount=1, WriteCapacityUnits=40_000, IndexWriteCapacityUnits=40_000)
    found = plan(deployment, workload, settings=LimitSettings(shard_rate_factor=100), drain_s=20.0)
    assert "dynamodb.item.max_bytes" in [one.name for one in found.broken]
    assert found.settled_s is None
    assert not found.holds


def test_a_class_best_is_dearer_to_beat_than_to_miss() -> None:
    """The second race of a class finds bests: a miss costs one unit and no index entry, a hit moves index entries."""
    found = plan_of(workload={"racers": 50, "seconds": 5, "races": 2}, ShardCount=1, TumblingWindowInSeconds=900)
    finishes = found.timeline.total("consumed_write_units", INDEX)
    # Race items: 100; bests of the first race: 50; of the second: 2 each for those that are better.
    better = (finishes - 150) / 2
    assert 0 <= better - 1 <= 50
    assert found.ledger.delivered == 500


def test_the_published_sizes_break_as_published() -> None:
    """1 shard, no window, 20 WCU, GSI 10, 1,000 bikers for five minutes: what the model makes of it."""
    found = plan_of("as-published")
    check_books(found)
    told = as_json(found)
    live = next(one for one in told["functions"] if "TumblingWindow" in one["name"])
    (shard,) = told["shards"]
    assert shard["peak_accepted_per_second"] >= 990  # at the records limit
    assert shard["peak_accepted_per_second"] * told["run"]["record_bytes"] < 0.25 * 2**20  # bytes far below theirs
    assert told["first_limit"]["name"].startswith("dynamodb.")
    assert live["timeouts"] > 0
    assert live["duration_ms"]["max"] == 15_000
    assert live["concurrency_max"] == 1
    assert live["iterator_age_ms_max"] > 60_000
    table = next(one for one in told["tables"] if one["resource"] == TABLE)
    assert table["throttled_writes"] > 0
    assert table["consumed_read_units"] / found.seconds < table["provisioned_read_units"]
    # Nothing is lost, and it ends right, minutes later.
    assert told["ledger"]["lost"] == 0
    assert found.settled_s is not None
    assert found.settled_s > 60


def test_more_of_everything_helps() -> None:
    workload = {"racers": 300, "seconds": 60}
    small = plan_of("as-published", workload)
    large = plan_of("as-published", workload, WriteCapacityUnits=500, IndexWriteCapacityUnits=250)
    assert small.settled_s is not None
    assert large.settled_s is not None
    assert large.settled_s < small.settled_s
    assert large.timeline.total("throttled_writes") < small.timeline.total("throttled_writes")
    assert sum(line.usd for line in large.bill) > sum(line.usd for line in small.bill)


def test_capacity_is_never_overspent() -> None:
    """Over any time, an index gives what it had saved and what it gets, and one overdraft of its largest write."""
    found = plan_of("as-published", {"racers": 500, "seconds": 60})
    spent = found.timeline.series("consumed_write_units", INDEX, found.seconds)
    for begin in range(0, len(spent), 7):
        for end in range(begin + 1, len(spent), 11):
            assert sum(spent[begin:end]) <= 10 * 300 + 10 * (end - begin + 1) + 14
    assert sum(spent) <= 10 * (found.seconds + 3) + 14  # it began with a second's worth, and could never save


# -- what is not planned ----------------------------------------------------------------------------------


def test_what_is_not_planned_is_refused_or_told() -> None:
    plain = deployment_of()
    on_demand = replace(plain, streams=(replace(plain.streams[0], mode="ON_DEMAND"),))
    short = plan(on_demand, Workload(racers=50, seconds=10))
    assert len(short.shards) == 4
    assert not any("split" in line for line in short.not_modelled)
    # 600 records a second are more than half of what the one shard of the key takes, for the 15 minutes of AWS's rule.
    busy = plan(on_demand, Workload(racers=600, seconds=1000, partition_key="class"))
    assert any("would split a shard 15 minutes after the start" in line for line in busy.not_modelled)
    with pytest.raises(PlanError, match="declares no stream"):
        plan(replace(plain, streams=()), Workload())
    assert short.not_modelled == ()


def test_a_function_of_somebody_else_s_reads_and_writes_nothing() -> None:
    plain = deployment_of()
    other = tuple(replace(one, handler="app.handler", event_sources=one.event_sources) for one in plain.functions[:1])
    found = plan(replace(plain, functions=other), Workload(racers=20, seconds=5))
    assert found.functions[0].totals.invocations > 0
    assert found.timeline.total("consumed_write_units") == 0
    assert any("is not known to the planner" in line for line in found.not_modelled)


SOMEBODY_ELSES = """
Transform: AWS::Serverless-2016-10-31
Resources:
  Meters:
    Type: AWS::Kinesis::Stream
    Properties: {ShardCount: 3}
  Sum:
    Type: AWS::Serverless::Function
    Properties:
      Handler: app.handler
      Runtime: python3.12
      CodeUri: .
      Timeout: 10
      ReservedConcurrentExecutions: 1
      Events:
        Readings:
          Type: Kinesis
          Properties: {Stream: !GetAtt Meters.Arn, StartingPosition: TRIM_HORIZON, ParallelizationFactor: 3}
"""


def test_any_template_with_a_stream_is_planned(tmp_path: Path) -> None:
    path = tmp_path / "template.yaml"
    path.write_text(SOMEBODY_ELSES)
    deployment = load_deployment(path)
    found = plan(deployment, Workload(racers=90, seconds=10))
    check_books(found)
    assert found.holds
    assert found.functions[0].totals.invocations > 10
    assert found.timeline.highest("concurrency") == 1
    assert {line.price.name for line in found.bill} >= {"kinesis.shard_hour", "lambda.request"}
    with pytest.raises(PlanError, match="no rule that puts messages"):
        plan(deployment, Workload(racers=1, transport="mqtt"))
    bare = plan(replace(deployment, functions=()), Workload(racers=90, seconds=10))
    assert bare.holds
    assert bare.settled_s is not None


# -- the clock --------------------------------------------------------------------------------------------


def test_the_clock_does_things_in_order_and_ends_what_is_late() -> None:
    clock, seen = Clock(10.0), []

    def process(pause_s: float) -> Process[str]:
        yield pause_s
        yield pause_s
        return f"took {2 * pause_s}"

    clock.at(11.0, lambda: seen.append("planned"))
    clock.start(process(1.0), seen.append, within_s=5.0, late=lambda: seen.append("late"))
    clock.start(process(2.0), seen.append, within_s=3.0, late=lambda: seen.append(f"late at {clock.now}"))
    clock.run_until(20.0)
    assert seen == ["planned", "took 2.0", "late at 13.0"]
    assert clock.now == 20.0


def test_how_fast_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Printed, never asserted."""
    random.seed(0)
    began = time.perf_counter()
    found = plan_of()
    took_s = time.perf_counter() - began
    with capsys.disabled():
        print(f"\n{found.workload.messages:,} messages planned in {took_s:.2f} s")
    assert found.ledger.delivered == 300_000


def test_what_was_read_is_forgotten_and_nothing_changes() -> None:
    """Two shards' records of ten minutes are many groups; few are held at the end, and the books still close."""
    found = plan_of(workload={"racers": 60, "seconds": 100, "races": 3})
    check_books(found)
    assert found.ledger.delivered == 18_000
    assert found.settled_s is not None
    finals = 60 * 3
    # Race items, and class bests of the first race; the better ones of the others are two each.
    assert found.timeline.total("consumed_write_units", INDEX) >= finals + 60


def test_a_filter_sends_only_what_passes() -> None:
    """Finals are one in five of five seconds; the finish function then gets those alone."""
    plain = deployment_of(TumblingWindowInSeconds=0)
    criteria = {"Filters": [{"Pattern": '{"data": {"event": ["final"]}}'}]}
    functions = tuple(
        replace(one, event_sources=tuple(replace(source, filter_criteria=criteria) for source in one.event_sources))
        for one in plain.functions
        if "final_results" in one.handler
    )
    found = plan(replace(plain, functions=functions), Workload(racers=40, seconds=5))
    assert found.settled_s is not None
    # One race item and one class best each, at two units; nothing was invoked for updates.
    assert found.timeline.total("consumed_write_units", TABLE) == 40 * 4
    assert found.functions[0].totals.invocations <= 4


def test_results_that_nobody_writes_do_not_hold() -> None:
    """Our functions poll, and polling hands packed records over as they are."""
    packed = plan(deployment_of(), Workload(racers=50, seconds=10, aggregation=True))
    assert packed.rejects
    assert not packed.holds
    assert not packed.broken
    assert plan(deployment_of(), Workload(racers=50, seconds=10)).holds


def _mappings(deployment: Deployment, **settings: Any) -> Deployment:
    """``deployment`` with settings of every event source of the stream in place."""
    functions = tuple(
        replace(
            one,
            event_sources=tuple(
                replace(source, **settings) if source.kind == "Kinesis" else source for source in one.event_sources
            ),
        )
        for one in deployment.functions
    )
    return replace(deployment, functions=functions)


def test_what_retries_give_up_is_no_result() -> None:
    """On the published sizes functions are killed at 15 s; with one retry, their batches are then dropped."""
    published = deployment_of("as-published", FunctionTimeout=3)
    workload = Workload(racers=300, seconds=20)
    patient = plan(published, workload)
    assert patient.given_up == 0
    hasty = plan(_mappings(published, maximum_retry_attempts=0), workload)
    assert hasty.given_up > 0
    assert not hasty.recovers
    assert as_json(hasty)["given_up"] == {"given_up": hasty.given_up, "expired": 0}
    # Each source has processed or given up all of it.
    for source in hasty.timeline.resources("backlog"):
        done = hasty.timeline.total("processed", source) + hasty.timeline.total("given_up", source)
        assert done == workload.messages
        assert hasty.timeline.series("backlog", source, hasty.seconds)[-1] == 0


def test_what_outlives_its_retention_is_passed_over() -> None:
    """Retention of half a minute, which AWS does not offer, on a stream that is minutes behind."""
    published = deployment_of("as-published")
    short = replace(published, streams=(replace(published.streams[0], retention_hours=1 / 120),))
    workload = Workload(racers=1000, seconds=60)
    found = plan(short, workload)
    told = as_json(found)["given_up"]
    assert told["expired"] > 1000
    assert not found.recovers
    for source in found.timeline.resources("backlog"):
        done = sum(found.timeline.total(metric, source) for metric in ("processed", "given_up", "expired"))
        assert done == workload.messages
    assert plan(published, workload).given_up == 0
