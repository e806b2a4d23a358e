"""One event source mapping's reading of one shard: the consumer runtime's own schedule, on a clock that jumps.

:class:`consumers.runtime.shard_schedule.ShardSchedule` says when to read, what a batch is, when a window is over and
what follows a failure; the shard's own buckets say whether a read may happen. Here is only what
:class:`consumers.runtime.shard_poller.ShardPoller` does with threads: carrying it out. A read takes no time.

Rest. Most seconds are alike: a read, one invocation that ends before the next read, nothing written. A reader with
nothing else ahead rests: it looks ahead in what will arrive, plans its next step for the first read that will be more
than that, and accounts for the reads before it at once::

    reads  |  |  |  |  |  |  |          the window of a record ends, finals come, more comes than one batch takes,
           '--- rested ----'  `- step   or another reader of the shard falls behind and spends the shard's reads

What comes out is the same to the last invocation (``tests/test_capacity_rest.py``).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from consumers.runtime.actions import Invoke
from consumers.runtime.batches import PAYLOAD_MAX_BYTES, Outcome
from consumers.runtime.config import MappingConfig, RuntimeSettings
from consumers.runtime.shard_schedule import ShardSchedule
from simulator.capacity.arrivals import TICK_S, TICKS, Arrivals, Page
from simulator.capacity.clock import Clock
from simulator.capacity.driving import Driver
from simulator.capacity.timeline import Timeline
from simulator.cloud import limits
from simulator.cloud.shard import Shard

if TYPE_CHECKING:
    from simulator.capacity.functions import Function

_ENVELOPE_MAX_BYTES = 1024
"""Of an event around its records and state; enough for ARNs and names."""
_ROUNDING_S = 1e-4
"""Times are sums of floats."""
_SHARE_OF_READS = 0.8
"""Readers at rest may use so much of a shard's reads that their order cannot matter."""


class ShardReader(Protocol):
    """Whoever reads shard ``place`` beside others. ``is_behind``: it reads more than a poll a second brings."""

    place: int
    is_behind: bool

    @property
    def needs_from(self) -> int:
        """The first position whose records it may still ask about."""

    def rouse(self) -> None:
        """Another reader spends the shard's reads: rest no longer."""


class Reader(Driver):
    """Reads shard ``place`` for ``mapping`` and invokes ``function``, from the first :meth:`step` on. ``siblings`` are
    the readers of the same shard, itself among them; with ``rests`` false every read is a step of its own. Records are
    gone after ``retention_s``."""

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
        siblings: list[ShardReader],
        *,
        rests: bool = True,
        settings: RuntimeSettings | None = None,
        retention_s: float = math.inf,
    ) -> None:
        self.shard = shard
        self.place = place
        self.arrivals = arrivals
        self.function = function
        self.settings = settings or RuntimeSettings()
        schedule = ShardSchedule(mapping, shard.shard_id, self.settings, clock.now, rng=rng.random)
        super().__init__(clock, mapping, schedule, timeline)
        self.siblings = siblings
        siblings.append(self)
        self.is_behind = False
        self.label = f"{mapping.name}/{shard.shard_id}"
        self._position = 0
        self._retention_s = retention_s
        self._rests = rests and self._is_single and not mapping.filter_patterns and not mapping.batching_window_s
        self._resting_from: float | None = None
        function.attach(self)

    @property
    def backlog(self) -> int:
        """Records in the shard that are not processed."""
        return self.arrivals.total(self.place) - self.processed

    @property
    def processed(self) -> int:
        """Records that were processed; with one lane, the position of the next."""
        return self._position - self.schedule.buffered

    @property
    def needs_from(self) -> int:
        """The first position whose records it may still ask about."""
        return min(self.processed, self.function.needs_from(self))

    def caught_up(self, since: float) -> bool:
        """Whether everything that was in the shard at ``since`` is processed, its windows included."""
        return self.schedule.caught_up(since)

    # -- waiting ---------------------------------------------------------------------------------------

    def _wait(self, until: float) -> None:
        if self._rests and self.schedule.is_at_rest and until == self.schedule.next_poll_at:
            wakes_at = self._step_due_at(until)
            if wakes_at > until + _ROUNDING_S:
                self._resting_from = until
                until = wakes_at
        self._wake(until)

    def _waking(self, at: float) -> None:
        self._settle(at)

    def rouse(self) -> None:
        """Another reader spends the shard's reads: rest no longer."""
        if self._resting_from is not None:
            self._settle(self._clock.now)
            self._wakes_at = math.inf
            self._wake(self.schedule.next_poll_at)

    # -- rest ------------------------------------------------------------------------------------------

    def _step_due_at(self, first: float) -> float:
        """The first of the reads at ``first``, a poll interval later, ..., that cannot be rested through."""
        arrivals, interval_s = self.arrivals, self.settings.poll_interval_s
        if any(one.is_behind for one in self.siblings):
            return first
        until = max(first, min(arrivals.until_s + _ROUNDING_S, self.function.rests_until(self)))
        second = arrivals.tick_of(first - interval_s) * TICK_S
        page = arrivals.page_at(int(second + _ROUNDING_S))
        most = self._most_records()
        while page is not None and arrivals.start_s + page.first < until:
            begins = arrivals.start_s + page.first
            if not self._is_calm(page, most) or not self._is_calm_between(page, begins, first, most):
                until = min(until, begins + TICK_S)
                break
            page = arrivals.page_at(page.until)
        reads = max(0, math.ceil((until - first) / interval_s - _ROUNDING_S))
        return first + reads * interval_s

    def _most_records(self) -> int:
        """What one invocation takes of the records that come at rest."""
        each = len(self.arrivals.encoded[False]) + 1
        room = PAYLOAD_MAX_BYTES - _ENVELOPE_MAX_BYTES - self.function.state_max_bytes(self.place)
        return min(self.mapping.batch_size, self.arrivals.read_max - 1, room // each)

    def _is_calm(self, page: Page, most: int) -> bool:
        """Whether a second of the page is one read and one invocation that writes nothing, for every reader of the
        shard."""
        total = page.column(self.place).total
        readers = len(self.siblings)
        return (
            total <= most
            and readers <= limits.SHARD_READ_CALLS.value * _SHARE_OF_READS
            and readers * total * self.arrivals.record_bytes <= limits.SHARD_READ_BYTES.value * _SHARE_OF_READS
            and self.function.rests_through(self, page, total)
        )

    def _is_calm_between(self, page: Page, begins: float, first: float, most: int) -> bool:
        """The read that has parts of two pages."""
        interval_s = self.settings.poll_interval_s
        at = first + max(0, math.ceil((begins - first) / interval_s - _ROUNDING_S)) * interval_s
        return self.arrivals.end(self.place, at) - self.arrivals.end(self.place, at - interval_s) <= most

    def _settle(self, until: float) -> None:
        """Account for the reads before ``until`` that were rested through."""
        first, self._resting_from = self._resting_from, None
        if first is None:
            return
        arrivals, place, interval_s = self.arrivals, self.place, self.settings.poll_interval_s
        reads = math.ceil((until - first) / interval_s - _ROUNDING_S)
        tip_seen_at: float | None = None
        number = 0
        while number < reads:
            at = first + number * interval_s
            end = arrivals.end(place, at)
            tip_seen_at = self._rested(at, 1, end - self._position)
            # The others of this page each read what one second of it brings.
            second = arrivals.tick_of(at) // TICKS
            page = arrivals.page_at(second) if at >= arrivals.start_s else None
            alike = 0 if page is None else page.until - 1 - second
            alike = max(0, min(alike, reads - number - 1))
            if alike and page is not None:
                tip_seen_at = self._rested(at + interval_s, alike, page.column(place).total)
            number += 1 + alike
        if reads > 0:
            last = first + (reads - 1) * interval_s
            self.shard.admit_read(last)
            self.schedule.resume(first + reads * interval_s, tip_seen_at, self.function.window_of(self))

    def _rested(self, at: float, reads: int, records: int) -> float | None:
        """``reads`` reads from ``at`` on brought ``records`` each; when the last of them began if it found nothing."""
        timeline, mapping = self._timeline, self.mapping
        second = timeline.second(at)
        timeline.add_span("read_calls", self.shard.shard_id, second, reads, 1)
        if not records:
            return at + (reads - 1) * self.settings.poll_interval_s
        begin = self._position
        self._position += records * reads
        age_s = at - self.arrivals.arrived_s(self.place, begin + records - 1)
        timeline.peak_span("iterator_age_s", mapping.name, second, reads, age_s)
        self.function.rested(self, at, reads, records, begin)
        return None

    # -- steps -----------------------------------------------------------------------------------------

    def _poll(self) -> bool:
        now, shard, arrivals = self._clock.now, self.shard, self.arrivals
        if not shard.admit_read(now):
            self._timeline.add("read_throttled", shard.shard_id, now, 1)
            quota, bucket = limits.SHARD_READ_CALLS, shard.read_calls
            if shard.read_bytes.tokens < 0:
                quota, bucket = limits.SHARD_READ_BYTES, shard.read_bytes
            self._timeline.broke(quota.name, shard.shard_id, bucket.rate, quota.unit, now)
            self._fall_behind()
            self.schedule.on_poll_throttled(now)
            return True
        came = arrivals.end(self.place, now)
        self._pass_over(now - self._retention_s)
        end = min(came, self._position + arrivals.read_max)
        records = arrivals.runs(self.place, self._position, end)
        shard.charge_read((end - self._position) * arrivals.record_bytes, now)
        self._position = end
        behind_ms = max(1, int((now - arrivals.arrived_s(self.place, end)) * 1000)) if came > end else 0
        self._timeline.add("read_calls", shard.shard_id, now, 1)
        self.schedule.on_poll_result(now, now, records, behind_ms, shard_ended=False)
        if self.schedule.next_poll_at < now + self.settings.poll_interval_s - _ROUNDING_S:
            self._fall_behind()
        else:
            self.is_behind = False
        return True

    def _pass_over(self, horizon_s: float) -> None:
        """What came before then is not readable any more: the stream's retention is over."""
        if horizon_s <= self.arrivals.start_s:
            return
        gone = self.arrivals.end(self.place, horizon_s) - self._position
        if gone > 0:
            self._position += gone
            self._timeline.add("expired", self.mapping.name, self._clock.now, gone)

    def _fall_behind(self) -> None:
        """It reads faster than once a second now, or cannot read."""
        self.is_behind = True
        for one in self.siblings:
            one.rouse()

    def _call(self, action: Invoke, done: Callable[[Outcome], None]) -> None:
        self.function.invoke(self, action, done)


def forgettable(readers: Sequence[ShardReader], shards: int, arrivals: Arrivals) -> list[int]:
    """By shard, the position before which no reader asks about anything."""
    needed = [arrivals.total(place) for place in range(shards)]
    for reader in readers:
        needed[reader.place] = min(needed[reader.place], reader.needs_from)
    return needed
