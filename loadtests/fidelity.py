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
=================  ==========================================================
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from loadtests.fidelity_cases import CASES, Case
from simulator.capacity.model import Plan, plan
from simulator.capacity.workload import Workload
from simulator.cloud_flags import limits_of
from simulator.deployment import load_deployment

ROOT = Path(__file__).resolve().parents[1]
SEEDS = range(8)
RECORDS_SHARE, UNITS_SHARE, AGE_SHARE, AGE_S = 0.02, 0.01, 0.05, 1.0
TOGETHER_S = 1.0
"""Limits that break so close together are first together: metrics are by the second."""
ATTEMPTS = 2


class LiveError(RuntimeError):
    """A live race could not be ridden; the text says why."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: ``live``, and ``low`` to ``high`` by the plans; ``slack`` is what it may be outside of those."""

    case: str
    name: str
    live: float | str
    low: float | str
    high: float | str
    slack: float
    agrees: bool


def ride(case: Case, timeout_s: float = 600.0) -> dict[str, Any]:
    """The report of a live race.

    :raises LiveError:
    """
    arguments = ["-u", case.racers, "-t", f"{case.seconds}s", "--races", case.races, "--via", case.via]
    arguments += ["--classes", ",".join(map(str, case.classes)), "--partition-key", case.partition_key]
    arguments += ["--config-env", case.config_env, "--seed", 7, "--json", "--port", 0, "--mqtt-port", 0]
    arguments += [word for name, value in case.sizes.items() for word in ("--set", f"{name}={value}")]
    arguments += [word for one in case.limits for word in ("--limit", one)]
    command = [sys.executable, "-c", "from simulator.cli import main; main()", "race", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=timeout_s, check=False)
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
    settings = limits_of("on", list(case.limits))
    return [
        plan(deployment, workload, settings=settings, jitter_seed=seed, lead_s=report["run"]["lead_s"])
        for seed in seeds
    ]


def compare(case: Case, report: dict[str, Any], plans: Sequence[Plan]) -> list[Row]:
    """Every figure of the race beside the plans'."""
    found = []

    def add(name: str, live: float, values: Sequence[float], share: float, at_least: float = 0.0) -> None:
        slack = max(at_least, share * max(abs(live), *map(abs, values)))
        low, high = min(values), max(values)
        agrees = low - slack <= live <= high + slack
        found.append(Row(case.name, name, round(live, 3), round(low, 3), round(high, 3), round(slack, 3), agrees))

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
                units = [each.timeline.total("consumed_write_units", one["resource"]) for each in plans]
                add(title, one["total"], units, UNITS_SHARE)
    for one in report["functions"]:
        ages = [
            max(each.timeline.highest("iterator_age_s", source.name) for source in function.spec.event_sources)
            for each in plans
            for function in each.functions
            if function.spec.logical_id == one["name"]
        ]
        if ages:
            add(f"age s of {one['name']}", one["iterator_age_ms_max"] / 1000, ages, AGE_SHARE, AGE_S)
    found.append(_first(case, report, plans))
    return found


def _first(case: Case, report: dict[str, Any], plans: Sequence[Plan]) -> Row:
    live = sorted(
        (one["first_throttled_at"], one["name"]) for one in report["limits"] if one["first_throttled_at"] is not None
    )
    firsts = {name for at, name in live if at <= live[0][0] + TOGETHER_S} or {""}
    expected: set[str] = set()
    for one in plans:
        broken = [limit for limit in one.broken if not limit.name.startswith("lambda.")]
        expected |= {limit.name for limit in broken if limit.first_s <= broken[0].first_s + TOGETHER_S} or {""}
    agrees = bool(firsts & expected) and case.first in expected
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
        return value.removeprefix("kinesis.").removeprefix("dynamodb.")
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 100 else f"{value:,.2f}"


def _table(rows: Sequence[Row], title: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), header_style="bold")
    for place, head in enumerate(("", "live", "planned", "off by", "allowed", "")):
        table.add_column(head, justify="left" if place in (0, 5) else "right")
    for row in rows:
        span = _shown(row.low) if row.low == row.high else f"{_shown(row.low)} to {_shown(row.high)}"
        off = ""
        if not isinstance(row.live, str) and not isinstance(row.low, str) and not isinstance(row.high, str):
            off = _shown(round(max(row.low - row.live, row.live - row.high, 0.0), 3))
        allowed = _shown(row.slack) if row.slack else "none"
        table.add_row(row.name, _shown(row.live), span, off, allowed, "agrees" if row.agrees else "DIFFERS")
    return table


def main() -> int:
    """Exit code 1 when a figure is out of its bounds, 3 when a race could not be ridden."""
    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(prog="make fidelity", description="Planned races beside ridden ones.")
    parser.add_argument("--only", choices=names, action="append", help="a scenario; repeatable")
    parser.add_argument("--json", action="store_true", help="rows as JSON, on standard output")
    options = parser.parse_args()
    console = Console(stderr=options.json, width=max(100, Console().width))
    console.print(
        f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}; {len(SEEDS)} plans each"
    )
    every: list[Row] = []
    for case in CASES:
        if options.only and case.name not in options.only:
            continue
        try:
            rows, races = judge(case)
        except LiveError as error:
            print(f"fidelity: {error}", file=sys.stderr)
            return 3
        again = "" if races == 1 else f", ridden {races} times"
        console.print(_table(rows, f"\n{case.name}: {case.about}{again}"))
        every += rows
    differ = [row for row in every if not row.agrees]
    console.print(f"\n{len(every) - len(differ)} of {len(every)} figures agree")
    if options.json:
        print(json.dumps([asdict(row) for row in every]))
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
