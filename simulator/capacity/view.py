"""A plan on one screen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from simulator.capacity.model import DRAIN_S, Plan
from simulator.capacity.report import as_json
from simulator.capacity.timeline import Broken
from simulator.cloud import limits

_ROWS_SHOWN = 8


def clock_text(seconds: float) -> str:
    """``5:02`` from the start of the first race."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def render(plan: Plan) -> RenderableType:
    """The answer first, then what stands behind it."""
    told = as_json(plan, with_timeline=False)
    parts: list[RenderableType] = [_question(told), _answer(plan)]
    seen = told["latency_ms"]["visible"]
    if seen["max"] is not None:
        text = "results seen p50 {p50:.1f} s, p99 {p99:.1f} s, max {max:.1f} s after a message was due"
        parts.append(Text(text.format(**{name: value / 1e3 for name, value in seen.items()})))
    parts += [_limit(one) for one in plan.broken[:_ROWS_SHOWN]]
    parts.append(_shards(told))
    if plan.functions:
        parts.append(_functions(plan, told))
    parts += [_delivery(one) for one in told["deliveries"]]
    if plan.tables:
        parts.append(_tables(told))
        parts += _scaled(plan)
    parts.append(_bill(plan, told))
    assumed = told["assumed_durations"]
    text = "assumed: {invocation_ms:g} ms an invocation, {record_us:g} us a record, {call_ms:g} ms a call of the table"
    parts.append(Text(text.format(**assumed), style="dim"))
    parts += [Text(f"not planned: {line}", style="dim") for line in plan.not_modelled]
    return Group(*parts)


def _question(told: dict[str, Any]) -> Text:
    run, config_env = told["run"], told["deployment"]["config_env"]
    classes = f" in each of {len(run['classes'])} classes" if len(run["classes"]) > 1 else ""
    races = f", {run['races']:,} races in a row" if run["races"] > 1 else ""
    return Text(
        f"{run['racers']:,} bikers{classes}, {clock_text(run['run_time_s'])} min{races}, by {run['via']}, "
        f"partition key {run['partition_key']}, {run['record_bytes']} bytes a record, on {config_env}"
    )


def _answer(plan: Plan) -> Text:
    ledger = plan.ledger
    fate = f"{ledger.delivered:,} of {ledger.generated:,} messages on the stream"
    if ledger.lost:
        fate += f", {ledger.lost:,} lost"
    if plan.given_up:
        fate += f", {plan.given_up:,} of them never processed"
    fate += f", p99 within {plan.accepted_ms['p99']:,} ms"
    if plan.settled_s is None:
        left_s = plan.seconds - plan.workload.total_seconds
        fate += f"; {plan.backlog:,} records unprocessed {left_s:,} s after the finish"
        fate += f", which {DRAIN_S / 60:.0f} minutes cannot change: {plan.never}" if plan.never else ""
    elif plan.rejects:
        fate += "; functions reject packed records, so there are no results"
    else:
        fate += f"; results complete {plan.settled_s:,.0f} s after the finish"
    if plan.holds:
        return Text.assemble(("HOLDS", "bold green"), f": {fate}")
    if not plan.broken:
        return Text.assemble(("DOES NOT HOLD", "bold red"), f": {fate}")
    word = "THROTTLES" if plan.recovers else "BREAKS"
    return Text.assemble((word, "bold red"), f" at {clock_text(plan.broken[0].first_s)}: {fate}")


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    grid = Table(box=None, padding=(0, 1, 0, 0), header_style="bold", title_justify="left")
    for place, title in enumerate(head):
        grid.add_column(title, justify="left" if place == 0 else "right", no_wrap=True)
    for row in rows:
        grid.add_row(*row)
    return grid


def _limit(one: Broken) -> Text:
    value = f", {one.limit:,.0f} {one.unit}" if one.limit else ""
    when = f"{clock_text(one.first_s)} to {clock_text(one.last_s)}"
    return Text(f"  {when}: {one.name} of {one.resource}{value}: {one.refused:,} refused")


def _shards(told: dict[str, Any]) -> Table:
    per_second = limits.SHARD_WRITE_RECORDS.value
    busiest = sorted(told["shards"], key=lambda one: -one["offered"])
    rows = [
        (
            one["shard"].removeprefix("shardId-").lstrip("0") or "0",
            f"{one['offered']:,}",
            f"{one['accepted']:,}",
            f"{one['throttled']:,}",
            f"{one['peak_accepted_per_second']:,}",
            f"{one['peak_accepted_per_second'] / per_second:.0%}",
        )
        for one in busiest[:_ROWS_SHOWN]
    ]
    if len(busiest) > _ROWS_SHOWN:
        rows.append((f"and {len(busiest) - _ROWS_SHOWN} more", "", "", "", "", ""))
    return _grid(("shard", "offered", "accepted", "throttled", "peak/s", "of 1,000/s"), rows)


def _functions(plan: Plan, told: dict[str, Any]) -> Table:
    rows = [
        (
            function.spec.logical_id,
            f"{one['invocations']:,}",
            f"{one['errors']:,}",
            f"{one['timeouts']:,}",
            f"{one['concurrency_max']}",
            f"{one['duration_ms']['p50']:,.0f}",
            f"{one['duration_ms']['max']:,.0f}",
            f"{one['iterator_age_ms_max'] / 1e3:,.1f}",
        )
        for function, one in zip(plan.functions, told["functions"], strict=True)
    ]
    head = ("function", "calls", "errors", "timeouts", "at once", "p50 ms", "max ms", "age s")
    return _grid(head, rows)


def _delivery(one: dict[str, Any]) -> Text:
    failed = f", {one['failed']:,} failed in the transform" if one["failed"] else ""
    return Text(
        f"{one['name']} delivers {one['records']:,} records in {one['objects']:,} objects, "
        f"{one['bytes'] / 1e6:,.1f} MB, the oldest {one['age_s_max']:,.0f} s after it came{failed}"
    )


def _tables(told: dict[str, Any]) -> Table:
    rows = [
        (
            one["resource"],
            f"{one['provisioned_write_units']:,.0f}" if one["provisioned_write_units"] else "on-demand",
            f"{one['consumed_write_units']:,.0f}",
            f"{one['peak_write_units_per_second']:,.0f}",
            f"{one['throttled_writes']:,}",
            f"{one['least_burst_left_write']:,.0f}",
        )
        for one in told["tables"]
    ]
    return _grid(("table", "WCU", "consumed", "peak/s", "throttled", "least saved"), rows)


def _scaled(plan: Plan) -> list[Text]:
    """What auto scaling did, from the first race on."""
    changes = sorted((one for table in plan.tables for one in table.scaled), key=lambda one: one.at_s)
    lines = [
        f"  {clock_text(one.at_s)}: {one.resource} scaled from {one.before:,.0f} to {one.after:,.0f} "
        f"{one.direction.lower()} units"
        for one in changes[:_ROWS_SHOWN]
    ]
    if len(changes) > _ROWS_SHOWN:
        lines.append(f"  and {len(changes) - _ROWS_SHOWN:,} changes more")
    return [Text(line) for line in lines]


def _bill(plan: Plan, told: dict[str, Any]) -> Table:
    ids = {function.spec.name: function.spec.logical_id for function in plan.functions}
    rows = [
        (
            ids.get(line.resource, line.resource),
            f"{line.quantity:,.{0 if line.quantity >= 100 else 1}f} {line.price.unit}",
            f"{line.usd:,.4f}",
            line.price.date or line.price.source,
        )
        for line in plan.bill
    ]
    rows.append(("together", "", f"{told['bill']['total_usd']:,.4f}", ""))
    return _grid(("bill, us-east-1", "", "USD", "price of"), rows)
