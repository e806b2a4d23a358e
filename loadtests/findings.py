"""The figures of a load test: what each limit sustained, where the knee is, who was the bottleneck, what to call it.

* *sustained* of a limit: the rate accepted over the seconds in which it refused, without the first and last of each
  run of such seconds, so that what a token bucket had saved is no part of it. Where nothing was refused it is the best
  of the steps that held, and no limit.
* *peak*: the busiest whole second; above the limit it shows burst.
* *knee*: between the highest rate that held and the lowest that broke.
* *binding*: the limit that refused, and whose sustained rate is nearest to what is published.

A result is called a service's limit only when the service refused in its own words and neither the generator nor the
target's process was busy all along.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from loadtests.ceiling import BUSY
from loadtests.conductor import Record, StageRecord
from loadtests.measurements import Counts, Key, Measurements
from loadtests.resources import Limit

MIN_WINDOW_S = 3
"""A rate over fewer whole seconds is not called sustained."""
IDLE = 0.01
"""Of a core: less is too little to tell from what a full core would do."""
SLOWED = 3.0
"""Answers that take so many times longer than at first come from a target that is behind."""
COMFORTABLE = 0.7
"""Of a core: what a worker should be given, so that its lateness is none of the latency."""
FULL = 0.02
"""A second in which less than this share was refused may have had capacity left for most of its length."""
NEAR = 0.9
"""A limit whose sustained rate is below this share of what is published does not bind."""


class Cpu:
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


def limit_row(limit: Limit, record: Record) -> dict[str, Any]:
    by_second = record.measurements.by(lambda key: key.second if concerns(limit, key) else None)
    rates = {second: getattr(one, limit.measure) for second, one in by_second.items()}
    refused = sorted(second for second, one in by_second.items() if one.refused)
    full = [second for second in refused if by_second[second].throttled_share >= FULL]
    # What is accepted above the limit before anything is refused is what the bucket had saved.
    until = refused[0] if refused else math.inf
    lag_s = limit.known_after_s
    sustained = sustained_rate(rates, full, record.stages, lag_s) if full or not refused else None
    return {
        "name": limit.name,
        "resource": limit.resource,
        "published": limit.value,
        "unit": limit.unit,
        "sustained": rounded(sustained),
        "ratio": None if sustained is None else round(sustained / limit.value, 4),
        "peak": rounded(max(rates.values(), default=0.0)),
        "above_limit": rounded(sum(max(rates[one] - limit.value, 0.0) for one in rates if one <= until)),
        "first_throttle_at_s": round(refused[0] - record.started_at, 1) if refused else None,
        "throttled": round(sum(one.refused for one in by_second.values())),
        "binding": False,
    }


def concerns(limit: Limit, key: Key) -> bool:
    """Whether counts belong to a limit; an account's limit is over all resources."""
    return key.operation in limit.operations and (limit.resource in (key.resource, "IoT Core")) and bool(key.resource)


def sustained_rate(
    rates: Mapping[int, float], refused: Sequence[int], stages: Sequence[StageRecord], lag_s: int = 0
) -> float | None:
    """See the top of this module. ``refused``: the seconds in which more than a trifle was refused, in order.

    When refusals are known ``lag_s`` late, so many seconds at a run's end tell of a load that may have been over.
    """
    if not refused:
        held = [_whole_seconds(stage) for stage in stages if stage.judged and stage.held]
        means = [_rate_over(rates, seconds) for seconds in held if len(seconds) >= MIN_WINDOW_S]
        return max(means, default=None)
    # Of each run its first second had burst to spend and its last may have been over before its end.
    within = [second for run in _runs(refused) for second in run[1 : -1 - lag_s]]
    return _rate_over(rates, within) if len(within) >= MIN_WINDOW_S else None


def _rate_over(rates: Mapping[int, float], seconds: Sequence[int]) -> float:
    return sum(rates.get(second, 0.0) for second in seconds) / len(seconds)


def _runs(seconds: Sequence[int]) -> list[list[int]]:
    """Ascending ``seconds`` cut where one is missing."""
    runs: list[list[int]] = []
    for second in seconds:
        if runs and runs[-1][-1] == second - 1:
            runs[-1].append(second)
        else:
            runs.append([second])
    return runs


def find_knee(judged: Sequence[StageRecord], by_second: Mapping[int, Counts], unit: str) -> dict[str, Any] | None:
    """The highest rate that held below the lowest that broke; for a search only what came after the hold counts."""
    trials = [one for one in judged if one.purpose == "trial"] or list(judged)
    broke = [one for one in trials if one.reason is not None]
    if not broke:
        broke = [one for one in judged if one.reason is not None]
    if not broke:
        return None
    lowest = min(broke, key=lambda one: one.rate)
    if lowest.purpose == "ramp":
        return _knee_of_ramp(lowest, by_second, unit)
    held = max((one.rate for one in trials if one.held and one.rate < lowest.rate), default=None)
    if held is None:
        held = max((one.rate for one in judged if one.held and one.rate < lowest.rate), default=None)
    return {
        "held_per_second": rounded(held),
        "broke_per_second": rounded(lowest.rate),
        "unit": unit,
        "reason": lowest.reason,
    }


def _knee_of_ramp(stage: StageRecord, by_second: Mapping[int, Counts], unit: str) -> dict[str, Any]:
    """A ramp passes the knee on its way: what was offered in the first second with refusals, and in the one before."""
    seconds = [second for second in _whole_seconds(stage) if second in by_second]
    first = next((at for at, second in enumerate(seconds) if by_second[second].throttled_share > FULL), None)
    held = by_second[seconds[first - 1]].offered if first else None
    broke = by_second[seconds[first]].offered if first is not None else stage.rate
    return {"held_per_second": rounded(held), "broke_per_second": rounded(broke), "unit": unit, "reason": stage.reason}


def find_ceiling(record: Record, cpu: Cpu, operation: str) -> dict[str, Any]:
    """How busy both sides were in their busiest stage, and the rate at which a core would be full."""
    generator_peak, target_peak = 0.0, None
    ceilings: dict[str, float] = {}
    bottleneck = None
    by_stage = record.measurements.by(lambda key: key.stage, operation=operation)

    def slowed(stage: StageRecord) -> bool:
        """Whether answers took much longer than at first, counted from when requests were sent."""
        took = [
            _service_ms(record, one.index, operation) for one in record.stages if one.held or one.index == stage.index
        ]
        known = [one for one in took if one is not None]
        return len(known) < 2 or known[-1] > SLOWED * known[0]

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
            if share > IDLE and answered:
                # What a full core would do, from the busiest stage: there fixed costs weigh least.
                ceilings[name] = max(ceilings.get(name, 0.0), answered / share)
        busy = _bottleneck(cpu.generator(seconds), cpu.target(seconds), stage.saturated, slowed(stage))
        # What a prime does to the two sides bears on no figure.
        if busy is not None and stage.purpose not in ("rest", "prime"):
            bottleneck = bottleneck or busy
    cores = max(len(record.workers), 1)
    highest = max((stage.rate for stage in record.stages), default=0.0)
    ceiling = ceilings.get("generator")
    return {
        "generator": {
            "cpu_peak": round(generator_peak, 3),
            "cores": cores,
            "ceiling_per_second": rounded(ceiling),
            "workers_needed": None if ceiling is None else math.ceil(highest * cores / (ceiling * COMFORTABLE)),
        },
        "target": None
        if target_peak is None
        else {"cpu_peak": round(target_peak, 3), "ceiling_per_second": rounded(ceilings.get("target"))},
        "bottleneck": bottleneck,
        "text": _ceiling_text(generator_peak, target_peak, ceilings, bottleneck),
    }


def _service_ms(record: Record, stage: int, operation: str) -> float | None:
    """About how long the target took to answer, without the time that requests waited to be sent."""
    latencies = record.measurements.latencies([stage], operation)
    accepted, late = latencies.percentiles_ms()["p50"], latencies.percentiles_ms("lateness")["p50"]
    return None if accepted is None else max(accepted - (late or 0.0), 0.1)


def _bottleneck(generator: float, target: float | None, saturated: bool, slowed: bool) -> str | None:
    if max(generator, target or 0.0) >= BUSY:
        return "generator" if generator >= (target or 0.0) else "target"
    if not saturated:
        return None
    # The load was not answered in time, and nobody was busy. Either answers took longer, or they took as long as
    # ever and there were too few connections to wait for them on.
    return "target" if slowed else "generator"


def _ceiling_text(generator: float, target: float | None, ceilings: Mapping[str, float], bottleneck: str | None) -> str:
    def one(name: str, share: float) -> str:
        reach = f", enough for about {ceilings[name]:,.0f} a second" if name in ceilings else ""
        return f"the {name} used up to {share:.0%} of a core{reach}"

    text = one("generator", generator)
    text += "; the target's CPU is not known" if target is None else f"; {one('target', target)}"
    if bottleneck:
        text += f": the {bottleneck} was the bottleneck"
    if bottleneck == "generator" and generator < BUSY:
        text += ", with all its connections waiting for answers (give it more --connections)"
    elif bottleneck == "generator":
        text += " (give it more --processes, or workers on other machines)"
    return text[0].upper() + text[1:]


def outcome_of(
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


def bind(limits: list[dict[str, Any]], outcome: str) -> None:
    """Mark the limits that bind: refused at, and sustained near to what is published."""
    if outcome != "limit":
        return
    refusing = [one for one in limits if one["throttled"] and one["ratio"] is not None]
    for group in {(one["resource"]) for one in refusing}:
        # A shard refuses without saying whether for records or bytes: the fuller one it was.
        best = max((one for one in refusing if one["resource"] == group), key=lambda one: one["ratio"])
        best["binding"] = best["ratio"] >= NEAR


def fullest(limits: Sequence[Limit], measured: Measurements) -> list[Limit]:
    """The limits with those that were used most first."""

    def use(limit: Limit) -> float:
        total = sum(getattr(one, limit.measure) for key, one in measured.counts.items() if concerns(limit, key))
        return float(total / limit.value)

    return sorted(limits, key=use, reverse=True)


def _whole_seconds(stage: StageRecord) -> range:
    """The seconds that lie wholly within the stage."""
    return range(math.ceil(stage.started_at), math.floor(stage.ended_at))


def _mean(values: Iterable[float | None]) -> float | None:
    known = [one for one in values if one is not None]
    return sum(known) / len(known) if known else None


def rounded(value: float | None) -> float | None:
    """Five significant digits are more than any of this is good for."""
    if value is None or value == 0:
        return value
    return round(value, max(0, 4 - math.floor(math.log10(abs(value)))))
