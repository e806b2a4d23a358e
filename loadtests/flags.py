"""Objectives as flags, and what a search breaks at when none was given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loadtests.objectives import Objectives, from_toml, judge, merged, parse_ms, parse_share

DEFAULTS = Objectives(max_throttled=0.01, max_failed=0.01)
"""Without objectives a step breaks when more than 1 % is throttled, or fails."""

OBJECTIVE_FLAGS = {
    "objectives": ("--objectives", "TOML file of objectives."),
    "max_throttled": ("--max-throttled", "Most that may be throttled: 0.1%."),
    "p99": ("--p99", "Longest 99th percentile from due to accepted: 200ms."),
    "max_iterator_age": ("--max-iterator-age", "Most that a reader of the stream may be behind: 5s."),
    "max_failed": ("--max-failed", "Most that may fail: 0.1%."),
    "max_late": ("--max-late", "Most requests that the generator may send late: 1%."),
}


def objectives_from(given: Mapping[str, Any], scenario: str) -> Objectives:
    """The file's and the flags' together. :raises UsageError:"""
    file = from_toml(Path(given["objectives"]), scenario) if given.get("objectives") else Objectives()

    def read(name: str, parse: Any) -> float | None:
        text = given.get(name)
        return parse(text, f"--{name.replace('_', '-')}") if text else None

    flags = Objectives(
        max_throttled=read("max_throttled", parse_share),
        p99_ms=read("p99", parse_ms),
        max_iterator_age_ms=read("max_iterator_age", parse_ms),
        max_failed=read("max_failed", parse_share),
        max_late=read("max_late", parse_share),
    )
    return merged(file, flags)


def breaks(
    objectives: Objectives,
    *,
    throttled_share: float,
    failed_share: float,
    p99_ms: float | None,
    iterator_age_ms: float | None,
) -> str | None:
    """Why these figures miss the objectives, or the defaults where nothing is asked; None when they keep them.

    What has not been measured yet breaks nothing here; the verdict at the end is stricter.
    """
    asked = merged(DEFAULTS, objectives)
    found = judge(
        Objectives(
            max_throttled=asked.max_throttled,
            max_failed=asked.max_failed,
            p99_ms=asked.p99_ms if p99_ms is not None else None,
            max_iterator_age_ms=asked.max_iterator_age_ms if iterator_age_ms is not None else None,
        ),
        throttled_share=throttled_share,
        failed_share=failed_share,
        late_share=0.0,
        p99_ms=p99_ms,
        iterator_age_ms=iterator_age_ms,
    )
    why = [f"{one.name} was {one.measured_text}, more than {one.limit_text}" for one in found if not one.passed]
    return "; ".join(why) or None
