"""Which batches raise somebody's best. The others write nothing: :meth:`consumers.store.RaceTable.merge_results` reads
the results, finds nobody better, and leaves them alone.

How often that is decides what a table is asked for: of 100 bikers on four shards without a window, every fourth batch
raises nothing; of 1,000 on one shard, in the middle of five minutes, every tenth. It depends on how people ride, so the
ride of :mod:`simulator.peloton` itself is asked, racer by racer where that is quick; of more than that some ride, and
how many of the others improve when is drawn, as often as they do.

Bikers count by when their messages are due, in the ticks of :mod:`simulator.capacity.arrivals`. Not modelled: that a
lane (a parallelization factor above 1) has only a part of its shard's bikers.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from simulator import peloton
from simulator.capacity.arrivals import LINGER_MS, TICKS, Indices
from simulator.capacity.workload import Riders
from simulator.race import FIRST_RACER_ID, Truth

EXACT_RIDE, EXACT_RIDES = 300_000, 3_000_000
"""Messages of a race of a class, and of all of them, up to which everybody's ride is known."""
_SAMPLE_RACERS, _SMOOTH_S = 250, 5

Mask = npt.NDArray[np.bool_]
Outputs = npt.NDArray[np.int32]
"""Hundredths, shape (seconds, racers)."""


@lru_cache(maxsize=16)
def outputs(first_racer_id: int, racers: int, seconds: int, class_id: int, seed: int, race_index: int) -> Outputs:
    """What racers achieve in each second of a race. They are kept: searches plan the same races again and again."""
    ids = np.arange(first_racer_id, first_racer_id + racers, dtype=np.int64)
    ride = peloton.ride(ids, seconds=seconds, class_id=class_id, seed=seed, race_index=race_index)
    return Truth.of(ids, ride).output_by_second


def improving(output: Outputs, sent: Mask | None = None) -> Mask:
    """Whether each message makes its racer better than all before it, and so does the first; of those ``sent``."""
    if sent is not None:
        output = np.where(sent, output, np.int32(-1))
    better = np.empty(output.shape, np.bool_)
    better[0] = output[0] >= 0
    np.greater(output[1:], np.maximum.accumulate(output, axis=0)[:-1], out=better[1:])
    return better


class Improvements:
    """When, on each shard, somebody gets better. ``seed`` is of what is drawn."""

    def __init__(self, riders: Riders, seed: int) -> None:
        self._riders = riders
        self._seed = seed
        workload = riders.workload
        messages = workload.racers * workload.seconds
        self._is_exact = messages <= EXACT_RIDE and messages * workload.races * len(workload.classes) <= EXACT_RIDES
        self._ticks: dict[tuple[int, int, int], Indices] = {}
        self._known_shares: dict[int, npt.NDArray[np.float64]] = {}
        self._latest: tuple[tuple[int, int], Mask] | None = None

    def any(self, shard: int, of: tuple[int, int], first_tick: float, last_tick: float) -> bool:
        """Whether a message of that race and class (by their places) that is due in these ticks, both included,
        and comes to ``shard`` makes its racer better. Ticks count from the start of the first race."""
        race, place = of
        key = (shard, race, place)
        ticks = self._ticks.get(key)
        if ticks is None:
            ticks = self._ticks[key] = self._ticks_of(shard, race, place)
        base = race * self._riders.workload.seconds * TICKS
        found = int(np.searchsorted(ticks, first_tick - base))
        return found < len(ticks) and bool(ticks[found] <= last_tick - base)

    def _ticks_of(self, shard: int, race: int, place: int) -> Indices:
        """The ticks of the race in which somebody gets better, in order."""
        workload = self._riders.workload
        mine = slice(place * workload.racers, (place + 1) * workload.racers)
        shards = self._riders.shards_of_race(race)
        here = None if shards is None else shards[mine] == shard
        rng = np.random.default_rng([self._seed, shard, race, place])
        if not self._is_exact:
            racers = workload.racers / self._riders.shard_count if here is None else int(here.sum())
            racers /= workload.interval_s
            # A tick has a fiftieth of them.
            if place not in self._known_shares:
                self._known_shares[place] = self._shares(place)
            nobody = (1 - self._known_shares[place]) ** (racers / TICKS)
            return np.flatnonzero(rng.random((workload.seconds, TICKS)) >= nobody[:, None])
        better = self._better(race, place, mine)
        seconds, racers_better = np.nonzero(better if here is None else better & here)
        if here is None:
            # Each message comes to any shard.
            kept = rng.random(len(seconds)) * self._riders.shard_count < 1
            seconds, racers_better = seconds[kept], racers_better[kept]
        phases = self._riders.phases_ms(race)[mine] // LINGER_MS
        return np.unique(seconds * TICKS + phases[racers_better])

    def _better(self, race: int, place: int, mine: slice) -> Mask:
        """:func:`improving` of that race and class; the latest is kept, for its other shards."""
        if self._latest is None or self._latest[0] != (race, place):
            workload = self._riders.workload
            first = FIRST_RACER_ID + mine.start
            output = outputs(first, workload.racers, workload.seconds, workload.classes[place], workload.seed, race)
            self._latest = (race, place), improving(output, self._sent(race, mine))
        return self._latest[1]

    def _sent(self, race: int, mine: slice) -> Mask | None:
        """Which of a class send in each second of a race; None: all of them in all."""
        attendance, workload = self._riders.attendance, self._riders.workload
        if attendance.is_steady:
            return None
        sent = np.ones((workload.seconds, workload.racers), np.bool_)
        second = 0
        while second < workload.seconds:
            alike, sends = attendance.sending(race * workload.seconds + second)
            if sends is not None:
                sent[second : second + alike] = sends[mine]
            second += alike
        return sent

    def _shares(self, place: int) -> npt.NDArray[np.float64]:
        """The share of a class that gets better in each second of a race, of some who ride it. A share of nothing among
        few is not nothing among many, so neighbouring seconds count too, and half a racer more."""
        workload = self._riders.workload
        racers = min(workload.racers, _SAMPLE_RACERS)
        first = FIRST_RACER_ID + place * workload.racers
        output = outputs(first, racers, workload.seconds, workload.classes[place], workload.seed, 0)
        counts = np.pad(improving(output).sum(axis=1).astype(np.float64), _SMOOTH_S // 2, mode="edge")
        smooth = np.convolve(counts, np.ones(_SMOOTH_S), "valid")
        shares = (smooth + 0.5) / (racers * _SMOOTH_S + 1)
        shares[0] = 1.0
        return shares
