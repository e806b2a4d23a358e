"""Enhanced fan-out in virtual time: a shard is pushed to one event source mapping, beside all who poll it.

The pace is the embedded cloud's own (:class:`simulator.cloud.fan_out.Pace`): events at least 20 ms apart, of 1 MiB at
most, 2 MiB a second for each consumer and shard; and an empty one after 5 s, by which the runtime knows that it has
everything. The reader takes one event at a time, as :mod:`consumers.runtime.sources.kinesis_fan_out`, and two more wait
for it; what then fills the connection is not modelled, so the next event is the larger. Not modelled either: that a
subscription is renewed every five minutes. ::

    Arrivals --push--> [event] [event] --take--> ShardSchedule --> Function

Series of the timeline: ``pushed_events``, by mapping.
"""

from __future__ import annotations

import random
from collections import deque
from typing import NamedTuple

from consumers.runtime.config import MappingConfig, RuntimeSettings
from consumers.runtime.sources.kinesis_fan_out import EVENTS_AHEAD, READ_WAIT_S, KinesisFanOut
from simulator.capacity.arrivals import TICK_S, Arrivals
from simulator.capacity.clock import Clock
from simulator.capacity.functions import Function
from simulator.capacity.reading import Reader
from simulator.capacity.timeline import Timeline
from simulator.cloud.fan_out import EVENT_MAX_BYTES, Pace
from simulator.cloud.limits import GET_RECORDS_MAX_RECORDS, LimitSettings
from simulator.cloud.shard import Shard


class _Event(NamedTuple):
    """Records up to position ``end``, pushed at ``at``; ``behind_ms`` is MillisBehindLatest."""

    end: int
    at: float
    behind_ms: int


class FanOutReader(Reader):
    """Reads as a registered consumer; others of the shard do not notice it."""

    def __init__(
        self,
        clock: Clock,
        mapping: MappingConfig,
        shard: Shard,
        place: int,
        arrivals: Arrivals,
        function: Function,
        timeline: Timeline,
        rng: random.Random,
        limit_settings: LimitSettings,
    ) -> None:
        paced = KinesisFanOut(mapping, None, lambda: clock.now).paced(RuntimeSettings())
        super().__init__(
            clock, mapping, shard, place, arrivals, function, timeline, rng, [], rests=False, settings=paced
        )
        self._limit_settings = limit_settings
        self._pace: Pace | None = None
        self._events: deque[_Event] = deque()
        self._pushed_to = 0
        self._event_records = min(int(GET_RECORDS_MAX_RECORDS), max(1, int(EVENT_MAX_BYTES) // arrivals.record_bytes))
        self._push_at = float("inf")

    def step(self) -> None:
        """As others; the first is when it subscribes."""
        if self._pace is None:
            self._pace = Pace(self._clock.now, self._limit_settings)
            self._push(self._pace)
        super().step()

    def _poll(self) -> bool:
        if self._events:
            self._take(self._events.popleft())
            return True
        if self.schedule.buffered:
            # A batch that is being gathered may be due before the next event.
            self._wake(self._clock.now + READ_WAIT_S)
        return False

    def _take(self, event: _Event) -> None:
        records = self.arrivals.runs(self.place, self._position, event.end)
        self._position = event.end
        self.schedule.on_poll_result(event.at, self._clock.now, records, event.behind_ms, shard_ended=False)
        if len(self._events) == EVENTS_AHEAD:
            # There was no room for another one.
            self._plan_push(self._clock.now)

    # -- pushing -----------------------------------------------------------------------------------------

    def _plan_push(self, at: float) -> None:
        """Look again at ``at``; an earlier look that was planned stands for it."""
        at = max(at, self._clock.now)
        if self._clock.now <= self._push_at <= at:
            return
        self._push_at = at

        def pushing() -> None:
            if self._push_at == at and self._pace is not None:
                self._push_at = float("inf")
                self._push(self._pace)

        self._clock.at(at, pushing)

    def _push(self, pace: Pace) -> None:
        if len(self._events) > EVENTS_AHEAD:
            return
        now, arrivals, place = self._clock.now, self.arrivals, self.place
        next_at = pace.next_at(now)
        if now < next_at:
            self._plan_push(next_at)
            return
        came = arrivals.end(place, now)
        end = min(came, self._pushed_to + self._event_records)
        if end == self._pushed_to and now < pace.heartbeat_at:
            self._plan_push(min(pace.heartbeat_at, self._next_arrival_s(now)))
            return
        behind_ms = max(1, int((now - arrivals.arrived_s(place, end)) * 1000)) if came > end else 0
        pace.pushed((end - self._pushed_to) * arrivals.record_bytes, now)
        self._pushed_to = end
        self._events.append(_Event(end, now, behind_ms))
        self._timeline.add("pushed_events", self.mapping.name, now, 1)
        self._plan_push(pace.next_at(now))
        self._wake(now)

    def _next_arrival_s(self, now: float) -> float:
        """When the next record comes, or more may be known of it."""
        arrivals = self.arrivals
        if self._pushed_to < arrivals.total(self.place):
            return arrivals.arrived_s(self.place, self._pushed_to)
        return arrivals.until_s + TICK_S if now <= arrivals.until_s else float("inf")
