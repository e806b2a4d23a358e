"""DynamoDB Streams: records as AWS writes them, shards that roll over, what a day ends. The clock is in hand."""

from __future__ import annotations

import json
from typing import Any

import pytest
from model_check import problems

from simulator.cloud import moto_store
from simulator.cloud.dynamodb_api import DynamoDBApi
from simulator.cloud.dynamodb_streams import ROLLOVER_S
from simulator.cloud.item_size import item_size
from simulator.cloud.limits import LimitSettings
from simulator.cloud.metrics import Metrics
from simulator.cloud.moto_store import MotoStore
from simulator.cloud.server import CloudProcess

HOUR_S = 3600.0


class Api:
    """One table ``races`` with a stream, under a clock that a test moves."""

    def __init__(self, view: str = "NEW_AND_OLD_IMAGES", key: str = "Id", kind: str = "N") -> None:
        self.now = 1_795_000_000.0
        store = MotoStore()
        moto_store.reset()
        self.api = DynamoDBApi(store, settings=LimitSettings(), metrics=Metrics(), clock=lambda: self.now)
        told = self(
            "CreateTable",
            TableName="races",
            KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": kind}],
            ProvisionedThroughput={"ReadCapacityUnits": 1000, "WriteCapacityUnits": 1000},
            StreamSpecification={"StreamEnabled": True, "StreamViewType": view},
        )
        self.arn = told["TableDescription"]["LatestStreamArn"]

    def __call__(self, operation: str, **members: Any) -> dict[str, Any]:
        return dict(json.loads(self.api.handle(operation, json.dumps(members).encode(), "us-east-1").body))

    def ask(self, operation: str, **members: Any) -> dict[str, Any]:
        """DynamoDB Streams; a success must be as AWS's model describes it."""
        answer = self.api.handle_streams(operation, json.dumps(members).encode(), "us-east-1")
        told = dict(json.loads(answer.body))
        if answer.status == 200:
            assert problems("dynamodbstreams", operation, told) == []
        return told

    def put(self, **attributes: Any) -> None:
        assert "__type" not in self("PutItem", TableName="races", Item=attributes)

    def shards(self) -> list[dict[str, Any]]:
        return list(self.ask("DescribeStream", StreamArn=self.arn)["StreamDescription"]["Shards"])

    def iterator(self, kind: str = "TRIM_HORIZON", shard: int = 0, **more: str) -> str:
        asked = {"StreamArn": self.arn, "ShardId": self.shards()[shard]["ShardId"], "ShardIteratorType": kind}
        return str(self.ask("GetShardIterator", **asked, **more)["ShardIterator"])

    def records(self, kind: str = "TRIM_HORIZON", shard: int = 0, **more: str) -> list[dict[str, Any]]:
        return list(self.ask("GetRecords", ShardIterator=self.iterator(kind, shard, **more))["Records"])


# -- records -------------------------------------------------------------------------------------------


def test_awss_own_sample() -> None:
    """The documentation's sample: an item 101 with a message, then another message; 26 and 59 bytes."""
    api = Api()
    api.put(Id={"N": "101"}, Message={"S": "New item!"})
    api.put(Id={"N": "101"}, Message={"S": "This item has changed"})
    api("DeleteItem", TableName="races", Key={"Id": {"N": "101"}})
    insert, modify, remove = api.records()
    assert [one["eventName"] for one in (insert, modify, remove)] == ["INSERT", "MODIFY", "REMOVE"]
    assert insert["dynamodb"]["SizeBytes"] == 26
    assert modify["dynamodb"]["SizeBytes"] == 59
    assert insert["dynamodb"]["Keys"] == {"Id": {"N": "101"}}
    assert modify["dynamodb"]["OldImage"]["Message"] == {"S": "New item!"}
    assert "NewImage" not in remove["dynamodb"]
    for record in (insert, modify, remove):
        assert len(record["eventID"]) == 32
        assert (record["eventVersion"], record["eventSource"]) == ("1.1", "aws:dynamodb")
        assert 21 <= len(record["dynamodb"]["SequenceNumber"]) <= 40
        assert record["dynamodb"]["ApproximateCreationDateTime"] == 1_795_000_000
    numbers = [int(one["dynamodb"]["SequenceNumber"]) for one in (insert, modify, remove)]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize(
    ("view", "images"),
    [("KEYS_ONLY", set()), ("NEW_IMAGE", {"NewImage"}), ("OLD_IMAGE", {"OldImage"})],
)
def test_views_hold_what_they_say_and_size_counts_that(view: str, images: set[str]) -> None:
    api = Api(view)
    api.put(Id={"N": "1"}, v={"S": "a"})
    api.put(Id={"N": "1"}, v={"S": "bc"})
    told = api.records()[1]["dynamodb"]
    assert set(told) & {"NewImage", "OldImage"} == images
    assert told["SizeBytes"] == sum(item_size(told[part]) for part in {"Keys", *images})


def test_no_record_of_what_changed_nothing_or_was_refused() -> None:
    api = Api()
    api.put(Id={"N": "1"}, v={"S": "a"})
    api.put(Id={"N": "1"}, v={"S": "a"})
    api("DeleteItem", TableName="races", Key={"Id": {"N": "2"}})
    api("PutItem", TableName="races", Item={"Id": {"N": "1"}}, ConditionExpression="attribute_not_exists(Id)")
    same = {"UpdateExpression": "SET v = :v", "ExpressionAttributeValues": {":v": {"S": "a"}}}
    api("UpdateItem", TableName="races", Key={"Id": {"N": "1"}}, **same)
    assert len(api.records()) == 1


def test_batches_and_transactions_leave_one_record_an_item() -> None:
    api = Api()
    puts = [{"PutRequest": {"Item": {"Id": {"N": str(number)}}}} for number in range(3)]
    api("BatchWriteItem", RequestItems={"races": puts})
    moves = [{"Put": {"TableName": "races", "Item": {"Id": {"N": str(number)}}}} for number in range(2, 5)]
    api("TransactWriteItems", TransactItems=moves)
    assert [one["dynamodb"]["Keys"]["Id"]["N"] for one in api.records()] == ["0", "1", "2", "3", "4"]


# -- reading -------------------------------------------------------------------------------------------


def test_positions() -> None:
    api = Api()
    latest = api.iterator("LATEST")
    for number in range(4):
        api.put(Id={"N": str(number)})
    numbers = [one["dynamodb"]["SequenceNumber"] for one in api.records()]
    assert len(numbers) == 4
    assert len(api.records("AT_SEQUENCE_NUMBER", SequenceNumber=numbers[1])) == 3
    assert len(api.records("AFTER_SEQUENCE_NUMBER", SequenceNumber=numbers[1])) == 2
    assert len(api.ask("GetRecords", ShardIterator=latest)["Records"]) == 4
    assert api.records("LATEST") == []
    page = api.ask("GetRecords", ShardIterator=api.iterator(), Limit=3)
    rest = api.ask("GetRecords", ShardIterator=page["NextShardIterator"])
    assert (len(page["Records"]), len(rest["Records"])) == (3, 1)


def test_a_thousand_records_and_a_megabyte_a_call() -> None:
    api = Api()
    for number in range(1001):
        api.now += 0.01
        api.put(Id={"N": str(number)})
    assert len(api.records()) == 1000
    large = Api()
    for number in range(8):
        large.now += 1
        large.put(Id={"N": str(number)}, f={"S": "x" * 300_000})
    assert len(large.records()) == 3


def test_iterators_expire_and_others_are_refused() -> None:
    api = Api()
    iterator = api.iterator()
    api.now += 900
    assert api.ask("GetRecords", ShardIterator=iterator)["Records"] == []
    api.now += 1
    expired = api.ask("GetRecords", ShardIterator=iterator)
    assert expired["__type"] == "com.amazonaws.dynamodb.v20120810#ExpiredIteratorException"
    assert "tolerated delay of 900000 milliseconds" in expired["message"]
    assert api.ask("GetRecords", ShardIterator="nonsense")["__type"].endswith("#ValidationException")
    assert api.ask("GetRecords", ShardIterator=api.iterator(), Limit=1001)["__type"].endswith("#ValidationException")
    missing = api.ask("DescribeStream", StreamArn=api.arn + "x")
    assert missing["__type"].endswith("#ResourceNotFoundException")
    assert api.ask("Nonsense")["__type"].endswith("#UnknownOperationException")


# -- time ----------------------------------------------------------------------------------------------


def test_shards_roll_over_and_name_their_parents() -> None:
    """
    ::

        hours   0         4         8
        shard   |-- 1 ----|-- 2 ----|-- 3 --
    """
    api = Api()
    for _ in range(3):
        api.put(Id={"N": str(api.now)})
        api.now += ROLLOVER_S
    shards = api.shards()
    assert [shard.get("ParentShardId") for shard in shards] == [None, *(one["ShardId"] for one in shards[:-1])]
    assert all(28 <= len(shard["ShardId"]) <= 65 for shard in shards)
    assert ["EndingSequenceNumber" in shard["SequenceNumberRange"] for shard in shards] == [True, True, True, False]
    first = api.ask("GetRecords", ShardIterator=api.iterator(shard=0))
    assert len(first["Records"]) == 1
    assert "NextShardIterator" not in first
    children = api.ask(
        "DescribeStream", StreamArn=api.arn, ShardFilter={"Type": "CHILD_SHARDS", "ShardId": shards[0]["ShardId"]}
    )["StreamDescription"]["Shards"]
    assert [one["ShardId"] for one in children] == [shards[1]["ShardId"]]


def test_a_day_ends_records_and_their_memory() -> None:
    api = Api()
    api.put(Id={"N": "1"})
    number = api.records()[0]["dynamodb"]["SequenceNumber"]
    old = api.iterator()
    api.now += 10
    api.put(Id={"N": "2"})
    api.now += 24 * HOUR_S - 5
    trimmed = api.ask("GetShardIterator", StreamArn=api.arn, ShardId=api.shards()[0]["ShardId"],
                      ShardIteratorType="AT_SEQUENCE_NUMBER", SequenceNumber=number)  # fmt: skip
    assert trimmed["__type"].endswith("#TrimmedDataAccessException")
    assert len(api.records()) == 1
    assert "__type" in api.ask("GetRecords", ShardIterator=old)
    api.now += 24 * HOUR_S
    api.api.sweep()
    stream = api.api._tables.streams.by_arn[api.arn]
    assert sum(len(shard.records) for shard in stream.shards) == 0
    assert all("EndingSequenceNumber" in shard["SequenceNumberRange"] for shard in api.shards()[:-1])


def test_a_stream_that_was_switched_off_stays_readable_for_a_day() -> None:
    api = Api()
    api.put(Id={"N": "1"})
    api("UpdateTable", TableName="races", StreamSpecification={"StreamEnabled": False})
    api.put(Id={"N": "2"})
    described = api.ask("DescribeStream", StreamArn=api.arn)["StreamDescription"]
    assert described["StreamStatus"] == "DISABLED"
    assert len(api.records()) == 1
    api.now += 24 * HOUR_S + 1
    assert api.ask("DescribeStream", StreamArn=api.arn)["__type"].endswith("#ResourceNotFoundException")


def test_streams_are_listed_by_table_and_page() -> None:
    api = Api()
    first = api.arn
    api("UpdateTable", TableName="races", StreamSpecification={"StreamEnabled": False})
    api.now += 60
    api("UpdateTable", TableName="races",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"})  # fmt: skip
    second = api("DescribeTable", TableName="races")["Table"]["LatestStreamArn"]
    assert first != second
    page = api.ask("ListStreams", TableName="races", Limit=1)
    rest = api.ask("ListStreams", TableName="races", ExclusiveStartStreamArn=page["LastEvaluatedStreamArn"])
    assert sorted(one["StreamArn"] for one in page["Streams"] + rest["Streams"]) == sorted([first, second])
    assert api.ask("ListStreams", TableName="other")["Streams"] == []


def test_over_real_sockets_with_boto3(cloud: CloudProcess, stream: str) -> None:
    tables, streams = cloud.client("dynamodb"), cloud.client("dynamodbstreams")
    tables.create_table(
        TableName=stream,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
    )
    tables.put_item(TableName=stream, Item={"id": {"S": "a"}, "b": {"B": b"\x00\xff"}})
    (listed,) = streams.list_streams(TableName=stream)["Streams"]
    (shard,) = streams.describe_stream(StreamArn=listed["StreamArn"])["StreamDescription"]["Shards"]
    iterator = streams.get_shard_iterator(
        StreamArn=listed["StreamArn"], ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    (record,) = streams.get_records(ShardIterator=iterator)["Records"]
    assert record["dynamodb"]["NewImage"] == {"id": {"S": "a"}, "b": {"B": b"\x00\xff"}}
    tables.close()
    streams.close()
