"""What is shipped for other people's tests, used as they would: in a pytest of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from simulator.cloud.server import CloudError, CloudProcess

THEIR_TESTS = """
import subprocess, sys
import boto3, pytest

def test_plain_boto3_reaches_it(aws):
    kinesis = boto3.client("kinesis")
    kinesis.create_stream(StreamName="s", ShardCount=1)
    answer = kinesis.put_records(StreamName="s", Records=[{"Data": b"x", "PartitionKey": "k"}] * 500)
    assert answer["FailedRecordCount"] == 0

def test_it_is_empty_again_and_says_no(aws):
    kinesis = aws.client("kinesis", retries={"total_max_attempts": 1})
    assert kinesis.list_streams()["StreamNames"] == []
    kinesis.create_stream(StreamName="s", ShardCount=1)
    batch = [{"Data": b"x", "PartitionKey": "k"}] * 500
    failed = [kinesis.put_records(StreamName="s", Records=batch)["FailedRecordCount"] for _ in range(9)]
    assert sum(failed) > 1000

def test_child_processes_reach_it_too(aws):
    boto3.client("sqs").create_queue(QueueName="q")
    code = "import boto3; print(boto3.client('sqs').list_queues()['QueueUrls'])"
    assert "/q" in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

def test_the_limits_of_the_configuration(aws):
    kinesis = boto3.client("kinesis")
    kinesis.create_stream(StreamName="s", ShardCount=1)
    kinesis.update_shard_count(StreamName="s", TargetShardCount=2, ScalingType="UNIFORM_SCALING")
    assert kinesis.describe_stream_summary(StreamName="s")["StreamDescriptionSummary"]["OpenShardCount"] == 2
"""


def run_pytest(folder: Path, limits: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_theirs.py").write_text(THEIR_TESTS)
    (folder / "pytest.ini").write_text(f"[pytest]\nalleycat_limits = {limits}\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."]
    environment = {"PATH": "/usr/bin:/bin"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_the_fixture_in_one_word(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "reshard_seconds=0")
    assert "4 passed" in done.stdout, done.stdout + done.stderr


def test_a_wrong_limit_is_told(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "nonsense=0")
    assert done.returncode != 0
    assert "alleycat_limits: 'nonsense=0': there is no such setting" in done.stdout + done.stderr


def test_the_plugin_is_registered_for_installations() -> None:
    from importlib.metadata import entry_points

    names = {point.name: point.value for point in entry_points(group="pytest11")}
    assert names["alleycat"] == "simulator.pytest_plugin"


def test_resetting_a_cloud_that_has_gone_says_so() -> None:
    cloud = CloudProcess()
    cloud.port = 9
    with pytest.raises(CloudError, match="could not be reset"):
        cloud.reset()
