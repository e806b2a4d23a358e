"""The finish function in virtual time: two writes a finisher, in slices of 1, 2, 4 ... 25, backing off when refused."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from consumers.runtime.actions import Invoke
from consumers.runtime.batches import Outcome
from consumers.store import BATCH_WRITE_MAX_ITEMS, Deadline
from simulator.capacity.arrivals import Kind, Page, Run
from simulator.capacity.clock import Clock, Process
from simulator.capacity.delays import Delays
from simulator.capacity.handlers import Durations, ReadOnly, complete, runs_of
from simulator.capacity.items import League
from simulator.capacity.tables import Table

if TYPE_CHECKING:
    from simulator.capacity.reading import Reader


@dataclass(slots=True)
class _Finishing:
    """Which writes of a batch of finishers are done: what its environment remembers until all are."""

    races: set[int] = field(default_factory=set)
    bests: set[int] = field(default_factory=set)


class Final(ReadOnly):
    """:mod:`consumers.final_results`: two writes a finisher, in slices; short of time, what is left is reported."""

    def __init__(
        self,
        table: Table,
        league: League,
        durations: Durations,
        clock: Clock,
        rng: random.Random,
        delays: Delays,
        timeout_s: float,
    ) -> None:
        super().__init__(durations, clock, delays)
        self._table = table
        self._league = league
        self._rng = rng
        self._timeout_s = timeout_s
        self._memories: dict[tuple[str, int], _Finishing] = {}

    def rests_through(self, reader: Reader, page: Page) -> bool:
        return not page.has_finals

    def rested(self, reader: Reader, at: float, reads: int, records: int, begin: int) -> None:
        """None of them was a finish."""

    def why_never(self, left: Sequence[Reader], until: float) -> str:
        """A finish costs at least its race's item."""
        finishers = left[0].arrivals.finals - self._delays.messages
        item = self._league.finish_item(Kind(0, 0, True))
        return self._table.why_never(finishers, None, item, self._clock.now, until)

    def work(self, reader: Reader, action: Invoke) -> Process[Outcome]:
        started = self._clock.now
        yield self.base_s(action.count)
        runs = runs_of(action)
        if not any(run.kind.is_final for run in runs):
            return complete(action, b"{}")
        # The place of each finisher's record in the batch.
        positions: list[int] = []
        finishers: list[Run] = []
        place = 0
        for run in runs:
            if run.kind.is_final:
                positions += range(place, place + run.count)
                finishers += [run] * run.count
            place += run.count
        memory = self._memories.setdefault((reader.label, action.lane), _Finishing())
        stop_at = started + self._timeout_s - min(Deadline.MARGIN_MS / 1e3, self._timeout_s * Deadline.MARGIN_SHARE)
        done = yield from self._write(finishers, memory, stop_at)
        for run in finishers[:done]:
            self._delays.add(run, 1, self._clock.now)
        if done == len(positions):
            memory.races.clear()
            memory.bests.clear()
            return complete(action, b"{}")
        memory.races = {one - done for one in memory.races if one >= done}
        memory.bests = {one - done for one in memory.bests if one >= done}
        problem = ("Alleycat.PartialBatch", f"{len(positions) - done} finishes are left")
        return Outcome(positions[done], problem)

    def _write(self, finishers: list[Run], memory: _Finishing, stop_at: float) -> Process[int]:
        """How many of the first are written."""
        table, clock, call_s = self._table, self._clock, self._durations.call_ms / 1e3
        done = attempt = 0
        size = 1
        while done < len(finishers) and clock.now < stop_at:
            before = done
            part = range(done, min(done + size, len(finishers)))
            throttled = False
            missing = [place for place in part if place not in memory.races]
            if missing:
                yield call_s
                for place in missing:
                    if table.put(None, self._league.finish_item(finishers[place].kind), clock.now, "finish"):
                        memory.races.add(place)
                    else:
                        throttled = True
            for place in part:
                if place not in memory.races or place in memory.bests:
                    continue
                if clock.now >= stop_at:
                    break
                yield call_s
                if not self._put_best(finishers[place].kind):
                    throttled = True
                    break
                memory.bests.add(place)
            while done < len(finishers) and done in memory.races and done in memory.bests:
                done += 1
            if not throttled:
                size, attempt = min(size * 2, BATCH_WRITE_MAX_ITEMS), 0
                continue
            size = max(1, size // 2)
            attempt = 1 if done > before else attempt + 1
            ceiling_s = min(Deadline.PAUSE_MAX_MS, Deadline.PAUSE_BASE_MS * 2 ** min(attempt - 1, 10)) / 1e3
            pause_s = ceiling_s * (0.5 + 0.5 * self._rng.random())
            if clock.now + pause_s >= stop_at:
                break
            yield pause_s
        return done

    def _put_best(self, kind: Kind) -> bool:
        """The class best: new in the first race; later better with probability 1 / (races so far)."""
        table, now = self._table, self._clock.now
        before, after = self._league.best_item(kind), self._league.best_item(kind)
        if kind.race == 0:
            return table.put(None, after, now, "first best")
        if self._rng.random() * (kind.race + 1) < 1:
            return table.put(before, after, now, "better")
        return table.put_refused_by_condition(before, after, now)
