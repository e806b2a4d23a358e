"""What a plan saw, second by second, and which limits it met."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any


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


class Timeline:
    """Series by (metric, resource), one number a second since ``start``. What happened before counts as second 0.

    A *sum* adds up what happened in a second, a *peak* keeps the largest; a second without any is 0.
    """

    def __init__(self, start: float) -> None:
        self.start = start
        self._values: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
        self._broken: dict[tuple[str, str], Broken] = {}

    def second(self, now: float) -> int:
        # Ticks are sums of floats, and must not fall into the second before.
        return max(0, int(now - self.start + 1e-4))

    def add(self, metric: str, resource: str, now: float, amount: float) -> None:
        """Add to a sum."""
        values = self._values[metric, resource]
        second = self.second(now)
        values[second] = values.get(second, 0) + amount

    def peak(self, metric: str, resource: str, now: float, value: float) -> None:
        """Raise a peak."""
        values = self._values[metric, resource]
        second = self.second(now)
        if value > values.get(second, 0):
            values[second] = value

    def level(self, metric: str, resource: str, now: float, value: float) -> None:
        """Set what stands at the end of a second."""
        self._values[metric, resource][self.second(now)] = value

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
        return sum(
            sum(values.values())
            for (name, what), values in self._values.items()
            if name == metric and resource in (None, what)
        )

    def highest(self, metric: str, resource: str | None = None) -> float:
        """The largest second of a resource, or of any."""
        return max(
            (
                value
                for (name, what), values in self._values.items()
                if name == metric and resource in (None, what)
                for value in values.values()
            ),
            default=0.0,
        )

    def series(self, metric: str, resource: str, seconds: int) -> list[float]:
        """One number for each of the first ``seconds``."""
        values = self._values.get((metric, resource), {})
        return [values.get(second, 0) for second in range(seconds)]

    def resources(self, metric: str) -> list[str]:
        return sorted(resource for name, resource in self._values if name == metric)

    def as_json(self, seconds: int) -> dict[str, dict[str, list[float]]]:
        """``{metric: {resource: [...]}}``."""
        found: dict[str, dict[str, list[float]]] = {}
        for metric, resource in sorted(self._values):
            values = self.series(metric, resource, seconds)
            found.setdefault(metric, {})[resource] = [round(value, 3) for value in values]
        return found
