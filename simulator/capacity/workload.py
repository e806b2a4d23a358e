"""What is offered: who sends how much, when, and to which shard. Nothing here knows a limit.

Virtual time is cut into *ticks* of the producer's linger (20 ms): what falls due within a tick is sent together at its
end, as :class:`producers.KinesisProducer` does. What a biker does never depends on the answer, so one pass over the
racers (their phase, the MD5 of their key) says what every second of a race offers; numpy does the counting.

Not modelled: bikers who join late or drop out, and aggregation by the Kinesis Producer Library.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from consumers.store import results_text
from simulator import peloton
from simulator.capacity.arrivals import LINGER_MS, TICKS, Indices
from simulator.race import FIRST_RACER_ID, MAX_RACERS, MAX_SECONDS, Race, RaceCalendar, plan_race

Transport = Literal["putrecords", "mqtt"]
START_MS = 1_700_000_000_000 // 300_000 * 300_000
"""When the first race of a plan starts: the digits of times and race ids are those of today's."""
_SAMPLE_RACERS, _SAMPLE_SECONDS = 200, 60
KEYS_OF_RACERS = ("racer", "race", "class")
"""Partition keys that a biker keeps for a whole race; the others change with every message."""
PARTITION_KEYS = (*KEYS_OF_RACERS, "random", "timestamp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """``racers`` in each of ``classes`` ride at once, one message a second each; ``races`` follow one another.

    ``phase``: ``spread`` over each second, or all at its beginning (``burst``). ``deadline_s`` is when the producer
    gives a message up. With ``mqtt``, a rule puts each message on the stream by a PutRecord of its own.

    :raises ValueError: one sentence on the first value that cannot be.
    """

    racers: int = 1000
    seconds: int = 300
    races: int = 1
    classes: tuple[int, ...] = (1,)
    partition_key: str = "racer"
    transport: Transport = "putrecords"
    phase: Literal["spread", "burst"] = "spread"
    batch_records: int = 500
    deadline_s: float = 300.0
    seed: int = 7

    def __post_init__(self) -> None:
        ranges = (
            ("racers", self.racers, 1, MAX_RACERS),
            ("seconds", self.seconds, 1, MAX_SECONDS),
            ("races", self.races, 1, 10_000),
            ("batch_records", self.batch_records, 1, 500),
            ("seed", self.seed, 0, 2**64 - 1),
        )
        for name, value, low, high in ranges:
            if not low <= value <= high:
                raise ValueError(f"{name} must be from {low:,} to {high:,}, not {value:,}")
        if not self.classes or len(set(self.classes)) < len(self.classes) or not set(self.classes) <= {*range(1, 7)}:
            raise ValueError(f"classes must be different numbers from 1 to 6, not {self.classes}")
        if not 0 < self.deadline_s < math.inf:
            raise ValueError(f"deadline_s must be more than 0 s, not {self.deadline_s}")
        for name, text, allowed in (
            ("partition_key", self.partition_key, PARTITION_KEYS),
            ("transport", self.transport, ("putrecords", "mqtt")),
            ("phase", self.phase, ("spread", "burst")),
        ):
            if text not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {text!r}")

    @property
    def bikers(self) -> int:
        """How many ride at once."""
        return self.racers * len(self.classes)

    @property
    def total_seconds(self) -> int:
        return self.seconds * self.races

    @property
    def messages(self) -> int:
        return self.bikers * self.total_seconds


@dataclass(frozen=True, slots=True)
class Sizes:
    """Means, from messages and results that the real encoders made. ``record_bytes`` has the partition key in it;
    ``result_bytes`` is what a racer adds to a results item."""

    message_bytes: int
    record_bytes: int
    result_bytes: float


class Riders:
    """Everything about a workload's bikers that does not depend on limits, in one order: class by class, racer by
    racer. Made once a plan: O(racers)."""

    def __init__(self, workload: Workload, shard_starts: Sequence[int]) -> None:
        self.workload = workload
        self.shard_count = len(shard_starts)
        self._starts = list(shard_starts)
        self.calendar = RaceCalendar(START_MS, workload.seconds)
        count = len(workload.classes)
        self.class_place = np.repeat(np.arange(count), workload.racers)
        self.racer_ids = np.arange(FIRST_RACER_ID, FIRST_RACER_ID + workload.bikers, dtype=np.int64)

    @cached_property
    def sizes(self) -> Sizes:
        """Of the messages and outputs of some bikers."""
        race = self._sample
        messages = [len(one) for second in {1, race.seconds} for one in race.messages(second)]
        message_bytes = round(sum(messages) / len(messages))
        best = dict(zip(race.racer_ids.tolist(), race.truth.best_hundredths.tolist(), strict=True))
        # Ids grow longer with the field; the mean is over ids from all of it.
        ids = np.linspace(self.racer_ids[0], self.racer_ids[-1], len(best)).astype(np.int64).tolist()
        ids = sorted(set(ids))
        outputs = list(best.values())
        text = results_text({racer: outputs[place % len(outputs)] for place, racer in enumerate(ids)})
        return Sizes(message_bytes, message_bytes + self._key_bytes(ids), (len(text) - 1) / len(ids))

    @property
    def messages(self) -> tuple[bytes, bytes]:
        """A biker's message of a race's first second, and of its last."""
        race = self._sample
        return race.messages(1)[0], race.messages(race.seconds)[0]

    @cached_property
    def _sample(self) -> Race:
        workload = self.workload
        return plan_race(
            start_ms=START_MS,
            racers=min(workload.racers, _SAMPLE_RACERS),
            seconds=min(workload.seconds, _SAMPLE_SECONDS),
            class_id=workload.classes[0],
            seed=workload.seed,
        )

    def _key_bytes(self, ids: Sequence[int]) -> int:
        match self.workload.partition_key:
            case "racer":
                return round(sum(len(str(racer)) for racer in ids) / len(ids))
            case "race":
                return len(str(self.calendar.race_id(0)))
            case "class":
                return 1
            case "timestamp":
                return len(str(START_MS))
        # KinesisProducer's are 16 hexadecimal digits, a rule's ${newuuid()} has 36.
        return 36 if self.workload.transport == "mqtt" else 16

    # -- when ------------------------------------------------------------------------------------------

    def phases_ms(self, race_index: int) -> Indices:
        """When within a second each biker sends, in that race."""
        workload = self.workload
        if workload.phase == "burst":
            return np.zeros(workload.bikers, np.int64)
        parts = np.split(self.racer_ids, len(workload.classes))
        return np.concatenate(
            [
                peloton.spread_phases_ms(ids, seed=workload.seed, race_index=race_index, class_id=class_id)
                for ids, class_id in zip(parts, workload.classes, strict=True)
            ]
        )

    # -- where -----------------------------------------------------------------------------------------

    def shards_of_race(self, race_index: int) -> Indices | None:
        """The shard (place among the open ones) that each biker's messages go to in that race; None when it changes
        with every message."""
        match self.workload.partition_key:
            case "racer":
                return self._shards_by_racer
            case "race":
                shard = self._shards_of([str(self.calendar.race_id(race_index))])[0]
                return np.full(self.workload.bikers, shard)
            case "class":
                return self._shards_of([str(one) for one in self.workload.classes])[self.class_place]
        return None

    @cached_property
    def _shards_by_racer(self) -> Indices:
        return self._shards_of([str(racer) for racer in self.racer_ids.tolist()])

    def shards_by_time(self, due_ms: Indices) -> Indices:
        """The shards of messages whose partition key is their time, ms since the epoch."""
        times, places = np.unique(due_ms, return_inverse=True)
        return self._shards_of([str(one) for one in times.tolist()])[places]

    def _shards_of(self, keys: Sequence[str]) -> Indices:
        """As :meth:`simulator.cloud.stream.Stream.owner` has it, for many keys at once: hash keys are compared by
        their upper 64 bits, and by the lower ones where those are equal."""
        digests = b"".join([hashlib.md5(key.encode(), usedforsecurity=False).digest() for key in keys])
        words = np.frombuffer(digests, ">u8").reshape(-1, 2)
        upper = words[:, 0].astype(np.uint64)
        starts = np.array([start >> 64 for start in self._starts], np.uint64)
        places = np.searchsorted(starts, upper, side="right").astype(np.int64) - 1
        for index in np.flatnonzero(upper == starts[places]).tolist():
            if int(words[index, 1]) < self._starts[places[index]] & (2**64 - 1):
                places[index] -= 1
        return places


TickCount = tuple[int, int, list[tuple[int, int]]]


@dataclass(frozen=True, eq=False, slots=True)
class RaceOffer:
    """What every second of one race offers. Bikers who send in tick ``k`` of a second are
    ``order[bounds[k]:bounds[k + 1]]``; ``counts[k]`` has them as (shard, count, [(class, count), ...]), those of nobody
    left out, None where the partition key changes with every message."""

    index: int
    phases_ms: Indices
    ticks: Indices
    order: Indices
    bounds: list[int]
    shards: Indices | None
    counts: list[list[TickCount]] | None

    def senders(self, tick: int) -> Indices:
        """Who sends in that tick of a second."""
        return self.order[self.bounds[tick] : self.bounds[tick + 1]]


def offer_of(riders: Riders, race_index: int) -> RaceOffer:
    """The offer of that race: O(racers)."""
    phases_ms = riders.phases_ms(race_index)
    ticks = phases_ms // LINGER_MS
    order = np.argsort(phases_ms, kind="stable")
    bounds = np.searchsorted(ticks[order], np.arange(TICKS + 1)).tolist()
    shards = riders.shards_of_race(race_index)
    counts = None
    if shards is not None:
        shape = (TICKS, riders.shard_count, len(riders.workload.classes))
        flat = (ticks * shape[1] + shards) * shape[2] + riders.class_place
        counts = _tick_counts(np.bincount(flat, minlength=math.prod(shape)).reshape(shape))
    return RaceOffer(race_index, phases_ms, ticks, order, bounds, shards, counts)


def _tick_counts(counts: Indices) -> list[list[TickCount]]:
    """``counts`` by tick, shard and class, without the zeros."""
    found: list[list[TickCount]] = [[] for _ in range(len(counts))]
    totals = counts.sum(axis=2)
    for tick, place in np.argwhere(totals).tolist():
        by_class = [(index, count) for index, count in enumerate(counts[tick, place].tolist()) if count]
        found[tick].append((place, int(totals[tick, place]), by_class))
    return found
