"""CloudWatch's metrics at one-second resolution.

Names, dimensions and meanings are CloudWatch's own (``AWS/Kinesis``, ``AWS/DynamoDB``). CloudWatch shows one
minute at best for these, which hides bursts: a stream can throttle at 20 % average use. Here each
``(namespace, metric, dimensions)`` keeps one statistic set per second for the last ``keep_seconds``.

Recording is O(1) and cheap enough for every call: callers aggregate a request first and record once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Dimensions = tuple[tuple[str, str], ...]
Key = tuple[str, str, Dimensions]


@dataclass(slots=True)
class StatisticSet:
    """CloudWatch's StatisticSet: ``SampleCount``, ``Sum``, ``Minimum``, ``Maximum`` of one second."""

    sample_count: int
    sum: float
    minimum: float
    maximum: float


class Metrics:
    """Statistic sets by metric and second. Not thread-safe by itself: one writer at a time."""

    def __init__(self, keep_seconds: int = 3600) -> None:
        self.keep_seconds = keep_seconds
        self._series: dict[Key, dict[int, StatisticSet]] = {}

    def record(
        self,
        namespace: str,
        name: str,
        dimensions: Dimensions,
        value: float,
        now: float,
        *,
        samples: int = 1,
    ) -> None:
        """Add ``value`` (the sum of ``samples`` observations) to the second that ``now`` falls in."""
        key = (namespace, name, dimensions)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = {}
        second = int(now)
        point = series.get(second)
        if point is None:
            series[second] = StatisticSet(samples, value, value, value)
            if len(series) > self.keep_seconds:
                # Seconds arrive in order, so the first key of the dict is the oldest.
                del series[next(iter(series))]
            return
        point.sample_count += samples
        point.sum += value
        if value < point.minimum:
            point.minimum = value
        if value > point.maximum:
            point.maximum = value

    def series(
        self, namespace: str | None = None, name: str | None = None
    ) -> Iterator[tuple[Key, dict[int, StatisticSet]]]:
        """All series, or those of one namespace and name."""
        for key, points in self._series.items():
            if (namespace is None or key[0] == namespace) and (name is None or key[1] == name):
                yield key, points

    def total(self, namespace: str, name: str, dimensions: Dimensions | None = None) -> float:
        """Sum over all kept seconds; ``dimensions=None`` adds up every dimension set of that name."""
        return sum(
            point.sum
            for key, points in self.series(namespace, name)
            if dimensions is None or key[2] == dimensions
            for point in points.values()
        )

    def to_json(self, since: float = 0.0) -> dict[str, Any]:
        """The answer of ``GET /_alleycat/metrics?since=EPOCH_SECONDS``: each point is
        ``[second, SampleCount, Sum, Minimum, Maximum]``."""
        return {
            "period_s": 1,
            "metrics": [
                {
                    "Namespace": namespace,
                    "MetricName": name,
                    "Dimensions": dict(dimensions),
                    "Points": [
                        [second, p.sample_count, p.sum, p.minimum, p.maximum]
                        for second, p in list(points.items())
                        if second >= since
                    ],
                }
                for (namespace, name, dimensions), points in list(self._series.items())
            ],
        }
