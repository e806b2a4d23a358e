"""What ``alleycat consume`` shows: a redrawn block on a terminal, a line every few seconds elsewhere; on stderr.

The functions' own lines go there too, each with its function's name.
"""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from consumers.runtime import FunctionStatistics, RuntimeStatistics
from simulator.consume import Snapshot, Summary
from simulator.live import LINE_EVERY_S

SHARDS_SHOWN = 20
_FINE = ("starting", "running", "reading", "invoking", "finished", "stopped")


class ConsumeView:
    """Shows :class:`~simulator.consume.Snapshot` objects as they come. A context manager."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, soft_wrap=True)
        self._live: Live | None = None
        self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def show(self, snapshot: Snapshot) -> None:
        if self.console.is_terminal:
            if self._live is None:
                self._live = Live(console=self.console, refresh_per_second=4, transient=True)
                self._live.start()
            self._live.update(_block(snapshot))
        elif time.monotonic() - self._last_line >= LINE_EVERY_S:
            self._last_line = time.monotonic()
            self._print(_line(snapshot))

    def note(self, text: str) -> None:
        """Something that happens once."""
        self._print(f"alleycat: {text}")

    def log(self, source: str, line: str) -> None:
        """A line of a function, or of an event source in trouble. From any thread."""
        self._print(f"{source} | {line}")

    def _print(self, text: str) -> None:
        # Nobody reading any more is no reason to lose an invocation.
        with contextlib.suppress(OSError, ValueError):
            if self.console.is_terminal:
                self.console.print(Text(text))
            else:
                # One write a line: several threads log.
                sys.stderr.write(text + "\n")
                sys.stderr.flush()


def _line(snapshot: Snapshot) -> str:
    parts = [f"{snapshot.phase} {snapshot.elapsed_s:.0f} s"]
    for name, one in snapshot.statistics.functions.items():
        told = f"{name} {one.invocations:,} calls, {one.records_processed:,} records"
        if one.errors:
            told += f", {one.errors:,} errors"
        parts.append(f"{told}, p99 {one.duration_ms_p99:.0f} ms, age {one.iterator_age_ms / 1000:.1f} s")
    trouble = sum(
        one.status not in _FINE for mapping in snapshot.statistics.mappings.values() for one in mapping.shards.values()
    )
    if trouble:
        parts.append(f"{trouble} shards in trouble")
    parts += [
        f"{name} is {mapping.status}"
        for name, mapping in snapshot.statistics.mappings.items()
        if mapping.status not in _FINE
    ]
    return "; ".join(parts)


def _block(snapshot: Snapshot) -> RenderableType:
    header = Text(f"{snapshot.phase} {snapshot.elapsed_s:.0f} s on {snapshot.where}", style="bold")
    return Group(header, functions_table(snapshot.statistics), shards_table(snapshot.statistics))


def functions_table(statistics: RuntimeStatistics) -> Table:
    table = _table("Functions", "", "calls", "records", "errors", "timeouts", "p50 ms", "p99 ms", "age ms", left=1)
    for name, one in statistics.functions.items():
        table.add_row(name, *_numbers(one), style="yellow" if one.errors else "")
    return table


def _numbers(one: FunctionStatistics) -> tuple[str, ...]:
    return (
        f"{one.invocations:,}",
        f"{one.records_processed:,}",
        f"{one.errors:,}",
        f"{one.timeouts:,}",
        f"{one.duration_ms_p50:,.0f}",
        f"{one.duration_ms_p99:,.0f}",
        f"{one.iterator_age_ms:,.0f}",
    )


def shards_table(statistics: RuntimeStatistics) -> Table:
    """Shards in trouble first, and not more than fit."""
    table = _table("Shards", "event source", "shard", "status", "behind ms", "buffered", "retries", "dropped", left=3)
    rows = [
        (name, shard_id, one)
        for name, mapping in statistics.mappings.items()
        for shard_id, one in mapping.shards.items()
    ]
    rows.sort(key=lambda row: (row[2].status == "finished", -(row[2].millis_behind or 0)))
    for name, shard_id, one in rows[:SHARDS_SHOWN]:
        table.add_row(
            name,
            _short(shard_id),
            one.status,
            "" if one.millis_behind is None else f"{one.millis_behind:,}",
            f"{one.buffered:,}",
            f"{one.retries:,}",
            f"{one.dropped_records:,}",
            style="yellow" if one.status in ("blocked", "throttled", "unreachable", "crashed") else "",
        )
    if len(rows) > SHARDS_SHOWN:
        table.add_row(f"and {len(rows) - SHARDS_SHOWN:,} more")
    for name, mapping in statistics.mappings.items():
        if mapping.status not in _FINE:
            told = f": {mapping.last_error.message}" if mapping.last_error else ""
            table.add_row(name, "", f"{mapping.status}{told}", style="yellow")
    return table


def _short(shard_id: str) -> str:
    """shard-0007 of Kinesis; the last part of the long ids of a table's stream."""
    name = shard_id.replace("shardId-00000000", "shard-", 1)
    return name if len(name) <= 12 else f"...{name[-8:]}"


def _table(title: str, *headings: str, left: int) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1))
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number < left else "right", overflow="fold")
    return table


def print_summary(summary: Summary, console: Console) -> None:
    """The end of a run, for people, on stdout."""
    snapshot = summary.snapshot
    records = sum(one.records_processed for one in snapshot.statistics.functions.values())
    calls = sum(one.invocations for one in snapshot.statistics.functions.values())
    console.print(
        f"{records:,} records in {calls:,} invocations, {snapshot.elapsed_s:.0f} s on {snapshot.where}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(functions_table(snapshot.statistics))
    console.print(shards_table(snapshot.statistics))
    for name, one in snapshot.statistics.functions.items():
        if one.last_error is not None:
            console.print(
                f"! {name}: {one.last_error.type}: {one.last_error.message}",
                style="yellow",
                highlight=False,
                soft_wrap=True,
                markup=False,
            )
