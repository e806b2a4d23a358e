"""PutRecords, PutRecord and GetRecords as the load generator sends and reads them: fast, and record by record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from loadtests.payloads import Message
from producers.put_records import shard_of
from producers.retry import Meaning, meaning_of_entry


class _Call(msgspec.Struct, gc=False):
    StreamName: str
    Records: Sequence[Message]


class _Result(msgspec.Struct, gc=False):
    ShardId: str | None = None
    ErrorCode: str | None = None
    ErrorMessage: str | None = None


class _Answer(msgspec.Struct):
    FailedRecordCount: int
    Records: list[_Result]


class _Record(msgspec.Struct, gc=False):
    Data: bytes
    PartitionKey: str


class _Page(msgspec.Struct):
    Records: list[_Record]
    MillisBehindLatest: int = 0
    NextShardIterator: str | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Answer).decode
_decode_page = msgspec.json.Decoder(_Page).decode
_decode_one = msgspec.json.Decoder(_Result).decode


def encode(stream: str, messages: Sequence[Message]) -> bytes:
    """The body of a PutRecords request."""
    return _encode(_Call(stream, messages))


def encode_one(stream: str, message: Message) -> bytes:
    """The body of a PutRecord request."""
    return b'{"StreamName":' + _encode(stream) + b"," + _encode(message)[1:]


@dataclass(slots=True)
class End:
    """What became of a call's records on one shard."""

    accepted: int = 0
    throttled: int = 0
    failed: int = 0
    size_bytes: int = 0


@dataclass(slots=True)
class Ends:
    """An answer read record by record. ``refused`` holds the throttled messages, in order, to send again."""

    by_shard: dict[str, End] = field(default_factory=dict)
    refused: list[Message] = field(default_factory=list)
    problems: dict[tuple[str, str, str], int] = field(default_factory=dict)
    """Shard, code, message to how many."""

    def of(self, shard: str) -> End:
        found = self.by_shard.get(shard)
        if found is None:
            found = self.by_shard[shard] = End()
        return found


def read(body: bytes, messages: Sequence[Message]) -> Ends:
    """What an HTTP 200 says of each record.

    :raises ValueError: when it is no PutRecords answer, or one to another call.
    """
    try:
        answer = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"not a PutRecords answer: {error}") from None
    if len(answer.Records) != len(messages):
        raise ValueError(f"{len(messages)} records were sent, the answer tells of {len(answer.Records)}")
    ends = Ends()
    by_shard = ends.by_shard
    for result, message in zip(answer.Records, messages, strict=True):
        shard = result.ShardId or ""
        if result.ErrorCode is not None:
            _refuse(ends, result.ErrorCode, result.ErrorMessage or "", message)
        elif shard in by_shard:
            end = by_shard[shard]
            end.accepted += 1
            end.size_bytes += len(message.data) + len(message.partition_key)
        else:
            by_shard[shard] = End(1, 0, 0, len(message.data) + len(message.partition_key))
    return ends


def read_one(body: bytes, message: Message) -> Ends:
    """What an HTTP 200 to a PutRecord says. :raises ValueError:"""
    try:
        result = _decode_one(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"not a PutRecord answer: {error}") from None
    ends = Ends()
    ends.by_shard[result.ShardId or ""] = End(1, 0, 0, len(message.data) + len(message.partition_key))
    return ends


@dataclass(frozen=True, slots=True)
class Page:
    """An answer to GetRecords."""

    records: int
    size_bytes: int
    behind_ms: int
    next_iterator: str | None


def read_page(body: bytes) -> Page:
    """:raises ValueError: when it is no GetRecords answer."""
    try:
        page = _decode_page(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"not a GetRecords answer: {error}") from None
    size = sum(len(record.Data) + len(record.PartitionKey) for record in page.Records)
    return Page(len(page.Records), size, page.MillisBehindLatest, page.NextShardIterator)


def refused_whole(code: str, message: str, messages: Sequence[Message], throttled: bool) -> Ends:
    """A call that failed as one."""
    ends = Ends()
    end = ends.of(shard_of(message) or "")
    if throttled:
        end.throttled, ends.refused = len(messages), list(messages)
    else:
        end.failed = len(messages)
    ends.problems[shard_of(message) or "", code, message] = len(messages)
    return ends


def _refuse(ends: Ends, code: str, text: str, message: Message) -> None:
    shard = shard_of(text) or ""
    if meaning_of_entry(code) is Meaning.THROTTLED:
        ends.of(shard).throttled += 1
        ends.refused.append(message)
    else:
        ends.of(shard).failed += 1
    key = (shard, code, text)
    ends.problems[key] = ends.problems.get(key, 0) + 1
