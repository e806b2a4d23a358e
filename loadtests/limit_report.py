"""From what a test saw to an answer: which limit binds, where the knee is, and whether that may be believed.

The figures are :mod:`loadtests.findings`' and the words :mod:`loadtests.sentences`'; this puts them together.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadtests.conductor import Record, StageRecord
from loadtests.findings import Cpu, bind, find_ceiling, find_knee, limit_row, outcome_of, rounded
from loadtests.flags import DEFAULTS
from loadtests.measurements import Counts
from loadtests.objectives import Judgement, Objectives, judge
from loadtests.resources import Limit, Resources
from loadtests.scenarios import Scenario
from loadtests.sentences import summarise
from loadtests.settings import LoadSettings

SCHEMA = 1
HOLDS = ("race-day", "soak")
DELIVERED = 0.9
"""A test in which less than this share of its plan fell due did not do what it was to do."""


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
    cpu = Cpu(record)
    limits = [limit_row(one, record) for one in subject.limits]
    limits = [one for one in limits if one["peak"] or one["throttled"]]
    judged = [one for one in record.stages if one.judged]
    knee = find_knee(judged, measured.by(lambda key: key.second, operation=main), scenario.unit)
    ceiling = find_ceiling(record, cpu, main)
    outcome = outcome_of(record, limits, judged, ceiling)
    if outcome == "incomplete":
        # What broke may have been the test.
        knee = None
    bind(limits, outcome)
    total = measured.total(operation=main)
    latencies = _latencies(record, main)
    ages = record.iterator_age_ms
    held_anywhere = [one for one in judged if one.held]
    # A search breaks its objectives on purpose: they are asked of the rates up to the knee.
    searched = subject.settings.shape == "search"
    asked_of = [one.index for one in (held_anywhere if searched and held_anywhere else record.stages)]
    part = measured.total(asked_of, main)
    # Whether a race holds is its question, so it is asked even when nobody says how well.
    asked = subject.objectives or (DEFAULTS if subject.settings.shape in HOLDS else subject.objectives)
    judgements = judge(
        asked,
        throttled_share=measured.worst(lambda one: one.throttled_share, asked_of),
        failed_share=measured.worst(lambda one: one.failed_share, asked_of),
        late_share=part.late / part.calls if part.calls else 0.0,
        p99_ms=measured.latencies(asked_of, main).percentiles_ms()["p99"],
        iterator_age_ms=max(ages.values(), default=None),
    )
    checks = [_check(one) for one in judgements]
    checks += _integrity(record, scenario, outcome, ceiling)
    if subject.settings.at_least is not None:
        checks.append(_at_least(subject.settings.at_least, judged, scenario.unit))
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
        "summary": summarise(outcome, limits, knee, ceiling, record, scenario, total),
        "limits": limits,
        "knee": knee,
        "latency_ms": latencies,
        "stages": [_stage_row(one, record, main, cpu) for one in record.stages],
        "series": _series(record, subject, cpu),
        "ceiling": ceiling,
        "ledger": _ledger(total),
        "operations": {one: _ledger(measured.total(operation=one)) for one in measured.operations()},
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


def _latencies(record: Record, operation: str) -> dict[str, Any]:
    before = [one.index for one in record.stages if one.held]
    after = [one.index for one in record.stages if one.held is False or one.purpose == "hold"]
    measured = record.measurements
    every = measured.latencies(operation=operation)

    def in_ms(told: Mapping[str, float | None]) -> dict[str, float | None]:
        return {name: None if value is None else round(value, 3) for name, value in told.items()}

    return {
        "before_knee": in_ms(measured.latencies(before, operation).percentiles_ms()),
        "after_knee": in_ms(measured.latencies(after, operation).percentiles_ms()),
        "all": in_ms(every.percentiles_ms()),
        "lateness": in_ms(every.percentiles_ms("lateness")),
    }


def _stage_row(stage: StageRecord, record: Record, operation: str, cpu: Cpu) -> dict[str, Any]:
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
        "offered_per_second": rounded(counts.offered / seconds),
        "accepted_per_second": rounded(counts.accepted / seconds),
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


def _series(record: Record, subject: Subject, cpu: Cpu) -> dict[str, Any]:
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
                "accepted": [rounded(getattr(one, measure)) for one in rows],
                "throttled": [round(one.refused) for one in rows],
                "units": [rounded(one.units) for one in rows]
                if measure != "units" and any(one.units for one in rows)
                else None,
            }
        )
    ages = record.iterator_age_ms
    target = [cpu.target([second]) for second in seconds]
    return {
        "seconds": [second - first for second in seconds],
        "offered": [rounded(offered.get(second, Counts()).offered) for second in seconds],
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


def _integrity(record: Record, scenario: Scenario, outcome: str, ceiling: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What must be true for any of it to count."""
    total = record.measurements.total(operation=scenario.main.operation)
    planned, unit = sum(one.planned for one in record.stages), scenario.unit
    unanswered = sum(_unanswered(record.measurements.total(operation=one)) for one in record.measurements.operations())
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
            "name": "offered",
            "passed": total.offered >= planned * DELIVERED and total.answered > 0,
            "text": f"{total.offered:,.0f} of {planned:,.0f} {unit} that the plan asks for were due, "
            f"{total.answered:,.0f} answered",
        },
    ]
    if outcome in ("generator", "target"):
        checks.append({"name": "bottleneck", "passed": True, "text": ceiling["text"]})
    return checks


def _at_least(rate: float, judged: Sequence[StageRecord], unit: str) -> dict[str, Any]:
    """Whether what was asked for holds, and how far from it the knee is."""
    lowest = min((one.rate for one in judged if not one.held), default=math.inf)
    best = max((one.rate for one in judged if one.held and one.rate < lowest), default=0.0)
    return {
        "name": "at-least",
        "passed": best >= rate,
        "text": f"{best:,.6g} {unit}/s held, {best / rate:.2f} times the {rate:,.6g} asked for",
    }


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


def _ledger(total: Counts) -> dict[str, int]:
    """Where every unit that was due ended. Requests are calls; the rest is in the operation's unit."""
    return {
        "offered": round(total.offered),
        "accepted": round(total.accepted),
        "throttled": round(total.throttled),
        "failed": round(total.failed),
        "unsent": round(total.unsent),
        "unanswered": _unanswered(total),
        "retried": round(total.retried),
        "late_requests": round(total.late),
        "requests": round(total.calls),
    }


def _unanswered(total: Counts) -> int:
    return round(total.offered - total.unsent - total.answered)


def _settings(settings: LoadSettings) -> dict[str, Any]:
    """What differs from the plain settings."""
    plain = LoadSettings()
    names = LoadSettings.__dataclass_fields__
    return {name: getattr(settings, name) for name in names if getattr(settings, name) != getattr(plain, name)}
