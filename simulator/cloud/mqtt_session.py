"""An MQTT session: what the broker keeps of a client while it is connected and, if it asked so, while it is away.

No I/O, no clock. Messages of QoS 1 wait here: at most :data:`~simulator.cloud.limits.IOT_IN_FLIGHT` are on their way
without a PUBACK; those behind them are ``waiting``, those for a client that is away are ``stored``.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from simulator.cloud.mqtt_codec import Will
from simulator.cloud.mqtt_properties import Properties

STORED_MAX_MESSAGES = 10_000
"""Messages that one session stores, or has waiting: it bounds memory. AWS publishes no such bound, only a time."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """One topic filter of a session, as it was granted. The last four are MQTT 5's."""

    client_id: str
    topic_filter: str
    qos: int
    no_local: bool = False
    retain_as_published: bool = False
    subscription_id: int | None = None
    group: str | None = None


@dataclass(slots=True)
class Delivery:
    """One message on its way to one client."""

    topic: bytes
    payload: bytes
    qos: int
    retain: bool = False
    properties: Properties = field(default_factory=dict)
    expires_at: float | None = None
    sent_at: float = 0.0
    first_sent_at: float = 0.0


@dataclass(slots=True)
class Session:
    """The state of one client id. ``expiry_s`` is 0 for a session that ends with its connection.

    ``ends_at`` is set while the client is away.
    """

    client_id: str
    version: int
    expiry_s: float
    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    in_flight: dict[int, Delivery] = field(default_factory=dict)
    waiting: deque[Delivery] = field(default_factory=deque)
    stored: deque[Delivery] = field(default_factory=deque)
    ends_at: float | None = None
    will: Will | None = None
    will_at: float | None = None
    next_stored_at: float = 0.0
    _packet_id: int = 0

    def begin(self, delivery: Delivery, now: float) -> int:
        """Take ``delivery`` in flight; its packet identifier."""
        while True:
            self._packet_id = self._packet_id % 0xFFFF + 1
            if self._packet_id not in self.in_flight:
                break
        self.in_flight[self._packet_id] = delivery
        delivery.sent_at = now
        delivery.first_sent_at = delivery.first_sent_at or now
        return self._packet_id

    def wait(self, delivery: Delivery) -> bool:
        """Keep ``delivery`` until a PUBACK makes room; False when there are too many already."""
        if len(self.waiting) >= STORED_MAX_MESSAGES:
            return False
        self.waiting.append(delivery)
        return True

    def store(self, delivery: Delivery) -> bool:
        """Keep ``delivery`` until the client is back; False when there are too many already."""
        if len(self.stored) >= STORED_MAX_MESSAGES:
            return False
        self.stored.append(delivery)
        return True

    def acknowledge(self, packet_id: int) -> bool:
        """A PUBACK came; False when nothing had that identifier."""
        return self.in_flight.pop(packet_id, None) is not None

    def put_back(self) -> None:
        """The connection is gone: what had no PUBACK is sent first when the client comes back."""
        self.stored.extendleft(reversed([*self.in_flight.values(), *self.waiting]))
        self.in_flight.clear()
        self.waiting.clear()


def next_wanted(messages: deque[Delivery], now: float) -> Delivery | None:
    """The oldest of ``messages`` that has not expired, taken out."""
    while messages:
        delivery = messages.popleft()
        if delivery.expires_at is None or delivery.expires_at > now:
            return delivery
    return None
