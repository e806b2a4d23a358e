"""What the shards of a stream hold in virtual time: who sent it and when it came, not the bytes.

Producers run ahead of consumers, a second at a time, in ticks of the producer's linger. Seconds that are alike are one
:class:`Page`, so a race in which nothing is refused is two of them, however long it is::

    page          | 0 ... 298: each second the same counts by tick and shard | 299: finals |
    position of a shard   base + seconds * total + cumulative[tick]

A reader gets :class:`Run` s, each a record of the consumer runtime that stands for all of one kind that came in one
tick; the runtime's own state machines cut batches of them as of any other.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from consumers.runtime.event import Record
from simulator.cloud import limits

Indices = npt.NDArray[np.int64]
Waits = npt.NDArray[np.float64]

LINGER_MS = 20
TICKS = 1000 // LINGER_MS
TICK_S = LINGER_MS / 1000


class Kind(NamedTuple):
    """What a record is, as functions need to know it: the race and class by their places in the workload, and the lane
    that its partition key decides (see :class:`Lanes`)."""

    race: int
    class_place: int
    is_final: bool
    lane: int = 0


class Run(Record, frozen=True, gc=False):
    """``count`` records of one ``kind`` that came in one tick; each waited ``wait_ticks`` beyond it, on average."""

    kind: Kind = Kind(0, 0, False)
    wait_ticks: float = 0.0


class Chunk(NamedTuple):
    """``counts`` records of a shard came in the ticks from ``first_tick`` on (ticks since the first race began).
    ``waits`` are the ticks that each of them waited for its acceptance beyond its own, on average; None: none did."""

    first_tick: int
    counts: Sequence[int]
    waits: Sequence[float] | None


class Column:
    """One shard's part of a page's second: ``cumulative`` has ``TICKS + 1`` counts; ``runs`` are (tick, kind, count,
    how many came before it in the second)."""

    __slots__ = ("counts", "cumulative", "runs", "total", "waits")

    def __init__(self, parts: Sequence[tuple[Kind, Indices]], waits: Waits | None, shard: int) -> None:
        by_kind = [(kind, counts[:, shard].tolist()) for kind, counts in parts]
        self.cumulative = [0]
        self.runs: list[tuple[int, Kind, int, int]] = []
        before = 0
        for tick in range(TICKS):
            for kind, counts in by_kind:
                if counts[tick]:
                    self.runs.append((tick, kind, counts[tick], before))
                    before += counts[tick]
            self.cumulative.append(before)
        self.total = before
        self.counts = [after - first for first, after in pairwise(self.cumulative)]
        self.waits: list[float] | None = None
        if waits is not None:
            # Of each record.
            self.waits = [
                wait / count if count else 0.0
                for wait, count in zip(waits[:, shard].tolist(), self.counts, strict=True)
            ]

    def by_kind(self, low: int, high: int) -> Iterator[tuple[Kind, int]]:
        """How many of each kind there are from the ``low``-th to the ``high``-th record of the second."""
        for _, kind, count, before in self.runs:
            taken = min(before + count, high) - max(before, low)
            if taken > 0:
                yield kind, taken


class Page:
    """``seconds`` seconds alike, from second ``first`` on. ``parts`` has counts of (tick, shard) by kind, ``waits`` the
    ticks beyond their own that those of (tick, shard) waited in all. ``base`` are the shards' positions before."""

    def __init__(
        self,
        first: int,
        seconds: int,
        base: Indices,
        parts: Sequence[tuple[Kind, Indices]],
        waits: Waits | None,
    ) -> None:
        self.first = first
        self.seconds = seconds
        self.base = base
        self.parts = parts
        self.waits = waits
        shape = base.shape
        self.totals: Indices = sum((counts.sum(axis=0) for _, counts in parts), np.zeros(shape, np.int64))
        self.has_finals = any(kind.is_final for kind, _ in parts)
        self._columns: dict[int, Column] = {}

    @cached_property
    def end(self) -> Indices:
        """The shards' positions after it."""
        return self.base + self.totals * self.seconds

    @property
    def until(self) -> int:
        return self.first + self.seconds

    def column(self, shard: int) -> Column:
        """What one second of it has of ``shard``."""
        known = self._columns.get(shard)
        if known is None:
            known = self._columns[shard] = Column(self.parts, self.waits, shard)
        return known


class Arrivals:
    """The records of all shards, known up to :attr:`until_s`. Times are in seconds since the epoch; ``finals`` counts
    those of a last second.

    ``updates`` and ``finals`` are an event's entries that stand for all of theirs, ``lane_keys`` a partition key of
    each lane. A read ends at ``read_max`` records, which is what 10,000 records or 10 MiB allow.
    """

    def __init__(
        self,
        start_s: float,
        shards: int,
        updates: bytes = b"{}",
        finals: bytes = b"{}",
        record_bytes: int = 200,
        lane_keys: Sequence[str] = ("",),
    ) -> None:
        self.start_s = start_s
        self.record_bytes = record_bytes
        self.encoded = (updates, finals)
        self.read_max = min(
            int(limits.GET_RECORDS_MAX_RECORDS), max(1, int(limits.GET_RECORDS_MAX_BYTES) // record_bytes)
        )
        self._lane_keys = lane_keys
        self._pages: list[Page] = []
        self._firsts: list[int] = []
        self._end: Indices = np.zeros(shards, np.int64)
        self._until = 0
        self.finals = 0

    # -- for producers ---------------------------------------------------------------------------------

    def append(self, seconds: int, parts: Sequence[tuple[Kind, Indices]], waits: Waits | None = None) -> None:
        """The next ``seconds`` seconds bring ``parts`` each: counts of shape (ticks, shards) by kind, which are kept
        and must not change afterwards."""
        page = Page(self._until, seconds, self._end, parts, waits)
        self._pages.append(page)
        self._firsts.append(page.first)
        self._end = page.end
        self._until = page.until
        self.finals += seconds * sum(int(counts.sum()) for kind, counts in parts if kind.is_final)

    @property
    def until(self) -> int:
        """How many seconds from the start are known."""
        return self._until

    @property
    def until_s(self) -> float:
        """Up to when arrivals are known."""
        return self.start_s + self._until

    # -- for readers -----------------------------------------------------------------------------------

    def tick_of(self, now: float) -> int:
        """How many ticks since the start are over at ``now``: what came in them is there. Times are sums of floats."""
        return max(0, int((now - self.start_s) * TICKS + 1e-4))

    def page_at(self, second: int) -> Page | None:
        """The page of that second; None when it is not known."""
        index = bisect_right(self._firsts, second) - 1
        if index < 0 or second >= self._pages[index].until:
            return None
        return self._pages[index]

    def end(self, shard: int, now: float) -> int:
        """How many records of ``shard`` came by ``now``."""
        second, tick = divmod(self.tick_of(now), TICKS)
        page = self.page_at(second)
        if page is None:
            return int(self._end[shard]) if second >= self._until else int(self._pages[0].base[shard])
        column = page.column(shard)
        return int(page.base[shard]) + (second - page.first) * column.total + column.cumulative[tick]

    def total(self, shard: int) -> int:
        """How many records of ``shard`` are known."""
        return int(self._end[shard])

    def _seconds(self, shard: int, begin: int, end: int) -> Iterator[tuple[Column, int, int]]:
        """Those that hold the records at positions ``begin`` to ``end``: what came in each, which second it is, and the
        position of its first record."""
        index = self._page_of(shard, begin) if begin < end else 0
        while begin < end:
            page = self._pages[index]
            index += 1
            column, base = page.column(shard), int(page.base[shard])
            if not column.total:
                continue
            for place in range((begin - base) // column.total, page.seconds):
                first = base + place * column.total
                yield column, page.first + place, first
                begin = first + column.total
                if begin >= end:
                    return

    def runs(self, shard: int, begin: int, end: int) -> list[Run]:
        """The records at positions ``begin`` to ``end``: O(runs)."""
        found: list[Run] = []
        for column, second, first in self._seconds(shard, begin, end):
            for tick, kind, count, before in column.runs:
                at = first + before
                if at + count <= begin:
                    continue
                if at >= end:
                    break
                arrival_s = self.start_s + second + (tick + 1) / TICKS
                count = min(at + count, end) - begin
                encoded, key = self.encoded[kind.is_final], self._lane_keys[kind.lane]
                wait = column.waits[tick] if column.waits is not None else 0.0
                found.append(Run(str(begin), arrival_s, encoded, key, count, kind, wait))
                begin += count
        return found

    def chunks(self, shard: int, begin: int, end: int) -> Iterator[Chunk]:
        """When the records at positions ``begin`` to ``end`` came, a chunk a second."""
        for column, second, first in self._seconds(shard, begin, end):
            low, high = begin - first, min(end - first, column.total)
            if low <= 0 and high == column.total:
                counts: Sequence[int] = column.counts
            else:
                ends = [min(max(one, low), high) for one in column.cumulative]
                counts = [after - before for before, after in pairwise(ends)]
            yield Chunk(second * TICKS, counts, column.waits)

    def kinds_between(self, shard: int, begin: int, end: int) -> dict[Kind, int]:
        """How many records of each kind there are at positions ``begin`` to ``end``: O(pages x runs of a second)."""
        found: dict[Kind, int] = {}
        index = self._page_of(shard, begin) if begin < end else 0
        while begin < end:
            page = self._pages[index]
            index += 1
            column, base = page.column(shard), int(page.base[shard])
            last = min(end, base + column.total * page.seconds)
            if len(page.parts) == 1:
                kind = page.parts[0][0]
                found[kind] = found.get(kind, 0) + last - begin
                begin = last
            while begin < last:
                low = (begin - base) % column.total
                whole = 0 if low else (last - begin) // column.total
                high = column.total if whole else min(column.total, low + last - begin)
                for kind, count in column.by_kind(low, high):
                    found[kind] = found.get(kind, 0) + count * max(1, whole)
                begin += (high - low) * max(1, whole)
        return found

    def arrived_s(self, shard: int, position: int) -> float:
        """When the record at ``position`` came."""
        page = self._pages[self._page_of(shard, position)]
        column = page.column(shard)
        place, rest = divmod(position - int(page.base[shard]), column.total)
        return self.start_s + (page.first + place) + bisect_right(column.cumulative, rest) / TICKS

    def forget(self, positions: Sequence[int]) -> None:
        """Nobody asks for what lies before each shard's position any more."""
        needed = np.asarray(positions, np.int64)
        keep = 0
        while keep < len(self._pages) - 1 and bool((self._pages[keep].end <= needed).all()):
            keep += 1
        del self._pages[:keep]
        del self._firsts[:keep]

    def _page_of(self, shard: int, position: int) -> int:
        return bisect_right(self._pages, position, key=lambda page: int(page.base[shard])) - 1
