"""Lambda functions in virtual time: how long an invocation takes, what it writes, and when it is killed.

What a handler *does* is a process that yields the seconds it takes; what it costs is the table's own arithmetic. Ours
are known by their handlers; any other function is taken to read its batch and write nothing, and the plan says so.

Durations are a model with three numbers (:class:`Durations`), waits are the handlers' and botocore's own: a throttled
call of the window function is tried up to 20 times, after ``random() * min(2 ** (n - 1), 20)`` seconds (botocore's
``standard`` mode, throttling errors); the finish function goes forward in slices of 1, 2, 4 ... 25 finishers and backs
off by :class:`consumers.store.Deadline`'s constants. Not modelled: cold starts, and botocore's retry quota.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from consumers import tumbling_window
from consumers.runtime.actions import Invoke
from consumers.runtime.batches import Outcome
from consumers.store import BATCH_WRITE_MAX_ITEMS, Deadline
from simulator.capacity.arrivals import Kind
from simulator.capacity.clock import Clock, Process
from simulator.capacity.items import League, ResultsItem
from simulator.capacity.reading import Reader
from simulator.capacity.tables import Table
from simulator.capacity.timeline import Timeline
from simulator.cloud import limits
from simulator.cloud.item_size import Item, item_size
from simulator.deployment import FunctionSpec

LIVE, FINAL = "consumers.tumbling_window.handler", "consumers.final_results.handler"
MODELLED = (LIVE, FINAL)
_REFUSED = ("StoreError", "the table refused a call, or took no more attempts of it")
_STATE_BYTES_PER_RACER = 14


@dataclass(frozen=True, slots=True)
class Durations:
    """Of a warm invocation, of each record in it, and of each call of DynamoDB.

    The defaults are round numbers for 512 MB of memory; what a race measured is better.
    """

    invocation_ms: float = 3.0
    record_us: float = 8.0
    call_ms: float = 5.0

    def __post_init__(self) -> None:
        for name, value in (
            ("invocation_ms", self.invocation_ms),
            ("record_us", self.record_us),
            ("call_ms", self.call_ms),
        ):
            if not 0 <= value <= 900_000:
                raise ValueError(f"{name} must be from 0 to 900,000, not {value}")


@dataclass(slots=True)
class FunctionTotals:
    """What a function did in all; ``duration_s`` is the sum."""

    invocations: int = 0
    errors: int = 0
    timeouts: int = 0
    throttles: int = 0
    duration_s: float = 0.0
    durations_s: list[float] = field(default_factory=list)


@dataclass(slots=True)
class _Memory:
    """What a function's environment keeps between invocations, of one shard: the records seen in the open window by
    race and class, and which writes of an unfinished batch of finishers are done."""

    window: Counter[tuple[int, int]] = field(default_factory=Counter)
    races: set[int] = field(default_factory=set)
    bests: set[int] = field(default_factory=set)


class Function:
    """One function of the deployment; shards invoke it side by side."""

    def __init__(
        self,
        spec: FunctionSpec,
        table: Table | None,
        league: League,
        durations: Durations,
        clock: Clock,
        timeline: Timeline,
        rng: random.Random,
    ) -> None:
        self.spec = spec
        self.totals = FunctionTotals()
        self._table = table
        self._league = league
        self._durations = durations
        self._clock = clock
        self._timeline = timeline
        self._rng = rng
        self._running = 0
        self._memories: dict[str, _Memory] = {}

    @property
    def is_modelled(self) -> bool:
        """Whether its writes are known."""
        return self._table is not None and self.spec.handler in MODELLED

    def invoke(self, reader: Reader, action: Invoke, done: Callable[[Outcome], None]) -> None:
        """Run one invocation; ``done`` gets its outcome when it ends, at once when there is no concurrency left."""
        name, clock, timeline = self.spec.name, self._clock, self._timeline
        reserved = self.spec.reserved_concurrency
        if reserved is not None and self._running >= reserved:
            self.totals.throttles += 1
            timeline.add("function_throttles", name, clock.now, 1)
            done(Outcome(0, is_throttled=True))
            return
        started = clock.now
        self._running += 1
        self.totals.invocations += 1
        timeline.add("invocations", name, started, 1)
        timeline.peak("concurrency", name, started, self._running)

        def ended(outcome: Outcome) -> None:
            duration_s = clock.now - started
            self._running -= 1
            self.totals.duration_s += duration_s
            self.totals.durations_s.append(duration_s)
            timeline.peak("duration_s", name, clock.now, duration_s)
            if outcome.function_error is not None:
                self.totals.errors += 1
                timeline.add("errors", name, clock.now, 1)
            done(outcome)

        def late() -> None:
            self.totals.timeouts += 1
            timeline.add("timeouts", name, clock.now, 1)
            timeline.broke("lambda.timeout_seconds", name, self.spec.timeout_s, "s", clock.now)
            ended(Outcome(0, ("Sandbox.Timedout", "Task timed out"), function_error="Unhandled"))

        clock.start(self._work(reader, action), ended, within_s=self.spec.timeout_s, late=late)

    def _work(self, reader: Reader, action: Invoke) -> Process[Outcome]:
        memory = self._memories.setdefault(f"{reader.label}/{action.lane}", _Memory())
        if self.is_modelled and self.spec.handler == LIVE:
            return self._live(reader, action, memory)
        if self.is_modelled:
            return self._final(reader, action, memory)
        return self._read_only(action)

    def _base_s(self, records: int) -> float:
        return self._durations.invocation_ms / 1e3 + records * self._durations.record_us / 1e6

    def _read_only(self, action: Invoke) -> Process[Outcome]:
        yield self._base_s(len(action.records))
        return _complete(action, b"{}")

    # -- live results ----------------------------------------------------------------------------------

    def _live(self, reader: Reader, action: Invoke, memory: _Memory) -> Process[Outcome]:
        """:mod:`consumers.tumbling_window`: with windows only the last invocation of one writes."""
        yield self._base_s(len(action.records))
        seen: Counter[tuple[int, int]] = Counter()
        for kind, records in reader.counted(action).items():
            seen[kind.race, kind.class_place] += records
        if action.window is not None and not action.is_final:
            # A retry of a window's batch gets the state that it came with, so only success adds to it.
            memory.window += seen
            racers = sum(self._league.racers_seen(reader.shard.index, of, count) for of, count in memory.window.items())
            return _complete(action, b"{" + b" " * (_STATE_BYTES_PER_RACER * racers) + b"}")
        merged = memory.window if action.is_final else seen
        for of, count in merged.items():
            written = yield from self._merge(reader.shard.index, of, count)
            if not written:
                return Outcome(0, _REFUSED, function_error="Unhandled")
        if action.is_final:
            memory.window = Counter()
        return _complete(action, b"{}")

    def _merge(self, shard: int, of: tuple[int, int], count: int) -> Process[bool]:
        """``RaceTable.merge_results``: read, merge, put on condition that nobody wrote in between."""
        table, item = self._the_table, self._league.results(of)
        racers = self._league.racers_seen(shard, of, count)
        conflicts = 0
        while True:
            if not (yield from self._call(lambda: table.get(item.image(), item.key, self._clock.now))):
                return False
            read = item.version
            if not self._fits(item.image_with(shard, racers)):
                return False
            put = yield from self._call(lambda: self._put_results(item, shard, racers, read))  # noqa: B023 - called here
            if not put:
                return False
            if item.version == read:
                item.take(shard, racers)
                return True
            conflicts += 1
            pause_s = tumbling_window.CONFLICT_PAUSE_S * 2 ** min(conflicts, 10)
            yield self._rng.random() * min(tumbling_window.CONFLICT_PAUSE_MAX_S, pause_s)

    def _fits(self, item: Item) -> bool:
        """DynamoDB refuses a larger item, whatever the capacity; the handler then fails, again and again."""
        size, most = item_size(item), limits.ITEM_MAX_BYTES
        if size <= most.value:
            return True
        self._timeline.broke(most.name, self._the_table.name, most.value, most.unit, self._clock.now)
        return False

    def _put_results(self, item: ResultsItem, shard: int, racers: int, read: int) -> bool:
        if item.version == read:
            return self._the_table.put(item.image(), item.image_with(shard, racers), self._clock.now)
        return self._the_table.put_refused_by_condition(item.image(), item.key, self._clock.now)

    def _call(self, call: Callable[[], bool]) -> Process[bool]:
        """A call by botocore: throttled, it is tried again, as often as the handler lets it."""
        for attempt in range(1, tumbling_window.TOTAL_MAX_ATTEMPTS + 1):
            yield self._durations.call_ms / 1e3
            if call():
                return True
            if attempt < tumbling_window.TOTAL_MAX_ATTEMPTS:
                yield self._rng.random() * min(2.0 ** (attempt - 1), 20.0)
        return False

    # -- finishes --------------------------------------------------------------------------------------

    def _final(self, reader: Reader, action: Invoke, memory: _Memory) -> Process[Outcome]:
        """:mod:`consumers.final_results`: two writes a finisher, in slices; short of time, what is left is reported."""
        started = self._clock.now
        yield self._base_s(len(action.records))
        if not any(kind.is_final for kind in reader.counted(action)):
            return _complete(action, b"{}")
        kinds = reader.kinds(action)
        positions = [place for place, kind in enumerate(kinds) if kind.is_final]
        table, durations = self._the_table, self._durations
        timeout_s = float(self.spec.timeout_s)
        stop_at = started + timeout_s - min(Deadline.MARGIN_MS / 1e3, timeout_s * Deadline.MARGIN_SHARE)
        done = attempt = 0
        size = 1
        while done < len(positions) and self._clock.now < stop_at:
            before = done
            part = range(done, min(done + size, len(positions)))
            throttled = False
            missing = [place for place in part if place not in memory.races]
            if missing:
                yield durations.call_ms / 1e3
                for place in missing:
                    if table.put(None, self._league.finish_item(kinds[positions[place]]), self._clock.now):
                        memory.races.add(place)
                    else:
                        throttled = True
            for place in part:
                if place not in memory.races or place in memory.bests:
                    continue
                if self._clock.now >= stop_at:
                    break
                yield durations.call_ms / 1e3
                if not self._put_best(kinds[positions[place]]):
                    throttled = True
                    break
                memory.bests.add(place)
            while done < len(positions) and done in memory.races and done in memory.bests:
                done += 1
            if not throttled:
                size, attempt = min(size * 2, BATCH_WRITE_MAX_ITEMS), 0
                continue
            size = max(1, size // 2)
            attempt = 1 if done > before else attempt + 1
            ceiling_s = min(Deadline.PAUSE_MAX_MS, Deadline.PAUSE_BASE_MS * 2 ** min(attempt - 1, 10)) / 1e3
            pause_s = ceiling_s * (0.5 + 0.5 * self._rng.random())
            if self._clock.now + pause_s >= stop_at:
                break
            yield pause_s
        if done == len(positions):
            memory.races.clear()
            memory.bests.clear()
            return _complete(action, b"{}")
        memory.races = {place - done for place in memory.races if place >= done}
        memory.bests = {place - done for place in memory.bests if place >= done}
        problem = ("Alleycat.PartialBatch", f"{len(positions) - done} finishes are left")
        return Outcome(positions[done], problem)

    def _put_best(self, kind: Kind) -> bool:
        """The class best: new in the first race; later better with probability 1 / (races so far)."""
        table, now = self._the_table, self._clock.now
        before, after = self._league.best_item(kind), self._league.best_item(kind)
        if kind.race == 0:
            return table.put(None, after, now)
        if self._rng.random() * (kind.race + 1) < 1:
            return table.put(before, after, now)
        return table.put_refused_by_condition(before, after, now)

    @property
    def _the_table(self) -> Table:
        assert self._table is not None
        return self._table


def _complete(action: Invoke, state: bytes) -> Outcome:
    return Outcome(len(action.records), state=None if action.window is None else state)
