"""The clients that `make bench` compares count what the stream stored, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loadtests import generator_bench
from loadtests.generator_bench import Rates, environment, rounds
from loadtests.peers import Peer
from loadtests.put_clients import RECORDS_A_CALL
from simulator.cloud.server import CloudProcess

ROOT = Path(__file__).resolve().parents[1]


def offer(cloud: CloudProcess, role: str, stream: str, records: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "loadtests.put_clients", role, cloud.endpoint_url, stream, str(records)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
        env=environment(cloud.endpoint_url),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def stored(kinesis: Any, stream: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for shard in kinesis.list_shards(StreamName=stream)["Shards"]:
        iterator = kinesis.get_shard_iterator(
            StreamName=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        page = kinesis.get_records(ShardIterator=iterator)
        assert page["MillisBehindLatest"] == 0
        found += page["Records"]
    return found


def test_boto3_counts_accepted_records_only(cloud: CloudProcess, kinesis: Any, stream: str) -> None:
    """Nine calls to one shard offer far more than it takes; the loop does not look, the count does."""
    kinesis.create_stream(StreamName=stream, ShardCount=1)
    told = offer(cloud, "boto3", stream, 8 * RECORDS_A_CALL)
    records = stored(kinesis, stream)
    # The first call, which warms up, is stored and not counted.
    assert told["accepted"] == len(records) - RECORDS_A_CALL
    assert told["accepted"] < 8 * RECORDS_A_CALL
    assert {json.loads(one["Data"])["racerId"] for one in records} == {int(one["PartitionKey"]) for one in records}
    assert set(told["versions"]) == {"boto3", "botocore"}
    assert told["cpu_s"] > 0
    assert told["wall_s"] > 0


def test_the_generator_counts_accepted_records_only(cloud: CloudProcess, kinesis: Any, stream: str) -> None:
    kinesis.create_stream(StreamName=stream, ShardCount=1)
    told = offer(cloud, "generator", stream, 2 * RECORDS_A_CALL)
    records = stored(kinesis, stream)
    # What was under way when enough had been accepted is stored too.
    assert 2 * RECORDS_A_CALL <= told["accepted"] <= len(records) - RECORDS_A_CALL
    # Far more were offered: a shard takes a thousand at once and a thousand a second.
    assert len(records) <= 1000 * (told["wall_s"] + 10)
    assert {"alleycat", "locust", "gevent"} <= set(told["versions"])


def test_the_generator_gives_up_on_what_no_call_can_mend(cloud: CloudProcess) -> None:
    with pytest.raises(AssertionError, match="ResourceNotFoundException"):
        offer(cloud, "generator", "no-such-stream", RECORDS_A_CALL)


def test_a_client_that_cannot_run_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    ran: list[str] = []

    def run(role: str, server: Peer, stream: str) -> dict[str, Any]:
        ran.append(role)
        if role.startswith("async-kinesis"):
            raise RuntimeError("it is missing")
        return {"accepted": 1000, "cpu_s": 0.5, "wall_s": 2.0, "versions": {"a": "1", "b": "2"}}

    monkeypatch.setattr(generator_bench, "run", run)
    monkeypatch.setattr(generator_bench, "ROUNDS", 2)
    found = rounds(Peer("none", "127.0.0.1", 1), lambda operation, **members: asked.append(operation))
    assert ran == [*generator_bench.RECORDS, "generator", "boto3"]
    assert found["boto3"] == Rates([2000.0, 2000.0], [500.0, 500.0], "", "a 1, b 2")
    assert found["async-kinesis"] == Rates(failed="it is missing")
    # Every stream is deleted, also that of a client that failed.
    assert asked == ["CreateStream", "DeleteStream"] * len(ran)
