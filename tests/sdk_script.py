"""One script of calls, written once and run by three clients: boto3, the AWS CLI and the JavaScript SDK.

A step is ``(service, operation, parameters)``; ``save`` keeps members of its answer for ``$name`` in later steps.
Blobs are written as plain text. What the clients make of the answers is brought to one form: blobs as text,
timestamps as ``"<time>"``, opaque texts as ``"<...>"``.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import boto3
from botocore.exceptions import ClientError

JS_RUNNER = Path(__file__).parent / "sdk_js"
_BLOBS = ("Data",)
_OPAQUE = ("SequenceNumber", "ShardIterator", "NextShardIterator", "NextToken", "StartingSequenceNumber")
_OPAQUE_TOO = ("EndingSequenceNumber", "RequestId", "TableId")
_TIMES = re.compile(r".*(Timestamp|DateTime)$")


class Step(NamedTuple):
    """``save`` maps a name to the path of a member of the answer, such as ``Shards/0/ShardId``."""

    service: str
    operation: str
    parameters: dict[str, Any]
    save: dict[str, str] = {}  # noqa: RUF012 - never changed


def script(stream: str, table: str) -> list[Step]:
    """The calls: the life of a stream and of a table, errors among them."""
    key = {"PK": {"S": "race-1"}}
    arn = f"arn:aws:kinesis:us-east-1:123456789012:stream/{stream}"
    records = [{"Data": f"message {index}", "PartitionKey": f"racer-{index}"} for index in range(5)]
    return [
        Step("kinesis", "CreateStream", {"StreamName": stream, "ShardCount": 2}),
        Step("kinesis", "CreateStream", {"StreamName": stream, "ShardCount": 2}),
        Step("kinesis", "DescribeStreamSummary", {"StreamName": stream}),
        Step("kinesis", "PutRecords", {"StreamName": stream, "Records": records}),
        Step("kinesis", "PutRecord", {"StreamARN": arn, "Data": "one", "PartitionKey": "k", "ExplicitHashKey": "0"}),
        Step("kinesis", "ListShards", {"StreamName": stream}, {"shard": "Shards/0/ShardId"}),
        Step(
            "kinesis",
            "GetShardIterator",
            {"StreamName": stream, "ShardId": "$shard", "ShardIteratorType": "TRIM_HORIZON"},
            {"iterator": "ShardIterator"},
        ),
        Step("kinesis", "GetRecords", {"ShardIterator": "$iterator", "Limit": 10}),
        Step("kinesis", "GetRecords", {"ShardIterator": "AAAA"}),
        Step("kinesis", "AddTagsToStream", {"StreamName": stream, "Tags": {"foo": "bar"}}),
        Step("kinesis", "ListTagsForStream", {"StreamName": stream}),
        Step("kinesis", "RegisterStreamConsumer", {"StreamARN": arn, "ConsumerName": "c"}),
        Step("kinesis", "ListStreamConsumers", {"StreamARN": arn}),
        Step("kinesis", "DeregisterStreamConsumer", {"StreamARN": arn, "ConsumerName": "c"}),
        Step(
            "kinesis",
            "UpdateShardCount",
            {"StreamName": stream, "TargetShardCount": 5, "ScalingType": "UNIFORM_SCALING"},
        ),
        Step(
            "kinesis",
            "UpdateShardCount",
            {"StreamName": stream, "TargetShardCount": 3, "ScalingType": "UNIFORM_SCALING"},
        ),
        Step("kinesis", "DescribeStream", {"StreamName": stream}),
        Step("kinesis", "IncreaseStreamRetentionPeriod", {"StreamName": stream, "RetentionPeriodHours": 48}),
        Step("kinesis", "DeleteStream", {"StreamName": stream}),
        Step("kinesis", "DescribeStream", {"StreamName": stream}),
        Step(
            "dynamodb",
            "CreateTable",
            {
                "TableName": table,
                "KeySchema": [{"AttributeName": "PK", "KeyType": "HASH"}],
                "AttributeDefinitions": [{"AttributeName": "PK", "AttributeType": "S"}],
                "ProvisionedThroughput": {"ReadCapacityUnits": 20, "WriteCapacityUnits": 20},
            },
        ),
        Step(
            "dynamodb",
            "PutItem",
            {"TableName": table, "Item": {**key, "ts": {"N": "7"}}, "ReturnConsumedCapacity": "TOTAL"},
        ),
        Step(
            "dynamodb",
            "UpdateItem",
            {
                "TableName": table,
                "Key": key,
                "UpdateExpression": "SET ts = :new",
                "ConditionExpression": "ts > :new",
                "ExpressionAttributeValues": {":new": {"N": "9"}},
            },
        ),
        Step("dynamodb", "GetItem", {"TableName": table, "Key": key, "ReturnConsumedCapacity": "TOTAL"}),
        Step("dynamodb", "DeleteTable", {"TableName": table}),
    ]


# -- boto3 ---------------------------------------------------------------------------------------------


def run_boto3(steps: list[Step], endpoint_url: str) -> tuple[list[Any], list[tuple[str, str, bytes]]]:
    """The answers, and (service, operation, body) of every successful one as it was on the wire."""
    session = boto3.session.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")
    clients = {name: session.client(name, endpoint_url=endpoint_url) for name in {step.service for step in steps}}
    saved: dict[str, Any] = {}
    answers: list[Any] = []
    bodies: list[tuple[str, str, bytes]] = []
    for step in steps:
        client = clients[step.service]
        method = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", step.operation).lower()
        wire: list[bytes] = []
        client.meta.events.register_last(
            "response-received.*", lambda response_dict, wire=wire, **_: wire.append(response_dict["body"]), "wire"
        )
        try:
            answer = getattr(client, method)(**_filled(_encoded(step.parameters), saved))
        except ClientError as error:
            answers.append(_error(error.response["Error"]))
        else:
            answer.pop("ResponseMetadata")
            _keep(step, answer, saved)
            answers.append(_plain(answer))
            bodies.append((step.service, step.operation, wire[-1]))
        client.meta.events.unregister("response-received.*", unique_id="wire")
    for client in clients.values():
        client.close()
    return answers, bodies


# -- the AWS CLI ---------------------------------------------------------------------------------------


def run_cli(steps: list[Step], endpoint_url: str) -> list[Any]:
    """Each step is a process of the AWS CLI, given its parameters as JSON."""
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_PAGER": "",
        "PYTHONWARNINGS": "ignore",
    }
    saved: dict[str, Any] = {}
    answers: list[Any] = []
    for step in steps:
        command = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", step.operation).lower()
        parameters = json.dumps(_filled(step.parameters, saved))
        done = subprocess.run(
            [
                str(Path(sys.executable).parent / "aws"),
                step.service,
                command,
                "--endpoint-url",
                endpoint_url,
                "--no-paginate",
                "--output",
                "json",
                "--cli-input-json",
                parameters,
            ],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode:
            told = re.search(r"\((\w+)\) when calling the \w+ operation(?: \([^)]*\))?: (.*)", done.stderr, re.DOTALL)
            assert told is not None, done.stderr
            answers.append(_error({"Code": told[1], "Message": told[2].strip()}))
            continue
        answer = json.loads(done.stdout) if done.stdout.strip() else {}
        _keep(step, answer, saved)
        answers.append(_plain(answer, encoded=True))
    return answers


# -- the JavaScript SDK --------------------------------------------------------------------------------


def run_js(steps: list[Step], endpoint_url: str) -> list[Any]:
    """Node runs the whole script; its SDK speaks HTTP/2 to Kinesis."""
    told = json.dumps({"endpoint": endpoint_url, "steps": [step._asdict() for step in steps]})
    done = subprocess.run(
        ["node", "run.mjs"], cwd=JS_RUNNER, input=told, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return [
        _error(answer["error"]) if "error" in answer else _plain(answer["answer"], encoded=True)
        for answer in json.loads(done.stdout)
    ]


# -- one form ------------------------------------------------------------------------------------------


def _encoded(parameters: Any) -> Any:
    """Blobs as bytes, which is how boto3 wants them."""
    if isinstance(parameters, dict):
        return {name: value.encode() if name in _BLOBS else _encoded(value) for name, value in parameters.items()}
    return [_encoded(item) for item in parameters] if isinstance(parameters, list) else parameters


def _filled(parameters: Any, saved: dict[str, Any]) -> Any:
    if isinstance(parameters, dict):
        return {name: _filled(value, saved) for name, value in parameters.items()}
    if isinstance(parameters, list):
        return [_filled(item, saved) for item in parameters]
    is_name = isinstance(parameters, str) and parameters.startswith("$")
    return saved[parameters[1:]] if is_name else parameters


def _keep(step: Step, answer: Any, saved: dict[str, Any]) -> None:
    for name, path in step.save.items():
        value = answer
        for part in path.split("/"):
            value = value[int(part)] if part.isdigit() else value[part]
        saved[name] = value


def _error(told: dict[str, Any]) -> dict[str, str]:
    return {"error": told["Code"], "message": told["Message"]}


def _plain(value: Any, *, encoded: bool = False, name: str = "") -> Any:
    if name in (*_OPAQUE, *_OPAQUE_TOO):
        return f"<{name}>"
    if name == "ConsumerARN":
        return re.sub(r":\d+$", ":<time>", value)
    if _TIMES.match(name):
        assert isinstance(value, str | int | float | datetime), value
        return "<time>"
    if name in _BLOBS:
        return (base64.b64decode(value) if encoded else value).decode()
    if isinstance(value, dict):
        return {key: _plain(item, encoded=encoded, name=key) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, encoded=encoded) for item in value]
    return value if not isinstance(value, float) or value % 1 else int(value)
