"""The embedded cloud over real sockets with real boto3: what is said, stored and refused."""

from __future__ import annotations

import http.client
import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest
from botocore.exceptions import ClientError
from conftest import client_of

from simulator.cloud.limits import LimitSettings
from simulator.cloud.server import CloudError, CloudProcess

ACCOUNT = "123456789012"


def entries(count: int, size: int = 170, key: str = "k") -> list[dict[str, Any]]:
    return [{"Data": bytes([index % 256]) * size, "PartitionKey": f"{key}{index}"} for index in range(count)]


def read_all(kinesis: Any, stream: str, shard_id: str, **start: Any) -> list[dict[str, Any]]:
    """Everything one shard holds, at no more than five reads a second."""
    kind = start.pop("kind", "TRIM_HORIZON")
    iterator = kinesis.get_shard_iterator(StreamName=stream, ShardId=shard_id, ShardIteratorType=kind, **start)[
        "ShardIterator"
    ]
    records: list[dict[str, Any]] = []
    while iterator:
        answer = kinesis.get_records(ShardIterator=iterator)
        records += answer["Records"]
        if not answer["Records"] and not answer["MillisBehindLatest"]:
            break
        iterator = answer.get("NextShardIterator")
        time.sleep(0.21)
    return records


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


# -- writing -------------------------------------------------------------------------------------------


def test_what_was_acknowledged_can_be_read_back_once_and_in_order(kinesis: Any, stream: str) -> None:
    kinesis.create_stream(StreamName=stream, ShardCount=2)
    sent = entries(500)
    answer = kinesis.put_records(StreamName=stream, Records=sent)
    assert answer["FailedRecordCount"] == 0
    assert answer["EncryptionType"] == "NONE"
    assert len(answer["Records"]) == 500
    told = {one["SequenceNumber"]: (one["ShardId"], sent[index]) for index, one in enumerate(answer["Records"])}
    assert len(told) == 500
    read: list[dict[str, Any]] = []
    for shard in ("shardId-000000000000", "shardId-000000000001"):
        found = read_all(kinesis, stream, shard)
        numbers = [int(record["SequenceNumber"]) for record in found]
        assert numbers == sorted(set(numbers))
        for record in found:
            where, entry = told[record["SequenceNumber"]]
            assert where == shard
            assert record["Data"] == entry["Data"]
            assert record["PartitionKey"] == entry["PartitionKey"]
            assert abs(record["ApproximateArrivalTimestamp"].timestamp() - time.time()) < 60
        read += found
    assert len(read) == 500


def test_put_records_fails_entry_by_entry_in_awss_words(kinesis: Any, stream: str) -> None:
    kinesis.create_stream(StreamName=stream, ShardCount=1)
    refused = [
        one
        for _ in range(5)
        for one in kinesis.put_records(StreamName=stream, Records=entries(500))["Records"]
        if "ErrorCode" in one
    ]
    assert 900 <= len(refused) <= 1500
    assert refused[0] == {
        "ErrorCode": "ProvisionedThroughputExceededException",
        "ErrorMessage": f"Rate exceeded for shard shardId-000000000000 in stream {stream} under account {ACCOUNT}.",
    }


def test_put_record_is_refused_as_a_whole(kinesis: Any, stream: str) -> None:
    kinesis.create_stream(StreamName=stream, ShardCount=1)
    with pytest.raises(ClientError) as error:
        for _ in range(100):
            kinesis.put_record(StreamName=stream, Data=b"x" * 1_000_000, PartitionKey="k")
    assert code(error) == "ProvisionedThroughputExceededException"
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


@pytest.mark.parametrize("shards", [1, 2])
def test_a_load_over_the_limit_gets_a_thousand_a_second_and_shard(
    cloud: CloudProcess, shards: int, stream: str
) -> None:
    """5,000 records/s are offered; the depth of the bucket is one more second's worth."""
    kinesis = client_of(cloud, "kinesis")
    kinesis.create_stream(StreamName=stream, ShardCount=shards)
    began = time.monotonic()
    accepted = offered = 0
    numbers: set[str] = set()
    while (passed := time.monotonic() - began) < 3:
        if offered > passed * 5000:
            time.sleep(0.01)
            continue
        answer = kinesis.put_records(StreamName=stream, Records=entries(500, key=f"{offered}-"))
        good = [one["SequenceNumber"] for one in answer["Records"] if "SequenceNumber" in one]
        assert len(good) == 500 - answer["FailedRecordCount"]
        numbers.update(good)
        accepted += len(good)
        offered += 500
    passed = time.monotonic() - began
    # Two bounds that hold on a slow machine too: never more than rate and depth allow, never less than was offered.
    assert accepted <= shards * 1000 * (passed + 1) + 1
    assert accepted >= min(offered, shards * 1000 * passed) * 0.95
    stored = Counter(
        record["SequenceNumber"]
        for index in range(shards)
        for record in read_all(kinesis, stream, f"shardId-{index:012d}")
    )
    assert set(stored) == numbers
    assert set(stored.values()) == {1}
    kinesis.close()


def test_concurrent_writers_lose_nothing(cloud: CloudProcess, stream: str) -> None:
    kinesis = client_of(cloud, "kinesis")
    kinesis.create_stream(StreamName=stream, ShardCount=4)

    def write(writer: int) -> int:
        client = client_of(cloud, "kinesis")
        answers = [
            client.put_records(StreamName=stream, Records=entries(100, key=f"{writer}-{call}-")) for call in range(5)
        ]
        client.close()
        return sum(100 - answer["FailedRecordCount"] for answer in answers)

    with ThreadPoolExecutor(4) as pool:
        accepted = sum(pool.map(write, range(4)))
    stored = [record for index in range(4) for record in read_all(kinesis, stream, f"shardId-{index:012d}")]
    assert len(stored) == accepted == 2000
    assert len({record["PartitionKey"] for record in stored}) == 2000
    kinesis.close()


# -- reading -------------------------------------------------------------------------------------------


def test_the_five_iterator_types(kinesis: Any, stream: str) -> None:
    kinesis.create_stream(StreamName=stream, ShardCount=1)
    first = kinesis.put_records(StreamName=stream, Records=entries(3))["Records"]
    time.sleep(1.1)  # AT_TIMESTAMP travels in whole seconds
    middle = time.time()
    kinesis.put_records(StreamName=stream, Records=entries(2, key="late"))
    shard = "shardId-000000000000"

    def keys(kind: str, **start: Any) -> list[str]:
        time.sleep(0.45)
        return [record["PartitionKey"] for record in read_all(kinesis, stream, shard, kind=kind, **start)]

    everything = ["k0", "k1", "k2", "late0", "late1"]
    assert keys("TRIM_HORIZON") == everything
    assert keys("LATEST") == []
    number = first[1]["SequenceNumber"]
    assert keys("AT_SEQUENCE_NUMBER", StartingSequenceNumber=number) == everything[1:]
    assert keys("AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=number) == everything[2:]
    assert keys("AT_TIMESTAMP", Timestamp=middle) == everything[3:]


def test_the_sixth_read_of_a_second_is_refused(kinesis: Any, stream: str) -> None:
    kinesis.create_stream(StreamName=stream, ShardCount=1)
    iterator = kinesis.get_shard_iterator(
        StreamName=stream, ShardId="shardId-000000000000", ShardIteratorType="LATEST"
    )["ShardIterator"]
    with pytest.raises(ClientError) as error:
        for _ in range(30):
            kinesis.get_records(ShardIterator=iterator)
    assert code(error) == "ProvisionedThroughputExceededException"
    assert error.value.response["Error"]["Message"] == (
        f"Rate exceeded for shard shardId-000000000000 in stream {stream} under account {ACCOUNT}."
    )


# -- resharding ----------------------------------------------------------------------------------------


def test_resharding_keeps_every_record_and_names_parents_and_children(kinesis: Any, stream: str) -> None:
    kinesis.create_stream(StreamName=stream, ShardCount=2)
    kinesis.put_records(StreamName=stream, Records=entries(200))
    answer = kinesis.update_shard_count(StreamName=stream, TargetShardCount=3, ScalingType="UNIFORM_SCALING")
    assert (answer["CurrentShardCount"], answer["TargetShardCount"]) == (2, 3)
    kinesis.put_records(StreamName=stream, Records=entries(200, key="after"))
    shards = {shard["ShardId"]: shard for shard in kinesis.list_shards(StreamName=stream)["Shards"]}
    is_open = [s for s in shards.values() if "EndingSequenceNumber" not in s["SequenceNumberRange"]]
    ranges = sorted(
        (int(s["HashKeyRange"]["StartingHashKey"]), int(s["HashKeyRange"]["EndingHashKey"])) for s in is_open
    )
    assert len(ranges) == 3
    assert ranges[0][0] == 0
    assert ranges[-1][1] == 2**128 - 1
    assert all(left[1] + 1 == right[0] for left, right in pairwise(ranges))
    for shard in shards.values():
        for parent in (shard.get("ParentShardId"), shard.get("AdjacentParentShardId")):
            assert parent is None or "EndingSequenceNumber" in shards[parent]["SequenceNumberRange"]
    stored = [record["PartitionKey"] for name in shards for record in read_all(kinesis, stream, name)]
    assert len(stored) == len(set(stored)) == 400
    # A closed shard ends with its children instead of another iterator.
    iterator = kinesis.get_shard_iterator(
        StreamName=stream, ShardId="shardId-000000000000", ShardIteratorType="LATEST"
    )["ShardIterator"]
    time.sleep(1)
    end = kinesis.get_records(ShardIterator=iterator)
    assert end.get("NextShardIterator") is None
    assert all("shardId-000000000000" in child["ParentShards"] for child in end["ChildShards"])


@pytest.mark.parametrize(("target", "told"), [(5, "scale up over double"), (0, "")])
def test_resharding_rules(kinesis: Any, stream: str, target: int, told: str) -> None:
    kinesis.create_stream(StreamName=stream, ShardCount=2)
    if target:
        with pytest.raises(ClientError, match="LimitExceededException") as error:
            kinesis.update_shard_count(StreamName=stream, TargetShardCount=target, ScalingType="UNIFORM_SCALING")
        assert error.value.response["Error"]["Message"] == (
            f"UpdateShardCount cannot {told} your current open shard count. "
            f"Current open shard count: 2, Target shard count: {target}"
        )


# -- errors --------------------------------------------------------------------------------------------


def raw(cloud: CloudProcess, operation: str, body: bytes, **headers: str) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection(cloud.host, cloud.port, timeout=30)
    sent = {
        "X-Amz-Target": f"Kinesis_20131202.{operation}",
        "Content-Type": "application/x-amz-json-1.1",
        "Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/kinesis/aws4_request, Signature=0",
        **headers,
    }
    connection.request("POST", "/", body, {name: value for name, value in sent.items() if value})
    answer = connection.getresponse()
    assert answer.headers["x-amzn-requestid"]
    told = json.loads(answer.read() or b"{}")
    connection.close()
    return answer.status, told


@pytest.mark.parametrize(
    ("operation", "body", "kind", "message"),
    [
        ("PutRecords", b"{", "SerializationException", None),
        ("PutRecords", b"[]", "SerializationException", None),
        ("PutRecords", b"", "SerializationException", None),
        ("Nothing", b"{}", "UnknownOperationException", None),
        (
            "PutRecords",
            b'{"StreamName": "s"}',
            "ValidationException",
            "1 validation error detected: Value null at 'records' failed to satisfy constraint: "
            "Member must not be null",
        ),
        (
            "PutRecords",
            b'{"StreamName": "s", "Records": [{"Data": "eA=="}]}',
            "ValidationException",
            "1 validation error detected: Value null at 'records.1.member.partitionKey' failed to satisfy constraint: "
            "Member must not be null",
        ),
        (
            "PutRecord",
            b'{"StreamName": "a b", "Data": "eA==", "PartitionKey": "k"}',
            "ValidationException",
            "1 validation error detected: Value 'a b' at 'streamName' failed to satisfy constraint: "
            "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+",
        ),
        (
            "PutRecord",
            b'{"StreamName": "s", "Data": "x", "PartitionKey": "k"}',
            "SerializationException",
            "'x' can not be converted to a Blob: Base64 encoded length is expected a multiple of 4 bytes but found: 1",
        ),
        ("GetRecords", b'{"ShardIterator": "AAAA"}', "InvalidArgumentException", "Invalid ShardIterator."),
        (
            "DescribeStream",
            b'{"StreamName": "nix"}',
            "ResourceNotFoundException",
            f"Stream nix under account {ACCOUNT} not found.",
        ),
        (
            "CreateChannel",
            b"{}",
            "UnknownOperationException",
            "CreateChannel is not implemented by the embedded cloud.",
        ),
    ],
)
def test_errors_in_awss_words(cloud: CloudProcess, operation: str, body: bytes, kind: str, message: str | None) -> None:
    status, told = raw(cloud, operation, body)
    assert (status, told["__type"], told.get("message", told.get("Message"))) == (400, kind, message)


def test_no_credentials(cloud: CloudProcess) -> None:
    status, told = raw(cloud, "ListStreams", b"{}", Authorization="")
    assert (status, told["__type"]) == (400, "MissingAuthenticationTokenException")


def test_too_many_and_too_large(kinesis: Any, stream: str) -> None:
    kinesis.create_stream(StreamName=stream, ShardCount=1)
    with pytest.raises(ClientError, match="length less than or equal to 500"):
        kinesis.put_records(StreamName=stream, Records=entries(501))
    with pytest.raises(ClientError, match="1048576"):
        kinesis.put_records(StreamName=stream, Records=[{"Data": b"x" * 1_048_576, "PartitionKey": "k"}])
    kinesis.put_records(StreamName=stream, Records=[{"Data": b"x" * 1_048_575, "PartitionKey": "k"}])
    with pytest.raises(ClientError, match="10 MB limit"):
        kinesis.put_records(StreamName=stream, Records=entries(11, size=1_000_000))


# -- the rest ------------------------------------------------------------------------------------------


def test_streams_by_arn_and_regions_apart(cloud: CloudProcess, kinesis: Any, stream: str) -> None:
    kinesis.create_stream(StreamName=stream, ShardCount=3)
    summary = kinesis.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]
    assert summary["OpenShardCount"] == 3
    assert summary["StreamARN"] == f"arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/{stream}"
    assert len(kinesis.list_shards(StreamARN=summary["StreamARN"])["Shards"]) == 3
    elsewhere = client_of(cloud, "kinesis", "eu-west-1")
    with pytest.raises(ClientError, match="not found"):
        elsewhere.describe_stream(StreamName=stream)
    elsewhere.close()


def test_list_shards_pages(kinesis: Any, stream: str) -> None:
    kinesis.create_stream(StreamName=stream, ShardCount=5)
    first = kinesis.list_shards(StreamName=stream, MaxResults=3)
    second = kinesis.list_shards(NextToken=first["NextToken"])
    assert [shard["ShardId"] for shard in first["Shards"] + second["Shards"]] == [
        f"shardId-{index:012d}" for index in range(5)
    ]
    assert "NextToken" not in second


def test_metrics_mean_what_cloudwatchs_do(cloud: CloudProcess, kinesis: Any, stream: str) -> None:
    kinesis.create_stream(StreamName=stream, ShardCount=1)
    answers = [kinesis.put_records(StreamName=stream, Records=entries(500, size=100)) for _ in range(4)]
    throttled = sum(answer["FailedRecordCount"] for answer in answers)
    accepted = 2000 - throttled
    connection = http.client.HTTPConnection(cloud.host, cloud.port, timeout=30)
    connection.request("GET", "/_alleycat/metrics")
    told = json.loads(connection.getresponse().read())
    connection.close()
    totals = {
        one["MetricName"]: sum(point[2] for point in one["Points"])
        for one in told["metrics"]
        if one["Namespace"] == "AWS/Kinesis" and one["Dimensions"] == {"StreamName": stream}
    }
    assert throttled > 0
    assert totals["IncomingRecords"] == totals["PutRecords.SuccessfulRecords"] == accepted
    assert totals["WriteProvisionedThroughputExceeded"] == totals["PutRecords.ThrottledRecords"] == throttled
    assert totals["PutRecords.TotalRecords"] == 2000
    assert totals["PutRecords.Success"] == sum(answer["FailedRecordCount"] < 500 for answer in answers)


def test_limits_off_refuses_nothing(stream: str) -> None:
    with CloudProcess(settings=LimitSettings(enforced=False)) as cloud:
        kinesis = client_of(cloud, "kinesis")
        kinesis.create_stream(StreamName=stream, ShardCount=1)
        answers = [kinesis.put_records(StreamName=stream, Records=entries(500)) for _ in range(10)]
        assert sum(answer["FailedRecordCount"] for answer in answers) == 0
        kinesis.close()


def test_a_busy_port_is_one_clear_line(cloud: CloudProcess) -> None:
    with pytest.raises(CloudError, match=f"port {cloud.port} on 127.0.0.1 is in use; .*--port"):
        CloudProcess(port=cloud.port).start()


def test_other_services_answer(cloud: CloudProcess) -> None:
    s3 = client_of(cloud, "s3")
    s3.create_bucket(Bucket="a-bucket")
    s3.put_object(Bucket="a-bucket", Key="a key/ü.txt", Body=b"hello")
    assert s3.get_object(Bucket="a-bucket", Key="a key/ü.txt")["Body"].read() == b"hello"
    assert s3.head_object(Bucket="a-bucket", Key="a key/ü.txt")["ContentLength"] == 5
    s3.close()
    sts = client_of(cloud, "sts")
    assert sts.get_caller_identity()["Account"] == ACCOUNT
    sts.close()


def test_a_hundred_thousand_more_stored_records_cost_a_read_nothing() -> None:
    """Not timed: a read touches only the segments that it returns."""
    from simulator.cloud.shard_log import ShardLog

    log = ShardLog()
    for _ in range(30):
        log.append([b"x" * 170] * 100_000, ["k"] * 100_000, 0)
    touched = 0

    class Counting(list):  # type: ignore[type-arg]
        def __getitem__(self, item: Any) -> Any:
            nonlocal touched
            touched += 1
            return super().__getitem__(item)

    log._segments = Counting(log._segments)
    assert len(list(log.read(2_900_000, 1000, 10**9))) == 1000
    assert touched <= 2
