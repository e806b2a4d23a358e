"""The cheapest deployment that holds a workload, found with few plans.

Prior art is AWS's Compute Optimizer, which looks back at what was used, and general optimisers, which know nothing of
the function that they search. Here it is known to be nearly monotone: more shards, units or a longer window never make
it much worse, except where they do (a longer window makes messages wait, more shards write to one partition at once).
So the search

1. takes the longest window that an ample deployment holds, and the fewest shards with ample units;
2. bisects the units of the table and of its index, each with the other ample: no deployment with these shards can do
   with less. When both together hold, nothing is cheaper; otherwise units are added until they do;
3. does the same with one shard more, when two plans say that this could pay;
4. checks that one step less of any size breaks the objective, and takes the step where it does not;
5. shortens the window as long as that costs nothing.

Sizes are steps of a ladder (:func:`step_down`), plans are remembered, nothing is random: the same question has the
same answer. About 40 plans, each as long as ``alleycat plan`` takes.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from simulator.capacity.functions import Durations
from simulator.capacity.model import DRAIN_S, PlanError, plan
from simulator.capacity.objective import Measured, Objective, measured
from simulator.capacity.prices import PRICES, Price
from simulator.capacity.workload import Workload
from simulator.cloud import limits
from simulator.cloud.limits import LimitSettings
from simulator.deployment import ConfigError, Deployment

SHARDS, WINDOW = "ShardCount", "TumblingWindowInSeconds"
WCU, INDEX_WCU = "WriteCapacityUnits", "IndexWriteCapacityUnits"
SIZES = (SHARDS, WINDOW, WCU, INDEX_WCU)
"""Template parameters that the adviser chooses, as far as the template has them; the others stay."""

Sizes = Mapping[str, int]
Deploy = Callable[[Mapping[str, str]], Deployment]
"""The deployment with these parameters in place of its own. :raises ConfigError: when one cannot be so."""

MOST_UNITS = 40_000
"""AWS's default quota of a table's write units."""
_MOST_SHARDS_OVER = 8
_UNITS = (
    *range(1, 20),
    *range(20, 100, 5),
    *range(100, 500, 10),
    *range(500, 2000, 50),
    *range(2000, 10_000, 500),
    *range(10_000, MOST_UNITS + 1, 1000),
)
_WINDOWS = (0, 1, 2, 3, 5, 10, 15, 20, 30, 60, 120, 300, 900)


def step_down(name: str, value: int) -> int | None:
    """The next smaller size that the adviser knows; None below the smallest."""
    if name == SHARDS:
        return value - 1 if value > 1 else None
    ladder = _WINDOWS if name == WINDOW else _UNITS
    place = bisect_left(ladder, value) - 1
    return ladder[place] if place >= 0 else None


def step_up(name: str, value: int) -> int | None:
    """The next larger one; None above the largest."""
    if name == SHARDS:
        return value + 1
    ladder = _WINDOWS if name == WINDOW else _UNITS
    place = bisect_right(ladder, value)
    return ladder[place] if place < len(ladder) else None


@dataclass(frozen=True, eq=False, slots=True)
class Trial:
    """One plan of the search: sizes, what came out, and what of the objective is missed."""

    sizes: Sizes
    found: Measured
    misses: tuple[str, ...]
    excess: float

    @property
    def holds(self) -> bool:
        return not self.misses

    @property
    def usd(self) -> float:
        return self.found.usd


@dataclass(frozen=True, eq=False, slots=True)
class RunnerUp:
    """Another deployment, and in words what it gives up or gains against the advice."""

    title: str
    trial: Trial
    note: str


@dataclass(frozen=True, eq=False, slots=True)
class Advice:
    """``best`` is the advice, with headroom; None when nothing holds, and then ``closest`` are those that come nearest
    and ``forbids`` says which limit stands in the way. ``just_holds`` is ``best`` without headroom. ``headroom_note``
    says where there is none."""

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


@dataclass(slots=True)
class Runs:
    """Plans of one workload by sizes; each is made once."""

    deploy: Deploy
    workload: Workload
    objective: Objective
    limit_settings: LimitSettings | None = None
    prices: Mapping[str, Price] = field(default_factory=lambda: PRICES)
    durations: Durations | None = None
    trials: dict[tuple[tuple[str, int], ...], Trial | None] = field(default_factory=dict)

    def at(self, sizes: Sizes) -> Trial | None:
        """None when the template does not allow such sizes."""
        key = tuple(sorted(sizes.items()))
        if key not in self.trials:
            self.trials[key] = self._run(sizes)
        return self.trials[key]

    def _run(self, sizes: Sizes) -> Trial | None:
        try:
            deployment = self.deploy({name: str(value) for name, value in sizes.items()})
        except ConfigError:
            return None
        settled_s = self.objective.most.get("settled")
        found = measured(
            plan(
                deployment,
                self.workload,
                settings=self.limit_settings,
                durations=self.durations,
                prices=self.prices,
                # What takes longer than this is no answer, however much longer.
                drain_s=DRAIN_S if settled_s is None else min(DRAIN_S, max(60.0, 3 * settled_s)),
            )
        )
        misses = tuple(found.misses(self.objective))
        return Trial(MappingProxyType(dict(sizes)), found, misses, found.excess(self.objective))

    def holds(self, sizes: Sizes) -> bool:
        trial = self.at(sizes)
        return trial is not None and trial.holds

    @property
    def made(self) -> list[Trial]:
        return [trial for trial in self.trials.values() if trial is not None]


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
    """Search. ``headroom`` is a share of shards and units on top of what just holds.

    :raises PlanError: when the template has none of the sizes, or the workload cannot be planned.
    """
    parameters = deploy({}).parameters
    present = {name: int(parameters[name]) for name in SIZES if isinstance(parameters.get(name), int | float)}
    if not present:
        raise PlanError(f"the template has none of the parameters that are advised: {', '.join(SIZES)}")
    runs = Runs(deploy, workload, objective, settings, prices, durations)
    now = runs.at(present)
    assert now is not None
    least = _least_shards(runs) if SHARDS in present else 1
    start = _ample(runs, present, least)
    if start is None:
        return Advice(
            objective,
            headroom,
            now,
            None,
            None,
            closest=tuple(_closest(runs.made)),
            forbids=_forbids(runs),
            plans=len(runs.trials),
        )
    just = _cheapest(runs, start, least)
    best, note = _with_headroom(runs, just, headroom)
    runners_up = tuple(_runners_up(runs, just, best, headroom))
    return Advice(objective, headroom, now, best, just, runners_up, headroom_note=note, plans=len(runs.trials))


# -- the search -------------------------------------------------------------------------------------------


def _least_shards(runs: Runs) -> int:
    """What arithmetic says: nobody puts more on a shard than its rate for the time there is, and one second saved."""
    workload, most = runs.workload, runs.objective.most
    factor = (runs.limit_settings or LimitSettings()).shard_rate_factor
    rate = limits.SHARD_WRITE_RECORDS.value * factor
    time_s = workload.total_seconds + 1.0
    if most.get("throttled") != 0:
        # What is refused is sent again, until it has settled or is given up.
        time_s += min(workload.deadline_s, most.get("settled", DRAIN_S))
    return max(1, math.ceil(workload.messages * (1 - most.get("throttled", 0.0)) / (rate * time_s)))


def _ample(runs: Runs, present: Sizes, least: int) -> dict[str, int] | None:
    """A deployment that holds, with units to spare and the longest window there may be; None when none does."""
    shards = least
    tried: set[int] = set()
    while shards not in tried and shards <= max(2, least) * _MOST_SHARDS_OVER:
        tried.add(shards)
        sizes = _spare(present) | ({SHARDS: shards} if SHARDS in present else {})
        window = _longest_window(runs, sizes) if WINDOW in present else 0
        if window is not None:
            return sizes | ({WINDOW: window} if WINDOW in present else {})
        shards = max(shards + 1, shards * 2) if SHARDS in present else shards
    return None


def _spare(sizes: Sizes) -> dict[str, int]:
    return {name: MOST_UNITS if name in (WCU, INDEX_WCU) else value for name, value in sizes.items()}


def _longest_window(runs: Runs, sizes: Sizes) -> int | None:
    """Holding windows lie together: those below are too many writes, those above too long a wait."""
    allowed = [one for one in _WINDOWS if runs.holds({**sizes, WINDOW: one})] if False else list(_WINDOWS)
    within = runs.objective.most.get("p99", math.inf)
    holding = [one for one in allowed if one <= within]
    while holding:
        # From the longest down; a window that does not hold for its length is far above one that does.
        middle = holding[-1]
        if runs.holds({**sizes, WINDOW: middle}):
            return middle
        holding.pop()
    return None


def _cheapest(runs: Runs, start: dict[str, int], least: int) -> Trial:
    if SHARDS in start:
        start = {**start, SHARDS: _smallest(runs, start, SHARDS, range(least, start[SHARDS] + 1))}
    best = _least_units(runs, start)
    while SHARDS in start:
        more = {**start, SHARDS: start[SHARDS] + 1}
        if not _could_pay(runs, more, best):
            break
        start, other = more, _least_units(runs, more)
        best = min(best, other, key=lambda one: one.usd)
    return _fresher(runs, _stepped_down(runs, best))


def _smallest(runs: Runs, sizes: Sizes, name: str, ladder: Iterable[int]) -> int:
    """The smallest step of ``name`` that holds; the last one is taken to."""
    steps = list(ladder)
    place = bisect_left(steps[:-1], True, key=lambda value: runs.holds({**sizes, name: value}))
    return steps[place]


def _least_units(runs: Runs, spare: dict[str, int]) -> Trial:
    """The cheapest units for these shards and window; ``spare`` holds."""
    units = [name for name in (WCU, INDEX_WCU) if name in spare]
    low = {name: _smallest(runs, spare, name, _UNITS) for name in units}
    # Each grows alone from where both are as small as can be, and both together.
    found = [
        trial
        for growing in ([], *([name] for name in units), units)
        if (trial := _grown(runs, {**spare, **low}, growing)) is not None
    ]
    fallback = runs.at(spare)
    assert fallback is not None
    return min([*found, fallback], key=lambda one: one.usd)


def _grown(runs: Runs, sizes: dict[str, int], growing: list[str]) -> Trial | None:
    """``sizes`` as they are, or with steps more of ``growing`` until they hold."""
    steps = {name: _UNITS[bisect_left(_UNITS, sizes[name]) :] for name in growing}
    length = min((len(one) for one in steps.values()), default=1)

    def at(place: int) -> dict[str, int]:
        return sizes | {name: one[place] for name, one in steps.items()}

    if runs.holds(sizes):
        return runs.at(sizes)
    # Most often a few steps are enough.
    reach = 1
    while reach < length and not runs.holds(at(reach)):
        reach *= 2
    if reach >= length:
        return None
    places = range(reach // 2 + 1, reach)
    place = bisect_left(places, True, key=lambda one: runs.holds(at(one)))
    return runs.at(at(places[place] if place < len(places) else reach))


def _could_pay(runs: Runs, sizes: dict[str, int], best: Trial) -> bool:
    """Whether units that hold these sizes may be cheaper than ``best``. What is cheaper has less of the table's or of
    the index's units than pay for the difference by halves, so it is enough to look at the two."""
    units = [name for name in (WCU, INDEX_WCU) if name in sizes]
    dearer = runs.at({**best.sizes, SHARDS: sizes[SHARDS]})
    if dearer is None or not units:
        return False
    for name in units:
        low = step_down(name, best.sizes[name])
        while low is not None:
            cheaper = runs.at({**dearer.sizes, name: low})
            if cheaper is None:
                return False
            if dearer.usd - cheaper.usd >= (dearer.usd - best.usd) / len(units):
                break
            low = step_down(name, low)
        if low is not None and runs.holds({**sizes, name: low}):
            return True
    return False


def _stepped_down(runs: Runs, best: Trial) -> Trial:
    """Until one step less of any size breaks the objective."""
    while True:
        for name in (SHARDS, WCU, INDEX_WCU):
            trial = _one_less(runs, best, name)
            if trial is not None and trial.holds:
                best = trial
                break
        else:
            return best


def _one_less(runs: Runs, trial: Trial, name: str) -> Trial | None:
    low = step_down(name, trial.sizes[name]) if name in trial.sizes else None
    return None if low is None else runs.at({**trial.sizes, name: low})


def _fresher(runs: Runs, best: Trial) -> Trial:
    """The shortest window that the same sizes hold: results sooner for nothing."""
    while True:
        trial = _one_less(runs, best, WINDOW)
        if trial is None or not trial.holds or trial.usd > best.usd * 1.001:
            return best
        best = trial
