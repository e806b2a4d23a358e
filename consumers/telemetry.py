"""Decode a Lambda batch of telemetry, and set aside what is not telemetry.

A batch is decoded record by record with one typed msgspec decoder. Joining a batch into one JSON array for a
single decode looks faster, but a record may then leak into its neighbours (``{...},{...}`` counts as two,
``{"x":[{}`` and ``{}]}`` as one), and the checks against that cost more than the calls they save. One call a
record cannot be fooled: it accepts exactly one object and nothing after it. One bad record costs one exception,
whatever else is in the batch.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from msgspec import DecodeError, Meta, Struct, ValidationError
from msgspec.json import Decoder

# Integers stay exact in every JSON reader, JavaScript's screens included.
_Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]
# Bikes send 30..90 rpm and a resistance of 33..86; anything beyond 300 is a broken sensor.
_Reading = Annotated[float, Meta(ge=0, le=300)]

KPL_MAGIC = b"\xf3\x89\x9a\xc2"
REASON_MAX_CHARS = 200


class Telemetry(Struct, gc=False):
    """One bike's reading of one second, as the bikes send it. Further fields are ignored.

    ``deviceTimestamp`` in ms since the epoch, ``cadence`` in rpm, ``second`` from the start of the race.
    """

    uuid: Annotated[str, Meta(max_length=64)]
    event: Literal["update", "final"]
    deviceTimestamp: _Count  # noqa: N815
    second: _Count
    raceId: _Count  # noqa: N815
    name: Annotated[str, Meta(max_length=256)]
    racerId: _Count  # noqa: N815
    classId: Annotated[int, Meta(ge=1, le=6)]  # noqa: N815
    cadence: _Reading
    resistance: _Reading


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that is not telemetry. ``data`` is base64 as Lambda delivered it; ``position`` is in the batch."""

    sequence_number: str
    reason: str
    data: str
    partition_key: str
    approximate_arrival_timestamp: float
    position: int


@dataclass(frozen=True, slots=True)
class Batch:
    """The accepted messages in the order of the batch, and the rejected records."""

    messages: list[Telemetry]
    rejected: list[Rejected]

    def positions(self) -> Sequence[int]:
        """Where in the batch each message stood."""
        total = len(self.messages) + len(self.rejected)
        if not self.rejected:
            return range(total)
        bad = {rejected.position for rejected in self.rejected}
        return [position for position in range(total) if position not in bad]


_decode = Decoder(Telemetry).decode


def decode(records: Sequence[Mapping[str, Any]]) -> Batch:
    """Decode the ``Records`` of a Kinesis event. Never raises for what a producer sent."""
    messages: list[Telemetry] = []
    rejected: list[Rejected] = []
    append, a2b = messages.append, binascii.a2b_base64
    for position, record in enumerate(records):
        try:
            append(_decode(a2b(record["kinesis"]["data"], strict_mode=True)))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            rejected.append(_reject(record, position, error))
    return Batch(messages, rejected)


def output_hundredths(cadence: float, resistance: float) -> int:
    """``(cadence + 35) * (resistance + 65) / 100`` in hundredths, half up.

    The hundredths and the division cancel. Readings have one decimal, so a product lies on a grid of hundredths;
    the 1e-9 lifts halves that floating point left just below.
    """
    return int((cadence + 35.0) * (resistance + 65.0) + 0.500000001)


State = dict[str, dict[str, int]]
"""Best output in hundredths by racer id, by ``"{raceId}|{classId}"``: about 14 bytes a racer as JSON, so that
Lambda's 1 MB of window state holds 70,000 racers."""


def aggregate(messages: Iterable[Telemetry], state: State) -> None:
    """Raise the bests in ``state`` by ``messages``. A maximum: order and repetition change nothing."""
    race_id = class_id = -1
    best: dict[str, int] = {}
    for message in messages:
        if message.raceId != race_id or message.classId != class_id:
            race_id, class_id = message.raceId, message.classId
            best = state.setdefault(f"{race_id}|{class_id}", {})
        # output_hundredths, inlined: a call would cost a tenth of the whole handler.
        output = int((message.cadence + 35.0) * (message.resistance + 65.0) + 0.500000001)
        racer_id = str(message.racerId)
        if output > best.get(racer_id, -1):
            best[racer_id] = output


def _reject(record: Mapping[str, Any], position: int, error: Exception) -> Rejected:
    kinesis = record.get("kinesis") if isinstance(record, Mapping) else None
    fields: Mapping[str, Any] = kinesis if isinstance(kinesis, Mapping) else {}
    data = fields.get("data")
    return Rejected(
        sequence_number=str(fields.get("sequenceNumber", "")),
        reason=_reason(data, error)[:REASON_MAX_CHARS],
        data=data if isinstance(data, str) else "",
        partition_key=str(fields.get("partitionKey", "")),
        approximate_arrival_timestamp=float(fields.get("approximateArrivalTimestamp", 0.0)),
        position=position,
    )


_MISSING = re.compile(r"Object missing required field (`\w+`)")
_AT_FIELD = re.compile(r"(?P<what>.*) - at `\$\.(?P<field>\w+)`", re.DOTALL)
_BOUND = re.compile(r"(<=|>=) |of length|out of range")


def _reason(data: object, error: Exception) -> str:
    """Say in one line why a record was refused; msgspec's words, by field."""
    if not isinstance(data, str):
        return "not a Kinesis record: it has no `kinesis.data`"
    if not isinstance(error, DecodeError | UnicodeDecodeError | RecursionError):
        return f"not base64: {error}"
    if not data:
        return "empty record"
    if binascii.a2b_base64(data[:8]).startswith(KPL_MAGIC):
        return "KPL aggregated record: turn aggregation off in the producer, this function does not deaggregate"
    if isinstance(error, UnicodeDecodeError):
        return f"not JSON: not UTF-8, {error.reason}"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    text = str(error)
    if not isinstance(error, ValidationError):
        return f"not JSON: {text.removeprefix('JSON is malformed: ')}"
    if missing := _MISSING.match(text):
        return f"missing field {missing[1]}"
    if at := _AT_FIELD.fullmatch(text):
        complaint = "out of range" if _BOUND.search(at["what"]) else "of the wrong type"
        if at["what"].startswith("Invalid enum value"):
            complaint = "unknown"
        return f"`{at['field']}` {complaint}: {at['what']}"
    return f"not telemetry: {text}"
