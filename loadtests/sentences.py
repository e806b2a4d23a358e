"""What a load test found, in a sentence or two: the limit by name, or why none is named."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from loadtests.conductor import Record, StageRecord
from loadtests.measurements import Counts
from loadtests.scenarios import Scenario


def summarise(
    outcome: str,
    limits: Sequence[Mapping[str, Any]],
    knee: Mapping[str, Any] | None,
    ceiling: Mapping[str, Any],
    record: Record,
    scenario: Scenario,
    total: Counts,
) -> str:
    unit = scenario.unit
    bursts = [one for one in record.stages if one.purpose == "burst"]
    if outcome == "limit" and len(bursts) == 1 and not any(one.purpose == "step" for one in record.stages):
        return _burst_sentence(bursts[0], limits, record, scenario, total)
    best = max((one.rate for one in record.stages if one.held), default=0.0)
    if outcome == "incomplete":
        return f"The test is incomplete: {record.incomplete[0] if record.incomplete else record.fatal}"
    if outcome in ("generator", "target"):
        if not total.refused:
            return (
                f"No limit was found: {said(best)} {unit}/s held and nothing was refused; beyond that the {outcome} "
                f"was the bottleneck. {ceiling['text']}."
            )
        return (
            f"No limit is named: some of the load was refused, but the {outcome} was the bottleneck, so these are not "
            f"the service's figures. {ceiling['text']}."
        )
    if outcome == "limit":
        return _limit_sentence([one for one in limits if one["binding"]], limits, knee, unit)
    if outcome == "held":
        return f"No limit was found: everything held up to {said(best)} {unit}/s, and nothing was refused."
    reason = next((one.reason for one in record.stages if one.reason), "an objective broke")
    return f"No limit was found, for nothing was refused; but from {said(best)} {unit}/s on {reason}."


def _burst_sentence(
    stage: StageRecord, limits: Sequence[Mapping[str, Any]], record: Record, scenario: Scenario, total: Counts
) -> str:
    """What became of a burst, and how long it took."""
    by_second = record.measurements.by(lambda key: key.second, operation=scenario.main.operation)
    last = max((second for second, one in by_second.items() if one.accepted), default=math.floor(stage.started_at))
    refusing = [f"{one['resource']} ({one['name']})" for one in limits if one["throttled"]]
    again = f", {total.retried:,.0f} refusals were sent again" if total.retried else ""
    return (
        f"Of {total.offered:,.0f} {scenario.unit} within a second {total.accepted:,.0f} were accepted and "
        f"{total.throttled:,.0f} refused by {', '.join(refusing)}{again}; the last was accepted "
        f"{max(last + 1 - stage.started_at, 0):.0f} s after the burst began."
    )


def _limit_sentence(
    binding: Sequence[Mapping[str, Any]],
    limits: Sequence[Mapping[str, Any]],
    knee: Mapping[str, Any] | None,
    unit: str,
) -> str:
    at = ""
    if knee is not None and knee["held_per_second"] is not None:
        at = f" The knee is at {said(knee['held_per_second'])} {unit}/s."
    if not binding:
        refused = [one for one in limits if one["throttled"]]
        first = min(refused, key=lambda one: one["first_throttle_at_s"])
        return (
            f"{first['resource']} ({first['name']}) was the first to refuse, {first['first_throttle_at_s']:.0f} s "
            f"after the start: {first['throttled']:,} refusals, at a peak of {said(first['peak'])} {first['unit']} "
            f"where {said(first['published'])} are to be had.{at}"
        )
    worst = max(binding, key=lambda one: one["throttled"])
    others = len(binding) - 1
    # A scatter of a percent is no burst.
    what = worst["unit"].removesuffix("/s")
    saved = worst["above_limit"] > 0.5 * worst["published"]
    burst = f", after a burst of {said(worst['above_limit'])} {what} above it" if saved else ""
    more = f" (and {others} more {'resource' if others == 1 else 'resources'} like it)" if others else ""
    return (
        f"The limit is {worst['name']} of {worst['resource']}{more}: it sustained {said(worst['sustained'])} "
        f"{worst['unit']}, {worst['ratio']:.1%} of the published {said(worst['published'])}{burst}.{at}"
    )


def said(value: float) -> str:
    """A figure with as many digits as it is good for: 2,132,565 or 99.857."""
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:,.5g}"
