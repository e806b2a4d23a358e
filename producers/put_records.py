"""PutRecords on the wire (Kinesis's JSON 1.1 protocol): encode a call, decode its answer.

Records cost one small struct each on the way out; msgspec turns their bytes into base64. An answer in which
nothing failed is read no further than its ``FailedRecordCount``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from producers.delivery import Record
from producers.retry import Meaning, meaning_of_entry

CONTENT_TYPE: Final = "application/x-amz-json-1.1"
TARGET_PREFIX: Final = "Kinesis_20131202."
MAX_RECORDS: Final = 500
"""Records a call (AWS, PutRecords)."""
MAX_BYTES: Final = 10 * 1024 * 1024
"""Bytes a call, partition keys included (AWS, PutRecords; 5 MiB until October 2025)."""


class AnswerUnreadable(ValueError):  # noqa: N818 - reads as what happened
    """An HTTP 200 whose body is no PutRecords answer to the call."""


class _Entry(msgspec.Struct, gc=False):
    Data: bytes
    PartitionKey: str


class _Head(msgspec.Struct):
    FailedRecordCount: int


class _Result(msgspec.Struct, gc=False):
    ErrorCode: str | None = None
    ErrorMessage: str | None = None


class _Answer(msgspec.Struct):
    Records: list[_Result]


class Encoder:
    """Encodes calls to one stream, given by name or ARN."""

    __slots__ = ("_head",)

    def __init__(self, stream: str) -> None:
        self._head = json.dumps(stream_parameter(stream))[:-1].encode() + b',"Records":'

    def encode(self, records: Sequence[Record]) -> bytes:
        """The body of a PutRecords request, entries in the order of ``records``."""
        data = [record.data for record in records]
        keys = [record.partition_key for record in records]
        return b"".join((self._head, _encode(list(map(_Entry, data, keys))), b"}"))


def stream_parameter(stream: str) -> dict[str, str]:
    """How a request names the stream: ``StreamARN`` for an ARN, else ``StreamName``."""
    return {"StreamARN" if stream.startswith("arn:") else "StreamName": stream}


def failures(body: bytes, sent: int) -> list[tuple[int, Meaning, str]]:
    """Which of the ``sent`` entries failed: index, what it means, ``"code: message"``. Empty when all were stored.

    :raises AnswerUnreadable: when the body is something else.
    """
    try:
        if _decode_head(body).FailedRecordCount == 0:
            return []
        results = _decode_answer(body).Records
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise AnswerUnreadable(f"not a PutRecords answer: {error}") from None
    if len(results) != sent:
        raise AnswerUnreadable(f"{sent} records were sent, the answer tells of {len(results)}")
    return [
        (index, meaning_of_entry(result.ErrorCode), f"{result.ErrorCode}: {result.ErrorMessage}")
        for index, result in enumerate(results)
        if result.ErrorCode is not None
    ]


def shard_of(problem: str) -> str | None:
    """The shard that a throttle's message names, as in ``Rate exceeded for shard shardId-000000000001 in ...``."""
    match = _SHARD.search(problem)
    return match and match.group()


def error_of(body: bytes, headers: Mapping[str, str]) -> tuple[str, str]:
    """Short code and message of an error answer; the code is empty when the body is not the service's own."""
    try:
        error: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        error = None
    if not isinstance(error, dict):
        error = {}
    code = headers.get("x-amzn-ErrorType") or error.get("__type") or error.get("code") or ""
    message = error.get("message") or error.get("Message") or body[:200].decode(errors="replace").strip()
    # "com.amazonaws.kinesis#ResourceNotFoundException:http://..." is a code in full dress.
    return str(code).rpartition("#")[2].partition(":")[0], str(message)


_encode = msgspec.json.Encoder().encode
_decode_head = msgspec.json.Decoder(_Head).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode
_SHARD = re.compile(r"shardId-\d{12}")
