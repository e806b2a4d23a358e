"""IoT Core's broker metrics, under CloudWatch's names (namespace ``AWS/IoT``, dimension ``Protocol``)."""

from __future__ import annotations

from collections import Counter

from simulator.cloud.metrics import Dimensions, Metrics

NAMESPACE = "AWS/IoT"
MQTT = "MQTT"
HTTP = "HTTP"

_DIMENSIONS: dict[str, Dimensions] = {name: (("Protocol", name),) for name in (MQTT, HTTP)}


class IotMeter:
    """Counts what clients do. ``disconnects`` counts ended connections by IoT's disconnectReason."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.disconnects: Counter[str] = Counter()

    def count(self, name: str, now: float, times: int = 1, protocol: str = MQTT) -> None:
        """``times`` of metric ``name`` at ``now``, such as ``PublishIn.Success``."""
        self._metrics.record(NAMESPACE, name, _DIMENSIONS[protocol], times, now, samples=times)
