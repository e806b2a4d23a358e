"""The conductor against simulated services, in virtual time: what it finds is what is there."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from loadtests.conductor import Conductor
from loadtests.findings import fullest
from loadtests.flags import breaks
from loadtests.limit_report import Subject, build
from loadtests.objectives import Objectives
from loadtests.resources import Resources, Shard, limits_of
from loadtests.scenarios import SCENARIOS, adapted
from loadtests.settings import LoadSettings
from tests.load_services import SHARD, Service, VirtualCrew, Worker, run

SHARDS = tuple(f"shardId-{index:012d}" for index in range(4))


def resources(shards: int = 1) -> Resources:
    return Resources(stream="alleycat", shards=tuple(Shard(one, "0") for one in SHARDS[:shards]))


def conductor_of(
    crew: VirtualCrew,
    *,
    shards: int = 1,
    scenario: str = "shard-limit",
    objectives: Objectives | None = None,
    **given: Any,
) -> Conductor:
    asked = objectives or Objectives()
    load = SCENARIOS["shard-limit"].settings(LoadSettings(**given))
    chosen = adapted(SCENARIOS["shard-limit"], load, asked.max_iterator_age_ms is not None)
    return Conductor(chosen, load, resources(shards), crew, lambda **measured: breaks(asked, **measured))


def report(conductor: Conductor, objectives: Objectives | None = None) -> dict[str, Any]:
    limits = limits_of(conductor.resources)
    return build(
        conductor.record,
        Subject(
            scenario=conductor.scenario,
            settings=conductor.settings,
            objectives=objectives or Objectives(),
            resources=conductor.resources,
            limits=fullest(limits, conductor.record.measurements),
            target="local",
            endpoint="http://127.0.0.1:4566",
            region="us-east-1",
            users=1,
            versions={},
            parameters={},
        ),
    )


def puts(service: Service, count: int = 1) -> VirtualCrew:
    return VirtualCrew([Worker(f"worker {index}", service, {"PutRecords": 4}) for index in range(count)])


def test_a_search_finds_the_limit_behind_a_bucket_and_names_it() -> None:
    crew = puts(Service(rate=1000, burst=1000))
    conductor = conductor_of(crew)
    run(conductor, crew)
    told = report(conductor)
    assert told["outcome"] == "limit"
    (binding,) = [one for one in told["limits"] if one["binding"]]
    assert binding["name"] == "kinesis.shard.write.records_per_second"
    assert binding["resource"] == SHARD
    assert binding["sustained"] == pytest.approx(1000, rel=0.01)
    assert told["knee"]["held_per_second"] == pytest.approx(1000, rel=0.03)
    assert told["knee"]["broke_per_second"] > told["knee"]["held_per_second"]
    assert "kinesis.shard.write.records_per_second" in told["summary"]
    assert told["verdict"]["passed"]
    assert told["ledger"]["unanswered"] == 0


@settings(max_examples=10, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(
    limit=st.floats(20, 5000),
    burst_s=st.floats(0.2, 20),
    workers=st.integers(1, 3),
    guess=st.floats(0.2, 3),
)
def test_whatever_the_limit_its_burst_the_workers_and_the_first_guess(
    limit: float, burst_s: float, workers: int, guess: float
) -> None:
    """What is sustained is the limit within 3 %, also when the search starts above it or far below."""
    crew = puts(Service(rate=limit, burst=limit * burst_s), workers)
    conductor = conductor_of(crew, start_rate=limit * guess, rate=limit * 20)
    run(conductor, crew)
    measured = conductor.record.measurements.by(lambda key: key.second)
    told = report(conductor)
    first = told["limits"][0]
    assert first["sustained"] == pytest.approx(limit, rel=0.03, abs=1.0)
    assert told["knee"]["held_per_second"] == pytest.approx(limit, rel=0.05, abs=2.0)
    assert sum(one.accepted for one in measured.values()) <= limit * (burst_s + conductor.record.ended_at - 1000) + 1


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_every_shard_is_measured_by_itself(shards: int) -> None:
    crew = puts(Service(rate=1000, burst=1000, resources=SHARDS[:shards]))
    conductor = conductor_of(crew, shards=shards)
    run(conductor, crew)
    told = report(conductor)
    rows = [one for one in told["limits"] if one["unit"] == "records/s"]
    assert [one["resource"] for one in sorted(rows, key=lambda one: one["resource"])] == list(SHARDS[:shards])
    assert all(one["sustained"] == pytest.approx(1000, rel=0.03) for one in rows)
    assert told["knee"]["held_per_second"] == pytest.approx(1000 * shards, rel=0.03)


def test_without_a_limit_none_is_invented() -> None:
    crew = puts(Service(rate=1e9, burst=1e9))
    conductor = conductor_of(crew)
    run(conductor, crew)
    told = report(conductor)
    assert told["outcome"] == "held"
    assert told["summary"].startswith("No limit was found")
    assert told["knee"] is None
    assert not any(one["binding"] for one in told["limits"])


def test_a_slow_target_is_not_called_a_limit() -> None:
    """It answers 1,500 a second at most and refuses nothing: the search ends, and says who was the bottleneck."""
    crew = puts(Service(rate=1e9, burst=1e9, capacity=1500))
    conductor = conductor_of(crew)
    took_s = run(conductor, crew)
    told = report(conductor)
    assert told["outcome"] == "target"
    assert told["summary"].startswith("No limit was found")
    assert "target was the bottleneck" in told["summary"]
    assert took_s < 60


def test_too_few_connections_are_the_generators_fault() -> None:
    """Answers take 50 ms as ever, but only so many requests can wait for one: nobody is busy, and the load is late."""
    service = Service(rate=1e9, burst=1e9, latency_s=0.05)
    crew = puts(service)
    crew.all[0].connections = 20
    conductor = conductor_of(crew, batch=1)
    run(conductor, crew)
    told = report(conductor)
    assert told["outcome"] == "generator"
    assert "--connections" in told["summary"]
    # 20 connections of 50 ms each: 400 a second.
    assert max(one["accepted_per_second"] for one in told["stages"]) == pytest.approx(400, rel=0.1)


def test_a_busy_generator_is_told_even_though_the_service_refused() -> None:
    crew = puts(Service(rate=1000, burst=1000))
    crew.all[0].cpu = 0.97
    conductor = conductor_of(crew)
    run(conductor, crew)
    told = report(conductor)
    assert told["outcome"] == "generator"
    assert told["summary"].startswith("No limit is named")
    assert not any(one["binding"] for one in told["limits"])


def test_a_lost_worker_ends_the_test_and_its_report_says_what_is_missing() -> None:
    crew = puts(Service(rate=1000, burst=1000), 2)

    def kill(elapsed_s: float) -> None:
        crew.all[1].silent = elapsed_s > 6

    conductor = conductor_of(crew)
    took_s = run(conductor, crew, each=kill)
    told = report(conductor)
    assert told["outcome"] == "incomplete"
    assert "worker 1 was lost" in told["incomplete"][0]
    assert not told["verdict"]["passed"]
    assert took_s < 30


def test_an_endpoint_that_is_gone_ends_the_test() -> None:
    crew = puts(Service(rate=1000, burst=1000, gone_at=1008.0))
    conductor = conductor_of(crew)
    took_s = run(conductor, crew)
    told = report(conductor)
    assert told["outcome"] == "incomplete"
    assert "stopped answering" in told["summary"]
    assert "Connection refused" in told["summary"]
    assert not told["verdict"]["passed"]
    assert took_s < 30


def test_an_endpoint_that_hangs_is_not_called_a_bottleneck() -> None:
    crew = puts(Service(rate=1000, burst=1000, gone_at=1008.0, timeout_s=5.0))
    conductor = conductor_of(crew)
    took_s = run(conductor, crew)
    told = report(conductor)
    assert told["outcome"] == "incomplete"
    assert "stopped answering" in told["summary"]
    assert not told["verdict"]["passed"]
    assert took_s < 40


def test_a_refusal_that_no_call_escapes_ends_the_test_at_once() -> None:
    crew = puts(Service(rate=1000, burst=1000))
    crew.all[0].fatal = "ResourceNotFoundException: Stream alleycat under account 123456789012 not found."
    conductor = conductor_of(crew)
    assert run(conductor, crew) < 5
    assert "not found" in report(conductor)["summary"]


def test_latency_breaks_an_objective_where_nothing_is_refused() -> None:
    """A queue in front of 2,000 a second: p99 rises beyond its objective before the load goes undelivered."""
    crew = puts(Service(rate=1e9, burst=1e9, capacity=2000))
    objectives = Objectives(p99_ms=60.0)
    conductor = conductor_of(crew, objectives=objectives)
    run(conductor, crew)
    told = report(conductor, objectives)
    assert told["outcome"] in ("no-limit", "target")
    assert told["knee"] is not None
    assert "p99" in told["knee"]["reason"]
    assert told["knee"]["held_per_second"] < 2100
    assert not any(one["binding"] for one in told["limits"])


def test_the_iterator_age_is_an_objective_of_its_own() -> None:
    crew = VirtualCrew([Worker("one", Service(rate=1e9, burst=1e9), {"PutRecords": 4, "GetRecords": 1})])
    objectives = Objectives(max_iterator_age_ms=5000.0)

    def fall_behind(elapsed_s: float) -> None:
        crew.all[0].iterator_age_ms = 9000.0 if elapsed_s > 9 else 0.0

    conductor = conductor_of(crew, objectives=objectives, shape="steps", steps=3)
    run(conductor, crew, each=fall_behind)
    told = report(conductor, objectives)
    assert [one["held"] for one in told["stages"]] == [True, True, False]
    assert "iterator-age" in told["stages"][2]["reason"]
    assert not told["verdict"]["passed"]


def test_what_must_hold_is_judged_and_the_distance_to_the_knee_is_told() -> None:
    for wanted, passed in ((800.0, True), (1200.0, False)):
        crew = puts(Service(rate=1000, burst=1000))
        conductor = conductor_of(crew, at_least=wanted)
        run(conductor, crew)
        told = report(conductor)
        (check,) = [one for one in told["verdict"]["checks"] if one["name"] == "at-least"]
        assert check["passed"] is passed
        assert told["verdict"]["passed"] is passed
        assert f"times the {wanted:,.6g}" in check["text"]


def test_workers_get_what_their_users_are_of_all() -> None:
    """A worker without a reader is asked to read nothing; nothing waits in a lane that nobody empties."""
    service = Service(rate=1e9, burst=1e9)
    crew = VirtualCrew(
        [Worker("a", service, {"PutRecords": 3, "GetRecords": 1}), Worker("b", service, {"PutRecords": 1})]
    )
    objectives = Objectives(max_iterator_age_ms=5000.0)
    conductor = conductor_of(crew, objectives=objectives, shape="soak", rate=400.0, length=10.0)
    run(conductor, crew)
    by_worker = conductor.record.measurements.by(lambda key: key.operation)
    assert by_worker["PutRecords"].offered == pytest.approx(4000, rel=0.03)
    assert by_worker["GetRecords"].offered == pytest.approx(20, abs=3)
    assert by_worker["GetRecords"].answered == by_worker["GetRecords"].offered


def test_a_burst_offers_its_number_exactly_however_late_the_next_step_comes() -> None:
    crew = VirtualCrew([Worker(str(index), Service(rate=100, burst=300), {"BatchWriteItem": 2}) for index in range(3)])
    scenario = SCENARIOS["finish-burst"]
    load = scenario.settings(LoadSettings(rate=1000.0, rest_time=2.0, length=3.0))
    conductor = Conductor(scenario, load, Resources(), crew, lambda **_: None)
    run(conductor, crew)
    assert conductor.record.measurements.total().offered == pytest.approx(1000, abs=2)


def test_progress_tells_where_the_test_is() -> None:
    crew = puts(Service(rate=1000, burst=1000))
    conductor = conductor_of(crew)
    seen = []

    def watch(elapsed_s: float) -> None:
        seen.append(conductor.progress(1000.25 + elapsed_s))

    run(conductor, crew, each=watch)
    assert {"climb to 300/s", "prime"} <= {one["stage"] for one in seen}
    assert max(one["accepted_per_second"] for one in seen) > 900
    assert any(one["throttled_share"] > 0 for one in seen)
