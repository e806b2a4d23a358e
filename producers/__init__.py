"""Deliver records and account for every one. A leaf: knows nothing of races, simulators or consumers."""

from producers.delivery import (
    DEADLINE,
    INTERRUPTED,
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
from producers.kinesis import KinesisProducer, Latencies, ProducerStatistics
from producers.spool import SpoolReader, read_spool

__all__ = [
    "DEADLINE",
    "INTERRUPTED",
    "REJECTED",
    "AccessRefused",
    "ConfigurationError",
    "EndpointUnreachable",
    "KinesisProducer",
    "Latencies",
    "Ledger",
    "Percentiles",
    "ProducerClosed",
    "ProducerError",
    "ProducerStatistics",
    "Record",
    "RequestRefused",
    "Samples",
    "SpoolReader",
    "StreamNotFound",
    "percentiles_of",
    "read_spool",
]
