"""One event source mapping's reading of a table's stream: the consumer runtime's own schedule and pace.

As :mod:`simulator.capacity.reading`, with what :mod:`consumers.runtime.sources.dynamodb_stream` does differently: four
polls a second, an answer with records is never the tip, times are in whole seconds. Reads of it have no limit that one
or two readers could meet. While nothing is there, polls are not carried out one by one.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping

from consumers.runtime.actions import Invoke
from consumers.runtime.batches import Outcome
from consumers.runtime.config import MappingConfig, RuntimeSettings
from consumers.runtime.event import EventBuilder
from consumers.runtime.shard_schedule import ShardSchedule
from consumers.runtime.sources.dynamodb_stream import DynamoDBStream
from simulator.capacity.clock import Clock
from simulator.capacity.driving import Driver
from simulator.capacity.functions import Function
from simulator.capacity.table_feed import Queue, TableFeed
from simulator.capacity.tables import Table
from simulator.capacity.timeline import Timeline
from simulator.deployment import Deployment, FunctionSpec
from simulator.local_functions import mapping_config

SHARD_ID = "shardId-00000000000000000000-00000000"
"""Ids of a table's stream have 28 to 65 characters."""


class TableReader(Driver):
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
        self.function = function
        self._settings = DynamoDBStream(mapping, None, RuntimeSettings(), lambda: clock.now).paced(RuntimeSettings())
        schedule = ShardSchedule(mapping, SHARD_ID, self._settings, clock.now, rng=rng.random)
        super().__init__(clock, mapping, schedule, timeline)
        self._queue = Queue(self._came)
        feed.readers.append(self._queue)
        self._idle_from: float | None = None

    @property
    def backlog(self) -> int:
        """Records of the stream that are not processed."""
        return self._queue.records + self.schedule.buffered

    def caught_up(self, since: float) -> bool:
        """Whether everything that was written is processed; windows that opened before ``since`` included."""
        if self._idle_from is not None:
            return True
        return not self._queue.records and self.schedule.caught_up(since)

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

    def _poll(self) -> bool:
        now = self._clock.now
        changes = self._queue.read()
        behind_ms = max(1, int((now - changes[-1].arrival_s) * 1000)) if changes else 0
        self.schedule.on_poll_result(now, now, changes, behind_ms, shard_ended=False)
        return True

    def _call(self, action: Invoke, done: Callable[[Outcome], None]) -> None:
        self.function.run(self.function.read(action), action.count, self.mapping.name, done)


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
