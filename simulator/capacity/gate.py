"""Where producers meet the shards in virtual time: each shard's own admission, and the books of messages."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from simulator.capacity.arrivals import LINGER_MS, TICKS, Arrivals, Indices, Kind
from simulator.capacity.lanes import Lanes
from simulator.capacity.timeline import Timeline
from simulator.capacity.workload import START_MS, RaceOffer, Riders, offer_of
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
    """Sends what is due; runs ahead of the consumers, on which nothing that it does depends."""

    ledger: Ledger
    waits: Counter[int]

    def ride(self, until: int) -> None:
        """Send everything that is due before second ``until``; arrivals are known up to there."""
        ...

    def finish(self) -> None:
        """Go on until every message is delivered or lost."""
        ...

    def wait_ms(self, share: float) -> int: ...


class Gate:
    """The shards, asked by their own admission and recorded. Time goes on in ticks (:meth:`tick`), which end together.

    ``lanes``: how many lanes arrivals tell records apart by (see :class:`Lanes`).
    """

    def __init__(
        self, riders: Riders, shards: Sequence[Shard], arrivals: Arrivals, timeline: Timeline, lanes: Lanes
    ) -> None:
        self.riders = riders
        self.shards = shards
        self.arrivals = arrivals
        self.timeline = timeline
        self.lanes = lanes
        self.ledger = Ledger()
        self.nbytes = riders.sizes.record_bytes
        self._seconds = riders.workload.seconds
        self._numbers = itertools.count()
        self._offer: RaceOffer | None = None
        self._number = 0
        self._lane_draws = np.random.default_rng(riders.workload.seed)
        # Of the second that is under way; the timeline and arrivals are told once a second.
        self._shape = (TICKS, len(shards))
        self._offered = [0] * len(shards)
        self._accepted = [0] * len(shards)
        self._came: dict[Kind, Indices] = {}
        self._waited: Indices | None = None
        # How many messages were accepted how many ticks after the one that they were due in, that one included.
        self.waits: Counter[int] = Counter()

    def tick(self, number: int, now: float) -> None:
        """Send what is sent at ``now``, the end of tick ``number`` since the first race began."""
        raise NotImplementedError

    def ride(self, until: int) -> None:
        while self._number < until * TICKS:
            self._next_tick()

    def finish(self) -> None:
        self.ride(self.riders.workload.total_seconds)
        while self.ledger.outstanding:
            self._next_tick()
        while self._number % TICKS:
            self._next_tick()

    def _next_tick(self) -> None:
        number = self._number
        self.tick(number, (START_MS + (number + 1) * LINGER_MS) / 1000)
        self._number = number + 1
        if self._number % TICKS == 0:
            self._tell(number // TICKS)

    def _tell(self, second: int) -> None:
        """A second is over."""
        since = self.timeline.start + second
        for metric, counts in (("offered", self._offered), ("accepted", self._accepted)):
            for place, count in enumerate(counts):
                if count:
                    self.timeline.add(metric, self.shards[place].shard_id, since, count)
                    counts[place] = 0
        self.timeline.level("outstanding", "producer", since, self.ledger.outstanding)
        self.arrivals.append(1, list(self._came.items()), self._waited)
        self._came, self._waited = {}, None

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

    def came(self, place: int, kind: Kind, count: int) -> None:
        """Records of one kind were taken in this tick."""
        counts = self._came.get(kind)
        if counts is None:
            counts = self._came[kind] = np.zeros(self._shape, np.int64)
        counts[self._number % TICKS, place] += count

    def waited(self, place: int, ticks: int) -> None:
        """Records taken in this tick had waited so many ticks in all, beyond their own."""
        if self._waited is None:
            self._waited = np.zeros(self._shape, np.int64)
        self._waited[self._number % TICKS, place] += ticks

    def store(self, place: int, members: Indices, heads: Indices | int) -> None:
        """Records that were taken: of bikers ``members``, each of the second ``heads`` since the first race began."""
        classes, lanes = len(self.riders.workload.classes), self.lanes.count
        if isinstance(heads, int) and classes == lanes == 1:
            self.came(place, self.kind(0, heads), len(members))
            return
        flat = (np.broadcast_to(heads, members.shape) * classes + self.riders.class_place[members]) * lanes
        if lanes > 1:
            flat = flat + self._lanes_of(members, heads)
        for key, count in zip(*(one.tolist() for one in np.unique(flat, return_counts=True)), strict=True):
            rest, lane = divmod(key, lanes)
            self.came(place, self.kind(rest % classes, rest // classes, lane), count)

    def _lanes_of(self, members: Indices, heads: Indices | int) -> Indices:
        riders = self.riders
        match riders.workload.partition_key:
            case "racer":
                return self.lanes.of([str(one) for one in riders.racer_ids[members].tolist()])
            case "class":
                keys = [str(one) for one in riders.workload.classes]
                return self.lanes.of(keys)[riders.class_place[members]]
            case "race":
                races = (np.broadcast_to(heads, members.shape) // self._seconds).tolist()
                return self.lanes.of([str(riders.calendar.race_id(one)) for one in races])
        # Of random keys and times only that they differ.
        return self._lane_draws.integers(0, self.lanes.count, len(members))

    def kind(self, class_place: int, second: int, lane: int = 0) -> Kind:
        race, rest = divmod(second, self._seconds)
        return Kind(race, class_place, rest == self._seconds - 1, lane)

    def count_waits(self, place: int, ticks: Indices) -> None:
        """Messages were accepted so many ticks after they were due, the one that they were due in included."""
        beyond = int(ticks.sum()) - len(ticks)
        if beyond:
            self.waited(place, beyond)
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
