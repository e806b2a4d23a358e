"""``POST /_alleycat/metrics``: metrics of what runs outside the cloud's process, such as Lambda functions.

The body is what GET answers: ``{"metrics": [{"Namespace", "MetricName", "Dimensions": {name: value}, "Points":
[[second, SampleCount, Sum, Minimum, Maximum], ...]}]}``. A second that is sent again replaces what was sent of it, so
a sender may tell the current second as it grows. The namespaces of the cloud's own services are refused.
"""

from __future__ import annotations

import math

import msgspec

from simulator.cloud.metrics import CLIENT_SERIES_MAX, Metrics, StatisticSet

OWN_NAMESPACES = ("AWS/Kinesis", "AWS/DynamoDB")
"""Written by the cloud's services alone: a series has one writer."""

Point = tuple[int, float, float, float, float]


class IntakeError(Exception):
    """The points cannot be taken; the text says which and why."""


class _Series(msgspec.Struct):
    Namespace: str
    MetricName: str
    Points: list[Point]
    Dimensions: dict[str, str] = msgspec.field(default_factory=dict)


class _Body(msgspec.Struct):
    metrics: list[_Series]


def take(metrics: Metrics, body: bytes) -> int:
    """Store every point; returns how many. All or nothing.

    :raises IntakeError: the body is not of the format above, or names one of :data:`OWN_NAMESPACES`.
    """
    try:
        told = msgspec.json.decode(body, type=_Body).metrics
    except (msgspec.DecodeError, RecursionError) as error:
        raise IntakeError(f"the body is not as GET answers it: {error}") from None
    for one in told:
        if one.Namespace in OWN_NAMESPACES:
            raise IntakeError(f"{one.Namespace} is recorded by the cloud itself")
        for second, *values in one.Points:
            if second < 0 or not all(map(math.isfinite, values)) or values[0] <= 0:
                raise IntakeError(f"{one.MetricName}: second >= 0 and SampleCount > 0 in {[second, *values]}")
    keys = [(one.Namespace, one.MetricName, tuple(sorted(one.Dimensions.items()))) for one in told]
    if len({*metrics.keys(), *keys}) > CLIENT_SERIES_MAX:
        raise IntakeError(f"over {CLIENT_SERIES_MAX:,} series; use fewer dimensions")
    for key, one in zip(keys, told, strict=True):
        for second, *values in one.Points:
            metrics.replace(key, second, StatisticSet(*values))
    return sum(len(one.Points) for one in told)
