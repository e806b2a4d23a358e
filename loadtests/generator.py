"""One generator process: schedules that hand arrivals to free users, and a meter for what became of them.

Runs in gevent. Users do not decide when to send: a lane's dispatcher sleeps until the next arrival is due and puts it
into a queue, and whichever user is free takes it. A user that is busy delays nobody's due time.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import gevent
import gevent.event
import gevent.queue

from loadtests.aws_json import Caller, Endpoint
from loadtests.measurements import Meter
from loadtests.pacing import Arrival, Schedule
from loadtests.payloads import Messages, key_choice
from loadtests.resources import Resources
from loadtests.settings import LoadSettings
from simulator.race import FIRST_RACER_ID

T = TypeVar("T")
BACKLOG_S = 0.25
"""What waits for longer when the load changes is given up: it belongs to a load that is over."""


class Lane:
    """The arrivals of one operation in this process."""

    def __init__(self, operation: str, meter: Meter, rng: random.Random | None) -> None:
        self.operation = operation
        self.batch = 1
        self._meter = meter
        self._schedule = Schedule(rng=rng)
        self._queue: Any = gevent.queue.Queue()
        self._changed = gevent.event.Event()
        self._dispatcher = gevent.spawn(self._dispatch)
        self.in_flight = 0
        self.users = 0
        """Users that take from this lane."""

    def set(self, stage: int, rate: float, batch: int, offset: float) -> None:
        """Offer ``rate`` units a second from now on. A new stage gives up the old one's backlog, and counts it."""
        now = time.time()
        self._put_due(now)
        if stage != self._schedule.stage:
            # What fell due just now only waits for its turn.
            while not self._queue.empty() and self._queue.peek().due_at < now - BACKLOG_S:
                given_up = self._queue.get()
                self._meter.gave_up(given_up.stage, self.operation, now, given_up.number)
        self.batch = batch
        self._schedule.offset = offset
        self._schedule.set(stage, rate, batch, now)
        self._changed.set()

    def take(self) -> Arrival:
        """Wait for the next arrival that is due."""
        taken: Arrival = self._queue.get()
        return taken

    @property
    def waiting(self) -> int:
        """Requests that are due and that no user was free to send."""
        return int(self._queue.qsize())

    def close(self) -> None:
        self._dispatcher.kill(block=False)

    def _dispatch(self) -> None:
        while True:
            now = time.time()
            self._put_due(now)
            self._changed.clear()
            self._changed.wait(timeout=min(self._schedule.due() - now, 3600.0))

    def _put_due(self, now: float) -> None:
        while self._schedule.due() <= now:
            arrival = self._schedule.take()
            self._meter.due(arrival.stage, self.operation, arrival.due_at, arrival.number)
            self._queue.put(arrival)


@dataclass
class Generator:
    """What the users of one process share."""

    settings: LoadSettings
    resources: Resources
    index: int = 0
    meter: Meter = field(default_factory=Meter)
    lanes: dict[str, Lane] = field(default_factory=dict)
    fatal: str | None = None
    """A refusal that no later call can escape."""
    iterator_age_ms: float = 0.0
    """The oldest of what readers were behind by since it was last told."""
    _shared: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.read_from = self.resources.extra.get("read_from", "LATEST")
        self.read_again = bool(self.resources.extra.get("read_again"))
        self.read_limit = int(self.resources.extra.get("read_limit", 10_000))
        self._endpoints: dict[str, Endpoint] = {}
        self._messages: Messages | None = None
        self._cpu_s = time.process_time()
        self._told_at = time.time()

    def lane(self, operation: str) -> Lane:
        """The lane of ``operation``, made when first asked for."""
        found = self.lanes.get(operation)
        if found is None:
            rng = random.Random(self.index) if self.settings.arrivals == "poisson" else None
            found = self.lanes[operation] = Lane(operation, self.meter, rng)
        return found

    @property
    def messages(self) -> Messages:
        """Telemetry of bikers that no other process rides."""
        if self._messages is None:
            racers = self.settings.racers
            self._messages = Messages(
                start_ms=int(time.time() * 1000),
                racers=racers,
                first_racer=FIRST_RACER_ID + self.index * racers,
                seed=self.settings.seed,
                key=key_choice(self.settings.record_key),
                hash_keys=self.resources.hash_keys,
                record_bytes=self.settings.record_bytes,
            )
        return self._messages

    def shared(self, name: str, make: Callable[[], T]) -> T:
        """What the users of this process have in common under ``name``, made by the first."""
        if name not in self._shared:
            self._shared[name] = make()
        found: T = self._shared[name]
        return found

    def caller(self, service: str) -> Caller:
        """A connection of one user's own."""
        if service not in self._endpoints:
            self._endpoints[service] = Endpoint.resolve(service)
        return Caller(self._endpoints[service], self.settings.timeout_s)

    def apply(self, load: Mapping[str, Any]) -> None:
        """A load from the conductor: ``stage``, ``offset``, and ``rates``: operation to [rate, batch]."""
        for operation, (rate, batch) in load["rates"].items():
            self.lane(operation).set(load["stage"], rate, batch, load["offset"])

    def tell(self) -> dict[str, Any]:
        """What was measured since the last time, and the CPU it took (all threads of this process)."""
        cpu_s, now = time.process_time(), time.time()
        told = {
            "pid": os.getpid(),
            "at": now,
            "seconds": now - self._told_at,
            "cpu_s": cpu_s - self._cpu_s,
            "waiting": sum(lane.waiting for lane in self.lanes.values()),
            "in_flight": sum(lane.in_flight for lane in self.lanes.values()),
            "users": {lane.operation: lane.users for lane in self.lanes.values()},
            "fatal": self.fatal,
            "iterator_age_ms": self.iterator_age_ms,
            "meter": self.meter.take(),
        }
        self.iterator_age_ms = 0.0
        self._cpu_s, self._told_at = cpu_s, now
        return told

    def close(self) -> None:
        for lane in self.lanes.values():
            lane.close()
