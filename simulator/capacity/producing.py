"""Producers in virtual time: what reaches the shards' own buckets, and what becomes of what they refuse.

:class:`PutRecordsProducer` behaves as :class:`producers.KinesisProducer`: one record of a biker at a time is on its
way, what is refused waits out the producer's own back-off (:data:`producers.retry.THROTTLE`, full jitter, one draw for
what failed together) and goes first in the next call, no new records leave while 4,000 wait to be sent again, and a
record past its deadline is lost. As long as nothing is refused, a tick costs O(shards); when something is, O(records).

:class:`RuleProducer` is IoT Core's rule: a PutRecord a message, tried again as ``LimitSettings.iot_action_attempts``
and ``iot_action_retry_seconds`` say, then given to the error action, which is lost to the stream.

Coarse: calls are answered at once (a call takes a millisecond, a tick is 20), and of one call's refusals all those of
equal history wait equally long, as in the producer, but calls are cut at the tick's end rather than at a linger.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from producers.retry import THROTTLE
from simulator.capacity.arrivals import Arrivals, Kind
from simulator.capacity.timeline import Timeline
from simulator.capacity.workload import LINGER_MS, START_MS, TICKS, Indices, RaceOffer, Riders, offer_of
from simulator.cloud import limits
from simulator.cloud.limits import LimitSettings
from simulator.cloud.shard import Shard

MAX_RETRYING = 8 * 500
"""KinesisProducer's calls in flight times records a call."""


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


class _Gate:
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


class PutRecordsProducer(_Gate):
    """Batches of up to 500 a call, every tick."""

    def __init__(
        self,
        riders: Riders,
        shards: Sequence[Shard],
        arrivals: Sequence[Arrivals],
        timeline: Timeline,
        rng: random.Random,
        *,
        by_key: bool,
    ) -> None:
        super().__init__(riders, shards, arrivals, timeline, by_key=by_key)
        count = riders.workload.bikers
        self._rng = rng
        self._keys = np.random.default_rng(rng.getrandbits(64))
        self._total = riders.workload.total_seconds
        # Messages of each biker that are due and not settled; the oldest is the head, the only one on its way.
        self._backlog = np.zeros(count, np.int64)
        self._failures = np.zeros(count, np.int64)
        self._shard_of_head = np.zeros(count, np.int64)
        self._ready: deque[Indices] = deque()
        self._backing_off: list[tuple[float, int, Indices]] = []
        self._retrying = 0
        self._tick = 0

    @property
    def is_done(self) -> bool:
        return self._tick >= self._total * TICKS and not self.ledger.outstanding

    def tick(self, number: int, now: float) -> None:
        """Everything that is sent at ``now``, the end of tick ``number`` since the first race began."""
        self.begin(now)
        second, tick = divmod(number, TICKS)
        self._tick = number + 1
        if second < self._total:
            offer = self.offer(second // self.riders.workload.seconds)
            is_idle = not self.ledger.outstanding
            self.ledger.generated += offer.bounds[tick + 1] - offer.bounds[tick]
            if is_idle and not self.by_key and self._counts_suffice(offer, tick, now):
                self._send_counts(offer, second, tick, now)
                return
            self._emit(offer, second, tick)
        self._send(second, tick, now)

    def _counts_suffice(self, offer: RaceOffer, tick: int, now: float) -> bool:
        """Whether one call takes the tick's senders, or all their shards do: who they are then does not matter."""
        if offer.counts is None:
            return False
        if offer.bounds[tick + 1] - offer.bounds[tick] <= self.riders.workload.batch_records:
            return True
        return all(
            count <= self.shards[place].write_records.refill(now)
            and count * self.nbytes <= self.shards[place].write_bytes.refill(now)
            for place, count, _ in offer.counts[tick]
        )

    def _send_counts(self, offer: RaceOffer, second: int, tick: int, now: float) -> None:
        """Nothing waits: only counts matter, until a shard refuses."""
        assert offer.counts is not None
        kinds = [self.kind(class_place, second) for class_place in range(len(self.riders.workload.classes))]
        for place, count, by_class in offer.counts[tick]:
            taken = self.admit(place, count, now)
            self.waits[1] += taken
            if taken == count:
                append = self.arrivals[place].append
                for class_place, of_class in by_class:
                    append(now, kinds[class_place], of_class)
                continue
            assert offer.shards is not None
            senders = offer.senders(tick)
            members = senders[offer.shards[senders] == place]
            if taken:
                self.store(place, members[:taken], second, now)
            refused = members[taken:]
            self._backlog[refused] = 1
            self._shard_of_head[refused] = place
            self._back_off(refused, np.full(len(refused), second), now)

    def _emit(self, offer: RaceOffer, second: int, tick: int) -> None:
        senders = offer.senders(tick)
        self._backlog[senders] += 1
        idle = senders[self._backlog[senders] == 1]
        if len(idle):
            self._choose_shards(idle, np.full(len(idle), second))
            self._ready.append(idle)

    def _choose_shards(self, members: Indices, heads: Indices) -> None:
        """Where the heads of ``members``, messages of seconds ``heads``, will go."""
        workload = self.riders.workload
        if workload.partition_key == "random":
            # Hash keys of random keys are uniform, and so are the ranges of shards.
            self._shard_of_head[members] = self._keys.integers(0, len(self.shards), len(members))
        elif workload.partition_key == "timestamp":
            due_ms = START_MS + heads * 1000 + self._phases_ms()[members]
            self._shard_of_head[members] = self.riders.shards_by_time(due_ms)
        else:
            for race in np.unique(heads // workload.seconds).tolist():
                shards = self.riders.shards_of_race(race)
                assert shards is not None
                chosen = members[heads // workload.seconds == race]
                self._shard_of_head[chosen] = shards[chosen]

    def _phases_ms(self) -> Indices:
        assert self._offer is not None
        return self._offer.phases_ms

    def _due_ticks(self) -> Indices:
        assert self._offer is not None
        return self._offer.ticks

    def _heads(self, members: Indices, second: int, tick: int) -> Indices:
        """The second of each one's oldest unsettled message."""
        if second >= self._total:
            emitted = np.full(len(members), self._total)
        else:
            assert self._offer is not None
            emitted = second + (self._offer.ticks[members] <= tick)
        heads: Indices = emitted - self._backlog[members]
        return heads

    def _send(self, second: int, tick: int, now: float) -> None:
        parts: list[Indices] = []
        takes_new = self._retrying < MAX_RETRYING
        while self._backing_off and self._backing_off[0][0] <= now:
            again = heapq.heappop(self._backing_off)[2]
            self._retrying -= len(again)
            parts.append(again)
        retries = sum(map(len, parts))
        if takes_new:
            parts += self._ready
            self._ready.clear()
        if not parts:
            return
        queue = np.concatenate(parts)
        heads = self._heads(queue, second, tick)
        deadline_s = self.riders.workload.deadline_s
        due = self.timeline.start + heads + self._phases_ms()[queue] / 1000
        # What is new and not taken is not looked at either: it is lost when its turn comes.
        late = due <= now - deadline_s
        if late.any():
            self.ledger.lost += int(late.sum())
            self.timeline.add("lost", "producer", now, int(late.sum()))
            retries -= int(late[:retries].sum())
            self._settle(queue[late], heads[late])
            queue, heads = queue[~late], heads[~late]
        self.ledger.retried += retries
        self.timeline.add("retried", "producer", now, retries)
        step = self.riders.workload.batch_records
        for begin in range(0, len(queue), step):
            if begin >= retries and self._retrying >= MAX_RETRYING:
                # What is new waits for those, though it is due.
                self._ready.appendleft(queue[begin:])
                return
            self._call(queue[begin : begin + step], heads[begin : begin + step], now)

    def _call(self, members: Indices, heads: Indices, now: float) -> None:
        """One PutRecords."""
        shards = self._shard_of_head[members]
        refused: list[tuple[Indices, Indices]] = []
        for place in np.flatnonzero(np.bincount(shards, minlength=len(self.shards))).tolist():
            mine = shards == place
            own, own_heads = members[mine], heads[mine]
            taken = self.admit(place, len(own), now)
            if taken:
                self.store(place, own[:taken], own_heads[:taken], now)
                due_ticks = own_heads[:taken] * TICKS + self._due_ticks()[own[:taken]]
                self.count_waits(self._tick - due_ticks)
                self._settle(own[:taken], own_heads[:taken])
            if taken < len(own):
                refused.append((own[taken:], own_heads[taken:]))
        if refused:
            self._back_off(
                np.concatenate([one for one, _ in refused]), np.concatenate([seconds for _, seconds in refused]), now
            )

    def _settle(self, members: Indices, heads: Indices) -> None:
        """Their heads were delivered or lost; what waited behind them is next."""
        self._failures[members] = 0
        self._backlog[members] -= 1
        more = self._backlog[members] > 0
        if more.any():
            following = members[more]
            self._choose_shards(following, heads[more] + 1)
            self._ready.append(following)

    def _back_off(self, members: Indices, heads: Indices, now: float) -> None:
        self._failures[members] += 1
        failures = self._failures[members]
        step = self.riders.workload.batch_records
        phases, deadline_s = self._phases_ms(), self.riders.workload.deadline_s
        for times in np.unique(failures).tolist():
            alike = np.flatnonzero(failures == times)
            for begin in range(0, len(alike), step):
                chosen = alike[begin : begin + step]
                group = members[chosen]
                first_due = self.timeline.start + float((heads[chosen] + phases[group] / 1000).min())
                at = now + THROTTLE.delay_s(times, self._rng)
                at = min(at, max(now, first_due + deadline_s))
                heapq.heappush(self._backing_off, (at, self.next_number(), group))
                self._retrying += len(group)


@dataclass(frozen=True, slots=True)
class _Puts:
    """PutRecords of single messages: the shard of each, its biker, the tick it was due in, and attempts made."""

    places: Indices
    members: Indices
    due: Indices
    attempts: Indices

    def chosen(self, which: Indices) -> _Puts:
        return _Puts(self.places[which], self.members[which], self.due[which], self.attempts[which])


class RuleProducer(_Gate):
    """IoT Core's rule: each message is a PutRecord of its own, in no order with others."""

    def __init__(
        self,
        riders: Riders,
        shards: Sequence[Shard],
        arrivals: Sequence[Arrivals],
        timeline: Timeline,
        rng: random.Random,
        settings: LimitSettings,
        *,
        by_key: bool,
    ) -> None:
        super().__init__(riders, shards, arrivals, timeline, by_key=by_key)
        self._settings = settings
        self._rng = np.random.default_rng(rng.getrandbits(64))
        self._total = riders.workload.total_seconds
        # What is tried again, by the tick at whose end it is.
        self._again: dict[int, list[_Puts]] = {}
        self._tick = 0

    @property
    def is_done(self) -> bool:
        return self._tick >= self._total * TICKS and not self.ledger.outstanding

    def tick(self, number: int, now: float) -> None:
        """As :meth:`PutRecordsProducer.tick`."""
        self.begin(now)
        second, tick = divmod(number, TICKS)
        self._tick = number + 1
        parts = self._again.pop(number, [])
        retries = sum(len(one.members) for one in parts)
        if retries:
            self.ledger.retried += retries
            self.timeline.add("retried", "producer", now, retries)
        if second < self._total:
            offer = self.offer(second // self.riders.workload.seconds)
            senders = offer.senders(tick)
            self.ledger.generated += len(senders)
            zeros = np.zeros(len(senders), np.int64)
            parts.append(_Puts(self._shards(offer, senders, second), senders, zeros + number, zeros))
        puts = parts[0] if len(parts) == 1 else _joined(parts)
        for place in np.flatnonzero(np.bincount(puts.places, minlength=len(self.shards))).tolist():
            mine = np.flatnonzero(puts.places == place)
            # Within a tick first attempts and others come as they come: none goes first.
            self._put(place, puts.chosen(self._rng.permutation(mine) if retries else mine), number, now)

    def _shards(self, offer: RaceOffer, senders: Indices, second: int) -> Indices:
        if offer.shards is not None:
            return offer.shards[senders]
        if self.riders.workload.partition_key == "random":
            return self._rng.integers(0, len(self.shards), len(senders))
        return self.riders.shards_by_time(START_MS + second * 1000 + offer.phases_ms[senders])

    def _put(self, place: int, puts: _Puts, number: int, now: float) -> None:
        count = len(puts.members)
        taken = self.admit(place, count, now, each=True)
        if taken:
            self.count_waits(number + 1 - puts.due[:taken])
            self.store(place, puts.members[:taken], puts.due[:taken] // TICKS, now)
        if taken == count:
            return
        refused = puts.chosen(np.arange(taken, count))
        refused = _Puts(refused.places, refused.members, refused.due, refused.attempts + 1)
        gives_up = refused.attempts >= self._settings.iot_action_attempts
        if gives_up.any():
            self.ledger.lost += int(gives_up.sum())
            self.timeline.add("lost", "error action", now, int(gives_up.sum()))
            refused = refused.chosen(np.flatnonzero(~gives_up))
        if not len(refused.members):
            return
        jitter = 0.5 + self._rng.random(len(refused.members))
        pauses_s = self._settings.iot_action_retry_seconds * 2.0 ** (refused.attempts - 1) * jitter
        wakes = number + np.maximum(1, np.ceil(pauses_s * 1000 / LINGER_MS).astype(np.int64))
        for wake in np.unique(wakes).tolist():
            self._again.setdefault(wake, []).append(refused.chosen(np.flatnonzero(wakes == wake)))


def _joined(parts: Sequence[_Puts]) -> _Puts:
    if not parts:
        none = np.zeros(0, np.int64)
        return _Puts(none, none, none, none)
    return _Puts(
        np.concatenate([one.places for one in parts]),
        np.concatenate([one.members for one in parts]),
        np.concatenate([one.due for one in parts]),
        np.concatenate([one.attempts for one in parts]),
    )
