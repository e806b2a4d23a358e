"""The commands as people run them: real processes, real sockets, wrong flags, Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import boto3
import pytest

from simulator.capacity.measurement import read_measurement

ROOT = Path(__file__).resolve().parents[1]
ALLEYCAT = [sys.executable, "-c", "from simulator.cli import main; main()"]


def run(*arguments: str, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*ALLEYCAT, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=ROOT,
        env={**os.environ, **environment},
        check=False,
    )


def race(*arguments: str, **environment: str) -> tuple[int, dict[str, Any]]:
    done = run("race", "--port", "0", "--mqtt-port", "0", "--json", *arguments, **environment)
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)


def check_passed(code: int, told: dict[str, Any], messages: int) -> None:
    assert told["verdict"]["passed"], told["verdict"]
    assert code == 0
    assert told["ledger"]["generated"] == told["ledger"]["delivered"] == messages
    assert told["ledger"]["lost"] == 0


# -- races ---------------------------------------------------------------------------------------------


def test_a_race_passes_and_reports(tmp_path: Path) -> None:
    code, told = race("-u", "40", "-t", "4s", "--out", str(tmp_path / "out"))
    check_passed(code, told, 160)
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == told
    assert told["schema"] == 1
    assert told["run"]["racers"] == 40
    assert {check["name"]: check["expected"] for check in told["verdict"]["checks"]} == {
        "ledger": 160,
        "race results": 40,
        "final results": 40,
        "class records": 40,
    }
    names = {one["name"] for one in told["limits"]}
    assert {"kinesis.shard.write.records_per_second", "dynamodb.index.write.units_per_second"} <= names
    accepted = sum(one["total"] for one in told["limits"] if one["name"] == "kinesis.shard.write.records_per_second")
    assert accepted == 160
    # Every finisher costs two items: 2 WCU each on the table with its local index, 1 each on the global one.
    (table,) = (one for one in told["limits"] if one["name"] == "dynamodb.table.write.units_per_second")
    assert table["total"] >= 160
    assert {one["name"] for one in told["functions"]} == {
        "TumblingWindowFunction",
        "FinalResultsFunction",
        "PublishFunction",
    }
    # What it took calibrates plans (tests/test_capacity_calibration.py).
    measured = read_measurement(tmp_path / "out")
    assert measured.workload is not None
    assert (measured.workload.messages, measured.lead_s) == (160, told["run"]["lead_s"])
    for one in measured.functions:
        warm = sum(group.invocations for group in one.warm_duration_ms)
        assert warm == one.invocations - one.cold_starts
    # Results are seen on their topic also when the bikes come by Kinesis.
    for one in ("accepted", "visible"):
        assert set(told["latency_ms"][one]) == {"p50", "p99", "max"}
    (balance,) = told["balance"] or [{"even_share": 0.5}]
    assert balance["even_share"] == 0.5


@pytest.mark.parametrize("key", ["random", "race", "class", "timestamp"])
def test_results_are_right_for_any_partition_key(key: str) -> None:
    check_passed(*race("-u", "30", "-t", "3s", "--shards", "4", "--partition-key", key, "--window", "1"), 90)


def test_results_are_right_without_a_window_and_for_several_classes_and_races() -> None:
    code, told = race("-u", "20", "-t", "3s", "--races", "2", "--classes", "1,4", "--window", "0", "--phase", "burst")
    check_passed(code, told, 240)
    assert [check["expected"] for check in told["verdict"]["checks"]] == [240, 80, 80, 40]


def test_flags_read_the_environment_and_flags_win() -> None:
    code, told = race("-t", "2s", ALLEYCAT_RACERS="7", ALLEYCAT_RUN_TIME="50s", ALLEYCAT_SEED="3")
    check_passed(code, told, 14)
    assert told["run"]["seed"] == 3


def test_what_the_limits_refuse_is_sent_again_and_nothing_is_lost() -> None:
    """1,500 messages a second on a shard that takes 1,000."""
    code, told = race(
        "-u", "1500", "-t", "4s", "--shards", "1", "--wcu", "4000", "--set", "IndexWriteCapacityUnits=4000"
    )
    check_passed(code, told, 6000)
    assert told["ledger"]["throttled"] > 0
    assert told["ledger"]["retried"] > 0
    (limit,) = (one for one in told["limits"] if one["name"] == "kinesis.shard.write.records_per_second")
    assert limit["throttled"] > 0
    assert any("shardId-000000000000 takes 1,000 records/s" in finding for finding in told["findings"])


def test_a_race_that_loses_messages_says_so() -> None:
    """A deadline of a second on a shard at three times its limit: accounted for, and every other number right."""
    code, told = race(
        "-u", "3000", "-t", "4s", "--shards", "1", "--deadline", "1s", "--wcu", "9000",
        "--set", "IndexWriteCapacityUnits=9000",
    )  # fmt: skip
    assert told["ledger"]["lost"] > 0
    assert told["ledger"]["lost_by_reason"] == {"deadline": told["ledger"]["lost"]}
    assert told["ledger"]["generated"] == told["ledger"]["delivered"] + told["ledger"]["lost"] == 12_000
    assert (code, told["verdict"]["passed"]) == (0, True), told["verdict"]


# -- a first Ctrl-C drains and reports, a second quits -------------------------------------------------


def started(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*ALLEYCAT, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )


def wait_until_riding(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if re.match(r"riding [1-9]\d*/", line):
            return
    raise AssertionError("it never rode")


def test_the_first_interrupt_drains_and_still_judges() -> None:
    process = started("race", "--port", "0", "--json", "-u", "20", "-t", "60s")
    wait_until_riding(process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    told = json.loads(out)
    assert process.returncode == 130
    assert told["run"]["interrupted"]
    assert 0 < told["ledger"]["generated"] < 1200
    assert told["verdict"]["passed"], told["verdict"]
    assert "Traceback" not in err


def test_the_second_interrupt_quits() -> None:
    process = started("race", "--port", "0", "-u", "20", "-t", "60s")
    wait_until_riding(process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert time.monotonic() - began < 20
    assert "Traceback" not in err


# -- alleycat cloud ------------------------------------------------------------------------------------


@contextlib.contextmanager
def running_cloud(*flags: str) -> Any:
    process = started("cloud", "--port", "0", "--mqtt-port", "0", "--json", *flags)
    assert process.stdout is not None
    told = json.loads(process.stdout.readline())
    try:
        yield told
    finally:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 0
        assert err == ""


def client(service: str, url: str) -> Any:
    return boto3.client(
        service, endpoint_url=url, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
    )


def test_cloud_has_what_the_template_says_and_a_race_can_use_it(tmp_path: Path) -> None:
    with running_cloud() as told:
        url = told["endpoint_url"]
        assert told["resources"] == [
            "alleycat",
            "alleycat-races",
            "alleycat-undelivered-123456789012",
            "alleycat-rejected-123456789012",
            "alleycatIngest",
        ]
        assert told["mqtt_url"].startswith("mqtt://127.0.0.1:")
        # A race on a target that is not its own: everything by public protocols, records compared with a baseline.
        keys = {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "y",
            "AWS_REGION": "us-east-1",
        }
        for seed in ("1", "2"):
            done = run(
                "race", "--target", "aws", "--consumers", "local", "--yes", "--json", "-u", "10", "-t", "3s",
                "--seed", seed, **keys,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)["verdict"]["passed"]
            assert "USD" in done.stderr
        kinesis = client("kinesis", url)
        assert kinesis.list_streams()["StreamNames"] == ["alleycat"]
        kinesis.delete_stream(StreamName="alleycat")
        kinesis.close()
        done = run("race", "--target", "aws", "--yes", "-u", "10", "-t", "3s", **keys)
        assert (done.returncode, done.stdout) == (3, "")
        assert "there is no stream alleycat" in done.stderr
        assert "sam deploy" in done.stderr
        dynamodb = client("dynamodb", url)
        assert dynamodb.describe_table(TableName="alleycat-races")["Table"]["ItemCount"] > 0
        dynamodb.close()


def test_resharding_during_a_race_keeps_every_number_and_every_bikers_order() -> None:
    with running_cloud("--shards", "1", "--limit", "reshard_seconds=2") as told:
        url = told["endpoint_url"]
        keys = {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "y",
            "AWS_REGION": "us-east-1",
        }
        process = subprocess.Popen(
            [*ALLEYCAT, "race", "--target", "aws", "--consumers", "local", "--yes", "--json", "--shards", "1",
             "-u", "100", "-t", "14s"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, **keys},
        )  # fmt: skip
        wait_until_riding(process)
        kinesis = client("kinesis", url)
        for target in (2, 4, 2):
            until_active(kinesis)
            kinesis.update_shard_count(StreamName="alleycat", TargetShardCount=target, ScalingType="UNIFORM_SCALING")
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        check_passed(process.returncode, json.loads(out), 1400)
        until_active(kinesis)
        seconds = seconds_by_racer(kinesis)
        kinesis.close()
    assert len(seconds) == 100
    assert all(ridden == list(range(len(ridden))) or ridden == list(range(1, 15)) for ridden in seconds.values())
    assert {len(ridden) for ridden in seconds.values()} == {14}


def until_active(kinesis: Any) -> list[dict[str, Any]]:
    """Wait out an UPDATING; the shards of the stream."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        summary = kinesis.describe_stream_summary(StreamName="alleycat")["StreamDescriptionSummary"]
        if summary["StreamStatus"] == "ACTIVE":
            return list(kinesis.list_shards(StreamName="alleycat")["Shards"])
        time.sleep(0.1)
    raise AssertionError("the stream stays UPDATING")


def seconds_by_racer(kinesis: Any) -> dict[int, list[int]]:
    """What each biker sent, in the order a consumer reads it: parents before children."""
    found: dict[int, list[int]] = {}
    shards = until_active(kinesis)
    # Shard ids grow over a stream's life, so a parent's is lower than its children's.
    for shard in sorted(shards, key=lambda one: one["ShardId"]):
        assert all(shard.get(parent, "") < shard["ShardId"] for parent in ("ParentShardId", "AdjacentParentShardId"))
        iterator = kinesis.get_shard_iterator(
            StreamName="alleycat", ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        records = kinesis.get_records(ShardIterator=iterator)["Records"]
        for record in records:
            message = json.loads(record["Data"])
            found.setdefault(message["racerId"], []).append(message["second"])
    return found


def test_bad_telemetry_is_kept_with_its_reason_and_the_race_goes_on(tmp_path: Path) -> None:
    port = free_port()
    process = started("race", "--port", str(port), "--json", "-u", "20", "-t", "12s", "--out", str(tmp_path))
    wait_until_riding(process)
    kinesis = client("kinesis", f"http://127.0.0.1:{port}")
    bad = [
        b"not json",
        b"{}",
        b'{"uuid":"u","event":"update","deviceTimestamp":1,"second":1,"raceId":1,"name":"n","racerId":1,"classId":9,'
        b'"cadence":50.0,"resistance":50.0}',
        b'{"uuid":"u","event":"update","deviceTimestamp":1,"second":1,"raceId":1,"name":"n","racerId":1,"classId":1,'
        b'"cadence":NaN,"resistance":50.0}',
        b'{"name":"' + b"x" * 1_000_000 + b'"}',
    ]
    for data in bad:
        kinesis.put_record(StreamName="alleycat", Data=data, PartitionKey="bad")
    kinesis.close()
    out, err = process.communicate(timeout=90)
    told = json.loads(out)
    assert told["verdict"]["passed"], told["verdict"]
    assert sum(told["rejected"].values()) == len(bad), told["rejected"]
    assert len(told["rejected"]) >= 4
    assert "Traceback" not in err


def test_a_cloud_that_dies_in_the_middle_is_one_clear_line() -> None:
    process = started("race", "--port", "0", "-u", "20", "-t", "60s")
    wait_until_riding(process)
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid), "-f", "simulator.cloud.server"], capture_output=True, text=True, check=True
    )
    os.kill(int(children.stdout.split()[0]), signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (3, "")
    assert "the embedded cloud died (exit code -9)" in err.strip().splitlines()[-1]
    assert "Traceback" not in err


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


# -- wrong input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["race", "--racers", "0"], 2, "--racers"),
        (["race", "--racers", "many"], 2, "--racers"),
        (["race", "--run-time", "soon"], 2, "--run-time 'soon': give a time such as 60s"),
        (["race", "--via", "pigeon"], 2, "--via 'pigeon': choose kinesis"),
        (["race", "--partition-key", "x"], 2, "choose random or racer"),
        (["race", "--classes", "1,9"], 2, "--classes '1,9': give different numbers from 1 to 6"),
        (["race", "--nonsense"], 2, "No such option"),
        (["race", "--config-env", "nix"], 2, "no environment 'nix'; it has default, as-published"),
        (["race", "--set", "Nix=1"], 2, "there is no parameter Nix"),
        (["race", "--set", "x"], 2, "--set takes NAME=VALUE"),
        (["race", "--shards", "0"], 2, "ShardCount"),
        (["race", "--template", "nix.yaml"], 2, "cannot read the template"),
        (["race", "--out", "/proc/nothing"], 2, "choose a directory that can be written"),
        (["race", "--limits", "maybe"], 2, "choose on or off"),
        (["cloud", "--limit", "nix=1"], 2, "--limit 'nix=1': there is no such setting; there are enforced, "),
        (["race", "--limit", "reshard_seconds=soon"], 2, "reshard_seconds is a number of 0 or more"),
        (["race", "--consumers", "deployed"], 2, "goes with --target aws"),
        (["race", "--port", "99999"], 2, "--port"),
        (["template", "--template", "README.md"], 2, "README.md"),
        (["nonsense"], 2, "No such command"),
    ],
)
def test_wrong_flags_get_one_clear_line(arguments: list[str], code: int, told: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert told in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_aws_target_without_region_or_with_nobody_there(tmp_path: Path) -> None:
    nowhere = {"HOME": str(tmp_path), "AWS_CONFIG_FILE": str(tmp_path / "none"), "AWS_EC2_METADATA_DISABLED": "true"}
    done = run("race", "--target", "aws", "--yes", **nowhere)
    assert done.returncode == 3
    assert "no AWS region" in done.stderr
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_REGION": "us-east-1"}
    done = run("race", "--target", "aws", "--yes", AWS_ENDPOINT_URL="http://127.0.0.1:9", **nowhere, **keys)
    assert done.returncode == 3
    assert "gave no answer" in done.stderr
    assert "Traceback" not in done.stderr
    done = run("race", "--target", "aws", **nowhere, **keys)
    assert done.returncode == 2
    assert "--yes" in done.stderr


def test_a_busy_port() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for command in ("race", "cloud"):
            done = run(command, "--port", str(port))
            assert (done.returncode, done.stdout) == (3, "")
            assert f"port {port} on 127.0.0.1 is in use" in done.stderr
            assert len(done.stderr.strip().splitlines()) == 1


def test_template_prints_json() -> None:
    told = json.loads(run("template", "--json", "--config-env", "as-published").stdout)
    assert told["streams"][0]["shard_count"] == 1
