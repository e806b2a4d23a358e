"""The producer of PutRecords in virtual time, which behaves as :class:`producers.KinesisProducer`.

One record of a biker at a time is on its way; what is refused waits out the producer's own back-off
(:data:`producers.retry.THROTTLE`, full jitter, one draw for what failed together) and goes first in the next call; no
new records leave while 4,000 wait to be sent again; a record past its deadline is lost when its turn comes.

Within a tick time stands still, so its calls are put to the shards together, up to the one whose refusals stop new
records. A message costs about 0.1 us an attempt.

Coarse: calls are answered at once (a call takes a millisecond, a tick is 20), and they are cut at a tick's end rather
than a linger after the first record.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Sequence

import numpy as np

from producers.retry import THROTTLE
from simulator.capacity.arrivals import TICKS, Arrivals, Indices
from simulator.capacity.gate import Gate
from simulator.capacity.lanes import Lanes
from simulator.capacity.offers import Offer, counts_by_call
from simulator.capacity.timeline import Timeline
from simulator.capacity.workload import Riders
from simulator.cloud.shard import Shard

MAX_RETRYING = 8 * 500
"""KinesisProducer's calls in flight times records a call."""
_NOBODY, _FIRST = np.zeros(0, np.int64), np.zeros(1, np.int64)


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
        *,
        in_bulk: bool = True,
    ) -> None:
        self._batch = riders.workload.batch_records
        super().__init__(riders, shards, arrivals, timeline, rng, lanes, batch=self._batch, in_bulk=in_bulk)
        count = riders.workload.bikers
        self._numbers = itertools.count()
        # Messages of each biker that are due and not settled; the oldest is the head, the only one on its way.
        self._backlog = np.zeros(count, np.int32)
        self._head = np.zeros(count, np.int64)
        self._failures = np.zeros(count, np.int16)
        self._shard = np.zeros(count, np.int64)
        self._lane = np.zeros(count, np.int64) if lanes.count > 1 else None
        self._ready: deque[Indices] = deque()
        self._backing_off: list[tuple[float, int, Indices]] = []
        self._retrying = 0
        # About how many calls a tick makes: a guess, on which nothing depends but how often one must look again.
        self._usual_calls = 8
        self._phases_s = np.zeros(count)
        self._due_ticks = np.zeros(count, np.int64)

    def tick(self, number: int, offer: Offer | None, now: float) -> None:
        second, tick = divmod(number, TICKS)
        if offer is not None:
            if tick == 0:
                self._phases_s, self._due_ticks = offer.phases_ms / 1000, offer.ticks
            is_idle = not self.ledger.outstanding
            self.ledger.generated += offer.bounds[tick + 1] - offer.bounds[tick]
            if is_idle and self.pass_tick(number, offer, now):
                return
            self._emit(offer, second, offer.senders(tick))
        self._send(number, now)

    def _emit(self, offer: Offer, second: int, senders: Indices) -> None:
        self._backlog[senders] += 1
        idle = senders[self._backlog[senders] == 1]
        if len(idle):
            self._head[idle] = second
            self._shard[idle] = offer.shards[idle]
            if self._lane is not None and offer.lanes is not None:
                self._lane[idle] = offer.lanes[idle]
            self._ready.append(idle)

    # -- calls -----------------------------------------------------------------------------------------

    def _send(self, number: int, now: float) -> None:
        takes_new = self._retrying < MAX_RETRYING
        again: list[Indices] = []
        while self._backing_off and self._backing_off[0][0] <= now:
            again.append(heapq.heappop(self._backing_off)[2])
        # What follows the settled is sent in the next tick.
        new, self._ready = self._ready, deque()
        sent = 0
        if again:
            retries = np.concatenate(again)
            self._retrying -= len(retries)
            retries = self._in_time(retries, now)
            self.ledger.retried += len(retries)
            self.count("retried", "producer", len(retries))
            sent = self._call(retries, new if takes_new else deque(), number, now)
        while new and takes_new and self._retrying < MAX_RETRYING:
            sent += self._call(_NOBODY, new, number, now)
        self._usual_calls = min(64, max(8, self._usual_calls * 7 // 8, sent * 3 // 2 // self._batch))
        new.extend(self._ready)
        self._ready = new

    def _take(self, new: deque[Indices], most: int, now: float) -> list[Indices]:
        """Up to ``most`` of those whose turn it is."""
        found = []
        while most and new:
            members = new.popleft()
            if len(members) > most:
                new.appendleft(members[most:])
                members = members[:most]
            members = self._in_time(members, now)
            if len(members):
                found.append(members)
                most -= len(members)
        return found

    def _in_time(self, members: Indices, now: float) -> Indices:
        """Without those past their deadline, which are lost."""
        horizon_s = now - self.timeline.start - self.riders.workload.deadline_s
        if horizon_s < 0:
            return members
        late = self._head[members] + self._phases_s[members] <= horizon_s
        if not late.any():
            return members
        lost = members[late]
        self.lose(len(lost), "producer")
        self._settle(lost)
        return members[~late]

    def _call(self, retries: Indices, new: deque[Indices], number: int, now: float) -> int:
        """PutRecords of ``retries`` and of those of ``new`` whose turn it is, until too many are refused; how many
        records were sent."""
        must = -(-len(retries) // self._batch)
        most = max(must, self._usual_calls) * self._batch
        members = np.concatenate([retries, *self._take(new, most - len(retries), now)])
        if not len(members):
            return 0
        places = self._shard[members]
        counts = counts_by_call(places, self._batch, len(self.shards))
        if len(counts) > must and self._retrying + len(members) >= MAX_RETRYING:
            refused = self.bank.refusals(counts, self.nbytes, now)
            calls = max(must, 1 + int(np.searchsorted(refused, MAX_RETRYING - self._retrying)))
            if calls < len(counts):
                new.appendleft(members[calls * self._batch :])
                counts = counts[:calls]
                members, places = members[: calls * self._batch], places[: calls * self._batch]
        totals = counts.sum(axis=0)
        taken = self.admit(counts, now)
        if np.array_equal(taken, totals):
            self._accepted(members, places, number)
        else:
            passes = first_of_each(places, totals, taken)
            accepted, refused = np.flatnonzero(passes), np.flatnonzero(~passes)
            if len(accepted):
                self._accepted(members[accepted], places[accepted], number)
            self._back_off(members[refused], refused // self._batch, now)
        return len(members)

    def _accepted(self, members: Indices, places: Indices, number: int) -> None:
        heads, tick = self._head[members], number % TICKS
        self.store(tick, places, members, heads, None if self._lane is None else self._lane[members])
        self.count_waits(tick, places, number + 1 - (heads * TICKS + self._due_ticks[members]))
        self._settle(members)

    def _settle(self, members: Indices) -> None:
        """Their heads were delivered or lost; what waited behind them is next."""
        self._failures[members] = 0
        left = self._backlog[members] - 1
        self._backlog[members] = left
        following = members[left > 0]
        if len(following):
            heads = self.offers.following(following, self._head[following])
            self._head[following] = heads
            if self.offers.changes:
                self._shard[following], lanes = self.offers.route(following, heads)
                if self._lane is not None and lanes is not None:
                    self._lane[following] = lanes
            self._ready.append(following)

    def _back_off(self, members: Indices, calls: Indices, now: float) -> None:
        """``members`` were refused, in ``calls``; those of one call that were so equally often wait equally long."""
        failures = self._failures[members] + np.int16(1)
        self._failures[members] = failures
        codes = calls * (int(failures.max()) + 1) + failures
        order = np.argsort(codes, kind="stable")
        members, codes, failures = members[order], codes[order], failures[order]
        begins = np.concatenate([_FIRST, np.flatnonzero(codes[1:] != codes[:-1]) + 1])
        dues_s = np.minimum.reduceat(self._head[members] + self._phases_s[members], begins).tolist()
        latest = self.timeline.start + self.riders.workload.deadline_s
        ends = [*begins[1:].tolist(), len(members)]
        for begin, end, times, due_s in zip(begins.tolist(), ends, failures[begins].tolist(), dues_s, strict=True):
            at = min(now + THROTTLE.delay_s(times, self.rng), max(now, latest + due_s))
            heapq.heappush(self._backing_off, (at, next(self._numbers), members[begin:end]))
        self._retrying += len(members)


def first_of_each(places: Indices, totals: Indices, taken: Indices) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which records are among the first ``taken`` of those that go to the same place, of which there are ``totals``."""
    # Of 16 bits, a stable sort is one by digits.
    order = np.argsort(places.astype(np.uint16) if len(totals) <= 1 << 16 else places, kind="stable")
    begins = np.cumsum(totals) - totals
    ranks = np.arange(len(places)) - np.repeat(begins, totals)
    found = np.empty(len(places), np.bool_)
    found[order] = ranks < np.repeat(taken, totals)
    return found
