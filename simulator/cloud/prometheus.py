"""The metrics in Prometheus's text format, under names as CloudWatch exporters give them.

``AWS/Kinesis IncomingRecords`` becomes the summary ``aws_kinesis_incoming_records``: ``_sum`` and ``_count`` only grow,
so ``rate()`` works on them. What CloudWatch shows as Minimum and Maximum are gauges of the latest whole minute
(``…_minimum``, ``…_maximum``), as exporters scrape them. Dimensions are labels: ``stream_name``, ``shard_id``,
``table_name``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.metrics_core import Metric

from simulator.cloud.metrics import MINUTE_S, Dimensions, Key, Metrics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def render(metrics: Metrics, now: float) -> bytes:
    """Every series, as ``GET /_alleycat/prometheus`` answers."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(metrics, now))
    return generate_latest(registry)


def snake(name: str) -> str:
    """``PutRecords.SuccessfulRecords`` to ``put_records_successful_records``; other characters become ``_``."""
    return re.sub(r"[^a-z0-9]+", "_", _WORD.sub("_", name).lower()).strip("_")


def metric_name(namespace: str, name: str) -> str:
    """A name that Prometheus takes: it may not begin with a digit."""
    found = f"{snake(namespace)}_{snake(name)}"
    return f"_{found}" if found[:1].isdigit() else found


class _Collector:
    def __init__(self, metrics: Metrics, now: float) -> None:
        self._metrics, self._now = metrics, now

    def collect(self) -> Iterator[Metric]:
        families: dict[str, list[Key]] = {}
        for key in self._metrics.keys():  # noqa: SIM118 - a method, not a dict's
            families.setdefault(metric_name(key[0], key[1]), []).append(key)
        for family, keys in sorted(families.items()):
            yield from self._family(family, keys)

    def _family(self, family: str, keys: list[Key]) -> Iterator[Metric]:
        namespace, name, _ = keys[0]
        told = f"CloudWatch {namespace} {name} ({self._metrics.unit(keys[0])})"
        summary = SummaryMetricFamily(family, f"{told}, added up since the start")
        gauges = {
            extreme: GaugeMetricFamily(f"{family}_{extreme}", f"{told}, {extreme} of the latest whole minute")
            for extreme in ("minimum", "maximum")
        }
        minute = int(self._now) // MINUTE_S * MINUTE_S - MINUTE_S
        seen: set[tuple[tuple[str, str], ...]] = set()
        for key in keys:
            labels = _labels(key[2])
            if tuple(labels.items()) in seen:  # two names that differ only in case; one sample a label set is allowed
                continue
            seen.add(tuple(labels.items()))
            count, total = self._metrics.since_start(key)
            summary.add_sample(f"{family}_count", labels, count)
            summary.add_sample(f"{family}_sum", labels, total)
            latest = self._metrics.periods(key, minute, minute + MINUTE_S, MINUTE_S).get(minute)
            if latest is not None:
                gauges["minimum"].add_sample(f"{family}_minimum", labels, latest.minimum)
                gauges["maximum"].add_sample(f"{family}_maximum", labels, latest.maximum)
        yield summary
        yield from (gauge for gauge in gauges.values() if gauge.samples)


def _labels(dimensions: Dimensions) -> dict[str, str]:
    labels: dict[str, str] = {}
    for name, value in sorted(dimensions):
        label = snake(name) or "_"
        labels[f"_{label}" if label[0].isdigit() else label] = value
    return labels
