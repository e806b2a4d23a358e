"""A table in virtual time: its capacity is the cloud's own, its items have the sizes that handlers give them.

A write asks :class:`simulator.cloud.dynamodb.TableCapacity` with what
:func:`~simulator.cloud.dynamodb_costs.write_cost` says of the items before and after it, and with where they lie, so
that partitions have their limits too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from simulator.capacity.table_feed import TableFeed
from simulator.capacity.timeline import Timeline
from simulator.cloud import dynamodb_costs
from simulator.cloud.auto_scaling import ScalingPolicy
from simulator.cloud.dynamodb import Admission, Direction, TableCapacity, ThrottlingReason
from simulator.cloud.dynamodb_changes import ChangeHistory
from simulator.cloud.dynamodb_costs import Cost, failed_condition_cost, write_cost
from simulator.cloud.dynamodb_partitions import Touches
from simulator.cloud.dynamodb_placement import item_touches, write_touches
from simulator.cloud.errors import AwsError
from simulator.cloud.item_size import Item, item_size, read_units
from simulator.cloud.limits import (
    ON_DEMAND_READ_UNITS,
    ON_DEMAND_WRITE_UNITS,
    PARTITION_READ_UNITS,
    PARTITION_WRITE_UNITS,
    LimitSettings,
)
from simulator.deployment import TableSpec


def capacity_spec(table: TableSpec) -> dynamodb_costs.TableSpec:
    """What capacity arithmetic needs of a template's table; as the cloud takes it from CreateTable's answer."""
    described = table.create_table_kwargs()
    billing = {"BillingModeSummary": {"BillingMode": table.billing_mode}}
    return dynamodb_costs.TableSpec.from_description({**described, **billing, "TableArn": table.arn})


@dataclass(frozen=True, slots=True)
class Scaled:
    """Units a second of a table or index (``resource``) were changed, ``at_s`` from the start of the first race."""

    at_s: float
    resource: str
    direction: Direction
    before: float
    after: float

    def as_json(self) -> dict[str, object]:
        return {"at_s": round(self.at_s, 1), "direction": self.direction.lower(), "from": self.before, "to": self.after}


class Table:
    """One table of the deployment. ``scaled`` are the changes of its provisioned units, in order; ``scales_to`` is the
    most that auto scaling may make of them, by direction and index. ``feed`` is its stream, where somebody reads it."""

    def __init__(self, table: TableSpec, settings: LimitSettings, timeline: Timeline, now: float) -> None:
        self.name = table.name
        self.spec = capacity_spec(table)
        self.capacity = TableCapacity(self.spec, settings, now)
        self.write_units = self.read_units = 0.0
        self.scaled: list[Scaled] = []
        self.feed: TableFeed | None = None
        self.scales_to: dict[tuple[Direction, str | None], float] = {}
        self._enforced = settings.enforced
        self._history = ChangeHistory()
        self._timeline = timeline
        self._stands_from_s = now - timeline.start
        self._costs: dict[str, Cost] = {}
        self._names: dict[str | None, str] = {None: table.name}
        self._deployed: dict[tuple[Direction, str | None], float] = {}
        for level in self.capacity.levels(now):
            self._deployed["Write", level.index_name] = level.provisioned_write
            self._deployed["Read", level.index_name] = level.provisioned_read
        self._provisioned = dict(self._deployed)
        self._used: dict[tuple[Direction, str | None], float] = dict.fromkeys(self._deployed, 0.0)

    def put(self, before: Item | None, after: Item, now: float, alike: str = "") -> bool:
        """Whether the table and its indexes pay for a write now; nothing is spent when not. Writes that are ``alike``
        differ in no size, and are weighed once."""
        cost = self._costs.get(alike)
        if cost is None:
            cost = write_cost(self.spec, before, after)
            if alike:
                self._costs[alike] = cost
        touches = write_touches(self.spec, before, after, after, cost)
        admission = self.capacity.admit_write(cost.table_units, cost.global_, now, touches)
        if not admission.admitted:
            self._refused("Write", admission, now)
            return False
        units: dict[str | None, float] = {None: cost.table_units}
        units.update(cost.global_.items())
        self._consumed("Write", units, now)
        self.write_units += cost.total_units
        if self.feed is not None:
            self.feed.add(before, after, now, alike)
        return True

    def put_refused_by_condition(self, before: Item | None, key: Item, now: float) -> bool:
        """A conditional write that finds another item than it wants; the look at it is paid."""
        cost = failed_condition_cost(before)
        touches: dict[str | None, Touches] = {None: item_touches(self.spec, key, cost.table_units)}
        admission = self.capacity.admit_write(cost.table_units, {}, now, touches)
        if not admission.admitted:
            self._refused("Write", admission, now)
            return False
        self._consumed("Write", {None: cost.table_units}, now)
        self.write_units += cost.total_units
        return True

    def get(self, units: float, key: Item, now: float) -> bool:
        """A consistent read that takes so many units."""
        admission = self.capacity.admit_read(units, now, touches=item_touches(self.spec, key, units))
        if not admission.admitted:
            self._refused("Read", admission, now)
            return False
        self._consumed("Read", {None: units}, now)
        self.read_units += units
        return True

    def why_never(self, writes: int, before: Item | None, after: Item, now: float, until: float) -> str:
        """Why so many writes, each after a read of what was ``before``, cannot be paid by ``until``, in words; empty
        where they might be."""
        cost = write_cost(self.spec, before, after)
        read = read_units(item_size(before), consistent=True) if before else 0.0
        for level in self.capacity.levels(now):
            is_table = level.index_name is None
            written = cost.table_units if level.index_name is None else cost.global_.get(level.index_name, 0.0)
            directions: tuple[tuple[Direction, float, float, float], ...] = (
                ("Write", written, level.saved_write, level.provisioned_write),
                ("Read", read if is_table else 0.0, level.saved_read, level.provisioned_read),
            )
            for direction, each, saved, rate in directions:
                rate = max(rate, self.scales_to.get((direction, level.index_name), 0.0))
                if rate and writes * each > max(0.0, saved) + rate * (until - now):
                    name = self.resource(level.index_name)
                    return f"{name} owes {writes * each:,.0f} {direction.lower()} units and has {rate:,.0f} a second"
        return ""

    def resource(self, index_name: str | None) -> str:
        """``table`` or ``table/index``."""
        known = self._names.get(index_name)
        if known is None:
            known = self._names[index_name] = f"{self.name}/{index_name}"
        return known

    def record_levels(self, now: float) -> None:
        """What is saved, at the end of a second."""
        for level in self.capacity.levels(now):
            resource = self.resource(level.index_name)
            self._timeline.level("burst_left_write", resource, now, level.saved_write)
            self._timeline.level("burst_left_read", resource, now, level.saved_read)

    def provisioned(self) -> Mapping[str, dict[str, float]]:
        """Units a second by resource as they were deployed; 0 where it is on-demand."""
        found: dict[str, dict[str, float]] = {}
        for (direction, index_name), units in self._deployed.items():
            found.setdefault(self.resource(index_name), {})[direction.lower()] = units
        return found

    def consumed(self, direction: Direction, index_name: str | None) -> float:
        """Units so far of the table (None) or a global index."""
        return self._used.get((direction, index_name), 0.0)

    def scale(self, policy: ScalingPolicy, units: int, now: float) -> bool:
        """UpdateTable as auto scaling calls it; False when it is refused, as too many decreases of a day are."""
        throughput = policy.throughput(self.spec)
        if throughput is None:
            return False
        request = policy.update_table(throughput, units)
        try:
            self._history.check(self.spec, request, now, enforced=self._enforced)
        except AwsError:
            return False
        self._history.count(self.spec, request, now)
        changed = (
            replace(throughput, read_units=float(units))
            if policy.direction == "Read"
            else replace(throughput, write_units=float(units))
        )
        if policy.index is None:
            self.spec = replace(self.spec, throughput=changed)
        else:
            indexes = self.spec.global_indexes
            self.spec = replace(
                self.spec,
                global_indexes=tuple(
                    replace(one, throughput=changed) if one.name == policy.index else one for one in indexes
                ),
            )
        self.capacity.update(self.spec, now)
        before = policy.units(throughput)
        self._provisioned[policy.direction, policy.index] = units
        resource = self.resource(policy.index)
        self.scaled.append(Scaled(now - self._timeline.start, resource, policy.direction, before, float(units)))
        return True

    def unit_hours(self, direction: Direction, seconds: float) -> float:
        """Provisioned units times hours since it stands, each hour begun at the highest level that it saw; of the
        table and its global indexes."""
        hours = math.ceil(seconds / 3600)
        total = 0.0
        for (of, index_name), deployed in self._deployed.items():
            if of != direction:
                continue
            highest, level = [0.0] * hours, deployed
            changes = [
                (one.at_s - self._stands_from_s, one.after)
                for one in self.scaled
                if (one.direction, one.resource) == (direction, self.resource(index_name))
            ]
            for hour in range(hours):
                highest[hour] = level
                while changes and changes[0][0] < min(seconds, (hour + 1) * 3600):
                    level = changes.pop(0)[1]
                    highest[hour] = max(highest[hour], level)
            total += sum(highest)
        return total

    def _consumed(self, direction: Direction, units: Mapping[str | None, float], now: float) -> None:
        metric = "consumed_write_units" if direction == "Write" else "consumed_read_units"
        for index_name, amount in units.items():
            if amount:
                self._used[direction, index_name] += amount
            self._timeline.add(metric, self.resource(index_name), now, amount)

    def _refused(self, direction: Direction, admission: Admission, now: float) -> None:
        metric = "throttled_writes" if direction == "Write" else "throttled_reads"
        for reason in admission.throttled_by:
            resource = self.resource(reason.index_name)
            self._timeline.add(metric, resource, now, 1)
            name, limit = self._limit_of(direction, reason)
            self._timeline.broke(name, resource, limit, "WCU/s" if direction == "Write" else "RCU/s", now)

    def _limit_of(self, direction: Direction, reason: ThrottlingReason) -> tuple[str, float]:
        """As a race's report names it (:mod:`simulator.utilisation`)."""
        is_write = direction == "Write"
        provisioned = self._provisioned[direction, reason.index_name]
        if provisioned and reason.limit == "KeyRangeThroughput":
            quota = PARTITION_WRITE_UNITS if is_write else PARTITION_READ_UNITS
            return quota.name, quota.value
        kind = "table" if reason.index_name is None else "index"
        name = f"dynamodb.{kind}.{'write' if is_write else 'read'}.units_per_second"
        return name, provisioned or (ON_DEMAND_WRITE_UNITS if is_write else ON_DEMAND_READ_UNITS).value
