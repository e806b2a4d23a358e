"""Where producers meet the shards in virtual time: each shard's own admission, and the books of messages."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from simulator.capacity.arrivals import Arrivals, Kind
from simulator.capacity.timeline import Timeline
from simulator.capacity.workload import LINGER_MS, Indices, RaceOffer, Riders, offer_of
from simulator.cloud import limits
from simulator.cloud.shard import Shard


@dataclass(slots=True)
class Ledger:
    """Where every message ended. ``throttled`` and ``retried`` count attempts."""

    generated: int = 0
    delivered: int = 0
    lost: int = 0
    throttled: int = 0
    retried: int = 0

    @property
    def outstanding(self) -> int:
        return self.generated - self.delivered - self.lost


class Producer(Protocol):
    """Driven once a tick, in order; told to :meth:`tell` when all is done."""

    ledger: Ledger

    @property
    def is_done(self) -> bool: ...

    def tick(self, number: int, now: float) -> None: ...

    def tell(self) -> None: ...

    def wait_ms(self, share: float) -> int: ...


class Gate:
    """The shards, asked by their own admission and recorded. ``by_key``: readers need each record's partition key."""

    def __init__(
        self, riders: Riders, shards: Sequence[Shard], arrivals: Sequence[Arrivals], timeline: Timeline, *, by_key: bool
    ) -> None:
        self.riders = riders
        self.shards = shards
        self.arrivals = arrivals
        self.timeline = timeline
        self.by_key = by_key
        self.ledger = Ledger()
        self.nbytes = riders.sizes.record_bytes
        self._seconds = riders.workload.seconds
        self._numbers = itertools.count()
        self._offer: RaceOffer | None = None
        # Of the second that is under way; the timeline is told once a second.
        self._offered = [0] * len(shards)
        self._accepted = [0] * len(shards)
        self._second = -1
        self._since = timeline.start
        # How many messages were accepted how many ticks after the one that they were due in, that one included.
        self.waits: Counter[int] = Counter()

    def begin(self, now: float) -> None:
        """A tick begins."""
        second = self.timeline.second(now)
        if second != self._second:
            self.tell()
            self._second, self._since = second, now

    def tell(self) -> None:
        """Give the timeline what was counted since it was last told."""
        for metric, counts in (("offered", self._offered), ("accepted", self._accepted)):
            for place, count in enumerate(counts):
                if count:
                    self.timeline.add(metric, self.shards[place].shard_id, self._since, count)
                    counts[place] = 0

    def offer(self, race: int) -> RaceOffer:
        """The race's offer; one is kept."""
        if self._offer is None or self._offer.index != race:
            self._offer = offer_of(self.riders, race)
        return self._offer

    def admit(self, place: int, count: int, now: float, *, each: bool = False) -> int:
        """How many of ``count`` records the shard takes: one call's, or with ``each`` a call's each."""
        shard = self.shards[place]
        by_count, by_bytes = shard.refused_by_count, shard.refused_by_bytes
        if each:
            taken = sum(shard.admit_many(1, self.nbytes, now) for _ in range(count))
        else:
            taken = shard.admit_many(count, self.nbytes, now)
        name = shard.shard_id
        self._offered[place] += count
        self._accepted[place] += taken
        if taken < count:
            self.ledger.throttled += count - taken
            self.timeline.add("throttled", name, now, count - taken)
            for quota, bucket, refused in (
                (limits.SHARD_WRITE_RECORDS, shard.write_records, shard.refused_by_count - by_count),
                (limits.SHARD_WRITE_BYTES, shard.write_bytes, shard.refused_by_bytes - by_bytes),
            ):
                if refused:
                    self.timeline.broke(quota.name, name, bucket.rate, quota.unit, now, refused)
        self.ledger.delivered += taken
        return taken

    def store(self, place: int, members: Indices, heads: npt.NDArray[np.int64] | int, now: float) -> None:
        """Records that were taken: of bikers ``members``, each of the second ``heads`` since the first race began."""
        arrivals, riders = self.arrivals[place], self.riders
        if self.by_key:
            seconds = np.broadcast_to(heads, members.shape).tolist()
            for index, head in zip(members.tolist(), seconds, strict=True):
                kind = self.kind(int(riders.class_place[index]), head)
                arrivals.append(now, kind, 1, self._key(index, head))
            return
        classes = len(riders.workload.classes)
        if isinstance(heads, int) and classes == 1:
            arrivals.append(now, self.kind(0, heads), len(members))
            return
        flat = np.broadcast_to(heads, members.shape) * classes + riders.class_place[members]
        for key, count in zip(*(one.tolist() for one in np.unique(flat, return_counts=True)), strict=True):
            arrivals.append(now, self.kind(key % classes, key // classes), count)

    def kind(self, class_place: int, second: int) -> Kind:
        race, rest = divmod(second, self._seconds)
        return Kind(race, class_place, rest == self._seconds - 1)

    def _key(self, index: int, second: int) -> str:
        """What decides a record's lane; of random keys and times only that they differ."""
        match self.riders.workload.partition_key:
            case "racer":
                return str(self.riders.racer_ids[index])
            case "class":
                return str(self.riders.workload.classes[int(self.riders.class_place[index])])
            case "race":
                return str(self.riders.calendar.race_id(second // self._seconds))
        return f"{second}-{index}"

    def count_waits(self, ticks: Indices) -> None:
        """Messages were accepted so many ticks after they were due."""
        for wait, count in zip(*(one.tolist() for one in np.unique(ticks, return_counts=True)), strict=True):
            self.waits[wait] += count

    def wait_ms(self, share: float) -> int:
        """The wait that ``share`` of the accepted messages did not exceed, to a tick; 0 when there is none."""
        wanted, seen = share * sum(self.waits.values()), 0
        for wait in sorted(self.waits):
            seen += self.waits[wait]
            if seen >= wanted:
                return wait * LINGER_MS
        return 0

    def next_number(self) -> int:
        return next(self._numbers)
