"""Functions: AWS::Serverless::Function with its Globals, and AWS::Lambda::Function."""

from __future__ import annotations

import re
from typing import Any, Final

from simulator.template.context import Context
from simulator.template.errors import TemplateError
from simulator.template.event_sources import sam_events
from simulator.template.intrinsics import is_intrinsic, scalar_text
from simulator.template.nodes import ListNode, MapNode
from simulator.template.properties import Properties
from simulator.template.specs import EventSourceSpec, FunctionSpec
from simulator.template.support import FUNCTION, SAM_FUNCTION

MAX_TIMEOUT_S = 900
MEMORY_MB = (128, 10_240)
ACCOUNT_CONCURRENCY = 1000  # the default quota of an account
MAX_ENVIRONMENT_BYTES = 4096
_VARIABLE = re.compile(r"[a-zA-Z][a-zA-Z0-9_]+")
# Lambda sets these itself and refuses a function that would.
RESERVED_VARIABLES: Final = frozenset(
    (
        "_HANDLER",
        "_X_AMZN_TRACE_ID",
        "AWS_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_DEFAULT_REGION",
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_LAMBDA_RUNTIME_API",
        "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "LAMBDA_RUNTIME_DIR",
        "LAMBDA_TASK_ROOT",
    )
)


def sam_function(logical_id: str, raw: MapNode, ignore_globals: Any, context: Context) -> FunctionSpec:
    """AWS::Serverless::Function. ``ignore_globals`` is its IgnoreGlobals: ``*``, a list of names, or None."""
    shared = context.globals.get("Function", MapNode(raw.line))
    if not isinstance(shared, MapNode):
        raise context.error("Globals Function must be a mapping", context.globals.line_of("Function"))
    if ignore_globals == "*":
        shared = MapNode(raw.line)
    elif isinstance(ignore_globals, ListNode):
        shared = shared.without(tuple(str(name) for name in ignore_globals))
    merged = merge(shared, raw)
    properties = context.take(logical_id, SAM_FUNCTION, merged.without(("Events",)))
    events = sam_events(logical_id, merged.get("Events", MapNode(merged.line)), merged.line_of("Events"), context)
    return _function(logical_id, properties, "CodeUri", events, context)


def lambda_function(logical_id: str, raw: MapNode, context: Context) -> FunctionSpec:
    """AWS::Lambda::Function."""
    return _function(logical_id, context.take(logical_id, FUNCTION, raw), "Code", (), context)


def merge(under: MapNode, over: MapNode) -> MapNode:
    """``over`` on top of ``under`` as SAM merges Globals: mappings by key, lists appended, else ``over``.

    Both are as written, so that an intrinsic is one value and ``AWS::NoValue`` takes a global one away.
    """
    merged = under.without(())
    merged.line = over.line
    for key, value in over.items():
        mine = merged.get(key)
        if isinstance(mine, MapNode) and isinstance(value, MapNode) and not (is_intrinsic(mine) or is_intrinsic(value)):
            value = merge(mine, value)
        elif isinstance(mine, ListNode) and isinstance(value, ListNode):
            value = ListNode(value.line, [*mine, *value])
        merged.put(key, value, over.line_of(key))
    return merged


def _function(
    logical_id: str, properties: Properties, code_key: str, events: tuple[EventSourceSpec, ...], context: Context
) -> FunctionSpec:
    handler, runtime = properties.text("Handler"), properties.text("Runtime")
    if not re.fullmatch(r"[^\s.]+(\.[^\s.]+)+", handler):
        raise properties.error("Handler", f"Handler must be module.function, not {handler[:80]!r}")
    if not re.fullmatch(r"python3\.[0-9]+", runtime):
        raise properties.error("Runtime", f"Runtime {runtime[:80]!r} is not supported", "functions run in Python here")
    code = properties.values.get(code_key, "." if code_key == "CodeUri" else None)
    if not isinstance(code, str) or re.match(r"\w+://", code):
        raise properties.error(code_key, f"{code_key} must be a local folder here", "as it is before `sam package`")
    code_path = context.file.parent / code.replace("\0", "?")
    if not code_path.is_dir():
        raise properties.error(code_key, f"there is no folder {code!r}", f"{code_key} is relative to the template")
    reserved = "ReservedConcurrentExecutions"
    name = context.names.name(logical_id)
    return FunctionSpec(
        logical_id,
        name,
        context.names.arn(properties.kind, name),
        handler,
        runtime,
        code_path.resolve(),
        properties.whole("Timeout", 1, MAX_TIMEOUT_S, 3),
        properties.whole("MemorySize", *MEMORY_MB, 128),
        _environment(properties),
        properties.whole(reserved, 0, ACCOUNT_CONCURRENCY) if reserved in properties else None,
        events,
    )


def _environment(properties: Properties) -> dict[str, str]:
    given = properties.part("Environment", ("Variables",)).part("Variables")
    variables: dict[str, str] = {}
    for name in given.values:
        text = scalar_text(given.values[name])
        problem = ""
        if name in RESERVED_VARIABLES:
            problem = "is reserved, Lambda sets it"
        elif not _VARIABLE.fullmatch(name):
            problem = "must have at least two letters, digits and underscores, a letter first"
        elif text is None or "\0" in text:
            problem = "must be a text"
        if problem or text is None:
            raise _variable_error(given, name, problem)
        variables[name] = text
    size = sum(len(name.encode()) + len(text.encode()) for name, text in variables.items())
    if size > MAX_ENVIRONMENT_BYTES:
        raise properties.error(
            "Environment", f"Environment has {size:,} bytes", f"Lambda takes {MAX_ENVIRONMENT_BYTES:,} at most"
        )
    return variables


def _variable_error(given: Properties, name: str, problem: str) -> TemplateError:
    return given.error(name, f"the variable {name} {problem}", "rename or remove it")
