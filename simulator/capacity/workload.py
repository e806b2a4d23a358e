"""What is offered: who sends how much, when, and to which shard. Nothing here knows a limit.

Virtual time is cut into *ticks* of the producer's linger (20 ms): what falls due within a tick is sent together at its
end, as :class:`producers.KinesisProducer` does. What a biker does never depends on the answer, so one pass over the
racers (their phase, the MD5 of their key) says what every second of a race offers; numpy does the counting.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from consumers.store import results_text
from simulator import peloton
from simulator.capacity.arrivals import LINGER_MS, Indices
from simulator.capacity.attendance import Attendance
from simulator.capacity.keys import Keys, places_of, words_of, words_of_numbers, zipf_ranks
from simulator.capacity.packing import BUFFERED_MS, Packing
from simulator.race import FIRST_RACER_ID, MAX_RACERS, MAX_SECONDS, Race, RaceCalendar, plan_race

Transport = Literal["putrecords", "mqtt"]
START_MS = 1_700_000_000_000 // 300_000 * 300_000
"""When the first race of a plan starts: the digits of times and race ids are those of today's."""
MESSAGE_MAX_BYTES = 100_000
"""Of what a biker sends; IoT Core takes 128 KiB, a shard a MiB with the partition key."""
_SAMPLE_RACERS, _SAMPLE_SECONDS = 200, 60
KEYS_OF_RACERS = ("racer", "race", "class")
"""Partition keys that a biker keeps for a whole race; the others change with every message."""
PARTITION_KEYS = (*KEYS_OF_RACERS, "random", "timestamp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """``racers`` in each of ``classes`` ride at once; each sends every ``interval_s``, and in a race's last second.
    ``races`` follow one another. ``late_share`` of them join late, ``dropout_share`` leave early (see
    :class:`simulator.capacity.attendance.Attendance`).

    ``phase``: ``spread`` over each second, or all at its beginning (``burst``). ``skew`` makes keys of racers unequal:
    the key of rank ``k`` has a share of the bikers proportional to ``1 / k ** skew``, 0 one each. ``linger_ms`` is how
    long the producer waits for company for a call (:attr:`lingers_ms` when None), ``deadline_s`` when it gives a
    message up. ``aggregation`` packs messages into records as the Kinesis Producer Library does. With ``mqtt``, a rule
    puts each message on the stream by a PutRecord of its own, and ``qos`` is that of the bikes. ``message_bytes`` are
    the mean of messages instead of what the encoder makes, ``extra_bytes`` come on top of either. ``start_ms`` is when
    the first race starts (ms since the epoch): windows are aligned to the epoch.

    :raises ValueError: one sentence on the first value that cannot be.
    """

    racers: int = 1000
    seconds: int = 300
    races: int = 1
    classes: tuple[int, ...] = (1,)
    interval_s: int = 1
    late_share: float = 0.0
    dropout_share: float = 0.0
    partition_key: str = "racer"
    skew: float = 0.0
    transport: Transport = "putrecords"
    qos: int = 1
    phase: Literal["spread", "burst"] = "spread"
    batch_records: int = 500
    aggregation: bool = False
    linger_ms: int | None = None
    deadline_s: float = 300.0
    message_bytes: int | None = None
    extra_bytes: int = 0
    seed: int = 7
    start_ms: int = START_MS

    def __post_init__(self) -> None:
        ranges = (
            ("racers", self.racers, 1, MAX_RACERS),
            ("seconds", self.seconds, 1, MAX_SECONDS),
            ("races", self.races, 1, 10_000),
            ("interval_s", self.interval_s, 1, 3600),
            ("late_share", self.late_share, 0, 1),
            ("dropout_share", self.dropout_share, 0, 1),
            ("qos", self.qos, 0, 1),
            ("batch_records", self.batch_records, 1, 500),
            ("linger_ms", self.lingers_ms, LINGER_MS, 1000),
            ("message_bytes", 1 if self.message_bytes is None else self.message_bytes, 1, MESSAGE_MAX_BYTES),
            ("extra_bytes", self.extra_bytes, 0, MESSAGE_MAX_BYTES),
            ("seed", self.seed, 0, 2**64 - 1),
            ("start_ms", self.start_ms, 0, 2**53),
        )
        for name, value, low, high in ranges:
            if not low <= value <= high:
                raise ValueError(f"{name} must be from {low:,} to {high:,}, not {value:,}")
        if not self.classes or len(set(self.classes)) < len(self.classes) or not set(self.classes) <= {*range(1, 7)}:
            raise ValueError(f"classes must be different numbers from 1 to 6, not {self.classes}")
        if self.skew and not 0.1 <= self.skew <= 5:
            raise ValueError(f"skew must be 0 or from 0.1 to 5, not {self.skew}")
        if self.skew and self.partition_key != "racer":
            raise ValueError(f"skew is of keys of racers, and partition_key is {self.partition_key!r}")
        if self.lingers_ms % LINGER_MS:
            raise ValueError(f"linger_ms must be a multiple of {LINGER_MS}, not {self.linger_ms}")
        if self.transport == "mqtt" and (self.lingers_ms != LINGER_MS or self.aggregation):
            raise ValueError("linger_ms and aggregation are of producers that put records; a rule puts each by itself")
        if not 0 < self.deadline_s < math.inf:
            raise ValueError(f"deadline_s must be more than 0 s, not {self.deadline_s}")
        if self.deadline_s * 1000 <= self.lingers_ms:
            raise ValueError(f"deadline_s must be more than the {self.lingers_ms} ms that a message lingers")
        for name, text, allowed in (
            ("partition_key", self.partition_key, PARTITION_KEYS),
            ("transport", self.transport, ("putrecords", "mqtt")),
            ("phase", self.phase, ("spread", "burst")),
        ):
            if text not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {text!r}")

    @property
    def lingers_ms(self) -> int:
        """What was asked for; else KinesisProducer's linger, or with ``aggregation`` the KPL's."""
        return self.linger_ms or (BUFFERED_MS if self.aggregation else LINGER_MS)

    @property
    def bikers(self) -> int:
        """How many ride at once."""
        return self.racers * len(self.classes)

    @property
    def total_seconds(self) -> int:
        return self.seconds * self.races

    @property
    def messages(self) -> int:
        """How many there are when everybody rides from start to end."""
        step, last = self.interval_s, self.seconds - 1
        whole, rest = divmod(self.racers, step)
        # Of each second but the last; of every interval, the first ``rest`` seconds have one biker more.
        before = last // step * self.racers + last % step * whole + min(last % step, rest)
        return (before + self.racers) * len(self.classes) * self.races


@dataclass(frozen=True, slots=True)
class Sizes:
    """Means, from messages and results that the real encoders made. ``record_bytes`` is that of a Kinesis record with
    its partition key; ``result_bytes`` is what a racer adds to a results item."""

    message_bytes: int
    key_bytes: int
    record_bytes: int
    result_bytes: float


class Riders:
    """Everything about a workload's bikers that does not depend on limits, in one order: class by class, racer by
    racer. Made once a plan: O(racers)."""

    def __init__(self, workload: Workload, shard_starts: Sequence[int]) -> None:
        self.workload = workload
        self.shard_count = len(shard_starts)
        self.starts = list(shard_starts)
        self.calendar = RaceCalendar(workload.start_ms, workload.seconds)
        self.attendance = Attendance(workload)
        self.class_place = np.repeat(np.arange(len(workload.classes)), workload.racers)
        self.racer_ids = np.arange(FIRST_RACER_ID, FIRST_RACER_ID + workload.bikers, dtype=np.int64)

    @cached_property
    def sizes(self) -> Sizes:
        """Of the messages and outputs of some bikers."""
        race = self._sample
        messages = [len(one) for second in {1, race.seconds} for one in race.messages(second)]
        message_bytes = self.workload.message_bytes or round(sum(messages) / len(messages))
        message_bytes += self.workload.extra_bytes
        best = dict(zip(race.racer_ids.tolist(), race.truth.best_hundredths.tolist(), strict=True))
        # Ids grow longer with the field; the mean is over ids from all of it.
        ids = np.linspace(self.racer_ids[0], self.racer_ids[-1], len(best)).astype(np.int64).tolist()
        ids = sorted(set(ids))
        outputs = list(best.values())
        text = results_text({racer: outputs[place % len(outputs)] for place, racer in enumerate(ids)})
        key_bytes, result_bytes = self._key_bytes(ids), (len(text) - 1) / len(ids)
        return Sizes(message_bytes, key_bytes, self._record_bytes(message_bytes, key_bytes), result_bytes)

    @cached_property
    def packing(self) -> Packing:
        """How messages are packed, with ``aggregation``."""
        return self._packing(self.sizes.message_bytes, self.sizes.key_bytes)

    def _packing(self, message_bytes: int, key_bytes: int) -> Packing:
        return Packing(message_bytes, key_bytes, one_key=self.workload.partition_key in ("race", "class", "timestamp"))

    def _record_bytes(self, message_bytes: int, key_bytes: int) -> int:
        """The mean; of packed ones in a second of the first race."""
        if not self.workload.aggregation:
            return message_bytes + key_bytes
        shards = self.shards_of_race(0)
        if shards is None:
            shards = np.arange(self.workload.bikers) % self.shard_count
        times = self.phases_ms(0) // self.workload.lingers_ms
        counts = np.bincount(times * self.shard_count + shards)
        counts = -(-counts // self.workload.interval_s)
        packing = self._packing(message_bytes, key_bytes)
        return round(int(packing.nbytes(counts).sum()) / int(packing.records(counts).sum()))

    @property
    def messages(self) -> tuple[bytes, bytes]:
        """A biker's message of a race's first second, and of its last; padded or cut to the size of all where the
        encoder's is not wanted."""
        race, size = self._sample, self.sizes.message_bytes
        first, last = race.messages(1)[0], race.messages(race.seconds)[0]
        if self.workload.message_bytes is None and not self.workload.extra_bytes:
            return first, last
        return first[:size].ljust(size), last[:size].ljust(size)

    @cached_property
    def _sample(self) -> Race:
        workload = self.workload
        return plan_race(
            start_ms=workload.start_ms,
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

    def keys_of_race(self, race_index: int) -> Keys | None:
        """Everybody's partition keys in that race; None when they change with every message."""
        workload = self.workload
        match workload.partition_key:
            case "racer":
                ranks = zipf_ranks(workload.bikers, workload.skew) if workload.skew else None
                return Keys(words_of_numbers(FIRST_RACER_ID, workload.bikers), ranks)
            case "race":
                words = words_of([str(self.calendar.race_id(race_index))])
                return Keys(words, np.zeros(workload.bikers, np.int64))
            case "class":
                return Keys(words_of([str(one) for one in workload.classes]), self.class_place)
        return None

    def shards_of_race(self, race_index: int) -> Indices | None:
        """The shard (place among the open ones) that each biker's messages go to in that race; None when it changes
        with every message."""
        if self.workload.partition_key == "racer":
            return self._shards_by_racer
        keys = self.keys_of_race(race_index)
        return None if keys is None else keys.shards(self.starts)

    @cached_property
    def _shards_by_racer(self) -> Indices:
        keys = self.keys_of_race(0)
        assert keys is not None
        return keys.shards(self.starts)

    def shards_by_time(self, due_ms: Indices) -> Indices:
        """The shards of messages whose partition key is their time, ms since the epoch."""
        if not len(due_ms):
            return due_ms
        first, last = int(due_ms.min()), int(due_ms.max())
        if last - first < 2 * len(due_ms) + 2000:
            # Fewer times than messages, or few of them.
            times = range(first, last + 1)
            return places_of(words_of([str(one) for one in times]), self.starts)[due_ms - first]
        distinct, which = np.unique(due_ms, return_inverse=True)
        return places_of(words_of([str(one) for one in distinct.tolist()]), self.starts)[which]
