"""Costs of reads and writes, and the buckets that pay for them. The clock is in hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.cloud.dynamodb import INDEX_THROTTLED, TABLE_THROTTLED, TableCapacity
from simulator.cloud.dynamodb_costs import Cost, IndexSpec, TableSpec, Throughput, failed_condition_cost, write_cost
from simulator.cloud.item_size import Item, item_size
from simulator.cloud.limits import LimitSettings

ARN = "arn:aws:dynamodb:us-east-1:123456789012:table/alleycat-races"
LSI = IndexSpec("GSI_PK_Index", ("PK", "GSI"), None)
T0 = 1_795_000_000.0


def table(wcu: float = 20, rcu: float = 20, gsi_wcu: float = 10, gsi_rcu: float = 10, **changes: Any) -> TableSpec:
    gsi = IndexSpec("GSI_Index", ("GSI", "SK"), None, Throughput(gsi_rcu, gsi_wcu))
    spec = TableSpec("alleycat-races", ARN, ("PK", "SK"), Throughput(rcu, wcu), (LSI,), (gsi,))
    return dataclasses.replace(spec, **changes)


def item(size_bytes: int, gsi: str = "1", **more: Any) -> Item:
    """An item of exactly ``size_bytes``."""
    base = {"PK": {"S": "race-1"}, "SK": {"S": "results"}, "GSI": {"S": gsi}, "fill": {"S": ""}, **more}
    return {**base, "fill": {"S": "x" * (size_bytes - item_size(base))}}


# -- costs -------------------------------------------------------------------------------------------


def test_a_14_kb_results_item_costs_14_on_table_lsi_and_gsi() -> None:
    cost = write_cost(table(), None, item(14 * 1024))
    assert cost == Cost(14.0, {"GSI_PK_Index": 14.0}, {"GSI_Index": 14.0})
    assert cost.table_units == 28
    assert cost.total_units == 42


def test_an_update_is_charged_by_the_larger_image_whichever_way() -> None:
    small, large = item(500), item(3000)
    assert write_cost(table(), small, large).item_units == 3
    assert write_cost(table(), large, small).item_units == 3


def test_one_changed_attribute_pays_for_the_whole_item() -> None:
    before = item(10 * 1024, ts={"N": "1"})
    after = item(10 * 1024, ts={"N": "2"})
    assert write_cost(table(), before, after) == Cost(10.0, {"GSI_PK_Index": 10.0}, {"GSI_Index": 10.0})


def test_deletes() -> None:
    assert write_cost(table(), None, None) == Cost(1.0)
    assert write_cost(table(), item(2500), None) == Cost(3.0, {"GSI_PK_Index": 3.0}, {"GSI_Index": 3.0})


def test_a_failed_condition_pays_for_the_item_it_looked_at() -> None:
    assert failed_condition_cost(None) == Cost(1.0)
    assert failed_condition_cost(item(5000)) == Cost(5.0)


def without_index_key(size_bytes: int) -> Item:
    return {"PK": {"S": "p"}, "SK": {"S": "s"}, "fill": {"S": "x" * size_bytes}}


@pytest.mark.parametrize(
    ("before", "after", "units"),
    [
        (None, without_index_key(10), None),
        (without_index_key(10), without_index_key(20), None),
        (None, item(1500), 2.0),
        (without_index_key(3000), item(1500), 2.0),  # enters the index: only the new entry is written
        (item(1500), without_index_key(3000), 2.0),  # leaves it: only the old one is deleted
        (item(1500), item(1500), None),  # nothing projected changed
        (item(1500, gsi="1"), item(2500, gsi="2"), 2.0 + 3.0),  # the key moved: delete and put
        (item(1500), item(2500), 3.0),
    ],
)
def test_writes_of_an_index_entry(before: Item | None, after: Item | None, units: float | None) -> None:
    assert write_cost(table(), before, after).global_.get("GSI_Index") == units


def test_only_what_an_index_projects_counts() -> None:
    keys_only = IndexSpec("by-class", ("GSI",), frozenset({"PK", "SK", "GSI"}), Throughput(1, 1))
    include = IndexSpec("with-ts", ("GSI",), frozenset({"PK", "SK", "GSI", "ts"}), Throughput(1, 1))
    spec = table(global_indexes=(keys_only, include))
    before, after = item(9000, ts={"N": "1"}), item(9500, ts={"N": "1"})
    assert write_cost(spec, None, before).global_ == {"by-class": 1.0, "with-ts": 1.0}
    assert write_cost(spec, before, after).global_ == {}
    assert write_cost(spec, before, item(9000, ts={"N": "2"})).global_ == {"with-ts": 1.0}


def test_a_transaction_pays_twice() -> None:
    assert write_cost(table(), None, item(1500)).times(2) == Cost(4.0, {"GSI_PK_Index": 4.0}, {"GSI_Index": 4.0})


def test_a_table_is_read_from_its_description() -> None:
    description = {
        "TableName": "alleycat-races",
        "TableArn": ARN,
        "KeySchema": [{"AttributeName": "PK", "KeyType": "HASH"}, {"AttributeName": "SK", "KeyType": "RANGE"}],
        "ProvisionedThroughput": {"ReadCapacityUnits": 20, "WriteCapacityUnits": 20, "NumberOfDecreasesToday": 0},
        "LocalSecondaryIndexes": [
            {
                "IndexName": "GSI_PK_Index",
                "KeySchema": [
                    {"AttributeName": "PK", "KeyType": "HASH"},
                    {"AttributeName": "GSI", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "ALL"},
            }
        ],
        "GlobalSecondaryIndexes": [
            {
                "IndexName": "GSI_Index",
                "KeySchema": [
                    {"AttributeName": "GSI", "KeyType": "HASH"},
                    {"AttributeName": "SK", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "ALL"},
                "ProvisionedThroughput": {"ReadCapacityUnits": 10, "WriteCapacityUnits": 10},
            }
        ],
    }
    assert TableSpec.from_description(description) == table()
    description["BillingModeSummary"] = {"BillingMode": "PAY_PER_REQUEST"}
    spec = TableSpec.from_description(description)
    assert spec.throughput == spec.global_indexes[0].throughput == Throughput(0, 0)


# -- admission ---------------------------------------------------------------------------------------


def saved(capacity: TableCapacity, now: float, index_name: str | None = None) -> float:
    return next(level.saved_write for level in capacity.levels(now) if level.index_name == index_name)


def test_a_new_table_has_one_second_saved_and_no_burst() -> None:
    capacity = TableCapacity(table(wcu=20), LimitSettings(), T0)
    assert all(capacity.admit_write(1, {}, T0).admitted for _ in range(20))
    refused = capacity.admit_write(1, {}, T0)
    assert not refused.admitted
    assert refused.message == TABLE_THROTTLED
    assert refused.retry_after_s == pytest.approx(1 / 20, abs=1e-5)
    assert [(why.reason, why.resource) for why in refused.throttled_by] == [
        ("TableWriteProvisionedThroughputExceeded", ARN)
    ]
    assert capacity.admit_write(1, {}, T0 + refused.retry_after_s).admitted


def test_a_starved_index_refuses_the_write_and_nothing_is_spent() -> None:
    #  table 20 |####################|  asked for 4: could
    #  GSI   10 |                    |  asked for 2: cannot, so neither pays
    capacity = TableCapacity(table(wcu=20, gsi_wcu=10), LimitSettings(), T0)
    assert capacity.admit_write(0, {"GSI_Index": 10}, T0).admitted
    refused = capacity.admit_write(4, {"GSI_Index": 2}, T0)
    assert refused.message == INDEX_THROTTLED
    assert [(why.reason, why.resource) for why in refused.throttled_by] == [
        ("IndexWriteProvisionedThroughputExceeded", f"{ARN}/index/GSI_Index")
    ]
    assert refused.retry_after_s == pytest.approx(0.2, abs=1e-5)
    assert saved(capacity, T0) == 20
    assert saved(capacity, T0, "GSI_Index") == 0
    assert capacity.admit_write(4, {}, T0).admitted


def test_when_both_starve_both_are_named_in_the_tables_words() -> None:
    capacity = TableCapacity(table(wcu=5, gsi_wcu=5), LimitSettings(), T0)
    refused = capacity.admit_write(6, {"GSI_Index": 6}, T0)
    assert refused.message == TABLE_THROTTLED
    assert len(refused.throttled_by) == 2


def test_burst_accrues_to_300_seconds_and_no_further() -> None:
    capacity = TableCapacity(table(wcu=20), LimitSettings(), T0)
    assert saved(capacity, T0 + 100) == 20 + 100 * 20
    assert saved(capacity, T0 + 299) == 300 * 20
    assert saved(capacity, T0 + 86_400) == 300 * 20
    assert capacity.admit_write(6000, {}, T0 + 86_400).admitted
    assert not capacity.admit_write(1, {}, T0 + 86_400).admitted


def test_burst_seconds_are_a_setting() -> None:
    capacity = TableCapacity(table(wcu=20), LimitSettings(dynamodb_burst_seconds=10), T0)
    assert saved(capacity, T0 + 3600) == 200


def test_a_cost_larger_than_the_bucket_is_admitted_when_full_and_leaves_a_debt() -> None:
    capacity = TableCapacity(table(wcu=1), LimitSettings(dynamodb_burst_seconds=10), T0)
    refused = capacity.admit_write(400, {}, T0)
    assert refused.retry_after_s == pytest.approx(9, abs=1e-5)
    assert capacity.admit_write(400, {}, T0 + 9).admitted
    assert saved(capacity, T0 + 9) == -390
    assert not capacity.admit_write(1, {}, T0 + 9 + 390).admitted
    assert capacity.admit_write(1, {}, T0 + 9 + 391).admitted


def test_limits_off_admits_everything_and_owes_nothing() -> None:
    capacity = TableCapacity(table(wcu=1), LimitSettings(enforced=False), T0)
    assert all(capacity.admit_write(100, {"GSI_Index": 100}, T0).admitted for _ in range(10))
    assert saved(capacity, T0) == 0


def test_reads_of_table_and_index_come_from_different_buckets() -> None:
    capacity = TableCapacity(table(rcu=2, gsi_rcu=1), LimitSettings(), T0)
    assert capacity.admit_read(1, T0, "GSI_Index").admitted
    refused = capacity.admit_read(0.5, T0, "GSI_Index")
    assert refused.message == INDEX_THROTTLED
    assert refused.throttled_by[0].reason == "IndexReadProvisionedThroughputExceeded"
    assert capacity.admit_read(2, T0).admitted
    assert capacity.admit_read(0.5, T0).throttled_by[0].reason == "TableReadProvisionedThroughputExceeded"


def test_update_table_resizes_live_and_keeps_what_was_saved() -> None:
    capacity = TableCapacity(table(wcu=20), LimitSettings(), T0)
    now = T0 + 99  # 2,000 units saved
    capacity.update(table(wcu=5), now)
    assert saved(capacity, now) == 5 * 300
    capacity.update(table(wcu=100), now)
    assert saved(capacity, now) == 5 * 300
    assert saved(capacity, now + 1) == 5 * 300 + 100


def test_an_index_added_later_starts_with_one_second_and_a_dropped_one_is_forgotten() -> None:
    capacity = TableCapacity(table(global_indexes=()), LimitSettings(), T0)
    capacity.update(table(gsi_wcu=10), T0 + 50)
    assert saved(capacity, T0 + 50, "GSI_Index") == 10
    capacity.update(table(global_indexes=()), T0 + 51)
    assert [level.index_name for level in capacity.levels(T0 + 51)] == [None]


def test_from_on_demand_to_provisioned_starts_as_a_new_table_does() -> None:
    capacity = TableCapacity(table(wcu=0), LimitSettings(), T0)
    capacity.update(table(wcu=7), T0 + 1000)
    assert saved(capacity, T0 + 1000) == 7


STEPS = st.lists(
    st.tuples(
        st.floats(0, 20, allow_nan=False),  # seconds since the step before
        st.floats(0, 60, allow_nan=False),  # units on the table
        st.floats(0, 60, allow_nan=False),  # units on the index
    ),
    max_size=60,
)


@given(STEPS, st.integers(1, 10), st.integers(1, 10), st.floats(1, 8))
def test_no_interval_spends_more_than_burst_rate_and_one_overdraft(
    steps: list[tuple[float, float, float]], wcu: int, gsi_wcu: int, burst_s: float
) -> None:
    settings = LimitSettings(dynamodb_burst_seconds=burst_s)
    capacity = TableCapacity(table(wcu=wcu, gsi_wcu=gsi_wcu), settings, T0)
    now, spent = T0, []
    for wait_s, table_units, gsi_units in steps:
        now += wait_s
        before = (saved(capacity, now), saved(capacity, now, "GSI_Index"))
        admission = capacity.admit_write(table_units, {"GSI_Index": gsi_units}, now)
        after = (saved(capacity, now), saved(capacity, now, "GSI_Index"))
        if admission.admitted:
            assert after == pytest.approx((before[0] - table_units, before[1] - gsi_units))
            spent.append((now, table_units, gsi_units))
        else:
            assert after == before
    for rate, column in ((wcu, 1), (gsi_wcu, 2)):
        overdraft = max(0.0, max((step[column] for step in spent), default=0.0) - rate * burst_s)
        for first in range(len(spent)):
            total = 0.0
            for step in spent[first:]:
                total += step[column]
                allowed = rate * burst_s + rate * (step[0] - spent[first][0]) + overdraft
                assert total <= allowed + 1e-3


@given(st.floats(0.5, 5000), st.integers(1, 100))
def test_any_cost_is_admitted_after_the_wait_it_was_told(units: float, wcu: int) -> None:
    capacity = TableCapacity(table(wcu=wcu), LimitSettings(dynamodb_burst_seconds=5), T0)
    admission = capacity.admit_write(units, {}, T0)
    if not admission.admitted:
        assert 0 < admission.retry_after_s <= 5 + 1e-5
        assert capacity.admit_write(units, {}, T0 + admission.retry_after_s).admitted


@given(st.integers(40, 6000), st.integers(40, 6000), st.booleans())
def test_an_update_never_costs_less_than_either_image_alone(before: int, after: int, moved: bool) -> None:
    old, new = item(max(before, 60)), item(max(after, 60), gsi="2" if moved else "1")
    cost = write_cost(table(), old, new)
    puts = max(write_cost(table(), None, old).total_units, write_cost(table(), None, new).total_units)
    assert cost.total_units >= puts or old == new
    assert cost.item_units == max(write_cost(table(), None, image).item_units for image in (old, new))
