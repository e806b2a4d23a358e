"""Walks a plan: tells the workers what to offer, hears what became of it, and judges each step while it lasts.

Knows neither Locust nor a clock: a :class:`Crew` carries loads to generators and their tellings back, and
:meth:`Conductor.tick` is given the time. So a whole search runs in a test against a simulated service.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from loadtests.aws_json import NO_ANSWER
from loadtests.measurements import Counts, Measurements
from loadtests.resources import Resources
from loadtests.scenarios import Scenario, Traffic
from loadtests.settings import LoadSettings
from loadtests.shapes import Outcome, Step, Walk

SETTLE_S = 1
"""A step's first second is not judged: it may begin with what the step before left in a bucket."""
BEHIND_S = 1.0
"""Work that is due and unanswered for longer than this means that the load was not delivered."""
SILENT_S = 5.0
"""A worker that says nothing for so long is lost; they speak four times a second."""
GONE_S = 3
"""So many seconds in which nothing but unanswered requests came back: the endpoint is gone."""


class Crew(Protocol):
    """The generators, wherever they run."""

    def workers(self) -> Sequence[str]:
        """Names of those that can be loaded."""

    def load(self, worker: str, load: Mapping[str, Any]) -> None:
        """Give a worker its share, see :meth:`loadtests.generator.Generator.apply`."""

    def collect(self) -> list[tuple[str, Mapping[str, Any]]]:
        """What workers told since the last time, see :meth:`loadtests.generator.Generator.tell`."""


class Judge(Protocol):
    """The objectives: why these figures break them, or None."""

    def __call__(
        self, *, throttled_share: float, failed_share: float, p99_ms: float | None, iterator_age_ms: float | None
    ) -> str | None: ...


@dataclass
class StageRecord:
    """One step as it went. Times are seconds since the epoch; ``rate`` is the highest of its rates."""

    index: int
    name: str
    purpose: str
    rate: float
    started_at: float
    ended_at: float
    judged: bool
    reason: str | None = None
    saturated: bool = False
    planned: float = 0.0
    """Units of the scenario's main operation that its rate asked for."""

    @property
    def held(self) -> bool | None:
        return self.reason is None and not self.saturated if self.judged else None


@dataclass
class Record:
    """Everything a test saw, from which the report is made."""

    measurements: Measurements = field(default_factory=Measurements)
    stages: list[StageRecord] = field(default_factory=list)
    generator_cpu: dict[str, dict[int, list[float]]] = field(default_factory=dict)
    """Worker to second to [CPU seconds, seconds]."""
    target_cpu: dict[int, float] = field(default_factory=dict)
    iterator_age_ms: dict[int, float] = field(default_factory=dict)
    workers: list[str] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)
    fatal: str | None = None
    started_at: float = 0.0
    ended_at: float = 0.0


class Conductor:
    """One test. Call :meth:`tick` about ten times a second until :attr:`done`."""

    def __init__(
        self, scenario: Scenario, settings: LoadSettings, resources: Resources, crew: Crew, judge: Judge
    ) -> None:
        self.scenario, self.settings, self.resources = scenario, settings, resources
        self.record = Record()
        self.done = False
        self._crew, self._judge = crew, judge
        self._walk = Walk(scenario.plan(settings, resources))
        self._heard: dict[str, float] = {}
        self._busy: dict[str, bool] = {}
        self._users: dict[str, Mapping[str, int]] = {}
        self._draining_since: float | None = None
        self._loaded_at = 0.0

    def begin(self, now: float) -> None:
        """Start the plan on the workers that are there."""
        self.record.started_at = now
        self.record.workers = list(self._crew.workers())
        self._heard = dict.fromkeys(self.record.workers, now)
        self.hear(now)
        self._enter(self._walk.begin(now), now)

    def tick(self, now: float) -> None:
        """Hear, judge, decide."""
        self.hear(now)
        if self.done:
            return
        if self._draining_since is not None:
            self._drain(now)
            return
        self._check(now)
        if self._draining_since is not None:
            return
        outcome = self.outcome(now)
        if self._walk.over(now, outcome) or outcome.saturated:
            self._leave(now, outcome)
            self._enter(self._walk.advance(now, outcome), now)
        elif now - self._loaded_at >= 0.25 and self._walk.step is not None and self._walk.step.end_rate is not None:
            self._offer(self._walk.step, now)

    def stop(self, now: float, why: str) -> None:
        """End early; the report will say why it is incomplete."""
        if self._draining_since is None and not self.done:
            self.record.incomplete.append(why)
            self._leave(now, self.outcome(now))
            self._enter(None, now)

    @property
    def stage(self) -> StageRecord | None:
        return self.record.stages[-1] if self.record.stages else None

    def progress(self, now: float) -> dict[str, Any]:
        """Where the test is, for people who wait: figures of the last whole seconds."""
        stage = self.stage
        last = int(now) - 1
        operation = self.scenario.main.operation
        recent = self.record.measurements.by(lambda key: key.second, operation=operation).get(last, Counts())
        cpu = [
            spent[0] / spent[1] for one in self.record.generator_cpu.values() if (spent := one.get(last)) and spent[1]
        ]
        index = [] if stage is None else [stage.index]
        return {
            "seconds": now - self.record.started_at,
            "stage": "draining" if self._draining_since else stage.name if stage else "starting",
            "unit": self.scenario.unit,
            "offered_per_second": recent.offered,
            "accepted_per_second": recent.accepted,
            "throttled_share": recent.throttled_share,
            "failed": round(recent.failed),
            "p99_ms": self.record.measurements.latencies(index, operation).percentiles_ms()["p99"],
            "generator_cpu": max(cpu, default=0.0),
        }

    def outcome(self, now: float) -> Outcome:
        """How the present step does so far."""
        step = self._walk.step
        if step is None:
            return Outcome()
        began, index, operation = self._walk.started_at, self._walk.index, self.scenario.main.operation
        measured = self.record.measurements
        by_second = measured.by(lambda key: key.second, [index], operation)
        whole = _sum(by_second.values())
        settled = _sum(one for second, one in by_second.items() if second >= began + SETTLE_S)
        judged = settled if settled.answered else whole
        since = began + SETTLE_S if settled.answered else 0.0
        seconds = max(now - began, 1e-9)
        refused_for, accepted = _refusals(by_second, now)
        behind = whole.offered - whole.unsent - whole.answered
        rate = max(self._walk.rate(now), whole.offered / seconds)
        saturated = seconds >= 2 and rate > 0 and behind > BEHIND_S * rate + 2 * self._batches(rate)
        reason = None
        if step.judged and whole.answered:
            ages = [age for second, age in self.record.iterator_age_ms.items() if second >= began]
            reason = self._judge(
                throttled_share=measured.worst(_throttled_share, [index], since),
                failed_share=measured.worst(_failed_share, [index], since),
                p99_ms=measured.latencies([index], operation).percentiles_ms()["p99"],
                iterator_age_ms=max(ages, default=None),
            )
        return Outcome(
            offered_per_second=whole.offered / seconds,
            accepted_per_second=accepted if refused_for else whole.accepted / seconds,
            throttled_share=judged.throttled_share,
            throttled_seconds=refused_for,
            seconds=seconds,
            reason=reason,
            saturated=saturated,
        )

    def _batches(self, rate: float) -> int:
        """Units of one request of every worker; so many may always be under way."""
        workers = max(len(self.record.workers), 1)
        return self.scenario.batch(self.scenario.main, self.settings, rate / workers) * workers

    def _enter(self, step: Step | None, now: float) -> None:
        if step is None:
            self._draining_since = now
            self._send(len(self.record.stages), {one.operation: (one, 0.0) for one in self.scenario.traffic})
            return
        self.record.stages.append(
            StageRecord(self._walk.index, step.name or step.purpose, step.purpose, step.top, now, now, step.judged)
        )
        self._offer(step, now)

    def _leave(self, now: float, outcome: Outcome) -> None:
        stage = self.stage
        if stage is not None and self._walk.step is not None:
            stage.ended_at = now
            stage.reason, stage.saturated = outcome.reason, outcome.saturated
            stage.planned = self._walk.step.units(now - stage.started_at)

    def _offer(self, step: Step, now: float) -> None:
        rate = self._walk.rate(now)
        self._loaded_at = now
        self._send(
            self._walk.index,
            {one.operation: (one, one.rate(step, rate, self.resources)) for one in self.scenario.traffic},
        )

    def _send(self, stage: int, rates: Mapping[str, tuple[Traffic, float]]) -> None:
        """Each worker gets of each operation what its users of it are of all that there are."""
        for index, worker in enumerate(self.record.workers):
            shares = {}
            for operation, (traffic, rate) in rates.items():
                users = sum(self._users.get(one, {}).get(operation, 0) for one in self.record.workers)
                share = rate * self._users.get(worker, {}).get(operation, 0) / users if users else 0.0
                shares[operation] = [share, self.scenario.batch(traffic, self.settings, share)]
            step = self._walk.step
            load = {
                "stage": stage,
                "rates": shares,
                "offset": index / len(self.record.workers),
                # A burst is a number of units; all other loads are rates until the next one.
                "seconds": step.seconds if step is not None and step.purpose == "burst" else None,
            }
            self._crew.load(worker, load)

    def hear(self, now: float) -> None:
        """Take in what workers have told; also before :meth:`begin`, so that what makes a test impossible is known."""
        for worker, told in self._crew.collect():
            self.record.measurements.add(told["meter"])
            second = int(told["at"])
            spent = self.record.generator_cpu.setdefault(worker, {}).setdefault(second, [0.0, 0.0])
            spent[0] += told["cpu_s"]
            spent[1] += told["seconds"]
            if told["iterator_age_ms"] is not None:
                ages = self.record.iterator_age_ms
                ages[second] = max(ages.get(second, 0.0), told["iterator_age_ms"])
            if told["fatal"]:
                self.record.fatal = self.record.fatal or told["fatal"]
            self._heard[worker] = now
            self._users[worker] = told["users"]
            self._busy[worker] = bool(told["waiting"] or told["in_flight"])

    def _check(self, now: float) -> None:
        if self.record.fatal:
            self.stop(now, self.record.fatal)
            return
        for worker in self.record.workers:
            silent = now - self._heard[worker]
            if silent > SILENT_S:
                began = self.record.started_at
                self.stop(
                    now,
                    f"worker {worker} was lost: nothing was heard from it since {self._heard[worker] - began:.1f} s, "
                    "so what it did after that is missing",
                )
                return
        latest = int(now) - 1
        recent = _sum(
            counts
            for second, counts in self.record.measurements.by(lambda key: key.second).items()
            if latest - GONE_S < second <= latest
        )
        if recent.failed and recent.failed == recent.answered and self._unanswered():
            began = now - GONE_S - self.record.started_at
            self.stop(now, f"the endpoint stopped answering at about {max(began, 0):.0f} s: {self._unanswered()}")

    def _unanswered(self) -> str | None:
        problems = self.record.measurements.problems.values()
        return next((one.message for one in problems if one.code in (NO_ANSWER, "ConnectionLost")), None)

    def _drain(self, now: float) -> None:
        since = self._draining_since or now
        alive = [one for one in self.record.workers if now - self._heard[one] <= SILENT_S]
        told_since = all(self._heard[one] > since + 0.5 for one in alive)
        idle = told_since and not any(self._busy.get(one) for one in alive)
        if idle or now - since > self.settings.timeout_s + 2:
            # A load that was given up for being behind was behind because nobody answers any more.
            late = _sum(
                counts
                for second, counts in self.record.measurements.by(lambda key: key.second).items()
                if second > since + 1
            )
            if late.failed and late.failed == late.answered and self._unanswered() and not self.record.incomplete:
                self.record.incomplete.append(f"the endpoint stopped answering before the end: {self._unanswered()}")
            self.record.ended_at = now
            self.done = True


def _throttled_share(counts: Counts) -> float:
    return counts.throttled_share


def _failed_share(counts: Counts) -> float:
    return counts.failed_share


def _sum(counts: Any) -> Counts:
    total = Counts()
    for one in counts:
        total.add(one)
    return total


def _refusals(by_second: Mapping[int, Counts], now: float) -> tuple[float, float]:
    """For how many seconds refusals have come, gaps of one allowed, and what was accepted a second since then.

    The run's first second is left out: what a bucket had saved was spent in it.
    """
    last = int(now - 0.5) - 1
    first = None
    second, gap = last, 0
    while second in by_second or gap == 0:
        refused = by_second[second].refused if second in by_second else 0
        if refused:
            first, gap = second, 0
        elif gap:
            break
        else:
            gap = 1
        second -= 1
    if first is None:
        return 0.0, 0.0
    full = range(first + 1, last + 1)
    accepted = sum(by_second[one].accepted for one in full if one in by_second)
    return float(last - first + 1), accepted / len(full) if len(full) else 0.0
