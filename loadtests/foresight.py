"""How long a plan takes and how much it sends, before it starts: its walk against a service that has one limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from loadtests.resources import Resources
from loadtests.scenarios import Scenario
from loadtests.settings import LoadSettings
from loadtests.shapes import Outcome, Step


@dataclass(frozen=True, slots=True)
class Foresight:
    """``seconds`` and units by operation. For a search it is what it does when the limit is where it is expected."""

    seconds: float
    units: Mapping[str, float]


def foresee(scenario: Scenario, settings: LoadSettings, resources: Resources) -> Foresight:
    """Walk the plan. Every step counts with its full length, so a search takes at most so long."""
    limit = scenario.expected(settings, resources)
    plan = scenario.plan(settings, resources)
    seconds, units = 0.0, dict.fromkeys((one.operation for one in scenario.traffic), 0.0)
    step: Step | None = next(plan, None)
    while step is not None:
        mean = (step.rate + (step.rate if step.end_rate is None else step.end_rate)) / 2
        seconds += step.seconds
        for one in scenario.traffic:
            units[one.operation] += one.rate(step, mean, resources) * step.seconds
        try:
            step = plan.send(_answer(step, mean, limit))
        except StopIteration:
            step = None
    return Foresight(seconds, units)


def _answer(step: Step, rate: float, limit: float) -> Outcome:
    accepted = min(rate, limit)
    throttled = 1 - accepted / rate if rate > 0 else 0.0
    return Outcome(
        offered_per_second=rate,
        accepted_per_second=accepted,
        throttled_share=throttled,
        throttled_seconds=step.seconds if throttled else 0.0,
        seconds=step.seconds,
        reason="over the limit" if throttled > 0.01 else None,
    )
