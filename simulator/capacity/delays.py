"""How long messages took from when they were due until their effect could be seen, message by message.

Counted in ticks of 20 ms: from the beginning of the tick that a message was due in to the end of that in which it could
be seen, so that a delay is at most two ticks too long. Waits before acceptance are averaged over the messages of a
shard and tick.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import TYPE_CHECKING

from simulator.capacity.arrivals import LINGER_MS, TICKS, Chunk, Run

if TYPE_CHECKING:
    from simulator.capacity.model import Plan

SHARES = {"p50": 0.5, "p99": 0.99, "max": 1.0}


class Delays:
    """A histogram of what a function made visible; ``start_s`` is when the first race began."""

    def __init__(self, start_s: float) -> None:
        self._start_s = start_s
        self._counts: list[int] = []

    def add(self, run: Run, count: int, now: float) -> None:
        """``count`` of its records could be seen at ``now``."""
        arrived = round((run.arrival_s - self._start_s) * TICKS)
        self._reach(now, arrived - 1, run.wait_ticks)[self._place(now, arrived - 1, run.wait_ticks)] += count

    def add_chunk(self, chunk: Chunk, now: float) -> None:
        """All of its records could be seen at ``now``."""
        first, waits = self._place(now, chunk.first_tick, 0.0), chunk.waits
        counts = self._reach(now, chunk.first_tick, max(waits) if waits is not None else 0.0)
        if waits is None:
            for tick, count in enumerate(chunk.counts):
                if count:
                    counts[first - tick] += count
            return
        for tick, count in enumerate(chunk.counts):
            if count:
                counts[first - tick + round(waits[tick])] += count

    def _place(self, now: float, tick: int, wait_ticks: float) -> int:
        return max(1, int((now - self._start_s) * TICKS + 1e-4) + 1 - tick + round(wait_ticks))

    def _reach(self, now: float, tick: int, wait_ticks: float) -> list[int]:
        missing = self._place(now, tick, wait_ticks) + 2 - len(self._counts)
        if missing > 0:
            self._counts.extend([0] * missing)
        return self._counts

    @property
    def messages(self) -> int:
        """How many could be seen."""
        return sum(self._counts)

    def ms(self, share: float, messages: int | None = None) -> int | None:
        """The delay that ``share`` of ``messages`` (all that could be seen when None) did not exceed, in ms; None when
        so many were not seen."""
        wanted = share * (self.messages if messages is None else messages)
        for place, seen in enumerate(accumulate(self._counts)):
            if seen >= wanted - 1e-6:
                return place * LINGER_MS
        return None if wanted > 0 else 0

    def as_ms(self) -> Mapping[str, int]:
        """p50, p99 and max of what could be seen."""
        return {name: self.ms(share) or 0 for name, share in SHARES.items()}


def slowest_s(plan: Plan, share: float = 0.99) -> float | None:
    """Within how many seconds of being due ``share`` of all messages had the effect that bikers wait for
    (:attr:`simulator.capacity.functions.Function.is_live`), by the slowest such function; None when fewer had it."""
    found = 0.0
    live = [one for one in plan.functions if one.is_live] or [one for one in plan.functions if one.reads_stream]
    for function in live:
        delay_ms = function.delays.ms(share, plan.ledger.generated)
        if delay_ms is None:
            return None
        found = max(found, delay_ms / 1000)
    return found
