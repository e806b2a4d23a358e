"""What a load test saw: counts by second and exact latencies by stage, which add up over workers.

A :class:`Meter` belongs to one generator process and costs a few dictionary look-ups a call. What it has
seen since it was last asked travels as plain data (:meth:`Meter.take`) and is added to the one
:class:`Measurements` of the test, in any order; adding is exact, so two workers measure what one would have.

Latencies are HDR histograms of microseconds, three significant digits, so a quantile is within 0.1 % of the
true one at any length of test, and histograms of workers are added, never averaged. A latency starts when a
request was *due*; what the generator was late by is a histogram of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from hdrh.histogram import HdrHistogram

HIGHEST_US = 600 * 1_000_000
"""Longer latencies, 10 minutes, count as this."""
DIGITS = 3
LATE_S = 0.01
"""A request sent this much after it was due counts as late."""


class Key(NamedTuple):
    """Where counts belong. ``resource`` is a shard, a table, an index, a client; empty for what concerns none."""

    second: int
    stage: int
    operation: str
    resource: str


@dataclass(slots=True)
class Counts:
    """What happened in a second, in the scenario's unit (records, writes, reads, messages) unless said otherwise.

    ``offered`` were due; of these ``unsent`` were given up because the generator was behind. ``late`` and ``calls``
    are requests. ``throttled`` and ``failed`` are final; ``retried`` counts refusals that were sent again (none unless
    retries are on). ``bytes`` and ``units`` (capacity units) are those of what was accepted.
    """

    offered: float = 0
    unsent: float = 0
    calls: float = 0
    late: float = 0
    accepted: float = 0
    throttled: float = 0
    failed: float = 0
    retried: float = 0
    bytes: float = 0
    units: float = 0

    def add(self, other: Counts) -> None:
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def answered(self) -> float:
        return self.accepted + self.throttled + self.failed

    @property
    def refused(self) -> float:
        """Throttled answers, whether or not they were the last word."""
        return self.throttled + self.retried

    @property
    def throttled_share(self) -> float:
        """Of all answers, 0 to 1."""
        answers = self.answered + self.retried
        return self.refused / answers if answers else 0.0

    @property
    def failed_share(self) -> float:
        return self.failed / self.answered if self.answered else 0.0

    def values(self) -> list[float]:
        return [getattr(self, name) for name in COUNTS]


COUNTS = tuple(one.name for one in fields(Counts))


def histogram() -> Any:
    """An empty histogram of microseconds."""
    return HdrHistogram(1, HIGHEST_US, DIGITS)


def note(target: Any, seconds: float, count: int = 1) -> None:
    """Record ``count`` times a latency in seconds."""
    target.record_value(min(max(round(seconds * 1e6), 1), HIGHEST_US), count)


class Latency:
    """Of one operation in one stage: ``accepted`` from due to answered, ``refused`` the same, ``lateness`` to sent."""

    KINDS = ("accepted", "refused", "lateness")

    def __init__(self) -> None:
        self.accepted, self.refused, self.lateness = histogram(), histogram(), histogram()

    def add(self, other: Latency) -> None:
        for kind in self.KINDS:
            getattr(self, kind).add(getattr(other, kind))

    def percentiles_ms(self, kind: str = "accepted") -> dict[str, float | None]:
        """p50, p90, p99, p99.9 and max in ms; each None when nothing was recorded."""
        one = getattr(self, kind)
        if not one.get_total_count():
            return dict.fromkeys(("p50", "p90", "p99", "p99_9", "max"))
        found = {name: one.get_value_at_percentile(at) / 1000 for name, at in _PERCENTILES}
        return {**found, "max": one.get_max_value() / 1000}

    def to_json(self) -> dict[str, str]:
        return {kind: one.encode().decode() for kind in self.KINDS if (one := getattr(self, kind)).get_total_count()}

    @classmethod
    def from_json(cls, told: Mapping[str, str]) -> Latency:
        found = cls()
        for kind, text in told.items():
            getattr(found, kind).decode_and_add(text.encode())
        return found


_PERCENTILES = (("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99_9", 99.9))


@dataclass(slots=True)
class Problem:
    """A refusal in the service's words: how often, and when first."""

    operation: str
    resource: str
    code: str
    message: str
    count: int
    first_at: float


class Meter:
    """What one process saw since the last :meth:`take`."""

    def __init__(self) -> None:
        self._counts: dict[Key, Counts] = {}
        self._latency: dict[tuple[int, str], Latency] = {}
        self._problems: dict[tuple[str, str, str], Problem] = {}

    def due(self, stage: int, operation: str, at: float, number: float) -> None:
        """``number`` units were due at ``at``."""
        self._at(at, stage, operation, "").offered += number

    def gave_up(self, stage: int, operation: str, at: float, number: float) -> None:
        """``number`` units that were due are not sent any more."""
        self._at(at, stage, operation, "").unsent += number

    def sent(self, stage: int, operation: str, due_at: float, sent_at: float) -> None:
        """A request left."""
        here = self._at(sent_at, stage, operation, "")
        here.calls += 1
        here.late += sent_at - due_at > LATE_S
        note(self._of(stage, operation).lateness, sent_at - due_at)

    def answered(
        self,
        stage: int,
        operation: str,
        resource: str,
        due_at: float,
        done_at: float,
        *,
        accepted: int = 0,
        throttled: int = 0,
        failed: int = 0,
        retried: int = 0,
        size_bytes: float = 0,
        units: float = 0,
    ) -> None:
        """A request's answer concerning ``resource``: how many of its units had which end."""
        here = self._at(done_at, stage, operation, resource)
        here.accepted += accepted
        here.throttled += throttled
        here.failed += failed
        here.retried += retried
        here.bytes += size_bytes
        here.units += units
        latency = self._of(stage, operation)
        if accepted:
            note(latency.accepted, done_at - due_at, accepted)
        if throttled + failed:
            note(latency.refused, done_at - due_at, throttled + failed)

    def problem(self, operation: str, resource: str, code: str, message: str, count: int, at: float) -> None:
        """A refusal or failure in the service's words. The first message of each code is kept."""
        known = self._problems.get((operation, resource, code))
        if known is None:
            self._problems[operation, resource, code] = Problem(operation, resource, code, message, count, at)
        else:
            known.count += count
            known.first_at = min(known.first_at, at)

    def take(self) -> dict[str, Any]:
        """All since the last time, as plain data."""
        told = {
            "counts": [[*key, *counts.values()] for key, counts in self._counts.items()],
            "latency": [[*key, one.to_json()] for key, one in self._latency.items()],
            "problems": [_row(one) for one in self._problems.values()],
        }
        self._counts, self._latency, self._problems = {}, {}, {}
        return told

    def _at(self, at: float, stage: int, operation: str, resource: str) -> Counts:
        key = Key(int(at), stage, operation, resource)
        found = self._counts.get(key)
        if found is None:
            found = self._counts[key] = Counts()
        return found

    def _of(self, stage: int, operation: str) -> Latency:
        found = self._latency.get((stage, operation))
        if found is None:
            found = self._latency[stage, operation] = Latency()
        return found


@dataclass
class Measurements:
    """All of a test, from every worker."""

    counts: dict[Key, Counts] = field(default_factory=dict)
    latency: dict[tuple[int, str], Latency] = field(default_factory=dict)
    problems: dict[tuple[str, str, str], Problem] = field(default_factory=dict)

    def add(self, told: Mapping[str, Any]) -> None:
        """Add what a meter told."""
        for second, stage, operation, resource, *values in told["counts"]:
            here = self.counts.setdefault(Key(second, stage, operation, resource), Counts())
            here.add(Counts(*values))
        for stage, operation, histograms in told["latency"]:
            self.latency.setdefault((stage, operation), Latency()).add(Latency.from_json(histograms))
        for row in told["problems"]:
            one = Problem(*row)
            key = (one.operation, one.resource, one.code)
            known = self.problems.get(key)
            if known is None:
                self.problems[key] = one
            else:
                known.count += one.count
                known.first_at = min(known.first_at, one.first_at)

    def to_json(self) -> dict[str, Any]:
        """Plain data that :meth:`add` takes again."""
        return {
            "counts": [[*key, *one.values()] for key, one in sorted(self.counts.items())],
            "latency": [[*key, one.to_json()] for key, one in sorted(self.latency.items())],
            "problems": [_row(one) for one in self.problems.values()],
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Measurements:
        found = cls()
        found.add(told)
        return found

    def total(self, stages: Iterable[int] | None = None, operation: str | None = None) -> Counts:
        """The sum over ``stages`` (all) and one or all operations."""
        return self.by(lambda key: True, stages, operation).get(True, Counts())

    def by(self, name: Any, stages: Iterable[int] | None = None, operation: str | None = None) -> dict[Any, Counts]:
        """Sums grouped by ``name(key)``; a key for which it is None is left out."""
        wanted = None if stages is None else set(stages)
        found: dict[Any, Counts] = {}
        for key, counts in self.counts.items():
            if (wanted is not None and key.stage not in wanted) or operation not in (None, key.operation):
                continue
            group = name(key)
            if group is not None:
                found.setdefault(group, Counts()).add(counts)
        return found

    def latencies(self, stages: Iterable[int] | None = None, operation: str | None = None) -> Latency:
        """The histograms of ``stages`` (all) and one or all operations, added up."""
        wanted = None if stages is None else set(stages)
        found = Latency()
        for (stage, named), one in self.latency.items():
            if (wanted is None or stage in wanted) and operation in (None, named):
                found.add(one)
        return found

    def resources(self, operation: str | None = None) -> list[str]:
        """The named resources that answered, in order."""
        return sorted({key.resource for key in self.counts if key.resource and operation in (None, key.operation)})

    def operations(self) -> list[str]:
        return sorted({key.operation for key in self.counts})

    def worst(self, share: Callable[[Counts], float], stages: Iterable[int] | None = None, since: float = 0) -> float:
        """The highest ``share`` of any operation: what is refused of one must not drown in what another is given."""
        wanted = None if stages is None else set(stages)
        totals = self.by(
            lambda key: key.operation if key.second >= since and (wanted is None or key.stage in wanted) else None
        )
        return max(map(share, totals.values()), default=0.0)

    def __iter__(self) -> Iterator[tuple[Key, Counts]]:
        return iter(sorted(self.counts.items()))


def _row(one: Problem) -> list[Any]:
    return [getattr(one, name.name) for name in fields(Problem)]
