"""Which kind of source an ARN names, and the client it needs."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any

from consumers.runtime.config import MappingConfig, RuntimeSettings
from consumers.runtime.sources.dynamodb_stream import DynamoDBStream
from consumers.runtime.sources.kinesis_fan_out import KinesisFanOut
from consumers.runtime.sources.kinesis_polling import KinesisPolling
from consumers.runtime.sources.source import Source


class Clients:
    """boto3 clients by service, each made when it is first needed and shared by all threads."""

    def __init__(self, factories: dict[str, Callable[[], Any]]) -> None:
        self._factories = factories
        self._made: dict[str, Any] = {}
        self._lock = Lock()

    def get(self, service: str) -> Any:
        """Whatever the factory raises, it raises."""
        with self._lock:
            if service not in self._made:
                self._made[service] = self._factories[service]()
            return self._made[service]

    def close(self) -> None:
        with self._lock:
            for client in self._made.values():
                client.close()
            self._made.clear()


def source_of(
    mapping: MappingConfig, clients: Clients, settings: RuntimeSettings, clock: Callable[[], float]
) -> Source:
    """The source that ``mapping.stream_arn`` names."""
    if mapping.source_kind == "DynamoDB":
        return DynamoDBStream(mapping, clients.get("dynamodbstreams"), settings, clock)
    if "/consumer/" in mapping.stream_arn:
        return KinesisFanOut(mapping, clients.get("kinesis"), clock)
    return KinesisPolling(mapping, clients.get("kinesis"), settings, clock)
