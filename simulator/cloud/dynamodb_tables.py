"""The capacity of every table the store has, by region and name."""

from __future__ import annotations

from simulator.cloud.dynamodb import ResourceCapacity, TableCapacity, TableSpec
from simulator.cloud.dynamodb_answers import CapacityMetrics
from simulator.cloud.dynamodb_requests import Call
from simulator.cloud.errors import AwsError
from simulator.cloud.limits import LimitSettings
from simulator.cloud.store import Store, table_name_of


class Tables:
    """Keeps a :class:`TableCapacity` for each table of ``store``."""

    def __init__(self, store: Store, settings: LimitSettings, metrics: CapacityMetrics) -> None:
        self._store = store
        self._settings = settings
        self._metrics = metrics
        self._by_name: dict[tuple[str, str], TableCapacity] = {}

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
        return self.keep(TableSpec.from_description(description), call.region, call.now)

    def forget(self, name_or_arn: str, region: str) -> None:
        """A table was deleted; one of the same name starts anew."""
        self._by_name.pop((region, table_name_of(name_or_arn)), None)

    def levels(self, now: float) -> dict[str, list[ResourceCapacity]]:
        """By table ARN, the table's capacity and then that of its global indexes."""
        return {table.spec.arn: list(table.levels(now)) for table in self._by_name.values()}
