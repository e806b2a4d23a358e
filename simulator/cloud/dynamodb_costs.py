"""What a DynamoDB request costs in capacity units, from the item before and after it. No I/O.

The table pays for its item (the larger of before and after) and for the entries of its local indexes; each global
index pays for its own entries. ::

      PutItem, 14 KB                 table   14 item + 14 LSI entry = 28 units
      one LSI, one GSI, both ALL     GSI     14 units

Rules and figures: CAH read-write-operations, LSI, GSI.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from simulator.cloud.item_size import Item, item_size, write_units


@dataclass(frozen=True, slots=True)
class Throughput:
    """Provisioned capacity units a second. Zero units are on-demand, which may have a maximum of its own (zero:
    none) and a WarmThroughput that was asked for."""

    read_units: float
    write_units: float
    max_read_units: float = 0.0
    max_write_units: float = 0.0
    warm_read_units: float = 0.0
    warm_write_units: float = 0.0

    @property
    def is_on_demand(self) -> bool:
        return not self.write_units


ON_DEMAND = Throughput(0, 0)


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """A secondary index. ``throughput`` is ``None`` for a local one: its table pays."""

    name: str
    key_attributes: tuple[str, ...]
    projected_attributes: frozenset[str] | None
    """Names an entry keeps, keys of index and table included; ``None`` projects ALL."""
    throughput: Throughput | None = None


@dataclass(frozen=True, slots=True)
class TableSpec:
    """What capacity arithmetic needs to know of a table."""

    name: str
    arn: str
    key_attributes: tuple[str, ...]
    throughput: Throughput
    local_indexes: tuple[IndexSpec, ...] = ()
    global_indexes: tuple[IndexSpec, ...] = ()
    attribute_types: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> TableSpec:
        """From the ``TableDescription`` that CreateTable, UpdateTable and DescribeTable answer with."""
        billing_mode = (description.get("BillingModeSummary") or {}).get("BillingMode")
        on_demand = billing_mode == "PAY_PER_REQUEST"
        keys = tuple(key["AttributeName"] for key in description["KeySchema"])

        def throughput_of(resource: Mapping[str, Any]) -> Throughput:
            provisioned = resource.get("ProvisionedThroughput")
            if on_demand or not provisioned:
                most = resource.get("OnDemandThroughput") or {}
                warm = resource.get("WarmThroughput") or {}
                # -1 takes a maximum away.
                return Throughput(
                    0,
                    0,
                    max(0.0, float(most.get("MaxReadRequestUnits", 0))),
                    max(0.0, float(most.get("MaxWriteRequestUnits", 0))),
                    float(warm.get("ReadUnitsPerSecond", 0)),
                    float(warm.get("WriteUnitsPerSecond", 0)),
                )
            return Throughput(float(provisioned["ReadCapacityUnits"]), float(provisioned["WriteCapacityUnits"]))

        def index_of(index: Mapping[str, Any], throughput: Throughput | None) -> IndexSpec:
            index_keys = tuple(key["AttributeName"] for key in index["KeySchema"])
            projection = index.get("Projection") or {}
            projected = frozenset((*keys, *index_keys, *projection.get("NonKeyAttributes", ())))
            return IndexSpec(
                name=index["IndexName"],
                key_attributes=index_keys,
                projected_attributes=None if projection.get("ProjectionType") == "ALL" else projected,
                throughput=throughput,
            )

        return cls(
            name=description["TableName"],
            arn=description["TableArn"],
            key_attributes=keys,
            throughput=throughput_of(description),
            local_indexes=tuple(index_of(index, None) for index in description.get("LocalSecondaryIndexes") or ()),
            global_indexes=tuple(
                index_of(index, throughput_of(index)) for index in description.get("GlobalSecondaryIndexes") or ()
            ),
            attribute_types={
                one["AttributeName"]: one["AttributeType"] for one in description.get("AttributeDefinitions") or ()
            },
        )


# -- costs -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cost:
    """Units of one read or write, or of a sum of them. Indexes that it does not touch are left out."""

    item_units: float
    local: Mapping[str, float] = field(default_factory=dict)
    global_: Mapping[str, float] = field(default_factory=dict)

    @property
    def table_units(self) -> float:
        """What the table's own bucket pays: the item and its local index entries."""
        return self.item_units + sum(self.local.values())

    @property
    def total_units(self) -> float:
        return self.table_units + sum(self.global_.values())

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.item_units + other.item_units,
            _sum(self.local, other.local),
            _sum(self.global_, other.global_),
        )

    def times(self, factor: int) -> Cost:
        """A transaction pays everything twice: to prepare and to commit (the doubling of index entries is
        inferred; AWS only states it for items)."""
        return Cost(
            self.item_units * factor,
            {name: units * factor for name, units in self.local.items()},
            {name: units * factor for name, units in self.global_.items()},
        )


def _sum(left: Mapping[str, float], right: Mapping[str, float]) -> dict[str, float]:
    return {name: left.get(name, 0.0) + right.get(name, 0.0) for name in (*left, *right)}


def write_cost(table: TableSpec, before: Item | None, after: Item | None) -> Cost:
    """Units of a write that turned ``before`` into ``after`` (``None``: no such item).

    The table is charged for the larger of both images: an update that changes one attribute pays for the whole
    item. Deleting what is not there costs one unit.
    """
    before_bytes = item_size(before) if before else 0
    after_bytes = item_size(after) if after else 0

    def entries(indexes: tuple[IndexSpec, ...]) -> dict[str, float]:
        costs = {}
        for index in indexes:
            units = _index_units(index, before, after, before_bytes, after_bytes)
            if units:
                costs[index.name] = float(units)
        return costs

    return Cost(
        item_units=float(write_units(max(before_bytes, after_bytes))),
        local=entries(table.local_indexes),
        global_=entries(table.global_indexes),
    )


def failed_condition_cost(before: Item | None) -> Cost:
    """A write whose condition fails pays for the item it looked at, one unit when there is none."""
    return Cost(float(write_units(item_size(before) if before else 0)))


def index_moves(index: IndexSpec, before: Item | None, after: Item | None) -> list[tuple[Item, int]]:
    """The index entries that a write deletes and puts, each as the item it is of, with its units."""
    old, new = _index_parts(index, before, after, item_size(before) if before else 0, item_size(after) if after else 0)
    moves = [(before, old), (after, new)]
    return [(item, units) for item, units in moves if item is not None and units]


def _index_units(index: IndexSpec, before: Item | None, after: Item | None, before_bytes: int, after_bytes: int) -> int:
    """Units of the index entries that a write puts and deletes: none, one, or two when the key moves."""
    return sum(_index_parts(index, before, after, before_bytes, after_bytes))


def _index_parts(
    index: IndexSpec, before: Item | None, after: Item | None, before_bytes: int, after_bytes: int
) -> tuple[int, int]:
    """Units of the entry that goes, and of the one that comes or is overwritten."""
    had = before is not None and all(name in before for name in index.key_attributes)
    has = after is not None and all(name in after for name in index.key_attributes)
    if not had and not has:
        return 0, 0
    if index.projected_attributes is None:
        old, new, old_bytes, new_bytes = before, after, before_bytes, after_bytes
    else:
        old = _project(before, index.projected_attributes) if had else None
        new = _project(after, index.projected_attributes) if has else None
        old_bytes = item_size(old) if old else 0
        new_bytes = item_size(new) if new else 0
    if not has:
        return write_units(old_bytes), 0
    if not had:
        return 0, write_units(new_bytes)
    assert old is not None
    assert new is not None
    if any(old[name] != new[name] for name in index.key_attributes):
        return write_units(old_bytes), write_units(new_bytes)
    if old == new:
        return 0, 0
    return 0, write_units(max(old_bytes, new_bytes))


def _project(item: Item | None, names: frozenset[str]) -> Item:
    return {name: value for name, value in (item or {}).items() if name in names}
