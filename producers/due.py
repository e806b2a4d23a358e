"""Records that wait for their time."""

from __future__ import annotations

import heapq
import itertools
from bisect import bisect_right
from collections.abc import Sequence
from operator import attrgetter, itemgetter

from producers.delivery import Record


class DueQueue:
    """Gives records out when they are due, in order of due time; of equals, the one added first is first.

    Records that were added together stay together as one sorted run, so a second's messages of a race cost one
    sort, one heap entry, and a bisection each time that some of them become due.
    """

    __slots__ = ("_numbers", "_runs")

    def __init__(self) -> None:
        # (next due, run number, dues, records, index of the next)
        self._runs: list[tuple[float, int, list[float], list[Record], int]] = []
        self._numbers = itertools.count()

    def add(self, records: Sequence[Record]) -> None:
        """Take one or more records. O(n) when they are sorted already."""
        ordered = sorted(records, key=_due)
        dues = list(map(_due, ordered))
        heapq.heappush(self._runs, (dues[0], next(self._numbers), dues, ordered, 0))

    def next_due(self) -> float | None:
        """When the next record is due."""
        return self._runs[0][0] if self._runs else None

    def pop_due(self, now: float) -> list[Record]:
        """Remove and return what is due at ``now``."""
        parts: list[tuple[int, list[Record]]] = []
        while self._runs and self._runs[0][0] <= now:
            _, number, dues, records, start = heapq.heappop(self._runs)
            end = bisect_right(dues, now, start)
            parts.append((number, records[start:end]))
            if end < len(records):
                heapq.heappush(self._runs, (dues[end], number, dues, records, end))
        if len(parts) == 1:
            return parts[0][1]
        # The sort is stable, so runs have to be in the order in which they were added.
        parts.sort(key=itemgetter(0))
        return sorted(itertools.chain.from_iterable(part for _, part in parts), key=_due)

    def clear(self) -> list[Record]:
        """Remove and return everything, by due time."""
        return self.pop_due(float("inf"))


_due = attrgetter("due_s")
