"""What a plan looks at besides messages: what tables have saved, how far consumers are behind, when they are done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from simulator.capacity.clock import Clock
from simulator.capacity.functions import Function
from simulator.capacity.reading import Reader
from simulator.capacity.table_reading import TableReader
from simulator.capacity.tables import Table
from simulator.capacity.timeline import Timeline

GIVEN_UP = ("given_up", "expired")
"""Records that no function will process: by a mapping's retries or its age limit, or by the stream's retention."""
_HOPES_S = 10.0
"""How often it is asked whether consumers still can catch up."""


class Levels:
    """What tables have saved, told at the end of each second."""

    def __init__(self, clock: Clock, tables: Sequence[Table], start_s: float) -> None:
        self._clock = clock
        self._tables = tables
        self._next = start_s + 1
        self._runs = bool(tables)
        self._plan()

    def _plan(self) -> None:
        if self._runs:
            self._clock.at(self._next, self._tell)

    def _tell(self) -> None:
        for table in self._tables:
            # It belongs to the second that it ends.
            table.record_levels(self._clock.now - 1e-3)
        self._next += 1
        self._plan()

    def stop(self) -> None:
        """Nothing more happens."""
        self._runs = False
        for table in self._tables:
            table.record_levels(self._clock.now)


def tell_backlog(timeline: Timeline, sources: Iterable[str], seconds: int) -> None:
    """Records on the stream that event ``sources`` have not processed, at the end of each second."""
    accepted = np.cumsum(timeline.summed("accepted", seconds))
    for name in set(sources):
        done = np.zeros(seconds)
        for metric in ("processed", *GIVEN_UP):
            done += timeline.series(metric, name, seconds)
        left = accepted - np.cumsum(done)
        timeline.set_series("backlog", name, left.tolist())


def drain(
    clock: Clock, readers: Sequence[Reader], table_readers: Sequence[TableReader], end: float, drain_s: float
) -> tuple[float | None, str]:
    """Run on until consumers have caught up; when that was, from ``end``, to a tenth of a second. Or why they never
    will, once that is certain."""
    sent = clock.now
    give_up = max(sent, end) + drain_s
    asks_at = sent + _HOPES_S
    # Who has caught up with all that was sent stays so.
    left = list(readers)
    while True:
        while left and left[-1].schedule.caught_up(sent):
            left.pop()
        # What functions of the stream wrote last, functions of the table's stream read after that.
        if not left and all(one.caught_up(sent) for one in table_readers):
            return max(0.0, clock.now - end), ""
        if clock.now >= give_up:
            return None, ""
        if left and clock.now >= asks_at:
            asks_at = clock.now + _HOPES_S
            by_function: dict[Function, list[Reader]] = {}
            for one in left:
                if not one.schedule.caught_up(sent):
                    by_function.setdefault(one.function, []).append(one)
            reasons = {function.why_never(its, give_up) for function, its in by_function.items()}
            if "" not in reasons:
                return None, "; ".join(sorted(reasons))
        # Nothing changes before something that was planned happens.
        clock.run_until(min(give_up, max(clock.now + 0.1, clock.next_at())))
