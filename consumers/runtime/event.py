"""The event a function receives for a batch of a Kinesis or DynamoDB stream, as Lambda builds it.

A record is encoded once, when it is read: its size then counts exactly towards Lambda's payload limit, a retry
encodes nothing, and an event is a join of bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from consumers.runtime.config import MappingConfig

EMPTY_STATE = b"{}"
_encode = msgspec.json.Encoder().encode


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record of a shard. ``encoded`` is its entry of the event's ``Records``, as JSON.

    ``partition_key`` is what order is kept for: a DynamoDB record's is the item's keys. ``sequence_number`` is where
    to go on: of several user records that share AWS's number, all but the last have their index behind it (``495:0``).
    ``count`` is how many records it stands for: 1 where records are read; a planner has none to read, and lets one
    stand for all that are alike and came together.
    """

    sequence_number: str
    arrival_s: float
    encoded: bytes
    partition_key: str = ""
    count: int = 1

    def first(self, count: int) -> Record:
        """It, standing for ``count`` only."""
        return self if count == self.count else msgspec.structs.replace(self, count=count)

    @property
    def aws_sequence_number(self) -> str:
        """The sequence number as AWS, and so the function, knows it."""
        return self.sequence_number.partition(":")[0]


@dataclass(frozen=True, slots=True)
class Window:
    """A tumbling window, ``[start_s, end_s)`` in seconds since the epoch."""

    start_s: int
    end_s: int


class _Kinesis(msgspec.Struct, gc=False):
    kinesisSchemaVersion: str  # noqa: N815
    partitionKey: str  # noqa: N815
    sequenceNumber: str  # noqa: N815
    data: bytes | str
    approximateArrivalTimestamp: float  # noqa: N815


class _EventRecord(msgspec.Struct, gc=False):
    kinesis: _Kinesis
    eventSource: str  # noqa: N815
    eventVersion: str  # noqa: N815
    eventID: str  # noqa: N815
    eventName: str  # noqa: N815
    invokeIdentityArn: str  # noqa: N815
    awsRegion: str  # noqa: N815
    eventSourceARN: str  # noqa: N815


class EventBuilder:
    """Encodes records and events of one shard for one mapping. Holds no state."""

    def __init__(self, mapping: MappingConfig, shard_id: str) -> None:
        self.shard_id = shard_id
        self._arn = mapping.stream_arn
        self._region = mapping.region
        self._role = f"arn:aws:iam::{mapping.account_id}:role/{mapping.function_name}-role"
        self._prefix = f"{shard_id}:"

    def record(
        self, sequence_number: str, partition_key: str, data: bytes | str, arrival_s: float, index: int | None = None
    ) -> Record:
        """``data`` is bytes, or the base64 text of the wire; ``arrival_s`` is kept to the millisecond.

        ``index`` is of a user record that another one with the same sequence number follows.
        """
        arrival_s = round(arrival_s, 3)
        entry = _EventRecord(
            # msgspec writes bytes as base64, which is what the event wants.
            _Kinesis("1.0", partition_key, sequence_number, data, arrival_s),
            "aws:kinesis",
            "1.0",
            self._prefix + sequence_number,
            "aws:kinesis:record",
            self._role,
            self._region,
            self._arn,
        )
        position = sequence_number if index is None else f"{sequence_number}:{index}"
        return Record(position, arrival_s, _encode(entry), partition_key)

    def dynamodb_record(self, record: Mapping[str, Any], created_s: float) -> Record:
        """``record`` as DynamoDB Streams returns it, binary attributes in base64 (or bytes, which become that).

        ``created_s`` is its ApproximateCreationDateTime, which the event has as a number.
        """
        change = dict(record["dynamodb"])
        change["ApproximateCreationDateTime"] = int(created_s) if created_s.is_integer() else created_s
        entry = {name: record[name] for name in _DYNAMODB_MEMBERS if name in record}
        entry |= {"dynamodb": change, "eventSourceARN": self._arn}
        keys = _encode(dict(sorted(change.get("Keys", {}).items()))).decode()
        return Record(change["SequenceNumber"], created_s, _encode(entry), keys)

    def window_members(self, window: Window, state: bytes, *, is_final: bool, is_early: bool) -> bytes:
        """The members that a tumbling window adds to the event; ``state`` is JSON."""
        return _encode(
            {
                "window": {"start": iso_utc(window.start_s), "end": iso_utc(window.end_s)},
                "state": msgspec.Raw(state),
                "shardId": self.shard_id,
                "eventSourceARN": self._arn,
                "isFinalInvokeForWindow": is_final,
                "isWindowTerminatedEarly": is_early,
            }
        )


def iso_utc(epoch_s: int) -> str:
    """``2020-07-30T17:00:00Z``."""
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


_DYNAMODB_MEMBERS = ("eventID", "eventName", "eventVersion", "eventSource", "awsRegion", "userIdentity")
_HEAD = b'{"Records":['


def assemble(records: Iterable[Record], members: bytes = EMPTY_STATE) -> bytes:
    """The event as JSON: ``Records``, then the members of ``members``, a JSON object."""
    rest = members[1:]
    return b"".join((_HEAD, b",".join([record.encoded for record in records]), b"]," if len(rest) > 1 else b"]", rest))


def envelope_bytes(members: bytes = EMPTY_STATE) -> int:
    """Size of the event without any record. Each record adds its own size, and each but the first a comma."""
    return len(_HEAD) + 2 if members == EMPTY_STATE else len(_HEAD) + 1 + len(members)
