"""Plans of one workload on deployments of different sizes, judged by an objective and made once each."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from simulator.capacity.functions import Durations
from simulator.capacity.model import DRAIN_S, plan
from simulator.capacity.objective import Measured, Objective, measured
from simulator.capacity.prices import PRICES, Price, Usage, bill_of, total_usd
from simulator.capacity.workload import Workload
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
UNITS = (
    *range(1, 20),
    *range(20, 100, 5),
    *range(100, 500, 10),
    *range(500, 2000, 50),
    *range(2000, 10_000, 500),
    *range(10_000, MOST_UNITS + 1, 1000),
)
WINDOWS = (0, 1, 2, 3, 5, 10, 15, 20, 30, 60, 120, 300, 900)


def step_down(name: str, value: int) -> int | None:
    """The next smaller size that the adviser knows; None below the smallest."""
    if name == SHARDS:
        return value - 1 if value > 1 else None
    ladder = WINDOWS if name == WINDOW else UNITS
    place = bisect_left(ladder, value) - 1
    return ladder[place] if place >= 0 else None


def step_up(name: str, value: int) -> int | None:
    """The next larger one; None above the largest."""
    if name == SHARDS:
        return value + 1
    ladder = WINDOWS if name == WINDOW else UNITS
    place = bisect_right(ladder, value)
    return ladder[place] if place < len(ladder) else None


@dataclass(frozen=True, eq=False, slots=True)
class Trial:
    """One plan: sizes, what came out, and what of the objective is missed. ``excess`` is how far it is from holding."""

    sizes: Sizes
    found: Measured
    usage: Usage
    misses: tuple[str, ...]
    excess: float

    @property
    def holds(self) -> bool:
        return not self.misses

    @property
    def usd(self) -> float:
        return self.found.usd

    def as_json(self) -> dict[str, Any]:
        return {
            "parameters": dict(self.sizes),
            "holds": self.holds,
            "misses": list(self.misses),
            **self.found.as_json(),
        }


@dataclass(slots=True)
class Runs:
    """Trials by sizes."""

    deploy: Deploy
    workload: Workload
    objective: Objective
    limit_settings: LimitSettings = field(default_factory=LimitSettings)
    prices: Mapping[str, Price] = field(default_factory=lambda: PRICES)
    durations: Durations | None = None
    trials: dict[tuple[tuple[str, int], ...], Trial | None] = field(default_factory=dict)

    def at(self, sizes: Sizes) -> Trial | None:
        """None when the template does not allow such sizes."""
        key = tuple(sorted(sizes.items()))
        if key not in self.trials:
            self.trials[key] = self._run(dict(sizes))
        return self.trials[key]

    def _run(self, sizes: dict[str, int]) -> Trial | None:
        deployment = self._deployed(sizes)
        if deployment is None:
            return None
        settled_s = self.objective.most.get("settled")
        run = plan(
            deployment,
            self.workload,
            settings=self.limit_settings,
            durations=self.durations,
            prices=self.prices,
            # What takes longer than this is no answer, however much longer.
            drain_s=DRAIN_S if settled_s is None else min(DRAIN_S, max(60.0, 3 * settled_s)),
        )
        found = measured(run)
        return Trial(sizes, found, run.usage, tuple(found.misses(self.objective)), found.excess(self.objective))

    def _deployed(self, sizes: Sizes) -> Deployment | None:
        try:
            return self.deploy({name: str(value) for name, value in sizes.items()})
        except ConfigError:
            return None

    def holds(self, sizes: Sizes) -> bool:
        trial = self.at(sizes)
        return trial is not None and trial.holds

    def usd(self, sizes: Sizes, usage: Usage) -> float:
        """The bill of ``sizes`` if they were used like that, without a plan. ``inf`` when there cannot be such."""
        deployment = self._deployed(sizes)
        return float("inf") if deployment is None else total_usd(bill_of(deployment, usage, self.prices))

    @property
    def made(self) -> list[Trial]:
        return [trial for trial in self.trials.values() if trial is not None]


# -- moves ------------------------------------------------------------------------------------------------


def spare(sizes: Sizes) -> dict[str, int]:
    """``sizes`` with units that cannot be what is missing."""
    return {name: MOST_UNITS if name in (WCU, INDEX_WCU) else value for name, value in sizes.items()}


def nearness(trial: Trial) -> tuple[float, float]:
    """Back-off draws lots: differences of some percent are none, and the bill decides."""
    return float(f"{trial.excess:.1g}"), trial.usd


def smallest(runs: Runs, sizes: Sizes, name: str, ladder: Sequence[int]) -> int:
    """The smallest step of ``name`` that holds; the last one is known to."""
    return ladder[bisect_left(ladder[:-1], True, key=lambda value: runs.holds({**sizes, name: value}))]


def units_of(sizes: Sizes) -> list[str]:
    return [name for name in (WCU, INDEX_WCU) if name in sizes]


def grown(runs: Runs, sizes: dict[str, int], growing: list[str]) -> Trial | None:
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


def steps_less(runs: Runs, trial: Trial) -> Iterator[Trial]:
    """One step less of each size that costs something, the dearest first."""
    for name in (SHARDS, WCU, INDEX_WCU):
        less = one_less(runs, trial, name)
        if less is not None:
            yield less


def one_less(runs: Runs, trial: Trial, name: str) -> Trial | None:
    low = step_down(name, trial.sizes[name]) if name in trial.sizes else None
    return None if low is None else runs.at({**trial.sizes, name: low})
