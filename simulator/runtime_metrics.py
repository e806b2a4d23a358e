"""Tells the embedded cloud what the runtime's functions did, under CloudWatch's names (``AWS/Lambda``).

The runtime runs beside the cloud, not in it. Once a second its series of the last seconds go to
``POST /_alleycat/metrics``; a second that was sent before it was over is sent again and replaces itself.

The runtime keeps one number a second and metric: sums of Invocations, Errors and Throttles (so ``SampleCount`` is the
number of invocations for Throttles, and of finished invocations for Errors), but of Duration and IteratorAge only the
largest, so these have one sample a second and their Average is that of the peaks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from consumers.runtime import RuntimeStatistics

NAMESPACE = "AWS/Lambda"
RESEND_S = 3
"""How many seconds before the newest one sent are sent again: they may have grown."""

_SUMS = frozenset({"Invocations", "Errors", "Throttles"})


class RuntimeMetrics:
    """Makes each post's body from snapshots; remembers how far it came. ``newest`` is the newest second told."""

    def __init__(self) -> None:
        self.newest = 0

    def body(self, statistics: RuntimeStatistics, now: float) -> dict[str, Any]:
        """What is new since the last call, in the format of ``GET /_alleycat/metrics``."""
        since = self.newest - RESEND_S
        points: dict[tuple[str, str], list[list[float]]] = {}
        calls = {
            (function, second): value
            for second, function, metric, value in statistics.series
            if metric == "Invocations" and second >= since
        }
        for (function, second), invocations in calls.items():
            # Errors is 0 in a second without any, so that its Average is the rate of errors.
            points.setdefault((function, "Errors"), []).append([second, invocations, 0.0, 0.0, 0.0])
        for second, function, metric, value in statistics.series:
            if second < since:
                continue
            self.newest = max(self.newest, second)
            told = points.setdefault((function, metric), [])
            if metric == "Errors":
                samples = max(value, calls.get((function, second), 0.0))
                told[:] = [one for one in told if one[0] != second]
                told.append([second, samples, value, 0.0 if samples > value else 1.0, 1.0])
            elif metric in _SUMS:
                told.append([second, value, value, 1.0, 1.0])
            else:
                told.append([second, 1.0, value, value, value])
        for name, function_now in statistics.functions.items():
            level = float(function_now.concurrency)
            points[name, "ConcurrentExecutions"] = [[int(now), 1.0, level, level, level]]
        return {"metrics": [_series(metric, {"FunctionName": name}, told) for (name, metric), told in points.items()]}


def _series(metric: str, dimensions: Mapping[str, str], points: list[list[float]]) -> dict[str, Any]:
    return {"Namespace": NAMESPACE, "MetricName": metric, "Dimensions": dict(dimensions), "Points": points}
