"""Partitions, on-demand levels and how often a table may be changed, with the clock in hand."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.cloud.dynamodb import (
    MAX_ON_DEMAND_THROTTLED,
    ON_DEMAND_INDEX_THROTTLED,
    ON_DEMAND_THROTTLED,
    TABLE_THROTTLED,
    TableCapacity,
)
from simulator.cloud.dynamodb_api import DynamoDBApi
from simulator.cloud.dynamodb_changes import ChangeHistory
from simulator.cloud.dynamodb_costs import IndexSpec, TableSpec, Throughput, write_cost
from simulator.cloud.dynamodb_partitions import Partitions, Position, partitions_for, position
from simulator.cloud.dynamodb_placement import item_touches, joined, query_touches, write_touches
from simulator.cloud.errors import AwsError
from simulator.cloud.limits import LimitSettings
from simulator.cloud.metrics import Metrics
from simulator.cloud.moto_store import MotoStore

ARN = "arn:aws:dynamodb:us-east-1:123456789012:table/t"
T0 = 1_795_000_000.0
GSI = IndexSpec("by-class", ("class", "SK"), None, Throughput(3000, 1000))


def spec(wcu: float, rcu: float = 3000.0, **more: Any) -> TableSpec:
    return TableSpec("t", ARN, ("PK", "SK"), Throughput(rcu, wcu), **more)


def item(pk: str, sk: str = "1", **more: Any) -> dict[str, Any]:
    return {"PK": {"S": pk}, "SK": {"S": sk}, **more}


def write(table: TableCapacity, units: float, key: dict[str, Any], now: float) -> Any:
    return table.admit_write(units, {}, now, {None: item_touches(table.spec, key, units)})


# -- how many, and where -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rcu", "wcu", "count"), [(5, 5, 1), (3000, 0, 1), (0, 1000, 1), (3000, 1000, 2), (3001, 0, 2), (6000, 2500, 5)]
)
def test_as_many_as_the_throughput_needs(rcu: float, wcu: float, count: int) -> None:
    assert partitions_for(rcu, wcu) == count


@given(st.integers(1, 40), st.lists(st.text(min_size=1, max_size=9), min_size=1, max_size=60))
def test_every_position_lies_in_one_partition_and_growing_keeps_the_order(count: int, keys: list[str]) -> None:
    partitions = Partitions(count, False, LimitSettings(), T0)
    assert len(partitions) == count
    starts = [one.start for one in partitions._partitions]
    assert starts == sorted(set(starts))
    for key in keys:
        where = position(item(key), ("PK", "SK"))
        index = partitions._index(where)
        assert starts[index] <= where
        assert index + 1 == count or where < starts[index + 1]


@given(st.lists(st.floats(-1e30, 1e30, allow_nan=False), min_size=2, max_size=20))
def test_sort_keys_that_are_numbers_lie_in_their_order(numbers: list[float]) -> None:
    places = [position({"PK": {"S": "a"}, "SK": {"N": repr(one)}}, ("PK", "SK")) for one in sorted(numbers)]
    assert places == sorted(places)


# -- limits of a partition -----------------------------------------------------------------------------


def test_a_saved_burst_leaves_a_partition_at_a_thousand_a_second() -> None:
    """100 WCU saved for five minutes are 30,000, and one partition gives 1,000 of them a second."""
    table = TableCapacity(spec(wcu=100, rcu=100), LimitSettings(), T0)
    now = T0 + 600
    served = sum(write(table, 1, item("race-1"), now).admitted for _ in range(1500))
    assert served == 1000
    refused = write(table, 1, item("race-1"), now)
    assert [(why.reason, why.resource) for why in refused.throttled_by] == [
        ("TableWriteKeyRangeThroughputExceeded", ARN)
    ]
    assert (refused.exception, refused.message) == ("ProvisionedThroughputExceededException", TABLE_THROTTLED)
    assert write(table, 1, item("race-1"), now + refused.retry_after_s).admitted


def test_a_hot_key_meets_its_partition_while_the_table_has_more() -> None:
    table = TableCapacity(spec(wcu=4000, rcu=1), LimitSettings(), T0)
    now = T0 + 10
    hot = sum(write(table, 1, item("hot", str(n)), now).admitted for n in range(3000))
    assert hot == 1000
    cold = sum(write(table, 1, item(f"cold-{n}"), now).admitted for n in range(1000))
    # The other partitions take theirs; about a quarter of these keys lies in the hot one.
    assert 600 < cold < 900


def test_reads_have_three_thousand() -> None:
    table = TableCapacity(spec(wcu=1, rcu=100), LimitSettings(), T0)
    now = T0 + 600
    touches = item_touches(table.spec, item("a"), 0.5)
    assert sum(table.admit_read(0.5, now, touches=touches).admitted for _ in range(7000)) == 6000
    refused = table.admit_read(0.5, now, touches=touches)
    assert refused.throttled_by[0].reason == "TableReadKeyRangeThroughputExceeded"


def test_an_index_has_partitions_by_its_own_key() -> None:
    table = TableCapacity(spec(wcu=4000, rcu=1, global_indexes=(IndexSpec("by-class", ("class", "SK"), None,
                               Throughput(1, 4000)),)), LimitSettings(), T0)  # fmt: skip
    now = T0 + 10
    served = 0
    for n in range(2000):
        new = item(f"racer-{n}", **{"class": {"S": "1"}})
        cost = write_cost(table.spec, None, new)
        admission = table.admit_write(
            cost.table_units, cost.global_, now, write_touches(table.spec, None, new, new, cost)
        )
        served += admission.admitted
    assert served == 1000
    assert admission.throttled_by[0].reason == "IndexWriteKeyRangeThroughputExceeded"
    assert admission.throttled_by[0].resource == f"{ARN}/index/by-class"


# -- split for heat ------------------------------------------------------------------------------------


def ride(table: TableCapacity, from_s: float, to_s: float, keys: list[dict[str, Any]], units: float) -> float:
    """Offer ``units`` a second spread over ``keys``; returns units served a second over the last ten seconds."""
    served = 0.0
    now = T0 + from_s
    while now < T0 + to_s:
        for key in keys:
            if write(table, units / len(keys) / 4, key, now).admitted and now >= T0 + to_s - 10:
                served += units / len(keys) / 4
        now += 0.25
    return served / min(10.0, to_s - from_s)


def hot_keys(count: int, local_indexes: bool = False) -> tuple[TableCapacity, list[dict[str, Any]]]:
    local = (IndexSpec("local", ("PK", "other"), None),) if local_indexes else ()
    table = TableCapacity(spec(wcu=4000, rcu=1, local_indexes=local), LimitSettings(), T0)
    return table, [item("collection", f"{n:03d}") for n in range(count)]


def test_an_item_collection_that_stays_hot_is_split_by_its_sort_keys() -> None:
    """
    ::

        offered 2,000/s to one partition key   0 ------- 300 s ------------
        served                                 1,000     | split | 2,000
    """
    table, keys = hot_keys(20)
    assert ride(table, 10, 200, keys, 2000) == pytest.approx(1000, rel=0.05)
    assert ride(table, 200, 320, keys, 2000) > 1700
    (level,) = table.levels(T0 + 320)
    assert level.partitions == partitions_for(1, 4000) + 1


def test_not_with_a_local_index() -> None:
    table, keys = hot_keys(20, local_indexes=True)
    assert ride(table, 10, 1000, keys, 2000) == pytest.approx(1000, rel=0.05)


def test_a_single_hot_item_stays_at_a_partitions_limit() -> None:
    table, keys = hot_keys(1)
    assert ride(table, 10, 1000, keys, 2000) == pytest.approx(1000, rel=0.05)


def test_a_growing_sort_key_gains_nothing() -> None:
    table, _ = hot_keys(1)
    served = 0
    for quarter in range(4 * 700):
        now = T0 + 10 + quarter / 4
        for part in range(5):
            key = item("log", f"{quarter * 5 + part:09d}")
            served += write(table, 100, key, now).admitted and quarter >= 4 * 690
    assert served * 100 / 10 == pytest.approx(1000, rel=0.1)


# -- on-demand -----------------------------------------------------------------------------------------


def on_demand(max_write: float = 0.0, index: bool = False) -> TableCapacity:
    indexes = (IndexSpec("by-class", ("class", "SK"), None, Throughput(0, 0)),) if index else ()
    return TableCapacity(
        TableSpec("t", ARN, ("PK", "SK"), Throughput(0, 0, 0, max_write), (), indexes), LimitSettings(), T0
    )


def spread(table: TableCapacity, units: int, now: float) -> int:
    return sum(write(table, 1, item(f"racer-{n}"), now).admitted for n in range(units))


def test_a_new_on_demand_table_serves_four_thousand_writes() -> None:
    table = on_demand()
    assert [level.partitions for level in table.levels(T0)] == [4]
    served = spread(table, 6000, T0)
    assert 3800 < served <= 4000
    refused = table.admit_write(1, {}, T0)
    assert (refused.exception, refused.message) == ("ThrottlingException", ON_DEMAND_THROTTLED)
    assert refused.throttled_by[0].reason == "TableWriteKeyRangeThroughputExceeded"
    assert [level.capacity_read for level in table.levels(T0)] == [12_000]


def test_twice_the_previous_peak_half_an_hour_later() -> None:
    table = on_demand()
    for second in range(5):
        spread(table, 3500, T0 + second)
    assert [level.capacity_write for level in table.levels(T0 + 1700)] == [4000]
    write(table, 1, item("a"), T0 + 1801)
    (level,) = table.levels(T0 + 1801)
    assert 6500 < level.capacity_write <= 7000
    assert level.partitions == 7
    # A quieter half hour takes nothing away.
    write(table, 1, item("a"), T0 + 3700)
    assert next(table.levels(T0 + 3700)).capacity_write == level.capacity_write


def test_a_maximum_that_was_configured() -> None:
    table = on_demand(max_write=10)
    assert sum(write(table, 1, item(f"{n}"), T0).admitted for n in range(20)) == 10
    refused = write(table, 1, item("x"), T0)
    assert refused.message == MAX_ON_DEMAND_THROTTLED
    assert refused.throttled_by[0].reason == "TableWriteMaxOnDemandThroughputExceeded"


def test_an_index_of_an_on_demand_table_in_its_own_words() -> None:
    table = on_demand(index=True)
    refused = table.admit_write(1, {"by-class": 4001}, T0)
    assert refused.admitted  # more than its bucket: admitted when full, then in debt
    refused = table.admit_write(1, {"by-class": 1}, T0)
    assert (refused.exception, refused.message) == ("ThrottlingException", ON_DEMAND_INDEX_THROTTLED)


# -- placement -----------------------------------------------------------------------------------------


def test_a_moved_index_key_touches_both_partitions() -> None:
    table = spec(1000, global_indexes=(GSI,))
    before, after = item("a", **{"class": {"S": "1"}}), item("a", **{"class": {"S": "2"}})
    cost = write_cost(table, before, after).times(2)
    touches = write_touches(table, before, after, after, cost)["by-class"]()
    assert [units for _, units in touches] == [2, 2]
    assert len({where for where, _ in touches}) == 2
    both = joined([{None: item_touches(table, before, 1)}, {None: item_touches(table, after, 2)}])
    assert [units for _, units in both[None]()] == [1, 2]


@pytest.mark.parametrize(
    ("params", "index"),
    [
        ({"KeyConditionExpression": "PK = :p", "ExpressionAttributeValues": {":p": {"S": "a"}}}, None),
        ({"KeyConditionExpression": "#k=:p AND SK > :s", "ExpressionAttributeNames": {"#k": "PK"},
          "ExpressionAttributeValues": {":p": {"S": "a"}, ":s": {"S": "b"}}}, None),
        ({"KeyConditions": {"PK": {"ComparisonOperator": "EQ", "AttributeValueList": [{"S": "a"}]}}}, None),
        ({"KeyConditionExpression": "SK < :s AND class = :p",
          "ExpressionAttributeValues": {":p": {"S": "a"}, ":s": {"S": "b"}}}, "by-class"),
    ],
)  # fmt: skip
def test_a_query_reads_the_partition_of_its_key(params: dict[str, Any], index: str | None) -> None:
    table = spec(1000, global_indexes=(GSI,))
    touches = query_touches(table, params, index, 2.0)
    assert touches is not None
    assert touches() == [(Position(position(item("a"), ("PK",)).hash), 2.0)]


# -- changing a table ----------------------------------------------------------------------------------


def test_four_decreases_a_day_then_one_an_hour() -> None:
    history, now = ChangeHistory(), 1_513_209_600.0  # midnight UTC
    wcu = 100.0

    def decrease(at: float) -> None:
        nonlocal wcu
        params = {"ProvisionedThroughput": {"ReadCapacityUnits": 3000, "WriteCapacityUnits": wcu - 1}}
        history.check(spec(wcu), params, at, enforced=True)
        history.count(spec(wcu), params, at)
        wcu -= 1

    for minute in range(4):
        decrease(now + 60 * minute)
    with pytest.raises(AwsError, match=r"today: 4\. Last decrease at Thursday, December 14, 2017 12"):
        decrease(now + 240)
    decrease(now + 180 + 3600)
    assert history.decreases_today(None, now + 4000) == 5
    assert history.decreases_today(None, now + 86_400) == 0
    params = {"ProvisionedThroughput": {"ReadCapacityUnits": 3000, "WriteCapacityUnits": 500}}
    history.check(spec(wcu), params, now + 3790, enforced=True)  # an increase is free


def test_four_switches_to_on_demand_a_day() -> None:
    history = ChangeHistory()
    params = {"TableName": "t", "BillingMode": "PAY_PER_REQUEST"}
    for hour in range(4):
        history.check(spec(10), params, T0 + 3600 * hour, enforced=True)
        history.count(spec(10), params, T0 + 3600 * hour)
    with pytest.raises(AwsError, match="Update to PayPerRequest mode are limited to 4 in 1 day"):
        history.check(spec(10), params, T0 + 5 * 3600, enforced=True)
    history.check(spec(10), params, T0 + 86_400, enforced=True)


# -- through the API -----------------------------------------------------------------------------------


class Api:
    def __init__(self) -> None:
        self.now = T0
        self.metrics = Metrics()
        self.api = DynamoDBApi(MotoStore(), settings=LimitSettings(), metrics=self.metrics, clock=lambda: self.now)

    def __call__(self, operation: str, **members: Any) -> dict[str, Any]:
        return dict(json.loads(self.api.handle(operation, json.dumps(members).encode(), "us-east-1").body))


def create(api: Api, name: str, **more: Any) -> dict[str, Any]:
    return api(
        "CreateTable",
        TableName=name,
        KeySchema=[{"AttributeName": "PK", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "PK", "AttributeType": "S"}],
        **more,
    )["TableDescription"]


def test_on_demand_tables_say_no_in_their_own_exception() -> None:
    api = Api()
    described = create(
        api,
        "od",
        BillingMode="PAY_PER_REQUEST",
        OnDemandThroughput={"MaxWriteRequestUnits": 2, "MaxReadRequestUnits": 1},
    )
    # As recorded on AWS (LocalStack): what a new on-demand table is warm for.
    assert described["WarmThroughput"] == {
        "ReadUnitsPerSecond": 12_000, "WriteUnitsPerSecond": 4_000, "Status": "ACTIVE",
    }  # fmt: skip
    put = {"TableName": "od", "Item": {"PK": {"S": "a"}}}
    assert [api("PutItem", **put).get("__type") for _ in range(2)] == [None, None]
    assert api("PutItem", **put) == {
        "__type": "com.amazonaws.dynamodb.v20120810#ThrottlingException",
        "message": MAX_ON_DEMAND_THROTTLED,
        "throttlingReasons": [{"reason": "TableWriteMaxOnDemandThroughputExceeded", "resource": described["TableArn"]}],
    }
    total = api.metrics.total("AWS/DynamoDB", "WriteMaxOnDemandThrottleEvents", (("TableName", "od"),))
    assert total == 1
    transact = api("TransactWriteItems", TransactItems=[{"Put": put}])
    assert transact["CancellationReasons"] == [{"Code": "ThrottlingError", "Message": MAX_ON_DEMAND_THROTTLED}]
    batch = api("BatchWriteItem", RequestItems={"od": [{"PutRequest": {"Item": {"PK": {"S": "b"}}}}]})
    assert batch["__type"].endswith("#ThrottlingException")


def test_update_table_counts_decreases_and_refuses_what_changes_nothing() -> None:
    api = Api()
    units = {"ReadCapacityUnits": 9, "WriteCapacityUnits": 9}
    create(api, "p", ProvisionedThroughput=units)
    same = api("UpdateTable", TableName="p", ProvisionedThroughput=units)
    assert same["message"].startswith("The provisioned throughput for the table will not change.")
    for fewer in range(8, 4, -1):
        told = api("UpdateTable", TableName="p", ProvisionedThroughput={**units, "WriteCapacityUnits": fewer})
        assert told["TableDescription"]["ProvisionedThroughput"]["NumberOfDecreasesToday"] == 9 - fewer
    refused = api("UpdateTable", TableName="p", ProvisionedThroughput={**units, "WriteCapacityUnits": 4})
    assert refused["__type"].endswith("#LimitExceededException")
    described = api("DescribeTable", TableName="p")["Table"]
    assert described["ProvisionedThroughput"]["WriteCapacityUnits"] == 5
    assert described["WarmThroughput"]["WriteUnitsPerSecond"] == 5


def test_a_partitions_limit_is_told_apart_from_the_tables() -> None:
    from pathlib import Path

    from simulator.deployment import load_deployment
    from simulator.diagnosis import diagnose
    from simulator.utilisation import limit_use

    api = Api()
    deployment = load_deployment(Path(__file__).resolve().parents[1] / "template.yaml")
    (table,) = deployment.tables
    api("CreateTable", **table.create_table_kwargs())
    api.now += 100
    refused = 0
    for number in range(700):
        item = {"PK": {"S": "race-1"}, "SK": {"S": str(number)}}
        refused += "__type" in api("PutItem", TableName=table.name, Item={**item, "fill": {"S": "x" * 1800}})
    assert refused == 200  # two units each, of a thousand a second
    uses = {use.name: use for use in limit_use(api.metrics.to_json(), deployment)}
    assert uses["dynamodb.partition.write.units_per_second"].throttled == refused
    assert uses["dynamodb.table.write.units_per_second"].throttled == 0
    (finding,) = diagnose(list(uses.values()), 60, [], deployment)
    assert "A partition of alleycat-races gives 1,000 WCU a second" in str(finding)


def test_warm_throughput_that_was_asked_for_is_served_from_the_start() -> None:
    api = Api()
    described = create(
        api,
        "warm",
        BillingMode="PAY_PER_REQUEST",
        WarmThroughput={"ReadUnitsPerSecond": 15_000, "WriteUnitsPerSecond": 5_000},
    )
    assert described["WarmThroughput"]["WriteUnitsPerSecond"] == 5_000
    (level,) = api.api.describe_capacity(T0)[described["TableArn"]]
    assert (level.capacity_write, level.capacity_read, level.partitions) == (5_000, 15_000, 5)
