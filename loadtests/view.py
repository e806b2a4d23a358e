"""A load test on the terminal: where it is while it runs, and what it found."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from loadtests.sentences import said
from simulator.live import LiveView

_SHARD = re.compile(r"shardId-0{8}")
"""As ``alleycat race`` names shards: twelve digits leave no room for the figures."""
LIMITS_SHOWN = 12


def load_view() -> LiveView[Mapping[str, Any]]:
    """Shows a test's progress messages as they come."""
    return LiveView(lambda told: Text(line_of(told), overflow="ellipsis", no_wrap=True), line_of)


def line_of(told: Mapping[str, Any]) -> str:
    """What a progress message says, in one line."""
    parts = [
        f"{told['seconds']:>5.0f} s",
        f"{told['stage']}",
        f"offered {said(told['offered_per_second'])}, accepted {said(told['accepted_per_second'])} {told['unit']}/s",
    ]
    if told["throttled_share"]:
        parts.append(f"{told['throttled_share']:.1%} throttled")
    if told["failed"]:
        parts.append(f"{told['failed']:,} failed")
    if told["p99_ms"] is not None:
        parts.append(f"p99 {told['p99_ms']:,.0f} ms")
    parts.append(f"generator {told['generator_cpu']:.0%} of a core")
    return ", ".join(parts)


def print_report(told: Mapping[str, Any], console: Console) -> None:
    """The answer first, then the figures."""
    verdict = told["verdict"]
    console.print(Text(told["summary"], style="bold"))
    console.print()
    if told["limits"]:
        console.print(_limits(told))
    knee = told["knee"]
    if knee is not None:
        held = "nothing" if knee["held_per_second"] is None else f"{said(knee['held_per_second'])} {knee['unit']}/s"
        console.print(f"knee: {held} held, {said(knee['broke_per_second'])} {knee['unit']}/s broke: {knee['reason']}")
    for name, words in (("before_knee", "before the knee"), ("after_knee", "after it")):
        one = told["latency_ms"][name]
        if one["p50"] is not None:
            console.print(
                f"latency {words}: p50 {said(one['p50'])} ms, p99 {said(one['p99'])} ms, from when it was due"
            )
    ledger = told["ledger"]
    ends = [
        f"{ledger[end]:,} {end}" for end in ("accepted", "throttled", "failed", "unsent", "unanswered") if ledger[end]
    ]
    console.print(f"{ledger['offered']:,} {told['run']['unit']} were due: {', '.join(ends) or 'none'}")
    console.print(told["ceiling"]["text"])
    for one in told["problems"][:5]:
        console.print(Text(f"{one['count']:,} x {one['code']}: {one['message']}", overflow="fold"))
    for check in verdict["checks"]:
        mark = Text("passed " if check["passed"] else "FAILED ", style="green" if check["passed"] else "bold red")
        console.print(mark + Text(f"{check['name']}: {check['text']}", style=""))


def short_name(limit: str) -> str:
    """``kinesis.shard.write.records_per_second`` as ``write records/s``: the resource is named beside it."""
    words = limit.replace("_per_second", "/s").split(".")[2:]
    return " ".join(words).replace("_", " ")


def _limits(told: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("limit", overflow="fold")
    for name in ("published", "sustained", "ratio", "peak", "first throttle", "throttled"):
        table.add_column(name, justify="right")
    rows = sorted(told["limits"], key=lambda one: (not one["binding"], -(one["ratio"] or 0)))
    for one in rows[:LIMITS_SHOWN]:
        first = one["first_throttle_at_s"]
        table.add_row(
            f"{_SHARD.sub('shard-', one['resource'])} {short_name(one['name'])}",
            f"{said(one['published'])}",
            "-" if one["sustained"] is None else f"{said(one['sustained'])}",
            "-" if one["ratio"] is None else f"{one['ratio']:.1%}",
            f"{said(one['peak'])}",
            "-" if first is None else f"{first:.0f} s",
            f"{one['throttled']:,}",
            style="bold yellow" if one["binding"] else "",
        )
    if len(rows) > LIMITS_SHOWN:
        table.caption = f"and {len(rows) - LIMITS_SHOWN} more in report.json"
    return table
