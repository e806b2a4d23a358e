"""Durations from a measured race, and how far plans with the old ones and the new ones are from it.

The race that was measured is planned, and what its functions took is held against what they really took: the median
of invocations with about as many records, and the mean, both of warm invocations; from an older report its p50 and p99.
:class:`Durations` are then moved until that agrees best, by Gauss-Newton steps on their logarithms, which keeps them
positive; their slopes are differences of plans, so a throttled call or a full window counts as it does in any plan.

What cannot be told must not be guessed:

- a figure that hardly follows durations is a wait (a throttled write's back-off) and says nothing about them;
- medians weigh by how many invocations they are of, means by how much of the time was their function's, because that is
  where the calls are;
- single figures that agree with nothing else weigh less the further off they are (Huber);
- a little weight on what was assumed before holds a duration that no figure tells from others, and one that is held by
  that more than by figures is left as it was, and named.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from consumers.runtime.statistics import by_records, nearest_rank
from simulator.capacity.comparison import Row, compare
from simulator.capacity.functions import Durations
from simulator.capacity.measurement import MeasuredFunction, Measurement
from simulator.capacity.model import Plan

Planned = Callable[[Durations, int], Plan]
"""Plans the measured race with these durations; the number is of the luck that it has with pollers."""
NAMES = ("invocation_ms", "record_us", "call_ms")
_STEPS, _STEP_MAX, _DIFFERENCE, _SETTLED = 8, 1.5, 0.05, 0.005
_SLOPES_HOLD = 0.2
"""Slopes are taken again after a larger step."""
_OUTLIER, _PRIOR = 0.3, 0.05
_TOLD, _FOLLOWS_LEAST, _FOLLOWS_MOST = 0.5, 0.5, 1.5
_GROUP_LEAST, _GROUP_FULL = 3, 30
"""So many invocations make a median worth a look, and so many its full weight."""
_LEAST = 1e-3
_COLD_SHARE = 0.01
_Vector = npt.NDArray[np.float64]
_Key = tuple[str, str]
SEEDS, _SEEDS_MOST_MESSAGES = 5, 5_000_000
"""Pollers begin when they begin, so a race may end in several ways: so many plans say in which, if they are no large
ones."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """``fitted`` names those durations that the measurement told; the others are as ``before``."""

    measurement: Measurement
    before: Durations
    after: Durations
    fitted: tuple[str, ...]
    rows: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """As in plan.json."""
        return {
            "report": self.measurement.path.name,
            "kind": self.measurement.kind,
            "durations": {
                name: {
                    "before": getattr(self.before, name),
                    "after": round(getattr(self.after, name), 3),
                    "measured": name in self.fitted,
                }
                for name in NAMES
            },
            "rows": [row.as_json() for row in self.rows],
            "notes": list(self.notes),
        }


def calibrate(measurement: Measurement, plan: Planned, before: Durations, pinned: Sequence[str] = ()) -> Calibration:
    """Durations that explain ``measurement`` best; those in ``pinned`` stay.

    :param plan: of the measured race; not called for a load test.
    """
    notes = list(measurement.notes)
    if measurement.workload is None:
        fitted = ("call_ms",) if measurement.call_ms is not None and "call_ms" not in pinned else ()
        after = replace(before, call_ms=measurement.call_ms) if fitted and measurement.call_ms is not None else before
        spans = [(one.call_ms, one.call_ms) for one in (before, after)]
        rows = [Row("table", "call p50 ms", after.call_ms, *spans)] if fitted else []
        return Calibration(measurement, before, after, fitted, tuple(rows), tuple(notes))
    seeds = range(SEEDS if measurement.workload.messages <= _SEEDS_MOST_MESSAGES else 1)
    plans = [plan(before, seed) for seed in seeds]
    first = plans[0]
    known = {function.spec.logical_id for function in first.functions}
    others = [one.name for one in measurement.functions if one.name not in known]
    if others:
        notes.append(f"{', '.join(others)}: measured, but not planned")
    fit = _Fit(measurement.functions, plan, before, first)
    after, told = fit.run([name for name in NAMES if name not in pinned])
    if fit.waits:
        notes.append(f"mostly waits, so they tell no duration: {', '.join(fit.waits)}")
    left = [name for name in NAMES if name not in told and name not in pinned]
    if left and measurement.functions:
        notes.append(f"not told apart by this report, left as assumed: {', '.join(left)}")
    rows = compare(measurement, plans, plans if after == before else [plan(after, seed) for seed in seeds])
    return Calibration(measurement, before, after, told, tuple(rows), tuple(notes))


@dataclass(slots=True)
class _Fit:
    """The search for durations; ``waits`` are the figures that say nothing about them."""

    measured: Sequence[MeasuredFunction]
    plan: Planned
    start: Durations
    first: Plan
    waits: list[str] = field(default_factory=list)
    known: dict[Durations, dict[_Key, float]] = field(default_factory=dict)

    def run(self, free: list[str]) -> tuple[Durations, tuple[str, ...]]:
        """The durations, and which of them are told by what was measured."""
        goals, weights = self._goals()
        found = self.start
        while free and goals:
            found, shares = self._search(goals, weights, free, found)
            told = [name for name, share in zip(free, shares, strict=True) if share >= _TOLD]
            if told == free:
                # What was assumed has done its work, which was to hold what is not told.
                return self._search(goals, weights, free, found, _PRIOR / 10)[0], tuple(told)
            # Without what is not told, the others may come out otherwise.
            found = replace(self.start, **{name: getattr(found, name) for name in told})
            free = told
        return self.start, ()

    def _goals(self) -> tuple[dict[_Key, float], dict[_Key, float]]:
        """Logarithms of what was measured, by function and figure; and how much each weighs."""
        goals: dict[_Key, float] = {}
        weights: dict[_Key, float] = {}

        def add(name: str, figure: str, value: float | None, weight: float) -> None:
            if value:
                goals[name, figure], weights[name, figure] = float(np.log(value)), weight

        total_ms = sum(one.warm_ms for one in self.measured)
        modelled = {one.spec.logical_id for one in self.first.functions if one.is_modelled}
        for one in self.measured:
            if one.name not in modelled or not one.invocations:
                continue
            for group in one.warm_duration_ms:
                if group.invocations >= _GROUP_LEAST:
                    weight = min(1.0, group.invocations / _GROUP_FULL)
                    add(one.name, f"p50 of {group.records_most}", group.p50, weight)
            add(one.name, "mean", one.warm_mean_ms, one.warm_ms / total_ms if total_ms else 0.0)
            if not one.warm_duration_ms:
                add(one.name, "p50", one.duration_ms.p50, 1.0)
                if one.cold_starts <= one.invocations * _COLD_SHARE:
                    add(one.name, "p99", one.duration_ms.p99, 0.3)
        return goals, weights

    def _search(
        self,
        goals: dict[_Key, float],
        weights: dict[_Key, float],
        free: Sequence[str],
        first: Durations,
        prior: float = _PRIOR,
    ) -> tuple[Durations, list[float]]:
        """The best durations from ``first`` on, and for each of ``free`` how much of it stands by figures, 0 to 1."""
        origin, at = (np.log([max(_LEAST, getattr(one, name)) for name in free]) for one in (self.start, first))
        shares = [0.0] * len(free)
        step = np.full(len(free), np.inf)
        keys: list[_Key] = []
        slopes = np.empty((0, len(free)))
        for _ in range(_STEPS):
            here = self._figures(self._durations(free, at))
            if np.max(np.abs(step)) > _SLOPES_HOLD or not here.keys() >= set(keys):
                keys = [key for key in goals if key in here]
                keys, slopes = self._without_waits(keys, self._slopes(free, at, here, keys))
                slopes = slopes[:, : len(free)]
            if not keys:
                break
            off = np.array([goals[key] - here[key] for key in keys])
            weight = np.array([weights[key] for key in keys]) ** 2
            weight *= np.minimum(1.0, _OUTLIER / np.maximum(np.abs(off), 1e-9))
            bend = slopes.T @ (weight[:, None] * slopes) + prior**2 * np.eye(len(free))
            pull = slopes.T @ (weight * off) - prior**2 * (at - origin)
            step = np.clip(np.linalg.solve(bend, pull), -_STEP_MAX, _STEP_MAX)
            shares = [1.0 - prior**2 * float(one) for one in np.diag(np.linalg.inv(bend))]
            at += step
            if np.max(np.abs(step)) < _SETTLED:
                break
        return self._durations(free, at), shares

    def _durations(self, free: Sequence[str], logarithms: _Vector) -> Durations:
        values = {name: float(value) for name, value in zip(free, np.exp(logarithms), strict=True)}
        return replace(self.start, **values)

    def _slopes(self, free: Sequence[str], at: _Vector, here: dict[_Key, float], keys: Sequence[_Key]) -> _Vector:
        """Of each figure's logarithm by each duration's: those of ``free`` first, then the others."""
        base = self._durations(free, at)
        columns = []
        for name in (*free, *(one for one in NAMES if one not in free)):
            more = replace(base, **{name: max(_LEAST, getattr(base, name)) * float(np.exp(_DIFFERENCE))})
            there = self._figures(more)
            columns.append([(there.get(key, here[key]) - here[key]) / _DIFFERENCE for key in keys])
        return np.array(columns).T.reshape(len(keys), len(NAMES))

    def _without_waits(self, keys: list[_Key], slopes: _Vector) -> tuple[list[_Key], _Vector]:
        """Where every duration is twice as long, a figure that is made of durations is too."""
        follows = slopes.sum(axis=1)
        kept = (follows >= _FOLLOWS_LEAST) & (follows <= _FOLLOWS_MOST)
        self.waits = [f"{name} {figure}" for (name, figure), keep in zip(keys, kept, strict=True) if not keep]
        return [key for key, keep in zip(keys, kept, strict=True) if keep], slopes[kept]

    def _figures(self, durations: Durations) -> dict[_Key, float]:
        """Logarithms of what a plan says, named as :meth:`_goals` names them."""
        if durations in self.known:
            return self.known[durations]
        found: dict[_Key, float] = {}
        for function in self.plan(durations, 0).functions:
            totals, name = function.totals, function.spec.logical_id
            if not totals.durations_s:
                continue
            in_ms = [one * 1e3 for one in totals.durations_s]
            ordered = sorted(in_ms)
            figures = {"mean": sum(in_ms) / len(in_ms), "p50": nearest_rank(ordered, 0.5)}
            figures["p99"] = nearest_rank(ordered, 0.99)
            for group in by_records(zip(totals.records, in_ms, strict=True)):
                figures[f"p50 of {group.most}"] = group.duration_ms_p50
            found |= {(name, figure): float(np.log(max(_LEAST, value))) for figure, value in figures.items()}
        self.known[durations] = found
        return found
