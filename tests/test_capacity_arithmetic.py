"""Capacity arithmetic against numbers from elsewhere: AWS's sizing formula and examples, items and bills by hand.

The three bills of test_capacity_prices.py are of usage that is given; here they are of plans. Item sizes of single
values are in test_item_size.py, index writes in test_dynamodb_facts.py.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from consumers.store import results_text
from simulator.capacity.arrivals import Kind
from simulator.capacity.items import League
from simulator.capacity.model import Plan, plan
from simulator.capacity.tables import capacity_spec
from simulator.capacity.workload import Riders, Workload
from simulator.cloud.dynamodb import TableCapacity
from simulator.cloud.dynamodb_costs import TableSpec, Throughput, write_cost
from simulator.cloud.item_size import Item, item_size, read_units, write_units
from simulator.cloud.limits import KIB, LimitSettings
from simulator.cloud.sequence import uniform_ranges
from simulator.cloud.shard import Shard
from simulator.deployment import ConsumerSpec, Deployment, load_deployment

TEMPLATE = Path(__file__).resolve().parents[1] / "template.yaml"
SECONDS = 300


# -- Kinesis: how-do-i-size-a-stream ---------------------------------------------------------------------------

# Average record in KiB (rounded up to whole ones), records/s, consumers; shards by
# max(incoming KiB/s / 1024, outgoing KiB/s / 2048), rounded up, worked out by hand.
SIZED = [
    (1, 500, 1, 1),  # in 500 / 1024 = 0.49, out 500 / 2048 = 0.24
    (2, 800, 1, 2),  # in 1,600 / 1024 = 1.56, out 1,600 / 2048 = 0.78
    (4, 600, 2, 3),  # in 2,400 / 1024 = 2.34, out 4,800 / 2048 = 2.34
    (2, 1200, 3, 4),  # in 2,400 / 1024 = 2.34, out 7,200 / 2048 = 3.52: readers decide
    (32, 100, 2, 4),  # in 3,200 / 1024 = 3.13, out 6,400 / 2048 = 3.13
    (50, 400, 5, 49),  # in 20,000 / 1024 = 19.5, out 100,000 / 2048 = 48.8
]


def keeps_up(shards: int, kib: int, records_per_s: int, consumers: int) -> bool:
    """Whether one of ``shards`` of equal load takes every record, and gives it to all consumers as it comes."""
    shard = Shard(0, uniform_ranges(shards)[0], 0.0, LimitSettings())
    per_shard = records_per_s / shards
    unread = [0] * consumers
    sent = 0
    for tenth in range(1, SECONDS * 10 + 1):
        now = tenth / 10
        for reader in range(consumers):
            # Each calls once a second, at its own time.
            if tenth % 10 == reader and shard.admit_read(now):
                shard.charge_read(unread[reader], now)
                unread[reader] = 0
        due = int(per_shard * now + 1e-9) - sent
        sent += due
        if shard.admit_many(due, kib * KIB, now) < due:
            return False
        unread = [one + due * kib * KIB for one in unread]
    # Whoever keeps up has no more unread than what came since its last call, or the one before.
    return max(unread) <= 2.5 * per_shard * kib * KIB


@pytest.mark.parametrize(("kib", "records_per_s", "consumers", "shards"), SIZED)
def test_shards_by_awss_formula_keep_up_and_one_less_does_not(
    kib: int, records_per_s: int, consumers: int, shards: int
) -> None:
    incoming, outgoing = kib * records_per_s, kib * records_per_s * consumers
    assert math.ceil(max(incoming / 1024, outgoing / 2048)) == shards
    assert keeps_up(shards, kib, records_per_s, consumers)
    assert shards == 1 or not keeps_up(shards - 1, kib, records_per_s, consumers)


def test_small_records_need_shards_by_their_number() -> None:
    """The formula leaves out the other limit: 3,500 records/s of 1 KiB at most are 3.4 shards of bytes, 4 of records;
    of 200 bytes they are 0.7 of bytes, and still 4."""
    template = load_deployment(TEMPLATE, overrides={"TumblingWindowInSeconds": "5", "BillingMode": "PAY_PER_REQUEST"})
    workload = Workload(racers=3500, seconds=20, partition_key="random", phase="spread")
    for shards, refuses in ((4, False), (3, True)):
        deployment = replace(template, streams=(replace(template.streams[0], shard_count=shards),), functions=())
        found = plan(deployment, workload, drain_s=5)
        assert bool(found.ledger.throttled) == refuses


# -- DynamoDB: read-write-operations, ProvisionedThroughput ------------------------------------------------------


@pytest.mark.parametrize(
    ("size_bytes", "strong"),
    [(3500, 1), (4 * KIB, 1), (int(3.5 * KIB), 1), (8 * KIB, 2), (10 * KIB, 3), (int(40.8 * KIB), 11)],
)
def test_reads_are_rounded_up_to_4_kb(size_bytes: int, strong: int) -> None:
    assert read_units(size_bytes, consistent=True) == strong
    assert read_units(size_bytes, consistent=False) == strong / 2


def test_a_batch_of_reads_is_rounded_item_by_item() -> None:
    """1.5 KB and 6.5 KB are 12 KB (4 + 8), not 8 KB."""
    assert sum(read_units(int(one * KIB), consistent=True) for one in (1.5, 6.5)) == 12 / 4
    assert read_units(8 * KIB, consistent=True) == 8 / 4


def test_a_batch_of_writes_is_rounded_item_by_item() -> None:
    """500 bytes and 3.5 KB are 5 KB (1 + 4), not 4 KB."""
    assert write_units(500) + write_units(int(3.5 * KIB)) == 5


def test_five_units_of_each_are_20_kb_read_and_5_kb_written_a_second() -> None:
    """Developer guide, provisioned throughput: 5 read units give 20 KB/s strongly consistent or 40 KB/s eventually
    consistent, 5 write units take 5 KB/s."""
    spec = TableSpec("five", "arn", ("id",), Throughput(5, 5))
    for kib_per_s, units in ((20, read_units(4 * KIB, consistent=True) / 4), (40, read_units(4 * KIB) / 4)):
        capacity = TableCapacity(spec, LimitSettings(), 0.0)
        assert sustained(lambda now, n: capacity.admit_read(n, now).admitted, units) == pytest.approx(  # noqa: B023
            kib_per_s, rel=0.02
        )
    capacity = TableCapacity(spec, LimitSettings(), 0.0)
    assert sustained(lambda now, n: capacity.admit_write(n, {}, now).admitted, write_units(KIB)) == pytest.approx(
        5, rel=0.02
    )


def sustained(admit, units_per_kib: float) -> float:  # type: ignore[no-untyped-def]
    """KiB/s that are admitted of requests of 4 KiB or 1 KiB, asked for again and again, once nothing is saved."""
    kib = 4 if units_per_kib < 1 else 1
    admitted = 0
    for tick in range(60 * 100):
        if admit(tick / 100, units_per_kib * kib) and tick >= 1000:
            admitted += kib
    return admitted / 50


# -- our own items -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def league() -> League:
    return League(Riders(Workload(racers=3, seconds=3), [0]))


def test_a_racers_item_by_hand(league: League) -> None:
    """PK ``race-566666600`` 2 + 14, SK ``racer-102`` 2 + 9, GSI an output as 41.22 in two pairs of digits 3 + 1 + 2,
    ts of 13 digits in seven pairs 2 + 1 + 7."""
    found = league.finish_item(Kind(0, 0, True))
    assert [found[name]["S"] for name in ("PK", "SK")] == ["race-566666600", "racer-102"]
    assert (len(found["GSI"]["N"]), len(found["ts"]["N"])) == (5, 13)
    assert item_size(found) == (2 + 14) + (2 + 9) + (3 + 1 + 2) + (2 + 1 + 7) == 43


def test_a_class_item_by_hand(league: League) -> None:
    """As a racer's, with PK ``class-1`` 2 + 7 and raceId 566666600, whose two zeros at the end are no digits:
    5, 66, 66 and 66 are four pairs, 6 + 1 + 4."""
    found = league.best_item(Kind(0, 0, True))
    assert (found["PK"]["S"], found["raceId"]["N"]) == ("class-1", "566666600")
    assert item_size(found) == (2 + 7) + (2 + 9) + (3 + 1 + 2) + (2 + 1 + 7) + (6 + 1 + 4) == 47


def results_item(racers: int) -> Item:
    """A results item of racers from 100 on, each with 123.45."""
    return {
        "PK": {"S": "race-566666600"},
        "SK": {"S": "results"},
        "GSI": {"N": "1"},
        "ts": {"N": "1699999800124"},
        "results": {"S": results_text(dict.fromkeys(range(100, 100 + racers), 12345))},
    }


def test_a_results_item_of_a_thousand_bikers_by_hand() -> None:
    """900 ids of three digits and 100 of four, each with quotes, colon and ``123.45``: 900 x 12 + 100 x 13 = 12,100;
    999 commas and two braces: 13,101. PK 16, SK 2 + 7, GSI 3 + 2, ts 10, and the name ``results`` 7: 13,148 bytes.

    13 KB to write (12.84), 4 units to read (3.21). The local index has the same entry, and so has the global one."""
    item = results_item(1000)
    assert len(item["results"]["S"]) == 900 * 12 + 100 * 13 + 999 + 2 == 13_101
    assert item_size(item) == 13_101 + 16 + 9 + 5 + 10 + 7 == 13_148
    assert write_units(item_size(item)) == 13
    assert read_units(item_size(item), consistent=True) == 4
    (table,) = load_deployment(TEMPLATE).tables
    cost = write_cost(capacity_spec(table), results_item(999), item)
    assert (cost.table_units, dict(cost.global_), cost.total_units) == (13 + 13, {"GSI_Index": 13}, 39)


def test_finishes_by_hand() -> None:
    """A new racer's item: one unit of the table, one of its local index, one of its global index. A class best that
    gets better moves in both indexes, whose sort and hash key is the output: a delete and a put in each."""
    (table,) = load_deployment(TEMPLATE).tables
    league = League(Riders(Workload(racers=3, seconds=3), [0]))
    kind = Kind(0, 0, True)
    cost = write_cost(capacity_spec(table), None, league.finish_item(kind))
    assert (cost.table_units, dict(cost.global_)) == (1 + 1, {"GSI_Index": 1})
    before, after = league.best_item(kind), league.best_item(kind)
    assert before["GSI"] != after["GSI"]
    cost = write_cost(capacity_spec(table), before, after)
    assert (cost.table_units, dict(cost.global_)) == (1 + 2, {"GSI_Index": 2})


def test_what_a_planned_finish_consumes_by_hand() -> None:
    """Ten bikers, one window of 900 s that closes after the finish, one shard: ten racer items and ten class bests of
    three units each, and one results item of 1 KB at most, three units: 63 in all. It is read once."""
    deployment = load_deployment(TEMPLATE, overrides={"ShardCount": "1", "TumblingWindowInSeconds": "900"})
    found = plan(deployment, Workload(racers=10, seconds=5))
    (units,), (reads,) = found.usage.write_units.values(), found.usage.read_units.values()
    assert units == 10 * 3 + 10 * 3 + 3 == 63
    assert reads == 1


# -- bills of plans ----------------------------------------------------------------------------------------------

WORKLOAD = Workload(racers=50, seconds=10)
FUNCTION_GB = 512 / 1024


def functions_usd(found: Plan) -> float:
    """Requests at 0.20 USD a million, GB-seconds at 0.0000166667, and messages to the bikes' screens at 1.00 a million,
    each of less than 5 KB: of what the timeline counted."""
    requests = sum(found.timeline.total("invocations", one.spec.name) for one in found.functions)
    seconds = sum(sum(one.totals.durations_s) for one in found.functions)
    publishes = found.timeline.total("publishes")
    assert publishes > 0
    return requests * 0.20 / 1e6 + seconds * FUNCTION_GB * 0.0000166667 + publishes * 1.00 / 1e6


def usd(found: Plan) -> float:
    return sum(line.usd for line in found.bill)


def deployed(**parameters: str) -> Deployment:
    return load_deployment(TEMPLATE, overrides=parameters)


def test_the_bill_of_a_small_provisioned_deployment_by_hand() -> None:
    """One hour begun of 2 shards, 100 + 50 WCU and 20 + 10 RCU; 500 records of one payload unit each."""
    found = plan(deployed(), WORKLOAD)
    shards = 2 * 0.015
    payload_units = 500 * 0.014 / 1e6
    wcu, rcu = 150 * 0.00065, 30 * 0.00013
    assert (shards, wcu, rcu) == pytest.approx((0.03, 0.0975, 0.0039))
    assert usd(found) == pytest.approx(shards + payload_units + wcu + rcu + functions_usd(found))


def test_the_bill_of_an_on_demand_deployment_by_hand() -> None:
    """An hour of the stream; 500 records metered as 1 KiB each, in and out to two pollers; units of table and indexes
    as the timeline counted them, a local index within its table's."""
    found = plan(deployed(StreamMode="ON_DEMAND", BillingMode="PAY_PER_REQUEST"), WORKLOAD)
    gigabytes = 500 * 1024 / 1e9
    stream = 0.04 + gigabytes * 0.08 + 2 * gigabytes * 0.04
    writes, reads = (found.timeline.total(f"consumed_{one}_units") for one in ("write", "read"))
    # At least the finishes: three units for each racer's item and each class best.
    assert writes > 50 * 6
    table = writes * 0.625 / 1e6 + reads * 0.125 / 1e6
    assert usd(found) == pytest.approx(stream + table + functions_usd(found))


def test_the_bill_of_bikes_by_mqtt_with_a_registered_consumer_and_two_days_of_retention_by_hand() -> None:
    """One hour begun of 3 shards, each with longer retention and for one more consumer; 500 messages, each with a rule
    and its action; 50 connections of one minute begun; the consumer gets every byte."""
    plain = deployed(ShardCount="3")
    stream = replace(plain.streams[0], retention_hours=48)
    consumer = ConsumerSpec("Screen", "screen", f"{stream.arn}/consumer/screen:1", stream.arn)
    found = plan(
        replace(plain, streams=(stream,), consumers=(consumer,)),
        replace(WORKLOAD, transport="mqtt", partition_key="random"),
    )
    shards = 3 * (0.015 + 0.020 + 0.015)
    payload_units = 500 * 0.014 / 1e6
    fan_out = 500 * found.riders.sizes.record_bytes / 1e9 * 0.013
    iot = 500 * 1.00 / 1e6 + 500 * (0.15 + 0.15) / 1e6 + 50 * 1 * 0.08 / 1e6
    units = 150 * 0.00065 + 30 * 0.00013
    assert (shards, iot) == pytest.approx((0.15, 0.000654))
    assert usd(found) == pytest.approx(shards + payload_units + fan_out + iot + units + functions_usd(found))
