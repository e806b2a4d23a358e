"""A table in virtual time: its capacity is the cloud's own, its items have the sizes that handlers give them.

A write asks :class:`simulator.cloud.dynamodb.TableCapacity` with what
:func:`~simulator.cloud.dynamodb_costs.write_cost` says of the items before and after it, and with where they lie, so
that partitions have their limits too.
"""

from __future__ import annotations

from collections.abc import Mapping

from simulator.capacity.timeline import Timeline
from simulator.cloud import dynamodb_costs
from simulator.cloud.dynamodb import Admission, TableCapacity
from simulator.cloud.dynamodb_costs import Cost, failed_condition_cost, write_cost
from simulator.cloud.dynamodb_partitions import Touches
from simulator.cloud.dynamodb_placement import item_touches, write_touches
from simulator.cloud.item_size import Item, item_size, read_units
from simulator.cloud.limits import PARTITION_READ_UNITS, PARTITION_WRITE_UNITS, LimitSettings
from simulator.deployment import TableSpec

_LIMITS = {
    "ProvisionedThroughput": "provisioned_units_per_second",
    "KeyRangeThroughput": "partition.units_per_second",
    "MaxOnDemandThroughput": "max_on_demand_units_per_second",
    "AccountLimit": "account.units_per_second",
}


def capacity_spec(table: TableSpec) -> dynamodb_costs.TableSpec:
    """What capacity arithmetic needs of a template's table; as the cloud takes it from CreateTable's answer."""
    described = table.create_table_kwargs()
    billing = {"BillingModeSummary": {"BillingMode": table.billing_mode}}
    return dynamodb_costs.TableSpec.from_description({**described, **billing, "TableArn": table.arn})


class Table:
    """One table of the deployment."""

    def __init__(self, table: TableSpec, settings: LimitSettings, timeline: Timeline, now: float) -> None:
        self.name = table.name
        self.spec = capacity_spec(table)
        self.capacity = TableCapacity(self.spec, settings, now)
        self.write_units = self.read_units = 0.0
        self._timeline = timeline
        self._costs: dict[str, Cost] = {}
        self._names: dict[str | None, str] = {None: table.name}
        self._provisioned: dict[tuple[str, str | None], float] = {}
        for level in self.capacity.levels(now):
            self._provisioned["Write", level.index_name] = level.provisioned_write
            self._provisioned["Read", level.index_name] = level.provisioned_read

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
            for direction, each, saved, rate in (
                ("write", written, level.saved_write, level.provisioned_write),
                ("read", read if is_table else 0.0, level.saved_read, level.provisioned_read),
            ):
                if rate and writes * each > max(0.0, saved) + rate * (until - now):
                    name = self.resource(level.index_name)
                    return f"{name} owes {writes * each:,.0f} {direction} units and has {rate:,.0f} a second"
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
        """Units a second by resource; 0 where it is on-demand."""
        found: dict[str, dict[str, float]] = {}
        for (direction, index_name), units in self._provisioned.items():
            found.setdefault(self.resource(index_name), {})[direction.lower()] = units
        return found

    def _consumed(self, direction: str, units: Mapping[str | None, float], now: float) -> None:
        metric = "consumed_write_units" if direction == "Write" else "consumed_read_units"
        for index_name, amount in units.items():
            self._timeline.add(metric, self.resource(index_name), now, amount)

    def _refused(self, direction: str, admission: Admission, now: float) -> None:
        for reason in admission.throttled_by:
            resource = self.resource(reason.index_name)
            self._timeline.add(f"throttled_{direction.lower()}s", resource, now, 1)
            kind = "table" if reason.index_name is None else "index"
            name = f"dynamodb.{kind}.{direction.lower()}.{_LIMITS[reason.limit]}"
            limit = self._provisioned[direction, reason.index_name] if reason.limit == "ProvisionedThroughput" else 0.0
            if reason.limit == "KeyRangeThroughput":
                limit = (PARTITION_WRITE_UNITS if direction == "Write" else PARTITION_READ_UNITS).value
            self._timeline.broke(name, resource, limit, "units/s", now)
