"""The cheapest deployment that holds a workload, found with few plans.

Prior art is AWS's Compute Optimizer, which looks back at what was used, and general optimisers, which know nothing of
the function that they search. Here it is known to be nearly monotone: more shards and more units hardly ever make it
worse, nor does a longer window, except that messages wait for it. So the search

1. takes the longest window, then the fewest shards, that hold with ample units;
2. bisects the units of the table and of its index, each with the other ample: with these shards nothing can do with
   less of either. When both together hold, nothing is cheaper; otherwise units are added until they do;
3. does the same with one shard more, when two plans say that this could pay;
4. makes sure that one step less of any size breaks the objective, and takes the step where it does not;
5. shortens the window as long as that costs nothing: results come sooner. Then 4 again, until nothing changes.

Sizes are steps of a ladder (:func:`simulator.capacity.trials.step_down`), plans are remembered, nothing is random: the
same question has the same answer. It takes about 40 plans, most of them as long as ``alleycat plan`` takes.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from simulator.capacity.alternatives import RunnerUp, closest_of, forbids_of, runners_up_of, with_headroom
from simulator.capacity.functions import Durations
from simulator.capacity.model import DRAIN_S, PlanError
from simulator.capacity.objective import Objective
from simulator.capacity.prices import PRICES, Price
from simulator.capacity.trials import (
    SHARDS,
    SIZES,
    UNITS,
    WINDOW,
    WINDOWS,
    Deploy,
    Runs,
    Sizes,
    Trial,
    grown,
    nearness,
    one_less,
    smallest,
    spare,
    steps_less,
    units_of,
)
from simulator.capacity.workload import Riders, Workload
from simulator.cloud import limits
from simulator.cloud.limits import LimitSettings
from simulator.cloud.sequence import uniform_ranges

_CLOSEST_SHOWN = 3
_SKEWED_SHARDS = 64


@dataclass(frozen=True, eq=False, slots=True)
class Advice:
    """``best`` is the advice, with ``headroom`` (a share); ``just_holds`` is the same without it. Both are None when
    nothing holds, and then ``closest`` are those that come nearest and ``forbids`` says what stands in the way.
    ``headroom_note`` says which size has no headroom, and why."""

    workload: Workload
    objective: Objective
    headroom: float
    present: Trial
    best: Trial | None
    just_holds: Trial | None
    runners_up: tuple[RunnerUp, ...] = ()
    closest: tuple[Trial, ...] = ()
    forbids: str = ""
    headroom_note: str = ""
    plans: int = 0


def advise(
    deploy: Deploy,
    workload: Workload,
    objective: Objective,
    *,
    headroom: float = 0.0,
    settings: LimitSettings | None = None,
    prices: Mapping[str, Price] = PRICES,
    durations: Durations | None = None,
) -> Advice:
    """Search. ``headroom`` is a share of shards and units, on top of what just holds.

    :raises PlanError: when the template has none of the sizes, or the workload cannot be planned.
    """
    parameters = deploy({}).parameters
    present = {name: int(parameters[name]) for name in SIZES if isinstance(parameters.get(name), int | float)}
    if not present:
        raise PlanError(f"the template has none of the parameters that are advised: {', '.join(SIZES)}")
    runs = Runs(deploy, workload, objective, settings or LimitSettings(), prices, durations)
    now = runs.at(present)
    assert now is not None, "it was deployed above"
    start = _ample(runs, present)
    if start is None:
        closest = closest_of(runs)
        return Advice(
            workload,
            objective,
            headroom,
            now,
            None,
            None,
            closest=tuple(closest),
            forbids=forbids_of(runs, closest[0]),
            plans=len(runs.made),
        )
    just = _cheapest(runs, start)
    best, note = with_headroom(runs, just, headroom)
    others = tuple(runners_up_of(runs, just, best, headroom))
    return Advice(workload, objective, headroom, now, best, just, others, headroom_note=note, plans=len(runs.made))


# -- where to begin ----------------------------------------------------------------------------------------


def _ample(runs: Runs, present: Sizes) -> dict[str, int] | None:
    """What holds with units to spare: the longest window, and the fewest shards with it. None when nothing does."""
    ample = spare(present)
    if SHARDS not in present:
        return _with_longest_window(runs, ample, [])
    candidates = _shard_counts(runs)
    tried: list[Trial] = []
    reach = 0
    while True:
        found = _with_longest_window(runs, {**ample, SHARDS: candidates[reach]}, tried)
        if found is not None or reach == len(candidates) - 1:
            break
        reach = min(max(1, reach * 2), len(candidates) - 1)
    if found is None:
        return None
    return {**found, SHARDS: smallest(runs, found, SHARDS, candidates[reach // 2 : reach + 1])}


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


def _with_longest_window(runs: Runs, sizes: Sizes, tried: list[Trial]) -> dict[str, int] | None:
    """``tried`` are those of fewer shards that failed: what came near for them is enough to look at again."""
    if WINDOW not in sizes:
        return dict(sizes) if runs.holds(sizes) else None
    windows = [one for one in reversed(WINDOWS) if _may_wait(runs, one)]
    if tried:
        windows = sorted({one.sizes[WINDOW] for one in sorted(tried, key=nearness)[:2]}, reverse=True)
    for window in windows:
        trial = runs.at({**sizes, WINDOW: window})
        if trial is None:
            continue
        if trial.holds:
            return dict(trial.sizes)
        most = runs.objective.most
        if trial.found.lost or trial.found.values["throttled"] > most.get("throttled", 1.0):
            # The stream knows nothing of windows.
            return None
        tried.append(trial)
    return None


def _may_wait(runs: Runs, window: int) -> bool:
    """Whether a window of that length can keep the objective's times, if nothing else took any."""
    if not window:
        return True
    most, end_s = runs.objective.most, runs.workload.start_ms / 1000 + runs.workload.total_seconds
    # The last message of each comes in the last second.
    last_closes_s = math.ceil((end_s - 0.999) / window) * window - end_s
    return window * 0.9 <= most.get("p99", math.inf) and last_closes_s <= most.get("settled", math.inf)


# -- the search --------------------------------------------------------------------------------------------


def _cheapest(runs: Runs, start: dict[str, int]) -> Trial:
    best = _least_units(runs, start)
    while SHARDS in start:
        start = {**start, SHARDS: start[SHARDS] + 1}
        if not runs.holds(start) or not _could_pay(runs, start, best):
            break
        other = _least_units(runs, start)
        if other.usd >= best.usd:
            break
        best = other
    # Either may open the way for the other; sizes only ever fall, so that this ends.
    while (smaller := _fresher(runs, _stepped_down(runs, best))) is not best:
        best = smaller
    return best


def _least_units(runs: Runs, ample: dict[str, int]) -> Trial:
    """The cheapest units for these shards and window; ``ample`` holds."""
    units = units_of(ample)
    least = {**ample, **{name: smallest(runs, ample, name, UNITS) for name in units}}
    # Nothing can do with less of either; when both are too little together, either grows, or both.
    more = [grown(runs, least, growing) for growing in ([], *([name] for name in units), units)]
    found = [one for one in (*more, runs.at(ample)) if one is not None and one.holds]
    return min(found, key=lambda one: one.usd)


def _could_pay(runs: Runs, ample: Sizes, best: Trial) -> bool:
    """Whether these shards, dearer than those of ``best``, may be cheaper with the fewer units that they need. To pay,
    either the table's or the index's units must save half of the difference; two plans say whether they can."""
    dearer = {**best.sizes, SHARDS: ample[SHARDS]}
    units, usd = units_of(dearer), runs.usd(dearer, best.usage)
    for name in units:
        saving = [low for low in UNITS if low < dearer[name]]
        enough = bisect_left(
            saving,
            True,
            key=lambda low: (usd - runs.usd({**dearer, name: low}, best.usage)) < (usd - best.usd) / len(units),
        )
        if enough and runs.holds({**ample, name: saving[enough - 1]}):
            return True
    return False


def _stepped_down(runs: Runs, best: Trial) -> Trial:
    """Until one step less of any size breaks the objective."""
    while (less := next((one for one in steps_less(runs, best) if one.holds), None)) is not None:
        best = less
    return best


def _fresher(runs: Runs, best: Trial) -> Trial:
    """The shortest window that the same sizes hold, for next to nothing more."""
    while True:
        less = one_less(runs, best, WINDOW)
        if less is None or not less.holds or less.usd > best.usd * 1.01:
            return best
        best = less
