"""Statistics over periods, as GetMetricStatistics, GetMetricData and alarms ask for them.

Periods begin at multiples of their length since the epoch. ``AWS/`` metrics have one-minute data on AWS; here every
metric has one-second data for its last hour of activity, so periods of 1, 5, 10, 20 and 30 s are answered for all.
The period that is not over yet is told with what it has so far, as AWS does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from simulator.cloud.errors import AwsError
from simulator.cloud.metrics import Key, Metrics, StatisticSet

STATISTICS = ("SampleCount", "Average", "Sum", "Minimum", "Maximum")
Values = dict[int, float]
"""By the start of the period, in order."""

_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d{1,10})?|100)")


class NoPercentile(Exception):  # noqa: N818 - what was found, told to the caller as a message
    """Observations were added up with others of other values, so their order is not known any more."""


def check_period(period: int) -> None:
    """:raises AwsError: when it is none of CloudWatch's."""
    if period not in (1, 5, 10, 20, 30) and period % 60:
        raise AwsError("InvalidParameterValue", "The parameter Period must be 1, 5, 10, 20, 30 or a multiple of 60.")


def check_statistic(name: str) -> None:
    """:raises AwsError: when ``name`` is neither one of :data:`STATISTICS` nor a percentile such as ``p99.9``."""
    if name not in STATISTICS and not _PERCENTILE.fullmatch(name):
        raise AwsError(
            "InvalidParameterValue",
            f"The statistic {name} is not one of {', '.join(STATISTICS)} or a percentile p0 to p100; trimmed and "
            "winsorized statistics need single observations, which are not kept.",
        )


def find(metrics: Metrics, namespace: str, name: str, dimensions: Iterable[Mapping[str, str]]) -> Key | None:
    """The series with exactly these dimensions, in whatever order."""
    wanted = {(one["Name"], one["Value"]) for one in dimensions}
    return next((key for key in metrics.keys(namespace, name) if set(key[2]) == wanted), None)


def whole(start: float, end: float, period: int) -> tuple[int, int]:
    """The span in whole periods: from the one ``start`` falls in to the last that begins before ``end``."""
    return int(start) // period * period, math.ceil(end / period) * period


def statistic(metrics: Metrics, key: Key | None, name: str, start: float, end: float, period: int) -> Values:
    """One number a period with data, from the period that ``start`` falls in to before ``end``.

    :raises NoPercentile: a percentile of observations that were added up.
    """
    if key is None:
        return {}
    begin, end = whole(start, end, period)
    if name in STATISTICS:
        return {at: value_of(one, name) for at, one in metrics.periods(key, begin, end, period).items()}
    share = float(name[1:]) / 100
    groups: dict[int, list[StatisticSet]] = {}
    for at, one in metrics.points(key, begin, end, period):
        groups.setdefault(at - at % period, []).append(one)
    return {at: _percentile(sets, share) for at, sets in groups.items()}


def value_of(one: StatisticSet, name: str) -> float:
    """One of :data:`STATISTICS`."""
    if name == "Average":
        return one.sum / one.sample_count
    told = {"SampleCount": one.sample_count, "Sum": one.sum, "Minimum": one.minimum, "Maximum": one.maximum}
    return float(told[name])


def _percentile(sets: list[StatisticSet], share: float) -> float:
    """By nearest rank, as far as sets tell it: all observations of a set must be equal."""
    if any(one.minimum != one.maximum for one in sets):
        raise NoPercentile
    ordered = sorted(sets, key=lambda one: one.minimum)
    wanted = share * sum(one.sample_count for one in ordered)
    passed = 0.0
    for one in ordered:
        passed += one.sample_count
        if passed >= wanted:
            return one.minimum
    return ordered[-1].minimum


def stat_values(metrics: Metrics, stat: Mapping[str, Any], start: float, end: float) -> Values:
    """The values of a ``MetricStat``. A ``Unit`` other than the metric's own finds nothing, as on AWS.

    :raises AwsError: a period or statistic that CloudWatch does not have.
    :raises NoPercentile: see :func:`statistic`.
    """
    check_period(stat["Period"])
    check_statistic(stat["Stat"])
    metric = stat["Metric"]
    if "Namespace" not in metric or "MetricName" not in metric:
        raise AwsError("MissingParameter", "A Metric needs Namespace and MetricName.")
    key = find(metrics, metric["Namespace"], metric["MetricName"], metric.get("Dimensions", ()))
    if key is not None and stat.get("Unit", metrics.unit(key)) != metrics.unit(key):
        key = None
    return statistic(metrics, key, stat["Stat"], start, end, stat["Period"])
