"""What handlers do in virtual time: each a process that yields the seconds it takes, and writes what it would write.

Ours are known by their names; any other function is taken to read its batch and write nothing, and the plan says so.
Durations are a model with three numbers (:class:`Durations`), waits are the handlers' and botocore's own: a throttled
call of the window function is tried up to 20 times, after ``random() * min(2 ** (n - 1), 20)`` seconds (botocore's
``standard`` mode, throttling errors). Not modelled: botocore's retry quota.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from consumers import tumbling_window
from consumers.runtime.actions import Invoke
from consumers.runtime.batches import Outcome
from consumers.runtime.event import Window
from consumers.runtime.windows import STATE_MAX_BYTES, OpenWindow
from simulator.capacity.arrivals import TICKS, Page, Run
from simulator.capacity.clock import Clock, Process
from simulator.capacity.delays import Delays
from simulator.capacity.items import League, ResultsItem
from simulator.capacity.tables import Table
from simulator.capacity.timeline import Timeline
from simulator.cloud import limits
from simulator.cloud.item_size import Item, item_size

if TYPE_CHECKING:
    from simulator.capacity.reading import Reader

LIVE, FINAL = "consumers.tumbling_window.handler", "consumers.final_results.handler"
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

    def base_s(self, records: int) -> float:
        """Of an invocation with so many records, besides its calls."""
        return self.invocation_ms / 1e3 + records * self.record_us / 1e6


class Handler(Protocol):
    """What a function does with a batch, and what it does not mind. The last six are asked by a reader that wants to
    rest (:mod:`simulator.capacity.reading`)."""

    def work(self, reader: Reader, action: Invoke) -> Process[Outcome]: ...

    def read(self, action: Invoke) -> Process[Outcome]: ...

    def base_s(self, records: int) -> float: ...

    def attach(self, reader: Reader) -> None: ...

    def needs_from(self, reader: Reader) -> int: ...

    def rests_until(self, reader: Reader) -> float: ...

    def rests_through(self, reader: Reader, page: Page) -> bool: ...

    def rested(self, reader: Reader, at: float, reads: int, records: int, begin: int) -> None: ...

    def state_max_bytes(self, place: int) -> int: ...

    def window_of(self, reader: Reader) -> OpenWindow | None: ...

    def why_never(self, left: Sequence[Reader], until: float) -> str: ...


def runs_of(action: Invoke) -> list[Run]:
    """The records of a batch, as they are in a plan."""
    return [record for record in action.records if isinstance(record, Run)]


@dataclass(slots=True)
class _Opened:
    """The window that a reader is in: the records seen in it by race and class, and the position of the first."""

    window: Window | None = None
    first: int = 0
    seen: Counter[tuple[int, int]] = field(default_factory=Counter)


class ReadOnly:
    """Reads its batch; with windows, keeps a state of nothing."""

    def __init__(self, durations: Durations, clock: Clock, delays: Delays) -> None:
        self._durations = durations
        self._clock = clock
        self._delays = delays
        self._opened: dict[str, _Opened] = {}

    def base_s(self, records: int) -> float:
        return self._durations.base_s(records)

    def attach(self, reader: Reader) -> None:
        self._opened[reader.label] = _Opened()

    def work(self, reader: Reader, action: Invoke) -> Process[Outcome]:
        yield self.base_s(action.count)
        opened = self._open(reader, action)
        if action.window is None:
            for run in runs_of(action):
                self._delays.add(run, run.count, self._clock.now)
        if action.is_final:
            self._close(reader, opened)
        return complete(action, b"{}")

    def read(self, action: Invoke) -> Process[Outcome]:
        """As :meth:`work`, for a table's stream: none of its records is a message."""
        yield self.base_s(action.count)
        return complete(action, b"{}")

    def _open(self, reader: Reader, action: Invoke) -> _Opened:
        """The window of this batch, which may be a new one."""
        opened = self._opened[reader.label]
        if opened.window != action.window:
            opened.window, opened.first, opened.seen = action.window, reader.processed, Counter()
        return opened

    def _close(self, reader: Reader, opened: _Opened) -> None:
        """Everything in the window can be seen now."""
        for chunk in reader.arrivals.chunks(reader.place, opened.first, reader.processed):
            self._delays.add_chunk(chunk, self._clock.now)
        opened.window = None

    def needs_from(self, reader: Reader) -> int:
        opened = self._opened[reader.label]
        return reader.processed if opened.window is None else opened.first

    def rests_until(self, reader: Reader) -> float:
        if not reader.mapping.tumbling_window_s:
            return math.inf
        window = self._opened[reader.label].window
        # What comes next opens one.
        return -math.inf if window is None else float(window.end_s)

    def rests_through(self, reader: Reader, page: Page) -> bool:
        return True

    def rested(self, reader: Reader, at: float, reads: int, records: int, begin: int) -> None:
        if reader.mapping.tumbling_window_s:
            return
        duration_s = self.base_s(records)
        for number in range(reads):
            for chunk in reader.arrivals.chunks(reader.place, begin, begin + records):
                self._delays.add_chunk(chunk, at + number * reader.settings.poll_interval_s + duration_s)
            begin += records

    def state_max_bytes(self, place: int) -> int:
        return 2

    def window_of(self, reader: Reader) -> OpenWindow | None:
        window = self._opened[reader.label].window
        return None if window is None else OpenWindow(window, b"{}")

    def why_never(self, left: Sequence[Reader], until: float) -> str:
        """Why what is ``left`` to be done by readers cannot be by ``until``, in words; empty where it might be."""
        return ""


class Live(ReadOnly):
    """:mod:`consumers.tumbling_window`: with windows only the last invocation of one writes."""

    def __init__(
        self,
        table: Table,
        league: League,
        durations: Durations,
        clock: Clock,
        timeline: Timeline,
        rng: random.Random,
        delays: Delays,
    ) -> None:
        super().__init__(durations, clock, delays)
        self._table = table
        self._league = league
        self._timeline = timeline
        self._rng = rng
        # Readers whose results item is too large.
        self._stuck: set[str] = set()

    def work(self, reader: Reader, action: Invoke) -> Process[Outcome]:
        yield self.base_s(action.count)
        opened = self._open(reader, action)
        runs = runs_of(action)
        seen: Counter[tuple[int, int]] = Counter()
        for run in runs:
            seen[run.kind.race, run.kind.class_place] += run.count
        if action.window is not None and not action.is_final:
            # A retry of a window's batch gets the state that it came with, so only success adds to it.
            opened.seen += seen
            return complete(action, self._state(reader.place, opened))
        for of, count in (opened.seen if action.is_final else seen).items():
            if not (yield from self._merge(reader, action, opened, of, count)):
                return Outcome(0, _REFUSED, function_error="Unhandled")
        if action.is_final:
            self._close(reader, opened)
        for run in runs:
            self._delays.add(run, run.count, self._clock.now)
        return complete(action, b"{}")

    def _improves(self, reader: Reader, action: Invoke, opened: _Opened, of: tuple[int, int]) -> bool:
        """Whether somebody of that race and class was better than ever in a window or a batch: O(its records)."""
        return self._league.improves(reader.place, of, *self._due(reader, action, opened, of))

    @staticmethod
    def _due(reader: Reader, action: Invoke, opened: _Opened, of: tuple[int, int]) -> tuple[float, float]:
        """The ticks in which the first and the last message of that race and class were due, of a window or a batch.
        What producers had to send again was due before it came."""
        arrivals, window = reader.arrivals, action.window
        if window is None:
            mine = [run for run in runs_of(action) if (run.kind.race, run.kind.class_place) == of]
            first, last = (arrivals.tick_of(run.arrival_s) - 1 for run in (mine[0], mine[-1]))
            return first - max(run.wait_ticks for run in mine), last
        first_tick, end = ((at - arrivals.start_s) * TICKS for at in (window.start_s, window.end_s))
        chunks = arrivals.chunks(reader.place, opened.first, reader.processed)
        return first_tick - 1 - max((max(one.waits) for one in chunks if one.waits), default=0.0), end - 1

    def _state(self, place: int, opened: _Opened) -> bytes:
        racers = sum(self._league.racers_seen(place, of, count) for of, count in opened.seen.items())
        return b"{" + b" " * (_STATE_BYTES_PER_RACER * racers) + b"}"

    def rests_until(self, reader: Reader) -> float:
        if not reader.mapping.tumbling_window_s or self.state_max_bytes(reader.place) > STATE_MAX_BYTES:
            return -math.inf
        return super().rests_until(reader)

    def rested(self, reader: Reader, at: float, reads: int, records: int, begin: int) -> None:
        opened = self._opened[reader.label]
        kinds = reader.arrivals.kinds_between(reader.place, begin, begin + reads * records)
        for kind, count in kinds.items():
            opened.seen[kind.race, kind.class_place] += count

    def why_never(self, left: Sequence[Reader], until: float) -> str:
        """Each must read and put a results item that is no smaller than it is now; or cannot, as it is too large."""
        mapping = left[0].mapping
        retries_for_ever = mapping.maximum_retry_attempts < 0 and mapping.maximum_record_age_s < 0
        if retries_for_ever and any(reader.label in self._stuck for reader in left):
            return f"a results item of {self._table.name} would be larger than {limits.ITEM_MAX_BYTES.value:,.0f} bytes"
        smallest = min(self._league.all_results(), key=lambda one: one.racers)
        image = smallest.image()
        if image is None:
            return ""
        return self._table.why_never(len(left), image, image, self._clock.now, until)

    def state_max_bytes(self, place: int) -> int:
        return 2 + _STATE_BYTES_PER_RACER * self._league.racers_on(place)

    def window_of(self, reader: Reader) -> OpenWindow | None:
        opened = self._opened[reader.label]
        return None if opened.window is None else OpenWindow(opened.window, self._state(reader.place, opened))

    def _merge(self, reader: Reader, action: Invoke, opened: _Opened, of: tuple[int, int], count: int) -> Process[bool]:
        """``RaceTable.merge_results``: read, merge, put on condition that nobody wrote in between; nothing where nobody
        was better than ever."""
        table, item, shard = self._table, self._league.results(of), reader.place
        racers = self._league.racers_seen(shard, of, count)
        conflicts = 0
        while True:
            if not (yield from self._call(lambda: table.get(item.read_units, item.key, self._clock.now))):
                return False
            if not item.lacks(shard, racers) and not self._improves(reader, action, opened, of):
                return True
            read = item.version
            if not self._fits(item.image_with(shard, racers)):
                self._stuck.add(reader.label)
                return False
            self._stuck.discard(reader.label)
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
        self._timeline.broke(most.name, self._table.name, most.value, most.unit, self._clock.now)
        return False

    def _put_results(self, item: ResultsItem, shard: int, racers: int, read: int) -> bool:
        if item.version == read:
            return self._table.put(item.image(), item.image_with(shard, racers), self._clock.now)
        return self._table.put_refused_by_condition(item.image(), item.key, self._clock.now)

    def _call(self, call: Callable[[], bool]) -> Process[bool]:
        """A call by botocore: throttled, it is tried again, as often as the handler lets it."""
        for attempt in range(1, tumbling_window.TOTAL_MAX_ATTEMPTS + 1):
            yield self._durations.call_ms / 1e3
            if call():
                return True
            if attempt < tumbling_window.TOTAL_MAX_ATTEMPTS:
                yield self._rng.random() * min(2.0 ** (attempt - 1), 20.0)
        return False


def complete(action: Invoke, state: bytes) -> Outcome:
    """All of a batch is processed."""
    return Outcome(action.count, state=None if action.window is None else state)
