"""A producer that packs messages into records, in virtual time: as the Kinesis Producer Library does.

What falls due within RecordMaxBufferedTime is packed by shard into records of at most AggregationMaxSize, each of which
is one for the shard's limit of records. What a shard refuses is packed again with what is due by the next time, oldest
first; a limiter offers a shard no more than 150 % of what it takes. A message past its deadline is lost.

Everything is kept as counts by shard and tick. Coarse: all records of a shard go in one call a time, and a refused
record's messages are not kept together.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from simulator.capacity.arrivals import LINGER_MS, TICKS, Arrivals, Indices, Kind
from simulator.capacity.gate import Gate, Stored
from simulator.capacity.lanes import Lanes
from simulator.capacity.offers import Offer, PackedOffer
from simulator.capacity.packing import OUTER_KEY, RATE_LIMIT
from simulator.capacity.prices import PAYLOAD_UNIT_BYTES
from simulator.capacity.timeline import Timeline
from simulator.capacity.workload import Riders
from simulator.cloud.shard import Shard
from simulator.cloud.shard_bank import ShardBank


@dataclass(eq=False, slots=True)
class _Row:
    """Messages by shard that were due in a tick and are not settled."""

    due: int
    counts: Indices


class AggregatingProducer(Gate):
    """Packs by shard, several times a second."""

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
        super().__init__(riders, shards, arrivals, timeline, rng, lanes, batch=1, in_bulk=in_bulk)
        self._packing = riders.packing
        limited = [
            replace(one.settings, shard_rate_factor=one.settings.shard_rate_factor * RATE_LIMIT) for one in shards
        ]
        ranges = [(one.starting_hash_key, one.ending_hash_key) for one in shards]
        self._limiter = ShardBank(
            [
                Shard(place, hash_range, shard.created_at, settings)
                for place, (shard, hash_range, settings) in enumerate(zip(shards, ranges, limited, strict=True))
            ]
        )
        self._foreseen = self._limiter.mark()
        self._records = self._bytes = self._units = 0
        self._rows: deque[_Row] = deque()
        self._left = np.zeros(len(shards), np.int64)
        # Records that were refused last time.
        self._refused = 0
        self._lane = lanes.of(OUTER_KEY)
        self._every = riders.workload.lingers_ms // LINGER_MS

    # -- in bulk ---------------------------------------------------------------------------------------

    def may_pass(self, offer: Offer, moments: list[float]) -> bool:
        before = self._limiter.mark()
        passes = self._limiter.pass_all(offer.demand, moments)
        self._foreseen = self._limiter.mark()
        self._limiter.reset(before)
        return passes

    def passed(self, offer: Offer) -> bool:
        before = self._limiter.levels
        self._limiter.reset(self._foreseen)
        self._store(offer, 1)
        return np.array_equal(before, self._limiter.levels)

    def skipped(self, offer: Offer, seconds: int) -> None:
        self._limiter.skip(offer.demand, seconds)
        self._store(offer, seconds)

    def _store(self, offer: Offer, seconds: int) -> None:
        assert isinstance(offer, PackedOffer)
        self._tally(offer.sent_counts, seconds)

    def _tally(self, messages: Indices, seconds: int = 1) -> None:
        """Messages by record were stored, in each of so many seconds."""
        self._records += int(self._packing.records(messages).sum()) * seconds
        self._bytes += int(self._packing.nbytes(messages).sum()) * seconds
        self._units += int(self._packing.units(messages, PAYLOAD_UNIT_BYTES).sum()) * seconds

    @property
    def stored(self) -> Stored:
        return Stored(self._records, self._bytes / max(1, self._records), self._units)

    # -- tick by tick ----------------------------------------------------------------------------------

    def tick(self, number: int, offer: Offer | None, now: float) -> None:
        second, tick = divmod(number, TICKS)
        if isinstance(offer, PackedOffer):
            due = offer.due_counts[tick]
            if due.any():
                self._rows.append(_Row(number, due.copy()))
                self._left += due
                self.ledger.generated += int(due.sum())
        if (tick + 1) % self._every and tick + 1 < TICKS:
            return
        self._expire(number, now)
        if self._left.any():
            self._flush(second, tick, now)

    def _expire(self, number: int, now: float) -> None:
        deadline_s = self.riders.workload.deadline_s
        while self._rows and self.timeline.start + (self._rows[0].due + 1) * LINGER_MS / 1000 <= now - deadline_s:
            counts = self._rows.popleft().counts
            self._left -= counts
            self.lose(int(counts.sum()), "producer")

    def _flush(self, second: int, tick: int, now: float) -> None:
        packing, workload = self._packing, self.riders.workload
        self.ledger.retried += self._refused
        self.count("retried", "producer", self._refused)
        full, rest = packing.split(self._left)
        full, last = self._limiter.admit_unequal(full, packing.most_bytes, packing.sizes[rest], now)
        before = self.refused_so_far()
        taken, last_taken = self.bank.admit_unequal(full, packing.most_bytes, packing.sizes[rest] * last, now)
        records = taken + last_taken
        self.book(full + last, records, before, now)
        self._refused = int((full + last - records).sum())
        delivered = taken * packing.most + last_taken * rest
        self._tally(delivered)
        waits = self._deliver(second * TICKS + tick, delivered)
        self.ledger.delivered += int(delivered.sum())
        race = min(second, workload.total_seconds - 1) // workload.seconds
        if records.any():
            self.came(Kind(race, 0, False, self._lane))[tick] += records
        if waits.any():
            self.waited(tick, waits * records / np.maximum(delivered, 1))

    def _deliver(self, number: int, delivered: Indices) -> Indices:
        """The oldest ``delivered`` of each shard are settled; how many ticks they waited beyond their own, in all."""
        waits, left = np.zeros_like(delivered), delivered.copy()
        kept: deque[_Row] = deque()
        while self._rows and left.any():
            row = self._rows.popleft()
            gone = np.minimum(row.counts, left)
            row.counts = row.counts - gone
            left -= gone
            waits += gone * (number - row.due)
            self.add_waits(np.array([0] * (number + 1 - row.due) + [int(gone.sum())]))
            if row.counts.any():
                kept.append(row)
        kept.extend(self._rows)
        self._rows = kept
        self._left -= delivered
        return waits
