"""The Kinesis control plane over real sockets with real boto3: every operation, its rules and AWS's words."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from conftest import client_of

from simulator.cloud.limits import LimitSettings
from simulator.cloud.sequence import MAX_HASH_KEY
from simulator.cloud.server import CloudProcess

ACCOUNT = "123456789012"
ZERO, ONE, TWO = (f"shardId-{index:012d}" for index in range(3))


def refusal(call: Any, **arguments: Any) -> tuple[str, str]:
    """(code, message) that AWS's client raises for the call."""
    with pytest.raises(ClientError) as error:
        call(**arguments)
    told = error.value.response
    assert told["ResponseMetadata"]["HTTPStatusCode"] == 400
    return str(told["Error"]["Code"]), str(told["Error"]["Message"])


@pytest.fixture
def made(kinesis: Any, stream: str) -> Iterator[str]:
    kinesis.create_stream(StreamName=stream, ShardCount=1)
    yield stream
    kinesis.delete_stream(StreamName=stream, EnforceConsumerDeletion=True)


def arn(stream: str) -> str:
    return f"arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/{stream}"


# -- splitting and merging -----------------------------------------------------------------------------


def test_split_and_merge_by_their_names(kinesis: Any, made: str) -> None:
    middle = str(1 << 127)
    kinesis.split_shard(StreamName=made, ShardToSplit=ZERO, NewStartingHashKey=middle)
    parent, low, high = kinesis.list_shards(StreamName=made)["Shards"]
    assert "EndingSequenceNumber" in parent["SequenceNumberRange"]
    assert (low["ParentShardId"], high["ParentShardId"]) == (ZERO, ZERO)
    assert low["HashKeyRange"] == {"StartingHashKey": "0", "EndingHashKey": str((1 << 127) - 1)}
    assert high["HashKeyRange"] == {"StartingHashKey": middle, "EndingHashKey": str(MAX_HASH_KEY)}
    kinesis.merge_shards(StreamName=made, ShardToMerge=ONE, AdjacentShardToMerge=TWO)
    merged = kinesis.list_shards(StreamName=made)["Shards"][3]
    assert (merged["ParentShardId"], merged["AdjacentParentShardId"]) == (ONE, TWO)
    assert merged["HashKeyRange"] == {"StartingHashKey": "0", "EndingHashKey": str(MAX_HASH_KEY)}
    assert kinesis.describe_stream_summary(StreamName=made)["StreamDescriptionSummary"]["OpenShardCount"] == 1


def test_what_cannot_be_split_or_merged(kinesis: Any, made: str) -> None:
    assert refusal(kinesis.split_shard, StreamName=made, ShardToSplit=ZERO, NewStartingHashKey="1") == (
        "InvalidArgumentException",
        f"NewStartingHashKey 1 used in SplitShard() on shard {ZERO} in stream {made} under account {ACCOUNT} is not "
        f"both greater than one plus the shard's StartingHashKey 0 and less than the shard's EndingHashKey "
        f"{MAX_HASH_KEY}.",
    )
    assert refusal(
        kinesis.split_shard, StreamName=made, ShardToSplit="shardId-000000000007", NewStartingHashKey="9"
    ) == (
        "ResourceNotFoundException",
        f"Could not find shard shardId-000000000007 in stream {made} under account {ACCOUNT}.",
    )
    kinesis.split_shard(StreamName=made, ShardToSplit=ZERO, NewStartingHashKey="2")
    assert refusal(kinesis.split_shard, StreamName=made, ShardToSplit=ZERO, NewStartingHashKey="9") == (
        "InvalidArgumentException",
        f"Shard {ZERO} in stream {made} under account {ACCOUNT} has already been merged or split, and thus is not "
        "eligible for merging or splitting.",
    )
    assert refusal(kinesis.merge_shards, StreamName=made, ShardToMerge=TWO, AdjacentShardToMerge=ONE) == (
        "InvalidArgumentException",
        f"Shards {TWO} and {ONE} in stream {made} under account {ACCOUNT} are not an adjacent pair of shards eligible "
        "for merging",
    )


# -- retention, tags, monitoring, encryption, modes ----------------------------------------------------


def test_errors_are_named_in_a_header_too(kinesis: Any) -> None:
    """The Java and Go SDKs read it there (sent by AWS, as ministack's authors saw)."""
    missing = f"arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/no-such-stream"
    with pytest.raises(ClientError) as error:
        kinesis.describe_stream_summary(StreamARN=missing)
    told = error.value.response
    assert told["ResponseMetadata"]["HTTPHeaders"]["x-amzn-errortype"] == "ResourceNotFoundException"
    assert told["Error"]["Message"] == f"Stream no-such-stream under account {ACCOUNT} not found."


def test_retention_within_its_bounds(kinesis: Any, made: str) -> None:
    kinesis.increase_stream_retention_period(StreamName=made, RetentionPeriodHours=48)
    described = kinesis.describe_stream(StreamName=made)["StreamDescription"]
    assert described["RetentionPeriodHours"] == 48
    assert refusal(kinesis.increase_stream_retention_period, StreamName=made, RetentionPeriodHours=24) == (
        "InvalidArgumentException",
        f"Requested retention period (24 hours) for stream {made} can not be shorter than existing retention period "
        "(48 hours). Use DecreaseRetentionPeriod API.",
    )
    assert refusal(kinesis.decrease_stream_retention_period, StreamName=made, RetentionPeriodHours=72)[1].endswith(
        "can not be longer than existing retention period (48 hours). Use IncreaseRetentionPeriod API."
    )
    for hours, word in ((23, "Minimum"), (8761, "Maximum")):
        assert word in refusal(kinesis.increase_stream_retention_period, StreamName=made, RetentionPeriodHours=hours)[1]
    kinesis.decrease_stream_retention_period(StreamName=made, RetentionPeriodHours=24)
    assert kinesis.describe_stream(StreamName=made)["StreamDescription"]["RetentionPeriodHours"] == 24


def test_tags_of_streams_and_consumers(kinesis: Any, made: str) -> None:
    kinesis.add_tags_to_stream(StreamName=made, Tags={"foo": "bar", "team": "alleycat"})
    kinesis.remove_tags_from_stream(StreamName=made, TagKeys=["team", "missing"])
    # As recorded on AWS (LocalStack, test_add_tags_to_stream).
    assert kinesis.list_tags_for_stream(StreamName=made)["Tags"] == [{"Key": "foo", "Value": "bar"}]
    kinesis.add_tags_to_stream(StreamName=made, Tags={"a": "1", "b": "2"})
    page = kinesis.list_tags_for_stream(StreamName=made, Limit=2)
    assert ([tag["Key"] for tag in page["Tags"]], page["HasMoreTags"]) == (["a", "b"], True)
    rest = kinesis.list_tags_for_stream(StreamName=made, ExclusiveStartTagKey="b")
    assert ([tag["Key"] for tag in rest["Tags"]], rest["HasMoreTags"]) == (["foo"], False)
    consumer = kinesis.register_stream_consumer(StreamARN=arn(made), ConsumerName="c", Tags={"x": "y"})["Consumer"]
    assert kinesis.list_tags_for_resource(ResourceARN=consumer["ConsumerARN"])["Tags"] == [{"Key": "x", "Value": "y"}]
    kinesis.tag_resource(ResourceARN=arn(made), Tags={"z": "26"})
    kinesis.untag_resource(ResourceARN=arn(made), TagKeys=["a", "b", "foo"])
    assert kinesis.list_tags_for_resource(ResourceARN=arn(made))["Tags"] == [{"Key": "z", "Value": "26"}]


@pytest.mark.parametrize(
    ("tags", "told"),
    [
        ({"a;b": "c"}, "Some tags contain invalid characters. Valid characters: "),
        ({"a": "50%"}, "because some tags contained illegal characters."),
        ({f"k{index}": "v" for index in range(51)}, "cannot have more than 50 tags"),
        ({"k" * 129: "v"}, "Map keys must satisfy constraint: [Member must have length less than or equal to 128, "),
        ({"k": "v" * 257}, "Map value must satisfy constraint: [Member must have length less than or equal to 256, "),
    ],
)
def test_tags_that_aws_refuses(kinesis: Any, made: str, tags: dict[str, str], told: str) -> None:
    assert told in refusal(kinesis.add_tags_to_stream, StreamName=made, Tags=tags)[1]


def test_enhanced_monitoring_tells_before_and_after(kinesis: Any, made: str) -> None:
    answer = kinesis.enable_enhanced_monitoring(StreamName=made, ShardLevelMetrics=["IncomingBytes"])
    assert (answer["CurrentShardLevelMetrics"], answer["DesiredShardLevelMetrics"]) == ([], ["IncomingBytes"])
    answer = kinesis.enable_enhanced_monitoring(StreamName=made, ShardLevelMetrics=["ALL"])
    assert len(answer["DesiredShardLevelMetrics"]) == 7
    answer = kinesis.disable_enhanced_monitoring(StreamName=made, ShardLevelMetrics=["IncomingBytes"])
    assert len(answer["DesiredShardLevelMetrics"]) == 6
    (monitored,) = kinesis.describe_stream(StreamName=made)["StreamDescription"]["EnhancedMonitoring"]
    assert "IncomingBytes" not in monitored["ShardLevelMetrics"]


def test_encryption_is_told_by_streams_puts_and_records(kinesis: Any, made: str) -> None:
    kinesis.put_record(StreamName=made, Data=b"plain", PartitionKey="k")
    kinesis.start_stream_encryption(StreamName=made, EncryptionType="KMS", KeyId="alias/aws/kinesis")
    described = kinesis.describe_stream_summary(StreamName=made)["StreamDescriptionSummary"]
    assert (described["EncryptionType"], described["KeyId"]) == ("KMS", "alias/aws/kinesis")
    assert kinesis.put_record(StreamName=made, Data=b"x", PartitionKey="k")["EncryptionType"] == "KMS"
    iterator = kinesis.get_shard_iterator(StreamName=made, ShardId=ZERO, ShardIteratorType="TRIM_HORIZON")
    records = kinesis.get_records(ShardIterator=iterator["ShardIterator"])["Records"]
    assert [record["EncryptionType"] for record in records] == ["KMS", "KMS"]
    kinesis.stop_stream_encryption(StreamName=made, EncryptionType="KMS", KeyId="alias/aws/kinesis")
    assert kinesis.describe_stream(StreamName=made)["StreamDescription"]["EncryptionType"] == "NONE"


def test_on_demand_streams_begin_with_four_shards(kinesis: Any, stream: str) -> None:
    # Recorded on AWS: without ShardCount and mode (LocalStack, test_create_stream_without_shard_count).
    kinesis.create_stream(StreamName=stream)
    assert len(kinesis.list_shards(StreamName=stream)["Shards"]) == 4
    described = kinesis.describe_stream(StreamName=stream)["StreamDescription"]
    assert described["StreamModeDetails"] == {"StreamMode": "ON_DEMAND"}
    assert kinesis.describe_limits()["OnDemandStreamCount"] >= 1
    assert refusal(kinesis.update_shard_count, StreamName=stream, TargetShardCount=8, ScalingType="UNIFORM_SCALING")[
        0
    ] == ("ValidationException")
    kinesis.update_stream_mode(StreamARN=arn(stream), StreamModeDetails={"StreamMode": "PROVISIONED"})
    kinesis.update_shard_count(StreamName=stream, TargetShardCount=2, ScalingType="UNIFORM_SCALING")
    kinesis.update_stream_mode(StreamARN=arn(stream), StreamModeDetails={"StreamMode": "ON_DEMAND"})
    told = refusal(kinesis.update_stream_mode, StreamARN=arn(stream), StreamModeDetails={"StreamMode": "PROVISIONED"})
    assert told[0] == "LimitExceededException"


def test_large_records_by_opting_in(kinesis: Any, made: str) -> None:
    large = b"x" * (3 * 1024 * 1024)
    assert refusal(kinesis.put_record, StreamName=made, Data=large, PartitionKey="k")[0] == "ValidationException"
    kinesis.update_max_record_size(StreamARN=arn(made), MaxRecordSizeInKiB=4096)
    summary = kinesis.describe_stream_summary(StreamName=made)["StreamDescriptionSummary"]
    assert summary["MaxRecordSizeInKiB"] == 4096
    deadline = time.monotonic() + 10
    # A tank of 4 MiB that refills at 1 MiB a second.
    while True:
        try:
            kinesis.put_record(StreamName=made, Data=large, PartitionKey="k")
            break
        except ClientError as error:
            assert error.response["Error"]["Code"] == "ProvisionedThroughputExceededException"
            assert time.monotonic() < deadline
            time.sleep(0.2)
    iterator = kinesis.get_shard_iterator(StreamName=made, ShardId=ZERO, ShardIteratorType="TRIM_HORIZON")
    (record,) = kinesis.get_records(ShardIterator=iterator["ShardIterator"])["Records"]
    assert record["Data"] == large
    assert "EncryptionType" not in record


# -- ordering, pages, tokens ---------------------------------------------------------------------------


def test_sequence_number_for_ordering(kinesis: Any, made: str) -> None:
    number = kinesis.put_record(StreamName=made, Data=b"1", PartitionKey="k")["SequenceNumber"]
    after = kinesis.put_record(StreamName=made, Data=b"2", PartitionKey="k", SequenceNumberForOrdering=number)
    assert int(after["SequenceNumber"]) > int(number)
    assert refusal(kinesis.put_record, StreamName=made, Data=b"3", PartitionKey="k", SequenceNumberForOrdering="7") == (
        "InvalidArgumentException",
        f"ExclusiveMinimumSequenceNumber 7 used in PutRecord on stream {made} under account {ACCOUNT} is invalid.",
    )


def test_lists_page_with_tokens_that_are_checked(kinesis: Any, stream: str) -> None:
    kinesis.create_stream(StreamName=stream, ShardCount=5)
    first = kinesis.list_shards(StreamName=stream, MaxResults=2)
    second = kinesis.list_shards(NextToken=first["NextToken"], MaxResults=2)
    third = kinesis.list_shards(NextToken=second["NextToken"])
    found = [shard["ShardId"] for page in (first, second, third) for shard in page["Shards"]]
    assert found == [f"shardId-{index:012d}" for index in range(5)]
    assert "NextToken" not in third
    assert refusal(kinesis.list_shards, StreamName=stream, NextToken=first["NextToken"]) == (
        "InvalidArgumentException",
        "NextToken and StreamName cannot be provided together.",
    )
    assert refusal(kinesis.list_shards, NextToken="AAAA")[0] == "InvalidArgumentException"
    assert refusal(kinesis.list_streams, NextToken=first["NextToken"])[0] == "InvalidArgumentException"
    assert refusal(kinesis.list_shards) == (
        "InvalidArgumentException",
        "Either NextToken or StreamName should be provided.",
    )


def test_list_shards_filters(kinesis: Any, made: str) -> None:
    kinesis.split_shard(StreamName=made, ShardToSplit=ZERO, NewStartingHashKey=str(1 << 127))

    def found(**shard_filter: Any) -> list[str]:
        return [shard["ShardId"] for shard in kinesis.list_shards(StreamName=made, ShardFilter=shard_filter)["Shards"]]

    assert found(Type="AT_LATEST") == [ONE, TWO]
    assert found(Type="FROM_TRIM_HORIZON") == [ZERO, ONE, TWO]
    assert found(Type="AT_TRIM_HORIZON") == [ZERO]
    assert found(Type="AFTER_SHARD_ID", ShardId=ONE) == [TWO]
    assert found(Type="FROM_TIMESTAMP", Timestamp=0) == [ZERO, ONE, TWO]
    assert found(Type="AT_TIMESTAMP", Timestamp=time.time() + 60) == [ONE, TWO]


# -- enhanced fan-out ----------------------------------------------------------------------------------


def test_consumers_are_registered_described_listed_and_gone(kinesis: Any, made: str) -> None:
    answer = kinesis.register_stream_consumer(StreamARN=arn(made), ConsumerName="consumer")["Consumer"]
    assert answer["ConsumerStatus"] == "CREATING"
    assert answer["ConsumerARN"].startswith(f"{arn(made)}/consumer/consumer:")
    described = kinesis.describe_stream_consumer(ConsumerARN=answer["ConsumerARN"])["ConsumerDescription"]
    # The members as recorded on AWS (LocalStack, test_stream_consumers).
    assert set(described) == {"ConsumerARN", "ConsumerCreationTimestamp", "ConsumerName", "ConsumerStatus", "StreamARN"}
    assert described["ConsumerStatus"] == "ACTIVE"
    (listed,) = kinesis.list_stream_consumers(StreamARN=arn(made))["Consumers"]
    assert set(listed) == set(described) - {"StreamARN"}
    assert refusal(kinesis.register_stream_consumer, StreamARN=arn(made), ConsumerName="consumer") == (
        "ResourceInUseException",
        f"Consumer consumer under stream {arn(made)} already exists for account {ACCOUNT}.",
    )
    assert refusal(kinesis.delete_stream, StreamName=made)[0] == "ResourceInUseException"
    kinesis.deregister_stream_consumer(StreamARN=arn(made), ConsumerName="consumer")
    assert kinesis.list_stream_consumers(StreamARN=arn(made))["Consumers"] == []
    assert refusal(kinesis.describe_stream_consumer, StreamARN=arn(made), ConsumerName="consumer") == (
        "ResourceNotFoundException",
        f"Consumer consumer, account {ACCOUNT} not found.",
    )


def test_twenty_consumers_a_stream(kinesis: Any, made: str) -> None:
    for index in range(20):
        kinesis.register_stream_consumer(StreamARN=arn(made), ConsumerName=f"c{index:02d}")
    assert refusal(kinesis.register_stream_consumer, StreamARN=arn(made), ConsumerName="more")[0] == (
        "LimitExceededException"
    )
    page = kinesis.list_stream_consumers(StreamARN=arn(made), MaxResults=15)
    rest = kinesis.list_stream_consumers(StreamARN=arn(made), NextToken=page["NextToken"])
    assert [one["ConsumerName"] for one in page["Consumers"] + rest["Consumers"]] == [f"c{i:02d}" for i in range(20)]


_subscriptions: list[Any] = []


@pytest.fixture(autouse=True)
def _close_subscriptions() -> Iterator[None]:
    yield
    while _subscriptions:
        _subscriptions.pop().close()


def subscribe(kinesis: Any, consumer: str, shard: str = ZERO, **position: Any) -> Any:
    """The event stream; its connection is closed when the test ends."""
    events = kinesis.subscribe_to_shard(
        ConsumerARN=consumer, ShardId=shard, StartingPosition=position or {"Type": "TRIM_HORIZON"}
    )["EventStream"]
    _subscriptions.append(events)
    return events


def test_records_are_pushed_as_they_arrive(kinesis: Any, made: str) -> None:
    consumer = kinesis.register_stream_consumer(StreamARN=arn(made), ConsumerName="c")["Consumer"]["ConsumerARN"]
    numbers = [kinesis.put_record(StreamName=made, Data=b"old", PartitionKey="k")["SequenceNumber"] for _ in range(3)]
    events = subscribe(kinesis, consumer)
    records: list[dict[str, Any]] = []
    last: dict[str, Any] = {}

    def put() -> None:
        numbers.append(kinesis.put_record(StreamName=made, Data=b"new", PartitionKey="k")["SequenceNumber"])

    pushed = threading.Timer(0.3, put)
    pushed.start()
    for event in events:
        last = event["SubscribeToShardEvent"]
        records += last["Records"]
        if len(records) == 4:
            break
    pushed.join()
    assert [record["SequenceNumber"] for record in records] == numbers
    assert [record["Data"] for record in records] == [b"old"] * 3 + [b"new"]
    assert last["MillisBehindLatest"] == 0
    assert last["ContinuationSequenceNumber"] == numbers[-1]
    assert refusal(subscribe, kinesis=kinesis, consumer=consumer)[0] == "ResourceInUseException"


def test_a_subscription_is_taken_over_after_five_seconds_and_resumes(kinesis: Any, made: str) -> None:
    consumer = kinesis.register_stream_consumer(StreamARN=arn(made), ConsumerName="c")["Consumer"]["ConsumerARN"]
    first = subscribe(kinesis, consumer)
    number = kinesis.put_record(StreamName=made, Data=b"1", PartitionKey="k")["SequenceNumber"]
    got = next(event["SubscribeToShardEvent"] for event in first if event["SubscribeToShardEvent"]["Records"])
    time.sleep(5.1)
    second = subscribe(
        kinesis, consumer, Type="AFTER_SEQUENCE_NUMBER", SequenceNumber=got["ContinuationSequenceNumber"]
    )
    with pytest.raises(ClientError, match="ResourceInUseException"):
        assert all(not event["SubscribeToShardEvent"]["Records"] for event in first)
    after = kinesis.put_record(StreamName=made, Data=b"2", PartitionKey="k")["SequenceNumber"]
    records = next(event["SubscribeToShardEvent"] for event in second if event["SubscribeToShardEvent"]["Records"])
    assert [record["SequenceNumber"] for record in records["Records"]] == [after]
    assert number < after


def test_a_drained_shard_names_its_children_and_ends(kinesis: Any, made: str) -> None:
    consumer = kinesis.register_stream_consumer(StreamARN=arn(made), ConsumerName="c")["Consumer"]["ConsumerARN"]
    kinesis.put_record(StreamName=made, Data=b"x", PartitionKey="k")
    events = subscribe(kinesis, consumer)
    splitting = threading.Timer(
        0.3,
        lambda: kinesis.split_shard(StreamName=made, ShardToSplit=ZERO, NewStartingHashKey=str(1 << 127)),
    )
    splitting.start()
    told = [event["SubscribeToShardEvent"] for event in events]
    splitting.join()
    assert sum(len(one["Records"]) for one in told) == 1
    assert [child["ShardId"] for child in told[-1]["ChildShards"]] == [ONE, TWO]
    assert [child["ParentShards"] for child in told[-1]["ChildShards"]] == [[ZERO], [ZERO]]


def test_a_deregistered_consumers_subscription_ends_with_an_exception(kinesis: Any, made: str) -> None:
    consumer = kinesis.register_stream_consumer(StreamARN=arn(made), ConsumerName="c")["Consumer"]["ConsumerARN"]
    events = subscribe(kinesis, consumer)
    threading.Timer(0.3, lambda: kinesis.deregister_stream_consumer(ConsumerARN=consumer)).start()
    with pytest.raises(Exception, match="ResourceNotFoundException") as error:
        list(events)
    assert type(error.value).__name__ == "EventStreamError"


def test_a_cloud_with_open_subscriptions_stops(stream: str) -> None:
    with CloudProcess() as cloud:
        client = client_of(cloud, "kinesis")
        client.create_stream(StreamName=stream, ShardCount=1)
        consumer = client.register_stream_consumer(StreamARN=arn(stream), ConsumerName="c")["Consumer"]["ConsumerARN"]
        events = subscribe(client, consumer)
        next(iter(events))
        began = cloud.poll()
        assert began is None
    client.close()


# -- states and rates ----------------------------------------------------------------------------------


def test_creating_and_deleting_can_be_made_to_take_their_time() -> None:
    with CloudProcess(settings=LimitSettings(stream_transition_seconds=1.0)) as cloud:
        client = client_of(cloud, "kinesis")
        names = [f"s-{uuid.uuid4().hex[:8]}" for _ in range(6)]
        for name in names[:5]:
            client.create_stream(StreamName=name, ShardCount=1)
        described = client.describe_stream(StreamName=names[0])["StreamDescription"]
        assert (described["StreamStatus"], described["Shards"]) == ("CREATING", [])
        assert refusal(client.put_record, StreamName=names[0], Data=b"x", PartitionKey="k") == (
            "ResourceNotFoundException",
            f"Stream {names[0]} under account {ACCOUNT} not found.",
        )
        assert refusal(client.create_stream, StreamName=names[5], ShardCount=1)[0] == "LimitExceededException"
        client.get_waiter("stream_exists").wait(StreamName=names[4], WaiterConfig={"Delay": 1})
        client.put_record(StreamName=names[0], Data=b"x", PartitionKey="k")
        client.delete_stream(StreamName=names[0])
        assert client.describe_stream_summary(StreamName=names[0])["StreamDescriptionSummary"]["StreamStatus"] == (
            "DELETING"
        )
        assert refusal(client.create_stream, StreamName=names[0], ShardCount=1)[0] == "ResourceInUseException"
        client.get_waiter("stream_not_exists").wait(StreamName=names[0], WaiterConfig={"Delay": 1})
        client.close()


def test_the_control_plane_and_iterators_have_rates(stream: str) -> None:
    with CloudProcess() as cloud:
        client = client_of(cloud, "kinesis")
        client.create_stream(StreamName=stream, ShardCount=1)
        told = set()
        for _ in range(40):
            try:
                client.list_streams()
            except ClientError as error:
                told.add((error.response["Error"]["Code"], error.response["Error"]["Message"]))
        assert told == {("LimitExceededException", f"Rate exceeded for account {ACCOUNT}.")}
        told.clear()
        for _ in range(40):
            try:
                client.get_shard_iterator(StreamName=stream, ShardId=ZERO, ShardIteratorType="LATEST")
            except ClientError as error:
                told.add((error.response["Error"]["Code"], error.response["Error"]["Message"]))
        assert told == {
            (
                "ProvisionedThroughputExceededException",
                f"Rate exceeded for shard {ZERO} in stream {stream} under account {ACCOUNT}.",
            )
        }
        client.close()


def test_reset_forgets_everything(stream: str) -> None:
    import urllib.request

    with CloudProcess() as cloud:
        client = client_of(cloud, "kinesis")
        table = client_of(cloud, "dynamodb")
        client.create_stream(StreamName=stream, ShardCount=1)
        table.create_table(
            TableName="t",
            KeySchema=[{"AttributeName": "PK", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "PK", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        asked = urllib.request.Request(f"{cloud.endpoint_url}/_alleycat/reset", method="POST")
        with urllib.request.urlopen(asked) as answer:
            assert answer.status == 200
        assert client.list_streams()["StreamNames"] == []
        assert table.list_tables()["TableNames"] == []
        client.close()
        table.close()


def test_every_operation_of_the_model_is_simulated_or_says_that_it_is_not(cloud: CloudProcess) -> None:
    from simulator.cloud import request_model
    from simulator.cloud.kinesis_api import KinesisApi
    from simulator.cloud.metrics import Metrics

    api = KinesisApi(ACCOUNT, LimitSettings(), Metrics())
    names = request_model.operations("kinesis")
    assert api.operations <= names
    for name in names - api.operations:
        status, body = api.handle(name, b"{}", "us-east-1")
        assert status == 400
        assert f"{name} is not implemented by the embedded cloud.".encode() in body
    # What remains is of accounts, policies, channels, queues and what comes with them.
    left = names - api.operations
    words = ("Account", "Policy", "Channel", "Queue", "WarmThroughput", "Distribution")
    assert not {name for name in left if not any(word in name for word in words)}
