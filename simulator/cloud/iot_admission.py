"""IoT Core's rates: who may connect, publish, subscribe, and how fast. No I/O, no clock.

One :class:`AccountRates` for the account, one :class:`ConnectionRates` for each connection. What a rate refuses is
counted by the caller under IoT's own metric names.
"""

from __future__ import annotations

from simulator.cloud import limits
from simulator.cloud.limits import LimitSettings, Quota, TokenBucket

_SWEEP_AT = 20_000


class AccountRates:
    """The account's buckets."""

    def __init__(self, settings: LimitSettings, now: float) -> None:
        self._settings = settings
        small = settings.iot_small_region
        self.connects = self._bucket(limits.IOT_SMALL_CONNECTS if small else limits.IOT_CONNECTS, now)
        self.publishes_in = self._bucket(limits.IOT_SMALL_PUBLISH_IN if small else limits.IOT_PUBLISH_IN, now)
        self.publishes_out = self._bucket(limits.IOT_SMALL_PUBLISH_OUT if small else limits.IOT_PUBLISH_OUT, now)
        self.subscribes = self._bucket(limits.IOT_SUBSCRIBES, now)
        self.queued = self._bucket(limits.IOT_QUEUED, now)
        self.retained = self._bucket(limits.IOT_RETAINED, now)
        self._clients = _Spacing(1 / limits.IOT_CLIENT_CONNECTS.value)
        self._retained_topics = _Spacing(1 / limits.IOT_RETAINED_TOPIC.value)

    def _bucket(self, quota: Quota, now: float) -> TokenBucket:
        return TokenBucket(quota.value, quota.value * self._settings.iot_burst_seconds, now)

    def take(self, bucket: TokenBucket, now: float) -> bool:
        """Spend one; True whenever limits are off."""
        return bucket.take(1.0, now) or not self._settings.enforced

    def take_many(self, bucket: TokenBucket, count: int, now: float) -> int:
        """As :meth:`take` for ``count`` at one moment; returns how many may. O(1)."""
        available = int(bucket.refill(now) + limits.EPSILON)
        taken = min(count, available)
        bucket.tokens -= taken
        return taken if self._settings.enforced else count

    def client_may_connect(self, client_id: str, now: float) -> bool:
        """One connect a second a client id. A refused attempt does not push the next chance away."""
        return self._clients.take(client_id, now) or not self._settings.enforced

    def topic_may_retain(self, topic: str, now: float) -> bool:
        """One retained message a second a topic."""
        return self._retained_topics.take(topic, now) or not self._settings.enforced


class _Spacing:
    """At most one event in ``interval_s`` for each name. Memory: names of the last interval, and up to 20,000."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._latest: dict[str, float] = {}

    def take(self, name: str, now: float) -> bool:
        latest = self._latest.get(name)
        # A clock that was set back must not lock anybody out.
        if latest is not None and latest <= now < latest + self._interval_s - limits.EPSILON:
            return False
        self._latest[name] = now
        if len(self._latest) > _SWEEP_AT:
            self._latest = {one: at for one, at in self._latest.items() if at > now - self._interval_s}
        return True


class ConnectionRates:
    """One connection's publishes and bytes, in and out together."""

    __slots__ = ("_bytes", "_enforced", "_publishes")

    def __init__(self, settings: LimitSettings, now: float) -> None:
        burst_s = settings.iot_burst_seconds
        publishes, throughput = limits.IOT_CONNECTION_PUBLISHES.value, limits.IOT_CONNECTION_BYTES.value
        self._enforced = settings.enforced
        self._publishes = TokenBucket(publishes, publishes * burst_s, now)
        self._bytes = TokenBucket(throughput, throughput * burst_s, now)

    def may_publish(self, now: float) -> bool:
        """Spend one publish, in or out."""
        return self._publishes.take(1.0, now) or not self._enforced

    def spend_bytes(self, count: int, now: float) -> float:
        """``count`` bytes went through; how many seconds the connection must now be still.

        Bytes that arrived cannot be refused, so the bucket goes below zero and the debt is waited out.
        """
        if not self._enforced:
            return 0.0
        self._bytes.refill(now)
        self._bytes.tokens -= count
        return max(0.0, -self._bytes.tokens / self._bytes.rate)
