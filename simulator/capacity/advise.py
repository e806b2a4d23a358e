"""The cheapest deployment that holds a workload, found with few plans.

Prior art is AWS's Compute Optimizer, which looks back at what was used, and general optimisers, which know nothing of
the function that they search. Here it is known to be nearly monotone: more shards and more units hardly ever make it
worse, nor does a longer window, except that messages wait for it. So the search, with everything provisioned,

1. takes what holds with ample units (:mod:`simulator.capacity.ample`);
2. bisects the write units of the table and of its index, each with the other ample: with these shards nothing can do
   with less of either. When both together hold, nothing is cheaper; otherwise units are added until they do. Read
   units are looked for where what was read says they are;
3. does the same with one shard more, when two plans say that this could pay;
4. makes sure that one step less of any size breaks the objective, and takes the step where it does not;
5. shortens the window as long as that costs nothing: results come sooner. Then 4 again, until nothing changes;
6. asks whether a stream or a table on demand, used as this one is, would be cheaper, which takes a bill and no plan;
   where it would, or nothing provisioned holds, searches the same way with it.

Sizes are steps of a ladder (:func:`simulator.capacity.choices.step_down`), plans are remembered, nothing is random:
the same question has the same answer. It takes some 50 plans, most of them as long as ``alleycat plan`` takes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

from simulator.capacity.alternatives import RunnerUp, closest_of, forbids_of, runners_up_of, with_headroom
from simulator.capacity.ample import ample
from simulator.capacity.choices import (
    BATCH,
    INDEX_RCU,
    RCU,
    SHARDS,
    SIZES,
    UNITS,
    WINDOW,
    WINDOWS,
    Kind,
    Sizes,
    writes_of,
)
from simulator.capacity.functions import Durations
from simulator.capacity.model import PlanError
from simulator.capacity.objective import Objective
from simulator.capacity.packed import aggregation_of
from simulator.capacity.prices import PRICES, Price
from simulator.capacity.trials import (
    Deploy,
    Runs,
    Trial,
    grown,
    helped,
    nearness,
    smallest,
    smallest_near,
    steps_less,
    units_up_to,
)
from simulator.capacity.workload import Workload
from simulator.cloud.limits import LimitSettings


@dataclass(frozen=True, eq=False, slots=True)
class Advice:
    """``best`` is the advice, with ``headroom`` (a share); ``just_holds`` is the same without it. Both are None when
    nothing holds, and then ``closest`` are those that come nearest and ``forbids`` says what stands in the way.
    ``headroom_note`` says which size has no headroom, and why. ``present`` is None when it cannot be planned."""

    workload: Workload
    objective: Objective
    headroom: float
    present: Trial | None
    best: Trial | None
    just_holds: Trial | None
    runners_up: tuple[RunnerUp, ...] = ()
    closest: tuple[Trial, ...] = ()
    forbids: str = ""
    headroom_note: str = ""
    plans: int = 0


@dataclass(frozen=True, eq=False, slots=True)
class _Answer:
    """The cheapest of a kind, bare and with headroom."""

    just: Trial
    best: Trial
    note: str


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

    :raises PlanError: when the template has nothing to choose, or the workload cannot be planned.
    """
    parameters = deploy({}).parameters
    present = {name: int(parameters[name]) for name in SIZES if isinstance(parameters.get(name), int | float)}
    here = Kind.of(parameters)
    if not present and not here.parameters:
        raise PlanError(f"the template has none of the parameters that are advised: {', '.join(SIZES)}")
    runs = Runs(deploy, workload, objective, settings or LimitSettings(), prices, durations, here)
    now = runs.at(here.sizes_of(present))
    kind, answers = _cheapest_kind(runs, present, headroom)
    found = answers[kind]
    if found is None:
        if not runs.made:
            raise runs.refusals[0]
        closest = closest_of(runs)
        return Advice(
            workload,
            objective,
            headroom,
            now,
            None,
            None,
            closest=tuple(closest),
            forbids=forbids_of(runs.of(closest[0].kind), closest[0]),
            plans=len(runs.made),
        )
    others = [(kind.title(other), _other(runs, present, found, other, answers.get(other))) for other in kind.others()]
    packed = aggregation_of(runs.of(kind), found.best, headroom)
    runners_up = [
        *runners_up_of(runs.of(kind), found.just, found.best, headroom, others),
        *([packed] if packed else []),
    ]
    return Advice(
        workload,
        objective,
        headroom,
        now,
        found.best,
        found.just,
        tuple(runners_up),
        headroom_note=found.note,
        plans=len(runs.made),
    )


# -- provisioned or on demand ------------------------------------------------------------------------------


def _cheapest_kind(runs: Runs, present: Sizes, headroom: float) -> tuple[Kind, dict[Kind, _Answer | None]]:
    """The kind that is cheapest with its headroom, and the answers of all that were searched; None for those of which
    nothing holds."""

    def search(kind: Kind) -> _Answer | None:
        own = runs.of(kind)
        start = ample(own, kind.sizes_of(present))
        if start is None:
            return None
        just = _cheapest(own, start, present)
        return _Answer(just, *with_headroom(own, just, headroom))

    kind = runs.kind.provisioned
    answers = {kind: search(kind)}
    moved = True
    while moved:
        moved = False
        for other in kind.others():
            best = answers[kind]
            if other in answers or not _is_worth_a_search(runs, present, kind, best, other):
                continue
            found = answers[other] = search(other)
            if found is not None and (best is None or found.best.usd < best.best.usd):
                kind, moved = other, True
                break
    return kind, answers


def _is_worth_a_search(runs: Runs, present: Sizes, kind: Kind, best: _Answer | None, other: Kind) -> bool:
    """Whether ``other`` could be cheaper than ``best``; or, where nothing of ``kind`` holds, gets nearer to holding."""
    if best is not None:
        return _bill_as(runs, present, best, other) < best.best.usd
    nearest = min((one for one in runs.made if one.kind == kind), key=nearness, default=None)
    if nearest is None:
        return True
    trial = runs.of(other).at(_sizes_as(present, nearest, other))
    return trial is not None and helped(nearest.excess, trial.excess)


def _bill_as(runs: Runs, present: Sizes, answer: _Answer, other: Kind) -> float:
    """USD of what held, if it were of the kind ``other`` and used as it was."""
    by_window: dict[int | None, Trial] = {}
    for trial in runs.made:
        # Longer windows write less, which costs nothing of what is provisioned.
        is_alike = trial.kind == answer.just.kind and trial.sizes.get(SHARDS) == answer.just.sizes.get(SHARDS)
        window = trial.sizes.get(WINDOW)
        if trial.holds and is_alike and (window not in by_window or trial.usd < by_window[window].usd):
            by_window[window] = trial
    return min(runs.of(other).usd(_sizes_as(present, one, other), one.usage) for one in by_window.values())


def _sizes_as(present: Sizes, trial: Trial, other: Kind) -> dict[str, int]:
    return other.sizes_of({**present, **trial.sizes})


def _other(runs: Runs, present: Sizes, found: _Answer, other: Kind, answer: _Answer | None) -> Trial | None:
    """What to show of another kind: its own answer, or else the advice as that kind."""
    return answer.best if answer else runs.of(other).at(_sizes_as(present, found.best, other))


# -- sizes -------------------------------------------------------------------------------------------------


def _cheapest(runs: Runs, start: dict[str, int], present: Sizes) -> Trial:
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
    while (smaller := _fresher(runs, _stepped_down(runs, best, present))) is not best:
        best = smaller
    return best


def _least_units(runs: Runs, ample: dict[str, int]) -> Trial:
    """The cheapest units for these shards and window; ``ample`` holds."""
    units = writes_of(ample)
    least = {**ample, **{name: smallest(runs, ample, name, units_up_to(ample[name])) for name in units}}
    # Nothing can do with less of either; when both are too little together, either grows, or both.
    more = [grown(runs, least, growing) for growing in ([], *([name] for name in units), units)]
    found = [one for one in (*more, runs.at(ample)) if one is not None and one.holds]
    return _least_reads(runs, min(found, key=lambda one: one.usd))


def _least_reads(runs: Runs, trial: Trial) -> Trial:
    """No more read units than it takes. Nothing that is modelled reads an index."""
    consumed = sum(trial.usage.read_units.values()) / trial.usage.seconds
    sizes = dict(trial.sizes)
    for name, guess in ((RCU, consumed), (INDEX_RCU, 1.0)):
        if name in sizes:
            sizes[name] = smallest_near(runs, sizes, name, guess)
    return runs.at(sizes) or trial


def _could_pay(runs: Runs, ample: Sizes, best: Trial) -> bool:
    """Whether these shards, dearer than those of ``best``, may be cheaper with the fewer units that they need. To pay,
    either the table's or the index's units must save half of the difference; two plans say whether they can."""
    dearer = {**best.sizes, SHARDS: ample[SHARDS]}
    units, usd = writes_of(dearer), runs.usd(dearer, best.usage)
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


def _stepped_down(runs: Runs, best: Trial, present: Sizes) -> Trial:
    """Until one step less of any size breaks the objective."""
    while True:
        if best.sizes.get(BATCH) != present.get(BATCH) and runs.holds({**best.sizes, BATCH: present[BATCH]}):
            best = runs.at({**best.sizes, BATCH: present[BATCH]}) or best
        less = next((one for one in steps_less(runs, best) if one.holds), None)
        if less is None:
            return best
        best = less


def _fresher(runs: Runs, best: Trial) -> Trial:
    """A window as short as the same sizes hold, for next to nothing more."""
    if WINDOW not in best.sizes:
        return best

    def is_as_good(window: int) -> bool:
        trial = runs.at({**best.sizes, WINDOW: window})
        return trial is not None and trial.holds and trial.usd <= best.usd * 1.01

    shorter = [window for window in WINDOWS if window < best.sizes[WINDOW]]
    place = bisect_left(shorter, True, key=is_as_good)
    return best if place == len(shorter) else runs.at({**best.sizes, WINDOW: shorter[place]}) or best
