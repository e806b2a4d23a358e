"""What stands beside an advice: capacity on top of it, other deployments and what they give up; and where nothing
holds, what comes closest and what is in the way."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from simulator.capacity.choices import COSTLY, READS, SHARDS, UNITS, WINDOW, WRITES, Sizes, step_down, writes_of
from simulator.capacity.timeline import Broken
from simulator.capacity.trials import (
    Runs,
    Trial,
    grown,
    nearness,
    one_less,
    smallest,
    steps_less,
)
from simulator.cloud.limits import ITEM_MAX_BYTES

_CLOSEST_SHOWN = 3
_LIMITS_SHOWN = 2
_SHORTER_WINDOWS = 3
_CHEAPER = 0.999
_TIMES_CONSUMED = (1, 3, 10, 30)
_GAINS = {
    "on-demand table": "no units to choose; gives up a bill known before",
    "provisioned table": "a bill known before; gives up what is above its units",
    "on-demand stream": "no shards to choose, four at first; gives up many at once",
    "provisioned stream": "as many shards as are asked for; gives up growing by itself",
}


@dataclass(frozen=True, eq=False, slots=True)
class RunnerUp:
    """Another deployment, and in words what it gives up or gains against the advice."""

    title: str
    trial: Trial
    note: str


def _scaled(runs: Runs, just: Trial, headroom: float, names: Sequence[str]) -> dict[str, int]:
    # A factor of 1.2 must not make 6.000000000000001 of 5.
    more = {name: math.ceil(round(just.sizes[name] * (1 + headroom), 6)) for name in names}
    if SHARDS in more:
        more[SHARDS] = _shards_with(runs, just, headroom, more[SHARDS])
    return {**just.sizes, **more}


def _shards_with(runs: Runs, just: Trial, headroom: float, most: int) -> int:
    """How many shards hold when each takes so much less: one of two that are half full has headroom already."""
    settings = runs.limit_settings
    slower = replace(settings, shard_rate_factor=settings.shard_rate_factor / (1 + headroom))
    tight = replace(runs, limit_settings=slower, trials={})
    return smallest(tight, tight.spare(just.sizes), SHARDS, range(just.sizes[SHARDS], most + 1))


def with_headroom(runs: Runs, just: Trial, headroom: float) -> tuple[Trial, str]:
    """``just`` with ``headroom`` of everything; or of what can have it, and a line on what cannot."""
    if not headroom:
        return just, ""
    names = [name for name in COSTLY if name in just.sizes]
    wanted = _scaled(runs, just, headroom, names)
    full = runs.at(wanted)
    if full is not None and full.holds:
        return full, ""
    # More shards write more often, and may need more units than that.
    ampler = _with_more_units(runs, wanted)
    if ampler is not None:
        return ampler, ""
    # They also write later, and then what was near its time is too late.
    window = just.sizes.get(WINDOW)
    for _ in range(_SHORTER_WINDOWS):
        window = None if window is None else step_down(WINDOW, window)
        sooner = None if window is None else runs.at({**wanted, WINDOW: window})
        if sooner is not None and sooner.holds:
            return sooner, ""
    best, notes = just, []
    for name in reversed(names):
        trial = runs.at({**best.sizes, name: wanted[name]})
        if trial is not None and trial.holds:
            best = trial
        else:
            why = "; ".join(trial.misses) if trial else "the template does not allow it"
            notes.append(f"no headroom in {name}: {wanted[name]:,} do not hold: {why}")
    return best, ". ".join(notes)


def runners_up_of(
    runs: Runs, just: Trial, best: Trial, headroom: float, others: Sequence[tuple[str, Trial | None]]
) -> Iterator[RunnerUp]:
    """``others`` are of other kinds, with their titles; None for what cannot be."""
    if best.sizes != just.sizes:
        yield RunnerUp("just holds", just, f"{difference(just, best)}; gives up all headroom")
    failing = sorted(
        (one for one in steps_less(runs, just) if not one.holds and one.usd < just.usd * _CHEAPER),
        key=lambda one: (one.excess, one.usd),
    )
    for trial in failing[:2]:
        yield RunnerUp("next cheaper", trial, f"{difference(trial, best)}; gives up: {'; '.join(trial.misses)}")
    sooner = one_less(runs, just, WINDOW)
    if sooner is not None:
        quicker = _with_more_units(runs, sooner.sizes)
        gain_s = just.found.values["p99"] - quicker.found.values["p99"] if quicker is not None else 0.0
        if quicker is not None and gain_s > 0.1:
            note = f"{difference(quicker, best)}; p99 is {gain_s:.1f} s less"
            yield RunnerUp("results sooner", quicker, note + ("; has no headroom" if headroom else ""))
    ampler = 0.5 if headroom < 0.5 else headroom * 2
    more, note = with_headroom(runs, just, ampler)
    if more.usd > best.usd:
        yield RunnerUp(f"{ampler:.0%} headroom", more, f"{difference(more, best)}{f'; {note}' if note else ''}")
    for title, other in others:
        if other is not None:
            note = f"gives up: {'; '.join(other.misses)}" if other.misses else _GAINS[title]
            yield RunnerUp(title, other, f"{difference(other, best)}; {note}")


def _with_more_units(runs: Runs, sizes: Sizes) -> Trial | None:
    """``sizes`` with as many more units as it takes to hold, of the table, of the index or of both."""
    units = writes_of(sizes)
    at_steps = {name: UNITS[min(bisect_left(UNITS, sizes[name]), len(UNITS) - 1)] for name in units}
    found = (grown(runs, {**sizes, **at_steps}, growing) for growing in ([*([name] for name in units), units]))
    return min((one for one in found if one is not None and one.holds), key=lambda one: one.usd, default=None)


def difference(trial: Trial, best: Trial) -> str:
    """In USD, and in words."""
    change = trial.usd - best.usd
    return f"{abs(change):,.4f} USD {'less' if change < 0 else 'more'}"


def closest_of(runs: Runs) -> list[Trial]:
    """Those of all plans that are nearest to holding, of different shards or windows, with no more units than that
    takes."""
    found: dict[tuple[object, ...], Trial] = {}
    for trial in sorted(runs.made, key=nearness):
        found.setdefault((trial.kind, trial.sizes.get(SHARDS), trial.sizes.get(WINDOW)), trial)
    nearest = list(found.values())[:_CLOSEST_SHOWN]
    return sorted((_tightened(runs.of(one.kind), one) for one in nearest), key=nearness)


def _tightened(runs: Runs, trial: Trial) -> Trial:
    """With fewer units, as many times what was consumed as it takes to come as near; or as it is."""
    per_s = {
        **dict.fromkeys(WRITES, sum(trial.usage.write_units.values()) / trial.usage.seconds),
        **dict.fromkeys(READS, sum(trial.usage.read_units.values()) / trial.usage.seconds),
    }
    units = {name: size for name, size in trial.sizes.items() if name in per_s}
    for times in _TIMES_CONSUMED if units else ():
        fewer = {name: min(size, max(1, round(times * per_s[name]))) for name, size in units.items()}
        less = runs.at({**trial.sizes, **fewer})
        if less is not None and less.excess <= trial.excess * 1.05 and len(less.misses) <= len(trial.misses):
            return less
    return trial


def forbids_of(runs: Runs, closest: Trial) -> str:
    """What stands in the way where units are ample, so that they cannot be what is missing."""
    sizes = runs.spare(closest.sizes)
    found = (runs.at(sizes) or closest).found
    if not found.limits:
        return (
            "no limit refuses anything; what is left is the time that consumers take: a shard is polled once a second, "
            "a window is over when it is over, and functions take what they take"
        )
    # Of an item that is too large nothing else matters: no size makes it smaller.
    limits = sorted(found.limits, key=lambda one: one.name != ITEM_MAX_BYTES.name)
    return "; ".join(_refusal(one, runs.workload.partition_key) for one in limits[:_LIMITS_SHOWN])


def _refusal(limit: Broken, partition_key: str) -> str:
    value = f" ({limit.limit:,.0f} {limit.unit})" if limit.limit else ""
    verb = "kills" if limit.name.startswith("lambda.timeout") else "refuses"
    text = f"{limit.name} of {limit.resource}{value} {verb} {limit.refused:,}, whatever the sizes"
    if limit.name.startswith("kinesis.shard.write") and partition_key in ("race", "class"):
        text += f"; all messages of a {partition_key} have one partition key, and go to one shard"
    return text
