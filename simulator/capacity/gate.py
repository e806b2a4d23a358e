"""Where producers meet the shards in virtual time: each shard's own admission, and the books of messages.

Two ways, one result. While nothing waits to be sent again, a second passes *in bulk*: all its calls are put to the
buckets of all shards, and if every one passes, who sent what does not matter, only counts. Once a second leaves the
buckets as it found them, those after it that are alike pass unasked. A second that refuses anything, or that begins
with something waiting, goes tick by tick through :meth:`Gate.tick`, which knows every message.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from simulator.capacity.arrivals import LINGER_MS, TICKS, Arrivals, Indices, Kind
from simulator.capacity.lanes import Lanes
from simulator.capacity.offers import Offer, Offers
from simulator.capacity.prices import PAYLOAD_UNIT_BYTES
from simulator.capacity.timeline import Timeline
from simulator.capacity.workload import Riders
from simulator.cloud import limits
from simulator.cloud.shard import Shard
from simulator.cloud.shard_bank import Levels, ShardBank

_QUOTAS = (limits.SHARD_WRITE_RECORDS, limits.SHARD_WRITE_BYTES)


@dataclass(slots=True)
class Ledger:
    """Where every message ended; ``lost_by`` says by whom. ``throttled`` and ``retried`` count attempts."""

    generated: int = 0
    delivered: int = 0
    lost: int = 0
    throttled: int = 0
    retried: int = 0
    lost_by: Counter[str] = field(default_factory=Counter)

    @property
    def outstanding(self) -> int:
        return self.generated - self.delivered - self.lost


@dataclass(frozen=True, slots=True)
class Stored:
    """Records on the stream, their mean size with the partition key, and what the bill calls payload units."""

    records: int
    record_bytes: float
    payload_units: int


class Producer(Protocol):
    """Sends what is due; runs ahead of the consumers, on which nothing that it does depends."""

    ledger: Ledger

    @property
    def stored(self) -> Stored: ...

    def ride(self, until: int) -> None:
        """Send everything that is due before second ``until``; arrivals are known up to there."""
        ...

    def finish(self) -> None:
        """Go on until every message is delivered or lost."""
        ...

    def wait_ms(self, share: float) -> int: ...


class _Second:
    """What a second that goes tick by tick brings; the timeline and arrivals are told when it is over."""

    def __init__(self, shards: int) -> None:
        self.offered = np.zeros(shards, np.int64)
        self.accepted = np.zeros(shards, np.int64)
        # By quota and shard: how much was refused, first when, and last.
        self.refused = np.zeros((len(_QUOTAS), shards), np.int64)
        self.first_s = np.zeros((len(_QUOTAS), shards))
        self.last_s = np.zeros((len(_QUOTAS), shards))
        self.came: dict[Kind, Indices] = {}
        self.waited: Levels | None = None
        self.sums: Counter[tuple[str, str]] = Counter()


class Gate:
    """The shards, asked by their own admission and recorded. Their write buckets hold what they should after
    :meth:`ride` and :meth:`finish`.

    ``lanes``: how many lanes arrivals tell records apart by (see :class:`Lanes`). ``batch`` records share a call; with
    0 each is its own. Without ``in_bulk`` every second goes tick by tick, which changes nothing but the time it takes.
    """

    def __init__(
        self,
        riders: Riders,
        shards: Sequence[Shard],
        arrivals: Arrivals,
        timeline: Timeline,
        rng: random.Random,
        lanes: Lanes,
        *,
        batch: int,
        in_bulk: bool = True,
    ) -> None:
        self.riders = riders
        self.shards = shards
        self.arrivals = arrivals
        self.timeline = timeline
        self.lanes = lanes
        self.ledger = Ledger()
        self.rng = rng
        self.bank = ShardBank(shards)
        self.draws = np.random.default_rng(rng.getrandbits(64))
        self.offers = Offers(riders, lanes, self.draws.spawn(1)[0], batch)
        self.nbytes = riders.sizes.record_bytes
        self._waits = np.zeros(TICKS, np.int64)
        self._in_bulk = in_bulk
        self._names = [shard.shard_id for shard in shards]
        self._rates = self.bank.rates
        self._seconds = riders.workload.seconds
        self._start_ms = riders.workload.start_ms
        self._total = riders.workload.total_seconds
        self._next = 0
        self._shape = (TICKS, len(shards))
        self._second = _Second(len(shards))

    def tick(self, number: int, offer: Offer | None, now: float) -> None:
        """Send what is sent at ``now``, the end of tick ``number`` since the first race began; ``offer`` is that of its
        second, None after the last race."""
        raise NotImplementedError

    def may_pass(self, offer: Offer, moments: list[float]) -> bool:
        """Whether all that a second offers gets as far as the shards; nothing is done yet."""
        return True

    def passed(self, offer: Offer) -> bool:
        """It did, and the shards took it. Whether another one would leave all as it is now."""
        return True

    def skipped(self, offer: Offer, seconds: int) -> None:
        """So many more seconds went by like it."""

    def ride(self, until: int) -> None:
        while self._next < until:
            self._next += self._pass(min(until, self._total)) or self._go()
        self.bank.settle()

    def finish(self) -> None:
        self.ride(self._total)
        while self.ledger.outstanding:
            self._next += self._go()
        self.bank.settle()

    # -- in bulk ---------------------------------------------------------------------------------------

    def _pass(self, until: int) -> int:
        """How many seconds before ``until`` passed whole."""
        if not self._in_bulk or self._next >= until or self.ledger.outstanding:
            return 0
        offer = self.offers.at(self._next)
        most = min(offer.second + offer.alike, until) - self._next
        passed = 0
        while passed < most:
            moments, before = _moments(self._start_ms, self._next + passed), self.bank.levels
            if not (self.may_pass(offer, moments) and self.bank.pass_all(offer.demand, moments)):
                break
            passed += 1
            # From the second on, it began when as much time had gone by since each shard was last asked.
            if self.passed(offer) and passed > 1 and np.array_equal(before, self.bank.levels):
                self.bank.skip(offer.demand, most - passed)
                self.skipped(offer, most - passed)
                passed = most
        if passed:
            self._tell_alike(offer, passed)
        return passed

    def _tell_alike(self, offer: Offer, seconds: int) -> None:
        first, timeline = self._next, self.timeline
        self.ledger.generated += offer.count * seconds
        self.ledger.delivered += offer.count * seconds
        counts, waits = offer.lingered
        self.add_waits(counts * seconds)
        for place, count in enumerate(offer.counts.sum(axis=0).tolist()):
            if count:
                timeline.add_span("offered", self._names[place], first, seconds, count)
                timeline.add_span("accepted", self._names[place], first, seconds, count)
        timeline.add_span("outstanding", "producer", first, seconds, 0)
        finals = (first + seconds) % self._seconds == 0
        if seconds > finals:
            self.arrivals.append(seconds - finals, offer.parts(first), waits)
        if finals:
            self.arrivals.append(1, offer.parts(first + seconds - 1), waits)

    @property
    def stored(self) -> Stored:
        """What shards took, as the bill counts it."""
        return Stored(self.ledger.delivered, self.nbytes, -(-self.nbytes // PAYLOAD_UNIT_BYTES) * self.ledger.delivered)

    # -- tick by tick ----------------------------------------------------------------------------------

    def _go(self) -> int:
        """The next second, tick by tick."""
        offer = self.offers.at(self._next) if self._next < self._total else None
        for tick, now in enumerate(_moments(self._start_ms, self._next)):
            self.tick(self._next * TICKS + tick, offer, now)
        self._tell()
        return 1

    def _tell(self) -> None:
        second, timeline = self._second, self.timeline
        since = timeline.start + self._next
        refused = second.refused.sum(axis=0)
        for metric, counts in (("offered", second.offered), ("accepted", second.accepted), ("throttled", refused)):
            numbers = counts.tolist()
            for place in np.flatnonzero(counts).tolist():
                timeline.add(metric, self._names[place], since, numbers[place])
        for row, quota in enumerate(_QUOTAS):
            for place in np.flatnonzero(second.refused[row]).tolist():
                name, rate = self._names[place], self._rates[row][place]
                first_s, last_s = float(second.first_s[row, place]), float(second.last_s[row, place])
                timeline.broke(quota.name, name, rate, quota.unit, first_s, int(second.refused[row, place]))
                if last_s > first_s:
                    timeline.broke(quota.name, name, rate, quota.unit, last_s, 0)
        for (metric, resource), amount in second.sums.items():
            timeline.add(metric, resource, since, amount)
        timeline.level("outstanding", "producer", since, self.ledger.outstanding)
        self.arrivals.append(1, sorted(second.came.items(), key=lambda one: one[0]), second.waited)
        self._second = _Second(len(self.shards))

    def lose(self, count: int, by: str) -> None:
        """Messages are lost in this second."""
        if count:
            self.ledger.lost += count
            self.ledger.lost_by[by] += count
            self.count("lost", by, count)

    def count(self, metric: str, resource: str, amount: int) -> None:
        """Add to a series in this second."""
        if amount:
            self._second.sums[metric, resource] += amount

    def pass_tick(self, number: int, offer: Offer, now: float) -> bool:
        """When every call of the tick passes, its counts are recorded; else nothing is done."""
        tick = number % TICKS
        if not self._in_bulk or not self.bank.pass_all(offer.demand.at(tick), (now,)):
            return False
        counts = offer.counts[tick]
        self._second.offered += counts
        self._second.accepted += counts
        senders = offer.senders(tick)
        self.ledger.delivered += len(senders)
        self.count_waits(tick, offer.shards[senders], tick + 1 - offer.ticks[senders])
        for kind, of_kind in offer.parts(number // TICKS):
            if of_kind[tick].any():
                self.came(kind)[tick] += of_kind[tick]
        return True

    def admit(self, counts: Indices, now: float, *, each: bool = False) -> Indices:
        """How many records each shard takes of calls, as :meth:`ShardBank.admit` has it."""
        before = self.refused_so_far()
        taken = self.bank.admit(counts, self.nbytes, now, each=each)
        self.book(counts.sum(axis=0), taken, before, now)
        self.ledger.delivered += int(taken.sum())
        return taken

    def refused_so_far(self) -> tuple[Indices, Indices]:
        return self.bank.refused_by_count.copy(), self.bank.refused_by_bytes.copy()

    def book(self, totals: Indices, taken: Indices, before: tuple[Indices, Indices], now: float) -> None:
        """Of ``totals`` records, shards took ``taken``; what they had refused ``before``."""
        second, bank = self._second, self.bank
        second.offered += totals
        second.accepted += taken
        if (taken < totals).any():
            self.ledger.throttled += int(totals.sum() - taken.sum())
            for row, (after, earlier) in enumerate(
                zip((bank.refused_by_count, bank.refused_by_bytes), before, strict=True)
            ):
                more = after - earlier
                is_first = (more > 0) & (second.refused[row] == 0)
                second.first_s[row][is_first] = now
                second.last_s[row][more > 0] = now
                second.refused[row] += more

    def store(self, tick: int, places: Indices, members: Indices, heads: Indices, lanes: Indices | None) -> None:
        """Records that were taken in that tick of the second: of bikers ``members``, each of the second ``heads`` since
        the first race began, by shards ``places``."""
        if not len(members):
            return
        classes, shards = len(self.riders.workload.classes), len(self.shards)
        races, rest = np.divmod(heads, self._seconds)
        first = int(races.min())
        codes = (races - first) * 2 + (rest == self._seconds - 1)
        if classes > 1:
            codes = codes * classes + self.offers.class_place[members]
        if lanes is not None:
            codes = codes * self.lanes.count + lanes
        if int(codes.max()) == int(codes.min()):
            rows = [(int(codes[0]), np.bincount(places, minlength=shards))]
        else:
            known, which = np.unique(codes, return_inverse=True)
            counts = np.bincount(which * shards + places, minlength=len(known) * shards).reshape(-1, shards)
            rows = list(zip(known.tolist(), counts, strict=True))
        for code, counts in rows:
            code, lane = divmod(code, self.lanes.count)
            code, class_place = divmod(code, classes)
            race, is_final = divmod(code, 2)
            self.came(Kind(first + race, class_place, bool(is_final), lane))[tick] += counts

    def came(self, kind: Kind) -> Indices:
        """Records of one kind that were taken in this second, by tick and shard."""
        counts = self._second.came.get(kind)
        if counts is None:
            counts = self._second.came[kind] = np.zeros(self._shape, np.int64)
        return counts

    def count_waits(self, tick: int, places: Indices, ticks: Indices) -> None:
        """Messages were accepted by ``places`` in that tick of the second, so many ticks after they were due, the one
        that they were due in included."""
        if not len(ticks):
            return
        most = int(ticks.max())
        self.add_waits(np.bincount(ticks))
        if most > 1:
            beyond = np.bincount(places, ticks - 1, minlength=len(self.shards))
            self.waited(tick, beyond.astype(np.float64))

    def waited(self, tick: int, beyond: Levels) -> None:
        """What the shards took in that tick had waited so many ticks in all, beyond those it was due in."""
        if self._second.waited is None:
            self._second.waited = np.zeros(self._shape)
        self._second.waited[tick] += beyond

    def add_waits(self, counts: Indices) -> None:
        """So many messages waited 0, 1, 2 ... ticks."""
        if len(counts) > len(self._waits):
            self._waits = np.concatenate([self._waits, np.zeros(2 * len(counts), np.int64)])
        self._waits[: len(counts)] += counts

    @property
    def waits(self) -> Counter[int]:
        """How many messages were accepted how many ticks after the one that they were due in, that one included."""
        return Counter({wait: count for wait, count in enumerate(self._waits.tolist()) if count})

    def wait_ms(self, share: float) -> int:
        """The wait that ``share`` of the accepted messages did not exceed, to a tick; 0 when there is none."""
        counts = np.cumsum(self._waits)
        return int(np.searchsorted(counts, share * counts[-1])) * LINGER_MS if counts[-1] else 0


def _moments(start_ms: int, second: int) -> list[float]:
    """The ends of its ticks, seconds since the epoch."""
    return [(start_ms + second * 1000 + (tick + 1) * LINGER_MS) / 1000 for tick in range(TICKS)]
