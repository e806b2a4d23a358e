"""Lambda functions in virtual time: how long an invocation takes, and when it is killed.

What a handler *does* is a process that yields the seconds it takes (:mod:`simulator.capacity.handlers`); here is what
Lambda does around it: concurrency, timeouts, the books. Not modelled: cold starts, and an account's own concurrency.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from consumers.publish import DEFAULT_TOPIC
from consumers.runtime.actions import Invoke
from consumers.runtime.batches import Outcome
from consumers.runtime.windows import OpenWindow
from simulator.capacity.arrivals import Page
from simulator.capacity.clock import Clock, Process
from simulator.capacity.delays import Delays
from simulator.capacity.finishing import Final
from simulator.capacity.handlers import FINAL, LIVE, Durations, Handler, Live, ReadOnly
from simulator.capacity.items import League
from simulator.capacity.publishing import PUBLISH, Publish
from simulator.capacity.reading import Reader
from simulator.capacity.tables import Table
from simulator.capacity.timeline import Timeline
from simulator.deployment import FunctionSpec

__all__ = ["FINAL", "LIVE", "MODELLED", "Durations", "Function", "FunctionTotals"]

MODELLED = (LIVE, FINAL, PUBLISH)


@dataclass(slots=True)
class FunctionTotals:
    """What a function did in all; ``duration_s`` is the sum. ``records`` are those of each of ``durations_s``."""

    invocations: int = 0
    errors: int = 0
    timeouts: int = 0
    throttles: int = 0
    duration_s: float = 0.0
    durations_s: list[float] = field(default_factory=list)
    records: list[int] = field(default_factory=list)


class Function:
    """One function of the deployment; shards invoke it side by side."""

    def __init__(
        self,
        spec: FunctionSpec,
        table: Table | None,
        league: League,
        durations: Durations,
        clock: Clock,
        timeline: Timeline,
        rng: random.Random,
    ) -> None:
        self.spec = spec
        self.totals = FunctionTotals()
        self.reads_stream = False
        self.delays = Delays(timeline.start)
        self._clock = clock
        self._timeline = timeline
        self._running = 0
        # When invocations began and ended, to tell at last how many ran at once.
        self._begun: list[float] = []
        self._ended: list[float] = []
        self._handler: Handler
        if table is not None and spec.handler == LIVE:
            self._handler = Live(table, league, durations, clock, timeline, rng, self.delays)
        elif table is not None and spec.handler == FINAL:
            self._handler = Final(table, league, durations, clock, rng, self.delays, float(spec.timeout_s))
        elif spec.handler == PUBLISH:
            topic = spec.environment.get("RESULTS_TOPIC", DEFAULT_TOPIC)
            self._handler = Publish(durations, clock, self.delays, timeline, spec.name, topic)
        else:
            self._handler = ReadOnly(durations, clock, self.delays)

    @property
    def is_modelled(self) -> bool:
        """Whether its writes are known."""
        return type(self._handler) is not ReadOnly

    @property
    def is_live(self) -> bool:
        """Whether it shows every message's effect, which is what bikers wait for."""
        return isinstance(self._handler, Live)

    @property
    def handler(self) -> Handler:
        return self._handler

    # -- invoking --------------------------------------------------------------------------------------

    def invoke(self, reader: Reader, action: Invoke, done: Callable[[Outcome], None]) -> None:
        """Run one invocation for an event source; see :meth:`run`."""
        self.run(self._handler.work(reader, action), action.count, reader.mapping.name, done)

    def run(self, work: Process[Outcome], records: int, source: str, done: Callable[[Outcome], None]) -> None:
        """Run one invocation that does ``work`` with so many records of ``source``; ``done`` gets its outcome when it
        ends, at once when there is no concurrency left."""
        name, clock, timeline = self.spec.name, self._clock, self._timeline
        reserved = self.spec.reserved_concurrency
        if reserved is not None and self._running >= reserved:
            self.totals.throttles += 1
            timeline.add("function_throttles", name, clock.now, 1)
            done(Outcome(0, is_throttled=True))
            return
        started = clock.now
        self._running += 1
        self.totals.invocations += 1
        self._begun.append(started)
        timeline.add("invocations", name, started, 1)

        def ended(outcome: Outcome) -> None:
            duration_s = clock.now - started
            self._running -= 1
            self._ended.append(clock.now)
            self.totals.duration_s += duration_s
            self.totals.durations_s.append(duration_s)
            self.totals.records.append(records)
            timeline.peak("duration_s", name, clock.now, duration_s)
            if outcome.function_error is not None:
                self.totals.errors += 1
                timeline.add("errors", name, clock.now, 1)
            if outcome.processed:
                timeline.add("processed", source, clock.now, outcome.processed)
            done(outcome)

        def late() -> None:
            self.totals.timeouts += 1
            timeline.add("timeouts", name, clock.now, 1)
            timeline.broke("lambda.timeout_seconds", name, self.spec.timeout_s, "s", clock.now)
            ended(Outcome(0, ("Sandbox.Timedout", "Task timed out"), function_error="Unhandled"))

        clock.start(work, ended, within_s=self.spec.timeout_s, late=late)

    def read(self, action: Invoke) -> Process[Outcome]:
        """What an invocation for a table's stream does."""
        return self._handler.read(action)

    def settle(self, seconds: int) -> None:
        """Tell the timeline how many invocations ran at once in each second: what ends when another begins was over."""
        timeline, begun, ended = self._timeline, np.sort(self._begun), np.sort(self._ended)
        if not len(begun):
            return
        at_once = np.arange(1, len(begun) + 1) - np.searchsorted(ended, begun, side="right")
        edges = timeline.start + np.arange(seconds)
        peaks = np.searchsorted(begun, edges) - np.searchsorted(ended, edges, side="right")
        places = np.clip(np.floor(begun - timeline.start + 1e-4).astype(np.int64), 0, seconds - 1)
        np.maximum.at(peaks, places, at_once)
        timeline.set_series("concurrency", self.spec.name, peaks.astype(float).tolist())

    def why_never(self, left: Sequence[Reader], until: float) -> str:
        """Why what is ``left`` to be done by readers cannot be by ``until``, in words; empty where it might be."""
        return self._handler.why_never(left, until)

    # -- rest: see simulator.capacity.reading ------------------------------------------------------------

    def attach(self, reader: Reader) -> None:
        """``reader`` will invoke it."""
        self.reads_stream = True
        self._handler.attach(reader)

    def needs_from(self, reader: Reader) -> int:
        """The first position whose arrival it may still ask about."""
        return self._handler.needs_from(reader)

    def rests_until(self, reader: Reader) -> float:
        """Until when reads can bring nothing that is more than an invocation which writes nothing."""
        if self.spec.reserved_concurrency is not None:
            return -np.inf
        return self._handler.rests_until(reader)

    def rests_through(self, reader: Reader, page: Page, records: int) -> bool:
        """Whether that holds for a page with so many records a second; an invocation must end before the next read."""
        duration_s = self._handler.base_s(records)
        within_s = min(reader.settings.poll_interval_s, self.spec.timeout_s)
        return duration_s < within_s and self._handler.rests_through(reader, page)

    def state_max_bytes(self, place: int) -> int:
        """How large a window's state may become for a shard."""
        return self._handler.state_max_bytes(place)

    def window_of(self, reader: Reader) -> OpenWindow | None:
        """The open window, after what was rested through."""
        return self._handler.window_of(reader)

    def rested(self, reader: Reader, at: float, reads: int, records: int, begin: int) -> None:
        """An invocation at ``at`` and every second after, ``reads`` in all, got ``records`` records each, from position
        ``begin`` on."""
        name, timeline = self.spec.name, self._timeline
        duration_s = self._handler.base_s(records)
        times = [at + number * reader.settings.poll_interval_s for number in range(reads)]
        self._begun += times
        self._ended += [one + duration_s for one in times]
        self.totals.invocations += reads
        self.totals.duration_s += duration_s * reads
        self.totals.durations_s += [duration_s] * reads
        self.totals.records += [records] * reads
        timeline.add_span("invocations", name, timeline.second(at), reads, 1)
        ends = timeline.second(at + duration_s)
        timeline.peak_span("duration_s", name, ends, reads, duration_s)
        timeline.add_span("processed", reader.mapping.name, ends, reads, records)
        self._handler.rested(reader, at, reads, records, begin)
