"""Published quotas as data, and the token bucket that enforces them.

Each quota is one named constant that carries its value, unit, source and how sure we are of it. The
state machines of this package (shards, table capacity) take ``now`` as an argument and spend from
:class:`TokenBucket`; nothing here reads a clock. The embedded cloud passes the real time, the planner a
virtual one, so both refuse exactly the same work.

Sources: *CAH* is the AWS documentation (docs.aws.amazon.com), *BC* the service models inside botocore,
*KPL* the Amazon Kinesis Producer Library. Confidence: H published or machine-recorded, M one good source,
L inferred; those marked L are settings of :class:`LimitSettings` where a user could want another value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

KIB = 1024
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Quota:
    """One published limit. ``value`` is in ``unit``; ``name`` is dotted and stable, as reports print it."""

    name: str
    value: float
    unit: str
    source: str
    confidence: str = "H"

    def __int__(self) -> int:
        return int(self.value)


# -- Kinesis Data Streams ----------------------------------------------------------------------------
SHARD_WRITE_RECORDS = Quota("kinesis.shard.write.records_per_second", 1000, "records/s", "CAH service-sizes-and-limits")
SHARD_WRITE_BYTES = Quota(
    "kinesis.shard.write.bytes_per_second",
    MIB,
    "bytes/s",
    "CAH service-sizes-and-limits; partition keys included; 1 MiB as KPL's limiter has it",
)
SHARD_READ_CALLS = Quota("kinesis.shard.read.get_records_per_second", 5, "calls/s", "CAH service-sizes-and-limits")
SHARD_READ_BYTES = Quota("kinesis.shard.read.bytes_per_second", 2 * MIB, "bytes/s", "CAH, BC GetRecords")
PUT_RECORDS_MAX_RECORDS = Quota("kinesis.put_records.max_records", 500, "records", "BC PutRecords")
PUT_RECORDS_MAX_BYTES = Quota("kinesis.put_records.max_bytes", 10 * MIB, "bytes", "BC, CAH (10 MiB since 2025-10)")
RECORD_MAX_BYTES = Quota(
    "kinesis.record.max_bytes", MIB, "bytes", "BC; data before base64 plus partition key; a stream's default"
)
LARGE_RECORD_MAX_BYTES = Quota(
    "kinesis.record.max_bytes_opt_in", 10 * MIB, "bytes", "BC UpdateMaxRecordSize: MaxRecordSizeInKiB 1024..10240"
)
GET_RECORDS_MAX_RECORDS = Quota("kinesis.get_records.max_records", 10_000, "records", "BC GetRecords")
GET_RECORDS_MAX_BYTES = Quota("kinesis.get_records.max_bytes", 10 * MIB, "bytes", "BC GetRecords")
GET_RECORDS_FULL_PENALTY = Quota(
    "kinesis.get_records.full_answer_penalty_seconds", 5, "s", "BC GetRecords: calls after an answer of 10 MiB throw"
)
GET_SHARD_ITERATOR_CALLS = Quota(
    "kinesis.shard.get_shard_iterator_per_second", 5, "calls/s", "BC GetShardIterator; per open shard"
)
ITERATOR_LIFETIME = Quota("kinesis.iterator.lifetime_ms", 300_000, "ms", "BC GetShardIterator: 5 minutes")
UPDATE_SHARD_COUNT_PER_DAY = Quota("kinesis.update_shard_count.per_24h", 10, "calls", "BC UpdateShardCount")
UPDATE_SHARD_COUNT_MAX = Quota("kinesis.update_shard_count.max_shards", 10_000, "shards", "BC UpdateShardCount")
RETENTION_DEFAULT_HOURS = Quota("kinesis.retention.default_hours", 24, "h", "BC CreateStream")
RETENTION_MIN_HOURS = Quota("kinesis.retention.min_hours", 24, "h", "BC DecreaseStreamRetentionPeriod")
RETENTION_MAX_HOURS = Quota("kinesis.retention.max_hours", 8760, "h", "BC IncreaseStreamRetentionPeriod")
SHARDS_PER_ACCOUNT = Quota("kinesis.account.shards", 20_000, "shards", "CAH; us-east-1, us-west-2, eu-west-1")
STREAMS_CREATING = Quota("kinesis.account.streams_creating", 5, "streams", "BC CreateStream")
TAGS_PER_STREAM = Quota("kinesis.stream.tags", 50, "tags", "CAH")
PAGE_TOKEN_LIFETIME = Quota("kinesis.next_token.lifetime_ms", 300_000, "ms", "BC ListShards: 300 seconds")
STREAM_ENCRYPTION_PER_DAY = Quota("kinesis.start_stream_encryption.per_24h", 25, "calls", "CAH, BC")
MODE_SWITCHES_PER_DAY = Quota("kinesis.update_stream_mode.per_24h", 2, "switches", "CAH, BC UpdateStreamMode")

# On-demand streams (CAH how-do-i-size-a-stream).
ON_DEMAND_STREAMS = Quota("kinesis.account.on_demand_streams", 50, "streams", "CAH")
ON_DEMAND_SHARDS = Quota("kinesis.on_demand.initial_shards", 4, "shards", "CAH: 4 MB/s, 4,000 records/s")
ON_DEMAND_SPLIT_BYTES = Quota("kinesis.on_demand.split_above_bytes_per_second", 500 * KIB, "bytes/s", "CAH")
ON_DEMAND_SPLIT_MINUTES = Quota("kinesis.on_demand.split_after_minutes", 15, "min", "CAH")
ON_DEMAND_MAX_BYTES = Quota(
    "kinesis.on_demand.max_bytes_per_second", 10 * 1024 * MIB, "bytes/s", "CAH; us-east-1, us-west-2, eu-west-1"
)

# Enhanced fan-out (CAH enhanced-consumers, BC SubscribeToShard).
FAN_OUT_BYTES = Quota("kinesis.fan_out.bytes_per_second", 2 * MIB, "bytes/s", "CAH; per consumer and shard")
FAN_OUT_CONSUMERS = Quota("kinesis.fan_out.consumers_per_stream", 20, "consumers", "CAH; 50 with On-demand Advantage")
FAN_OUT_CREATING = Quota("kinesis.fan_out.consumers_creating", 5, "consumers", "BC RegisterStreamConsumer")
FAN_OUT_LIFETIME = Quota("kinesis.fan_out.subscription_seconds", 300, "s", "BC SubscribeToShard")
FAN_OUT_RESUBSCRIBE = Quota("kinesis.fan_out.resubscribe_after_seconds", 5, "s", "BC SubscribeToShard")
FAN_OUT_CALLS = Quota("kinesis.fan_out.subscribe_per_second", 1, "calls/s", "CAH; per consumer and shard")

# The control plane (CAH service-sizes-and-limits); over it: LimitExceededException.
LIST_SHARDS_CALLS = Quota("kinesis.list_shards.per_second", 1_000, "calls/s", "CAH, BC; per stream")
DESCRIBE_STREAM_CALLS = Quota("kinesis.describe_stream.per_second", 10, "calls/s", "CAH; per account")
DESCRIBE_SUMMARY_CALLS = Quota("kinesis.describe_stream_summary.per_second", 20, "calls/s", "CAH; per account")
DESCRIBE_CONSUMER_CALLS = Quota("kinesis.describe_stream_consumer.per_second", 20, "calls/s", "CAH; per stream")
DESCRIBE_LIMITS_CALLS = Quota("kinesis.describe_limits.per_second", 1, "calls/s", "CAH; per account")
UPDATE_SHARD_COUNT_CALLS = Quota("kinesis.update_shard_count.per_second", 10, "calls/s", "BC; per account")
CONTROL_CALLS = Quota(
    "kinesis.control.per_second",
    5,
    "calls/s",
    "CAH; per account: CreateStream, DeleteStream, ListStreams, SplitShard, MergeShards, RegisterStreamConsumer; "
    "per stream: the other calls that change or list",
)

# -- DynamoDB ----------------------------------------------------------------------------------------
WRITE_UNIT_BYTES = Quota("dynamodb.write_unit.bytes", KIB, "bytes", "CAH read-write-operations")
READ_UNIT_BYTES = Quota("dynamodb.read_unit.bytes", 4 * KIB, "bytes", "CAH read-write-operations")
BURST_SECONDS = Quota(
    "dynamodb.burst.seconds", 300, "s", "CAH burst-adaptive-capacity: up to 300 s of unused capacity", "M"
)
PARTITION_WRITE_UNITS = Quota("dynamodb.partition.write.units_per_second", 1_000, "WCU", "CAH; hard, per partition")
PARTITION_READ_UNITS = Quota("dynamodb.partition.read.units_per_second", 3_000, "RCU", "CAH; hard, per partition")
ON_DEMAND_WRITE_UNITS = Quota("dynamodb.on_demand.initial_write_units", 4_000, "WRU/s", "CAH on-demand-capacity-mode")
ON_DEMAND_READ_UNITS = Quota("dynamodb.on_demand.initial_read_units", 12_000, "RRU/s", "CAH on-demand-capacity-mode")
ON_DEMAND_DOUBLING = Quota(
    "dynamodb.on_demand.doubling_minutes", 30, "min", "CAH: up to twice the previous peak within 30 minutes"
)
TABLE_MAX_UNITS = Quota("dynamodb.table.max_units_per_second", 40_000, "units/s", "CAH quotas; us-east-1, adjustable")
DECREASES_FREE = Quota("dynamodb.update_table.decreases", 4, "decreases", "CAH quotas; a day, then one an hour")
DECREASES_PER_DAY = Quota("dynamodb.update_table.decreases_per_day", 27, "decreases", "CAH quotas")
STREAM_RETENTION_HOURS = Quota("dynamodb.streams.retention_hours", 24, "h", "CAH, BC dynamodbstreams")
STREAM_READ_RECORDS = Quota("dynamodb.streams.get_records.max_records", 1_000, "records", "BC GetRecords")
STREAM_READ_BYTES = Quota("dynamodb.streams.get_records.max_bytes", MIB, "bytes", "BC GetRecords: 1 MB")
STREAM_ITERATOR_LIFETIME = Quota("dynamodb.streams.iterator.lifetime_ms", 900_000, "ms", "BC GetShardIterator: 15 min")
SCALE_OUT_MINUTES = Quota("dynamodb.auto_scaling.scale_out_after_minutes", 2, "min", "CAH AutoScaling: in a row")
SCALE_IN_MINUTES = Quota("dynamodb.auto_scaling.scale_in_after_minutes", 15, "min", "CAH AutoScaling: in a row")
SCALING_TARGET_MIN = Quota("dynamodb.auto_scaling.target_min_percent", 20, "%", "CAH AutoScaling")
SCALING_TARGET_MAX = Quota("dynamodb.auto_scaling.target_max_percent", 90, "%", "CAH AutoScaling")
MODE_CHANGES_PER_DAY = Quota(
    "dynamodb.update_table.to_on_demand_per_24h", 4, "changes", "CAH: provisioned to on-demand, in 24 hours"
)
ITEM_MAX_BYTES = Quota("dynamodb.item.max_bytes", 400 * KIB, "bytes", "CAH quotas")
PARTITION_KEY_MAX_BYTES = Quota("dynamodb.partition_key.max_bytes", 2048, "bytes", "CAH quotas")
SORT_KEY_MAX_BYTES = Quota("dynamodb.sort_key.max_bytes", 1024, "bytes", "CAH quotas")
NESTING_LEVELS = Quota("dynamodb.item.max_nesting", 32, "levels", "CAH quotas")
NUMBER_DIGITS = Quota("dynamodb.number.max_digits", 38, "digits", "CAH quotas")
BATCH_WRITE_ITEMS = Quota("dynamodb.batch_write.max_items", 25, "items", "CAH API_BatchWriteItem")
BATCH_GET_ITEMS = Quota("dynamodb.batch_get.max_items", 100, "items", "CAH API_BatchGetItem")
TRANSACTION_ITEMS = Quota("dynamodb.transaction.max_items", 100, "items", "BC TransactWriteItems")
TRANSACTION_BYTES = Quota("dynamodb.transaction.max_bytes", 4 * MIB, "bytes", "BC TransactWriteItems")
ACCOUNT_UNITS = Quota("dynamodb.account.max_units_per_second", 80_000, "units/s", "CAH quotas; told, not enforced")

# -- IoT Core: the message broker (CAH "AWS IoT Core endpoints and quotas", developer guide mqtt.html) ---------
# Values of the large regions; those of the smaller ones are below.
IOT_CONNECTS = Quota("iot.account.connects_per_second", 3_000, "connects/s", "CAH; older pages say 500")
IOT_CLIENT_CONNECTS = Quota("iot.client_id.connects_per_second", 1, "connects/s", "CAH")
IOT_CONNECTIONS = Quota("iot.account.connections", 500_000, "connections", "CAH; told, not enforced", "M")
IOT_PUBLISH_IN = Quota("iot.account.publish_in_per_second", 20_000, "publishes/s", "CAH; excess discarded")
IOT_PUBLISH_OUT = Quota(
    "iot.account.publish_out_per_second", 20_000, "publishes/s", "CAH; deliveries to clients, not to rules"
)
IOT_CONNECTION_PUBLISHES = Quota(
    "iot.connection.publishes_per_second", 100, "publishes/s", "CAH; in and out together, excess discarded"
)
IOT_CONNECTION_BYTES = Quota("iot.connection.bytes_per_second", 512 * KIB, "bytes/s", "CAH; delayed, not discarded")
IOT_PAYLOAD_MAX_BYTES = Quota("iot.publish.payload_max_bytes", 128 * KIB, "bytes", "CAH; the connection is closed")
IOT_PACKET_MAX_BYTES = Quota("iot.mqtt5.packet_max_bytes", 146 * KIB, "bytes", "CAH mqtt5")
IOT_TOPIC_MAX_BYTES = Quota("iot.topic.max_bytes", 256, "bytes", "CAH; UTF-8")
IOT_TOPIC_MAX_SLASHES = Quota("iot.topic.max_slashes", 7, "slashes", "CAH; the levels $aws/rules/NAME/ not counted")
IOT_CLIENT_ID_MAX_BYTES = Quota("iot.client_id.max_bytes", 128, "bytes", "CAH; UTF-8")
IOT_IN_FLIGHT = Quota("iot.connection.in_flight", 100, "messages", "CAH; unacknowledged at QoS 1, each way")
IOT_SUBSCRIPTIONS = Quota("iot.connection.subscriptions", 50, "subscriptions", "CAH")
IOT_TOPICS_PER_SUBSCRIBE = Quota("iot.subscribe.max_topics", 8, "topics", "CAH")
IOT_SUBSCRIBES = Quota("iot.account.subscribes_per_second", 3_000, "subscriptions/s", "CAH; older pages say 500")
IOT_KEEP_ALIVE_MIN_SECONDS = Quota("iot.keep_alive.min_seconds", 30, "s", "CAH; less counts as 30")
IOT_KEEP_ALIVE_MAX_SECONDS = Quota("iot.keep_alive.max_seconds", 1_200, "s", "CAH; 0 and more count as 1,200")
IOT_SESSION_SECONDS = Quota("iot.session.expiry_seconds", 3_600, "s", "CAH; adjustable up to 7 days")
IOT_STORED_PER_SECOND = Quota("iot.session.stored_messages_per_second", 10, "messages/s", "CAH; after a reconnect")
IOT_SHARED_STORED_PER_SECOND = Quota(
    "iot.session.shared_stored_messages_per_second", 20, "messages/s", "CAH; told, all sessions get 10"
)
IOT_QUEUED = Quota("iot.account.queued_per_second", 500, "messages/s", "CAH; for sessions that are away")
IOT_REDELIVERY_SECONDS = Quota("iot.qos1.redelivery_for_seconds", 3_600, "s", "CAH; MQTT 3.1.1: up to an hour")
IOT_RETAINED = Quota("iot.account.retained_per_second", 500, "publishes/s", "CAH")
IOT_RETAINED_TOPIC = Quota("iot.topic.retained_per_second", 1, "publishes/s", "CAH")
IOT_TOPIC_ALIASES = Quota("iot.mqtt5.topic_aliases", 8, "aliases", "CAH mqtt5")
IOT_USER_PROPERTIES_BYTES = Quota("iot.mqtt5.user_properties_max_bytes", 8 * KIB, "bytes", "CAH mqtt5")
IOT_MESSAGE_EXPIRY_SECONDS = Quota("iot.mqtt5.message_expiry_max_seconds", 604_800, "s", "CAH mqtt5: 7 days")
IOT_WEBSOCKET_SECONDS = Quota("iot.websocket.max_seconds", 86_400, "s", "CAH protocols: 24 hours")

# The smaller regions, by LimitSettings.iot_small_region.
IOT_SMALL_CONNECTS = Quota("iot.small_region.connects_per_second", 100, "connects/s", "CAH")
IOT_SMALL_PUBLISH_IN = Quota("iot.small_region.publish_in_per_second", 2_000, "publishes/s", "CAH")
IOT_SMALL_PUBLISH_OUT = Quota("iot.small_region.publish_out_per_second", 2_000, "publishes/s", "CAH")

IOT_RULES = Quota("iot.account.rules", 1_000, "rules", "CAH")
IOT_RULE_ACTIONS = Quota("iot.rule.actions", 10, "actions", "CAH")
IOT_RULE_EVALUATIONS = Quota("iot.account.rule_evaluations_per_second", 20_000, "evaluations/s", "CAH")

QUOTAS: tuple[Quota, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Quota))


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """What may be set about the limits.

    ``enforced=False`` is ``--limits off``: everything is admitted, but the arithmetic still runs and the
    metrics still tell what was used. ``shard_burst_seconds`` is the depth of a shard's buckets in seconds of
    its rate (AWS does not publish it; 1 s is what field reports suggest). ``shard_rate_factor`` scales the
    per-shard rates, for benchmarks that want the arithmetic on and its rate out of the way.
    ``reshard_seconds`` is how long a stream stays UPDATING (AWS: seconds to minutes, not published).
    ``stream_transition_seconds`` is how long it stays CREATING and DELETING, and a consumer CREATING; on AWS some
    seconds, here none unless asked for, so that tests need no waiters. ``control_rate_factor`` scales the rates of
    the control plane. ``dynamodb_split_seconds`` is how long a partition is refused before it is split for heat.
    ``iot_burst_seconds`` is the depth of IoT Core's buckets in seconds of their rate; ``iot_redelivery_seconds`` how
    long a message of QoS 1 to an MQTT 3.1.1 client waits for its PUBACK before it is sent again. AWS publishes neither.
    ``iot_action_attempts`` is how often a rule's action is tried before the error action runs (AWS documents three for
    the HTTP action), ``iot_action_retry_seconds`` the first pause between, which doubles.
    """

    enforced: bool = True
    shard_burst_seconds: float = 1.0
    shard_rate_factor: float = 1.0
    reshard_seconds: float = 30.0
    stream_transition_seconds: float = 0.0
    control_rate_factor: float = 1.0
    dynamodb_burst_seconds: float = BURST_SECONDS.value
    dynamodb_split_seconds: float = 300.0
    iot_burst_seconds: float = 1.0
    iot_redelivery_seconds: float = 10.0
    iot_action_attempts: float = 3
    iot_action_retry_seconds: float = 0.1
    iot_small_region: bool = False


def with_settings(given: Sequence[str], settings: LimitSettings | None = None) -> LimitSettings:
    """``settings`` with each ``NAME=VALUE`` of ``given`` laid over; the names are those of :class:`LimitSettings`.

    :raises ValueError: with one line that says what can be set.
    """
    settings = settings or LimitSettings()
    known = {one.name: one for one in fields(settings)}
    for text in given:
        name, _, value = text.partition("=")
        if name not in known:
            raise ValueError(f"{text!r}: there is no such setting; there are {', '.join(known)}")
        if isinstance(getattr(settings, name), bool):
            if value not in ("true", "false"):
                raise ValueError(f"{text!r}: {name} is true or false")
            settings = replace(settings, **{name: value == "true"})
            continue
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not 0 <= number < math.inf:
            raise ValueError(f"{text!r}: {name} is a number of 0 or more")
        settings = replace(settings, **{name: number})  # type: ignore[arg-type]
    return settings


def changed_settings(settings: LimitSettings) -> dict[str, Any]:
    """What in ``settings`` is not as it is by itself, by name."""
    plain = LimitSettings()
    found = {one.name: getattr(settings, one.name) for one in fields(settings)}
    return {name: value for name, value in found.items() if value != getattr(plain, name)}


class TokenBucket:
    """Tokens refill at ``rate`` a second up to ``capacity``; time is given, never read.

    Invariant, held by a property test: over any interval of ``t`` seconds no more than
    ``capacity + rate * t`` tokens are taken. A clock that steps back refills nothing and takes nothing away.
    O(1) in time and memory.
    """

    __slots__ = ("capacity", "rate", "tokens", "updated_at")

    def __init__(self, rate: float, capacity: float, now: float, tokens: float | None = None) -> None:
        if rate < 0 or capacity < 0:
            raise ValueError(f"a token bucket needs rate and capacity >= 0, got {rate} and {capacity}")
        self.rate = rate
        self.capacity = capacity
        self.tokens = capacity if tokens is None else min(tokens, capacity)
        self.updated_at = now

    def refill(self, now: float) -> float:
        """Bring the level up to ``now`` and return it."""
        elapsed = now - self.updated_at
        if elapsed > 0:
            self.updated_at = now
            self.tokens = min(self.capacity, self.tokens + elapsed * self.rate)
        return self.tokens

    def take(self, amount: float, now: float) -> bool:
        """Spend ``amount`` if it is there; say whether it was."""
        if self.refill(now) + EPSILON < amount:
            return False
        self.tokens -= amount
        return True

    def seconds_until(self, amount: float, now: float) -> float:
        """How long until ``amount`` could be taken; ``inf`` when it never can."""
        missing = amount - self.refill(now)
        if missing <= 0:
            return 0.0
        if amount > self.capacity or self.rate == 0:
            return math.inf
        return missing / self.rate

    def resize(self, rate: float, capacity: float, now: float) -> None:
        """Change rate and capacity from ``now`` on; what was saved is kept up to the new capacity."""
        self.refill(now)
        self.rate, self.capacity = rate, capacity
        self.tokens = min(self.tokens, capacity)


# Refilled levels are sums of floats; a level short by less than this counts as enough, so that a rate of
# 1,000/s admits the 1,000th record of a second and not the 999th.
EPSILON = 1e-6
