"""What a DynamoDB request costs in capacity units, and whether a table can pay for it.

Two ideas, no I/O: :func:`write_cost` turns the item before and after a write into units, and
:class:`TableCapacity` holds the token buckets that those units come from. Time is an argument, so the embedded
cloud and the planner throttle the same work.

**Who pays.** The table pays for its item (the larger of before and after) and for the entries of its local
indexes; each global index pays for its own entries from its own bucket. A write needs *all* of them: one
starved index refuses the write on the table, and nothing is spent anywhere (index back-pressure, CAH
``gsi-throttling``). ::

      PutItem, 14 KB             table bucket   14 item + 14 LSI entry = 28 units
      one LSI, one GSI, both ALL   GSI bucket   14 units

**How a bucket fills.** ``provisioned`` units a second, up to 300 s of them (CAH ``burst-adaptive-capacity``;
:attr:`LimitSettings.dynamodb_burst_seconds`, never below one second). A new table or index has saved nothing
yet: it starts with one second's worth, so that its first write within the provisioned rate succeeds at once.

**A cost larger than the bucket** (a 400 KB item on a table whose burst is set to a second) must not be refused
for ever: it is admitted when the bucket is full, and leaves it in debt, so that the long-run rate still holds.
Over any ``t`` seconds at most ``capacity + provisioned * t`` units are spent, plus one such overdraft.

Not modelled: the limit of 1,000 write and 3,000 read units a second of one partition, adaptive capacity, and
the ceilings of on-demand tables (``PAY_PER_REQUEST`` is counted, never throttled).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from simulator.cloud.item_size import Item, item_size, write_units
from simulator.cloud.limits import EPSILON, LimitSettings, TokenBucket

TABLE_THROTTLED = (
    "The level of configured provisioned throughput for the table was exceeded. "
    "Consider increasing your provisioning level with the UpdateTable API."
)
INDEX_THROTTLED = (
    "The level of configured provisioned throughput for one or more global secondary indexes of the table was "
    "exceeded. Consider increasing your provisioning level for the under-provisioned global secondary indexes "
    "with the UpdateTable API"
)


# A float of seconds since the epoch tells times apart by 0.24 us; a wait is told this much longer, so that who
# waits it out is not short by a rounding.
CLOCK_RESOLUTION_S = 1e-6


@dataclass(frozen=True, slots=True)
class Throughput:
    """Provisioned capacity units a second. Zero stands for on-demand: counted, not limited."""

    read_units: float
    write_units: float


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

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> TableSpec:
        """From the ``TableDescription`` that CreateTable, UpdateTable and DescribeTable answer with."""
        billing_mode = (description.get("BillingModeSummary") or {}).get("BillingMode")
        on_demand = billing_mode == "PAY_PER_REQUEST"
        keys = tuple(key["AttributeName"] for key in description["KeySchema"])

        def throughput_of(resource: Mapping[str, Any]) -> Throughput:
            provisioned = resource.get("ProvisionedThroughput")
            if on_demand or not provisioned:
                return ON_DEMAND
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


def _index_units(index: IndexSpec, before: Item | None, after: Item | None, before_bytes: int, after_bytes: int) -> int:
    """Units of the index entries that a write puts and deletes: none, one, or two when the key moves."""
    had = before is not None and all(name in before for name in index.key_attributes)
    has = after is not None and all(name in after for name in index.key_attributes)
    if not had and not has:
        return 0
    if index.projected_attributes is None:
        old, new, old_bytes, new_bytes = before, after, before_bytes, after_bytes
    else:
        old = _project(before, index.projected_attributes) if had else None
        new = _project(after, index.projected_attributes) if has else None
        old_bytes = item_size(old) if old else 0
        new_bytes = item_size(new) if new else 0
    if not has or not had:
        return write_units(new_bytes if has else old_bytes)
    assert old is not None
    assert new is not None
    if any(old[name] != new[name] for name in index.key_attributes):
        return write_units(old_bytes) + write_units(new_bytes)
    if old == new:
        return 0
    return write_units(max(old_bytes, new_bytes))


def _project(item: Item | None, names: frozenset[str]) -> Item:
    return {name: value for name, value in (item or {}).items() if name in names}


# -- admission ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ThrottlingReason:
    """An entry of the exception's ``ThrottlingReasons``: which limit, on which table or index (its ARN).
    ``index_name`` is ``None`` when it is the table's own."""

    reason: str
    resource: str
    index_name: str | None = None


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether a request may go ahead; if not, every starved resource and the seconds until all could pay."""

    throttled_by: tuple[ThrottlingReason, ...] = ()
    retry_after_s: float = 0.0

    @property
    def admitted(self) -> bool:
        return not self.throttled_by

    @property
    def message(self) -> str:
        """AWS's text of the ProvisionedThroughputExceededException; the table's when both starve."""
        if any(reason.index_name is None for reason in self.throttled_by):
            return TABLE_THROTTLED
        return INDEX_THROTTLED


ADMITTED = Admission()


@dataclass(frozen=True, slots=True)
class ResourceCapacity:
    """State of one table (``index_name`` ``None``) or global index, in units and units a second.

    ``saved`` is what its bucket holds now, negative while in debt, of ``capacity`` at most; all zero when the
    resource is on-demand.
    """

    table_name: str
    index_name: str | None
    provisioned_read: float
    provisioned_write: float
    saved_read: float
    saved_write: float
    capacity_read: float
    capacity_write: float


class CapacityBucket(TokenBucket):
    """A token bucket that can go into debt for a cost larger than itself. ``rate`` 0 is on-demand: no limit."""

    __slots__ = ()

    def missing(self, units: float, now: float) -> float:
        """Units short of paying ``units`` now; 0 when it can."""
        if self.rate == 0:
            return 0.0
        short = min(units, self.capacity) - self.refill(now)
        return short if short > EPSILON else 0.0

    def spend(self, units: float) -> None:
        if self.rate:
            self.tokens -= units


def _costs(table_units: float, gsi_units: Mapping[str, float]) -> dict[str | None, float]:
    costs: dict[str | None, float] = {None: table_units}
    costs.update(gsi_units.items())
    return costs


class TableCapacity:
    """The buckets of one table and its global indexes. O(indexes) a request; not thread-safe by itself."""

    def __init__(self, spec: TableSpec, settings: LimitSettings, now: float) -> None:
        self.spec = spec
        self._settings = settings
        self._burst_seconds = max(1.0, settings.dynamodb_burst_seconds)
        self._write: dict[str | None, CapacityBucket] = {}
        self._read: dict[str | None, CapacityBucket] = {}
        self.update(spec, now)

    def update(self, spec: TableSpec, now: float) -> None:
        """Take over a changed table (UpdateTable): what was saved is kept up to the new capacity, new indexes
        start as a new table does, dropped ones are forgotten."""
        self.spec = spec
        provisioned: dict[str | None, Throughput] = {None: spec.throughput}
        provisioned.update((index.name, index.throughput or ON_DEMAND) for index in spec.global_indexes)
        self._write = self._resized(self._write, {k: t.write_units for k, t in provisioned.items()}, now)
        self._read = self._resized(self._read, {k: t.read_units for k, t in provisioned.items()}, now)

    def _resized(
        self, buckets: dict[str | None, CapacityBucket], rates: dict[str | None, float], now: float
    ) -> dict[str | None, CapacityBucket]:
        resized = {}
        for name, rate in rates.items():
            capacity = rate * self._burst_seconds
            bucket = buckets.get(name)
            if bucket is None or bucket.rate == 0:
                bucket = CapacityBucket(rate, capacity, now, tokens=rate)
            else:
                bucket.resize(rate, capacity, now)
            resized[name] = bucket
        return resized

    def admit_write(self, table_units: float, gsi_units: Mapping[str, float], now: float) -> Admission:
        """Spend ``table_units`` on the table and ``gsi_units`` (by index name) on its global indexes, all or
        nothing: a refusal spends nothing anywhere."""
        admission = self.check_write(table_units, gsi_units, now)
        if admission.admitted:
            self.spend_write(table_units, gsi_units)
        return admission

    def check_write(self, table_units: float, gsi_units: Mapping[str, float], now: float) -> Admission:
        """The decision of :meth:`admit_write` alone, for a caller that needs several tables to agree."""
        return self._check(self._write, "Write", _costs(table_units, gsi_units), now)

    def spend_write(self, table_units: float, gsi_units: Mapping[str, float]) -> None:
        """Spend what :meth:`check_write` allowed at this very ``now``."""
        self._spend(self._write, _costs(table_units, gsi_units))

    def admit_read(self, units: float, now: float, index_name: str | None = None) -> Admission:
        """Spend ``units`` of reads on the table, or on the global index ``index_name``. Reads of a local index
        are the table's."""
        admission = self.check_read(units, now, index_name)
        if admission.admitted:
            self.spend_read(units, index_name)
        return admission

    def check_read(self, units: float, now: float, index_name: str | None = None) -> Admission:
        """The decision of :meth:`admit_read` alone."""
        return self._check(self._read, "Read", {index_name: units}, now)

    def spend_read(self, units: float, index_name: str | None = None) -> None:
        """Spend what :meth:`check_read` allowed at this very ``now``."""
        self._spend(self._read, {index_name: units})

    def _check(
        self,
        buckets: dict[str | None, CapacityBucket],
        direction: str,
        costs: Mapping[str | None, float],
        now: float,
    ) -> Admission:
        if not self._settings.enforced:
            return ADMITTED
        reasons = []
        retry_after_s = 0.0
        for index_name, units in costs.items():
            bucket = buckets[index_name]
            missing = bucket.missing(units, now) if units else 0.0
            if missing:
                reasons.append(self._reason(direction, index_name))
                retry_after_s = max(retry_after_s, missing / bucket.rate + CLOCK_RESOLUTION_S)
        return Admission(tuple(reasons), retry_after_s) if reasons else ADMITTED

    def _spend(self, buckets: dict[str | None, CapacityBucket], costs: Mapping[str | None, float]) -> None:
        for index_name, units in costs.items():
            bucket = buckets[index_name]
            # With the limits off nothing is owed: the level falls to zero and no further.
            bucket.spend(units if self._settings.enforced else min(units, bucket.tokens))

    def _reason(self, direction: str, index_name: str | None) -> ThrottlingReason:
        if index_name is None:
            return ThrottlingReason(f"Table{direction}ProvisionedThroughputExceeded", self.spec.arn)
        return ThrottlingReason(
            f"Index{direction}ProvisionedThroughputExceeded",
            f"{self.spec.arn}/index/{index_name}",
            index_name,
        )

    def levels(self, now: float) -> Iterator[ResourceCapacity]:
        """The table first, then its global indexes."""
        for index_name, write in self._write.items():
            read = self._read[index_name]
            yield ResourceCapacity(
                table_name=self.spec.name,
                index_name=index_name,
                provisioned_read=read.rate,
                provisioned_write=write.rate,
                saved_read=read.refill(now),
                saved_write=write.refill(now),
                capacity_read=read.capacity,
                capacity_write=write.capacity,
            )
