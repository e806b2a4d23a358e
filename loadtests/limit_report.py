"""From what a test saw to an answer: which limit binds, where the knee is, and whether that may be believed.

The figures of the report:

* *sustained* of a limit: the highest rate accepted over whole seconds. Where anything was refused only seconds within
  a run of refusals count, without its first, so that what a token bucket had saved is no part of it. Where nothing was
  refused it is the best of the steps that held, and no limit.
* *peak*: the busiest whole second; above the limit it shows burst.
* *knee*: between the highest rate that held and the lowest that broke.
* *binding*: the limit that refused, and whose sustained rate is nearest to what is published.

A result is called a service's limit only when the service refused in its own words and neither the generator nor the
target's process was busy all along.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadtests.ceiling import BUSY
from loadtests.conductor import Record, StageRecord
from loadtests.measurements import Counts, Key, Measurements
from loadtests.objectives import Judgement, Objectives, judge
from loadtests.resources import Limit, Resources
from loadtests.scenarios import Scenario
from loadtests.settings import LoadSettings

SCHEMA = 1
MIN_WINDOW_S = 3
"""A rate over fewer whole seconds is not called sustained."""
NEAR = 0.9
"""A limit whose sustained rate is below this share of what is published does not bind."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What was tested, and where."""

    scenario: Scenario
    settings: LoadSettings
    objectives: Objectives
    resources: Resources
    limits: Sequence[Limit]
    target: str
    endpoint: str | None
    region: str
    users: int
    versions: Mapping[str, str]
    parameters: Mapping[str, str]


def build(record: Record, subject: Subject) -> dict[str, Any]:
    """The report as JSON (docs/design.md lists its members). Pure."""
    scenario = subject.scenario
    measured = record.measurements
    main = scenario.main.operation
    cpu = _Cpu(record)
    limits = [_limit_row(one, record) for one in subject.limits]
    limits = [one for one in limits if one["peak"] or one["throttled"]]
    judged = [one for one in record.stages if one.judged]
    knee = _knee(judged, scenario.unit)
    ceiling = _ceiling(record, cpu, main)
    outcome = _outcome(record, limits, judged, ceiling)
    _bind(limits, outcome, measured)
    total = measured.total(operation=main)
    latencies = _latencies(record, main)
    ages = record.iterator_age_ms
    held_anywhere = [one for one in judged if one.held]
    # A search breaks its objectives on purpose: they are asked of the rates up to the knee.
    searched = subject.settings.shape == "search"
    asked_of = [one.index for one in (held_anywhere if searched and held_anywhere else record.stages)]
    part = measured.total(asked_of, main)
    judgements = judge(
        subject.objectives,
        throttled_share=part.throttled_share,
        failed_share=part.failed_share,
        late_share=part.late / part.calls if part.calls else 0.0,
        p99_ms=measured.latencies(asked_of, main).percentiles_ms()["p99"],
        iterator_age_ms=max(ages.values(), default=None),
    )
    checks = [_check(one) for one in judgements]
    checks += _integrity(record, total, outcome, ceiling)
    return {
        "schema": SCHEMA,
        "kind": "loadtest",
        "run": {
            "scenario": scenario.name,
            "about": scenario.about,
            "target": subject.target,
            "endpoint": subject.endpoint,
            "region": subject.region,
            "started_at": datetime.fromtimestamp(record.started_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "seconds": round(record.ended_at - record.started_at, 1),
            "workers": len(record.workers),
            "users": subject.users,
            "unit": scenario.unit,
            "settings": _settings(subject.settings),
            "versions": dict(subject.versions),
        },
        "deployment": {"parameters": dict(subject.parameters)},
        "outcome": outcome,
        "summary": _summary(outcome, limits, knee, ceiling, record, scenario, total),
        "limits": limits,
        "knee": knee,
        "latency_ms": latencies,
        "stages": [_stage_row(one, record, main, cpu) for one in record.stages],
        "series": _series(record, subject, cpu),
        "ceiling": ceiling,
        "ledger": {
            "offered": round(total.offered),
            "accepted": round(total.accepted),
            "throttled": round(total.throttled),
            "failed": round(total.failed),
            "unsent": round(total.unsent),
            "unanswered": round(total.offered - total.unsent - total.answered),
            "retried": round(total.retried),
            "late_requests": round(total.late),
            "requests": round(total.calls),
        },
        "objectives": [_objective(one) for one in judgements],
        "problems": [
            {
                "operation": one.operation,
                "resource": one.resource,
                "code": one.code,
                "message": one.message,
                "count": one.count,
                "first_at_s": round(one.first_at - record.started_at, 1),
            }
            for one in measured.problems.values()
        ],
        "incomplete": list(record.incomplete),
        "verdict": {"passed": all(one["passed"] for one in checks), "checks": checks},
    }


def write_json(told: Mapping[str, Any], directory: Path) -> Path:
    """Write ``report.json`` into ``directory``, which is made when missing."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "report.json"
    path.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


class _Cpu:
    """CPU shares by second and by stage."""

    def __init__(self, record: Record) -> None:
        self._target = record.target_cpu
        self._generator: dict[int, float] = {}
        for by_second in record.generator_cpu.values():
            for second, (spent, seconds) in by_second.items():
                share = spent / seconds if seconds else 0.0
                self._generator[second] = max(self._generator.get(second, 0.0), share)

    def generator(self, seconds: Iterable[int]) -> float:
        """The busiest worker, averaged over ``seconds``, as a share of a core."""
        return _mean(self._generator.get(second) for second in seconds) or 0.0

    def target(self, seconds: Iterable[int]) -> float | None:
        return _mean(self._target.get(second) for second in seconds)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [one for one in values if one is not None]
    return sum(known) / len(known) if known else None


def _whole_seconds(stage: StageRecord) -> range:
    """The seconds that lie wholly within the stage."""
    return range(math.ceil(stage.started_at), math.floor(stage.ended_at))


def _of(limit: Limit, key: Key) -> bool:
    """Whether counts belong to a limit; an account's limit is over all resources."""
    return key.operation in limit.operations and (limit.resource in (key.resource, "IoT Core")) and bool(key.resource)


def _limit_row(limit: Limit, record: Record) -> dict[str, Any]:
    by_second = record.measurements.by(lambda key: key.second if _of(limit, key) else None)
    rates = {second: getattr(one, limit.measure) for second, one in by_second.items()}
    refused = sorted(second for second, one in by_second.items() if one.refused)
    sustained = _sustained(rates, refused, record.stages)
    return {
        "name": limit.name,
        "resource": limit.resource,
        "published": limit.value,
        "unit": limit.unit,
        "sustained": _round(sustained),
        "ratio": None if sustained is None else round(sustained / limit.value, 4),
        "peak": _round(max(rates.values(), default=0.0)),
        "first_throttle_at_s": round(refused[0] - record.started_at, 1) if refused else None,
        "throttled": round(sum(one.refused for one in by_second.values())),
        "binding": False,
    }


def _sustained(rates: Mapping[int, float], refused: Sequence[int], stages: Sequence[StageRecord]) -> float | None:
    """See the top of this module."""
    windows = []
    for stage in stages:
        seconds = _whole_seconds(stage)
        if refused:
            inside = [one for one in refused if one in seconds]
            # From the second after the first refusal to the last: before, burst was spent; after, none was refused.
            windows.append(range(inside[0] + 1, inside[-1] + 1) if inside else range(0))
        elif stage.judged and stage.held:
            windows.append(seconds)
    means = [
        (sum(rates.get(second, 0.0) for second in window) / len(window), len(window))
        for window in windows
        if len(window) >= MIN_WINDOW_S
    ]
    if not means:
        return None
    if not refused:
        return max(mean for mean, _ in means)
    # Short windows scatter, and the highest of many would be the luckiest: the longest says most.
    return max(means, key=lambda one: one[1])[0]


def _knee(judged: Sequence[StageRecord], unit: str) -> dict[str, Any] | None:
    """The highest rate that held below the lowest that broke; for a search only what came after the hold counts."""
    trials = [one for one in judged if one.purpose == "trial"] or list(judged)
    broke = [one for one in trials if one.reason is not None]
    if not broke:
        broke = [one for one in judged if one.reason is not None]
    if not broke:
        return None
    lowest = min(broke, key=lambda one: one.rate)
    held = max((one.rate for one in trials if one.held and one.rate < lowest.rate), default=None)
    if held is None:
        held = max((one.rate for one in judged if one.held and one.rate < lowest.rate), default=None)
    return {
        "held_per_second": _round(held),
        "broke_per_second": _round(lowest.rate),
        "unit": unit,
        "reason": lowest.reason,
    }


def _ceiling(record: Record, cpu: _Cpu, operation: str) -> dict[str, Any]:
    """How busy both sides were in their busiest stage, and the rate at which a core would be full."""
    generator_peak, target_peak = 0.0, None
    ceilings: dict[str, float] = {}
    bottleneck = None
    by_stage = record.measurements.by(lambda key: key.stage, operation=operation)
    for stage in record.stages:
        seconds = range(math.floor(stage.started_at), math.floor(stage.ended_at) + 1)
        answered = by_stage.get(stage.index, Counts()).answered / max(stage.ended_at - stage.started_at, 1e-9)
        for name, share in (("generator", cpu.generator(seconds)), ("target", cpu.target(seconds))):
            if share is None:
                continue
            if name == "generator":
                generator_peak = max(generator_peak, share)
            else:
                target_peak = max(target_peak or 0.0, share)
            if share > 0.05 and answered:
                # What a full core would do, from the busiest stage: there fixed costs weigh least.
                ceilings[name] = max(ceilings.get(name, 0.0), answered / share)
        busy = _bottleneck(cpu.generator(seconds), cpu.target(seconds), stage.saturated)
        # What a prime does to the two sides bears on no figure.
        if busy is not None and stage.purpose not in ("rest", "prime"):
            bottleneck = bottleneck or busy
    cores = max(len(record.workers), 1)
    return {
        "generator": {
            "cpu_peak": round(generator_peak, 3),
            "cores": cores,
            "ceiling_per_second": _round(ceilings.get("generator")),
        },
        "target": None
        if target_peak is None
        else {"cpu_peak": round(target_peak, 3), "ceiling_per_second": _round(ceilings.get("target"))},
        "bottleneck": bottleneck,
        "text": _ceiling_text(generator_peak, target_peak, ceilings, bottleneck),
    }


def _bottleneck(generator: float, target: float | None, saturated: bool) -> str | None:
    if generator >= BUSY and generator >= (target or 0.0):
        return "generator"
    if target is not None and target >= BUSY:
        return "target"
    if generator >= BUSY:
        return "generator"
    # The load was not answered in time, and the generator had time to spare: the other side was slow.
    return "target" if saturated else None


def _ceiling_text(generator: float, target: float | None, ceilings: Mapping[str, float], bottleneck: str | None) -> str:
    def one(name: str, share: float) -> str:
        reach = f", enough for about {ceilings[name]:,.0f} a second" if name in ceilings else ""
        return f"the {name} used up to {share:.0%} of a core{reach}"

    text = one("generator", generator)
    text += "; the target's CPU is not known" if target is None else f"; {one('target', target)}"
    if bottleneck:
        text += f": the {bottleneck} was the bottleneck"
    return text[0].upper() + text[1:]


def _outcome(
    record: Record, limits: Sequence[Mapping[str, Any]], judged: Sequence[StageRecord], ceiling: Mapping[str, Any]
) -> str:
    if record.incomplete or record.fatal:
        return "incomplete"
    refused = any(one["throttled"] for one in limits)
    if ceiling["bottleneck"]:
        return str(ceiling["bottleneck"])
    if refused:
        return "limit"
    return "held" if all(one.held for one in judged) else "no-limit"


def _bind(limits: list[dict[str, Any]], outcome: str, measured: Measurements) -> None:
    """Mark the limits that bind: refused at, and sustained near to what is published."""
    if outcome != "limit":
        return
    refusing = [one for one in limits if one["throttled"] and one["ratio"] is not None]
    for group in {(one["resource"]) for one in refusing}:
        # A shard refuses without saying whether for records or bytes: the fuller one it was.
        best = max((one for one in refusing if one["resource"] == group), key=lambda one: one["ratio"])
        best["binding"] = best["ratio"] >= NEAR


def _latencies(record: Record, operation: str) -> dict[str, Any]:
    before = [one.index for one in record.stages if one.held]
    after = [one.index for one in record.stages if one.held is False or one.purpose == "hold"]
    measured = record.measurements
    every = measured.latencies(operation=operation)

    def rounded(told: Mapping[str, float | None]) -> dict[str, float | None]:
        return {name: None if value is None else round(value, 3) for name, value in told.items()}

    return {
        "before_knee": rounded(measured.latencies(before, operation).percentiles_ms()),
        "after_knee": rounded(measured.latencies(after, operation).percentiles_ms()),
        "all": rounded(every.percentiles_ms()),
        "lateness": rounded(every.percentiles_ms("lateness")),
    }


def _stage_row(stage: StageRecord, record: Record, operation: str, cpu: _Cpu) -> dict[str, Any]:
    counts = record.measurements.total([stage.index], operation)
    latencies = record.measurements.latencies([stage.index], operation).percentiles_ms()
    seconds = max(stage.ended_at - stage.started_at, 1e-9)
    window = range(math.floor(stage.started_at), math.floor(stage.ended_at) + 1)
    target = cpu.target(window)
    return {
        "index": stage.index,
        "name": stage.name,
        "purpose": stage.purpose,
        "start_s": round(stage.started_at - record.started_at, 2),
        "end_s": round(stage.ended_at - record.started_at, 2),
        "offered_per_second": _round(counts.offered / seconds),
        "accepted_per_second": _round(counts.accepted / seconds),
        "throttled_share": round(counts.throttled_share, 5),
        "failed": round(counts.failed),
        "late_share": round(counts.late / counts.calls, 5) if counts.calls else 0.0,
        "unsent": round(counts.unsent),
        "p50_ms": latencies["p50"],
        "p99_ms": latencies["p99"],
        "held": stage.held,
        "reason": stage.reason or ("the load was not delivered as planned" if stage.saturated else None),
        "generator_cpu": round(cpu.generator(window), 3),
        "target_cpu": None if target is None else round(target, 3),
    }


def _series(record: Record, subject: Subject, cpu: _Cpu) -> dict[str, Any]:
    measured = record.measurements
    first, last = math.floor(record.started_at), math.floor(record.ended_at)
    seconds = range(first, max(last, first) + 1)
    main = subject.scenario.main.operation
    offered = measured.by(lambda key: key.second, operation=main)
    by_resource = measured.by(lambda key: (key.operation, key.resource, key.second) if key.resource else None)
    resources = []
    for operation, resource in sorted({(operation, resource) for operation, resource, _ in by_resource}):
        limit = _line(subject.limits, operation, resource)
        rows = [by_resource.get((operation, resource, second), Counts()) for second in seconds]
        measure = limit.measure if limit is not None else "accepted"
        unit = limit.unit if limit is not None else f"{subject.scenario.unit}/s"
        resources.append(
            {
                "name": resource,
                "operation": operation,
                "unit": unit,
                "limit": limit.value if limit is not None else None,
                "accepted": [_round(getattr(one, measure)) for one in rows],
                "throttled": [round(one.refused) for one in rows],
                "units": [_round(one.units) for one in rows] if any(one.units for one in rows) else None,
            }
        )
    ages = record.iterator_age_ms
    target = [cpu.target([second]) for second in seconds]
    return {
        "seconds": [second - first for second in seconds],
        "offered": [_round(offered.get(second, Counts()).offered) for second in seconds],
        "iterator_age_ms": [ages.get(second) for second in seconds] if ages else None,
        "resources": resources,
        "generator_cpu": [round(cpu.generator([second]), 3) for second in seconds],
        "target_cpu": None
        if all(one is None for one in target)
        else [None if one is None else round(one, 3) for one in target],
    }


def _line(limits: Sequence[Limit], operation: str, resource: str) -> Limit | None:
    """Which limit a resource's figure is drawn against: the one whose share it used most is not known here, so bytes
    when records are large enough for them to bind, which :func:`fullest` has put first."""
    return next((one for one in limits if operation in one.operations and one.resource == resource), None)


def fullest(limits: Sequence[Limit], measured: Measurements) -> list[Limit]:
    """The limits with those that were used most first."""

    def use(limit: Limit) -> float:
        total = sum(getattr(one, limit.measure) for key, one in measured.counts.items() if _of(limit, key))
        return float(total / limit.value)

    return sorted(limits, key=use, reverse=True)


def _summary(
    outcome: str,
    limits: Sequence[Mapping[str, Any]],
    knee: Mapping[str, Any] | None,
    ceiling: Mapping[str, Any],
    record: Record,
    scenario: Scenario,
    total: Counts,
) -> str:
    unit = scenario.unit
    best = max((one.rate for one in record.stages if one.held), default=0.0)
    if outcome == "incomplete":
        return f"The test is incomplete: {record.incomplete[0] if record.incomplete else record.fatal}"
    if outcome in ("generator", "target"):
        if not total.refused:
            return (
                f"No limit was found: {best:,.6g} {unit}/s held and nothing was refused; beyond that the {outcome} was "
                f"the bottleneck. {ceiling['text']}."
            )
        return (
            f"No limit is named: some of the load was refused, but the {outcome} was the bottleneck, so the figures are "
            f"not the service's. {ceiling['text']}."
        )
    if outcome == "limit":
        return _limit_sentence([one for one in limits if one["binding"]], limits, knee, unit)
    if outcome == "held":
        return f"No limit was found: everything held up to {best:,.6g} {unit}/s, and nothing was refused."
    reason = next((one.reason for one in record.stages if one.reason), "an objective broke")
    return f"No limit was found, for nothing was refused; but from {best:,.6g} {unit}/s on {reason}."


def _limit_sentence(
    binding: Sequence[Mapping[str, Any]],
    limits: Sequence[Mapping[str, Any]],
    knee: Mapping[str, Any] | None,
    unit: str,
) -> str:
    at = ""
    if knee is not None and knee["held_per_second"] is not None:
        at = f" The knee is at {knee['held_per_second']:,.6g} {unit}/s."
    if not binding:
        refused = [one for one in limits if one["throttled"]]
        first = min(refused, key=lambda one: one["first_throttle_at_s"])
        return (
            f"{first['resource']} refused from {first['first_throttle_at_s']:.0f} s on, but no limit was held at long "
            f"enough to be measured.{at}"
        )
    worst = max(binding, key=lambda one: one["throttled"])
    others = len(binding) - 1
    more = f" (and {others} more {'resource' if others == 1 else 'resources'} like it)" if others else ""
    return (
        f"The limit is {worst['name']} of {worst['resource']}{more}: it sustained {worst['sustained']:,.6g} "
        f"{worst['unit']}, {worst['ratio']:.1%} of the published {worst['published']:,.6g}.{at}"
    )


def _integrity(record: Record, total: Counts, outcome: str, ceiling: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What must be true for any of it to count."""
    unanswered = round(total.offered - total.unsent - total.answered)
    checks = [
        {
            "name": "complete",
            "passed": not record.incomplete and not record.fatal,
            "text": "; ".join(record.incomplete) or "every worker reported to the end",
        },
        {
            "name": "ledger",
            "passed": unanswered == 0,
            "text": "every unit that was due ended as accepted, throttled, failed or unsent"
            if unanswered == 0
            else f"{unanswered:,} units that were due have no end",
        },
        {
            "name": "answered",
            "passed": total.answered > 0,
            "text": f"{total.answered:,.0f} units were answered",
        },
    ]
    if outcome in ("generator", "target"):
        checks.append({"name": "bottleneck", "passed": True, "text": ceiling["text"]})
    return checks


def _check(one: Judgement) -> dict[str, Any]:
    text = f"{one.measured_text}, asked for {one.limit_text}" if one.why is None else str(one.why)
    return {"name": one.name, "passed": one.passed, "text": text}


def _objective(one: Judgement) -> dict[str, Any]:
    return {
        "name": one.name,
        "limit": one.limit_text,
        "measured": one.measured_text,
        "passed": one.passed,
        "why": one.why,
    }


def _settings(settings: LoadSettings) -> dict[str, Any]:
    """What differs from the plain settings."""
    plain = LoadSettings()
    names = LoadSettings.__dataclass_fields__
    return {name: getattr(settings, name) for name in names if getattr(settings, name) != getattr(plain, name)}


def _round(value: float | None) -> float | None:
    """Five significant digits are more than any of this is good for."""
    if value is None or value == 0:
        return value
    return round(value, max(0, 4 - math.floor(math.log10(abs(value)))))
