"""Deliver records and account for every one. A leaf: knows nothing of races, simulators or consumers.

Whoever produces can take any :class:`Producer`: Kinesis, or MQTT with one connection a device. The producers are
imported when they are first asked for, because their client libraries take a while.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from producers.delivery import (
    DEADLINE,
    INTERRUPTED,
    QUEUE_FULL,
    REJECTED,
    Ledger,
    Percentiles,
    Record,
    Samples,
    percentiles_of,
)
from producers.errors import (
    AccessRefused,
    ConfigurationError,
    EndpointUnreachable,
    ProducerClosed,
    ProducerError,
    RequestRefused,
    StreamNotFound,
)
from producers.mqtt_settings import BrokerUnreachable, DeviceRefused, MqttStatistics, TlsSettings, Will
from producers.spool import SpoolReader, read_spool

if TYPE_CHECKING:
    from producers.iot_device import IotDeviceProducer
    from producers.kinesis import KinesisProducer, Latencies, ProducerStatistics
    from producers.mqtt import MqttProducer

_LAZY = {
    "IotDeviceProducer": "producers.iot_device",
    "KinesisProducer": "producers.kinesis",
    "Latencies": "producers.kinesis",
    "MqttProducer": "producers.mqtt",
    "ProducerStatistics": "producers.kinesis",
}


class Statistics(Protocol):
    """What every producer's ``statistics()`` has."""

    @property
    def ledger(self) -> Ledger: ...
    @property
    def throttled_by_shard(self) -> Mapping[str, int]: ...
    @property
    def last_problem(self) -> str | None: ...
    @property
    def spool_problem(self) -> str | None: ...


class Producer(Protocol):
    """What a load generator needs of a producer; see :class:`KinesisProducer` and :class:`MqttProducer`."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
    async def close(self, *, drain: bool = True) -> None: ...
    async def put(self, record: Record) -> None: ...
    async def put_many(self, records: Sequence[Record]) -> None: ...
    async def flush(self) -> None: ...
    def statistics(self) -> Statistics: ...
    def latencies(self) -> Latencies: ...
    @property
    def samples(self) -> tuple[Samples, Samples]: ...


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "DEADLINE",
    "INTERRUPTED",
    "QUEUE_FULL",
    "REJECTED",
    "AccessRefused",
    "BrokerUnreachable",
    "ConfigurationError",
    "DeviceRefused",
    "EndpointUnreachable",
    "IotDeviceProducer",
    "KinesisProducer",
    "Latencies",
    "Ledger",
    "MqttProducer",
    "MqttStatistics",
    "Percentiles",
    "Producer",
    "ProducerClosed",
    "ProducerError",
    "ProducerStatistics",
    "Record",
    "RequestRefused",
    "Samples",
    "SpoolReader",
    "Statistics",
    "StreamNotFound",
    "TlsSettings",
    "Will",
    "percentiles_of",
    "read_spool",
]
