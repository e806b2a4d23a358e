"""Plans calibrated by reports: of plans whose durations are known, of older versions, of load tests, of nonsense."""

from __future__ import annotations

import json
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from consumers.runtime.statistics import by_records, nearest_rank
from simulator.calibrate_command import Measured
from simulator.capacity.calibration import Calibration, calibrate
from simulator.capacity.calibration_view import render
from simulator.capacity.comparison import Row
from simulator.capacity.functions import Durations
from simulator.capacity.measurement import CalibrationError, Measurement, read_measurement
from simulator.capacity.model import Plan, plan
from simulator.capacity.workload import Riders, Workload
from simulator.deployment import Deployment, load_deployment
from tests.test_plan_command import run, told

LEAD_S = 4.0
AMPLE = {"WriteCapacityUnits": "1000", "IndexWriteCapacityUnits": "1000", "ReadCapacityUnits": "1000"}
WORKLOAD = Workload(racers=100, seconds=10)
TRUE = Durations(invocation_ms=6.0, record_us=40.0, call_ms=11.0)
ALIKE = Durations(invocation_ms=6.0, call_ms=11.0)
"""With what batches of one size cannot tell as it is assumed."""


@cache
def deployment_with(**sizes: str) -> Deployment:
    return load_deployment(overrides=AMPLE | sizes)


def planned(durations: Durations, workload: Workload = WORKLOAD, seed: int = 7, **sizes: str) -> Plan:
    return plan(deployment_with(**sizes), workload, durations=durations, lead_s=LEAD_S, jitter_seed=seed)


def report_of(found: Plan) -> dict[str, Any]:
    """What a race that went as planned would have reported."""
    run, timeline = found.workload, found.timeline
    functions = []
    for one in found.functions:
        in_ms = [duration * 1e3 for duration in one.totals.durations_s]
        age_s = max(timeline.highest("iterator_age_s", source.name) for source in one.spec.event_sources)
        functions.append(
            {
                "name": one.spec.logical_id,
                "invocations": len(in_ms),
                "duration_ms": {
                    name: nearest_rank(sorted(in_ms), share)
                    for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1))
                },
                "iterator_age_ms_max": age_s * 1e3,
                "cold_starts": 0,
                "warm_duration_ms": [
                    {
                        "records_most": group.most,
                        "records_mean": group.records,
                        "invocations": group.invocations,
                        "p50": group.duration_ms_p50,
                        "sum": group.duration_ms_sum,
                    }
                    for group in by_records(zip(one.totals.records, in_ms, strict=True))
                ],
            }
        )
    limits: list[dict[str, Any]] = [
        {
            "name": "kinesis.shard.write.records_per_second",
            "resource": shard.shard_id,
            "throttled": int(timeline.total("throttled", shard.shard_id)),
            "total": timeline.total("accepted", shard.shard_id),
        }
        for shard in found.shards
    ]
    limits += [
        {
            "name": f"dynamodb.{'index' if '/' in resource else 'table'}.write.units_per_second",
            "resource": resource,
            "throttled": int(timeline.total("throttled_writes", resource)),
            "total": timeline.total("consumed_write_units", resource),
        }
        for table in found.tables
        for resource in table.provisioned()
    ]
    return {
        "schema": 1,
        "run": {
            "racers": run.racers,
            "run_time_s": run.seconds,
            "races": run.races,
            "classes": list(run.classes),
            "via": "kinesis",
            "phase": run.phase,
            "partition_key": run.partition_key,
            "seed": run.seed,
            "target": "local",
            "lead_s": LEAD_S,
            "settled_s": found.settled_s,
        },
        "deployment": {"config_env": "default", "parameters": dict(found.deployment.shown_parameters())},
        "ledger": {"generated": found.ledger.generated, "delivered": found.ledger.delivered, "throttled": 0, "lost": 0},
        "limits": limits,
        "functions": functions,
    }


def written(report: Any, directory: Path) -> Path:
    path = directory / "report.json"
    path.write_text(report if isinstance(report, str) else json.dumps(report))
    return path


def calibrated(measurement: Measurement, *pinned: str, before: Durations | None = None, **sizes: str) -> Calibration:
    def again(durations: Durations, luck: int) -> Plan:
        assert measurement.workload is not None
        return planned(durations, measurement.workload, measurement.workload.seed + luck, **sizes)

    return calibrate(measurement, again, before or Durations(), pinned)


@pytest.mark.parametrize("window", ["5", "0"])
def test_durations_come_back_from_the_report_of_a_race_that_took_them(tmp_path: Path, window: str) -> None:
    # Five classes on one shard and one on the other: what an invocation takes and what a record takes can be told apart
    # only where batches differ.
    workload = Workload(racers=50, seconds=10, classes=(1, 2, 3, 4, 5, 6), partition_key="class")
    report = report_of(planned(TRUE, workload, TumblingWindowInSeconds=window))
    found = calibrated(read_measurement(written(report, tmp_path)), TumblingWindowInSeconds=window)
    assert found.fitted == ("invocation_ms", "record_us", "call_ms")
    assert found.after.call_ms == pytest.approx(TRUE.call_ms, rel=0.03)
    assert found.after.invocation_ms == pytest.approx(TRUE.invocation_ms, rel=0.1)
    assert found.after.record_us == pytest.approx(TRUE.record_us, rel=0.1)


def test_what_batches_of_one_size_cannot_tell_apart_stays(tmp_path: Path) -> None:
    found = calibrated(read_measurement(written(report_of(planned(TRUE)), tmp_path)))
    assert "record_us" not in found.fitted
    assert found.after.record_us == Durations().record_us
    assert "not told apart by this report, left as assumed: record_us" in found.notes
    # Together they are right for batches as they were.
    assert found.after.base_s(50) == pytest.approx(TRUE.base_s(50), rel=0.05)


def test_the_table_says_how_far_plans_were(tmp_path: Path) -> None:
    real = planned(ALIKE)
    found = calibrated(read_measurement(written(report_of(real), tmp_path)))
    rows = {(row.of, row.figure): row for row in found.rows}
    for function in real.functions:
        row = rows[function.spec.logical_id, "p50 ms"]
        assert row.before is not None
        assert row.after is not None
        assert row.before[1] < row.measured * 0.8
        assert row.after == pytest.approx((row.measured, row.measured), rel=0.05)
        assert rows[function.spec.logical_id, "invocations"].off(row.after) is not None
    assert rows["ledger", "delivered"].after == (1000, 1000)
    units = rows["alleycat-races", "write units"]
    assert units.off(units.after) == 0
    assert rows["race", "settled s"].measured == real.settled_s
    text = StringIO()
    Console(file=text, width=100).print(render(found))
    assert "ms an invocation (was 3)" in text.getvalue()
    told_again = found.as_json()
    assert told_again["durations"]["call_ms"]["before"] == 5.0
    assert told_again["durations"]["call_ms"]["measured"] is True
    assert len(told_again["rows"]) == len(found.rows)


def test_how_far_is_from_the_nearest_plan() -> None:
    row = Row("f", "p50 ms", 10.0, (2.0, 8.0), (9.0, 12.0))
    assert (row.off(row.before), row.off(row.after), row.off((11.0, 12.0)), row.off(None)) == (-2.0, 0.0, 1.0, None)


def test_a_duration_that_is_pinned_stays(tmp_path: Path) -> None:
    measurement = read_measurement(written(report_of(planned(TRUE)), tmp_path))
    found = calibrated(measurement, "record_us", before=Durations(record_us=40.0))
    assert found.after.record_us == 40.0
    assert "record_us" not in found.fitted
    assert found.after.invocation_ms == pytest.approx(TRUE.invocation_ms, rel=0.03)


def test_an_older_report_still_calibrates_and_says_what_it_lacks(tmp_path: Path) -> None:
    report = report_of(planned(ALIKE))
    for one in report["functions"]:
        del one["warm_duration_ms"], one["cold_starts"]
    for name in ("partition_key", "lead_s", "phase"):
        del report["run"][name]
    found = calibrated(read_measurement(written(report, tmp_path)))
    assert found.after.base_s(50) == pytest.approx(ALIKE.base_s(50), rel=0.05)
    assert found.after.call_ms == pytest.approx(ALIKE.call_ms, rel=0.1)
    notes = "; ".join(found.notes)
    assert "partition key" in notes
    assert "by batch size" in notes
    assert "had stood" in notes


def test_messages_of_another_size_are_planned(tmp_path: Path) -> None:
    report = report_of(planned(TRUE))
    records = 1000
    for size, expected in ((204, None), (300, 300)):
        shard = {"name": "kinesis.shard.write.bytes_per_second", "resource": "s", "total": size * records}
        measurement = read_measurement(written(report | {"limits": [*report["limits"], shard]}, tmp_path))
        assert measurement.record_bytes == size
        workload = Measured(measurement, frozenset()).workload(Workload())
        assert workload.message_bytes == measurement.message_bytes
        if expected is None:
            assert workload.message_bytes is None
        else:
            assert Riders(workload, [0]).sizes.record_bytes == expected
        assert Measured(measurement, frozenset({"message_bytes"})).workload(Workload()).message_bytes is None


def test_without_functions_nothing_is_fitted(tmp_path: Path) -> None:
    report = report_of(planned(TRUE)) | {"functions": []}
    found = calibrated(read_measurement(written(report, tmp_path)))
    assert (found.after, found.fitted) == (Durations(), ())
    assert any("no function was watched" in note for note in found.notes)


LOAD_TEST = {
    "schema": 1,
    "kind": "loadtest",
    "run": {"scenario": "wcu-limit", "target": "local"},
    "latency_ms": {"before_knee": {"p50": 7.5, "p99": 20.0, "max": 31.0}, "all": {"p50": 9.0, "p99": 50.0}},
    "ledger": {"calls": 100},
    "operations": {"GetRecords": {"calls": 7}, "PutItem": {"calls": 100}},
}


def test_a_load_test_of_the_table_gives_the_time_of_a_call(tmp_path: Path) -> None:
    found = calibrated(read_measurement(written(LOAD_TEST, tmp_path)))
    assert found.after == Durations(call_ms=7.5)
    assert found.fitted == ("call_ms",)
    of_stream = LOAD_TEST | {"operations": {"PutRecords": {"calls": 100}}}
    found = calibrated(read_measurement(written(of_stream, tmp_path)))
    assert found.after == Durations()
    assert any("latencies are of PutRecords" in note for note in found.notes)


RACE = {"racers": 5, "run_time_s": 5, "target": "local"}
REST: dict[str, Any] = {"deployment": {}, "ledger": {}, "limits": [], "functions": []}


@pytest.mark.parametrize(
    ("report", "says"),
    [
        ("{", "not JSON"),
        ("\udc80".encode("utf-8", "surrogateescape").decode("latin-1"), "not JSON"),
        ([], "not the report"),
        ({"schema": 1}, "not the report of a race or a load test: Object missing required field `run`"),
        ({"schema": 2, "run": {}}, "schema 2; this version reads schema 1"),
        ({"schema": 1, "run": {"target": "plan"}}, "is a plan"),
        ({"schema": 1, "kind": "bench", "run": {}}, "kind 'bench'"),
        ({"schema": 1, "run": {"racers": 0, "run_time_s": 1, "target": "local"}, **REST}, r"\$.run.racers"),
        ({"schema": 1, "run": RACE | {"classes": [9]}, **REST}, "classes must be"),
        ({"schema": 1, "run": RACE | {"started_at": "soon"}, **REST}, "soon"),
        ({"schema": 1, "run": RACE | {"partition_key": "name"}, **REST}, "partition_key must be"),
        ({"schema": 1, "run": RACE, **REST, "functions": [{"name": "F", "invocations": -1}]}, "functions"),
    ],
)
def test_what_is_no_report_is_said_in_one_line(tmp_path: Path, report: Any, says: str) -> None:
    with pytest.raises(CalibrationError, match=says) as found:
        read_measurement(written(report, tmp_path))
    assert "\n" not in str(found.value)


def test_the_reports_own_run_is_planned_and_flags_go_before_it(tmp_path: Path) -> None:
    report = report_of(planned(TRUE, TumblingWindowInSeconds="4"))
    written(report, tmp_path)
    # The directory will do.
    own = told("--calibrate", str(tmp_path))
    assert (own["run"]["racers"], own["run"]["run_time_s"]) == (100, 10)
    assert own["deployment"]["parameters"]["TumblingWindowInSeconds"] == 4
    assert own["assumed_durations"]["call_ms"] == pytest.approx(TRUE.call_ms, rel=0.05)
    assert own["calibration"]["durations"]["call_ms"]["measured"] is True
    other = told("--calibrate", str(tmp_path), "-u", "30", "--wcu", "77", "--duration", "call_ms=9", ALLEYCAT_SEED="3")
    assert (other["run"]["racers"], other["run"]["run_time_s"], other["run"]["seed"]) == (30, 10, 3)
    assert other["deployment"]["parameters"]["WriteCapacityUnits"] == 77
    assert other["deployment"]["parameters"]["TumblingWindowInSeconds"] == 4
    assert other["assumed_durations"]["call_ms"] == 9


def test_an_environment_takes_the_place_of_the_reports_sizes(tmp_path: Path) -> None:
    measurement = read_measurement(written(report_of(planned(TRUE)), tmp_path))
    asked = Measured(measurement, frozenset({"config_env", "wcu"}))
    assert asked.sizes("as-published", ["ShardCount=3"]) == ("as-published", ["ShardCount=3"])
    environment, sizes = Measured(measurement, frozenset({"wcu"})).sizes("default", ["ShardCount=3"])
    assert environment == "default"
    assert "ReadCapacityUnits=1000" in sizes
    # A flag's size is laid under --set, so the report's must not be there.
    assert not any(one.startswith("WriteCapacityUnits=") for one in sizes)
    assert sizes[-1] == "ShardCount=3"


def test_a_sweep_takes_the_durations(tmp_path: Path) -> None:
    written(report_of(planned(TRUE)), tmp_path)
    done = run("--calibrate", str(tmp_path), "--sweep", "ShardCount=1,2", "--json")
    assert done.returncode == 0, done.stderr
    assert "alleycat: measured: " in done.stderr
    assert len(json.loads(done.stdout)["cells"]) == 2


def test_a_bad_file_is_a_usage_error(tmp_path: Path) -> None:
    done = run("--calibrate", str(tmp_path / "none.json"))
    assert done.returncode == 2
    assert done.stderr == f"alleycat: --calibrate {tmp_path / 'none.json'}: No such file or directory\n"
