"""What a second offers to the shards: who sends, in which tick, to which shard.

What a biker does never depends on an answer, so all of it follows from the workload. Seconds of a race are alike as
long as the same bikers send and keys stay: then an :class:`Offer` is made once for all of them, in O(bikers), and holds
the counts by tick and shard that a gate needs as long as nothing is refused. Keys that change with every message are
drawn anew each second.

Bikers are numbered in the order in which they send in the first race, not as in :class:`Riders`: what happens to those
of one tick then happens to neighbours in memory, which is twice as fast with a million of them.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from simulator.capacity.arrivals import LINGER_MS, TICKS, Indices, Kind, Waits
from simulator.capacity.keys import lanes_of, places_of
from simulator.capacity.lanes import Lanes
from simulator.capacity.packing import OUTER_KEY
from simulator.capacity.workload import Riders
from simulator.cloud.shard_bank import Demand, call_costs


@dataclass(frozen=True, eq=False)
class Offer:
    """What each of :attr:`alike` seconds from :attr:`second` on offers. Bikers who send in tick ``k`` of it are
    ``order[bounds[k]:bounds[k + 1]]``, in the order of their times. The other arrays are of all bikers: ``ticks`` are
    those that messages are due in, ``sent`` those that they are sent in, when the producer has lingered.

    ``batch`` records share a call; with 0 each is its own.
    """

    riders: Riders
    second: int
    alike: int
    class_place: Indices
    phases_ms: Indices
    ticks: Indices
    sent: Indices
    order: Indices
    bounds: list[int]
    shards: Indices
    lanes: Indices | None
    lane_count: int
    outer_lane: int
    batch: int

    def senders(self, tick: int) -> Indices:
        """Who sends in that tick of a second."""
        return self.order[self.bounds[tick] : self.bounds[tick + 1]]

    @property
    def count(self) -> int:
        """Messages a second."""
        return len(self.order)

    @property
    def _senders(self) -> Indices | slice:
        """In no order."""
        return self.order if self.count < len(self.shards) else slice(None)

    @cached_property
    def lingered(self) -> tuple[Indices, Waits | None]:
        """How many messages wait how many ticks, the one that they are due in included; and how many ticks beyond it
        those of (tick, shard) wait in all, None: not any."""
        if self.sent is self.ticks:
            return np.array([0, self.count]), None
        beyond = (self.sent - self.ticks)[self._senders]
        counts = np.bincount(beyond + 1)
        if len(counts) <= 2:
            return counts, None
        flat = (self.sent * self.riders.shard_count + self.shards)[self._senders]
        total = np.bincount(flat, beyond, minlength=TICKS * self.riders.shard_count)
        return counts, total.astype(np.float64).reshape(TICKS, -1)

    @cached_property
    def by_kind(self) -> list[tuple[int, int, Indices]]:
        """(class, lane, counts of shape (ticks, shards)), those of nobody left out."""
        riders = self.riders
        shape = (len(riders.workload.classes), self.lane_count, TICKS, riders.shard_count)
        order = self._senders
        flat = self.sent[order] * shape[3] + self.shards[order]
        if shape[0] * shape[1] > 1:
            kinds = self.class_place[order] * shape[1]
            if self.lanes is not None:
                kinds = kinds + self.lanes[order]
            flat += kinds * (TICKS * shape[3])
        counts = np.bincount(flat, minlength=int(np.prod(shape))).reshape(shape)
        return [
            (class_place, lane, counts[class_place, lane])
            for class_place in range(shape[0])
            for lane in range(shape[1])
            if counts[class_place, lane].any()
        ]

    def parts(self, second: int) -> list[tuple[Kind, Indices]]:
        """:attr:`by_kind` in that second of the plan."""
        race, rest = divmod(second, self.riders.workload.seconds)
        is_final = rest == self.riders.workload.seconds - 1
        return [(Kind(race, class_place, is_final, lane), counts) for class_place, lane, counts in self.by_kind]

    @cached_property
    def counts(self) -> Indices:
        """Records by tick and shard."""
        none = np.zeros((TICKS, self.riders.shard_count), np.int64)
        return sum((counts for _, _, counts in self.by_kind), none)

    @cached_property
    def demand(self) -> Demand:
        """What is asked of the shards when nothing else is."""
        return Demand.of(self.counts, self._costs())

    def _costs(self) -> Indices:
        nbytes, shards = self.riders.sizes.record_bytes, self.riders.shard_count
        if not self.batch:
            return call_costs(self.counts, nbytes, each=True)
        costs = call_costs(self.counts, nbytes)
        for tick, (begin, end) in enumerate(zip(self.bounds, self.bounds[1:], strict=False)):
            if end - begin > self.batch:
                # Sizes are rounded up once a call and shard.
                costs[tick] = call_costs(
                    counts_by_call(self.shards[self.senders(tick)], self.batch, shards), nbytes
                ).sum(axis=0)
        return costs


class PackedOffer(Offer):
    """Of messages that are packed by shard into the records that it counts. What is in these, only those know who take
    them apart: they are of the first class, and no finals."""

    @cached_property
    def by_kind(self) -> list[tuple[int, int, Indices]]:
        return [(0, self.outer_lane, self.riders.packing.records(self.sent_counts))] if self.count else []

    def parts(self, second: int) -> list[tuple[Kind, Indices]]:
        race = second // self.riders.workload.seconds
        return [(Kind(race, 0, False, lane), counts) for _, lane, counts in self.by_kind]

    @cached_property
    def lingered(self) -> tuple[Indices, Waits | None]:
        counts, waits = super().lingered
        return counts, None if waits is None else waits * self.counts / np.maximum(1, self.sent_counts)

    @cached_property
    def due_counts(self) -> Indices:
        """Messages by the tick that they are due in, and shard."""
        return self._counted(self.ticks)

    @cached_property
    def sent_counts(self) -> Indices:
        """Messages by the tick that they are sent in, and shard."""
        return self._counted(self.sent)

    def _counted(self, ticks: Indices) -> Indices:
        flat = (ticks * self.riders.shard_count + self.shards)[self._senders]
        return np.bincount(flat, minlength=TICKS * self.riders.shard_count).reshape(TICKS, -1)

    def _costs(self) -> Indices:
        return call_costs(self.riders.packing.nbytes(self.sent_counts), 1)


def counts_by_call(places: Indices, batch: int, shards: int) -> Indices:
    """Records that go to ``places``, in order, ``batch`` a call: counts of shape (calls, shards)."""
    calls = -(-len(places) // batch)
    if calls <= 1:
        return np.bincount(places, minlength=shards).reshape(1, -1)
    flat = np.repeat(np.arange(calls) * shards, batch)[: len(places)] + places
    return np.bincount(flat, minlength=calls * shards).reshape(calls, shards)


@dataclass(frozen=True, eq=False, slots=True)
class _Race:
    """What is the same all race; ``by_turn`` are offers that come again. ``shards`` and ``lanes`` of None are drawn by
    the second."""

    index: int
    phases_ms: Indices
    ticks: Indices
    sent: Indices
    order: Indices
    shards: Indices | None
    lanes: Indices | None
    by_turn: dict[int | None, Offer]


class Offers:
    """The offers of a plan, second by second. ``rng`` draws keys that change with every message."""

    def __init__(self, riders: Riders, lanes: Lanes, rng: np.random.Generator, batch: int) -> None:
        self.riders = riders
        self._lanes = lanes
        self._now, self._later = rng.spawn(2)
        self._batch = batch
        self._seconds = riders.workload.seconds
        self._bikers = _by_phase(riders.phases_ms(0))
        self.class_place = riders.class_place[self._bikers]
        self._race: _Race | None = None
        self._latest: Offer | None = None

    def at(self, second: int) -> Offer:
        """Of that second since the first race began; seconds are asked for in order."""
        latest = self._latest
        if latest is None or not latest.second <= second < latest.second + latest.alike:
            latest = self._latest = self._offer(second)
        return latest

    def _offer(self, second: int) -> Offer:
        riders = self.riders
        race = self._race_of(second // self._seconds)
        turn = riders.attendance.turn(second)
        if turn in race.by_turn:
            # Frozen, but for this; what was counted stays.
            again = copy.copy(race.by_turn[turn])
            object.__setattr__(again, "second", second)
            return again
        alike, sends = riders.attendance.sending(second)
        order = race.order if sends is None else race.order[sends[self._bikers][race.order]]
        shards, lanes = race.shards, race.lanes
        if shards is None:
            alike = 1
            shards, lanes = self._draw(self._now, np.full(riders.workload.bikers, second), race.phases_ms)
        make = PackedOffer if riders.workload.aggregation else Offer
        made = make(
            riders=riders,
            second=second,
            alike=alike,
            class_place=self.class_place,
            phases_ms=race.phases_ms,
            ticks=race.ticks,
            sent=race.sent,
            order=order,
            bounds=np.searchsorted(race.sent[order], np.arange(TICKS + 1)).tolist(),
            shards=shards,
            lanes=lanes,
            lane_count=self._lanes.count,
            outer_lane=self._lanes.of(OUTER_KEY),
            batch=self._batch,
        )
        if turn is not None and race.shards is not None:
            race.by_turn[turn] = made
        return made

    def _race_of(self, index: int) -> _Race:
        if self._race is None or self._race.index != index:
            phases_ms = self.riders.phases_ms(index)[self._bikers]
            shards, lanes = self.riders.shards_of_race(index), None
            keys = self.riders.keys_of_race(index)
            if keys is not None and self._lanes.count > 1:
                lanes = keys.lanes(self._lanes.count)[self._bikers]
            ticks, linger = phases_ms // LINGER_MS, self.riders.workload.lingers_ms // LINGER_MS
            self._race = _Race(
                index=index,
                phases_ms=phases_ms,
                ticks=ticks,
                # What lingers is sent at the ends of equal parts of a second.
                sent=ticks if linger == 1 else np.minimum(ticks // linger * linger + linger - 1, TICKS - 1),
                order=_by_phase(phases_ms),
                shards=None if shards is None else shards[self._bikers],
                lanes=lanes,
                by_turn={},
            )
        return self._race

    def _draw(self, rng: np.random.Generator, heads: Indices, phases_ms: Indices) -> tuple[Indices, Indices | None]:
        riders = self.riders
        if riders.workload.partition_key == "timestamp":
            shards = riders.shards_by_time(riders.workload.start_ms + heads * 1000 + phases_ms)
        else:
            # Hash keys of random keys are uniform, and so are the ranges of shards.
            shards = rng.integers(0, riders.shard_count, len(heads))
        # Of lanes of random keys and of times only that they differ.
        lanes = rng.integers(0, self._lanes.count, len(heads)) if self._lanes.count > 1 else None
        return shards, lanes

    def shuffled(self, count: int) -> Indices:
        """So many places in an order that chance decides."""
        return self._later.permutation(count)

    @property
    def changes(self) -> bool:
        """Whether :meth:`route` may give two messages of a biker different places."""
        return self.riders.workload.partition_key not in ("racer", "class")

    def following(self, members: Indices, heads: Indices) -> Indices:
        """The second of each one's next message after the one of ``heads``."""
        attendance = self.riders.attendance
        return heads + 1 if attendance.is_steady else attendance.following(self._bikers[members], heads)

    def route(self, members: Indices, heads: Indices) -> tuple[Indices, Indices | None]:
        """Shard and lane of the messages of seconds ``heads`` that bikers ``members`` could not send at their time."""
        race = self._race
        assert race is not None
        if race.shards is None:
            return self._draw(self._later, heads, race.phases_ms[members])
        first = race.index * self._seconds
        if self.riders.workload.partition_key != "race" or not len(heads) or int(heads.min()) >= first:
            return race.shards[members], None if race.lanes is None else race.lanes[members]
        # What is left of races before is on its way under their keys, of which each race has one.
        races = heads // self._seconds
        shards = np.empty_like(members)
        lanes = None if race.lanes is None else np.empty_like(members)
        for index in np.unique(races).tolist():
            keys, mine = self.riders.keys_of_race(index), races == index
            assert keys is not None
            shards[mine] = places_of(keys.words, self.riders.starts)
            if lanes is not None:
                lanes[mine] = lanes_of(keys.words, self._lanes.count)
        return shards, lanes


def _by_phase(phases_ms: Indices) -> Indices:
    # Of 16 bits, a stable sort is one by digits.
    return np.argsort(phases_ms.astype(np.int16), kind="stable")
