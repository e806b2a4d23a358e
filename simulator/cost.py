"""What a run on a real account will cost, before it starts.

Prices, with their dates and sources, are those of :mod:`simulator.capacity.prices`. This is an upper bound, known
before anything runs; ``alleycat plan`` works a bill out from a run in virtual time. The estimate rounds every hourly
price up to the hour that AWS would bill and knows nothing of free tiers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from simulator.capacity.prices import FIREHOSE_METER_BYTES, PRICES
from simulator.deployment import Deployment

SHARD_HOUR = PRICES["kinesis.shard_hour"].usd
PUT_PAYLOAD_UNIT_MILLION = PRICES["kinesis.put_payload_unit"].usd
ON_DEMAND_STREAM_HOUR = PRICES["kinesis.on_demand.stream_hour"].usd
ON_DEMAND_GB_IN = PRICES["kinesis.on_demand.gb_in"].usd
ON_DEMAND_GB_OUT = PRICES["kinesis.on_demand.gb_out"].usd
WCU_HOUR = PRICES["dynamodb.wcu_hour"].usd
RCU_HOUR = PRICES["dynamodb.rcu_hour"].usd
LAMBDA_REQUEST_MILLION = PRICES["lambda.request"].usd
IOT_MESSAGE_MILLION = PRICES["iot.message"].usd
IOT_CONNECTION_MINUTE_MILLION = PRICES["iot.connection_minute"].usd
IOT_RULE_MILLION = PRICES["iot.rule"].usd
FIREHOSE_GB = PRICES["firehose.gb"].usd
LAMBDA_GB_SECOND = PRICES["lambda.gb_second"].usd


@dataclass(frozen=True, slots=True)
class CostLine:
    """One line of the bill."""

    what: str
    usd: float


def estimate(deployment: Deployment, messages: int, seconds: int, bikes: int = 0) -> list[CostLine]:
    """The bill of a run of ``messages`` over ``seconds`` on ``deployment`` while it stands.

    ``bikes``: MQTT connections, when messages come through IoT Core.
    """
    hours = math.ceil(seconds / 3600)
    shards = sum(stream.shard_count for stream in deployment.streams)
    wcu = rcu = 0.0
    for table in deployment.tables:
        # An LSI has no units of its own: its specification holds 0.
        wcu += table.wcu + sum(index.wcu for index in table.indexes)
        rcu += table.rcu + sum(index.rcu for index in table.indexes)
    # At most one invocation a second and shard for each function; each busy for the whole time.
    functions = len(deployment.functions)
    invocations = functions * shards * seconds
    gigabyte_seconds = sum(function.memory_mb / 1024 for function in deployment.functions) * shards * seconds
    return [
        *(_iot(messages, seconds, bikes) if bikes else ()),
        *_streams(deployment, messages, hours),
        CostLine(f"{wcu:,.0f} WCU and {rcu:,.0f} RCU for {hours} h", hours * (wcu * WCU_HOUR + rcu * RCU_HOUR)),
        CostLine(
            f"up to {invocations:,} invocations",
            invocations / 1e6 * LAMBDA_REQUEST_MILLION + gigabyte_seconds * LAMBDA_GB_SECOND,
        ),
        *(
            CostLine(
                f"{messages:,} messages delivered by {one.name}", messages * FIREHOSE_METER_BYTES / 1e9 * FIREHOSE_GB
            )
            for one in deployment.delivery_streams
        ),
    ]


def _iot(messages: int, seconds: int, bikes: int) -> list[CostLine]:
    """A rule with one action for each message; connections by the minute."""
    minutes = bikes * math.ceil(seconds / 60)
    return [
        CostLine(f"{messages:,} MQTT messages", messages / 1e6 * IOT_MESSAGE_MILLION),
        CostLine(f"{messages:,} rules with an action", messages / 1e6 * 2 * IOT_RULE_MILLION),
        CostLine(f"{minutes:,} connection minutes", minutes / 1e6 * IOT_CONNECTION_MINUTE_MILLION),
    ]


def _streams(deployment: Deployment, messages: int, hours: int) -> list[CostLine]:
    """Every message goes to every stream, and every function on one reads it: messages are below 1 KB."""
    lines = []
    for stream in deployment.streams:
        if stream.mode == "ON_DEMAND":
            readers = sum(
                source.source_name == stream.name
                for function in deployment.functions
                for source in function.event_sources
            )
            gigabytes = messages * 1024 / 1e9
            usd = hours * ON_DEMAND_STREAM_HOUR + gigabytes * (ON_DEMAND_GB_IN + readers * ON_DEMAND_GB_OUT)
            lines.append(CostLine(f"on-demand stream {stream.name} for {hours} h", usd))
        else:
            lines += [
                CostLine(f"{stream.shard_count} shards for {hours} h", stream.shard_count * hours * SHARD_HOUR),
                CostLine(f"{messages:,} PUT payload units", messages / 1e6 * PUT_PAYLOAD_UNIT_MILLION),
            ]
    return lines
