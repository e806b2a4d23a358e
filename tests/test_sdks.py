"""The same script of calls by boto3, the AWS CLI and the JavaScript SDK v3, against one cloud."""

from __future__ import annotations

import json
import shutil
import uuid
from typing import Any

import pytest
from model_check import problems
from sdk_script import JS_RUNNER, Step, run_boto3, run_cli, run_js, script

from simulator.cloud.limits import LimitSettings
from simulator.cloud.server import CloudProcess

ARN = "arn:aws:kinesis:us-east-1:123456789012"


@pytest.fixture(scope="module")
def fast_cloud() -> Any:
    with CloudProcess(settings=LimitSettings(reshard_seconds=0.0)) as process:
        yield process


@pytest.fixture(scope="module")
def steps() -> list[Step]:
    name = uuid.uuid4().hex[:8]
    return script(f"s-{name}", f"t-{name}")


@pytest.fixture(scope="module")
def by_boto3(fast_cloud: CloudProcess, steps: list[Step]) -> tuple[list[Any], list[tuple[str, str, bytes]]]:
    return run_boto3(steps, fast_cloud.endpoint_url)


def test_the_answers_are_as_awss_models_describe_them(by_boto3: Any) -> None:
    _, bodies = by_boto3
    assert len(bodies) > 15
    for service, operation, body in bodies:
        assert problems(service, operation, json.loads(body) if body else None) == [], operation


def test_what_boto3_is_told(by_boto3: Any, steps: list[Step]) -> None:
    answers, _ = by_boto3
    told = dict(zip(range(len(steps)), answers, strict=True))
    stream = steps[0].parameters["StreamName"]
    account = "123456789012"
    assert told[1] == {
        "error": "ResourceInUseException",
        "message": f"Stream {stream} under account {account} already exists.",
    }
    assert told[2]["StreamDescriptionSummary"]["OpenShardCount"] == 2
    assert told[3]["FailedRecordCount"] == 0
    read = [record["Data"] for record in told[7]["Records"]]
    assert "one" in read
    assert all(data == "one" or data.startswith("message ") for data in read)
    assert told[8]["error"] == "InvalidArgumentException"
    assert told[14]["error"] == "LimitExceededException"
    assert told[14]["message"] == (
        "UpdateShardCount cannot scale up over double your current open shard count. "
        "Current open shard count: 2, Target shard count: 5"
    )
    assert (told[15]["CurrentShardCount"], told[15]["TargetShardCount"]) == (2, 3)
    assert told[19] == {
        "error": "ResourceNotFoundException",
        "message": f"Stream {stream} under account {account} not found.",
    }
    assert told[21]["ConsumedCapacity"]["CapacityUnits"] == 1
    assert told[22] == {"error": "ConditionalCheckFailedException", "message": "The conditional request failed"}
    assert told[23]["ConsumedCapacity"]["CapacityUnits"] == 0.5


def test_the_aws_cli_is_told_the_same(fast_cloud: CloudProcess, by_boto3: Any, steps: list[Step]) -> None:
    by_cli = run_cli(steps, fast_cloud.endpoint_url)
    for step, ours, theirs in zip(steps, by_boto3[0], by_cli, strict=True):
        assert theirs == ours, step.operation


def test_the_javascript_sdk_is_told_the_same(fast_cloud: CloudProcess, by_boto3: Any, steps: list[Step]) -> None:
    if shutil.which("node") is None or not (JS_RUNNER / "node_modules").is_dir():
        pytest.skip("needs node and `npm install` in tests/sdk_js")
    *by_js, pushed = run_js(steps, fast_cloud.endpoint_url)
    for step, ours, theirs in zip(steps, by_boto3[0], by_js, strict=True):
        assert theirs == ours, step.operation
    assert pushed == {"Pushed": ["pushed"]}
