"""CloudWatch's metrics at one-second resolution.

Names, dimensions and meanings are CloudWatch's own (``AWS/Kinesis``, ``AWS/DynamoDB``). CloudWatch shows one
minute at best for these, which hides bursts: a stream can throttle at 20 % average use. Here each
``(namespace, metric, dimensions)`` keeps one statistic set for each of its last 3,600 seconds with activity; older
ones are rolled up into one-minute sets, of which the last 4,320 (three days of activity) are kept.

**Memory** is bounded by that: at most 7,920 sets of some 250 bytes, so 2 MB, for each series, however long the run.
The cloud's own series are as many as its resources; those that clients send are limited by :data:`CLIENT_SERIES_MAX`.

**Threads.** Kinesis records on the event loop, DynamoDB and the clients' metrics on the worker thread. A series has
one writer: no two services share a namespace, and clients may not write into the services' own. Readers may be on
any thread: they copy, and copy again when a roll-up came between.

Recording is O(1) and cheap enough for every call: callers aggregate a request first and record once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

Dimensions = tuple[tuple[str, str], ...]
Key = tuple[str, str, Dimensions]
Found = TypeVar("Found")
Name = TypeVar("Name")
Value = TypeVar("Value")

MINUTE_S = 60
CLIENT_SERIES_MAX = 10_000
"""Series that clients may bring into being (PutMetricData and ``POST /_alleycat/metrics``)."""


@dataclass(slots=True)
class StatisticSet:
    """CloudWatch's StatisticSet: ``SampleCount``, ``Sum``, ``Minimum``, ``Maximum`` of one period."""

    sample_count: float
    sum: float
    minimum: float
    maximum: float

    def add(self, other: StatisticSet) -> None:
        """Take ``other``'s observations in."""
        self.sample_count += other.sample_count
        self.sum += other.sum
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)

    def copy(self) -> StatisticSet:
        return StatisticSet(self.sample_count, self.sum, self.minimum, self.maximum)


class _Series:
    """One metric: its latest seconds, its older minutes, and what it added up to since the start."""

    __slots__ = ("in_order", "minutes", "newest", "rolled", "rolled_count", "rolled_sum", "seconds", "unit")

    def __init__(self) -> None:
        self.seconds: dict[int, StatisticSet] = {}
        self.minutes: dict[int, StatisticSet] = {}
        self.newest = 0
        # False once a second came after a later one: only clients send those.
        self.in_order = True
        # Steps of roll-ups so far, odd while one is under way: a reader that sees it change reads again.
        self.rolled = 0
        # All that ever left the seconds, so that totals never go down.
        self.rolled_count = self.rolled_sum = 0.0
        self.unit: str | None = None

    def put(self, second: int, point: StatisticSet, keep_seconds: int, keep_minutes: int) -> None:
        """Begin a second; the one that came first, as a rule the oldest, makes room in its minute."""
        if second > self.newest:
            self.newest = second
        elif second not in self.seconds:
            self.in_order = False
        self.seconds[second] = point
        if len(self.seconds) > keep_seconds:
            self._roll_up(keep_minutes)

    def _roll_up(self, keep_minutes: int) -> None:
        self.rolled += 1
        second = next(iter(self.seconds))
        point = self.seconds.pop(second)
        self.rolled_count += point.sample_count
        self.rolled_sum += point.sum
        minute = second - second % MINUTE_S
        found = self.minutes.get(minute)
        if found is None:
            self.minutes[minute] = point
            if len(self.minutes) > keep_minutes:
                del self.minutes[min(self.minutes)]
        else:
            found.add(point)
        self.rolled += 1

    def between(self, start: float, end: float, with_minutes: bool) -> list[tuple[int, StatisticSet]]:
        """Seconds, and the minutes of those that were rolled up, as of one moment."""

        def read() -> list[tuple[int, StatisticSet]]:
            found = [(at, point) for at, point in list(self.seconds.items()) if start <= at < end]
            if with_minutes:
                minutes = list(self.minutes.items())
                found += [(at, point.copy()) for at, point in minutes if start <= at < end]
            return found

        return self._consistent(read)

    def since(self, start: float) -> list[tuple[int, StatisticSet]]:
        """Seconds from ``start`` on; quick when few are asked for, as once a second."""
        points = _copy(self.seconds)
        if not self.in_order:
            return [(at, point) for at, point in points if at >= start]
        first = len(points)
        while first and points[first - 1][0] >= start:
            first -= 1
        return points[first:]

    def since_start(self) -> tuple[float, float]:
        """``(SampleCount, Sum)`` of everything ever recorded."""

        def read() -> tuple[float, float]:
            points = list(self.seconds.values())
            count = self.rolled_count + sum(point.sample_count for point in points)
            return count, self.rolled_sum + sum(point.sum for point in points)

        return self._consistent(read)

    def _consistent(self, read: Callable[[], Found]) -> Found:
        """What ``read`` found when no roll-up came between its parts."""
        while True:
            rolled = self.rolled
            try:
                found = read()
            except RuntimeError:  # a dict grew while it was copied
                continue
            if rolled == self.rolled and not rolled % 2:
                return found


def _copy(one: dict[Name, Value]) -> list[tuple[Name, Value]]:
    """The items of a dict that another thread may be adding to."""
    while True:
        try:
            return list(one.items())
        except RuntimeError:  # it grew while it was copied
            continue


class Metrics:
    """Statistic sets by metric and second. One writer a series, any number of readers."""

    def __init__(self, keep_seconds: int = 3600, keep_minutes: int = 3 * 24 * 60) -> None:
        self.keep_seconds = keep_seconds
        self.keep_minutes = keep_minutes
        self._series: dict[Key, _Series] = {}

    def clear(self) -> None:
        """Forget everything."""
        self._series.clear()

    def record(
        self,
        namespace: str,
        name: str,
        dimensions: Dimensions,
        value: float,
        now: float,
        *,
        samples: float = 1,
        minimum: float | None = None,
        maximum: float | None = None,
    ) -> None:
        """Add ``value`` (the sum of ``samples`` observations) to the second that ``now`` falls in.

        ``minimum`` and ``maximum`` are those of the single observations; for more than one sample, give them.
        Without them all samples count as equal.
        """
        series = self._series.get((namespace, name, dimensions))
        if series is None:
            series = self._series.setdefault((namespace, name, dimensions), _Series())
        if samples != 1 or minimum is not None:
            mean = value / samples
            low = mean if minimum is None else minimum
            high = mean if maximum is None else maximum
        else:
            low = high = value
        second = int(now)
        point = series.seconds.get(second)
        if point is None:
            point = StatisticSet(samples, value, low, high)
            series.put(second, point, self.keep_seconds, self.keep_minutes)
            return
        point.sample_count += samples
        point.sum += value
        if low < point.minimum:
            point.minimum = low
        if high > point.maximum:
            point.maximum = high

    def replace(self, key: Key, second: int, point: StatisticSet) -> None:
        """Set a second to ``point``: for senders that tell the same second again as it grows."""
        series = self._series.setdefault(key, _Series())
        series.put(second, point, self.keep_seconds, self.keep_minutes)

    def set_unit(self, key: Key, unit: str) -> None:
        """What the client said that the metric is counted in."""
        series = self._series.get(key)
        if series is not None:
            series.unit = unit

    def unit(self, key: Key) -> str:
        """CloudWatch's unit of a metric: as it was put, or by the name for the services' own."""
        series = self._series.get(key)
        return (series.unit if series else None) or unit_of(key[1])

    def keys(self, namespace: str | None = None, name: str | None = None) -> list[Key]:
        """Every series, or those of one namespace and name."""
        return [
            key
            for key, _ in _copy(self._series)
            if (namespace is None or key[0] == namespace) and (name is None or key[1] == name)
        ]

    def series(
        self, namespace: str | None = None, name: str | None = None
    ) -> Iterator[tuple[Key, dict[int, StatisticSet]]]:
        """All series, or those of one namespace and name, with the seconds that are kept one by one."""
        for key in self.keys(namespace, name):
            yield key, self._series[key].seconds

    def points(self, key: Key, start: float, end: float, period: int = 1) -> list[tuple[int, StatisticSet]]:
        """``(time, set)`` from ``start`` to before ``end``, in order; as fine as they are kept.

        Minutes that were rolled up are left out for a ``period`` under a minute: where in it they were is not known.
        """
        series = self._series.get(key)
        if series is None:
            return []
        return sorted(series.between(start, end, period >= MINUTE_S), key=lambda one: one[0])

    def periods(self, key: Key, start: float, end: float, period: int) -> dict[int, StatisticSet]:
        """Sets by period (seconds; periods begin at multiples of it since the epoch), in order."""
        merged: dict[int, StatisticSet] = {}
        for at, point in self.points(key, start, end, period):
            begins = at - at % period
            found = merged.get(begins)
            if found is None:
                merged[begins] = point.copy()
            else:
                found.add(point)
        return merged

    def total(self, namespace: str, name: str, dimensions: Dimensions | None = None) -> float:
        """Sum since the start; ``dimensions=None`` adds up every dimension set of that name."""
        return sum(
            self.since_start(key)[1] for key in self.keys(namespace, name) if dimensions is None or key[2] == dimensions
        )

    def since_start(self, key: Key) -> tuple[float, float]:
        """``(SampleCount, Sum)`` of everything ever recorded. Never goes down for values that are not negative."""
        return self._series[key].since_start()

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
                        [second, p.sample_count, p.sum, p.minimum, p.maximum] for second, p in series.since(since)
                    ],
                }
                for (namespace, name, dimensions), series in _copy(self._series)
            ],
        }


_MILLISECONDS = re.compile(r"Milliseconds|Latency|^Duration$|IteratorAge|MillisBehindLatest")


def unit_of(name: str) -> str:
    """The unit in which AWS's services report the metric ``name``."""
    if _MILLISECONDS.search(name):
        return "Milliseconds"
    return "Bytes" if name.endswith("Bytes") else "Count"
