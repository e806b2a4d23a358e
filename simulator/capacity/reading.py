"""One event source mapping's reading of one shard: the consumer runtime's own schedule, on a clock that jumps.

:class:`consumers.runtime.shard_schedule.ShardSchedule` says when to read, what a batch is, when a window is over and
what follows a failure; the shard's own buckets say whether a read may happen. Here is only what
:class:`consumers.runtime.shard_poller.ShardPoller` does with threads: carrying it out. A read takes no time.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

from consumers.runtime.actions import Deliver, Finished, Invoke, Poll, Wait
from consumers.runtime.batches import Outcome
from consumers.runtime.config import MappingConfig, RuntimeSettings
from consumers.runtime.shard_schedule import ShardSchedule
from simulator.capacity.arrivals import Arrivals, Kind
from simulator.capacity.clock import Clock
from simulator.capacity.timeline import Timeline
from simulator.cloud import limits
from simulator.cloud.shard import Shard

if TYPE_CHECKING:
    from simulator.capacity.functions import Function


class Reader:
    """Reads ``shard`` for ``mapping`` and invokes ``function``, from the first :meth:`step` on."""

    def __init__(
        self,
        clock: Clock,
        mapping: MappingConfig,
        shard: Shard,
        arrivals: Arrivals,
        function: Function,
        timeline: Timeline,
        rng: random.Random,
    ) -> None:
        self.shard = shard
        self.arrivals = arrivals
        self.mapping = mapping
        self.function = function
        self.schedule = ShardSchedule(mapping, shard.shard_id, RuntimeSettings(), clock.now, rng=rng.random)
        self._clock = clock
        self._timeline = timeline
        self._position = 0
        self._is_single = mapping.parallelization_factor == 1
        # One lane that skips nothing: what is buffered ends where reading goes on.
        self._is_contiguous = self._is_single and not mapping.filter_patterns
        self._wakes_at = float("inf")
        self._label = f"{mapping.name}/{shard.shard_id}"

    @property
    def label(self) -> str:
        """``mapping/shard``."""
        return self._label

    def kinds(self, action: Invoke) -> list[Kind]:
        """What each record of a batch is."""
        kinds = self.arrivals.kinds
        return [kinds[record.sequence_number] for record in action.records]

    def counted(self, action: Invoke) -> dict[Kind, int]:
        """How many records of each kind a batch has, asked while it is out."""
        if self._is_contiguous:
            begin = self.needs_from
            return self.arrivals.kinds_between(begin, begin + len(action.records))
        return Counter(self.kinds(action))

    @property
    def backlog(self) -> int:
        """Records in the shard that are not processed."""
        return self.arrivals.end - self._position + self.schedule.buffered

    @property
    def needs_from(self) -> int:
        """The first position whose records it may still ask about; the beginning, where that is not easily told: lanes
        finish in any order, and filters leave gaps."""
        return self._position - self.schedule.buffered if self._is_contiguous else 0

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
                    self._wake(action.until)
                    return
                case Finished():
                    return

    def _wake(self, until: float) -> None:
        """Go on at ``until``; an earlier wake that was planned stands for it."""
        # A wait that ends now would never let time go on.
        until = max(until, self._clock.now + 1e-3)
        if self._clock.now < self._wakes_at <= until:
            return
        self._wakes_at = until

        def woken() -> None:
            if self._wakes_at == until:
                self._wakes_at = float("inf")
                if not (self._is_single and self.schedule.in_flight):
                    self.step()

        self._clock.at(until, woken)

    def _poll(self) -> None:
        now, shard = self._clock.now, self.shard
        if not shard.admit_read(now):
            self._timeline.add("read_throttled", shard.shard_id, now, 1)
            quota, bucket = limits.SHARD_READ_CALLS, shard.read_calls
            if shard.read_bytes.tokens < 0:
                quota, bucket = limits.SHARD_READ_BYTES, shard.read_bytes
            self._timeline.broke(quota.name, shard.shard_id, bucket.rate, quota.unit, now)
            self.schedule.on_poll_throttled(now)
            return
        records, nbytes = self.arrivals.read(self._position)
        shard.charge_read(nbytes, now)
        self._position += len(records)
        behind_ms = self.arrivals.millis_behind(self._position, now)
        self._timeline.add("read_calls", shard.shard_id, now, 1)
        self.schedule.on_poll_result(now, now, records, behind_ms, shard_ended=False)

    def _invoke(self, action: Invoke) -> None:
        now = self._clock.now
        if action.records:
            age_s = now - action.records[-1].arrival_s
            self._timeline.peak("iterator_age_s", self.mapping.name, now, age_s)

        def done(outcome: Outcome) -> None:
            self.schedule.on_invoke_result(outcome, self._clock.now, action.lane)
            # Not from within: the caller may still be in its loop.
            self._clock.at(self._clock.now, self._resumed)

        self.function.invoke(self, action, done)

    def _resumed(self) -> None:
        if not (self._is_single and self.schedule.in_flight):
            self.step()
