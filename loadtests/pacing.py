"""When each request is due: arrivals by schedule, whatever became of the last (an open model).

A :class:`Schedule` is one process's share of a rate. Its arrivals are evenly spaced, or a Poisson process; users
take the next one, wait until it is due, and send. When all users are busy arrivals wait, their due times do not
move, and the latency of what is sent late says so.
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

    def set(self, stage: int, rate: float, batch: int, now: float) -> None:
        """From ``now`` on ``rate`` units a second in requests of ``batch``. Take what is due before.

        A change of rate within a stage keeps the pace: the time to the next arrival shrinks or stretches with it.
        """
        if batch < 1 or rate < 0:
            raise ValueError(f"a schedule needs a batch of 1 or more and a rate of 0 or more, got {batch} and {rate}")
        same = stage == self.stage and self.rate > 0
        # As a part of the time between two arrivals, so that a ramp of many small changes does not restart the wait.
        left = min((self._next - now) * self.rate / self.batch, 1.0) if same else self.offset
        self.stage, self.rate, self.batch = stage, rate, batch
        self._next = now + max(left, 0.0) * batch / rate if rate > 0 else math.inf

    def due(self) -> float:
        """When the next arrival is due; ``inf`` without a load."""
        return self._next

    def take(self) -> Arrival:
        """Claim the next arrival, due or not."""
        taken = Arrival(self._next, self.stage, self.batch)
        self._next += self._gap()
        return taken

    def _gap(self) -> float:
        mean = self.batch / self.rate
        return mean if self._rng is None else self._rng.expovariate(1 / mean)


def batch_for(rate: float, most: int, calls_per_second: float = 20.0) -> int:
    """Units a request so that ``rate`` comes in about ``calls_per_second`` requests, 1 to ``most``.

    Requests that are few and large would arrive as bursts and meet a bucket's depth, not its rate.
    """
    return max(1, min(most, math.ceil(rate / calls_per_second)))
