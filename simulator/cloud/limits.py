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
from dataclasses import dataclass

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
    "kinesis.record.max_bytes", MIB, "bytes", "BC; data before base64 plus partition key; opt-in up to 10 MiB"
)
GET_RECORDS_MAX_RECORDS = Quota("kinesis.get_records.max_records", 10_000, "records", "BC GetRecords")
GET_RECORDS_MAX_BYTES = Quota("kinesis.get_records.max_bytes", 10 * MIB, "bytes", "BC GetRecords")
ITERATOR_LIFETIME = Quota("kinesis.iterator.lifetime_ms", 300_000, "ms", "BC GetShardIterator: 5 minutes")
UPDATE_SHARD_COUNT_PER_DAY = Quota("kinesis.update_shard_count.per_24h", 10, "calls", "BC UpdateShardCount")
RETENTION_DEFAULT_HOURS = Quota("kinesis.retention.default_hours", 24, "h", "BC CreateStream")
SHARDS_PER_ACCOUNT = Quota("kinesis.account.shards", 20_000, "shards", "CAH; us-east-1, us-west-2, eu-west-1")

# -- DynamoDB ----------------------------------------------------------------------------------------
WRITE_UNIT_BYTES = Quota("dynamodb.write_unit.bytes", KIB, "bytes", "CAH read-write-operations")
READ_UNIT_BYTES = Quota("dynamodb.read_unit.bytes", 4 * KIB, "bytes", "CAH read-write-operations")
BURST_SECONDS = Quota(
    "dynamodb.burst.seconds", 300, "s", "CAH burst-adaptive-capacity: up to 300 s of unused capacity", "M"
)
ITEM_MAX_BYTES = Quota("dynamodb.item.max_bytes", 400 * KIB, "bytes", "CAH quotas")

QUOTAS: tuple[Quota, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Quota))


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """What may be set about the limits.

    ``enforced=False`` is ``--limits off``: everything is admitted, but the arithmetic still runs and the
    metrics still tell what was used. ``shard_burst_seconds`` is the depth of a shard's buckets in seconds of
    its rate (AWS does not publish it; 1 s is what field reports suggest). ``shard_rate_factor`` scales the
    per-shard rates, for benchmarks that want the arithmetic on and its rate out of the way.
    ``reshard_seconds`` is how long a stream stays UPDATING (AWS: seconds to minutes, not published).
    """

    enforced: bool = True
    shard_burst_seconds: float = 1.0
    shard_rate_factor: float = 1.0
    reshard_seconds: float = 30.0
    dynamodb_burst_seconds: float = BURST_SECONDS.value


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
