"""DynamoDB Streams' operations: ListStreams, DescribeStream, GetShardIterator, GetRecords.

Not enforced: AWS advises against more than two readers of a shard and throttles at rates that it does not publish.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from typing import Any

import orjson

from simulator.cloud import limits, request_model, signed
from simulator.cloud.dynamodb_answers import Response, error_body, respond
from simulator.cloud.dynamodb_streams import StreamShard, TableStream, TableStreams
from simulator.cloud.errors import AwsError

TARGET = "DynamoDBStreams_20120810"
_TRIMMED = "The operation attempted to read past the oldest stream record in a shard."


class DynamoDBStreamsApi:
    """Answers for the streams in ``streams``; ``clock`` gives seconds since the epoch."""

    def __init__(self, streams: TableStreams, clock: Callable[[], float]) -> None:
        self._streams = streams
        self._clock = clock
        self._operations: dict[str, Callable[[dict[str, Any], str, float], dict[str, Any]]] = {
            "ListStreams": self._list_streams,
            "DescribeStream": self._describe_stream,
            "GetShardIterator": self._get_shard_iterator,
            "GetRecords": self._get_records,
        }

    def handle(self, operation: str, body: bytes, region: str) -> Response:
        """Answer one request; never raises for what a client sent."""
        try:
            handler = self._operations.get(operation)
            if handler is None:
                raise AwsError("UnknownOperationException", None)
            try:
                data = orjson.loads(body or b"{}")
            except orjson.JSONDecodeError:
                data = None
            request = request_model.check("dynamodbstreams", operation, data)
            now = self._clock()
            self._streams.settle(now)
            return respond(200, orjson.dumps(handler(request, region, now), default=_text_of))
        except AwsError as error:
            return respond(error.status, error_body(error.code, error.message))

    # -- what there is ---------------------------------------------------------------------------------

    def _list_streams(self, request: dict[str, Any], region: str, now: float) -> dict[str, Any]:
        table, after = request.get("TableName"), request.get("ExclusiveStartStreamArn", "")
        found = sorted(
            (
                one
                for one in self._streams.by_arn.values()
                if one.region == region and table in (None, one.table) and one.arn > after
            ),
            key=lambda one: one.arn,
        )
        page = found[: request.get("Limit", 100)]
        answer: dict[str, Any] = {
            "Streams": [{"StreamArn": one.arn, "TableName": one.table, "StreamLabel": one.label} for one in page]
        }
        if len(found) > len(page):
            answer["LastEvaluatedStreamArn"] = page[-1].arn
        return answer

    def _describe_stream(self, request: dict[str, Any], region: str, now: float) -> dict[str, Any]:
        stream = self._stream(request["StreamArn"], region)
        shards, after = stream.shards, request.get("ExclusiveStartShardId", "")
        asked = request.get("ShardFilter", {})
        if asked.get("Type") == "CHILD_SHARDS":
            shards = [shard for shard in shards if shard.parent == asked.get("ShardId")]
        shards = [shard for shard in shards if shard.shard_id > after]
        page = shards[: request.get("Limit", 100)]
        described = {
            "StreamArn": stream.arn,
            "StreamLabel": stream.label,
            "StreamStatus": "ENABLED" if stream.disabled_at is None else "DISABLED",
            "StreamViewType": stream.view,
            "CreationRequestDateTime": round(stream.created_at, 3),
            "TableName": stream.table,
            "KeySchema": stream.key_schema,
            "Shards": [_describe(shard) for shard in page],
        }
        if len(shards) > len(page):
            described["LastEvaluatedShardId"] = page[-1].shard_id
        return {"StreamDescription": described}

    def _stream(self, arn: str, region: str) -> TableStream:
        stream = self._streams.by_arn.get(arn)
        if stream is None or stream.region != region:
            raise AwsError("ResourceNotFoundException", f"Requested resource not found: Stream: {arn} not found")
        return stream

    def _shard(self, stream: TableStream, shard_id: str) -> StreamShard:
        for shard in stream.shards:
            if shard.shard_id == shard_id:
                return shard
        raise AwsError(
            "ResourceNotFoundException",
            f"Requested resource not found: Shard does not exist: {shard_id}, stream: {stream.arn}",
        )

    # -- reading ---------------------------------------------------------------------------------------

    def _get_shard_iterator(self, request: dict[str, Any], region: str, now: float) -> dict[str, Any]:
        stream = self._stream(request["StreamArn"], region)
        shard = self._shard(stream, request["ShardId"])
        kind, number = request["ShardIteratorType"], request.get("SequenceNumber")
        if kind in ("AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"):
            if number is None:
                raise AwsError("ValidationException", f"SequenceNumber is required for ShardIteratorType {kind}")
            position = _number(number) + (kind == "AFTER_SEQUENCE_NUMBER")
            if position < shard.trimmed_to:
                raise AwsError("TrimmedDataAccessException", _TRIMMED)
        elif kind == "LATEST":
            position = stream.next_number if shard.closed_at is None else (shard.last or 0) + 1
        else:
            position = max(shard.first, shard.trimmed_to)
        return {"ShardIterator": _iterator(stream.arn, shard.shard_id, position, now)}

    def _get_records(self, request: dict[str, Any], region: str, now: float) -> dict[str, Any]:
        arn, shard_id, position, issued_at = _read_iterator(request["ShardIterator"])
        stream = self._stream(arn, region)
        shard = self._shard(stream, shard_id)
        lifetime_ms = int(limits.STREAM_ITERATOR_LIFETIME)
        if (now - issued_at) * 1000 > lifetime_ms:
            raise AwsError(
                "ExpiredIteratorException",
                f"Iterator expired. The iterator was created at time {_date(issued_at)} while right now it is "
                f"{_date(now)} which is further in the future than the tolerated delay of {lifetime_ms} milliseconds.",
            )
        if position < shard.trimmed_to:
            raise AwsError("TrimmedDataAccessException", _TRIMMED)
        most = int(limits.STREAM_READ_RECORDS)
        limit = request.get("Limit", most)
        if limit > most:
            raise AwsError(
                "ValidationException",
                f"1 validation error detected: Value '{limit}' at 'limit' failed to satisfy constraint: Member must "
                f"have value less than or equal to {most}",
            )
        records = list(shard.read(position, limit))
        following = records[-1].number + 1 if records else max(position, shard.first)
        answer: dict[str, Any] = {"Records": [record.body for record in records]}
        if shard.closed_at is None or following <= (shard.records[-1].number if shard.records else 0):
            answer["NextShardIterator"] = _iterator(arn, shard_id, following, now)
        return answer


def _describe(shard: StreamShard) -> dict[str, Any]:
    numbers = {"StartingSequenceNumber": str(shard.first)}
    if shard.last is not None:
        numbers["EndingSequenceNumber"] = str(shard.last)
    described: dict[str, Any] = {"ShardId": shard.shard_id, "SequenceNumberRange": numbers}
    return described | ({"ParentShardId": shard.parent} if shard.parent is not None else {})


def _text_of(value: Any) -> str:
    """Binary attributes are bytes inside the cloud and base64 on the wire."""
    if not isinstance(value, bytes):
        raise TypeError(f"{type(value).__name__} is no part of an item")
    return base64.b64encode(value).decode()


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise AwsError("ValidationException", f"Invalid SequenceNumber: {text[:60]}")
    return int(text)


def _iterator(arn: str, shard_id: str, position: int, now: float) -> str:
    # AWS's iterators begin with the stream's ARN in the clear.
    return f"{arn}|1|{signed.seal(json.dumps([arn, shard_id, position, now]).encode())}"


def _read_iterator(text: str) -> tuple[str, str, int, float]:
    content = signed.open_(text.rpartition("|")[2])
    if content is None:
        raise AwsError("ValidationException", "Invalid ShardIterator")
    arn, shard_id, position, issued_at = json.loads(content)
    return arn, shard_id, position, issued_at


def _date(at: float) -> str:
    return time.strftime("%a %b %d %H:%M:%S UTC %Y", time.gmtime(at))
