"""One invocation for an event source mapping: sent, measured, and its answer understood."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from consumers.runtime.actions import Invoke
from consumers.runtime.batches import Outcome, interpret
from consumers.runtime.config import MappingConfig
from consumers.runtime.function import STOPPED, Function, InvokeResult
from consumers.runtime.statistics import FunctionMeter


def invoke(
    function: Function, meter: FunctionMeter, mapping: MappingConfig, clock: Callable[[], float], action: Invoke
) -> Outcome:
    """Send the event of ``action`` and wait for what comes of it.

    IteratorAge is from the arrival of the last record of the batch until it is sent. Raises only what is a mistake
    of this program, and counts it before.
    """
    event = action.event()
    began = clock()
    age_ms = max(0.0, (began - action.records[-1].arrival_s) * 1000) if action.records else None
    meter.began(began, age_ms)
    began_exact = time.monotonic()
    try:
        result = function.invoke(event)
    except BaseException as error:
        broken = InvokeResult(
            request_id="",
            error_type=type(error).__name__,
            error_message=str(error),
            duration_ms=(time.monotonic() - began_exact) * 1000,
        )
        meter.ended(clock(), broken, action.count)
        raise
    now = clock()
    meter.ended(now, result, action.count)
    outcome = outcome_of(result, action, report_batch_item_failures=mapping.report_batch_item_failures)
    if outcome.failure is not None and result.error_type is None:
        meter.failed(now, outcome.failure)
    meter.processed(outcome.processed)
    return outcome


def outcome_of(result: InvokeResult, action: Invoke, *, report_batch_item_failures: bool) -> Outcome:
    """What ``result`` means for the batch of ``action``."""
    # Stopped is neither a success nor an attempt: the batch is still the first after the checkpoint.
    if result.is_throttled or result.error_type == STOPPED:
        return Outcome(0, is_throttled=True, is_stopped=result.error_type == STOPPED)
    if result.payload is None:
        return Outcome(
            0,
            (result.error_type or "Unknown", result.error_message),
            request_id=result.request_id,
            function_error="Unhandled",
        )
    outcome = interpret(
        result.payload,
        [record.aws_sequence_number for record in action.records],
        report_batch_item_failures=report_batch_item_failures,
        is_windowed=action.window is not None,
        is_final=action.is_final,
    )
    return replace(outcome, request_id=result.request_id)
