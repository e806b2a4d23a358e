"""What a deployment must keep under a workload, and what a plan says of it.

    p99=2s,throttled=0,settled=10s

=================  ====================================================================================
``p99``            from when a biker sends a message until a function has used it, 99 % of them
``throttled``      share of the records offered to the stream that shards refused
``table_throttled``  share of the table's requests that were refused for want of capacity
``settled``        from the end of the last race until consumers have caught up
``age``            the largest iterator age
=================  ====================================================================================

Each is the most that is allowed. Whatever is asked, nothing may be lost, no function killed by its timeout, and
consumers must catch up: what does not even do that holds nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Any

from simulator.capacity.delays import slowest_s
from simulator.capacity.model import Plan
from simulator.capacity.prices import BillLine, total_usd
from simulator.capacity.timeline import Broken

_NUMBER = r"\d+(?:\.\d*)?|\.\d+"
_TIME = re.compile(rf"({_NUMBER})\s*(ms|s|m)", re.ASCII)
_SHARE = re.compile(rf"({_NUMBER})\s*(%?)", re.ASCII)
_UNITS_S = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60)}
SHARES = ("throttled", "table_throttled")
NAMES = ("p99", "throttled", "table_throttled", "settled", "age")
DEFAULT = "p99=10s,throttled=0,settled=10s"
_LONGEST_S = 86_400.0
_MOST_EXCESS = 1e6


class ObjectiveError(ValueError):
    """An objective cannot be understood; the text is one line and says what can."""


@dataclass(frozen=True, slots=True)
class Objective:
    """The most that is allowed of each: seconds of times, 0 to 1 of shares. What is not in it is not asked."""

    most: Mapping[str, float]

    @property
    def text(self) -> str:
        return ",".join(f"{name}={value_text(name, most)}" for name, most in self.most.items())


def objective_of(text: str) -> Objective:
    """The objective of ``p99=2s,throttled=0.1%``. :raises ObjectiveError:"""
    most: dict[str, float] = {}
    for part in text.split(","):
        name, separator, value = (one.strip() for one in part.partition("="))
        if not separator or name not in NAMES:
            raise ObjectiveError(
                f"{part.strip()!r}: write NAME=VALUE of {', '.join(NAMES)}, such as p99=2s,throttled=0"
            )
        if name in most:
            raise ObjectiveError(f"{name} is there twice; say once what it may be")
        most[name] = _share(name, value) if name in SHARES else _time_s(name, value)
    return Objective(MappingProxyType(most))


def _time_s(name: str, text: str) -> float:
    match = _TIME.fullmatch(text)
    value = float(Decimal(match[1]) * _UNITS_S[match[2]]) if match else -1.0
    if not (0 < value <= _LONGEST_S or (value == 0 and name == "settled")):
        raise ObjectiveError(f"{name}={text}: give a time such as 500ms, 2s or 1m, more than 0, up to a day")
    return value


def _share(name: str, text: str) -> float:
    match = _SHARE.fullmatch(text)
    value = float(Decimal(match[1]) / (100 if match[2] else 1)) if match else math.inf
    if value > 1:
        raise ObjectiveError(f"{name}={text}: give a share such as 0, 0.1% or 0.001, up to 100%")
    return value


def value_text(name: str, value: float) -> str:
    """As it is read: ``2s``, ``0.1%``."""
    if not math.isfinite(value):
        return "never"
    return f"{round(value * 100, 4):g}%" if name in SHARES else f"{round(value, 2 if value >= 0.1 else 4):g}s"


@dataclass(frozen=True, slots=True)
class Measured:
    """What a plan says of each objective, ``inf`` where it never came to an end; and what an adviser wants to know."""

    values: Mapping[str, float]
    lost: int
    timeouts: int
    backlog: int
    bill: tuple[BillLine, ...]
    limits: tuple[Broken, ...]
    """That refused something, the first one first."""
    not_modelled: tuple[str, ...] = ()

    @property
    def first_limit(self) -> Broken | None:
        return self.limits[0] if self.limits else None

    @property
    def usd(self) -> float:
        return total_usd(list(self.bill))

    def misses(self, objective: Objective) -> list[str]:
        """What is not kept, in words, one for each; empty when the deployment holds."""
        return [text for text, _ in self._missed(objective)]

    def excess(self, objective: Objective) -> float:
        """How far from holding, 0 when it does: for comparing deployments that do not."""
        return sum(excess for _, excess in self._missed(objective))

    def _missed(self, objective: Objective) -> Iterator[tuple[str, float]]:
        # Worse than any number that is too large: these are not made good by waiting.
        if self.lost:
            yield f"{self.lost:,} messages lost", 1e3 + math.log1p(self.lost)
        if self.timeouts:
            yield f"{self.timeouts:,} invocations killed by the timeout", 1e3 + math.log1p(self.timeouts)
        if self.backlog:
            yield f"{self.backlog:,} records not processed in time", 1e3 + math.log1p(self.backlog)
        for name, most in objective.most.items():
            value = self.values[name]
            if value > most:
                text = f"{name} is {value_text(name, value)}, more than {value_text(name, most)}"
                if name == "settled" and not math.isfinite(value):
                    text = f"not settled within {value_text(name, most)}"
                yield text, min(_MOST_EXCESS, _excess(name, value, most))

    def as_json(self) -> dict[str, Any]:
        shown = {
            name if name in SHARES else f"{name}_s": round(value, 6) if math.isfinite(value) else None
            for name, value in self.values.items()
        }
        return shown | {
            "lost": self.lost,
            "timeouts": self.timeouts,
            "backlog": self.backlog,
            "usd": round(self.usd, 6),
            "first_limit": self.first_limit.as_json() if self.first_limit else None,
        }


def _excess(name: str, value: float, most: float) -> float:
    """Times compare by how many times too long they are, shares by their size: none at all is asked often."""
    if name in SHARES:
        return value - most
    return value / most - 1 if most else value


def measured(plan: Plan) -> Measured:
    """What ``plan`` says."""
    timeline = plan.timeline
    offered = timeline.total("offered")
    refused = timeline.total("throttled_writes") + timeline.total("throttled_reads")
    # Each admitted request consumed something; how many they were is not in the timeline, their units are.
    units = timeline.total("consumed_write_units") + timeline.total("consumed_read_units")
    return Measured(
        values={
            "p99": p99_s(plan),
            "throttled": timeline.total("throttled") / offered if offered else 0.0,
            "table_throttled": refused / (refused + units) if refused else 0.0,
            "settled": math.inf if plan.settled_s is None else plan.settled_s,
            "age": timeline.highest("iterator_age_s"),
        },
        lost=plan.ledger.lost + plan.given_up,
        timeouts=sum(function.totals.timeouts for function in plan.functions),
        backlog=plan.backlog if plan.settled_s is None else 0,
        bill=plan.bill,
        limits=tuple(plan.broken),
        not_modelled=plan.not_modelled,
    )


def p99_s(plan: Plan) -> float:
    """Within how long 99 % of the messages had their effect, from when they were due; ``inf`` when fewer had."""
    delay_s = slowest_s(plan, 0.99)
    return math.inf if delay_s is None else delay_s
