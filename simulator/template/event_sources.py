"""Event source mappings: SAM's Kinesis and DynamoDB events, and AWS::Lambda::EventSourceMapping.

Ranges and defaults are CreateEventSourceMapping's.
"""

from __future__ import annotations

import math
import re
from typing import Any

from simulator.template.context import Context
from simulator.template.nodes import MapNode
from simulator.template.properties import Properties
from simulator.template.specs import EventSourceSpec
from simulator.template.support import (
    IGNORED_EVENTS,
    MAPPING,
    SAM_FUNCTION,
    STREAM_EVENT_UNDERSTOOD,
    STREAM_EVENTS,
)

_SOURCE_ARNS = {
    # A stream, or one of its registered consumers.
    "Kinesis": re.compile(r"arn:[^:]+:kinesis:[^:]*:[^:]*:stream/[^/:]+(/consumer/[^/:]+:[0-9]+)?"),
    "DynamoDB": re.compile(r"arn:[^:]+:dynamodb:[^:]*:[^:]*:table/[^/:]+/stream/.+"),
}
_POSITIONS = {
    "Kinesis": ("TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"),
    "DynamoDB": ("TRIM_HORIZON", "LATEST"),
}
_DESTINATION_ARN = re.compile(r"arn:[^:]+:(sqs|sns|s3):[^:]*:[^:]*:[^:]+")
_USE = "use a Kinesis stream, one of its consumers, or a table's stream"
_MAX_BATCH_SIZE = 10_000
_MAX_BATCHING_WINDOW_S = 300
_MAX_TUMBLING_WINDOW_S = 900
_MAX_RETRIES = 10_000
_RECORD_AGE_S = (60, 604_800)
_MAX_PARALLELIZATION = 10
# What FunctionName may be: a name or a whole or partial ARN, each with a qualifier or not.
_FUNCTION_NAME = re.compile(r"(?:(?:arn:[^:]+:lambda:[^:]*:)?[^:]*:function:)?(?P<name>[^:]+)(?::[^:]+)?")


def sam_events(function: str, events: Any, line: int, context: Context) -> tuple[EventSourceSpec, ...]:
    """The sources of a SAM function's ``Events``, which are not resolved yet: those ignored need not resolve."""
    if not isinstance(events, MapNode):
        raise context.error(f"{function}: Events must be a mapping", line)
    sources = []
    for name, event in events.items():
        at, what = events.line_of(name), f"Events.{name}"
        kind = event.get("Type") if isinstance(event, MapNode) else None
        if not isinstance(kind, str):
            raise context.error(f"{function} {what} has no Type", at, "use a Kinesis or DynamoDB event")
        if kind in IGNORED_EVENTS:
            context.ignore(function, SAM_FUNCTION, at, IGNORED_EVENTS[kind], f"{what} ({kind})")
            continue
        if kind not in STREAM_EVENTS:
            raise context.error(
                f"{function} {what}: an event of type {kind} is not supported", event.line_of("Type"), _USE
            )
        raw = event.get("Properties", MapNode(at))
        if not isinstance(raw, MapNode):
            raise context.error(f"{function} {what}: Properties must be a mapping", at)
        settings = context.take(function, MAPPING, raw, STREAM_EVENT_UNDERSTOOD, what)
        source = _source(f"{function}{name}", settings, "Stream", (kind,))
        if source is None:
            context.ignore(function, SAM_FUNCTION, at, "it is not enabled", what)
        else:
            sources.append(source)
    return tuple(sources)


def mapping(logical_id: str, properties: Properties, context: Context) -> tuple[str, EventSourceSpec] | None:
    """(function name, source) of an AWS::Lambda::EventSourceMapping; None when it is not enabled."""
    given = properties.text("FunctionName")
    match = _FUNCTION_NAME.fullmatch(given)
    if match is None:
        raise properties.error("FunctionName", f"{given!r} is not a function's name or ARN")
    source = _source(logical_id, properties, "EventSourceArn", STREAM_EVENTS)
    if source is None:
        context.ignore(logical_id, MAPPING, properties.line, "it is not enabled")
        return None
    return match["name"], source


def _source(name: str, settings: Properties, arn_key: str, kinds: tuple[str, ...]) -> EventSourceSpec | None:
    arn = settings.text(arn_key)
    kind = next((kind for kind in kinds if _SOURCE_ARNS[kind].fullmatch(arn)), None)
    if kind is None:
        raise settings.error(arn_key, f"the event source {arn} is not supported", _USE)
    position = settings.one_of("StartingPosition", _POSITIONS[kind])
    retry_age = settings.whole("MaximumRecordAgeInSeconds", -1, _RECORD_AGE_S[1], -1)
    if -1 < retry_age < _RECORD_AGE_S[0]:
        raise settings.error(
            "MaximumRecordAgeInSeconds", f"MaximumRecordAgeInSeconds must be -1 or from {_RECORD_AGE_S[0]}"
        )
    responses = settings.texts("FunctionResponseTypes")
    if responses not in ([], ["ReportBatchItemFailures"]):
        raise settings.error("FunctionResponseTypes", "FunctionResponseTypes may hold ReportBatchItemFailures only")
    factor = settings.whole("ParallelizationFactor", 1, _MAX_PARALLELIZATION, 1)
    bisect = settings.flag("BisectBatchOnFunctionError", False)
    filters, destination = _filters(settings), _destination(settings)
    source = EventSourceSpec(
        name=name,
        kind=kind,
        source_arn=arn,
        starting_position=position,
        starting_timestamp_s=_timestamp(settings, position),
        batch_size=settings.whole("BatchSize", 1, _MAX_BATCH_SIZE, 100),
        batching_window_s=settings.whole("MaximumBatchingWindowInSeconds", 0, _MAX_BATCHING_WINDOW_S, 0),
        tumbling_window_s=settings.whole("TumblingWindowInSeconds", 0, _MAX_TUMBLING_WINDOW_S, 0),
        maximum_retry_attempts=settings.whole("MaximumRetryAttempts", -1, _MAX_RETRIES, -1),
        report_batch_item_failures=bool(responses),
        parallelization_factor=factor,
        maximum_record_age_s=retry_age,
        bisect_batch_on_function_error=bisect,
        filter_criteria=filters,
        destination_config=destination,
    )
    if source.tumbling_window_s and factor > 1:
        raise settings.error("ParallelizationFactor", "ParallelizationFactor must be 1 with a tumbling window")
    return source if settings.flag("Enabled", True) else None


def _timestamp(settings: Properties, position: str) -> float | None:
    key = "StartingPositionTimestamp"
    if (position == "AT_TIMESTAMP") != (key in settings):
        raise settings.error(key, f"{key} goes with StartingPosition AT_TIMESTAMP, and only with it")
    if key not in settings:
        return None
    try:
        stamp = float(settings.text(key))
    except ValueError:
        stamp = math.nan
    if not 0 <= stamp < math.inf:
        raise settings.error(key, f"{key} must be in seconds since the epoch", "such as 1620240672")
    return stamp


def _filters(settings: Properties) -> dict[str, Any]:
    given = settings.part("FilterCriteria", ("Filters",))
    patterns = [one.text("Pattern") for one in given.parts("Filters", ("Pattern",))]
    return {"Filters": [{"Pattern": pattern} for pattern in patterns]} if patterns else {}


def _destination(settings: Properties) -> dict[str, Any]:
    given = settings.part("DestinationConfig", ("OnFailure",)).part("OnFailure", ("Destination", "Type"))
    if not given.values:
        return {}
    arn = given.text("Destination")
    if not _DESTINATION_ARN.fullmatch(arn):
        raise given.error(
            "Destination", f"Destination {arn[:200]!r} is not supported", "give the ARN of a queue, topic or bucket"
        )
    return {"OnFailure": {"Destination": arn}}
