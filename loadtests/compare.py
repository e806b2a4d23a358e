"""Two reports of load tests beside each other: what changed, and whether the second is worse."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from loadtests.limit_report import SCHEMA
from simulator.flags import UsageError

LATENCY_FLOOR_MS = 5.0
"""Latencies that differ by less are the same: a scheduler's whim is as large."""
SHARE_FLOOR = 0.001
"""Shares that differ by less are the same."""


@dataclass(frozen=True, slots=True)
class Line:
    """One figure of both. ``change`` is B over A less one; None when there is nothing to divide."""

    what: str
    unit: str
    a: float | None
    b: float | None
    change: float | None
    worse: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """``notes`` say what else differs; ``failures`` why B does not pass."""

    a: str
    b: str
    lines: tuple[Line, ...]
    notes: tuple[str, ...]
    failures: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.failures

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}


def load(path: Path) -> dict[str, Any]:
    """The report at ``path``, or in that directory. :raises UsageError: when there is none."""
    file = path / "report.json" if path.is_dir() else path
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}; name a report.json, or the directory given to --out") from None
    except ValueError as error:
        raise UsageError(f"{file}: this is not JSON ({error})") from None
    if not isinstance(told, dict) or told.get("kind") != "loadtest":
        raise UsageError(f"{file}: this is no report of a load test; alleycat loadtest NAME --out DIR writes one")
    if told.get("schema") != SCHEMA:
        raise UsageError(
            f"{file}: its schema is {told.get('schema')!r}, this version reads {SCHEMA}; run the test again"
        )
    return told


def compare(a: Mapping[str, Any], b: Mapping[str, Any], max_regression: float = 0.05) -> Comparison:
    """B against A. Worse is: a lower rate, a longer latency or a larger throttled share, by more than the allowance.

    What was sustained is compared only where both were at their limit: the rate of a test that met none is the load.
    """
    lines = tuple(_lines(a, b, max_regression))
    failures = [f"{one.what} became worse: {_said(one.a)} to {_said(one.b)} {one.unit}" for one in lines if one.worse]
    failures += [
        f"{name} is incomplete: {'; '.join(told['incomplete']) or told['summary']}"
        for name, told in (("A", a), ("B", b))
        if told["outcome"] == "incomplete"
    ]
    if a["outcome"] in ("limit", "held") and b["outcome"] in ("generator", "target"):
        failures.append(f"in B the {b['outcome']} was the bottleneck, so its figures are not the service's")
    return Comparison(_name(a), _name(b), lines, tuple(_notes(a, b)), tuple(failures))


def _lines(a: Mapping[str, Any], b: Mapping[str, Any], allowance: float) -> Iterator[Line]:
    unit = f"{a['run']['unit']}/s"
    if a["knee"] is not None or b["knee"] is not None:
        held = [(one["knee"] or {}).get("held_per_second") for one in (a, b)]
        yield _rate("knee: held", unit, held[0], held[1], allowance)
    known = {(one["name"], one["resource"]): one for one in b["limits"]}
    for one in a["limits"]:
        other = known.get((one["name"], one["resource"]))
        if other is None:
            continue
        judged = one["binding"] and bool(other["throttled"])
        yield _rate(
            f"{one['resource']} {one['name']}: sustained",
            one["unit"],
            one["sustained"],
            other["sustained"],
            allowance if judged else None,
        )
    for part in ("before_knee", "after_knee"):
        for quantile in ("p50", "p99"):
            judged = part == "before_knee"
            words = f"latency {part.replace('_', ' the ')}: {quantile}"
            values = a["latency_ms"][part][quantile], b["latency_ms"][part][quantile]
            yield _more(words, "ms", *values, allowance if judged else None, LATENCY_FLOOR_MS)
    searched = a["run"]["settings"].get("shape") == "search"
    yield _more("throttled share", "", _share(a), _share(b), None if searched else allowance, SHARE_FLOOR)
    for side in ("generator", "target"):
        ceilings = [(one["ceiling"].get(side) or {}).get("ceiling_per_second") for one in (a, b)]
        yield _rate(f"{side}'s ceiling", unit, ceilings[0], ceilings[1], None)


def _rate(what: str, unit: str, a: float | None, b: float | None, allowance: float | None) -> Line:
    """Less is worse, and so is nothing where there was something. Without an allowance it is only told."""
    change = b / a - 1 if a and b is not None else None
    worse = allowance is not None and a is not None and (b is None or b < a * (1 - allowance))
    return Line(what, unit, a, b, change, worse)


def _more(what: str, unit: str, a: float | None, b: float | None, allowance: float | None, floor: float) -> Line:
    """More is worse, when it is more than ``floor`` too."""
    change = b / a - 1 if a and b is not None else None
    worse = allowance is not None and a is not None and b is not None and b > a * (1 + allowance) and b - a > floor
    return Line(what, unit, a, b, change, worse)


def _share(told: Mapping[str, Any]) -> float | None:
    ledger = told["ledger"]
    answered = ledger["accepted"] + ledger["throttled"] + ledger["failed"]
    return ledger["throttled"] / answered if answered else None


def _notes(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[str]:
    if a["run"]["scenario"] != b["run"]["scenario"]:
        yield f"these are different scenarios: {a['run']['scenario']} and {b['run']['scenario']}"
    if a["outcome"] != b["outcome"]:
        yield f"the outcome was {a['outcome']} and is {b['outcome']}"
    for what, one, other in (
        ("setting", a["run"]["settings"], b["run"]["settings"]),
        ("parameter", a["deployment"]["parameters"], b["deployment"]["parameters"]),
        ("version of", a["run"]["versions"], b["run"]["versions"]),
    ):
        for name in sorted({*one, *other}):
            if one.get(name) != other.get(name):
                yield f"{what} {name}: {one.get(name)} and {other.get(name)}"
    for what in ("target", "workers", "users"):
        if a["run"][what] != b["run"][what]:
            yield f"{what}: {a['run'][what]} and {b['run'][what]}"


def render(comparison: Comparison, console: Console) -> None:
    """Print it."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("", overflow="fold")
    for name in ("A", "B", "change"):
        table.add_column(name, justify="right")
    for one in comparison.lines:
        if one.a is None and one.b is None:
            continue
        change = "-" if one.change is None else f"{one.change:+.1%}"
        what = f"{one.what} ({one.unit})" if one.unit else one.what
        table.add_row(what, _said(one.a), _said(one.b), change, style="bold red" if one.worse else "")
    console.print(Text(f"A: {comparison.a}\nB: {comparison.b}\n"))
    console.print(table)
    for note in comparison.notes:
        console.print(Text(note, style="dim"))
    for failure in comparison.failures:
        console.print(Text(f"FAILED {failure}", style="bold red"))
    if comparison.passed:
        console.print(Text("passed: B is not worse than A", style="green"))


def _name(told: Mapping[str, Any]) -> str:
    return f"{told['run']['scenario']} of {told['run']['started_at']}: {told['summary']}"


def _said(value: float | None) -> str:
    return "-" if value is None else f"{value:,.5g}"
