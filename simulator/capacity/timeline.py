"""What a plan saw, second by second, and which limits it met."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Seconds = npt.NDArray[np.float64]


@dataclass(slots=True)
class Broken:
    """A limit that refused something: ``first_s`` and ``last_s`` from the start of the first race."""

    name: str
    resource: str
    limit: float
    unit: str
    first_s: float
    last_s: float
    refused: int = 0

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "resource": self.resource,
            "limit": self.limit,
            "unit": self.unit,
            "first_s": round(self.first_s, 2),
            "last_s": round(self.last_s, 2),
            "refused": self.refused,
        }


class _Series:
    """One number a second, from single values and from spans of seconds that are alike."""

    __slots__ = ("is_peak", "spans", "values")

    def __init__(self, *, is_peak: bool) -> None:
        self.is_peak = is_peak
        self.values: list[float] = []
        self.spans: list[tuple[int, int, float]] = []

    def reach(self, second: int) -> list[float]:
        values = self.values
        if second >= len(values):
            values.extend([0.0] * (second + 1 - len(values)))
        return values

    def settled(self) -> list[float]:
        """With all spans in it."""
        if self.spans:
            values = np.array(self.reach(max(until for _, until, _ in self.spans) - 1))
            for first, until, value in self.spans:
                if self.is_peak:
                    np.maximum(values[first:until], value, out=values[first:until])
                else:
                    values[first:until] += value
            self.values = values.tolist()
            self.spans.clear()
        return self.values


class Timeline:
    """Series by (metric, resource), one number a second since ``start``. What happened before counts as second 0.

    A *sum* adds up what happened in a second, a *peak* keeps the largest; a second without any is 0.
    """

    def __init__(self, start: float) -> None:
        self.start = start
        self._series: dict[tuple[str, str], _Series] = {}
        self._broken: dict[tuple[str, str], Broken] = {}

    def second(self, now: float) -> int:
        # Ticks are sums of floats, and must not fall into the second before.
        return max(0, int(now - self.start + 1e-4))

    def _of(self, metric: str, resource: str, *, is_peak: bool = False) -> _Series:
        known = self._series.get((metric, resource))
        if known is None:
            known = self._series[metric, resource] = _Series(is_peak=is_peak)
        return known

    def add(self, metric: str, resource: str, now: float, amount: float) -> None:
        """Add to a sum."""
        second = self.second(now)
        self._of(metric, resource).reach(second)[second] += amount

    def add_span(self, metric: str, resource: str, first: int, seconds: int, amount: float) -> None:
        """Add ``amount`` to a sum in each of ``seconds`` seconds from second ``first`` on."""
        if seconds > 0:
            self._of(metric, resource).spans.append((first, first + seconds, amount))

    def peak(self, metric: str, resource: str, now: float, value: float) -> None:
        """Raise a peak."""
        second = self.second(now)
        values = self._of(metric, resource, is_peak=True).reach(second)
        if value > values[second]:
            values[second] = value

    def peak_span(self, metric: str, resource: str, first: int, seconds: int, value: float) -> None:
        """Raise a peak in each of ``seconds`` seconds from second ``first`` on."""
        if seconds > 0:
            self._of(metric, resource, is_peak=True).spans.append((first, first + seconds, value))

    def level(self, metric: str, resource: str, now: float, value: float) -> None:
        """Set what stands at the end of a second."""
        second = self.second(now)
        self._of(metric, resource).reach(second)[second] = value

    def set_series(self, metric: str, resource: str, values: Sequence[float]) -> None:
        """Set every second, from the first on."""
        self._of(metric, resource).values = list(values)

    def broke(self, name: str, resource: str, limit: float, unit: str, now: float, refused: int = 1) -> None:
        """A limit refused something."""
        at = max(0.0, now - self.start)
        known = self._broken.get((name, resource))
        if known is None:
            known = self._broken[name, resource] = Broken(name, resource, limit, unit, at, at)
        known.refused += refused
        known.last_s = at

    @property
    def broken(self) -> list[Broken]:
        """Limits that refused something, the first one first."""
        return sorted(self._broken.values(), key=lambda one: one.first_s)

    def total(self, metric: str, resource: str | None = None) -> float:
        """Sum over all seconds, of one resource or of all."""
        return sum(sum(values) for values in self._matching(metric, resource))

    def highest(self, metric: str, resource: str | None = None) -> float:
        """The largest second of a resource, or of any."""
        return max((max(values, default=0.0) for values in self._matching(metric, resource)), default=0.0)

    def _matching(self, metric: str, resource: str | None) -> Iterator[list[float]]:
        if resource is not None:
            known = self._series.get((metric, resource))
            if known is not None:
                yield known.settled()
            return
        for (name, _), series in self._series.items():
            if name == metric:
                yield series.settled()

    def series(self, metric: str, resource: str, seconds: int) -> list[float]:
        """One number for each of the first ``seconds``."""
        known = self._series.get((metric, resource))
        values = known.settled()[:seconds] if known is not None else []
        return values + [0.0] * (seconds - len(values))

    def summed(self, metric: str, seconds: int) -> Seconds:
        """Over all resources, one number for each of the first ``seconds``."""
        total = np.zeros(seconds)
        for values in self._matching(metric, None):
            part = values[:seconds]
            total[: len(part)] += part
        return total

    def resources(self, metric: str) -> list[str]:
        return sorted(resource for name, resource in self._series if name == metric)

    def as_json(self, seconds: int) -> dict[str, dict[str, list[float]]]:
        """``{metric: {resource: [...]}}``."""
        found: dict[str, dict[str, list[float]]] = {}
        for metric, resource in sorted(self._series):
            values = self.series(metric, resource, seconds)
            found.setdefault(metric, {})[resource] = [round(value, 3) for value in values]
        return found
