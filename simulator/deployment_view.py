"""What ``alleycat template`` prints."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from simulator.deployment import Deployment, EventSourceSpec, TableSpec


def render(deployment: Deployment) -> RenderableType:
    """Everything that was understood, in the order of the data's way, then what is ignored."""
    return Group(
        f"{deployment.path} with --config-env {deployment.config_env}",
        _grid(
            "Parameters",
            [(name, str(value), deployment.origins[name]) for name, value in deployment.parameters.items()],
        ),
        _grid(
            "Streams",
            [(one.name, f"{one.shard_count} shards", f"{one.retention_hours} h") for one in deployment.streams],
        ),
        _grid("Tables", [row for table in deployment.tables for row in _table_rows(table)]),
        _grid(
            "Functions",
            [
                (one.logical_id, one.handler, f"{one.timeout_s} s, {one.memory_mb} MB; {_sources(one.event_sources)}")
                for one in deployment.functions
            ],
        ),
        _grid(
            "Buckets and queues",
            [(one.name, one.logical_id, "") for one in deployment.buckets]
            + [(one.name, one.logical_id, "") for one in deployment.queues],
        ),
        _grid("Ignored", [(one.what, f"line {one.line}", one.reason) for one in deployment.ignored]),
    )


def _grid(title: str, rows: list[tuple[str, str, str]]) -> Table:
    table = Table(title=f"\n{title}" if rows else "", title_justify="left", box=None, show_header=False, padding=(0, 2))
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    return table


def _table_rows(table: TableSpec) -> list[tuple[str, str, str]]:
    def units(wcu: int, rcu: int) -> str:
        return f"{wcu} WCU, {rcu} RCU" if wcu else "on demand"

    def keys(pairs: tuple[tuple[str, str], ...]) -> str:
        return ", ".join(name for name, _ in pairs)

    rows = [(table.name, keys(table.keys), units(table.wcu, table.rcu))]
    for index in table.indexes:
        capacity = "the table's units" if index.kind == "LSI" else units(index.wcu, index.rcu)
        rows.append((f"  {index.kind} {index.name}", keys(index.keys), capacity))
    return rows


def _sources(sources: tuple[EventSourceSpec, ...]) -> str:
    told = []
    for one in sources:
        window = f", window {one.tumbling_window_s} s" if one.tumbling_window_s else ""
        told.append(f"{one.source_name} from {one.starting_position}, batches of {one.batch_size:,}{window}")
    return "; ".join(told) or "no event source"
