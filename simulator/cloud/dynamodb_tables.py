"""The capacity of every table the store has, by region and name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from simulator.cloud import limits
from simulator.cloud.dynamodb import ResourceCapacity, TableCapacity
from simulator.cloud.dynamodb_answers import CapacityMetrics
from simulator.cloud.dynamodb_changes import ChangeHistory
from simulator.cloud.dynamodb_costs import TableSpec
from simulator.cloud.dynamodb_requests import Call
from simulator.cloud.dynamodb_streams import TableStreams
from simulator.cloud.errors import AwsError
from simulator.cloud.limits import LimitSettings
from simulator.cloud.store import Change, Store, table_name_of


class Tables:
    """Keeps a :class:`TableCapacity` for each table of ``store``."""

    def __init__(self, store: Store, settings: LimitSettings, metrics: CapacityMetrics) -> None:
        self._store = store
        self._settings = settings
        self._metrics = metrics
        self._by_name: dict[tuple[str, str], TableCapacity] = {}
        self._changes: dict[tuple[str, str], ChangeHistory] = {}
        self.streams = TableStreams()
        self._on_demand: dict[tuple[str, str], dict[str | None, Mapping[str, int]]] = {}

    def commit(self, changes: Sequence[tuple[str, Change]], call: Call) -> None:
        """Make staged changes real, each of the table named beside it, and record them in the tables' streams."""
        self._store.commit([change for _, change in changes], call.region)
        for name_or_arn, change in changes:
            self.streams.add(call.region, table_name_of(name_or_arn), change.before, change.after, call.now)

    def changes(self, name_or_arn: str, region: str) -> ChangeHistory:
        """What was changed of a table and when."""
        return self._changes.setdefault((region, table_name_of(name_or_arn)), ChangeHistory())

    def set_on_demand(self, params: Mapping[str, Any], region: str) -> None:
        """Remember OnDemandThroughput of a CreateTable or UpdateTable, which the store may not."""
        maxima = self._on_demand.setdefault((region, table_name_of(params["TableName"])), {})
        if "OnDemandThroughput" in params:
            maxima[None] = params["OnDemandThroughput"]
        updates = params.get("GlobalSecondaryIndexUpdates") or ()
        indexes = [*(params.get("GlobalSecondaryIndexes") or ()), *(one for up in updates for one in up.values())]
        for index in indexes:
            if "OnDemandThroughput" in index:
                maxima[index["IndexName"]] = index["OnDemandThroughput"]

    def described(self, description: dict[str, Any], region: str, now: float) -> dict[str, Any]:
        """A TableDescription with the members that the store does not know."""
        changes = self.changes(description["TableName"], region)
        maxima = self._on_demand.get((region, description["TableName"]), {})
        spec = TableSpec.from_description(description)
        for index_name, resource in (
            (None, description),
            *((index["IndexName"], index) for index in description.get("GlobalSecondaryIndexes") or ()),
        ):
            if index_name in maxima:
                resource["OnDemandThroughput"] = maxima[index_name]
            units = resource.get("ProvisionedThroughput") or {}
            if units:
                units["NumberOfDecreasesToday"] = changes.decreases_today(index_name, now)
            warm = (limits.ON_DEMAND_READ_UNITS.value, limits.ON_DEMAND_WRITE_UNITS.value)
            if not spec.throughput.is_on_demand:
                warm = (units.get("ReadCapacityUnits", 0), units.get("WriteCapacityUnits", 0))
            # For a provisioned table the store tells what was provisioned at first.
            asked = (resource.get("WarmThroughput") or {}) if spec.throughput.is_on_demand else {}
            resource["WarmThroughput"] = {
                "ReadUnitsPerSecond": max(int(warm[0]), asked.get("ReadUnitsPerSecond", 0)),
                "WriteUnitsPerSecond": max(int(warm[1]), asked.get("WriteUnitsPerSecond", 0)),
                "Status": "ACTIVE",
            }
        return description

    def keep(self, spec: TableSpec, region: str, now: float) -> TableCapacity:
        """A table was created or changed."""
        table = self._by_name.get((region, spec.name))
        if table is None:
            table = self._by_name[(region, spec.name)] = TableCapacity(spec, self._settings, now)
        else:
            table.update(spec, now)
        self._metrics.provisioned(spec, now)
        return table

    def of(self, name_or_arn: str, call: Call) -> TableCapacity:
        """The buckets of a table that the store has, also of one that came by another way than CreateTable
        (CloudFormation, a restored backup)."""
        table = self._by_name.get((call.region, table_name_of(name_or_arn)))
        if table is not None:
            return table
        description = self._store.describe_table(name_or_arn, call.region)
        if description is None:
            raise AwsError("ResourceNotFoundException", "Requested resource not found")
        self.streams.follow(description, call.region, call.now)
        return self.keep(TableSpec.from_description(description), call.region, call.now)

    def forget(self, name_or_arn: str, region: str, now: float) -> None:
        """A table was deleted; one of the same name starts anew."""
        self.streams.end(region, table_name_of(name_or_arn), now)
        self._by_name.pop((region, table_name_of(name_or_arn)), None)
        self._changes.pop((region, table_name_of(name_or_arn)), None)
        self._on_demand.pop((region, table_name_of(name_or_arn)), None)

    def levels(self, now: float) -> dict[str, list[ResourceCapacity]]:
        """By table ARN, the table's capacity and then that of its global indexes."""
        return {table.spec.arn: list(table.levels(now)) for table in self._by_name.values()}
