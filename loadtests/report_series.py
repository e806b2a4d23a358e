"""Numbers, texts and series of a load test's report, read without trusting them.

A report may come from an older version, from a test that broke off, or carry a service's own words, so a number
may be missing and a text may hold anything.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MOST_POINTS = 900
"""Points a line is drawn with at most."""
MOST_LETTERS = 40

Series = list[float | None]


def number(value: Any) -> float | None:
    """``value`` when it is a finite number."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def printable(text: Any) -> str:
    """Without controls and halves of characters, which neither pages nor terminals should be given."""
    return "".join(one if one.isprintable() or one == "\n" else "\N{REPLACEMENT CHARACTER}" for one in str(text))


def label(text: Any, most: int = MOST_LETTERS) -> str:
    """A text for plotly: short, and none of it markup."""
    clean = printable(text)
    return html.escape(clean if len(clean) <= most else f"{clean[: most - 1]}…", quote=False)


class Steps:
    """The seconds of a test, in steps that are few enough to draw."""

    def __init__(self, series: Mapping[str, Any], resources: Iterable[Mapping[str, Any]]) -> None:
        lengths = [len(one.get("accepted") or ()) for one in resources]
        lengths += [len(series.get(key) or ()) for key in ("seconds", "offered", "generator_cpu", "target_cpu")]
        self.count = max(lengths, default=0)
        self.step = max(1, math.ceil(self.count / MOST_POINTS))
        known = list(series.get("seconds") or ())
        known += range(len(known), self.count)
        self.seconds = known[:: self.step]
        self.note = f" Each point is the mean of {self.step} s." if self.step > 1 else ""

    def of(self, values: Sequence[Any] | None) -> Series:
        """``values`` by step, None where nothing was measured."""
        return [mean((values or ())[at : at + self.step]) for at in range(0, self.count, self.step)]


def mean(values: Iterable[Any]) -> float | None:
    known = [one for one in map(number, values) if one is not None]
    return sum(known) / len(known) if known else None


def total(several: Iterable[Sequence[Any] | None]) -> Series:
    """Second by second, None where no one has a value."""
    lists = [list(one or ()) for one in several]
    found: Series = []
    for at in range(max(map(len, lists), default=0)):
        known = [value for one in lists if at < len(one) and (value := number(one[at])) is not None]
        found.append(sum(known) if known else None)
    return found


def pressure(resource: Mapping[str, Any]) -> tuple[float, float]:
    """Most throttled first, then busiest."""
    refused, taken = (sum(filter(None, map(number, resource.get(key) or ()))) for key in ("throttled", "accepted"))
    return refused, taken / (number(resource.get("limit")) or 1.0)
