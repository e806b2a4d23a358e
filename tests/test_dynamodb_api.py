"""The DynamoDB front through a real boto3 client, without sockets: botocore parses every answer here."""

from __future__ import annotations

import binascii
import io
import itertools
import json
import uuid
from collections.abc import Iterator
from typing import Any

import boto3
import orjson
import pytest
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.exceptions import ClientError

from simulator.cloud.dynamodb import INDEX_THROTTLED, TABLE_THROTTLED
from simulator.cloud.dynamodb_api import DynamoDBApi
from simulator.cloud.item_size import item_size
from simulator.cloud.limits import LimitSettings
from simulator.cloud.metrics import Metrics
from simulator.cloud.moto_store import MotoStore

REGION = "us-east-1"
PLENTY = 100_000


class Raw(io.BytesIO):
    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self.read()


class Cloud:
    """The front, a boto3 client that talks to it, and a clock in hand."""

    def __init__(self, settings: LimitSettings | None = None) -> None:
        self.now = 1_795_000_000.0
        self.metrics = Metrics()
        self.api = DynamoDBApi(
            MotoStore(), settings=settings or LimitSettings(), metrics=self.metrics, clock=lambda: self.now
        )
        session = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name=REGION)
        config = Config(retries={"total_max_attempts": 1})
        self.client = session.client("dynamodb", config=config)
        self.client.meta.events.register("before-send.dynamodb", self._send)
        self.table = f"alleycat-races-{uuid.uuid4().hex[:8]}"
        self.arn = f"arn:aws:dynamodb:{REGION}:123456789012:table/{self.table}"

    def _send(self, request: Any, **_: Any) -> AWSResponse:
        target = request.headers["X-Amz-Target"]
        target = target.decode() if isinstance(target, bytes) else target
        answer = self.api.handle(target, request.body, REGION, dict(request.headers))
        assert int(answer.headers["x-amz-crc32"]) == binascii.crc32(answer.body)
        return AWSResponse(request.url, answer.status, answer.headers, Raw(answer.body))

    def create(self, wcu: int = PLENTY, rcu: int = PLENTY, gsi_wcu: int = PLENTY, gsi_rcu: int = PLENTY) -> None:
        """The table of the design: PK, SK; an LSI and a GSI that project everything; a stream."""
        self.client.create_table(
            TableName=self.table,
            KeySchema=keys("PK", "SK"),
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("PK", "SK", "GSI")],
            ProvisionedThroughput={"ReadCapacityUnits": rcu, "WriteCapacityUnits": wcu},
            LocalSecondaryIndexes=[
                {
                    "IndexName": "GSI_PK_Index",
                    "KeySchema": keys("PK", "GSI"),
                    "Projection": {"ProjectionType": "ALL"},
                }
            ],
            GlobalSecondaryIndexes=[
                {
                    "IndexName": "GSI_Index",
                    "KeySchema": keys("GSI", "SK"),
                    "Projection": {"ProjectionType": "ALL"},
                    "ProvisionedThroughput": {"ReadCapacityUnits": gsi_rcu, "WriteCapacityUnits": gsi_wcu},
                }
            ],
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        )

    def put(self, sk: str, size_bytes: int | None = None, gsi: str | None = "1", **request: Any) -> Any:
        return self.client.put_item(TableName=self.table, Item=item(sk, size_bytes, gsi), **request)

    def get(self, sk: str, **request: Any) -> Any:
        return self.client.get_item(TableName=self.table, Key=key(sk), **request)

    def saved(self, direction: str = "write", index: str | None = None) -> float:
        levels = self.api.describe_capacity(self.now)[self.arn]
        level = next(level for level in levels if level.index_name == index)
        return level.saved_write if direction == "write" else level.saved_read

    def stream_records(self) -> list[dict[str, Any]]:
        """What the table's stream has, asked through its own API."""

        def call(operation: str, **body: Any) -> Any:
            answer = self.api.handle_streams(operation, orjson.dumps(body), REGION)
            assert answer.status == 200, answer.body
            return json.loads(answer.body)

        arn = self.client.describe_table(TableName=self.table)["Table"]["LatestStreamArn"]
        shard_id = call("DescribeStream", StreamArn=arn)["StreamDescription"]["Shards"][0]["ShardId"]
        iterator = call("GetShardIterator", StreamArn=arn, ShardId=shard_id, ShardIteratorType="TRIM_HORIZON")
        return list(call("GetRecords", ShardIterator=iterator["ShardIterator"])["Records"])

    def metric(self, name: str, index: str | None = None, **dimensions: str) -> float:
        told = {"TableName": self.table, **dimensions}
        if index:
            told["GlobalSecondaryIndexName"] = index
        return self.metrics.total("AWS/DynamoDB", name, tuple(told.items()))


def keys(hash_key: str, range_key: str) -> list[dict[str, str]]:
    return [
        {"AttributeName": hash_key, "KeyType": "HASH"},
        {"AttributeName": range_key, "KeyType": "RANGE"},
    ]


def key(sk: str) -> dict[str, Any]:
    return {"PK": {"S": "race-1"}, "SK": {"S": sk}}


def item(sk: str, size_bytes: int | None = None, gsi: str | None = "1") -> dict[str, Any]:
    made: dict[str, Any] = {**key(sk), "v": {"N": "1"}}
    if gsi is not None:
        made["GSI"] = {"S": gsi}
    if size_bytes is not None:
        made["fill"] = {"S": "x" * (size_bytes - item_size(made) - len("fill"))}
        assert item_size(made) == size_bytes
    return made


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


def refused(raised: pytest.ExceptionInfo[ClientError]) -> tuple[str, str, list[dict[str, str]]]:
    response = raised.value.response
    return response["Error"]["Code"], response["Error"]["Message"], response.get("ThrottlingReasons", [])


# -- writes ------------------------------------------------------------------------------------------


def test_a_14_kb_item_costs_14_on_table_lsi_and_gsi(cloud: Cloud) -> None:
    cloud.create()
    told = cloud.put("results", 14 * 1024, ReturnConsumedCapacity="INDEXES")["ConsumedCapacity"]
    assert told == {
        "TableName": cloud.table,
        "CapacityUnits": 42.0,
        "Table": {"CapacityUnits": 14.0},
        "LocalSecondaryIndexes": {"GSI_PK_Index": {"CapacityUnits": 14.0}},
        "GlobalSecondaryIndexes": {"GSI_Index": {"CapacityUnits": 14.0}},
    }
    assert cloud.saved() == PLENTY - 28
    assert cloud.saved(index="GSI_Index") == PLENTY - 14
    assert cloud.metric("ConsumedWriteCapacityUnits") == 28
    assert cloud.metric("ConsumedWriteCapacityUnits", "GSI_Index") == 14


def test_consumed_capacity_is_told_as_asked(cloud: Cloud) -> None:
    cloud.create()
    assert "ConsumedCapacity" not in cloud.put("a")
    total = {"TableName": cloud.table, "CapacityUnits": 2.0}
    assert cloud.put("b", gsi=None, ReturnConsumedCapacity="TOTAL")["ConsumedCapacity"] == total | {
        "CapacityUnits": 1.0
    }
    update = {"TableName": cloud.table, "Key": key("b"), "UpdateExpression": "ADD v :one"}
    values = {":one": {"N": "1"}}
    assert "ConsumedCapacity" not in cloud.client.update_item(**update, ExpressionAttributeValues=values)
    with pytest.raises(ClientError, match=r"Member must satisfy enum value set: \[INDEXES, TOTAL, NONE\]"):
        cloud.put("c", ReturnConsumedCapacity="ALL")


def test_a_starved_index_throttles_the_base_write_without_a_trace(cloud: Cloud) -> None:
    cloud.create(wcu=20, gsi_wcu=1)
    cloud.put("racer-1", 600)
    table_level, before = cloud.saved(), cloud.get("racer-1")["Item"]
    with pytest.raises(ClientError) as raised:
        cloud.client.update_item(
            TableName=cloud.table,
            Key=key("racer-1"),
            UpdateExpression="SET v = :v",
            ExpressionAttributeValues={":v": {"N": "2"}},
        )
    reason = {
        "reason": "IndexWriteProvisionedThroughputExceeded",
        "resource": f"{cloud.arn}/index/GSI_Index",
    }
    assert refused(raised) == ("ProvisionedThroughputExceededException", INDEX_THROTTLED, [reason])
    assert cloud.get("racer-1")["Item"] == before
    assert cloud.saved() == table_level
    assert len(cloud.stream_records()) == 1
    assert cloud.metric("WriteThrottleEvents", "GSI_Index") == 1
    assert cloud.metric("WriteThrottleEvents") == 0
    assert cloud.metric("ThrottledRequests", Operation="UpdateItem") == 1
    cloud.now += 1
    cloud.put("racer-1", 700)
    assert len(cloud.stream_records()) == 2


@pytest.mark.parametrize("operation", ["put_item", "delete_item"])
def test_a_starved_table_throttles_in_its_own_words(cloud: Cloud, operation: str) -> None:
    cloud.create(wcu=2)
    cloud.put("racer-1", gsi=None)
    cloud.put("racer-2", gsi=None)
    arguments = {"Item": item("racer-1", 300, gsi=None)} if operation == "put_item" else {"Key": key("racer-1")}
    with pytest.raises(ClientError) as raised:
        getattr(cloud.client, operation)(TableName=cloud.table, **arguments)
    reason = {"reason": "TableWriteProvisionedThroughputExceeded", "resource": cloud.arn}
    assert refused(raised) == ("ProvisionedThroughputExceededException", TABLE_THROTTLED, [reason])
    assert cloud.get("racer-1")["Item"] == item("racer-1", gsi=None)


def test_an_update_is_charged_by_the_larger_image(cloud: Cloud) -> None:
    cloud.create()
    cloud.put("r", 5 * 1024, gsi=None)

    def update(expression: str, **values: Any) -> float:
        told = cloud.client.update_item(
            TableName=cloud.table,
            Key=key("r"),
            UpdateExpression=expression,
            ReturnConsumedCapacity="TOTAL",
            **({"ExpressionAttributeValues": {f":{name}": value for name, value in values.items()}} if values else {}),
        )
        return float(told["ConsumedCapacity"]["CapacityUnits"])

    assert update("SET v = v + :one", one={"N": "1"}) == 5
    assert update("SET fill = :fill", fill={"S": "x" * 8000}) == 8
    assert update("REMOVE fill") == 8
    assert update("SET v = :v", v={"N": "0"}) == 1
    assert cloud.get("r")["Item"] == {**key("r"), "v": {"N": "0"}}


def test_moving_an_index_key_costs_two_index_writes_on_each_index(cloud: Cloud) -> None:
    cloud.create()
    cloud.put("r", 1500, gsi="1")
    told = cloud.put("r", 1500, gsi="2", ReturnConsumedCapacity="INDEXES")["ConsumedCapacity"]
    assert told["CapacityUnits"] == 2 + 4 + 4
    again = cloud.put("r", 1500, gsi="2", ReturnConsumedCapacity="INDEXES")["ConsumedCapacity"]
    assert again == {"TableName": cloud.table, "CapacityUnits": 2.0, "Table": {"CapacityUnits": 2.0}}


def test_deletes_are_charged_by_what_they_delete(cloud: Cloud) -> None:
    cloud.create()
    cloud.put("r", 2500)

    def delete() -> Any:
        return cloud.client.delete_item(
            TableName=cloud.table, Key=key("r"), ReturnConsumedCapacity="TOTAL", ReturnValues="ALL_OLD"
        )

    first = delete()
    assert first["ConsumedCapacity"]["CapacityUnits"] == 9
    assert first["Attributes"] == item("r", 2500)
    second = delete()
    assert second["ConsumedCapacity"]["CapacityUnits"] == 1
    assert "Attributes" not in second
    assert [record["eventName"] for record in cloud.stream_records()] == ["INSERT", "REMOVE"]


def test_a_failed_condition_pays_for_the_item_and_needs_the_capacity(cloud: Cloud) -> None:
    cloud.create(wcu=9)
    cloud.put("r", 3000, gsi=None)
    condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(PK)"}
    with pytest.raises(ClientError, match="The conditional request failed") as raised:
        cloud.put("r", **condition, ReturnValuesOnConditionCheckFailure="ALL_OLD")
    assert raised.value.response["Item"] == item("r", 3000, gsi=None)
    assert cloud.saved() == 3
    with pytest.raises(ClientError, match="ConditionalCheckFailedException"):
        cloud.client.update_item(
            TableName=cloud.table,
            Key=key("nobody"),
            UpdateExpression="SET v = :v",
            ConditionExpression="v < :v",
            ExpressionAttributeValues={":v": {"N": "1"}},
        )
    assert cloud.saved() == 2
    with pytest.raises(ClientError, match="ProvisionedThroughputExceededException"):
        cloud.put("r", **condition)
    assert cloud.metric("ConditionalCheckFailedRequests") == 2
    assert len(cloud.stream_records()) == 1


def test_stream_records_carry_their_exact_size_and_unchanged_writes_leave_none(cloud: Cloud) -> None:
    cloud.create()
    cloud.client.update_item(
        TableName=cloud.table,
        Key=key("r"),
        UpdateExpression="SET GSI = :g",
        ExpressionAttributeValues={":g": {"S": "1"}},
    )
    after = {**key("r"), "GSI": {"S": "1"}}
    cloud.client.put_item(TableName=cloud.table, Item=after)
    (record,) = cloud.stream_records()
    assert record["eventName"] == "INSERT"
    assert record["eventVersion"] == "1.1"
    assert record["dynamodb"]["NewImage"] == after
    assert record["dynamodb"]["Keys"] == key("r")
    assert record["dynamodb"]["SizeBytes"] == item_size(key("r")) + item_size(after)


def test_errors_of_the_store_pass_verbatim_and_cost_nothing(cloud: Cloud) -> None:
    cloud.create(wcu=5)
    with pytest.raises(ClientError, match="Missing the key SK in the item"):
        cloud.client.put_item(TableName=cloud.table, Item={"PK": {"S": "race-1"}})
    with pytest.raises(ClientError, match="Invalid UpdateExpression: Syntax error"):
        cloud.client.update_item(TableName=cloud.table, Key=key("r"), UpdateExpression="SET")
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        cloud.client.put_item(TableName="nowhere", Item=item("r"))
    with pytest.raises(ClientError, match="ResourceInUseException"):
        cloud.create()
    assert cloud.saved() == 5


def test_binary_numbers_sets_and_documents_survive(cloud: Cloud) -> None:
    cloud.create()
    made = item("all") | {
        "b": {"B": b"\x00\xff"},
        "bs": {"BS": [b"a", b"bc"]},
        "doc": {"M": {"deep": {"L": [{"N": "1.5"}, {"B": b"z"}, {"NULL": True}, {"BOOL": False}]}}},
        "ns": {"NS": ["1", "2"]},
    }
    told = cloud.client.put_item(TableName=cloud.table, Item=made, ReturnConsumedCapacity="TOTAL")
    assert told["ConsumedCapacity"]["CapacityUnits"] == 3
    cloud.client.update_item(
        TableName=cloud.table,
        Key=key("all"),
        UpdateExpression="SET doc.deep[0] = :n",
        ExpressionAttributeValues={":n": {"N": "2"}},
    )
    made["doc"]["M"]["deep"]["L"][0] = {"N": "2"}
    assert cloud.get("all")["Item"] == made
    assert cloud.stream_records()[-1]["dynamodb"]["OldImage"]["doc"]["M"]["deep"]["L"][0] == {"N": "1.5"}


# -- reads -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("consistent", "sk", "units"),
    [(True, "r", 2.0), (False, "r", 1.0), (True, "nobody", 1.0), (False, "nobody", 0.5)],
)
def test_get_item(cloud: Cloud, consistent: bool, sk: str, units: float) -> None:
    cloud.create(rcu=2)
    cloud.put("r", 5000)
    told = cloud.get(sk, ConsistentRead=consistent, ReturnConsumedCapacity="TOTAL", ProjectionExpression="v")
    assert told["ConsumedCapacity"] == {"TableName": cloud.table, "CapacityUnits": units}
    assert told.get("Item") == ({"v": {"N": "1"}} if sk == "r" else None)
    assert cloud.saved("read") == 2 - units
    assert cloud.metric("ConsumedReadCapacityUnits") == units


def test_query_sums_what_it_evaluated_and_rounds_up_once(cloud: Cloud) -> None:
    cloud.create()
    for number in range(10):
        cloud.put(f"racer-{number}", 1000, gsi=str(number))
    query = {
        "TableName": cloud.table,
        "KeyConditionExpression": "PK = :pk",
        "ExpressionAttributeValues": {":pk": {"S": "race-1"}},
        "ReturnConsumedCapacity": "INDEXES",
    }
    told = cloud.client.query(**query, ConsistentRead=True)
    assert told["ConsumedCapacity"]["CapacityUnits"] == 3  # 10,000 bytes
    query["ExpressionAttributeValues"] = {":pk": {"S": "race-1"}, ":g": {"S": "7"}}
    told = cloud.client.query(**query, FilterExpression="GSI = :g", ProjectionExpression="SK")
    assert (told["Count"], told["ScannedCount"]) == (1, 10)
    assert told["Items"] == [{"SK": {"S": "racer-7"}}]
    assert told["ConsumedCapacity"] == {
        "TableName": cloud.table,
        "CapacityUnits": 1.5,
        "Table": {"CapacityUnits": 1.5},
    }
    scanned = cloud.client.scan(TableName=cloud.table, ReturnConsumedCapacity="TOTAL", Limit=5)
    assert scanned["ConsumedCapacity"]["CapacityUnits"] == 1.0
    assert len(scanned["Items"]) == 5
    filtered = cloud.client.scan(
        TableName=cloud.table,
        ReturnConsumedCapacity="TOTAL",
        Select="COUNT",
        FilterExpression="GSI = :g",
        ExpressionAttributeValues={":g": {"S": "none"}},
    )
    assert (filtered["Count"], filtered["ConsumedCapacity"]["CapacityUnits"]) == (0, 1.5)


def test_an_index_is_read_from_the_bucket_that_pays_for_it(cloud: Cloud) -> None:
    cloud.create(rcu=10, gsi_rcu=5)
    for number in range(8):
        cloud.put(f"racer-{number}", 1000, gsi=str(number % 2))
    cloud.client.put_item(TableName=cloud.table, Item={**key("x"), "PK": {"S": "race-2"}, "GSI": {"S": "0"}})
    by_class = {
        "TableName": cloud.table,
        "IndexName": "GSI_Index",
        "KeyConditionExpression": "GSI = :g AND begins_with(SK, :sk)",
        "ExpressionAttributeValues": {":g": {"S": "0"}, ":sk": {"S": "racer-"}},
        "ReturnConsumedCapacity": "INDEXES",
    }
    told = cloud.client.query(**by_class)
    assert [found["SK"]["S"] for found in told["Items"]] == ["racer-0", "racer-2", "racer-4", "racer-6"]
    assert told["ConsumedCapacity"] == {
        "TableName": cloud.table,
        "CapacityUnits": 0.5,
        "Table": {"CapacityUnits": 0.0},
        "GlobalSecondaryIndexes": {"GSI_Index": {"CapacityUnits": 0.5}},
    }
    assert (cloud.saved("read"), cloud.saved("read", "GSI_Index")) == (10, 4.5)
    told = cloud.client.query(
        TableName=cloud.table,
        IndexName="GSI_PK_Index",
        KeyConditionExpression="PK = :pk AND GSI > :g",
        ExpressionAttributeValues={":pk": {"S": "race-1"}, ":g": {"S": "0"}},
        ScanIndexForward=False,
        ConsistentRead=True,
        ReturnConsumedCapacity="INDEXES",
    )
    assert told["Count"] == 4
    assert told["ConsumedCapacity"]["LocalSecondaryIndexes"] == {"GSI_PK_Index": {"CapacityUnits": 1.0}}
    assert (cloud.saved("read"), cloud.saved("read", "GSI_Index")) == (9, 4.5)
    assert cloud.metric("ConsumedReadCapacityUnits", "GSI_Index") == 0.5
    with pytest.raises(ClientError, match="Consistent reads are not supported on global secondary indexes"):
        cloud.client.query(**by_class, ConsistentRead=True)
    assert cloud.saved("read", "GSI_Index") == 4.5


def test_a_query_pages_through_an_index_as_the_store_does(cloud: Cloud) -> None:
    cloud.create()
    for number in range(7):
        cloud.put(f"racer-{number}")
    pages = cloud.client.get_paginator("query").paginate(
        TableName=cloud.table,
        IndexName="GSI_Index",
        KeyConditionExpression="GSI = :g",
        ExpressionAttributeValues={":g": {"S": "1"}},
        PaginationConfig={"PageSize": 3},
    )
    found = [[entry["SK"]["S"][-1] for entry in page["Items"]] for page in pages]
    assert list(itertools.chain(*found)) == list("0123456")
    assert [len(page) for page in found][:2] == [3, 3]


def test_reads_are_throttled(cloud: Cloud) -> None:
    cloud.create(rcu=1)
    cloud.get("a", ConsistentRead=True)
    with pytest.raises(ClientError) as raised:
        cloud.get("a")
    reason = {"reason": "TableReadProvisionedThroughputExceeded", "resource": cloud.arn}
    assert refused(raised) == ("ProvisionedThroughputExceededException", TABLE_THROTTLED, [reason])
    assert cloud.metric("ReadThrottleEvents") == 1
    cloud.now += 0.5
    cloud.get("a")


# -- batches -----------------------------------------------------------------------------------------


def put_requests(*sks: str, size_bytes: int | None = None) -> list[dict[str, Any]]:
    return [{"PutRequest": {"Item": item(sk, size_bytes, gsi=None)}} for sk in sks]


def test_batch_write_returns_what_was_throttled(cloud: Cloud) -> None:
    cloud.create(wcu=5)
    requests = put_requests("a", "b", "c", size_bytes=2000)
    told = cloud.client.batch_write_item(RequestItems={cloud.table: requests}, ReturnConsumedCapacity="INDEXES")
    assert told["UnprocessedItems"] == {cloud.table: requests[2:]}
    assert told["ConsumedCapacity"] == [
        {"TableName": cloud.table, "CapacityUnits": 4.0, "Table": {"CapacityUnits": 4.0}}
    ]
    assert "Item" in cloud.get("b")
    assert "Item" not in cloud.get("c")
    assert len(cloud.stream_records()) == 2
    assert cloud.metric("WriteThrottleEvents") == 1
    assert cloud.metric("ThrottledRequests", Operation="BatchWriteItem") == 0


def test_batch_write_fails_only_when_nothing_was_processed(cloud: Cloud) -> None:
    cloud.create(wcu=1)
    with pytest.raises(ClientError) as raised:
        cloud.client.batch_write_item(RequestItems={cloud.table: put_requests("a", "b", size_bytes=2000)})
    assert refused(raised)[0] == "ProvisionedThroughputExceededException"
    assert cloud.stream_records() == []
    assert cloud.metric("ThrottledRequests", Operation="BatchWriteItem") == 1
    assert cloud.metric("WriteThrottleEvents") == 2


def test_batch_write_checks_the_whole_call_first(cloud: Cloud) -> None:
    cloud.create()
    twice = [*put_requests("a"), {"DeleteRequest": {"Key": key("a")}}]
    with pytest.raises(ClientError, match="Provided list of item keys contains duplicates"):
        cloud.client.batch_write_item(RequestItems={cloud.table: twice})
    with pytest.raises(ClientError, match="Map value must satisfy constraint: .Member must have length less"):
        cloud.client.batch_write_item(RequestItems={cloud.table: put_requests(*map(str, range(26)))})
    half_bad = [*put_requests("a"), {"PutRequest": {"Item": {"PK": {"S": "race-1"}}}}]
    with pytest.raises(ClientError, match="Missing the key SK"):
        cloud.client.batch_write_item(RequestItems={cloud.table: half_bad})
    assert cloud.client.scan(TableName=cloud.table)["Count"] == 0
    assert cloud.saved() == PLENTY


def test_batch_write_deletes_too(cloud: Cloud) -> None:
    cloud.create()
    cloud.put("old", 2500, gsi=None)
    told = cloud.client.batch_write_item(
        RequestItems={cloud.table: [*put_requests("new"), {"DeleteRequest": {"Key": key("old")}}]},
        ReturnConsumedCapacity="TOTAL",
    )
    assert told["ConsumedCapacity"] == [{"TableName": cloud.table, "CapacityUnits": 4.0}]
    assert told["UnprocessedItems"] == {}
    assert [found["SK"]["S"] for found in cloud.client.scan(TableName=cloud.table)["Items"]] == ["new"]


def test_batch_get_rounds_each_item_and_returns_what_was_throttled(cloud: Cloud) -> None:
    cloud.create(rcu=3)
    for sk in "abc":
        cloud.put(sk, 5000)
    request = {"Keys": [key(sk) for sk in "abc"], "ProjectionExpression": "v", "ConsistentRead": True}
    told = cloud.client.batch_get_item(RequestItems={cloud.table: request}, ReturnConsumedCapacity="TOTAL")
    assert told["Responses"] == {cloud.table: [{"v": {"N": "1"}}]}
    assert told["UnprocessedKeys"] == {cloud.table: {**request, "Keys": [key("b"), key("c")]}}
    assert told["ConsumedCapacity"] == [{"TableName": cloud.table, "CapacityUnits": 2.0}]
    with pytest.raises(ClientError, match="ProvisionedThroughputExceededException"):
        cloud.client.batch_get_item(RequestItems={cloud.table: request})
    cloud.now += 2
    request["ConsistentRead"] = False
    told = cloud.client.batch_get_item(RequestItems={cloud.table: request})
    assert len(told["Responses"][cloud.table]) == 3
    assert told["UnprocessedKeys"] == {}


# -- transactions ------------------------------------------------------------------------------------


def test_transactions_pay_twice_and_write_all_or_nothing(cloud: Cloud) -> None:
    cloud.create(wcu=10, gsi_wcu=10)
    cloud.put("old", gsi=None)

    def transact(sk: str) -> Any:
        puts = {"Put": {"TableName": cloud.table, "Item": item(sk, 1500, gsi=None)}}
        check = {
            "TableName": cloud.table,
            "Key": key("old"),
            "ConditionExpression": "v = :v",
            "ExpressionAttributeValues": {":v": {"N": "1"}},
        }
        return cloud.client.transact_write_items(
            TransactItems=[puts, {"ConditionCheck": check}], ReturnConsumedCapacity="TOTAL"
        )

    told = transact("new")
    assert told["ConsumedCapacity"] == [{"TableName": cloud.table, "CapacityUnits": 6.0, "WriteCapacityUnits": 6.0}]
    assert cloud.saved() == 3
    with pytest.raises(ClientError) as raised:
        transact("newer")
    response = raised.value.response
    assert response["Error"]["Code"] == "TransactionCanceledException"
    assert response["Error"]["Message"] == (
        "Transaction cancelled, please refer cancellation reasons for specific reasons "
        "[ProvisionedThroughputExceeded, ProvisionedThroughputExceeded]"
    )
    assert response["CancellationReasons"][0] == {
        "Code": "ProvisionedThroughputExceeded",
        "Message": TABLE_THROTTLED,
    }
    assert cloud.saved() == 3
    assert "Item" not in cloud.get("newer")
    assert len(cloud.stream_records()) == 2


def test_a_cancelled_transaction_is_paid_and_leaves_nothing(cloud: Cloud) -> None:
    cloud.create(wcu=10)
    with pytest.raises(ClientError) as raised:
        cloud.client.transact_write_items(
            TransactItems=[
                {"Put": {"TableName": cloud.table, "Item": item("a", 1500, gsi=None)}},
                {
                    "Update": {
                        "TableName": cloud.table,
                        "Key": key("b"),
                        "UpdateExpression": "SET v = :v",
                        "ConditionExpression": "attribute_exists(PK)",
                        "ExpressionAttributeValues": {":v": {"N": "1"}},
                    }
                },
            ]
        )
    assert raised.value.response["CancellationReasons"] == [
        {"Code": "None"},
        {"Code": "ConditionalCheckFailed", "Message": "The conditional request failed"},
    ]
    assert cloud.saved() == 10 - 4 - 2
    assert cloud.client.scan(TableName=cloud.table)["Count"] == 0
    assert cloud.stream_records() == []


def test_transact_get(cloud: Cloud) -> None:
    cloud.create(rcu=6)
    cloud.put("a", 5000)
    gets = [{"Get": {"TableName": cloud.table, "Key": key(sk)}} for sk in ("a", "nobody")]
    told = cloud.client.transact_get_items(TransactItems=gets, ReturnConsumedCapacity="TOTAL")
    assert told["ConsumedCapacity"] == [{"TableName": cloud.table, "CapacityUnits": 6.0, "ReadCapacityUnits": 6.0}]
    assert [answer.get("Item", {}).get("SK") for answer in told["Responses"]] == [{"S": "a"}, None]
    with pytest.raises(ClientError, match=r"\[ProvisionedThroughputExceeded, ProvisionedThroughputExceeded\]"):
        cloud.client.transact_get_items(TransactItems=gets)


# -- tables, settings, the wire ----------------------------------------------------------------------


def test_update_table_takes_effect_at_once_and_a_deleted_table_is_forgotten(cloud: Cloud) -> None:
    cloud.create(wcu=1)
    cloud.client.update_table(
        TableName=cloud.table,
        ProvisionedThroughput={"ReadCapacityUnits": 5, "WriteCapacityUnits": 50},
        GlobalSecondaryIndexUpdates=[
            {
                "Update": {
                    "IndexName": "GSI_Index",
                    "ProvisionedThroughput": {"ReadCapacityUnits": 1, "WriteCapacityUnits": 7},
                }
            }
        ],
    )
    table, index = cloud.api.describe_capacity(cloud.now)[cloud.arn]
    assert (table.provisioned_write, table.capacity_write, table.saved_write) == (50, 15_000, 1)
    assert (index.index_name, index.provisioned_write, index.saved_write) == ("GSI_Index", 7, 7 * 300)
    cloud.now += 1
    assert cloud.saved() == 51
    assert orjson.loads(orjson.dumps(cloud.api.describe_capacity(cloud.now)))[cloud.arn][0]["saved_write"] == 51
    cloud.client.delete_table(TableName=cloud.table)
    assert cloud.arn not in cloud.api.describe_capacity(cloud.now)


def test_on_demand_tables_are_counted_and_never_throttled(cloud: Cloud) -> None:
    cloud.client.create_table(
        TableName=cloud.table,
        KeySchema=keys("PK", "SK"),
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("PK", "SK")],
        BillingMode="PAY_PER_REQUEST",
    )
    for number in range(50):
        cloud.put(str(number), 10_240)
    assert cloud.metric("ConsumedWriteCapacityUnits") == 500


def test_limits_off_counts_and_admits() -> None:
    cloud = Cloud(LimitSettings(enforced=False))
    cloud.create(wcu=1, gsi_wcu=1)
    for number in range(20):
        cloud.put(str(number), 2048)
    assert cloud.metric("ConsumedWriteCapacityUnits") == 80
    assert cloud.metric("ThrottledRequests", Operation="PutItem") == 0


def test_a_table_named_by_its_arn_is_the_same_table(cloud: Cloud) -> None:
    cloud.create(wcu=4)
    cloud.client.put_item(TableName=cloud.arn, Item=item("r", 1500, gsi=None))
    assert cloud.saved() == 2
    assert cloud.client.get_item(TableName=cloud.arn, Key=key("r"))["Item"] == item("r", 1500, gsi=None)


def test_a_table_that_came_by_another_way_is_limited_too(cloud: Cloud) -> None:
    request = {
        "TableName": cloud.table,
        "KeySchema": keys("PK", "SK"),
        "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in ("PK", "SK")],
        "ProvisionedThroughput": {"ReadCapacityUnits": 1, "WriteCapacityUnits": 2},
    }
    assert MotoStore().call("CreateTable", orjson.dumps(request), REGION).status == 200
    cloud.put("a", 2048)
    with pytest.raises(ClientError, match="ProvisionedThroughputExceededException"):
        cloud.put("b")


@pytest.mark.parametrize(
    ("operation", "body", "code", "text"),
    [
        ("PutItem", b"{", "SerializationException", "not JSON"),
        ("PutItem", b"[]", "SerializationException", "Expected an object"),
        ("PutItem", b"\xff\xfe", "SerializationException", "not JSON"),
        ("PutItem", b'{"TableName": 5, "Item": {}}', "SerializationException", "Expected a string, got 5"),
        ("PutItem", b'{"TableName": "t", "Item": 7}', "SerializationException", "Expected an object, got 7"),
        ("GetItem", b"{}", "ValidationException", "2 validation errors detected: Value null at 'tableName'"),
        ("BatchWriteItem", b'{"RequestItems": {"t": 1}}', "SerializationException", "Expected a list"),
        ("TransactGetItems", b'{"TransactItems": [{}]}', "ValidationException", "transactItems.1.member.get"),
        ("FlyToTheMoon", b"{}", "UnknownOperationException", "FlyToTheMoon"),
    ],
)
def test_bad_requests_get_one_clear_error(cloud: Cloud, operation: str, body: bytes, code: str, text: str) -> None:
    answer = cloud.api.handle(f"DynamoDB_20120810.{operation}", body, REGION, {})
    told = json.loads(answer.body)
    assert answer.status == 400
    assert told["__type"].rpartition("#")[2] == code
    assert text in told["message"]
    assert answer.headers["content-type"] == "application/x-amz-json-1.0"
    assert len(answer.headers["x-amzn-requestid"]) == 52


def test_what_trips_the_store_is_an_answer_and_no_traceback(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    cloud.create()
    items: tuple[Any, ...] = ({"PK": "plain"}, {"PK": {}}, {"PK": {"S": 5}, "SK": {"S": "x"}}, {"PK": {"B": "?"}})
    for bad in items:
        answer = cloud.api.handle("PutItem", orjson.dumps({"TableName": cloud.table, "Item": bad}), REGION, {})
        assert answer.status == 400
        assert b"essage" in answer.body
    body = orjson.dumps({"TableName": cloud.table, "GlobalSecondaryIndexUpdates": [{"Delete": {"IndexName": "none"}}]})
    answer = cloud.api.handle("UpdateTable", body, REGION, {})
    assert answer.status == 500
    assert b"The store failed at UpdateTable (ValueError" in answer.body
    assert "Traceback" not in capsys.readouterr().err
