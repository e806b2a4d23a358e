"""What load tests write and read, as boto3 takes it, on a table that counts capacity."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from loadtests.prepare import seed
from loadtests.resources import look_up
from loadtests.scenarios import SCENARIOS
from loadtests.settings import LoadSettings
from loadtests.table_items import TableItems, capacity_of, refused_resource
from simulator.cloud.server import CloudProcess
from simulator.deployment import load_deployment
from simulator.target import Target, TargetError, local_target, provision

TABLE, INDEX = "alleycat-races", "alleycat-races/GSI_Index"


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    with CloudProcess() as cloud:
        there = local_target(cloud, "us-east-1")
        sizes = {"WriteCapacityUnits": "2000", "IndexWriteCapacityUnits": "1000", "ReadCapacityUnits": "500"}
        provision(there, load_deployment(None, "default", sizes))
        yield there


@pytest.fixture
def items(target: Target) -> TableItems:
    table = look_up(target, None, TABLE).table
    assert table is not None
    return TableItems(table, 100, 7, 0)


def number_bytes(text: str) -> int:
    """A number's size by AWS's rule of thumb: a byte for two significant digits, and one more."""
    return math.ceil(len(text.replace(".", "").strip("0") or "0") / 2) + 1


def test_what_is_there_is_read_from_the_service(target: Target) -> None:
    found = look_up(target, "alleycat", TABLE)
    assert [one.shard_id for one in found.shards] == ["shardId-000000000000", "shardId-000000000001"]
    # In the middle of each half.
    assert [int(one.hash_key) for one in found.shards] == pytest.approx([2**126, 3 * 2**126], rel=1e-9)
    assert found.table is not None
    assert (found.table.wcu, found.table.rcu) == (2000, 500)
    gsi = found.table.index("GSI")
    assert gsi is not None
    assert (gsi.name, gsi.wcu) == ("GSI_Index", 1000)
    with pytest.raises(TargetError, match=r"there is no stream nope in us-east-1 at http.*--create"):
        look_up(target, "nope", None)
    with pytest.raises(TargetError, match="there is no table nope"):
        look_up(target, None, "nope")


def test_a_results_item_costs_what_its_size_says(target: Target, items: TableItems) -> None:
    """1 WCU for each KiB begun, on the table, again on the local index, and on the global one."""
    client = target.client("dynamodb")
    sizes = set()
    for _ in range(8):
        request = json.loads(items.results())
        item = request["Item"]
        size = sum(len(name) for name in item)
        size += sum(len(value["S"].encode()) for value in item.values() if "S" in value)
        size += sum(number_bytes(value["N"]) for value in item.values() if "N" in value)
        told = client.put_item(**request)
        units = math.ceil(size / 1024)
        sizes.add(units)
        assert capacity_of(told) == {TABLE: 2 * units, INDEX: units}
    assert sizes == {2}


def test_results_are_those_of_a_race_and_differ(items: TableItems) -> None:
    bodies = [json.loads(items.results()) for _ in range(40)]
    results = [json.loads(one["Item"]["results"]["S"]) for one in bodies]
    assert all(len(one) == 100 for one in results)
    assert len({one["Item"]["PK"]["S"] for one in bodies}) == 32
    # From window to window the best only grows.
    for before, after in pairwise(results[:6]):
        assert all(after[racer] >= before[racer] for racer in before)


def test_workers_write_races_of_their_own(items: TableItems) -> None:
    other = TableItems(items.table, 100, 7, 1)
    mine = {json.loads(items.results())["Item"]["PK"]["S"] for _ in range(32)}
    theirs = {json.loads(other.results())["Item"]["PK"]["S"] for _ in range(32)}
    assert not mine & theirs


def test_finishes_go_25_a_batch_and_come_back_in_both_leaderboards(target: Target) -> None:
    found = look_up(target, None, TABLE)
    settings = LoadSettings(item_racers=60)
    seed(target, SCENARIOS["leaderboard-reads"], settings, found)
    assert found.table is not None
    items = TableItems(found.table, 60, settings.seed, 0)
    client = target.client("dynamodb")
    batch = json.loads(items.batch(items.finishes(25)))
    told = client.batch_write_item(**batch)
    assert not told["UnprocessedItems"]
    # The same finish again changes no byte of the indexes but its time.
    assert capacity_of(told)[TABLE] == 50
    local, body = items.query("race", consistent=True)
    told = client.query(**json.loads(body))
    outputs = [float(one["GSI"]["N"]) for one in told["Items"]]
    assert local.kind == "LSI"
    assert len(outputs) == 10
    assert outputs == sorted(outputs, reverse=True)
    assert set(capacity_of(told)) == {TABLE}
    index, body = items.query("class", consistent=True)
    told = client.query(**json.loads(body))
    assert index.kind == "GSI"
    assert [one["SK"]["S"] for one in told["Items"]] == ["results"] * 10
    assert capacity_of(told)[INDEX] > 0
    assert capacity_of(told).get(TABLE, 0) == 0


def test_who_refused_is_read_from_the_reasons_and_else_from_the_words(items: TableItems) -> None:
    def body(*resources: str) -> bytes:
        reasons = [{"reason": "x", "resource": one} for one in resources]
        return json.dumps({"__type": "x", "ThrottlingReasons": reasons}).encode()

    arn = "arn:aws:dynamodb:us-east-1:123456789012:table/alleycat-races"
    assert refused_resource(body(arn), "", items.table) == TABLE
    assert refused_resource(body(f"{arn}/index/GSI_Index"), "", items.table) == INDEX
    assert refused_resource(body(arn, f"{arn}/index/GSI_Index"), "", items.table) == TABLE
    words = "provisioned throughput for one or more global secondary indexes of the table was exceeded"
    assert refused_resource(b"{}", words, items.table) == INDEX
    assert refused_resource(b"garbage", "the table was exceeded", items.table) == TABLE


def test_capacity_is_added_up_over_tables_and_lists() -> None:
    one: dict[str, Any] = {
        "TableName": f"arn:aws:dynamodb:us-east-1:123456789012:table/{TABLE}",
        "CapacityUnits": 6.0,
        "GlobalSecondaryIndexes": {"GSI_Index": {"CapacityUnits": 2.0}},
    }
    assert capacity_of({"ConsumedCapacity": [one, one]}) == {TABLE: 8.0, INDEX: 4.0}
    assert capacity_of({}) == {}
