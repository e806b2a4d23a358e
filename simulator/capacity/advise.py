"""The cheapest deployment that holds a workload, found with few plans.

Prior art is AWS's Compute Optimizer, which looks back at what was used, and general optimisers, which know nothing of
the function that they search. Here it is known to be nearly monotone: more shards and more units hardly ever make it
worse, nor does a longer window, except that messages wait for it. So the search

1. takes the longest window, then the fewest shards, that hold with ample units;
2. bisects the units of the table and of its index, each with the other ample: with these shards nothing can do with
   less of either. When both together hold, nothing is cheaper; otherwise units are added until they do;
3. does the same with one shard more, when two plans say that this could pay;
4. makes sure that one step less of any size breaks the objective, and takes the step where it does not;
5. shortens the window as long as that costs nothing: results come sooner.

Sizes are steps of a ladder (:func:`simulator.capacity.trials.step_down`), plans are remembered, nothing is random: the
same question has the same answer. It takes about 40 plans, most of them as long as ``alleycat plan`` takes.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from simulator.capacity.functions import Durations
from simulator.capacity.model import DRAIN_S, PlanError
from simulator.capacity.objective import Objective
from simulator.capacity.prices import PRICES, Price
from simulator.capacity.trials import (
    INDEX_WCU,
    MOST_UNITS,
    SHARDS,
    SIZES,
    UNITS,
    WCU,
    WINDOW,
    WINDOWS,
    Deploy,
    Runs,
    Sizes,
    Trial,
    step_down,
)
from simulator.capacity.workload import START_MS, Riders, Workload
from simulator.cloud import limits
from simulator.cloud.limits import LimitSettings
from simulator.cloud.sequence import uniform_ranges

_CLOSEST_SHOWN = 3
_SKEWED_SHARDS = 64


@dataclass(frozen=True, eq=False, slots=True)
class RunnerUp:
    """Another deployment, and in words what it gives up or gains against the advice."""

    title: str
    trial: Trial
    note: str


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
        closest = _closest(runs)
        return Advice(
            workload,
            objective,
            headroom,
            now,
            None,
            None,
            closest=tuple(closest),
            forbids=_forbids(runs, closest[0]),
            plans=len(runs.made),
        )
    just = _cheapest(runs, start)
    best, note = _with_headroom(runs, just, headroom)
    others = tuple(_runners_up(runs, just, best, headroom))
    return Advice(workload, objective, headroom, now, best, just, others, headroom_note=note, plans=len(runs.made))


# -- where to begin ----------------------------------------------------------------------------------------


def _ample(runs: Runs, present: Sizes) -> dict[str, int] | None:
    """What holds with units to spare: the longest window, and the fewest shards with it. None when nothing does."""
    spare = {name: MOST_UNITS if name in (WCU, INDEX_WCU) else value for name, value in present.items()}
    if SHARDS not in present:
        return _with_longest_window(runs, spare, [])
    candidates = _shard_counts(runs)
    tried: list[Trial] = []
    reach = 0
    while True:
        found = _with_longest_window(runs, {**spare, SHARDS: candidates[reach]}, tried)
        if found is not None or reach == len(candidates) - 1:
            break
        reach = min(max(1, reach * 2), len(candidates) - 1)
    if found is None:
        return None
    return {**found, SHARDS: _smallest(runs, found, SHARDS, candidates[reach // 2 : reach + 1])}


def _shard_counts(runs: Runs) -> list[int]:
    """Shard counts that could do, by arithmetic alone: those that a plan need not be asked about are left out."""
    least = _least_shards(runs)
    counts = list(range(least, max(least * 2, least + 8) + 1))
    if runs.objective.most.get("throttled") != 0 or runs.workload.partition_key not in ("racer", "race", "class"):
        return counts
    # Hash keys are skewed: the fullest shard counts, and with few keys it may take many shards to part them.
    counts = list(range(least, max(least * 2, _SKEWED_SHARDS) + 1))
    first = next((place for place, count in enumerate(counts) if _fits(runs, count)), 0)
    return counts[first : first + max(least, 8) + 1]


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
        windows = sorted({one.sizes[WINDOW] for one in sorted(tried, key=_nearness)[:2]}, reverse=True)
    for window in windows:
        trial = runs.at({**sizes, WINDOW: window})
        if trial is None:
            continue
        if trial.holds:
            return dict(trial.sizes)
        tried.append(trial)
        most = runs.objective.most
        if trial.found.lost or trial.found.values["throttled"] > most.get("throttled", 1.0):
            # The stream knows nothing of windows.
            return None
    return None


def _may_wait(runs: Runs, window: int) -> bool:
    """Whether a window of that length can keep the objective's times, if nothing else took any."""
    if not window:
        return True
    most, end_s = runs.objective.most, START_MS / 1000 + runs.workload.total_seconds
    # The last message of each comes in the last second.
    last_closes_s = math.ceil((end_s - 0.999) / window) * window - end_s
    return window * 0.9 <= most.get("p99", math.inf) and last_closes_s <= most.get("settled", math.inf)


def _smallest(runs: Runs, sizes: Sizes, name: str, ladder: Sequence[int]) -> int:
    """The smallest step of ``name`` that holds; the last one is known to."""
    return ladder[bisect_left(ladder[:-1], True, key=lambda value: runs.holds({**sizes, name: value}))]


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
    return _fresher(runs, _stepped_down(runs, best))


def _units(sizes: Sizes) -> list[str]:
    return [name for name in (WCU, INDEX_WCU) if name in sizes]


def _least_units(runs: Runs, spare: dict[str, int]) -> Trial:
    """The cheapest units for these shards and window; ``spare`` holds."""
    units = _units(spare)
    least = {**spare, **{name: _smallest(runs, spare, name, UNITS) for name in units}}
    # Nothing can do with less of either; when both are too little together, either grows, or both.
    grown = [_grown(runs, least, growing) for growing in ([], *([name] for name in units), units)]
    found = [one for one in (*grown, runs.at(spare)) if one is not None and one.holds]
    return min(found, key=lambda one: one.usd)


def _grown(runs: Runs, sizes: dict[str, int], growing: list[str]) -> Trial | None:
    """``sizes`` when they hold, or with as few steps more of ``growing`` as it takes."""
    if runs.holds(sizes) or not growing:
        return runs.at(sizes)
    ladders = {name: UNITS[UNITS.index(sizes[name]) :] for name in growing}
    last = min(len(one) for one in ladders.values()) - 1

    def at(place: int) -> dict[str, int]:
        return {**sizes, **{name: one[place] for name, one in ladders.items()}}

    # A few steps are enough most often.
    fails, reach = 0, min(1, last)
    while not runs.holds(at(reach)):
        if reach == last:
            return None
        fails, reach = reach, min(reach * 2, last)
    places = range(fails + 1, reach)
    return runs.at(at(fails + 1 + bisect_left(places, True, key=lambda place: runs.holds(at(place)))))


def _could_pay(runs: Runs, spare: Sizes, best: Trial) -> bool:
    """Whether these shards, dearer than those of ``best``, may be cheaper with the fewer units that they need. To pay,
    either the table's or the index's units must save half of the difference; two plans say whether they can."""
    dearer = {**best.sizes, SHARDS: spare[SHARDS]}
    units, usd = _units(dearer), runs.usd(dearer, best.usage)
    for name in units:
        saving = [low for low in UNITS if low < dearer[name]]
        enough = bisect_left(
            saving,
            True,
            key=lambda low: (usd - runs.usd({**dearer, name: low}, best.usage)) < (usd - best.usd) / len(units),
        )
        if enough and runs.holds({**spare, name: saving[enough - 1]}):
            return True
    return False


def _stepped_down(runs: Runs, best: Trial) -> Trial:
    """Until one step less of any size breaks the objective."""
    while (less := next((one for one in _steps_less(runs, best) if one.holds), None)) is not None:
        best = less
    return best


def _steps_less(runs: Runs, trial: Trial) -> Iterator[Trial]:
    """One step less of each size that costs something, the dearest first."""
    for name in (SHARDS, WCU, INDEX_WCU):
        less = _one_less(runs, trial, name)
        if less is not None:
            yield less


def _one_less(runs: Runs, trial: Trial, name: str) -> Trial | None:
    low = step_down(name, trial.sizes[name]) if name in trial.sizes else None
    return None if low is None else runs.at({**trial.sizes, name: low})


def _fresher(runs: Runs, best: Trial) -> Trial:
    """The shortest window that the same sizes hold, for next to nothing more."""
    while True:
        less = _one_less(runs, best, WINDOW)
        if less is None or not less.holds or less.usd > best.usd * 1.01:
            return best
        best = less


# -- what stands beside it ---------------------------------------------------------------------------------


def _scaled(runs: Runs, just: Trial, headroom: float, names: Sequence[str]) -> dict[str, int]:
    # A factor of 1.2 must not make 6.000000000000001 of 5.
    more = {name: math.ceil(round(just.sizes[name] * (1 + headroom), 6)) for name in names}
    if SHARDS in more:
        more[SHARDS] = _shards_with(runs, just, headroom, more[SHARDS])
    return {**just.sizes, **more}


def _shards_with(runs: Runs, just: Trial, headroom: float, most: int) -> int:
    """How many shards hold when each takes so much less: one of two that are half full has headroom already."""
    settings = runs.limit_settings
    slower = replace(settings, shard_rate_factor=settings.shard_rate_factor / (1 + headroom))
    spare = {name: MOST_UNITS if name in (WCU, INDEX_WCU) else value for name, value in just.sizes.items()}
    tight = replace(runs, limit_settings=slower, trials={})
    return _smallest(tight, spare, SHARDS, range(just.sizes[SHARDS], most + 1))


def _with_headroom(runs: Runs, just: Trial, headroom: float) -> tuple[Trial, str]:
    """``just`` with ``headroom`` of everything; or of what can have it, and a line on what cannot."""
    if not headroom:
        return just, ""
    names = [name for name in (SHARDS, WCU, INDEX_WCU) if name in just.sizes]
    wanted = _scaled(runs, just, headroom, names)
    full = runs.at(wanted)
    if full is not None and full.holds:
        return full, ""
    best, notes = just, []
    for name in reversed(names):
        trial = runs.at({**best.sizes, name: wanted[name]})
        if trial is not None and trial.holds:
            best = trial
        else:
            why = "; ".join(trial.misses) if trial else "the template does not allow it"
            notes.append(f"no headroom in {name}: {wanted[name]:,} do not hold: {why}")
    return best, ". ".join(notes)


def _runners_up(runs: Runs, just: Trial, best: Trial, headroom: float) -> Iterator[RunnerUp]:
    if best.sizes != just.sizes:
        yield RunnerUp("just holds", just, f"{_difference(just, best)}; gives up all headroom")
    failing = sorted((one for one in _steps_less(runs, just) if not one.holds), key=lambda one: (one.excess, one.usd))
    for trial in failing[:2]:
        yield RunnerUp("next cheaper", trial, f"{_difference(trial, best)}; gives up: {'; '.join(trial.misses)}")
    sooner = _one_less(runs, just, WINDOW)
    if sooner is not None:
        trial = _sooner(runs, sooner)
        gain_s = just.found.values["p99"] - trial.found.values["p99"] if trial is not None else 0.0
        if trial is not None and gain_s > 0.1:
            note = f"{_difference(trial, best)}; p99 is {gain_s:.1f} s less"
            yield RunnerUp("results sooner", trial, note + ("; has no headroom" if headroom else ""))
    ampler = 0.5 if headroom < 0.5 else headroom * 2
    more, note = _with_headroom(runs, just, ampler)
    if more.usd > best.usd:
        yield RunnerUp(f"{ampler:.0%} headroom", more, f"{_difference(more, best)}{f'; {note}' if note else ''}")


def _sooner(runs: Runs, trial: Trial) -> Trial | None:
    """``trial`` with as many more units as it takes to hold."""
    units = _units(trial.sizes)
    at_steps = {name: UNITS[min(bisect_left(UNITS, trial.sizes[name]), len(UNITS) - 1)] for name in units}
    return _grown(runs, {**trial.sizes, **at_steps}, units) if units else None


def _difference(trial: Trial, best: Trial) -> str:
    change = trial.usd - best.usd
    return f"{abs(change):,.4f} USD {'less' if change < 0 else 'more'}"


# -- nothing holds -----------------------------------------------------------------------------------------


def _nearness(trial: Trial) -> tuple[float, float]:
    """Back-off draws lots: differences of some percent are none, and the bill decides."""
    return float(f"{trial.excess:.1g}"), trial.usd


def _closest(runs: Runs) -> list[Trial]:
    """Those of all plans that are nearest to holding, of different shards or windows, with no more units than that
    takes."""
    found: dict[tuple[int, int], Trial] = {}
    for trial in sorted(runs.made, key=_nearness):
        found.setdefault((trial.sizes.get(SHARDS, 0), trial.sizes.get(WINDOW, 0)), trial)
    return sorted((_tightened(runs, one) for one in list(found.values())[:_CLOSEST_SHOWN]), key=_nearness)


def _tightened(runs: Runs, trial: Trial) -> Trial:
    enough, misses = trial.excess * 1.05, len(trial.misses)
    best = trial
    for name in _units(trial.sizes):
        steps = [*(one for one in UNITS if one < best.sizes[name]), best.sizes[name]]

        def is_enough(value: int, sizes: Sizes = best.sizes, name: str = name) -> bool:
            less = runs.at({**sizes, name: value})
            return less is not None and less.excess <= enough and len(less.misses) <= misses

        best = runs.at({**best.sizes, name: steps[bisect_left(steps[:-1], True, key=is_enough)]}) or best
    return best


def _forbids(runs: Runs, closest: Trial) -> str:
    """What stands in the way where units are ample, so that they cannot be what is missing."""
    sizes = {name: MOST_UNITS if name in (WCU, INDEX_WCU) else value for name, value in closest.sizes.items()}
    found = (runs.at(sizes) or closest).found
    if found.first_limit is None:
        return (
            "no limit refuses anything; what is left is the time that consumers take: a shard is polled once a second, "
            "a window is over when it is over, and functions take what they take"
        )
    limit = found.first_limit
    value = f" ({limit.limit:,.0f} {limit.unit})" if limit.limit else ""
    text = f"{limit.name} of {limit.resource}{value} refuses {limit.refused:,}, whatever the sizes"
    if limit.name.startswith("kinesis.shard.write") and runs.workload.partition_key in ("race", "class"):
        text += f"; all messages of a {runs.workload.partition_key} have one partition key, and go to one shard"
    return text
