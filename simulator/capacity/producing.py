"""The producer of PutRecords in virtual time, which behaves as :class:`producers.KinesisProducer`.

One record of a biker at a time is on its way; what is refused waits out the producer's own back-off
(:data:`producers.retry.THROTTLE`, full jitter, one draw for what failed together) and goes first in the next call; no
new records leave while 4,000 wait to be sent again; a record past its deadline is lost. As long as nothing is refused,
a tick costs O(shards); when something is, O(records).

Coarse: calls are answered at once (a call takes a millisecond, a tick is 20), and they are cut at a tick's end rather
than a linger after the first record.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Sequence

import numpy as np

from producers.retry import THROTTLE
from simulator.capacity.arrivals import TICKS, Arrivals, Indices
from simulator.capacity.gate import Gate
from simulator.capacity.lanes import Lanes
from simulator.capacity.timeline import Timeline
from simulator.capacity.workload import START_MS, RaceOffer, Riders
from simulator.cloud.shard import Shard

MAX_RETRYING = 8 * 500
"""KinesisProducer's calls in flight times records a call."""


class PutRecordsProducer(Gate):
    """Batches of up to 500 a call, every tick."""

    def __init__(
        self,
        riders: Riders,
        shards: Sequence[Shard],
        arrivals: Arrivals,
        timeline: Timeline,
        rng: random.Random,
        lanes: Lanes,
    ) -> None:
        super().__init__(riders, shards, arrivals, timeline, lanes)
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

    def tick(self, number: int, now: float) -> None:
        """Everything that is sent at ``now``, the end of tick ``number`` since the first race began."""
        second, tick = divmod(number, TICKS)
        self._tick = number + 1
        if second < self._total:
            offer = self.offer(second // self.riders.workload.seconds)
            is_idle = not self.ledger.outstanding
            self.ledger.generated += offer.bounds[tick + 1] - offer.bounds[tick]
            if is_idle and self.lanes.count == 1 and self._counts_suffice(offer, tick, now):
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
                for class_place, of_class in by_class:
                    self.came(place, kinds[class_place], of_class)
                continue
            assert offer.shards is not None
            senders = offer.senders(tick)
            members = senders[offer.shards[senders] == place]
            if taken:
                self.store(place, members[:taken], second)
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
                self.store(place, own[:taken], own_heads[:taken])
                due_ticks = own_heads[:taken] * TICKS + self._due_ticks()[own[:taken]]
                self.count_waits(place, self._tick - due_ticks)
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
