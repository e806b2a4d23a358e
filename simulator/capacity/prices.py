"""What AWS charges, with the date and source of every price, and the bill of a run by line.

Prices are us-east-1, in USD; other regions and contracts differ, so a file can replace any of them
(:func:`load_prices`). Not on the bill: free tiers, storage, data transfer, and what is charged by the month whatever
is used. What is charged by the hour is rounded up to whole hours, as a run that is torn down afterwards pays.

DynamoDB charges for units that are provisioned, by the hour, not for those consumed (CAH ``ProvisionedThroughput``).
An hour in which auto scaling changed them is charged here at the highest level that it saw.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from simulator.deployment import Deployment, StreamSpec

PAYLOAD_UNIT_BYTES = 25 * 1024
"""A PUT payload unit: each record is charged by these, rounded up (Kinesis pricing page)."""
IOT_METER_BYTES = 5 * 1024
"""IoT Core meters messages and rules in steps of 5 KB."""
FIREHOSE_METER_BYTES = 5 * 1024
"""Data Firehose charges each record in steps of 5 KB (pricing page)."""
ON_DEMAND_METER_BYTES = 1024
"""An on-demand stream charges each record as whole KB."""


@dataclass(frozen=True, slots=True)
class Price:
    """``usd`` for ``per`` of ``unit``; ``date`` is that of the evidence (year and month)."""

    name: str
    usd: float
    per: float
    unit: str
    date: str
    source: str

    def of(self, quantity: float) -> float:
        """USD for ``quantity`` of ``unit``."""
        return quantity / self.per * self.usd


_MILLION = 1e6
_LIST = "AWS price list"
_IOT = "IoT Core pricing page"
_ON_DEMAND = "aws-samples kinesis-optimiser"
_FIREHOSE = "Data Firehose pricing page; first 500 TB a month"
_GIVEN = "given by the user"

PRICES: Mapping[str, Price] = MappingProxyType(
    {
        price.name: price
        for price in (
            Price("kinesis.shard_hour", 0.015, 1, "shard-hours", "2024-07", _LIST),
            Price("kinesis.put_payload_unit", 0.014, _MILLION, "payload units of 25 KB", "2024-07", _LIST),
            Price("kinesis.extended_retention_shard_hour", 0.020, 1, "shard-hours", "2024-07", _LIST),
            Price("kinesis.fan_out.consumer_shard_hour", 0.015, 1, "consumer-shard-hours", "2024-07", _LIST),
            Price("kinesis.fan_out.gb", 0.013, 1, "GB", "2024-07", _LIST),
            Price("kinesis.on_demand.stream_hour", 0.04, 1, "stream-hours", "2026", _ON_DEMAND),
            Price("kinesis.on_demand.gb_in", 0.08, 1, "GB", "2026", _ON_DEMAND),
            Price("kinesis.on_demand.gb_out", 0.04, 1, "GB", "2026", _ON_DEMAND),
            Price("kinesis.on_demand.fan_out_gb", 0.05, 1, "GB", "2026", _ON_DEMAND),
            Price("dynamodb.wcu_hour", 0.00065, 1, "WCU-hours", "2024-11", _LIST),
            Price("dynamodb.rcu_hour", 0.00013, 1, "RCU-hours", "2024-11", _LIST),
            Price("dynamodb.on_demand.write_unit", 0.625, _MILLION, "write units", "2024-11", _LIST),
            Price("dynamodb.on_demand.read_unit", 0.125, _MILLION, "read units", "2024-11", _LIST),
            Price("lambda.request", 0.20, _MILLION, "requests", "2024-07", _LIST),
            Price("lambda.gb_second", 0.0000166667, 1, "GB-seconds", "2024-07", f"{_LIST}; x86"),
            Price("iot.message", 1.00, _MILLION, "messages of 5 KB", "2026-09", f"{_IOT}; first 1,000 M a month"),
            Price("iot.connection_minute", 0.08, _MILLION, "connection-minutes", "2026-09", _IOT),
            Price("iot.rule", 0.15, _MILLION, "rules triggered", "2025-01", _IOT),
            Price("firehose.gb", 0.029, 1, "GB, records in steps of 5 KB", "2024-07", _FIREHOSE),
            Price("s3.put", 0.005, 1000, "PUT requests", "2024-07", _LIST),
            Price("iot.rule_action", 0.15, _MILLION, "actions run", "2025-01", _IOT),
        )
    }
)


class PricesError(ValueError):
    """A file of prices cannot be used; the text is one line and names the file."""


def load_prices(path: Path) -> Mapping[str, Price]:
    """:data:`PRICES` with those of a TOML or JSON file in place: ``"kinesis.shard_hour" = 0.018``, each in USD for the
    same quantity as the one that it replaces.

    :raises PricesError: for a file that cannot be read, or names a price that there is not.
    """
    try:
        text = path.read_text(encoding="utf-8")
        given = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise PricesError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise PricesError(f"{path} is neither TOML nor JSON: {error}") from None
    if not isinstance(given, dict):
        raise PricesError(f"{path} must hold a table of prices by name, not {type(given).__name__}")
    prices = dict(PRICES)
    for name, usd in _flat(given):
        if name not in prices:
            raise PricesError(f"{path}: there is no price {name!r}; there are {', '.join(prices)}")
        if isinstance(usd, bool) or not isinstance(usd, int | float) or not 0 <= usd < math.inf:
            raise PricesError(f"{path}: {name} must be a number of USD, 0 or more, not {usd!r}")
        prices[name] = replace(prices[name], usd=float(usd), date="", source=f"{_GIVEN}: {path.name}")
    return prices


def _flat(table: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """TOML's ``kinesis.shard_hour = 1`` is a table in a table; JSON has the dotted name as one key."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


@dataclass(frozen=True, slots=True)
class Usage:
    """What a run used. ``seconds`` is how long the deployment stands.

    ``records`` of ``record_bytes`` each, partition key included, go to the first stream; ``payload_units`` of 25 KiB
    are what they come to when they differ in size, None when they do not. ``mqtt_messages`` and ``connections`` are of
    IoT Core. ``invocations`` and ``duration_s`` (the sum of them) are by function name,
    ``write_units`` and ``read_units`` by table; the last two are charged where the table is on-demand.
    ``published`` are messages that functions publish, by function, in IoT Core's steps of 5 KB each.
    ``delivered`` (records taken from the stream) and ``objects`` (written to the bucket) are by delivery stream.
    ``wcu_hours`` and ``rcu_hours`` are by table too, with its indexes, where auto scaling changed what it provides.
    """

    seconds: float
    records: int = 0
    record_bytes: float = 0.0
    payload_units: int | None = None
    mqtt_messages: int = 0
    mqtt_message_bytes: float = 0.0
    connections: int = 0
    invocations: Mapping[str, int] = field(default_factory=dict)
    duration_s: Mapping[str, float] = field(default_factory=dict)
    write_units: Mapping[str, float] = field(default_factory=dict)
    read_units: Mapping[str, float] = field(default_factory=dict)
    wcu_hours: Mapping[str, float] = field(default_factory=dict)
    rcu_hours: Mapping[str, float] = field(default_factory=dict)
    published: Mapping[str, int] = field(default_factory=dict)
    delivered: Mapping[str, int] = field(default_factory=dict)
    objects: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BillLine:
    """``quantity`` is in the unit of ``price``; ``resource`` is what it is charged for."""

    resource: str
    quantity: float
    price: Price

    @property
    def usd(self) -> float:
        return self.price.of(self.quantity)

    def as_json(self) -> dict[str, object]:
        price = self.price
        return {
            "line": price.name,
            "resource": self.resource,
            "quantity": round(self.quantity, 6),
            "unit": price.unit,
            "usd": round(self.usd, 6),
            "usd_per_unit": price.usd / price.per,
            "price_date": price.date,
            "price_source": price.source,
        }


def total_usd(bill: list[BillLine]) -> float:
    return sum(line.usd for line in bill)


def bill_of(deployment: Deployment, usage: Usage, prices: Mapping[str, Price] = PRICES) -> list[BillLine]:
    """The bill of ``usage`` on ``deployment``, lines of nothing left out."""
    lines = [*_iot(usage, deployment), *_streams(deployment, usage), *_tables(deployment, usage)]
    metered = math.ceil(usage.record_bytes / FIREHOSE_METER_BYTES) * FIREHOSE_METER_BYTES
    for delivery in deployment.delivery_streams:
        lines += [
            ("firehose.gb", delivery.name, usage.delivered.get(delivery.name, 0) * metered / 1e9),
            ("s3.put", delivery.name, usage.objects.get(delivery.name, 0)),
        ]
    for function in deployment.functions:
        gigabytes = function.memory_mb / 1024
        lines += [
            ("lambda.request", function.name, usage.invocations.get(function.name, 0)),
            ("lambda.gb_second", function.name, usage.duration_s.get(function.name, 0.0) * gigabytes),
        ]
    return [BillLine(resource, quantity, prices[name]) for name, resource, quantity in lines if quantity]


_Line = tuple[str, str, float]


def _hours(usage: Usage) -> int:
    return math.ceil(usage.seconds / 3600)


def _iot(usage: Usage, deployment: Deployment) -> Iterator[_Line]:
    """Each message triggers each rule that there is, and each of its actions."""
    metered = usage.mqtt_messages * max(1, math.ceil(usage.mqtt_message_bytes / IOT_METER_BYTES))
    yield "iot.message", "IoT Core", metered
    yield "iot.connection_minute", "IoT Core", usage.connections * math.ceil(usage.seconds / 60)
    for function, messages in usage.published.items():
        yield "iot.message", function, messages
    for rule in deployment.topic_rules:
        yield "iot.rule", rule.name, metered
        yield "iot.rule_action", rule.name, metered * len(rule.payload.get("actions", ()))


def _streams(deployment: Deployment, usage: Usage) -> Iterator[_Line]:
    hours = _hours(usage)
    for stream in deployment.streams:
        # Only the first stream gets the telemetry.
        records = usage.records if stream is deployment.streams[0] else 0
        gigabytes = records * usage.record_bytes / 1e9
        fan_outs = [consumer for consumer in deployment.consumers if consumer.stream_arn == stream.arn]
        if stream.mode == "ON_DEMAND":
            metered = records * math.ceil(usage.record_bytes / ON_DEMAND_METER_BYTES) * ON_DEMAND_METER_BYTES / 1e9
            yield "kinesis.on_demand.stream_hour", stream.name, hours
            yield "kinesis.on_demand.gb_in", stream.name, metered
            yield "kinesis.on_demand.gb_out", stream.name, metered * _pollers(deployment, stream)
            yield "kinesis.on_demand.fan_out_gb", stream.name, metered * len(fan_outs)
            continue
        yield "kinesis.shard_hour", stream.name, stream.shard_count * hours
        units = records * math.ceil(usage.record_bytes / PAYLOAD_UNIT_BYTES)
        if records and usage.payload_units is not None:
            units = usage.payload_units
        yield "kinesis.put_payload_unit", stream.name, units
        if stream.retention_hours > 24:
            yield "kinesis.extended_retention_shard_hour", stream.name, stream.shard_count * hours
        for consumer in fan_outs:
            yield "kinesis.fan_out.consumer_shard_hour", consumer.name, stream.shard_count * hours
            yield "kinesis.fan_out.gb", consumer.name, gigabytes


def _pollers(deployment: Deployment, stream: StreamSpec) -> int:
    """Event sources and delivery streams that read the stream by polling."""
    sources = [source for function in deployment.functions for source in function.event_sources]
    deliveries = sum(one.stream_name == stream.name for one in deployment.delivery_streams)
    return deliveries + sum(
        one.kind == "Kinesis" and one.source_name == stream.name and not one.consumer_name for one in sources
    )


def _tables(deployment: Deployment, usage: Usage) -> Iterator[_Line]:
    hours = _hours(usage)
    for table in deployment.tables:
        if table.billing_mode == "PAY_PER_REQUEST":
            yield "dynamodb.on_demand.write_unit", table.name, usage.write_units.get(table.name, 0.0)
            yield "dynamodb.on_demand.read_unit", table.name, usage.read_units.get(table.name, 0.0)
            continue
        # An LSI has no units of its own: its specification holds 0.
        wcu_hours = hours * (table.wcu + sum(index.wcu for index in table.indexes))
        rcu_hours = hours * (table.rcu + sum(index.rcu for index in table.indexes))
        yield "dynamodb.wcu_hour", table.name, usage.wcu_hours.get(table.name, wcu_hours)
        yield "dynamodb.rcu_hour", table.name, usage.rcu_hours.get(table.name, rcu_hours)
