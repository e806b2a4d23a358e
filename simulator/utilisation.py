"""How much of each limit a run used, from the cloud's one-second metrics.

A peak is the busiest whole second. Buckets hold a second's worth (shards) or up to 300 s (tables), so a second may
show more than the rate: that is burst being spent, and ``utilisation`` above 1 says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from simulator.cloud import limits
from simulator.cloud.limits import Quota
from simulator.deployment import Deployment

Point = list[float]
BALANCE_MIN_RECORDS = 100


@dataclass(frozen=True, slots=True)
class LimitUse:
    """One limit of one resource: ``limit`` and ``peak`` are in ``unit``; ``throttled`` counts refusals by it, the first
    of which was in the second ``first_throttled_at`` (since the epoch)."""

    name: str
    resource: str
    limit: float
    unit: str
    peak: float
    throttled: int
    total: float
    first_throttled_at: int | None = None

    @property
    def utilisation(self) -> float:
        return self.peak / self.limit if self.limit else 0.0

    def to_json(self) -> dict[str, Any]:
        """As in report.json."""
        return {
            "name": self.name,
            "resource": self.resource,
            "limit": self.limit,
            "unit": self.unit,
            "peak": round(self.peak, 3),
            "utilisation": round(self.utilisation, 4),
            "throttled": self.throttled,
            "first_throttled_at": self.first_throttled_at,
            "total": round(self.total, 3),
        }


class MetricsView:
    """Look-ups in the answer of ``GET /_alleycat/metrics``."""

    def __init__(self, metrics: Mapping[str, Any]) -> None:
        self._series: dict[tuple[str, str, tuple[tuple[str, str], ...]], list[Point]] = {
            (one["Namespace"], one["MetricName"], tuple(sorted(one["Dimensions"].items()))): one["Points"]
            for one in metrics["metrics"]
        }

    def points(self, namespace: str, name: str, **dimensions: str) -> list[Point]:
        """``[second, SampleCount, Sum, Minimum, Maximum]`` of exactly these dimensions; empty when unknown."""
        return self._series.get((namespace, name, tuple(sorted(dimensions.items()))), [])

    def sums(self, namespace: str, name: str, **dimensions: str) -> dict[int, float]:
        """Sum by second."""
        return {int(point[0]): point[2] for point in self.points(namespace, name, **dimensions)}

    def total(self, namespace: str, name: str, **dimensions: str) -> float:
        return sum(point[2] for point in self.points(namespace, name, **dimensions))

    def first(self, namespace: str, names: Iterable[str], **dimensions: str) -> int | None:
        """The first second in which any of these metrics was more than 0."""
        seconds = [
            second for name in names for second, value in self.sums(namespace, name, **dimensions).items() if value
        ]
        return min(seconds, default=None)

    def values(self, namespace: str, name: str, dimension: str, **dimensions: str) -> list[str]:
        """Which values ``dimension`` takes beside ``dimensions``."""
        found = set()
        for space, metric, dims in self._series:
            if (space, metric) == (namespace, name):
                have = dict(dims)
                if have.items() >= dimensions.items() and dimension in have:
                    found.add(have[dimension])
        return sorted(found)


def limit_use(metrics: Mapping[str, Any], deployment: Deployment) -> list[LimitUse]:
    """Every limit that the deployment's stream and tables came near, in the order of the data's way."""
    view = MetricsView(metrics)
    uses: list[LimitUse] = list(_iot_use(view))
    for stream in deployment.streams:
        for shard in _shards(view, stream.name):
            uses.extend(_shard_use(view, stream.name, shard))
    for table in deployment.tables:
        uses.extend(_capacity_use(view, "table", table.name, table.rcu, table.wcu, TableName=table.name))
        for index in table.indexes:
            if index.kind == "GSI":
                uses.extend(
                    _capacity_use(
                        view,
                        "index",
                        f"{table.name}/{index.name}",
                        index.rcu,
                        index.wcu,
                        TableName=table.name,
                        GlobalSecondaryIndexName=index.name,
                    )
                )
    return uses


def _iot_use(view: MetricsView) -> Iterable[LimitUse]:
    """The account's rates, when anybody came by MQTT. ``throttled`` of publishes counts those of a connection too."""
    namespace = "AWS/IoT"
    for quota, resource, passed, refused in (
        (limits.IOT_CONNECTS, "IoT Core", "Connect.Success", ("Connect.Throttle", "Connect.ClientIDThrottle")),
        (limits.IOT_PUBLISH_IN, "IoT Core", "PublishIn.Success", ("PublishIn.Throttle",)),
        (limits.IOT_PUBLISH_OUT, "IoT Core", "PublishOut.Success", ("PublishOut.Throttle",)),
    ):
        sums = view.sums(namespace, passed, Protocol="MQTT")
        throttled = int(sum(view.total(namespace, one, Protocol="MQTT") for one in refused))
        if sums or throttled:
            total = sum(sums.values())
            yield LimitUse(
                quota.name,
                resource,
                quota.value,
                quota.unit,
                max(sums.values(), default=0),
                throttled,
                total,
                view.first(namespace, refused, Protocol="MQTT"),
            )


@dataclass(frozen=True, slots=True)
class Balance:
    """How evenly a stream's records fell on its shards, second by second.

    ``steady_share`` is the share of the busiest shard over the whole time, ``hottest_share`` that of each second's
    busiest, averaged over the seconds by their records, and ``worst_share`` that of the worst second; an even spread
    would be ``even_share``. A key that stays with its shard, such as a racer's, keeps ``hottest_share`` at
    ``steady_share``; one that moves load from shard to shard, such as a timestamp, lifts it above.
    """

    stream: str
    shards: int
    steady_share: float
    hottest_share: float
    worst_share: float

    @property
    def even_share(self) -> float:
        return 1 / self.shards

    def to_json(self) -> dict[str, Any]:
        """As in report.json."""
        return {
            "stream": self.stream,
            "shards": self.shards,
            "even_share": round(self.even_share, 4),
            "steady_share": round(self.steady_share, 4),
            "hottest_share": round(self.hottest_share, 4),
            "worst_share": round(self.worst_share, 4),
        }


def balances(metrics: Mapping[str, Any], deployment: Deployment) -> list[Balance]:
    """The balance of every stream that has more than one shard and got records. Refused records count too."""
    view = MetricsView(metrics)
    found = []
    for stream in deployment.streams:
        by_shard = [_offered(view, stream.name, shard) for shard in _shards(view, stream.name)]
        totals: dict[int, float] = {}
        for one in by_shard:
            for second, count in one.items():
                totals[second] = totals.get(second, 0) + count
        # A second with a handful of records says nothing about balance.
        busy = {second: total for second, total in totals.items() if total >= BALANCE_MIN_RECORDS}
        if len(by_shard) > 1 and busy:
            hottest = {second: max(one.get(second, 0) for one in by_shard) for second in busy}
            found.append(
                Balance(
                    stream.name,
                    len(by_shard),
                    max(sum(one.get(second, 0) for second in busy) for one in by_shard) / sum(busy.values()),
                    sum(hottest.values()) / sum(busy.values()),
                    max(hottest[second] / busy[second] for second in busy),
                )
            )
    return found


def _offered(view: MetricsView, stream: str, shard: str) -> dict[int, float]:
    dimensions = {"StreamName": stream, "ShardId": shard}
    offered = view.sums("AWS/Kinesis", "IncomingRecords", **dimensions)
    for second, refused in view.sums("AWS/Kinesis", "WriteProvisionedThroughputExceeded", **dimensions).items():
        offered[second] = offered.get(second, 0) + refused
    return offered


def _shards(view: MetricsView, stream: str) -> list[str]:
    names: set[str] = set()
    for metric in ("IncomingRecords", "WriteProvisionedThroughputExceeded", "OutgoingRecords"):
        names.update(view.values("AWS/Kinesis", metric, "ShardId", StreamName=stream))
    return sorted(names)


def _shard_use(view: MetricsView, stream: str, shard: str) -> Iterable[LimitUse]:
    dimensions = {"StreamName": stream, "ShardId": shard}

    def use(quota: Quota, namespace: str, metric: str, refused_in: str, refused: str) -> LimitUse:
        sums = view.sums(namespace, metric, **dimensions)
        throttled = int(view.total(refused_in, refused, **dimensions))
        return LimitUse(
            quota.name,
            shard,
            quota.value,
            quota.unit,
            max(sums.values(), default=0),
            throttled,
            sum(sums.values()),
            view.first(refused_in, (refused,), **dimensions),
        )

    ours = "Alleycat/Kinesis"
    yield use(limits.SHARD_WRITE_RECORDS, "AWS/Kinesis", "IncomingRecords", ours, "RefusedByRecords")
    yield use(limits.SHARD_WRITE_BYTES, "AWS/Kinesis", "IncomingBytes", ours, "RefusedByBytes")
    reads = "ReadProvisionedThroughputExceeded"
    yield use(limits.SHARD_READ_CALLS, ours, "GetRecordsCalls", "AWS/Kinesis", reads)
    yield use(limits.SHARD_READ_BYTES, "AWS/Kinesis", "OutgoingBytes", ours, "RefusedReadsByBytes")


def _capacity_use(
    view: MetricsView, kind: str, resource: str, rcu: float | None, wcu: float | None, **dimensions: str
) -> Iterable[LimitUse]:
    for verb, word, provisioned, on_demand, partition in (
        ("Write", "write", wcu, limits.ON_DEMAND_WRITE_UNITS, limits.PARTITION_WRITE_UNITS),
        ("Read", "read", rcu, limits.ON_DEMAND_READ_UNITS, limits.PARTITION_READ_UNITS),
    ):

        def refused(*causes: str, verb: str = verb) -> tuple[int, int | None]:
            names = [f"{verb}{cause}ThrottleEvents" for cause in causes]
            count = sum(int(view.total("AWS/DynamoDB", name, **dimensions)) for name in names)
            return count, view.first("AWS/DynamoDB", names, **dimensions)

        sums = view.sums("AWS/DynamoDB", f"Consumed{verb}CapacityUnits", **dimensions)
        peak, total = max(sums.values(), default=0), sum(sums.values())
        unit = f"{verb[0]}CU/s"
        name = f"dynamodb.{kind}.{word}.units_per_second"
        if not provisioned:
            throttled, first = refused("KeyRangeThroughput", "MaxOnDemand", "AccountLimit")
            yield LimitUse(name, resource, on_demand.value, unit, peak, throttled, total, first)
            continue
        throttled, first = refused("ProvisionedThroughput")
        yield LimitUse(name, resource, provisioned, unit, peak, throttled, total, first)
        throttled, first = refused("KeyRangeThroughput")
        if throttled:
            # The peak of one partition is not told apart; the resource's is at least that.
            yield LimitUse(partition.name, resource, partition.value, unit, peak, throttled, total, first)
