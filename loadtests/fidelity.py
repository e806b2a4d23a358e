"""``make fidelity``: the same races in the planner and really ridden on the embedded cloud, figure by figure.

A live race draws lots: when pollers begin within their second, how long a back-off is. The planner draws too, by seed,
so each live figure is held against what plans of several seeds say is possible, within the bounds below. The plan
starts at the live race's own time, so that windows end where they ended, and stands as long before it. A live race that
is out of bounds is ridden once more, and the table says so; the machine may have stalled.

=================  ==========================================================
accepted           within 2 %: records that shards took
throttled          within 2 %: records that shards refused
lost               within 2 %
table, index WCU   within 1 %: consumed units
iterator age       within 1 s or 5 %, each function's largest
first limit        the same, where two break within a second either
verdict            the ridden race must pass its own
refused, killed    told and not judged: the table's refused writes and the
                   functions' timeouts, which hang on every back-off
=================  ==========================================================

Durations of functions are the planner's own, not this machine's: one that is too slow, or too busy, for some 500 calls
of the table a second meets no partition's limit. Plans have no cold starts, which decide how many batches a ridden race
has: a second's cold start is a batch less on every shard. Without a window every batch is merged into the results, so
units are compared at the ridden race's own number of batches: a plan's are moved by the difference in batches at what
one of its merges costs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from loadtests.fidelity_cases import CASES, Case
from loadtests.versions import versions
from simulator.capacity.handlers import LIVE
from simulator.capacity.model import Plan, plan
from simulator.capacity.workload import Workload
from simulator.cloud_flags import limits_of
from simulator.deployment import load_deployment

ROOT = Path(__file__).resolve().parents[1]
SEEDS = range(16)
RECORDS_SHARE, UNITS_SHARE, AGE_SHARE, AGE_S = 0.02, 0.01, 0.05, 1.0
TOGETHER_S = 1.0
"""Limits that break so close together are first together: metrics are by the second."""
ATTEMPTS = 2
_SHOWN = ("alleycat", "python", "botocore")


class LiveError(RuntimeError):
    """A live race could not be ridden; the text says why."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: ``live``, and ``low`` to ``high`` by the plans; ``slack`` is what it may be outside of those. A
    figure that is not judged has no bounds, and agrees."""

    case: str
    name: str
    live: float | str
    low: float | str
    high: float | str
    slack: float
    agrees: bool
    is_judged: bool = True

    @property
    def off(self) -> float | None:
        """How far ``live`` is outside of what is planned; None for what is no number."""
        if isinstance(self.live, str) or isinstance(self.low, str) or isinstance(self.high, str):
            return None
        return round(max(self.low - self.live, self.live - self.high, 0.0), 3)

    @property
    def verdict(self) -> str:
        if not self.is_judged:
            return "told"
        return "agrees" if self.agrees else "DIFFERS"


def ride(case: Case, timeout_s: float = 600.0) -> dict[str, Any]:
    """The report of a live race.

    :raises LiveError: when there is none, or not in time.
    """
    arguments = ["-u", case.racers, "-t", f"{case.seconds}s", "--races", case.races, "--via", case.via]
    arguments += ["--classes", ",".join(map(str, case.classes)), "--partition-key", case.partition_key]
    arguments += ["--config-env", case.config_env, "--seed", 7, "--json", "--port", 0, "--mqtt-port", 0]
    arguments += [word for name, value in case.sizes.items() for word in ("--set", f"{name}={value}")]
    arguments += [word for one in case.limits for word in ("--limit", one)]
    command = [sys.executable, "-c", "from simulator.cli import main; main()", "race", *map(str, arguments)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        raise LiveError(f"{case.name}: the race had not ended after {timeout_s:.0f} s") from None
    if done.returncode not in (0, 1):
        raise LiveError(f"{case.name}: the race ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def planned(case: Case, report: dict[str, Any], seeds: Sequence[int] = SEEDS) -> list[Plan]:
    """Plans of the race that ``report`` is of, one a seed."""
    sizes = {name: str(value) for name, value in case.sizes.items()}
    deployment = load_deployment(ROOT / "template.yaml", case.config_env, sizes)
    began = datetime.fromisoformat(report["run"]["started_at"])
    workload = Workload(
        racers=case.racers,
        seconds=case.seconds,
        races=case.races,
        classes=case.classes,
        partition_key=case.partition_key,
        transport="mqtt" if case.via == "mqtt" else "putrecords",
        start_ms=round(began.timestamp() * 1000),
    )
    settings, lead_s = limits_of("on", list(case.limits)), report["run"]["lead_s"]
    return [plan(deployment, workload, settings=settings, jitter_seed=seed, lead_s=lead_s) for seed in seeds]


def compare(case: Case, report: dict[str, Any], plans: Sequence[Plan]) -> list[Row]:
    """Every figure of the race beside the plans'."""
    found = []

    def add(name: str, live: float, values: Sequence[float], share: float, at_least: float = 0.0) -> None:
        low, high = min(values), max(values)
        slack = max(at_least, share * max(abs(live), abs(low), abs(high)))
        agrees = low - slack <= live <= high + slack
        found.append(Row(case.name, name, round(live, 3), round(low, 3), round(high, 3), round(slack, 3), agrees))

    def tell(name: str, live: float, values: Sequence[float]) -> None:
        found.append(Row(case.name, name, live, min(values), max(values), 0.0, True, is_judged=False))

    ledger = report["ledger"]
    shards = [one for one in report["limits"] if one["name"].startswith("kinesis.shard.write.")]
    refused = sum(one["throttled"] for one in shards)
    accepted = sum(one["total"] for one in shards if one["name"].endswith("records_per_second"))
    add("accepted", accepted, [one.ledger.delivered for one in plans], RECORDS_SHARE)
    add("throttled", refused, [one.ledger.throttled for one in plans], RECORDS_SHARE)
    add("lost", ledger["lost"], [one.ledger.lost for one in plans], RECORDS_SHARE)
    for name, title in (("table", "table WCU"), ("index", "index WCU")):
        for one in report["limits"]:
            if one["name"] == f"dynamodb.{name}.write.units_per_second":
                units = [_units(each, one["resource"], report, is_index=name == "index") for each in plans]
                add(title, one["total"], units, UNITS_SHARE)
    for one in report["functions"]:
        ages = [
            max(each.timeline.highest("iterator_age_s", source.name) for source in function.spec.event_sources)
            for each in plans
            for function in each.functions
            if function.spec.logical_id == one["name"]
        ]
        if ages:
            name = f"age s, {one['name'].removesuffix('Function')}"
            add(name, one["iterator_age_ms_max"] / 1000, ages, AGE_SHARE, AGE_S)
    found.append(_first(case, report, plans))
    passed = bool(report["verdict"]["passed"])
    found.append(Row(case.name, "verdict", "passed" if passed else "failed", "passed", "passed", 0.0, passed))
    tables = {one.name for each in plans for one in each.tables}
    writes = [one for one in report["limits"] if one["resource"] in tables and ".write." in one["name"]]
    tell(
        "refused table writes",
        sum(one["throttled"] for one in writes),
        [sum(each.timeline.total("throttled_writes", one) for one in tables) for each in plans],
    )
    tell(
        "killed invocations",
        sum(one["timeouts"] for one in report["functions"]),
        [sum(function.totals.timeouts for function in each.functions) for each in plans],
    )
    return found


def _units(plan: Plan, resource: str, report: dict[str, Any], *, is_index: bool) -> float:
    """Write units of a plan, at the number of batches that the ridden race merged."""
    units = plan.timeline.total("consumed_write_units", resource)
    for function in plan.functions:
        if function.spec.handler != LIVE or any(one.tumbling_window_s for one in function.spec.event_sources):
            continue
        ridden = next(one for one in report["functions"] if one["name"] == function.spec.logical_id)
        batches = function.totals.invocations - function.totals.errors
        of_merges = units - finish_units(plan.workload, is_index=is_index)
        units += (ridden["invocations"] - ridden["errors"] - batches) * of_merges / batches
    return units


def finish_units(workload: Workload, *, is_index: bool) -> float:
    """What finishes cost: two items each. That of the race is new; the class best is too in the first race, and later
    it is better with probability 1 / (races so far + 1), else a look at it is paid. A write counts twice on the table,
    for its local index, and one that moves an index entry once more."""
    new, better, refused = (1, 2, 0) if is_index else (2, 3, 1)
    each = 0.0
    for race in range(workload.races):
        chance = 1 / (race + 1)
        each += new + (new if race == 0 else chance * better + (1 - chance) * refused)
    return workload.bikers * each


def _first(case: Case, report: dict[str, Any], plans: Sequence[Plan]) -> Row:
    live = sorted(
        (one["first_throttled_at"], one["name"]) for one in report["limits"] if one["first_throttled_at"] is not None
    )
    firsts = {name for at, name in live if at <= live[0][0] + TOGETHER_S} or {""}
    expected: set[str] = set()
    for one in plans:
        broken = [limit for limit in one.broken if not limit.name.startswith("lambda.")]
        expected |= {limit.name for limit in broken if limit.first_s <= broken[0].first_s + TOGETHER_S} or {""}
    agrees = bool(firsts & expected) and (case.first is None or case.first in expected)
    told = live[0][1] if live else "none"
    by_plans = ", ".join(sorted(one or "none" for one in expected))
    return Row(case.name, "first limit", told, by_plans, by_plans, 0.0, agrees)


def judge(case: Case) -> tuple[list[Row], int]:
    """Rows of the case, and how many races it took."""
    rows: list[Row] = []
    for attempt in range(1, ATTEMPTS + 1):
        report = ride(case)
        rows = compare(case, report, planned(case, report))
        if all(row.agrees for row in rows):
            return rows, attempt
    return rows, ATTEMPTS


def _shown(value: float | str) -> str:
    if isinstance(value, str):
        return value.removeprefix("kinesis.").removeprefix("dynamodb.").removesuffix("_per_second")
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 100 else f"{value:,.2f}"


def _table(rows: Sequence[Row], title: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), header_style="bold")
    for place, head in enumerate(("", "live", "planned", "off by", "allowed", "")):
        table.add_column(head, justify="left" if place in (0, 5) else "right", no_wrap=True)
    for row in rows:
        span = _shown(row.low) if row.low == row.high else f"{_shown(row.low)} to {_shown(row.high)}"
        off = "" if row.off is None else _shown(row.off)
        allowed = _shown(row.slack) if row.slack else "none" if row.is_judged else "any"
        style = None if row.agrees else "bold red"
        table.add_row(row.name, _shown(row.live), span, off, allowed, row.verdict, style=style)
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 when a figure is out of its bounds, 3 when a race could not be ridden."""
    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(prog="make fidelity", description="Planned races beside ridden ones.")
    parser.add_argument("--only", choices=names, action="append", metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--json", action="store_true", help="rows as JSON, on standard output")
    options = parser.parse_args(arguments)
    console = Console(stderr=options.json, width=max(100, Console().width))
    used = ", ".join(f"{name} {version}" for name, version in versions().items() if name in _SHOWN)
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    console.print(f"{used}; {machine}; {len(SEEDS)} plans of each race", highlight=False)
    chosen = [case for case in CASES if (case.name in options.only if options.only else not case.is_long)]
    every: list[Row] = []
    not_ridden = []
    began = time.monotonic()
    for case in chosen:
        since = time.monotonic()
        try:
            rows, races = judge(case)
        except LiveError as error:
            print(f"fidelity: {error}", file=sys.stderr)
            not_ridden.append(case.name)
            continue
        took = f"{time.monotonic() - since:.0f} s" if races == 1 else f"ridden {races} times"
        console.print(_table(rows, f"\n{case.name}: {case.about} ({took})"), highlight=False)
        every += rows
    console.print(f"\n{_summary(every, len(chosen), time.monotonic() - began)}", highlight=False)
    left_out = [case.name for case in CASES if case.is_long and not options.only]
    if left_out:
        console.print(f"left out, for they take minutes each: {', '.join(left_out)}; --only NAME rides one")
    if options.json:
        print(json.dumps([asdict(row) | {"off": row.off} for row in every]))
    if not_ridden:
        return 3
    return 0 if all(row.agrees for row in every) else 1


def _summary(rows: Sequence[Row], cases: int, seconds: float) -> str:
    judged = [row for row in rows if row.is_judged]
    differ = [f"{row.name} of {row.case}" for row in judged if not row.agrees]
    text = f"{len(judged) - len(differ)} of {len(judged)} figures of {cases} races agree, in {seconds / 60:.1f} minutes"
    return f"{text}; not: {', '.join(differ)}" if differ else text


if __name__ == "__main__":
    sys.exit(main())
