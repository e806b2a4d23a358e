"""Event sources against the embedded cloud: real streams, real tables, and what a stream can do to its readers."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from conftest import client_of

from consumers.runtime import (
    ConfigurationError,
    FunctionConfig,
    MappingConfig,
    Runtime,
    RuntimeSettings,
    dynamodb_streams_client,
    kinesis_client,
)
from consumers.runtime.batches import interpret
from consumers.runtime.lineage import ShardInfo
from consumers.runtime.sources import Read, SourceError, from_client_error
from consumers.runtime.sources.aggregation import MAGIC, UserRecord, deaggregate, hash_of
from consumers.runtime.sources.dynamodb_stream import DynamoDBStream
from consumers.runtime.sources.kinesis_fan_out import FanOutReader, KinesisFanOut
from simulator.cloud.server import CloudProcess

HERE = Path(__file__).with_name("handlers_for_tests")
SETTINGS = RuntimeSettings(poll_interval_s=0.25, dynamodb_poll_interval_s=0.05, list_shards_interval_s=0.5)
CONSUMER = "arn:aws:kinesis:us-east-1:123456789012:stream/s/consumer/fan:1"
TABLE_STREAM = "arn:aws:dynamodb:us-east-1:123456789012:table/t/stream/2026-01-01T00:00:00.000"


class Stage:
    """Runtimes on the embedded cloud, and what their function wrote."""

    def __init__(self, cloud: CloudProcess, folder: Path) -> None:
        self.cloud, self.folder = cloud, folder
        self.runtimes: list[Runtime] = []
        self.log: list[str] = []
        self.clients = {name: client_of(cloud, name) for name in ("kinesis", "dynamodb")}

    def runtime(self, arn: str, handler: str, **changes: Any) -> Runtime:
        function = FunctionConfig(
            name="F",
            handler=f"stream.{handler}",
            code_path=HERE,
            timeout_s=20.0,
            environment={"OUT": str(self.out)},
        )
        kind = "DynamoDB" if ":dynamodb:" in arn else "Kinesis"
        settings = {"name": "m", "function_name": "F", "stream_name": "s", "stream_arn": arn, "source_kind": kind}
        access = {
            "endpoint_url": self.cloud.endpoint_url,
            "region_name": "us-east-1",
            "aws_access_key_id": "test",
            "aws_secret_access_key": "test",
        }
        runtime = Runtime(
            [function],
            [MappingConfig(**settings | changes)],
            client_factory=lambda: kinesis_client(**access),
            dynamodb_client_factory=lambda: dynamodb_streams_client(**access),
            state_dir=self.folder / "state",
            settings=SETTINGS,
            log=lambda source, line: self.log.append(f"{source}: {line}"),
        )
        self.runtimes.append(runtime)
        runtime.start()
        return runtime

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def written(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.read_text().splitlines()] if self.out.exists() else []

    def records(self) -> list[dict[str, Any]]:
        return [record for event in self.written() for record in event["Records"]]

    def data(self) -> list[str]:
        return [base64.b64decode(record["kinesis"]["data"]).decode() for record in self.records()]

    def put(self, name: str, *data: str, key: str = "k") -> None:
        entries = [{"Data": one.encode(), "PartitionKey": key} for one in data]
        assert self.clients["kinesis"].put_records(StreamName=name, Records=entries)["FailedRecordCount"] == 0

    def create(self, name: str, shards: int = 1) -> str:
        kinesis = self.clients["kinesis"]
        kinesis.create_stream(StreamName=name, ShardCount=shards)
        eventually(lambda: self.describe(name)["StreamStatus"] == "ACTIVE")
        return str(self.describe(name)["StreamARN"])

    def describe(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.clients["kinesis"].describe_stream_summary(StreamName=name)
        return dict(found["StreamDescriptionSummary"])

    def create_table(self, name: str) -> str:
        made = self.clients["dynamodb"].create_table(
            TableName=name,
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        )
        return str(made["TableDescription"]["LatestStreamArn"])


@pytest.fixture
def stage(cloud: CloudProcess, tmp_path: Path) -> Iterator[Stage]:
    made = Stage(cloud, tmp_path)
    yield made
    for runtime in made.runtimes:
        runtime.stop(0.0)
    for client in made.clients.values():
        client.close()


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def catch_up(runtime: Runtime) -> None:
    since = time.time()
    eventually(lambda: runtime.caught_up(since))


# -- Kinesis -------------------------------------------------------------------------------------------


def test_resharding_while_running_keeps_the_order_of_every_key(stage: Stage, stream: str) -> None:
    runtime = stage.runtime(stage.create(stream), "events")
    stage.put(stream, *[f"a{n}" for n in range(20)])
    stage.clients["kinesis"].update_shard_count(StreamName=stream, TargetShardCount=2, ScalingType="UNIFORM_SCALING")
    eventually(lambda: stage.describe(stream)["StreamStatus"] == "ACTIVE")
    stage.put(stream, *[f"b{n}" for n in range(20)])
    catch_up(runtime)
    assert stage.data() == [f"{part}{n}" for part in "ab" for n in range(20)]
    statuses = sorted(shard.status for shard in runtime.statistics().mappings["m"].shards.values())
    assert statuses == ["finished", "reading", "reading"]


def test_a_stream_that_is_created_again_under_its_name_is_read_from_its_beginning(stage: Stage, stream: str) -> None:
    arn = stage.create(stream)
    runtime = stage.runtime(arn, "events")
    stage.put(stream, "old")
    catch_up(runtime)
    created = stage.describe(stream)["StreamCreationTimestamp"].timestamp()
    stage.clients["kinesis"].delete_stream(StreamName=stream)
    eventually(lambda: stream not in stage.clients["kinesis"].list_streams()["StreamNames"])
    # Sequence numbers tell streams apart by the second of their creation.
    eventually(lambda: int(time.time()) > int(created) + 1)
    assert stage.create(stream) == arn
    stage.put(stream, "new 1", "new 2")
    eventually(lambda: stage.data() == ["old", "new 1", "new 2"])
    assert any("Alleycat.StreamReplaced" in line for line in stage.log)
    stage.put(stream, "newer")
    catch_up(runtime)
    assert stage.data()[3:] == ["newer"]


@pytest.mark.parametrize(
    ("number", "finished", "shard", "is_other"),
    [
        ("100", False, ShardInfo("s", (), True, "50"), False),
        ("100", False, ShardInfo("s", (), True, "101"), True),
        ("100", True, ShardInfo("s", (), False, "50"), False),
        (None, True, ShardInfo("s", (), True, "50"), True),
        (None, False, ShardInfo("s", (), True, "50"), False),
        # Numbers are compared as numbers.
        ("99", False, ShardInfo("s", (), True, "100"), True),
    ],
)
def test_when_a_shard_is_another_one(number: str | None, finished: bool, shard: ShardInfo, is_other: bool) -> None:
    assert shard.is_other_than(number, finished) is is_other


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("ProvisionedThroughputExceededException", "throttled"),
        ("LimitExceededException", "throttled"),
        ("ResourceInUseException", "throttled"),
        ("ExpiredIteratorException", "expired"),
        ("TrimmedDataAccessException", "trimmed"),
        ("ResourceNotFoundException", "gone"),
        ("InternalServerError", "unreachable"),
    ],
)
def test_errors_by_what_helps(code: str, problem: str) -> None:
    error = from_client_error(ClientError({"Error": {"Code": code, "Message": "text"}}, "GetRecords"))
    assert (error.problem, error.code, error.message) == (problem, code, "text")


# -- enhanced fan-out ----------------------------------------------------------------------------------


def register(stage: Stage, stream_arn: str) -> str:
    kinesis = stage.clients["kinesis"]
    kinesis.register_stream_consumer(StreamARN=stream_arn, ConsumerName="fan")

    def described() -> dict[str, Any]:
        found = kinesis.describe_stream_consumer(StreamARN=stream_arn, ConsumerName="fan")
        return dict(found["ConsumerDescription"])

    eventually(lambda: described()["ConsumerStatus"] == "ACTIVE")
    return str(described()["ConsumerARN"])


def test_a_registered_consumer_is_pushed_to_over_a_reshard(stage: Stage, stream: str) -> None:
    stream_arn = stage.create(stream)
    consumer_arn = register(stage, stream_arn)
    stage.put(stream, *[f"a{n}" for n in range(20)])
    runtime = stage.runtime(consumer_arn, "events")
    eventually(lambda: len(stage.data()) == 20)
    assert {record["eventSourceARN"] for record in stage.records()} == {consumer_arn}
    stage.clients["kinesis"].update_shard_count(StreamName=stream, TargetShardCount=2, ScalingType="UNIFORM_SCALING")
    eventually(lambda: stage.describe(stream)["StreamStatus"] == "ACTIVE")
    stage.put(stream, *[f"b{n}" for n in range(20)])
    catch_up(runtime)
    assert stage.data() == [f"{part}{n}" for part in "ab" for n in range(20)]
    statuses = sorted(shard.status for shard in runtime.statistics().mappings["m"].shards.values())
    assert statuses == ["finished", "reading", "reading"]


def test_a_restart_of_a_consumer_goes_on_after_its_last_record(stage: Stage, stream: str) -> None:
    consumer_arn = register(stage, stage.create(stream))
    first = stage.runtime(consumer_arn, "events", starting_position="LATEST")
    eventually(lambda: [one.status for one in first.statistics().mappings["m"].shards.values()] == ["reading"])
    stage.put(stream, "first")
    eventually(lambda: stage.data() == ["first"])
    assert first.stop()
    stage.put(stream, "second")
    stage.runtime(consumer_arn, "events", starting_position="LATEST")
    eventually(lambda: stage.data() == ["first", "second"])


class FakePush:
    """A subscription that pushes what it is told, then ends or fails; it counts what was taken off it."""

    def __init__(self, *events: dict[str, Any] | Exception) -> None:
        self.events, self.taken, self.closed = list(events), 0, False

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for event in self.events:
            if isinstance(event, Exception):
                raise event
            self.taken += 1
            yield {"SubscribeToShardEvent": event}

    def close(self) -> None:
        self.closed = True


class FakeKinesis:
    def __init__(self, *pushes: FakePush) -> None:
        self.pushes = list(pushes)
        self.positions: list[dict[str, Any]] = []

    def subscribe_to_shard(self, **request: Any) -> dict[str, Any]:
        assert (request["ConsumerARN"], request["ShardId"]) == (CONSUMER, "s")
        self.positions.append(request["StartingPosition"])
        return {"EventStream": self.pushes.pop(0)}


def pushed(number: int, *data: str, **more: Any) -> dict[str, Any]:
    records = [
        {"SequenceNumber": str(number), "PartitionKey": "p", "Data": one, "ApproximateArrivalTimestamp": 1.0}
        for one in data
    ]
    return {"Records": records, "ContinuationSequenceNumber": str(number), "MillisBehindLatest": 0} | more


def fan_out_reader(kinesis: FakeKinesis, monkeypatch: pytest.MonkeyPatch) -> FanOutReader:
    monkeypatch.setattr("consumers.runtime.sources.kinesis_fan_out.SUBSCRIBE_INTERVAL_S", 0.0)
    mapping = MappingConfig(name="m", function_name="F", stream_name="s", stream_arn=CONSUMER)
    return KinesisFanOut(mapping, kinesis, time.time).open(
        "s", {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": 12.5}
    )


def next_read(reader: FanOutReader) -> Read:
    found: list[Read] = []

    def read() -> bool:
        found.extend(one for one in (reader.read(),) if one is not None)
        return bool(found)

    eventually(read)
    return found[0]


def test_subscriptions_follow_each_other_without_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    last = pushed(5, ChildShards=[{"ShardId": "t"}])
    kinesis = FakeKinesis(
        FakePush(pushed(1, "QQ=="), pushed(2)),  # five minutes were over
        FakePush(pushed(3, "Qg=="), ConnectionResetError("lost")),
        FakePush(pushed(4, "Qw=="), last),
    )
    reader = fan_out_reader(kinesis, monkeypatch)
    reads = [next_read(reader) for _ in range(5)]
    assert [[record.sequence_number for record in read.records] for read in reads] == [["1"], [], ["3"], ["4"], []]
    assert [read.shard_ended for read in reads] == [False, False, False, False, True]
    assert kinesis.positions == [
        {"Type": "AT_TIMESTAMP", "Timestamp": 12.5},
        {"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": "2"},
        {"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": "3"},
    ]
    reader.close()


def test_what_is_not_taken_is_not_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    push = FakePush(*[pushed(number, "QQ==") for number in range(100)])
    reader = fan_out_reader(FakeKinesis(push), monkeypatch)
    assert next_read(reader).records[0].sequence_number == "0"
    eventually(lambda: push.taken == 3)
    # One was taken, one waits in the queue, one in the thread's hand: no further one follows by itself.
    assert next_read(reader).records[0].sequence_number == "1"
    eventually(lambda: push.taken == 4)
    reader.close()
    eventually(lambda: push.closed)
    assert push.taken <= 5


def test_exceptions_on_a_subscription_say_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    taken_over = ClientError({"Error": {"Code": "ResourceInUseException", "Message": "m"}}, "SubscribeToShard")
    deleted = ClientError({"Error": {"Code": "ResourceNotFoundException", "Message": "m"}}, "SubscribeToShard")
    failure = ClientError({"Error": {"Code": "InternalFailureException", "Message": "m"}}, "SubscribeToShard")
    kinesis = FakeKinesis(FakePush(failure), FakePush(taken_over), FakePush(deleted))
    reader = fan_out_reader(kinesis, monkeypatch)
    for problem in ("throttled", "gone"):
        with pytest.raises(SourceError) as caught:
            next_read(reader)
        assert caught.value.problem == problem
    assert kinesis.pushes == []


# -- aggregated records --------------------------------------------------------------------------------


def field(number: int, value: bytes | int) -> bytes:
    """A field of a protocol buffer, values below 128 only."""
    return bytes([number << 3, value]) if isinstance(value, int) else bytes([number << 3 | 2, len(value)]) + value


def aggregated(*records: tuple[str, bytes], hash_keys: Sequence[str] = ()) -> bytes:
    """As the KPL writes it; with ``hash_keys`` the first records have explicit ones."""
    message = b"".join(field(1, key.encode()) for key, _ in records)
    message += b"".join(field(2, key.encode()) for key in hash_keys)
    for index, (_, data) in enumerate(records):
        explicit = field(2, index) if index < len(hash_keys) else b""
        message += field(3, field(1, index) + explicit + field(3, data) + field(4, field(1, b"tag")))
    return MAGIC + message + hashlib.md5(message).digest()


def test_what_the_kpl_aggregated_is_taken_apart() -> None:
    data = aggregated(("a", b"one"), ("b", b""), ("c", b"three"), hash_keys=["5"])
    expected = [UserRecord("a", 5, b"one"), UserRecord("b", hash_of("b"), b""), UserRecord("c", hash_of("c"), b"three")]
    assert deaggregate(data) == expected
    assert deaggregate(base64.b64encode(data).decode()) == expected
    # The hash that Kinesis's documentation defines: MD5 as a 128-bit number.
    assert hash_of("a") == 0x0CC175B9C0F1B6A831C399E269772661


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"plain",
        MAGIC,
        MAGIC + b"x" * 16,
        aggregated(("a", b"one"))[:-1],
        aggregated(("a", b"one")).replace(b"one", b"two"),
        MAGIC + b"\xff" + hashlib.md5(b"\xff").digest(),
        MAGIC + field(3, b"") + hashlib.md5(field(3, b"")).digest(),
        MAGIC + field(3, 1) + hashlib.md5(field(3, 1)).digest(),
        MAGIC + b"\x1a\x7f" + hashlib.md5(b"\x1a\x7f").digest(),
    ],
)
def test_what_only_looks_aggregated_is_an_ordinary_record(data: bytes) -> None:
    assert deaggregate(data) is None
    assert deaggregate(base64.b64encode(data).decode()) is None


def test_a_consumer_gets_user_records_and_those_of_other_shards_are_dropped_and_counted(
    stage: Stage, stream: str
) -> None:
    stream_arn = stage.create(stream, shards=2)
    low, high = (next(k for k in "abcdefgh" if (hash_of(k) >= 2**127) is upper) for upper in (False, True))
    data = aggregated((low, b"1"), (high, b"foreign"), (low, b"2"), (low, b"3"))
    consumer_arn = register(stage, stream_arn)
    stage.clients["kinesis"].put_record(StreamName=stream, Data=data, PartitionKey=low)
    runtime = stage.runtime(consumer_arn, "events", batch_size=2)
    eventually(lambda: len(stage.data()) == 3)
    assert stage.data() == ["1", "2", "3"]
    assert [len(event["Records"]) for event in stage.written()] == [2, 1]
    assert len({record["kinesis"]["sequenceNumber"] for record in stage.records()}) == 1
    assert {record["kinesis"]["partitionKey"] for record in stage.records()} == {low}
    assert sum(one.dropped_records for one in runtime.statistics().mappings["m"].shards.values()) == 1
    assert any("Alleycat.KeysOfOtherShards" in line for line in stage.log)


def test_a_restart_in_the_middle_of_an_aggregated_record_goes_on_there(monkeypatch: pytest.MonkeyPatch) -> None:
    data = base64.b64encode(aggregated(*[(key, key.encode()) for key in "abcd"])).decode()
    event = pushed(7, data, "QQ==")
    event["Records"][1]["SequenceNumber"] = "8"
    kinesis = FakeKinesis(FakePush(event), FakePush(event))
    mapping = MappingConfig(name="m", function_name="F", stream_name="s", stream_arn=CONSUMER)
    source = KinesisFanOut(mapping, kinesis, time.time)
    first = source.open("s", {"ShardIteratorType": "TRIM_HORIZON"})
    records = next_read(first).records
    assert [record.sequence_number for record in records] == ["7:0", "7:1", "7:2", "7", "8"]
    assert [record.aws_sequence_number for record in records] == ["7", "7", "7", "7", "8"]
    again = source.open("s", {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": "7:1"})
    assert [record.partition_key for record in next_read(again).records] == ["c", "d", "p"]
    assert kinesis.positions[1] == {"Type": "AT_SEQUENCE_NUMBER", "SequenceNumber": "7"}
    first.close()
    again.close()


def test_a_reported_number_that_records_share_begins_with_the_first_of_them() -> None:
    outcome = interpret(
        b'{"batchItemFailures": [{"itemIdentifier": "7"}]}', ["6", "7", "7", "7"], report_batch_item_failures=True
    )
    assert outcome.processed == 1


# -- DynamoDB ------------------------------------------------------------------------------------------


def test_the_events_of_a_table_are_those_of_lambda(stage: Stage, stream: str) -> None:
    arn = stage.create_table(stream)
    dynamodb = stage.clients["dynamodb"]
    dynamodb.put_item(TableName=stream, Item={"id": {"S": "a"}, "n": {"N": "1"}, "b": {"B": b"\x00\xff"}})
    dynamodb.put_item(TableName=stream, Item={"id": {"S": "a"}, "n": {"N": "2"}})
    dynamodb.delete_item(TableName=stream, Key={"id": {"S": "a"}})
    runtime = stage.runtime(arn, "events")
    catch_up(runtime)
    records = stage.records()
    assert [record["eventName"] for record in records] == ["INSERT", "MODIFY", "REMOVE"]
    first = records[0]
    assert {name: first[name] for name in ("eventVersion", "eventSource", "awsRegion", "eventSourceARN")} == {
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": "us-east-1",
        "eventSourceARN": arn,
    }
    assert len(first["eventID"]) >= 32
    change = first["dynamodb"]
    assert change["Keys"] == {"id": {"S": "a"}}
    assert change["NewImage"] == {"id": {"S": "a"}, "n": {"N": "1"}, "b": {"B": base64.b64encode(b"\x00\xff").decode()}}
    assert "OldImage" not in change
    assert change["StreamViewType"] == "NEW_AND_OLD_IMAGES"
    assert isinstance(change["ApproximateCreationDateTime"], int | float)
    assert change["SizeBytes"] > 0
    assert "NewImage" not in records[2]["dynamodb"]
    assert records[2]["dynamodb"]["OldImage"] == {"id": {"S": "a"}, "n": {"N": "2"}}


def test_a_tables_stream_is_resumed_after_its_last_record(stage: Stage, stream: str) -> None:
    arn = stage.create_table(stream)
    dynamodb = stage.clients["dynamodb"]
    dynamodb.put_item(TableName=stream, Item={"id": {"S": "first"}})
    first = stage.runtime(arn, "events")
    catch_up(first)
    assert first.stop()
    dynamodb.put_item(TableName=stream, Item={"id": {"S": "second"}})
    catch_up(stage.runtime(arn, "events"))
    assert [record["dynamodb"]["Keys"]["id"]["S"] for record in stage.records()] == ["first", "second"]


def test_latest_begins_with_what_is_written_from_now_on(stage: Stage, stream: str) -> None:
    arn = stage.create_table(stream)
    dynamodb = stage.clients["dynamodb"]
    dynamodb.put_item(TableName=stream, Item={"id": {"S": "before"}})
    runtime = stage.runtime(arn, "events", starting_position="LATEST")
    catch_up(runtime)
    dynamodb.put_item(TableName=stream, Item={"id": {"S": "after"}})
    catch_up(runtime)
    assert [record["dynamodb"]["Keys"]["id"]["S"] for record in stage.records()] == ["after"]


def test_windows_of_a_table_go_by_when_its_items_were_written(stage: Stage, stream: str) -> None:
    arn = stage.create_table(stream)
    dynamodb = stage.clients["dynamodb"]
    began = int(time.time())
    for key in ("a", "b", "c"):
        dynamodb.put_item(TableName=stream, Item={"id": {"S": key}})
    runtime = stage.runtime(arn, "table_window", tumbling_window_s=1)
    catch_up(runtime)
    assert sorted(key for window in stage.written() for key in window["seen"]) == ["a", "b", "c"]
    starts = [datetime.fromisoformat(one["window"]["start"]).timestamp() for one in stage.written()]
    assert starts == sorted(starts)
    assert began <= starts[0] <= starts[-1] <= time.time()
    assert {one["arn"] for one in stage.written()} == {arn}


class FakeStreams:
    """DynamoDB Streams of one shard, which answers what it is told to."""

    def __init__(self, *created_s: float) -> None:
        self.records = [
            {"eventName": "INSERT", "dynamodb": {"SequenceNumber": str(n), "ApproximateCreationDateTime": at}}
            for n, at in enumerate(created_s)
        ]
        self.asked: list[dict[str, Any]] = []
        self.trimmed = False

    def describe_stream(self, **request: Any) -> dict[str, Any]:
        self.asked.append(request)
        second = "ExclusiveStartShardId" in request
        numbers = {"StartingSequenceNumber": "5"} | ({} if second else {"EndingSequenceNumber": "9"})
        shard = {"ShardId": "child" if second else "parent", "SequenceNumberRange": numbers}
        more = {"ParentShardId": "parent"} if second else {}
        last = {} if second else {"LastEvaluatedShardId": "parent"}
        return {"StreamDescription": {"Shards": [shard | more]} | last}

    def get_shard_iterator(self, **request: Any) -> dict[str, Any]:
        self.asked.append(request)
        return {"ShardIterator": "i"}

    def get_records(self, **request: Any) -> dict[str, Any]:
        self.asked.append(request)
        records, self.records = self.records, []
        return {"Records": records, "NextShardIterator": "j"} if records else {"Records": []}


def table_mapping(**changes: Any) -> MappingConfig:
    settings = {"name": "m", "function_name": "F", "stream_name": "t", "stream_arn": TABLE_STREAM}
    return MappingConfig(**settings | {"source_kind": "DynamoDB"} | changes)


def test_a_position_by_time_leaves_out_what_is_older() -> None:
    client = FakeStreams(99.0, 100.0, 101.0)
    source = DynamoDBStream(table_mapping(), client, RuntimeSettings(), lambda: 103.0)
    reader = source.open("s", {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": 100.7})
    found = reader.read()
    assert client.asked == [
        {"StreamArn": TABLE_STREAM, "ShardId": "s", "ShardIteratorType": "TRIM_HORIZON"},
        {"ShardIterator": "i", "Limit": 1000},
    ]
    assert [record.sequence_number for record in found.records] == ["1", "2"]
    assert (found.millis_behind, found.began, found.shard_ended) == (2000, 103.0, False)
    assert json.loads(found.records[0].encoded)["dynamodb"]["ApproximateCreationDateTime"] == 100
    last = reader.read()
    assert (last.records, last.millis_behind, last.shard_ended) == ([], 0, True)


def test_shards_of_a_table_are_listed_page_by_page_with_their_parents() -> None:
    client = FakeStreams()
    source = DynamoDBStream(table_mapping(), client, RuntimeSettings(), time.time)
    assert source.list_shards() == [
        ShardInfo("parent", (), False, "5"),
        ShardInfo("child", ("parent",), True, "5"),
    ]
    paced = source.paced(RuntimeSettings())
    assert (paced.poll_interval_s, paced.get_records_limit) == (0.25, 1000)


def test_a_table_has_no_position_by_time_to_start_from() -> None:
    with pytest.raises(ConfigurationError, match="cannot be read from AT_TIMESTAMP"):
        table_mapping(starting_position="AT_TIMESTAMP", starting_timestamp=1.0)
    with pytest.raises(ConfigurationError, match="does not go with source_kind Kinesis"):
        table_mapping(source_kind="Kinesis")
