"""Carrying out what a schedule says, on a clock that jumps, as :mod:`consumers.runtime.shard_poller` does with threads.

:class:`consumers.runtime.shard_schedule.ShardSchedule` decides when to read, what a batch is and what follows a
failure. What reading is, and what is invoked, differ by the source.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from consumers.runtime.actions import Deliver, Finished, Invoke, Poll, Wait
from consumers.runtime.batches import Outcome
from consumers.runtime.config import MappingConfig
from consumers.runtime.shard_schedule import ShardSchedule
from simulator.capacity.clock import Clock
from simulator.capacity.timeline import Timeline


class Driver:
    """Drives ``schedule`` for ``mapping``, from the first :meth:`step` on."""

    def __init__(self, clock: Clock, mapping: MappingConfig, schedule: ShardSchedule, timeline: Timeline) -> None:
        self.mapping = mapping
        self.schedule = schedule
        self._clock = clock
        self._timeline = timeline
        self._is_single = mapping.parallelization_factor == 1
        self._wakes_at = math.inf
        self._dropped = 0

    def step(self) -> None:
        """Do what the schedule says until it waits, has an invocation out, or there is nothing to read yet."""
        clock, schedule = self._clock, self.schedule
        while True:
            action = schedule.next_action(clock.now)
            if schedule.dropped_records != self._dropped:
                # After MaximumRetryAttempts, or older than MaximumRecordAgeInSeconds.
                more = schedule.dropped_records - self._dropped
                self._dropped += more
                self._timeline.add("given_up", self.mapping.name, clock.now, more)
            match action:
                case Poll():
                    if not self._poll():
                        return
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

    def _poll(self) -> bool:
        """Read, and tell the schedule; False when something else will call :meth:`step`."""
        raise NotImplementedError

    def _call(self, action: Invoke, done: Callable[[Outcome], None]) -> None:
        """Run the function; ``done`` gets the outcome."""
        raise NotImplementedError

    def _wait(self, until: float) -> None:
        self._wake(until)

    def _waking(self, at: float) -> None:
        """A wait ends at ``at``; what is to be made up for is, before anything is decided."""

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
                self._waking(until)
                self._go_on()

        self._clock.at(until, woken)

    def _invoke(self, action: Invoke) -> None:
        now = self._clock.now
        if action.records:
            age_s = now - action.records[-1].arrival_s
            self._timeline.peak("iterator_age_s", self.mapping.name, now, age_s)

        def done(outcome: Outcome) -> None:
            self.schedule.on_invoke_result(outcome, self._clock.now, action.lane)
            # Not from within: the caller may still be in its loop.
            self._clock.at(self._clock.now, self._go_on)

        self._call(action, done)

    def _go_on(self) -> None:
        if not (self._is_single and self.schedule.in_flight):
            self.step()
