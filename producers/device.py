"""Which device publishes what, and when: the state machine that the MQTT producers share.

``now`` (seconds since the epoch) is an argument, nothing here waits or does I/O. Its owner puts records in with
:meth:`Fleet.add`, does everything that :meth:`Fleet.take` says, tells what became of it (``connected``,
``connect_failed``, ``disconnected``; ``acked``, ``throttled``, ``rejected``), and sleeps until
:meth:`Fleet.next_wake`. A record moves like this::

    future ──due──> waiting ──device connected, slot free──> in flight ──acknowledged──> delivered
                     │   ▲                                   │   ▲   │
      queue full, or │   └────────── disconnected ───────────┘   └───┘ no PUBACK in time: published again
      past deadline  ▼
                    lost

A device has at most ``max_in_flight`` records in flight, so with one (the default) its records reach the broker in
the order of their due times. What is in flight when the connection breaks goes back to the head of the queue.

At QoS 1 a record whose publish was not acknowledged stays in its slot and is published again; a PUBACK for any of
its publishes settles it. At QoS 0 the acknowledgement is that the socket took the bytes, which says nothing of the
broker: it is never published again on the same connection, and what the broker discards is counted delivered here.

Costs: O(log n) a record in the number of publishes of the last ``ack_timeout_s``, a few microseconds.
"""

from __future__ import annotations

import enum
import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from producers.delivery import DEADLINE, QUEUE_FULL, REJECTED, Ledger, Record, Samples
from producers.due import DueQueue
from producers.retry import THROTTLE, Backoff

OnLost = Callable[[Sequence[Record], str], None]

MAX_UNACKNOWLEDGED = 100
"""QoS 1 publishes without a PUBACK on one connection (AWS IoT Core, message broker limits)."""
CLIENT_ID_INTERVAL_S = 1.0
"""One CONNECT a second and client id (AWS IoT Core, message broker limits)."""
RECONNECT = Backoff(base_s=1.0, cap_s=30.0)
STEADY_S = 10.0
"""A connection that lasted so long ends the series of failures before it."""
_BURST_S = 0.01


class Link(enum.Enum):
    """Of a device to the broker."""

    DOWN = "down"
    CONNECTING = "connecting"
    UP = "up"


class _At(enum.Enum):
    WAITING = "waiting"
    IN_FLIGHT = "in flight"
    SETTLED = "settled"


class Publish:
    """A record that is due, and what was tried with it."""

    __slots__ = ("at", "device", "number", "record", "sends", "uncertain", "wake_at")

    def __init__(self, number: int, record: Record, device: Device) -> None:
        self.number = number
        self.record = record
        self.device = device
        self.at = _At.WAITING
        self.sends = 0
        # Whether the latest send may have reached the broker without our knowing.
        self.uncertain = False
        self.wake_at = math.inf


class Device:
    """One biker's connection. Read it; only the :class:`Fleet` writes."""

    __slots__ = ("connected_at", "failures", "in_flight", "key", "link", "topic", "tried_at", "unanswered", "waiting")

    def __init__(self, key: Hashable, topic: str) -> None:
        self.key = key
        self.topic = topic
        self.link = Link.DOWN
        self.waiting: deque[Publish] = deque()
        self.in_flight: dict[Publish, None] = {}
        self.failures = 0
        self.tried_at = -math.inf
        self.connected_at: float | None = None
        # Publishes on this connection that were given up without a PUBACK.
        self.unanswered = 0


class Todo(NamedTuple):
    """What is to be done now, in this order."""

    drop: list[Device]
    """Close the connection: as many publishes as the broker allows were never acknowledged."""
    publish: list[Publish]
    connect: list[Device]


class Fleet:
    """All devices of a producer, and their records from when they are put until they are delivered or lost.

    :param devices: key to topic.
    :param max_queued: records of a device that may be due and not settled; of more the oldest not in flight is lost.
    :param connect_rate_per_s: CONNECTs a second over all devices.
    :param reconnects: whether devices that are disconnected are to be connected again by :meth:`take`; otherwise
        whoever does the I/O sees to that.
    :param on_lost: called with records that were lost and the reason, after they are counted.
    """

    def __init__(
        self,
        devices: Mapping[Hashable, str],
        *,
        qos: int,
        max_in_flight: int,
        max_queued: int,
        ack_timeout_s: float,
        deadline_s: float,
        connect_rate_per_s: float,
        rng: random.Random,
        reconnects: bool = True,
        on_lost: OnLost = lambda records, reason: None,
    ) -> None:
        self.ledger = Ledger()
        self.devices = {key: Device(key, topic) for key, topic in devices.items()}
        self.connected_count = 0
        self.connecting_count = 0
        self.disconnects = 0
        self.reconnect_count = 0
        self.published = 0
        self.in_flight_count = 0
        self.queued_count = 0
        self.last_problem: str | None = None
        self._qos = qos
        self._max_in_flight = max_in_flight
        self._max_queued = max_queued
        self._ack_timeout_s = ack_timeout_s
        self._deadline_s = deadline_s
        self._interval_s = 1 / connect_rate_per_s
        self._rng = rng
        self._reconnects = reconnects
        self._on_lost = on_lost
        self._numbers = itertools.count()
        self._future = DueQueue()
        self._timers: list[tuple[float, int, Publish]] = []
        self._connects: list[tuple[float, int, Device]] = []
        self._next_connect_at = -math.inf
        # Devices with something to do that no timer knows of; a dict because it keeps their order.
        self._touched: dict[Device, None] = {}
        self._lateness: list[float] = []
        self._latency: list[float] = []
        self._send_lateness = Samples()
        self._accepted_latency = Samples()

    @property
    def outstanding(self) -> int:
        """Records put and not settled."""
        return self.ledger.in_flight

    @property
    def samples(self) -> tuple[Samples, Samples]:
        """From due to first send, and from due to acknowledged."""
        for values, samples in ((self._lateness, self._send_lateness), (self._latency, self._accepted_latency)):
            if values:
                samples.add(np.array(values))
                values.clear()
        return self._send_lateness, self._accepted_latency

    # -- in --------------------------------------------------------------------------------------------

    def add(self, records: Sequence[Record]) -> None:
        """Take over ``records`` of known devices."""
        if records:
            self.ledger.generated += len(records)
            self._future.add(records)

    def lose_unseen(self, records: Sequence[Record], reason: str) -> None:
        """Count records that were handed over and could not be taken."""
        if records:
            self.ledger.generated += len(records)
            self._count_lost(records, reason)

    def start(self, now: float, keys: Sequence[Hashable] | None = None) -> None:
        """Connect all devices, or those of ``keys``, as fast as the rate allows."""
        for key in self.devices if keys is None else keys:
            device = self.devices[key]
            if device.link is Link.DOWN:
                self._schedule(device, now)

    # -- out -------------------------------------------------------------------------------------------

    def take(self, now: float) -> Todo:
        """What is to be done at ``now``."""
        for record in self._future.pop_due(now):
            self._enqueue(Publish(next(self._numbers), record, self.devices[record.order_key]))
        drop: list[Device] = []
        publish: list[Publish] = []
        timers = self._timers
        while timers and timers[0][0] <= now:
            at, _, one = heapq.heappop(timers)
            if self._is_live(at, one):
                self._timer_fired(one, now, publish, drop)
        for device in self._touched:
            if device.link is Link.UP:
                self._fill(device, now, publish)
        self._touched.clear()
        if drop:
            publish = [one for one in publish if one.at is _At.IN_FLIGHT]
        return Todo(drop, publish, self._take_connects(now))

    def next_wake(self, now: float) -> float | None:
        """When :meth:`take` may next have something to do if nothing else happens until then; ``None``: never."""
        if self._touched:
            return now
        timers = self._timers
        while timers and not self._is_live(timers[0][0], timers[0][2]):
            heapq.heappop(timers)
        wake = timers[0][0] if timers else math.inf
        next_due = self._future.next_due()
        if next_due is not None:
            wake = min(wake, next_due)
        if self._connects:
            wake = min(wake, max(self._connects[0][0], self._next_connect_at))
        return None if wake == math.inf else wake

    def departed(self, one: Publish, now: float) -> None:
        """The record goes to the socket now."""
        if one.sends == 1:
            self._lateness.append((now - one.record.due_s) * 1e3)

    def _is_live(self, at: float, one: Publish) -> bool:
        """Whether the timer still means something."""
        return one.at is _At.WAITING or (one.at is _At.IN_FLIGHT and one.wake_at == at)

    def _enqueue(self, one: Publish) -> None:
        device = one.device
        device.waiting.append(one)
        self.queued_count += 1
        if len(device.waiting) + len(device.in_flight) > self._max_queued:
            self._lose_waiting(device.waiting.popleft(), QUEUE_FULL)
        if device.link is Link.UP and len(device.waiting) + len(device.in_flight) <= self._max_in_flight:
            self._touched[device] = None
        else:
            self._watch(one)

    def _watch(self, one: Publish) -> None:
        """Be there when a waiting record passes its deadline."""
        heapq.heappush(self._timers, (one.record.due_s + self._deadline_s, next(self._numbers), one))

    def _fill(self, device: Device, now: float, publish: list[Publish]) -> None:
        horizon = now - self._deadline_s
        waiting = device.waiting
        while waiting and len(device.in_flight) < self._max_in_flight:
            one = waiting.popleft()
            if one.record.due_s <= horizon:
                self._lose_waiting(one, DEADLINE)
                continue
            self.queued_count -= 1
            one.at = _At.IN_FLIGHT
            device.in_flight[one] = None
            self.in_flight_count += 1
            self._send(one, now)
            publish.append(one)

    def _send(self, one: Publish, now: float) -> None:
        self.published += 1
        one.sends += 1
        if one.sends > 1:
            self.ledger.retried += 1
            if one.uncertain:
                self.ledger.duplicates += 1
        one.uncertain = self._qos == 1
        deadline = one.record.due_s + self._deadline_s
        if self._qos == 1:
            answer_by = now + self._ack_timeout_s
            # Throttled publishes are discarded without a word: those of many devices must not come back together.
            wait = THROTTLE.delay_s(one.sends, self._rng)
            at = min(answer_by + wait, max(answer_by, deadline))
        else:
            at = deadline
        self._wake(one, at)

    def _wake(self, one: Publish, at: float) -> None:
        one.wake_at = at
        heapq.heappush(self._timers, (at, next(self._numbers), one))

    def _timer_fired(self, one: Publish, now: float, publish: list[Publish], drop: list[Device]) -> None:
        device = one.device
        expired = one.record.due_s + self._deadline_s <= now
        if one.at is _At.WAITING:
            if expired:
                device.waiting.remove(one)
                self._lose_waiting(one, DEADLINE)
            return
        if expired or self._qos == 0:
            self._free(one)
            self._count_lost([one.record], DEADLINE)
        if one.uncertain:
            device.unanswered += 1
        if device.link is Link.UP and device.unanswered + self._max_in_flight > MAX_UNACKNOWLEDGED:
            self.last_problem = (
                f"{MAX_UNACKNOWLEDGED} publishes of device {device.key!r} were not acknowledged: connecting it again"
            )
            drop.append(device)
            self._lost_link(device, now)
        elif one.at is _At.IN_FLIGHT:
            self._send(one, now)
            publish.append(one)

    def _take_connects(self, now: float) -> list[Device]:
        ready = []
        while self._connects and self._connects[0][0] <= now and self._next_connect_at <= now:
            device = heapq.heappop(self._connects)[2]
            self._next_connect_at = max(self._next_connect_at, now - _BURST_S) + self._interval_s
            device.tried_at = now
            ready.append(device)
        return ready

    # -- what became of connections --------------------------------------------------------------------

    def connected(self, device: Device, now: float) -> None:
        """The broker accepted the device."""
        if device.link is not Link.CONNECTING:
            return
        device.link = Link.UP
        self.connecting_count -= 1
        self.connected_count += 1
        if device.connected_at is not None:
            self.reconnect_count += 1
        device.connected_at = now
        device.unanswered = 0
        self._touched[device] = None

    def connect_failed(self, device: Device, problem: str, now: float) -> None:
        """An attempt to connect failed."""
        self.last_problem = problem
        if device.link is Link.CONNECTING:
            self.connecting_count -= 1
            device.link = Link.DOWN
            self._again(device, now)

    def disconnected(self, device: Device, problem: str, now: float) -> None:
        """A connection ended that should not have."""
        if device.link is Link.UP:
            self.last_problem = problem
            self._lost_link(device, now)

    def _lost_link(self, device: Device, now: float) -> None:
        self.connected_count -= 1
        self.disconnects += 1
        device.link = Link.DOWN
        if device.connected_at is not None and now - device.connected_at >= STEADY_S:
            device.failures = 0
        for one in sorted(device.in_flight, key=_number, reverse=True):
            one.at = _At.WAITING
            device.waiting.appendleft(one)
            self._watch(one)
        self.in_flight_count -= len(device.in_flight)
        self.queued_count += len(device.in_flight)
        device.in_flight.clear()
        self._again(device, now)

    def _again(self, device: Device, now: float) -> None:
        if not self._reconnects:
            self._expect(device)
            return
        device.failures += 1
        wait = RECONNECT.delay_s(device.failures, self._rng)
        self._schedule(device, max(device.tried_at + CLIENT_ID_INTERVAL_S, now + wait))

    def _schedule(self, device: Device, at: float) -> None:
        self._expect(device)
        heapq.heappush(self._connects, (at, next(self._numbers), device))

    def _expect(self, device: Device) -> None:
        device.link = Link.CONNECTING
        self.connecting_count += 1

    # -- what became of publishes ----------------------------------------------------------------------

    def acked(self, one: Publish, now: float) -> bool:
        """A publish of the record was acknowledged; at QoS 0: written. Whether :meth:`take` now has more to do."""
        if one.at is _At.SETTLED:
            return False
        self._leave(one)
        self.ledger.delivered += 1
        self._latency.append((now - one.record.due_s) * 1e3)
        return bool(one.device.waiting)

    def throttled(self, one: Publish, problem: str, now: float) -> None:
        """The broker said that it discarded the publish for lack of capacity: it is published again later."""
        self.ledger.throttled += 1
        self.failed(one, problem, now)

    def failed(self, one: Publish, problem: str, now: float) -> None:
        """The broker said that it did not take the publish, through no fault of the record."""
        self.last_problem = problem
        if one.at is _At.IN_FLIGHT:
            one.uncertain = False
            wait = THROTTLE.delay_s(one.sends, self._rng)
            self._wake(one, min(now + wait, max(now, one.record.due_s + self._deadline_s)))

    def rejected(self, one: Publish, problem: str) -> None:
        """No broker, or not this one, takes such a record."""
        self.last_problem = problem
        if one.at is not _At.SETTLED:
            self._leave(one)
            self._count_lost([one.record], REJECTED)

    def abandon(self, reason: str) -> None:
        """Lose everything that is left. What is in flight may be stored all the same; it is counted lost."""
        left: list[Record] = []
        for device in self.devices.values():
            for one in (*device.in_flight, *device.waiting):
                one.at = _At.SETTLED
                left.append(one.record)
            device.in_flight.clear()
            device.waiting.clear()
        left += self._future.clear()
        self.in_flight_count = self.queued_count = 0
        self._timers.clear()
        self._touched.clear()
        if left:
            self._count_lost(left, reason)

    def _leave(self, one: Publish) -> None:
        """Take a record out of wherever it is, for good."""
        if one.at is _At.IN_FLIGHT:
            self._free(one)
        else:
            one.device.waiting.remove(one)
            self.queued_count -= 1
            one.at = _At.SETTLED

    def _free(self, one: Publish) -> None:
        del one.device.in_flight[one]
        self.in_flight_count -= 1
        one.at = _At.SETTLED
        if one.device.waiting:
            self._touched[one.device] = None

    def _lose_waiting(self, one: Publish, reason: str) -> None:
        """Lose a record that was removed from its queue."""
        one.at = _At.SETTLED
        self.queued_count -= 1
        self._count_lost([one.record], reason)

    def _count_lost(self, records: Sequence[Record], reason: str) -> None:
        self.ledger.count_lost(len(records), reason)
        self._on_lost(records, reason)


def _number(one: Publish) -> int:
    return one.number
