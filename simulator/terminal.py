"""What a person sees: one redrawn block on a terminal, a line every few seconds elsewhere. All on stderr."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from simulator.live import LiveView
from simulator.peloton import racer_names
from simulator.progress import Progress
from simulator.report import Report
from simulator.utilisation import LimitUse

LIMITS_SHOWN = 8
_SHORT = {
    "iot.account.connects_per_second": "connects",
    "iot.account.publish_in_per_second": "publishes in",
    "iot.account.publish_out_per_second": "publishes out",
    "kinesis.shard.write.records_per_second": "records in",
    "kinesis.shard.write.bytes_per_second": "bytes in",
    "kinesis.shard.read.get_records_per_second": "reads",
    "kinesis.shard.read.bytes_per_second": "bytes out",
    "dynamodb.table.write.units_per_second": "writes",
    "dynamodb.table.read.units_per_second": "reads",
    "dynamodb.index.write.units_per_second": "writes",
    "dynamodb.index.read.units_per_second": "reads",
    "dynamodb.partition.write.units_per_second": "writes/part.",
    "dynamodb.partition.read.units_per_second": "reads/part.",
}


def race_view(console: Console | None = None) -> LiveView[Progress]:
    """Shows a race's :class:`Progress` as it comes."""
    return LiveView(_block, _line, console)


def _line(progress: Progress) -> str:
    ledger = progress.ledger
    parts = [
        f"{progress.phase} {progress.second}/{progress.seconds} s",
        f"{ledger.delivered:,} of {ledger.generated:,} delivered",
    ]
    if ledger.throttled:
        parts.append(f"{ledger.throttled:,} throttled")
    if ledger.lost:
        parts.append(f"{ledger.lost:,} lost")
    parts.append(f"iterator age {progress.behind / 1000:.1f} s")
    if progress.findings:
        parts.append(str(progress.findings[0]))
    return "; ".join(parts)


def _block(progress: Progress) -> RenderableType:
    return Group(_header(progress), _middle(progress), *_why(progress))


def _header(progress: Progress) -> RenderableType:
    ledger = progress.ledger
    grid = Table.grid(padding=(0, 2))
    settled = f" {time.time() - progress.finished_at:.0f} s" if progress.finished_at else ""
    grid.add_row(
        Text(f"{progress.phase}{settled}", style="bold"),
        ProgressBar(total=max(1, progress.seconds), completed=progress.second, width=30),
        f"{progress.second}/{progress.seconds} s",
        f"{ledger.delivered:,}/{ledger.generated:,} delivered",
        Text(f"{ledger.throttled:,} throttled", style="yellow" if ledger.throttled else "dim"),
        Text(f"{ledger.lost:,} lost", style="red" if ledger.lost else "dim"),
        Text(f"iterator age {progress.behind / 1000:.1f} s", style="yellow" if progress.behind > 5000 else "dim"),
    )
    return grid


def _middle(progress: Progress) -> RenderableType:
    busiest = sorted(progress.limits, key=lambda use: (-use.throttled, -use.utilisation))[:LIMITS_SHOWN]
    grid = Table.grid(padding=(0, 4))
    grid.add_row(_board(progress.leaders), Group(limits_table(busiest), _functions(progress.functions)))
    return grid


def _board(leaders: Sequence[tuple[int, float]]) -> RenderableType:
    table = Table(title="Top ten", title_justify="left", box=None, padding=(0, 1))
    for heading in ("", "racer", "", "best"):
        table.add_column(heading, justify="right" if heading != "" else "left")
    names = racer_names(np.array([racer for racer, _ in leaders])) if leaders else []
    for place, ((racer, output), name) in enumerate(zip(leaders, names, strict=True), 1):
        table.add_row(str(place), str(racer), name, f"{output:.2f}")
    return table


def limits_table(uses: Sequence[LimitUse]) -> Table:
    """Each limit's peak against its value."""
    table = Table(title="Limits", title_justify="left", box=None, padding=(0, 1))
    for heading, justify in (
        ("", "left"),
        ("", "left"),
        ("peak/s", "right"),
        ("limit", "right"),
        ("", "right"),
        ("refused", "right"),
    ):
        table.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for use in uses:
        style = "red" if use.throttled else "yellow" if use.utilisation > 0.8 else ""
        table.add_row(
            use.resource.rpartition("/")[2].replace("shardId-00000000", "shard-"),
            _SHORT.get(use.name, use.name),
            f"{use.peak:,.0f}",
            f"{use.limit:,.0f}",
            f"{use.utilisation:.0%}",
            f"{use.throttled:,}" if use.throttled else "",
            style=style,
        )
    return table


def _functions(functions: Sequence[Any]) -> RenderableType:
    table = Table(title="Functions", title_justify="left", box=None, padding=(0, 1))
    for heading in ("", "calls", "errors", "timeouts", "p99 ms", "age ms"):
        table.add_column(heading, justify="right" if heading else "left")
    for one in functions:
        table.add_row(
            one["name"].removesuffix("Function"),
            f"{one['invocations']:,}",
            f"{one['errors']:,}",
            f"{one['timeouts']:,}",
            f"{one['duration_ms']['p99']:,.0f}",
            f"{one['iterator_age_ms']:,}",
            style="yellow" if one["errors"] else "",
        )
    return table


def _why(progress: Progress) -> list[RenderableType]:
    return [Text(f"! {one}", style="yellow") for one in progress.findings[:4]]


def print_report(report: Report, console: Console) -> None:
    """The result of a race, for people, on stdout."""
    run, ledger, judged = report.run, report.ledger, report.verdict
    riders = run["racers"] * len(run["classes"])
    console.print(
        f"{riders:,} bikers, {run['run_time_s']} s, {run['races']} race{'s' if run['races'] > 1 else ''}, "
        f"seed {run['seed']}: {ledger['generated']:,} messages, {ledger['delivered']:,} delivered, "
        f"{ledger['lost']:,} lost, {ledger['throttled']:,} throttled, {ledger['retried']:,} retried",
        highlight=False,
        soft_wrap=True,
    )
    for reason, count in ledger["lost_by_reason"].items():
        console.print(f"  lost: {count:,} {reason}", highlight=False, soft_wrap=True)
    for reason, count in report.extra.get("rejected", {}).items():
        console.print(f"  not telemetry: {count:,} {reason}", highlight=False, soft_wrap=True, markup=False)
    accepted = report.latency_ms.get("accepted", {})
    if accepted:
        console.print(
            f"accepted p50 {accepted['p50']:.0f} ms, p99 {accepted['p99']:.0f} ms after the intended send time; "
            f"settled {run['settled_s']} s after the finish",
            highlight=False,
            soft_wrap=True,
        )
    visible = report.latency_ms.get("visible")
    if visible:
        console.print(
            f"visible p50 {visible['p50'] / 1000:.1f} s, p99 {visible['p99'] / 1000:.1f} s after the intended send "
            "time, on the results topic",
            highlight=False,
            soft_wrap=True,
        )
    for balance in report.extra.get("balance", ()):
        console.print(
            f"{balance['stream']}: of {balance['shards']} shards, the busiest took {balance['steady_share']:.1%} of "
            f"the records, the hottest of each second {balance['hottest_share']:.1%}, of the worst second "
            f"{balance['worst_share']:.1%}; {balance['even_share']:.1%} would be even",
            highlight=False,
            soft_wrap=True,
        )
    console.print(limits_table(report.limits))
    console.print(_functions(report.functions))
    for finding in report.findings:
        console.print(f"! {finding}", style="yellow", highlight=False, soft_wrap=True, markup=False)
    checks = Table(title="Verdict", title_justify="left", box=None, padding=(0, 1))
    for heading in ("", "expected", "matched", "missing", "wrong"):
        checks.add_column(heading, justify="right" if heading else "left")
    for check in judged.checks:
        counts = (check.expected, check.matched, check.missing, check.wrong)
        checks.add_row(check.name, *(f"{count:,}" for count in counts), style="" if check.passed else "red")
    console.print(checks)
    for check in judged.checks:
        for example in check.examples:
            console.print(f"  {example}", highlight=False, soft_wrap=True, markup=False)
    if judged.passed:
        console.print("PASSED: every stored number is right", style="bold green", highlight=False, soft_wrap=True)
    else:
        console.print("FAILED: see the verdict above", style="bold red", highlight=False, soft_wrap=True)
