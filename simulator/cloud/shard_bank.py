"""The write buckets of many shards at once: what :meth:`Shard.admit_many` decides, for all of them in numpy.

A planner asks a thousand shards fifty times a virtual second; one object at a time is what takes its time. A bank
takes the buckets of its shards over (:meth:`ShardBank.settle` puts them back) and does the same arithmetic in the same
order, so that every decision and every level is the one that the shards would have come to, to the last bit.

Refusing is the exception, so there are two ways in. :meth:`ShardBank.pass_all` takes the calls of many moments if all
of them pass, and else takes nothing. :meth:`ShardBank.admit` takes the calls of one moment and says how much passed:
once a call was partly refused, what it left is less than one more record, so that of equal records a shard takes the
first so many of a moment and no other.

Costs: O(shards) a moment, O(calls x shards) where something is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simulator.cloud.limits import EPSILON, KIB
from simulator.cloud.shard import Shard, whole_kib

Counts = npt.NDArray[np.int64]
Levels = npt.NDArray[np.float64]
_KIB_BITS = KIB.bit_length() - 1


def call_costs(counts: Counts, nbytes: int, *, each: bool = False) -> Counts:
    """What calls of ``counts`` records of ``nbytes`` each cost in bytes: rounded up to whole KiB once a call, or once a
    record with ``each``."""
    return counts * whole_kib(nbytes) if each else _kib(counts, nbytes) * KIB


def _kib(counts: Counts, nbytes: int) -> Counts:
    """As :func:`whole_kib`, in KiB, of ``counts`` records together."""
    # A shift takes a third of the time of a division.
    return (counts * nbytes + (KIB - 1)) >> _KIB_BITS


@dataclass(frozen=True, eq=False, slots=True)
class Demand:
    """What is asked of every shard at one moment after the other. ``costs`` has the shape (moments, 2, shards):
    records, and bytes as :func:`call_costs` has them, summed over calls."""

    costs: Levels
    asked: npt.NDArray[np.bool_]
    """(moments, shards): whether a shard is asked for anything."""
    everywhere: list[bool]
    """Whether all shards are, by moment."""

    @classmethod
    def of(cls, records: Counts, nbytes: Counts) -> Demand:
        """``records`` and ``nbytes`` have the shape (moments, shards)."""
        costs = np.stack((records, nbytes), axis=1).astype(np.float64)
        asked = records > 0
        return cls(costs, asked, [bool(row.all()) for row in asked])

    def at(self, index: int) -> Demand:
        """Of one moment."""
        one = slice(index, index + 1)
        return Demand(self.costs[one], self.asked[one], self.everywhere[one])


class ShardBank:
    """Write buckets of ``shards``, which hold none of it until :meth:`settle`. All have the same settings."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = list(shards)
        buckets = [[shard.write_records for shard in shards], [shard.write_bytes for shard in shards]]
        self._enforced = all(shard.settings.enforced for shard in shards)
        self._rates = np.array([[bucket.rate for bucket in row] for row in buckets])
        self._capacities = np.array([[bucket.capacity for bucket in row] for row in buckets])
        self._levels = np.array([[bucket.tokens for bucket in row] for row in buckets])
        self._updated = np.array([[bucket.updated_at for bucket in row] for row in buckets])
        self.refused_by_count = np.array([shard.refused_by_count for shard in shards], np.int64)
        self.refused_by_bytes = np.array([shard.refused_by_bytes for shard in shards], np.int64)

    @property
    def rates(self) -> tuple[list[float], list[float]]:
        """Records and bytes a second of each shard."""
        return self._rates[0].tolist(), self._rates[1].tolist()

    @property
    def levels(self) -> Levels:
        """Records and bytes that each shard could take when it was last asked, shape (2, shards). A copy."""
        return self._levels.copy()

    def settle(self) -> None:
        """Give the shards what their own buckets and counts would be."""
        for place, shard in enumerate(self._shards):
            for row, bucket in enumerate((shard.write_records, shard.write_bytes)):
                bucket.tokens = float(self._levels[row, place])
                bucket.updated_at = float(self._updated[row, place])
            shard.refused_by_count = int(self.refused_by_count[place])
            shard.refused_by_bytes = int(self.refused_by_bytes[place])

    def pass_all(self, demand: Demand, moments: Sequence[float]) -> bool:
        """Whether everything passes; if not, nothing is taken."""
        levels, updated = self._levels, self._updated
        enough = np.empty((len(moments), *levels.shape), np.bool_)
        for index, now in enumerate(moments):
            cost, everywhere = demand.costs[index], demand.everywhere[index]
            refilled = np.minimum(self._capacities, levels + np.maximum(now - updated, 0.0) * self._rates)
            np.less_equal(cost, refilled + EPSILON, out=enough[index])
            spent = refilled - cost if self._enforced else refilled
            if everywhere:
                levels, updated = spent, np.maximum(updated, now)
            else:
                asked = demand.asked[index]
                levels = np.where(asked, spent, levels)
                updated = np.where(asked, np.maximum(updated, now), updated)
        if self._enforced and not (enough | ~demand.asked[:, None, :]).all():
            return False
        self._levels, self._updated = levels, updated
        return True

    def skip(self, demand: Demand, seconds: float) -> None:
        """``demand`` passes again for so many whole seconds, and leaves all levels as they are: only time goes on."""
        self._updated = self._updated + np.where(demand.asked.any(axis=0), seconds, 0.0)

    def refusals(self, counts: Counts, nbytes: int, now: float) -> Counts:
        """How many records would be refused by each call and the ones before it; :meth:`admit` of so many first calls
        refuses exactly these."""
        if not self._enforced:
            return np.zeros(len(counts), np.int64)
        taken, _, _ = _prefix(counts, counts.sum(axis=0), nbytes, *self._available(self._refilled(now)))
        made = np.cumsum(counts, axis=0)
        refused: Counts = (made - np.minimum(made, taken)).sum(axis=1)
        return refused

    def admit(self, counts: Counts, nbytes: int, now: float, *, each: bool = False) -> Counts:
        """How many records each shard takes of calls made ``now``, in their order: ``counts`` has the shape
        (calls, shards), all records ``nbytes``. With ``each``, every record is a call of its own."""
        totals: Counts = counts.sum(axis=0)
        asked = totals > 0
        self._levels = np.where(asked, self._refilled(now), self._levels)
        self._updated = np.where(asked, np.maximum(self._updated, now), self._updated)
        if not self._enforced:
            return totals
        records, kib = self._available(self._levels)
        if each:
            per_record = -(-nbytes // KIB)
            taken = np.minimum(totals, np.minimum(records, kib // per_record))
            spent = taken * (per_record * KIB)
            by_bytes = taken < np.minimum(totals, records)
        else:
            taken, spent, by_bytes = _prefix(counts, totals, nbytes, records, kib)
        self._levels[0] -= taken
        self._levels[1] -= spent
        refused = totals - taken
        self.refused_by_bytes += np.where(by_bytes, refused, 0)
        self.refused_by_count += np.where(by_bytes, 0, refused)
        return taken

    def admit_unequal(self, counts: Counts, nbytes: int, lasts: Counts, now: float) -> tuple[Counts, Counts]:
        """One call a shard: ``counts`` records of ``nbytes``, then one of ``lasts`` bytes, or none where that is 0. How
        many of the former, and whether the latter (0 or 1), each shard takes."""
        has_last = (lasts > 0).astype(np.int64)
        asked = (counts + has_last) > 0
        self._levels = np.where(asked, self._refilled(now), self._levels)
        self._updated = np.where(asked, np.maximum(self._updated, now), self._updated)
        if not self._enforced:
            return counts, has_last
        records, kib = self._available(self._levels)
        taken = np.minimum(counts, np.minimum(records, kib * KIB // nbytes))
        out_of_records = taken == records
        spent = taken * nbytes + lasts
        last = np.where((taken < records) & (_kib(spent, 1) <= kib), has_last, 0)
        spent = _kib(taken * nbytes + last * lasts, 1)
        self._levels[0] -= taken + last
        self._levels[1] -= spent * KIB
        refused = counts - taken + has_last - last
        self.refused_by_count += np.where(out_of_records, refused, 0)
        self.refused_by_bytes += np.where(out_of_records, 0, refused)
        return taken, last

    def mark(self) -> tuple[Levels, Levels]:
        """What :meth:`reset` goes back to. Of :meth:`pass_all` and :meth:`skip`, which count no refusals."""
        return self._levels, self._updated

    def reset(self, mark: tuple[Levels, Levels]) -> None:
        self._levels, self._updated = mark

    def _refilled(self, now: float) -> Levels:
        elapsed = np.maximum(now - self._updated, 0.0)
        refilled: Levels = np.minimum(self._capacities, self._levels + elapsed * self._rates)
        return refilled

    @staticmethod
    def _available(levels: Levels) -> tuple[Counts, Counts]:
        """Whole records and KiB."""
        return (levels[0] + EPSILON).astype(np.int64), np.floor_divide(levels[1] + EPSILON, KIB).astype(np.int64)


def _prefix(
    counts: Counts, totals: Counts, nbytes: int, records: Counts, kib: Counts
) -> tuple[Counts, Counts, npt.NDArray[np.bool_]]:
    """Records taken, bytes spent and whether bytes were what lacked, by shard, of calls in their order."""
    if len(counts) == 1:
        by_size, by_count = kib * KIB // nbytes, np.minimum(totals, records)
        taken = np.minimum(by_count, by_size)
        return taken, _kib(taken, nbytes) * KIB, by_size < by_count
    costs = _kib(counts, nbytes)
    taken, spent = totals.copy(), costs.sum(axis=0)
    by_bytes = np.zeros(len(totals), np.bool_)
    short = np.flatnonzero((taken > records) | (spent > kib))
    if len(short):
        own, records, kib = counts[:, short], records[short], kib[short]
        records_before = np.cumsum(own, axis=0)
        kib_before = np.cumsum(costs[:, short], axis=0)
        whole = ((records_before <= records) & (kib_before <= kib)).sum(axis=0)
        # The call that is cut, and what the ones before it left.
        columns = np.arange(len(short))
        of_call = own[whole, columns]
        passed = records_before[whole, columns] - of_call
        paid = kib_before[whole, columns] - costs[whole, short]
        by_count = np.minimum(of_call, records - passed)
        by_size = (kib - paid) * KIB // nbytes
        cut = np.minimum(by_count, by_size)
        taken[short] = passed + cut
        spent[short] = paid + _kib(cut, nbytes)
        by_bytes[short] = by_size < by_count
    return taken, spent * KIB, by_bytes
