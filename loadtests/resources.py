"""What is there to be loaded: the stream's shards, the table's capacity, and the limits that follow from them.

Read from the service itself, so a report compares with what was provisioned and not with what somebody meant to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from simulator.cloud import limits
from simulator.target import Target, TargetError, reaching


@dataclass(frozen=True, slots=True)
class Shard:
    """An open shard; ``hash_key`` lies in the middle of its range."""

    shard_id: str
    hash_key: str


@dataclass(frozen=True, slots=True)
class Index:
    """``wcu`` and ``rcu`` are 0 for a local index, which has none of its own, and for on-demand tables."""

    name: str
    kind: str
    wcu: float = 0.0
    rcu: float = 0.0


@dataclass(frozen=True, slots=True)
class Table:
    """A table and its indexes; units are 0 when it is on demand."""

    name: str
    wcu: float
    rcu: float
    indexes: tuple[Index, ...] = ()

    def index(self, kind: str) -> Index | None:
        """The first LSI or GSI."""
        return next((one for one in self.indexes if one.kind == kind), None)


@dataclass(frozen=True, slots=True)
class Limit:
    """One published or provisioned limit of one resource, and how to find it in measurements.

    ``measure`` is the member of :class:`loadtests.measurements.Counts` that it limits. Refusals are known
    ``known_after_s`` after what they refuse: a broker that discards does not say so.
    """

    name: str
    resource: str
    value: float
    unit: str
    operations: tuple[str, ...]
    measure: str
    known_after_s: int = 0


@dataclass(frozen=True, slots=True)
class Resources:
    """A stream (absent when a scenario needs none) and a table (likewise)."""

    stream: str = ""
    mode: str = "PROVISIONED"
    shards: tuple[Shard, ...] = ()
    table: Table | None = None
    small_region: bool = False
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def hash_keys(self) -> tuple[str, ...]:
        return tuple(shard.hash_key for shard in self.shards)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Resources:
        table = told["table"]
        return cls(
            stream=told["stream"],
            mode=told["mode"],
            shards=tuple(Shard(**one) for one in told["shards"]),
            table=None
            if table is None
            else Table(table["name"], table["wcu"], table["rcu"], tuple(Index(**one) for one in table["indexes"])),
            small_region=told["small_region"],
            extra=told["extra"],
        )


PUTS = ("PutRecords", "PutRecord")
READS = ("GetRecords",)
WRITES = ("PutItem", "BatchWriteItem")
QUERIES = ("Query",)
PUBLISHES = ("Publish",)
PUBACK_S = 1
"""After so long without a PUBACK a message is known to be discarded (``ACK_TIMEOUT_S`` of bikers)."""


def limits_of(resources: Resources) -> list[Limit]:
    """Every limit of these resources that a load test can meet."""
    found = []
    on_demand = resources.mode != "PROVISIONED"
    for shard in resources.shards:
        for quota, operations, measure in (
            (limits.SHARD_WRITE_RECORDS, PUTS, "accepted"),
            (limits.SHARD_WRITE_BYTES, PUTS, "bytes"),
            (limits.SHARD_READ_CALLS, READS, "accepted"),
            (limits.SHARD_READ_BYTES, READS, "bytes"),
        ):
            found.append(Limit(quota.name, shard.shard_id, quota.value, quota.unit, operations, measure))
    if on_demand:
        found = [one for one in found if one.operations == READS]
    table = resources.table
    if table is not None:
        found += _capacity("table", table.name, table.wcu, table.rcu)
        for index in table.indexes:
            if index.kind == "GSI":
                found += _capacity("index", f"{table.name}/{index.name}", index.wcu, index.rcu)
    return found


def _capacity(kind: str, resource: str, wcu: float, rcu: float) -> list[Limit]:
    """On-demand capacity has no line to draw: it grows with what was asked of it before."""
    found = []
    if wcu:
        found.append(Limit(f"dynamodb.{kind}.write.units_per_second", resource, wcu, "WCU/s", WRITES, "units"))
    if rcu:
        found.append(Limit(f"dynamodb.{kind}.read.units_per_second", resource, rcu, "RCU/s", QUERIES, "units"))
    return found


def iot_limits(client_ids: tuple[str, ...], small_region: bool) -> list[Limit]:
    """Of one account and of each connection. Smaller regions: 2,000 publishes/s (CAH)."""
    account = limits.IOT_PUBLISH_IN
    value = limits.IOT_SMALL_PUBLISH_IN.value if small_region else account.value
    connection = limits.IOT_CONNECTION_PUBLISHES
    return [
        Limit(account.name, "IoT Core", value, account.unit, PUBLISHES, "accepted", PUBACK_S),
        *(
            Limit(connection.name, client_id, connection.value, connection.unit, PUBLISHES, "accepted", PUBACK_S)
            for client_id in client_ids
        ),
    ]


def look_up(target: Target, stream: str | None, table: str | None) -> Resources:
    """Ask ``target`` about the stream and the table that a scenario needs.

    :raises TargetError: when one is not there, or nobody answers.
    """
    shards: list[Shard] = []
    mode = "PROVISIONED"
    if stream:
        kinesis = target.client("kinesis", connect_timeout=5, read_timeout=10, **_FEW)
        with _missing(f"stream {stream}", target, kinesis):
            summary = kinesis.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]
            mode = summary.get("StreamModeDetails", {}).get("StreamMode", "PROVISIONED")
            for page in kinesis.get_paginator("list_shards").paginate(
                StreamName=stream, ShardFilter={"Type": "AT_LATEST"}
            ):
                shards += [_shard(one) for one in page["Shards"]]
    found = None
    if table:
        dynamodb = target.client("dynamodb", connect_timeout=5, read_timeout=10, **_FEW)
        with _missing(f"table {table}", target, dynamodb):
            found = _table(dynamodb.describe_table(TableName=table)["Table"])
    return Resources(stream or "", mode, tuple(shards), found)


_FEW = {"retries": {"mode": "standard", "total_max_attempts": 2}}


class _missing:  # noqa: N801 - used as a function
    """Turn "not found" into a line that says what to do."""

    def __init__(self, what: str, target: Target, client: Any) -> None:
        self._what = what
        self._where = f"{target.region} at {client.meta.endpoint_url}"
        self._reaching = reaching(target, f"looking for the {what}")

    def __enter__(self) -> None:
        self._reaching.__enter__()

    def __exit__(self, *error: Any) -> None:
        try:
            self._reaching.__exit__(*error)
        except TargetError as told:
            if "ResourceNotFoundException" in str(told):
                raise TargetError(
                    f"there is no {self._what} in {self._where}; deploy it (sam build && sam deploy), "
                    "or, at an emulator, have locust create it with --create"
                ) from None
            raise


def _shard(told: Mapping[str, Any]) -> Shard:
    bounds = told["HashKeyRange"]
    return Shard(told["ShardId"], str((int(bounds["StartingHashKey"]) + int(bounds["EndingHashKey"])) // 2))


def _table(told: Mapping[str, Any]) -> Table:
    def units(one: Mapping[str, Any]) -> tuple[float, float]:
        given = one.get("ProvisionedThroughput") or {}
        return float(given.get("WriteCapacityUnits", 0)), float(given.get("ReadCapacityUnits", 0))

    indexes = [
        *(Index(one["IndexName"], "LSI") for one in told.get("LocalSecondaryIndexes") or ()),
        *(Index(one["IndexName"], "GSI", *units(one)) for one in told.get("GlobalSecondaryIndexes") or ()),
    ]
    return Table(told["TableName"], *units(told), tuple(indexes))
