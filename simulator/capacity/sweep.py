"""The same workload on deployments side by side: every combination of some template parameters' values.

    --sweep ShardCount=1..8 --sweep WriteCapacityUnits=20,50,100

A *sweep* is a parameter and its values, whole ranges or lists of anything that the template lets it be. Each *cell* is
a plan of its own and knows nothing of the others.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simulator.capacity.functions import Durations
from simulator.capacity.model import plan
from simulator.capacity.objective import Measured, measured
from simulator.capacity.prices import PRICES, Price
from simulator.capacity.trials import Deploy
from simulator.capacity.workload import Workload
from simulator.cloud.limits import LimitSettings
from simulator.deployment import ConfigError, Deployment

SCHEMA = 1
MOST_CELLS = 1000
_RANGE = re.compile(r"(-?\d{1,18})\.\.(-?\d{1,18})", re.ASCII)


class SweepError(ValueError):
    """What is to be swept cannot be; the text is one line and says what can."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """A template parameter and the values that it takes, in the order given."""

    name: str
    values: tuple[str, ...]


def sweep_of(text: str) -> Sweep:
    """The sweep of ``ShardCount=1..8`` or ``WriteCapacityUnits=20,50,100..102``. :raises SweepError:"""
    name, separator, listed = text.partition("=")
    name = name.strip()
    if not separator or not name:
        raise SweepError(f"{text!r}: write NAME=VALUES, such as ShardCount=1..8 or WriteCapacityUnits=20,50,100")
    values = [value for part in listed.split(",") for value in _values(text, part.strip())]
    twice = next((value for place, value in enumerate(values) if value in values[:place]), None)
    if twice is not None:
        raise SweepError(f"{text!r}: {twice} is there twice")
    return Sweep(name, tuple(values))


def _values(text: str, part: str) -> Iterator[str]:
    match = _RANGE.fullmatch(part)
    if match is None:
        if not part or ".." in part:
            raise SweepError(f"{text!r}: {part!r} is no value and no range; a range is two whole numbers, such as 1..8")
        yield part
        return
    low, high = int(match[1]), int(match[2])
    if low > high:
        raise SweepError(f"{text!r}: {part} ends before it begins; write {high}..{low}")
    if high - low >= MOST_CELLS:
        raise SweepError(f"{text!r}: {part} has {high - low + 1:,} values; a sweep has at most {MOST_CELLS:,} plans")
    yield from map(str, range(low, high + 1))


@dataclass(frozen=True, eq=False, slots=True)
class Cell:
    """One combination and its plan: ``values`` are of the sweeps, in their order."""

    values: tuple[str, ...]
    verdict: str
    found: Measured

    def as_json(self, sweeps: Sequence[Sweep]) -> dict[str, Any]:
        names = (sweep.name for sweep in sweeps)
        return {
            "parameters": dict(zip(names, self.values, strict=True)),
            "verdict": self.verdict,
            **self.found.as_json(),
        }


@dataclass(frozen=True, eq=False, slots=True)
class Swept:
    """All cells; the last sweep's values change first."""

    workload: Workload
    sweeps: tuple[Sweep, ...]
    cells: tuple[Cell, ...]

    def as_json(self) -> dict[str, Any]:
        workload = self.workload
        return {
            "schema": SCHEMA,
            "run": {
                "racers": workload.racers,
                "run_time_s": workload.seconds,
                "races": workload.races,
                "classes": list(workload.classes),
                "via": "mqtt" if workload.transport == "mqtt" else "kinesis",
                "partition_key": workload.partition_key,
                "phase": workload.phase,
                "seed": workload.seed,
            },
            "sweeps": [{"name": sweep.name, "values": list(sweep.values)} for sweep in self.sweeps],
            "cells": [cell.as_json(self.sweeps) for cell in self.cells],
        }


def sweep(
    deploy: Deploy,
    workload: Workload,
    sweeps: Sequence[Sweep],
    *,
    settings: LimitSettings | None = None,
    prices: Mapping[str, Price] = PRICES,
    durations: Durations | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Swept:
    """Plan every combination, after looking whether the template allows them all.

    :raises SweepError: an unknown parameter, a value that the template refuses, or too many combinations.
    :raises PlanError: a combination that cannot be planned.
    """
    deployments = dict(_deployments(deploy, sweeps))
    cells = []
    for values, deployment in deployments.items():
        run = plan(deployment, workload, settings=settings, prices=prices, durations=durations)
        verdict = "holds" if run.holds else "throttles" if run.recovers else "breaks"
        cells.append(Cell(values, verdict, measured(run)))
        progress(len(cells), len(deployments))
    return Swept(workload, tuple(sweeps), tuple(cells))


def _deployments(deploy: Deploy, sweeps: Sequence[Sweep]) -> Iterator[tuple[tuple[str, ...], Deployment]]:
    base = deploy({})
    names = [one.name for one in sweeps]
    for one in sweeps:
        if one.name not in base.parameters:
            raise SweepError(f"there is no parameter {one.name}; there are {', '.join(base.parameters)}")
        if one.name in base.no_echo:
            raise SweepError(f"{one.name} is NoEcho: its values cannot be shown")
        if names.count(one.name) > 1:
            raise SweepError(f"{one.name} is swept twice; give all its values at once")
    count = math.prod(len(one.values) for one in sweeps)
    if count > MOST_CELLS:
        raise SweepError(f"{count:,} combinations; a sweep has at most {MOST_CELLS:,} plans")
    for values in itertools.product(*(one.values for one in sweeps)):
        try:
            yield values, deploy(dict(zip(names, values, strict=True)))
        except ConfigError as error:
            raise SweepError(str(error)) from None
