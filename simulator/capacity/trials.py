"""Plans of one workload on deployments of different sizes, judged by an objective and made once each."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from simulator.capacity.choices import (
    AMPLE_READS,
    COSTLY,
    LANES,
    MOST_UNITS,
    READS,
    UNITS,
    WRITES,
    Kind,
    Sizes,
    step_down,
)
from simulator.capacity.functions import Durations
from simulator.capacity.model import DRAIN_S, PlanError, plan
from simulator.capacity.objective import Measured, Objective, measured
from simulator.capacity.prices import PRICES, Price, Usage, bill_of, total_usd
from simulator.capacity.workload import Workload
from simulator.cloud.limits import LimitSettings
from simulator.deployment import Deployment, DeploymentError

Deploy = Callable[[Mapping[str, str]], Deployment]
"""The deployment with these parameters in place of its own. :raises DeploymentError: when one cannot be so."""

_Key = tuple[Kind, tuple[tuple[str, int], ...]]


@dataclass(frozen=True, eq=False, slots=True)
class Trial:
    """One plan: sizes, what came out, and what of the objective is missed. ``excess`` is how far it is from holding."""

    kind: Kind
    sizes: Sizes
    found: Measured
    usage: Usage
    misses: tuple[str, ...]
    excess: float
    refused: bool = False
    """Whether shards refuse more than is allowed, or messages are lost: what no function and no table can mend."""

    @property
    def holds(self) -> bool:
        return not self.misses

    @property
    def usd(self) -> float:
        return self.found.usd

    @property
    def parameters(self) -> dict[str, str | int]:
        """All that was chosen, for the template."""
        return {**self.kind.parameters, **self.sizes}

    def as_json(self) -> dict[str, Any]:
        return {
            "parameters": self.parameters,
            "holds": self.holds,
            "misses": list(self.misses),
            **self.found.as_json(),
        }


@dataclass(slots=True)
class Runs:
    """Trials of one kind by sizes; what was planned and deployed is shared with those of other kinds."""

    deploy: Deploy
    workload: Workload
    objective: Objective
    limit_settings: LimitSettings = field(default_factory=LimitSettings)
    prices: Mapping[str, Price] = field(default_factory=lambda: PRICES)
    durations: Durations | None = None
    kind: Kind = field(default_factory=Kind)
    trials: dict[_Key, Trial | None] = field(default_factory=dict)
    deployments: dict[_Key, Deployment | None] = field(default_factory=dict)
    refusals: list[PlanError] = field(default_factory=list)

    def of(self, kind: Kind) -> Runs:
        """The same with that kind."""
        return replace(self, kind=kind)

    def at(self, sizes: Sizes) -> Trial | None:
        """None when the template does not allow such sizes, or they cannot be planned."""
        key = self._key(sizes)
        if key not in self.trials:
            self.trials[key] = self._run(dict(sizes))
        return self.trials[key]

    def _key(self, sizes: Sizes) -> _Key:
        return self.kind, tuple(sorted(sizes.items()))

    def _run(self, sizes: dict[str, int]) -> Trial | None:
        deployment = self._deployed(sizes)
        if deployment is None:
            return None
        settled_s = self.objective.most.get("settled")
        try:
            run = plan(
                deployment,
                self.workload,
                settings=self.limit_settings,
                durations=self.durations,
                prices=self.prices,
                # What takes longer than this is no answer, however much longer.
                drain_s=DRAIN_S if settled_s is None else min(DRAIN_S, max(60.0, 3 * settled_s)),
            )
        except PlanError as error:
            self.refusals.append(error)
            return None
        found = measured(run)
        misses = tuple(found.misses(self.objective))
        refused = found.values["throttled"] > self.objective.most.get("throttled", 1.0) or found.lost > 0
        return Trial(self.kind, sizes, found, run.usage, misses, found.excess(self.objective), refused)

    def _deployed(self, sizes: Sizes) -> Deployment | None:
        key = self._key(sizes)
        if key not in self.deployments:
            chosen = self.kind.parameters | {name: str(value) for name, value in sizes.items()}
            try:
                self.deployments[key] = self.deploy(chosen)
            except DeploymentError:
                self.deployments[key] = None
        return self.deployments[key]

    def holds(self, sizes: Sizes) -> bool:
        trial = self.at(sizes)
        return trial is not None and trial.holds

    def usd(self, sizes: Sizes, usage: Usage) -> float:
        """The bill of ``sizes`` if they were used like that, without a plan. ``inf`` when there cannot be such."""
        deployment = self._deployed(sizes)
        return float("inf") if deployment is None else total_usd(bill_of(deployment, usage, self.prices))

    @property
    def made(self) -> list[Trial]:
        """Of all kinds."""
        return [trial for trial in self.trials.values() if trial is not None]

    def spare(self, sizes: Sizes, reads: int = AMPLE_READS) -> dict[str, int]:
        """``sizes`` with units that cannot be what is missing: as many as AWS gives, or the template takes."""
        most = dict.fromkeys(WRITES, MOST_UNITS) | dict.fromkeys(READS, reads)
        return {name: self._at_most(sizes, name, most[name]) if name in most else sizes[name] for name in sizes}

    def _at_most(self, sizes: Sizes, name: str, most: int) -> int:
        if self._deployed({**sizes, name: most}) is not None:
            return most
        more = [step for step in UNITS if sizes[name] < step < most]
        place = bisect_left(more, True, key=lambda step: self._deployed({**sizes, name: step}) is None)
        return more[place - 1] if place else sizes[name]


# -- moves ------------------------------------------------------------------------------------------------


def nearness(trial: Trial) -> tuple[bool, float, float]:
    """Whoever keeps what is asked of the stream is nearer than who does not, however soon that one settles. Back-off
    draws lots: differences of some percent are none, and the bill decides."""
    return trial.refused, float(f"{trial.excess:.1g}"), trial.usd


def helped(before: float, after: float) -> bool:
    """Whether an excess got smaller by more than lots that were drawn otherwise."""
    return after < before - 0.1 * min(1.0, before)


def smallest(runs: Runs, sizes: Sizes, name: str, ladder: Sequence[int]) -> int:
    """The smallest step of ``name`` that holds; the last one is known to."""
    return ladder[bisect_left(ladder[:-1], True, key=lambda value: runs.holds({**sizes, name: value}))]


def units_up_to(most: int) -> list[int]:
    """The steps of units, ``most`` the last of them."""
    return [*(step for step in UNITS if step < most), most]


def smallest_near(runs: Runs, sizes: Sizes, name: str, guess: float) -> int:
    """:func:`smallest` of the units ``name``, which ``sizes`` has enough of, looking first where they are guessed."""
    ladder = units_up_to(sizes[name])
    low, high = 0, min(bisect_left(ladder, guess), len(ladder) - 1)
    reach = 1
    while high < len(ladder) - 1 and not runs.holds({**sizes, name: ladder[high]}):
        low, high, reach = high + 1, min(high + reach, len(ladder) - 1), reach * 2
    return smallest(runs, sizes, name, ladder[low : high + 1])


def grown(runs: Runs, sizes: dict[str, int], growing: list[str]) -> Trial | None:
    """``sizes`` when they hold, or with as few steps more of ``growing`` as it takes."""
    if runs.holds(sizes) or not growing:
        return runs.at(sizes)
    ladders = {name: (sizes[name], *(step for step in UNITS if step > sizes[name])) for name in growing}
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
    """One step less of each size that costs something, the dearest first, then of what runs side by side."""
    for name in (*COSTLY, LANES):
        less = one_less(runs, trial, name)
        if less is not None:
            yield less


def one_less(runs: Runs, trial: Trial, name: str) -> Trial | None:
    low = step_down(name, trial.sizes[name]) if name in trial.sizes else None
    return None if low is None else runs.at({**trial.sizes, name: low})
