"""When each request is due: arrivals by schedule, whatever became of the last (an open model).

A :class:`Schedule` is one process's share of a rate. Its arrivals are evenly spaced, or a Poisson process; users
take the next one, wait until it is due, and send. When all users are busy arrivals wait, their due times do not
move, and the latency of what is sent late says so. What still waits when the load changes is given up and counted.
"""

from __future__ import annotations

import math
import random
from typing import NamedTuple


class Arrival(NamedTuple):
    """One request: when it is due (seconds since the epoch), in which stage, and for how many units."""

    due_at: float
    stage: int
    number: int


class Schedule:
    """The arrivals of one operation in one process.

    :param offset: 0 to 1, where between two arrivals this process has its own, so that workers interleave.
    :param rng: for Poisson arrivals; None spaces them evenly.
    """

    def __init__(self, offset: float = 0.0, rng: random.Random | None = None) -> None:
        self.offset = offset
        self._rng = rng
        self.stage = -1
        self.rate = 0.0
        self.batch = 1
        self._next = math.inf

    def set(self, stage: int, rate: float, batch: int, now: float) -> int:
        """From ``now`` on ``rate`` units a second in requests of ``batch``. Returns the units that were due, not taken.

        A change of rate within a stage keeps the pace: the time to the next arrival shrinks or stretches with it.
        """
        if batch < 1 or rate < 0:
            raise ValueError(f"a schedule needs a batch of 1 or more and a rate of 0 or more, got {batch} and {rate}")
        unsent = 0
        same = stage == self.stage
        if not same:
            unsent = self.waiting(now) * self.batch
        left = (self._next - now) * self.rate / self.batch if same and self.rate > 0 else None
        self.stage, self.rate, self.batch = stage, rate, batch
        if rate <= 0:
            self._next = math.inf
        elif left is not None and left <= 0:
            pass  # What is overdue stays due when it was.
        else:
            self._next = now + (self.offset if left is None else min(left, 1.0)) * batch / rate
        return unsent

    def due(self) -> float:
        """When the next arrival is due; ``inf`` without a load."""
        return self._next

    def take(self) -> Arrival:
        """Claim the next arrival, due or not."""
        taken = Arrival(self._next, self.stage, self.batch)
        self._next += self._gap()
        return taken

    def waiting(self, now: float) -> int:
        """How many arrivals are due and not taken."""
        if self.rate <= 0 or self._next > now:
            return 0
        return int((now - self._next) * self.rate / self.batch) + 1

    def _gap(self) -> float:
        mean = self.batch / self.rate
        return mean if self._rng is None else self._rng.expovariate(1 / mean)


def batch_for(rate: float, most: int, calls_per_second: float = 20.0) -> int:
    """Units a request so that ``rate`` comes in about ``calls_per_second`` requests, 1 to ``most``.

    Requests that are few and large would arrive as bursts and meet a bucket's depth, not its rate.
    """
    return max(1, min(most, math.ceil(rate / calls_per_second)))
