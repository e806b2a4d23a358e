"""Virtual time: a number that jumps to whatever happens next."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Generator
from typing import TypeVar

Result = TypeVar("Result")
Process = Generator[float, None, Result]
"""Something that takes time: it yields the seconds that it waits, and returns what came out."""


class Clock:
    """Runs what was planned, in the order of time and, at one time, of planning. ``now`` is in seconds since the
    epoch."""

    def __init__(self, now: float) -> None:
        self.now = now
        self._planned: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def at(self, when: float, do: Callable[[], None]) -> None:
        """Plan ``do`` for ``when``, which may not be in the past (it is then done next)."""
        heapq.heappush(self._planned, (max(when, self.now), next(self._numbers), do))

    def next_at(self) -> float:
        """When the next thing happens; ``inf`` when nothing is planned."""
        return self._planned[0][0] if self._planned else math.inf

    def run_until(self, when: float) -> None:
        """Do everything planned up to ``when``, and be there."""
        planned = self._planned
        while planned and planned[0][0] <= when:
            self.now, _, do = heapq.heappop(planned)
            do()
        self.now = max(self.now, when)

    def start(
        self, process: Process[Result], done: Callable[[Result], None], *, within_s: float, late: Callable[[], None]
    ) -> None:
        """Run ``process``; call ``done`` with its result, or ``late`` when it is not finished after ``within_s``: it is
        then ended where it stands."""
        deadline = self.now + within_s

        def resume() -> None:
            try:
                wake_at = self.now + next(process)
            except StopIteration as stop:
                done(stop.value)
                return
            if wake_at > deadline:
                process.close()
                self.at(deadline, late)
            else:
                self.at(wake_at, resume)

        resume()
