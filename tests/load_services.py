"""A service with a limit, and generators that load it, in virtual time: for tests of plans, conductor and report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from loadtests.conductor import Conductor
from loadtests.measurements import Meter
from loadtests.pacing import Schedule
from simulator.cloud.limits import TokenBucket

STEP_S = 0.1
SHARD = "shardId-000000000000"


@dataclass
class Service:
    """Admits units from a bucket for each resource, record by record, and answers after ``latency_s``.

    ``capacity`` is what it can answer in a second at all; beyond that work queues up and answers come late.
    """

    rate: float
    burst: float
    resources: Sequence[str] = (SHARD,)
    latency_s: float = 0.005
    capacity: float = float("inf")
    gone_at: float = float("inf")
    timeout_s: float | None = None
    """After so long a request is given up that is sent when the service is gone; None: it is refused."""
    buckets: dict[str, TokenBucket] = field(default_factory=dict)
    busy_until: float = 0.0

    def take(self, number: int, now: float) -> tuple[dict[str, tuple[int, int]], float]:
        """Accepted and throttled by resource, and when the answer is there."""
        self.busy_until = max(self.busy_until, now) + number / self.capacity
        ends = {}
        for index, resource in enumerate(self.resources):
            bucket = self.buckets.setdefault(resource, TokenBucket(self.rate, self.burst, now, self.burst))
            share = (number + index) // len(self.resources)
            accepted = sum(bucket.take(1.0, now) for _ in range(share))
            ends[resource] = (accepted, share - accepted)
        return ends, self.busy_until + self.latency_s


class Worker:
    """One generator: real schedules, a real meter, no waiting."""

    def __init__(self, name: str, service: Service, users: Mapping[str, int]) -> None:
        self.name, self.service, self.users = name, service, dict(users)
        self.meter = Meter()
        self.schedules = {operation: Schedule() for operation in users}
        self.answers: list[tuple[float, Any]] = []
        self.silent = False
        self.cpu = 0.1
        self.iterator_age_ms: float | None = None
        self.fatal: str | None = None
        self.told_at = 0.0
        self.connections: int | None = None
        self.waiting: list[tuple[str, Any]] = []

    def load(self, load: Mapping[str, Any], now: float) -> None:
        for operation, (rate, batch) in load["rates"].items():
            if operation not in self.schedules:
                assert rate == 0, f"{self.name} has no user who could do {operation}"
                continue
            schedule = self.schedules[operation]
            if load["stage"] != schedule.stage:
                for named, arrival in [one for one in self.waiting if one[0] == operation]:
                    self.waiting.remove((named, arrival))
                    self.meter.gave_up(arrival.stage, operation, now, arrival.number)
            schedule.offset = load["offset"]
            seconds = load["seconds"]
            schedule.set(load["stage"], rate, batch, now, float("inf") if seconds is None else rate * seconds)

    def work(self, now: float) -> None:
        for operation, schedule in self.schedules.items():
            while schedule.due() <= now:
                arrival = schedule.take()
                self.meter.due(arrival.stage, operation, arrival.due_at, arrival.number)
                self.waiting.append((operation, arrival))
        self._send(now)
        left = []
        for done_at, answer in self.answers:
            if done_at > now:
                left.append((done_at, answer))
                continue
            operation, arrival, ends, gone = answer
            if gone:
                self.meter.answered(arrival.stage, operation, "", arrival.due_at, done_at, failed=arrival.number)
                self.meter.problem(operation, "", "NoAnswer", "http://gone: Connection refused", arrival.number, now)
            for resource, (accepted, throttled) in ends.items():
                if accepted or throttled:
                    self.meter.answered(
                        arrival.stage,
                        operation,
                        resource,
                        arrival.due_at,
                        done_at,
                        accepted=accepted,
                        throttled=throttled,
                        size_bytes=accepted * 180,
                    )
                if throttled:
                    code = "ProvisionedThroughputExceededException"
                    self.meter.problem(operation, resource, code, f"Rate exceeded for {resource}", throttled, now)
        self.answers = left

    def _send(self, now: float) -> None:
        """What waits, as far as there are connections: each is busy until its answer is there."""
        free_at = sorted(done_at for done_at, _ in self.answers)
        while self.waiting:
            operation, arrival = self.waiting[0]
            sent_at = arrival.due_at
            if self.connections is not None and len(free_at) >= self.connections:
                sent_at = max(sent_at, free_at[len(free_at) - self.connections])
                if sent_at > now:
                    return
            self.waiting.pop(0)
            self.meter.sent(arrival.stage, operation, arrival.due_at, sent_at)
            gone = sent_at >= self.service.gone_at
            ends, done_at = self.service.take(arrival.number, sent_at)
            if gone and self.service.timeout_s is not None:
                done_at = sent_at + self.service.timeout_s
            self.answers.append((done_at, (operation, arrival, {"": (0, 0)} if gone else ends, gone)))
            free_at = sorted([*free_at, done_at])

    def tell(self, now: float) -> dict[str, Any]:
        seconds = now - self.told_at if self.told_at else 0.25
        self.told_at = now
        return {
            "at": now,
            "seconds": seconds,
            "cpu_s": seconds * self.cpu,
            "waiting": len(self.waiting),
            "in_flight": len(self.answers),
            "users": self.users,
            "fatal": self.fatal,
            "iterator_age_ms": self.iterator_age_ms,
            "meter": self.meter.take(),
        }


class VirtualCrew:
    """Workers that tell four times a virtual second."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self.all = list(workers)
        self.now = 0.0
        self._told_at = -1.0

    def workers(self) -> list[str]:
        return [one.name for one in self.all]

    def load(self, worker: str, load: Mapping[str, Any]) -> None:
        next(one for one in self.all if one.name == worker).load(load, self.now)

    def collect(self) -> list[tuple[str, Mapping[str, Any]]]:
        if self.now - self._told_at < 0.25:
            return []
        self._told_at = self.now
        return [(one.name, one.tell(self.now)) for one in self.all if not one.silent]


def run(
    conductor: Conductor, crew: VirtualCrew, *, start: float = 1000.25, most_s: float = 3600, each: Any = None
) -> float:
    """Run to the end in virtual time; returns how many virtual seconds it took."""
    now = crew.now = start
    conductor.begin(now)
    while not conductor.done and now < start + most_s:
        now = crew.now = now + STEP_S
        if each is not None:
            each(now - start)
        for worker in crew.all:
            worker.work(now)
        conductor.tick(now)
    return now - start
