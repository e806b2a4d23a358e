"""What a race measured beside what plans of it say, figure by figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from consumers.runtime.statistics import nearest_rank
from simulator.capacity.functions import Function
from simulator.capacity.measurement import MeasuredFunction, Measurement
from simulator.capacity.model import Plan

Span = tuple[float, float]
Figure = Callable[[Plan], float | None]
_SHARD = "kinesis.shard.write.{}_per_second"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure; ``before`` and ``after`` are the least and the most of some plans. None where there is none."""

    of: str
    figure: str
    measured: float
    before: Span | None
    after: Span | None

    def off(self, span: Span | None) -> float | None:
        """How far the nearest plan is from what was measured, in its unit: 0 within the span."""
        if span is None:
            return None
        low, high = span
        return max(low - self.measured, 0.0) + min(high - self.measured, 0.0)

    def as_json(self) -> dict[str, Any]:
        """``off_*`` in the figure's unit."""
        told: dict[str, Any] = asdict(self)
        for name, span in (("before", self.before), ("after", self.after)):
            off = self.off(span)
            told[name] = None if span is None else [round(one, 3) for one in span]
            told[f"off_{name}"] = None if off is None else round(off, 3)
        return told | {"measured": round(self.measured, 3)}


def compare(measurement: Measurement, before: Sequence[Plan], after: Sequence[Plan]) -> list[Row]:
    """Every figure that both the measurement and the plans tell."""
    found: list[Row] = []

    def add(of: str, figure: str, measured: float | None, value: Figure) -> None:
        if measured is not None:
            found.append(Row(of, figure, measured, _span(before, value), _span(after, value)))

    for name in ("generated", "delivered", "throttled", "lost"):
        add("ledger", name, measurement.ledger.get(name), _of_ledger(name))
    add("shards", "records accepted", measurement.total(_SHARD.format("records")), _in_all("accepted"))
    refused = [measurement.throttled(_SHARD.format(one)) for one in ("records", "bytes")]
    if refused[0] is not None:
        add("shards", "records refused", sum(one or 0 for one in refused), _in_all("throttled"))
    add("shards", "bytes a record", measurement.record_bytes, lambda plan: plan.riders.sizes.record_bytes)
    for table in before[0].tables:
        for resource in table.provisioned():
            for verb in ("write", "read"):
                limit = f"dynamodb.{'index' if '/' in resource else 'table'}.{verb}.units_per_second"
                used, throttled = measurement.total(limit, resource), measurement.throttled(limit, resource)
                add(resource, f"{verb} units", used, _in_all(f"consumed_{verb}_units", resource))
                add(resource, f"{verb}s throttled", throttled, _in_all(f"throttled_{verb}s", resource))
    known = {function.spec.logical_id for function in before[0].functions}
    for one in measurement.functions:
        if one.name in known:
            for figure, measured, value in _of_function(one):
                add(one.name, figure, measured, value)
    add("race", "settled s", measurement.settled_s, lambda plan: plan.settled_s)
    return found


def _span(plans: Sequence[Plan], value: Figure) -> Span | None:
    told = [one for one in map(value, plans) if one is not None]
    return (min(told), max(told)) if told else None


def _of_ledger(name: str) -> Figure:
    return lambda plan: float(getattr(plan.ledger, name))


def _in_all(metric: str, resource: str | None = None) -> Figure:
    return lambda plan: plan.timeline.total(metric, resource)


def _of_function(measured: MeasuredFunction) -> list[tuple[str, float | None, Figure]]:
    def of(plan: Plan) -> Function:
        return next(one for one in plan.functions if one.spec.logical_id == measured.name)

    def duration_ms(share: float) -> Figure:
        return lambda plan: nearest_rank(sorted(of(plan).totals.durations_s), share) * 1e3

    def age_s(plan: Plan) -> float:
        sources = [source.name for source in of(plan).spec.event_sources]
        return max((plan.timeline.highest("iterator_age_s", name) for name in sources), default=0.0)

    age_ms = measured.iterator_age_ms_max
    return [
        ("invocations", measured.invocations, lambda plan: of(plan).totals.invocations),
        ("p50 ms", measured.duration_ms.p50, duration_ms(0.5)),
        ("p99 ms", measured.duration_ms.p99, duration_ms(0.99)),
        ("max ms", measured.duration_ms.max, duration_ms(1.0)),
        ("iterator age s", None if age_ms is None else age_ms / 1e3, age_s),
    ]
