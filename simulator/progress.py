"""What is known of a running race: gathered by the league, shown by the terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from producers import Ledger

if TYPE_CHECKING:
    from producers import KinesisProducer
    from simulator.diagnosis import Finding
    from simulator.utilisation import LimitUse


@dataclass(slots=True)
class Progress:
    """A race as of the last second. ``second`` counts over all races; ``behind`` is the iterator age in ms."""

    racers: int
    seconds: int
    phase: str = "starting"
    second: int = 0
    race_id: int = 0
    finished_at: float | None = None
    ledger: Ledger = field(default_factory=Ledger)
    producer: KinesisProducer | None = None
    limits: Sequence[LimitUse] = ()
    functions: Sequence[Mapping[str, Any]] = ()
    findings: Sequence[Finding] = ()
    leaders: list[tuple[int, float]] = field(default_factory=list)
    behind: int = 0


class MetricsFeed:
    """The cloud's one-second metrics, gathered in pieces. A second read twice counts once, as last read."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, str, tuple[tuple[str, str], ...]], dict[int, list[float]]] = {}
        self._newest = 0

    def newest(self) -> int:
        """The newest second seen; 0 at the start. Never after now: clients may put metrics of the future."""
        return min(self._newest, int(time.time()))

    def merge(self, answer: Mapping[str, Any]) -> None:
        """Take in an answer of ``GET /_alleycat/metrics``."""
        for one in answer["metrics"]:
            key = (one["Namespace"], one["MetricName"], tuple(sorted(one["Dimensions"].items())))
            points = self._series.setdefault(key, {})
            for point in one["Points"]:
                second = int(point[0])
                points[second] = point
                self._newest = max(self._newest, second)

    def recent(self, since: float) -> dict[str, Any]:
        """The same shape as an answer, of the points since ``since``."""
        return {
            "metrics": [
                {
                    "Namespace": namespace,
                    "MetricName": name,
                    "Dimensions": dict(dimensions),
                    "Points": [point for second, point in points.items() if second >= since],
                }
                for (namespace, name, dimensions), points in self._series.items()
            ]
        }
