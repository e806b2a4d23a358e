"""What ``alleycat template`` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from simulator.deployment import DeliveryStreamSpec, Deployment, EventSourceSpec, FunctionSpec, TableSpec, TopicRuleSpec

Row = tuple[str, ...]


def render(deployment: Deployment) -> RenderableType:
    """Everything that was understood, in the order of the data's way, then what is ignored."""
    sections: list[tuple[str, list[Row]]] = [
        (
            "Parameters",
            [(name, _value(value), deployment.origins[name]) for name, value in deployment.shown_parameters().items()],
        ),
        (
            "Streams",
            [
                (
                    one.name,
                    "on demand"
                    if one.mode == "ON_DEMAND"
                    else f"{one.shard_count:,} shard{'s' if one.shard_count > 1 else ''}",
                    f"{one.retention_hours} h",
                )
                for one in deployment.streams
            ],
        ),
        ("Consumers", [(one.name, "enhanced fan-out of", one.stream_arn) for one in deployment.consumers]),
        ("Tables", [row for table in deployment.tables for row in _table_rows(table)]),
        (
            "Scaling",
            [
                (one.resource_id, one.dimension.rpartition(":")[2], f"{one.least_units:,} to {one.most_units:,}")
                for one in deployment.scalable_targets
            ],
        ),
        ("Functions", [row for function in deployment.functions for row in _function_rows(function)]),
        ("Deliveries", [row for one in deployment.delivery_streams for row in _delivery_rows(one)]),
        ("Buckets", [(one.name, one.logical_id) for one in deployment.buckets]),
        ("Queues", [(one.name, one.logical_id) for one in deployment.queues]),
        ("Topics", [(one.name, one.logical_id) for one in deployment.topics]),
        ("Rules", [row for rule in deployment.topic_rules for row in _rule_rows(rule)]),
        ("Outputs", [(name, _value(value)) for name, value in deployment.outputs.items()]),
        ("Ignored", [(f"line {one.line}", f"{one.what}: {one.reason}") for one in deployment.ignored]),
    ]
    shown = [_grid(title, rows) for title, rows in sections if rows]
    where = f"stack {deployment.stack_name} in {deployment.region}, account {deployment.account_id}"
    return Group(escape(f"{deployment.path} with --config-env {deployment.config_env}: {where}"), *shown)


def _grid(title: str, rows: list[Row]) -> Table:
    grid = Table(
        title=f"\n{title}",
        title_justify="left",
        title_style="bold",
        box=None,
        show_header=False,
        padding=(0, 2),
    )
    for _ in range(max(len(row) for row in rows)):
        # Names are there to be copied: long ones fold, they are never cut.
        grid.add_column(overflow="fold")
    for row in rows:
        grid.add_row(*(escape(cell) for cell in row))
    return grid


def _value(value: object) -> str:
    return ",".join(str(one) for one in value) if isinstance(value, list) else str(value)


def _table_rows(table: TableSpec) -> list[Row]:
    def units(wcu: int, rcu: int) -> str:
        return f"{wcu:,} WCU, {rcu:,} RCU" if wcu else "on demand"

    def keys(pairs: tuple[tuple[str, str], ...]) -> str:
        return ", ".join(name for name, _ in pairs)

    stream = f"; stream of {table.stream_view_type}" if table.stream_view_type else ""
    rows: list[Row] = [(table.name, keys(table.keys), units(table.wcu, table.rcu) + stream)]
    for index in table.indexes:
        capacity = "the table's units" if index.kind == "LSI" else units(index.wcu, index.rcu)
        rows.append((f"  {index.kind} {index.name}", keys(index.keys), capacity))
    return rows


def _rule_rows(rule: TopicRuleSpec) -> list[Row]:
    payload = rule.payload
    off = " (disabled)" if payload["ruleDisabled"] else ""
    rows: list[Row] = [(rule.name, payload["sql"] + off)]
    rows += [("  to", _action(action)) for action in payload["actions"]]
    if "errorAction" in payload:
        rows.append(("  failures to", _action(payload["errorAction"])))
    return rows


def _action(action: Mapping[str, Mapping[str, Any]]) -> str:
    ((kind, one),) = action.items()
    match kind:
        case "kinesis":
            return f"stream {one['streamName']}, partition key {one.get('partitionKey', '')}"
        case "republish":
            return f"topic {one['topic']}, QoS {one['qos']}"
    return f"s3://{one['bucketName']}/{one['key']}"


def _delivery_rows(delivery: DeliveryStreamSpec) -> list[Row]:
    buffer = f"{delivery.buffer_mb} MB or {delivery.buffer_s} s"
    where = f"s3://{delivery.bucket_name}/{delivery.prefix}"
    rows: list[Row] = [(f"{delivery.name}, from {delivery.stream_name}", f"{where}, {buffer}, {delivery.compression}")]
    transform = delivery.transform
    if transform is not None:
        name = transform.function_arn.rpartition(":")[2]
        rows.append((f"  through {name}", f"{transform.buffer_mb:g} MB or {transform.buffer_s} s a call"))
    return rows


def _function_rows(function: FunctionSpec) -> list[Row]:
    reserved = function.reserved_concurrency
    limits = f"{function.timeout_s} s, {function.memory_mb:,} MB"
    if reserved is not None:
        limits += f", {reserved:,} at a time"
    rows: list[Row] = [(function.name, f"{limits}, {function.runtime} {function.handler}")]
    return rows + [(f"  from {_name(source)}", _source(source)) for source in function.event_sources]


def _name(source: EventSourceSpec) -> str:
    if source.consumer_name:
        return f"{source.source_name} as {source.consumer_name}"
    return f"the stream of {source.source_name}" if source.kind == "DynamoDB" else source.source_name


def _source(source: EventSourceSpec) -> str:
    told = [source.starting_position, f"batches of {source.batch_size:,}"]
    if source.batching_window_s:
        told.append(f"waiting up to {source.batching_window_s} s")
    told.append(f"windows of {source.tumbling_window_s} s" if source.tumbling_window_s else "no window")
    retries = source.maximum_retry_attempts
    told.append("tried until it expires" if retries < 0 else f"{retries:,} retries")
    if source.report_batch_item_failures:
        told.append("partial failures")
    if source.parallelization_factor > 1:
        told.append(f"{source.parallelization_factor} at a time")
    if source.maximum_record_age_s >= 0:
        told.append(f"records up to {source.maximum_record_age_s:,} s old")
    if source.bisect_batch_on_function_error:
        told.append("failed batches halved")
    if source.filter_criteria:
        told.append("filtered")
    if source.on_failure_destination:
        told.append(f"failures to {source.on_failure_destination}")
    return ", ".join(told)
