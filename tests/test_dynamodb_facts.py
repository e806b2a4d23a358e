"""AWS as an outside oracle for DynamoDB: its worked examples, recorded answers and texts, and updates that meet.

What test_dynamodb_capacity.py, test_dynamodb_partitions.py and test_item_size.py hold already is not repeated.
"""

from __future__ import annotations

import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError
from conftest import client_of
from model_check import problems

from simulator.cloud import moto_store
from simulator.cloud.dynamodb_api import DynamoDBApi
from simulator.cloud.limits import LimitSettings
from simulator.cloud.metrics import Metrics
from simulator.cloud.moto_store import MotoStore
from simulator.cloud.server import CloudProcess

KB = 1024


class Api:
    """DynamoDB with one roomy table ``tbl`` (PK, SK; a local and a global index) under a clock that stands."""

    def __init__(self) -> None:
        moto_store.reset()
        self.now = 1_795_000_000.0
        self.metrics = Metrics()
        self.api = DynamoDBApi(MotoStore(), settings=LimitSettings(), metrics=self.metrics, clock=lambda: self.now)
        names = ("PK", "SK", "L", "G")
        keys = [{"AttributeName": "PK", "KeyType": "HASH"}, {"AttributeName": "SK", "KeyType": "RANGE"}]
        local = [keys[0], {"AttributeName": "L", "KeyType": "RANGE"}]
        units = {"ReadCapacityUnits": 9000, "WriteCapacityUnits": 9000}
        self(
            "CreateTable",
            TableName="tbl",
            KeySchema=keys,
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in names],
            ProvisionedThroughput=units,
            LocalSecondaryIndexes=[
                {"IndexName": "local", "KeySchema": local, "Projection": {"ProjectionType": "KEYS_ONLY"}}
            ],
            GlobalSecondaryIndexes=[
                {
                    "IndexName": "global",
                    "KeySchema": [{"AttributeName": "G", "KeyType": "HASH"}],
                    "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["shown"]},
                    "ProvisionedThroughput": units,
                }
            ],
        )

    def __call__(self, operation: str, **members: Any) -> dict[str, Any]:
        self.now += 60
        answer = self.api.handle(operation, json.dumps(members).encode(), "us-east-1")
        told = dict(json.loads(answer.body))
        if answer.status == 200:
            assert problems("dynamodb", operation, told) == []
        else:
            assert told["__type"].startswith("com.amazon"), told
            assert "#" in told["__type"]
        return told

    def units(self, operation: str, **members: Any) -> dict[str, Any]:
        told = self(operation, ReturnConsumedCapacity="INDEXES", **members)["ConsumedCapacity"]
        return dict(told[0] if isinstance(told, list) else told)


@pytest.fixture
def call() -> Api:
    return Api()


def item(pk: str = "a", nbytes: int = 0, **more: str) -> dict[str, Any]:
    found = {"PK": {"S": pk}, "SK": {"S": "1"}, **{name: {"S": value} for name, value in more.items()}}
    size = sum(len(name) + len(value["S"]) for name, value in found.items())
    if nbytes:
        found["f"] = {"S": "x" * (nbytes - size - 1)}
    return found


KEY = {"PK": {"S": "a"}, "SK": {"S": "1"}}


# -- what it costs -------------------------------------------------------------------------------------


def test_reads_by_their_consistency(call: Api) -> None:
    """read-write-operations: 4 KB a unit, half of it when eventually consistent; what is not there costs a read."""
    call("PutItem", TableName="tbl", Item=item(nbytes=6 * KB))
    read = {"TableName": "tbl", "Key": KEY}
    assert call.units("GetItem", **read)["CapacityUnits"] == 1
    assert call.units("GetItem", **read, ConsistentRead=True)["CapacityUnits"] == 2
    transaction = call("TransactGetItems", TransactItems=[{"Get": read}], ReturnConsumedCapacity="TOTAL")
    assert transaction["ConsumedCapacity"] == [{"TableName": "tbl", "CapacityUnits": 4, "ReadCapacityUnits": 4}]
    missing = {"TableName": "tbl", "Key": {"PK": {"S": "z"}, "SK": {"S": "z"}}}
    assert call.units("GetItem", **missing)["CapacityUnits"] == 0.5
    assert call.units("GetItem", **missing, ConsistentRead=True)["CapacityUnits"] == 1


def test_a_query_sums_then_rounds_a_batch_rounds_each(call: Api) -> None:
    """read-write-operations: Query adds item sizes up and rounds once; BatchGetItem rounds every item."""
    for number in range(4):
        call("PutItem", TableName="tbl", Item={**item(nbytes=1536), "SK": {"S": str(number)}})
    query = call.units(
        "Query", TableName="tbl", ConsistentRead=True, KeyConditionExpression="PK = :p",
        ExpressionAttributeValues={":p": {"S": "a"}},
    )  # fmt: skip
    assert query["CapacityUnits"] == 2  # 6 KB
    keys = [{"PK": {"S": "a"}, "SK": {"S": str(number)}} for number in range(4)]
    batch = call.units("BatchGetItem", RequestItems={"tbl": {"Keys": keys, "ConsistentRead": True}})
    assert batch["CapacityUnits"] == 4
    filtered = call.units(
        "Scan", TableName="tbl", ConsistentRead=True, FilterExpression="G = :s",
        ExpressionAttributeValues={":s": {"S": "nothing"}},
    )  # fmt: skip
    assert filtered["CapacityUnits"] == 2  # a filter saves nothing


def test_writes_by_the_larger_image_and_failed_conditions_by_the_item(call: Api) -> None:
    """read-write-operations: put and update pay for the larger of before and after, delete for what it deletes."""
    assert call.units("PutItem", TableName="tbl", Item=item(nbytes=3 * KB))["CapacityUnits"] == 3
    update = {"TableName": "tbl", "Key": KEY, "ExpressionAttributeValues": {":x": {"S": "y"}}}
    assert call.units("UpdateItem", **update, UpdateExpression="SET tiny = :x")["CapacityUnits"] == 4
    before = call.metrics.total("AWS/DynamoDB", "ConsumedWriteCapacityUnits", (("TableName", "tbl"),))
    refused = call(
        "UpdateItem", **update, UpdateExpression="SET tiny = :x", ConditionExpression="attribute_not_exists(PK)"
    )
    assert refused["message"] == "The conditional request failed"
    after = call.metrics.total("AWS/DynamoDB", "ConsumedWriteCapacityUnits", (("TableName", "tbl"),))
    assert after - before == 4
    assert call.units("DeleteItem", TableName="tbl", Key=KEY)["CapacityUnits"] == 4
    assert call.units("DeleteItem", TableName="tbl", Key=KEY)["CapacityUnits"] == 1


@pytest.mark.parametrize(
    ("before", "after", "writes"),
    [
        ({}, {"G": "1"}, 1),  # gets the index's key
        ({"G": "1"}, {}, 1),  # loses it
        ({"G": "1"}, {"G": "2"}, 2),  # a delete and a put
        ({}, {"other": "x"}, 0),  # never in the index
        ({"G": "1"}, {"G": "1", "shown": "x"}, 1),  # a projected attribute changed
        ({"G": "1"}, {"G": "1", "hidden": "x"}, 0),  # nothing that it shows changed
    ],
)
def test_how_many_index_writes_a_change_costs(
    call: Api, before: dict[str, str], after: dict[str, str], writes: int
) -> None:
    """GSI.md's list of cases."""
    call("PutItem", TableName="tbl", Item=item(**before))
    told = call.units("PutItem", TableName="tbl", Item=item(**after))
    indexes = told.get("GlobalSecondaryIndexes", {})
    assert indexes.get("global", {"CapacityUnits": 0})["CapacityUnits"] == writes
    assert told["CapacityUnits"] == 1 + writes


def test_a_local_index_is_paid_by_the_table(call: Api) -> None:
    told = call.units("PutItem", TableName="tbl", Item=item(L="1"))
    assert told == {
        "TableName": "tbl",
        "CapacityUnits": 2,
        "Table": {"CapacityUnits": 1},
        "LocalSecondaryIndexes": {"local": {"CapacityUnits": 1}},
    }


def test_transactions_pay_twice_also_when_they_are_cancelled(call: Api) -> None:
    """The recorded message and reasons of a cancelled transaction (LocalStack); Code None has no message."""
    call("PutItem", TableName="tbl", Item=item())
    puts = [
        {"Put": {"TableName": "tbl", "Item": item("b", 1500)}},
        {"Put": {"TableName": "tbl", "Item": item(), "ConditionExpression": "attribute_not_exists(PK)"}},
    ]
    before = call.metrics.total("AWS/DynamoDB", "ConsumedWriteCapacityUnits", (("TableName", "tbl"),))
    told = call("TransactWriteItems", TransactItems=puts)
    assert told["Message"] == (
        "Transaction cancelled, please refer cancellation reasons for specific reasons [None, ConditionalCheckFailed]"
    )
    assert told["CancellationReasons"] == [
        {"Code": "None"},
        {"Code": "ConditionalCheckFailed", "Message": "The conditional request failed"},
    ]
    after = call.metrics.total("AWS/DynamoDB", "ConsumedWriteCapacityUnits", (("TableName", "tbl"),))
    assert after - before >= 4
    paid = call("TransactWriteItems", TransactItems=puts[:1], ReturnConsumedCapacity="TOTAL")["ConsumedCapacity"]
    assert paid == [{"TableName": "tbl", "CapacityUnits": 4, "WriteCapacityUnits": 4}]


# -- what is refused -----------------------------------------------------------------------------------


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {"S": "x"}
    for _ in range(levels):
        value = {"L": [value]}
    return value


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"f": {"S": "x" * 400 * KB}}, "Item size has exceeded the maximum allowed size"),
        ({"PK": {"S": "x" * 2049}}, "Size of hashkey has exceeded the maximum size limit of2048 bytes"),
        ({"SK": {"S": "x" * 1025}}, "Aggregated size of all range keys has exceeded the size limit of 1024 bytes"),
        ({"f": nested(33)}, "Nesting Levels have exceeded supported limits"),
        ({"f": {"N": "1" * 39}}, "Attempting to store more than 38 significant digits in a Number"),
        ({"f": {"N": "1E126"}}, "Number overflow."),
        ({"f": {"M": {"deep": {"N": "1E-131"}}}}, "Number underflow."),
        ({"f": {"SS": ["a", "b", "a"]}}, "Input collection [a, b, a] contains duplicates."),
    ],
)
def test_items_that_aws_refuses(call: Api, changes: dict[str, Any], told: str) -> None:
    for answer in (
        call("PutItem", TableName="tbl", Item={**item(), **changes}),
        call("BatchWriteItem", RequestItems={"tbl": [{"PutRequest": {"Item": {**item(), **changes}}}]}),
    ):
        assert answer["__type"].endswith("#ValidationException")
        assert told in answer["message"]


@pytest.mark.parametrize(
    "changes", [{"f": nested(32)}, {"f": {"N": "1" * 38}}, {"f": {"N": "-9.99E125"}}, {"f": {"N": "1E-130"}},
                {"f": {"N": "100000000000000000000000000000000000000000"}}]
)  # fmt: skip
def test_items_at_the_edge_are_taken(call: Api, changes: dict[str, Any]) -> None:
    assert "__type" not in call("PutItem", TableName="tbl", Item={**item(), **changes})
    assert changes["f"].keys() == call("GetItem", TableName="tbl", Key=KEY)["Item"]["f"].keys()


def test_how_much_goes_into_one_request(call: Api) -> None:
    puts = [{"PutRequest": {"Item": item(str(number))}} for number in range(26)]
    assert call("BatchWriteItem", RequestItems={"tbl": puts})["__type"].endswith("#ValidationException")
    twice = call("BatchWriteItem", RequestItems={"tbl": [puts[0], puts[0]]})
    assert twice["message"] == "Provided list of item keys contains duplicates"
    large = [{"Put": {"TableName": "tbl", "Item": item(str(number), 399 * KB)}} for number in range(11)]
    assert "4 MB" in call("TransactWriteItems", TransactItems=large)["message"]
    many = [{"Put": {"TableName": "tbl", "Item": item(str(number))}} for number in range(101)]
    assert "less than or equal to 100" in call("TransactWriteItems", TransactItems=many)["message"]


@pytest.mark.parametrize(
    ("operation", "asked"),
    [
        ("ExecuteStatement", {"Statement": "SELECT * FROM t"}),
        ("BatchExecuteStatement", {"Statements": [{"Statement": "SELECT * FROM t"}]}),
        ("ExecuteTransaction", {"TransactStatements": [{"Statement": "SELECT * FROM t"}]}),
    ],
)
def test_partiql_is_refused_and_never_free(call: Api, operation: str, asked: dict[str, Any]) -> None:
    told = call(operation, **asked)
    assert told["__type"].endswith("#UnknownOperationException")
    assert f"{operation} is not implemented by the embedded cloud" in told["message"]


def test_legacy_parameters_cost_the_same(call: Api) -> None:
    call("PutItem", TableName="tbl", Item=item(nbytes=3 * KB))
    put = {"x": {"Action": "PUT", "Value": {"S": "y"}}}
    assert call.units("UpdateItem", TableName="tbl", Key=KEY, AttributeUpdates=put)["CapacityUnits"] == 4
    condition = {"PK": {"ComparisonOperator": "EQ", "AttributeValueList": [{"S": "a"}]}}
    assert call.units("Query", TableName="tbl", KeyConditions=condition)["CapacityUnits"] == 0.5
    told = call("PutItem", TableName="tbl", Item=item(), Expected={"PK": {"Exists": False}})
    assert told["message"] == "The conditional request failed"


def test_metrics_under_cloudwatchs_names(call: Api) -> None:
    call("PutItem", TableName="tbl", Item=item())
    call("Query", TableName="tbl", KeyConditionExpression="PK = :p", ExpressionAttributeValues={":p": {"S": "a"}})
    call("PutItem", TableName="tbl", Item={"PK": {"S": "a"}})
    call("PutItem", TableName="tbl", Item=item(), ConditionExpression="attribute_not_exists(PK)")
    total = call.metrics.total
    query = (("TableName", "tbl"), ("Operation", "Query"))
    assert total("AWS/DynamoDB", "ReturnedItemCount", query) == 1
    assert total("AWS/DynamoDB", "SuccessfulRequestLatency", query) > 0
    assert total("AWS/DynamoDB", "UserErrors", ()) == 1  # the missing sort key, not the failed condition
    assert total("AWS/DynamoDB", "ConditionalCheckFailedRequests", (("TableName", "tbl"),)) == 1


# -- updates that meet ---------------------------------------------------------------------------------

WRITERS, ROUNDS = 8, 25


def shared_table(cloud: CloudProcess, wcu: int) -> str:
    name = f"t-{uuid.uuid4().hex[:8]}"
    client = client_of(cloud, "dynamodb")
    client.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "PK", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "PK", "AttributeType": "S"}],
        ProvisionedThroughput={"ReadCapacityUnits": 1000, "WriteCapacityUnits": wcu},
    )
    client.close()
    return name


def at_once(cloud: CloudProcess, work: Any) -> None:
    """``work(client, writer)`` by several threads, each with a connection of its own, starting together."""
    barrier = threading.Barrier(WRITERS)

    def run(writer: int) -> None:
        client = cloud.client("dynamodb", retries={"mode": "standard", "total_max_attempts": 1})
        try:
            barrier.wait()
            work(client, writer)
        finally:
            client.close()

    with ThreadPoolExecutor(WRITERS) as pool:
        for done in [pool.submit(run, writer) for writer in range(WRITERS)]:
            done.result()


def insisting(call: Any, *codes: str, **arguments: Any) -> int:
    """Call until it is not refused with one of ``codes``; returns how often it was."""
    refused = 0
    while True:
        try:
            call(**arguments)
        except ClientError as error:
            if error.response["Error"]["Code"] not in codes:
                raise
            refused += 1
        else:
            return refused


@pytest.mark.parametrize("wcu", [1000, 40])
def test_no_increment_is_lost_also_under_throttling(cloud: CloudProcess, wcu: int) -> None:
    name = shared_table(cloud, wcu)

    def add(client: Any, writer: int) -> None:
        for _ in range(ROUNDS):
            insisting(
                client.update_item,
                "ProvisionedThroughputExceededException",
                TableName=name,
                Key={"PK": {"S": "counter"}},
                UpdateExpression="ADD n :one",
                ExpressionAttributeValues={":one": {"N": "1"}},
            )

    at_once(cloud, add)
    found = cloud.client("dynamodb").get_item(TableName=name, Key={"PK": {"S": "counter"}}, ConsistentRead=True)
    assert found["Item"]["n"] == {"N": str(WRITERS * ROUNDS)}


def test_optimistic_locking_lets_one_win_each_time(cloud: CloudProcess) -> None:
    name = shared_table(cloud, 1000)
    key = {"PK": {"S": "doc"}}
    cloud.client("dynamodb").put_item(TableName=name, Item={**key, "version": {"N": "0"}, "log": {"L": []}})

    def append(client: Any, writer: int) -> None:
        for number in range(ROUNDS):
            while True:
                seen = client.get_item(TableName=name, Key=key, ConsistentRead=True)["Item"]["version"]["N"]
                try:
                    client.update_item(
                        TableName=name,
                        Key=key,
                        UpdateExpression="SET version = :next, #log = list_append(#log, :entry)",
                        ConditionExpression="version = :seen",
                        ExpressionAttributeNames={"#log": "log"},
                        ExpressionAttributeValues={
                            ":seen": {"N": seen},
                            ":next": {"N": str(int(seen) + 1)},
                            ":entry": {"L": [{"S": f"{writer}-{number}"}]},
                        },
                    )
                    break
                except ClientError as error:
                    assert error.response["Error"]["Code"] == "ConditionalCheckFailedException"

    at_once(cloud, append)
    found = cloud.client("dynamodb").get_item(TableName=name, Key=key, ConsistentRead=True)["Item"]
    entries = [entry["S"] for entry in found["log"]["L"]]
    assert found["version"]["N"] == str(len(entries)) == str(WRITERS * ROUNDS)
    for writer in range(WRITERS):
        mine = [entry for entry in entries if entry.startswith(f"{writer}-")]
        assert mine == [f"{writer}-{number}" for number in range(ROUNDS)]


def test_transfers_by_transactions_keep_the_sum(cloud: CloudProcess) -> None:
    name = shared_table(cloud, 1000)
    setup = cloud.client("dynamodb")
    for account in range(4):
        setup.put_item(TableName=name, Item={"PK": {"S": str(account)}, "n": {"N": "100"}})

    def transfer(client: Any, writer: int) -> None:
        for number in range(ROUNDS):
            source, target = str((writer + number) % 4), str((writer + number + 1) % 4)
            moves = [
                {
                    "Update": {
                        "TableName": name,
                        "Key": {"PK": {"S": account}},
                        "UpdateExpression": "ADD n :amount",
                        "ExpressionAttributeValues": {":amount": {"N": amount}},
                    }
                }
                for account, amount in ((source, "-1"), (target, "1"))
            ]
            insisting(client.transact_write_items, "TransactionCanceledException", TransactItems=moves)

    at_once(cloud, transfer)
    items = setup.scan(TableName=name, ConsistentRead=True)["Items"]
    assert sum(int(found["n"]["N"]) for found in items) == 400
    assert len(items) == 4
    setup.close()


@pytest.mark.parametrize(
    "key", [{"PK": {"S": "a"}}, {"PK": {"N": "1"}, "SK": {"S": "1"}}, {**KEY, "more": {"S": "x"}}, {"nix": {"S": "a"}}]
)
def test_keys_that_do_not_match_the_schema(call: Api, key: dict[str, Any]) -> None:
    for answer in (
        call("GetItem", TableName="tbl", Key=key),
        call("DeleteItem", TableName="tbl", Key=key),
        call("UpdateItem", TableName="tbl", Key=key, UpdateExpression="SET x = PK"),
        call("BatchGetItem", RequestItems={"tbl": {"Keys": [key]}}),
    ):
        assert answer["__type"].endswith("#ValidationException")
        assert answer["message"] == "The provided key element does not match the schema"


def test_what_update_table_needs_and_delete_table_tells(call: Api) -> None:
    assert "At least one of ProvisionedThroughput" in call("UpdateTable", TableName="tbl")["message"]
    assert call("DeleteTable", TableName="tbl")["TableDescription"]["TableStatus"] == "DELETING"
