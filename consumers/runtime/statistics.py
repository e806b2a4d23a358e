"""What the runtime did, as frozen snapshots, and the meter that counts it.

Names are CloudWatch's for ``AWS/Lambda`` where it has one (``Invocations``, ``Errors``, ``Throttles``, ``Duration``,
``IteratorAge``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import ceil
from threading import Lock

from consumers.runtime.counts import EVENT_COUNTS
from consumers.runtime.function import STOPPED, InvokeResult

DURATIONS_KEPT = 10_000
SECONDS_KEPT = 900

Point = tuple[int, str, str, float]
"""``(second, function, metric, value)``: Invocations, Errors, Throttles are sums of the second, Duration and
IteratorAge (ms) its maximum."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The latest thing that went wrong, in seconds since the epoch."""

    at: float
    type: str
    message: str


@dataclass(frozen=True, slots=True)
class BatchDurations:
    """Of warm invocations that got from ``most // 2 + 1`` to ``most`` records; no records at all when ``most`` is 0.

    ``records`` is the mean a batch. The median is exact, by nearest rank.
    """

    most: int
    invocations: int
    records: float
    duration_ms_p50: float
    duration_ms_sum: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionStatistics:
    """One function. ``errors`` includes ``timeouts``; throttled invocations count only as ``throttles``.

    Percentiles are exact over the last 10,000 invocations, by nearest rank; ``duration_ms_max`` is over all.
    ``by_records`` is of the last 10,000 that were no cold start, by how many records they got.
    ``iterator_age_ms`` is of the last invocation with records: from the arrival of its last record to its start.
    """

    invocations: int = 0
    errors: int = 0
    timeouts: int = 0
    throttles: int = 0
    cold_starts: int = 0
    concurrency: int = 0
    concurrency_max: int = 0
    duration_ms_p50: float = 0.0
    duration_ms_p99: float = 0.0
    duration_ms_max: float = 0.0
    by_records: tuple[BatchDurations, ...] = ()
    iterator_age_ms: float = 0.0
    iterator_age_ms_max: float = 0.0
    records_processed: int = 0
    last_error: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardStatistics:
    """One shard under one mapping.

    ``status`` is one of ``starting``, ``reading``, ``invoking``, ``blocked`` (a batch waits for its retry),
    ``throttled`` (reads are refused), ``unreachable``, ``crashed`` (it starts again from its checkpoint),
    ``finished``, ``stopped``. ``window_start_s`` is the start of the open window. ``dropped_records`` were given
    up, whether a destination was told or not; ``event_counts`` are by the names of Lambda's opt-in metrics of event
    source mappings (``PolledEventCount``, ...). ``delivery_failures`` are refusals of the on-failure destination.
    """

    status: str
    sequence_number: str | None = None
    millis_behind: int | None = None
    buffered: int = 0
    window_start_s: int | None = None
    retries: int = 0
    dropped_records: int = 0
    dropped_windows: int = 0
    read_throttles: int = 0
    crashes: int = 0
    delivery_failures: int = 0
    event_counts: Mapping[str, int] = field(default_factory=dict)
    last_error: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingStatistics:
    """One mapping. ``status``: ``starting``, ``running``, ``throttled`` (listing its shards is), ``unreachable``,
    ``crashed``, ``stopped``."""

    status: str
    function_name: str
    shards: Mapping[str, ShardStatistics] = field(default_factory=dict)
    last_error: Failure | None = None

    @property
    def event_counts(self) -> dict[str, int]:
        """Lambda's opt-in metrics of this mapping: the sums over its shards."""
        return {name: sum(shard.event_counts.get(name, 0) for shard in self.shards.values()) for name in EVENT_COUNTS}


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeStatistics:
    """Everything, by function name and by mapping name. ``series`` covers the last 900 seconds with activity."""

    functions: Mapping[str, FunctionStatistics]
    mappings: Mapping[str, MappingStatistics]
    series: tuple[Point, ...] = ()


class FunctionMeter:
    """Counts one function's invocations. Thread-safe."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = Lock()
        self._durations_ms: deque[float] = deque(maxlen=DURATIONS_KEPT)
        # (records, milliseconds) of those that were no cold start.
        self._warm: deque[tuple[int, float]] = deque(maxlen=DURATIONS_KEPT)
        self._seconds: dict[int, dict[str, float]] = {}
        self._invocations = self._errors = self._timeouts = self._throttles = self._cold_starts = 0
        self._concurrency = self._concurrency_max = self._records = 0
        self._duration_ms_max = self._age_ms = self._age_ms_max = 0.0
        self._last_error: Failure | None = None

    def began(self, now: float, iterator_age_ms: float | None) -> None:
        """An invocation is sent; ``iterator_age_ms`` is None when it carries no records."""
        with self._lock:
            self._concurrency += 1
            self._concurrency_max = max(self._concurrency_max, self._concurrency)
            if iterator_age_ms is not None:
                self._age_ms = iterator_age_ms
                self._age_ms_max = max(self._age_ms_max, iterator_age_ms)
                self._raise(now, "IteratorAge", iterator_age_ms)

    def ended(self, now: float, result: InvokeResult, records: int = 0) -> None:
        """The invocation returned; it got so many records."""
        with self._lock:
            self._concurrency -= 1
            if result.error_type == STOPPED:
                return
            if result.is_throttled:
                self._throttles += 1
                self._add(now, "Throttles")
                return
            self._invocations += 1
            self._add(now, "Invocations")
            self._durations_ms.append(result.duration_ms)
            if result.init_ms is None:
                self._warm.append((records, result.duration_ms))
            self._duration_ms_max = max(self._duration_ms_max, result.duration_ms)
            self._raise(now, "Duration", result.duration_ms)
            self._cold_starts += result.init_ms is not None
            self._timeouts += result.is_timed_out
            if result.error_type is not None:
                self._errors += 1
                self._add(now, "Errors")
                self._last_error = Failure(now, result.error_type, result.error_message)

    def failed(self, now: float, failure: tuple[str, str]) -> None:
        """The invocation returned an answer that Lambda takes for a failure; Lambda does not count it as an Error."""
        with self._lock:
            self._last_error = Failure(now, *failure)

    def processed(self, records: int) -> None:
        with self._lock:
            self._records += records

    def snapshot(self) -> FunctionStatistics:
        with self._lock:
            durations = sorted(self._durations_ms)
            return FunctionStatistics(
                invocations=self._invocations,
                errors=self._errors,
                timeouts=self._timeouts,
                throttles=self._throttles,
                cold_starts=self._cold_starts,
                concurrency=self._concurrency,
                concurrency_max=self._concurrency_max,
                duration_ms_p50=nearest_rank(durations, 0.50),
                duration_ms_p99=nearest_rank(durations, 0.99),
                duration_ms_max=self._duration_ms_max,
                by_records=by_records(self._warm),
                iterator_age_ms=self._age_ms,
                iterator_age_ms_max=self._age_ms_max,
                records_processed=self._records,
                last_error=self._last_error,
            )

    def series(self) -> list[Point]:
        with self._lock:
            return [
                (second, self.name, metric, value)
                for second, metrics in self._seconds.items()
                for metric, value in metrics.items()
            ]

    def _second(self, now: float) -> dict[str, float]:
        second = int(now)
        metrics = self._seconds.get(second)
        if metrics is None:
            metrics = self._seconds[second] = {}
            if len(self._seconds) > SECONDS_KEPT:
                # Seconds arrive in order, so the first key of the dict is the oldest.
                del self._seconds[next(iter(self._seconds))]
        return metrics

    def _add(self, now: float, metric: str) -> None:
        metrics = self._second(now)
        metrics[metric] = metrics.get(metric, 0.0) + 1.0

    def _raise(self, now: float, metric: str, value: float) -> None:
        metrics = self._second(now)
        metrics[metric] = max(metrics.get(metric, value), value)


def by_records(durations: Iterable[tuple[int, float]]) -> tuple[BatchDurations, ...]:
    """``(records, milliseconds)`` of invocations, put together by the size of their batches in powers of two."""
    groups: dict[int, list[tuple[int, float]]] = {}
    for one in durations:
        most = 1 << (one[0] - 1).bit_length() if one[0] else 0
        groups.setdefault(most, []).append(one)
    return tuple(
        BatchDurations(
            most,
            len(group),
            sum(records for records, _ in group) / len(group),
            nearest_rank(sorted(duration_ms for _, duration_ms in group), 0.50),
            sum(duration_ms for _, duration_ms in group),
        )
        for most, group in sorted(groups.items())
    )


def nearest_rank(ordered: list[float], share: float) -> float:
    """The smallest value that at least ``share`` of ``ordered`` do not exceed; 0 for an empty list."""
    return ordered[max(0, ceil(share * len(ordered)) - 1)] if ordered else 0.0
