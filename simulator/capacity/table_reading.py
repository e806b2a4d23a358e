"""One event source mapping's reading of a table's stream: the consumer runtime's own schedule and pace.

As :mod:`simulator.capacity.reading`, with what :mod:`consumers.runtime.sources.dynamodb_stream` does differently: four
polls a second, an answer with records is never the tip, times are in whole seconds. Reads of it have no limit that one
or two readers could meet. While nothing is there, polls are not carried out one by one.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping

from consumers.runtime.actions import Deliver, Finished, Invoke, Poll, Wait
from consumers.runtime.batches import Outcome
from consumers.runtime.config import MappingConfig, RuntimeSettings
from consumers.runtime.event import EventBuilder
from consumers.runtime.shard_schedule import ShardSchedule
from consumers.runtime.sources.dynamodb_stream import DynamoDBStream
from simulator.capacity.clock import Clock
from simulator.capacity.functions import Function
from simulator.capacity.table_feed import Queue, TableFeed
from simulator.capacity.tables import Table
from simulator.capacity.timeline import Timeline
from simulator.deployment import Deployment, FunctionSpec
from simulator.local_functions import mapping_config

SHARD_ID = "shardId-00000000000000000000-00000000"
"""Ids of a table's stream have 28 to 65 characters."""


class TableReader:
    """Reads ``feed`` for ``mapping`` and invokes ``function``, from the first :meth:`step` on."""

    def __init__(
        self,
        clock: Clock,
        mapping: MappingConfig,
        feed: TableFeed,
        function: Function,
        timeline: Timeline,
        rng: random.Random,
    ) -> None:
        self.mapping = mapping
        self.function = function
        self._settings = DynamoDBStream(mapping, None, RuntimeSettings(), lambda: clock.now).paced(RuntimeSettings())
        self.schedule = ShardSchedule(mapping, SHARD_ID, self._settings, clock.now, rng=rng.random)
        self._queue = Queue(self._came)
        feed.readers.append(self._queue)
        self._clock = clock
        self._timeline = timeline
        self._is_single = mapping.parallelization_factor == 1
        self._idle_from: float | None = None
        self._wakes_at = math.inf

    @property
    def backlog(self) -> int:
        """Records of the stream that are not processed."""
        return self._queue.records + self.schedule.buffered

    def caught_up(self, since: float) -> bool:
        """Whether everything that was written is processed; windows that opened before ``since`` included."""
        if self._idle_from is not None:
            return True
        return not self._queue.records and self.schedule.caught_up(since)

    def step(self) -> None:
        """Do what the schedule says until it waits, or has an invocation out."""
        clock, schedule = self._clock, self.schedule
        while True:
            action = schedule.next_action(clock.now)
            match action:
                case Poll():
                    self._poll()
                case Invoke():
                    self._invoke(action)
                    if self._is_single:
                        return
                case Deliver():
                    schedule.on_delivered(clock.now, action.lane)
                case Wait():
                    self._wait(action.until)
                    return
                case Finished():
                    return

    def _wait(self, until: float) -> None:
        """Until then; with nothing to read and nothing on its way, until something comes."""
        schedule = self.schedule
        is_idle = not (self._queue.records or schedule.buffered or schedule.in_flight or self.mapping.tumbling_window_s)
        if is_idle and until == schedule.next_poll_at:
            self._idle_from = until
        else:
            self._wake(until)

    def _came(self) -> None:
        """A record is there: the next of the polls that nobody carried out finds it."""
        first, self._idle_from = self._idle_from, None
        if first is not None:
            pace_s = self._settings.poll_interval_s
            self._wake(first + max(0, math.ceil((self._clock.now - first) / pace_s)) * pace_s)

    def _wake(self, until: float) -> None:
        """Go on at ``until``; an earlier wake that was planned stands for it."""
        # A wait that ends now would never let time go on.
        until = max(until, self._clock.now + 1e-3)
        if self._clock.now < self._wakes_at <= until:
            return
        self._wakes_at = until

        def woken() -> None:
            if self._wakes_at == until:
                self._wakes_at = math.inf
                self._go_on()

        self._clock.at(until, woken)

    def _poll(self) -> None:
        now = self._clock.now
        changes = self._queue.read()
        behind_ms = max(1, int((now - changes[-1].arrival_s) * 1000)) if changes else 0
        self.schedule.on_poll_result(now, now, changes, behind_ms, shard_ended=False)

    def _invoke(self, action: Invoke) -> None:
        now, function = self._clock.now, self.function
        if action.records:
            age_s = now - action.records[-1].arrival_s
            self._timeline.peak("iterator_age_s", self.mapping.name, now, age_s)

        def done(outcome: Outcome) -> None:
            self.schedule.on_invoke_result(outcome, self._clock.now, action.lane)
            # Not from within: the caller may still be in its loop.
            self._clock.at(self._clock.now, self._go_on)

        function.run(function.read(action), action.count, self.mapping.name, done)

    def _go_on(self) -> None:
        if not (self._is_single and self.schedule.in_flight):
            self.step()


def read_tables(
    deployment: Deployment,
    tables: Mapping[str, Table],
    function_of: Callable[[FunctionSpec], Function],
    clock: Clock,
    timeline: Timeline,
    seed: int,
    left_out: list[str],
) -> list[TableReader]:
    """A reader for each event source that is a table's stream; they begin within a poll from
    now. ``left_out`` gets a line on what is not known."""
    # Of its own: what is read of the stream does not depend on it.
    rng = random.Random(f"table streams {seed}")
    specs = {one.name: one for one in deployment.tables}
    found = []
    for spec in deployment.functions:
        for source in spec.event_sources:
            if source.kind != "DynamoDB":
                continue
            if source.source_name not in tables:
                left_out.append(f"{spec.name} is fed by {source.source_name}, which is not in the template")
                continue
            table = tables[source.source_name]
            mapping = mapping_config(spec, source, source.source_arn)
            if table.feed is None:
                table.feed = TableFeed(specs[table.name], deployment.region, EventBuilder(mapping, SHARD_ID))
            function = function_of(spec)
            if not function.is_modelled:
                left_out.append(f"{spec.name} reads its batches; what it writes is not known to the planner")
            reader = TableReader(clock, mapping, table.feed, function, timeline, rng)
            clock.at(clock.now + rng.random() * RuntimeSettings().dynamodb_poll_interval_s, reader.step)
            found.append(reader)
    return found
