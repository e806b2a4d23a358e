"""AWS as an outside oracle: answers recorded from it and examples its documentation works out, for Kinesis.

Each test names where the answer comes from. What another test file already holds against the same source is not
repeated: sequence numbers in test_sequence.py, the control plane's texts in test_kinesis_operations.py, CBOR errors in
test_kinesis_wire.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from simulator.cloud.kinesis_api import KinesisApi
from simulator.cloud.limits import MIB, LimitSettings
from simulator.cloud.metrics import Metrics
from simulator.cloud.sequence import uniform_ranges

ACCOUNT = "111111111111"
T0 = 1_421_889_722.0  # Thu Jan 22 01:22:02 UTC 2015, the time of the recorded iterator


class Api:
    """Kinesis under a clock that the test moves."""

    def __init__(self, **settings: Any) -> None:
        self.now = T0
        settings.setdefault("reshard_seconds", 0.0)
        self.api = KinesisApi(ACCOUNT, LimitSettings(**settings), Metrics(), lambda: self.now)

    def __call__(self, operation: str, **members: Any) -> Any:
        status, body = self.api.handle(operation, json.dumps(members).encode(), "us-east-1")
        told = json.loads(body) if body else {}
        assert (status == 200) == ("__type" not in told)
        return told

    def stream(self, shards: int = 1, name: str = "exampleStreamName") -> str:
        assert self("CreateStream", StreamName=name, ShardCount=shards) == {}
        return name


@pytest.fixture
def call() -> Api:
    return Api()


def put(nbytes: int, key: str = "k", **more: str) -> dict[str, str]:
    import base64

    return {"Data": base64.b64encode(b"x" * nbytes).decode(), "PartitionKey": key, **more}


# -- writing -------------------------------------------------------------------------------------------


def test_the_sample_answer_of_put_records(call: Api) -> None:
    """PutRecords' reference: a throttled entry's code and exact text, beside entries that succeeded."""
    name = call.stream(2)
    second = {"ExplicitHashKey": str(1 << 127)}
    for _ in range(2):
        call("PutRecords", StreamName=name, Records=[put(10, **second)] * 500)
    answer = call("PutRecords", StreamName=name, Records=[put(10, ExplicitHashKey="0"), put(10, **second)])
    assert answer["FailedRecordCount"] == 1
    assert set(answer["Records"][0]) == {"SequenceNumber", "ShardId"}
    assert answer["Records"][1] == {
        "ErrorCode": "ProvisionedThroughputExceededException",
        "ErrorMessage": "Rate exceeded for shard shardId-000000000001 in stream exampleStreamName under account "
        "111111111111.",
    }


def test_five_records_of_one_megabyte_in_one_call(call: Api) -> None:
    """kinesalite PR #87, on AWS: the first is stored, the others are refused."""
    name = call.stream()
    answer = call("PutRecords", StreamName=name, Records=[put(1_000_000)] * 5)
    codes = [record.get("ErrorCode") for record in answer["Records"]]
    assert codes == [None] + ["ProvisionedThroughputExceededException"] * 4


def test_large_records_average_a_mebibyte_a_second(call: Api) -> None:
    """large-records: "a tank" that bursts up to 10 MiB and refills at 1 MiB/s, for streams that opted in."""
    name = call.stream()
    call(
        "UpdateMaxRecordSize", StreamARN=f"arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/{name}", MaxRecordSizeInKiB=10240
    )
    call.now += 10
    assert "SequenceNumber" in call("PutRecord", StreamName=name, **put(9 * MIB))
    assert call("PutRecord", StreamName=name, **put(9 * MIB))["__type"] == "ProvisionedThroughputExceededException"
    call.now += 9
    assert "SequenceNumber" in call("PutRecord", StreamName=name, **put(9 * MIB))


def test_rounding_of_put_record_and_put_records(call: Api) -> None:
    """troubleshooting-producers: PutRecord rounds each record up to a KiB, PutRecords the sum of a call."""
    name = call.stream()
    single = sum("SequenceNumber" in call("PutRecord", StreamName=name, **put(1125)) for _ in range(600))
    assert single == 512  # 1.1 KiB each cost 2 KiB
    call.now += 10
    answer = call("PutRecords", StreamName=name, Records=[put(1125)] * 500)
    assert answer["FailedRecordCount"] == 0  # 550 KiB are less than 1 MiB


def test_oversized_records_fail_the_whole_call(call: Api) -> None:
    name = call.stream()
    answer = call("PutRecords", StreamName=name, Records=[put(1), put(MIB)])
    assert answer["__type"] == "ValidationException"
    iterator = call("GetShardIterator", StreamName=name, ShardId="0", ShardIteratorType="TRIM_HORIZON")
    assert call("GetRecords", ShardIterator=iterator["ShardIterator"])["Records"] == []


# -- hashing -------------------------------------------------------------------------------------------


def test_three_shards_share_the_hash_keys_as_on_aws() -> None:
    """kinesalite's createStream, verified on AWS: the last shard takes the remainder."""
    width = 2**128 // 3
    assert uniform_ranges(3) == [
        (0, width - 1),
        (width, 2 * width - 1),
        (2 * width, 340282366920938463463374607431768211455),
    ]


# -- reading -------------------------------------------------------------------------------------------


def test_an_expired_iterator(call: Api) -> None:
    """The text that kinesalite's author recorded, with its own date."""
    name = call.stream()
    iterator = call("GetShardIterator", StreamName=name, ShardId="0", ShardIteratorType="LATEST")["ShardIterator"]
    call.now += 300
    assert call("GetRecords", ShardIterator=iterator)["Records"] == []
    call.now += 1
    assert call("GetRecords", ShardIterator=iterator) == {
        "__type": "ExpiredIteratorException",
        "message": "Iterator expired. The iterator was created at time Thu Jan 22 01:22:02 UTC 2015 while right now it "
        "is Thu Jan 22 01:27:03 UTC 2015 which is further in the future than the tolerated delay of 300000 "
        "milliseconds.",
    }


def test_a_full_answer_blocks_for_five_seconds(call: Api) -> None:
    """GetRecords' reference: "If a call returns 10 MiB, subsequent calls within the next 5 seconds throw"."""
    name = call.stream()
    for _ in range(12):
        call("PutRecord", StreamName=name, **put(MIB - 1))
        call.now += 1.1
    iterator = call("GetShardIterator", StreamName=name, ShardId="0", ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
    first = call("GetRecords", ShardIterator=iterator)
    assert len(first["Records"]) == 10
    call.now += 3.9
    refused = call("GetRecords", ShardIterator=first["NextShardIterator"])
    assert refused == {
        "__type": "ProvisionedThroughputExceededException",
        "message": f"Rate exceeded for shard shardId-000000000000 in stream {name} under account {ACCOUNT}.",
    }
    call.now += 1.2
    assert len(call("GetRecords", ShardIterator=first["NextShardIterator"])["Records"]) == 2


def test_five_reads_a_second_shared_by_all(call: Api) -> None:
    name = call.stream()
    iterator = call("GetShardIterator", StreamName=name, ShardId="0", ShardIteratorType="LATEST")["ShardIterator"]
    answers = [call("GetRecords", ShardIterator=iterator) for _ in range(6)]
    assert ["__type" in answer for answer in answers] == [False] * 5 + [True]


# -- resharding ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("current", "target", "told"),
    [
        (2, 6, "UpdateShardCount cannot scale up over double your current open shard count. "
               "Current open shard count: 2, Target shard count: 6"),
        (6, 2, "UpdateShardCount cannot scale down below half your current open shard count. "
               "Current open shard count: 6, Target shard count: 2"),
        (5, 2, "UpdateShardCount cannot scale down below half your current open shard count. "
               "Current open shard count: 5, Target shard count: 2"),
        (5, 3, None),
        (2, 4, None),
    ],
)  # fmt: skip
def test_how_far_update_shard_count_goes(call: Api, current: int, target: int, told: str | None) -> None:
    name = call.stream(current)
    answer = call("UpdateShardCount", StreamName=name, TargetShardCount=target, ScalingType="UNIFORM_SCALING")
    if told is None:
        assert (answer["CurrentShardCount"], answer["TargetShardCount"]) == (current, target)
    else:
        assert answer == {"__type": "LimitExceededException", "message": told}


def test_update_shard_count_stops_at_ten_thousand(call: Api) -> None:
    name = call.stream(6000)
    answer = call("UpdateShardCount", StreamName=name, TargetShardCount=10_001, ScalingType="UNIFORM_SCALING")
    assert answer["message"] == (
        "Target shard count or number of open shards cannot be greater than 10000. "
        "Current open shard count: 6000, Target shard count: 10001"
    )


def test_update_shard_count_needs_its_scaling_type(call: Api) -> None:
    answer = call("UpdateShardCount", StreamName=call.stream(), TargetShardCount=2)
    assert answer["__type"] == "ValidationException"
    assert "Value null at 'scalingType' failed to satisfy constraint: Member must not be null" in answer["message"]


def test_while_updating_nothing_else_may_be_changed() -> None:
    call = Api(reshard_seconds=30.0)
    name = call.stream(2)
    call("UpdateShardCount", StreamName=name, TargetShardCount=4, ScalingType="UNIFORM_SCALING")
    assert call("SplitShard", StreamName=name, ShardToSplit="0", NewStartingHashKey="9") == {
        "__type": "ResourceInUseException",
        "message": f"Stream {name} under account {ACCOUNT} not ACTIVE, instead in state UPDATING",
    }
    assert "SequenceNumber" in call("PutRecord", StreamName=name, **put(1))


def test_the_shard_limit_of_an_account(call: Api) -> None:
    """kinesalite and its issue #72."""
    call.stream(19_999, "large")
    answer = call("CreateStream", StreamName="more", ShardCount=2)
    assert answer == {
        "__type": "LimitExceededException",
        "message": f"This request would exceed the shard limit for the account {ACCOUNT} in us-east-1. Current shard "
        "count for the account: 19999. Limit: 20000. Number of additional shards that would have resulted from this "
        "request: 2. Refer to the AWS Service Limits page "
        "(http://docs.aws.amazon.com/general/latest/gr/aws_service_limits.html) for current limits and how to request "
        "higher limits.",
    }


# -- metrics -------------------------------------------------------------------------------------------


def test_metrics_count_what_cloudwatchs_do(call: Api) -> None:
    """monitoring-with-cloudwatch: IncomingRecords without the refused, which are counted as records; FailedRecords
    are internal failures only; reads that were refused are counted as calls."""
    name = call.stream()
    for _ in range(3):
        call("PutRecords", StreamName=name, Records=[put(10)] * 500)
    iterator = call("GetShardIterator", StreamName=name, ShardId="0", ShardIteratorType="LATEST")["ShardIterator"]
    for _ in range(7):
        call("GetRecords", ShardIterator=iterator)
    total: Callable[[str], float] = lambda metric: call.api.metrics.total(  # noqa: E731
        "AWS/Kinesis", metric, (("StreamName", name),)
    )
    assert total("IncomingRecords") == 1000
    assert total("IncomingBytes") == 1000 * 11
    assert total("WriteProvisionedThroughputExceeded") == 500
    assert total("PutRecords.TotalRecords") == 1500
    assert total("PutRecords.SuccessfulRecords") == 1000
    assert total("PutRecords.ThrottledRecords") == 500
    assert total("PutRecords.FailedRecords") == 0
    assert total("PutRecords.Success") == 2  # calls with at least one record stored
    assert total("GetRecords.Success") == 5
    assert total("ReadProvisionedThroughputExceeded") == 2
    assert total("PutRecords.Latency") > 0
    assert total("GetRecords.Latency") > 0


def test_messages_name_the_account_and_stream(call: Api) -> None:
    """LocalStack's recorded snapshot and kinesalite: "Stream X under account … not found."."""
    assert call("DescribeStream", StreamName="nix")["message"] == f"Stream nix under account {ACCOUNT} not found."
    assert re.fullmatch(r"shardId-\d{12}", call("ListShards", StreamName=call.stream())["Shards"][0]["ShardId"])
