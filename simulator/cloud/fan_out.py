"""Enhanced fan-out: registered consumers and their subscriptions. No I/O, no clock.

Every consumer has 2 MiB/s of each shard to itself. A subscription is a state machine: whoever drives it asks
:meth:`Subscription.next_event` and is told what to push now, or until when to wait; an append to the shard wakes it
earlier. It ends after five minutes, at the end of a closed shard, or when another one takes its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from simulator.cloud import limits
from simulator.cloud.errors import AwsError
from simulator.cloud.limits import LimitSettings, TokenBucket
from simulator.cloud.shard import Shard
from simulator.cloud.shard_log import StoredRecord
from simulator.cloud.stream import key_bytes

HEARTBEAT_S = 5.0
"""Without records an empty event tells MillisBehindLatest every so often (AWS does too; how often is not published)."""

PUSH_INTERVAL_S = 0.02
"""Events of one subscription are at least this far apart, so that a trickle of puts is not an event each (AWS: a record
arrives about 70 ms after its put)."""

EVENT_MAX_BYTES = limits.MIB
"""What one event carries at most, besides a record larger than that (not published)."""


class Event(NamedTuple):
    """One SubscribeToShardEvent. ``continuation`` is the position to go on from; ``ended``: the shard is drained."""

    records: list[StoredRecord]
    continuation: int
    millis_behind: int
    ended: bool


class Pace:
    """When a subscription may push its next event: 2 MiB/s, and events some time apart."""

    def __init__(self, now: float, settings: LimitSettings) -> None:
        rate = limits.FAN_OUT_BYTES.value
        self._bytes = TokenBucket(rate, rate, now)
        self._settings = settings
        # The first event is due at once, also when there is nothing to read.
        self._heard_at = now - HEARTBEAT_S

    def next_at(self, now: float) -> float:
        """From when on records may be pushed; ``now`` when they may."""
        if not self._settings.enforced:
            self._bytes.tokens = self._bytes.capacity
        if self._bytes.refill(now) <= 0:
            return now - self._bytes.tokens / self._bytes.rate + 0.001
        return max(now, self._heard_at + PUSH_INTERVAL_S)

    @property
    def heartbeat_at(self) -> float:
        """When an event is due without any."""
        return self._heard_at + HEARTBEAT_S

    def pushed(self, nbytes: int, now: float) -> None:
        """An event was, with so many bytes of records."""
        self._bytes.tokens -= nbytes
        self._heard_at = now


class Subscription:
    """One consumer's SubscribeToShard of one shard."""

    def __init__(self, shard: Shard, position: int, now: float, settings: LimitSettings) -> None:
        self.shard = shard
        self.position = position
        self.started_at = now
        self.replaced = self.cancelled = False
        self._pace = Pace(now, settings)
        self.wake: Callable[[], object] = lambda: None

    @property
    def ends_at(self) -> float:
        """Five minutes after its start."""
        return self.started_at + limits.FAN_OUT_LIFETIME.value

    def is_over(self, now: float) -> bool:
        return self.replaced or self.cancelled or now >= self.ends_at

    def replace(self) -> None:
        """A newer subscription has taken over."""
        self.replaced = True
        self.wake()

    def cancel(self) -> None:
        """The consumer or its stream is gone."""
        self.cancelled = True
        self.wake()

    def next_event(self, now: float, horizon: int) -> Event | float:
        """What to push now, or the time to ask again unless woken.

        ``horizon`` is the oldest position that retention leaves.
        """
        next_at = self._pace.next_at(now)
        if now < next_at:
            return min(self.ends_at, next_at)
        log = self.shard.log
        start = max(self.position, horizon)
        records = list(log.read(start, int(limits.GET_RECORDS_MAX_RECORDS), EVENT_MAX_BYTES))
        end = start + len(records)
        ended = not self.shard.is_open and end >= log.end
        if not records and not ended and now < self._pace.heartbeat_at:
            return min(self.ends_at, self._pace.heartbeat_at)
        self._pace.pushed(sum(len(record.data) + key_bytes(record.partition_key) for record in records), now)
        self.position = end
        return Event(records, end, self.shard.millis_behind(end, now), ended)


@dataclass(slots=True)
class Consumer:
    """A registered stream consumer."""

    name: str
    stream_arn: str
    created_at: float
    active_at: float
    tags: dict[str, str] = field(default_factory=dict)
    subscriptions: dict[int, Subscription] = field(default_factory=dict)
    _calls: dict[int, TokenBucket] = field(default_factory=dict)

    @property
    def arn(self) -> str:
        """``streamARN/consumer/name:creationTimestamp``."""
        return f"{self.stream_arn}/consumer/{self.name}:{int(self.created_at)}"

    def status(self, now: float) -> str:
        """ConsumerStatus."""
        return "ACTIVE" if now >= self.active_at else "CREATING"

    def end(self) -> None:
        """Deregistered: every subscription ends."""
        for subscription in self.subscriptions.values():
            subscription.cancel()
        self.subscriptions.clear()

    def subscribe(self, shard: Shard, position: int, now: float, settings: LimitSettings) -> Subscription:
        """Start pushing ``shard`` from ``position``; a subscription older than five seconds gives way.

        :raises AwsError: ResourceInUseException within five seconds of the last one, or while CREATING;
            LimitExceededException beyond one call a second.
        """
        if self.status(now) != "ACTIVE":
            raise AwsError(
                "ResourceInUseException",
                f"Consumer {self.arn} is not ACTIVE, instead in state {self.status(now)}",
            )
        current = self.subscriptions.get(shard.index)
        if settings.enforced and current is not None and now < current.started_at + _RESUBSCRIBE_S:
            raise AwsError(
                "ResourceInUseException",
                f"Another active subscription exists for this consumer: {self.arn} and shard: {shard.shard_id}; it "
                f"can be replaced {_RESUBSCRIBE_S:g} seconds after it began.",
            )
        rate = limits.FAN_OUT_CALLS.value * settings.control_rate_factor
        calls = self._calls.setdefault(shard.index, TokenBucket(rate, max(1.0, rate), now))
        if settings.enforced and not calls.take(1, now):
            raise AwsError(
                "LimitExceededException",
                f"Rate exceeded for consumer {self.arn} and shard {shard.shard_id}",
            )
        if current is not None:
            current.replace()
        subscription = self.subscriptions[shard.index] = Subscription(shard, position, now, settings)
        return subscription


_RESUBSCRIBE_S = limits.FAN_OUT_RESUBSCRIBE.value
