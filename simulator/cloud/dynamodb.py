"""Whether a DynamoDB table can pay for a request: its buckets, its indexes' and their partitions'. No I/O, no clock.

**Who pays.** A write needs capacity on the table *and* on every global index it touches: one starved index refuses
the write on the table, and nothing is spent anywhere (index back-pressure, CAH ``gsi-throttling``).

**Provisioned.** ``provisioned`` units a second, up to 300 s of them saved (CAH ``burst-adaptive-capacity``;
:attr:`LimitSettings.dynamodb_burst_seconds`, never below one second). A new table or index has saved nothing yet: it
starts with one second's worth, so that its first write within the provisioned rate succeeds at once.

**On-demand.** :mod:`simulator.cloud.dynamodb_on_demand`: twice the previous peak, and a maximum if one is set.

**Partitions.** :mod:`simulator.cloud.dynamodb_partitions`: however much is saved, one partition gives 1,000 write
and 3,000 read units a second.

**A cost larger than a bucket** (a 400 KB item on a table whose burst is set to a second) must not be refused for
ever: it is admitted when the bucket is full, and leaves it in debt, so that the long-run rate still holds. Over any
``t`` seconds at most ``capacity + rate * t`` units are spent, plus one such overdraft.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from simulator.cloud import limits
from simulator.cloud.dynamodb_costs import ON_DEMAND, TableSpec, Throughput
from simulator.cloud.dynamodb_on_demand import OnDemandLevel
from simulator.cloud.dynamodb_partitions import CapacityBucket, Partitions, Touches, partitions_for
from simulator.cloud.limits import LimitSettings

Direction = Literal["Read", "Write"]

TABLE_THROTTLED = (
    "The level of configured provisioned throughput for the table was exceeded. "
    "Consider increasing your provisioning level with the UpdateTable API."
)
INDEX_THROTTLED = (
    "The level of configured provisioned throughput for one or more global secondary indexes of the table was "
    "exceeded. Consider increasing your provisioning level for the under-provisioned global secondary indexes "
    "with the UpdateTable API"
)
ON_DEMAND_THROTTLED = (
    "Throughput exceeds the current capacity of your table or index. DynamoDB is automatically scaling your table or "
    "index so please try again shortly. If exceptions persist, check if you have a hot key: "
    "https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-partition-key-design.html"
)
ON_DEMAND_INDEX_THROTTLED = (
    "Throughput exceeds the current capacity for one or more global secondary indexes. DynamoDB is automatically "
    "scaling your index so please try again shortly."
)
MAX_ON_DEMAND_THROTTLED = "Throughput exceeds the maximum OnDemandThroughput configured on table or index"

# A float of seconds since the epoch tells times apart by 0.24 us; a wait is told this much longer, so that who
# waits it out is not short by a rounding.
CLOCK_RESOLUTION_S = 1e-6


@dataclass(frozen=True, slots=True)
class ThrottlingReason:
    """An entry of the exception's ``ThrottlingReasons``: which limit, on which table or index (its ARN).
    ``index_name`` is ``None`` when it is the table's own; ``limit`` is the reason without Table/Index and
    Read/Write."""

    reason: str
    resource: str
    index_name: str | None = None
    limit: str = "ProvisionedThroughput"


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether a request may go ahead; if not, every starved resource and the seconds until all could pay."""

    throttled_by: tuple[ThrottlingReason, ...] = ()
    retry_after_s: float = 0.0
    on_demand: bool = False

    @property
    def admitted(self) -> bool:
        return not self.throttled_by

    @property
    def exception(self) -> str:
        """Provisioned tables and on-demand ones throttle by different names."""
        return "ThrottlingException" if self.on_demand else "ProvisionedThroughputExceededException"

    @property
    def message(self) -> str:
        """AWS's text of the exception; the table's when table and index starve."""
        is_table = any(reason.index_name is None for reason in self.throttled_by)
        if not self.on_demand:
            return TABLE_THROTTLED if is_table else INDEX_THROTTLED
        if any(reason.limit == "MaxOnDemandThroughput" for reason in self.throttled_by):
            return MAX_ON_DEMAND_THROTTLED
        return ON_DEMAND_THROTTLED if is_table else ON_DEMAND_INDEX_THROTTLED


ADMITTED = Admission()


@dataclass(frozen=True, slots=True)
class ResourceCapacity:
    """State of one table (``index_name`` ``None``) or global index, in units and units a second.

    ``saved`` is what its bucket holds now, negative while in debt, of ``capacity`` at most. ``provisioned`` is zero
    when it is on-demand; the bucket is then that of twice the previous peak.
    """

    table_name: str
    index_name: str | None
    provisioned_read: float
    provisioned_write: float
    saved_read: float
    saved_write: float
    capacity_read: float
    capacity_write: float
    partitions: int = 1


class _Resource:
    """A table's own capacity, or a global index's: buckets for reads and writes, and the partitions of both."""

    def __init__(self, throughput: Throughput, has_local_indexes: bool, settings: LimitSettings, now: float) -> None:
        self._settings = settings
        self.provisioned: dict[Direction, CapacityBucket] = {}
        self.on_demand: dict[Direction, OnDemandLevel] = {}
        self.partitions = Partitions(1, has_local_indexes, settings, now)
        self.update(throughput, now)

    def update(self, throughput: Throughput, now: float) -> None:
        """UpdateTable: what was saved is kept up to the new capacity."""
        self.throughput = throughput
        if throughput.is_on_demand:
            self.provisioned.clear()
            levels: tuple[tuple[Direction, float, float], ...] = (
                (
                    "Read",
                    max(limits.ON_DEMAND_READ_UNITS.value, throughput.warm_read_units),
                    throughput.max_read_units,
                ),
                (
                    "Write",
                    max(limits.ON_DEMAND_WRITE_UNITS.value, throughput.warm_write_units),
                    throughput.max_write_units,
                ),
            )
            for direction, initial, most in levels:
                if direction in self.on_demand:
                    self.on_demand[direction].resize(most, now)
                else:
                    self.on_demand[direction] = OnDemandLevel(initial, most, now)
            self.partitions.grow(partitions_for(0, self.on_demand["Write"].level.rate), now)
            return
        self.on_demand.clear()
        burst_s = max(1.0, self._settings.dynamodb_burst_seconds)
        rates: tuple[tuple[Direction, float], ...] = (
            ("Read", throughput.read_units),
            ("Write", throughput.write_units),
        )
        for direction, rate in rates:
            bucket = self.provisioned.get(direction)
            if bucket is None:
                self.provisioned[direction] = CapacityBucket(rate, rate * burst_s, now, tokens=rate)
            else:
                bucket.resize(rate, rate * burst_s, now)
        self.partitions.grow(partitions_for(throughput.read_units, throughput.write_units), now)

    def bucket(self, direction: Direction) -> CapacityBucket:
        """What it has saved, or its on-demand level."""
        return self.provisioned[direction] if self.provisioned else self.on_demand[direction].level

    def refusal(
        self, direction: Direction, units: float, touches: Touches | None, now: float
    ) -> tuple[str, float] | None:
        """The limit that cannot pay ``units`` and the seconds until it could; None when all can."""
        level = self.on_demand.get(direction)
        if level is not None:
            level.settle(now)
            units_a_second = level.level.rate
            self.partitions.grow(
                partitions_for(units_a_second, 0) if direction == "Read" else partitions_for(0, units_a_second), now
            )
            missing = level.maximum.missing(units, now)
            if missing:
                return "MaxOnDemandThroughput", missing / level.maximum.rate
        bucket = self.bucket(direction)
        missing = bucket.missing(units, now)
        if missing:
            # An on-demand level is made of partitions: who exceeds it exceeds theirs.
            limit = "ProvisionedThroughput" if level is None else "KeyRangeThroughput"
            at_most = level is not None and level.level.rate >= limits.TABLE_MAX_UNITS.value
            return "AccountLimit" if at_most else limit, missing / bucket.rate
        wait_s = self.partitions.missing_seconds(direction, units, touches, now)
        if wait_s:
            self.partitions.refused(touches, now)
            return "KeyRangeThroughput", wait_s
        return None

    def spend(self, direction: Direction, units: float, touches: Touches | None, now: float) -> None:
        level = self.on_demand.get(direction)
        if level is not None:
            level.spend(units, now)
        else:
            self.bucket(direction).spend(units)
        self.partitions.spend(direction, units, touches)


def _costs(table_units: float, gsi_units: Mapping[str, float]) -> dict[str | None, float]:
    costs: dict[str | None, float] = {None: table_units}
    costs.update(gsi_units.items())
    return costs


class TableCapacity:
    """The buckets of one table and its global indexes. O(indexes) a request; not thread-safe by itself."""

    def __init__(self, spec: TableSpec, settings: LimitSettings, now: float) -> None:
        self.spec = spec
        self._settings = settings
        self._resources: dict[str | None, _Resource] = {}
        self.update(spec, now)

    def update(self, spec: TableSpec, now: float) -> None:
        """Take over a changed table (UpdateTable): new indexes start as a new table does, dropped ones are
        forgotten."""
        self.spec = spec
        throughputs: dict[str | None, Throughput] = {None: spec.throughput}
        throughputs.update((index.name, index.throughput or ON_DEMAND) for index in spec.global_indexes)
        kept = {}
        for name, throughput in throughputs.items():
            resource = self._resources.get(name)
            if resource is None:
                has_local_indexes = name is None and bool(spec.local_indexes)
                resource = _Resource(throughput, has_local_indexes, self._settings, now)
            else:
                resource.update(throughput, now)
            kept[name] = resource
        self._resources = kept

    def admit_write(
        self,
        table_units: float,
        gsi_units: Mapping[str, float],
        now: float,
        touches: Mapping[str | None, Touches] | None = None,
    ) -> Admission:
        """Spend ``table_units`` on the table and ``gsi_units`` (by index name) on its global indexes, all or
        nothing: a refusal spends nothing anywhere. ``touches`` tells where, by index name; None is the table."""
        admission = self.check_write(table_units, gsi_units, now, touches)
        if admission.admitted:
            self.spend_write(table_units, gsi_units, now, touches)
        return admission

    def check_write(
        self,
        table_units: float,
        gsi_units: Mapping[str, float],
        now: float,
        touches: Mapping[str | None, Touches] | None = None,
    ) -> Admission:
        """The decision of :meth:`admit_write` alone, for a caller that needs several tables to agree."""
        return self._check("Write", _costs(table_units, gsi_units), now, touches or {})

    def spend_write(
        self,
        table_units: float,
        gsi_units: Mapping[str, float],
        now: float,
        touches: Mapping[str | None, Touches] | None = None,
    ) -> None:
        """Spend what :meth:`check_write` allowed at this very ``now``."""
        self._spend("Write", _costs(table_units, gsi_units), now, touches or {})

    def admit_read(
        self, units: float, now: float, index_name: str | None = None, touches: Touches | None = None
    ) -> Admission:
        """Spend ``units`` of reads on the table, or on the global index ``index_name``. Reads of a local index
        are the table's. Without ``touches`` all partitions are read alike."""
        admission = self.check_read(units, now, index_name, touches)
        if admission.admitted:
            self.spend_read(units, now, index_name, touches)
        return admission

    def check_read(
        self, units: float, now: float, index_name: str | None = None, touches: Touches | None = None
    ) -> Admission:
        """The decision of :meth:`admit_read` alone."""
        return self._check("Read", {index_name: units}, now, {index_name: touches} if touches else {})

    def spend_read(
        self, units: float, now: float, index_name: str | None = None, touches: Touches | None = None
    ) -> None:
        """Spend what :meth:`check_read` allowed at this very ``now``."""
        self._spend("Read", {index_name: units}, now, {index_name: touches} if touches else {})

    def _check(
        self,
        direction: Direction,
        costs: Mapping[str | None, float],
        now: float,
        touches: Mapping[str | None, Touches],
    ) -> Admission:
        if not self._settings.enforced:
            return ADMITTED
        reasons = []
        retry_after_s = 0.0
        for index_name, units in costs.items():
            resource = self._resources[index_name]
            refused = resource.refusal(direction, units, touches.get(index_name), now) if units else None
            if refused is not None:
                limit, wait_s = refused
                reasons.append(self._reason(direction, limit, index_name))
                retry_after_s = max(retry_after_s, wait_s + CLOCK_RESOLUTION_S)
        if not reasons:
            return ADMITTED
        return Admission(tuple(reasons), retry_after_s, self.spec.throughput.is_on_demand)

    def _spend(
        self,
        direction: Direction,
        costs: Mapping[str | None, float],
        now: float,
        touches: Mapping[str | None, Touches],
    ) -> None:
        for index_name, units in costs.items():
            resource = self._resources[index_name]
            if self._settings.enforced:
                resource.spend(direction, units, touches.get(index_name), now)
            else:
                # With the limits off nothing is owed: the level falls to zero and no further.
                bucket = resource.bucket(direction)
                bucket.spend(min(units, bucket.refill(now)))

    def _reason(self, direction: Direction, limit: str, index_name: str | None) -> ThrottlingReason:
        kind, resource = "Table", self.spec.arn
        if index_name is not None:
            kind, resource = "Index", f"{self.spec.arn}/index/{index_name}"
        return ThrottlingReason(f"{kind}{direction}{limit}Exceeded", resource, index_name, limit)

    def levels(self, now: float) -> Iterator[ResourceCapacity]:
        """The table first, then its global indexes."""
        for index_name, resource in self._resources.items():
            read, write = resource.bucket("Read"), resource.bucket("Write")
            yield ResourceCapacity(
                table_name=self.spec.name,
                index_name=index_name,
                provisioned_read=resource.throughput.read_units,
                provisioned_write=resource.throughput.write_units,
                saved_read=read.refill(now),
                saved_write=write.refill(now),
                capacity_read=read.capacity,
                capacity_write=write.capacity,
                partitions=len(resource.partitions),
            )
