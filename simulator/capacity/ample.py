"""Where a search begins: what holds when units cannot be what is missing.

The longest window that the objective leaves time for, and the fewest shards with it. Where functions are too slow for
so few shards, and nothing else is wrong, they may run side by side or take larger batches: neither costs anything, and
both can do what otherwise takes more shards.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from simulator.capacity.choices import (
    AMPLE_READS,
    BATCH,
    BATCHES,
    LANES,
    MOST_LANES,
    MOST_UNITS,
    RCU,
    SHARDS,
    WINDOW,
    WINDOWS,
    Sizes,
)
from simulator.capacity.model import DRAIN_S
from simulator.capacity.trials import Runs, Trial, helped, nearness, smallest
from simulator.capacity.workload import Riders
from simulator.cloud import limits
from simulator.cloud.sequence import uniform_ranges

_SKEWED_SHARDS = 64
_FEW_LANES = 4
_TABLE_READS = "dynamodb.table.read.provisioned"
_MOST_IN_VAIN = 2
"""So many times twice as many shards more may be tried without any getting nearer."""


def ample(runs: Runs, sizes: Sizes) -> dict[str, int] | None:
    """``sizes`` with as few shards as can do and ample units. None when no such thing holds."""
    found = _with_reads(runs, sizes, AMPLE_READS)
    if found is None and any(_lacks_reads(one) for one in runs.made):
        return _with_reads(runs, sizes, MOST_UNITS)
    return found


def _lacks_reads(trial: Trial) -> bool:
    """Whether read units that were thought to be ample are not."""
    is_ample = trial.sizes.get(RCU, 0) >= AMPLE_READS
    return is_ample and any(limit.name.startswith(_TABLE_READS) for limit in trial.found.limits)


def _with_reads(runs: Runs, sizes: Sizes, reads: int) -> dict[str, int] | None:
    start = runs.spare(sizes, reads)
    if LANES in start:
        start[LANES] = 1
    search = _Search(runs)
    if SHARDS not in start:
        return search.with_longest_window(start)
    candidates = _shard_counts(runs)
    reach = 0
    while True:
        found = search.with_longest_window({**start, SHARDS: candidates[reach]})
        if found is not None or reach == len(candidates) - 1 or search.in_vain >= _MOST_IN_VAIN:
            break
        reach = min(max(1, reach * 2), len(candidates) - 1)
    if found is None:
        return None
    return {**found, SHARDS: smallest(runs, found, SHARDS, candidates[reach // 2 : reach + 1])}


# -- shards ------------------------------------------------------------------------------------------------


def _shard_counts(runs: Runs) -> list[int]:
    """Shard counts that could do, by arithmetic alone: those that a plan need not be asked about are left out."""
    least = _least_shards(runs)
    counts = list(range(least, max(least * 2, least + 8) + 1))
    if runs.objective.most.get("throttled") != 0 or runs.workload.partition_key not in ("racer", "race", "class"):
        return counts
    # Hash keys are skewed: the fullest shard counts, and with few keys it may take many shards to part them.
    counts = list(range(least, max(least * 2, _SKEWED_SHARDS) + 1))
    first = next((place for place, count in enumerate(counts) if _fits(runs, count)), None)
    # Where none can do, two plans show it.
    return counts[:2] if first is None else counts[first : first + max(least, 8) + 1]


def _rate(runs: Runs) -> float:
    return limits.SHARD_WRITE_RECORDS.value * runs.limit_settings.shard_rate_factor


def _least_shards(runs: Runs) -> int:
    """A shard takes its rate for as long as there is, and one second's worth that it has saved."""
    workload, most = runs.workload, runs.objective.most
    time_s = workload.total_seconds + 1.0
    if most.get("throttled") != 0:
        # What is refused is sent again, until it is given up or must have settled.
        time_s += min(workload.deadline_s, most.get("settled", DRAIN_S))
    return max(1, math.ceil(workload.messages / (_rate(runs) * time_s)))


def _fits(runs: Runs, shards: int) -> bool:
    """Whether the fullest shard takes a race without refusing."""
    workload = runs.workload
    riders = Riders(workload, [low for low, _ in uniform_ranges(shards)])
    places = riders.shards_of_race(0)
    assert places is not None, "the keys are those of bikers"
    fullest = int(np.bincount(places).max())
    return fullest * workload.seconds <= _rate(runs) * (workload.seconds + 1)


# -- windows, and what makes functions quicker -------------------------------------------------------------


@dataclass(slots=True)
class _Search:
    """``tried`` are those that failed: what came near with fewer shards is enough to look at again."""

    runs: Runs
    tried: list[Trial] = field(default_factory=list)
    remedies_help: bool = True
    in_vain: int = 0
    """Shard counts, one after the other, that came no nearer."""

    def with_longest_window(self, sizes: Sizes) -> dict[str, int] | None:
        """``sizes`` with the longest window that holds, or with quicker functions."""
        failed: list[Trial] = []
        for window in self._windows(sizes):
            trial = self.runs.at(sizes if window is None else {**sizes, WINDOW: window})
            if trial is None:
                continue
            if trial.holds:
                return dict(trial.sizes)
            if trial.refused:
                # The stream knows nothing of windows, lanes or batches.
                return None
            failed.append(trial)
        if self.tried and failed:
            nearer = helped(*(min(one.excess for one in trials) for trials in (self.tried, failed)))
            self.in_vain = 0 if nearer else self.in_vain + 1
        self.tried += failed
        return self._with_quicker_functions(failed)

    def _windows(self, sizes: Sizes) -> Sequence[int | None]:
        if WINDOW not in sizes:
            return [None]
        if self.tried:
            return sorted({one.sizes[WINDOW] for one in sorted(self.tried, key=nearness)[:2]}, reverse=True)
        return [one for one in reversed(WINDOWS) if self._may_wait(one)]

    def _may_wait(self, window: int) -> bool:
        """Whether a window of that length can keep the objective's times, if nothing else took any."""
        if not window:
            return True
        most, end_s = self.runs.objective.most, self.runs.workload.start_ms / 1000 + self.runs.workload.total_seconds
        # The last message of each comes in the last second.
        last_closes_s = math.ceil((end_s - 0.999) / window) * window - end_s
        return window * 0.9 <= most.get("p99", math.inf) and last_closes_s <= most.get("settled", math.inf)

    def _with_quicker_functions(self, failed: list[Trial]) -> dict[str, int] | None:
        """Of those that failed, the nearest with more lanes or larger batches, no more of them than it takes."""
        if not self.remedies_help:
            return None
        nearer = False
        for trial in sorted(failed, key=nearness)[:2]:
            for changes in _remedies(trial.sizes):
                tried = self.runs.at({**trial.sizes, **changes})
                if tried is None:
                    continue
                if tried.holds:
                    return self._no_more_than_needed(trial.sizes, changes)
                nearer |= helped(trial.excess, tried.excess)
        self.remedies_help = nearer
        return None

    def _no_more_than_needed(self, before: Sizes, changes: Sizes) -> dict[str, int]:
        sizes = {**before, **changes}
        ladders = {LANES: range(1, MOST_LANES + 1), BATCH: BATCHES}
        for name, most in changes.items():
            steps = [before[name], *(step for step in ladders[name] if before[name] < step < most), most]
            sizes[name] = smallest(self.runs, sizes, name, steps)
        return sizes


def _remedies(sizes: Sizes) -> Iterator[dict[str, int]]:
    """From the least change to the largest."""
    larger = {BATCH: BATCHES[-1]} if BATCH in sizes and sizes[BATCH] < BATCHES[-1] else {}
    if LANES in sizes:
        yield {LANES: _FEW_LANES}
        yield {LANES: MOST_LANES}
    if larger:
        yield larger
    if LANES in sizes and larger:
        yield {LANES: MOST_LANES} | larger
