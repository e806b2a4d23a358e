"""Durations from a measured race, and how far plans with the old ones and the new ones are from it.

The race that was measured is planned, and what its functions took is held against what they really took: the median
of invocations with about as many records, and the mean, both of warm invocations; from an older report its p50 and p99.
:class:`Durations` are then moved until that agrees best, by Gauss-Newton steps on their logarithms, which keeps them
positive; their slopes are differences of plans, so a throttled call or a full window counts as it does in any plan.

What cannot be told must not be guessed:

- a figure that hardly follows durations is a wait (a throttled write's back-off) and says nothing about them;
- single figures that agree with nothing else weigh less the further off they are (Huber);
- a little weight on what was assumed before holds a duration that no figure tells from others, and one that stays held
  by that alone is left as it was, and named.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from consumers.runtime.statistics import by_records, nearest_rank
from simulator.capacity.functions import Durations, Function
from simulator.capacity.measurement import MeasuredFunction, Measurement
from simulator.capacity.model import Plan

Planned = Callable[[Durations], Plan]
"""Plans the measured race with these durations."""
NAMES = ("invocation_ms", "record_us", "call_ms")
_STEPS, _STEP_MAX, _DIFFERENCE, _SETTLED = 8, 1.5, 0.05, 0.005
_OUTLIER, _PRIOR = 0.3, 0.05
_TOLD, _FOLLOWS_LEAST, _FOLLOWS_MOST = 0.5, 0.5, 1.5
_GROUP_LEAST, _GROUP_FULL = 3, 30
"""So many invocations make a median worth a look, and so many its full weight."""
_LEAST = 1e-3
_COLD_SHARE = 0.01
_Vector = npt.NDArray[np.float64]
_Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Row:
    """One figure; ``before`` and ``after`` are of plans. None where there is none."""

    of: str
    figure: str
    measured: float
    before: float | None
    after: float | None

    def as_json(self) -> dict[str, Any]:
        """``off_*`` is relative to what was measured; None when that is 0."""
        told: dict[str, Any] = asdict(self)
        for name, value in (("off_before", self.before), ("off_after", self.after)):
            told[name] = None if value is None or not self.measured else round(value / self.measured - 1, 4)
        return told


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


def calibrate(
    measurement: Measurement, plan: Planned, before: Durations, pinned: Sequence[str] = ()
) -> Calibration:
    """Durations that explain ``measurement`` best; those in ``pinned`` stay.

    :param plan: of the measured race; not called for a load test.
    """
    notes = list(measurement.notes)
    if measurement.workload is None:
        fitted = ("call_ms",) if measurement.call_ms is not None and "call_ms" not in pinned else ()
        after = replace(before, call_ms=measurement.call_ms) if fitted and measurement.call_ms is not None else before
        rows = [Row("table", "call p50 ms", measurement.call_ms, before.call_ms, after.call_ms)] if fitted else []
        return Calibration(measurement, before, after, fitted, tuple(rows), tuple(notes))
    first = plan(before)
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
    rows = _rows(measurement, first, first if after == before else plan(after))
    return Calibration(measurement, before, after, told, tuple(rows), tuple(notes))


@dataclass(slots=True)
class _Fit:
    """The search for durations; ``waits`` are the figures that say nothing about them."""

    measured: Sequence[MeasuredFunction]
    plan: Planned
    start: Durations
    first: Plan
    waits: list[str] = field(default_factory=list)

    def run(self, free: list[str]) -> tuple[Durations, tuple[str, ...]]:
        """The durations, and which of them are told by what was measured."""
        goals, weights = self._goals()
        while free and goals:
            found, shares = self._search(goals, weights, free)
            told = [name for name, share in zip(free, shares, strict=True) if share >= _TOLD]
            if told == free:
                return found, tuple(told)
            # Without what is not told, the others may come out otherwise.
            free = told
        return self.start, ()

    def _goals(self) -> tuple[dict[_Key, float], dict[_Key, float]]:
        """Logarithms of what was measured, by function and figure; and how much each weighs."""
        goals: dict[_Key, float] = {}
        weights: dict[_Key, float] = {}

        def add(name: str, figure: str, value: float | None, weight: float) -> None:
            if value:
                goals[name, figure], weights[name, figure] = float(np.log(value)), weight

        modelled = {one.spec.logical_id for one in self.first.functions if one.is_modelled}
        for one in self.measured:
            if one.name not in modelled or not one.invocations:
                continue
            for group in one.warm_duration_ms:
                if group.invocations >= _GROUP_LEAST:
                    weight = min(1.0, (group.invocations / _GROUP_FULL) ** 0.5)
                    add(one.name, f"p50 of {group.records_most}", group.p50, weight)
            add(one.name, "mean", one.warm_mean_ms, 0.5)
            if not one.warm_duration_ms:
                add(one.name, "p50", one.duration_ms.p50, 1.0)
                if one.cold_starts <= one.invocations * _COLD_SHARE:
                    add(one.name, "p99", one.duration_ms.p99, 0.3)
        return goals, weights

    def _search(
        self, goals: dict[_Key, float], weights: dict[_Key, float], free: Sequence[str]
    ) -> tuple[Durations, list[float]]:
        """The best durations, and for each of ``free`` how much of it stands by the figures, 0 to 1."""
        origin = np.log([max(_LEAST, getattr(self.start, name)) for name in free])
        at = origin.copy()
        shares = [0.0] * len(free)
        for _ in range(_STEPS):
            here = self._figures(self._durations(free, at))
            keys = [key for key in goals if key in here]
            slopes = self._slopes(free, at, here, keys)
            keys, slopes = self._without_waits(keys, slopes)
            if not keys:
                break
            slopes = slopes[:, : len(free)]
            off = np.array([goals[key] - here[key] for key in keys])
            weight = np.array([weights[key] for key in keys]) ** 2
            weight *= np.minimum(1.0, _OUTLIER / np.maximum(np.abs(off), 1e-9))
            bend = slopes.T @ (weight[:, None] * slopes) + _PRIOR**2 * np.eye(len(free))
            pull = slopes.T @ (weight * off) - _PRIOR**2 * (at - origin)
            step = np.clip(np.linalg.solve(bend, pull), -_STEP_MAX, _STEP_MAX)
            shares = [1.0 - _PRIOR**2 * float(one) for one in np.diag(np.linalg.inv(bend))]
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
        found: dict[_Key, float] = {}
        for function in self.plan(durations).functions:
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
        return found


def _rows(measurement: Measurement, before: Plan, after: Plan) -> list[Row]:
    """Every figure that both tell."""
    found: list[Row] = []

    def add(of: str, figure: str, measured: float | None, value: Callable[[Plan], float | None]) -> None:
        if measured is not None:
            found.append(Row(of, figure, measured, value(before), value(after)))

    for name in ("generated", "delivered", "throttled", "lost"):
        add("ledger", name, measurement.ledger.get(name), lambda one, name=name: getattr(one.ledger, name))  # type: ignore[misc]
    records = "kinesis.shard.write.records_per_second"
    add("shards", "records accepted", measurement.total(records), lambda one: one.timeline.total("accepted"))
    refused = [measurement.throttled(f"kinesis.shard.write.{one}_per_second") for one in ("records", "bytes")]
    if refused[0] is not None:
        add("shards", "records refused", sum(one or 0 for one in refused), lambda one: one.timeline.total("throttled"))
    add("shards", "bytes a record", measurement.record_bytes, lambda one: one.riders.sizes.record_bytes)
    for table in after.tables:
        for resource in table.provisioned():
            kind = "index" if "/" in resource else "table"
            for verb in ("write", "read"):
                limit = f"dynamodb.{kind}.{verb}.units_per_second"
                used, metric = measurement.total(limit, resource), f"consumed_{verb}_units"
                add(resource, f"{verb} units", used, lambda one, m=metric, r=resource: one.timeline.total(m, r))  # type: ignore[misc]
                metric = f"throttled_{verb}s"
                throttled = measurement.throttled(limit, resource)
                add(resource, f"{verb}s throttled", throttled, lambda one, m=metric, r=resource: one.timeline.total(m, r))  # type: ignore[misc]
    for function in measurement.functions:
        _add_function(function, add, {one.spec.logical_id for one in after.functions})
    add("race", "settled s", measurement.settled_s, lambda one: one.settled_s)
    return found


def _add_function(
    measured: MeasuredFunction,
    add: Callable[[str, str, float | None, Callable[[Plan], float | None]], None],
    known: set[str],
) -> None:
    if measured.name not in known:
        return

    def of(plan: Plan) -> Function:
        return next(one for one in plan.functions if one.spec.logical_id == measured.name)

    def duration_ms(share: float) -> Callable[[Plan], float]:
        return lambda plan: nearest_rank(sorted(of(plan).totals.durations_s), share) * 1e3

    def age_s(plan: Plan) -> float:
        sources = [source.name for source in of(plan).spec.event_sources]
        return max((plan.timeline.highest("iterator_age_s", name) for name in sources), default=0.0)

    add(measured.name, "invocations", measured.invocations, lambda plan: of(plan).totals.invocations)
    for figure, value, share in (
        ("p50 ms", measured.duration_ms.p50, 0.5),
        ("p99 ms", measured.duration_ms.p99, 0.99),
        ("max ms", measured.duration_ms.max, 1.0),
    ):
        add(measured.name, figure, value, duration_ms(share))
    age_ms = measured.iterator_age_ms_max
    add(measured.name, "iterator age s", None if age_ms is None else age_ms / 1e3, age_s)
