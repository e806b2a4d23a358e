"""What goes into a batch, and what a function's answer means. Pure functions.

A batch ends at BatchSize, at Lambda's payload limit (of the *encoded* event: base64 makes data a third larger),
or where its tumbling window ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from consumers.runtime.event import Record

PAYLOAD_MAX_BYTES = 6 * 1024 * 1024
"""Request payload of a synchronous invocation, 6 MB (CAH gettingstarted-limits)."""


@dataclass(frozen=True, slots=True)
class Cut:
    """The first ``count`` buffered records are a batch. ``is_closed``: waiting for more would not enlarge it."""

    count: int
    is_closed: bool


def cut(
    records: Iterable[Record],
    *,
    batch_size: int,
    envelope_bytes: int,
    window_end_s: int | None = None,
    payload_max_bytes: int = PAYLOAD_MAX_BYTES,
) -> Cut:
    """The next batch. A ``count`` of 0 with ``is_closed`` means that the first record alone is too large."""
    count, size = 0, envelope_bytes - 1  # the first record has no comma before it
    for record in records:
        if count == batch_size or (window_end_s is not None and record.arrival_s >= window_end_s):
            return Cut(count, is_closed=True)
        each = len(record.encoded) + 1
        taken = record.count
        if taken > 1:
            taken = max(0, min(taken, batch_size - count, (payload_max_bytes - size) // each))
        elif size + each > payload_max_bytes:
            taken = 0
        size += each * taken
        count += taken
        if taken < record.count:
            return Cut(count, is_closed=True)
    return Cut(count, is_closed=count == batch_size)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an invocation achieved.

    The first ``processed`` records of the batch are done. ``failure`` is None for a complete success, else
    ``(error type, message)``. ``state`` is the window's new state as JSON, None where there is none.
    ``is_throttled``: the function was not invoked at all, which is no attempt; ``is_stopped`` besides: because the
    runtime ends, which is not even a refusal. ``function_error`` is Lambda's
    X-Amz-Function-Error: "Unhandled", or None where the function answered and the answer reports the failure.
    """

    processed: int
    failure: tuple[str, str] | None = None
    state: bytes | None = None
    is_throttled: bool = False
    is_stopped: bool = False
    request_id: str = ""
    function_error: str | None = None


class _Item(msgspec.Struct):
    itemIdentifier: str | None  # noqa: N815


class _Answer(msgspec.Struct):
    state: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    batchItemFailures: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET  # noqa: N815


_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_items = msgspec.json.Decoder(list[_Item] | None).decode
_BAD_ITEMS = "Alleycat.BatchItemFailures"
_BAD_WINDOW_ANSWER = "Alleycat.TumblingWindowResponse"


def interpret(
    payload: bytes,
    sequence_numbers: Sequence[str],
    *,
    report_batch_item_failures: bool,
    is_windowed: bool = False,
    is_final: bool = False,
) -> Outcome:
    """What the answer ``payload`` (JSON) of a function that did not fail means for its batch.

    With ReportBatchItemFailures the *lowest* reported sequence number is where the batch is taken up again. An
    empty or null list, ``{}``, ``null``, ``[]`` and ``""`` are complete successes; an identifier that is empty,
    null, misnamed or not of this batch is a complete failure (recorded against AWS). In a tumbling window an
    answer without a ``state`` object fails too, except on the last invocation, where AWS's own sample returns none.
    """
    total = len(sequence_numbers)
    text = payload.strip()
    answer = _Answer()
    if text.startswith(b"{"):
        try:
            answer = _decode_answer(text)
        except msgspec.DecodeError as error:
            return Outcome(0, (_BAD_ITEMS, f"the answer is not JSON: {error}"))
    elif report_batch_item_failures and not is_windowed and text not in (b"", b"null", b"[]", b'""'):
        return Outcome(0, (_BAD_ITEMS, f"the answer is not a JSON object: {_short(text)}"))

    state: bytes | None = None
    if is_windowed and not isinstance(answer.state, msgspec.UnsetType) and bytes(answer.state).startswith(b"{"):
        state = bytes(answer.state)
    if is_windowed and state is None and not is_final:
        problem = f"in a tumbling window a function must answer {{'state': {{...}}}}, got {_short(text)}"
        return Outcome(0, (_BAD_WINDOW_ANSWER, problem))

    if not report_batch_item_failures or isinstance(answer.batchItemFailures, msgspec.UnsetType):
        return Outcome(total, state=state)
    try:
        items = _decode_items(answer.batchItemFailures)
    except msgspec.DecodeError as error:
        return Outcome(0, (_BAD_ITEMS, f"batchItemFailures is malformed: {error}"))
    if not items:
        return Outcome(total, state=state)
    # User records that were aggregated share a number, and the first of them is where to begin again.
    positions = {number: total - 1 - place for place, number in enumerate(reversed(sequence_numbers))}
    processed = total
    for item in items:
        position = positions.get(item.itemIdentifier or "")
        if position is None:
            problem = f"itemIdentifier {item.itemIdentifier!r} is not a sequence number of this batch"
            return Outcome(0, (_BAD_ITEMS, problem))
        processed = min(processed, position)
    failure = (
        "Alleycat.PartialBatch",
        f"{len(items)} of {total} records reported, from {sequence_numbers[processed]}",
    )
    return Outcome(processed, failure, state)


def _short(text: bytes) -> str:
    return text[:80].decode(errors="replace") + ("..." if len(text) > 80 else "")
